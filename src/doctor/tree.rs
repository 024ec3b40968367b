//! A configuration as nginx sees it: blocks with what they inherit, and the Lua code of each.

use super::files::Files;
use super::lua::{self, Call, Code, Value};
use super::nginx::{Body, Configuration, Directive, Place};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A block's number.
pub(super) type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Main,
    Http,
    Server,
    Location,
    /// `if` and `limit_except`.
    Part,
}

/// A block that nginx merges with the one around it.
pub(super) struct Block<'c> {
    pub(super) level: Level,
    parent: Option<Id>,
    pub(super) directive: Option<&'c Directive>,
    pub(super) own: &'c [Directive],
    pub(super) handlers: Vec<Handler<'c>>,
}

/// Lua code with the directive that runs it.
pub(super) struct Handler<'c> {
    pub(super) directive: &'c Directive,
    /// As in the directive's name: `rewrite`, `init_worker`.
    pub(super) phase: &'c str,
    pub(super) code: Code,
    /// The place of its first line.
    start: Place,
    /// A file of code that is not there.
    pub(super) missing: Option<PathBuf>,
}

/// What Lua code does about the requests that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    Enforce,
    Again,
    Stamp,
    /// It may do anything.
    Unknown,
    None,
}

pub(super) struct Tree<'c> {
    pub(super) blocks: Vec<Block<'c>>,
    pub(super) configuration: &'c Configuration,
}

impl Handler<'_> {
    pub(super) fn place(&self, line: u32) -> Place {
        Place { line: self.start.line.saturating_add(line), ..self.start.clone() }
    }

    pub(super) fn calls<'h>(&'h self, function: &'h str) -> impl Iterator<Item = &'h Call> {
        self.code.calls.iter().filter(move |call| call.function == function)
    }

    pub(super) fn guard(&self) -> Guard {
        if self.calls("enforce").any(|call| option(call, "again") == Some(&Value::Boolean(true))) {
            Guard::Again
        } else if self.calls("enforce").next().is_some() {
            Guard::Enforce
        } else if self.calls("stamp_client_ip").next().is_some() {
            Guard::Stamp
        } else if self.code.loads_others || self.missing.is_some() {
            Guard::Unknown
        } else {
            Guard::None
        }
    }
}

/// An option of a call, where it is written out.
pub(super) fn option<'a>(call: &'a Call, name: &str) -> Option<&'a Value> {
    let Value::Table(entries) = &call.options else { return None };
    entries.iter().find(|entry| entry.name.as_deref() == Some(name)).map(|entry| &entry.value)
}

/// An option that is a text.
pub(super) fn text<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    match option(call, name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

impl<'c> Tree<'c> {
    pub(super) fn new(configuration: &'c Configuration, files: &dyn Files) -> Self {
        let mut tree = Self { blocks: Vec::new(), configuration };
        tree.add(Level::Main, None, None, &configuration.directives, files);
        tree
    }

    fn add(
        &mut self,
        level: Level,
        parent: Option<Id>,
        directive: Option<&'c Directive>,
        own: &'c [Directive],
        files: &dyn Files,
    ) {
        let prefix = &self.configuration.prefix;
        let handlers = own.iter().filter_map(|directive| handler(directive, prefix, files)).collect();
        self.blocks.push(Block { level, parent, directive, own, handlers });
        let id = self.blocks.len() - 1;
        for directive in own {
            let Body::Block(block) = &directive.body else { continue };
            let level = match &*directive.name {
                "http" => Level::Http,
                "server" if level == Level::Http => Level::Server,
                "location" => Level::Location,
                "if" | "limit_except" => Level::Part,
                _ => continue,
            };
            self.add(level, Some(id), Some(directive), block, files);
        }
    }

    pub(super) fn ids(&self, level: Level) -> impl Iterator<Item = Id> + '_ {
        self.blocks.iter().enumerate().filter(move |(_, block)| block.level == level).map(|(id, _)| id)
    }

    pub(super) fn block(&self, id: Id) -> Option<&Block<'c>> {
        self.blocks.get(id)
    }

    /// The block and those around it, from the inner to the outer.
    pub(super) fn up(&self, id: Id) -> impl Iterator<Item = (Id, &Block<'c>)> {
        let mut next = Some(id);
        std::iter::from_fn(move || {
            let id = next?;
            let block = self.blocks.get(id)?;
            next = block.parent;
            Some((id, block))
        })
    }

    /// The server that the block is in.
    pub(super) fn server(&self, id: Id) -> Option<Id> {
        self.up(id).find(|(_, block)| block.level == Level::Server).map(|(id, _)| id)
    }

    /// The directives of this name in the block itself.
    pub(super) fn own<'s>(&'s self, id: Id, name: &'s str) -> impl Iterator<Item = &'c Directive> + 's {
        let own = self.blocks.get(id).map_or(&[][..], |block| block.own);
        own.iter().filter(move |directive| directive.name == name)
    }

    /// Those in force in the block: its own, or else the ones that it inherits.
    pub(super) fn effective(&self, id: Id, name: &str) -> Vec<&'c Directive> {
        self.up(id)
            .map(|(id, _)| self.own(id, name).collect::<Vec<_>>())
            .find(|own| !own.is_empty())
            .unwrap_or_default()
    }

    /// The value of a directive with one argument that is in force in the block.
    pub(super) fn value(&self, id: Id, name: &str) -> Option<(&'c str, &'c Directive)> {
        self.effective(id, name).last().map(|directive| (directive.argument(0), *directive))
    }

    /// The Lua code that runs in a phase of a block, and the block that has it.
    pub(super) fn handler(&self, id: Id, phase: &str) -> Option<(Id, &Handler<'c>)> {
        self.up(id).find_map(|(id, block)| {
            let own = block.handlers.iter().rfind(|handler| handler.phase == phase)?;
            Some((id, own))
        })
    }

    /// What the code in both phases in which requests are decided does.
    pub(super) fn guard(&self, id: Id) -> Guard {
        let of = |phase| self.handler(id, phase).map_or(Guard::None, |(_, handler)| handler.guard());
        match (of("rewrite"), of("access")) {
            (Guard::None, other) | (other, Guard::None) => other,
            (Guard::Unknown, other) | (other, _) => other,
        }
    }

    pub(super) fn handlers(&self) -> impl Iterator<Item = (Id, &Handler<'c>)> {
        self.blocks.iter().enumerate().flat_map(|(id, block)| block.handlers.iter().map(move |own| (id, own)))
    }

    /// Every call of a function, with its handler.
    pub(super) fn calls<'s>(
        &'s self,
        function: &'s str,
    ) -> impl Iterator<Item = (&'s Handler<'c>, &'s Call)> {
        self.handlers().flat_map(move |(_, handler)| handler.calls(function).map(move |call| (handler, call)))
    }

    /// Whether a map gives this variable.
    pub(super) fn has_map_to(&self, variable: &str) -> bool {
        self.ids(Level::Http).any(|id| self.own(id, "map").any(|map| map.argument(1) == variable))
    }

    /// The addresses that an URL of `proxy_pass` leads to; none where they cannot be known.
    pub(super) fn addresses(&self, id: Id, url: &str) -> BTreeSet<String> {
        let url = self.filled(id, url);
        let Some((scheme, rest)) = url.split_once("://") else { return BTreeSet::new() };
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        if host.is_empty() || host.contains(['$', '@']) {
            return BTreeSet::new();
        }
        let default = if matches!(scheme, "https" | "grpcs") { "443" } else { "80" };
        let servers: BTreeSet<String> = self
            .ids(Level::Http)
            .flat_map(|id| self.own(id, "upstream").filter(|upstream| upstream.argument(0) == host))
            .flat_map(|upstream| upstream.block().iter().filter(|directive| directive.name == "server"))
            .map(|server| address(server.argument(0), "80"))
            .collect();
        if servers.is_empty() { BTreeSet::from([address(host, default)]) } else { servers }
    }

    /// The text with the variables that `set` fills in the same block or one around it.
    pub(super) fn filled(&self, id: Id, text: &str) -> String {
        let set = self.up(id).flat_map(|(id, _)| self.own(id, "set"));
        let set = set.filter(|set| set.argument(0).len() > 1);
        set.fold(text.to_owned(), |text, set| {
            if text == set.argument(0) || text.starts_with(&format!("{}/", set.argument(0))) {
                text.replacen(set.argument(0), set.argument(1), 1)
            } else {
                text
            }
        })
    }
}

/// An address with its port, in one form.
pub(super) fn address(text: &str, default: &str) -> String {
    let text = text.to_lowercase().replace("localhost", "127.0.0.1");
    let port = text.rsplit_once(':').map(|(_, port)| port);
    let has_port =
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if has_port || text.starts_with("unix:") { text } else { format!("{text}:{default}") }
}

/// The Lua code that a directive runs.
fn handler<'c>(directive: &'c Directive, prefix: &Path, files: &dyn Files) -> Option<Handler<'c>> {
    let (phase, form) = directive.name.split_once("_by_lua")?;
    let place = directive.place.clone();
    let (mut code, mut missing, mut start) = (Code::default(), None, place);
    let number = usize::from(phase == "set");
    match (form, &directive.body) {
        ("_block", Body::Lua(text, line)) => {
            code = lua::read(text);
            start.line = *line;
        }
        ("", Body::None) => code = lua::read(directive.argument(number)),
        ("_file", Body::None) => {
            let name = directive.argument(number);
            // A relative name is one beneath nginx's prefix, which is compiled into it: `conf` lies there, or it is
            // `conf`.
            let above = prefix.parent().unwrap_or(prefix);
            let paths = [prefix.join(name), above.join(name)];
            let read = paths
                .iter()
                .filter(|_| !name.contains('$'))
                .find_map(|path| Some((path, files.read(path).ok()?)));
            if let Some((path, text)) = read {
                code = lua::read(&text);
                start = Place { file: path.display().to_string().into(), line: 1 };
            } else {
                code.loads_others = true;
                let is_missing = name.starts_with('/') && files.exists(Path::new(name)) == Ok(false);
                missing = (is_missing && !name.contains('$')).then(|| PathBuf::from(name));
            }
        }
        _ => return None,
    }
    Some(Handler { directive, phase, code, start, missing })
}
