//! Jobs that hold resources, in the order in which they got them: a list threaded through a slab.
//!
//! Jobs enter at its end and leave from anywhere, a million times a second each, and it is only walked when a reservation or victims are
//! looked for. What must hold: neighbours name each other, and the list has every entry once.

use crate::scheduler::table::JobIx;
use crate::slab::{Slab, index};
use crate::time::Timestamp;

index! {
    /// An entry of the list.
    ActiveIx
}

/// A job that holds resources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Active {
    pub(crate) job: JobIx,
    /// When it got them.
    pub(crate) since: Timestamp,
    /// It got them beyond its queue's guarantee.
    pub(crate) borrowed: bool,
}

struct Entry {
    active: Active,
    before: Option<ActiveIx>,
    behind: Option<ActiveIx>,
}

/// See the module.
pub(crate) struct ActiveList {
    entries: Slab<ActiveIx, Entry>,
    first: Option<ActiveIx>,
    last: Option<ActiveIx>,
}

impl ActiveList {
    pub(crate) const fn new() -> Self {
        Self { entries: Slab::new(), first: None, last: None }
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a job behind all others.
    pub(crate) fn push(&mut self, active: Active) -> ActiveIx {
        let before = self.last;
        let index = self.entries.insert(Entry { active, before, behind: None });
        self.last = Some(index);
        match before {
            Some(before) => self.entries[before].behind = Some(index),
            None => self.first = Some(index),
        }
        index
    }

    pub(crate) fn remove(&mut self, index: ActiveIx) -> Option<Active> {
        let Entry { active, before, behind } = self.entries.remove(index)?;
        match before {
            Some(before) => self.entries[before].behind = behind,
            None => self.first = behind,
        }
        match behind {
            Some(behind) => self.entries[behind].before = before,
            None => self.last = before,
        }
        Some(active)
    }

    pub(crate) fn get(&self, index: ActiveIx) -> &Active {
        &self.entries[index].active
    }

    /// The first to get resources first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Active> {
        let next = |index: &ActiveIx| self.entries[*index].behind;
        std::iter::successors(self.first, next).map(|index| &self.entries[index].active)
    }
}
