//! Policies on disk: reading one with the files it names, and noticing when any of them changes.

use super::cases::Case;
use super::diagnostic::{Diagnostic, Path as At, Place, Problems};
use super::{Compiled, Files, Outcome, compile, compile_untested};
use crate::client_ip::Source;
use crate::token::keys::KeySet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No document or file named by one is read beyond this.
const MAX_BYTES: u64 = 64 << 20;

/// What was read, so that a change can be noticed: each file with its content's digest, or the error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(
    Vec<(PathBuf, Result<String, String>)>,
    /// The directory of the owners' documents, and whether it holds any.
    Option<(PathBuf, bool)>,
);

impl Fingerprint {
    /// The files: the document first, then those that it names, each with the reason where it could not be read.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Option<&str>)> {
        self.0.iter().map(|(path, read)| (&**path, read.as_ref().err().map(String::as_str)))
    }

    /// Reads the same files again.
    #[must_use]
    pub fn read_again(&self) -> Self {
        let digest = |path: &Path| read(path).map(|content| crate::token::digest::sha256_hex(&content));
        Self(
            self.0.iter().map(|(path, _)| (path.clone(), digest(path))).collect(),
            self.1.as_ref().map(|(owners, _)| (owners.clone(), holds_any(owners))),
        )
    }
}

/// Everything that a policy was made of: the document first, then each file it names. Enough to make it again
/// when what is on disk has become unusable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle(Vec<(PathBuf, Vec<u8>)>);

impl Bundle {
    /// The bundle as bytes that [`Bundle::from_bytes`] reads. They hold secrets: the keys of signed cookies.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, content) in &self.0 {
            for part in [path.as_os_str().as_bytes(), content] {
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
            Some((part.to_vec(), rest.is_empty()))
        };
        let mut files = Vec::new();
        loop {
            let (path, _) = part()?;
            let (content, last) = part()?;
            files.push((PathBuf::from(OsString::from_vec(path)), content));
            if last {
                return Some(Self(files));
            }
        }
    }

    /// Whether it was made from the policy at `path`, and not from another one.
    pub fn is_of(&self, path: &Path) -> bool {
        self.0.first().is_some_and(|(document, _)| *document == document_of(path).0)
    }

    /// Takes one file's content from a newer bundle.
    fn replace(&mut self, file: &Path, newer: &Self) {
        let content = newer.0.iter().find(|(path, _)| path == file).map(|(_, content)| content);
        for (path, old) in self.0.iter_mut().skip(1) {
            if let Some(content) = content
                && path == file
            {
                old.clone_from(content);
            }
        }
    }

    /// Compiles the policy again as it was. `now`: Unix seconds.
    pub fn compile(mut self, now: u64) -> Outcome {
        let Some((document, text)) = self.0.first().cloned() else {
            return failed("", "there is no last good policy");
        };
        compile(&document.display().to_string(), &text, &mut self, now)
    }
}

impl Files for Bundle {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let document = self.0.first().map(|(document, _)| base_of(document)).unwrap_or_default();
        let path = document.join(path);
        let found = self.0.iter().skip(1).find(|(known, _)| *known == path);
        found.map(|(_, content)| content.clone()).ok_or_else(|| "not kept".to_owned())
    }
}

/// Reads a policy and everything it names.
///
/// `path`: the document, or a directory that holds it as `policy.yaml`. `now`: Unix seconds. A file that cannot
/// be read is a diagnostic like any other.
pub fn load(path: &Path, now: u64) -> (Outcome, Fingerprint, Bundle) {
    load_with(path, |name, text, files| compile(name, text, files, now))
}

/// Reads a policy and everything it names, as [`load`] does, without running its tests, which are returned.
pub fn load_untested(path: &Path, now: u64) -> (Outcome, Fingerprint, Vec<Case>) {
    let mut cases = Vec::new();
    let (outcome, fingerprint, _) = load_with(path, |name, text, files| {
        let (outcome, found) = compile_untested(name, text, files, now);
        cases = found;
        outcome
    });
    (outcome, fingerprint, cases)
}

fn load_with(
    path: &Path,
    compile: impl FnOnce(&str, &[u8], &mut dyn Files) -> Outcome,
) -> (Outcome, Fingerprint, Bundle) {
    let (document, in_directory) = document_of(path);
    let mut files = Reader::beside(&document);
    let name = document.display().to_string();
    let within = if in_directory { Some(path) } else { None };
    let mut outcome = match files.read_document(&document, within) {
        Ok(text) => compile(&name, &text, &mut files),
        Err(error) => failed(&name, &format!("cannot read the policy: {error}")),
    };
    if in_directory {
        let owners = path.join("owners.d");
        let any = holds_any(&owners);
        if any {
            let name = owners.display().to_string();
            let refused = failed(&name, "documents of owners are not supported by this version");
            outcome.compiled = None;
            outcome.diagnostics.extend(refused.diagnostics);
        }
        files.seen.1 = Some((owners, any));
    }
    (outcome, files.seen, files.bundle)
}

/// Reads the keys of the policy in force again, whatever has become of the document at `path` since.
///
/// `keys` and `client_ip`: what is in force, replaced by what is good. `bundle`: what the policy in force was made of;
/// what is good takes its place there too. Returns what was read, and what is wrong with it.
pub fn refresh_keys(
    path: &Path,
    compiled: &Compiled,
    keys: &mut [Option<Arc<KeySet>>],
    client_ip: &mut Option<Source>,
    bundle: &mut Bundle,
) -> (Fingerprint, Vec<String>) {
    let mut files = Reader::beside(&document_of(path).0);
    let (good, wrong) = compiled.refresh_keys(keys, client_ip, &mut files);
    for file in good {
        bundle.replace(&files.base.join(file), &files.bundle);
    }
    (files.seen, wrong)
}

/// The document of a policy, and whether the policy is a directory.
fn document_of(path: &Path) -> (PathBuf, bool) {
    if path.is_dir() { (path.join("policy.yaml"), true) } else { (path.into(), false) }
}

fn base_of(document: &Path) -> PathBuf {
    document.parent().unwrap_or(Path::new("")).into()
}

fn holds_any(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

fn failed(file: &str, message: &str) -> Outcome {
    let mut problems = Problems::of(file);
    problems
        .error(Place { line: 1, column: 1 }, &At::Root, message)
        .help("check the path, and that nginx's worker user may read it");
    Outcome { compiled: None, diagnostics: problems.into_sorted() }
}

/// Whether any of the diagnostics refuses the policy.
pub fn refused(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

struct Reader {
    /// Relative paths in a policy are relative to it.
    base: PathBuf,
    seen: Fingerprint,
    bundle: Bundle,
}

impl Reader {
    fn beside(document: &Path) -> Self {
        Self { base: base_of(document), seen: Fingerprint::default(), bundle: Bundle::default() }
    }

    /// `within`: the directory that it must not lead out of.
    fn read_document(&mut self, document: &Path, within: Option<&Path>) -> Result<Vec<u8>, String> {
        let content = self.read_path(document.to_owned());
        if let (Ok(_), Some(directory)) = (&content, within) {
            let leads_to = document.canonicalize().map_err(words)?;
            if !leads_to.starts_with(directory.canonicalize().map_err(words)?) {
                return Err(format!("it leads out of the directory, to `{}`", leads_to.display()));
            }
        }
        content
    }

    fn read_path(&mut self, path: PathBuf) -> Result<Vec<u8>, String> {
        let content = read(&path);
        let digest =
            content.as_ref().map(|content| crate::token::digest::sha256_hex(content)).map_err(Clone::clone);
        if let Ok(content) = &content {
            self.bundle.0.push((path.clone(), content.clone()));
        }
        self.seen.0.push((path, digest));
        content
    }
}

impl Files for Reader {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        self.read_path(self.base.join(path))
    }
}

fn words(error: std::io::Error) -> String {
    error.to_string().to_lowercase()
}

/// A regular file's content. Anything else (a directory, a device, a FIFO that would block) is refused.
///
/// # Errors
/// The reason in words.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(words)?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(words)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(words)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(format!("larger than {} MiB", MAX_BYTES >> 20));
    }
    Ok(content)
}
