//! Random histories with an executor that holds orders: lines as the contract has them, messages that are late, kills of either side.
//!
//! After each step: the books hold; what really runs on a node is never more than it has; no run begins twice; whoever is lined up is the
//! first of the order. At the end everybody gets through. What was decided is recorded and decided again from the record.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod runner;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use common::{GIB, at, config, id, job, node, queue};
use proptest::prelude::*;
use runner::{Order, Report, Runner};
use scheduler_core::event::{Effect, Event, RunResult, Transition};
use scheduler_core::ids::{JobId, RunId};
use scheduler_core::job::{LiveJob, StopPolicy};
use scheduler_core::record::{Entry, Recorded, Tap, replay};
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::Timestamp;
use scheduler_core::{Config, NodeState, Preemption, Scheduler};

#[derive(Clone, Debug)]
enum Step {
    Submit {
        kind: u8,
        priority: i32,
        limit: bool,
        count: u8,
    },
    Plan(usize),
    /// So many orders reach the executor.
    Deliver(usize),
    /// Time passes, in milliseconds; everybody who runs ends whose number is within.
    Pass {
        ms: i64,
        ends: u8,
    },
    /// So many reports reach the core.
    Report(usize),
    Cancel(u64),
    Requeue(u64),
    Node {
        ready: bool,
    },
    KillRunner,
    KillDaemon {
        holding: bool,
    },
    /// A whole round of all of these, as in a quiet system.
    Round {
        ms: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..7_u8, prop_oneof![6 => Just(0), 1 => -1..3_i32], prop::bool::weighted(0.2), 1..12_u8)
            .prop_map(|(kind, priority, limit, count)| Step::Submit { kind, priority, limit, count }),
        4 => (0..20_usize).prop_map(Step::Plan),
        4 => (0..12_usize).prop_map(Step::Deliver),
        4 => (0..60_i64, 0..=u8::MAX).prop_map(|(ms, ends)| Step::Pass { ms, ends }),
        4 => (0..12_usize).prop_map(Step::Report),
        1 => (0..99_u64).prop_map(Step::Cancel),
        1 => (0..99_u64).prop_map(Step::Requeue),
        1 => prop::bool::weighted(0.7).prop_map(|ready| Step::Node { ready }),
        1 => Just(Step::KillRunner),
        1 => prop::bool::weighted(0.9).prop_map(|holding| Step::KillDaemon { holding }),
        8 => (0..30_i64).prop_map(|ms| Step::Round { ms }),
    ]
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Entry>>>);

impl Tap for Notes {
    fn begin(&mut self, _: &Config) {
        self.0.lock().unwrap().clear();
    }

    fn entry(&mut self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

struct World {
    config: Config,
    core: Recorded,
    notes: Notes,
    runner: Runner,
    orders: VecDeque<Effect>,
    now: Timestamp,
    jobs: u64,
    lined_up: u64,
}

impl World {
    fn new(preempts: bool) -> Self {
        let preemption = Preemption { within_queue: preempts, ..Preemption::default() };
        let mut queue = queue("q", 0);
        queue.preemptible = true;
        let config = Config { preemption, ..config(vec![queue], vec![node("a", 4, 1), node("b", 2, 0)]) };
        let notes = Notes::default();
        let mut core = Recorded::new(config.clone(), Some(Box::new(notes.clone()))).unwrap();
        core.set_holding(true);
        Self { config, core, notes, runner: Runner::default(), orders: VecDeque::new(), now: at(0), jobs: 0, lined_up: 0 }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Submit { kind, priority, limit, count } => (0..*count).for_each(|_| self.submit(*kind, *priority, *limit)),
            Step::Plan(limit) => self.plan(*limit)?,
            Step::Deliver(count) => (0..*count).for_each(|_| self.deliver()),
            Step::Pass { ms, ends } => self.pass(*ms, |number| (u64::from(*ends) >> (number % 8)) & 1 == 1),
            Step::Report(count) => (0..*count).for_each(|_| self.report()),
            Step::Cancel(number) => self.tell(*number, Event::Cancel { by: "u".into() }),
            Step::Requeue(number) => self.tell(*number, Event::Requeue { by: "u".into() }),
            Step::Node { ready } => {
                let state = if *ready { NodeState::Ready } else { NodeState::Draining };
                self.core.set_node_state(&"b".into(), state, self.now).unwrap();
            }
            Step::KillRunner => self.kill_runner(),
            Step::KillDaemon { holding } => self.kill_daemon(*holding),
            Step::Round { ms } => self.round(*ms)?,
        }
        self.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
        self.check_use()
    }

    fn round(&mut self, ms: i64) -> Result<(), TestCaseError> {
        self.plan(512)?;
        while !self.orders.is_empty() {
            self.deliver();
        }
        self.pass(ms, |_| true);
        self.reconcile();
        while !self.runner.reports.is_empty() {
            self.report();
        }
        self.check_use()
    }

    fn submit(&mut self, kind: u8, priority: i32, limit: bool) {
        let number = self.jobs;
        let mut build = match kind {
            0..=3 => job(number),
            4 => job(number).asks(1, 2, 0),
            5 => job(number).asks(1, 1, 1),
            _ => job(number).asks(2, 2, 0),
        };
        if kind == 3 {
            build.tasks[0].request.memory.0 = GIB * 3 / 2;
        }
        build = build.priority(priority);
        if limit {
            build = build.limit(1);
        }
        self.jobs += 1;
        self.core.submit(build.build(self.now), self.now).unwrap();
    }

    fn tell(&mut self, number: u64, event: Event) {
        if let Some(number) = number.checked_rem(self.jobs)
            && let Ok(made) = self.core.handle(id(number), event, self.now)
        {
            self.orders.extend(made.effects);
        }
    }

    fn plan(&mut self, limit: usize) -> Result<(), TestCaseError> {
        let ticked = self.core.tick(self.now, 512);
        self.orders.extend(ticked.into_iter().flat_map(|made| made.effects));
        let made = self.core.plan(self.now, limit);
        self.check_ahead(&made)?;
        self.orders.extend(made.into_iter().flat_map(|made| made.effects));
        self.orders.extend(self.core.take_withdrawn().into_iter().map(|run| Effect::Withdraw { run }));
        Ok(())
    }

    /// Nobody who is lined up passes anybody who stays queued.
    fn check_ahead(&mut self, made: &[Transition]) -> Result<(), TestCaseError> {
        let is_ahead = |made: &&Transition| matches!(&made.to.state, JobState::Starting { placement } if placement.is_ahead());
        let ahead: Vec<u64> = made.iter().filter(is_ahead).map(|made| made.seq.0).collect();
        self.lined_up += ahead.len() as u64;
        let key = |number: u64, since: Timestamp| {
            let priority = self.core.view(id(number)).unwrap().policy.priority;
            (std::cmp::Reverse(priority), since, number)
        };
        let queued = (0..self.jobs).filter_map(|number| match self.core.view(id(number))?.lifecycle.state {
            JobState::Queued { since } => Some(key(number, since)),
            _ => None,
        });
        let Some(first) = queued.min() else { return Ok(()) };
        for number in ahead {
            let since = self.core.view(id(number)).unwrap().lifecycle.state.placement().unwrap().line.unwrap().since;
            prop_assert!(key(number, since) < first, "{number} was lined up before {first:?}");
        }
        Ok(())
    }

    fn deliver(&mut self) {
        match self.orders.pop_front() {
            Some(Effect::Start { run }) => {
                let order = self.core.view(run.job).and_then(|view| Order::of(&view, run));
                if let Some(order) = order {
                    self.runner.start(order, self.now);
                }
            }
            Some(Effect::Stop { run, .. }) => {
                self.runner.drop_waiting(run, self.now);
                self.runner.end(run, RunResult::Succeeded, self.now);
            }
            Some(Effect::Withdraw { run }) => self.runner.drop_waiting(run, self.now),
            Some(Effect::Forget { run }) => drop(self.runner.over.remove(&run)),
            None => {}
        }
    }

    fn pass(&mut self, ms: i64, ends: impl Fn(u64) -> bool) {
        self.now.0 += ms * 1000;
        let over: Vec<RunId> = self.runner.running.keys().copied().filter(|run| ends(run.job.0.as_u128() as u64)).collect();
        for run in over {
            self.runner.end(run, RunResult::Succeeded, self.now);
        }
    }

    fn report(&mut self) {
        let Some(report) = self.runner.reports.pop_front() else { return };
        let now = self.now;
        let (run, made) = match report {
            Report::Started(run, at) => {
                drop(self.core.handle(run.job, Event::Started { attempt: run.attempt, at }, now));
                return;
            }
            Report::Ended(run, started, result, at) => {
                if let Some(at) = started {
                    drop(self.core.handle(run.job, Event::Started { attempt: run.attempt, at }, now));
                }
                (run, self.core.handle(run.job, Event::Ended { attempt: run.attempt, result, at, retry_at: now }, now))
            }
            Report::NotBegun(run, at) => {
                (run, self.core.handle(run.job, Event::NotBegun { attempt: run.attempt, at, retry_at: at }, now))
            }
        };
        match made {
            Ok(made) => self.orders.extend(made.effects),
            Err(_) => self.orders.push_back(Effect::Forget { run }),
        }
    }

    /// What was held and not begun is dropped; what ran has ended unseen.
    fn kill_runner(&mut self) {
        self.runner.reports.clear();
        let held: Vec<RunId> = self.runner.lines.values().flatten().map(|order| order.run).collect();
        self.runner.lines.clear();
        for run in held {
            self.runner.over.insert(run);
            self.runner.reports.push_back(Report::NotBegun(run, self.now));
        }
        let running: Vec<RunId> = self.runner.running.keys().copied().collect();
        for run in running {
            self.runner.end(run, RunResult::Lost { message: "runner".into() }, self.now);
        }
        self.reconcile();
    }

    /// Orders and reports under way are gone; the core is made anew.
    fn kill_daemon(&mut self, holding: bool) {
        self.check_replay();
        self.orders.clear();
        self.runner.reports.retain(|report| !matches!(report, Report::Started(..)));
        let mut core = Recorded::new(self.config.clone(), Some(Box::new(self.notes.clone()))).unwrap();
        for number in 0..self.jobs {
            let Some(view) = self.core.view(id(number)) else { continue };
            let live = LiveJob {
                id: view.id,
                seq: view.seq,
                shape: view.shape.clone(),
                policy: view.policy.clone(),
                submitted_at: view.submitted_at,
                start_after: view.start_after,
                lifecycle: view.lifecycle.clone(),
            };
            core.restore(live, self.now).unwrap();
        }
        self.core = core;
        self.core.set_holding(holding);
        self.reconcile();
    }

    /// As the daemon's reconciler does.
    fn reconcile(&mut self) {
        let told: BTreeSet<RunId> = self
            .runner
            .reports
            .iter()
            .map(|report| match report {
                Report::Started(run, _) | Report::Ended(run, ..) | Report::NotBegun(run, _) => *run,
            })
            .collect();
        let active: BTreeMap<RunId, StateKind> = self
            .core
            .active()
            .map(|(job, lifecycle)| (RunId { job, attempt: lifecycle.attempt }, lifecycle.state.kind()))
            .collect();
        for (&run, kind) in &active {
            match kind {
                StateKind::Starting if !self.runner.knows(run) => self.orders.push_back(Effect::Start { run }),
                StateKind::Stopping if self.runner.knows(run) => {
                    self.orders.push_back(Effect::Stop { run, policy: StopPolicy::default() });
                }
                StateKind::Running | StateKind::Stopping if !self.runner.knows(run) && !told.contains(&run) => {
                    self.runner.reports.push_back(Report::Ended(
                        run,
                        None,
                        RunResult::Lost { message: "unknown".into() },
                        self.now,
                    ));
                }
                _ => {}
            }
        }
        let running: Vec<(RunId, Timestamp)> = self.runner.running.iter().map(|(run, (_, since))| (*run, *since)).collect();
        for (run, since) in running {
            self.runner.reports.push_back(Report::Started(run, since));
        }
        // Ends are repeated until they are forgotten.
        for &run in &self.runner.over {
            if !told.contains(&run) {
                if self.runner.begun.contains(&run) {
                    let result = RunResult::Succeeded;
                    self.runner.reports.push_back(Report::Ended(run, Some(self.now), result, self.now));
                } else {
                    self.runner.reports.push_back(Report::NotBegun(run, self.now));
                }
            }
        }
    }

    /// What really runs is within what there is, and is what the core takes to hold something.
    fn check_use(&self) -> Result<(), TestCaseError> {
        let mut used: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (order, _) in self.runner.running.values() {
            let used = used.entry(&order.node).or_default();
            *used = (used.0 + order.asks.0, used.1 + order.asks.1);
        }
        for node in &self.config.nodes {
            let used = used.get(node.name.as_str()).copied().unwrap_or_default();
            prop_assert!(used.0 <= node.cpu.0 && used.1 <= node.memory.0, "{}: {used:?}", node.name);
            let booked = self.core.nodes().find(|found| *found.name == node.name).unwrap();
            prop_assert!(used.0 <= booked.cpu_used.0 && used.1 <= booked.memory_used.0, "{}: {used:?}", node.name);
        }
        Ok(())
    }

    /// The record, played into a fresh core, gives the same answers.
    fn check_replay(&self) {
        let mut fresh = Scheduler::new(self.config.clone()).unwrap();
        for entry in self.notes.0.lock().unwrap().iter() {
            assert_eq!(replay(&mut fresh, entry.input.clone(), entry.at), entry.answer);
        }
    }

    fn drain(&mut self) -> Result<(), TestCaseError> {
        self.core.set_node_state(&"b".into(), NodeState::Ready, self.now).unwrap();
        for _ in 0..2000 {
            if self.core.counts()[..5] == [0; 5] && self.orders.is_empty() && self.runner.over.is_empty() {
                break;
            }
            self.run(&Step::Round { ms: 7 })?;
        }
        prop_assert_eq!(&self.core.counts()[..5], &[0; 5], "somebody starved");
        for node in self.core.nodes() {
            prop_assert_eq!((node.cpu_used.0, node.memory_used.0), (0, 0));
        }
        prop_assert!(self.runner.running.is_empty() && self.runner.over.is_empty());
        self.check_replay();
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_promised_twice_and_nothing_begins_twice(preempts: bool, steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(preempts);
        for step in &steps {
            world.run(step)?;
        }
        world.drain()?;
    }
}

/// The histories above do line jobs up.
#[test]
fn a_stream_of_short_jobs_is_lined_up() {
    let mut world = World::new(false);
    world.run(&Step::Submit { kind: 0, priority: 0, limit: false, count: 200 }).unwrap();
    for _ in 0..8 {
        world.run(&Step::Round { ms: 1 }).unwrap();
    }
    assert!(world.lined_up > 100, "{}", world.lined_up);
    let waiting = world.runner.lines.values().map(VecDeque::len).sum::<usize>();
    assert!(waiting > 50, "{waiting}");
    world.drain().unwrap();
    assert_eq!(world.runner.begun.iter().map(|run| run.job).collect::<BTreeSet<JobId>>().len(), 200);
}
