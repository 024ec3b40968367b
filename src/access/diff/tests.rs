//! Differences that people know, and random pairs of policies against every request that their vocabulary can make.

use super::*;
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, decide};
use crate::policy::tests::{HEAD, Shelf, compiled};
use crate::policy::{Files, OwnerText, compile};
use crate::reason::Reason;
use crate::scope::BackendSet;
use crate::tenant::TenantList;
use crate::token::fixtures::NOW;
use proptest::prelude::*;

const REST: &str =
    "client_ip: { source: remote_addr }\nnetworks: { office: [10.0.0.0/8], vpn: [192.0.2.0/24] }\n";

fn policy(tail: &str) -> Compiled {
    compiled(&format!("{HEAD}{REST}{tail}"))
}

/// What a line leaves out, in words.
fn excepted(line: &Line) -> Vec<String> {
    line.except.iter().map(|names| names.join(" & ")).collect()
}

/// Each line in short: change, who, tenants, exceptions, scopes.
fn told(old: &str, new: &str) -> Vec<String> {
    let found = diff(&policy(old), &policy(new), NOW).unwrap();
    assert_eq!(found.settings, []);
    let line = |line: &Line| {
        let who = match &line.who {
            Who::Everyone => "everyone".to_owned(),
            Who::AnyGroup => "any group".to_owned(),
            Who::Account(name) => format!("service:{name}"),
            Who::Holders(all) => all.iter().map(|any| any.join("|")).collect::<Vec<_>>().join("+"),
        };
        let except = if line.except.is_empty() {
            String::new()
        } else {
            format!(" except {}", excepted(line).join(" "))
        };
        let scopes = line.scopes().join(" ");
        format!("{} {who}: {}{except}: {scopes}", line.change.name(), line.tenants.join(" & "))
    };
    found.lines.iter().map(line).collect()
}

const READS: &str = "metrics:read logs:read traces:read profiles:read rules:read alerts:read";

#[test]
fn what_means_the_same_is_no_difference() {
    for (old, new) in [
        (
            "authorizations: { a: [t, u] }\n",
            "grants: [{ groups: [a], tenants: [u] }, { groups: [a], tenants: [t] }]\n",
        ),
        ("authorizations: { a: [t] }\n", "group_names: { team: [a] }\nauthorizations: { team: [t] }\n"),
        ("authorizations: { a: ['*'] }\n", "authorizations: { a: ['*', t, 'u-*'] }\n"),
        ("authorizations: { '*': [t] }\n", "authorizations: { '*': [t], a: [t], 'entra:*': [t] }\n"),
        (
            "grants: [{ groups: [a], tenants: [t] }]\n",
            "grants: [{ name: x, groups: [a], tenants: [t], scopes: ['*:read'] }, { groups: [a], tenants: [t], expires: 2030-01-01T00:00:00Z }]\n",
        ),
        (
            "authorizations: { a: [t] }\n",
            "authorizations: { a: [t] }\ngrants: [{ groups: [b], tenants: [t], expires: 2020-01-01T00:00:00Z }]\n",
        ),
        (
            "grants: [{ groups: [a], tenants: ['t*'], except_tenants: [tx] }]\n",
            "grants: [{ groups: [a], tenants: ['t*'], except_tenants: [tx, 'u*'] }]\n",
        ),
        (
            "authorizations: { a: [t] }\nrestrictions: [{ networks: [office], groups: ['*'] }]\n",
            "authorizations: { a: [t] }\nrestrictions: [{ networks: [10.0.0.0/9, 10.128.0.0/9], groups: ['*'] }, { networks: [office, vpn], groups: [a] }]\n",
        ),
        // A restriction where nothing is granted binds nobody.
        (
            "authorizations: { a: [t] }\n",
            "authorizations: { a: [t] }\nrestrictions: [{ tenants: [u], networks: [office] }]\n",
        ),
    ] {
        assert_eq!(told(old, new), [""; 0], "{new}");
        assert_eq!(told(new, old), [""; 0], "{old}");
    }
}

#[test]
fn what_is_gained_is_lost_the_other_way() {
    for (old, new, expected) in [
        ("authorizations: { a: [t] }\n", "authorizations: { a: [t, u] }\n", vec![format!("a: u: {READS}")]),
        (
            "authorizations: { a: [t] }\n",
            "authorizations: { a: [t], '*': [t] }\n",
            vec![format!("everyone: t: {READS}")],
        ),
        (
            "authorizations: { a: [t] }\n",
            "authorizations: { a: [t], 'entra:*': [t] }\n",
            vec![format!("any group: t: {READS}")],
        ),
        (
            "authorizations: { a: [team-a, team-b] }\n",
            "authorizations: { a: ['team-*'] }\n",
            vec![format!("a: team-* except team-a team-b: {READS}")],
        ),
        (
            "grants: [{ groups: [a], tenants: ['t*'], except_tenants: [tx] }]\n",
            "grants: [{ groups: [a], tenants: ['t*'] }]\n",
            vec![format!("a: tx: {READS}")],
        ),
        (
            "grants: [{ groups: [a], tenants: [t], scopes: ['logs:read', 'rules:read'] }]\n",
            "grants: [{ groups: [a], tenants: [t], scopes: ['logs:*', 'rules:*', 'logs:delete'] }]\n",
            vec!["a: t: logs:write logs:delete rules:write".to_owned()],
        ),
        (
            "group_names: { sre: [x] }\nauthorizations: { sre: [t] }\n",
            "group_names: { sre: [x, y] }\nauthorizations: { sre: [t] }\n",
            vec![format!("y: t: {READS}")],
        ),
        (
            "authorizations: { a: ['team-*'] }\n",
            "authorizations: { a: ['team-*', '*-prod'] }\n",
            vec![format!("a: *-prod except *-prod & team-*: {READS}")],
        ),
    ] {
        let gained: Vec<_> = expected.iter().map(|line| format!("gained {line}")).collect();
        assert_eq!(told(old, new), gained, "{new}");
        let lost: Vec<_> = expected.iter().map(|line| format!("lost {line}")).collect();
        assert_eq!(told(new, old), lost, "{old}");
    }
}

#[test]
fn ends_and_places_change() {
    let grant =
        |more: &str| format!("grants: [{{ groups: [a], tenants: [t], scopes: ['logs:read'] {more} }}]\n");
    assert_eq!(told(&grant(""), &grant(", expires: 2030-01-01T00:00:00Z")), ["until a: t: logs:read"]);
    let both = "group_names: { sre: [s] }\nauthorizations: { sre: ['*'] }\ngrants: [{ groups: [a], tenants: [t], scopes: ['*:read', 'rules:*'] }]\n";
    let with = |restriction: &str| format!("{both}restrictions: [{{ {restriction} }}]\n");
    assert_eq!(
        told(both, &with("networks: [office], scopes: ['logs:*'], except_groups: [sre]")),
        [
            "places everyone: * except t: logs:read rules:read (loki)",
            "places everyone: t: logs:read rules:read (loki) rules:write (loki)",
        ]
    );
    let old = with("networks: [office], scopes: ['logs:read']");
    assert_eq!(
        told(&old, &with("networks: [office, vpn], scopes: ['logs:read']")),
        ["places everyone: *: logs:read"]
    );
    assert_eq!(
        told(&old, &with("networks: [office], scopes: ['logs:read'], except_groups: [sre]")),
        ["places s: *: logs:read"]
    );
    assert_eq!(
        told(&old, &with("networks: [office], scopes: ['logs:read'], mode: shadow")),
        ["places everyone: *: logs:read"]
    );
    // Two exceptions: whoever has both is free for the first time.
    let two = |except: [&str; 2]| {
        let bind = |except: &str| {
            format!(
                "{{ networks: [office], tenants: [t], groups: [a], except_groups: [{except}], scopes: ['logs:read'] }}"
            )
        };
        format!(
            "authorizations: {{ a: [t], x: [v], y: [w] }}\nrestrictions: [{}, {}]\n",
            bind(except[0]),
            bind(except[1])
        )
    };
    assert_eq!(told(&two(["x", "y"]), &two(["x", "x"])), ["places a+x: t: logs:read"]);
}

#[test]
fn sections_that_differ_are_named() {
    let base = policy("");
    let other = |text: &str| -> Vec<&str> {
        diff(&base, &compiled(text), NOW).unwrap().settings.iter().map(|setting| setting.section).collect()
    };
    assert_eq!(other(&format!("{HEAD}{REST}audit: {{ query: none }}\n")), ["audit"]);
    assert_eq!(other(&format!("{HEAD}client_ip: {{ keys_file: ip.keys }}\n")), ["client_ip"]);
    assert_eq!(other(&format!("{HEAD}{REST}token_headers: [X-Token]\n")), ["token_headers"]);
    assert_eq!(other(&format!("{}{REST}", HEAD.replace("grafana", "other"))), ["issuers"]);
    assert!(diff(&base, &policy("# a comment\n"), NOW).unwrap().is_empty());
}

const GROUPS: [&str; 5] = ["a", "b", "alias", "entra:*", "*"];
pub(crate) const RAW: [&str; 4] = ["a", "b", "raw", "x"];
const PATTERNS: [&str; 7] = ["t", "u", "t*", "*v", "t*v", "*", "tv"];
pub(crate) const TENANTS: [&str; 6] = ["t", "u", "tv", "txv", "v", "x"];
const SCOPES: [&str; 6] = ["logs:read", "logs:*", "metrics:*", "rules:read", "*:read", "*:*"];
const NETWORKS: [&str; 3] = ["office", "vpn", "10.1.0.0/16"];
pub(crate) const ADDRESSES: [Option<&str>; 4] = [Some("10.1.2.3"), Some("10.2.2.3"), Some("192.0.2.1"), None];

fn some(from: &'static [&'static str], counts: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(from), counts).prop_map(move |mut list| {
        if list.contains(&"*") && from == GROUPS {
            list = vec!["*"];
        }
        format!("{list:?}")
    })
}

prop_compose! {
    fn grant()(
        groups in some(&GROUPS, 1..3), tenants in some(&PATTERNS, 1..3), except in some(&PATTERNS[..5], 0..2),
        scopes in some(&SCOPES, 1..3), expires in prop::sample::select(&["", ", expires: 2020-01-01T00:00:00Z", ", expires: 2030-01-01T00:00:00Z"][..]),
    ) -> String {
        let except = if except == "[]" { String::new() } else { format!(", except_tenants: {except}") };
        format!("- {{ groups: {groups}, tenants: {tenants}, scopes: {scopes}{except}{expires} }}\n")
    }
}

prop_compose! {
    fn restriction()(
        groups in some(&GROUPS, 1..3), tenants in some(&PATTERNS, 1..3), scopes in some(&SCOPES, 1..3),
        free in some(&["a", "b", "alias"], 0..2), networks in some(&NETWORKS, 1..3), shadow in prop::bool::weighted(0.2),
    ) -> String {
        let free = if free == "[]" { String::new() } else { format!(", except_groups: {free}") };
        let mode = if shadow { ", mode: shadow" } else { "" };
        format!("- {{ groups: {groups}, tenants: {tenants}, scopes: {scopes}, networks: {networks}{free}{mode} }}\n")
    }
}

pub(crate) fn pair() -> impl Strategy<Value = (String, String)> {
    let rules = |rule: BoxedStrategy<String>| prop::collection::vec((rule, 0..4u8), 0..4);
    (rules(grant().boxed()), rules(restriction().boxed())).prop_map(|(grants, restrictions)| {
        // 0, 1: in both policies; 2: in the old one; 3: in the new one.
        let side = |of: &[(String, u8)], other: u8| -> String {
            of.iter().filter(|(_, where_)| *where_ != other).map(|(text, _)| &**text).collect()
        };
        let text = |other: u8| {
            format!(
                "group_names: {{ alias: [raw] }}\nauthorizations: {{ a: [known], b: [known] }}\n\
                 grants:\n- {{ groups: [a], tenants: [known] }}\n{}restrictions:\n- {{ tenants: [known], networks: [office] }}\n{}",
                side(&grants, other),
                side(&restrictions, other)
            )
        };
        (text(3), text(2))
    })
}

pub(crate) fn policy_or_none(tail: &str) -> Option<Compiled> {
    crate::policy::tests::outcome(&format!("{HEAD}{REST}{tail}")).compiled
}

/// A document of an owner that was good while the owner had more tenants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept(&'static str);

impl Files for Kept {
    fn read(&mut self, path: &std::path::Path) -> Result<Vec<u8>, crate::file::FileError> {
        Shelf.read(path)
    }

    fn owner(&mut self, _: &str) -> Option<OwnerText> {
        let document = self.0.as_bytes().to_vec();
        let last_good = Some(document.clone());
        Some(OwnerText {
            file: "owners.d/team.yaml".to_owned(),
            current: Ok(document),
            last_good,
            is_unsettled: false,
        })
    }
}

/// An owner with its document, and the tenants that it has left; perhaps none at all.
pub(crate) fn owner() -> impl Strategy<Value = (Kept, String)> {
    let documents = [
        "grants: [{ groups: [a], tenants: ['*'], scopes: ['*:*'] }]\n",
        "grants: [{ groups: ['*'], tenants: ['*v', u], except_tenants: ['t*v'] }]\nrestrictions: [{ tenants: ['*'], networks: [office] }]\n",
        "restrictions: [{ tenants: ['t*', u], groups: [b], networks: [vpn] }, { tenants: ['*v'], networks: [office], mode: shadow }]\n",
    ];
    (prop::sample::select(documents.to_vec()), prop::option::of(some(&PATTERNS, 1..3))).prop_map(
        |(document, bounds)| {
            let section = |bounds| format!("owners: {{ team: {{ tenants: {bounds}, scopes: ['*:*'] }} }}\n");
            (Kept(document), bounds.map_or_else(String::new, section))
        },
    )
}

pub(crate) fn policy_with(mut owner: Kept, tail: &str) -> Option<Compiled> {
    let outcome = compile("p.yaml", format!("{HEAD}{REST}{tail}").as_bytes(), &mut owner, NOW);
    assert!(outcome.owners.iter().all(|owner| owner.revision.is_some()), "{:#?}", outcome.owners);
    outcome.compiled
}

/// A rule that is the same in both policies changes with its owner's tenants.
#[test]
fn an_owner_loses_what_the_platform_takes_from_it() {
    let kept = Kept(
        "grants: [{ groups: [a], tenants: [t, 'u*'] }]\nrestrictions: [{ tenants: ['u*'], networks: [office] }]\n",
    );
    let under = |tenants: &str| {
        let tail =
            format!("authorizations: {{ a: [known, uw] }}\nowners: {{ team: {{ tenants: {tenants} }} }}\n");
        policy_with(kept, &tail).unwrap()
    };
    let (wide, narrow) = (under("[t, 'u*']"), under("[uv]"));
    let lines = |old, new| -> Vec<String> {
        let found = diff(old, new, NOW).unwrap().lines;
        found
            .iter()
            .map(|line| format!("{} {} {:?}", line.change.name(), line.tenants.join(" & "), excepted(line)))
            .collect()
    };
    assert_eq!(lines(&wide, &narrow), ["lost t []", "lost u* [\"uv\", \"uw\"]", "places uw []"]);
    assert_eq!(lines(&narrow, &narrow), [""; 0]);
}

/// Allowed or not, and whether a restriction in shadow mode would deny.
fn decided(policy: &Compiled, raw: &[&str], tenant: &str, unit: Unit, ip: Option<&str>) -> (bool, bool) {
    let held = policy.snapshot.groups.held_by_user(0, raw.iter().copied());
    let tenants = TenantList::parse(tenant.as_bytes()).unwrap();
    let decision = decide(
        &policy.snapshot,
        &AccessRequest {
            caller: Caller::User { bound_by: held.binding() },
            groups: &held.groups,
            tenants: &tenants,
            scope: unit.scope,
            backends: unit.backends,
            client_ip: ip.map_or(Err(Reason::IpMissing), |ip| ClientIp::parse(ip.as_bytes())),
            now: NOW,
        },
    );
    (decision.is_allow(), decision.shadow.is_some())
}

fn speaks_of(line: &Line, raw: &[&str], tenant: &str, unit: Unit) -> bool {
    let is_meant = match &line.who {
        Who::Everyone => true,
        Who::AnyGroup => !raw.is_empty(),
        Who::Holders(all) => all.iter().all(|any| any.iter().any(|group| raw.contains(&&**group))),
        Who::Account(_) => false,
    };
    let matches =
        |names: &Vec<String>| names.iter().all(|name| TenantPattern::parse(name).unwrap().matches(tenant));
    is_meant
        && matches(&line.tenants)
        && !line.except.iter().any(matches)
        && line.units.iter().any(|own| own.scope == unit.scope && own.backends.intersects(unit.backends))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 24 } else { 2000 }))]

    /// A request that is decided otherwise is spoken of, and what a line says of its own people is so.
    #[test]
    fn lines_are_what_requests_show(
        (old, new) in pair(),
        ((kept, bounds), (_, narrower)) in (owner(), owner()),
        // In both: that a group is revoked in one of them only is told of the section, and not of each tenant.
        revoked in prop::sample::select(&["", "revoked: { groups: [b] }\n", "revoked: { groups: [alias] }\n"][..]),
    ) {
        let with = |text: &str, owner: &str| policy_with(kept, &format!("{text}{revoked}{owner}"));
        let (Some(old), Some(new)) = (with(&old, &bounds), with(&new, &narrower)) else { return Ok(()) };
        let found = diff(&old, &new, NOW).unwrap();
        prop_assert!(diff(&old, &old, NOW).unwrap().is_empty());
        let mut shown = vec![false; found.lines.len()];
        let mut asked: Vec<Unit> = units().iter().copied().filter(|unit| {
            ["logs:read", "logs:delete", "metrics:write", "rules:read", "rules:write"].contains(&unit.scope.name())
        }).collect();
        // A server without `backend`.
        asked.push(Unit { scope: crate::scope::Scope::RulesRead, backends: BackendSet::ALL });
        for bits in 0..1u32 << RAW.len() {
            let raw: Vec<&str> = RAW.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, raw)| *raw).collect();
            for tenant in TENANTS {
                for unit in &asked {
                    for ip in ADDRESSES {
                        let sides = (decided(&old, &raw, tenant, *unit, ip), decided(&new, &raw, tenant, *unit, ip));
                        let mut spoken = false;
                        for (line, shown) in found.lines.iter().zip(&mut shown) {
                            if speaks_of(line, &raw, tenant, *unit) {
                                spoken = true;
                                *shown |= sides.0 != sides.1;
                            }
                        }
                        prop_assert!(sides.0 == sides.1 || spoken, "{raw:?} {tenant} {unit:?} {ip:?}: {sides:?} {:#?}", found.lines);
                    }
                }
            }
        }
        // No line is idle, as far as the vocabulary reaches: an end beyond now is not seen from here, nor are two
        // networks that have no address in common.
        for (line, shown) in found.lines.iter().zip(shown) {
            let reachable = line.units.iter().any(|unit| asked.contains(unit))
                && TENANTS.iter().any(|tenant| line.units.iter().any(|unit| {
                    let every: Vec<&str> = RAW.to_vec();
                    speaks_of(line, &every, tenant, *unit)
                }))
                && matches!(line.change, Change::Gained | Change::Lost)
                && [&line.old, &line.new].iter().all(|side| side.from.is_empty());
            prop_assert!(shown || !reachable, "idle: {line:#?}");
        }
    }
}
