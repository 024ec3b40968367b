//! One line of the audit log, as far as it is needed to decide the request again; and the lines of a log, one by one.

use crate::policy::snapshot::SERVICE;
use serde::Deserialize;
use std::borrow::Cow;
use std::io::{self, BufRead, Read};

/// Longer lines are no records: the longest that a policy allows has 64 KiB.
pub(crate) const MAX_LINE: u64 = 1 << 20;

/// The form of records that is read.
pub(super) const SCHEMA: u64 = 1;

/// A record; the names are those of the log. Members that are not needed are not read.
#[derive(Deserialize)]
pub(crate) struct Record<'a> {
    pub(super) schema: u64,
    #[serde(borrow)]
    pub(super) time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) request_id: Option<Cow<'a, str>>,
    /// Null where nginx refused the request before it was decided; never absent.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    pub(super) decision: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) mode: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) shadow: Option<Shadow<'a>>,
    #[serde(borrow)]
    pub(super) issuer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) groups: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    pub(super) tenants: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    pub(super) scope: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) grant: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) restriction: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) owner: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) backend: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) client_ip: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) peer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) policy_revision: Option<Cow<'a, str>>,
    /// The keys that were cut.
    #[serde(borrow, default)]
    pub(super) truncated: Option<Vec<Item<'a>>>,
}

impl Record<'_> {
    /// Whether the request was let through by the rules: in shadow mode, whether it would have been.
    pub(super) fn was_allowed(&self) -> bool {
        matches!(super::recorded(self), Ok(Some((true, _))))
    }

    /// Whether a service account made it.
    pub(super) fn is_service(&self) -> bool {
        self.issuer.as_deref() == Some(SERVICE)
    }

    /// Unix seconds; `None` where the record has no time.
    pub(crate) fn unix_time(&self) -> Option<u64> {
        super::time(self).ok()
    }

    /// Whether something was cut by which the request could be decided.
    pub(super) fn is_cut(&self) -> bool {
        const DECIDING: [&str; 6] = ["path", "groups", "tenants", "issuer", "subject", "peer"];
        self.truncated.iter().flatten().any(|key| DECIDING.contains(&&*key.0))
    }
}

impl<'a> Record<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with its JSON, or with a member.
    pub(crate) fn parse(line: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }
}

/// A text inside a list, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
pub(crate) struct Item<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// What a mode of trial would have decided.
#[derive(Deserialize)]
pub(crate) struct Shadow<'a> {
    #[serde(borrow)]
    pub(super) decision: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
}

/// Which groups a record names, under which policy.
#[derive(Deserialize)]
pub(super) struct Names<'a> {
    pub(super) schema: u64,
    #[serde(borrow)]
    pub(super) policy_revision: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) groups: Option<Vec<Item<'a>>>,
}

/// What the next line is.
pub(crate) enum Next {
    /// It stands in the buffer, without its end.
    Read,
    /// It is longer than any record and was skipped.
    TooLong,
    /// There is none.
    End,
}

/// Reads the next line into `line`; never more than [`MAX_LINE`] bytes of it.
///
/// Returns what it is, and how many bytes were read.
///
/// # Errors
/// Those of `input`.
pub(crate) fn next(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<(Next, u64)> {
    line.clear();
    let read = input.by_ref().take(MAX_LINE).read_until(b'\n', line)?;
    let mut bytes = u64::try_from(read).unwrap_or(u64::MAX);
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok((Next::Read, bytes));
    }
    if bytes < MAX_LINE {
        return Ok((if read == 0 { Next::End } else { Next::Read }, bytes));
    }
    loop {
        line.clear();
        let more = input.by_ref().take(MAX_LINE).read_until(b'\n', line)?;
        bytes += u64::try_from(more).unwrap_or(u64::MAX);
        if more == 0 || line.last() == Some(&b'\n') {
            return Ok((Next::TooLong, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_to_their_end_and_long_ones_are_skipped() {
        let long = "x".repeat(usize::try_from(MAX_LINE).unwrap() + 5);
        let exact = "y".repeat(usize::try_from(MAX_LINE).unwrap() - 1);
        let text = format!("a\n\n{long}\nb\n{exact}\nlast");
        let mut input = io::BufReader::with_capacity(100, text.as_bytes());
        let mut line = Vec::new();
        let mut found = Vec::new();
        let mut bytes = 0;
        loop {
            let (what, read) = next(&mut input, &mut line).unwrap();
            bytes += read;
            match what {
                Next::Read => found.push(line.len()),
                Next::TooLong => found.push(usize::MAX),
                Next::End => break,
            }
        }
        assert_eq!(found, [1, 0, usize::MAX, 1, exact.len(), 4]);
        assert_eq!(bytes, u64::try_from(text.len()).unwrap());
    }

    #[test]
    fn escaped_and_plain_members_are_read() {
        let json = br#"{"schema":1,"decision":"allow","groups":["a","b\"c"],"shadow":{"decision":"deny","reason":"ip_forbidden"},"x":[1]}"#;
        let record: Record<'_> = serde_json::from_slice(json).unwrap();
        let groups: Vec<_> = record.groups.unwrap().into_iter().map(|text| text.0.into_owned()).collect();
        assert_eq!(groups, ["a", "b\"c"]);
        assert_eq!(&*record.shadow.unwrap().reason, "ip_forbidden");
        assert!(record.scope.is_none());
    }

    #[test]
    fn no_record_is_without_schema_and_decision() {
        let refused = |text| serde_json::from_str::<Record<'_>>(text).err().map(|error| error.to_string());
        assert_eq!(refused(r#"{"schema":1,"decision":null}"#), None);
        for (text, expected) in [
            (r#"{"a":1}"#, "missing field `schema`"),
            (r#"{"schema":1}"#, "missing field `decision`"),
            (r#"{"schema":"1","decision":null}"#, "invalid type: string"),
        ] {
            assert!(refused(text).unwrap().starts_with(expected), "{text}");
        }
    }
}
