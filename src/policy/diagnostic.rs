//! Problems of a policy, told with their place: `file:line:column: path: message`, and a help line.

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
    RevokedGroupUnknown,
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
    pub const ALL: [Self; 20] = [
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
        Self::RevokedGroupUnknown,
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
            Self::RevokedGroupUnknown => "revoked_group_unknown",
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
        self.help = Some(on_one_line(help.into()));
    }

    /// The diagnostic on one line, for logs.
    pub fn one_line(&self) -> String {
        self.to_string().replace("\n  help:", "; help:")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.place.line, self.place.column)?;
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

/// What was written may hold line breaks and worse; a diagnostic is one line a part.
fn on_one_line(text: String) -> String {
    let breaks = |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut line, character| {
        if breaks(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
        line
    })
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

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Item(parent, number) => write!(f, "{parent}[{number}]"),
        }
    }
}

/// Collects every problem of one document, so that they are told together.
#[derive(Debug)]
pub struct Problems {
    file: Arc<str>,
    found: Vec<Diagnostic>,
    /// Beyond the most that are kept: only the last one, and whether any of them was an error.
    further: Option<Diagnostic>,
    further_errors: bool,
}

/// A document with more problems than this is not read by anybody line by line; telling all would fill the memory.
const MAX_KEPT: usize = 1000;

impl Problems {
    /// An empty collection for the document read from `file`.
    pub fn of(file: &str) -> Self {
        Self { file: file.into(), found: Vec::new(), further: None, further_errors: false }
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
        Self { file: Arc::clone(&self.file), found: Vec::new(), further: None, further_errors: false }
    }

    /// Adds what was found elsewhere.
    pub(super) fn append(&mut self, mut other: Self) {
        self.further_errors |= other.further_errors;
        self.found.append(&mut other.found);
    }

    fn add(&mut self, severity: Severity, place: Place, path: &Path<'_>, message: String) -> &mut Diagnostic {
        let at = self.found.len();
        let diagnostic = Diagnostic {
            severity,
            file: Arc::clone(&self.file),
            place,
            path: on_one_line(path.to_string()),
            message: on_one_line(message),
            help: None,
        };
        if at >= MAX_KEPT {
            self.further_errors |= severity == Severity::Error;
            return self.further.insert(diagnostic);
        }
        self.found.push(diagnostic);
        #[expect(clippy::indexing_slicing, reason = "the element was pushed two lines above")]
        &mut self.found[at]
    }

    /// Whether any of them refuses the document.
    pub fn any_error(&self) -> bool {
        self.further_errors || self.found.iter().any(Diagnostic::is_error)
    }

    /// All of them, in the order of their places.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|problem| problem.place);
        self.found
    }
}
