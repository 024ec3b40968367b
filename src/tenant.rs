//! Tenants: the backends' own grammar for `X-Scope-OrgID`, and the patterns that policies write.
//!
//! Source of the grammar: grafana/dskit `tenant/tenant.go` and `tenant/resolver.go`. Two things that dskit lets
//! through are refused here: empty parts (`a|`), and `:`, behind which newer backends trim everything and older
//! ones do not.

mod affixes;
mod patterns;
mod set;

pub(crate) use patterns::PatternMap;
pub use set::PatternSet;

use std::fmt;

/// At most this many tenants may be named by one request.
pub const MAX_TENANTS: usize = 100;
/// A tenant's longest form, in bytes.
pub const MAX_TENANT_BYTES: usize = 150;
/// At most this many `*` may stand in one pattern, so that matching stays linear in practice as in theory.
pub const MAX_WILDCARDS: usize = 4;

const fn is_tenant_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'-' | b'_' | b'.' | b'*' | b'\'' | b'(' | b')')
}

/// Whether a single tenant is one that the backends accept.
///
/// `text`: the bytes between two `|` of the header. False for `.`, `..`, `__mimir_cluster`, the empty tenant,
/// and anything over [`MAX_TENANT_BYTES`] or outside `A-Za-z0-9!-_.*'()`.
pub fn is_tenant(text: &[u8]) -> bool {
    (1..=MAX_TENANT_BYTES).contains(&text.len())
        && text.iter().copied().all(is_tenant_byte)
        && !matches!(text, b"." | b".." | b"__mimir_cluster")
}

/// The header names no tenants that could be decided: it does not follow the grammar, or names too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedTenants;

/// The tenants that one request names: 1 to [`MAX_TENANTS`], grammatical, sorted bytewise, without duplicates.
/// Only [`TenantList::parse`] builds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantList<'a>(Tenants<'a>);

/// Nearly every request names one tenant, and costs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tenants<'a> {
    One(&'a str),
    Several(Vec<&'a str>),
}

impl<'a> TenantList<'a> {
    /// Parses the value of `X-Scope-OrgID`.
    ///
    /// # Errors
    /// [`MalformedTenants`] where any part breaks the grammar or more than [`MAX_TENANTS`] distinct tenants or
    /// parts are named.
    pub fn parse(header: &'a [u8]) -> Result<Self, MalformedTenants> {
        if is_tenant(header) {
            let only = std::str::from_utf8(header).map_err(|_| MalformedTenants)?;
            return Ok(Self(Tenants::One(only)));
        }
        let text = std::str::from_utf8(header).map_err(|_| MalformedTenants)?;
        let mut tenants = Vec::new();
        for part in text.split('|') {
            // Counted before duplicates are removed: the work a request may cause is bounded by what it sends.
            if tenants.len() == MAX_TENANTS || !is_tenant(part.as_bytes()) {
                return Err(MalformedTenants);
            }
            tenants.push(part);
        }
        tenants.sort_unstable();
        tenants.dedup();
        // So that equal lists are equal, however they were written.
        Ok(Self(match *tenants {
            [only] => Tenants::One(only),
            _ => Tenants::Several(tenants),
        }))
    }

    /// The tenants in canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a str> + '_ {
        self.as_slice().iter().copied()
    }

    fn as_slice(&self) -> &[&'a str] {
        match &self.0 {
            Tenants::One(only) => std::slice::from_ref(only),
            Tenants::Several(tenants) => tenants,
        }
    }

    /// How many tenants there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a tenant list is never empty")]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether `header` is already the canonical form of this list.
    pub fn is_canonical_form_of(&self, header: &[u8]) -> bool {
        match self.as_slice() {
            [only] => only.as_bytes() == header,
            _ => self.to_string().as_bytes() == header,
        }
    }
}

/// The canonical header value: sorted, without duplicates, joined by `|`.
impl fmt::Display for TenantList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, tenant) in self.as_slice().iter().enumerate() {
            if number > 0 {
                f.write_str("|")?;
            }
            f.write_str(tenant)?;
        }
        Ok(())
    }
}

/// Why a policy's tenant or tenant pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPattern {
    /// No backend accepts a tenant that this could match.
    Grammar,
    /// More than [`MAX_WILDCARDS`] `*`.
    Wildcards,
}

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grammar => f.write_str("is no tenant that the backends accept"),
            Self::Wildcards => write!(f, "has more than {MAX_WILDCARDS} `*`"),
        }
    }
}

/// A tenant as a policy writes it: `*` matches any run of characters, also none; everything else is literal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantPattern(Box<str>);

impl TenantPattern {
    /// Parses a tenant or pattern of a policy.
    ///
    /// # Errors
    /// [`InvalidPattern`] where the backends would refuse what is written, or there are too many `*`.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if !is_tenant(text.as_bytes()) {
            return Err(InvalidPattern::Grammar);
        }
        if text.bytes().filter(|byte| *byte == b'*').count() > MAX_WILDCARDS {
            return Err(InvalidPattern::Wildcards);
        }
        // `**` says nothing that `*` does not.
        let mut text = text.to_owned();
        while text.contains("**") {
            text = text.replace("**", "*");
        }
        Ok(Self(text.into_boxed_str()))
    }

    /// The pattern `*`.
    pub fn everything() -> Self {
        Self("*".into())
    }

    /// The pattern as it is compared: runs of `*` made one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one tenant it names, where it holds no `*`.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// What every matching tenant begins with: everything before the first `*`.
    pub fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// What every matching tenant ends in: everything behind the last `*`.
    pub fn suffix(&self) -> &str {
        self.0.rsplit('*').next().unwrap_or_default()
    }

    /// What stands before and behind its `*`, where there is just one.
    pub fn only_star(&self) -> Option<(&str, &str)> {
        self.0.split_once('*').filter(|(_, tail)| !tail.contains('*'))
    }

    /// What stands before its `*`, where that is the only one and its end.
    pub fn trailing(&self) -> Option<&str> {
        self.0.strip_suffix('*').filter(|head| !head.contains('*'))
    }

    /// Whether it matches every tenant.
    pub fn is_everything(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether the tenant matches. Greedy with one point to return to, so at most `tenant * wildcards` steps.
    pub fn matches(&self, tenant: &str) -> bool {
        // Nearly all are literal, or end in their only star.
        match self.0.as_bytes().iter().position(|byte| *byte == b'*') {
            None => return *self.0 == *tenant,
            Some(star) if star + 1 == self.0.len() => {
                return self.0.as_bytes().get(..star).is_some_and(|head| tenant.as_bytes().starts_with(head));
            }
            Some(_) => {}
        }
        let mut pieces = self.0.split('*');
        let Some(mut rest) = tenant.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        let Some(middle) = rest.strip_suffix(last) else { return false };
        rest = middle;
        for piece in pieces {
            let Some((_, behind)) = rest.split_once(piece) else { return false };
            rest = behind;
        }
        true
    }

    /// Whether every tenant that `other` matches is matched here too. Never a wrong yes: a star of `other` can only be
    /// swallowed by a star.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// A quick no to [`TenantPattern::overlaps`]: what one begins with is not what the other begins with.
    pub fn may_overlap(&self, other: &Self) -> bool {
        let (own, others) = (self.prefix(), other.prefix());
        own.starts_with(others) || others.starts_with(own)
    }

    /// Whether some tenant could match both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        // Most patterns begin otherwise, and of many each is held against each.
        let (own, others) = (self.prefix(), other.prefix());
        if !own.starts_with(others) && !others.starts_with(own) {
            return false;
        }
        let (left, right) = (self.0.as_bytes(), other.0.as_bytes());
        // reachable[j]: the pieces of `left` so far and the first j of `right` can match the same text.
        let mut reachable = vec![false; right.len() + 1];
        let spread = |row: &mut Vec<bool>| {
            for (at, byte) in right.iter().enumerate() {
                if *byte == b'*'
                    && row.get(at) == Some(&true)
                    && let Some(next) = row.get_mut(at + 1)
                {
                    *next = true;
                }
            }
        };
        if let Some(start) = reachable.first_mut() {
            *start = true;
        }
        spread(&mut reachable);
        for byte in left {
            let mut next = vec![false; right.len() + 1];
            for (at, from) in reachable.iter().enumerate().filter(|(_, reached)| **reached) {
                debug_assert!(from);
                // A star consumes nothing, or whatever the other side reads next.
                let targets: &[usize] = match (*byte, right.get(at)) {
                    (b'*', _) => &[at],
                    (_, Some(b'*')) => &[at],
                    (literal, Some(other)) if literal == *other => &[at + 1],
                    _ => &[],
                };
                for target in targets {
                    if let Some(cell) = next.get_mut(*target) {
                        *cell = true;
                    }
                }
            }
            if *byte == b'*' {
                // The star of `left` also swallows any further characters of `right`.
                let mut on = false;
                for cell in &mut next {
                    on |= *cell;
                    *cell = on;
                }
            }
            spread(&mut next);
            reachable = next;
        }
        reachable.last() == Some(&true)
    }
}

impl fmt::Display for TenantPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(header: &str) -> Option<String> {
        TenantList::parse(header.as_bytes()).ok().map(|list| list.to_string())
    }

    #[test]
    fn grammar_is_the_backends() {
        for good in ["a", "tenant1", "A-Za_z.0!'()*", &"x".repeat(150), "...", "a..b"] {
            assert_eq!(canonical(good).as_deref(), Some(good), "{good}");
        }
        for bad in [
            "",
            "|",
            "a|",
            "|a",
            "a||b",
            ".",
            "..",
            "a|..",
            "a:b",
            "a:k=v",
            "a b",
            " a",
            "a ",
            "a,b",
            "a/b",
            "a\\b",
            "a%62",
            "é",
            "a\0",
            "a\n",
            "__mimir_cluster",
            "b|__mimir_cluster",
            "@all",
            &"x".repeat(151),
        ] {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
        assert!(TenantList::parse(b"\xff").is_err());
    }

    #[test]
    fn lists_are_sorted_and_without_duplicates() {
        assert_eq!(canonical("b|a|b").as_deref(), Some("a|b"));
        assert_eq!(canonical("a|B").as_deref(), Some("B|a"), "order is bytewise");
        let list = TenantList::parse(b"a|a").unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(Ok(list.clone()), TenantList::parse(b"a"));
        assert!(!list.is_canonical_form_of(b"a|a"));
        assert!(list.is_canonical_form_of(b"a"));
    }

    #[test]
    fn a_hundred_tenants_and_no_more() {
        let named = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join("|");
        assert_eq!(TenantList::parse(named(100).as_bytes()).unwrap().len(), 100);
        assert!(TenantList::parse(named(101).as_bytes()).is_err());
        assert!(TenantList::parse(["a"; 101].join("|").as_bytes()).is_err());
    }

    #[test]
    fn patterns_match_runs_of_characters() {
        let matches = |pattern: &str, tenant: &str| TenantPattern::parse(pattern).unwrap().matches(tenant);
        assert!(matches("team-a-*", "team-a-"));
        assert!(matches("team-a-*", "team-a-dev"));
        assert!(!matches("team-a-*", "team-a"));
        assert!(!matches("team-a-*", "xteam-a-dev"));
        assert!(matches("*", "anything"));
        assert!(matches("*-prod", "a-prod"));
        assert!(matches("a*b*c", "abc"));
        assert!(matches("a*b*c", "a1b2b3c"));
        assert!(!matches("a*b*c", "a1c"));
        assert!(!matches("ab*ba", "aba"), "the ends may not overlap");
        assert!(!matches("a.c", "abc"), "only the star is special");
        assert!(!matches("Team", "team"));
        assert_eq!(TenantPattern::parse("a**b").unwrap().as_str(), "a*b");
    }

    #[test]
    fn patterns_that_no_tenant_can_match_are_refused() {
        for bad in ["", ".", "..", "a:b", "a|b", "a b", "__mimir_cluster"] {
            assert_eq!(TenantPattern::parse(bad), Err(InvalidPattern::Grammar), "{bad}");
        }
        assert!(TenantPattern::parse("a*b*c*d*").is_ok());
        assert_eq!(TenantPattern::parse("*a*b*c*d*"), Err(InvalidPattern::Wildcards));
    }

    /// The obvious matcher: try every split at every star.
    fn slow_match(pattern: &[u8], tenant: &[u8]) -> bool {
        match pattern.split_first() {
            None => tenant.is_empty(),
            Some((b'*', rest)) => (0..=tenant.len()).any(|from| slow_match(rest, &tenant[from..])),
            Some((byte, rest)) => tenant.first() == Some(byte) && slow_match(rest, &tenant[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_obvious_model(pattern in "[ab*]{1,8}", tenant in "[ab]{1,10}") {
            if let Ok(parsed) = TenantPattern::parse(&pattern) {
                prop_assert_eq!(parsed.matches(&tenant), slow_match(pattern.as_bytes(), tenant.as_bytes()));
            }
        }

        #[test]
        fn what_covers_matches_all_that_is_covered(
            left in "[ab*]{1,5}", right in "[ab*]{1,5}", tenant in "[ab]{1,8}",
        ) {
            let (left, right) = (TenantPattern::parse(&left), TenantPattern::parse(&right));
            let (Ok(left), Ok(right)) = (left, right) else { return Ok(()) };
            if left.covers(&right) && right.matches(&tenant) {
                prop_assert!(left.matches(&tenant), "{} {} {}", left, right, tenant);
            }
        }

        #[test]
        fn overlapping_agrees_with_the_tenants_themselves(left in "[ab*]{1,5}", right in "[ab*]{1,5}") {
            // Two patterns of at most five characters that overlap share a tenant of at most eight.
            let (left, right) = (TenantPattern::parse(&left), TenantPattern::parse(&right));
            let (Ok(left), Ok(right)) = (left, right) else { return Ok(()) };
            let shared = (1..=8u32).any(|length| (0..1u32 << length).any(|bits| {
                let tenant: String = (0..length).map(|at| if bits >> at & 1 == 1 { 'a' } else { 'b' }).collect();
                left.matches(&tenant) && right.matches(&tenant)
            }));
            prop_assert_eq!(left.overlaps(&right), shared, "{} {}", left, right);
            prop_assert!(left.may_overlap(&right) || !shared, "{} {}", left, right);
        }

        #[test]
        fn the_canonical_form_round_trips(header in proptest::collection::vec("[a-c*!]{1,3}", 1..6)) {
            let header = header.join("|");
            let list = TenantList::parse(header.as_bytes()).unwrap();
            let text = list.to_string();
            prop_assert!(list.is_canonical_form_of(text.as_bytes()));
            prop_assert_eq!(TenantList::parse(text.as_bytes()).unwrap().to_string(), text.as_str());
        }

        #[test]
        fn no_bytes_panic(header in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = TenantList::parse(&header);
        }
    }
}
