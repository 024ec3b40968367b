//! `tenantauth routes`: the built-in route table.

use super::{Answer, Failure, Format, backend_parser, json};
use crate::route::{TableRow, table};
use crate::scope::{Backend, Scope};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;

/// Prints the built-in route table: what each request to a backend needs.
///
/// Columns: backend, method, pattern, scope (`denied`: to everyone), kind. In a pattern `{name}` is one segment and
/// `{rest}` anything below. A route that is not listed is denied to everyone.
#[derive(Args)]
pub(super) struct Routes {
    /// Only the routes of these backends; comma-separated or repeated.
    #[arg(long, value_name = "BACKEND", value_delimiter = ',', value_parser = backend_parser())]
    backend: Vec<Backend>,
}

/// One row; `scope` is null where the route is denied to everyone.
#[derive(Serialize)]
struct Row {
    backend: &'static str,
    method: &'static str,
    pattern: &'static str,
    scope: Option<&'static str>,
    kind: &'static str,
}

impl Routes {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let wanted = |row: &TableRow| self.backend.is_empty() || self.backend.contains(&row.backend);
        let rows: Vec<Row> = table()
            .filter(wanted)
            .map(|row| Row {
                backend: row.backend.name(),
                method: row.method,
                pattern: row.pattern,
                scope: row.scope.map(Scope::name),
                kind: row.kind,
            })
            .collect();
        Ok(Answer::ok(match format {
            Format::Json => json(&rows)?,
            Format::Human => human(&rows),
        }))
    }
}

fn human(rows: &[Row]) -> String {
    let columns = |row: &Row| [row.backend, row.method, row.pattern, row.scope.unwrap_or("denied")];
    let mut widths = [0; 4];
    for row in rows {
        for (width, text) in widths.iter_mut().zip(columns(row)) {
            *width = text.len().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        for (width, text) in widths.into_iter().zip(columns(row)) {
            _ = write!(out, "{text:width$}  ");
        }
        out.push_str(row.kind);
        out.push('\n');
    }
    out
}
