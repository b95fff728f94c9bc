//! Lines: who waits for room, and who has it. Pure bookkeeping, by amounts; what a run is stands in the [`table`](super::table).
//!
//! What must hold, after every call:
//! - A line's runs begin in the order in which they came to wait. One is given out by [`Lines::next`] only if, with it, what the line
//!   has in use is within the limits that the run came with.
//! - A run counts from the moment it is given out until [`Lines::leave`]: until nothing of it is left, not until its first process ends.
//! - Whoever can be given out is found without a search; a line that nobody waits in and that nobody uses is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use scheduler_core::ids::RunId;
use serde::{Deserialize, Serialize};

/// Amounts of what lines count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Amounts {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// What a run has of its line while it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Share {
    /// Which line.
    pub line: u64,
    /// How much of it.
    pub has: Amounts,
}

/// Where a run waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket {
    line: u64,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    run: RunId,
    wants: Amounts,
    limits: Amounts,
}

#[derive(Debug, Default)]
struct Line {
    /// Wider than any amount, so that no sum can overflow.
    cpu_used: u128,
    memory_used: u128,
    users: usize,
    waiting: BTreeMap<u64, Waiting>,
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_id: BTreeMap<u64, Line>,
    /// Lines whose first can be given out.
    ready: BTreeSet<u64>,
    /// Whose turn it was last.
    last: u64,
    tickets: u64,
    held: usize,
}

impl Amounts {
    /// Whether this is nowhere more than `limits`.
    pub(super) const fn within(self, limits: Self) -> bool {
        self.cpu_millis <= limits.cpu_millis && self.memory_bytes <= limits.memory_bytes
    }
}

impl Line {
    fn is_ready(&self) -> bool {
        let Some((_, first)) = self.waiting.first_key_value() else { return false };
        let fits = |used: u128, wants: u64, limit: u64| used + u128::from(wants) <= u128::from(limit);
        fits(self.cpu_used, first.wants.cpu_millis, first.limits.cpu_millis)
            && fits(self.memory_used, first.wants.memory_bytes, first.limits.memory_bytes)
    }
}

impl Lines {
    /// Runs that wait.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Somebody can be given out.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A run takes its place at the end of a line. Where `wants` is not within `limits` it keeps the line for ever: not to be done.
    pub(super) fn wait(&mut self, line: u64, run: RunId, wants: Amounts, limits: Amounts) -> Ticket {
        self.tickets += 1;
        let number = self.tickets;
        self.by_id.entry(line).or_default().waiting.insert(number, Waiting { run, wants, limits });
        self.held += 1;
        self.refresh(line);
        Ticket { line, number }
    }

    /// A run waits no longer.
    pub(super) fn drop_out(&mut self, ticket: Ticket) {
        let Some(line) = self.by_id.get_mut(&ticket.line) else { return };
        if line.waiting.remove(&ticket.number).is_some() {
            self.held -= 1;
            self.refresh(ticket.line);
        }
    }

    /// Gives out the next run that there is room for, the lines in turn. It uses its share from now on.
    pub(super) fn next(&mut self) -> Option<(RunId, Share)> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let id = *self.ready.range(after).next().or_else(|| self.ready.first())?;
        self.last = id;
        let (_, first) = self.by_id.get_mut(&id)?.waiting.pop_first()?;
        self.held -= 1;
        let share = Share { line: id, has: first.wants };
        self.enter(share);
        Some((first.run, share))
    }

    /// A run uses its share; one that was not given out here, too: of an earlier runner.
    pub(super) fn enter(&mut self, share: Share) {
        let line = self.by_id.entry(share.line).or_default();
        line.users += 1;
        line.cpu_used += u128::from(share.has.cpu_millis);
        line.memory_used += u128::from(share.has.memory_bytes);
        self.refresh(share.line);
    }

    /// Nothing of a run that used its share is left.
    pub(super) fn leave(&mut self, share: Share) {
        let Some(line) = self.by_id.get_mut(&share.line) else { return };
        line.users -= 1;
        line.cpu_used -= u128::from(share.has.cpu_millis);
        line.memory_used -= u128::from(share.has.memory_bytes);
        self.refresh(share.line);
    }

    fn refresh(&mut self, id: u64) {
        let Some(line) = self.by_id.get(&id) else { return };
        if line.is_ready() {
            self.ready.insert(id);
            return;
        }
        self.ready.remove(&id);
        if line.users == 0 && line.waiting.is_empty() {
            self.by_id.remove(&id);
        }
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
