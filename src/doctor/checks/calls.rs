//! The calls of the module's functions: names, options, phases, and the files that options name.

use super::{Findings, check_file};
use crate::doctor::Kind;
use crate::doctor::files::Files;
use crate::doctor::lua::Call;
use crate::doctor::options::{self, FUNCTIONS, Mistake};
use crate::doctor::tree::{Handler, Tree, text};
use std::path::Path;

/// The policy of a worker that nobody names one to.
const DEFAULT_POLICY: &str = "/etc/tenantauth/policy.yaml";

pub(super) fn check(tree: &Tree<'_>, files: &dyn Files, found: &mut Findings) {
    for (_, handler) in tree.handlers() {
        if let Some(path) = &handler.missing {
            let message = format!("there is no Lua file `{}`", path.display());
            let help =
                "write the path of a file that is there: nginx answers each request 500 or 404 without it";
            found.fault(Kind::LuaFile, &handler.directive.place, message, help);
        }
        for call in &handler.code.calls {
            function(handler, call, found);
            phase(handler, call, found);
            files_of(tree, files, handler, call, found);
        }
    }
    drop_in(tree, files, found);
}

fn function(handler: &Handler<'_>, call: &Call, found: &mut Findings) {
    let name = &call.function;
    if !FUNCTIONS.contains(&&**name) {
        let near = FUNCTIONS.iter().map(|own| (strsim::damerau_levenshtein(own, name), *own)).min();
        let help = match near {
            Some((0..=3, own)) => format!("did you mean `{own}`?"),
            _ => format!("the functions are {}", FUNCTIONS.map(|own| format!("`{own}`")).join(", ")),
        };
        let message = format!("tenantauth has no function `{name}`");
        return found.fault(Kind::UnknownFunction, &handler.place(call.line), message, help);
    }
    let reference = format!("docs/reference.md lists the options of `{name}`");
    for mistake in options::mistakes(call) {
        let (kind, line, message, help) = match mistake {
            Mistake::NoTable(got) => {
                let message = format!("tenantauth.{name}: options must be a table, got {got}");
                (Kind::OptionValue, call.line, message, format!("write `{name} {{ ... }}`"))
            }
            Mistake::Unknown(option, near, line) => {
                let message = format!("tenantauth.{name}: unknown option `{option}`");
                let help = near.map_or(reference.clone(), |near| format!("did you mean `{near}`?"));
                (Kind::OptionUnknown, line, message, help)
            }
            Mistake::Value(option, problem, line) => {
                let message = format!("tenantauth.{name}: option `{option}` {problem}");
                (Kind::OptionValue, line, message, reference.clone())
            }
            Mistake::Conflict(problem) => {
                let message = format!("tenantauth.{name}: {problem}");
                (Kind::OptionConflict, call.line, message, reference.clone())
            }
        };
        found.fault(kind, &handler.place(line), message, help);
    }
}

/// Where the function may be called.
fn phase(handler: &Handler<'_>, call: &Call, found: &mut Findings) {
    let (allowed, shown): (&[&str], _) = match &*call.function {
        "init_worker" => (&["init_worker"], "init_worker_by_lua_block"),
        "enforce" | "stamp_client_ip" => (&["rewrite", "access"], "rewrite_by_lua_block"),
        "metrics" | "status" => (&["content"], "content_by_lua_block"),
        _ => return,
    };
    // What init_by_lua* may do is said with the setup.
    if allowed.contains(&handler.phase) || handler.phase == "init" {
        return;
    }
    let (place, help) = (handler.place(call.line), format!("call it in {shown}"));
    if allowed == ["content"] {
        let message =
            format!("`{}` belongs in content_by_lua*, and not in {}_by_lua*", call.function, handler.phase);
        return found.hint(Kind::Phase, &place, message, help);
    }
    let message = format!("`{}` cannot be called in {}_by_lua*", call.function, handler.phase);
    found.fault(Kind::Phase, &place, message, help);
}

/// The files that options name.
fn files_of(tree: &Tree<'_>, files: &dyn Files, handler: &Handler<'_>, call: &Call, found: &mut Findings) {
    for (option, what) in [("policy", "policy"), ("keys_file", "keys file"), ("state_dir", "state directory")]
    {
        let Some(path) = text(call, option).filter(|path| !path.is_empty()).map(Path::new) else { continue };
        let place = handler.place(call.line);
        if path.is_relative() {
            let message =
                format!("`{}` is relative: to the directory in which nginx was started", path.display());
            found.fault(
                Kind::RelativePath,
                &place,
                message,
                format!("write the absolute path of the {what}"),
            );
            continue;
        }
        let document = path.join("policy.yaml");
        let is_directory = option == "policy" && files.exists(&document) == Ok(true);
        check_file(tree, files, &place, what, if is_directory { &document } else { path }, found);
    }
}

/// Where nobody calls `init_worker`, the first `enforce` takes the default policy, or that of the environment.
fn drop_in(tree: &Tree<'_>, files: &dyn Files, found: &mut Findings) {
    let names_policy = tree.calls("init_worker").next().is_some()
        || tree.handlers().any(|(_, handler)| handler.phase == "init_worker" && handler.code.loads_others);
    let enforced = tree.calls("enforce").next();
    let Some((handler, call)) = enforced.filter(|_| !names_policy) else { return };
    let variables = tree.configuration.directives.iter().filter(|directive| directive.name == "env");
    let passed =
        variables.map(|env| env.argument(0)).find_map(|value| value.strip_prefix("TENANTAUTH_POLICY"));
    let place = handler.place(call.line);
    match passed.map(|rest| rest.strip_prefix('=')) {
        Some(Some(path)) => check_file(tree, files, &place, "policy", Path::new(path), found),
        // What nginx's environment holds cannot be seen here.
        Some(None) => {}
        None if files.exists(Path::new(DEFAULT_POLICY)) == Ok(false) => found.fault(
            Kind::FileMissing,
            &place,
            format!("there is no policy `{DEFAULT_POLICY}`, and nothing names another one"),
            "call `init_worker` with `policy`, or write `env TENANTAUTH_POLICY;` at the top of nginx.conf",
        ),
        None => check_file(tree, files, &place, "policy", Path::new(DEFAULT_POLICY), found),
    }
}
