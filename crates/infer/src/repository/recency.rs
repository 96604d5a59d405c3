//! Which of the models that are awake was asked for the longest ago.
//!
//! Requests note the time in their model's own cell and tell nobody, so the order that is kept here may be behind. It is
//! put right only where it is looked at: who stands first and was asked for meanwhile goes to where it belongs. A model
//! moves once for all calls since the last look, and with thousands awake the next to sleep is found in few steps.
//!
//! Not here: when models were asked for (`index`), who has to sleep (`lazy`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// Names, in the order of when they were last asked for as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Recency {
    order: BTreeSet<(u64, Arc<str>)>,
    /// Where in the order each name stands.
    stands: BTreeMap<Arc<str>, u64>,
}

impl Recency {
    pub(super) fn len(&self) -> usize {
        self.stands.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.stands.contains_key(name)
    }

    /// In the order of the alphabet.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stands.keys()
    }

    /// Adds a name, or moves it, to where a use at this time puts it.
    pub(super) fn put(&mut self, name: &Arc<str>, used: u64) {
        if let Some(before) = self.stands.insert(name.clone(), used) {
            self.order.remove(&(before, name.clone()));
        }
        self.order.insert((used, name.clone()));
    }

    pub(super) fn remove(&mut self, name: &Arc<str>) {
        if let Some(used) = self.stands.remove(name) {
            self.order.remove(&(used, name.clone()));
        }
    }

    /// Of the names that `may` lets through the one that was asked for the longest ago. `used` says when, and what it
    /// says of a name only grows.
    pub(super) fn oldest(
        &mut self,
        used: impl Fn(&Arc<str>) -> u64,
        may: impl Fn(&Arc<str>) -> bool,
    ) -> Option<Arc<str>> {
        let mut passed = None;
        loop {
            let next = match &passed {
                None => self.order.first(),
                Some(passed) => self.order.range((Excluded(passed), Unbounded)).next(),
            };
            let next = next?.clone();
            let now = used(&next.1);
            if now > next.0 {
                self.put(&next.1, now);
            } else if may(&next.1) {
                return Some(next.1);
            } else {
                passed = Some(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: usize) -> Arc<str> {
        format!("m{number}").into()
    }

    proptest! {
        #[test]
        fn the_oldest_is_the_one_that_a_look_at_all_finds(
            deeds in proptest::collection::vec((0_usize..8, 0..4_u8), 1..200),
        ) {
            let mut recency = Recency::default();
            let mut uses = BTreeMap::new();
            for (clock, (number, deed)) in deeds.into_iter().enumerate() {
                let (name, clock) = (name(number), clock as u64 + 1);
                match deed {
                    0 => {
                        uses.insert(name.clone(), clock);
                        recency.put(&name, clock);
                    }
                    // A request, of which nobody is told.
                    1 => drop(uses.get_mut(&name).map(|used| *used = clock)),
                    2 => {
                        uses.remove(&name);
                        recency.remove(&name);
                    }
                    _ => {
                        let others = uses.iter().filter(|(other, _)| **other != name);
                        let want = others.min_by_key(|(_, used)| **used).map(|(name, _)| name.clone());
                        prop_assert_eq!(recency.oldest(|name| uses[name], |other| *other != name), want);
                    }
                }
                prop_assert!(recency.names().eq(uses.keys()));
                prop_assert_eq!(recency.order.len(), recency.len());
            }
        }
    }
}
