//! Which GPUs belong together, from what is known of pairs.

use std::collections::{BTreeMap, BTreeSet};

/// Things that belong together, by name.
#[derive(Default)]
pub(super) struct Groups(Vec<BTreeSet<String>>);

impl Groups {
    /// Says that two belong together.
    pub(super) fn join(&mut self, one: &str, other: &str) {
        let (with, without) =
            std::mem::take(&mut self.0).into_iter().partition(|group| group.contains(one) || group.contains(other));
        self.0 = without;
        let mut joined: BTreeSet<String> = Vec::into_iter(with).flatten().collect();
        joined.extend([one.to_owned(), other.to_owned()]);
        self.0.push(joined);
    }

    /// The groups with two of these or more, numbered in their order.
    pub(super) fn numbered(&self, of: &[(u32, String)]) -> BTreeMap<u32, u16> {
        let mut numbers = BTreeMap::new();
        let mut next = 0;
        for (index, _) in of {
            if numbers.contains_key(index) {
                continue;
            }
            let own = of.iter().find(|(other, _)| other == index).map(|(_, name)| name);
            let group = self.0.iter().find(|group| own.is_some_and(|own| group.contains(own)));
            let members: Vec<u32> = group.map_or_else(Vec::new, |group| {
                of.iter().filter(|(_, name)| group.contains(name)).map(|(index, _)| *index).collect()
            });
            if members.len() > 1 {
                numbers.extend(members.into_iter().map(|index| (index, next)));
                next += 1;
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_meet_at_a_switch_are_one_group() {
        let mut groups = Groups::default();
        for (one, other) in [("a", "switch"), ("b", "switch"), ("c", "d"), ("e", "elsewhere")] {
            groups.join(one, other);
        }
        let of: Vec<(u32, String)> = (0..).zip(["a", "c", "b", "e", "d"].map(str::to_owned)).collect();
        assert_eq!(groups.numbered(&of), BTreeMap::from([(0, 0), (1, 1), (2, 0), (4, 1)]));
        groups.join("a", "d");
        assert_eq!(groups.numbered(&of).values().filter(|number| **number == 0).count(), 4);
    }
}
