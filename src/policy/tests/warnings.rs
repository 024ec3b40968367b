//! What a policy may say although it is probably not meant.

use super::*;
use crate::policy::diagnostic::WarningKind;

fn warned(tail: &str, expected: &[(WarningKind, &str)]) {
    let text = format!("{HEAD}{tail}");
    let outcome = outcome(&text);
    assert!(outcome.compiled.is_some(), "warnings do not refuse: {tail}");
    let told: Vec<_> =
        outcome.diagnostics.iter().map(|problem| (problem.severity, problem.to_string())).collect();
    let expected: Vec<_> =
        expected.iter().map(|(kind, text)| (Severity::Warning(*kind), (*text).to_owned())).collect();
    assert_eq!(told, expected, "{tail}");
}

#[test]
fn an_unsigned_cookie() {
    warned(
        "client_ip:\n  unsigned: true\n",
        &[(
            WarningKind::UnsignedCookie,
            "p.yaml:8:3: warning: client_ip.unsigned: the address in the cookie is not proven: whoever reaches this \
             nginx past the Grafana Gateway chooses it\n  help: make a key with `tenantauth keygen` and name its \
             file in `keys_file`",
        )],
    );
}

#[test]
fn networks_that_are_every_address() {
    let text = |place: &str, path: &str, network: &str| {
        format!(
            "p.yaml:{place}: warning: {path}: `{network}` is every address: it restricts nothing\n  \
             help: name the networks that are meant"
        )
    };
    warned(
        "client_ip: { source: header:X-Real-IP, trusted_peers: ['::/0'] }\n\
         networks:\n  open: [10.0.0.0/8, 0.0.0.0/0]\n\
         authorizations: { a: [t] }\n\
         restrictions: [{ networks: [open, 10.0.0.0/8, '::/0'] }]\n",
        &[
            (WarningKind::OpenNetwork, &text("7:56", "client_ip.trusted_peers[0]", "::/0")),
            (WarningKind::OpenNetwork, &text("9:22", "networks.open[1]", "0.0.0.0/0")),
            (WarningKind::OpenNetwork, &text("11:47", "restrictions[0].networks[2]", "::/0")),
        ],
    );
}

#[test]
fn restrictions_that_match_no_granted_tenant() {
    let cases: [(&str, &str, Option<&str>); 12] = [
        ("tenants: [t]", "tenants: [t]", None),
        ("tenants: [t]", "tenants: [u]", Some("tenant")),
        ("tenants: [team-a]", "tenants: ['team-*']", None),
        ("tenants: ['team-*']", "tenants: [team-a]", None),
        ("tenants: ['team-*-prod']", "tenants: ['team-a-*']", None),
        ("tenants: ['a-*']", "tenants: ['b-*']", Some("tenant")),
        ("tenants: ['*-prod']", "tenants: ['b-*']", None),
        ("tenants: ['*-prod']", "tenants: ['*-dev', x-prod]", None),
        ("tenants: [t]", "tenants: [u, v, 'x*']", Some("tenant")),
        ("tenants: [t], scopes: ['logs:read']", "scopes: ['logs:*']", None),
        ("tenants: [t], scopes: ['metrics:read']", "scopes: ['logs:*']", Some("scope")),
        ("tenants: [t], scopes: ['rules:read']", "scopes: ['logs:*']", None),
    ];
    for (grant, restriction, unmatched) in cases {
        let tail = format!(
            "client_ip: {{ source: remote_addr }}\ngrants: [{{ groups: [a], {grant} }}]\n\
             restrictions: [{{ {restriction}, networks: [10.0.0.1] }}]\n"
        );
        match unmatched {
            None => warned(&tail, &[]),
            Some(what) => warned(
                &tail,
                &[(
                    WarningKind::RestrictionUnmatched,
                    &format!(
                        "p.yaml:9:16: warning: restrictions[0]: no grant names a {what} that this restriction \
                         binds: it applies to nothing\n  help: check how it is written"
                    ),
                )],
            ),
        }
    }
}

#[test]
fn grants_that_have_expired() {
    // 2027-01-15T08:00:00Z is now.
    warned("grants:\n  - { groups: [a], tenants: [t], expires: 2027-02-15T08:00:01Z }\n", &[]);
    warned(
        "grants:\n  - { groups: [a], tenants: [t], expires: 2027-01-15T08:00:00Z }\n  - { groups: [b], tenants: [t] }\n",
        &[(
            WarningKind::ExpiredGrant,
            "p.yaml:8:43: warning: grants[0]: the grant has expired\n  help: remove it",
        )],
    );
}

#[test]
fn keys_that_are_not_used() {
    let text = HEAD.replace("jwks.json", "mixed.json");
    assert_eq!(
        problems(&text),
        [
            "p.yaml:6:16: warning: issuers[0].jwks_file: the key `shared\\nsecret` is not used: it is a shared secret, \
          which could sign as well as verify\n  help: the issuer's other keys are used"
        ]
    );
    assert_eq!(compiled(&text).keys[0].as_ref().unwrap().len(), 1);
}

#[test]
fn restrictions_in_shadow_mode() {
    warned(
        "client_ip: { source: remote_addr }\nauthorizations: { a: [t] }\n\
         restrictions:\n  - networks: [10.0.0.1]\n    mode: shadow\n",
        &[(
            WarningKind::ShadowRestriction,
            "p.yaml:11:5: warning: restrictions[0].mode: the restriction is recorded only and denies nothing\n  \
             help: remove `mode: shadow` once the record shows what you expect",
        )],
    );
}

#[test]
fn groups_that_look_like_patterns() {
    warned(
        "grants:\n  - { groups: [team-*], tenants: [t] }\n  - { groups: ['entra:*'], tenants: [t] }\n",
        &[(
            WarningKind::GroupLooksLikePattern,
            "p.yaml:8:16: warning: grants[0]: groups match exactly: `team-*` is not a pattern\n  \
             help: name each group",
        )],
    );
}

#[test]
fn default_tenants_that_no_grant_gives() {
    let sum = "0".repeat(64);
    let with = |grants: &str| {
        format!(
            "service_accounts: [{{ name: a, token_sha256: ['{sum}'], networks: [10.0.0.1], tenant: team-a }}]\n\
             grants: [{{ groups: [x], tenants: [team-a] }}, {grants}]\n"
        )
    };
    for granted in [
        "{ groups: ['service:a'], tenants: ['team-*'], scopes: ['logs:write'] }",
        "{ groups: ['service:a'], tenants: [team-a] }]\nrevoked: { principals: [{ issuer: service, id: a }] }\n\
         tests: [",
        "{ groups: ['service:a'], tenants: [team-b] }]\nrevoked: { principals: [{ issuer: service, id: a }] }\n\
         tests: [",
    ] {
        warned(&with(granted), &[]);
    }
    for other in [
        // `*` is every user, and an account is none.
        "{ groups: ['*'], tenants: [all] }",
        "{ groups: ['service:a'], tenants: [team-b] }",
        "{ groups: ['service:a'], tenants: ['team-*'], except_tenants: [team-a] }",
    ] {
        warned(
            &with(other),
            &[(
                WarningKind::UngrantedTenant,
                "p.yaml:7:145: warning: service_accounts[0].tenant: no grant gives `team-a` to `service:a`: it asks in \
                 vain\n  help: grant it, or name a tenant that is granted",
            )],
        );
    }
}

#[test]
fn service_accounts_from_anywhere() {
    let sum = "0".repeat(64);
    warned(
        &format!("service_accounts: [{{ name: a, token_sha256: ['{sum}'], networks: [10.0.0.1] }}]\n"),
        &[],
    );
    warned(
        &format!(
            "networks: {{ all: ['::/0'] }}\nservice_accounts:\n- {{ name: a, token_sha256: ['{sum}'] }}\n"
        ),
        &[
            (
                WarningKind::OpenNetwork,
                "p.yaml:7:19: warning: networks.all[0]: `::/0` is every address: it restricts nothing\n  \
                 help: name the networks that are meant",
            ),
            (
                WarningKind::ServiceAccountOpen,
                "p.yaml:9:3: warning: service_accounts[0].networks: `a` may come from anywhere: its token alone lets it \
                 in\n  help: name where its connections come from: `networks: [10.20.0.0/16]`",
            ),
        ],
    );
}

#[test]
fn revoked_groups_that_nothing_knows() {
    let rules = "group_names: { sre: [raw] }\ngrants: [{ groups: [sre, a], tenants: [t] }]\n";
    warned(&format!("{rules}revoked: {{ groups: [sre, raw, a], principals: [], tokens_sha256: [] }}\n"), &[]);
    warned(
        &format!("{rules}revoked: {{ groups: [rwa] }}\n"),
        &[(
            WarningKind::RevokedGroupUnknown,
            "p.yaml:9:21: warning: revoked.groups[0]: nothing else in the policy knows the group `rwa`\n  \
             help: check its name: what is mistyped here is not revoked",
        )],
    );
}

#[test]
fn revocations_that_have_ended() {
    let ended = "p.yaml:7:58: warning: revoked.principals[0].until: the time has passed: `s-1` is revoked no longer\n  \
                help: remove the entry";
    let policy =
        |until: &str| format!("revoked: {{ principals: [{{ issuer: entra, id: s-1, until: {until} }}] }}\n");
    warned(&policy("2020-01-01T00:00:00Z"), &[(WarningKind::RevocationEnded, ended)]);
    warned(&policy("2037-01-01T00:00:00Z"), &[]);
}

#[test]
fn ids_that_are_unlike_the_issuers() {
    const GUID: &str = "0f3c9a1e-0000-4000-8000-000000000001";
    // The warnings where the list is `others` and this id.
    let kinds = |issuer: &str, others: &str, id: &str| -> Vec<WarningKind> {
        let text = format!("{HEAD}revoked: {{ principals: [{others}{{ issuer: entra, id: '{id}' }}] }}\n");
        let found = outcome(&text.replace("https://issuer.example", issuer));
        assert!(found.compiled.is_some());
        found
            .diagnostics
            .iter()
            .filter_map(|problem| match problem.severity {
                Severity::Warning(kind) => Some(kind),
                Severity::Error => None,
            })
            .collect()
    };
    let entra = format!("https://login.microsoftonline.com/{GUID}/v2.0");
    let sub = "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ";
    for (issuer, bad, good) in [
        (
            &*entra,
            &["bob@example.com", "bob", "12345", "bob_example.com#EXT#@x.onmicrosoft.com"][..],
            &[GUID, sub][..],
        ),
        ("https://sts.windows.net/x/", &["bob@example.com"], &[GUID, sub]),
        ("https://accounts.google.com", &["bob@example.com", GUID], &["110169484474386276334"]),
        (
            "https://sso.example/realms/main",
            &["bob@example.com"],
            &[GUID, "bob", "f:0f3c9a1e-0000-4000-8000-000000000001:bob@example.com"],
        ),
        ("https://cognito-idp.eu-central-1.amazonaws.com/x", &["bob@example.com"], &[GUID]),
        // Anything may be an id here.
        (
            "https://idp.example",
            &[],
            &["bob@example.com", "bob", GUID, "auth0|5f7c", "google-oauth2|x@y.example"],
        ),
    ] {
        for bad in bad {
            assert_eq!(kinds(issuer, "", bad), [WarningKind::RevokedIdUnlike], "{issuer} {bad}");
        }
        for good in good {
            assert_eq!(kinds(issuer, "", good), [], "{issuer} {good}");
        }
    }
    // Where the policy's other ids are GUIDs, an address is none.
    let others = format!("{{ issuer: entra, id: {GUID} }}, ");
    assert_eq!(kinds("https://idp.example", &others, "bob@example.com"), [WarningKind::RevokedIdUnlike]);
    assert_eq!(kinds("https://idp.example", &others, "bob"), []);
    warned(
        &format!("revoked: {{ principals: [{others}{{ issuer: entra, id: bob@example.com }}] }}\n"),
        &[(
            WarningKind::RevokedIdUnlike,
            "p.yaml:7:107: warning: revoked.principals[1].id: other ids of this issuer are GUIDs, and `bob@example.com` \
             is none: it probably revokes nobody\n  help: take `subject` from an audit record of the principal, or its \
             `oid` from the directory",
        )],
    );
}

#[test]
fn headers_that_are_lists() {
    for name in ["X-Forwarded-For", "x-forwarded-for", "Forwarded", "X-Original-Forwarded-For"] {
        let list = format!(
            "p.yaml:7:12: warning: client_ip.source: `{name}` is a list, to which each proxy adds: a value that is no \
             single address is `ip_malformed`\n  help: have nginx read it: `real_ip_header X-Forwarded-For` with \
             `set_real_ip_from`, and `source: remote_addr`; or name a header that holds the client alone"
        );
        warned(
            &format!("client_ip: {{ source: 'header:{name}', trusted_peers: [10.0.0.1] }}\n"),
            &[(WarningKind::ClientIpList, &list)],
        );
    }
    for name in ["X-Real-IP", "X-Envoy-External-Address", "CF-Connecting-IP", "X-Forwarded-For-Client"] {
        warned(&format!("client_ip: {{ source: 'header:{name}', trusted_peers: [10.0.0.1] }}\n"), &[]);
    }
}

#[test]
fn groups_that_no_issuer_gives() {
    let text = format!(
        "{TWO}group_names: {{ sre: [a, 'entra:a'] }}\ngrants:\n- {{ groups: [b, sre, '*'], tenants: [t] }}\n"
    );
    let text = text.replace(", '*'", "");
    let help = |name: &str| {
        format!("\n  help: write `entra:{name}` or `keycloak:{name}`; or give one issuer `bare_groups: true`")
    };
    assert_eq!(
        problems(&text),
        [
            format!("p.yaml:5:22: warning: group_names.sre: no issuer gives the group `a`{}", help("a")),
            format!("p.yaml:7:14: warning: grants[0]: no issuer gives the group `b`{}", help("b")),
        ]
    );
    let none = "version: 1\nissuers: []\ngrants:\n- { groups: [b], tenants: [t] }\n";
    let told = problems(none).pop();
    let expected = "p.yaml:4:14: warning: grants[0]: no issuer gives the group `b`\n  help: name the issuer that gives it \
                    under `issuers`";
    assert_eq!(told.as_deref(), Some(expected));
    // With one whose groups are bare they are that issuer's.
    let bare = text.replacen("jwks.json }", "jwks.json, bare_groups: true }", 1);
    assert_eq!(problems(&bare), [""; 0]);
}

#[test]
fn problems_are_told_on_one_line_in_logs() {
    let text = format!("{HEAD}grants: [{{ groups: [*], tenants: [\"a\\nb\"] }}]\n");
    let lines: Vec<_> = outcome(&text).diagnostics.iter().map(|problem| problem.one_line()).collect();
    assert_eq!(
        lines[0],
        "p.yaml:7:21: grants[0].groups[0]: `*` is read as a YAML alias, which is not supported; help: quote it: \"*\""
    );
    assert!(lines[1].contains("`a\\nb` is no tenant") && !lines[1].contains('\n'), "{}", lines[1]);
}

#[test]
fn grants_that_end_soon() {
    // 2027-01-15T08:00:00Z is now.
    warned("grants: [{ groups: [a], tenants: [t], expires: 2027-01-29T08:00:01Z }]\n", &[]);
    for (expires, left) in [("2027-01-29T08:00:00Z", "14 days"), ("2027-01-16T08:00:00Z", "a day")] {
        warned(
            &format!("grants: [{{ groups: [a], tenants: [t], expires: {expires} }}]\n"),
            &[(
                WarningKind::ExpiringGrant,
                &format!(
                    "p.yaml:7:48: warning: grants[0].expires: the grant ends within {left}\n  \
                     help: move its end, or let it end"
                ),
            )],
        );
    }
}

#[test]
fn writes_on_every_tenant() {
    warned("grants: [{ groups: [a], tenants: ['*'] }]\n", &[]);
    warned("grants: [{ groups: [a], tenants: ['t*'], scopes: ['*:*'] }]\n", &[]);
    for (scopes, first) in [("'*:*'", "metrics:write"), ("'logs:read', 'logs:delete'", "logs:delete")] {
        warned(
            &format!("grants: [{{ groups: [a], tenants: [t, '*'], scopes: [{scopes}] }}]\n"),
            &[(
                WarningKind::WritesEverywhere,
                &format!(
                    "p.yaml:7:38: warning: grants[0].tenants[1]: `{first}` is granted on every tenant, those to come \
                     included\n  help: name the tenants, or grant `*:read` alone"
                ),
            )],
        );
    }
}

#[test]
fn grants_that_grant_nothing() {
    warned("grants: [{ groups: [a], tenants: [t, u], except_tenants: [t] }]\n", &[]);
    warned(
        "authorizations: { a: [] }\ngrants: [{ groups: [b], tenants: [t, u-x], except_tenants: [t, 'u*'] }]\n",
        &[
            (
                WarningKind::UnreachableGrant,
                "p.yaml:7:19: warning: authorizations.a: it names no tenant: it grants nothing\n  \
                 help: name tenants, or remove it",
            ),
            (
                WarningKind::UnreachableGrant,
                "p.yaml:8:10: warning: grants[0]: every tenant that it names is excepted as well: it grants nothing\n  \
                 help: remove it, or the exception",
            ),
        ],
    );
}

#[test]
fn grants_that_another_one_makes_superfluous() {
    let pair = |first: &str, second: &str| format!("grants:\n  - {{ {first} }}\n  - {{ {second} }}\n");
    let base = "groups: [a], tenants: [t]";
    for (wide, narrow) in [
        (base, base),
        ("groups: [a, b], tenants: [t, u]", base),
        ("groups: [a], tenants: ['t*']", "groups: [a], tenants: [t, t1, 't-*']"),
        ("groups: ['*'], tenants: [t]", base),
        (
            "groups: ['*'], tenants: ['*']",
            "groups: [a, b], tenants: [t, 'u*'], expires: 2030-01-01T00:00:00Z",
        ),
        (
            "groups: [a], tenants: ['t*'], except_tenants: [tx]",
            "groups: [a], tenants: ['t*'], except_tenants: ['tx*']",
        ),
        ("groups: [a], tenants: ['t*'], except_tenants: [tx]", "groups: [a], tenants: [ta]"),
        ("groups: [a], tenants: [t], scopes: ['*:*']", "groups: [a], tenants: [t], scopes: ['logs:write']"),
    ] {
        let told = |line: u32, number: usize, other: usize, other_line: u32| {
            format!(
                "p.yaml:{line}:5: warning: grants[{number}]: `grants[{other}]` in p.yaml:{other_line} grants all of it \
                 already\n  help: remove one of them"
            )
        };
        warned(&pair(wide, narrow), &[(WarningKind::DuplicateGrant, &told(9, 1, 0, 8))]);
        if wide != narrow {
            warned(&pair(narrow, wide), &[(WarningKind::DuplicateGrant, &told(8, 0, 1, 9))]);
        }
    }
    for (first, second) in [
        (base, "groups: [b], tenants: [t]"),
        (base, "groups: [a], tenants: [u]"),
        (base, "groups: [a], tenants: [t], scopes: ['logs:write']"),
        (
            "groups: [a], tenants: [t], expires: 2030-01-01T00:00:00Z",
            "groups: [a], tenants: [t, u]  , expires: 2029-01-01T00:00:00Z",
        ),
        ("groups: [a], tenants: ['t*'], except_tenants: [tx]", "groups: [a], tenants: [tx]"),
        (
            "groups: [a], tenants: ['t*'], except_tenants: [tx]",
            "groups: [a], tenants: ['t*x'], except_tenants: [ty]",
        ),
        ("groups: [a, b], tenants: [t]", "groups: [a], tenants: [t, u]"),
    ] {
        warned(&pair(first, second), &[]);
        warned(&pair(second, first), &[]);
    }
}

#[test]
fn tenants_that_nobody_is_granted() {
    warned(
        "client_ip: { source: remote_addr }\nauthorizations: { a: [t] }\n\
         restrictions: [{ tenants: [t, u, 'v*'], networks: [10.0.0.1] }]\n",
        &[(
            WarningKind::UngrantedTenant,
            "p.yaml:9:31: warning: restrictions[0].tenants[1]: the tenant `u` is granted to nobody\n  \
                 help: check how it is written",
        )],
    );
    warned(
        "authorizations: { a: [t, 'v*'] }\n\
         grants: [{ groups: [b], tenants: [t, u, vx, '*v', 'w*'], expires: 2020-01-01T00:00:00Z }]\n",
        &[
            (
                WarningKind::UngrantedTenant,
                "p.yaml:8:38: warning: grants[0].tenants[1]: the tenant `u` is granted to nobody\n  \
                 help: check how it is written",
            ),
            (
                WarningKind::ExpiredGrant,
                "p.yaml:8:67: warning: grants[0]: the grant has expired\n  help: remove it",
            ),
        ],
    );
}

#[test]
fn names_among_guids() {
    let guid = |number: u8| format!("0f3c9a1e-0000-4000-8000-00000000000{number}");
    let policy = |groups: &str| {
        format!(
            "group_names: {{ sre: ['{}', sre-team], dev: '{}' }}\nauthorizations: {{ {groups}, sre: [t], '*': [u], 'entra:*': [v] }}\n",
            guid(1),
            guid(2)
        )
    };
    let told = |place: &str, path: &str, group: &str| {
        format!(
            "p.yaml:{place}: warning: {path}: the issuer gives groups as GUIDs, and `{group}` is none\n  \
             help: look up the group's object id, and name it in `group_names`"
        )
    };
    // Two GUIDs and two names show nothing; three of four do.
    warned(&policy("a: [t]"), &[]);
    let third = format!("'{}': [x]", guid(3));
    warned(&policy(&third), &[(WarningKind::GroupNotGuid, &told("7:62", "group_names.sre", "sre-team"))]);
    warned(&policy(&format!("{third}, a: [y], b: [z]")), &[]);
    warned(
        &policy(&format!("{third}, '{}': [w], a: [y]", guid(4))),
        &[
            (WarningKind::GroupNotGuid, &told("7:62", "group_names.sre", "sre-team")),
            (WarningKind::GroupNotGuid, &told("8:109", "authorizations.a", "a")),
        ],
    );
}
