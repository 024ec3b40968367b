//! The built-in table, and how it is searched.

use crate::scope::{Backend, Scope};
use hashbrown::HashMap;
use std::sync::LazyLock;

/// One line of the built-in table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The backend that serves the route.
    pub backend: Backend,
    /// An HTTP method, or `*` for any.
    pub method: &'static str,
    /// The path: `{name}` is one segment or the end of one, `{rest}` is anything below.
    pub pattern: &'static str,
    /// The scope it needs; `None` where it is denied to everyone.
    pub scope: Option<Scope>,
    /// What the backend does there: `query`, `rules_write`, `operational`.
    pub kind: &'static str,
    /// Whether it is a live tail.
    pub tail: bool,
}

impl TableRow {
    pub(super) fn parse(line: &'static str) -> Option<Self> {
        let mut columns = line.split('\t');
        let (backend, method, pattern) = (columns.next()?, columns.next()?, columns.next()?);
        let (scope, kind) = (columns.next()?, columns.next()?);
        let scope = if scope == "-" { None } else { Some(Scope::from_name(scope)?) };
        let backend = Backend::from_name(backend)?;
        columns.next().is_none().then_some(Self {
            backend,
            method,
            pattern,
            scope,
            kind,
            tail: kind == "tail",
        })
    }
}

/// Every line of the built-in table, in its order.
pub fn table() -> impl Iterator<Item = TableRow> {
    ROWS.iter().copied()
}

/// The table behind its heading line. One broken line empties it, which denies everything: half a table could
/// lack the very row that denies. A test reads them all.
static ROWS: LazyLock<Vec<TableRow>> = LazyLock::new(|| {
    let lines = include_str!("table.tsv").lines().skip(1);
    lines.map(TableRow::parse).collect::<Option<_>>().unwrap_or_default()
});

/// The table as it is searched.
pub(super) static INDEX: LazyLock<Index> = LazyLock::new(|| Index::of(table()));

/// The routes of all backends, by what their paths have in common.
pub(super) struct Index {
    /// By path, where it holds no name.
    literals: HashMap<&'static str, Vec<TableRow>>,
    /// The others by their first segment, the more specific before the less specific.
    rooted: HashMap<&'static str, Vec<Pattern>>,
    /// Those without a literal first segment.
    rootless: Vec<Pattern>,
}

impl Index {
    /// The order of the rows makes no difference.
    pub(super) fn of(rows: impl Iterator<Item = TableRow>) -> Self {
        let mut literals: HashMap<_, Vec<_>> = HashMap::new();
        let mut patterns: Vec<Pattern> = Vec::new();
        for row in rows {
            let same = |pattern: &&mut Pattern| (pattern.backend, pattern.text) == (row.backend, row.pattern);
            if !row.pattern.contains('{') {
                literals.entry(row.pattern).or_default().push(row);
            } else if let Some(pattern) = patterns.iter_mut().find(same) {
                pattern.rows.push(row);
            } else {
                patterns.push(Pattern::of(row));
            }
        }
        patterns.sort_by_cached_key(Pattern::order);
        let mut rooted: HashMap<_, Vec<_>> = HashMap::new();
        let mut rootless = Vec::new();
        for pattern in patterns {
            match first_segment(pattern.text) {
                name if name.contains('{') => rootless.push(pattern),
                literal => rooted.entry(literal).or_default().push(pattern),
            }
        }
        Self { literals, rooted, rootless }
    }

    /// What may match the path, whichever backend is asked.
    pub(super) fn near<'i>(&'i self, path: &'i str) -> Candidates<'i> {
        let literals = self.literals.get(path).map_or(&[][..], Vec::as_slice);
        let rooted = self.rooted.get(first_segment(path)).map_or(&[][..], Vec::as_slice);
        Candidates { path, literals, rooted, rootless: &self.rootless }
    }
}

pub(super) struct Candidates<'i> {
    path: &'i str,
    literals: &'i [TableRow],
    rooted: &'i [Pattern],
    rootless: &'i [Pattern],
}

impl<'i> Candidates<'i> {
    /// The most specific row of the backend that serves the method.
    pub(super) fn find(&self, backend: Backend, method: &[u8]) -> Option<&'i TableRow> {
        let literal = serving(self.literals, backend, method);
        literal.or_else(|| self.matching(backend).find_map(|pattern| serving(&pattern.rows, backend, method)))
    }

    /// The backend's patterns that match, the most specific first.
    pub(super) fn matching(&self, backend: Backend) -> impl Iterator<Item = &'i Pattern> {
        let all = self.rooted.iter().chain(self.rootless);
        all.filter(move |pattern| pattern.backend == backend && pattern.matches(self.path))
    }
}

/// What stands between the first slash and the next.
fn first_segment(path: &str) -> &str {
    let below = path.get(1..).unwrap_or_default();
    let end = below.bytes().position(|byte| byte == b'/').unwrap_or(below.len());
    below.get(..end).unwrap_or_default()
}

/// The backend's row of exactly this method (`HEAD` is not `GET`), else that of any method.
fn serving<'i>(rows: &'i [TableRow], backend: Backend, method: &[u8]) -> Option<&'i TableRow> {
    let of =
        |wanted: &[u8]| rows.iter().find(|row| row.backend == backend && row.method.as_bytes() == wanted);
    of(method).or_else(|| of(b"*"))
}

/// A path with names in it: `head` and then the pieces.
pub(super) struct Pattern {
    backend: Backend,
    text: &'static str,
    head: &'static str,
    pieces: Vec<Piece>,
    /// Whether its names may hold `%2F`.
    pub(super) encoded_slash: bool,
    rows: Vec<TableRow>,
}

enum Piece {
    Literal(&'static str),
    Name,
    Rest,
}

impl Pattern {
    fn of(row: TableRow) -> Self {
        let (head, mut rest) = row.pattern.split_at(row.pattern.find('{').unwrap_or(row.pattern.len()));
        let mut pieces = Vec::new();
        while let Some((literal, (name, behind))) =
            rest.split_once('{').and_then(|(literal, name)| Some((literal, name.split_once('}')?)))
        {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal));
            }
            pieces.push(if name == "rest" { Piece::Rest } else { Piece::Name });
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest));
        }
        // Mimir matches on the encoded path, and its names of rule namespaces and groups are free text. Others
        // read that slash as a plain one, and so does Mimir behind a `proxy_pass` with a path: nothing but
        // these rows may lie below the head, which a test proves. Cortex' legacy prefix is Loki's too.
        let encoded_slash =
            row.backend == Backend::Mimir && head.ends_with("/rules/") && !head.starts_with("/api/prom/");
        Self { backend: row.backend, text: row.pattern, head, pieces, encoded_slash, rows: vec![row] }
    }

    /// Sorts literal text before a name, and a name before the rest of the path.
    fn order(&self) -> String {
        let mut key = self.head.to_owned();
        for piece in &self.pieces {
            key.push_str(match piece {
                Piece::Literal(text) => text,
                Piece::Name => "\u{10ffff}",
                Piece::Rest => "\u{10ffff}\u{10ffff}",
            });
        }
        key
    }

    fn matches(&self, path: &str) -> bool {
        let Some(mut left) = path.strip_prefix(self.head) else { return false };
        for piece in &self.pieces {
            left = match piece {
                Piece::Literal(text) => match left.strip_prefix(text) {
                    Some(behind) => behind,
                    None => return false,
                },
                Piece::Name => {
                    let (name, behind) = left.split_at(left.find('/').unwrap_or(left.len()));
                    if name.is_empty() {
                        return false;
                    }
                    behind
                }
                Piece::Rest => "",
            };
        }
        left.is_empty()
    }
}
