//! What a pass finds out about those who do not start, written down where somebody wants to know.

use crate::scheduler::table::JobIx;
use crate::scheduler::tree::BucketIx;
use crate::scheduler::tree::ledger::{Barrier, Gate};

/// What a pass found.
#[derive(Default)]
pub(in crate::scheduler) struct Trace {
    /// The first job that did not fit, for which room is kept.
    pub(in crate::scheduler) head: Option<JobIx>,
    /// In the order of the pass. A bucket that had to wait for the second round, or whose first jobs stay too
    /// long, is there several times.
    pub(in crate::scheduler) notes: Vec<Note>,
}

/// Why a bucket was put aside.
pub(in crate::scheduler) struct Note {
    pub(in crate::scheduler) bucket: BucketIx,
    /// Its first job then.
    pub(in crate::scheduler) job: JobIx,
    pub(in crate::scheduler) finding: Finding,
}

/// What kept a job from starting.
pub(in crate::scheduler) enum Finding {
    /// No room.
    NoRoom,
    /// There is room, but it is kept for the head.
    WouldDelay,
    /// A limit.
    Limited(Barrier),
    /// Somebody ahead waits for this limit.
    KeptBack(Option<Gate>),
    /// It would borrow; the second round decides.
    Later,
}
