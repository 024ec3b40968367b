//! Policies on disk: reading one with the files it names, and noticing when any of them changes.

mod beneath;
mod bundle;
pub mod offline;
mod packed;

pub use bundle::{Bundle, Gone};

use super::diagnostic::{Diagnostic, Path as At, Place, Problems, WarningKind};
use super::{Compiled, Files, Outcome, OwnerOutcome, OwnerState, OwnerText, Turn, compile, compile_in_turn};
use crate::client_ip::signature::KeyRing;
use crate::client_ip::{CookieKeys, Source};
use crate::file::{FileError, MAX_BYTES, content, read};
use crate::token::algorithm::AlgorithmSet;
use crate::token::keys::KeySet;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest document of an owner, in bytes.
const MAX_OWNER_BYTES: u64 = 1 << 20;
/// The platform's document in a directory.
const DOCUMENT: &str = "policy.yaml";
/// Where owners' documents lie, beside the platform's.
const OWNERS: &str = "owners.d";

/// What was read, so that a change can be noticed: each file with its content's digest, or the error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    files: Vec<(PathBuf, Result<String, FileError>)>,
    owners: BTreeMap<PathBuf, Result<String, FileError>>,
    /// What lies in the directory of the owners' documents.
    listing: Vec<OsString>,
    /// The policy's directory, where it is one.
    directory: Option<PathBuf>,
    /// Documents of owners that were changing when they were read, and have to be looked at again.
    unsettled: bool,
}

/// What is not as it was.
#[derive(Debug, Default)]
pub struct Changes {
    /// The platform's document, or a file it names.
    pub platform: bool,
    /// Documents of owners.
    pub owners: BTreeSet<PathBuf>,
}

impl Fingerprint {
    /// The files: the document first, then those that it names and the documents of owners, each with the reason where
    /// it could not be read.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Option<&FileError>)> {
        let files = self.files.iter().map(|(path, read)| (path, read)).chain(&self.owners);
        files.map(|(path, read)| (&**path, read.as_ref().err()))
    }

    /// Whether this file was read with a content of this digest.
    fn has(&self, path: &Path, digest: &str) -> bool {
        let is_it = |read: &Result<String, FileError>| read.as_deref() == Ok(digest);
        match self.owners.get(path) {
            Some(read) => is_it(read),
            None => self.files.iter().any(|(file, read)| file == path && is_it(read)),
        }
    }

    /// Whether this is the document of an owner.
    pub fn is_of_an_owner(&self, path: &Path) -> bool {
        self.owners.contains_key(path)
    }

    /// Reads the same files again, and says which have changed.
    pub fn changes(&self) -> Changes {
        let differs = |content: Result<Vec<u8>, FileError>, before: &Result<String, FileError>| {
            content.map(|content| digest_of(&content)) != *before
        };
        let directory = self.directory.as_deref();
        let again = |path: &Path| match directory {
            Some(directory) if *path == *directory.join(DOCUMENT) => read_platform(directory),
            _ => read(path),
        };
        let owner = |path: &Path| read_owner(directory.unwrap_or(Path::new("")), path);
        Changes {
            platform: self.files.iter().any(|(path, before)| differs(again(path), before)),
            owners: self
                .owners
                .iter()
                .filter(|(path, before)| differs(owner(path), before))
                .map(|(path, _)| path.clone())
                .collect(),
        }
    }

    /// Whether nothing has changed, and nothing was changing.
    pub fn is_current(&self) -> bool {
        let changes = self.changes();
        // Files of nobody are worth a word, but nothing waits for them.
        let same_files =
            || self.directory.as_deref().is_none_or(|directory| listing(directory) == self.listing);
        !self.unsettled && !changes.platform && changes.owners.is_empty() && same_files()
    }

    /// Whether nothing else is different but these documents of owners.
    pub fn differs_only_in(&self, other: &Self, owners: &BTreeSet<PathBuf>) -> bool {
        let rest = |print: &Self| -> Vec<_> {
            let settled = print.owners.iter().filter(|(path, _)| !owners.contains(*path));
            settled.map(|(path, read)| (path.clone(), read.clone())).collect()
        };
        self.files == other.files && rest(self) == rest(other)
    }
}

fn digest_of(content: &[u8]) -> String {
    crate::token::digest::sha256_hex(content)
}

/// The names in the owners' directory, sorted; those that begin with a dot are the file system's own business.
fn listing(directory: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(directory.join(OWNERS)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.retain(|name| !name.as_bytes().starts_with(b"."));
    names.sort_unstable();
    names
}

/// The platform's document in a directory: a regular file inside it, links followed.
fn read_platform(directory: &Path) -> Result<Vec<u8>, FileError> {
    content(beneath::open(directory, Path::new(DOCUMENT), None)?, MAX_BYTES)
}

/// The document of an owner at `path`, its [`owner_path`]: a regular file inside the policy's directory, of the owner's
/// own name when links were followed.
fn read_owner(directory: &Path, path: &Path) -> Result<Vec<u8>, FileError> {
    let name = path.file_name().unwrap_or_default();
    content(beneath::open(directory, &Path::new(OWNERS).join(name), Some(name))?, MAX_OWNER_BYTES)
}

fn owner_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(OWNERS).join(format!("{name}.yaml"))
}

/// Reads a policy and everything it names.
///
/// `path`: the document, or a directory that holds it as `policy.yaml`, and owners' documents in `owners.d`. `now`: Unix
/// seconds. A file that cannot be read is a diagnostic like any other.
pub fn load(path: &Path, now: u64) -> (Outcome, Fingerprint, Bundle) {
    let (outcome, fingerprint, bundle, _) =
        load_with(path, &Bundle::EMPTY, None, &BTreeSet::new(), |name, text, files| {
            compile(name, text, files, now)
        });
    (outcome, fingerprint, bundle)
}

/// The same, where there was a policy before. New documents of owners are judged in turns ([`Turn`]): while the outcome
/// says that some wait, the policy is to be loaded again.
///
/// `former`: what it was made of; a document of an owner that is refused is replaced by that in it. `in_force`: what
/// decides now, whose keys stand in for a file that cannot be used. `unsettled`: documents of owners that are changing
/// right now, and are treated as if they could not be read. Returns last what is wrong with files whose keys in force are
/// used instead.
pub fn load_after(
    path: &Path,
    now: u64,
    former: &Bundle,
    in_force: Option<InForce<'_>>,
    unsettled: &BTreeSet<PathBuf>,
) -> (Outcome, Fingerprint, Bundle, Vec<Diagnostic>) {
    let turn = Turn::after(in_force.map(|policy| (&policy.compiled.snapshot, policy.owners)));
    load_with(path, former, in_force, unsettled, |name, text, files| {
        compile_in_turn(name, text, files, now, &turn)
    })
}

/// The policy that decides now, made of the bundle before, with the keys of today.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'f> {
    /// The policy.
    pub compiled: &'f Compiled,
    /// The keys of each issuer, parallel to the policy's.
    pub keys: &'f [Option<Arc<KeySet>>],
    /// The source of client addresses with its keys.
    pub client_ip: Option<&'f Source>,
    /// What became of the documents of owners.
    pub owners: &'f [OwnerOutcome],
}

fn load_with(
    path: &Path,
    former: &Bundle,
    in_force: Option<InForce<'_>>,
    unsettled: &BTreeSet<PathBuf>,
    compile: impl FnOnce(&str, &[u8], &mut dyn Files) -> Outcome,
) -> (Outcome, Fingerprint, Bundle, Vec<Diagnostic>) {
    let (document, in_directory) = document_of(path);
    let mut files = Reader { former, in_force, unsettled, ..Reader::beside(&document) };
    let name = document.display().to_string();
    let within = in_directory.then_some(path);
    if let Some(directory) = within {
        files.seen.directory = Some(directory.into());
        files.seen.listing = listing(directory);
    }
    let mut outcome = match files.read_document(&document, within) {
        Ok(text) => compile(&name, &text, &mut files),
        Err(error) => failed(&name, &format!("cannot read the policy: {error}"), MAX_BYTES),
    };
    if outcome.compiled.is_some()
        && let Some(directory) = within
    {
        outcome.diagnostics.extend(undeclared(directory, &files.seen));
    }
    let Reader { seen, mut bundle, base, mut kept, .. } = files;
    if outcome.compiled.is_none() {
        outcome.diagnostics.append(&mut kept);
        outcome.diagnostics.sort_by_key(|problem| problem.place);
    }
    for owner in &mut outcome.owners {
        let Some(content) = owner.content.take() else { continue };
        let path = owner_path(&base, &owner.name);
        // What is not on disk any more is as old as it was.
        let is_kept =
            owner.state != OwnerState::Current || owner.turns_waited > 0 || unsettled.contains(&path);
        let kept_since = former.read_at(&path).filter(|_| is_kept);
        bundle.add(path, &content, kept_since.unwrap_or_else(uptime));
    }
    (outcome, seen, bundle, kept)
}

/// What is wrong with the documents of owners by themselves, by owner, where the platform's document cannot say who the
/// owners are: every file in their directory that is called like one.
pub fn shapes_of_owners(directory: &Path) -> Vec<(String, Vec<Diagnostic>)> {
    let names = listing(directory).into_iter().filter_map(|name| name.into_string().ok());
    let owners = names.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned));
    let shape = |owner: String| {
        let path = owner_path(directory, &owner);
        let file = path.display().to_string();
        let found = match read_owner(directory, &path) {
            Ok(text) => super::shape_of_owner(&file, &text),
            Err(error) => {
                failed(&file, &format!("cannot read the document: {error}"), MAX_OWNER_BYTES).diagnostics
            }
        };
        (owner, found)
    };
    owners.map(shape).collect()
}

/// Files beside the owners' documents that nobody has declared: they have no effect, which somebody may not know.
fn undeclared(directory: &Path, seen: &Fingerprint) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for name in &seen.listing {
        let path = directory.join(OWNERS).join(name);
        if !seen.owners.contains_key(&path) {
            let mut problems = Problems::of(&path.display().to_string());
            problems
                .warning(
                    WarningKind::OwnerUndeclared,
                    Place { line: 1, column: 1 },
                    &At::Root,
                    "it belongs to no owner of the platform's document and has no effect",
                )
                .help("name the owner under `owners`, or remove the file");
            found.extend(problems.into_sorted());
        }
    }
    found
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
    // Beside the document that is in force, wherever `path` leads meanwhile.
    let document = bundle.document().map_or_else(|| document_of(path).0, Path::to_path_buf);
    let mut files = Reader::beside(&document);
    let (good, wrong) = compiled.refresh_keys(keys, client_ip, &mut files);
    for file in good {
        bundle.replace(&files.base.join(file), &files.bundle);
    }
    (files.seen, wrong)
}

/// What is to be said of the owners' documents on disk, by the platform's document in `bundle`. `now`: Unix seconds.
pub fn owners_on_disk(path: &Path, bundle: &Bundle, now: u64) -> Vec<OwnerOutcome> {
    bundle.compile_with(&mut OwnersOnDisk { directory: path, bundle: bundle.clone() }, now).owners
}

/// The policy in force, but for the owners' documents.
struct OwnersOnDisk<'d> {
    directory: &'d Path,
    bundle: Bundle,
}

impl Files for OwnersOnDisk<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.bundle.read(path)
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let kept = self.bundle.owner(name)?;
        Some(OwnerText { current: read_owner(self.directory, &owner_path(self.directory, name)), ..kept })
    }
}

/// The document of a policy, and whether the policy is a directory.
fn document_of(path: &Path) -> (PathBuf, bool) {
    if path.is_dir() { (path.join(DOCUMENT), true) } else { (path.into(), false) }
}

fn base_of(document: &Path) -> PathBuf {
    document.parent().unwrap_or(Path::new("")).into()
}

/// A document that cannot be read. `limit`: how many bytes it may hold.
fn failed(file: &str, message: &str, limit: u64) -> Outcome {
    let mut problems = Problems::of(file);
    problems
        .error(Place { line: 1, column: 1 }, &At::Root, message)
        .help(format!("it must be a file of at most {} MiB that nginx's worker user may read", limit >> 20));
    Outcome { compiled: None, diagnostics: problems.into_sorted(), owners: Vec::new() }
}

/// Whether any of the diagnostics refuses the policy.
pub fn refused(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

struct Reader<'r> {
    /// Relative paths in a policy are relative to it.
    base: PathBuf,
    seen: Fingerprint,
    bundle: Bundle,
    former: &'r Bundle,
    in_force: Option<InForce<'r>>,
    /// What is wrong with files whose keys in force are used instead.
    kept: Vec<Diagnostic>,
    unsettled: &'r BTreeSet<PathBuf>,
}

/// Nothing came before.
static NO_BUNDLE: Bundle = Bundle::EMPTY;
static NOTHING: BTreeSet<PathBuf> = BTreeSet::new();

impl Reader<'_> {
    /// Whether the policy in force was made of a file that lay in the same place.
    fn has_former(&self, file: &Path) -> bool {
        self.former.read_at(&self.base.join(file)).is_some()
    }

    fn beside(document: &Path) -> Self {
        Self {
            base: base_of(document),
            seen: Fingerprint::default(),
            bundle: Bundle::default(),
            former: &NO_BUNDLE,
            in_force: None,
            kept: Vec::new(),
            unsettled: &NOTHING,
        }
    }

    /// `within`: the directory that it must not lead out of.
    fn read_document(&mut self, document: &Path, within: Option<&Path>) -> Result<Vec<u8>, FileError> {
        let content = within.map_or_else(|| read(document), read_platform);
        self.note(document.to_owned(), content)
    }

    fn note(&mut self, path: PathBuf, content: Result<Vec<u8>, FileError>) -> Result<Vec<u8>, FileError> {
        let digest = content.as_ref().map(|content| digest_of(content)).map_err(Clone::clone);
        if let Ok(content) = &content {
            self.bundle.add(path.clone(), content, uptime());
        }
        self.seen.files.push((path, digest));
        content
    }
}

impl Files for Reader<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        let path = self.base.join(path);
        let content = read(&path);
        self.note(path, content)
    }

    fn keys_in_force(&mut self, issuer: &str, algorithms: AlgorithmSet, file: &Path) -> Option<Arc<KeySet>> {
        let InForce { compiled, keys, .. } = self.in_force.filter(|_| self.has_former(file))?;
        let issuers = &compiled.snapshot.issuers;
        let at = issuers
            .iter()
            .position(|rules| *rules.issuer == *issuer && rules.algorithms == algorithms)
            .filter(|at| compiled.key_files.get(*at).is_some_and(|from| from.as_deref() == Some(file)))?;
        keys.get(at)?.clone()
    }

    fn cookie_keys_in_force(&mut self, file: &Path) -> Option<Arc<KeyRing>> {
        let InForce { compiled, client_ip, .. } = self.in_force.filter(|_| self.has_former(file))?;
        let from = compiled.snapshot.client_ip.as_ref()?.keys_file();
        match client_ip? {
            Source::Cookie { keys: CookieKeys::Signed(ring), .. } if from == Some(file) => {
                Some(Arc::clone(ring))
            }
            _ => None,
        }
    }

    fn keep_in_force(&mut self, file: &Path, problems: Vec<Diagnostic>) {
        self.bundle.keep(&self.base.join(file), self.former);
        self.kept.extend(problems.into_iter().filter(Diagnostic::is_error));
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let directory = self.seen.directory.clone()?;
        let path = owner_path(&directory, name);
        let last_good = self.former.find(&path);
        let mut current = read_owner(&directory, &path);
        let digest = current.as_ref().map(|content| digest_of(content)).map_err(Clone::clone);
        self.seen.owners.insert(path.clone(), digest);
        let is_unsettled = self.unsettled.contains(&path);
        if is_unsettled {
            self.seen.unsettled = true;
            current = last_good.clone().ok_or(FileError::Unsettled);
        }
        Some(OwnerText { file: path.display().to_string(), current, last_good, is_unsettled })
    }
}

/// Hundredths of a second since the machine started: one clock for all workers, which nobody sets. 0 where the system
/// does not tell. (proc(5), `/proc/uptime`.)
pub fn uptime() -> u64 {
    let told = || {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        let (seconds, rest) = text.split_once('.')?;
        let hundredths: u64 = rest.get(..2)?.parse().ok()?;
        Some(seconds.parse::<u64>().ok()?.saturating_mul(100).saturating_add(hundredths))
    };
    told().unwrap_or_default()
}
