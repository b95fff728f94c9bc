//! Jobs that hold GPUs and leave them idle: when their users are warned, and when they are stopped. Pure, time is given.
//!
//! What must hold: a run is idle while each of its GPUs is below the threshold at each look; one look above it, one that does not tell, or a time
//! in which nobody looked, and it counts anew; a run is warned once for each idle stretch, and before it is stopped. A restart of the daemon
//! counts anew, so it stops nobody too early.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::ids::{Name, RunId};
use scheduler_core::time::{Span, Timestamp};

use crate::config::GpuIdle;
use crate::engine::GpuRun;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its user is warned.
    Warn,
    /// It is stopped.
    Stop,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Timestamp,
    last: Timestamp,
    warned: bool,
    stopped: bool,
}

/// Idle runs.
#[derive(Debug)]
pub struct Idle {
    below: u32,
    warn: Option<Span>,
    stop: Option<Span>,
    exempt_queues: BTreeSet<Name>,
    /// The longest time between two looks that belong together.
    longest: Span,
    stretches: BTreeMap<RunId, Stretch>,
    /// Runs whose owners have said that they may.
    exempt: BTreeSet<RunId>,
}

impl Idle {
    /// By these rules.
    pub fn new(rules: &GpuIdle, longest: Span) -> Self {
        let span = |after: crate::config::values::After| after.time().map(|time| Span(time.0));
        Self {
            below: u32::try_from(rules.below).unwrap_or(100),
            warn: span(rules.warn_after),
            stop: span(rules.stop_after),
            exempt_queues: rules.exempt_queues.iter().map(|queue| Name::from(queue.as_str())).collect(),
            longest,
            stretches: BTreeMap::new(),
            exempt: BTreeSet::new(),
        }
    }

    /// Takes one look at a run; what is due for it.
    pub fn look(&mut self, run: &GpuRun, busiest: Option<u32>, now: Timestamp) -> Option<Verdict> {
        let idle = busiest.is_some_and(|busy| busy < self.below) && run.since.is_some();
        if !idle || self.exempt_queues.contains(&run.queue) || self.exempt.contains(&run.run) {
            self.stretches.remove(&run.run);
            return None;
        }
        let fresh = Stretch { since: now, last: now, warned: false, stopped: false };
        let stretch = self.stretches.entry(run.run).or_insert(fresh);
        if now.since(stretch.last) > self.longest {
            *stretch = fresh;
        }
        stretch.last = now;
        let lasts = now.since(stretch.since);
        let is_over = |bound: Option<Span>| bound.is_some_and(|bound| lasts >= bound);
        if is_over(self.warn) && !stretch.warned {
            stretch.warned = true;
            return Some(Verdict::Warn);
        }
        if is_over(self.stop) && !stretch.stopped {
            stretch.stopped = true;
            return Some(Verdict::Stop);
        }
        None
    }

    /// Its owner has said that this run may leave its GPUs idle.
    pub fn excuse(&mut self, run: RunId) {
        self.stretches.remove(&run);
        self.exempt.insert(run);
    }

    /// Forgets all but these.
    pub fn retain(&mut self, runs: &[GpuRun]) {
        let there: BTreeSet<RunId> = runs.iter().map(|run| run.run).collect();
        self.stretches.retain(|run, _| there.contains(run));
        self.exempt.retain(|run| there.contains(run));
    }

    /// What is to be said of a run that leaves its GPUs idle.
    pub fn says(&self, run: RunId, now: Timestamp) -> String {
        let since = self.stretches.get(&run).map_or(now, |stretch| stretch.since);
        let stop = self.stop.map(|stop| format!("; it is stopped after {}", words(stop))).unwrap_or_default();
        format!("Its GPUs have been less than {} % busy for {}{stop}", self.below, words(now.since(since)))
    }

    /// Why a run is stopped.
    pub fn cause(&self) -> String {
        let stop = self.stop.unwrap_or_default();
        format!(
            "it left its GPUs less than {} % busy for {}, which is as long as it may (gpu.idle.stop_after)",
            self.below,
            words(stop)
        )
    }

    /// Runs whose users have been warned.
    pub fn warned(&self) -> impl Iterator<Item = RunId> + '_ {
        self.stretches.iter().filter(|(_, stretch)| stretch.warned).map(|(run, _)| *run)
    }
}

/// In whole seconds, from the first second on.
fn words(span: Span) -> String {
    let whole = if span.0 < 1_000_000 { span.0 } else { span.0 / 1_000_000 * 1_000_000 };
    api::quantity::Duration(whole).to_string()
}

#[cfg(test)]
mod tests {
    use scheduler_core::ids::{Attempt, JobId, Seq};
    use uuid::Uuid;

    use super::*;
    use crate::config::values::After;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn run(queue: &str) -> GpuRun {
        GpuRun {
            run: RunId { job: JobId(Uuid::from_u128(1)), attempt: Attempt(1) },
            seq: Seq(1),
            queue: queue.into(),
            since: Some(at(0)),
            until: None,
            gpus: [("a".into(), 1_000)].into(),
        }
    }

    fn idle(warn: u64, stop: u64) -> Idle {
        let after = |seconds: u64| match seconds {
            0 => After::Off,
            seconds => After::Time(api::quantity::Duration(seconds * 1_000_000)),
        };
        let exempt_queues = "interactive".parse().into_iter().collect();
        let rules = GpuIdle { below: 5, warn_after: after(warn), stop_after: after(stop), exempt_queues };
        Idle::new(&rules, Span::from_secs(6))
    }

    #[test]
    fn a_run_is_warned_and_then_stopped() {
        let (mut idle, run) = (idle(4, 8), run("q"));
        let verdicts: Vec<_> = (0..8).map(|look| idle.look(&run, Some(4), at(look * 2))).collect();
        assert_eq!(verdicts, [None, None, Some(Verdict::Warn), None, Some(Verdict::Stop), None, None, None]);
        assert_eq!(idle.says(run.run, at(14)), "Its GPUs have been less than 5 % busy for 14s; it is stopped after 8s");
        assert_eq!(idle.warned().count(), 1);
        idle.retain(&[]);
        assert_eq!(idle.warned().count(), 0);
    }

    #[test]
    fn work_silence_and_a_gap_begin_anew() {
        let run = run("q");
        for (busy, step) in [(Some(5), 2), (None, 2), (Some(0), 7)] {
            let mut idle = idle(4, 0);
            assert_eq!(idle.look(&run, Some(0), at(0)), None);
            assert_eq!(idle.look(&run, busy, at(step)), None);
            assert_eq!(idle.look(&run, Some(0), at(step + 2)), None, "{busy:?}");
            assert_eq!(idle.look(&run, Some(0), at(step + 6)), Some(Verdict::Warn));
        }
    }

    #[test]
    fn some_may_and_nothing_is_done_where_nothing_is_asked() {
        let mut off = idle(0, 0);
        let mut on = idle(2, 4);
        on.excuse(run("q").run);
        for look in 0..9 {
            assert_eq!(off.look(&run("q"), Some(0), at(look)), None);
            assert_eq!(on.look(&run("interactive"), Some(0), at(look)), None);
            assert_eq!(on.look(&run("q"), Some(0), at(look)), None);
        }
        let ending = GpuRun { since: None, ..run("q") };
        let mut ended = idle(1, 0);
        assert!((0..9).all(|look| ended.look(&ending, Some(0), at(look)).is_none()));
        // Without a warning there is only the stop.
        let mut silent = idle(0, 2);
        assert_eq!((0..2).map(|look| silent.look(&run("q"), Some(0), at(look * 2))).last(), Some(Some(Verdict::Stop)));
    }
}
