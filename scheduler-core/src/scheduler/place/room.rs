//! What a node offers, in numbers: CPU, memory, and whole GPUs by lane. What is left of those that are shared is in [`shared`](super::shared).
//!
//! A *lane* is a kind of GPU on a node (model, memory, MIG profile): what is in one lane can stand for each other. GPUs that jobs name
//! have lanes of their own ([`divide`](super::divide)). Most nodes have one lane; a task may take from all those that its constraints allow. Which lanes it takes from is settled when it is packed
//! ([`Lanes::draw`]) and kept to when devices are handed out, so that what is reserved for somebody is never another's by a
//! different choice.

use crate::amounts::GPU_MILLIS;
use crate::scheduler::config::Resource;
use crate::scheduler::place::Group;

/// Lanes of a node at most.
pub(crate) const LANES: usize = 8;

/// A set of lanes, one bit each.
pub(crate) type Mask = u8;

/// Number of GPUs in each lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lanes([u16; LANES]);

impl Lanes {
    /// How many there are in these lanes.
    #[inline]
    pub(crate) fn of(self, mask: Mask) -> u32 {
        if mask == 1 {
            return self.0[0].into();
        }
        if mask == Mask::MAX {
            return self.total();
        }
        self.0.iter().enumerate().map(|(lane, &count)| if mask >> lane & 1 == 1 { u32::from(count) } else { 0 }).sum()
    }

    /// One in this lane.
    pub(crate) const fn one(lane: u8) -> Self {
        let mut lanes = [0; LANES];
        lanes[lane as usize] = 1;
        Self(lanes)
    }

    /// None in any lane.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// The lanes that have any, with how many they have.
    pub(crate) fn lanes(self) -> impl Iterator<Item = (u8, u16)> {
        (0..LANES as u8).zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// How many there are in all lanes.
    pub(crate) fn total(self) -> u32 {
        self.0.iter().map(|&count| u32::from(count)).sum()
    }

    /// One more in a lane.
    pub(crate) const fn put(&mut self, lane: u8) {
        self.0[lane as usize] += 1;
    }

    /// One less in a lane, if there is one.
    pub(crate) const fn take(&mut self, lane: u8) -> bool {
        let count = &mut self.0[lane as usize];
        let is_there = *count > 0;
        *count -= is_there as u16;
        is_there
    }

    fn each(self, other: Self, with: impl Fn(u16, u16) -> u16) -> Self {
        Self(std::array::from_fn(|lane| with(self.0[lane], other.0[lane])))
    }

    /// What both have.
    pub(crate) fn min(self, other: Self) -> Self {
        self.each(other, u16::min)
    }

    /// What is left of it; never below nothing.
    pub(crate) fn less(self, other: Self) -> Self {
        self.each(other, u16::saturating_sub)
    }

    /// From which lanes `count` tasks of `each` GPUs take theirs: each task from the lane with the fewest that has enough for it, of those that
    /// are not in `last`; else from the lanes in their order. The caller knows that there are enough.
    pub(crate) fn draw(mut self, mask: Mask, last: Mask, each: u32, count: u32) -> Self {
        let mut drawn = Self::default();
        if mask.is_power_of_two() {
            drawn.0[mask.trailing_zeros() as usize] = each.saturating_mul(count).min(u16::MAX.into()) as u16;
            return drawn;
        }
        let tasks = if each == 0 { 0 } else { count };
        for _ in 0..tasks {
            let mut left = each;
            for lane in self.lanes_for(mask, last, each) {
                let taken = left.min(self.0[lane].into());
                self.0[lane] -= taken as u16;
                drawn.0[lane] += taken as u16;
                left -= taken;
            }
        }
        drawn
    }

    /// The lanes that the next task takes from, in the order in which it does.
    pub(crate) fn lanes_for(self, mask: Mask, last: Mask, each: u32) -> impl Iterator<Item = usize> {
        let of = |mask: Mask| move |lane: &usize| mask >> lane & 1 == 1;
        let allowed = of(mask);
        let enough = |lane: &usize| u32::from(self.0[*lane]) >= each;
        let single = (0..LANES).filter(of(mask & !last)).filter(enough).min_by_key(|&lane| (self.0[lane], lane));
        single.into_iter().chain((0..LANES).filter(allowed).filter(move |&lane| single.is_none() && self.0[lane] > 0))
    }
}

/// What can be taken from a node now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Room {
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) gpus: Lanes,
    /// Lanes of GPUs that jobs name: others take from them last.
    pub(crate) named: Mask,
    /// The node has GPUs at all: tasks without GPUs go elsewhere first.
    pub(crate) has_gpus: bool,
    /// It takes tasks at all. Where it does not, not even those go that ask for nothing.
    pub(crate) open: bool,
}

impl Room {
    /// Of a node that takes nobody.
    pub(crate) const CLOSED: Self = Self { cpu: 0, memory: 0, gpus: Lanes([0; LANES]), named: 0, has_gpus: false, open: false };

    /// What both have.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.min(other.memory),
            gpus: self.gpus.min(other.gpus),
            named: self.named,
            has_gpus: self.has_gpus,
            open: self.open && other.open,
        }
    }

    /// What is left when `count` tasks of a group were taken from it, with these GPUs; never below nothing.
    pub(crate) fn less(self, group: &Group, count: u32, gpus: Lanes) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(group.cpu.saturating_mul(u64::from(count))),
            memory: self.memory.saturating_sub(group.memory.saturating_mul(u64::from(count))),
            gpus: self.gpus.less(gpus),
            ..self
        }
    }

    /// The amount of one resource; of GPUs that of the whole ones.
    pub(crate) fn of(self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Gpu => u64::from(self.gpus.total()) * u64::from(GPU_MILLIS),
        }
    }

    /// Whether it has room for one task of a group, whose GPUs may come from these lanes.
    #[inline]
    pub(crate) fn fits(&self, group: &Group, mask: Mask) -> bool {
        self.cpu >= group.cpu && self.memory >= group.memory && self.open && (group.gpus == 0 || self.gpus.of(mask) >= group.gpus)
    }

    /// How many tasks of a group it has room for, at most all of them.
    #[inline]
    pub(crate) fn holds(&self, group: &Group, mask: Mask) -> u32 {
        if !self.fits(group, mask) {
            return 0;
        }
        if group.replicas == 1 {
            return 1;
        }
        let mut count = u64::from(group.replicas);
        for (has, asked) in [(self.cpu, group.cpu), (self.memory, group.memory)] {
            if let Some(fits) = has.checked_div(asked) {
                count = count.min(fits);
            }
        }
        if let Some(fits) = self.gpus.of(mask).checked_div(group.gpus) {
            count = count.min(fits.into());
        }
        count as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// What is drawn is what was asked for, from lanes that are allowed and have it; and a share handed out task by task is used up.
        #[test]
        fn lanes_give_exactly_what_was_drawn(has in prop::array::uniform8(0..6_u16), mask in 1..=u8::MAX, last in 0..=u8::MAX, each in 1..5_u32, tasks in 1..8_u32) {
            let lanes = Lanes(has);
            let count = tasks.min(lanes.of(mask) / each);
            let drawn = lanes.draw(mask, last, each, count);
            prop_assert_eq!(drawn.of(mask), each * count);
            prop_assert_eq!(drawn.total(), each * count);
            prop_assert_eq!(drawn.min(lanes), drawn);
            prop_assert_eq!(lanes.less(drawn).total() + drawn.total(), lanes.total());
            let mut left = drawn;
            for _ in 0..count {
                let mut wanted = each;
                for lane in left.lanes_for(mask, 0, each).collect::<Vec<_>>() {
                    while wanted > 0 && left.take(lane as u8) {
                        wanted -= 1;
                    }
                }
                prop_assert_eq!(wanted, 0);
            }
            prop_assert_eq!(left.total(), 0);
        }
    }
}
