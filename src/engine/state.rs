//! Files of the state directory: what a worker leaves for the next start of nginx. They may hold secrets.

use crate::file::{FileError, read_private, write_whole};
use crate::policy::store::Bundle;
use crate::policy::{Compiled, Outcome};
use crate::token::digest::sha256_hex;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The first line of a kept policy; the number is that of the format.
const MAGIC: &[u8] = b"tenantauth policy 2\n";
/// What every version begins it with.
const MAGIC_OF_ANY: &[u8] = b"tenantauth policy ";

/// What the names of its files begin with.
pub(super) const PREFIXES: [&str; 2] = ["policy-", "jwks-"];

/// Why a file of the state directory is not written or not used. The fault is the gateway's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// Writing failed, and so did the removal of what the file held where there is a second reason.
    #[error(
        "cannot write `{}`: {why}{}",
        file.display(),
        removal.as_ref().map_or(String::new(), |why| format!(", nor remove what it holds: {why}"))
    )]
    NotWritten {
        /// The file.
        file: PathBuf,
        /// Why it was not written.
        why: FileError,
        /// Why what it held was not removed.
        removal: Option<FileError>,
    },
    /// What a file holds is not used.
    #[error("`{}` is not used: {why}", .0.display(), why = .1)]
    Unusable(PathBuf, Unusable),
    /// What the directory holds is not used.
    #[error("what `{}` holds is not used: {why}", .0.display(), why = .1)]
    UnusablePolicy(PathBuf, Unusable),
}

/// What is wrong with a file of the state directory, or with its content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    #[error("{0}")]
    File(#[from] FileError),
    #[error("another version of tenantauth wrote it")]
    OtherVersion,
    #[error("it is damaged")]
    Damaged,
    #[error("it was made of another policy")]
    OtherPolicy,
    #[error("this version refuses it")]
    Refused,
    #[error("it holds the keys of another issuer")]
    OtherIssuer,
    #[error("it was written in the future")]
    FromFuture,
    #[error("it is older than 24 hours")]
    TooOld,
}

/// The last good policy that a start of nginx would go on with, where the one on disk is not usable.
///
/// `directory`: `state_dir` of `init_worker`. `policy`: the very path given there. `now`: Unix seconds. `None` where
/// nothing was kept.
///
/// # Errors
/// Why what was kept is not used.
pub fn last_good(directory: &Path, policy: &Path, now: u64) -> Result<Option<Compiled>, StateError> {
    let Some(bundle) = last_good_bundle(directory, policy)? else { return Ok(None) };
    let Outcome { compiled, .. } = bundle.compile(now);
    compiled.map(Some).ok_or_else(|| StateError::UnusablePolicy(directory.into(), Unusable::Refused))
}

/// What the last good policy was made of. `directory`, `policy`: as for [`last_good`]. `None` where nothing was kept.
///
/// # Errors
/// Why what was kept is not used.
pub(crate) fn last_good_bundle(directory: &Path, policy: &Path) -> Result<Option<Bundle>, StateError> {
    let Some(kept) = KeptPolicy::new(directory, policy).recall()? else { return Ok(None) };
    let bundle = Bundle::from_bytes(&kept).filter(|bundle| bundle.is_of(policy));
    bundle.map(Some).ok_or_else(|| StateError::UnusablePolicy(directory.into(), Unusable::OtherPolicy))
}

/// How much later another worker may have kept a policy that is not to be overwritten, in milliseconds: one that is slow
/// takes this long to write its own.
const AHEAD: u64 = 60_000;

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
    /// Nothing is kept then: better none than one that is older than what was in force, whose grants may have been
    /// withdrawn since.
    pub(super) fn keep(&self, bundle: &[u8], taken_at: u64) -> Result<(), StateError> {
        // What is from later than another worker may be ahead is from a clock that was wrong.
        if let Ok(Some((_, kept_at))) = self.read()
            && (taken_at + 1..=taken_at.saturating_add(AHEAD)).contains(&kept_at)
        {
            return Ok(());
        }
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(format!("{taken_at}\n{}\n", sha256_hex(bundle)).as_bytes());
        content.extend_from_slice(bundle);
        write_whole(&self.file, &content).map_err(|why| {
            let removal = fs::remove_file(&self.file).err().map(FileError::from);
            let removal = removal.filter(|error| !error.is_missing());
            StateError::NotWritten { file: self.file.clone(), why, removal }
        })
    }

    /// What was kept. `None` where nothing was.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn recall(&self) -> Result<Option<Vec<u8>>, StateError> {
        let read = self.read().map_err(|why| StateError::Unusable(self.file.clone(), why))?;
        Ok(read.map(|(bundle, _)| bundle))
    }

    fn read(&self) -> Result<Option<(Vec<u8>, u64)>, Unusable> {
        let Some(content) = read_private(&self.file)? else { return Ok(None) };
        let parsed = || {
            let mut parts = content.strip_prefix(MAGIC)?.splitn(3, |byte| *byte == b'\n');
            let taken_at = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            let (digest, bundle) = (parts.next()?, parts.next()?);
            (sha256_hex(bundle).as_bytes() == digest).then(|| (bundle.to_vec(), taken_at))
        };
        let is_foreign = content.starts_with(MAGIC_OF_ANY) && !content.starts_with(MAGIC);
        parsed().map(Some).ok_or(if is_foreign { Unusable::OtherVersion } else { Unusable::Damaged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_file_once() {
        let file = PathBuf::from("/state/policy-1");
        let (why, removal) = (FileError::NotRegular, Some(FileError::OtherUser));
        let failed = |removal| StateError::NotWritten { file: file.clone(), why: why.clone(), removal };
        for (error, text) in [
            (failed(None), "cannot write `/state/policy-1`: not a regular file"),
            (
                failed(removal),
                "cannot write `/state/policy-1`: not a regular file, nor remove what it holds: it belongs to another \
                 user",
            ),
            (
                StateError::Unusable(file.clone(), FileError::OtherUser.into()),
                "`/state/policy-1` is not used: it belongs to another user",
            ),
            (
                StateError::UnusablePolicy("/state".into(), Unusable::Refused),
                "what `/state` holds is not used: this version refuses it",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
