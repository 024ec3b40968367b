//! Whether every request that goes to a backend is decided, once.

use super::Findings;
use crate::doctor::Kind;
use crate::doctor::nginx::Directive;
use crate::doctor::tree::{Guard, Id, Level, Tree, address};
use std::collections::BTreeSet;

const PASSES: [&str; 2] = ["proxy_pass", "grpc_pass"];

pub(super) fn check(tree: &Tree<'_>, found: &mut Findings) {
    let proxies = proxies(tree);
    let guarded: BTreeSet<&String> = proxies
        .iter()
        .filter(|proxy| matches!(tree.guard(proxy.block), Guard::Enforce | Guard::Again))
        .flat_map(|proxy| &proxy.to)
        .collect();
    for proxy in &proxies {
        protection(tree, proxy, &guarded, found);
    }
    for server in tree.ids(Level::Server) {
        fallbacks(tree, server, found);
    }
    twice(tree, found);
    overruled(tree, found);
}

/// Something that goes to a backend.
struct Proxy<'c> {
    block: Id,
    pass: &'c Directive,
    to: BTreeSet<String>,
}

fn proxies<'c>(tree: &Tree<'c>) -> Vec<Proxy<'c>> {
    let blocks = tree.ids(Level::Location).chain(tree.ids(Level::Part));
    let passes = blocks
        .flat_map(|id| PASSES.into_iter().flat_map(move |name| tree.own(id, name).map(move |own| (id, own))));
    passes.map(|(block, pass)| Proxy { block, pass, to: tree.addresses(block, pass.argument(0)) }).collect()
}

/// Whether a location, or the one around it, goes to a backend.
fn is_proxying(tree: &Tree<'_>, block: Id) -> bool {
    PASSES.iter().any(|name| tree.own(block, name).next().is_some())
}

fn protection(tree: &Tree<'_>, proxy: &Proxy<'_>, guarded: &BTreeSet<&String>, found: &mut Findings) {
    if tree.guard(proxy.block) != Guard::None {
        return;
    }
    let to_guarded = proxy.to.iter().any(|address| guarded.contains(address));
    let is_asked = is_auth_request(tree, proxy.block);
    let own = tree.handler(proxy.block, "rewrite");
    // What the block would inherit if the code that stands there did not replace it.
    let replaces = own.and_then(|(at, _)| {
        let outer = tree.up(at).nth(1)?.0;
        let (_, inherited) = tree.handler(outer, "rewrite")?;
        matches!(inherited.guard(), Guard::Enforce | Guard::Stamp).then_some(inherited)
    });
    let target = proxy.pass.argument(0);
    if let (Some((_, handler)), Some(inherited)) = (own, replaces) {
        if is_asked && !to_guarded {
            return;
        }
        let place = &handler.directive.place;
        let line = inherited.directive.place.line;
        if inherited.guard() == Guard::Stamp {
            let message = format!(
                "this replaces the call of `stamp_client_ip` in line {line}: requests reach `{target}` \
                 without an address"
            );
            found.fault(Kind::Replaced, place, message, "call `stamp_client_ip` here too");
        } else if handler.code.is_empty {
            let message =
                format!("an empty block in a location that proxies: requests reach `{target}` undecided");
            let help = "write `rewrite_by_lua_block { require(\"tenantauth\").enforce { again = true } }`";
            found.fault(Kind::EmptyBlock, place, message, help);
        } else {
            let message = format!(
                "this replaces the call of `enforce` in line {line}: requests reach `{target}` undecided"
            );
            found.fault(Kind::Replaced, place, message, "call `enforce` here too, before all else");
        }
        return;
    }
    if to_guarded {
        let message = format!(
            "no `enforce` in reach: requests reach `{target}` undecided, which is protected elsewhere"
        );
        let help = "call `enforce` in the server's `rewrite_by_lua_block`";
        return found.fault(Kind::Unprotected, &proxy.pass.place, message, help);
    }
    // What leads to a server of this very nginx is decided there; an authentication server is no backend.
    let to_itself = !proxy.to.is_empty() && proxy.to.iter().all(|address| listens(tree, address));
    if guarded.is_empty() || to_itself || is_asked || proxy.to.is_empty() && !target.contains('$') {
        return;
    }
    let message = format!("no `enforce` in reach: requests reach `{target}` undecided");
    let help = "where that is Mimir, Loki, Tempo or Pyroscope, call `enforce` in the server's \
     `rewrite_by_lua_block`";
    found.hint(Kind::Unprotected, &proxy.pass.place, message, help);
}

/// Whether a server of this configuration listens there.
fn listens(tree: &Tree<'_>, wanted: &str) -> bool {
    let Some((_, wanted_port)) = wanted.rsplit_once(':') else { return false };
    let is_local = wanted.starts_with("127.") || wanted.starts_with("[::1]");
    tree.ids(Level::Server).flat_map(|id| tree.own(id, "listen")).any(|listen| {
        let text = listen.argument(0);
        let own = if text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("*:{text}")
        } else {
            address(text, "80")
        };
        let any = own.rsplit_once(':').is_some_and(|(_, port)| port == wanted_port);
        own == wanted
            || is_local
                && any
                && (own.starts_with("*:") || own.starts_with("0.0.0.0:") || own.starts_with("[::]:"))
    })
}

/// Whether an `auth_request` of the same server asks this location.
fn is_auth_request(tree: &Tree<'_>, block: Id) -> bool {
    let Some(location) = tree.block(block).and_then(|block| block.directive) else { return false };
    let name = location.arguments.last().map_or("", String::as_str);
    let server = tree.server(block);
    let blocks = tree.blocks.iter().enumerate().map(|(id, _)| id);
    blocks
        .filter(|id| {
            tree.server(*id) == server || tree.up(*id).all(|(_, around)| around.level != Level::Server)
        })
        .any(|id| tree.own(id, "auth_request").any(|asked| asked.argument(0) == name))
}

/// Internal redirects of requests that were decided.
fn fallbacks(tree: &Tree<'_>, server: Id, found: &mut Findings) {
    let inside: Vec<Id> = (0..tree.blocks.len()).filter(|id| tree.server(*id) == Some(server)).collect();
    let mut turns: Vec<(&Directive, &str)> = Vec::new();
    for id in &inside {
        // Without a decision before it, there is nothing that comes again.
        if !matches!(tree.guard(*id), Guard::Enforce | Guard::Again) {
            continue;
        }
        for error_page in tree.effective(*id, "error_page") {
            turns.push((error_page, error_page.arguments.last().map_or("", String::as_str)));
        }
        for files in tree.effective(*id, "try_files") {
            let last = files.arguments.last().map_or("", String::as_str);
            if !last.starts_with('=') {
                turns.push((files, last));
            }
        }
    }
    turns.sort_by_key(|(directive, _)| std::ptr::from_ref(*directive));
    turns.dedup_by_key(|(directive, _)| std::ptr::from_ref(*directive));
    let mut targets = BTreeSet::new();
    for (turn, to) in turns {
        let Some(target) = location_of(tree, server, to) else { continue };
        targets.insert(target);
        turn_to(tree, turn, to, target, found);
    }
    for id in inside {
        let Some(block) = tree.block(id).filter(|block| block.level == Level::Location) else { continue };
        let own = block
            .handlers
            .iter()
            .find(|handler| handler.phase == "rewrite" && handler.guard() == Guard::Again);
        let is_named = block.directive.is_some_and(|own| own.argument(0).starts_with('@'));
        let is_internal = is_named || tree.own(id, "internal").next().is_some();
        if let Some(own) = own.filter(|_| !is_internal && !targets.contains(&id)) {
            let message = "`again` denies every request that comes from outside, and nothing falls back \
             to this location";
            let help = "name it (`location @standby`) and lead an `error_page` there, or call `enforce` \
             without `again`";
            found.hint(Kind::AgainFromOutside, &own.directive.place, message, help);
        }
    }
}

fn turn_to(tree: &Tree<'_>, turn: &Directive, to: &str, target: Id, found: &mut Findings) {
    let guard = tree.guard(target);
    if guard == Guard::Again {
        if !to.starts_with('@') {
            let message =
                format!("`{to}` is no named location: what falls back there becomes a GET of another path");
            found.hint(
                Kind::FallbackByUri,
                &turn.place,
                message,
                "fall back to a named location: `location @standby`",
            );
        }
        return;
    }
    // Whether it decides once more is for its code to say; `return` answers before any Lua code runs.
    if guard != Guard::Enforce || tree.own(target, "return").next().is_some() {
        return;
    }
    let (message, help) = if is_proxying(tree, target) {
        let message =
            format!("`{to}` proxies and decides again what was decided before: it denies it, with 503");
        (
            message,
            "write `rewrite_by_lua_block { require(\"tenantauth\").enforce { again = true } }` in that \
             location",
        )
    } else {
        let message =
            format!("`{to}` inherits `enforce`, which denies what was decided before: its pages become 503");
        (message, "write `rewrite_by_lua_block { }` in that location, and `internal;`")
    };
    found.fault(Kind::FallbackDenied, &turn.place, message, help);
}

/// The location of a server that serves a path or has a name; none where that cannot be known.
fn location_of(tree: &Tree<'_>, server: Id, path: &str) -> Option<Id> {
    let path = path.strip_prefix('=').unwrap_or(path);
    if path.contains(['$', ':']) || !path.starts_with(['/', '@']) {
        return None;
    }
    let path = path.split('?').next().unwrap_or_default();
    let mut best: Option<(usize, bool, Id)> = None;
    let mut has_regex = false;
    for id in tree.ids(Level::Location).filter(|id| tree.server(*id) == Some(server)) {
        let Some(location) = tree.block(id).and_then(|block| block.directive) else { continue };
        let (modifier, name) = match (location.argument(0), location.argument(1)) {
            (name, "") => ("", name),
            (modifier, name) => (modifier, name),
        };
        match modifier {
            "=" if name == path => return Some(id),
            "~" | "~*" => has_regex = true,
            "=" => {}
            _ if name.starts_with('@') && name == path => return Some(id),
            _ if name.starts_with('@') => {}
            _ if path.starts_with(name) && best.is_none_or(|(length, ..)| name.len() > length) => {
                best = Some((name.len(), modifier == "^~", id));
            }
            _ => {}
        }
    }
    best.filter(|(_, is_final, _)| *is_final || !has_regex).map(|(_, _, id)| id)
}

/// A request that is decided a second time is denied.
fn twice(tree: &Tree<'_>, found: &mut Findings) {
    let again = "a second `enforce` denies what the first one allowed";
    for id in 0..tree.blocks.len() {
        let (rewrite, access) = (tree.handler(id, "rewrite"), tree.handler(id, "access"));
        if let (Some((above, one)), Some((at, two))) = (rewrite, access) {
            let both = one.guard() == Guard::Enforce && two.guard() == Guard::Enforce;
            if both && (above == id || at == id) {
                let line = one.directive.place.line;
                let message = format!("`enforce` is called in line {line} too: {again}");
                found.fault(Kind::DecidedTwice, &two.directive.place, message, "remove one of both calls");
            }
        }
    }
    for (_, handler) in tree.handlers().filter(|(_, handler)| !handler.code.branches) {
        if let Some(second) = handler.calls("enforce").nth(1) {
            let message = format!("`enforce` is called twice: {again}");
            found.fault(
                Kind::DecidedTwice,
                &handler.place(second.line),
                message,
                "name all backends in one call",
            );
        }
    }
}

/// What overrules, or goes before, a decision in the access phase.
fn overruled(tree: &Tree<'_>, found: &mut Findings) {
    for id in tree.ids(Level::Location) {
        let guards = |phase| tree.handler(id, phase).is_some_and(|(_, own)| own.guard() == Guard::Enforce);
        if !guards("access") || guards("rewrite") {
            continue;
        }
        let help = "call `enforce` in rewrite_by_lua_block";
        if let Some(("any", directive)) = tree.value(id, "satisfy") {
            let message =
                "with `satisfy any` nginx skips `enforce` in the access phase, or overrules its denial";
            found.fault(Kind::SatisfyAny, &directive.place, message, help);
        }
        let asked = tree.value(id, "auth_request").filter(|(path, _)| *path != "off");
        if let Some((_, directive)) = asked {
            let message = "the subrequest goes out before the decision in the access phase, with the \
             client's own headers";
            found.fault(Kind::AuthRequest, &directive.place, message, help);
        }
    }
}
