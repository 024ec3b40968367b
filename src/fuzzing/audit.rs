//! Records of requests that hold any bytes, under any bound of their length.

use super::parts;
use crate::audit::{Clock, GrafanaContext, PrincipalMembers, Record, Text, render};
use crate::decision::Decision;
use crate::policy::fixtures::{HEAD, outcome};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet};
use crate::tenant::TenantList;
use crate::token::claims::{Claims, Origin, read_claims};
use crate::token::digest::keyed_hash;
use crate::token::fixtures::{NOW, rules};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest claimed header and method, in bytes as they came.
const MOST_CLAIMED: usize = 256;
const MOST_METHOD: usize = 64;
/// Longest issuer, subject, user and token id, in bytes as they are written.
const MOST_IDENTITY: usize = 512;
/// What each key costs in `truncated` at most.
const NAME: usize = 20;

/// What nginx adds to the members of a record, with the longest values that there are, and the line feed.
fn as_written(members: &str) -> String {
    let statuses = ["502"; 32].join(", ");
    format!(
        "{{\"schema\":1,{members},\"request_id\":\"{}\",\"status\":{most},\"upstream_status\":[{statuses}],\
         \"bytes_sent\":{least},\"duration_ms\":{least}.000e3}}\n",
        "0".repeat(32),
        most = u64::MAX,
        least = i64::MIN,
    )
}

/// The keys that give way to the bound of the whole record, in their order.
const ORDER: [&str; 8] = ["query", "path", "grafana.panel", "groups", "tenants", "user", "token_id", "peer"];

/// Any bytes as the parts of a request: one line of JSON with them in it, no longer than the policy says, which says
/// what was cut.
///
/// The last part says how: two bytes the bound of the record, one how often parts are repeated, one which of them, one
/// how many further groups there are, one how the query is kept.
pub(super) fn audit(bytes: &[u8]) -> bool {
    let [method, path, query, panel, peer, tenants, who, shape] = parts(bytes);
    let shaped = |at: usize| usize::from(shape.get(at).copied().unwrap_or_default());
    let max_bytes =
        if shape.is_empty() { 16_384 } else { 2048 + (shaped(0) * 256 + shaped(1)) % (65_536 - 2048 + 1) };
    let repeated = |number: usize, part: &[u8]| {
        let times = if shaped(3) >> number & 1 == 1 { shaped(2) * 4 } else { 1 };
        part.iter().copied().cycle().take((part.len() * times).min(100_000)).collect::<Vec<u8>>()
    };
    let (method, path, query, panel) =
        (&*repeated(0, method), &*repeated(1, path), &*repeated(2, query), &*repeated(3, panel));
    let (peer, who) = (&*repeated(4, peer), &*repeated(5, who));
    let mode = ["full", "hash", "none"][shaped(5) % 3];
    let policy = format!("{HEAD}audit: {{ query: {mode}, max_bytes: {max_bytes} }}\n");
    let snapshot = outcome(&policy).compiled.expect("the policy is good").snapshot;

    let decision = Decision::denied(Reason::TenantForbidden);
    let tenants = TenantList::parse(tenants).ok();
    let who = String::from_utf8_lossy(who);
    let claims =
        json!({"sub": who, "preferred_username": who, "jti": who, "groups": [format!("g{who}")]}).to_string();
    let claims = Claims::parse(claims.as_bytes()).expect("it is JSON");
    let identity = read_claims(&claims, &rules(), Origin::Sample, NOW).ok();
    let further: Vec<String> = (0..shaped(4) * 4).map(|number| format!("group \"{number}\"")).collect();
    let groups: Vec<&str> = [&*who, "plain"].into_iter().chain(further.iter().map(String::as_str)).collect();
    let principal =
        identity.as_ref().map(|known| PrincipalMembers::of_user(&who, known, groups.iter().copied()));
    let record = Record {
        decision: &decision,
        shadow_mode: false,
        snapshot: Some(&snapshot),
        principal: principal.as_ref(),
        tenants: tenants.as_ref(),
        scope: None,
        backends: BackendSet::of(Backend::Loki),
        method,
        path,
        query: Some(query),
        client_ip: None,
        client_ip_source: None,
        peer,
        upgrade: false,
        grafana: GrafanaContext { panel: Some(panel), ..GrafanaContext::default() },
    };
    let mut line = Text::default();
    let mut clock = Clock::default();
    clock.set(Duration::from_secs(NOW));
    render(&mut line, &record, &mut clock, |query| keyed_hash(b"key", query));
    let line = String::from_utf8(line.as_bytes().to_vec()).expect("a record is UTF-8");

    assert!(!line.contains(crate::text::is_hidden));
    let whole = as_written(&line);
    assert!(whole.len() <= max_bytes, "{} bytes of {max_bytes}", whole.len());
    let value: Value =
        serde_json::from_str(&format!("{{{line}}}")).unwrap_or_else(|error| panic!("{error}: {line}"));
    let object = value.as_object().expect("it is an object");
    assert_eq!(object.len(), 27);
    assert_eq!(object["decision"], "deny");
    let cut: Vec<&str> = match &object["truncated"] {
        Value::Null => Vec::new(),
        list => list.as_array().expect("a list").iter().map(|key| key.as_str().expect("a key")).collect(),
    };
    assert_eq!(object["truncated"].is_null(), cut.is_empty(), "an empty list is null");

    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // The record has a beginning of each text, and says so exactly where it has not all of it.
    let mut known = vec![
        ("method", &object["method"], lossy(method)),
        ("path", &object["path"], lossy(path)),
        ("grafana.panel", &object["grafana"]["panel"], lossy(panel)),
        ("peer", &object["peer"], lossy(peer)),
    ];
    match mode {
        "full" => known.push(("query", &object["query"], lossy(query))),
        "hash" => {
            let hash = format!("hmac-sha256:{}", keyed_hash(b"key", query));
            known.push(("query", &object["query"], hash));
            assert!(!cut.contains(&"query"), "a part of a hash says nothing");
        }
        _ => assert_eq!(object["query"], Value::Null),
    }
    if let Some(identity) = &identity {
        known.extend(
            ["issuer", "subject", "user", "token_id"]
                .map(|key| (key, &object[key], who.clone().into_owned())),
        );
        assert_eq!(identity.subject.as_deref(), Some(&*who));
    }
    let mut explained: Vec<&str> = Vec::new();
    for (key, found, all) in &known {
        let found = found.as_str().unwrap_or_else(|| panic!("{key}: {found}"));
        assert!(all.starts_with(found), "{key}");
        assert_eq!(cut.contains(key), found.len() < all.len(), "{key}");
        explained.extend(cut.iter().find(|cut| *cut == key));
    }
    let mut lists = Vec::new();
    if let Some(list) = &tenants {
        lists.push(("tenants", list.iter().collect::<Vec<_>>()));
    }
    if identity.is_some() {
        lists.push(("groups", groups.clone()));
    }
    for (key, all) in &lists {
        let found = object[*key].as_array().unwrap_or_else(|| panic!("{key}"));
        assert!(found.iter().zip(all).all(|(found, all)| found == all), "{key}");
        assert_eq!(cut.contains(key), found.len() < all.len(), "{key}");
        explained.extend(cut.iter().find(|cut| *cut == key));
    }
    explained.sort_unstable();
    let mut sorted = cut.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, explained, "nothing else was cut");

    // What gives way later does so only where nothing is left of what gives way before.
    let written = |value: &Value| value.to_string().len().saturating_sub(2);
    let of_key = |key: &str| match key {
        "grafana.panel" => &object["grafana"]["panel"],
        key => &object[key],
    };
    // Those that have bounds of their own may be cut earlier.
    let last = ORDER.iter().rposition(|key| {
        cut.contains(key)
            && !(*key == "grafana.panel" && panel.len() > MOST_CLAIMED)
            && !(["user", "token_id"].contains(key) && 6 * who.len() > MOST_IDENTITY)
    });
    for key in &ORDER[..last.unwrap_or(0)] {
        let is_kept = *key == "query" && mode == "hash" || of_key(key).is_null();
        assert!(is_kept || written(of_key(key)) <= NAME, "{key} is kept, and {cut:?}");
    }
    // What is short is whole. Each byte of a part is written as six at most.
    let sum: usize = known.iter().map(|(.., all)| 6 * all.len()).sum::<usize>()
        + lists.iter().flat_map(|(_, all)| all).map(|entry| 6 * entry.len() + 3).sum::<usize>();
    let is_short = sum + 1500 <= max_bytes
        && panel.len() <= MOST_CLAIMED
        && method.len() <= MOST_METHOD
        && 6 * who.len() <= MOST_IDENTITY;
    assert!(!is_short || cut.is_empty(), "{cut:?}");
    identity.is_some() && tenants.is_some()
}
