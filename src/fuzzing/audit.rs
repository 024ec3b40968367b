//! Records of requests that hold any bytes.

use super::parts;
use crate::audit::{Clock, GrafanaContext, PrincipalMembers, Record, Text, render};
use crate::decision::Decision;
use crate::policy::fixtures::{HEAD, outcome};
use crate::policy::snapshot::Snapshot;
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet};
use crate::tenant::TenantList;
use crate::token::claims::{Claims, Origin, read_claims};
use crate::token::digest::keyed_hash;
use crate::token::fixtures::{NOW, rules};
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::Duration;

static SNAPSHOT: LazyLock<Snapshot> =
    LazyLock::new(|| outcome(HEAD).compiled.expect("the policy is good").snapshot);

/// The longest part that is kept, in bytes.
const MOST: usize = 4096;

/// Any bytes as the parts of a request: one line of JSON with them in it, of bounded length.
pub(super) fn audit(bytes: &[u8]) -> bool {
    let [method, path, query, panel, peer, tenants, who] = parts(bytes);
    let decision = Decision::denied(Reason::TenantForbidden);
    let tenants = TenantList::parse(tenants).ok();
    let who = String::from_utf8_lossy(who);
    let claims =
        json!({"sub": who, "preferred_username": who, "jti": who, "groups": [format!("g{who}")]}).to_string();
    let claims = Claims::parse(claims.as_bytes()).expect("it is JSON");
    let identity = read_claims(&claims, &rules(), Origin::Sample, NOW).ok();
    let groups = [&*who, "plain"];
    let principal = identity.as_ref().map(|known| PrincipalMembers::of_user(&who, known, groups.into_iter()));
    let record = Record {
        decision: &decision,
        shadow_mode: false,
        snapshot: Some(&SNAPSHOT),
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

    assert!(!line.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')));
    // Each byte of a part is written as six at most; a tenant as it is.
    let most = 2048 + 5 * 6 * MOST + 151 * 100 + 8 * 6 * who.len().min(MOST);
    assert!(line.len() <= most, "{} bytes", line.len());
    let whole = format!("{{{line}}}");
    let value: Value = serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"));
    let object = value.as_object().expect("it is an object");
    let long = [method, path, query, panel].iter().any(|part| part.len() > MOST);
    assert_eq!(object.len(), 25 + usize::from(long));
    assert_eq!(object.contains_key("truncated"), long);
    let text = |bytes: &[u8]| json!(String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]));
    for (key, part) in [("method", method), ("path", path), ("query", query), ("peer", peer)] {
        assert_eq!(object[key], text(part), "{key}");
    }
    assert_eq!(object["grafana"]["panel"], text(panel));
    assert_eq!(object["decision"], "deny");
    match &tenants {
        Some(list) => assert_eq!(object["tenants"], json!(list.iter().collect::<Vec<_>>())),
        None => assert_eq!(object["tenants"], Value::Null),
    }
    if identity.is_some() {
        assert_eq!(object["subject"], text(who.as_bytes()));
        assert_eq!(object["groups"], json!([text(who.as_bytes()), "plain"]));
    }
    identity.is_some() && tenants.is_some()
}
