//! What `replay` shows of each request and of the whole log.

use crate::cli::{Failure, Format, columns, counted, one_line};
use crate::replay::{Change, Counts, Gaps, Summary};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};

/// Rows of each part of the summary; the JSON form has all.
const MAX_ROWS: usize = 20;
/// Ids of revoked principals are named up to this many.
const MAX_IDS: usize = 5;

/// What is shown goes out as it is found.
pub(super) struct Output<'o> {
    to: BufWriter<io::StdoutLock<'o>>,
    format: Format,
    /// No more are shown.
    limit: Option<u64>,
    shown: u64,
    hidden: u64,
}

impl Output<'_> {
    pub(super) fn new(format: Format, limit: Option<u64>) -> Self {
        Self { to: BufWriter::new(io::stdout().lock()), format, limit, shown: 0, hidden: 0 }
    }

    pub(super) fn show(&mut self, shown: &Change<'_>) -> io::Result<()> {
        if self.limit.is_some_and(|limit| self.shown >= limit) {
            self.hidden += 1;
            return Ok(());
        }
        self.shown += 1;
        match self.format {
            Format::Json => {
                self.to.write_all(if self.shown == 1 { b"{\"changes\":[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.to, shown)?;
                Ok(())
            }
            Format::Human => {
                let who = shown.user.or(shown.subject).unwrap_or("-");
                let of = shown.new.owner.map_or_else(String::new, |owner| format!(" of {owner}"));
                let by = match (shown.new.grant, shown.new.restriction) {
                    (Some(grant), _) => format!(" by the grant {grant}{of}"),
                    (_, Some(restriction)) => format!(" by the restriction {restriction}{of}"),
                    _ => String::new(),
                };
                let new = match shown.depends_on {
                    None => format!("{} ({}){by}", shown.new.decision, shown.new.reason),
                    Some("revocation") => "depends on a revoked id or token that was not recorded".to_owned(),
                    Some("truncated") => "depends on what was cut from the record".to_owned(),
                    Some(_) => "depends on groups that were not recorded".to_owned(),
                };
                let line = format!(
                    "{:<7}  line {}  {}  {who}  {}  {}  {}: {} ({}) -> {new}",
                    shown.change,
                    shown.line,
                    shown.time.unwrap_or("-"),
                    shown.tenants.join("|"),
                    shown.scope.unwrap_or("-"),
                    shown.client_ip.unwrap_or("-"),
                    shown.old.decision,
                    shown.old.reason,
                );
                writeln!(self.to, "{}", one_line(&line))
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// What is to be printed behind everything that was shown. A stream that could not be flushed shows itself then.
    pub(super) fn end(self, summary: &Summary) -> Result<String, Failure> {
        Ok(match self.format {
            Format::Human => {
                // Who asked for the summary alone knows that nothing else is shown.
                let more = self.hidden > 0 && self.shown > 0;
                let more = if more { format!("and {} more\n", self.hidden) } else { String::new() };
                more + &human(summary, self.shown > 0)
            }
            Format::Json => {
                let text = serde_json::to_string(summary)
                    .map_err(|error| Failure(format!("cannot write the answer as JSON: {error}")))?;
                let start = if self.shown == 0 { "{\"changes\":[" } else { "\n" };
                format!("{start}],\n\"not_shown\":{},\n\"summary\":{text}}}\n", self.hidden)
            }
        })
    }
}

fn human(summary: &Summary, any: bool) -> String {
    let mut out = String::new();
    if any {
        out.push('\n');
    }
    let count = |count: u64, noun: &str| counted(usize::try_from(count).unwrap_or(usize::MAX), noun);
    _ = writeln!(
        out,
        "{}: {} changed, {} unknown, {} the same, {} denied for another reason, {} denied before the rules, {} not \
         decided; {}",
        count(summary.records, "record"),
        summary.changed,
        summary.unknown,
        summary.same,
        summary.other_reason,
        summary.before_rules,
        summary.undecided,
        count(summary.corrupt, "corrupt line"),
    );
    if summary.earlier > 0 {
        _ = writeln!(out, "{} of earlier requests left out", count(summary.earlier, "record"));
    }
    let reasons = summary.by_reason.iter();
    let reasons = reasons.map(|((old, new), counts)| (format!("{old} -> {new}"), *counts)).collect();
    for (heading, counts) in [
        ("OWNER", &summary.by_owner),
        ("TENANT", &summary.by_tenant),
        ("GROUP", &summary.by_group),
        ("REASON", &reasons),
    ] {
        if counts.is_empty() {
            continue;
        }
        let mut sorted: Vec<_> = counts.iter().collect();
        let total = |counts: &Counts| counts.gained + counts.lost + counts.unknown;
        sorted.sort_by_key(|(_, counts)| std::cmp::Reverse(total(counts)));
        let rows: Vec<_> = sorted
            .iter()
            .take(MAX_ROWS)
            .map(|(name, counts)| {
                let [gained, lost, unknown] =
                    [counts.gained, counts.lost, counts.unknown].map(|count| count.to_string());
                [one_line(name), gained, lost, unknown]
            })
            .collect();
        out.push('\n');
        out.push_str(&columns([heading, "GAINED", "LOST", "UNKNOWN"], &rows));
        if let Some(more @ 1..) = sorted.len().checked_sub(MAX_ROWS) {
            _ = writeln!(out, "and {more} more");
        }
    }
    out
}

/// What the policy revokes and no record has, for stderr; nothing where there is nothing.
pub(super) fn warning(Gaps { ids, tokens, keys }: &Gaps) -> String {
    let mut out = String::new();
    if !ids.is_empty() {
        let shown = ids.iter().take(MAX_IDS).map(|(issuer, id)| format!("`{}` of `{issuer}`", one_line(id)));
        let shown: Vec<_> = shown.collect();
        let more = ids.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        _ = writeln!(
            out,
            "warning: the policy revokes {} whose id is the subject of no record: {}{more}\n  help: where that is an \
             `oid`, no record tells it, and their requests are decided as if it were not revoked",
            counted(ids.len(), "principal"),
            shown.join(", "),
        );
    }
    if *tokens > 0 {
        _ = writeln!(
            out,
            "warning: the policy revokes {}, and records do not tell with which they came\n  help: requests are \
             decided as if it were not revoked",
            counted(*tokens, "token"),
        );
    }
    if !keys.is_empty() {
        _ = writeln!(
            out,
            "warning: the policy revokes {}, and records do not say which key signed a token\n  help: requests are \
             decided as if it were not revoked",
            counted(keys.len(), "key"),
        );
    }
    out
}
