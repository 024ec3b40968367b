//! The tests of a policy, in its own `tests:` and in documents that hold nothing else.

use super::rules::read_time;
use super::{boxed, plain_text, read_name, refuse_empty, required};
use crate::client_ip::ClientIp;
use crate::policy::cases::{Case, Expected, Who};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::node::{Node, Value};
use crate::policy::reader::{At, Fields, LONGEST_COMPARED};
use crate::policy::sample::{Action, is_method};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};

/// The keys of one test.
pub(in crate::policy) const KNOWN: [&str; 10] =
    ["name", "groups", "claims", "tenant", "scope", "backend", "request", "client_ip", "now", "expect"];

/// The keys of a document of tests alone.
pub(in crate::policy) const FILE: [&str; 2] = ["version", "tests"];

/// Reads a document that holds `tests` and nothing else.
pub(in crate::policy) fn read_file(root: &Node, problems: &mut Problems) -> Vec<Case> {
    let Some(fields) = problems.fields(root, &Path::Root, &FILE) else { return Vec::new() };
    if fields.get("version").is_some() {
        super::read_version(&fields, problems);
    }
    required(&fields, "tests", &Path::Root, problems);
    read_cases(&fields, problems)
}

pub(super) fn read_cases(fields: &Fields<'_>, problems: &mut Problems) -> Vec<Case> {
    let Some(node) = fields.get("tests") else { return Vec::new() };
    let list = Path::Root.key("tests");
    let mut cases = Vec::new();
    for (number, item) in problems.items(node, &list).iter().enumerate() {
        cases.extend(read_case(item, &list.item(number), problems));
    }
    cases
}

fn read_case(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<Case> {
    let fields = problems.fields(node, path, &KNOWN)?;
    let name = read_name(&fields, path, problems);
    let who = read_who(&fields, path, problems);
    let tenant = required(&fields, "tenant", path, problems)
        .and_then(|node| problems.text(node, &path.key("tenant")))
        .map(boxed);
    let action = read_action(&fields, path, problems);
    let client_ip = match fields.get("client_ip") {
        None => Some(None),
        Some(node) => read_address(node, &path.key("client_ip"), problems).map(Some),
    };
    let now = match fields.get("now") {
        None => Some(None),
        Some(node) => read_time(node, &path.key("now"), problems).map(|time| Some(time.value)),
    };
    let expected = required(&fields, "expect", path, problems)
        .and_then(|node| read_expected(node, &path.key("expect"), problems));
    Some(Case {
        name: name.map_or_else(|| path.to_string().into(), |name| name.value),
        path: path.to_string().into(),
        place: node.place,
        who: who?,
        tenant: tenant?.value,
        action: action?,
        client_ip: client_ip?,
        now: now?,
        expected: expected?,
    })
}

fn read_who(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems) -> Option<Who> {
    match (fields.get("groups"), fields.get("claims")) {
        (None, None) => {
            problems
                .error(fields.place, &path.key("groups"), "missing key `groups`")
                .help("add `groups: [...]`, or `claims: {...}`");
            None
        }
        (Some(_), Some(_)) => {
            let place = fields.key_place("claims").unwrap_or(fields.place);
            problems
                .error(place, &path.key("claims"), "`groups` and `claims` exclude each other")
                .help("keep one of them");
            None
        }
        // An empty list is a principal without groups.
        (Some(node), None) => {
            let path = path.key("groups");
            let groups = problems.list_of(node, &path, plain_text);
            for group in &groups {
                if &*group.value == "*" {
                    problems
                        .error(group.place, &path.item(group.number), "`*` is no group that anybody holds")
                        .help(
                            "name groups; `groups: []` is a principal without any, for whom `*` grants too",
                        );
                }
            }
            Some(Who::Groups(groups.into_iter().map(|group| group.value).collect()))
        }
        (None, Some(node)) => match node.value {
            Value::Map(_) => Some(Who::Claims(node.to_json())),
            _ => {
                problems.wrong_type(node, &path.key("claims"), "a mapping");
                None
            }
        },
    }
}

/// The action, or the reason for which no route serves it, which a test may expect.
fn read_action(
    fields: &Fields<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<Result<Action, Reason>> {
    let named = match fields.get("backend") {
        None => Some(BackendSet::EMPTY),
        Some(node) => read_backends(node, &path.key("backend"), problems),
    };
    let backends = named.unwrap_or_default();
    let action = match (fields.get("scope"), fields.get("request")) {
        (None, None) => {
            problems
                .error(fields.place, &path.key("scope"), "missing key `scope`")
                .help("add `scope: logs:read`, or `backend: loki` and `request: \"GET /path\"`");
            None
        }
        (Some(_), Some(_)) => {
            let place = fields.key_place("request").unwrap_or(fields.place);
            problems
                .error(place, &path.key("request"), "`scope` and `request` exclude each other")
                .help("keep one of them");
            None
        }
        (Some(node), None) => {
            let path = path.key("scope");
            let known = Scope::ALL.map(|scope| (scope.name(), scope));
            let scope = problems.word(node, &path, &known)?;
            let action = Action::of_scope(scope, backends);
            if action.is_none() {
                let names: Vec<_> = backends.iter().map(Backend::name).collect();
                problems
                    .error(
                        node.place,
                        &path,
                        format!("no route of {} needs the scope `{scope}`", names.join(", ")),
                    )
                    .help("`tenantauth routes` prints the table");
            }
            action.map(Ok)
        }
        (None, Some(node)) => {
            let path = path.key("request");
            let text = problems.text(node, &path)?;
            let parts = text.value.split_once(' ');
            let Some((method, target)) =
                parts.filter(|(method, target)| is_method(method) && target.starts_with('/'))
            else {
                problems
                    .error(text.place, &path, format!("`{}` is no method and path", text.value))
                    .help("write it as on the wire: `GET /loki/api/v1/labels`");
                return None;
            };
            Some(Action::of_request(backends, method, target))
        }
    };
    named.and(action)
}

/// A name or a list of names, as `enforce` takes them.
fn read_backends(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<BackendSet> {
    let read = |problems: &mut Problems, text: At<&str>, path: &Path<'_>| {
        let backend = Backend::from_name(text.value);
        if backend.is_none() {
            let names: Vec<_> = Backend::ALL.map(|backend| format!("`{}`", backend.name())).into();
            problems
                .error(text.place, path, format!("unknown value `{}`", text.value))
                .help(format!("it must be one of {}", names.join(", ")));
        }
        backend
    };
    let backends: BackendSet = match node.value {
        Value::List(_) => {
            refuse_empty(node, path, problems);
            problems.list_of(node, path, read).into_iter().map(|backend| backend.value).collect()
        }
        _ => {
            let text = problems.text(node, path)?;
            read(problems, text, path).into_iter().collect()
        }
    };
    (!backends.is_empty()).then_some(backends)
}

fn read_address(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<ClientIp> {
    let text = problems.text(node, path)?;
    let address = ClientIp::parse(text.value.as_bytes());
    if address.is_err() {
        problems
            .error(text.place, path, format!("`{}` is no address", text.value))
            .help("one IPv4 or IPv6 address, or no `client_ip` for one that is not known");
    }
    address.ok()
}

fn read_expected(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<Expected> {
    let text = problems.text(node, path)?;
    let expected = match text.value {
        "allow" => Some(Expected::Allow),
        "deny" => Some(Expected::Deny),
        name => Reason::from_name(name).map(Expected::Reason),
    };
    if expected.is_none() {
        let is_told = !problems.is_full() && text.value.len() <= LONGEST_COMPARED;
        let nearest = Reason::ALL
            .iter()
            .filter(|_| is_told)
            .map(|reason| (strsim::damerau_levenshtein(reason.name(), text.value), reason))
            .min_by_key(|(distance, _)| *distance);
        let problem =
            problems.error(text.place, path, format!("`{}` is no decision and no reason", text.value));
        problem.help(match nearest {
            Some((0..=3, reason)) => format!("did you mean `{reason}`?"),
            _ => "`allow`, `deny` or a reason, as `ip_forbidden`".to_owned(),
        });
    }
    expected
}
