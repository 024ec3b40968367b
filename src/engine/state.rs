//! Files of the state directory: what a worker leaves for the next start of nginx. They may hold secrets.

use crate::policy::store::{self, Bundle};
use crate::policy::{Compiled, Outcome};
use crate::token::digest::sha256_hex;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first line of a kept policy; the number is that of the format.
const MAGIC: &[u8] = b"tenantauth policy 2\n";
/// What every version begins it with.
const MAGIC_OF_ANY: &[u8] = b"tenantauth policy ";

/// No file takes longer to be written.
const DRAFT_LIFETIME: Duration = Duration::from_secs(60);

/// Writes a file that appears under its name when it is complete, readable by its owner alone.
///
/// # Errors
/// The reason in words.
pub(super) fn write_whole(file: &Path, content: &[u8]) -> Result<(), String> {
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        // One that a killed process left may belong to somebody else.
        _ = fs::remove_file(&draft);
        let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        written.write_all(content)?;
        written.sync_all()?;
        fs::rename(&draft, file)
    };
    write().map_err(|error| {
        _ = fs::remove_file(&draft);
        format!("cannot write `{}`: {}", file.display(), words(&error))
    })
}

/// Removes drafts that a process left which was killed while it wrote. Of one that still runs they stay, unless they are
/// so old that it cannot be writing them: its number may have been given anew.
pub(super) fn remove_drafts(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(|name| {
            let (kept, writer) = name.strip_suffix(".new")?.rsplit_once('.')?;
            let is_ours = ["policy-", "jwks-"].iter().any(|prefix| kept.starts_with(prefix));
            writer.parse::<u32>().ok().filter(|_| is_ours)
        });
        let Some(writer) = writer else { continue };
        let runs = Path::new("/proc").join(writer.to_string()).exists() && writer != std::process::id();
        let age =
            entry.metadata().and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
        if !runs || age.is_some_and(|age| age > DRAFT_LIFETIME) {
            _ = fs::remove_file(entry.path());
        }
    }
}

/// Reads a file that nobody but its owner can have written. `None` where there is none.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read_private(file: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(words(&error)),
        Ok(metadata) if metadata.permissions().mode() & 0o022 != 0 => {
            return Err("others than its owner may write it".to_owned());
        }
        // The process's own entry belongs to the user it runs as.
        Ok(metadata)
            if ![0, fs::metadata("/proc/self").map_or(0, |own| own.uid())].contains(&metadata.uid()) =>
        {
            return Err("it belongs to another user".to_owned());
        }
        Ok(_) => {}
    }
    store::read(file).map(Some)
}

fn words(error: &io::Error) -> String {
    error.to_string().to_lowercase()
}

/// The last good policy that a start of nginx would go on with, where the one on disk is not usable.
///
/// `directory`: `state_dir` of `init_worker`. `policy`: the very path given there. `now`: Unix seconds. `None` where
/// nothing was kept.
///
/// # Errors
/// Why what was kept is not used, in words.
pub fn last_good(directory: &Path, policy: &Path, now: u64) -> Result<Option<Compiled>, String> {
    let Some(kept) = KeptPolicy::new(directory, policy).recall()? else { return Ok(None) };
    let unusable = |what: &str| format!("what `{}` holds is not used: {what}", directory.display());
    let bundle = Bundle::from_bytes(&kept).filter(|bundle| bundle.is_of(policy));
    let bundle = bundle.ok_or_else(|| unusable("it was made of another policy"))?;
    let Outcome { compiled, .. } = bundle.compile(now);
    compiled.map(Some).ok_or_else(|| unusable("this version refuses it"))
}

/// The last good policy, kept in the state directory.
pub(super) struct KeptPolicy {
    file: PathBuf,
}

impl KeptPolicy {
    /// `policy`: the path by which the policy is known; each has a file of its own.
    pub(super) fn new(directory: &Path, policy: &Path) -> Self {
        let mut id = sha256_hex(policy.as_os_str().as_encoded_bytes());
        id.truncate(32);
        Self { file: directory.join(format!("policy-{id}")) }
    }

    /// Keeps what a policy was made of. `taken_at`: when it came into force, in milliseconds since 1970. What another
    /// worker kept later stays.
    ///
    /// # Errors
    /// The reason in words. Nothing is kept then: better none than one that is older than what was in force, whose
    /// grants may have been withdrawn since.
    pub(super) fn keep(&self, bundle: &[u8], taken_at: u64) -> Result<(), String> {
        if let Ok(Some((_, kept_at))) = self.read()
            && kept_at > taken_at
        {
            return Ok(());
        }
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(format!("{taken_at}\n{}\n", sha256_hex(bundle)).as_bytes());
        content.extend_from_slice(bundle);
        write_whole(&self.file, &content).map_err(|error| match fs::remove_file(&self.file) {
            Err(removal) if removal.kind() != io::ErrorKind::NotFound => {
                format!("{error}, nor remove what it holds: {}", words(&removal))
            }
            _ => error,
        })
    }

    /// What was kept. `None` where nothing was.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub(super) fn recall(&self) -> Result<Option<Vec<u8>>, String> {
        let problem = |what: String| format!("`{}` is not used: {what}", self.file.display());
        Ok(self.read().map_err(problem)?.map(|(bundle, _)| bundle))
    }

    fn read(&self) -> Result<Option<(Vec<u8>, u64)>, String> {
        let Some(content) = read_private(&self.file)? else { return Ok(None) };
        let parsed = || {
            let mut parts = content.strip_prefix(MAGIC)?.splitn(3, |byte| *byte == b'\n');
            let taken_at = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            let (digest, bundle) = (parts.next()?, parts.next()?);
            (sha256_hex(bundle).as_bytes() == digest).then(|| (bundle.to_vec(), taken_at))
        };
        let is_foreign = content.starts_with(MAGIC_OF_ANY) && !content.starts_with(MAGIC);
        let problem = if is_foreign { "another version of tenantauth wrote it" } else { "it is damaged" };
        parsed().map(Some).ok_or_else(|| problem.to_owned())
    }
}
