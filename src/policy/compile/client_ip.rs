//! Networks by name, and where a user's address comes from.

use super::{Files, HELP_READ};
use crate::client_ip::signature::KeyRing;
use crate::client_ip::{CookieKeys, Source, SourceConfig};
use crate::network::{Network, NetworkSet};
use crate::policy::diagnostic::{Path, Place, Problems, WarningKind};
use crate::policy::document::{ClientIpEntry, ClientIpSourceEntry, Document, NetworkEntry};
use crate::policy::reader::At;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How many known names a complaint lists.
pub(super) const MOST_NAMED: usize = 20;

/// Headers in which proxies list addresses, clients' own included.
const LISTS: [&str; 4] = ["X-Forwarded-For", "X-Original-Forwarded-For", "Forwarded-For", "Forwarded"];

/// The networks that a policy names, and a complaint for each name that leads nowhere.
pub(super) struct NamedNetworks<'d> {
    named: HashMap<&'d str, Box<[Network]>>,
    /// Those of the platform, where these are an owner's.
    platform: Option<&'d Self>,
    /// The first names that are defined, once a complaint lists them.
    known: OnceCell<String>,
}

impl<'d> NamedNetworks<'d> {
    pub(super) fn new(document: &'d Document, problems: &mut Problems) -> Self {
        let mut named = HashMap::new();
        for (name, networks) in &document.networks {
            let list = Path::Root.key("networks");
            for network in networks {
                let name = list.key(&name.value);
                warn_of_open_network(network.value, network.place, &name.item(network.number), problems);
            }
            named.insert(&*name.value, networks.iter().map(|network| network.value).collect());
        }
        Self { named, platform: None, known: OnceCell::new() }
    }

    /// Those of an owner's document, and the platform's.
    pub(super) fn of_owner(document: &'d Document, platform: &'d Self, problems: &mut Problems) -> Self {
        Self { platform: Some(platform), ..Self::new(document, problems) }
    }

    fn list_known(&self) -> String {
        let platform = self.platform.iter().flat_map(|platform| platform.named.keys());
        let mut known: Vec<_> = self.named.keys().chain(platform).copied().collect();
        known.sort_unstable();
        known.dedup();
        let more = if known.len() > MOST_NAMED { ", ..." } else { "" };
        known.truncate(MOST_NAMED);
        known.join(", ") + more
    }

    fn find(&self, name: &str) -> Option<&[Network]> {
        let own = self.named.get(name).map(|networks| &**networks);
        own.or_else(|| self.platform.and_then(|platform| platform.find(name)))
    }

    /// For how many networks an entry stands.
    pub(super) fn count(&self, entry: &NetworkEntry) -> usize {
        match entry {
            NetworkEntry::Written(_) => 1,
            NetworkEntry::Named(name) => self.find(name).map_or(1, <[Network]>::len),
        }
    }

    pub(super) fn resolve(
        &self,
        entries: &[At<NetworkEntry>],
        path: &Path<'_>,
        problems: &mut Problems,
    ) -> Box<[(Box<str>, Box<[Network]>)]> {
        let mut resolved = Vec::new();
        for entry in entries {
            let path = path.item(entry.number);
            match &entry.value {
                NetworkEntry::Written(network) => {
                    warn_of_open_network(*network, entry.place, &path, problems);
                    resolved.push((network.to_string().into(), Box::from([*network])));
                }
                NetworkEntry::Named(name) => match self.find(name) {
                    Some(networks) => resolved.push((name.clone(), networks.into())),
                    None => {
                        let problem = problems.error(
                            entry.place,
                            &path,
                            format!("the network `{name}` is not defined"),
                        );
                        let known = self.known.get_or_init(|| self.list_known());
                        problem.help(if known.is_empty() {
                            format!("define it: `networks: {{ {name}: [203.0.113.0/24] }}`")
                        } else {
                            format!("defined networks: {known}")
                        });
                    }
                },
            }
        }
        resolved.into()
    }
}

pub(super) fn warn_of_open_network(network: Network, place: Place, path: &Path<'_>, problems: &mut Problems) {
    if network.is_everything() {
        problems
            .warning(
                WarningKind::OpenNetwork,
                place,
                path,
                format!("`{network}` is every address: it restricts nothing"),
            )
            .help("name the networks that are meant");
    }
}

pub(super) fn compile_client_ip(
    document: &Document,
    networks: &NamedNetworks<'_>,
    problems: &mut Problems,
) -> Option<SourceConfig> {
    let Some(ClientIpEntry { place, source }) = &document.client_ip else {
        if let Some(first) = document.restrictions.first()
            && !document.has_client_ip
        {
            problems
                .error(
                    first.place,
                    &Path::Root.key(&first.path),
                    "a restriction needs `client_ip`: where a user's address comes from",
                )
                .help("add `client_ip: { source: cookie, keys_file: /etc/tenantauth/client-ip.keys }`");
        }
        return None;
    };
    let section = Path::Root.key("client_ip");
    Some(match source {
        ClientIpSourceEntry::RemoteAddr => Source::RemoteAddr,
        ClientIpSourceEntry::Cookie { name, keys_file, unsigned } => {
            if let Some(place) = unsigned {
                problems
                    .warning(
                        WarningKind::UnsignedCookie,
                        *place,
                        &section.key("unsigned"),
                        "the address in the cookie is not proven: whoever reaches this nginx past the Grafana Gateway chooses it",
                    )
                    .help("make a key with `tenantauth keygen` and name its file in `keys_file`");
            }
            let keys = match keys_file {
                Some(file) => CookieKeys::Signed(PathBuf::from(&*file.value)),
                None => CookieKeys::Unsigned,
            };
            Source::Cookie { name: name.clone(), keys }
        }
        ClientIpSourceEntry::Header { name, trusted_peers } => {
            if document.token_headers.iter().any(|header| header.value.eq_ignore_ascii_case(name)) {
                problems
                    .error(*place, &section.key("source"), format!("`{name}` carries the token"))
                    .help("name the header in which a proxy writes the address");
            }
            if LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) {
                problems
                    .warning(
                        WarningKind::ClientIpList,
                        *place,
                        &section.key("source"),
                        format!("`{name}` is a list, to which each proxy adds: a value that is no single address is `ip_malformed`"),
                    )
                    .help(
                        "have nginx read it: `real_ip_header X-Forwarded-For` with `set_real_ip_from`, and `source: \
                         remote_addr`; or name a header that holds the client alone",
                    );
            }
            let peers = networks.resolve(trusted_peers, &section.key("trusted_peers"), problems);
            let trusted_peers: NetworkSet =
                peers.iter().flat_map(|(_, networks)| networks.iter().copied()).collect();
            Source::Header { name: name.clone(), trusted_peers }
        }
    })
}

pub(super) fn load_client_ip(
    document: &Document,
    config: Option<&SourceConfig>,
    files: &mut dyn Files,
    problems: &mut Problems,
) -> Option<Source> {
    let place = match document.client_ip.as_ref().map(|entry| &entry.source) {
        Some(ClientIpSourceEntry::Cookie { keys_file: Some(file), .. }) => file.place,
        _ => Place::default(),
    };
    let section = Path::Root.key("client_ip");
    let path = section.key("keys_file");
    let source = config?.with_keys(|file| {
        if !files.reads_secrets() {
            return KeyRing::unknown().map(Arc::new).ok_or(());
        }
        let mut wrong = problems.of_same_file();
        let read = match files.read(file) {
            Err(error) => {
                wrong
                    .error(place, &path, format!("cannot read `{}`: {error}", file.display()))
                    .help(HELP_READ);
                None
            }
            Ok(content) => KeyRing::parse(&content)
                .map_err(|errors| {
                    for error in errors {
                        let message = format!("{}:{}: {}", file.display(), error.line, error.message);
                        wrong.error(place, &path, message).help(error.help);
                    }
                })
                .ok(),
        };
        if let Some(ring) = read {
            return Ok(Arc::new(ring));
        }
        let Some(in_force) = files.cookie_keys_in_force(file) else {
            problems.append(wrong);
            return Err(());
        };
        files.keep_in_force(file, wrong.into_sorted());
        Ok(in_force)
    });
    source.ok()
}
