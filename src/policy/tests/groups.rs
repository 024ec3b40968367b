//! Who gives which group: no issuer speaks for another, nor for a service account, nor for everybody.

use super::*;
use crate::policy::snapshot::{EVERYONE, GroupTable};
use proptest::prelude::*;

/// What the raw groups of a token of this issuer stand for, sorted by name.
fn names(groups: &GroupTable, issuer: usize, raw: &[&str]) -> Vec<String> {
    let ids = groups.of_user(issuer, raw.iter().copied());
    let mut names: Vec<_> = ids.iter().map(|id| groups.name(*id).to_owned()).collect();
    names.sort();
    names
}

/// Groups that attackers would write into a token if they could choose them.
const FORGERIES: [&str; 18] = [
    "*",
    "entra:*",
    "keycloak:*",
    "entra:sre",
    "keycloak:sre",
    "service:agent",
    "service:*",
    "service:",
    "service",
    ":sre",
    "entra:",
    "keycloak:",
    "entra",
    "ops",
    "keycloak:entra:sre",
    "entra:keycloak:sre",
    "keycloak:*:sre",
    " sre",
];

const RULES: &str = "\
service_accounts: [{ name: agent, token_sha256: ['ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'], networks: [10.0.0.1] }]
group_names: { ops: ['keycloak:ops-raw', 'entra:ops-raw'] }
grants:
- { groups: ['*'], tenants: [public] }
- { groups: ['entra:*', 'keycloak:*', 'entra:sre', 'keycloak:sre', ops, 'service:agent'], tenants: [t] }
";

#[test]
fn with_several_issuers_each_gives_its_own_groups() {
    let text = format!("{TWO}{RULES}");
    assert_eq!(problems(&text), [""; 0]);
    let groups = snapshot(&text).groups;
    let of = |issuer, raw: &[&str]| names(&groups, issuer, raw);
    assert_eq!(of(0, &["sre"]), ["*", "entra:*", "entra:sre"]);
    assert_eq!(of(1, &["sre"]), ["*", "keycloak:*", "keycloak:sre"]);
    assert_eq!(of(0, &["ops-raw"]), ["*", "entra:*", "ops"]);
    assert_eq!(of(1, &["x", "ops-raw"]), ["*", "keycloak:*", "ops"]);
    assert_eq!([of(0, &[]), of(1, &[])], [["*"], ["*"]]);
    assert_eq!(of(2, &["sre"]), ["*"], "an issuer that is not there");
    for forged in FORGERIES {
        assert_eq!(of(0, &[forged]), ["*", "entra:*"], "{forged}");
        assert_eq!(of(1, &[forged]), ["*", "keycloak:*"], "{forged}");
    }
}

#[test]
fn a_group_of_a_bare_issuer_that_reads_as_anothers_is_nothing() {
    let bare = TWO.replacen("jwks.json }", "jwks.json, bare_groups: true }", 1);
    let text = format!("{bare}{}", RULES.replace("'entra:ops-raw'", "ops-raw").replace("'entra:sre'", "sre"));
    assert_eq!(problems(&text), [""; 0]);
    let groups = snapshot(&text).groups;
    let of = |issuer, raw: &[&str]| names(&groups, issuer, raw);
    assert_eq!(of(0, &["sre"]), ["*", "entra:*", "sre"]);
    assert_eq!(of(0, &["ops-raw"]), ["*", "entra:*", "ops"]);
    assert_eq!(of(1, &["sre", "ops-raw"]), ["*", "keycloak:*", "keycloak:sre", "ops"]);
    for forged in FORGERIES {
        let dropped = forged.starts_with("service:") || forged.starts_with("keycloak:");
        let expected: &[&str] = if dropped { &["*"] } else { &["*", "entra:*"] };
        assert_eq!(of(0, &[forged]), expected, "{forged}");
        // What is dropped takes nothing else with it.
        assert_eq!(of(0, &[forged, "sre"]), ["*", "entra:*", "sre"], "{forged}");
        assert_eq!(of(1, &[forged]), ["*", "keycloak:*"], "{forged}");
    }
}

#[test]
fn the_only_issuers_groups_are_bare_and_never_a_service_accounts() {
    for says in ["", "    bare_groups: true\n", "    bare_groups: false\n"] {
        let text = format!(
            "{HEAD}{says}service_accounts: [{{ name: agent, token_sha256: ['{}'], networks: [10.0.0.1] }}]\n\
             grants: [{{ groups: [sre, 'entra:sre', 'keycloak:sre', 'entra:*', 'service:agent'], tenants: [t] }}]\n",
            "0".repeat(64)
        );
        assert_eq!(problems(&text), [""; 0]);
        let groups = snapshot(&text).groups;
        let of = |raw: &[&str]| names(&groups, 0, raw);
        assert_eq!(of(&["sre"]), ["*", "entra:*", "sre"]);
        assert_eq!(of(&["entra:sre"]), ["*", "entra:*", "entra:sre"]);
        assert_eq!(of(&["keycloak:sre"]), ["*", "entra:*", "keycloak:sre"]);
        for nothing in ["service:agent", "service:", "service:x"] {
            assert_eq!(of(&[nothing]), ["*"], "{nothing}");
        }
        assert_eq!(of(&["entra:*"]), ["*", "entra:*"], "a group like any other");
        assert_eq!(of(&["service"]), ["*", "entra:*"]);
    }
}

#[test]
fn the_name_of_an_alias_is_no_raw_group_of_any_issuer() {
    let groups = snapshot(&format!(
        "{TWO}group_names: {{ 'keycloak:sre': ['entra:a'], sre: ['keycloak:b'] }}\n\
         grants: [{{ groups: ['keycloak:sre', sre], tenants: [t] }}]\n"
    ))
    .groups;
    assert_eq!(names(&groups, 1, &["sre"]), ["*"]);
    assert_eq!(names(&groups, 0, &["a", "sre", "keycloak:sre"]), ["*", "keycloak:sre"]);
    assert_eq!(names(&groups, 1, &["b"]), ["*", "sre"]);
}

#[test]
fn names_are_resolved_for_people_as_rules_write_them() {
    let text = format!("{TWO}{RULES}- {{ groups: ['entra:dev'], tenants: [t] }}\n");
    let groups = snapshot(&text).groups;
    let of = |list: &[&str]| {
        groups.of_names(list).map(|(issuer, held)| {
            let mut names: Vec<_> = held.groups.iter().map(|id| groups.name(*id).to_owned()).collect();
            names.sort();
            (issuer, names.join(" "))
        })
    };
    assert_eq!(of(&[]), Ok((None, "*".to_owned())));
    assert_eq!(of(&["entra:sre"]), Ok((Some(0), "* entra:* entra:sre".to_owned())));
    assert_eq!(of(&["entra:unheard"]), Ok((Some(0), "* entra:*".to_owned())));
    assert_eq!(of(&["keycloak:*"]), Ok((Some(1), "* keycloak:*".to_owned())));
    assert_eq!(of(&["ops"]), Ok((None, "* ops".to_owned())), "either could have given it");
    assert_eq!(of(&["ops", "keycloak:sre"]), Ok((Some(1), "* keycloak:* keycloak:sre ops".to_owned())));
    assert_eq!(of(&["keycloak:ops-raw"]), Ok((Some(1), "* keycloak:* ops".to_owned())));
    assert_eq!(of(&["sre"]), Ok((None, "*".to_owned())), "nobody gives it");
    assert_eq!(of(&["service:agent"]), Ok((None, "*".to_owned())), "no user is a service account");
    let mixed = of(&["ops", "entra:sre", "keycloak:sre"]).unwrap_err();
    assert_eq!(
        mixed.to_string(),
        "`entra:sre` and `keycloak:sre` are given by different issuers, and nobody is a user of two"
    );
}

#[test]
fn a_revoked_group_is_dropped_in_every_form() {
    let rules = "group_names: { ops: ['keycloak:a', 'entra:b'], leads: ['entra:b', 'entra:c'] }\n\
         grants: [{ groups: [ops, leads, 'entra:b', 'entra:c', 'entra:*', 'keycloak:a'], tenants: [t] }]\n";
    let of = |revoked: &str, issuer, raw: &[&str]| {
        let text = format!("{TWO}{rules}revoked: {{ groups: [{revoked}] }}\n");
        assert_eq!(problems(&text), [""; 0]);
        let groups = snapshot(&text).groups;
        let held = groups.held_by_user(issuer, raw.iter().copied());
        assert_eq!(held.groups, groups.of_user(issuer, raw.iter().copied()));
        let of_ids = |ids: &[u32]| {
            let mut names: Vec<_> = ids.iter().map(|id| groups.name(*id).to_owned()).collect();
            names.sort();
            names.join(" ")
        };
        (of_ids(&held.groups), of_ids(held.binding()))
    };
    let both = |granting: &str, binding: &str| (granting.to_owned(), binding.to_owned());
    let all = "* entra:* entra:b leads ops";
    assert_eq!(of("", 0, &["b"]), both(all, all));
    // A raw group takes along every alias it is listed under, but not those that another group gives.
    assert_eq!(of("'entra:b'", 0, &["b"]), both("*", all));
    assert_eq!(
        of("'entra:b'", 0, &["b", "c"]),
        both("* entra:* entra:c leads", "* entra:* entra:b entra:c leads ops")
    );
    // An alias takes along the groups it stands for.
    assert_eq!(of("leads", 0, &["b"]), both("*", all));
    assert_eq!(of("leads", 0, &["x"]), both("* entra:*", "* entra:*"));
    assert_eq!(of("ops", 1, &["a"]), both("*", "* keycloak:a ops"));
    assert_eq!(of("ops", 0, &["c"]), both("* entra:* entra:c leads", "* entra:* entra:c leads"));
    // Another issuer's group of that name stays.
    assert_eq!(of("'keycloak:a'", 0, &["b"]), both(all, all));

    let text = format!("{TWO}{rules}revoked: {{ groups: ['entra:b', ops] }}\n");
    let groups = snapshot(&text).groups;
    for name in ["ops", "entra:b", "keycloak:a"] {
        let (_, held) = groups.of_names(&[name]).unwrap();
        assert_eq!(*held.groups, [EVERYONE], "{name}");
        assert_ne!(*held.groups, *held.binding(), "{name}");
    }
    assert_eq!(groups.of_names(&["leads"]).unwrap().1.groups.len(), 3, "a group of it is left");
}

proptest! {
    /// Whatever a token of one issuer says, nobody gets what only the other, or nobody, can give.
    #[test]
    fn no_raw_group_reaches_what_is_not_the_issuers(
        raw in prop::collection::vec("[a-z*:]{0,4}|(entra|keycloak|service|ops|sre)?:?(\\*|sre|agent|entra|ops-raw)?", 0..6),
        issuer in 0usize..2,
        bare in 0usize..3,
    ) {
        let mut text = format!("{TWO}{RULES}");
        let mut count = 0;
        text = text.lines().map(|line| {
            let line = if line.contains("jwks_file") && { count += 1; count - 1 == bare } {
                line.replace("jwks.json }", "jwks.json, bare_groups: true }")
            } else {
                line.to_owned()
            };
            line + "\n"
        }).collect();
        let groups = snapshot(&text).groups;
        let raw: Vec<&str> = raw.iter().map(|group| &**group).filter(|group| !group.is_empty()).collect();
        let other = ["keycloak:", "entra:"][issuer];
        for name in names(&groups, issuer, &raw) {
            prop_assert!(!name.starts_with("service:"), "{raw:?}: {name}");
            prop_assert!(!name.starts_with(other), "{raw:?}: {name}");
            if name == "ops" {
                // Bare, what is written with the issuer's own name is a group of just that name.
                let own = issuer == bare && raw.contains(&["entra:ops-raw", "keycloak:ops-raw"][issuer]);
                prop_assert!(raw.contains(&"ops-raw") || own, "{raw:?}");
            }
        }
    }
}

/// However a token writes its groups, none of them is another issuer's, a service account's or everybody's.
#[test]
fn no_format_gives_what_the_issuer_may_not() {
    use crate::policy::sample;
    for (format, claim) in [
        ("list", json!(FORGERIES)),
        ("list", json!("keycloak:sre")),
        ("list", json!("service:agent")),
        ("string", json!("keycloak:sre")),
        ("string", json!("*")),
        ("space", json!(FORGERIES.join(" "))),
        ("comma", json!(FORGERIES.join(","))),
        ("comma", json!(" service:agent , keycloak:sre,*")),
        ("keys", FORGERIES.iter().map(|name| ((*name).to_owned(), json!({}))).collect()),
    ] {
        for bare in ["", ", bare_groups: true"] {
            let head =
                TWO.replacen("jwks.json }", &format!("jwks.json, groups_format: {format}{bare} }}"), 1);
            let snapshot = snapshot(&format!("{head}{}", RULES.replace("'entra:sre', ", "")));
            let claims = json!({"iss": "https://issuer.example", "groups": claim}).to_string();
            let (issuer, identity) = sample::identity(&snapshot, claims.as_bytes(), NOW).unwrap();
            let raw: Vec<&str> = identity.groups.iter().map(|group| &**group).collect();
            assert!(!raw.is_empty());
            let held = names(&snapshot.groups, issuer, &raw);
            assert!(
                held.iter().all(|name| ["*", "entra:*"].contains(&&**name)),
                "{format}{bare} {claim}: {held:?}"
            );
        }
    }
}
