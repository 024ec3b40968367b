//! An audit log: opened, distinguished from other files, and read line by line.

use super::record::{self, Next};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use thiserror::Error;

const BUFFER: usize = 256 << 10;

/// What compressed files begin with, what they are called and what unpacks them to stdout.
const COMPRESSED: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
    (b"BZh", "bzip2", "bzcat"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4cat"),
];

/// Why a log is not used.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error("cannot read `{file}`: {why}")]
    Unreadable { file: String, why: String },
    #[error("`{file}` is compressed ({format})")]
    Compressed { file: String, format: &'static str, unpack: &'static str },
    #[error("`{file}` holds no audit record")]
    NoRecord { file: String },
    #[error("`{file}` holds no record of the request `{id}`")]
    NoSuchRequest { file: String, id: String },
    #[error("line {line} of `{file}` is no record that can be decided: {why}")]
    Corrupt { file: String, line: u64, why: String },
}

impl LogError {
    /// What to do about it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Unreadable { .. } => "check the path, and that this user may read it".to_owned(),
            Self::Compressed { file, unpack, .. } => {
                format!("unpack it, and give `-` for the file: `{unpack} {file} | tenantauth ...`")
            }
            Self::NoRecord { .. } => "it must hold the JSON lines that nginx writes by \
                 `access_log FILE tenantauth_audit`"
                .to_owned(),
            Self::NoSuchRequest { .. } => {
                "the id stands in the client's message and in X-Request-Id; the log \
                 may have been rotated, or nginx has not flushed it yet"
                    .to_owned()
            }
            Self::Corrupt { .. } => "`replay` lists all such lines of a log".to_owned(),
        }
    }
}

/// A log that is being read.
pub(crate) struct Log {
    file: String,
    input: BufReader<Box<dyn Read>>,
    /// In bytes; `None` for a pipe, which can be read only once.
    pub(crate) size: Option<u64>,
}

impl Log {
    /// Opens a log; `-` is stdin.
    ///
    /// # Errors
    /// [`LogError::Unreadable`], [`LogError::Compressed`].
    pub(crate) fn open(path: &Path) -> Result<Self, LogError> {
        let file = path.display().to_string();
        let unreadable = |error: io::Error| LogError::unreadable(&file, &error);
        let (input, size): (Box<dyn Read>, _) = if path.as_os_str() == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let opened = File::open(path).map_err(unreadable)?;
            let metadata = opened.metadata().map_err(unreadable)?;
            if metadata.is_dir() {
                return Err(unreadable(ErrorKind::IsADirectory.into()));
            }
            (Box::new(opened), metadata.is_file().then_some(metadata.len()))
        };
        let mut input = BufReader::with_capacity(BUFFER, input);
        let start = input.fill_buf().map_err(unreadable)?;
        let compressed = COMPRESSED.iter().find(|(magic, ..)| start.starts_with(magic));
        if let Some((_, format, unpack)) = compressed {
            return Err(LogError::Compressed { file, format, unpack });
        }
        Ok(Self { file, input, size })
    }

    /// What messages call it.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Reads the next line into `line`, as [`record::next`] does. Returns what it is, and how many bytes were read.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> Result<(Next, u64), LogError> {
        record::next(&mut self.input, line).map_err(|error| LogError::unreadable(&self.file, &error))
    }
}

impl LogError {
    fn unreadable(file: &str, error: &io::Error) -> Self {
        Self::Unreadable { file: file.to_owned(), why: crate::text::words(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn compressed_files_are_told_by_how_they_begin() {
        let file = std::env::temp_dir().join(format!("tenantauth-log-{}", std::process::id()));
        for (content, format) in [
            (&b"\x1f\x8b"[..], Some("gzip")),
            (b"\x28\xb5\x2f\xfdxx", Some("zstd")),
            (b"BZh9", Some("bzip2")),
            (b"\x04\x22\x4d\x18", Some("lz4")),
            (b"\x1f", None),
            (b"", None),
            (b"{\"schema\":1}\n", None),
        ] {
            fs::write(&file, content).unwrap();
            let found = match Log::open(&file) {
                Err(LogError::Compressed { format, .. }) => Some(format),
                Err(error) => panic!("{error}"),
                Ok(_) => None,
            };
            assert_eq!(found, format, "{content:?}");
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(Log::open(&file), Err(LogError::Unreadable { .. })));
    }
}
