//! Problems of a policy, told with their place: `file:line:column: path: message`, and a help line.

use crate::text::{one_line, one_line_of};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A place in a document: line and column from 1, the column counted in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

/// Whether a document with this diagnostic may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is used; the kind is the label of `tenantauth_policy_warnings`.
    Warning(WarningKind),
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant says its name")]
pub enum WarningKind {
    ClientIpList,
    DuplicateGrant,
    ExpiredGrant,
    ExpiringGrant,
    GroupLooksLikePattern,
    GroupNotGuid,
    GroupUnmatched,
    KeyRefused,
    OpenNetwork,
    OutdatedTest,
    OwnerUndeclared,
    RestrictionUnmatched,
    RevocationEnded,
    RevokedGroupUnknown,
    RevokedIdUnlike,
    ServiceAccountOpen,
    ShadowMode,
    ShadowOver,
    ShadowRestriction,
    UngrantedTenant,
    UnreachableGrant,
    UnsignedCookie,
    WritesEverywhere,
}

impl WarningKind {
    /// Every kind, in the order of their names.
    pub const ALL: [Self; 23] = [
        Self::ClientIpList,
        Self::DuplicateGrant,
        Self::ExpiredGrant,
        Self::ExpiringGrant,
        Self::GroupLooksLikePattern,
        Self::GroupNotGuid,
        Self::GroupUnmatched,
        Self::KeyRefused,
        Self::OpenNetwork,
        Self::OutdatedTest,
        Self::OwnerUndeclared,
        Self::RestrictionUnmatched,
        Self::RevocationEnded,
        Self::RevokedGroupUnknown,
        Self::RevokedIdUnlike,
        Self::ServiceAccountOpen,
        Self::ShadowMode,
        Self::ShadowOver,
        Self::ShadowRestriction,
        Self::UngrantedTenant,
        Self::UnreachableGrant,
        Self::UnsignedCookie,
        Self::WritesEverywhere,
    ];

    /// The kind as the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientIpList => "client_ip_list",
            Self::DuplicateGrant => "duplicate_grant",
            Self::ExpiredGrant => "expired_grant",
            Self::ExpiringGrant => "expiring_grant",
            Self::GroupLooksLikePattern => "group_looks_like_pattern",
            Self::GroupNotGuid => "group_not_guid",
            Self::GroupUnmatched => "group_unmatched",
            Self::KeyRefused => "key_refused",
            Self::OpenNetwork => "open_network",
            Self::OutdatedTest => "outdated_test",
            Self::OwnerUndeclared => "owner_undeclared",
            Self::RestrictionUnmatched => "restriction_unmatched",
            Self::RevocationEnded => "revocation_ended",
            Self::RevokedGroupUnknown => "revoked_group_unknown",
            Self::RevokedIdUnlike => "revoked_id_unlike",
            Self::ServiceAccountOpen => "service_account_open",
            Self::ShadowMode => "shadow_mode",
            Self::ShadowOver => "shadow_over",
            Self::ShadowRestriction => "shadow_restriction",
            Self::UngrantedTenant => "ungranted_tenant",
            Self::UnreachableGrant => "unreachable_grant",
            Self::UnsignedCookie => "unsigned_cookie",
            Self::WritesEverywhere => "writes_everywhere",
        }
    }
}

/// One problem of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as the reader named it.
    pub file: Arc<str>,
    /// Where in the file.
    pub place: Place,
    /// What in the document: `grants[2].scopes[0]`; empty for the document itself.
    pub path: String,
    /// What is wrong: lowercase, no final period, what was written in backticks.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Whether the document is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Makes it the warning that shadow mode is over.
    pub fn shadow_is_over(&mut self) {
        self.severity = Severity::Warning(WarningKind::ShadowOver);
        self.message = "it has passed: denials are applied".into();
        self.help("write `mode: enforce`");
    }

    /// Adds the help line.
    pub fn help(&mut self, help: impl Into<String>) {
        self.help = Some(one_line_of(&help.into(), MAX_MESSAGE));
    }

    /// The diagnostic on one line, for logs.
    pub fn one_line(&self) -> String {
        self.to_string().replace("\n  help:", "; help:")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", one_line(&self.file), self.place.line, self.place.column)?;
        if matches!(self.severity, Severity::Warning(_)) {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// The way from the document's root to a node, printed as `grants[2].scopes[0]`.
#[derive(Clone, Copy, Debug)]
pub enum Path<'p> {
    /// The document itself.
    Root,
    /// A key of a mapping.
    Key(&'p Path<'p>, &'p str),
    /// An item of a list, from 0.
    Item(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    /// The path of a key below this one.
    pub fn key(&'p self, key: &'p str) -> Self {
        Path::Key(self, key)
    }

    /// The path of a list's item below this one.
    pub fn item(&'p self, number: usize) -> Self {
        Path::Item(self, number)
    }
}

/// A key of a path: a document of problems below one long key would be repeated in each of them.
pub(super) fn shown(key: &str) -> Cow<'_, str> {
    match key.char_indices().nth(MAX_KEY) {
        Some((end, _)) => format!("{}...", key.get(..end).unwrap_or_default()).into(),
        None => key.into(),
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(&shown(key)),
            Path::Key(parent, key) => write!(f, "{parent}.{}", shown(key)),
            Path::Item(parent, number) => write!(f, "{parent}[{number}]"),
        }
    }
}

/// Collects every problem of one document, so that they are reported together.
#[derive(Debug)]
pub struct Problems {
    file: Arc<str>,
    /// At most [`MAX_KEPT`].
    found: Vec<Diagnostic>,
    /// How many of them are warnings.
    warnings: usize,
    /// Found beyond that and not kept; errors only where every problem that is kept is an error.
    omitted: Omitted,
}

/// Problems beyond the most that are kept: how many, and the last of them.
#[derive(Debug, Default)]
struct Omitted {
    errors: usize,
    warnings: usize,
    last: Option<Diagnostic>,
}

/// Characters of a message, and of a key in a path. What is longer ends in `...`.
const MAX_MESSAGE: usize = 2000;
const MAX_KEY: usize = 200;

/// A document with more problems than this is not read by anybody line by line; keeping all would fill the memory.
const MAX_KEPT: usize = 1000;

impl Problems {
    /// An empty collection for the document read from `file`.
    pub fn of(file: &str) -> Self {
        Self { file: one_line(file).into(), found: Vec::new(), warnings: 0, omitted: Omitted::default() }
    }

    /// What diagnostics call the document.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Adds an error; give it a help line with [`Diagnostic::help`].
    pub fn error(&mut self, place: Place, path: &Path<'_>, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, place, path, message.into())
    }

    /// Adds a warning.
    pub fn warning(
        &mut self,
        kind: WarningKind,
        place: Place,
        path: &Path<'_>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning(kind), place, path, message.into())
    }

    /// An empty collection for the same document.
    pub(super) fn of_same_file(&self) -> Self {
        Self { file: Arc::clone(&self.file), found: Vec::new(), warnings: 0, omitted: Omitted::default() }
    }

    /// Adds what was found elsewhere.
    pub(super) fn append(&mut self, other: Self) {
        self.omitted.errors += other.omitted.errors;
        self.omitted.warnings += other.omitted.warnings;
        self.omitted.last = other.omitted.last.or(self.omitted.last.take());
        for diagnostic in other.found {
            self.keep(diagnostic);
        }
    }

    fn add(&mut self, severity: Severity, place: Place, path: &Path<'_>, message: String) -> &mut Diagnostic {
        let is_kept = !self.is_full() || (severity == Severity::Error && self.warnings > 0);
        // Of what is only counted nothing is shown.
        let (path, message) = if is_kept {
            (one_line(&path.to_string()), one_line_of(&message, MAX_MESSAGE))
        } else {
            (String::new(), String::new())
        };
        self.keep(Diagnostic { severity, file: Arc::clone(&self.file), place, path, message, help: None })
    }

    /// Keeps a problem. An error takes the place of a warning where there is no more room: a document that is refused
    /// says why.
    fn keep(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        let mut at = self.found.len();
        if at < MAX_KEPT {
            self.warnings += usize::from(!diagnostic.is_error());
            self.found.push(diagnostic);
        } else {
            let is_displacing = diagnostic.is_error() && self.warnings > 0;
            let warning =
                is_displacing.then(|| self.found.iter().rposition(|kept| !kept.is_error())).flatten();
            let Some(warning) = warning.and_then(|warning| Some((warning, self.found.get_mut(warning)?)))
            else {
                return self.omitted.insert(diagnostic);
            };
            at = warning.0;
            self.warnings -= 1;
            let displaced = std::mem::replace(warning.1, diagnostic);
            self.omitted.insert(displaced);
        }
        #[expect(clippy::indexing_slicing, reason = "the place at which it was pushed or replaced above")]
        &mut self.found[at]
    }

    /// Whether what is added is kept no more, so that its help would be for nobody.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_KEPT
    }

    /// Whether any of them refuses the document.
    pub fn any_error(&self) -> bool {
        self.omitted.errors > 0 || self.warnings < self.found.len()
    }

    /// All of them, in the order of their places; the last one says how many were not kept.
    pub fn into_sorted(self) -> Vec<Diagnostic> {
        let Self { mut found, omitted, .. } = self;
        found.sort_by_key(|problem| problem.place);
        let place = found.last().map(|last| last.place);
        if let Some(mut more) = omitted.last {
            let count = |count: usize, noun: &str| match count {
                0 => None,
                1 => Some(format!("1 more {noun}")),
                _ => Some(format!("{count} more {noun}s")),
            };
            let counts = [count(omitted.errors, "error"), count(omitted.warnings, "warning")];
            more.severity = if omitted.errors > 0 { Severity::Error } else { more.severity };
            // Behind all others, also where they are sorted once more among those of another document.
            more.place = place.unwrap_or(more.place);
            more.path = String::new();
            more.message = format!("and {}", counts.into_iter().flatten().collect::<Vec<_>>().join(" and "));
            more.help = None;
            found.push(more);
        }
        found
    }
}

impl Omitted {
    fn insert(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        if diagnostic.is_error() {
            self.errors += 1;
        } else {
            self.warnings += 1;
        }
        self.last.insert(diagnostic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(problems: &mut Problems, count: u32, severity: Severity) {
        for line in 1..=count {
            let place = Place { line, column: 1 };
            problems.add(severity, place, &Path::Root, format!("problem {line}")).help("repair it");
        }
    }

    const WARNING: Severity = Severity::Warning(WarningKind::OpenNetwork);

    #[test]
    fn errors_displace_warnings_and_the_rest_is_counted() {
        let mut problems = Problems::of("p.yaml");
        fill(&mut problems, 1003, WARNING);
        assert!(!problems.any_error());
        problems.error(Place { line: 7, column: 2 }, &Path::Root, "it is wrong").help("correct it");
        assert!(problems.any_error());
        let found = problems.into_sorted();
        assert_eq!(found.len(), 1001);
        let errors: Vec<_> = found.iter().filter(|problem| problem.is_error()).collect();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), "p.yaml:7:2: it is wrong\n  help: correct it");
        assert_eq!(found[1000].to_string(), "p.yaml:999:1: warning: and 4 more warnings");
    }

    #[test]
    fn what_was_written_neither_ends_nor_reorders_a_line() {
        let mut problems = Problems::of("owners.d/a\nb\u{202e}.yaml");
        let key = Path::Root.key("k\u{2028}");
        problems
            .error(Place { line: 1, column: 2 }, &key, "`a\u{202e}b\u{200b}` is wrong")
            .help("not\u{2067}");
        let found = problems.into_sorted();
        let shown = "owners.d/a\\nb\\u{202e}.yaml:1:2: k\\u{2028}: `a\\u{202e}b\\u{200b}` is wrong";
        assert_eq!(found[0].one_line(), format!("{shown}; help: not\\u{{2067}}"));
    }

    #[test]
    fn nothing_is_added_to_a_thousand() {
        let mut problems = Problems::of("p.yaml");
        fill(&mut problems, 1000, Severity::Error);
        let found = problems.into_sorted();
        assert_eq!((found.len(), found[999].message.as_str()), (1000, "problem 1000"));
    }

    #[test]
    fn what_is_appended_keeps_to_the_bound() {
        let mut problems = Problems::of("p.yaml");
        fill(&mut problems, 800, WARNING);
        let mut others = problems.of_same_file();
        fill(&mut others, 1002, Severity::Error);
        problems.append(others);
        let found = problems.into_sorted();
        assert_eq!(found.len(), 1001);
        assert!(found.iter().all(Diagnostic::is_error));
        assert_eq!(found[1000].message, "and 2 more errors and 800 more warnings");
        assert_eq!(found[1000].help, None);
    }
}
