//! Texts that may begin, or end, other texts: all that begin a text are found without looking at the others.
//!
//! The longest is found by a binary search among the lengths, a hash look-up each (Waldvogel et al., Scalable High Speed
//! IP Routing Lookups, 1997), and leads to the shorter ones. So a look-up takes the logarithm of the number of lengths
//! and a step for each text found, however many there are.

use hashbrown::HashMap;
use std::cmp::Ordering;
use std::marker::PhantomData;

/// Up to this many texts are compared one by one, which is quicker than any search.
const FEW: usize = 4;

/// The end of a text at which another one lies.
pub(super) trait End {
    /// So many bytes at this end; `None` where there are fewer.
    fn part(text: &[u8], length: usize) -> Option<&[u8]>;

    /// The order of two texts read from this end: what lies at the end of another one comes before it.
    fn order(one: &[u8], other: &[u8]) -> Ordering;

    /// Whether `part` lies at this end.
    fn holds(text: &[u8], part: &[u8]) -> bool;
}

/// Where texts begin.
#[derive(Clone, Debug)]
pub(super) enum Front {}

/// Where texts end.
#[derive(Clone, Debug)]
pub(super) enum Back {}

impl End for Front {
    fn part(text: &[u8], length: usize) -> Option<&[u8]> {
        text.get(..length)
    }

    fn order(one: &[u8], other: &[u8]) -> Ordering {
        one.cmp(other)
    }

    fn holds(text: &[u8], part: &[u8]) -> bool {
        text.starts_with(part)
    }
}

impl End for Back {
    fn part(text: &[u8], length: usize) -> Option<&[u8]> {
        text.get(text.len().checked_sub(length)?..)
    }

    fn order(one: &[u8], other: &[u8]) -> Ordering {
        one.iter().rev().cmp(other.iter().rev())
    }

    fn holds(text: &[u8], part: &[u8]) -> bool {
        text.ends_with(part)
    }
}

/// Values by texts that are looked for at one end of others.
#[derive(Clone, Debug)]
pub(super) struct Affixes<E, T> {
    /// In the order of their texts: of those that lie at the end of one text, the longest is the last.
    nodes: Box<[Node<T>]>,
    /// Of more than [`FEW`].
    search: Option<Box<Search>>,
    end: PhantomData<E>,
}

/// One text and its value.
#[derive(Clone, Debug)]
pub(super) struct Node<T> {
    pub(super) text: Box<[u8]>,
    /// The longest other text that lies at its end.
    parent: Option<u32>,
    pub(super) value: T,
}

#[derive(Clone, Debug, Default)]
struct Search {
    /// The distinct lengths of texts, ascending.
    lengths: Box<[usize]>,
    /// The last node whose text lies at the key's end; for every text, and for those parts of it at which the search
    /// among `lengths` for it stops.
    table: HashMap<Box<[u8]>, Option<u32>>,
}

impl<E, T> Default for Affixes<E, T> {
    fn default() -> Self {
        Self { nodes: Box::default(), search: None, end: PhantomData }
    }
}

impl<E: End, T> Affixes<E, T> {
    /// `values`: of distinct texts.
    pub(super) fn build(mut values: Vec<(&[u8], T)>) -> Self {
        values.sort_by(|one, other| E::order(one.0, other.0));
        let mut nodes: Vec<Node<T>> = Vec::with_capacity(values.len());
        let mut above: Vec<u32> = Vec::new();
        for (text, value) in values {
            while above
                .last()
                .is_some_and(|node| node_at(&nodes, *node).is_none_or(|node| !E::holds(text, &node.text)))
            {
                above.pop();
            }
            let number = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            nodes.push(Node { text: text.into(), parent: above.last().copied(), value });
            above.push(number);
        }
        let mut affixes = Self { nodes: nodes.into(), search: None, end: PhantomData };
        if affixes.nodes.len() > FEW {
            affixes.search = Some(Box::new(affixes.stops()));
        }
        affixes
    }

    /// What a search looks up on its way to each text.
    fn stops(&self) -> Search {
        let mut lengths: Vec<usize> = self.nodes.iter().map(|node| node.text.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut table: HashMap<Box<[u8]>, Option<u32>> = HashMap::new();
        for (number, node) in (0..).zip(&self.nodes) {
            let (mut low, mut high) = (0, lengths.len());
            while low < high {
                let middle = low.midpoint(high);
                let length = lengths.get(middle).copied().unwrap_or(usize::MAX);
                let Some(stop) = E::part(&node.text, length) else {
                    high = middle;
                    continue;
                };
                if !table.contains_key(stop) {
                    let mut at = Some(number);
                    while let Some(node) = at.and_then(|at| node_at(&self.nodes, at)) {
                        if node.text.len() <= length {
                            break;
                        }
                        at = node.parent;
                    }
                    table.insert(stop.into(), at);
                }
                low = middle + 1;
            }
        }
        Search { lengths: lengths.into(), table }
    }

    /// The node with the longest text at the end of `text`.
    fn last(&self, text: &[u8]) -> Option<&Node<T>> {
        let Some(search) = &self.search else {
            return self.nodes.iter().rev().find(|node| E::holds(text, &node.text));
        };
        let (mut low, mut high) = (0, search.lengths.len());
        let mut last = None;
        while low < high {
            let middle = low.midpoint(high);
            let stop = search.lengths.get(middle).and_then(|length| E::part(text, *length));
            match stop.and_then(|stop| search.table.get(stop)) {
                Some(found) => (last, low) = (*found, middle + 1),
                None => high = middle,
            }
        }
        node_at(&self.nodes, last?)
    }

    /// Every text at the end of `text`, the longest first.
    pub(super) fn at_end_of(&self, text: &[u8]) -> impl Iterator<Item = &Node<T>> {
        std::iter::successors(self.last(text), |node| node_at(&self.nodes, node.parent?))
    }

    /// Every text at the end of which `part` lies.
    pub(super) fn ending_in(&self, part: &[u8]) -> &[Node<T>] {
        let from = self.nodes.partition_point(|node| E::order(&node.text, part).is_lt());
        let rest = self.nodes.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|node| E::holds(&node.text, part))).unwrap_or_default()
    }

    /// Whether any text lies at the end of `text`, or the other way round.
    pub(super) fn meets(&self, text: &[u8]) -> bool {
        !self.ending_in(text).is_empty() || self.last(text).is_some()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Node<T>> {
        self.nodes.iter()
    }

    /// The most that a look-up takes, in steps: those of the search, and what `of_node` counts of each node found.
    /// Returns it with the text of the node that it ends in.
    pub(super) fn most_steps(&self, of_node: impl Fn(&T) -> usize) -> (usize, &[u8]) {
        let mut most: (usize, &[u8]) = (0, &[]);
        let mut steps: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let above = node.parent.and_then(|parent| steps.get(usize::try_from(parent).ok()?));
            let own = above.copied().unwrap_or_default() + of_node(&node.value);
            if own > most.0 {
                most = (own, &node.text);
            }
            steps.push(own);
        }
        let search = match &self.search {
            Some(search) => usize::BITS - search.lengths.len().leading_zeros(),
            None => 0,
        };
        (most.0 + usize::try_from(search).unwrap_or_default(), most.1)
    }
}

fn node_at<T>(nodes: &[Node<T>], number: u32) -> Option<&Node<T>> {
    nodes.get(usize::try_from(number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn agrees<E: End>(texts: &BTreeSet<String>, asked: &[String]) -> Result<(), TestCaseError> {
        let affixes =
            Affixes::<E, &str>::build(texts.iter().map(|text| (text.as_bytes(), text.as_str())).collect());
        prop_assert_eq!(affixes.iter().count(), texts.len());
        for asked in asked {
            let mut held: Vec<&str> = texts
                .iter()
                .filter(|text| E::holds(asked.as_bytes(), text.as_bytes()))
                .map(String::as_str)
                .collect();
            held.sort_by_key(|text| std::cmp::Reverse(text.len()));
            let found: Vec<&str> = affixes.at_end_of(asked.as_bytes()).map(|node| node.value).collect();
            prop_assert_eq!(&found, &held, "{}", asked);
            let mut beyond: Vec<&str> = texts
                .iter()
                .filter(|text| E::holds(text.as_bytes(), asked.as_bytes()))
                .map(String::as_str)
                .collect();
            beyond.sort_unstable();
            let mut found: Vec<&str> =
                affixes.ending_in(asked.as_bytes()).iter().map(|node| node.value).collect();
            found.sort_unstable();
            prop_assert_eq!(&found, &beyond, "{}", asked);
            prop_assert_eq!(affixes.meets(asked.as_bytes()), !(held.is_empty() && beyond.is_empty()));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            texts in proptest::collection::btree_set("[ab]{0,7}", 0..40),
            asked in proptest::collection::vec("[ab*]{0,9}", 1..20),
        ) {
            agrees::<Front>(&texts, &asked)?;
            agrees::<Back>(&texts, &asked)?;
        }
    }

    #[test]
    fn steps_are_those_of_the_longest_chain() {
        let steps = |texts: &[&str]| {
            let affixes =
                Affixes::<Back, ()>::build(texts.iter().map(|text| (text.as_bytes(), ())).collect());
            let (steps, at) = affixes.most_steps(|()| 1);
            (steps, String::from_utf8(at.to_vec()).unwrap())
        };
        assert_eq!(steps(&[]), (0, String::new()));
        assert_eq!(steps(&["-a", "-b", "x-b"]), (2, "x-b".to_owned()), "few are compared one by one");
        // Three lengths: two look-ups among them, and a chain of three.
        assert_eq!(steps(&["b", "-b", "x-b", "x-c", "y-c", "-d"]), (5, "x-b".to_owned()));
    }
}
