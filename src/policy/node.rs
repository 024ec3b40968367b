//! YAML 1.2 or JSON text -> a tree of nodes with places. What could make two readers see two documents is an
//! error here: duplicate keys, aliases, anchors, tags, merge keys, second documents, a truncated end.

use super::diagnostic::{Path, Place, Problems, shown};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Nesting deeper than this is refused; a policy needs six levels.
const MAX_DEPTH: usize = 32;

/// One value of a document and where it stands.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as YAML's core schema reads it.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    /// An integer or a decimal, as it was written: numbers are compared by nobody here, only refused or read.
    Number(Box<str>),
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Something that was told as a problem already, so nothing more is said about its type.
    Refused,
}

/// A mapping's key.
#[derive(Debug, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: Box<str>,
    /// It cannot be a key; it was told, and it and its value are left out.
    refused: bool,
}

impl Value {
    /// What messages call it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Refused => "what cannot be read",
        }
    }
}

impl Node {
    /// The node as JSON: keys sorted, no places. Two documents that say the same are the same text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Refused => serde_json::Value::Null,
            Value::Boolean(truth) => (*truth).into(),
            Value::Number(written) => serde_json::from_str(written)
                .unwrap_or_else(|_| serde_json::Value::String(written.to_string())),
            Value::Text(text) => (&**text).into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            // serde_json's map is sorted by key, which is what makes the text canonical.
            Value::Map(fields) => {
                fields.iter().map(|(key, node)| (key.name.to_string(), node.to_json())).collect()
            }
        }
    }
}

/// Reads one document.
///
/// `text`: its whole content. Problems go to `problems`; `None` where the text could not be read to its end.
pub(super) fn parse(text: &[u8], problems: &mut Problems) -> Option<Node> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let place = place_after(text.get(..error.valid_up_to()).unwrap_or_default());
            problems.error(place, &Path::Root, "the document is not valid UTF-8").help("save it as UTF-8");
            return None;
        }
    };
    if let Some((before, _)) = text.split_once('\0') {
        problems
            .error(place_after(before.as_bytes()), &Path::Root, "the document holds a NUL character")
            .help("save it as UTF-8 text");
        return None;
    }
    let json = text.trim_start().starts_with('{');
    let mut text = if json { joined_surrogates(text) } else { Cow::Borrowed(text) };
    let mut stars = Vec::new();
    let root = loop {
        let mut found = problems.of_same_file();
        match build(&text, &stars, &mut found) {
            Err(BareStar { index }) => {
                stars.push(index);
                text = text.chars().enumerate().map(|(at, c)| if at == index { 'x' } else { c }).collect();
            }
            Ok(root) => {
                problems.append(found);
                break root;
            }
        }
    };
    let Root { node, flow } = root?;
    // A flow document shows by its closing bracket that it is whole; a block document only by its last newline.
    if !flow && !text.ends_with('\n') {
        let lines = text.lines().count();
        let column = text.lines().last().map_or(0, |line| line.chars().count());
        let place = Place { line: number(lines), column: number(column + 1) };
        problems
            .error(place, &Path::Root, "the document does not end in a newline: it may be truncated")
            .help("end the last line with a newline");
    }
    Some(node)
}

/// The place of what follows this beginning of a document.
fn place_after(before: &[u8]) -> Place {
    let text = String::from_utf8_lossy(before);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.matches('\n').count();
    let column = text.rsplit('\n').next().map_or(0, |line| line.chars().count());
    Place { line: number(lines + 1), column: number(column + 1) }
}

/// JSON writes characters beyond the basic plane as two `\u` escapes, which YAML does not know: joins them.
fn joined_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        joined.push_str(before);
        let unit = |from: usize| -> Option<u16> {
            let digits = escape.get(from..)?.strip_prefix("\\u")?.get(..4)?;
            u16::from_str_radix(digits, 16).ok()
        };
        let pair = [unit(0).unwrap_or(0), unit(6).unwrap_or(0)];
        let taken = match char::decode_utf16(pair).next() {
            Some(Ok(character)) if character > '\u{ffff}' => {
                joined.push(character);
                12
            }
            // Any other escape is two characters at least; `\\u` must not be taken for the start of one.
            _ => {
                let two = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
                joined.push_str(escape.get(..two).unwrap_or_default());
                two
            }
        };
        rest = escape.get(taken..).unwrap_or_default();
    }
    joined.push_str(rest);
    Cow::Owned(joined)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn place(marker: &Marker) -> Place {
    Place { line: number(marker.line()), column: number(marker.col() + 1) }
}

/// A list or mapping whose end has not been read yet.
enum Open {
    List(Place, Vec<Node>),
    Map { place: Place, fields: Vec<(Key, Node)>, seen: HashMap<Box<str>, Place>, key: Option<Key> },
}

/// A document's one value.
struct Root {
    node: Node,
    /// It is written in brackets, whose end shows that it is whole.
    flow: bool,
}

/// A `*` that is not quoted ends YAML's reading: it begins the name of an alias.
struct BareStar {
    /// Where, in characters.
    index: usize,
}

/// Each such `*` costs another reading of the document: at most this many bytes are read for them.
const STARS_BUDGET: usize = 4 << 20;
/// Nor are more of them than this read past: whoever forgot the quotes forgot them everywhere.
const MAX_STARS: usize = 50;

/// The way to the node that is being read, as diagnostics print it.
fn path_of(open: &[Open]) -> String {
    let mut path = String::new();
    for level in open {
        // The writer is a string: it does not fail.
        _ = match level {
            Open::List(_, items) => write!(path, "[{}]", items.len()),
            Open::Map { key: Some(key), .. } if path.is_empty() => path.write_str(&shown(&key.name)),
            Open::Map { key: Some(key), .. } => write!(path, ".{}", shown(&key.name)),
            Open::Map { key: None, .. } => Ok(()),
        };
    }
    path
}

/// Reads the text as far as it can be read.
///
/// `stars`: where a `*` that was not quoted has been replaced by a letter, so that what follows can be read too.
fn build(text: &str, stars: &[usize], problems: &mut Problems) -> Result<Option<Root>, BareStar> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut flow = false;
    let mut documents = 0;
    let mut words = Words { text, index: 0, rest: text };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                return match bare_star(text, &error) {
                    Some(index)
                        if stars.len() < MAX_STARS
                            && stars.len().saturating_mul(text.len()) < STARS_BUDGET =>
                    {
                        Err(BareStar { index })
                    }
                    star => {
                        syntax_error(text, &error, star, &path_of(&open), problems);
                        Ok(None)
                    }
                };
            }
        };
        let at = place(&span.start);
        let done = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    problems
                        .error(at, &Path::Root, "a second document begins here")
                        .help("a policy is one document: remove the `---` line and what follows");
                    // What is wrong with the first is told as well.
                    break;
                }
                None
            }
            Event::Alias(_) => {
                alias_error(&words.at(span.start.index()), at, &path_of(&open), problems);
                Some(Node { place: at, value: Value::Refused })
            }
            Event::Scalar(..) if stars.contains(&span.start.index()) => {
                let word = words.at(span.start.index()).replacen('x', "*", 1);
                alias_error(&word, at, &path_of(&open), problems);
                Some(Node { place: at, value: Value::Refused })
            }
            Event::Scalar(written, style, anchor, tag) => {
                refuse_decoration(at, anchor, tag.is_some(), &open, problems);
                Some(Node { place: at, value: scalar(written, style) })
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_decoration(at, anchor, tag.is_some(), &open, problems);
                open.push(Open::List(at, Vec::new()));
                None
            }
            Event::MappingStart(anchor, tag) => {
                refuse_decoration(at, anchor, tag.is_some(), &open, problems);
                flow |= open.is_empty() && text.chars().nth(span.start.index()) == Some('{');
                open.push(Open::Map { place: at, fields: Vec::new(), seen: HashMap::new(), key: None });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(place, items)) => Some(Node { place, value: Value::List(items) }),
                Some(Open::Map { place, fields, .. }) => Some(Node { place, value: Value::Map(fields) }),
                None => None,
            },
            _ => None,
        };
        if open.len() > MAX_DEPTH {
            problems
                .error(at, &Path::Root, format!("nested deeper than {MAX_DEPTH} levels"))
                .help("a policy needs six");
            return Ok(None);
        }
        if let Some(node) = done {
            match open.last_mut() {
                None => root = Some(node),
                Some(Open::List(_, items)) => items.push(node),
                Some(Open::Map { fields, seen, key, .. }) => match key.take() {
                    None => {
                        let at = node.place;
                        let (read, problem) = as_key(node, seen);
                        *key = Some(read);
                        if let Some((message, help)) = problem {
                            problems.error(at, &Path::Root.key(&path_of(&open)), message).help(help);
                        }
                    }
                    Some(key) if key.refused => {}
                    Some(key) => fields.push((key, node)),
                },
            }
        }
    }
    if root.is_none() {
        problems
            .error(Place { line: 1, column: 1 }, &Path::Root, "the document is empty")
            .help("a policy begins with `version: 1`; an owner without rules has the document `{}`");
    }
    Ok(root.map(|node| Root { node, flow }))
}

fn refuse_decoration(at: Place, anchor: usize, tagged: bool, open: &[Open], problems: &mut Problems) {
    if anchor != 0 {
        problems
            .error(at, &Path::Root.key(&path_of(open)), "YAML anchors are not supported")
            .help("write the value out, or quote it if it begins with `&`");
    }
    if tagged {
        problems
            .error(at, &Path::Root.key(&path_of(open)), "YAML tags are not supported")
            .help("remove the tag, or quote the value if it begins with `!`");
    }
}

/// A node as a mapping's key, and what is wrong with it, with its help.
fn as_key(node: Node, seen: &mut HashMap<Box<str>, Place>) -> (Key, Option<(String, String)>) {
    let place = node.place;
    let refused = |name: &str, problem| (Key { place, name: name.into(), refused: true }, problem);
    let name = match node.value {
        // A number is kept as it was written; `True` and `~` could be read as two names.
        Value::Text(text) | Value::Number(text) => text,
        Value::Refused => return refused("", None),
        other => {
            let message = format!("expected a string as key, found {}", other.kind());
            return refused("", Some((message, "quote it, if a name is meant".to_owned())));
        }
    };
    if &*name == "<<" {
        let message = "YAML merge keys are not supported".to_owned();
        return refused("<<", Some((message, "write the keys out".to_owned())));
    }
    let problem = seen.get(&name).map(|first| {
        (
            format!("duplicate key `{name}`"),
            format!("it stands first in line {}: remove one of them", first.line),
        )
    });
    if problem.is_none() {
        seen.insert(name.clone(), place);
    }
    (Key { place, name, refused: false }, problem)
}

/// YAML 1.2 core schema (section 10.3.2) for plain scalars; quoted and block scalars are strings.
fn scalar(written: Cow<'_, str>, style: ScalarStyle) -> Value {
    let text: Box<str> = written.into();
    if style != ScalarStyle::Plain {
        return Value::Text(text);
    }
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Boolean(true),
        "false" | "False" | "FALSE" => Value::Boolean(false),
        plain if is_number(plain) => Value::Number(text),
        _ => Value::Text(text),
    }
}

fn is_number(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(plain);
    let radix = |prefix: &str, digits: fn(&u8) -> bool| {
        plain.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.as_bytes().iter().all(digits))
    };
    let decimal = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && unsigned.parse::<f64>().is_ok();
    decimal
        || radix("0x", u8::is_ascii_hexdigit)
        || radix("0o", |byte| matches!(byte, b'0'..=b'7'))
        || matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || matches!(plain, ".nan" | ".NaN" | ".NAN")
}

/// Where the `*` stands that made the parser give up, in characters.
fn bare_star(text: &str, error: &ScanError) -> Option<usize> {
    let index = error.marker().index();
    // What YAML misses is the alias's name, before or behind which it stops.
    [Some(index), index.checked_sub(1)].into_iter().flatten().find(|at| text.chars().nth(*at) == Some('*'))
}

fn syntax_error(text: &str, error: &ScanError, star: Option<usize>, path: &str, problems: &mut Problems) {
    let marker = error.marker();
    let at = place(marker);
    if let Some(star) = star {
        let column = at.column.saturating_sub(number(marker.index().saturating_sub(star)));
        return alias_error(&word_at(text, star), Place { column, ..at }, path, problems);
    }
    let problem = problems.error(
        at,
        &Path::Root.key(path),
        format!("not valid YAML: {}", error.info().replace('\'', "`")),
    );
    match text.chars().nth(marker.index()) {
        Some(special @ ('@' | '`' | '%' | '!' | '&')) => {
            problem.help(format!("a value that begins with `{special}` must be quoted"));
        }
        _ if error.info().contains("tab") => problem.help("indent with spaces"),
        _ => problem.help("look for a bracket, a quote or an indentation that does not fit, here or above"),
    }
}

/// Finds the words of a text from its beginning to its end, going through it once: a document may consist of aliases.
struct Words<'t> {
    text: &'t str,
    /// Where `rest` begins, in characters.
    index: usize,
    rest: &'t str,
}

impl Words<'_> {
    /// The word that begins at this character.
    fn at(&mut self, index: usize) -> String {
        if index < self.index {
            (self.index, self.rest) = (0, self.text);
        }
        let skipped = self.rest.char_indices().nth(index - self.index).map_or(self.rest.len(), |(at, _)| at);
        (self.index, self.rest) = (index, self.rest.get(skipped..).unwrap_or_default());
        word_at(self.rest, 0)
    }
}

/// The word that begins at this character.
fn word_at(text: &str, index: usize) -> String {
    text.chars().skip(index).take_while(|c| !c.is_whitespace() && !",]}".contains(*c)).collect()
}

fn alias_error(word: &str, at: Place, path: &str, problems: &mut Problems) {
    // A key's colon is not part of it.
    let word = word.strip_suffix(':').unwrap_or(word);
    problems
        .error(at, &Path::Root.key(path), format!("`{word}` is read as a YAML alias, which is not supported"))
        .help(format!("quote it: \"{word}\""));
}

#[cfg(test)]
mod tests;
