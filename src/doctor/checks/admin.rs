//! The server for Prometheus and for operators.

use super::Findings;
use crate::doctor::Kind;
use crate::doctor::tree::{Guard, Level, Tree};
use std::net::IpAddr;

pub(super) fn check(tree: &Tree<'_>, found: &mut Findings) {
    for id in tree.ids(Level::Location).chain(tree.ids(Level::Server)) {
        let Some(block) = tree.block(id) else { continue };
        let shown = block.handlers.iter().filter(|handler| handler.phase == "content").find_map(|handler| {
            let call = ["metrics", "status"].iter().find_map(|name| handler.calls(name).next())?;
            Some((handler, call))
        });
        let Some((handler, call)) = shown else { continue };
        let place = handler.place(call.line);
        if tree.guard(id) == Guard::Enforce {
            let message =
                format!("`enforce` is in reach of `{}`, and denies its path to everyone", call.function);
            let help = "write it in a server of its own, which listens on 127.0.0.1";
            found.fault(Kind::AdminDenied, &place, message, help);
        }
        let Some(server) = tree.server(id) else { continue };
        let has_rules = ["deny", "auth_basic", "ssl_verify_client"]
            .iter()
            .any(|name| !tree.effective(id, name).is_empty());
        let mut listens = tree.own(server, "listen").peekable();
        // A server without the line listens on port 80, on every address.
        let around = tree.block(server).and_then(|block| block.directive);
        let (place, shown) = match (listens.peek(), around) {
            (Some(_), _) => match listens.find(|listen| !is_loopback(listen.argument(0))) {
                Some(open) => (&open.place, open.argument(0)),
                None => continue,
            },
            (None, Some(around)) => (&around.place, "*:80"),
            (None, None) => continue,
        };
        if !has_rules {
            let message = format!("whoever reaches `{shown}` may ask for metrics and status");
            let help = "write `listen 127.0.0.1:9145;`, or `allow` and `deny` for those who may ask";
            found.hint(Kind::AdminListener, place, message, help);
        }
    }
}

fn is_loopback(listen: &str) -> bool {
    let host = match listen.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => listen,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || listen.starts_with("unix:")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
