//! YAML 1.2 or JSON text -> a tree of nodes with places. What could make two readers see two documents is an
//! error here: duplicate keys, aliases, anchors, tags, merge keys, second documents, a truncated end.

use super::diagnostic::{Path, Place, Problems};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use std::borrow::Cow;
use std::collections::HashMap;

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
}

/// A mapping's key.
#[derive(Debug, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: Box<str>,
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
        }
    }
}

impl Node {
    /// The node as JSON: keys sorted, no places. Two documents that say the same are the same text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
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
            let before = text.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count();
            let place = Place { line: number(line + 1), column: 1 };
            problems.error(place, &Path::Root, "the document is not valid UTF-8");
            return None;
        }
    };
    if text.contains('\0') {
        problems.error(Place { line: 1, column: 1 }, &Path::Root, "the document holds a NUL character");
        return None;
    }
    let json = text.trim_start().starts_with('{');
    let text = if json { joined_surrogates(text) } else { Cow::Borrowed(text) };
    let before = problems.any_error();
    let node = build(&text, problems)?;
    // A flow document shows by its closing bracket that it is whole; a block document only by its last newline.
    if !json && !text.ends_with('\n') && (before || !problems.any_error()) {
        let lines = text.lines().count();
        let column = text.lines().last().map_or(0, |line| line.chars().count());
        let place = Place { line: number(lines), column: number(column + 1) };
        problems
            .error(place, &Path::Root, "the document does not end in a newline: it may be truncated")
            .help("end the last line with a newline");
    }
    Some(node)
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

fn build(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                syntax_error(text, &error, problems);
                return None;
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
                    return None;
                }
                None
            }
            Event::Alias(_) => {
                alias_error(text, span.start.index(), at, problems);
                Some(Node { place: at, value: Value::Null })
            }
            Event::Scalar(written, style, anchor, tag) => {
                refuse_decoration(at, anchor, tag.is_some(), problems);
                Some(Node { place: at, value: scalar(written, style) })
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_decoration(at, anchor, tag.is_some(), problems);
                open.push(Open::List(at, Vec::new()));
                None
            }
            Event::MappingStart(anchor, tag) => {
                refuse_decoration(at, anchor, tag.is_some(), problems);
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
            problems.error(at, &Path::Root, format!("nested deeper than {MAX_DEPTH} levels"));
            return None;
        }
        if let Some(node) = done {
            match open.last_mut() {
                None => root = Some(node),
                Some(Open::List(_, items)) => items.push(node),
                Some(Open::Map { fields, seen, key, .. }) => match key.take() {
                    None => *key = Some(as_key(node, seen, problems)),
                    Some(key) => fields.push((key, node)),
                },
            }
        }
    }
    if root.is_none() {
        problems.error(Place { line: 1, column: 1 }, &Path::Root, "the document is empty");
    }
    root
}

fn refuse_decoration(at: Place, anchor: usize, tagged: bool, problems: &mut Problems) {
    if anchor != 0 {
        problems
            .error(at, &Path::Root, "YAML anchors are not supported")
            .help("write the value out, or quote it if it begins with `&`");
    }
    if tagged {
        problems
            .error(at, &Path::Root, "YAML tags are not supported")
            .help("remove the tag, or quote the value if it begins with `!`");
    }
}

fn as_key(node: Node, seen: &mut HashMap<Box<str>, Place>, problems: &mut Problems) -> Key {
    let place = node.place;
    let name = match node.value {
        Value::Text(text) | Value::Number(text) => text,
        Value::Boolean(truth) => truth.to_string().into(),
        Value::Null => "null".into(),
        other => {
            problems.error(place, &Path::Root, format!("expected a string as key, found {}", other.kind()));
            "".into()
        }
    };
    if &*name == "<<" {
        problems.error(place, &Path::Root, "YAML merge keys are not supported").help("write the keys out");
    }
    if let Some(first) = seen.get(&name) {
        problems
            .error(place, &Path::Root, format!("duplicate key `{name}`"))
            .help(format!("it stands first in line {}: remove one of them", first.line));
    } else {
        seen.insert(name.clone(), place);
    }
    Key { place, name }
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

fn syntax_error(text: &str, error: &ScanError, problems: &mut Problems) {
    let marker = error.marker();
    let at = place(marker);
    let here = |offset: usize| marker.index().checked_sub(offset).and_then(|index| text.chars().nth(index));
    // A `*` that begins a plain value is read as an alias, and its name is what YAML misses.
    if here(0) == Some('*') {
        return alias_error(text, marker.index(), at, problems);
    }
    if here(1) == Some('*') {
        let at = Place { line: at.line, column: at.column.saturating_sub(1) };
        return alias_error(text, marker.index().saturating_sub(1), at, problems);
    }
    let problem =
        problems.error(at, &Path::Root, format!("not valid YAML: {}", error.info().replace('\'', "`")));
    match here(0) {
        Some(special @ ('@' | '`' | '%' | '!' | '&')) => {
            problem.help(format!("a value that begins with `{special}` must be quoted"));
        }
        Some('\t') => problem.help("indent with spaces"),
        _ => {}
    }
}

fn alias_error(text: &str, index: usize, at: Place, problems: &mut Problems) {
    let word: String =
        text.chars().skip(index).take_while(|c| !c.is_whitespace() && !",]}".contains(*c)).collect();
    problems
        .error(at, &Path::Root, format!("`{word}` is read as a YAML alias, which is not supported"))
        .help(format!("quote it: \"{word}\""));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<serde_json::Value, Vec<String>> {
        let mut problems = Problems::of("p.yaml");
        let node = parse(text.as_bytes(), &mut problems);
        if problems.any_error() {
            return Err(problems.into_sorted().iter().map(ToString::to_string).collect());
        }
        Ok(node.unwrap().to_json())
    }

    fn first_problem(text: &str) -> String {
        read(text).unwrap_err().remove(0)
    }

    #[test]
    fn reads_yaml_and_json_alike() {
        let yaml = "version: 1\nlist: [a, \"*:read\"]\nmap: { k: true, n: ~ }\n";
        let json = "{\"map\": {\"n\": null, \"k\": true}, \"version\": 1, \"list\": [\"a\",\n\t\"*:read\"]}";
        assert_eq!(read(yaml).unwrap(), read(json).unwrap());
        assert_eq!(read("{\"a\": \"\\ud83d\\ude00 \\\\ud83d\"}").unwrap()["a"], "😀 \\ud83d");
        assert_eq!(read("\u{feff}a: b\n").unwrap()["a"], "b");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let values =
            read("v: [1, -2.5, 1e3, 0x1f, 7d, 1.2.3.4, yes, no, on, 'true', 0f3c9a1e-1, .5, 2027-01-31]\n");
        let values = values.unwrap();
        assert_eq!(
            values["v"].to_string(),
            r#"[1,-2.5,1000.0,"0x1f","7d","1.2.3.4","yes","no","on","true","0f3c9a1e-1",".5","2027-01-31"]"#
        );
    }

    #[test]
    fn what_two_readers_could_read_differently_is_an_error() {
        let expect = |text: &str, wanted: &str| {
            let found = first_problem(text);
            assert!(found.starts_with(wanted), "{text:?}: {found}");
        };
        expect(
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            "p.yaml:4:3: duplicate key `c`\n  help: it stands first in line 3",
        );
        expect("{\"a\": 1, \"a\": 2}", "p.yaml:1:10: duplicate key `a`");
        expect("a: &x 1\n", "p.yaml:1:7: YAML anchors are not supported");
        expect("a: !!str 1\n", "p.yaml:1:10: YAML tags are not supported");
        expect("<<: {a: 1}\n", "p.yaml:1:1: YAML merge keys are not supported");
        expect("a: 1\n---\nb: 1\n", "p.yaml:2:1: a second document begins here");
        expect("a: 1\nb: 2", "p.yaml:2:5: the document does not end in a newline: it may be truncated");
        expect("a: [1,\n", "p.yaml:2:1: not valid YAML");
        expect("{\"a\": 1", "p.yaml:2:1: not valid YAML");
        expect("", "p.yaml:1:1: the document is empty");
        expect("# nothing\n", "p.yaml:1:1: the document is empty");
        expect("? [a]\n: b\n", "p.yaml:1:3: expected a string as key, found a list");
        expect("a:\n\t- b\n", "p.yaml:2:2: not valid YAML");
    }

    #[test]
    fn a_bare_star_says_quote_it() {
        assert_eq!(
            first_problem("scopes: [*:read]\n"),
            "p.yaml:1:10: `*:read` is read as a YAML alias, which is not supported\n  help: quote it: \"*:read\""
        );
        assert!(first_problem("t: [a, *]\n").ends_with("help: quote it: \"*\""));
        assert!(first_problem("t: *\n").contains("quote it: \"*\""));
        assert!(first_problem("t:\n  - *-prod\n").starts_with("p.yaml:2:5: `*-prod`"));
    }

    #[test]
    fn hostile_documents_are_refused_quickly() {
        assert!(first_problem(&"[".repeat(40)).contains("nested deeper"));
        assert!(first_problem(&"[".repeat(100_000)).starts_with("p.yaml:1:"));
        assert!(first_problem("a: \0\n").contains("NUL"));
        let mut problems = Problems::of("p.yaml");
        assert!(parse(b"a: b\n\xff: c\n", &mut problems).is_none());
        assert_eq!(problems.into_sorted()[0].to_string(), "p.yaml:2:1: the document is not valid UTF-8");
    }
}
