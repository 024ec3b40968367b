//! Files: read up to a bound, written whole, and why one cannot be used.

use crate::fault::Fault;
use crate::text::words;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// `O_NONBLOCK` of Linux, the same on every architecture that is served (`fcntl.h`).
const O_NONBLOCK: i32 = 0o4000;
/// No file is read beyond this.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// A change is used after two equal readings this far apart, so that a file is not read while it is written.
pub(crate) const SETTLING: Duration = Duration::from_millis(500);
/// The same for the first reading, for which requests wait.
pub(crate) const FIRST_SETTLING: Duration = Duration::from_millis(50);
/// No file takes longer to be written.
const DRAFT_LIFETIME: Duration = Duration::from_secs(60);

/// Why a file is not read or not written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// The system says why.
    #[error("{words}")]
    System {
        /// Which error it is.
        kind: ErrorKind,
        /// The system's words.
        words: String,
    },
    /// It is a directory, a device, a FIFO or a socket.
    #[error("not a regular file")]
    NotRegular,
    /// It holds more than so many bytes.
    #[error("larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// It does not lie in the directory that it has to lie in. The link that leads out, where there is one.
    #[error(
        "it leads out of the directory{}",
        .0.as_ref().map_or(String::new(), |to| format!(", to `{}`", to.display()))
    )]
    Outside(Option<PathBuf>),
    /// Links lead to a file of this name, which is not its own.
    #[error("it leads to `{}`, and may lead only to a file of its own name", .0.display())]
    OtherName(PathBuf),
    /// Its mode lets others write it.
    #[error("others than its owner may write it")]
    WritableByOthers,
    /// Neither root nor the user of this process owns it.
    #[error("it belongs to another user")]
    OtherUser,
    /// Two readings differ.
    #[error("it is being written right now")]
    Unsettled,
    /// The last good policy was not made of it.
    #[error("not kept")]
    NotKept,
}

impl FileError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotRegular
            | Self::TooLarge(_)
            | Self::Outside(_)
            | Self::OtherName(_)
            | Self::Unsettled => Fault::Document,
            Self::System { .. } | Self::WritableByOthers | Self::OtherUser | Self::NotKept => Fault::Gateway,
        }
    }

    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System { kind: ErrorKind::NotFound, .. })
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::System { kind: error.kind(), words: words(&error) }
    }
}

/// A regular file's content, of at most [`MAX_BYTES`]. Anything else (a directory, a device, a FIFO that would block)
/// is refused.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    // What is opened may be another thing than what lay there a moment ago: a FIFO would block until somebody writes.
    let file = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    content(file, MAX_BYTES)
}

/// What is in a regular file, if that is at most `limit` bytes; no more is read of one that is larger.
pub(crate) fn content(file: File, limit: u64) -> Result<Vec<u8>, FileError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    if metadata.len() > limit {
        return Err(FileError::TooLarge(limit));
    }
    // One byte more than is expected, so that the end is found without asking for more memory.
    let mut content = Vec::with_capacity(usize::try_from(metadata.len() + 1).unwrap_or_default());
    file.take(limit + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > limit {
        return Err(FileError::TooLarge(limit));
    }
    Ok(content)
}

/// Reads a file that nobody but its owner can have written. `None` where there is none.
pub(crate) fn read_private(file: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let metadata = match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(FileError::WritableByOthers);
    }
    // The process's own entry belongs to the user it runs as.
    if ![0, fs::metadata("/proc/self").map_or(0, |own| own.uid())].contains(&metadata.uid()) {
        return Err(FileError::OtherUser);
    }
    read(file).map(Some)
}

/// Writes a file that appears under its name when it is complete, readable by its owner alone.
pub(crate) fn write_whole(file: &Path, content: &[u8]) -> Result<(), FileError> {
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
        error.into()
    })
}

/// Removes drafts that a process left which was killed while it wrote, of files whose names begin with one of
/// `prefixes`. Of one that still runs they stay, unless they are so old that it cannot be writing them: its number may
/// have been given anew.
pub(crate) fn remove_drafts(directory: &Path, prefixes: &[&str]) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(|name| {
            let (written, writer) = name.strip_suffix(".new")?.rsplit_once('.')?;
            let is_ours = prefixes.iter().any(|prefix| written.starts_with(prefix));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_who_has_to_act() {
        let absent = read(Path::new("/none/tenantauth")).unwrap_err();
        assert_eq!(absent.to_string(), "no such file or directory (os error 2)");
        assert!(absent.is_missing() && absent.fault() == Fault::Gateway);
        let device = read(Path::new("/dev/null")).unwrap_err();
        assert_eq!(device, FileError::NotRegular);
        assert!(!device.is_missing() && device.fault() == Fault::Document);
        let denied = write_whole(Path::new("/proc/tenantauth"), b"x").unwrap_err();
        assert_eq!(denied.fault(), Fault::Gateway);
    }
}
