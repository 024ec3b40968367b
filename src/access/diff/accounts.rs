//! What changes for service accounts.

use super::{ACCOUNT, Change, Found, Side, What};
use crate::access::cells::Cell;
use crate::access::{Places, RulesOfCell, Until, units};
use crate::policy::snapshot::{GroupId, ServiceAccount, Snapshot};
use std::collections::{BTreeMap, HashSet};

/// The service accounts of both policies, by their names.
pub(super) fn accounts_of(sides: [&Snapshot; 2]) -> BTreeMap<&str, [Option<&ServiceAccount>; 2]> {
    let mut accounts: BTreeMap<&str, [Option<&ServiceAccount>; 2]> = BTreeMap::new();
    for (number, snapshot) in sides.into_iter().enumerate() {
        for account in &snapshot.service_accounts {
            let entry = accounts.entry(&account.name).or_default();
            if let Some(side) = entry.get_mut(number) {
                *side = Some(account);
            }
        }
    }
    accounts
}

/// Whether an account is let in, and where it must be.
pub(super) fn reaches_from(account: &ServiceAccount) -> (bool, Places) {
    (!account.revoked && !account.groups.is_empty(), Places::of_account(account))
}

/// What becomes of the service accounts: no restriction binds them, and nothing adds to their one group.
pub(super) fn compare_accounts<'s>(
    cell: &Cell<'s>,
    rules: &[RulesOfCell<'s>; 2],
    sides: [&'s Snapshot; 2],
    now: u64,
    found: &mut Vec<Found<'s>>,
) {
    let granted: HashSet<GroupId> = rules
        .iter()
        .flat_map(|side| side.grants.iter())
        .flat_map(|grant| grant.groups.iter().copied())
        .collect();
    for (name, accounts) in accounts_of(sides) {
        if !accounts.iter().flatten().any(|account| account.groups.iter().any(|id| granted.contains(id))) {
            continue;
        }
        for unit in units() {
            let until = |rules: &RulesOfCell<'_>, account: Option<&ServiceAccount>| {
                account
                    .filter(|account| !account.revoked)
                    .and_then(|account| rules.until(&account.groups, *unit, now))
            };
            let ([old, new], [before, after]) = (rules, accounts);
            let untils = [until(old, before), until(new, after)];
            let change = match untils {
                [None, None] => continue,
                [None, _] => Change::Gained,
                [_, None] => Change::Lost,
                [before, after] if before != after => Change::Until,
                _ if before.map(Places::of_account) != after.map(Places::of_account) => Change::Places,
                _ => continue,
            };
            let side = |until: Option<Until>, account: Option<&'s ServiceAccount>| Side {
                until,
                account: account.filter(|_| until.is_some()).map(|account| &*account.name),
                ..Side::default()
            };
            let [old, new] = untils;
            let what = What {
                change,
                who: (ACCOUNT, vec![vec![name]]),
                old: side(old, before),
                new: side(new, after),
            };
            found.push(Found { cell: cell.clone(), unit: *unit, what });
        }
    }
}
