//! The policy document as it was written, with places. What can be judged by looking at one value is judged
//! here; what needs two (references, contradictions) is left to `compile`.

pub(super) mod cases;
pub(super) mod issuers;
pub(super) mod limits;
pub(super) mod networks;
pub(super) mod owners;
pub(super) mod revoked;
pub(super) mod rules;
pub(super) mod service_accounts;

use super::cases::Case;
use super::diagnostic::{Path, Place, Problems};
use super::node::{Node, Value};
use super::reader::{At, Fields};
use crate::network::Network;
use crate::scope::{BackendSet, Scope, ScopeSet};
use crate::tenant::TenantPattern;
use crate::token::digest::Sha256;
use cases::read_cases;
use issuers::{read_issuers, read_token_headers};
use networks::{read_client_ip, read_networks};
use owners::{OwnerEntry, read_owners};
use revoked::read_revoked;
use rules::{read_authorizations, read_grants, read_group_names, read_restrictions, read_time};
use service_accounts::read_service_accounts;
use std::ops::RangeInclusive;

/// One policy document.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) issuers: Vec<IssuerEntry>,
    pub(super) token_headers: Vec<At<Box<str>>>,
    pub(super) service_accounts: Vec<ServiceAccountEntry>,
    pub(super) revoked: RevokedEntry,
    pub(super) group_names: Vec<(At<Box<str>>, Vec<At<Box<str>>>)>,
    pub(super) grants: Vec<GrantEntry>,
    pub(super) networks: Vec<(At<Box<str>>, Vec<At<Network>>)>,
    pub(super) client_ip: Option<ClientIpEntry>,
    /// There is such a section, though it may not be readable.
    pub(super) has_client_ip: bool,
    pub(super) restrictions: Vec<RestrictionEntry>,
    pub(super) audit: Audit,
    /// The address that denials name: where a person reads on.
    pub(super) denial_help: Option<Box<str>>,
    /// Until when (Unix seconds) the whole gateway only records.
    pub(super) shadow_until: Option<At<u64>>,
    pub(super) owners: Vec<OwnerEntry>,
    pub(super) cases: Vec<Case>,
}

/// What audit records keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// How much of the query.
    pub query: QueryAudit,
    /// The length of a whole record as nginx writes it, in bytes, with its line feed.
    pub max_bytes: usize,
}

impl Audit {
    /// What `max_bytes` may be. The least keeps each record's caller and rule.
    pub const MAX_BYTES: RangeInclusive<usize> = 2048..=65_536;
}

impl Default for Audit {
    fn default() -> Self {
        Self { query: QueryAudit::default(), max_bytes: 16_384 }
    }
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
    /// Empty where the key is absent.
    pub(super) groups_claim: Vec<At<Box<str>>>,
    /// They were written as a list.
    pub(super) groups_claim_is_list: bool,
    pub(super) groups_format: Option<At<Box<str>>>,
    pub(super) user_claim: Option<Box<str>>,
    pub(super) leeway: u64,
    /// Where `bare_groups: true` stands.
    pub(super) bare_groups: Option<Place>,
}

impl IssuerEntry {
    /// The file of its keys, as it is written.
    pub(super) fn keys_file(&self) -> Option<&std::path::Path> {
        match &self.keys {
            KeysEntry::File(file) => Some(std::path::Path::new(&*file.value)),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) enum KeysEntry {
    File(At<Box<str>>),
    Inline(At<serde_json::Value>),
    /// Fetched: from an address, or without one by OpenID discovery.
    Fetched {
        url: Option<Box<str>>,
        ca_file: Option<At<Box<str>>>,
    },
    /// Told already.
    Missing,
}

/// A caller with a token of the policy's own.
#[derive(Debug)]
pub(super) struct ServiceAccountEntry {
    pub(super) place: Place,
    /// Its position in the list.
    pub(super) number: usize,
    pub(super) name: At<Box<str>>,
    pub(super) token_sha256: Vec<At<Sha256>>,
    /// What it asks for where `X-Scope-OrgID` is absent.
    pub(super) tenant: Option<At<Box<str>>>,
    /// `None` where the key is absent: from anywhere.
    pub(super) networks: Option<Vec<At<NetworkEntry>>>,
    pub(super) behind_proxy: bool,
}

/// Who is no longer let in.
#[derive(Debug, Default)]
pub(super) struct RevokedEntry {
    pub(super) principals: Vec<RevokedPrincipal>,
    pub(super) groups: Vec<At<Box<str>>>,
    pub(super) tokens_sha256: Vec<At<Sha256>>,
    /// The issuer's name, and the key's `kid`.
    pub(super) keys: Vec<(At<Box<str>>, At<Box<str>>)>,
}

/// Somebody who is no longer let in.
#[derive(Debug)]
pub(super) struct RevokedPrincipal {
    /// Its position in the list.
    pub(super) number: usize,
    /// The issuer's name, or `service`.
    pub(super) issuer: At<Box<str>>,
    /// `sub` or `oid`, or an account's name.
    pub(super) id: At<Box<str>>,
    /// Unix seconds.
    pub(super) until: Option<At<u64>>,
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
    /// Where they are written, if they are.
    pub(super) scopes_place: Option<Place>,
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
    /// None but these are bound: those of the owner, where the restriction is an owner's.
    pub within: ScopeSet,
}

impl RestrictedScopes {
    /// Whether a request of this scope, to any of these backends, is bound.
    pub fn cover(&self, scope: Scope, backends: BackendSet) -> bool {
        let rules =
            matches!(scope, Scope::RulesRead | Scope::RulesWrite | Scope::AlertsRead | Scope::AlertsWrite);
        let named = self.scopes.contains(scope) || (rules && self.rules_of.intersects(backends));
        named && self.within.contains(scope)
    }
}

/// The keys of a policy that this version serves.
pub(in crate::policy) const SERVED: [&str; 17] = [
    "version",
    "mode",
    "shadow_until",
    "issuers",
    "token_headers",
    "service_accounts",
    "group_names",
    "authorizations",
    "grants",
    "networks",
    "client_ip",
    "restrictions",
    "revoked",
    "audit",
    "denials",
    "tests",
    "owners",
];

/// Reads a whole document; whatever is wrong with it goes to `problems`.
pub(super) fn read(root: &Node, problems: &mut Problems) -> Document {
    let mut document = Document::default();
    let Some(fields) = problems.fields(root, &Path::Root, &SERVED) else { return document };
    read_version(&fields, problems);
    document.shadow_until = read_mode(&fields, problems);
    document.issuers = read_issuers(&fields, problems);
    document.token_headers = read_token_headers(&fields, problems);
    document.service_accounts = read_service_accounts(&fields, problems);
    document.group_names = read_group_names(&fields, problems);
    document.grants = read_authorizations(&fields, problems);
    document.grants.extend(read_grants(&fields, problems));
    document.networks = read_networks(&fields, problems);
    document.client_ip = read_client_ip(&fields, problems);
    document.has_client_ip = fields.get("client_ip").is_some();
    document.restrictions = read_restrictions(&fields, problems);
    document.revoked = read_revoked(&fields, problems);
    document.audit = read_audit(&fields, problems).unwrap_or_default();
    document.denial_help = read_denials(&fields, problems);
    document.cases = read_cases(&fields, problems);
    document.owners = read_owners(&fields, problems);
    document
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

/// Until when the whole gateway only records; `None` where it enforces.
fn read_mode(fields: &Fields<'_>, problems: &mut Problems) -> Option<At<u64>> {
    let until = fields
        .get("shadow_until")
        .and_then(|node| read_time(node, &Path::Root.key("shadow_until"), problems));
    let node = fields.get("mode")?;
    let path = Path::Root.key("mode");
    let shadow = problems.word(node, &path, &[("enforce", false), ("shadow", true)])?;
    if shadow && fields.get("shadow_until").is_none() {
        problems
            .error(
                node.place,
                &Path::Root.key("shadow_until"),
                "missing key `shadow_until`: shadow mode needs an end",
            )
            .help("add `shadow_until: 2027-01-31T00:00:00Z`, at most 31 days ahead");
    }
    until.filter(|_| shadow)
}

/// The keys of `audit`.
pub(super) const AUDIT: [&str; 2] = ["query", "max_bytes"];

fn read_audit(fields: &Fields<'_>, problems: &mut Problems) -> Option<Audit> {
    let node = fields.get("audit")?;
    let path = Path::Root.key("audit");
    let fields = problems.fields(node, &path, &AUDIT)?;
    let known = [("full", QueryAudit::Full), ("hash", QueryAudit::Hash), ("none", QueryAudit::None)];
    let query = fields.get("query").and_then(|node| problems.word(node, &path.key("query"), &known));
    let max_bytes =
        fields.get("max_bytes").and_then(|node| read_max_bytes(node, &path.key("max_bytes"), problems));
    let default = Audit::default();
    Some(Audit { query: query.unwrap_or(default.query), max_bytes: max_bytes.unwrap_or(default.max_bytes) })
}

/// The keys of `denials`.
pub(super) const DENIALS: [&str; 1] = ["help"];

/// What an address in a denial may be long, in bytes: Grafana shows it in one line.
pub(super) const MAX_HELP: usize = 500;

/// Where a person who was denied reads on.
fn read_denials(fields: &Fields<'_>, problems: &mut Problems) -> Option<Box<str>> {
    let path = Path::Root.key("denials");
    let fields = problems.fields(fields.get("denials")?, &path, &DENIALS)?;
    let path = path.key("help");
    let text = problems.text(fields.get("help")?, &path)?;
    if let Err(why) = check_help(text.value) {
        // Another character would stand in an answer to a client.
        let shown: String = text.value.chars().take(100).flat_map(char::escape_debug).collect();
        problems.error(text.place, &path, format!("`{shown}` {why}")).help(
            "write an address as `https://wiki.example.com/grafana-access`; other characters percent-encoded",
        );
        return None;
    }
    Some(text.value.into())
}

/// An address that can stand in a line of text, in JSON and in a page as it is: what RFC 3986 allows in a URI.
fn check_help(text: &str) -> Result<(), &'static str> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = rest else { return Err("is no address that begins with `https://` or `http://`") };
    if text.len() > MAX_HELP {
        return Err("is longer than 500 bytes");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if !rest.bytes().all(allowed) {
        return Err("holds a character that no address holds");
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match host {
        "" => Err("names no host"),
        host if host.contains('@') => Err("holds a user's name or password"),
        _ => Ok(()),
    }
}

fn read_max_bytes(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<usize> {
    let Value::Number(written) = &node.value else {
        problems.wrong_type(node, path, "a number of bytes");
        return None;
    };
    let bytes = written.parse().ok().filter(|bytes| Audit::MAX_BYTES.contains(bytes));
    if bytes.is_none() {
        let (least, most) = (Audit::MAX_BYTES.start(), Audit::MAX_BYTES.end());
        problems
            .error(node.place, path, format!("`{written}` is not a number of bytes from {least} to {most}"))
            .help("write `4000` where the log is a pipe or syslog; the default is 16384");
    }
    bytes
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

fn plain_text(_: &mut Problems, text: At<&str>, _: &Path<'_>) -> Option<Box<str>> {
    Some(text.value.into())
}

/// A list of SHA-256 of tokens. What is written instead is never repeated in a message: it may be a token itself, and
/// messages are logged.
fn token_hashes(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Vec<At<Sha256>> {
    const HELP: &str = "of a service token `tenantauth keygen --service-account` prints it; else `printf %s TOKEN | sha256sum`";
    if matches!(node.value, Value::Text(_)) {
        problems.error(node.place, path, "expected a list, found a string").help("write a list: [...]");
        return Vec::new();
    }
    problems.list_of(node, path, |problems, text, path| {
        let sum = Sha256::from_hex(text.value);
        if sum.is_none() {
            problems.error(text.place, path, "expected a SHA-256: 64 hexadecimal digits").help(HELP);
        }
        sum
    })
}

fn boxed(text: At<&str>) -> At<Box<str>> {
    At::new(text.value.into(), text.place)
}

fn refuse_empty(node: &Node, path: &Path<'_>, problems: &mut Problems) {
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        problems.error(node.place, path, "the list is empty").help("name at least one, or remove the key");
    }
}
