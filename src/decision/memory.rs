//! What a decision remembers of rules, so that none is looked at twice.

use hashbrown::HashMap;
use smallvec::SmallVec;

/// Up to this many rules are kept without an allocation: a request that meets one owner's rules meets no more of them.
const FEW: usize = 32;

/// By the last digits of a rule's number it is known where it may be: those of one document follow one another.
const SLOTS: usize = 64;

/// Something about rules, by their numbers.
pub(super) struct Memory<T> {
    few: SmallVec<[(u32, T); FEW]>,
    /// The position in `few`, from 1, of the last rule with these digits; 0 of none.
    slots: [u8; SLOTS],
    /// Once there are more.
    many: Option<HashMap<u32, T>>,
}

impl<T: Copy> Memory<T> {
    pub(super) const fn new() -> Self {
        Self { few: SmallVec::new_const(), slots: [0; SLOTS], many: None }
    }

    /// What is known of a rule.
    pub(super) fn get(&self, rule: u32) -> Option<T> {
        match &self.many {
            None => self.few.get(self.position(rule)?).map(|(_, value)| *value),
            Some(many) => many.get(&rule).copied(),
        }
    }

    /// Remembers something, in place of what was known of the rule.
    pub(super) fn set(&mut self, rule: u32, value: T) {
        if self.many.is_none() {
            if let Some((_, known)) = self.position(rule).and_then(|at| self.few.get_mut(at)) {
                *known = value;
                return;
            }
            if self.few.len() < FEW {
                self.few.push((rule, value));
                if let Some(slot) = self.slots.get_mut(slot_of(rule)) {
                    *slot = u8::try_from(self.few.len()).unwrap_or_default();
                }
                return;
            }
        }
        self.set_one_of_many(rule, value);
    }

    fn position(&self, rule: u32) -> Option<usize> {
        let last = usize::from(*self.slots.get(slot_of(rule))?).checked_sub(1)?;
        if self.few.get(last).is_some_and(|(known, _)| *known == rule) {
            return Some(last);
        }
        self.few.iter().position(|(known, _)| *known == rule)
    }

    #[cold]
    fn set_one_of_many(&mut self, rule: u32, value: T) {
        let few = &self.few;
        self.many.get_or_insert_with(|| few.iter().copied().collect()).insert(rule, value);
    }
}

fn slot_of(rule: u32) -> usize {
    usize::try_from(rule).unwrap_or_default() % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_each_rule_is_kept() {
        // One after the other, and all with the same last digits; few and many.
        for (step, count) in [(1, 20), (1, 50), (64, 20), (64, 50), (7, 32), (7, 33)] {
            let mut memory = Memory::new();
            for round in 0..3 {
                for rule in 0..count {
                    let before = (round > 0).then(|| rule + round - 1);
                    assert_eq!(memory.get(rule * step), before);
                    memory.set(rule * step, rule + round);
                    assert_eq!(memory.get(rule * step), Some(rule + round));
                }
            }
            assert_eq!([memory.get(count * step), memory.get(64 * 64 * 64)], [None; 2]);
        }
    }
}
