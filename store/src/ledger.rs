//! The ledger of what was used: what a writer sums up within a batch, the same for every database.
//!
//! What must hold: a run is counted in the transaction that writes its end, and that compare-and-set happens once, so nothing is lost and
//! nothing counted twice, whenever the process dies; within a batch sums are made in memory, and a batch writes a few rows however many
//! runs ended in it. Only a run that its job's row will say nothing more of gets a row of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use scheduler_core::event::{Event, Transition};
use scheduler_core::ids::Name;
use scheduler_core::job::Shape;
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::Timestamp;

use crate::codec::signed;
use crate::usage::{Day, Promise, Sampled, Used, by_days};

/// Shapes and owners that are remembered by the ids of their rows.
const MOST: usize = 16_384;

/// What is needed of a shape.
pub(crate) struct Known {
    pub(crate) namespace: Name,
    pub(crate) queue: Name,
    /// Of all of its tasks.
    pub(crate) promise: Promise,
    /// Where some of its tasks may be left out.
    pub(crate) shape: Option<Shape>,
}

/// What was used on a day by whom and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) runs: u64,
    pub(crate) used: Used,
}

/// By day, row of the shape and row of the owner.
pub(crate) type Sums = HashMap<(Day, i64, i64), Sum>;

/// By day, namespace, user and queue: rows of the table of days.
pub(crate) type DayRows = BTreeMap<(Day, Name, Name, Name), Sum>;

/// Of what a batch has seen so far, and what it takes to name it.
#[derive(Default)]
pub(crate) struct Ledger {
    shapes: HashMap<i64, Arc<Known>>,
    owners: HashMap<i64, Name>,
    sums: Sums,
}

impl Ledger {
    /// Forgets all: after a transaction that failed, ids may come to mean something else.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Begins a batch: what one that failed has summed up is not counted.
    pub(crate) fn begin(&mut self) {
        self.sums.clear();
    }

    /// What has been summed up, for writing.
    pub(crate) fn take(&mut self) -> Sums {
        std::mem::take(&mut self.sums)
    }

    /// A sum of this batch.
    pub(crate) fn sum(&mut self, day: Day, shape: i64, owner: i64) -> &mut Sum {
        self.sums.entry((day, shape, owner)).or_default()
    }

    /// Counts a run that has ended.
    pub(crate) fn count_run(&mut self, (shape, owner): (i64, i64), promise: Promise, started: Timestamp, ended: Timestamp) {
        self.sum(Day::of(ended), shape, owner).runs += 1;
        if Day::of(started) == Day::of(ended) {
            let promised = promise.over(ended.since(started));
            self.sum(Day::of(ended), shape, owner).used.promised.add(&promised);
        } else {
            for (day, span) in by_days(started, ended) {
                self.sum(day, shape, owner).used.promised.add(&promise.over(span));
            }
        }
    }

    /// The shape of this row, if it is remembered.
    pub(crate) fn shape(&self, id: i64) -> Option<Arc<Known>> {
        self.shapes.get(&id).cloned()
    }

    /// Remembers the shape of a row.
    pub(crate) fn learn_shape(&mut self, id: i64, shape: Shape) -> Arc<Known> {
        let known = Arc::new(Known {
            namespace: shape.namespace.clone(),
            queue: shape.queue.clone(),
            promise: Promise::of(&shape, None),
            shape: (shape.min_available > 0).then_some(shape),
        });
        if self.shapes.len() >= MOST {
            self.shapes.clear();
        }
        self.shapes.insert(id, Arc::clone(&known));
        known
    }

    /// The user of this row, if it is remembered.
    pub(crate) fn owner(&self, id: i64) -> Option<Name> {
        self.owners.get(&id).cloned()
    }

    /// Remembers the user of a row.
    pub(crate) fn learn_owner(&mut self, id: i64, user: Name) -> Name {
        if self.owners.len() >= MOST {
            self.owners.clear();
        }
        self.owners.insert(id, user.clone());
        user
    }
}

/// When the run ended that this change ends; `None` where it ends none.
pub(crate) fn end_of_run(change: &Transition) -> Option<Timestamp> {
    let held = |kind| matches!(kind, StateKind::Starting | StateKind::Running | StateKind::Stopping);
    if !held(change.from.0) || held(change.to.state.kind()) {
        return None;
    }
    Some(match (&change.to.state, &change.event) {
        (JobState::Finished { at, .. }, _) => *at,
        (_, Event::Ended { at, .. }) => (*at).min(change.at),
        _ => change.at,
    })
}

/// The columns `known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules`.
pub(crate) fn sampled_columns(sampled: &Sampled) -> [i64; 5] {
    let Sampled { known_micros, busy_micros, peak_busy_percent, peak_memory_bytes, energy_millijoules } = *sampled;
    [
        signed(known_micros),
        signed(busy_micros.min(known_micros)),
        peak_busy_percent.min(100).into(),
        signed(peak_memory_bytes),
        signed(energy_millijoules),
    ]
}
