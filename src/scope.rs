//! What a request does: a signal and an action, such as `logs:read`, and which backends a request may be for.
//!
//! The vocabulary is the contract's and, except for `metrics:export`, that of grafana/db-auth-gateway.

use std::fmt;

/// One signal and action. Closed: a route that has none of these is denied to everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant says its name")]
pub enum Scope {
    MetricsRead,
    MetricsWrite,
    LogsRead,
    LogsWrite,
    LogsDelete,
    TracesRead,
    TracesWrite,
    ProfilesRead,
    ProfilesWrite,
    RulesRead,
    RulesWrite,
    AlertsRead,
    AlertsWrite,
}

impl Scope {
    /// Every scope, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::MetricsRead,
        Self::MetricsWrite,
        Self::LogsRead,
        Self::LogsWrite,
        Self::LogsDelete,
        Self::TracesRead,
        Self::TracesWrite,
        Self::ProfilesRead,
        Self::ProfilesWrite,
        Self::RulesRead,
        Self::RulesWrite,
        Self::AlertsRead,
        Self::AlertsWrite,
    ];

    /// The scope as policies, audit records and metrics write it: `logs:read`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MetricsRead => "metrics:read",
            Self::MetricsWrite => "metrics:write",
            Self::LogsRead => "logs:read",
            Self::LogsWrite => "logs:write",
            Self::LogsDelete => "logs:delete",
            Self::TracesRead => "traces:read",
            Self::TracesWrite => "traces:write",
            Self::ProfilesRead => "profiles:read",
            Self::ProfilesWrite => "profiles:write",
            Self::RulesRead => "rules:read",
            Self::RulesWrite => "rules:write",
            Self::AlertsRead => "alerts:read",
            Self::AlertsWrite => "alerts:write",
        }
    }

    /// The scope of exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// The part before the colon.
    pub fn signal(self) -> &'static str {
        self.name().split(':').next().unwrap_or_default()
    }

    /// The part behind the colon.
    pub fn action(self) -> &'static str {
        self.name().split(':').nth(1).unwrap_or_default()
    }

    /// True where a request must name exactly one tenant: writes, rules and deletes.
    pub const fn takes_one_tenant(self) -> bool {
        !matches!(
            self,
            Self::MetricsRead | Self::LogsRead | Self::TracesRead | Self::ProfilesRead | Self::AlertsRead
        )
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u16);

impl ScopeSet {
    /// No scope.
    pub const EMPTY: Self = Self(0);

    /// Every scope, deletion included.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Every `*:read`: what a grant without `scopes` covers.
    pub fn reads() -> Self {
        Scope::ALL.into_iter().filter(|scope| scope.action() == "read").collect()
    }

    /// Whether the scope is in the set.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u16) != 0
    }

    /// Adds one scope.
    pub const fn insert(&mut self, scope: Scope) {
        self.0 |= 1 << scope as u16;
    }

    /// The scopes that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every scope of this set is in `other`.
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is no scope in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes of the set, in their order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// What `text` covers in a policy: a scope, `X:*` (read and write of a signal), `*:read`, `*:write` or
    /// `*:*`. A wildcard never covers a deletion: `delete` is written out.
    pub fn from_pattern(text: &str) -> Option<Self> {
        let (signal, action) = text.split_once(':')?;
        let signal_known = signal == "*" || Scope::ALL.into_iter().any(|scope| scope.signal() == signal);
        let written_out = signal != "*" && action == "delete";
        if !signal_known || !(matches!(action, "*" | "read" | "write") || written_out) {
            return None;
        }
        let covered: Self = Scope::ALL
            .into_iter()
            .filter(|scope| signal == "*" || scope.signal() == signal)
            .filter(|scope| if action == "*" { scope.action() != "delete" } else { scope.action() == action })
            .collect();
        (!covered.is_empty()).then_some(covered)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut set = Self::EMPTY;
        for scope in scopes {
            set.insert(scope);
        }
        set
    }
}

/// One of the multi-tenant databases behind the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant says its name")]
pub enum Backend {
    Mimir,
    Loki,
    Tempo,
    Pyroscope,
}

impl Backend {
    /// Every backend, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Mimir, Self::Loki, Self::Tempo, Self::Pyroscope];

    /// The backend as configurations, audit records and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mimir => "mimir",
            Self::Loki => "loki",
            Self::Tempo => "tempo",
            Self::Pyroscope => "pyroscope",
        }
    }

    /// The backend of exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }
}

/// A set of backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackendSet(u8);

impl BackendSet {
    /// No backend.
    pub const EMPTY: Self = Self(0);
    /// All four.
    pub const ALL: Self = Self(0b1111);

    /// A set of one.
    pub const fn of(backend: Backend) -> Self {
        Self(1 << backend as u8)
    }

    /// Whether the backend is in the set.
    pub const fn contains(self, backend: Backend) -> bool {
        self.0 & (1 << backend as u8) != 0
    }

    /// The backends of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The backends of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the two sets share a backend.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no backend in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The backend, where the set holds exactly one.
    pub fn single(self) -> Option<Backend> {
        if self.0.count_ones() == 1 { self.iter().next() } else { None }
    }

    /// The backends of the set, in their order.
    pub fn iter(self) -> impl Iterator<Item = Backend> {
        Backend::ALL.into_iter().filter(move |backend| self.contains(*backend))
    }

    /// How records and metrics name the set: the one backend, or `any` where several know the path.
    pub fn label(self) -> &'static str {
        self.single().map_or("any", Backend::name)
    }
}

impl FromIterator<Backend> for BackendSet {
    fn from_iter<I: IntoIterator<Item = Backend>>(backends: I) -> Self {
        backends.into_iter().map(Self::of).fold(Self::EMPTY, Self::union)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Vec<&'static str> {
        ScopeSet::from_pattern(text).unwrap_or_default().iter().map(Scope::name).collect()
    }

    #[test]
    fn names_round_trip_and_numbers_match() {
        for (number, scope) in Scope::ALL.into_iter().enumerate() {
            assert_eq!(scope as usize, number);
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
        }
        for (number, backend) in Backend::ALL.into_iter().enumerate() {
            assert_eq!(backend as usize, number);
            assert_eq!(Backend::from_name(backend.name()), Some(backend));
        }
    }

    #[test]
    fn wildcards_cover_reads_and_writes_never_deletes() {
        assert_eq!(pattern("logs:*"), ["logs:read", "logs:write"]);
        assert_eq!(pattern("logs:delete"), ["logs:delete"]);
        assert_eq!(
            pattern("*:read"),
            ["metrics:read", "logs:read", "traces:read", "profiles:read", "rules:read", "alerts:read"]
        );
        assert!(!ScopeSet::from_pattern("*:*").unwrap().contains(Scope::LogsDelete));
        for bad in
            ["*:delete", "metrics:delete", "logs", "logs:", ":read", "*", "Logs:read", "logs:reads", "x:*"]
        {
            assert_eq!(ScopeSet::from_pattern(bad), None, "{bad}");
        }
    }

    #[test]
    fn several_backends_are_any() {
        let both = BackendSet::of(Backend::Loki).union(BackendSet::of(Backend::Mimir));
        assert_eq!(both.label(), "any");
        assert_eq!(BackendSet::of(Backend::Tempo).label(), "tempo");
        assert_eq!(both.single(), None);
    }
}
