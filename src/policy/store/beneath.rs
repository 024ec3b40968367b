//! Files that have to lie inside a directory: opened so that no file outside of it is, and what was checked is read.

use crate::file::FileError;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// As many links are followed as Linux follows itself (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// Opens what lies beneath a directory, and no link at the end of the path: of one it says [`Errno::LOOP`].
type Open = fn(&OwnedFd, &Path) -> Result<OwnedFd, Errno>;

impl From<Errno> for FileError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Opens a file inside a directory for reading. Links are followed, as long as they lead to something inside.
///
/// `path`: relative to `directory`. `own_name`: what the file must be called in the end, where that matters; a mounted
/// volume's `team-a.yaml -> ..data/team-a.yaml` is, `team-a.yaml -> team-b.yaml` is not. What was opened may be no
/// regular file, and nothing waits for a FIFO's writer.
pub(super) fn open(directory: &Path, path: &Path, own_name: Option<&OsStr>) -> Result<File, FileError> {
    open_by(open_beneath, directory, path, own_name)
}

fn open_by(open: Open, directory: &Path, path: &Path, own_name: Option<&OsStr>) -> Result<File, FileError> {
    let opening = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, directory, opening, Mode::empty())?;
    let mut path = PathBuf::from(path);
    let mut target: Option<PathBuf> = None;
    for _ in 0..=MAX_LINKS {
        match open(&root, &path) {
            Ok(file) if own_name.is_none_or(|own| path.file_name() == Some(own)) => return Ok(file.into()),
            Ok(_) => {
                return Err(FileError::OtherName(path.file_name().unwrap_or_default().into()));
            }
            Err(Errno::LOOP) => {
                let link = readlinkat(&root, &path, Vec::new())?;
                let link = PathBuf::from(OsString::from_vec(link.into_bytes()));
                path = path.parent().unwrap_or(Path::new("")).join(&link);
                target = Some(link);
            }
            Err(Errno::XDEV) => return Err(FileError::Outside(target)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::LOOP.into())
}

/// Lets the kernel see to it that nothing outside is opened (openat2(2), Linux 5.6 and later).
fn open_beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let opening = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat2(root, path, opening, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
        // No such call, or a sandbox that does not know it; a rename somewhere while `..` was followed; an absolute link,
        // which is refused wherever it leads.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::XDEV) => open_verified(root, path),
        opened => opened,
    }
}

/// Takes hold of a file without opening it, asks where it lies, and opens that very file if it is inside.
fn open_verified(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let held = openat(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&held)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    let by_number = |file: &OwnedFd| format!("/proc/self/fd/{}", file.as_raw_fd());
    let place = |file: &OwnedFd| {
        fs::read_link(by_number(file)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    if !place(&held)?.starts_with(place(root)?) {
        return Err(Errno::XDEV);
    }
    let opening = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(CWD, by_number(&held), opening, Mode::empty())
}

#[cfg(test)]
mod tests;
