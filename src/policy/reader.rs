//! Typed access to a tree of nodes: every wrong type, unknown key and missing key becomes a problem with its
//! place, and reading goes on.

use super::diagnostic::{Path, Place, Problems};
use super::node::{Key, Node, Value};

/// A word that is longer is not held against those that may have been meant.
pub(super) const LONGEST_COMPARED: usize = 100;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
    /// Its position in the list it was written in, if it was.
    pub(super) number: usize,
}

impl<T> At<T> {
    pub(super) fn new(value: T, place: Place) -> Self {
        Self { value, place, number: 0 }
    }
}

/// A mapping whose keys have been held against the known ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'n> {
    pub(super) place: Place,
    fields: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.fields.iter().find(|(key, _)| &*key.name == name).map(|(_, node)| node)
    }

    /// Where the key itself stands, for problems that are about its presence.
    pub(super) fn key_place(&self, name: &str) -> Option<Place> {
        self.fields.iter().find(|(key, _)| &*key.name == name).map(|(key, _)| key.place)
    }
}

impl Problems {
    pub(super) fn wrong_type(&mut self, node: &Node, path: &Path<'_>, wanted: &str) {
        if node.value == Value::Refused {
            return;
        }
        let help = match &node.value {
            Value::Number(written) if wanted.contains("string") => format!("quote it: \"{written}\""),
            Value::Boolean(truth) if wanted.contains("string") => format!("quote it: \"{truth}\""),
            Value::Number(text) | Value::Text(text) if wanted.contains("list") => {
                format!("write a list: [{text}]")
            }
            Value::Null => "write a value, or remove the key".to_owned(),
            _ => match wanted {
                "a list" => "write a list: [...]".to_owned(),
                "a mapping" => "write `key: value`".to_owned(),
                "a string" => "write one value".to_owned(),
                _ => format!("write {wanted}, without quotes"),
            },
        };
        self.error(node.place, path, format!("expected {wanted}, found {}", node.value.kind())).help(help);
    }

    /// The mapping's fields; keys that are not in `known` are problems.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        path: &Path<'_>,
        known: &[&str],
    ) -> Option<Fields<'n>> {
        let fields = self.free_fields(node, path)?;
        for (key, _) in fields.fields {
            if known.contains(&&*key.name) {
                continue;
            }
            // Comparing takes the product of two lengths, and memory for it.
            let is_told = !self.is_full() && key.name.len() <= LONGEST_COMPARED;
            let problem = self.error(key.place, &path.key(&key.name), format!("unknown key `{}`", key.name));
            let nearest = known
                .iter()
                .filter(|_| is_told)
                .map(|candidate| (strsim::damerau_levenshtein(candidate, &key.name), candidate))
                .min_by_key(|(distance, _)| *distance);
            match nearest {
                Some((distance, candidate)) if distance <= 2.max(candidate.len() / 4) => {
                    problem.help(format!("did you mean `{candidate}`?"));
                }
                _ => problem.help(format!("known keys: {}", known.join(", "))),
            }
        }
        Some(fields)
    }

    /// A mapping whose keys are the writer's own.
    pub(super) fn free_fields<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<Fields<'n>> {
        match &node.value {
            Value::Map(fields) => Some(Fields { place: node.place, fields }),
            _ => {
                self.wrong_type(node, path, "a mapping");
                None
            }
        }
    }

    /// Every key and value of a mapping whose keys are the writer's own.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> &'n [(Key, Node)] {
        self.free_fields(node, path).map_or(&[], |fields| fields.fields)
    }

    pub(super) fn items<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            _ => {
                self.wrong_type(node, path, "a list");
                &[]
            }
        }
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<At<&'n str>> {
        match &node.value {
            Value::Text(text) if text.is_empty() => {
                self.error(node.place, path, "expected a string, found an empty one")
                    .help("write a value, or remove it");
                None
            }
            Value::Text(text) => Some(At::new(text, node.place)),
            _ => {
                self.wrong_type(node, path, "a string");
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        match &node.value {
            Value::Boolean(truth) => Some(*truth),
            _ => {
                self.wrong_type(node, path, "true or false");
                None
            }
        }
    }

    /// A list of strings, each read by `read`; items it refuses are left out.
    pub(super) fn list_of<T>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        mut read: impl FnMut(&mut Self, At<&str>, &Path<'_>) -> Option<T>,
    ) -> Vec<At<T>> {
        let items = self.items(node, path);
        // Exactly as long as it is: most have one item, and large policies have a hundred thousand such lists.
        let mut values = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let path = path.item(number);
            if let Some(text) = self.text(item, &path)
                && let Some(value) = read(self, text, &path)
            {
                values.push(At { value, place: item.place, number });
            }
        }
        values
    }

    /// One of a closed set of words.
    pub(super) fn word<T>(&mut self, node: &Node, path: &Path<'_>, known: &[(&str, T)]) -> Option<T>
    where
        T: Copy,
    {
        let written = match &node.value {
            Value::Text(text) | Value::Number(text) => text,
            Value::Boolean(true) => "true",
            Value::Boolean(false) => "false",
            _ => self.text(node, path)?.value,
        };
        let found = known.iter().find(|(name, _)| *name == written);
        if found.is_none() {
            let names: Vec<_> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            self.error(node.place, path, format!("unknown value `{written}`"))
                .help(format!("it must be one of {}", names.join(", ")));
        }
        found.map(|(_, value)| *value)
    }
}
