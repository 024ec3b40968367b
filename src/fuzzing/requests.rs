//! What a request names: tenants and a path.

use super::parts;
use crate::reason::Reason;
use crate::route::models::{nginx_uri, one_reading, one_reading_below};
use crate::route::{RoutePath, route, route_raw};
use crate::scope::{Backend, BackendSet};
use crate::tenant::{MAX_TENANTS, TenantList, TenantPattern};

/// Any bytes as `X-Scope-OrgID`, and two patterns against its tenants.
pub(super) fn tenants(bytes: &[u8]) -> bool {
    let [header, one, other] = parts(bytes);
    let patterns = [one, other].map(|text| TenantPattern::parse(std::str::from_utf8(text).ok()?).ok());
    if let [Some(one), Some(other)] = &patterns {
        assert_eq!(one.overlaps(other), other.overlaps(one), "{one} {other}");
        assert!(!one.covers(other) || one.overlaps(other), "{one} {other}");
        assert_eq!(one.as_str(), TenantPattern::parse(one.as_str()).unwrap().as_str());
    }
    let grammar = |part: &[u8]| {
        let allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!-_.*'()";
        (1..=150).contains(&part.len())
            && part.iter().all(|byte| allowed.contains(byte))
            && ![&b"."[..], b"..", b"__mimir_cluster"].contains(&part)
    };
    let parts: Vec<&[u8]> = header.split(|byte| *byte == b'|').collect();
    let list = TenantList::parse(header);
    assert_eq!(list.is_ok(), parts.len() <= MAX_TENANTS && parts.iter().all(|part| grammar(part)));
    let Ok(list) = list else { return false };
    let mut named: Vec<&str> = parts.iter().map(|part| std::str::from_utf8(part).unwrap()).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(list.iter().collect::<Vec<_>>(), named);
    let canonical = list.to_string();
    assert_eq!(canonical, named.join("|"));
    assert_eq!(list.is_canonical_form_of(header), canonical.as_bytes() == header);
    assert_eq!(TenantList::parse(canonical.as_bytes()).as_ref(), Ok(&list));
    for tenant in list.iter() {
        let matching = patterns.each_ref().map(|pattern| {
            let pattern = pattern.as_ref()?;
            let matches = pattern.matches(tenant);
            assert_eq!(matches, matches_slowly(pattern.as_str(), tenant), "{pattern} {tenant}");
            Some(matches)
        });
        if let ([Some(one), Some(other)], [Some(first), Some(second)]) = (&patterns, matching) {
            assert!(!(first && second) || one.overlaps(other), "{one} {other} {tenant}");
            assert!(!(second && one.covers(other)) || first, "{one} {other} {tenant}");
        }
    }
    true
}

/// Which beginnings of the tenant each beginning of the pattern matches: one row a character.
fn matches_slowly(pattern: &str, tenant: &str) -> bool {
    let tenant = tenant.as_bytes();
    let mut row = vec![false; tenant.len() + 1];
    row[0] = true;
    for byte in pattern.bytes() {
        row = (0..=tenant.len())
            .map(|end| match byte {
                b'*' => row[..=end].contains(&true),
                _ => end > 0 && row[end - 1] && tenant[end - 1] == byte,
            })
            .collect();
    }
    row[tenant.len()]
}

/// Any bytes as the path of a request: what is allowed means the same to nginx and to each backend.
pub(super) fn path(bytes: &[u8]) -> bool {
    let [raw, uri, prefix] = parts(bytes);
    if let Ok(path) = RoutePath::parse(raw) {
        assert!(raw.starts_with(b"/") && path.as_str().as_bytes() == raw);
        let decoded = nginx_uri(raw).expect("nginx takes it");
        for part in decoded.split(|byte| *byte == b'/') {
            assert!(!matches!(part, b"." | b".."));
        }
    }
    let mut allowed = false;
    for method in ["GET", "POST", "DELETE"] {
        for backend in Backend::ALL {
            // The models know no query: what nginx cuts off is not the path's.
            let path = raw.split(|byte| *byte == b'?').next().unwrap();
            allowed |= one_reading(backend, method, path).unwrap_or_else(|failed| panic!("{failed}"));
        }
        // With whatever `$uri` and prefix: nothing is allowed that the raw path alone is not.
        let prefix = std::str::from_utf8(prefix).unwrap_or_default().trim_end_matches('/');
        let with_uri = route(BackendSet::ALL, prefix, method.as_bytes(), raw, uri, None);
        let alone = route_raw(BackendSet::ALL, prefix, method.as_bytes(), raw, None);
        for backends in [BackendSet::ALL].into_iter().chain(Backend::ALL.map(BackendSet::of)) {
            one_reading_below(prefix, backends, method, raw).unwrap_or_else(|failed| panic!("{failed}"));
        }
        match (with_uri, alone) {
            (Ok(one), Ok(other)) => assert_eq!(one.scope, other.scope),
            (Ok(_), Err(reason)) => panic!("{reason} without the uri"),
            (Err(reason), _) => assert!(matches!(reason, Reason::RouteUnknown | Reason::PathAmbiguous)),
        }
        let upgraded = route(BackendSet::ALL, prefix, method.as_bytes(), raw, uri, Some(b"websocket"));
        assert!(!upgraded.is_ok_and(|route| !route.tail));
    }
    allowed
}
