//! What is looked for, by topic.

mod admin;
mod audit;
mod calls;
mod proxied;
mod reach;
mod setup;

use super::files::Files;
use super::nginx::{Configuration, Place};
use super::tree::{Tree, text};
use super::{Finding, Kind, Severity};
use crate::file::FileError;
use crate::text::one_line;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The findings of one examination.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    fn fault(&mut self, kind: Kind, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Fault, kind, place, message.into(), help.into());
    }

    fn hint(&mut self, kind: Kind, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Hint, kind, place, message.into(), help.into());
    }

    fn add(&mut self, severity: Severity, kind: Kind, place: &Place, message: String, help: String) {
        let place = Place { file: one_line(&place.file).into(), line: place.line };
        self.0.push(Finding { kind, severity, place, message: one_line(&message), help: one_line(&help) });
    }

    fn sorted(mut self) -> Vec<Finding> {
        // By files in the order in which each was met first.
        let mut files: Vec<Arc<str>> = Vec::new();
        for finding in &self.0 {
            if !files.contains(&finding.place.file) {
                files.push(Arc::clone(&finding.place.file));
            }
        }
        self.0.sort_by_key(|finding| {
            let file = files.iter().position(|known| *known == finding.place.file);
            (file, finding.place.line, finding.severity, finding.kind)
        });
        // A file that is included twice is wrong once.
        self.0.dedup();
        self.0
    }
}

/// Everything that is wrong with a configuration, and hints.
pub(super) fn all(configuration: &Configuration, files: &dyn Files) -> Vec<Finding> {
    let tree = Tree::new(configuration, files);
    let mut found = Findings::default();
    setup::check(&tree, files, &mut found);
    calls::check(&tree, files, &mut found);
    reach::check(&tree, &mut found);
    let policy = tree.calls("init_worker").find_map(|(_, call)| text(call, "policy"));
    let policy = policy.and_then(|path| files.policy(Path::new(path)));
    proxied::check(&tree, policy.as_ref(), &mut found);
    audit::check(&tree, policy.as_ref(), &mut found);
    admin::check(&tree, &mut found);
    found.sorted()
}

/// A file that nginx's workers read: that it is there, and that they may. What cannot be seen is passed over.
fn check_file(
    tree: &Tree<'_>,
    files: &dyn Files,
    place: &Place,
    what: &str,
    path: &Path,
    found: &mut Findings,
) {
    let shown = path.display();
    match files.exists(path) {
        Ok(false) => found.fault(
            Kind::FileMissing,
            place,
            format!("there is no {what} `{shown}`"),
            "write the path of a file that is there, or create it",
        ),
        Ok(true) => {
            let user = tree.configuration.directives.iter().find(|directive| directive.name == "user");
            let obstacle = user.and_then(|user| files.obstacle(path, user.argument(0)));
            if let Some((message, help)) = obstacle {
                found.fault(Kind::FileUnreadable, place, message, help);
            }
        }
        Err(FileError::System { kind: ErrorKind::Unsupported, .. }) => {}
        Err(error) => found.hint(
            Kind::FileUnreadable,
            place,
            format!("cannot look at the {what} `{shown}`: {error}"),
            "run this as root",
        ),
    }
}
