//! What changes for people when one policy takes the place of another: in meaning, whatever the texts look like.
//!
//! Both policies are asked, for each set of tenants that rules tell apart, for each thing that can be done, and for
//! each kind of people, what becomes of them. A kind is whoever holds one raw group; besides there are those who hold
//! groups that no rule names, and those who hold none. Grants add up over groups, so kinds are enough for them. A
//! restriction may except groups, so for restrictions each kind is asked about together with each set of excepted
//! groups: what happens to anybody, in however many groups, happens to one of these.

mod accounts;

use super::cells::{Cell, Entangled};
use super::settings::{Setting, settings};
use super::{
    Bound, Places, Reach, Rules, RulesOfCell, Unit, Until, bounds, cells, merge, scope_names, units,
};
use crate::policy::Compiled;
use crate::policy::snapshot::{
    EVERYONE, Grant, GroupId, Held, Restriction, SERVICE, ServiceAccount, Snapshot,
};
use crate::tenant::TenantPattern;
use accounts::{accounts_of, compare_accounts, reaches_from};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Combinations of excepted groups that are looked at on one set of tenants.
const MAX_EXCEPTIONS: usize = 10;

/// The number of kinds that are service accounts.
const ACCOUNT: usize = 3;

/// How two policies differ.
#[derive(Debug)]
pub struct Diff {
    /// What is gained, lost and changed.
    pub lines: Vec<Line>,
    /// What differs in other sections.
    pub settings: Vec<Setting>,
}

impl Diff {
    /// Whether the policies mean the same.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.settings.is_empty()
    }
}

/// What becomes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// There was none.
    Gained,
    /// There is none any more.
    Lost,
    /// It ends at another time.
    Until,
    /// It is bound to other places, or recorded for others.
    Places,
}

impl Change {
    /// What reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gained => "gained",
            Self::Lost => "lost",
            Self::Until => "until",
            Self::Places => "places",
        }
    }
}

/// Which way an access changes that is neither gained nor lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It ends later.
    Later,
    /// It ends earlier.
    Earlier,
    /// From all networks that it was possible from, and more.
    Wider,
    /// From fewer networks, and no other.
    Narrower,
    /// From networks that it was not possible from, and no longer from all that it was.
    Moved,
    /// As before; what restrictions in shadow mode record is another.
    Recorded,
}

impl Direction {
    /// What reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Later => "later",
            Self::Earlier => "earlier",
            Self::Wider => "wider",
            Self::Narrower => "narrower",
            Self::Moved => "moved",
            Self::Recorded => "recorded",
        }
    }

    fn of(what: &What<'_>, old: &Snapshot, new: &Snapshot) -> Option<Self> {
        match what.change {
            Change::Gained | Change::Lost => None,
            Change::Until if what.new.until > what.old.until => Some(Self::Later),
            Change::Until => Some(Self::Earlier),
            Change::Places => Some(match (what.old.places(old), what.new.places(new)) {
                (before, after) if before == after => Self::Recorded,
                (Places::Anywhere, _) => Self::Narrower,
                (_, Places::Anywhere) => Self::Wider,
                (Places::Within(before), Places::Within(after)) => {
                    let both = before.intersection(&after);
                    if both == before {
                        Self::Wider
                    } else if both == after {
                        Self::Narrower
                    } else {
                        Self::Moved
                    }
                }
            }),
        }
    }
}

/// Of whom a line speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// Every verified user.
    Everyone,
    /// Every user who holds a group at all.
    AnyGroup,
    /// Whoever holds one raw group of each of these lists.
    Holders(Vec<Vec<String>>),
    /// The service account of this name.
    Account(String),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What becomes of the access.
    pub change: Change,
    /// Which way, where it is neither gained nor lost.
    pub direction: Option<Direction>,
    /// Whose.
    pub who: Who,
    /// To which tenants: those that all of these patterns match.
    pub tenants: Vec<String>,
    /// Tenants among them for which something else is true: each is what all of its patterns match.
    pub except: Vec<Vec<String>>,
    /// For what.
    pub units: Vec<Unit>,
    /// Under the old policy.
    pub old: Reach,
    /// Under the new policy.
    pub new: Reach,
}

impl Line {
    /// The scopes of the line, in words.
    pub fn scopes(&self) -> Vec<String> {
        scope_names(&self.units)
    }
}

/// Compares two policies.
///
/// `now`: Unix seconds; what has run out by then is not there. The keys that issuers sign with are not compared.
///
/// # Errors
/// [`Entangled`] where the combinations of patterns or excepted groups cannot be listed.
pub fn diff(old: &Compiled, new: &Compiled, now: u64) -> Result<Diff, Entangled> {
    let (before, after) = (Rules::of(&old.snapshot), Rules::of(&new.snapshot));
    let people = People::of(&old.snapshot, &new.snapshot);
    let targets = changed_tenants(&old.snapshot, &new.snapshot, now);
    let mut found = Vec::new();
    let mut all = Vec::new();
    for cell in cells(&[&before, &after], targets.into_iter())? {
        let sides = [before.in_cell(&cell), after.in_cell(&cell)];
        compare(&cell, &sides, &people, now, &mut found)?;
        compare_accounts(&cell, &sides, [&old.snapshot, &new.snapshot], now, &mut found);
        all.push(cell);
    }
    Ok(Diff { lines: merged(found, &all, [&old.snapshot, &new.snapshot]), settings: settings(old, new) })
}

/// The raw groups that rules of either policy name, and what else tells people apart.
struct People<'s> {
    sides: [&'s Snapshot; 2],
    /// For each policy, the raw groups that stand for a group of its rules.
    raw_of: [HashMap<GroupId, Vec<&'s str>>; 2],
    /// A group that neither policy names.
    stranger: String,
    /// `<issuer>:*` where a rule names it among several issuers, and a group of that issuer that nothing names.
    strangers_of: BTreeMap<&'s str, String>,
}

/// The kinds of people, as numbers: without groups, of a group that is not named, then one for each class of groups.
struct Kind<'s> {
    who: Vec<&'s str>,
    held: [Held; 2],
    /// It holds a group that some restriction of the cell excepts.
    excepted: bool,
}

impl<'s> People<'s> {
    fn of(old: &'s Snapshot, new: &'s Snapshot) -> Self {
        let raw_of = [old, new].map(|snapshot| {
            let mut raw_of: HashMap<GroupId, Vec<&str>> = HashMap::new();
            for (raw, ids) in snapshot.groups.raw_groups() {
                for id in ids {
                    raw_of.entry(*id).or_default().push(raw);
                }
            }
            raw_of
        });
        let known: HashSet<&str> =
            [old, new].into_iter().flat_map(|side| side.groups.raw_groups()).map(|(raw, _)| raw).collect();
        let mut stranger = "stranger".to_owned();
        while known.contains(&*stranger) {
            stranger.push('\'');
        }
        let every = [old, new].map(|snapshot| {
            let of_each = snapshot.groups.of_each_issuer(&stranger).into_iter();
            of_each
                .filter_map(|(every, written)| {
                    Some((snapshot.groups.name(snapshot.groups.id(&every)?), written))
                })
                .collect::<BTreeMap<&str, String>>()
        });
        let strangers_of = every.into_iter().flatten().collect();
        Self { sides: [old, new], raw_of, stranger, strangers_of }
    }

    fn held(&self, groups: &[&str]) -> [Held; 2] {
        self.sides.map(|snapshot| snapshot.groups.of_written(groups))
    }

    /// The kinds that the rules of one cell tell apart.
    fn kinds(&self, sides: &[RulesOfCell<'s>; 2]) -> Vec<Kind<'s>> {
        let mut named: [BTreeSet<GroupId>; 2] = Default::default();
        let mut excepted: [BTreeSet<GroupId>; 2] = Default::default();
        for (number, side) in sides.iter().enumerate() {
            let (Some(named), Some(excepted)) = (named.get_mut(number), excepted.get_mut(number)) else {
                continue;
            };
            named.extend(side.grants.iter().flat_map(|rule| rule.groups.iter()));
            named.extend(side.restrictions.iter().flat_map(|rule| rule.groups.iter()));
            excepted.extend(side.restrictions.iter().flat_map(|rule| rule.except_groups.iter()));
            named.extend(excepted.iter());
        }
        let mut raw: BTreeSet<&str> = BTreeSet::new();
        for (named, raw_of) in named.iter().zip(&self.raw_of) {
            raw.extend(named.iter().filter_map(|id| raw_of.get(id)).flatten());
        }
        let kind = |who: Vec<&'s str>, groups: &[&str]| {
            let held = self.held(groups);
            let excepted = held
                .iter()
                .zip(&excepted)
                .any(|(held, excepted)| held.groups.iter().any(|id| excepted.contains(id)));
            Kind { who, held, excepted }
        };
        let mut kinds = vec![kind(Vec::new(), &[]), kind(Vec::new(), &[&self.stranger])];
        kinds.extend(self.strangers_of.iter().map(|(every, group)| kind(vec![*every], &[group])));
        // Groups of which all rules here say the same are one kind.
        let mut classes: BTreeMap<Vec<Vec<GroupId>>, Vec<&str>> = BTreeMap::new();
        for group in raw {
            let held = self.held(&[group]);
            let key = held.iter().zip(&named).flat_map(|(held, named)| {
                [&held.groups, held.binding()]
                    .map(|ids| ids.iter().copied().filter(|id| named.contains(id)).collect())
            });
            classes.entry(key.collect()).or_default().push(group);
        }
        kinds.extend(classes.into_values().map(|groups| {
            let first: Vec<&str> = groups.first().copied().into_iter().collect();
            kind(groups, &first)
        }));
        kinds
    }
}

/// The rules of two policies that the other one does not have, each list in the order of its document.
#[derive(Debug, Default)]
pub struct Unmatched<'s> {
    /// Grants of the old and of the new policy.
    pub grants: [Vec<&'s Grant>; 2],
    /// Restrictions of the old and of the new policy.
    pub restrictions: [Vec<&'s Restriction>; 2],
}

/// Every rule that is not, in the same meaning, in both policies: whatever other rules say.
///
/// `now`: Unix seconds; a grant that has run out by then is not there.
pub fn unmatched<'s>(old: &'s Snapshot, new: &'s Snapshot, now: u64) -> Unmatched<'s> {
    let names = |snapshot: &'s Snapshot| {
        let mut of: HashMap<GroupId, Vec<String>> = HashMap::new();
        for (raw, ids) in snapshot.groups.raw_groups() {
            for id in ids {
                of.entry(*id).or_default().push(format!("={raw}"));
            }
        }
        move |groups: &[GroupId]| -> BTreeSet<String> {
            // What stands for no raw group is `*`, or every group of an issuer.
            let whole = |id: &GroupId| {
                vec![if *id == EVERYONE { "*".to_owned() } else { snapshot.groups.name(*id).to_owned() }]
            };
            groups.iter().flat_map(|id| of.get(id).cloned().unwrap_or_else(|| whole(id))).collect()
        }
    };
    let texts = |patterns: &[TenantPattern]| format!("{patterns:?}");
    let held_to =
        |snapshot: &Snapshot, owner, tenants: &[TenantPattern]| bounds(snapshot, owner, tenants).map(texts);
    type Names<'n> = &'n dyn Fn(&[GroupId]) -> BTreeSet<String>;
    let grant_key = |grant: &Grant, snapshot: &Snapshot, names: Names<'_>| {
        let bounds = held_to(snapshot, grant.owner, &grant.tenants);
        let tenants = (texts(&grant.tenants), texts(&grant.except_tenants), bounds);
        format!("{:?}{tenants:?}{:?}{:?}", names(&grant.groups), grant.scopes, grant.expires)
    };
    let restriction_key = |rule: &Restriction, snapshot: &Snapshot, names: Names<'_>| {
        let bounds = held_to(snapshot, rule.owner, &rule.tenants);
        let tenants = (texts(&rule.tenants), texts(&rule.except_tenants), bounds);
        let groups = (names(&rule.groups), names(&rule.except_groups));
        format!("{groups:?}{tenants:?}{:?}{:?}{}", rule.scopes, rule.networks, rule.shadow)
    };
    let (old_names, new_names) = (names(old), names(new));
    let grants = |snapshot: &'s Snapshot, names: Names<'_>| -> Vec<_> {
        let live = snapshot.grants.iter().filter(|grant| !grant.has_expired(now));
        live.map(|rule| (grant_key(rule, snapshot, names), rule)).collect()
    };
    let restrictions = |snapshot: &'s Snapshot, names: Names<'_>| -> Vec<_> {
        snapshot.restrictions.iter().map(|rule| (restriction_key(rule, snapshot, names), rule)).collect()
    };
    Unmatched {
        grants: only_in_one(&grants(old, &old_names), &grants(new, &new_names)),
        restrictions: only_in_one(&restrictions(old, &old_names), &restrictions(new, &new_names)),
    }
}

/// The rules of each side whose key the other side does not have.
fn only_in_one<'s, T>(old: &[(String, &'s T)], new: &[(String, &'s T)]) -> [Vec<&'s T>; 2] {
    [(old, new), (new, old)].map(|(mine, other)| {
        let there: HashSet<&str> = other.iter().map(|(key, _)| &**key).collect();
        mine.iter().filter(|(key, _)| !there.contains(&**key)).map(|(_, rule)| *rule).collect()
    })
}

/// The tenants and patterns of every rule that is not, in the same meaning, in both policies.
fn changed_tenants<'s>(old: &'s Snapshot, new: &'s Snapshot, now: u64) -> BTreeSet<&'s TenantPattern> {
    let Unmatched { grants, restrictions } = unmatched(old, new, now);
    let mut tenants = BTreeSet::new();
    tenants.extend(grants.iter().flatten().flat_map(|rule| rule.tenants.iter()));
    tenants.extend(restrictions.iter().flatten().flat_map(|rule| rule.tenants.iter()));
    for (name, [before, after]) in accounts_of([old, new]) {
        if before.map(reaches_from) == after.map(reaches_from) {
            continue;
        }
        let group = format!("{SERVICE}:{name}");
        for snapshot in [old, new] {
            let Some(id) = snapshot.groups.id(&group) else { continue };
            let granted = snapshot.grants.iter().filter(|grant| grant.groups.binary_search(&id).is_ok());
            tenants.extend(granted.flat_map(|grant| grant.tenants.iter()));
        }
    }
    tenants
}

/// A change on one cell, for one unit. There may be very many, so nothing is written out yet.
struct Found<'s> {
    cell: Cell<'s>,
    unit: Unit,
    what: What<'s>,
}

/// A line without its tenants and units.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct What<'s> {
    change: Change,
    /// The kinds that are meant, by their raw groups; the number tells those without apart.
    who: (usize, Vec<Vec<&'s str>>),
    old: Side<'s>,
    new: Side<'s>,
}

/// A reach, by the rules that make it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Side<'s> {
    until: Option<Until>,
    from: Vec<ByPlace<'s>>,
    watched: Vec<ByPlace<'s>>,
    /// The service account whose reach it is.
    account: Option<&'s str>,
}

/// A restriction, known by where it stands in memory.
#[derive(Clone, Copy)]
struct ByPlace<'s>(&'s Restriction);

impl ByPlace<'_> {
    fn place(self) -> *const Restriction {
        std::ptr::from_ref(self.0)
    }
}

impl PartialEq for ByPlace<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for ByPlace<'_> {}

impl PartialOrd for ByPlace<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByPlace<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl What<'_> {
    fn who(&self) -> Who {
        match &self.who {
            (0, _) => Who::Everyone,
            (1, _) => Who::AnyGroup,
            (ACCOUNT, names) => {
                Who::Account(names.iter().flatten().next().map_or_else(String::new, ToString::to_string))
            }
            (_, kinds) => {
                Who::Holders(kinds.iter().map(|any| any.iter().map(ToString::to_string).collect()).collect())
            }
        }
    }
}

impl Side<'_> {
    /// Where requests must come from.
    fn places(&self, snapshot: &Snapshot) -> Places {
        match self.account(snapshot) {
            Some(account) => Places::of_account(account),
            None => Places::of(&self.from.iter().map(|rule| rule.0).collect::<Vec<_>>()),
        }
    }

    fn account<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s ServiceAccount> {
        self.account.and_then(|name| snapshot.service_accounts.iter().find(|known| *known.name == *name))
    }

    fn reach(&self, snapshot: &Snapshot) -> Reach {
        let bound = |rules: &[ByPlace<'_>]| rules.iter().map(|rule| Bound::of(rule.0, snapshot)).collect();
        let from = match self.account(snapshot) {
            Some(account) => Bound::of_account(account).into_iter().collect(),
            None => bound(&self.from),
        };
        Reach { until: self.until, from, watched: bound(&self.watched) }
    }
}

fn compare<'s>(
    cell: &Cell<'s>,
    sides: &[RulesOfCell<'s>; 2],
    people: &People<'s>,
    now: u64,
    found: &mut Vec<Found<'s>>,
) -> Result<(), Entangled> {
    let kinds = people.kinds(sides);
    let excepted: Vec<usize> =
        kinds.iter().enumerate().filter(|(_, kind)| kind.excepted).map(|(number, _)| number).collect();
    if excepted.len() > MAX_EXCEPTIONS {
        return Err(Entangled);
    }
    let mut subsets: Vec<Vec<usize>> = (0..1usize << excepted.len())
        .map(|bits| {
            let chosen = excepted.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            chosen.map(|(_, number)| *number).collect()
        })
        .collect();
    subsets.sort_by_key(Vec::len);
    for unit in units() {
        let [old, new] = sides;
        let until = |kind: &Kind<'_>| {
            let [before, after] = &kind.held;
            (old.until(&before.groups, *unit, now), new.until(&after.groups, *unit, now))
        };
        let untils: Vec<_> = kinds.iter().map(until).collect();
        let mut told = |change, held: &[usize]| {
            let [before, after] = &together(&kinds, held);
            let side = |rules, held: &Held, absent| {
                // Where there is no access it does not matter where from.
                if change == absent { Side::default() } else { side(rules, held, *unit, now) }
            };
            let what = What {
                change,
                who: who(&kinds, held),
                old: side(old, before, Change::Gained),
                new: side(new, after, Change::Lost),
            };
            found.push(Found { cell: cell.clone(), unit: *unit, what });
        };
        let mut shown: Vec<usize> = Vec::new();
        for (number, (before, after)) in untils.iter().enumerate() {
            // What is true of everyone need not be said of each.
            let said = (0..number.min(2)).any(|wider| untils.get(wider) == Some(&(*before, *after)));
            if before == after || said {
                continue;
            }
            let change = match (before, after) {
                (None, _) => Change::Gained,
                (_, None) => Change::Lost,
                _ => Change::Until,
            };
            if change != Change::Until {
                shown.push(number);
            }
            told(change, &[number]);
        }
        let granted = |side: fn(&(Option<Until>, Option<Until>)) -> bool| untils.iter().any(side);
        if !(granted(|(before, _)| before.is_some()) && granted(|(_, after)| after.is_some())) {
            continue;
        }
        let mut reported: Vec<(Vec<usize>, [Places; 4])> = Vec::new();
        for subset in &subsets {
            for number in 0..kinds.len() {
                if subset.contains(&number) && subset.len() > 1 {
                    continue;
                }
                let mut held: Vec<usize> = subset.iter().copied().chain([number]).collect();
                held.sort_unstable();
                held.dedup();
                // Whoever holds a group at all is no longer without.
                if held.len() > 1 {
                    held.retain(|number| *number > 1);
                }
                let [before, after] = &together(&kinds, &held);
                let places = [
                    Places::of(&old.binding(before, *unit, false)),
                    Places::of(&new.binding(after, *unit, false)),
                    Places::of(&old.binding(before, *unit, true)),
                    Places::of(&new.binding(after, *unit, true)),
                ];
                let [from_old, from_new, watched_old, watched_new] = &places;
                let same = from_old == from_new && watched_old == watched_new;
                let is_in = |wider: &[usize]| {
                    wider == [0]
                        || (wider == [1] && held != [0])
                        || wider.iter().all(|number| held.contains(number))
                };
                if same
                    || shown.iter().any(|number| is_in(&[*number]))
                    || reported.iter().any(|(wider, seen)| *seen == places && is_in(wider))
                {
                    continue;
                }
                told(Change::Places, &held);
                reported.push((held, places));
            }
        }
    }
    Ok(())
}

/// What several kinds hold together.
fn together(kinds: &[Kind<'_>], held: &[usize]) -> [Held; 2] {
    let nothing = [Held::everyone(), Held::everyone()];
    held.iter().filter_map(|number| kinds.get(*number)).fold(nothing, |[old, new], kind| {
        let [before, after] = &kind.held;
        [old.with(before), new.with(after)]
    })
}

fn who<'s>(kinds: &[Kind<'s>], held: &[usize]) -> (usize, Vec<Vec<&'s str>>) {
    match held {
        [without @ (0 | 1)] => (*without, Vec::new()),
        several => {
            (2, several.iter().filter_map(|number| kinds.get(*number)).map(|kind| kind.who.clone()).collect())
        }
    }
}

fn side<'s>(rules: &RulesOfCell<'s>, held: &Held, unit: Unit, now: u64) -> Side<'s> {
    let bound = |shadow| rules.binding(held, unit, shadow).into_iter().map(ByPlace).collect();
    Side {
        until: rules.until(&held.groups, unit, now),
        from: bound(false),
        watched: bound(true),
        account: None,
    }
}

fn merged<'p>(found: Vec<Found<'p>>, cells: &[Cell<'p>], [old, new]: [&Snapshot; 2]) -> Vec<Line> {
    let entries = found.into_iter().map(|one| (one.what, one.cell, one.unit));
    let mut lines: Vec<Line> = merge::merge(entries, cells)
        .into_iter()
        .map(|merged| Line {
            change: merged.what.change,
            direction: Direction::of(&merged.what, old, new),
            who: merged.what.who(),
            tenants: merged.tenants,
            except: merged.except,
            units: merged.units,
            old: merged.what.old.reach(old),
            new: merged.what.new.reach(new),
        })
        .collect();
    lines.sort_by(|a, b| {
        (&a.tenants, a.change, &a.who, &a.old, &a.new).cmp(&(&b.tenants, b.change, &b.who, &b.old, &b.new))
    });
    lines
}

#[cfg(test)]
pub(crate) mod tests;
