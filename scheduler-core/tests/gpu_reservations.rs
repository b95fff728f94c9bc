//! Parts of GPUs, GPUs by UUID, and reservations: whoever starts beside the blocked head, whatever GPUs it asks for, never moves the time that it was
//! promised, and at that time it starts.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{GIB, GRACE_S, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::JobId;
use scheduler_core::scheduler::{Config, Discipline, Scheduler};
use scheduler_core::state::StateKind;
use scheduler_core::time::Timestamp;

#[derive(Clone, Debug)]
enum Step {
    /// Replicas; whole GPUs, or thousandths and GiB of one; seconds.
    Submit(u32, u32, u32, u64, u64),
    /// Certain GPUs, all of them or thousandths of the first; seconds.
    Named(usize, u32, u64),
    /// Somebody is done before his time.
    End(usize),
    Advance(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let millis = prop_oneof![Just(0_u32), 1..1000_u32, Just(500_u32), Just(250_u32)];
    prop_oneof![
        6 => (1..4_u32, 0..3_u32, millis, prop_oneof![Just(0), 1..80_u64], 1..200_u64)
            .prop_map(|(replicas, gpus, millis, gib, seconds)| Step::Submit(replicas, gpus, millis, gib, seconds)),
        3 => (0..NAMED.len(), prop_oneof![3 => Just(0_u32), 1 => 1..1000_u32], 1..200_u64)
            .prop_map(|(which, millis, seconds)| Step::Named(which, millis, seconds)),
        2 => any::<usize>().prop_map(Step::End),
        3 => (1..60_i64).prop_map(Step::Advance),
    ]
}

const NAMED: [&[&str]; 4] = [&["a-gpu0"], &["a-gpu1"], &["a-gpu0", "a-gpu1"], &["b-gpu0"]];

struct History {
    core: Scheduler,
    now: i64,
    next: u64,
    /// When each run is over at the latest.
    ends: BTreeMap<JobId, i64>,
    limits: BTreeMap<JobId, u64>,
    /// The head and its time, as the last pass had it.
    promised: Option<(JobId, Timestamp)>,
}

impl History {
    fn end(&mut self, job: JobId, now: i64) {
        self.ends.remove(&job);
        let attempt = self.core.view(job).unwrap().lifecycle.attempt;
        let result = RunResult::Succeeded;
        self.core.handle(job, Event::Ended { attempt, result, at: at(now), retry_at: at(now) }, at(now)).unwrap();
    }

    /// A pass, of which every start is reported at once: so every end is known.
    fn plan(&mut self) -> Result<(), TestCaseError> {
        let now = at(self.now);
        for made in self.core.plan(now, usize::MAX) {
            let attempt = self.core.view(made.job).unwrap().lifecycle.attempt;
            self.core.handle(made.job, Event::Started { attempt, at: now }, now).unwrap();
            self.ends.insert(made.job, self.now + (self.limits[&made.job] + GRACE_S) as i64);
        }
        self.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
        if let Some((head, promised)) = self.promised {
            let queued = self.core.view(head).is_some_and(|view| view.lifecycle.state.kind() == StateKind::Queued);
            prop_assert!(!queued || now < promised, "{head:?} was promised {promised:?} and does not run");
        }
        // One that is left out found nothing that could start, and kept nothing.
        let Some(first) = self.core.reservations().first().copied() else { return Ok(()) };
        if let (Some((head, before)), Some(after)) = (self.promised, first.at)
            && head == first.job
        {
            prop_assert!(after <= before, "{head:?} was promised {before:?}, and now {after:?}");
        }
        self.promised = first.at.map(|after| (first.job, after));
        Ok(())
    }

    fn submit(&mut self, build: &common::Build, seconds: u64) {
        if self.core.submit(build.build(at(self.now)), at(self.now)).is_ok() {
            self.limits.insert(id(self.next), seconds);
        }
        self.next += 1;
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Submit(replicas, gpus, millis, gib, seconds) => {
                let mut build = job(self.next).asks(replicas, 1, gpus).limit(seconds);
                if millis > 0 {
                    build = build.part(millis, gib * GIB);
                }
                self.submit(&build, seconds);
            }
            Step::Named(which, millis, seconds) => {
                let build = job(self.next).asks(1, 1, 0).limit(seconds);
                let build = if millis > 0 { build.named(&NAMED[which][..1]).part(millis, 0) } else { build.named(NAMED[which]) };
                self.submit(&build, seconds);
            }
            Step::End(which) => {
                let runs: Vec<JobId> = self.ends.keys().copied().collect();
                if let Some(&job) = runs.get(which % runs.len().max(1)) {
                    self.end(job, self.now);
                }
            }
            Step::Advance(seconds) => {
                let until = self.now + seconds;
                while let Some((&job, &end)) = self.ends.iter().filter(|(_, end)| **end <= until).min_by_key(|(_, end)| **end) {
                    self.now = self.now.max(end);
                    self.end(job, end);
                    if !self.ends.values().any(|other| *other == end) {
                        self.plan()?;
                    }
                }
                self.now = until;
            }
        }
        self.plan()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_part_delays_whom_room_is_kept_for(steps in prop::collection::vec(step(), 1..80), heads in 1..4_u32) {
        let nodes = vec![node("a", 64, 2), node("b", 64, 1)];
        let config = Config { discipline: Discipline::Conservative { heads }, ..config(vec![queue("q", 0)], nodes) };
        let (core, ends, limits) = (Scheduler::new(config).unwrap(), BTreeMap::new(), BTreeMap::new());
        let mut history = History { core, now: 0, next: 1, ends, limits, promised: None };
        for step in &steps {
            history.run(step)?;
        }
        for _ in 0..400 {
            history.run(&Step::Advance(50))?;
        }
        prop_assert_eq!(history.core.counts()[StateKind::Queued as usize], 0, "somebody starves");
    }
}
