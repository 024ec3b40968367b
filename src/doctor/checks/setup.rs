//! What stands in the main and http contexts: module, shared dict, `http.conf`, log levels, included files.

use super::Findings;
use crate::doctor::Kind;
use crate::doctor::files::Files;
use crate::doctor::nginx::Place;
use crate::doctor::tree::{Level, Tree, text};
use std::path::Path;

/// Where LuaJIT and OpenResty look for modules by themselves.
const DEFAULT_CPATH: [&str; 5] = [
    "/usr/local/lib/lua/5.1/?.so",
    "/usr/lib/x86_64-linux-gnu/lua/5.1/?.so",
    "/usr/lib/aarch64-linux-gnu/lua/5.1/?.so",
    "/usr/local/openresty/lualib/?.so",
    "/usr/local/openresty/site/lualib/?.so",
];

pub(super) fn check(tree: &Tree<'_>, files: &dyn Files, found: &mut Findings) {
    includes(tree, found);
    let first_of =
        |functions: &[&'static str]| functions.iter().find_map(|function| tree.calls(function).next());
    if first_of(&["enforce", "stamp_client_ip", "init_worker"]).is_none()
        && !tree.handlers().any(|(_, handler)| handler.code.loads_others)
    {
        let name = tree.configuration.directives.first().map(|first| first.place.clone());
        let place = name.unwrap_or(Place { file: "nginx.conf".into(), line: 1 });
        let help = "protect a server with `rewrite_by_lua_block { require(\"tenantauth\").enforce { ... } }`";
        found.hint(Kind::NotCalled, &place, "nothing here calls tenantauth for requests", help);
    }
    let calls = ["init_worker", "enforce", "stamp_client_ip", "metrics", "status"];
    let Some(first) = first_of(&calls) else { return };
    let place = first.0.place(first.1.line);
    module(tree, files, &place, found);
    shared_dict(tree, found);
    http_conf(tree, found);
    directives(tree, found);
}

fn includes(tree: &Tree<'_>, found: &mut Findings) {
    for (place, name, error) in &tree.configuration.missing {
        let message = format!("cannot read the included file `{name}`: {error}");
        if error.is_missing() {
            let help = "write the path under which it is installed, or examine what `nginx -T` prints";
            found.fault(Kind::IncludeMissing, place, message, help);
        } else {
            found.hint(
                Kind::IncludeMissing,
                place,
                message,
                "run this as root, or examine what `nginx -T` prints",
            );
        }
    }
}

/// Whether `require "tenantauth"` finds the module.
fn module(tree: &Tree<'_>, files: &dyn Files, called: &Place, found: &mut Findings) {
    if tree.handlers().any(|(_, handler)| handler.code.sets_cpath) {
        return;
    }
    let own = tree.ids(Level::Http).find_map(|id| tree.own(id, "lua_package_cpath").last());
    // What cannot be seen may be there: nginx's prefix is compiled into it.
    let is_there = |template: &str| {
        template.contains('$') || files.exists(Path::new(&template.replace('?', "tenantauth"))) != Ok(false)
    };
    let help = "write `lua_package_cpath \"/usr/local/lib/tenantauth/?.so;;\";` into http {}, with the \
     directory that \
                holds tenantauth.so";
    let Some(own) = own else {
        if DEFAULT_CPATH
            .iter()
            .any(|template| files.exists(Path::new(&template.replace('?', "tenantauth"))) == Ok(true))
        {
            return;
        }
        return found.fault(
            Kind::Module,
            called,
            "no `lua_package_cpath`: nginx does not find the module tenantauth.so",
            help,
        );
    };
    let templates = own.argument(0).split(';').filter(|template| !template.is_empty());
    let has_defaults = own.argument(0).contains(";;");
    let defaults = DEFAULT_CPATH.into_iter().filter(|_| has_defaults);
    if !templates.chain(defaults).any(is_there) {
        let message = format!("`lua_package_cpath` leads to no tenantauth.so: `{}`", own.argument(0));
        found.fault(Kind::Module, &own.place, message, help);
    }
}

fn shared_dict(tree: &Tree<'_>, found: &mut Findings) {
    let declared: Vec<&str> = tree
        .ids(Level::Http)
        .flat_map(|id| tree.own(id, "lua_shared_dict").map(|dict| dict.argument(0)))
        .collect();
    for (handler, call) in tree.calls("init_worker") {
        let Some(name) = text(call, "shared_dict").filter(|name| !declared.contains(name)) else { continue };
        found.fault(
            Kind::SharedDict,
            &handler.place(call.line),
            format!("there is no shared dict `{name}`"),
            format!("write `lua_shared_dict {name} 10m;` into http {{}}"),
        );
    }
    let names_one = tree.calls("init_worker").any(|(_, call)| text(call, "shared_dict").is_some());
    let Some((handler, call)) = tree.calls("enforce").next() else { return };
    if !names_one && !declared.contains(&"tenantauth") {
        let message = "no `lua_shared_dict tenantauth`: each worker counts for itself, and fetches keys \
         for itself after each reload";
        let help = "write `lua_shared_dict tenantauth 10m;` into http {}";
        found.hint(Kind::SharedDict, &handler.place(call.line), message, help);
    }
}

fn http_conf(tree: &Tree<'_>, found: &mut Findings) {
    // That it cannot be read is reported already.
    let is_missed = tree.configuration.missing.iter().any(|(_, name, _)| name.ends_with("/http.conf"));
    if is_missed || tree.has_map_to("$tenantauth_record") {
        return;
    }
    let help = "write `include /usr/local/share/tenantauth/http.conf;` into http {}";
    let again = tree.calls("enforce").find(|(_, call)| crate::doctor::tree::option(call, "again").is_some());
    if let Some((handler, call)) = again {
        let message = "`again` needs http.conf, which is not included: it denies everything";
        return found.fault(Kind::HttpConf, &handler.place(call.line), message, help);
    }
    if let Some((handler, call)) = tree.calls("enforce").next() {
        let message = "http.conf is not included: no audit record is written";
        found.hint(Kind::HttpConf, &handler.place(call.line), message, help);
    }
}

fn directives(tree: &Tree<'_>, found: &mut Findings) {
    for (id, block) in tree.blocks.iter().enumerate() {
        for directive in tree.own(id, "lua_code_cache").filter(|directive| directive.argument(0) == "off") {
            let message = "`lua_code_cache off`: each request loads the module anew";
            found.fault(
                Kind::CodeCache,
                &directive.place,
                message,
                "remove the line: it is for writing Lua code",
            );
        }
        for directive in tree.own(id, "error_log") {
            let level = directive.arguments.last().map_or("", String::as_str);
            if level == "info" || level.starts_with("debug") {
                found.hint(
                    Kind::ErrorLog,
                    &directive.place,
                    format!(
                        "at `{level}` the error log shows the beginning of header lines that are too \
                     long or unreadable, tokens included"
                    ),
                    "log at `notice`",
                );
            }
        }
        for handler in block.handlers.iter().filter(|handler| handler.phase == "init") {
            if let Some(call) = handler.code.calls.first() {
                let message = format!("`{}` cannot be called in init_by_lua*", call.function);
                found.fault(
                    Kind::Phase,
                    &handler.place(call.line),
                    message,
                    "call `init_worker` in init_worker_by_lua_block",
                );
            } else if handler.code.requires_module {
                let message = "the module is required in init_by_lua*: a reload after an upgrade brings \
                 the old code again";
                let help =
                    "require it in init_worker_by_lua_block and later, or restart nginx after an upgrade";
                found.hint(Kind::RequiredInInit, &handler.directive.place, message, help);
            }
        }
    }
}
