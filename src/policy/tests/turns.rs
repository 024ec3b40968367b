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
        self.1.iter().filter(|owner| owner.turns_waited > 0).map(|owner| &*owner.name).collect()
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

/// Documents of up to 64 bytes are small.
const FEW_BYTES: usize = 1024;

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
        directory.set(owner, &heavy(owner));
    }
    directory.set("small", "grants: [{ groups: [b], tenants: [small] }]\n");
    directory.set("later", &heavy("later"));
    let changed = format!("revoked: {{ groups: [a] }}\n{}", platform(&with_new));
    let second = turn(&changed, &mut directory, Some(&first), FEW_BYTES);
    assert_eq!(second.waiting(), ["big-2", "big-3", "later"]);
    assert_eq!(
        [read(&second.0, &["b"], "small"), read(&second.0, &["a"], "big-2")],
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
    assert_eq!(second.revisions()[1..3], first.revisions()[1..3], "what was in force stays until then");
    assert!(errors(&second.1[4])[0].contains("it waits for its turn to be read"));
    assert_eq!(read(&second.0, &["b"], "later"), Reason::PolicyUnavailable);

    // One after the other, and whoever comes later with something small waits for none of them.
    let third = turn(&changed, &mut directory, Some(&second), FEW_BYTES);
    assert_eq!(third.waiting(), ["big-3", "later"]);
    directory.set("small", "{}\n");
    let fourth = turn(&changed, &mut directory, Some(&third), FEW_BYTES);
    assert_eq!(fourth.waiting(), ["later"]);
    assert_eq!(read(&fourth.0, &["b"], "small"), Reason::TenantForbidden);
    let last = turn(&changed, &mut directory, Some(&fourth), FEW_BYTES);
    assert_eq!(last.waiting(), [""; 0]);
    assert_eq!(last.1.iter().flat_map(errors).next(), None);
    let at_once = turn(&changed, &mut directory.clone(), None, usize::MAX);
    assert_eq!(last.0.snapshot.revision, at_once.0.snapshot.revision);
}

/// Whoever writes again and again is one among others.
#[test]
fn who_has_waited_longest_is_next() {
    let grant = |owner: &str, n: usize, filling: usize| {
        format!("grants: [{{ groups: [g{n}], tenants: [{owner}] }}]\n#{}\n", "x".repeat(filling))
    };
    let names: Vec<String> =
        (0..80).map(|n| format!("s{n}")).chain(["l0", "l1", "l2"].map(str::to_owned)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let platform = platform(&names);
    let mut directory =
        names.iter().fold(Directory::default(), |all, owner| all.and(owner, Some(&grant(owner, 0, 0)), None));
    let mut before = turn(&platform, &mut directory, None, usize::MAX);
    for n in 1..=8 {
        // All but the last small one and the last large one write at every turn, and come first.
        for name in &names {
            let filling = if name.starts_with('l') { 800 } else { 0 };
            if n == 1 || !["s79", "l2"].contains(name) {
                directory.set(name, &grant(name, n, filling));
            }
        }
        before = turn(&platform, &mut directory, Some(&before), FEW_BYTES);
    }
    for name in ["s79", "l2"] {
        assert_eq!(read(&before.0, &["g1"], name), Reason::Granted, "{name} waits");
    }
}

/// While a newer version waits, the version before is what the platform's document of today makes of it.
#[test]
fn what_stands_for_a_waiting_document_is_read_by_the_platform_of_today() {
    let bound = "grants: [{ groups: [sre], tenants: [team-a] }]\n\
                 restrictions: [{ tenants: [team-a], groups: [sre], networks: [office] }]\n";
    let grants = "networks: { office: [10.0.0.0/8] }\nclient_ip: { source: remote_addr }\n\
                  group_names: { sre: raw-sre }\ngrants: [{ groups: ['*'], tenants: ['*'] }]\n\
                  owners: { team-a: { tenants: [team-a] } }\n";
    let mut directory = Directory::with("team-a", bound);
    let first = turn(grants, &mut directory, None, usize::MAX);
    let of = |policy: &InForce, client| reason(&policy.0, &["raw-sre"], "team-a", Scope::LogsRead, client);
    assert_eq!([of(&first, "10.0.0.1"), of(&first, "11.0.0.1")], [Reason::Granted, Reason::IpForbidden]);
    directory.set("team-a", &format!("{bound}#{}\n", "x".repeat(300)));
    let meanwhile = |platform: &str| {
        // Another large document has the turn.
        let platform = platform.replace("owners: {", "owners: { a: { tenants: [a] },");
        let mut directory = directory.clone().and("a", Some(&heavy("a")), None);
        let second = turn(&platform, &mut directory, Some(&first), 1);
        assert_eq!(second.waiting(), ["team-a"], "{platform}");
        [of(&second, "10.0.0.1"), of(&second, "11.0.0.1")]
    };
    assert_eq!(meanwhile(grants), [Reason::Granted, Reason::IpForbidden]);
    // The name that it binds is another one now, or means other groups, or comes from an issuer of two.
    let unavailable = [Reason::PolicyUnavailable; 2];
    let renamed = grants.replace("sre: raw-sre", "admins: raw-sre");
    assert_eq!(
        meanwhile(&renamed),
        [Reason::Granted; 2],
        "`sre` is a group of the issuer then, which a grant knows"
    );
    let only_bound =
        bound.replace("groups: [sre], tenants: [team-a] }]\n", "groups: [b], tenants: [team-a] }]\n");
    let mut directory = Directory::with("team-a", &only_bound);
    let first = turn(grants, &mut directory, None, usize::MAX);
    directory.set("team-a", &format!("{only_bound}#{}\n", "x".repeat(300)));
    let platform = renamed.replace("owners: {", "owners: { a: { tenants: [a] },");
    directory.set("a", &heavy("a"));
    let second = turn(&platform, &mut directory, Some(&first), 1);
    assert_eq!(second.waiting(), ["team-a"]);
    assert_eq!([of(&second, "10.0.0.1"), of(&second, "11.0.0.1")], unavailable);
}

/// The tests of a document run on the platform's rules, so that what was refused is judged again once these change.
#[test]
fn a_document_whose_tests_failed_is_judged_again_when_the_platform_changes() {
    let platform = |grant: &str| {
        format!(
            "grants: [{{ groups: [p], tenants: [{grant}] }}]\nowners: {{ team-a: {{ tenants: [team-a] }} }}\n"
        )
    };
    let good = "grants: [{ groups: [a], tenants: [team-a] }]\n";
    let withdraws = "grants: []\ntests: [{ groups: [p], tenant: team-a, scope: logs:read, expect: allow }]\n";
    let mut directory = Directory::with("team-a", good);
    let first = turn(&platform("x"), &mut directory, None, usize::MAX);
    directory.set("team-a", withdraws);
    let second = turn(&platform("x"), &mut directory, Some(&first), usize::MAX);
    assert_eq!(
        (second.1[0].state, read(&second.0, &["a"], "team-a")),
        (OwnerState::LastGood, Reason::Granted)
    );
    let third = turn(&platform("y"), &mut directory, Some(&second), usize::MAX);
    assert_eq!((third.1[0].state, errors(&third.1[0]).len()), (OwnerState::LastGood, 1));
    let fourth = turn(&platform("team-a"), &mut directory, Some(&third), usize::MAX);
    assert_eq!(
        (fourth.1[0].state, read(&fourth.0, &["a"], "team-a")),
        (OwnerState::Current, Reason::TenantForbidden)
    );
}

/// Another worker has taken a newer version than this one, which is busy.
#[test]
fn what_another_worker_took_is_in_force_while_a_newer_version_waits() {
    let of = |group: &str| format!("grants: [{{ groups: [{group}], tenants: [team-a] }}]\n");
    let owners = platform(&["a", "team-a"]);
    let mut directory = Directory::with("team-a", &of("x")).and("a", Some("{}\n"), None);
    let first = turn(&owners, &mut directory, None, usize::MAX);
    directory = directory.and("team-a", Some(&format!("{}#{}\n", of("z"), "x".repeat(300))), Some(&of("y")));
    directory.set("a", &heavy("a"));
    let second = turn(&owners, &mut directory, Some(&first), 1);
    assert_eq!(second.waiting(), ["team-a"]);
    assert_eq!(second.1[1].content.as_deref(), Some(of("y").as_bytes()));
    let read = ["x", "y", "z"].map(|group| read(&second.0, &[group], "team-a"));
    assert_eq!(read, [Reason::TenantForbidden, Reason::Granted, Reason::TenantForbidden]);
}

/// A worker that starts has nothing in force.
#[test]
fn a_worker_that_starts_uses_what_was_good_before_for_those_who_wait() {
    let good = "grants: [{ groups: [a], tenants: [team-a] }]\n";
    let mut directory = Directory::default().and("team-a", Some(&heavy("team-a")), Some(good)).and(
        "a",
        Some(&heavy("a")),
        None,
    );
    let first = turn(&platform(&["a", "team-a"]), &mut directory, None, 1);
    assert_eq!((first.waiting(), first.1[1].state), (vec!["team-a"], OwnerState::LastGood));
    assert_eq!(
        [read(&first.0, &["a"], "team-a"), read(&first.0, &["h"], "a-x1")],
        [Reason::Granted, Reason::Granted]
    );
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
    let with_test =
        (prop::sample::select(&["a", "b", "raw-sre"][..]), prop::sample::select(&["allow", "deny"][..]))
            .prop_map(|(group, expect)| {
                Some(format!(
                    "grants: [{{ groups: [a], tenants: [team-a] }}]\n\
                 tests: [{{ groups: [{group}], tenant: team-b, scope: logs:read, expect: {expect} }}]\n"
                ))
            });
    prop_oneof![
        6 => rules,
        3 => with_test,
        2 => Just(Some("restrictions: [{ groups: [sre], networks: [office] }]\n".to_owned())),
        1 => Just(None),
        1 => Just(Some("grants: [\n".to_owned())),
        1 => Just(Some("restrictions: [{ groups: [a], networks: [office] }]\ngrants: [{ groups: [a], tenants: [team-a] }]\n".to_owned())),
    ]
}

fn platforms() -> impl Strategy<Value = String> {
    let bounds = prop::sample::select(
        &["[team-a, \"team-a-*\"]", "[team-a]", "[\"t*\"]", "[\"t*\"], except_tenants: [team-a-x]"][..],
    );
    let network = prop::sample::select(&["10.0.0.0/8", "11.0.0.0/8"][..]);
    let groups = prop::sample::select(&["[raw-sre]", "[raw-sre, b]", "[b]"][..]);
    (bounds, network, any::<bool>(), groups, any::<bool>()).prop_map(
        |(bounds, network, revoked, groups, renamed)| {
            let mut text = PLATFORM.replace(r#"[team-a, "team-a-*"]"#, bounds).replace("10.0.0.0/8", network);
            if revoked {
                text += "revoked: { groups: [a] }\n";
            }
            if renamed {
                text = text
                    .replace("{ sre: raw-sre }", "{ admins: raw-sre }")
                    .replace("groups: [sre]", "groups: [admins]");
            }
            text.replace("raw-sre }", &format!("{groups} }}"))
        },
    )
}

/// Whatever the policy says to whomever.
fn decisions(policy: &InForce) -> Vec<Reason> {
    let mut all = Vec::new();
    for group in ["a", "b", "raw-sre"] {
        for tenant in ["team-a", "team-a-x", "team-b", "tx"] {
            for client in ["10.0.0.1", "11.0.0.1"] {
                all.push(reason(&policy.0, &[group], tenant, Scope::LogsRead, client));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever changes in whatever order, and however many turns are taken between two changes: what is decided is what
    /// one reading would decide, in which the versions that wait were not written yet; once nobody waits, all is as if it
    /// had been read at once.
    #[test]
    fn turns_decide_as_one_reading_does(
        steps in prop::collection::vec((platforms(), document(), document(), 1_usize..3000, 1..4), 1..7),
    ) {
        let mut directory = Directory::default();
        let mut before: Option<InForce> = None;
        for (platform, a, b, most_bytes, turns) in steps {
            directory.0.entry("team-a".to_owned()).or_default().0 = a;
            directory.0.entry("team-b".to_owned()).or_default().0 = b;
            for _ in 0..turns {
                let as_it_was = directory.clone();
                let next = turn(&platform, &mut directory, before.as_ref(), most_bytes);
                let mut settled = as_it_was;
                for owner in next.waiting() {
                    let (newest, last) = settled.0.get_mut(owner).unwrap();
                    newest.clone_from(last);
                }
                let at_once = turn(&platform, &mut settled, None, usize::MAX);
                prop_assert_eq!(decisions(&next), decisions(&at_once));
                prop_assert_eq!(next.revisions(), at_once.revisions());
                for (one, other) in next.1.iter().zip(&at_once.1) {
                    prop_assert_eq!(&one.content, &other.content);
                    if one.turns_waited == 0 {
                        prop_assert_eq!(one.state, other.state);
                        // Not the help of a failing test: it says which groups are known, and in which order documents are read tells.
                        let messages = |owner| errors(owner).iter().map(|text| text.lines().next().map(str::to_owned)).collect::<Vec<_>>();
                        prop_assert_eq!(messages(one), messages(other));
                    }
                }
                if next.waiting().is_empty() {
                    prop_assert_eq!(&next.0.snapshot.revision, &at_once.0.snapshot.revision);
                }
                before = Some(next);
            }
        }
    }
}
