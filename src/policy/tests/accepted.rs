//! Documents that must be accepted, and what they mean. An error that is none would lock out a whole company.

use super::*;
use crate::client_ip::{CookieKeys, Source};
use crate::policy::snapshot::{Audit, EVERYONE, QueryAudit};
use crate::scope::{Backend, BackendSet, Scope, ScopeSet};
use crate::tenant::TenantPattern;
use crate::token::algorithm::AlgorithmSet;
use crate::token::claims::{ClaimPath, GroupsFormat};

/// The promised example, less the keys that this version refuses.
const EXAMPLE: &str = r#"
version: 1
mode: enforce                             # or shadow: section 9

issuers:                                  # who may sign tokens
  - name: entra                           # unique; in audit, metrics, group names; default: the issuer's host
    issuer: https://login.microsoftonline.com/<tid>/v2.0        # compared exactly with `iss`
    audiences: [<Grafana's client id>]    # required; at least one must be in `aud`
    jwks_file: jwks.json
    algorithms: [RS256]                   # default; also RS384, RS512, PS256.., ES256, ES384, EdDSA; never HMAC
    groups_claim: groups                  # default: a claim's name; with a leading / a JSON Pointer; or a list of them
    groups_format: list                   # default; or space, comma, keys (an object's keys), string
    user_claim: preferred_username        # default; audit only
    leeway: 60s                           # default; at most 5m

token_headers: [X-Id-Token]               # default

group_names:                              # aliases; a raw group of that name then matches nothing
  sre: [0f3c9a1e-1, "keycloak:sre"]
  team-a: 7d0e

authorizations:                           # auth.lua's authorizations_table, unchanged: group -> tenants
  group1: [tenant1]
  group3: [tenant1, tenant2]

grants:                                   # the long form
  - name: team-a-writers                  # optional; appears in explain and audit
    groups: [team-a]                      # "*" alone: every verified user, never a service account
    tenants: [team-a, "team-a-*"]         # `*` matches any run of characters, also none
    except_tenants: [team-a-hr]           # optional
    scopes: ["logs:read", "logs:write", "metrics:*", "rules:read"]      # default: every *:read
    expires: 2027-01-31T00:00:00Z         # optional

networks: { office: [203.0.113.0/24, "2001:db8::/32"], vpn: [198.51.100.7] }

client_ip:                                # required once a restriction applies to people
  source: cookie                          # cookie (default) | remote_addr | header:<Name>
  cookie: Client_Ip
  keys_file: ip.keys                      # the cookie must be signed by one of these keys; or: unsigned: true

restrictions:                             # bind users; every one that applies must be satisfied
  - name: logs-from-office
    tenants: ["*"]                        # default ["*"];   except_tenants too
    scopes: ["logs:*"]                    # default every scope
    groups: ["*"]                         # default ["*"]; a principal holding any of them, granting or not
    except_groups: [sre]                  # optional: incident response is not slowed down
    networks: [office, vpn, 192.0.2.9]    # names, CIDRs or addresses
    mode: enforce                         # or shadow

audit: { query: full }                    # full (default) | hash | none
tests: [{ name: team-a from home, groups: [team-a], tenant: team-a, scope: logs:read, client_ip: 198.18.0.5, expect: ip_forbidden }]
"#;

fn patterns(texts: &[&str]) -> Vec<TenantPattern> {
    texts.iter().map(|text| TenantPattern::parse(text).unwrap()).collect()
}

#[test]
fn the_promised_example_means_what_it_says() {
    assert_eq!(problems(EXAMPLE), [""; 0]);
    let Compiled { snapshot, keys, endpoints, key_reports, client_ip, key_files } = compiled(EXAMPLE);
    assert_eq!(endpoints, [None]);
    assert_eq!(key_files, [Some("jwks.json".into())]);
    assert!(!key_reports[0].is_empty() && key_reports[0].iter().all(|report| report.refused.is_none()));
    assert_eq!(keys[0].as_ref().unwrap().len(), 1);
    let Some(Source::Cookie { name, keys: CookieKeys::Signed(ring) }) = client_ip else { panic!() };
    assert_eq!((&*name, ring.ids().collect::<Vec<_>>()), ("Client_Ip", vec!["k1"]));

    assert_eq!(snapshot.issuer_names, ["entra".into()]);
    let issuer = &snapshot.issuers[0];
    assert_eq!(&*issuer.issuer, "https://login.microsoftonline.com/<tid>/v2.0");
    assert_eq!(issuer.audiences, ["<Grafana's client id>".into()]);
    assert_eq!(issuer.leeway, 60);
    assert_eq!(snapshot.token_headers, ["X-Id-Token".into()]);
    assert_eq!(snapshot.audit, Audit { query: QueryAudit::Full, max_bytes: 16_384 });

    let names: Vec<&str> = snapshot.grants.iter().map(|grant| &*grant.name).collect();
    assert_eq!(names, ["authorizations.group1", "authorizations.group3", "team-a-writers"]);
    assert_eq!(snapshot.grants[1].tenants.to_vec(), patterns(&["tenant1", "tenant2"]));
    assert_eq!(snapshot.grants[1].scopes, ScopeSet::reads());
    let writers = &snapshot.grants[2];
    assert_eq!(writers.groups.to_vec(), [snapshot.groups.id("team-a").unwrap()]);
    assert_eq!(writers.tenants.to_vec(), patterns(&["team-a", "team-a-*"]));
    assert_eq!(writers.except_tenants.to_vec(), patterns(&["team-a-hr"]));
    let scopes: Vec<_> = writers.scopes.iter().map(Scope::name).collect();
    assert_eq!(scopes, ["metrics:read", "metrics:write", "logs:read", "logs:write", "rules:read"]);
    assert_eq!(writers.expires, Some(1_801_353_600));

    let bound = &snapshot.restrictions[0];
    assert_eq!((&*bound.name, bound.shadow), ("logs-from-office", false));
    assert_eq!(bound.tenants.to_vec(), patterns(&["*"]));
    assert_eq!(bound.groups.to_vec(), [EVERYONE]);
    assert_eq!(bound.except_groups.to_vec(), [snapshot.groups.id("sre").unwrap()]);
    for (address, inside) in [
        ("203.0.113.255", true),
        ("203.0.114.0", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("198.51.100.7", true),
        ("198.51.100.8", false),
        ("192.0.2.9", true),
    ] {
        assert_eq!(bound.networks.contains(address.parse().unwrap()), inside, "{address}");
    }
}

#[test]
fn defaults_are_the_promised_ones() {
    let short = "version: 1\nissuers: [{ issuer: 'https://login.example:8443/x', audiences: [g], jwks_file: jwks.json }]\n\
                 client_ip: { keys_file: ip.keys }\n\
                 grants: [{ groups: [a], tenants: [t] }]\n\
                 restrictions: [{ networks: [10.0.0.0/8] }]\n";
    let snapshot = snapshot(short);
    assert_eq!(snapshot.issuer_names, ["login.example".into()]);
    let issuer = &snapshot.issuers[0];
    assert_eq!(issuer.algorithms, [Algorithm::Rs256].into_iter().collect::<AlgorithmSet>());
    assert_eq!(*issuer.groups_claim, [ClaimPath::parse("groups").unwrap()]);
    assert_eq!(issuer.groups_format, GroupsFormat::List);
    assert_eq!(&*issuer.user_claim, "preferred_username");
    assert_eq!(issuer.leeway, 60);
    assert_eq!(snapshot.grants[0].scopes, ScopeSet::reads());
    assert_eq!((&*snapshot.grants[0].name, snapshot.grants[0].line), ("grants[0]", 4));
    let bound = &snapshot.restrictions[0];
    assert_eq!((&*bound.name, bound.groups.to_vec()), ("restrictions[0]", vec![EVERYONE]));
    assert_eq!(bound.tenants.to_vec(), patterns(&["*"]));
    for scope in Scope::ALL {
        assert!(bound.scopes.cover(scope, BackendSet::of(Backend::Tempo)), "{scope}");
    }
    assert!(matches!(snapshot.client_ip, Some(Source::Cookie { name, .. }) if &*name == "Client_Ip"));
}

#[test]
fn the_name_of_an_issuer_is_its_host_by_default() {
    for (issuer, host) in [
        ("https://login.microsoftonline.com/tid/v2.0", "login.microsoftonline.com"),
        ("https://sso.example", "sso.example"),
        ("https://sso.example:8443", "sso.example"),
        ("http://192.0.2.1:8080/realms/x", "192.0.2.1"),
    ] {
        let text = format!(
            "version: 1\nissuers: [{{ issuer: '{issuer}', audiences: [g], jwks_file: jwks.json }}]\n\
             authorizations: {{ '{host}:*': [t] }}\n"
        );
        assert_eq!(problems(&text), [""; 0], "{issuer}");
        assert_eq!(snapshot(&text).issuer_names, [host.into()]);
    }
}

#[test]
fn keys_may_be_written_out() {
    let jwk = with(jwk(Algorithm::Es256), "kid", json!("k"));
    let issuer = json!({"issuer": "https://a.example", "audiences": ["g"], "jwks": {"keys": [jwk]}, "algorithms": ["ES256", "EdDSA"]});
    let text = json!({"version": 1, "issuers": [issuer]}).to_string();
    assert_eq!(problems(&text), [""; 0]);
    assert_eq!(compiled(&text).keys[0].as_ref().unwrap().len(), 1);
    let yaml = format!("version: 1\nissuers:\n- {issuer}\n");
    assert_eq!(snapshot(&yaml).revision, snapshot(&text).revision);
}

#[test]
fn groups_may_be_in_several_claims() {
    let of = |lines: &str| {
        let text = format!("{HEAD}{lines}");
        assert_eq!(problems(&text), [""; 0], "{lines}");
        let rules = snapshot(&text).issuers.remove(0);
        (rules.groups_claim, rules.groups_format)
    };
    let paths =
        |paths: &[&str]| paths.iter().map(|path| ClaimPath::parse(path).unwrap()).collect::<Box<[_]>>();
    for (lines, claims, format) in [
        ("", &["groups"][..], GroupsFormat::List),
        ("    groups_claim: [groups]\n", &["groups"], GroupsFormat::List),
        (
            "    groups_claim: [roles, /realm_access/roles]\n    groups_format: comma\n",
            &["roles", "/realm_access/roles"],
            GroupsFormat::Comma,
        ),
        (
            "    groups_claim: \"urn:zitadel:iam:org:project:roles\"\n    groups_format: keys\n",
            &["urn:zitadel:iam:org:project:roles"],
            GroupsFormat::Keys,
        ),
    ] {
        assert_eq!(of(lines), (paths(claims), format), "{lines}");
    }
}

/// Behind [`HEAD`] each of these is a policy.
const TAILS: [&str; 28] = [
    "",
    "# only comments follow\n\n   # indented\n",
    "grants: []\nrestrictions: []\ntoken_headers: [Authorization, X-Id-Token]\n",
    "group_names: {}\nauthorizations: {}\nnetworks: {}\naudit: {}\n",
    "mode: enforce\naudit: { query: hash, max_bytes: 4000 }\n",
    "mode: \"enforce\"\naudit: {\"query\": 'none'}\n",
    "authorizations: { nobody: [] }\n",
    "authorizations: { \"*\": [public] }\n",
    "authorizations:\n  123: [\"456\"]\n  '789': [t]\n  0x1F: [t]\n",
    "authorizations:\n  \"Häßlich & Söhne / 'x' \\\"y\\\"\": [t]\n  CN=ops,OU=it,DC=example: [t]\n  a:b: [t]\n  -x: [t]\n  \"[x]\": [t]\n",
    "authorizations:\n  /a/b: [t]\n  a b: [t]\n  \"a\\tb\": [t]\n  \"\\U0001f600\": [t]\n  keycloak:sre: [t]\n",
    "grants: [{ groups: [\"null\", \"1\", 'true', yes, no, 1.2.3, 12:30:45, 0f3c], tenants: ['1', \"0x1\"] }]\n",
    "grants: [{ groups: ['<<', '&a', '!b', '?', 'x&'], tenants: ['*', 'a*', '*a', 'a*b*c*d*e', '!', \"''\", '()'] }]\n",
    "grants: [{ groups: [a, a], tenants: [t, t], except_tenants: [t], scopes: ['*:*', 'logs:delete', 'logs:*'] }]\n",
    "grants: [{ groups: [a], tenants: [t], expires: '2027-06-01T12:00:00+02:00' }]\n",
    "grants: [{ groups: [a], tenants: [t], expires: 2027-06-01T12:00:00.5Z }]\n",
    "grants: [\n  { groups: [a],\n    tenants: [t]\n  },\n]\n",
    "grants:\n- groups:\n  - >-\n    folded\n    name\n  tenants: [t]\n",
    "group_names: { sre: [a, b], ops: a, dev: [a] }\ngrants: [{ groups: [sre, a, ops, dev], tenants: [t] }]\n",
    "grants: [{ groups: [\"entra:*\"], tenants: [t] }]\nclient_ip: { source: remote_addr }\nrestrictions: [{ groups: ['entra:*'], networks: [10.0.0.1] }]\n",
    "client_ip: { source: remote_addr }\n",
    "client_ip: { source: header:X-Real-IP, trusted_peers: [lb, 10.0.0.1] }\nnetworks: { lb: [10.1.0.0/16] }\n",
    "tests: []\n",
    "revoked: { principals: [{ issuer: entra, id: s-1, until: 2037-01-31T00:00:00Z }, { issuer: entra, id: s-2 }], keys: [{ issuer: entra, kid: '1' }] }\n",
    "revoked: { keys: [], principals: [], groups: [], tokens_sha256: [] }\n",
    "authorizations: { a: [t] }\ntests: [{ groups: [], tenant: t, scope: logs:read, expect: deny }, { groups: [a], tenant: t, scope: logs:read, expect: allow }]\n",
    "client_ip: { unsigned: false, keys_file: ip.keys, cookie: __Host-ip }\n",
    "client_ip: { source: remote_addr }\ngroup_names: { sre: [raw] }\ngrants: [{ groups: [a], tenants: [t] }]\nrestrictions:\n  - { groups: [a], except_groups: [raw], networks: ['::1', 'FE80::/10', 127.0.0.1/32] }\n  - { groups: [sre], except_groups: [a], networks: [10.0.0.0/8], mode: enforce }\n",
];

/// Every policy that these tests accept.
pub(crate) fn documents() -> Vec<String> {
    let whole = [EXAMPLE.to_owned(), HEAD.to_owned()];
    whole.into_iter().chain(TAILS.iter().map(|tail| format!("{HEAD}{tail}"))).collect()
}

#[test]
fn nothing_good_is_an_error() {
    let many: Vec<String> = (0..5000).map(|number| format!("tenant-{number}")).collect();
    let long = [
        format!("authorizations:\n  everything: [{}]\n", many.join(", ")),
        format!("authorizations:\n  {}\n", many.join(": [t]\n  ") + ": [t]"),
    ];
    for tail in TAILS.iter().copied().chain(long.iter().map(|tail| &**tail)) {
        let text = format!("{HEAD}{tail}");
        let errors = |text: &str| -> Vec<_> {
            outcome(text).diagnostics.into_iter().filter(|problem| problem.is_error()).collect()
        };
        assert_eq!(errors(&text), [], "{tail}");
        // Written by another editor.
        let revision = snapshot(&text).revision;
        for same in [
            text.replace('\n', "\r\n"),
            format!("\u{feff}{text}"),
            format!("%YAML 1.2\n---\n{text}...\n"),
            format!("# a comment\n\n{text}# another\n"),
        ] {
            assert_eq!(errors(&same), [], "{same:?}");
            assert_eq!(snapshot(&same).revision, revision, "{same:?}");
        }
    }
}

#[test]
fn flow_documents_need_no_newline() {
    let json = r#"{"version":1,"issuers":[{"issuer":"https://issuer.example","audiences":["grafana"],"jwks_file":"jwks.json","name":"entra"}]}"#;
    let spaced = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(json).unwrap());
    let revision = snapshot(HEAD).revision;
    for text in [
        json.to_owned(),
        spaced.unwrap().replace("  ", "\t"),
        format!("# a comment\n{json}"),
        format!("---\n{json}"),
        format!("\n\n  {json}\n\n"),
        json.replace("https://", "https:\\/\\/").replace("grafana", "graf\\u0061na"),
    ] {
        assert_eq!(problems(&text), [""; 0], "{text}");
        assert_eq!(snapshot(&text).revision, revision, "{text}");
    }
}

#[test]
fn the_revision_follows_the_content_and_nothing_else() {
    let text = "version: 1\n\
        issuers: [{ issuer: https://a.example, audiences: [g, h], jwks_file: jwks.json }]\n\
        grants: [{ groups: [a], tenants: [t], scopes: [\"logs:read\"] }]\n\
        authorizations: { b: [t], c: [u] }\n";
    let revision = snapshot(text).revision;
    assert_eq!(revision.len(), 16);
    assert!(revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let same = "# reordered, reformatted\n\
        authorizations:\n    'c': [ u ]   # u\n    \"b\":\n      - t\n\
        grants:\n  - scopes:\n    - 'logs:read'\n    tenants: ['t']\n    groups: ['a']\n\
        issuers:\n- jwks_file: jwks.json\n  audiences: [g,\n    h]\n  issuer: 'https://a.example'\n\
        version: 1\n";
    assert_eq!(snapshot(same).revision, revision);
    for (from, to) in [
        ("[g, h]", "[g]"),
        ("logs:read", "logs:write"),
        ("{ b: [t]", "{ b: [t, u]"),
        ("{ b: [t]", "{ d: [t]"),
        ("grants: [{", "grants: [{ name: x,"),
        ("version: 1\n", "version: 1\nmode: enforce\n"),
        ("authorizations: { b: [t], c: [u] }\n", ""),
    ] {
        assert!(text.contains(from));
        assert_ne!(snapshot(&text.replacen(from, to, 1)).revision, revision, "{from} -> {to}");
    }
}

#[test]
fn raw_groups_and_aliases() {
    let text = format!(
        "{HEAD}group_names: {{ sre: [raw1, 'kc:sre'], ops: raw1 }}\n\
         grants: [{{ groups: [sre, ops, raw2, raw1, '*', ], tenants: [t] }}]\n"
    )
    .replace(", '*', ", "");
    let groups = snapshot(&text).groups;
    let names = |raw: &[&str]| -> Vec<String> {
        let mut names: Vec<_> =
            groups.of_user(0, raw.iter().copied()).iter().map(|id| groups.name(*id).to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["*"]);
    assert_eq!(names(&["raw1"]), ["*", "ops", "raw1", "sre"]);
    assert_eq!(names(&["kc:sre", "kc:sre"]), ["*", "sre"]);
    assert_eq!(names(&["raw2"]), ["*", "raw2"]);
    // Neither the name of an alias, nor what has a meaning of its own, is a group that a token could give.
    for raw in ["sre", "ops", "*", "entra:*", "Raw1", "raw1 ", ""] {
        assert_eq!(names(&[raw]), ["*"], "{raw}");
    }
    // For people, names are as rules write them.
    let of_names = |name: &str| groups.of_names(&[name]).unwrap().1.groups.to_vec();
    assert!(of_names("sre").contains(&groups.id("sre").unwrap()));
    assert!(of_names("raw1").contains(&groups.id("sre").unwrap()));
}

#[test]
fn denials_may_name_an_address() {
    let help = |text: &str| snapshot(&format!("{HEAD}{text}")).denial_help;
    for address in
        ["https://wiki.example.com/a", "HTTP://[2001:db8::1]:8080/?q=(a)&b='c'#d%20e", "http://intranet"]
    {
        assert_eq!(help(&format!("denials: {{ help: \"{address}\" }}\n")).as_deref(), Some(address));
    }
    assert_eq!(help("denials: {}\n"), None);
    assert_eq!(help(""), None);
}
