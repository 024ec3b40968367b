//! Which grants of a policy the requests of a log used.

use super::log::{Log, LogError};
use super::record::{Next, Record};
use super::{Judged, Replayer, revision, time};
use crate::decision::explain;
use crate::policy::sample::Sample;
use crate::policy::snapshot::{Grant, GrantOutcome, GroupId, Snapshot};
use hashbrown::HashSet;
use std::path::Path;

/// What a log says of the grants of a policy.
pub(crate) struct Usage<'s> {
    /// Grants that no allowed request of the log used, with whether one perhaps did: by a group that was not recorded.
    pub(crate) unused: Vec<(&'s Grant, bool)>,
    /// How many records the log has.
    pub(crate) records: u64,
    /// Records of allowed requests that say too little: a part that decides was cut.
    pub(crate) undetermined: u64,
    /// The time of the first and of the last record, in Unix seconds.
    pub(crate) span: Option<(u64, u64)>,
}

/// The grants of `snapshot` that no record of the log used: none by which an allowed request would be allowed today, at
/// the request's own time.
///
/// `log`: a file; it is read twice, first for what its policies name.
///
/// # Errors
/// Why the log is not used.
pub(crate) fn usage<'s>(snapshot: &'s Snapshot, log: &Path) -> Result<Usage<'s>, LogError> {
    let mut replayer = Replayer::of(snapshot, None);
    let mut input = Log::open(log)?;
    if input.size.is_some() {
        replayer.learn_log(&mut input, |_| {})?;
        input = Log::open(log)?;
    }
    let mut found = Usage { unused: Vec::new(), records: 0, undetermined: 0, span: None };
    let (mut used, mut perhaps) = (HashSet::new(), HashSet::new());
    // Requests repeat themselves, and one that was looked at says nothing new.
    let mut seen: HashSet<String> = HashSet::new();
    let mut line = Vec::new();
    loop {
        match input.next(&mut line)?.0 {
            Next::End => break,
            Next::TooLong => continue,
            Next::Read => {}
        }
        let Ok(record) = Record::parse(&line) else { continue };
        found.records += 1;
        if let Ok(at) = time(&record) {
            found.span = Some(found.span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        }
        if !record.was_allowed() {
            continue;
        }
        let key = || {
            let list = |items: &Option<Vec<super::record::Item<'_>>>| -> Vec<String> {
                items.iter().flatten().map(|item| item.0.to_string()).collect()
            };
            let (groups, tenants) = (list(&record.groups), list(&record.tenants));
            let who = (record.issuer.as_deref(), record.subject.as_deref().filter(|_| record.is_service()));
            let what = (record.scope.as_deref(), record.backend.as_deref(), revision(&record));
            format!("{who:?}{groups:?}{tenants:?}{what:?}")
        };
        if !seen.insert(key()) {
            continue;
        }
        let Ok(Judged { case: Some(case), .. }) = replayer.judge(&record) else {
            found.undetermined += 1;
            continue;
        };
        let sample = case.sample();
        note(snapshot, &sample, case.groups(), &mut used);
        if let Some(held) = &case.held {
            note(snapshot, &sample, &held.groups_at_most(), &mut perhaps);
        }
    }
    if found.records == 0 {
        return Err(LogError::NoRecord { file: input.file().to_owned() });
    }
    let unused = snapshot.grants.iter().filter(|grant| !used.contains(&std::ptr::from_ref(*grant)));
    found.unused = unused.map(|grant| (grant, perhaps.contains(&std::ptr::from_ref(grant)))).collect();
    Ok(found)
}

/// Takes note of every grant that allows a request to somebody of these groups.
fn note(snapshot: &Snapshot, sample: &Sample<'_>, groups: &[GroupId], used: &mut HashSet<*const Grant>) {
    let sample = Sample { groups: Ok(groups), ..*sample };
    let Ok(trace) = sample.reach(snapshot, |request| explain(snapshot, request)) else { return };
    let grants = trace.tenants.iter().flat_map(|tenant| &tenant.grants);
    let allowing = grants.filter(|(_, outcome)| *outcome == GrantOutcome::Allows);
    used.extend(allowing.map(|(grant, _)| std::ptr::from_ref(*grant)));
}
