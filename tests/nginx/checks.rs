//! What most tests ask of an answer, and the requests they vary.

use crate::support::client::{Answer, Request};
use crate::support::tokens::token;

/// The sentences that users of auth.lua know.
const KEPT: [(&str, &str); 3] = [
    ("token_missing", "403 Forbidden: cannot find JWT token"),
    ("tenant_forbidden", "403 Forbidden: not allowed to access this tenant"),
    ("ip_forbidden", "403 Forbidden: ip not allowed"),
];

/// A query to Loki for this tenant by a user in these groups.
pub(crate) fn query(groups: &[&str], tenant: &str) -> Request {
    Request::get("/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D").tenant(tenant).token(&token(groups))
}

/// The answer came from the backend.
#[track_caller]
pub(crate) fn assert_allowed(answer: &Answer) {
    assert_eq!((answer.status, answer.reason()), (200, ""), "{answer:?}");
}

/// The answer is a complete denial for this reason, in either form. Returns the sentence.
#[track_caller]
pub(crate) fn assert_denied(answer: &Answer, reason: &str) -> String {
    assert_eq!(answer.reason(), reason, "{answer:?}");
    let status = match reason {
        "policy_unavailable" | "keys_unavailable" | "internal_error" => 503,
        _ => 403,
    };
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{answer:?}");
    let id = answer.header("X-Request-Id").expect("X-Request-Id");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "`{id}` is not of nginx");
    let body = answer.text();
    let text = if answer.header("Content-Type").is_some_and(|kind| kind.starts_with("application/json")) {
        let text = answer.json()["error"].as_str().expect("an error").to_owned();
        // The promised form, keys in their order.
        let form = format!(r#"{{"status":"error","errorType":"forbidden","error":"{text}"}}"#);
        assert_eq!(body.trim_end(), form);
        text
    } else {
        assert_eq!(body.trim_end().lines().count(), 1, "{body}");
        body.trim_end().to_owned()
    };
    let sentence = text.strip_suffix(&format!(" ({reason}; request {id})"));
    let sentence = sentence.unwrap_or_else(|| panic!("`{text}`")).to_owned();
    for (kept, promised) in KEPT {
        // Behind it a tenant of the request may be named, and an address of the policy.
        let further = sentence.strip_prefix(promised);
        let is_kept = further.is_some_and(|further| further.is_empty() || further.starts_with([':', ';']));
        assert!(reason != kept || is_kept, "`{sentence}`");
    }
    sentence
}
