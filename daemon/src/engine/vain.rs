//! Jobs that are placed in a cluster and do not begin, again and again: a quota of their namespace is used up, a policy refuses their pods, a node that
//! fits by our books is not one for them.
//!
//! What must hold: such a job does not keep what it was placed on from others. A place that somebody else was quicker to take is common, and looked for
//! anew at once; what goes wrong a third time in a row waits, longer each time, up to a bound. Nothing of this is written down: after a restart the row
//! begins anew.

use std::collections::BTreeMap;

use scheduler_core::ids::{JobId, RunId};
use scheduler_core::record::Recorded;
use scheduler_core::state::{JobState, Lifecycle};
use scheduler_core::time::{Span, Timestamp};

/// So often it is placed anew at once.
const AT_ONCE: u32 = 2;
/// The first pause, doubled each time.
const FIRST: Span = Span::from_secs(10);
/// The longest.
const LONGEST: Span = Span::from_secs(120);
/// When so many are remembered, those that are over are forgotten.
const MANY: usize = 1_024;

/// How often in a row jobs did not begin.
#[derive(Debug, Default)]
pub(super) struct InVain {
    times: BTreeMap<JobId, u32>,
}

impl InVain {
    /// It did not begin. When it may be placed again. Executors repeat themselves: what is on record already counts once.
    pub(super) fn again(&mut self, core: &Recorded, run: RunId, now: Timestamp) -> Timestamp {
        let is_starting =
            |lifecycle: &Lifecycle| lifecycle.attempt == run.attempt && matches!(lifecycle.state, JobState::Starting { .. });
        if !core.view(run.job).is_some_and(|view| is_starting(view.lifecycle)) {
            return now;
        }
        if self.times.len() >= MANY {
            self.times.retain(|job, _| core.view(*job).is_some());
        }
        now + self.pause(run.job)
    }

    fn pause(&mut self, job: JobId) -> Span {
        let times = self.times.entry(job).or_default();
        *times = times.saturating_add(1);
        let Some(doublings) = times.checked_sub(AT_ONCE + 1) else { return Span(0) };
        Span(FIRST.0.saturating_mul(1 << doublings.min(16)).min(LONGEST.0))
    }

    /// It did.
    pub(super) fn begun(&mut self, job: JobId) {
        self.times.remove(&job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_come_with_the_third_time_and_grow_up_to_a_bound() {
        let (mut row, job) = (InVain::default(), JobId(uuid::Uuid::from_u128(1)));
        let pauses: Vec<u64> = (0..8).map(|_| row.pause(job).0 / 1_000_000).collect();
        assert_eq!(pauses, [0, 0, 10, 20, 40, 80, 120, 120]);
        row.begun(job);
        assert_eq!(row.pause(job), Span(0), "it has begun, and the row with it");
    }
}
