//! What a policy was made of, to be made again: by this worker, by one that starts later, or by one that has missed it.

use super::packed::Packed;
use super::{DOCUMENT, Fingerprint, MAX_BYTES, OWNERS, base_of, failed, owner_path, uptime};
use crate::file::FileError;
use crate::policy::{Files, Outcome, OwnerText, Turn, compile_in_turn};
use crate::token::digest::sha256_hex;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of [`Bundle::to_bytes`], changed with it: after an upgrade the memory that workers share still holds what the former
/// version wrote, and has to be written anew although the policy is the same.
const FORMAT: u32 = 2;

/// Everything that a policy was made of: the document first, then each file it names. Enough to make it again
/// when what is on disk has become unusable.
///
/// Each file has the time at which it was read. All workers read the same disk, and a content is used only after it was
/// the same for a while, so that of two contents of a file the one that was read later is the newer one.
#[derive(Clone, Debug, Default)]
pub struct Bundle(Vec<Part>);

#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    content: Packed,
    /// By the clock of [`super::uptime`]; 0 for what was kept through a restart, which is older than all that was read.
    read_at: u64,
}

/// The same files with the same contents, whenever they were read.
impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        let alike = |(own, other): (&Part, &Part)| own.path == other.path && own.content == other.content;
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(alike)
    }
}

impl Eq for Bundle {}

impl Bundle {
    /// Nothing.
    pub const EMPTY: Self = Self(Vec::new());

    pub(super) fn add(&mut self, path: PathBuf, content: &[u8], read_at: u64) {
        self.0.push(Part { path, content: Packed::new(content), read_at });
    }

    /// The bundle as bytes that [`Bundle::from_bytes`] reads. They hold secrets: the keys of signed cookies.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Part { path, content, read_at } in &self.0 {
            let (packed, digest) = (content.bytes(), content.digest().as_bytes());
            for part in [path.as_os_str().as_bytes(), packed, digest, &read_at.to_le_bytes()] {
                bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    /// Reads what [`Bundle::to_bytes`] made; `None` for anything else.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut part = || {
            let (length, rest) = bytes.split_first_chunk::<8>()?;
            let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            bytes = rest;
            Some((part, rest.is_empty()))
        };
        let mut bundle = Self::default();
        loop {
            let (path, _) = part()?;
            let (packed, _) = part()?;
            let (digest, _) = part()?;
            let (read_at, last) = part()?;
            let read_at = u64::from_le_bytes(read_at.try_into().ok()?);
            let path = PathBuf::from(OsStr::from_bytes(path));
            bundle.0.push(Part { path, content: Packed::from_parts(packed, digest)?, read_at });
            if last {
                return Some(bundle);
            }
        }
    }

    /// The same, older than everything that was read since the machine started.
    pub fn of_before(mut self) -> Self {
        self.0.iter_mut().for_each(|part| part.read_at = 0);
        self
    }

    /// What tells it from bundles of other contents, and from bytes that another version of this program made of the
    /// same, in 64 hexadecimal digits; when files were read is not in it.
    pub fn id(&self) -> String {
        let parts = self.0.iter().map(|part| format!("{:?} {:?}\n", part.path, part.content.digest()));
        sha256_hex(format!("{FORMAT}\n{}", parts.collect::<String>()).as_bytes())
    }

    /// The path of the document.
    pub(super) fn document(&self) -> Option<&Path> {
        self.0.first().map(|part| &*part.path)
    }

    /// When a file was read.
    pub(super) fn read_at(&self, path: &Path) -> Option<u64> {
        self.part(path).map(|part| part.read_at)
    }

    /// Whether it was made from the policy at `path`, and not from another one.
    pub fn is_of(&self, path: &Path) -> bool {
        // Whether the policy is a directory cannot be asked while it is missing.
        self.document().is_some_and(|document| *document == *path || *document == path.join(DOCUMENT))
    }

    /// Whether the document in it is newer than that in another one, and says something else.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        match (self.0.first(), other.0.first()) {
            (Some(own), Some(other)) => own.read_at > other.read_at && own.content != other.content,
            (own, _) => own.is_some(),
        }
    }

    /// Whether it holds a document of this owner that is newer than that in another one, and says something else.
    ///
    /// `gone`: what the other one has lost.
    pub fn has_newer_owner(&self, owner: &str, other: &Self, gone: &Gone) -> bool {
        match (self.part_of(owner), other.part_of(owner)) {
            (Some(own), None) => gone.is_missed(own),
            (None, _) => false,
            (Some(_), Some(_)) => self.has_newer_version(owner, other),
        }
    }

    /// Takes note that what was read is on disk still: it is as new as anything that another worker read until then.
    ///
    /// `at`: by the clock of [`super::uptime`], between two readings that found the same.
    pub fn confirm(&mut self, seen: &Fingerprint, at: u64) {
        for Part { path, content, read_at } in &mut self.0 {
            if seen.has(path, &format!("{:?}", content.digest())) {
                *read_at = at;
            }
        }
    }

    /// Takes over every file beside the document of which another bundle of the same policy has a newer content.
    pub fn take_newer_files(&mut self, other: &Self) {
        for part in self.0.iter_mut().skip(1) {
            if let Some(newer) = other.part(&part.path)
                && newer.read_at > part.read_at
            {
                part.clone_from(newer);
            }
        }
    }

    /// Takes over the documents of owners that another bundle of the same policy has, and this one not, or older.
    ///
    /// `gone`: what this one has lost.
    pub fn take_newer_owners(&mut self, other: &Self, gone: &Gone) {
        let Some(owners) = self.document().map(|document| base_of(document).join(OWNERS)) else {
            return self.clone_from(other);
        };
        for theirs in other.0.iter().skip(1).filter(|part| part.path.starts_with(&owners)) {
            match self.0.iter_mut().skip(1).find(|part| part.path == theirs.path) {
                Some(own) if own.read_at < theirs.read_at => own.clone_from(theirs),
                Some(_) => {}
                None if gone.is_missed(theirs) => self.0.push(theirs.clone()),
                None => {}
            }
        }
    }

    /// What was read twice is as old as its first reading, after which nothing was looked at again.
    pub fn keep_times(&mut self, first: &Self) {
        for part in &mut self.0 {
            let same = |earlier: &&Part| earlier.path == part.path && earlier.content == part.content;
            if let Some(earlier) = first.0.iter().find(same) {
                part.read_at = earlier.read_at;
            }
        }
    }

    /// Whether another bundle has an older version of an owner's document.
    pub fn has_newer_version(&self, owner: &str, other: &Self) -> bool {
        match (self.part_of(owner), other.part_of(owner)) {
            (Some(own), Some(other)) => own.read_at > other.read_at && own.content != other.content,
            _ => false,
        }
    }

    /// Takes one file's content from a newer bundle.
    pub(super) fn replace(&mut self, file: &Path, newer: &Self) {
        let Some(newer) = newer.0.iter().find(|part| part.path == file) else { return };
        for part in self.0.iter_mut().skip(1).filter(|part| part.path == file) {
            part.clone_from(newer);
        }
    }

    /// Holds what a former bundle holds of a file, in place of what cannot be used.
    pub(super) fn keep(&mut self, file: &Path, former: &Self) {
        let Some(kept) = former.part(file) else { return };
        if self.part(file).is_none() {
            return self.0.push(kept.clone());
        }
        for part in self.0.iter_mut().skip(1).filter(|part| part.path == file) {
            part.clone_from(kept);
        }
    }

    fn part_of(&self, owner: &str) -> Option<&Part> {
        self.part(&owner_path(&base_of(self.document()?), owner))
    }

    fn part(&self, path: &Path) -> Option<&Part> {
        self.0.iter().skip(1).find(|part| part.path == path)
    }

    /// A file's content.
    pub(super) fn find(&self, path: &Path) -> Option<Vec<u8>> {
        self.part(path)?.content.content()
    }

    /// Compiles the policy again as it was. `now`: Unix seconds.
    pub fn compile(&self, now: u64) -> Outcome {
        self.compile_with(&mut self.clone(), now)
    }

    /// Compiles the document again, with files from elsewhere: newer documents of owners as far as one turn goes.
    pub(super) fn compile_with(&self, files: &mut dyn Files, now: u64) -> Outcome {
        let Some(Part { path, content, .. }) = self.0.first() else {
            return failed("", "there is no last good policy", MAX_BYTES);
        };
        let Some(text) = content.content() else {
            return failed("", "the last good policy cannot be unpacked", MAX_BYTES);
        };
        compile_in_turn(&path.display().to_string(), &text, files, now, &Turn::after(None))
    }
}

/// The documents of owners that are in a worker's policy no longer, since their owner was removed or no version of it could be
/// used: what another worker read before that is not newer than nothing.
#[derive(Debug, Default)]
pub struct Gone(HashMap<PathBuf, u64>);

impl Gone {
    /// One bundle has taken the place of another one.
    pub fn note(&mut self, before: &Bundle, now: &Bundle) {
        let time = uptime();
        for Part { path, .. } in before.0.iter().skip(1).filter(|part| now.part(&part.path).is_none()) {
            self.0.insert(path.clone(), time);
        }
        self.0.retain(|path, _| now.part(path).is_none());
    }

    /// Whether a document was read after it had gone here, or was never here.
    fn is_missed(&self, theirs: &Part) -> bool {
        self.0.get(&theirs.path).is_none_or(|gone| *gone < theirs.read_at)
    }
}

impl Files for Bundle {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        let base = self.document().map(base_of).unwrap_or_default();
        self.find(&base.join(path)).ok_or(FileError::NotKept)
    }

    /// What was good stays good: there is no newer version here.
    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let base = self.document().map(base_of).unwrap_or_default();
        let path = owner_path(&base, name);
        let content = self.find(&path);
        Some(OwnerText {
            file: path.display().to_string(),
            current: content.clone().ok_or(FileError::NotKept),
            last_good: content,
            is_unsettled: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_tells_what_an_earlier_format_wrote_of_the_same_files() {
        let mut bundle = Bundle::default();
        bundle.add("p.yaml".into(), b"version: 1\n", 7);
        let first = sha256_hex(format!("\"p.yaml\" {}\n", sha256_hex(b"version: 1\n")).as_bytes());
        assert_ne!(bundle.id(), first);
        let mut later = Bundle::default();
        later.add("p.yaml".into(), b"version: 1\n", 8);
        assert_eq!(bundle.id(), later.id());
    }
}
