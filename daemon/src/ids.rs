//! Job identities: UUIDv7 and the submission sequence, given out together and in the same order.
//!
//! The table's index on ids then only ever grows at its end, which is what keeps a submit cheap with millions of rows.

use scheduler_core::ids::{JobId, Seq};
use scheduler_core::time::Timestamp;
use uuid::{ContextV7, Uuid};

/// The generator. One per term; the store's head says where it begins.
pub(crate) struct JobIds {
    context: ContextV7,
    last: Seq,
}

impl JobIds {
    /// Continues after `last`.
    pub(crate) fn new(last: Seq) -> Self {
        Self { context: ContextV7::new(), last }
    }

    /// The next job's identity. Sequence numbers of a failed commit are left out, never given out twice.
    pub(crate) fn next(&mut self, now: Timestamp) -> (JobId, Seq) {
        self.last = self.last.next();
        let micros = now.0.max(0).cast_unsigned();
        let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
        let at = uuid::Timestamp::from_unix(&self.context, micros / 1_000_000, nanos);
        (JobId(Uuid::new_v7(at)), self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_with_the_sequence_also_when_the_clock_stands() {
        let mut ids = JobIds::new(Seq(41));
        let mut before = ids.next(Timestamp(1_800_000_000_000_000));
        assert_eq!(before.1, Seq(42));
        for step in 0..100_000 {
            let next = ids.next(Timestamp(1_800_000_000_000_000 + step / 50));
            assert!(next.0 > before.0 && next.1 == before.1.next());
            before = next;
        }
    }
}
