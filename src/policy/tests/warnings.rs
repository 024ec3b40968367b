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
    warned("grants:\n  - { groups: [a], tenants: [t], expires: 2027-01-15T08:00:01Z }\n", &[]);
    warned(
        "grants:\n  - { groups: [a], tenants: [t], expires: 2027-01-15T08:00:00Z }\n",
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
