//! The document format as a JSON Schema (draft 7, which editors know best), made from the tables by which documents
//! are read: their keys, words, scopes and limits.
//!
//! A schema looks at one value at a time. What needs two (a network that is not defined, a name given twice, a test
//! that fails) only `tenantauth check` finds.

use super::document::{
    AUDIT, Audit, DENIALS, MAX_HELP, SERVED, cases, issuers, networks, owners, revoked, rules,
    service_accounts,
};
use crate::reason::Reason;
use crate::scope::{Backend, Scope, ScopeSet};
use crate::tenant::{MAX_TENANT_BYTES, MAX_WILDCARDS};
use crate::token::algorithm::Algorithm;
use crate::token::claims::GroupsFormat;
use serde_json::{Map, Value, json};

/// The schema of a policy document.
pub fn policy() -> Value {
    let mut schema = mapping(&SERVED, section, &["version", "issuers"]);
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tenantauth policy",
        "description": "Who may reach which tenants of Mimir, Loki and Tempo, for what, and from where.",
    });
    let shadow = json!({
        "if": {"properties": {"mode": {"const": "shadow"}}, "required": ["mode"]},
        "then": {"required": ["shadow_until"]},
    });
    if let (Value::Object(schema), Value::Object(head), Value::Object(shadow)) = (&mut schema, head, shadow) {
        schema.extend(head);
        schema.extend(shadow);
    }
    schema
}

/// The schema of an owner's document.
pub fn owner() -> Value {
    let mut schema = mapping(&owners::DOCUMENT, section_of_owner, &[]);
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tenantauth owner's document",
        "description": "Rules of one owner, for the tenants and scopes that the platform's document gives to it.",
    });
    if let (Value::Object(schema), Value::Object(head)) = (&mut schema, head) {
        schema.extend(head);
    }
    schema
}

fn section_of_owner(key: &str) -> Value {
    match key {
        "grants" => told(section(key), "Groups may use scopes on the owner's tenants."),
        "networks" => {
            told(section(key), "Name: addresses and CIDRs; the names are known in this document alone.")
        }
        "restrictions" => told(
            json!({
                "type": "array",
                "items": mapping(&rules::RESTRICTION, owner_restriction_key, &["networks"]),
            }),
            "Requests on the owner's tenants must come from these networks as well; they add to the platform's.",
        ),
        "tests" => told(
            section(key),
            "Requests, and what must become of them; one that fails refuses this document.",
        ),
        _ => section(key),
    }
}

fn owner_restriction_key(key: &str) -> Value {
    match key {
        "tenants" => told(restriction_key(key), "Which tenants it binds. Default: the owner's."),
        "scopes" => told(restriction_key(key), "What it binds. Default: the owner's scopes."),
        _ => restriction_key(key),
    }
}

/// A mapping of these keys and no others.
fn mapping(keys: &[&str], of_key: fn(&str) -> Value, required: &[&str]) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), of_key(key))).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Adds what an editor shows of a key.
fn told(mut schema: Value, description: &str) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), description.into());
    }
    schema
}

fn section(key: &str) -> Value {
    match key {
        "version" => told(json!({"const": 1}), "The version of the format."),
        "mode" => told(
            json!({"enum": ["enforce", "shadow"], "default": "enforce"}),
            "`shadow` records every decision and applies none, until `shadow_until`.",
        ),
        "shadow_until" => told(time(), "When shadow mode ends; at most 31 days ahead."),
        "issuers" => {
            told(json!({"type": "array", "minItems": 1, "items": issuer_schema()}), "Who may sign tokens.")
        }
        "token_headers" => told(
            some_of(json!({"type": "string", "pattern": "^[A-Za-z0-9-]+$"})),
            "The headers that may carry a token; the first one present counts. Default: [X-Id-Token].",
        ),
        "service_accounts" => told(
            json!({
                "type": "array",
                "items": mapping(&service_accounts::KNOWN, account_key, &["name", "token_sha256"]),
            }),
            "Callers without a user's token; the group of each is `service:<name>`.",
        ),
        "revoked" => told(mapping(&revoked::KNOWN, revoked_key, &[]), "Who no longer counts."),
        "owners" => told(
            json!({
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"},
                "additionalProperties": mapping(&owners::KNOWN, owner_key, &["tenants"]),
            }),
            "Who writes the rules of which tenants, each in `owners.d/<owner>.yaml`.",
        ),
        "group_names" => told(
            json!({
                "type": "object",
                "propertyNames": {"pattern": "^(?!\\*$|service:)[\\s\\S]+$"},
                "additionalProperties": {"anyOf": [raw_group(), some_of(raw_group())]},
            }),
            "Names for groups of the issuer: one group, or a list.",
        ),
        "authorizations" => told(
            json!({
                "type": "object",
                "propertyNames": {"minLength": 1},
                "additionalProperties": {"type": "array", "items": tenant()},
            }),
            "Group: tenants that it may read.",
        ),
        "grants" => told(
            json!({
                "type": "array",
                "items": mapping(&rules::GRANT, grant_key, &["groups", "tenants"]),
            }),
            "Groups may use scopes on tenants.",
        ),
        "networks" => told(
            json!({
                "type": "object",
                "propertyNames": {
                    "pattern": "^(?![0-9.]+$)[^/:\\s](?:[^/:]*[^/:\\s])?$",
                    "maxLength": 100,
                },
                "additionalProperties":
                    some_of(json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"})),
            }),
            "Name: addresses and CIDRs.",
        ),
        "client_ip" => told(client_ip(), "Where a person's address comes from."),
        "restrictions" => told(
            json!({
                "type": "array",
                "items": mapping(&rules::RESTRICTION, restriction_key, &["networks"]),
            }),
            "Requests on these tenants and scopes must come from these networks; every one that applies must be satisfied.",
        ),
        "audit" => told(mapping(&AUDIT, audit_key, &[]), "What the audit log keeps."),
        "denials" => told(mapping(&DENIALS, denials_key, &[]), "What the text of a denial holds."),
        "tests" => told(
            json!({"type": "array", "items": case()}),
            "Requests, and what must become of them; one that fails refuses the policy.",
        ),
        _ => Value::Null,
    }
}

/// A list that is not empty.
fn some_of(items: Value) -> Value {
    json!({"type": "array", "minItems": 1, "items": items})
}

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn name() -> Value {
    told(
        json!({"type": "string", "pattern": "^\\S(?:.*\\S)?$", "maxLength": 100}),
        "Shown in messages, records and metrics.",
    )
}

/// A group as an issuer gives it.
fn raw_group() -> Value {
    json!({"type": "string", "pattern": "^(?!\\*$|service:)[\\s\\S]+$"})
}

/// `*` alone, or groups, those of service accounts included.
fn grantees() -> Value {
    let group = json!({"type": "string", "pattern": "^(?!\\*$)[\\s\\S]+$"});
    json!({"anyOf": [{"const": ["*"]}, some_of(group)]})
}

/// `*` alone, or groups.
fn groups() -> Value {
    json!({"anyOf": [
        {"const": ["*"]},
        some_of(raw_group()),
    ]})
}

fn tenant() -> Value {
    json!({
        "type": "string",
        "pattern": format!(
            "^(?!\\.{{1,2}}$|__mimir_cluster$)(?=[A-Za-z0-9!_.*'()-]{{1,{MAX_TENANT_BYTES}}}$)[^*]*(?:\\*[^*]*){{0,{MAX_WILDCARDS}}}$"
        ),
    })
}

/// A tenant that is no pattern.
fn one_tenant() -> Value {
    json!({
        "type": "string",
        "pattern": format!("^(?!\\.{{1,2}}$|__mimir_cluster$)[A-Za-z0-9!_.'()-]{{1,{MAX_TENANT_BYTES}}}$"),
    })
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time", "examples": ["2027-01-31T00:00:00Z"]})
}

/// Everything that `scopes` of a rule may list.
fn scope_pattern() -> Value {
    let signals = || {
        let mut signals: Vec<&str> = Scope::ALL.into_iter().map(Scope::signal).collect();
        signals.dedup();
        std::iter::once("*").chain(signals)
    };
    let written = signals().flat_map(|signal| {
        ["*", "read", "write", "delete"].into_iter().map(move |action| format!("{signal}:{action}"))
    });
    let known: Vec<String> = written.filter(|text| ScopeSet::from_pattern(text).is_some()).collect();
    json!({"enum": known})
}

fn issuer_schema() -> Value {
    let mut schema = mapping(&issuers::SERVED, issuer_key, &["issuer", "audiences"]);
    if let Value::Object(schema) = &mut schema {
        // Without any of them the keys are discovered; only keys that are fetched need certificates.
        let both = |one: &str, other: &str| json!({"required": [one, other]});
        let excluded = [
            both("jwks_url", "jwks_file"),
            both("jwks_url", "jwks"),
            both("jwks_file", "jwks"),
            both("jwks_file", "ca_file"),
            both("jwks", "ca_file"),
        ];
        schema.insert("not".to_owned(), json!({"anyOf": excluded}));
    }
    schema
}

fn issuer_key(key: &str) -> Value {
    match key {
        "name" => {
            let mut schema = name();
            if let Value::Object(schema) = &mut schema {
                schema.insert("not".to_owned(), json!({"anyOf": [{"const": "service"}, {"pattern": ":"}]}));
            }
            schema
        }
        "issuer" => told(text(), "Compared exactly with `iss`."),
        "audiences" => told(some_of(text()), "One of them must be in `aud`."),
        "jwks_url" => told(
            json!({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^#\\s]+$"}),
            "Where the issuer publishes its keys. Default: OpenID discovery.",
        ),
        "ca_file" => {
            told(text(), "Certificates (PEM) to trust when keys are fetched, instead of the system's.")
        }
        "bare_groups" => told(
            json!({"type": "boolean", "default": false}),
            "Among several issuers: this one's groups are written without its name.",
        ),
        "jwks_file" => told(text(), "The file of the issuer's public keys (JWKS); watched."),
        "jwks" => told(
            json!({"type": "object", "properties": {"keys": {"type": "array"}}, "required": ["keys"]}),
            "The issuer's public keys themselves.",
        ),
        "algorithms" => {
            let names: Vec<&str> =
                Algorithm::ALL.into_iter().map(Algorithm::name).chain(["Ed25519"]).collect();
            told(some_of(json!({"enum": names})), "How tokens may be signed. Default: [RS256].")
        }
        "groups_claim" => told(
            json!({"anyOf": [text(), some_of(text())]}),
            "A claim's name, or a JSON Pointer like /realm_access/roles; or a list of them, whose groups are united.",
        ),
        "groups_format" => told(
            json!({"enum": GroupsFormat::ALL.map(GroupsFormat::name), "default": "list"}),
            "How the claim writes the groups.",
        ),
        "user_claim" => told(text(), "The claim that names a person in the audit log."),
        "leeway" => told(
            // At most five minutes.
            json!({"type": "string", "pattern": "^(?:0*(?:[0-9]{1,2}|[12][0-9]{2}|300)s|0*[0-5]m)$", "default": "60s"}),
            "How far clocks may differ: `60s`, `2m`.",
        ),
        _ => Value::Null,
    }
}

fn grant_key(key: &str) -> Value {
    match key {
        "name" => name(),
        "groups" => {
            told(grantees(), "Who; [\"*\"] is every verified user, `service:<name>` a service account.")
        }
        "tenants" => told(some_of(tenant()), "`*` is any run of characters."),
        "except_tenants" => told(some_of(tenant()), "But not these."),
        "scopes" => told(some_of(scope_pattern()), "What may be done. Default: every *:read."),
        "expires" => told(time(), "From then on it grants nothing."),
        _ => Value::Null,
    }
}

fn restriction_key(key: &str) -> Value {
    match key {
        "name" => name(),
        "tenants" => told(some_of(tenant()), "Which tenants it binds. Default: [\"*\"]."),
        "except_tenants" => told(some_of(tenant()), "But not these."),
        "scopes" => told(some_of(scope_pattern()), "What it binds. Default: every scope."),
        "groups" => told(groups(), "Whom it binds. Default: [\"*\"]."),
        "except_groups" => told(groups(), "Whoever is in one of them is not bound."),
        "networks" => told(some_of(text()), "Names of `networks`, CIDRs or addresses."),
        "mode" => told(
            json!({"enum": ["enforce", "shadow"], "default": "enforce"}),
            "`shadow` records what it would deny, and denies nothing.",
        ),
        _ => Value::Null,
    }
}

fn digest() -> Value {
    json!({"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"})
}

fn denials_key(key: &str) -> Value {
    match key {
        "help" => told(
            json!({
                "type": "string",
                "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9._~:!$&'()*+,;=%\\[\\]-]+\
                            ([/?#][A-Za-z0-9._~:/?#@!$&'()*+,;=%\\[\\]-]*)?$",
                "maxLength": MAX_HELP,
            }),
            "The address that every denial names: where a person reads on.",
        ),
        _ => Value::Null,
    }
}

fn account_key(key: &str) -> Value {
    match key {
        "name" => {
            let mut schema = name();
            if let Value::Object(schema) = &mut schema {
                schema.insert("not".to_owned(), json!({"pattern": "[:*]"}));
            }
            schema
        }
        "token_sha256" => {
            told(some_of(digest()), "The SHA-256 of its tokens, as `tenantauth keygen` prints it.")
        }
        "tenant" => told(
            one_tenant(),
            "The tenant that it asks for where X-Scope-OrgID is absent; what it may reach, its grants say.",
        ),
        "networks" => told(some_of(text()), "Where its TCP peer must be. Default: anywhere."),
        "behind_proxy" => told(
            json!({"type": "boolean"}),
            "Its requests come through a proxy: X-Forwarded-For beside its token is no sign of a person. Default: false.",
        ),
        _ => Value::Null,
    }
}

fn revoked_key(key: &str) -> Value {
    match key {
        "principals" => told(
            json!({"type": "array", "items": mapping(&revoked::PRINCIPAL, revoked_principal_key, &revoked::PRINCIPAL_REQUIRED)}),
            "Users by issuer and `sub` or `oid`; service accounts by issuer `service` and name.",
        ),
        "groups" => told(json!({"type": "array", "items": text()}), "Dropped from every principal."),
        "tokens_sha256" => {
            told(json!({"type": "array", "items": digest()}), "Whole tokens, by their SHA-256.")
        }
        "keys" => told(
            json!({"type": "array", "items": mapping(&revoked::KEY, revoked_issuers_key, &revoked::KEY)}),
            "Keys of issuers: no token that one of them signed counts.",
        ),
        _ => Value::Null,
    }
}

fn revoked_principal_key(key: &str) -> Value {
    match key {
        "issuer" => told(text(), "The issuer's name in this policy, or `service`."),
        "id" => told(text(), "`sub` or `oid`, or the account's name."),
        "until" => told(time(), "From then on the entry revokes nobody. Default: it does not end."),
        _ => Value::Null,
    }
}

fn revoked_issuers_key(key: &str) -> Value {
    match key {
        "issuer" => told(text(), "The issuer's name in this policy."),
        "kid" => told(text(), "The key's id, as `tenantauth keys` shows it."),
        _ => Value::Null,
    }
}

fn owner_key(key: &str) -> Value {
    match key {
        "tenants" => told(some_of(tenant()), "The tenants that its rules may name."),
        "except_tenants" => told(some_of(tenant()), "But not these: its rules never reach them."),
        "scopes" => told(some_of(scope_pattern()), "What its grants may give. Default: every *:read."),
        "contact" => told(text(), "Whom to tell when its document is refused."),
        _ => Value::Null,
    }
}

fn audit_key(key: &str) -> Value {
    match key {
        "query" => told(
            json!({"enum": ["full", "hash", "none"], "default": "full"}),
            "How much of a URL's query the audit log keeps.",
        ),
        "max_bytes" => told(
            json!({
                "type": "integer",
                "minimum": Audit::MAX_BYTES.start(),
                "maximum": Audit::MAX_BYTES.end(),
                "default": Audit::default().max_bytes,
            }),
            "The length of a record in bytes; 4000 where the log is a pipe or syslog.",
        ),
        _ => Value::Null,
    }
}

fn client_ip() -> Value {
    let mut schema = mapping(&networks::KNOWN, client_ip_key, &[]);
    // Which other keys have a meaning depends on the source.
    let forbidden = |keys: &[&str]| {
        let each: Vec<Value> = keys.iter().map(|key| json!({"required": [key]})).collect();
        json!({"anyOf": each})
    };
    let rules = json!({
        "if": {"properties": {"source": {"pattern": "^header:"}}, "required": ["source"]},
        "then": {
            "required": ["trusted_peers"],
            "not": forbidden(&["cookie", "keys_file", "unsigned"]),
        },
        "else": {
            "if": {"properties": {"source": {"const": "remote_addr"}}, "required": ["source"]},
            "then": {"not": forbidden(&["cookie", "keys_file", "unsigned", "trusted_peers"])},
            "else": {
                "not": forbidden(&["trusted_peers"]),
                "if": {"required": ["keys_file"]},
                "then": {"properties": {"unsigned": {"const": false}}},
                "else": {"properties": {"unsigned": {"const": true}}, "required": ["unsigned"]},
            },
        },
    });
    if let (Value::Object(schema), Value::Object(rules)) = (&mut schema, rules) {
        schema.extend(rules);
    }
    schema
}

fn client_ip_key(key: &str) -> Value {
    match key {
        "source" => told(
            json!({"type": "string", "pattern": "^(?:cookie|remote_addr|header:[A-Za-z0-9-]+)$", "default": "cookie"}),
            "`cookie`, `remote_addr`, or `header:<Name>`.",
        ),
        // RFC 6265 section 4.1.1: a token.
        "cookie" => told(
            json!({"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "default": "Client_Ip"}),
            "The cookie's name.",
        ),
        "keys_file" => told(text(), "The file of the keys that may have signed the cookie; watched."),
        "unsigned" => told(json!({"type": "boolean"}), "`true` accepts addresses that nobody signed."),
        "trusted_peers" => told(some_of(text()), "The proxies whose header counts."),
        _ => Value::Null,
    }
}

fn case() -> Value {
    let mut schema = mapping(&cases::KNOWN, case_key, &["tenant", "expect"]);
    if let Value::Object(schema) = &mut schema {
        schema.insert(
            "allOf".to_owned(),
            json!([
                {"oneOf": [{"required": ["groups"]}, {"required": ["claims"]}]},
                {"oneOf": [{"required": ["scope"]}, {"required": ["request"]}]},
            ]),
        );
    }
    schema
}

fn case_key(key: &str) -> Value {
    match key {
        "name" => name(),
        "groups" => told(
            json!({"type": "array", "items": {"type": "string", "minLength": 1, "not": {"const": "*"}}}),
            "The person's groups, as the policy names them.",
        ),
        "claims" => told(json!({"type": "object"}), "What the person's token says, instead of groups."),
        "tenant" => told(text(), "The value of X-Scope-OrgID."),
        "scope" => told(json!({"enum": Scope::ALL.map(Scope::name)}), "What the request does."),
        "backend" => {
            let backend = json!({"enum": Backend::ALL.map(Backend::name)});
            told(json!({"anyOf": [backend, some_of(backend.clone())]}), "Where it goes.")
        }
        "request" => told(
            json!({"type": "string", "pattern": "^[A-Z_-]+ /"}),
            "Method and raw path, instead of a scope: `GET /loki/api/v1/labels`.",
        ),
        "client_ip" => told(
            json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]+$"}),
            "The person's address; without it it is not known.",
        ),
        "now" => told(time(), "The time of the request. Default: the clock."),
        "expect" => {
            let reasons = Reason::ALL.iter().map(|reason| reason.name());
            let known: Vec<&str> = ["allow", "deny"].into_iter().chain(reasons).collect();
            told(json!({"enum": known}), "What must become of it.")
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
