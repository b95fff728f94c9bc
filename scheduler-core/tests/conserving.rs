//! Work conservation: when a pass ends, nobody is left queued who fits, is kept back by no limit and would not delay the head.
//!
//! The answer is worked out the slow way, from lifecycles alone, on one node: there amounts say all. Who may pass is asked of every queued
//! job against every end of a run; nothing of the core's own reservation is used.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{Build, GRACE_S, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::amounts::CpuMillis;
use scheduler_core::event::{Event, RunResult};
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::Timestamp;
use scheduler_core::{Limits, QueueConfig, Scheduler};

const CORES: u64 = 12;
const GPUS: u64 = 4;
/// Cores that the jobs of queue `limited` hold together at most.
const LIMIT: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Submit { cores: u64, gpus: u64, limit: Option<u64>, limited: bool, priority: i32 },
    Started(usize),
    Ended(usize),
    Advance(i64),
    Plan,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly time limits of their own; some that many share.
    let limit = prop_oneof![5 => (1..200_u64).prop_map(Some), 2 => Just(Some(30)), 1 => Just(None)];
    prop_oneof![
        8 => (1..=CORES, 0..3_u64, limit, any::<bool>(), 0..3_i32).prop_map(|(cores, gpus, limit, limited, priority)| {
            // Small ones are many, so that some always fit; what a limit could never allow is refused.
            let cores = if cores > 7 { cores % 3 + 1 } else { cores };
            Step::Submit { cores: if limited { cores.min(LIMIT) } else { (cores * 2).min(CORES) }, gpus, limit, limited, priority }
        }),
        3 => any::<usize>().prop_map(Step::Started),
        3 => any::<usize>().prop_map(Step::Ended),
        3 => (1..20_i64).prop_map(Step::Advance),
        4 => Just(Step::Plan),
    ]
}

/// Cores and GPUs.
type Pair = (u64, u64);

struct World {
    core: Scheduler,
    now: Timestamp,
    jobs: Vec<Build>,
}

impl World {
    fn new() -> Self {
        let limit = Limits { cpu: Some(CpuMillis(LIMIT * 1000)), ..Limits::NONE };
        let queues = vec![queue("q", 0), QueueConfig { limit, ..queue("limited", 0) }];
        Self {
            core: Scheduler::new(config(queues, vec![node("n", CORES, GPUS as usize)])).unwrap(),
            now: at(0),
            jobs: Vec::new(),
        }
    }

    fn state(&self, build: &Build) -> Option<JobState> {
        self.core.view(id(build.number)).map(|view| view.lifecycle.state.clone())
    }

    fn asks(build: &Build) -> Pair {
        let request = build.tasks[0].request;
        (request.cpu.0 / 1000, u64::from(request.gpus))
    }

    fn active(&self) -> Vec<&Build> {
        let holds = |build: &&Build| self.state(build).is_some_and(|state| state.placement().is_some());
        self.jobs.iter().filter(holds).collect()
    }

    fn tell(&mut self, which: usize, started: bool) {
        let active = self.active();
        let Some(number) = active.get(which % active.len().max(1)).map(|build| build.number) else { return };
        let attempt = self.core.view(id(number)).unwrap().lifecycle.attempt;
        let event = if started {
            Event::Started { attempt, at: self.now }
        } else {
            Event::Ended { attempt, result: RunResult::Succeeded, at: self.now, retry_at: self.now }
        };
        // A second report of a start changes nothing.
        let _ = self.core.handle(id(number), event, self.now);
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Submit { cores, gpus, limit, limited, priority } => {
                let mut build = job(self.jobs.len() as u64).asks(1, cores, gpus as u32).priority(priority);
                build = build.queue(if limited { "limited" } else { "q" });
                build.policy.time_limit = limit.map(scheduler_core::time::Span::from_secs);
                self.core.submit(build.build(self.now), self.now).unwrap();
                self.jobs.push(build);
            }
            Step::Started(which) => self.tell(which, true),
            Step::Ended(which) => self.tell(which, false),
            Step::Advance(seconds) => self.now.0 += seconds * 1_000_000,
            Step::Plan => {
                self.core.plan(self.now, usize::MAX);
                self.check()?;
            }
        }
        self.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))
    }

    /// When a job is over at the latest that holds resources, or would from now on.
    fn end(&self, build: &Build) -> Option<Timestamp> {
        let stay = build.policy.time_limit.map(|limit| scheduler_core::time::Span(limit.0 + GRACE_S * 1_000_000))?;
        Some(match self.state(build) {
            Some(JobState::Running { since, .. }) => (since + stay).max(self.now),
            _ => self.now + stay,
        })
    }

    /// Free at a time, if all that runs takes as long as it may.
    fn free(&self, when: Option<Timestamp>) -> Pair {
        let there = |build: &&&Build| when.is_none_or(|when| self.end(build).is_none_or(|end| end > when));
        let active = self.active();
        let held = active.iter().filter(there).map(|build| Self::asks(build));
        held.fold((CORES, GPUS), |free, held| (free.0 - held.0, free.1 - held.1))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let fits = |asks: Pair, free: Pair| asks.0 <= free.0 && asks.1 <= free.1;
        let mut queued: Vec<&Build> =
            self.jobs.iter().filter(|build| self.state(build).is_some_and(|state| state.kind() == StateKind::Queued)).collect();
        queued
            .sort_by_key(|build| (-build.policy.priority, self.core.view(id(build.number)).unwrap().submitted_at, build.number));
        let mut held: BTreeMap<&str, u64> = BTreeMap::new();
        for build in self.active() {
            *held.entry(build.queue.as_str()).or_default() += Self::asks(build).0;
        }
        let now_free = self.free(Some(Timestamp(self.now.0 - 1)));
        let (mut head, mut closed) = (None, false);
        for build in queued {
            let asks = Self::asks(build);
            if build.queue.as_str() == "limited" {
                let over = held.get("limited").copied().unwrap_or(0) + asks.0 > LIMIT;
                closed |= over;
                if over || closed {
                    continue;
                }
            }
            let Some((shadow, extra)) = head else {
                prop_assert!(!fits(asks, now_free), "{} is the first, fits, and was not started", build.number);
                // It keeps its part of the limit, and gets the node at the first end after which it fits.
                *held.entry(build.queue.as_str()).or_default() += asks.0;
                let active = self.active();
                let mut ends: Vec<_> = active.iter().filter_map(|run| self.end(run)).collect();
                ends.sort_unstable();
                let shadow = ends.into_iter().find(|end| fits(asks, self.free(Some(*end))));
                let extra = shadow.map(|shadow| self.free(Some(shadow))).map(|free| (free.0 - asks.0, free.1 - asks.1));
                head = Some((shadow, extra));
                continue;
            };
            let in_time = shadow.zip(self.end(build)).is_some_and(|(shadow, end)| end <= shadow);
            // Where the head waits for runs without limits, what is left beside it is what the core says; only the certain is asked for.
            let beside = extra.is_some_and(|extra| fits(asks, extra));
            let may = fits(asks, now_free) && (in_time || beside);
            prop_assert!(
                !may,
                "{} fits into {now_free:?}, would not delay the head ({shadow:?}, {extra:?} beside it), and waits",
                build.number
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pass_leaves_nobody_behind_who_could_start(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
        world.run(&Step::Plan)?;
    }
}

/// What is kept of a limit for the head keeps back a job of another shape; a job of that shape which ranks above the head is not kept back.
#[test]
fn who_passes_the_head_of_a_limited_queue_is_not_overlooked() {
    let submit = |cores, gpus, priority| Step::Submit { cores, gpus, limit: Some(1), limited: true, priority };
    let blocks = Step::Submit { cores: 8, gpus: 0, limit: None, limited: false, priority: 2 };
    let steps = [blocks, Step::Plan, submit(5, 0, 0), submit(3, 1, 0), Step::Plan, submit(3, 1, 1), Step::Plan];
    let mut world = World::new();
    for step in &steps {
        world.run(step).unwrap();
    }
    assert_eq!(world.state(&world.jobs[3]).unwrap().kind(), StateKind::Starting);
}

/// Nothing can start, and then one more of a kind that waits comes before the others: it is another head, beside which others may start.
#[test]
fn one_more_of_a_kind_may_be_another_head() {
    let submit = |cores, gpus, limited, priority| Step::Submit { cores, gpus, limit: Some(1), limited, priority };
    let mut world = World::new();
    for step in [
        submit(8, 0, false, 1),
        submit(6, 0, true, 1),
        submit(3, 0, true, 0),
        submit(6, 1, false, 0),
        Step::Plan,
        submit(6, 1, false, 2),
        Step::Advance(1),
        Step::Plan,
    ] {
        world.run(&step).unwrap();
    }
}
