//! Policy documents.

use crate::decision::{AccessRequest, Caller, decide};
use crate::policy::fixtures::{Shelf, outcome};
use crate::policy::{Outcome, compile};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::TenantList;
use crate::token::fixtures::NOW;

/// Any bytes as a policy: a snapshot without an error, or errors with their places and no snapshot.
pub(super) fn policy(bytes: &[u8]) -> bool {
    let Outcome { compiled, diagnostics, owners } = compile("p.yaml", bytes, &mut Shelf, NOW);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    for problem in &diagnostics {
        let line = usize::try_from(problem.place.line).unwrap();
        // Other characters break lines too, for YAML.
        assert!(line >= 1 && line <= lines.max(bytes.len() + 1), "{problem}");
        assert!(problem.place.column >= 1, "{problem}");
        let told = problem.to_string();
        assert!(told.lines().count() == 1 + usize::from(problem.help.is_some()), "{told:?}");
        assert!(!told.contains(|c: char| crate::text::is_hidden(c) && c != '\n'), "{told:?}");
        assert!(!problem.message.is_empty() && !problem.message.ends_with('.'), "{told}");
    }
    assert_eq!(
        compiled.is_none(),
        diagnostics.iter().any(crate::policy::diagnostic::Diagnostic::is_error),
        "a policy is used exactly if it has no error"
    );
    let Some(compiled) = compiled else { return false };
    _ = owners;
    let snapshot = compiled.snapshot;
    assert_eq!(compiled.keys.len(), snapshot.issuers.len());
    assert_eq!(snapshot.revision.len(), 16);
    // The same text is the same policy.
    let text = std::str::from_utf8(bytes).expect("what was compiled is text");
    let again = outcome(text).compiled.expect("it was good before").snapshot;
    assert_eq!(again.revision, snapshot.revision);
    // Somebody of whom the policy knows no group gets what is given to every user, and nothing else.
    let held = snapshot.groups.held_by_user(0, ["a group that nobody wrote, \u{1}"].into_iter());
    let tenants = TenantList::parse(b"somewhere").expect("it is a tenant");
    for scope in Scope::ALL {
        let request = AccessRequest {
            groups: &held.groups,
            caller: Caller::User { bound_by: held.binding() },
            tenants: &tenants,
            scope,
            backends: BackendSet::ALL,
            client_ip: Err(Reason::IpMissing),
            now: NOW,
        };
        let decision = decide(&snapshot, &request);
        if decision.is_allow() {
            let everybody = text.contains('*');
            assert!(everybody, "{scope:?} is granted to a stranger by {:?}", decision.grant);
        }
        // A service account of no group is given nothing.
        let nobody = AccessRequest { groups: &[], caller: Caller::Service { networks: None }, ..request };
        assert!(!decide(&snapshot, &nobody).is_allow());
    }
    true
}
