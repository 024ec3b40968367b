//! Networks, and where a user's address comes from.

use super::issuers::header_name;
use super::{ClientIpEntry, ClientIpSourceEntry, NetworkEntry, boxed, check_name, refuse_empty, required};
use crate::network::{InvalidNetwork, Network};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::node::Value;
use crate::policy::reader::{At, Fields};

pub(super) fn read_networks(
    fields: &Fields<'_>,
    problems: &mut Problems,
) -> Vec<(At<Box<str>>, Vec<At<Network>>)> {
    let Some(node) = fields.get("networks") else { return Vec::new() };
    let path = Path::Root.key("networks");
    let mut networks = Vec::new();
    for (key, value) in problems.entries(node, &path) {
        let path = path.key(&key.name);
        let name = At::new(key.name.clone(), key.place);
        check_name(&name, &path, problems);
        if is_like_address(&key.name) {
            problems
                .error(key.place, &path, format!("`{}` looks like a network, not like a name", key.name))
                .help("choose a name without `/` and `:`, and not of digits alone");
        }
        refuse_empty(value, &path, problems);
        let nets = problems.list_of(value, &path, |problems, text, path| network(text, path, problems));
        networks.push((name, nets));
    }
    networks
}

pub(super) fn network(text: At<&str>, path: &Path<'_>, problems: &mut Problems) -> Option<Network> {
    match Network::parse(text.value) {
        Ok(network) => Some(network),
        Err(error) => {
            let problem = problems.error(text.place, path, format!("`{}` {error}", text.value));
            match error {
                InvalidNetwork::HostBits(meant) => problem.help(format!("the network is `{meant}`")),
                InvalidNetwork::Mapped => problem.help("write the IPv4 network itself"),
                InvalidNetwork::Syntax => {
                    problem.help("write it like `203.0.113.0/24`, `192.0.2.9` or `2001:db8::/32`")
                }
            }
            None
        }
    }
}

/// The keys of `client_ip`.
pub(in crate::policy) const KNOWN: [&str; 5] = ["source", "cookie", "keys_file", "unsigned", "trusted_peers"];

pub(super) fn read_client_ip(fields: &Fields<'_>, problems: &mut Problems) -> Option<ClientIpEntry> {
    let node = fields.get("client_ip")?;
    let path = Path::Root.key("client_ip");
    let fields = problems.fields(node, &path, &KNOWN)?;
    let written = match fields.get("source") {
        Some(node) => problems.text(node, &path.key("source"))?,
        None => At::new("cookie", node.place),
    };
    let refuse = |names: &[&str], problems: &mut Problems| {
        for name in names {
            if let Some(place) = fields.key_place(name) {
                problems
                    .error(
                        place,
                        &path.key(name),
                        format!("`{name}` has no meaning with `source: {}`", written.value),
                    )
                    .help("remove it, or choose another source");
            }
        }
    };
    let source = match written.value {
        "cookie" => {
            refuse(&["trusted_peers"], problems);
            read_cookie_source(&fields, &path, problems)
        }
        "remote_addr" => {
            refuse(&["cookie", "keys_file", "unsigned", "trusted_peers"], problems);
            ClientIpSourceEntry::RemoteAddr
        }
        other => {
            let source_path = path.key("source");
            let Some(name) = other.strip_prefix("header:") else {
                problems
                    .error(written.place, &source_path, format!("unknown source `{other}`"))
                    .help("it must be `cookie`, `remote_addr` or `header:<Name>`");
                return None;
            };
            refuse(&["cookie", "keys_file", "unsigned"], problems);
            let name = header_name(At::new(name, written.place), &source_path, problems)?;
            let peers = required(&fields, "trusted_peers", &path, problems)?;
            refuse_empty(peers, &path.key("trusted_peers"), problems);
            let trusted_peers = problems.list_of(peers, &path.key("trusted_peers"), network_entry);
            ClientIpSourceEntry::Header { name, trusted_peers }
        }
    };
    Some(ClientIpEntry { place: node.place, source })
}

pub(super) fn read_cookie_source(
    fields: &Fields<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> ClientIpSourceEntry {
    let name = fields
        .get("cookie")
        .and_then(|node| problems.text(node, &path.key("cookie")))
        .map_or_else(|| At::new("Client_Ip".into(), fields.place), boxed);
    // RFC 6265 section 4.1.1: a cookie's name is a token.
    if !crate::client_ip::cookie::is_name(&name.value) {
        problems
            .error(name.place, &path.key("cookie"), format!("`{}` is no cookie name", name.value))
            .help("letters, digits, `-` and `_`");
    }
    let keys_file =
        fields.get("keys_file").and_then(|node| problems.text(node, &path.key("keys_file"))).map(boxed);
    let unsigned = fields
        .get("unsigned")
        .and_then(|node| problems.boolean(node, &path.key("unsigned")))
        .filter(|unsigned| *unsigned)
        .and_then(|_| fields.key_place("unsigned"));
    match (fields.get("keys_file").is_some(), unsigned) {
        (true, Some(place)) => {
            problems
                .error(place, &path.key("unsigned"), "`unsigned` and `keys_file` exclude each other")
                .help("keep `keys_file`: the cookie must then be signed");
        }
        // A value of the wrong type was told.
        (false, None)
            if fields.get("unsigned").is_none_or(|node| matches!(node.value, Value::Boolean(false))) =>
        {
            problems.error(fields.place, &path.key("keys_file"), "missing key `keys_file`").help(
                "make a key with `tenantauth keygen`, or accept unproven addresses with `unsigned: true`",
            );
        }
        _ => {}
    }
    ClientIpSourceEntry::Cookie { name: name.value, keys_file, unsigned }
}

pub(super) fn is_like_address(text: &str) -> bool {
    text.contains(['/', ':']) || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

pub(super) fn network_entry(
    problems: &mut Problems,
    text: At<&str>,
    path: &Path<'_>,
) -> Option<NetworkEntry> {
    // What looks like an address is one, so that a typing error in it is not taken for a name.
    if is_like_address(text.value) {
        network(text, path, problems).map(NetworkEntry::Written)
    } else {
        Some(NetworkEntry::Named(text.value.into()))
    }
}
