//! Whether another user could read a file: its own permission bits, and the right to search every directory on the
//! way to it, links included. Access control lists and security modules are not looked at.

use super::accounts::User;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Links that are followed before a path counts as a loop: the kernel's own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;

const READ: u32 = 4;
const SEARCH: u32 = 1;

/// What keeps a user from reading a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// What is wrong, beginning with the file or directory.
    pub(super) message: String,
    /// What to do about it.
    pub(super) help: String,
}

/// What keeps `user` from reading the file `path`, if anything does.
pub(super) fn obstacle(path: &Path, user: &User) -> Option<Obstacle> {
    walk(path, user).err()
}

fn walk(path: &Path, user: &User) -> Result<(), Obstacle> {
    let absolute = std::path::absolute(path).map_err(|error| unknown(path, &error))?;
    let mut at = PathBuf::from("/");
    let mut todo = components(&absolute);
    let mut links = 0;
    while let Some(next) = todo.pop() {
        // What is reached so far is a directory: everything else ends the path.
        let next = match Path::new(&next).components().next() {
            Some(Component::RootDir) => {
                at = PathBuf::from("/");
                continue;
            }
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::Normal(name)) => at.join(name),
            _ => continue,
        };
        require(SEARCH, &at, user)?;
        let metadata = fs::symlink_metadata(&next).map_err(|error| unknown(&next, &error))?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(unknown(path, &"too many levels of symbolic links"));
            }
            let target = fs::read_link(&next).map_err(|error| unknown(&next, &error))?;
            todo.extend(components(&target));
        } else {
            at = next;
        }
    }
    require(READ, &at, user)
}

/// The parts of a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| AsRef::<OsStr>::as_ref(&part).to_owned()).collect()
}

fn require(access: u32, path: &Path, user: &User) -> Result<(), Obstacle> {
    let metadata = fs::metadata(path).map_err(|error| unknown(path, &error))?;
    let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    if user.may(access, mode, uid, gid) {
        return Ok(());
    }
    let (path, name) = (path.display(), &user.name);
    let (verb, bit) = if access == SEARCH { ("search", 'x') } else { ("read", 'r') };
    Err(Obstacle {
        message: format!(
            "user `{name}` cannot {verb} `{path}`: its mode is {mode:04o}, owner {uid}, group {gid}"
        ),
        help: format!(
            "give it a group that `{name}` is in, and that group the right: `chmod g+{bit} {path}`"
        ),
    })
}

fn unknown(path: &Path, why: &dyn std::fmt::Display) -> Obstacle {
    Obstacle {
        message: format!("cannot tell who may read `{}`: {}", path.display(), why.to_string().to_lowercase()),
        help: "check the path, or run this as root".to_owned(),
    }
}
