//! The files of the machine on which nginx runs, as far as whoever looks may see them.

use super::nginx::glob;
use crate::engine::unix_now;
use crate::file::{self, FileError};
use crate::network::NetworkSet;
use crate::policy::store::Bundle;
use crate::policy::store::offline::{self, Reading};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Entries of a directory, and files that one pattern matches.
const MAX_ENTRIES: usize = 100_000;

/// What an examination reads of a machine.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> Result<String, FileError>;

    /// The files that a pattern of glob(7) matches, sorted.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf>;

    /// Whether something is there; an error where that cannot be seen.
    ///
    /// # Errors
    /// Why it cannot be seen; not that it is missing.
    fn exists(&self, path: &Path) -> Result<bool, FileError>;

    /// What keeps nginx's worker user, of this name, from reading a file: words and help. `None` where nothing does, or
    /// where it cannot be seen.
    fn obstacle(&self, path: &Path, user: &str) -> Option<(String, String)>;

    /// What a policy says that concerns nginx's configuration; `None` where it cannot be used.
    fn policy(&self, path: &Path) -> Option<Policy>;
}

/// What a policy says that concerns nginx's configuration.
pub struct Policy {
    /// The networks of each restriction, with its name.
    pub permitted: Vec<(String, NetworkSet)>,
    /// The length of an audit record, in bytes.
    pub max_bytes: usize,
}

/// The files of this machine.
///
/// `obstacle`: what keeps a user from reading a file, as words and help.
pub struct Here<O>(pub O);

impl<O: Fn(&Path, &str) -> Option<(String, String)>> Files for Here<O> {
    fn read(&self, path: &Path) -> Result<String, FileError> {
        // A comment in another encoding is none of our business.
        file::read(path).map(|content| String::from_utf8_lossy(&content).into_owned())
    }

    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::new()];
        for component in pattern.components() {
            let Component::Normal(name) = component else {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            };
            if !name.as_bytes().iter().any(|byte| b"*?[".contains(byte)) {
                found.iter_mut().for_each(|path| path.push(name));
                continue;
            }
            found = found.iter().flat_map(|directory| entries(directory, name)).take(MAX_ENTRIES).collect();
        }
        found.retain(|path| path.exists());
        found.sort();
        found
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        match fs::metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn obstacle(&self, path: &Path, user: &str) -> Option<(String, String)> {
        (self.0)(path, user)
    }

    fn policy(&self, path: &Path) -> Option<Policy> {
        let reading = Reading { former: &Bundle::EMPTY, secrets: false, test: false };
        let (outcome, _, _) = offline::read(path, unix_now(), reading);
        let snapshot = outcome.compiled?.snapshot;
        let restrictions = snapshot.restrictions.iter();
        let permitted = restrictions.map(|own| (own.name.to_string(), own.networks.clone())).collect();
        Some(Policy { permitted, max_bytes: snapshot.audit.max_bytes })
    }
}

/// The entries of a directory that have the form of a pattern.
fn entries(directory: &Path, pattern: &OsStr) -> Vec<PathBuf> {
    let shown = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let names = fs::read_dir(shown).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let names = names.map(|entry| entry.file_name());
    // As for a shell, `*` matches no name that begins with a dot.
    let fits = |name: &OsStr| {
        (!name.as_bytes().starts_with(b".") || pattern.as_bytes().starts_with(b"."))
            && glob(pattern.as_bytes(), name.as_bytes())
    };
    names.filter(|name| fits(name)).map(|name| directory.join(name)).collect()
}

/// No files at all: of another machine, or where none may be looked at.
pub struct Nowhere;

impl Files for Nowhere {
    fn read(&self, _: &Path) -> Result<String, FileError> {
        Err(io::Error::from(io::ErrorKind::NotFound).into())
    }

    fn matching(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

    fn exists(&self, _: &Path) -> Result<bool, FileError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    fn obstacle(&self, _: &Path, _: &str) -> Option<(String, String)> {
        None
    }

    fn policy(&self, _: &Path) -> Option<Policy> {
        None
    }
}
