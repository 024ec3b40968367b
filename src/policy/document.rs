//! The policy document as it was written, with places. What can be judged by looking at one value is judged
//! here; what needs two (references, contradictions) is left to `compile`.

use super::diagnostic::{Path, Place, Problems};
use super::node::{Node, Value};
use super::reader::{At, Fields};
use crate::network::{InvalidNetwork, Network};
use crate::scope::{Backend, BackendSet, Scope, ScopeSet};
use crate::tenant::TenantPattern;

/// Keys of the interface that this version does not serve yet. Refused, so that nobody believes in a rule that
/// is not enforced.
const UNSERVED: [&str; 5] = ["service_accounts", "revoked", "owners", "tests", "shadow_until"];
const UNSERVED_ISSUER: [&str; 3] = ["jwks_url", "ca_file", "bare_groups"];

/// One policy document.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) issuers: Vec<IssuerEntry>,
    pub(super) token_headers: Vec<At<Box<str>>>,
    pub(super) group_names: Vec<(At<Box<str>>, Vec<At<Box<str>>>)>,
    pub(super) grants: Vec<GrantEntry>,
    pub(super) networks: Vec<(At<Box<str>>, Vec<At<Network>>)>,
    pub(super) client_ip: Option<ClientIpEntry>,
    /// There is such a section, though it may not be readable.
    pub(super) has_client_ip: bool,
    pub(super) restrictions: Vec<RestrictionEntry>,
    pub(super) audit_query: QueryAudit,
}

/// How much of a request's query string the audit record keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryAudit {
    /// All of it.
    #[default]
    Full,
    /// A keyed hash.
    Hash,
    /// Nothing.
    None,
}

#[derive(Debug)]
pub(super) struct IssuerEntry {
    /// Its position in the list.
    pub(super) number: usize,
    pub(super) name: Option<At<Box<str>>>,
    pub(super) issuer: At<Box<str>>,
    pub(super) audiences: Vec<At<Box<str>>>,
    pub(super) keys: KeysEntry,
    pub(super) algorithms: Vec<At<Box<str>>>,
    pub(super) groups_claim: Option<At<Box<str>>>,
    pub(super) groups_format: Option<At<Box<str>>>,
    pub(super) user_claim: Option<Box<str>>,
    pub(super) leeway: u64,
}

#[derive(Debug)]
pub(super) enum KeysEntry {
    File(At<Box<str>>),
    Inline(At<serde_json::Value>),
    /// Told already.
    Missing,
}

/// A grant of either form: `authorizations` lines are grants without a name.
#[derive(Debug)]
pub(super) struct GrantEntry {
    pub(super) place: Place,
    /// What records call it where it has no name: its path in the document.
    pub(super) path: Box<str>,
    pub(super) name: Option<At<Box<str>>>,
    pub(super) groups: Vec<At<Box<str>>>,
    pub(super) tenants: Vec<At<TenantPattern>>,
    pub(super) except_tenants: Vec<At<TenantPattern>>,
    pub(super) scopes: ScopeSet,
    /// Unix seconds.
    pub(super) expires: Option<At<u64>>,
}

#[derive(Debug)]
pub(super) struct ClientIpEntry {
    pub(super) place: Place,
    pub(super) source: ClientIpSourceEntry,
}

#[derive(Debug)]
pub(super) enum ClientIpSourceEntry {
    Cookie { name: Box<str>, keys_file: Option<At<Box<str>>>, unsigned: Option<Place> },
    RemoteAddr,
    Header { name: Box<str>, trusted_peers: Vec<At<NetworkEntry>> },
}

/// A network where it is used: written out, or the name of an entry of `networks`.
#[derive(Debug)]
pub(super) enum NetworkEntry {
    Written(Network),
    Named(Box<str>),
}

#[derive(Debug)]
pub(super) struct RestrictionEntry {
    pub(super) place: Place,
    pub(super) path: Box<str>,
    pub(super) name: Option<At<Box<str>>>,
    pub(super) tenants: Vec<At<TenantPattern>>,
    pub(super) except_tenants: Vec<At<TenantPattern>>,
    pub(super) scopes: RestrictedScopes,
    pub(super) groups: Vec<At<Box<str>>>,
    pub(super) except_groups: Vec<At<Box<str>>>,
    pub(super) networks: Vec<At<NetworkEntry>>,
    pub(super) shadow: Option<Place>,
}

/// What a restriction binds: scopes, and beyond them rules and alerts requests to some backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestrictedScopes {
    /// Bound whatever the backend.
    pub scopes: ScopeSet,
    /// Backends whose `rules:*` and `alerts:*` requests are bound as well: Loki by `logs:*`, Mimir by `metrics:*`.
    pub rules_of: BackendSet,
}

impl RestrictedScopes {
    /// Whether a request of this scope, to any of these backends, is bound.
    pub fn cover(&self, scope: Scope, backends: BackendSet) -> bool {
        let rules =
            matches!(scope, Scope::RulesRead | Scope::RulesWrite | Scope::AlertsRead | Scope::AlertsWrite);
        self.scopes.contains(scope) || (rules && self.rules_of.intersects(backends))
    }
}

/// Reads a whole document; whatever is wrong with it goes to `problems`.
pub(super) fn read(root: &Node, problems: &mut Problems) -> Document {
    const SERVED: [&str; 11] = [
        "version",
        "mode",
        "issuers",
        "token_headers",
        "group_names",
        "authorizations",
        "grants",
        "networks",
        "client_ip",
        "restrictions",
        "audit",
    ];
    let known = [&SERVED[..], &UNSERVED].concat();
    let mut document = Document::default();
    let Some(fields) = problems.fields(root, &Path::Root, &known) else { return document };
    refuse_unserved(&fields, &Path::Root, &UNSERVED, problems);
    read_version(&fields, problems);
    read_mode(&fields, problems);
    document.issuers = read_issuers(&fields, problems);
    document.token_headers = read_token_headers(&fields, problems);
    document.group_names = read_group_names(&fields, problems);
    document.grants = read_authorizations(&fields, problems);
    document.grants.extend(read_grants(&fields, problems));
    document.networks = read_networks(&fields, problems);
    document.client_ip = read_client_ip(&fields, problems);
    document.has_client_ip = fields.get("client_ip").is_some();
    document.restrictions = read_restrictions(&fields, problems);
    document.audit_query = read_audit(&fields, problems).unwrap_or_default();
    document
}

fn refuse_unserved(fields: &Fields<'_>, path: &Path<'_>, names: &[&str], problems: &mut Problems) {
    for name in names {
        if let Some(place) = fields.key_place(name) {
            problems
                .error(place, &path.key(name), format!("`{name}` is not supported by this version"))
                .help("remove it: a rule that is not enforced must not be believed in");
        }
    }
}

fn required<'n>(
    fields: &Fields<'n>,
    name: &str,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<&'n Node> {
    let node = fields.get(name);
    if node.is_none() {
        problems
            .error(fields.place, &path.key(name), format!("missing key `{name}`"))
            .help(format!("add `{name}:`"));
    }
    node
}

fn read_version(fields: &Fields<'_>, problems: &mut Problems) {
    let Some(node) = required(fields, "version", &Path::Root, problems) else { return };
    if node.value != Value::Number("1".into()) && node.value != Value::Refused {
        problems
            .error(node.place, &Path::Root.key("version"), "unknown version of the policy document")
            .help("write `version: 1`");
    }
}

fn read_mode(fields: &Fields<'_>, problems: &mut Problems) {
    let Some(node) = fields.get("mode") else { return };
    let path = Path::Root.key("mode");
    if problems.word(node, &path, &[("enforce", false), ("shadow", true)]) == Some(true) {
        problems
            .error(node.place, &path, "`mode: shadow` of the whole gateway is not supported by this version")
            .help("a single restriction can be tried with `mode: shadow`");
    }
}

fn read_issuers(fields: &Fields<'_>, problems: &mut Problems) -> Vec<IssuerEntry> {
    let Some(node) = required(fields, "issuers", &Path::Root, problems) else { return Vec::new() };
    let path = Path::Root.key("issuers");
    let items = problems.items(node, &path);
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        problems
            .error(node.place, &path, "no issuer: nobody could sign a token")
            .help("name the issuer of your users' tokens");
    }
    if let Some(second) = items.get(1) {
        problems
            .error(second.place, &path.item(1), "several issuers are not supported by this version")
            .help("keep one issuer");
    }
    let mut issuers = Vec::new();
    for (number, item) in items.iter().enumerate() {
        issuers.extend(read_issuer(item, number, &path.item(number), problems));
    }
    issuers
}

fn read_issuer(node: &Node, number: usize, path: &Path<'_>, problems: &mut Problems) -> Option<IssuerEntry> {
    const SERVED: [&str; 10] = [
        "name",
        "issuer",
        "audiences",
        "jwks_file",
        "jwks",
        "algorithms",
        "groups_claim",
        "groups_format",
        "user_claim",
        "leeway",
    ];
    let known = [&SERVED[..], &UNSERVED_ISSUER].concat();
    let fields = problems.fields(node, path, &known)?;
    refuse_unserved(&fields, path, &UNSERVED_ISSUER, problems);
    let text = |name: &str, problems: &mut Problems| {
        let node = fields.get(name)?;
        problems.text(node, &path.key(name)).map(boxed)
    };
    let name = text("name", problems);
    if let Some(name) = &name {
        check_name(name, &path.key("name"), problems);
    }
    let issuer = required(&fields, "issuer", path, problems)
        .and_then(|node| problems.text(node, &path.key("issuer")))
        .map(boxed);
    let audiences = match required(&fields, "audiences", path, problems) {
        Some(node) => {
            let path = path.key("audiences");
            let audiences = problems.list_of(node, &path, plain_text);
            refuse_empty(node, &path, problems);
            audiences
        }
        None => Vec::new(),
    };
    let algorithms = match fields.get("algorithms") {
        Some(node) => {
            let path = path.key("algorithms");
            refuse_empty(node, &path, problems);
            problems.list_of(node, &path, plain_text)
        }
        None => Vec::new(),
    };
    let keys = read_keys(&fields, path, problems);
    Some(IssuerEntry {
        number,
        name,
        issuer: issuer?,
        audiences,
        keys,
        algorithms,
        groups_claim: text("groups_claim", problems),
        groups_format: text("groups_format", problems),
        user_claim: text("user_claim", problems).map(|text| text.value),
        leeway: fields.get("leeway").map_or(60, |node| read_leeway(node, &path.key("leeway"), problems)),
    })
}

fn read_keys(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems) -> KeysEntry {
    let (file, inline) = (fields.get("jwks_file"), fields.get("jwks"));
    if let (Some(_), Some(place)) = (file, fields.key_place("jwks")) {
        problems
            .error(place, &path.key("jwks"), "`jwks` and `jwks_file` exclude each other")
            .help("keep one of them");
    }
    if let Some(node) = file
        && let Some(text) = problems.text(node, &path.key("jwks_file"))
    {
        return KeysEntry::File(boxed(text));
    }
    if let Some(node) = inline {
        if !matches!(node.value, Value::Map(_)) {
            problems.wrong_type(node, &path.key("jwks"), "a mapping");
            return KeysEntry::Missing;
        }
        return KeysEntry::Inline(At::new(node.to_json(), node.place));
    }
    if file.is_none() && fields.get("jwks_url").is_none() {
        problems
            .error(
                fields.place,
                &path.key("jwks_file"),
                "OpenID discovery of the keys is not supported by this version",
            )
            .help("name a file that holds the issuer's JWKS: `jwks_file: /etc/tenantauth/jwks.json`");
    }
    KeysEntry::Missing
}

/// `90s`, `2m`: at most five minutes.
fn read_leeway(node: &Node, path: &Path<'_>, problems: &mut Problems) -> u64 {
    const DEFAULT: u64 = 60;
    let written = match &node.value {
        Value::Number(written) => written,
        Value::Text(text) => text,
        Value::Refused => return DEFAULT,
        _ => "",
    };
    let (digits, unit) = match written.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (written.strip_suffix('s').unwrap_or_default(), 1),
    };
    let seconds = Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|count| count.checked_mul(unit));
    match seconds {
        Some(seconds @ 0..=300) => seconds,
        Some(_) => {
            problems
                .error(node.place, path, format!("`{written}` is more than 5 minutes"))
                .help("write at most `5m`");
            DEFAULT
        }
        None => {
            problems
                .error(node.place, path, "expected a duration in seconds or minutes")
                .help("write `60s` or `2m`");
            DEFAULT
        }
    }
}

fn read_token_headers(fields: &Fields<'_>, problems: &mut Problems) -> Vec<At<Box<str>>> {
    let path = Path::Root.key("token_headers");
    let Some(node) = fields.get("token_headers") else {
        return vec![At::new("X-Id-Token".into(), fields.place)];
    };
    refuse_empty(node, &path, problems);
    let headers = problems.list_of(node, &path, |problems, text, path| header_name(text, path, problems));
    for (count, header) in headers.iter().enumerate() {
        let twice = headers.iter().take(count).any(|other| other.value.eq_ignore_ascii_case(&header.value));
        if twice {
            problems
                .error(header.place, &path.item(header.number), format!("`{}` is listed twice", header.value))
                .help("remove one of them");
        }
    }
    headers
}

/// RFC 9110 section 5.1, less the characters that nginx drops from names by default.
fn header_name(text: At<&str>, path: &Path<'_>, problems: &mut Problems) -> Option<Box<str>> {
    let grammatical =
        !text.value.is_empty() && text.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let taken = ["x-scope-orgid", "cookie", "host", "upgrade", "connection", "content-length"];
    if !grammatical {
        problems
            .error(text.place, path, format!("`{}` is no header name", text.value))
            .help("letters, digits and `-`: nginx drops other names");
        return None;
    }
    if taken.contains(&text.value.to_ascii_lowercase().as_str()) {
        problems
            .error(text.place, path, format!("`{}` has another meaning", text.value))
            .help("name a header of its own");
        return None;
    }
    Some(text.value.into())
}

fn read_group_names(fields: &Fields<'_>, problems: &mut Problems) -> Vec<(At<Box<str>>, Vec<At<Box<str>>>)> {
    let Some(node) = fields.get("group_names") else { return Vec::new() };
    let path = Path::Root.key("group_names");
    let mut names = Vec::new();
    for (key, value) in problems.entries(node, &path) {
        let path = path.key(&key.name);
        if key.name.is_empty() || &*key.name == "*" || key.name.starts_with("service:") {
            problems
                .error(key.place, &path, format!("`{}` cannot name a group", key.name))
                .help("`*` and `service:` have a meaning of their own: choose another name");
            continue;
        }
        let is_list = matches!(value.value, Value::List(_));
        let members = match &value.value {
            Value::List(_) => {
                refuse_empty(value, &path, problems);
                problems.list_of(value, &path, plain_text)
            }
            _ => problems.text(value, &path).map(boxed).into_iter().collect(),
        };
        for member in &members {
            if &*member.value == "*" || member.value.starts_with("service:") {
                let item = if is_list { path.item(member.number) } else { path };
                problems
                    .error(
                        member.place,
                        &item,
                        format!("`{}` is no group that an issuer gives", member.value),
                    )
                    .help("list the issuer's own groups");
            }
        }
        names.push((At::new(key.name.clone(), key.place), members));
    }
    names
}

fn read_authorizations(fields: &Fields<'_>, problems: &mut Problems) -> Vec<GrantEntry> {
    let Some(node) = fields.get("authorizations") else { return Vec::new() };
    let path = Path::Root.key("authorizations");
    let mut grants = Vec::new();
    for (key, value) in problems.entries(node, &path) {
        let path = path.key(&key.name);
        let group = At::new(key.name.clone(), key.place);
        if group.value.is_empty() {
            problems
                .error(key.place, &path, "expected a group, found an empty string")
                .help("name the group, or remove the line");
        }
        check_group(&group, &path, problems);
        grants.push(GrantEntry {
            place: key.place,
            path: path.to_string().into(),
            name: None,
            groups: vec![group],
            tenants: problems.list_of(value, &path, tenant_pattern),
            except_tenants: Vec::new(),
            scopes: ScopeSet::reads(),
            expires: None,
        });
    }
    grants
}

fn read_grants(fields: &Fields<'_>, problems: &mut Problems) -> Vec<GrantEntry> {
    const KNOWN: [&str; 6] = ["name", "groups", "tenants", "except_tenants", "scopes", "expires"];
    let Some(node) = fields.get("grants") else { return Vec::new() };
    let list = Path::Root.key("grants");
    let mut grants = Vec::new();
    for (number, item) in problems.items(node, &list).iter().enumerate() {
        let path = list.item(number);
        let Some(fields) = problems.fields(item, &path, &KNOWN) else { continue };
        let name = read_name(&fields, &path, problems);
        let groups = read_groups(required(&fields, "groups", &path, problems), &path.key("groups"), problems);
        let tenants =
            read_tenants(required(&fields, "tenants", &path, problems), &path.key("tenants"), problems);
        let scopes = match fields.get("scopes") {
            None => ScopeSet::reads(),
            Some(node) => {
                let path = path.key("scopes");
                refuse_empty(node, &path, problems);
                let scopes = problems.list_of(node, &path, scope_pattern);
                scopes.iter().fold(ScopeSet::EMPTY, |all, more| all.union(more.value))
            }
        };
        let expires = fields.get("expires").and_then(|node| {
            let path = path.key("expires");
            if matches!(node.value, Value::Number(_)) {
                problems
                    .error(node.place, &path, "expected a time, found a number")
                    .help("write it as in RFC 3339: `2027-01-31T00:00:00Z`");
                return None;
            }
            let text = problems.text(node, &path)?;
            match text.value.parse::<jiff::Timestamp>() {
                Ok(time) => Some(At::new(u64::try_from(time.as_second()).unwrap_or(0), text.place)),
                Err(_) => {
                    problems
                        .error(text.place, &path, format!("`{}` is no time", text.value))
                        .help("write it as in RFC 3339: `2027-01-31T00:00:00Z`");
                    None
                }
            }
        });
        grants.push(GrantEntry {
            place: item.place,
            path: path.to_string().into(),
            name,
            groups,
            tenants,
            except_tenants: read_tenants(fields.get("except_tenants"), &path.key("except_tenants"), problems),
            scopes,
            expires,
        });
    }
    grants
}

fn read_networks(fields: &Fields<'_>, problems: &mut Problems) -> Vec<(At<Box<str>>, Vec<At<Network>>)> {
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

fn network(text: At<&str>, path: &Path<'_>, problems: &mut Problems) -> Option<Network> {
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

fn read_client_ip(fields: &Fields<'_>, problems: &mut Problems) -> Option<ClientIpEntry> {
    const KNOWN: [&str; 5] = ["source", "cookie", "keys_file", "unsigned", "trusted_peers"];
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

fn read_cookie_source(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems) -> ClientIpSourceEntry {
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

fn read_restrictions(fields: &Fields<'_>, problems: &mut Problems) -> Vec<RestrictionEntry> {
    const KNOWN: [&str; 8] =
        ["name", "tenants", "except_tenants", "scopes", "groups", "except_groups", "networks", "mode"];
    let Some(node) = fields.get("restrictions") else { return Vec::new() };
    let list = Path::Root.key("restrictions");
    let mut restrictions = Vec::new();
    for (number, item) in problems.items(node, &list).iter().enumerate() {
        let path = list.item(number);
        let Some(fields) = problems.fields(item, &path, &KNOWN) else { continue };
        let name = read_name(&fields, &path, problems);
        let everything = || At::new(TenantPattern::everything(), item.place);
        let tenants = match fields.get("tenants") {
            Some(node) => read_tenants(Some(node), &path.key("tenants"), problems),
            None => vec![everything()],
        };
        let groups = match fields.get("groups") {
            Some(node) => read_groups(Some(node), &path.key("groups"), problems),
            None => vec![At::new("*".into(), item.place)],
        };
        let networks = match required(&fields, "networks", &path, problems) {
            Some(node) => {
                refuse_empty(node, &path.key("networks"), problems);
                problems.list_of(node, &path.key("networks"), network_entry)
            }
            None => Vec::new(),
        };
        let shadow = fields
            .get("mode")
            .and_then(|node| problems.word(node, &path.key("mode"), &[("enforce", false), ("shadow", true)]))
            .filter(|shadow| *shadow)
            .and_then(|_| fields.key_place("mode"));
        restrictions.push(RestrictionEntry {
            place: item.place,
            path: path.to_string().into(),
            name,
            tenants,
            except_tenants: read_tenants(fields.get("except_tenants"), &path.key("except_tenants"), problems),
            scopes: read_restricted_scopes(fields.get("scopes"), &path.key("scopes"), problems),
            groups,
            except_groups: read_groups(fields.get("except_groups"), &path.key("except_groups"), problems),
            networks,
            shadow,
        });
    }
    restrictions
}

/// A restriction's `X:*` is everything a request can do to that signal's backend: deleting, and rules and alerts.
fn read_restricted_scopes(node: Option<&Node>, path: &Path<'_>, problems: &mut Problems) -> RestrictedScopes {
    let Some(node) = node else {
        return RestrictedScopes { scopes: ScopeSet::all(), rules_of: BackendSet::ALL };
    };
    refuse_empty(node, path, problems);
    let mut bound = RestrictedScopes { scopes: ScopeSet::EMPTY, rules_of: BackendSet::EMPTY };
    for part in problems.list_of(node, path, |problems, text, path| {
        let scopes = scope_pattern(problems, At::new(text.value, text.place), path)?;
        Some((Box::<str>::from(text.value), scopes))
    }) {
        let (written, scopes) = part.value;
        bound.scopes = bound.scopes.union(scopes);
        match &*written {
            "logs:*" => {
                bound.scopes.insert(Scope::LogsDelete);
                bound.rules_of = bound.rules_of.union(BackendSet::of(Backend::Loki));
            }
            "metrics:*" => bound.rules_of = bound.rules_of.union(BackendSet::of(Backend::Mimir)),
            "*:*" => bound.scopes = ScopeSet::all(),
            _ => {}
        }
    }
    bound
}

fn read_audit(fields: &Fields<'_>, problems: &mut Problems) -> Option<QueryAudit> {
    let node = fields.get("audit")?;
    let path = Path::Root.key("audit");
    let fields = problems.fields(node, &path, &["query"])?;
    let known = [("full", QueryAudit::Full), ("hash", QueryAudit::Hash), ("none", QueryAudit::None)];
    problems.word(fields.get("query")?, &path.key("query"), &known)
}

fn read_name(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems) -> Option<At<Box<str>>> {
    let path = path.key("name");
    let name = problems.text(fields.get("name")?, &path).map(boxed)?;
    check_name(&name, &path, problems);
    Some(name)
}

/// Names stand in metrics, records and messages: printable, without blanks at the ends, not too long.
fn check_name(name: &At<Box<str>>, path: &Path<'_>, problems: &mut Problems) {
    let text = &*name.value;
    if text.is_empty()
        || text.trim() != text
        || text.chars().count() > 100
        || text.chars().any(char::is_control)
    {
        problems
            .error(name.place, path, format!("`{}` cannot be used as a name", text.escape_debug()))
            .help("1 to 100 printable characters, no blank at either end");
    }
}

fn read_groups(node: Option<&Node>, path: &Path<'_>, problems: &mut Problems) -> Vec<At<Box<str>>> {
    let Some(node) = node else { return Vec::new() };
    refuse_empty(node, path, problems);
    let groups = problems.list_of(node, path, plain_text);
    for group in &groups {
        let path = path.item(group.number);
        check_group(group, &path, problems);
        if &*group.value == "*" && groups.len() > 1 {
            problems
                .error(group.place, &path, "`*` stands alone: it is every verified user")
                .help("write `groups: [\"*\"]`, or name groups");
        }
    }
    groups
}

fn check_group(group: &At<Box<str>>, path: &Path<'_>, problems: &mut Problems) {
    if group.value.starts_with("service:") {
        problems
            .error(
                group.place,
                path,
                format!("`{}` names a service account, which this version does not support", group.value),
            )
            .help("remove the group");
    }
}

fn read_tenants(node: Option<&Node>, path: &Path<'_>, problems: &mut Problems) -> Vec<At<TenantPattern>> {
    let Some(node) = node else { return Vec::new() };
    refuse_empty(node, path, problems);
    problems.list_of(node, path, tenant_pattern)
}

fn tenant_pattern(problems: &mut Problems, text: At<&str>, path: &Path<'_>) -> Option<TenantPattern> {
    TenantPattern::parse(text.value)
        .map_err(|error| {
            problems
                .error(text.place, path, format!("`{}` {error}", text.value))
                .help("1 to 150 of A-Z a-z 0-9 ! - _ . ' ( ), and `*` for any run of characters");
        })
        .ok()
}

fn scope_pattern(problems: &mut Problems, text: At<&str>, path: &Path<'_>) -> Option<ScopeSet> {
    let scopes = ScopeSet::from_pattern(text.value);
    if scopes.is_none() {
        let names: Vec<_> = Scope::ALL.into_iter().map(Scope::name).collect();
        problems
            .error(text.place, path, format!("unknown scope `{}`", text.value))
            .help(format!("`X:*`, `*:read`, `*:write`, or one of {}", names.join(", ")));
    }
    scopes
}

fn is_like_address(text: &str) -> bool {
    text.contains(['/', ':']) || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn network_entry(problems: &mut Problems, text: At<&str>, path: &Path<'_>) -> Option<NetworkEntry> {
    // What looks like an address is one, so that a typing error in it is not taken for a name.
    if is_like_address(text.value) {
        network(text, path, problems).map(NetworkEntry::Written)
    } else {
        Some(NetworkEntry::Named(text.value.into()))
    }
}

fn plain_text(_: &mut Problems, text: At<&str>, _: &Path<'_>) -> Option<Box<str>> {
    Some(text.value.into())
}

fn boxed(text: At<&str>) -> At<Box<str>> {
    At::new(text.value.into(), text.place)
}

fn refuse_empty(node: &Node, path: &Path<'_>, problems: &mut Problems) {
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        problems.error(node.place, path, "the list is empty").help("name at least one, or remove the key");
    }
}
