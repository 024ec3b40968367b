//! Reading a policy for people: without the secrets that they may not read, and with the documents that nginx goes on
//! with.

use super::{Bundle, Fingerprint, load_with};
use crate::client_ip::signature::KeyRing;
use crate::file::FileError;
use crate::policy::cases::Case;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::{Files, Outcome, OwnerText, compile, compile_untested};
use crate::token::algorithm::AlgorithmSet;
use crate::token::keys::KeySet;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// How a policy is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'r> {
    /// What nginx decides by: a document of an owner that is refused is replaced by that in it.
    pub former: &'r Bundle,
    /// Whether the secrets that the policy names are read. Without them everything else is judged as with them.
    pub secrets: bool,
    /// Whether its tests are run; else they are returned.
    pub test: bool,
}

/// Reads a policy and everything it names, as [`super::load`] does.
///
/// `path`: as there. `now`: Unix seconds.
pub fn read(path: &Path, now: u64, reading: Reading<'_>) -> (Outcome, Fingerprint, Vec<Case>) {
    let Reading { former, secrets, test } = reading;
    let mut cases = Vec::new();
    let (outcome, fingerprint, _, _) =
        load_with(path, former, None, &BTreeSet::new(), |name, text, files: &mut dyn Files| {
            let mut open = Open { files, secrets };
            if test {
                return compile(name, text, &mut open, now);
            }
            let (outcome, found) = compile_untested(name, text, &mut open, now);
            cases = found;
            outcome
        });
    (outcome, fingerprint, cases)
}

/// Files of which the secret ones are left unread, perhaps.
struct Open<'f> {
    files: &'f mut dyn Files,
    secrets: bool,
}

impl Files for Open<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.files.read(path)
    }

    fn reads_secrets(&self) -> bool {
        self.secrets
    }

    fn keys_in_force(&mut self, issuer: &str, algorithms: AlgorithmSet, file: &Path) -> Option<Arc<KeySet>> {
        self.files.keys_in_force(issuer, algorithms, file)
    }

    fn cookie_keys_in_force(&mut self, file: &Path) -> Option<Arc<KeyRing>> {
        self.files.cookie_keys_in_force(file)
    }

    fn keep_in_force(&mut self, file: &Path, problems: Vec<Diagnostic>) {
        self.files.keep_in_force(file, problems);
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        self.files.owner(name)
    }
}
