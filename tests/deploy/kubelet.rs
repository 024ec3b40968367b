//! A projected volume, laid out on the disk as the kubelet does it: a directory for each version, a link `..data` to the
//! present one, and a link for each name in it. `pkg/volume/util/atomic_writer.go` and `volume_linux.go` of Kubernetes.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// What ConfigMaps and Secrets hold, by their names.
pub(crate) type Data = BTreeMap<String, BTreeMap<String, String>>;

/// The ConfigMaps and Secrets among rendered objects.
pub(crate) fn data_of(objects: &[Value]) -> Data {
    let mut all = Data::new();
    for object in objects.iter().filter(|object| ["ConfigMap", "Secret"].contains(&kind(object))) {
        let values = object["data"].as_object().unwrap().iter().map(|(key, value)| {
            let text = value.as_str().unwrap();
            let text = if kind(object) == "Secret" { decode(text) } else { text.to_owned() };
            (key.clone(), text)
        });
        all.insert(object["metadata"]["name"].as_str().unwrap().to_owned(), values.collect());
    }
    all
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

fn decode(base64: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(base64).unwrap()).unwrap()
}

/// The files of a projected volume: paths and contents. What is optional and missing is left out.
///
/// # Panics
/// Where the pod could not start: a source or key is missing.
fn payload(volume: &Value, data: &Data) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for source in volume["projected"]["sources"].as_array().unwrap() {
        let (_, source) = source.as_object().unwrap().iter().next().unwrap();
        let name = source["name"].as_str().unwrap();
        let optional = source["optional"] == true;
        for item in source["items"].as_array().unwrap() {
            let value = data.get(name).and_then(|values| values.get(item["key"].as_str().unwrap()));
            let Some(value) = value else {
                assert!(optional, "the pod does not start: {name} {item}");
                continue;
            };
            files.insert(item["path"].as_str().unwrap().to_owned(), value.clone());
        }
    }
    files
}

/// A mounted volume.
pub(crate) struct Mount {
    pub(crate) directory: PathBuf,
    version: u32,
}

impl Mount {
    /// Mounts a volume for the first time.
    pub(crate) fn new(directory: PathBuf, pod: &Value, volume: &Value, data: &Data) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let mut mount = Self { directory, version: 0 };
        mount.update(pod, volume, data);
        mount
    }

    /// Brings what ConfigMaps and Secrets hold now.
    pub(crate) fn update(&mut self, pod: &Value, volume: &Value, data: &Data) {
        let files = payload(volume, data);
        let group = pod["securityContext"]["fsGroup"].as_u64().map(|group| u32::try_from(group).unwrap());
        let mode = volume["projected"]["defaultMode"].as_u64().unwrap();
        let mode = u32::try_from(mode).unwrap();
        let old = fs::read_link(self.directory.join("..data")).ok();

        self.version += 1;
        let name = format!("..2026_11_24_14_50_{:02}.{:09}", self.version, 123_456_789);
        let version = self.directory.join(&name);
        fs::create_dir(&version).unwrap();
        for (path, content) in &files {
            let file = version.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        }
        give_to_group(&version, group);
        symlink(&name, self.directory.join("..data_tmp")).unwrap();
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).unwrap();

        let visible: BTreeSet<&str> = files.keys().map(|path| path.split('/').next().unwrap()).collect();
        for name in &visible {
            let link = self.directory.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(format!("..data/{name}"), link).unwrap();
            }
        }
        for entry in fs::read_dir(&self.directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("..") && !visible.contains(&*name) {
                fs::remove_file(self.directory.join(name)).unwrap();
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.directory.join(old)).unwrap();
        }
    }
}

/// What `fsGroup` does to a volume that is only read: the group may read it all.
fn give_to_group(path: &Path, group: Option<u32>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let more = if metadata.is_dir() { 0o2550 } else { 0o440 };
    if let Some(group) = group {
        // Without root nobody can give a file away; it is then read by its owner.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            chown(path, None, Some(group)).unwrap();
        }
        fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7777 | more)).unwrap();
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_group(&entry.unwrap().path(), group);
        }
    }
}
