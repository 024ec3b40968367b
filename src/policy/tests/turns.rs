//! Owners' documents in turns: what many bring at once keeps nobody waiting, and ends as if each had been judged at once.

use super::owners::{Directory, PLATFORM, errors, lines, read, reason};
use super::*;
use crate::policy::{Compiled, Outcome, OwnerOutcome, OwnerState, Turn, compile_in_turn};
use crate::reason::Reason;
use crate::scope::Scope;
use proptest::prelude::*;

/// A policy in force, with what became of owners' documents.
struct InForce(Compiled, Vec<OwnerOutcome>);

impl InForce {
    fn waiting(&self) -> Vec<&str> {
        self.1.iter().filter(|owner| owner.waits).map(|owner| &*owner.name).collect()
    }

    fn revisions(&self) -> Vec<Option<&str>> {
        self.1.iter().map(|owner| owner.revision.as_deref()).collect()
    }
}

/// One turn: the policy is read again, `most_bytes` of documents are judged, and what is used is good from now on.
fn turn(platform: &str, directory: &mut Directory, before: Option<&InForce>, most_bytes: usize) -> InForce {
    at(NOW, platform, directory, before, most_bytes)
}

fn at(
    now: u64,
    platform: &str,
    directory: &mut Directory,
    before: Option<&InForce>,
    most_bytes: usize,
) -> InForce {
    let in_force = before.map(|before| (&before.0.snapshot, &*before.1));
    let text = format!("{HEAD}{platform}");
    let outcome = compile_in_turn("p.yaml", text.as_bytes(), directory, now, &Turn { in_force, most_bytes });
    let Outcome { compiled: Some(compiled), owners, .. } = outcome else {
        panic!("{:#?}", outcome.diagnostics)
    };
    for owner in &owners {
        if let Some((_, last)) = directory.0.get_mut(&*owner.name) {
            *last = owner.content.clone().map(|content| String::from_utf8(content).unwrap());
        }
    }
    InForce(compiled, owners)
}

/// Tests on a hundred tenants each, which take what a document may take.
fn heavy(owner: &str) -> String {
    let tenants = (0..100).map(|n| format!("{owner}-x{n}")).collect::<Vec<_>>().join("|");
    let test = |n| format!("name: n{n}, groups: [h], tenant: {tenants:?}, scope: logs:read, expect: allow");
    format!("grants: [{{ groups: [h], tenants: [\"{owner}-*\"] }}]\n{}", lines("tests", 100, test))
}

fn platform(owners: &[&str]) -> String {
    let bounds = owners.iter().map(|owner| format!("  {owner}: {{ tenants: [{owner}, \"{owner}-*\"] }}\n"));
    format!("owners:\n{}", bounds.collect::<String>())
}

#[test]
fn small_changes_and_the_platforms_come_before_large_documents() {
    let owners = ["big-1", "big-2", "big-3", "small"];
    let grant = |owner: &str| format!("grants: [{{ groups: [a], tenants: [{owner}] }}]\n");
    let mut directory =
        owners.iter().fold(Directory::default(), |all, owner| all.and(owner, Some(&grant(owner)), None));
    let first = turn(&platform(&owners), &mut directory, None, usize::MAX);
    assert_eq!((first.waiting(), read(&first.0, &["a"], "big-1")), (vec![], Reason::Granted));

    // All at once: three large documents, a small one, a revocation, and an owner that is new.
    let with_new = ["big-1", "big-2", "big-3", "small", "later"];
    for owner in &owners[..3] {
        directory.0.get_mut(*owner).unwrap().0 = Some(heavy(owner));
    }
    directory.0.get_mut("small").unwrap().0 =
        Some("grants: [{ groups: [b], tenants: [small] }]\n".to_owned());
    directory = directory.and("later", Some(&heavy("later")), None);
    let changed = format!("revoked: {{ groups: [a] }}\n{}", platform(&with_new));
    let second = turn(&changed, &mut directory, Some(&first), 1 << 10);
    assert_eq!(second.waiting(), ["big-1", "big-2", "big-3", "later"]);
    assert_eq!(
        [read(&second.0, &["b"], "small"), read(&second.0, &["a"], "big-1")],
        [Reason::Granted, Reason::TenantForbidden]
    );
    assert_eq!(
        second.1.iter().map(|owner| owner.state).collect::<Vec<_>>(),
        [
            OwnerState::Current,
            OwnerState::Current,
            OwnerState::Current,
            OwnerState::Current,
            OwnerState::Unavailable
        ]
    );
    assert_eq!(second.revisions()[..3], first.revisions()[..3], "what was in force stays until then");
    assert!(errors(&second.1[4])[0].contains("it waits for its turn to be read"));
    assert_eq!(read(&second.0, &["b"], "later"), Reason::PolicyUnavailable);

    // One after the other, and whoever comes later with something small goes first again.
    let third = turn(&changed, &mut directory, Some(&second), 1 << 10);
    assert_eq!(third.waiting(), ["big-1", "big-2", "big-3"], "there is no former version of it to read");
    directory.0.get_mut("small").unwrap().0 = Some("{}\n".to_owned());
    let fourth = turn(&changed, &mut directory, Some(&third), 1 << 10);
    assert_eq!(fourth.waiting(), ["big-1", "big-2", "big-3"]);
    assert_eq!(read(&fourth.0, &["b"], "small"), Reason::TenantForbidden);
    let mut last = fourth;
    for left in (0..3).rev() {
        last = turn(&changed, &mut directory, Some(&last), 1 << 10);
        assert_eq!(last.waiting().len(), left);
    }
    assert_eq!(last.1.iter().flat_map(errors).next(), None);
    let at_once = turn(&changed, &mut directory.clone(), None, usize::MAX);
    assert_eq!(last.0.snapshot.revision, at_once.0.snapshot.revision);
}

/// What has not changed is not read again, and its warnings, which depend on the day, stay.
#[test]
fn what_is_in_force_is_taken_over_and_what_was_refused_is_not_judged_again() {
    let good = "grants: [{ groups: [a], tenants: [team-a], expires: 2027-02-10T00:00:00Z }]\n\
                restrictions: [{ tenants: ['team-a-*'], groups: [a], networks: [office] }]\n";
    let soon = NOW + 20 * 86_400;
    let mut directory = Directory::with("team-a", good).and("team-b", Some("grants: 1\n"), None);
    let first = turn(PLATFORM, &mut directory, None, usize::MAX);
    assert_eq!(first.1[0].diagnostics, []);
    // The end is near by now, which a document that is judged again would be told.
    let again = |platform: &str, directory: &mut Directory, before: &InForce| {
        at(soon, platform, directory, Some(before), usize::MAX)
    };
    let second = again(&format!("revoked: {{ groups: [x] }}\n{PLATFORM}"), &mut directory, &first);
    assert_eq!((second.1[0].diagnostics.len(), second.1[0].state), (0, OwnerState::Current));
    assert_eq!((second.1[1].state, errors(&second.1[1]).len()), (OwnerState::Unavailable, 1));
    let reason =
        |policy: &InForce, client| reason(&policy.0, &["a", "raw-sre"], "team-a-x", Scope::LogsRead, client);
    assert_eq!(
        [reason(&second, "10.0.0.1"), reason(&second, "11.0.0.1")],
        [Reason::Granted, Reason::IpForbidden]
    );

    // A network that it names means something else, and so do its bounds.
    let moved = PLATFORM.replace("10.0.0.0/8", "11.0.0.0/8");
    let third = again(&moved, &mut directory, &second);
    assert_eq!(third.1[0].diagnostics.len(), 1, "judged again");
    assert_eq!(
        [reason(&third, "10.0.0.1"), reason(&third, "11.0.0.1")],
        [Reason::IpForbidden, Reason::Granted]
    );
    // The same where its turn has not come: what is used meanwhile is read by the platform of today.
    directory.0.get_mut("team-a").unwrap().0 = Some(format!("{good}# {}\n", "x".repeat(300)));
    directory.0.get_mut("team-b").unwrap().0 = Some("{}\n".to_owned());
    let fourth = turn(PLATFORM, &mut directory, Some(&third), 1);
    assert_eq!(fourth.waiting(), ["team-a"]);
    assert_eq!(
        [reason(&fourth, "10.0.0.1"), reason(&fourth, "11.0.0.1")],
        [Reason::Granted, Reason::IpForbidden]
    );
}

fn document() -> impl Strategy<Value = Option<String>> {
    let rule = (
        prop::sample::select(&["a", "b", "sre"][..]),
        prop::sample::select(&["team-a", "team-a-x", "team-b", "t*"][..]),
    );
    let rules = prop::collection::vec(rule, 0..4).prop_map(|rules| {
        let rules: Vec<_> = rules
            .iter()
            .map(|(group, tenant)| format!("{{ groups: [{group}], tenants: [\"{tenant}\"] }}"))
            .collect();
        Some(format!("grants: [{}]\n", rules.join(", ")))
    });
    prop_oneof![
        6 => rules,
        1 => Just(None),
        1 => Just(Some("grants: [\n".to_owned())),
        1 => Just(Some("restrictions: [{ groups: [a], networks: [office] }]\ngrants: [{ groups: [a], tenants: [team-a] }]\n".to_owned())),
    ]
}

fn platforms() -> impl Strategy<Value = String> {
    let bounds = prop::sample::select(&["[team-a, \"team-a-*\"]", "[team-a]", "[\"t*\"]"][..]);
    let network = prop::sample::select(&["10.0.0.0/8", "11.0.0.0/8"][..]);
    (bounds, network, any::<bool>(), any::<bool>()).prop_map(|(bounds, network, revoked, alias)| {
        let mut text = PLATFORM.replace(r#"[team-a, "team-a-*"]"#, bounds).replace("10.0.0.0/8", network);
        if revoked {
            text += "revoked: { groups: [a] }\n";
        }
        if alias { text } else { text.replace("[raw-sre]", "[raw-sre, b]") }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever changes in whatever order: once nobody waits, all is as if it had been read at once.
    #[test]
    fn turns_end_where_one_reading_ends(
        steps in prop::collection::vec((platforms(), document(), document(), 1_usize..300), 1..6),
    ) {
        let mut directory = Directory::default();
        let mut before: Option<InForce> = None;
        for (platform, a, b, most_bytes) in steps {
            directory.0.entry("team-a".to_owned()).or_default().0 = a;
            directory.0.entry("team-b".to_owned()).or_default().0 = b;
            // Platform and newest documents, and what was good before them.
            let at_once = turn(&platform, &mut directory.clone(), None, usize::MAX);
            let mut turns = 0;
            loop {
                let next = turn(&platform, &mut directory, before.as_ref(), most_bytes);
                let done = next.waiting().is_empty();
                before = Some(next);
                turns += 1;
                prop_assert!(turns <= 3, "somebody waits for ever");
                if done {
                    break;
                }
            }
            let Some(last) = &before else { continue };
            prop_assert_eq!(&last.0.snapshot.revision, &at_once.0.snapshot.revision);
            prop_assert_eq!(last.revisions(), at_once.revisions());
            for (one, other) in last.1.iter().zip(&at_once.1) {
                prop_assert_eq!((one.state, &one.content), (other.state, &other.content));
                prop_assert_eq!(errors(one), errors(other));
            }
            for group in ["a", "b", "raw-sre"] {
                for tenant in ["team-a", "team-a-x", "team-b", "tx"] {
                    for client in ["10.0.0.1", "11.0.0.1"] {
                        let of = |policy: &InForce| reason(&policy.0, &[group], tenant, Scope::LogsRead, client);
                        prop_assert_eq!(of(last), of(&at_once), "{} {} {}", group, tenant, client);
                    }
                }
            }
        }
    }
}
