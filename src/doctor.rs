//! Looks over an nginx configuration: what nginx itself takes and what nevertheless answers everybody 503, or leaves a
//! backend unprotected.
//!
//! It reads text and decides nothing. What it does not understand (variables, Lua code that loads other code) it does
//! not complain about.

mod checks;
pub mod files;
pub mod lua;
pub mod nginx;
mod options;
mod tree;

use files::Files;
pub use nginx::{Configuration, Place, Unreadable, read};
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration does not do what it is there for.
    Fault,
    /// It does, and could do better; or it may be meant so.
    Hint,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant says its name")]
pub enum Kind {
    AdminDenied,
    AdminListener,
    AgainFromOutside,
    AuditEscaped,
    AuditLog,
    AuditPipe,
    AuthRequest,
    CacheKey,
    CacheMethods,
    CacheZone,
    CodeCache,
    DecidedTwice,
    EmptyBlock,
    ErrorLog,
    FallbackByUri,
    FallbackDenied,
    FileMissing,
    FileUnreadable,
    HeaderBuffers,
    HeaderCopy,
    HeaderForms,
    HttpConf,
    IncludeMissing,
    LuaFile,
    Module,
    NotCalled,
    OptionConflict,
    OptionUnknown,
    OptionValue,
    PathChanged,
    PathPrefix,
    Phase,
    RealIp,
    RelativePath,
    Replaced,
    RequiredInInit,
    SatisfyAny,
    SharedDict,
    TenantsUnproven,
    TenantsOverwritten,
    Unprotected,
    UnknownFunction,
}

impl Kind {
    /// The kind as the JSON form writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminDenied => "admin_denied",
            Self::AdminListener => "admin_listener",
            Self::AgainFromOutside => "again_from_outside",
            Self::AuditEscaped => "audit_escaped",
            Self::AuditLog => "audit_log",
            Self::AuditPipe => "audit_pipe",
            Self::AuthRequest => "auth_request",
            Self::CacheKey => "cache_key",
            Self::CacheMethods => "cache_methods",
            Self::CacheZone => "cache_zone",
            Self::CodeCache => "code_cache",
            Self::DecidedTwice => "decided_twice",
            Self::EmptyBlock => "empty_block",
            Self::ErrorLog => "error_log",
            Self::FallbackByUri => "fallback_by_uri",
            Self::FallbackDenied => "fallback_denied",
            Self::FileMissing => "file_missing",
            Self::FileUnreadable => "file_unreadable",
            Self::HeaderBuffers => "header_buffers",
            Self::HeaderCopy => "header_copy",
            Self::HeaderForms => "header_forms",
            Self::HttpConf => "http_conf",
            Self::IncludeMissing => "include_missing",
            Self::LuaFile => "lua_file",
            Self::Module => "module",
            Self::NotCalled => "not_called",
            Self::OptionConflict => "option_conflict",
            Self::OptionUnknown => "option_unknown",
            Self::OptionValue => "option_value",
            Self::PathChanged => "path_changed",
            Self::PathPrefix => "path_prefix",
            Self::Phase => "phase",
            Self::RealIp => "real_ip",
            Self::RelativePath => "relative_path",
            Self::Replaced => "replaced",
            Self::RequiredInInit => "required_in_init",
            Self::SatisfyAny => "satisfy_any",
            Self::SharedDict => "shared_dict",
            Self::TenantsUnproven => "tenants_unproven",
            Self::TenantsOverwritten => "tenants_overwritten",
            Self::Unprotected => "unprotected",
            Self::UnknownFunction => "unknown_function",
        }
    }

    /// Whether nginx would answer every request of the place 500 or 503: a reload makes things worse.
    pub const fn denies_everybody(self) -> bool {
        matches!(
            self,
            Self::LuaFile
                | Self::Module
                | Self::OptionConflict
                | Self::OptionUnknown
                | Self::OptionValue
                | Self::Phase
                | Self::UnknownFunction
        )
    }
}

/// Something that is wrong with a configuration, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// What is wrong: lowercase, no final period, what was written in backticks.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Finding {
    /// Whether nginx would answer every request of the place 500 or 503, which a reload brings about.
    pub fn denies_everybody(&self) -> bool {
        self.severity == Severity::Fault && self.kind.denies_everybody()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line } = &self.place;
        let hint = if self.severity == Severity::Hint { "hint: " } else { "" };
        write!(formatter, "{file}:{line}: {hint}{}\n  help: {}", self.message, self.help)
    }
}

/// Looks a configuration over.
///
/// `files`: those of the machine that it is for; [`files::Nowhere`] where they cannot be looked at. The result: what was
/// found, in the order of the places.
pub fn examine(configuration: &Configuration, files: &dyn Files) -> Vec<Finding> {
    checks::all(configuration, files)
}

#[cfg(test)]
mod tests;
