//! What is done with requests around the decision: caches, headers, paths, client addresses.

use super::Findings;
use crate::doctor::Kind;
use crate::doctor::files::Policy;
use crate::doctor::lua::Value;
use crate::doctor::nginx::Directive;
use crate::doctor::tree::{Guard, Id, Level, Tree, option, text};
use crate::network::{Network, NetworkSet};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A token of 200 groups is over 10 kB; the module takes tokens of up to 32 KiB.
const ENOUGH: u64 = 32 << 10;
/// What nginx takes without a directive.
const DEFAULT_BUFFER: u64 = 8 << 10;

pub(super) fn check(tree: &Tree<'_>, policy: Option<&Policy>, found: &mut Findings) {
    let mut zones: BTreeMap<&str, Id> = BTreeMap::new();
    for id in tree.ids(Level::Location) {
        let guard = tree.guard(id);
        if !matches!(guard, Guard::Enforce | Guard::Again) || tree.own(id, "proxy_pass").next().is_none() {
            continue;
        }
        cache(tree, id, &mut zones, found);
        set_headers(tree, id, found);
        path(tree, id, found);
    }
    for server in tree.ids(Level::Server) {
        let guards: Vec<Guard> = (0..tree.blocks.len())
            .filter(|id| tree.server(*id) == Some(server))
            .map(|id| tree.guard(id))
            .collect();
        let enforces = guards.contains(&Guard::Enforce);
        let stamps = guards.contains(&Guard::Stamp);
        if enforces {
            // Tokens come to the gateway; to Grafana come cookies.
            buffers(tree, server, found);
        }
        if enforces || stamps {
            forms(tree, server, found);
            real_ip(tree, server, stamps, policy, found);
        }
    }
    early_variables(tree, found);
}

fn cache<'c>(tree: &Tree<'c>, id: Id, zones: &mut BTreeMap<&'c str, Id>, found: &mut Findings) {
    let Some((zone, directive)) = tree.value(id, "proxy_cache").filter(|(zone, _)| *zone != "off") else {
        return;
    };
    let help = "write `proxy_cache_key \"$request_method $tenantauth_tenants $request_uri\";`";
    match tree.value(id, "proxy_cache_key") {
        None => {
            let message = "`proxy_cache` without a key that holds the tenants answers one tenant with the \
             data of another";
            found.fault(Kind::CacheKey, &directive.place, message, help);
        }
        Some((key, own)) => {
            match key.split_once("$tenantauth_tenants").or(key.split_once("${tenantauth_tenants}")) {
                None => {
                    let message = format!(
                        "the cache's key holds no `$tenantauth_tenants`: one tenant is answered with the \
                         data of another: `{key}`"
                    );
                    found.fault(Kind::CacheKey, &own.place, message, help);
                }
                Some((before, _)) => {
                    let written = variables(before).into_iter().find(|name| is_clients(name));
                    if let Some(name) = written {
                        let message = format!(
                            "in the cache's key `${name}`, which a client writes, stands before the \
                             tenants: they could be its own invention"
                        );
                        found.fault(Kind::CacheKey, &own.place, message, help);
                    }
                }
            }
        }
    }
    for methods in tree.effective(id, "proxy_cache_methods") {
        if methods.arguments.iter().any(|method| method == "POST") {
            let message = "the answers to POST are cached, and no key holds the query, which is in the body";
            found.fault(Kind::CacheMethods, &methods.place, message, "write `proxy_cache_methods GET HEAD;`");
        }
    }
    let Some(server) = tree.server(id) else { return };
    if *zones.entry(zone).or_insert(server) != server {
        let message =
            format!("another server has the cache `{zone}` too: the same path of two backends is one entry");
        found.hint(Kind::CacheZone, &directive.place, message, "give each server a `keys_zone` of its own");
    }
}

/// The names of the variables in a text.
fn variables(text: &str) -> Vec<&str> {
    let parts = text.split('$').skip(1);
    parts
        .map(|part| {
            let part = part.strip_prefix('{').unwrap_or(part);
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            part.get(..end).unwrap_or_default()
        })
        .collect()
}

/// Whether a client writes the value, up to its end.
fn is_clients(variable: &str) -> bool {
    const CLIENTS: [&str; 9] = [
        "request_uri",
        "uri",
        "document_uri",
        "args",
        "query_string",
        "is_args",
        "request",
        "request_body",
        "remote_user",
    ];
    CLIENTS.contains(&variable)
        || ["arg_", "http_", "cookie_"].iter().any(|start| variable.starts_with(start))
}

fn set_headers(tree: &Tree<'_>, id: Id, found: &mut Findings) {
    for header in tree.effective(id, "proxy_set_header") {
        let (name, value) = (header.argument(0), header.argument(1));
        let is_judged =
            matches!(value, "$http_x_scope_orgid" | "$tenantauth_tenants" | "${tenantauth_tenants}");
        if name.eq_ignore_ascii_case("X-Scope-OrgID") && !is_judged {
            let message = format!(
                "`X-Scope-OrgID` is overwritten: the backend reads `{value}`, and not the tenants that \
                 were decided"
            );
            found.fault(
                Kind::TenantsOverwritten,
                &header.place,
                message,
                "remove the line: `enforce` sets the header",
            );
        }
        if name.eq_ignore_ascii_case("Connection")
            && tree.filled(id, value) == "$http_connection"
            && value != "$http_connection"
        {
            let message = format!(
                "`{value}` keeps what a client named in `Connection`: a proxy behind removes those headers"
            );
            let help =
                "write `proxy_set_header Connection $connection_upgrade;`, with the map of the examples";
            found.fault(Kind::HeaderCopy, &header.place, message, help);
        }
    }
}

/// Whether the backend reads the path that was decided.
fn path(tree: &Tree<'_>, id: Id, found: &mut Findings) {
    let prefix = ["rewrite", "access"].iter().find_map(|phase| {
        let (_, handler) = tree.handler(id, phase)?;
        let call = handler.calls("enforce").next()?;
        match option(call, "path_prefix") {
            Some(Value::Text(prefix)) => Some(prefix.trim_end_matches('/')),
            Some(_) => None,
            None => Some(""),
        }
    });
    let (Some(prefix), Some(pass)) = (prefix, tree.own(id, "proxy_pass").last()) else { return };
    let Some(location) = tree.block(id).and_then(|block| block.directive) else { return };
    let modifier = location.argument(0);
    // Of a regular expression or an exact path the rest is not known, or is meant so; of variables too.
    if !matches!((modifier, location.argument(1)), ("^~", _) | (_, ""))
        || tree.own(id, "rewrite").next().is_some()
    {
        return;
    }
    let at = location.arguments.last().map_or("", String::as_str);
    let url = pass.argument(0);
    let Some((_, rest)) = url.split_once("://").filter(|_| !url.contains('$') && at.starts_with('/')) else {
        return;
    };
    // After the socket of a server that is named by its file, the path begins behind a colon.
    if rest.starts_with("unix:") {
        return;
    }
    let Some(uri) = rest.find('/').and_then(|slash| rest.get(slash..)) else {
        if !prefix.is_empty() {
            let message = format!(
                "the backend receives the path with the prefix `{prefix}`, which `enforce` removes before \
                 it decides"
            );
            let help = format!("write `location {prefix}/` with `proxy_pass {url}/;`, which removes it");
            found.hint(Kind::PathPrefix, &pass.place, message, help);
        }
        return;
    };
    let decided = at.strip_prefix(prefix).unwrap_or(at);
    if decided != uri {
        let message = format!(
            "the backend receives `{uri}` in place of `{at}`: another path than the one that is decided"
        );
        let help = "write no path behind the name, or name the removed part in `path_prefix`";
        found.fault(Kind::PathChanged, &pass.place, message, help);
    }
}

/// A size as nginx writes it, in bytes.
fn size(text: &str) -> Option<u64> {
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1 << 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |number| (number, 1 << 20)),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn buffers(tree: &Tree<'_>, server: Id, found: &mut Findings) {
    let help = "write `large_client_header_buffers 8 32k;` into http {}";
    let Some(own) = tree.effective(server, "large_client_header_buffers").last().copied() else {
        let Some(directive) = tree.block(server).and_then(|block| block.directive) else { return };
        let message = "header lines above 8 kB are answered 400: a token with 200 groups is over 10 kB";
        return found.hint(Kind::HeaderBuffers, &directive.place, message, help);
    };
    let Some(bytes) = size(own.argument(1)).filter(|bytes| *bytes < ENOUGH) else { return };
    let message = format!(
        "header lines above {} are answered 400: a token with 200 groups is over 10 kB",
        own.argument(1)
    );
    if bytes < DEFAULT_BUFFER {
        found.fault(Kind::HeaderBuffers, &own.place, message, help);
    } else {
        found.hint(Kind::HeaderBuffers, &own.place, message, help);
    }
}

/// Forms of headers that read as `X-Scope-OrgID` or are no headers.
fn forms(tree: &Tree<'_>, server: Id, found: &mut Findings) {
    for (name, wrong, help) in [
        ("underscores_in_headers", "on", "remove the line: it is off by default"),
        ("ignore_invalid_headers", "off", "remove the line: it is on by default"),
    ] {
        let Some((value, directive)) = tree.value(server, name) else { continue };
        if value == wrong {
            let message = format!(
                "with `{name} {wrong}` a client's `X_Scope_OrgID` is `$http_x_scope_orgid` too: such \
                 requests are denied as `tenant_duplicate`"
            );
            found.fault(Kind::HeaderForms, &directive.place, message, help);
        }
    }
}

fn real_ip(tree: &Tree<'_>, server: Id, stamps: bool, policy: Option<&Policy>, found: &mut Findings) {
    let blocks = (0..tree.blocks.len()).filter(|id| *id == server || tree.server(*id) == Some(server));
    let mut trusted: Vec<&Directive> = blocks.flat_map(|id| tree.effective(id, "set_real_ip_from")).collect();
    trusted.sort_by_key(|directive| std::ptr::from_ref(*directive));
    trusted.dedup_by_key(|directive| std::ptr::from_ref(*directive));
    let reads_address =
        stamps || tree.calls("enforce").any(|(_, call)| text(call, "client_ip") == Some("remote_addr"));
    for directive in &trusted {
        let is_everybody = Network::parse(directive.argument(0)).is_ok_and(|network| network.is_everything());
        if !is_everybody {
            if reads_address {
                balancer(directive, policy, found);
            }
            continue;
        }
        let message =
            format!("`{}` trusts everybody: each client chooses its own address", directive.argument(0));
        let help = "name exactly your load balancers";
        if reads_address {
            found.fault(Kind::RealIp, &directive.place, message, help);
        } else {
            found.hint(Kind::RealIp, &directive.place, message, help);
        }
    }
    let Some(directive) = tree.block(server).and_then(|block| block.directive) else { return };
    if stamps && trusted.is_empty() {
        let message = "no `set_real_ip_from`: behind a load balancer everybody has its address";
        let help =
            "write `set_real_ip_from` with your load balancers, `real_ip_header` and `real_ip_recursive on;`";
        found.hint(Kind::RealIp, &directive.place, message, help);
    } else if stamps
        && tree.value(server, "real_ip_header").is_none()
        && trusted.iter().any(|own| own.argument(0) != "unix:")
    {
        let message = "no `real_ip_header`: nginx reads `X-Real-IP`, and no X-Forwarded-For";
        let help = "write `real_ip_header X-Forwarded-For;` and `real_ip_recursive on;`, as your load \
         balancers send it";
        found.hint(Kind::RealIp, &directive.place, message, help);
    }
}

/// A balancer in a network that a restriction permits: where it sends no readable address, its own is let in.
fn balancer(trusted: &Directive, policy: Option<&Policy>, found: &mut Findings) {
    let text = trusted.argument(0);
    let first = text.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
    let (Some(policy), Some(first), Ok(network)) = (policy, first, Network::parse(text)) else { return };
    let overlaps =
        |set: &NetworkSet| set.contains(first) || set.ranges().any(|(address, _)| network.contains(address));
    // Who permits everybody permits balancers too.
    let permits = policy.permitted.iter().find(|(_, set)| !set.is_everything() && overlaps(set));
    if let Some((name, _)) = permits {
        let message = format!(
            "`{text}` overlaps a network that the restriction `{name}` permits: where a balancer sends no \
             readable \
             address, its own is let in"
        );
        let help = "give load balancers a network of their own, which no restriction permits";
        found.hint(Kind::RealIp, &trusted.place, message, help);
    }
}

/// The tenants' header where nginx reads it before the decision, as a client wrote it.
fn early_variables(tree: &Tree<'_>, found: &mut Findings) {
    if tree.calls("enforce").next().is_none() {
        return;
    }
    for id in 0..tree.blocks.len() {
        for name in ["if", "set", "limit_req_zone", "limit_conn_zone"] {
            for directive in tree.own(id, name) {
                let is_written = directive.arguments.iter().any(|word| word.contains("$http_x_scope_orgid"));
                if is_written {
                    let message = format!(
                        "`{name}` reads `$http_x_scope_orgid` before `enforce`: what the client wrote"
                    );
                    found.hint(Kind::TenantsUnproven, &directive.place, message, "use `$tenantauth_tenants`");
                }
            }
        }
    }
}
