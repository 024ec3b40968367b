//! Decisions against the slow model.

use crate::decision::model::{
    ADDRESSES, EXCEPTIONS, GROUPS, NETWORKS, Owned, PATTERNS, Policy, RAW_GROUPS, REVOCABLE, Rule, SCOPES,
    TENANTS, Wish, agrees,
};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use crate::token::fixtures::NOW;

/// Any bytes as the choices that make a policy and requests, from the same words as the model's own test: both decide
/// alike.
pub(super) fn decision(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes.iter());
    let policy = choices.policy();
    let wishes: Vec<Wish> = (0..choices.below(12) + 1).map(|_| choices.wish()).collect();
    agrees(&policy, &wishes).unwrap_or_else(|failed| panic!("{failed}"))
}

/// One byte a choice; when there are no more, the first of everything.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % count
    }

    fn is(&mut self) -> bool {
        self.below(2) == 1
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn some<T: Copy>(&mut self, of: &[T], least: usize, most: usize) -> Vec<T> {
        (0..least + self.below(most - least + 1)).map(|_| self.one(of)).collect()
    }

    fn policy(&mut self) -> Policy {
        Policy {
            grants: (0..self.below(5)).map(|_| self.rule()).collect(),
            restrictions: (0..self.below(4)).map(|_| self.rule()).collect(),
            revoked: self.some(&REVOCABLE, 0, 2),
            networks: self.is().then(|| self.some(&NETWORKS, 1, 2)),
            owner: self
                .is()
                .then(|| Owned { tenants: self.some(&PATTERNS, 0, 11), every: self.below(2) + 1 }),
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            groups: if self.below(3) == 0 { vec!["*"] } else { self.some(&GROUPS, 1, 2) },
            except_groups: self.some(&GROUPS, 0, 1),
            tenants: self.some(&PATTERNS, 1, 2),
            except_tenants: self.some(&PATTERNS[..EXCEPTIONS], 0, 1),
            scopes: self.is().then(|| self.some(&SCOPES, 1, 2)),
            expires: self.one(&[None, None, Some(NOW), Some(NOW + 1)]),
            networks: self.some(&NETWORKS, 1, 2),
            service: self.is(),
            shadow: self.is(),
        }
    }

    fn wish(&mut self) -> Wish {
        let backends = self.some(&Backend::ALL, 1, 2).into_iter().map(BackendSet::of);
        Wish {
            service: self.below(4) == 0,
            raw_groups: self.some(&RAW_GROUPS, 0, 3),
            tenants: self.some(&TENANTS, 1, 3),
            scope: self.one(&Scope::ALL),
            backends: backends.fold(BackendSet::EMPTY, BackendSet::union),
            client_ip: match self.below(8) {
                0 => Err(Reason::IpMissing),
                1 => Err(Reason::IpExpired),
                _ => Ok(self.one(&ADDRESSES)),
            },
        }
    }
}
