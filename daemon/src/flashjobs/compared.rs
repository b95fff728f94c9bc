//! Whether all that was deleted while no daemon looked is known by now.
//!
//! What must hold: until it is, nobody can say of a run whose pods were deleted whether it was lost or cancelled. If it were taken for lost, a job that
//! has no other try would end as failed before it could be cancelled. So such an end waits, and is asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared by those that compare and by who waits for it.
#[derive(Debug)]
pub struct Compared {
    /// Kinds of objects that are not compared yet.
    left: AtomicUsize,
    /// Whoever is to look again then.
    nudge: Arc<Notify>,
}

impl Compared {
    /// So many kinds of objects are to be compared; `nudge` is notified once they are.
    pub fn new(kinds: usize, nudge: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(kinds), nudge })
    }

    /// Another kind is. Each says so once.
    pub(super) fn one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.nudge.notify_one();
        }
    }

    /// Whether all are.
    pub fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }
}
