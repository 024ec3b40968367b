//! Counters as nginx's shared memory keeps them, and their Prometheus text exposition.
//!
//! A counter's key in the shared dictionary is its sample as Prometheus writes it, so that reading the
//! dictionary needs no table of names. Every label value comes from a closed set or from the policy.

use crate::decision::Decision;
use crate::policy::diagnostic::WarningKind;
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Upper bounds of the histogram of decision times, in nanoseconds, from 1 µs to 100 ms.
pub const BUCKETS: [u64; 16] = [
    1_000,
    2_000,
    3_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
];

/// What the token cache had to say about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CacheUse {
    /// The request did not come to its token.
    #[default]
    Unused,
    /// The token had been verified before.
    Hit,
    /// It was verified now.
    Miss,
    /// It was refused; failed tokens are not kept.
    Refused,
}

impl CacheUse {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Hit, "hit"), (Self::Miss, "miss"), (Self::Refused, "refused")];
}

/// What a request adds to the counters: small enough to be one number on the way to Lua.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct Tally {
    pub reason: Reason,
    pub shadow: Option<Reason>,
    pub backends: BackendSet,
    pub scope: Option<Scope>,
    pub cache: CacheUse,
    /// The source of the client's address and what became of it, where the request came to it.
    pub client_ip: Option<(IpSource, Option<Reason>)>,
}

/// Where client addresses come from, as metrics call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant says its name")]
pub enum IpSource {
    Cookie,
    RemoteAddr,
    Header,
}

impl IpSource {
    const ALL: [Self; 3] = [Self::Cookie, Self::RemoteAddr, Self::Header];

    /// The source's name in records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::RemoteAddr => "remote_addr",
            Self::Header => "header",
        }
    }
}

const NONE: u8 = 0;

impl Tally {
    /// How many values a part of a code takes; the lowest is the reason.
    pub const REASONS: u64 = 1 << Self::PART_BITS;
    /// How many values the bucket takes in the key of a counter.
    pub const BUCKETS: u64 = 32;
    const PART_BITS: u32 = 7;

    /// The tally of a decision that no request facts go with.
    ///
    /// `shadow_mode`: the whole gateway only records, and allowed the request whatever the decision.
    pub fn of(decision: &Decision, shadow_mode: bool) -> Self {
        let unapplied = (shadow_mode && !decision.is_allow()).then_some(decision.reason());
        Self {
            reason: if shadow_mode { Reason::Granted } else { decision.reason() },
            shadow: unapplied.or(decision.shadow.map(|shadow| shadow.reason)),
            backends: BackendSet::ALL,
            scope: None,
            cache: CacheUse::Unused,
            client_ip: None,
        }
    }

    /// The tally as a number below 2^47, so that it survives being a Lua number.
    pub fn to_code(self) -> u64 {
        let or_none = |number: Option<u8>| number.map_or(NONE, |number| number + 1);
        let backend = or_none(self.backends.single().map(|backend| backend as u8));
        let (source, result) = match self.client_ip {
            Some((source, result)) => (source as u8 + 1, or_none(result.map(|reason| reason as u8))),
            None => (NONE, NONE),
        };
        [
            self.reason as u8,
            or_none(self.shadow.map(|reason| reason as u8)),
            backend,
            or_none(self.scope.map(|scope| scope as u8)),
            (self.cache as u8) << 4 | source,
            result,
        ]
        .iter()
        .rev()
        .fold(0, |code, part| (code << Self::PART_BITS) | (u64::from(*part) % Self::REASONS))
    }

    /// The same with a sign, as Lua's side takes it. What could not be written so would be no allowance.
    pub fn to_code_or_internal_error(self) -> i64 {
        i64::try_from(self.to_code()).unwrap_or(Reason::InternalError as i64)
    }

    /// The keys of the counters that a code adds one to.
    pub fn counters_of(code: u64) -> Vec<String> {
        let part = |number: u32| {
            usize::try_from((code >> (Self::PART_BITS * number)) % Self::REASONS).unwrap_or_default()
        };
        let reason_at = |number: usize| Reason::ALL.get(number).copied();
        let reason = reason_at(part(0)).unwrap_or(Reason::InternalError);
        let backend = part(2)
            .checked_sub(1)
            .and_then(|number| crate::scope::Backend::ALL.get(number))
            .map_or("any", |backend| backend.name());
        let scope = part(3)
            .checked_sub(1)
            .and_then(|number| Scope::ALL.get(number))
            .map_or("none", |scope| scope.name());
        let decision = if reason == Reason::Granted { "allow" } else { "deny" };
        let mut counters = vec![format!(
            r#"tenantauth_decisions_total{{decision="{decision}",reason="{reason}",backend="{backend}",scope="{scope}"}}"#
        )];
        if let Some(reason) = part(1).checked_sub(1).and_then(reason_at) {
            counters
                .push(format!(r#"tenantauth_shadow_denials_total{{reason="{reason}",backend="{backend}"}}"#));
        }
        if let Some((_, result)) = CacheUse::ALL.iter().find(|(cache, _)| *cache as usize == part(4) >> 4) {
            counters.push(token_cache_requests(result));
        }
        if let Some(source) = (part(4) & 0xf).checked_sub(1).and_then(|number| IpSource::ALL.get(number)) {
            let result = part(5).checked_sub(1).and_then(reason_at).map_or("ok", Reason::name);
            counters.push(format!(
                r#"tenantauth_client_ip_checks_total{{source="{}",result="{result}"}}"#,
                source.name()
            ));
        }
        counters
    }
}

/// The bucket of a decision time: 0 to `BUCKETS.len()`, the last for everything above.
pub fn bucket_of(nanoseconds: u64) -> usize {
    BUCKETS.partition_point(|bound| *bound < nanoseconds)
}

/// Values that one worker knows about itself and its policy.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the fields are the metrics of the contract's section 11")]
pub struct Gauges {
    pub last_reload_successful: bool,
    /// Unix seconds; `None` where no policy was ever loaded.
    pub last_reload_success: Option<u64>,
    pub warnings: BTreeMap<&'static str, usize>,
    pub cache_entries: usize,
    pub jwks_keys: Vec<(String, usize)>,
    /// Issuer and Unix seconds.
    pub jwks_last_success: Vec<(String, u64)>,
    /// Grant and Unix seconds.
    pub grant_expiries: BTreeMap<String, u64>,
    /// Owner, and whether the newest version of its document is in force.
    pub owners: Vec<(String, bool)>,
    /// Issuers whose keys are fetched.
    pub fetched_issuers: Vec<String>,
    /// Keys of the client's address: id, and `signs` or `verifies`.
    pub client_ip_keys: Vec<(String, &'static str)>,
}

impl Gauges {
    /// The counters whose labels are known before anything is counted. They are there with 0 from the first scrape:
    /// Prometheus sees no increase in a sample that appears with 1.
    fn known_counters(&self) -> impl Iterator<Item = String> {
        let reloads = RESULTS.map(|result| format!("tenantauth_policy_reloads_total{{result=\"{result}\"}}"));
        let cache = CacheUse::ALL.map(|(_, result)| token_cache_requests(result));
        let fetches = self
            .fetched_issuers
            .iter()
            .flat_map(|issuer| RESULTS.map(|result| jwks_refreshes(issuer, result)));
        [AUDIT_RECORDS.to_owned()].into_iter().chain(reloads).chain(cache).chain(fetches)
    }
}

/// What can become of a reload, or of a fetch of keys.
const RESULTS: [&str; 2] = ["success", "failure"];
const AUDIT_RECORDS: &str = "tenantauth_audit_records_total";

/// Name, type and help of every metric, in the order of the exposition.
const METRICS: [(&str, &str, &str); 18] = [
    ("tenantauth_audit_records_total", "counter", "Audit records handed to nginx's log."),
    ("tenantauth_build_info", "gauge", "Version of the module; always 1."),
    ("tenantauth_client_ip_checks_total", "counter", "Client addresses looked for, by source and result."),
    (
        "tenantauth_client_ip_keys",
        "gauge",
        "Keys of the signed client address, by what they are used for; always 1.",
    ),
    ("tenantauth_decision_duration_seconds", "histogram", "Time that decisions took."),
    ("tenantauth_decisions_total", "counter", "Decisions as they were applied."),
    ("tenantauth_grant_expiry_timestamp_seconds", "gauge", "When a grant runs out."),
    ("tenantauth_jwks_keys", "gauge", "Usable keys of an issuer."),
    ("tenantauth_jwks_last_success_timestamp_seconds", "gauge", "When an issuer's keys were last read."),
    ("tenantauth_jwks_refreshes_total", "counter", "Fetches of an issuer's keys, by result."),
    (
        "tenantauth_owner_policy_last_reload_successful",
        "gauge",
        "Whether an owner's document on disk is the one in force.",
    ),
    ("tenantauth_policy_last_reload_success_timestamp_seconds", "gauge", "When a policy was last loaded."),
    ("tenantauth_policy_last_reload_successful", "gauge", "Whether the policy on disk is the one in force."),
    ("tenantauth_policy_reloads_total", "counter", "Policies read at start and after a change, by result."),
    ("tenantauth_policy_warnings", "gauge", "Warnings of the policy in force, by kind."),
    ("tenantauth_shadow_denials_total", "counter", "Denials recorded and not applied."),
    ("tenantauth_token_cache_requests_total", "counter", "Look-ups of tokens in the cache of verified ones."),
    ("tenantauth_workers", "gauge", "Workers, by the revision of the policy they decide with."),
];

/// Entries of the token cache stand between the lines of [`METRICS`] in name order.
const CACHE_ENTRIES: (&str, &str, &str) =
    ("tenantauth_token_cache_entries", "gauge", "Verified tokens kept by the workers.");

/// The key of a counter of requests in the shared dictionary is this and a number:
/// `(code * Tally::BUCKETS + bucket) * 2`, and one more where a record was handed to the log.
pub const TALLY_KEY: &str = "tally:";
/// Key of the sum of decision times, in nanoseconds.
pub const SUM_KEY: &str = "duration:sum";

fn token_cache_requests(result: &str) -> String {
    format!("tenantauth_token_cache_requests_total{{result=\"{result}\"}}")
}

/// The sample that counts fetches of an issuer's keys.
///
/// `result`: `success` or `failure`.
pub fn jwks_refreshes(issuer: &str, result: &str) -> String {
    format!(r#"tenantauth_jwks_refreshes_total{{issuer="{}",result="{result}"}}"#, escaped(issuer))
}

/// A label's value, escaped as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What the counters of requests add up to.
#[derive(Debug, Default)]
struct Totals {
    counters: BTreeMap<String, f64>,
    buckets: [f64; BUCKETS.len() + 1],
    nanoseconds: f64,
}

impl Totals {
    fn of(shared: &[(String, f64)]) -> Self {
        let mut totals = Self::default();
        for (key, value) in shared {
            if key == SUM_KEY {
                totals.nanoseconds += value;
            } else if let Some(slot) = key.strip_prefix(TALLY_KEY).and_then(|slot| slot.parse::<u64>().ok()) {
                totals.add_requests(slot, *value);
            } else {
                *totals.counters.entry(key.clone()).or_default() += value;
            }
        }
        totals
    }

    fn add_requests(&mut self, slot: u64, value: f64) {
        for counter in Tally::counters_of(slot / 2 / Tally::BUCKETS) {
            *self.counters.entry(counter).or_default() += value;
        }
        let bucket = usize::try_from(slot / 2 % Tally::BUCKETS).unwrap_or_default();
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += value;
        }
        if slot & 1 == 1 {
            *self.counters.entry(AUDIT_RECORDS.to_owned()).or_default() += value;
        }
    }

    fn histogram(&self) -> Vec<String> {
        const NAME: &str = "tenantauth_decision_duration_seconds";
        let mut total = 0.0;
        let mut lines = Vec::new();
        for (bound, count) in BUCKETS.iter().zip(&self.buckets) {
            total += count;
            let (whole, rest) = (bound / 1_000_000_000, bound % 1_000_000_000);
            let bound = format!("{whole}.{rest:09}");
            lines.push(format!("{NAME}_bucket{{le=\"{}\"}} {total}", bound.trim_end_matches('0')));
        }
        total += self.buckets.last().copied().unwrap_or_default();
        lines.push(format!("{NAME}_bucket{{le=\"+Inf\"}} {total}"));
        lines.push(format!("{NAME}_sum {}", self.nanoseconds / 1e9));
        lines.push(format!("{NAME}_count {total}"));
        lines
    }
}

/// The Prometheus text exposition, format 0.0.4.
///
/// `shared`: what the shared dictionary holds, key and value: counters of requests, and samples. `gauges`: what the
/// answering worker knows.
pub fn exposition(shared: &[(String, f64)], gauges: &Gauges) -> String {
    let mut totals = Totals::of(shared);
    for counter in gauges.known_counters() {
        totals.counters.entry(counter).or_default();
    }
    let mut samples: Samples = BTreeMap::new();
    for (key, value) in &totals.counters {
        let name = key.split('{').next().unwrap_or(key);
        if let Some((name, ..)) = METRICS.iter().chain([&CACHE_ENTRIES]).find(|(known, ..)| *known == name) {
            samples.entry(name).or_default().push(format!("{key} {value}"));
        }
    }
    samples.insert("tenantauth_decision_duration_seconds", totals.histogram());
    add_build_and_keys(&mut samples, &gauges.client_ip_keys);
    let mut gauge = |name: &'static str, labels: String, value: String| {
        samples.entry(name).or_default().push(format!("{name}{labels} {value}"));
    };
    gauge(
        "tenantauth_policy_last_reload_successful",
        String::new(),
        u8::from(gauges.last_reload_successful).to_string(),
    );
    if let Some(time) = gauges.last_reload_success {
        gauge("tenantauth_policy_last_reload_success_timestamp_seconds", String::new(), time.to_string());
    }
    for kind in WarningKind::ALL {
        let count = gauges.warnings.get(kind.name()).copied().unwrap_or_default();
        gauge("tenantauth_policy_warnings", label("kind", kind.name()), count.to_string());
    }
    for (issuer, count) in &gauges.jwks_keys {
        gauge("tenantauth_jwks_keys", label("issuer", issuer), count.to_string());
    }
    for (issuer, time) in &gauges.jwks_last_success {
        gauge("tenantauth_jwks_last_success_timestamp_seconds", label("issuer", issuer), time.to_string());
    }
    for (owner, successful) in &gauges.owners {
        gauge(
            "tenantauth_owner_policy_last_reload_successful",
            label("owner", owner),
            u8::from(*successful).to_string(),
        );
    }
    for (grant, time) in &gauges.grant_expiries {
        gauge("tenantauth_grant_expiry_timestamp_seconds", label("grant", grant), time.to_string());
    }
    written(samples)
}

/// The same of a Grafana Gateway, which has no policy and decides nothing.
///
/// `keys`: id, and `signs` or `verifies`.
pub fn exposition_of_keys(keys: &[(String, &'static str)]) -> String {
    let mut samples = Samples::new();
    add_build_and_keys(&mut samples, keys);
    written(samples)
}

/// The lines of each metric, by its name.
type Samples = BTreeMap<&'static str, Vec<String>>;

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{}\"}}", escaped(value))
}

/// Adds what a Grafana Gateway has as well.
fn add_build_and_keys(samples: &mut Samples, keys: &[(String, &'static str)]) {
    let version = label("version", env!("CARGO_PKG_VERSION"));
    samples.insert("tenantauth_build_info", vec![format!("tenantauth_build_info{version} 1")]);
    // Of several configurations with the same keys.
    let keys: BTreeSet<_> = keys.iter().collect();
    if !keys.is_empty() {
        let line = |(key, usage): &(String, &str)| {
            format!("tenantauth_client_ip_keys{{key=\"{}\",use=\"{usage}\"}} 1", escaped(key))
        };
        samples.insert("tenantauth_client_ip_keys", keys.into_iter().map(line).collect());
    }
}

fn written(mut samples: Samples) -> String {
    let mut out = String::new();
    let mut descriptions: Vec<_> = METRICS.iter().chain([&CACHE_ENTRIES]).collect();
    descriptions.sort_unstable();
    for (name, kind, help) in descriptions {
        let Some(lines) = samples.get_mut(name) else { continue };
        if *kind != "histogram" {
            lines.sort_unstable();
        }
        // The writer is a string: it does not fail.
        _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for line in lines {
            _ = writeln!(out, "{line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Backend;

    #[test]
    fn a_tally_survives_being_a_number() {
        let tally = Tally {
            reason: Reason::Granted,
            shadow: Some(Reason::IpForbidden),
            backends: BackendSet::of(Backend::Loki),
            scope: Some(Scope::AlertsWrite),
            cache: CacheUse::Hit,
            client_ip: Some((IpSource::Header, Some(Reason::IpMissing))),
        };
        assert!(tally.to_code() < 1 << 47);
        assert_eq!(
            Tally::counters_of(tally.to_code()),
            [
                r#"tenantauth_decisions_total{decision="allow",reason="granted",backend="loki",scope="alerts:write"}"#,
                r#"tenantauth_shadow_denials_total{reason="ip_forbidden",backend="loki"}"#,
                r#"tenantauth_token_cache_requests_total{result="hit"}"#,
                r#"tenantauth_client_ip_checks_total{source="header",result="ip_missing"}"#,
            ]
        );
        let denied = Tally::of(&Decision::denied(Reason::InternalError), false);
        assert_eq!(
            Tally::counters_of(denied.to_code()),
            [
                r#"tenantauth_decisions_total{decision="deny",reason="internal_error",backend="any",scope="none"}"#
            ]
        );
        for reason in Reason::ALL {
            let tally = Tally::of(&Decision::denied(*reason), false);
            let expected = if *reason == Reason::Granted { Reason::InternalError } else { *reason };
            assert!(Tally::counters_of(tally.to_code())[0].contains(&format!("reason=\"{expected}\"")));
        }
    }

    #[test]
    fn buckets_are_cumulative_and_complete() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(1_000), 0);
        assert_eq!(bucket_of(1_001), 1);
        assert_eq!(bucket_of(100_000_001), BUCKETS.len());
        let code = Tally::of(&Decision::denied(Reason::TokenMissing), false).to_code();
        let slot = |bucket: u64, audited: u64| format!("{TALLY_KEY}{}", (code * 32 + bucket) * 2 + audited);
        let shared = [(slot(0, 1), 3.0), (slot(16, 0), 1.0), (SUM_KEY.to_owned(), 5e8)];
        let text = exposition(&shared, &Gauges::default());
        assert!(text.contains("_bucket{le=\"0.000001\"} 3\n"), "{text}");
        assert!(text.contains("_bucket{le=\"0.1\"} 3\n"), "{text}");
        assert!(text.contains("_bucket{le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("_sum 0.5\n") && text.contains("_count 4\n"), "{text}");
        assert!(text.contains("reason=\"token_missing\",backend=\"any\",scope=\"none\"} 4\n"), "{text}");
        assert!(text.contains("tenantauth_audit_records_total 3\n"), "{text}");
    }

    #[test]
    fn counters_with_known_labels_begin_with_0() {
        let gauges = Gauges { fetched_issuers: vec!["entra".to_owned()], ..Gauges::default() };
        let text = exposition(&[(SUM_KEY.to_owned(), 0.0)], &gauges);
        for sample in [
            r#"tenantauth_audit_records_total"#,
            r#"tenantauth_policy_reloads_total{result="success"}"#,
            r#"tenantauth_policy_reloads_total{result="failure"}"#,
            r#"tenantauth_token_cache_requests_total{result="hit"}"#,
            r#"tenantauth_token_cache_requests_total{result="miss"}"#,
            r#"tenantauth_token_cache_requests_total{result="refused"}"#,
            r#"tenantauth_jwks_refreshes_total{issuer="entra",result="success"}"#,
            r#"tenantauth_jwks_refreshes_total{issuer="entra",result="failure"}"#,
        ] {
            assert!(text.contains(&format!("\n{sample} 0\n")), "{sample}: {text}");
        }
        let counted = [(r#"tenantauth_policy_reloads_total{result="success"}"#.to_owned(), 3.0)];
        let text = exposition(&counted, &gauges);
        assert!(text.contains("tenantauth_policy_reloads_total{result=\"success\"} 3\n"), "{text}");
        assert!(!text.contains("tenantauth_policy_reloads_total{result=\"success\"} 0\n"), "{text}");
    }

    #[test]
    fn every_sample_has_its_description_once_and_strangers_are_left_out() {
        let shared = [
            (
                r#"tenantauth_decisions_total{decision="deny",reason="x",backend="any",scope="none"}"#
                    .to_owned(),
                2.0,
            ),
            ("worker:1".to_owned(), 1.0),
        ];
        let gauges = Gauges { grant_expiries: [("a\"b\\c\nd".into(), 7)].into(), ..Gauges::default() };
        let text = exposition(&shared, &gauges);
        assert_eq!(text.matches("# TYPE tenantauth_decisions_total counter").count(), 1);
        assert!(text.contains("scope=\"none\"} 2\n"));
        assert!(!text.contains("worker:1"));
        assert!(
            text.contains(r#"tenantauth_grant_expiry_timestamp_seconds{grant="a\"b\\c\nd"} 7"#),
            "{text}"
        );
    }
}
