//! One record of a log, decided again: for people who ask about that request.

use super::log::{Log, LogError};
use super::record::{Next, Record};
use super::{Case, Corrupt, Fate, Judged, Replayer};
use crate::decision::Decision;
use serde::Serialize;
use std::path::Path;

/// What the record of a request says. Its form in reports is stable.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Recorded {
    pub(crate) request_id: Option<String>,
    pub(crate) time: Option<String>,
    /// What was applied.
    pub(crate) decision: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) grant: Option<String>,
    pub(crate) restriction: Option<String>,
    /// Whose document the rule stood in; null for the platform's.
    pub(crate) owner: Option<String>,
    pub(crate) policy_revision: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) groups: Option<Vec<String>>,
    pub(crate) tenants: Option<Vec<String>>,
    pub(crate) scope: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) client_ip: Option<String>,
    pub(crate) peer: Option<String>,
}

/// A record, and what becomes of its request by the policy that decides now.
pub(crate) struct Review<'a> {
    /// Its line in the log, from 1.
    pub(crate) line: u64,
    pub(crate) recorded: Recorded,
    /// `same`, `other_reason`, `gained`, `lost`, `unknown`, `before_rules` or `undecided`.
    pub(crate) outcome: &'static str,
    /// What was not recorded and decides, where the outcome is `unknown`: `groups`, `revocation` or `truncated`.
    pub(crate) depends_on: Option<&'static str>,
    /// As far as it is known; `None` where no rule was asked.
    pub(crate) decision: Option<Decision>,
    /// The request, where the rules were asked.
    pub(crate) case: Option<Box<Case<'a>>>,
}

impl<'s> Replayer<'s> {
    /// Looks for the record of a request, and takes note of everything that the log's records name.
    ///
    /// `log`: the file, `-` for stdin. `id`: the record's `request_id`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn find(&mut self, log: &Path, id: &str) -> Result<(u64, Vec<u8>), LogError> {
        let mut log = Log::open(log)?;
        let (mut line, mut number, mut any) = (Vec::new(), 0, false);
        let mut found = None;
        loop {
            number += 1;
            match log.next(&mut line)?.0 {
                Next::End => break,
                Next::TooLong => continue,
                Next::Read => {}
            }
            self.learn(&line);
            // A record is parsed only where it may be the one, or the first.
            let may_be = line.windows(id.len().max(1)).any(|part| part == id.as_bytes());
            if found.is_some() || (any && !may_be) {
                continue;
            }
            let Ok(record) = Record::parse(&line) else { continue };
            any = true;
            if record.request_id.as_deref() == Some(id) {
                found = Some((number, line.clone()));
            }
        }
        let file = log.file().to_owned();
        match found {
            Some(found) => Ok(found),
            None if any => Err(LogError::NoSuchRequest { file, id: id.to_owned() }),
            None => Err(LogError::NoRecord { file }),
        }
    }

    /// Decides a record again. `line`: its number in the log.
    ///
    /// # Errors
    /// The record says something that no record says.
    pub(crate) fn review(&self, record: &Record<'_>, line: u64) -> Result<Review<'_>, Corrupt> {
        let Judged { fate, decision, case } = self.judge(record)?;
        let (outcome, depends_on) = match fate {
            Fate::Same => ("same", None),
            Fate::OtherReason(_) => ("other_reason", None),
            Fate::Changed(decision) if decision.is_allow() => ("gained", None),
            Fate::Changed(_) => ("lost", None),
            Fate::Unknown(_) => ("unknown", Some("groups")),
            Fate::PerhapsRevoked(_) => ("unknown", Some("revocation")),
            Fate::Cut => ("unknown", Some("truncated")),
            Fate::BeforeRules => ("before_rules", None),
            Fate::Undecided => ("undecided", None),
        };
        let decision = decision.or(match fate {
            Fate::OtherReason(decision) | Fate::Changed(decision) => Some(decision),
            _ => None,
        });
        Ok(Review { line, recorded: Recorded::of(record), outcome, depends_on, decision, case })
    }
}

impl Recorded {
    fn of(record: &Record<'_>) -> Self {
        let own = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let list = |items: &Option<Vec<super::record::Item<'_>>>| {
            items.as_ref().map(|items| items.iter().map(|item| item.0.to_string()).collect())
        };
        Self {
            request_id: own(&record.request_id),
            time: own(&record.time),
            decision: own(&record.decision),
            reason: own(&record.reason),
            mode: own(&record.mode),
            grant: own(&record.grant),
            restriction: own(&record.restriction),
            owner: own(&record.owner),
            policy_revision: own(&record.policy_revision),
            issuer: own(&record.issuer),
            subject: own(&record.subject),
            user: own(&record.user),
            groups: list(&record.groups),
            tenants: list(&record.tenants),
            scope: own(&record.scope),
            backend: own(&record.backend),
            method: own(&record.method),
            path: own(&record.path),
            client_ip: own(&record.client_ip),
            peer: own(&record.peer),
        }
    }
}
