//! Random histories with quotas, shares, gangs, cohorts and preemption: an explanation never disagrees with the next pass, a suggestion
//! that is followed starts the job, and a latest start is what comes true when every run takes as long as it may.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{Build, aging, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::amounts::CpuMillis;
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::JobId;
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{
    Change, CohortConfig, Config, Discipline, Estimate, FairShare, Limits, Preemption, QueueConfig, Scheduler, TenantLimits, Why,
};

/// Jobs that take another one's place have numbers from here on.
const INSTEAD: u64 = 10_000;

#[derive(Clone, Debug)]
enum Step {
    Submit { kind: u8, queue: usize, namespace: usize, priority: i32, limit: Option<u64>, least: u32 },
    Started(usize),
    Ended { which: usize, lost: bool },
    Cancel(u64),
    Advance(i64),
    Plan(usize),
    Limit { jobs: Option<u32>, cores: u64 },
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..8_u8, 0..6_usize, 0..3_usize, -2..3_i32, prop::option::of(1..200_u64), 0..4_u32)
            .prop_map(|(kind, queue, namespace, priority, limit, least)| Step::Submit { kind, queue, namespace, priority, limit, least }),
        4 => (0..50_usize).prop_map(Step::Started),
        5 => (0..50_usize, prop::bool::weighted(0.2)).prop_map(|(which, lost)| Step::Ended { which, lost }),
        1 => (0..60_u64).prop_map(Step::Cancel),
        3 => (0..40_i64).prop_map(Step::Advance),
        2 => (0..4_usize).prop_map(Step::Plan),
        1 => (prop::option::of(0..4_u32), 1..12_u64).prop_map(|(jobs, cores)| Step::Limit { jobs, cores }),
        4 => Just(Step::Check),
    ]
}

const QUEUES: [&str; 6] = ["plain", "slow", "fair", "limited", "x", "y"];

fn cores(cores: u64) -> Limits {
    Limits { cpu: Some(CpuMillis(cores * 1000)), ..Limits::NONE }
}

fn limited(jobs: Option<u32>, most: u64) -> QueueConfig {
    let tenant = TenantLimits { jobs: Some(2), amounts: Limits { gpus: Some(4), ..Limits::NONE } };
    QueueConfig { max_concurrent: jobs, limit: cores(most), tenant, preemptible: true, ..queue("limited", 1) }
}

fn setup(strict: bool, preempt: bool, fair_pool: bool) -> Config {
    let member =
        |name: &str| QueueConfig { cohort: Some("pool".into()), guaranteed: cores(4), preemptible: true, ..queue(name, 0) };
    let fair =
        FairShare { half_life: Span::from_secs(60), weights: vec![("b".into(), scheduler_core::Weight::new(2.0).unwrap())] };
    let queues = vec![
        QueueConfig { preemptible: true, ..queue("plain", 0) },
        aging("slow", 1, 100),
        QueueConfig { fair_share: Some(fair), ..queue("fair", 0) },
        limited(Some(3), 8),
        member("x"),
        member("y"),
    ];
    let pool = CohortConfig { fair_share: fair_pool.then_some(Span::from_secs(60)), ..CohortConfig::named("pool".into()) };
    Config {
        cohorts: vec![pool],
        discipline: if strict { Discipline::Strict } else { Discipline::Easy },
        preemption: Preemption { within_queue: preempt, reclaim: preempt, across_queues: preempt },
        ..config(queues, vec![node("a", 8, 4), node("b", 4, 2), node("c", 8, 0)])
    }
}

fn kind(number: u64, kind: u8) -> Build {
    match kind {
        0 => job(number),
        1 => job(number).asks(1, 1, 1),
        2 => job(number).asks(3, 1, 1),
        3 => job(number).asks(1, 8, 0),
        4 => job(number).asks(1, 2, 4),
        5 => job(number).asks(4, 2, 0),
        6 => job(number).asks(1, 2, 0).task("worker", 2, 1, 2),
        _ => job(number).asks(6, 1, 1),
    }
}

/// What is told to a core, so that another one can be told the same.
#[derive(Clone)]
enum Told {
    Submit(Box<Build>),
    Handle(u64, Event),
    Tick,
    Plan(usize),
    Queue(Box<QueueConfig>),
}

fn tell(core: &mut Scheduler, told: &Told, now: Timestamp) -> Vec<Transition> {
    match told {
        Told::Submit(build) => drop(core.submit(build.build(now), now)),
        Told::Handle(number, event) => return core.handle(id(*number), event.clone(), now).into_iter().collect(),
        Told::Tick => return core.tick(now, usize::MAX),
        Told::Plan(limit) => return core.plan(now, *limit),
        Told::Queue(config) => core.set_queue(QueueConfig::clone(config), now).unwrap(),
    }
    Vec::new()
}

fn number(job: JobId) -> u64 {
    job.0.as_u128() as u64 & 0xffff
}

fn started(made: &[Transition]) -> Vec<u64> {
    made.iter().filter(|made| made.to.state.kind() == StateKind::Starting).map(|made| made.seq.0).collect()
}

struct World {
    config: Config,
    core: Scheduler,
    now: Timestamp,
    told: Vec<(Timestamp, Told)>,
    builds: BTreeMap<u64, Build>,
    seen: BTreeMap<&'static str, usize>,
}

impl World {
    fn new(config: Config) -> Self {
        let core = Scheduler::new(config.clone()).unwrap();
        Self { config, core, now: at(0), told: Vec::new(), builds: BTreeMap::new(), seen: BTreeMap::new() }
    }

    fn tell(&mut self, told: Told) -> Vec<Transition> {
        let made = tell(&mut self.core, &told, self.now);
        self.told.push((self.now, told));
        made
    }

    /// Another core with the same history.
    fn twin(&self) -> Scheduler {
        let mut twin = Scheduler::new(self.config.clone()).unwrap();
        for (now, told) in &self.told {
            tell(&mut twin, told, *now);
        }
        twin
    }

    fn active(&self, which: usize) -> Option<JobId> {
        let active: Vec<JobId> = self.core.active().map(|(job, _)| job).collect();
        active.get(which % active.len().max(1)).copied()
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Submit { kind: shape, queue, namespace, priority, limit, least } => {
                let mut build = kind(self.builds.len() as u64, *shape).priority(*priority).attempts(3);
                build = build.queue(QUEUES[*queue]).namespace(["a", "b", "c"][*namespace]);
                build = if u64::from(*least) < build.shape().task_count() { build.least(*least) } else { build };
                build.policy.time_limit = limit.map(Span::from_secs);
                self.builds.insert(build.number, build.clone());
                self.tell(Told::Submit(Box::new(build)));
            }
            Step::Started(which) => {
                let Some(job) = self.active(*which) else { return Ok(()) };
                let attempt = self.core.view(job).unwrap().lifecycle.attempt;
                self.tell(Told::Handle(number(job), Event::Started { attempt, at: self.now }));
            }
            Step::Ended { which, lost } => {
                let Some(job) = self.active(*which) else { return Ok(()) };
                let attempt = self.core.view(job).unwrap().lifecycle.attempt;
                let result = if *lost { RunResult::Lost { message: "gone".into() } } else { RunResult::Succeeded };
                let retry_at = Timestamp(self.now.0 + 5_000_000);
                self.tell(Told::Handle(number(job), Event::Ended { attempt, result, at: self.now, retry_at }));
            }
            Step::Cancel(job) => drop(self.tell(Told::Handle(*job, Event::Cancel { by: "u".into() }))),
            Step::Advance(seconds) => {
                self.now.0 += seconds * 1_000_000;
                self.tell(Told::Tick);
            }
            Step::Plan(limit) => drop(self.tell(Told::Plan(*limit))),
            Step::Limit { jobs, cores } => drop(self.tell(Told::Queue(Box::new(limited(*jobs, *cores))))),
            Step::Check => self.check()?,
        }
        self.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let queued = |core: &Scheduler, number: u64| {
            core.view(id(number)).is_some_and(|view| view.lifecycle.state.kind() == StateKind::Queued)
        };
        let waiting: Vec<u64> = self.builds.keys().copied().filter(|number| queued(&self.core, *number)).collect();
        let explained: BTreeMap<_, _> =
            waiting.iter().map(|number| (*number, self.core.explain(id(*number), self.now).unwrap())).collect();
        for (number, explained) in explained.iter().filter(|(number, _)| *number % 4 == 0) {
            for suggestion in &explained.suggestions {
                self.follow(*number, &suggestion.change)?;
            }
            if let Some(Estimate::Latest(at)) = explained.estimate {
                let begins = self.play(*number);
                prop_assert_eq!(begins, Some(at), "{}: {:?}", number, explained);
            }
        }
        let made = self.tell(Told::Plan(usize::MAX));
        let started = started(&made);
        for (number, explained) in &explained {
            let begins = started.contains(number);
            prop_assert_eq!(explained.why == Why::Scheduling, begins, "{}: {:?}, started {:?}", number, explained, started);
            let ends = made.iter().any(|made| matches!(made.event, Event::Preempt { by, .. } if by == id(*number)));
            let room = matches!(explained.why, Why::MakingRoom { .. });
            prop_assert!(!ends || room, "{number}: {explained:?}");
            // What is said must have a reason of its own.
            let Why::Resources { shortfall, .. } = &explained.why else { continue };
            let says = !shortfall.shortages.is_empty() || shortfall.gang.is_some() || shortfall.closest.is_some();
            prop_assert!(says, "{number}: {explained:?}");
        }
        for explained in explained.into_values() {
            let word = match explained.why {
                Why::Scheduling => "scheduling",
                Why::Resources { .. } => "resources",
                Why::Behind { .. } => "behind",
                Why::Reserved { .. } => "reserved",
                Why::Limit { .. } => "limit",
                Why::KeptBack { .. } => "keptBack",
                Why::MakingRoom { .. } => "makingRoom",
                Why::Never(_) => "never",
                other => return Err(TestCaseError::fail(format!("{other:?} of a queued job"))),
            };
            *self.seen.entry(word).or_default() += 1;
            *self.seen.entry("suggested").or_default() += explained.suggestions.len();
            *self.seen.entry("latest").or_default() += usize::from(matches!(explained.estimate, Some(Estimate::Latest(_))));
        }
        Ok(())
    }

    /// Cancels a job and submits a changed one instead, as a person would.
    fn follow(&self, number: u64, change: &Change) -> Result<(), TestCaseError> {
        let mut build = self.builds[&number].clone();
        let tasks = build.tasks.clone();
        let named = |name: &scheduler_core::ids::Name| tasks.iter().position(|task| task.name == *name).unwrap();
        match change {
            Change::Gpus { task, gpus } => build.tasks[named(task)].request.gpus = *gpus,
            Change::Cpu { task, cpu } => build.tasks[named(task)].request.cpu = *cpu,
            Change::Memory { task, memory } => build.tasks[named(task)].request.memory = *memory,
            Change::Replicas(replicas) => build.tasks[0].replicas = *replicas,
            Change::MinAvailable(least) => build.min_available = *least,
            Change::TimeLimit(limit) => build.policy.time_limit = Some(*limit),
            Change::Queue(queue) => build.queue = queue.clone(),
        }
        build.number = INSTEAD + number;
        let mut twin = self.twin();
        twin.handle(id(number), Event::Cancel { by: "u".into() }, self.now).unwrap();
        twin.submit(build.build(self.now), self.now).unwrap();
        let made = twin.plan(self.now, usize::MAX);
        prop_assert!(started(&made).contains(&build.number), "{number}: {change:?} does not help: {:?}", started(&made));
        Ok(())
    }

    /// When a job starts if nothing else happens than that runs end at the last moment.
    fn play(&self, wanted: u64) -> Option<Timestamp> {
        let (mut core, mut now) = (self.twin(), self.now);
        let mut ends: BTreeMap<JobId, Timestamp> = BTreeMap::new();
        loop {
            if started(&core.plan(now, usize::MAX)).contains(&wanted) {
                return Some(now);
            }
            let active: Vec<(JobId, StateKind)> = core.active().map(|(job, lifecycle)| (job, lifecycle.state.kind())).collect();
            ends.retain(|job, _| active.iter().any(|(active, _)| active == job));
            for (job, _) in active {
                let view = core.view(job).unwrap();
                let stay = view.policy.time_limit.map(|limit| Span(limit.0 + view.policy.stop.grace.0));
                let end = match view.lifecycle.state {
                    JobState::Running { since, .. } => stay.map(|stay| (since + stay).max(now)),
                    JobState::Stopping { deadline, .. } => Some(deadline.max(now)),
                    _ => stay.map(|stay| now + stay),
                };
                if let Some(end) = end {
                    let stops = matches!(view.lifecycle.state, JobState::Stopping { .. });
                    ends.entry(job).and_modify(|known| *known = if stops { end } else { *known }).or_insert(end);
                }
            }
            now = *ends.values().min()?;
            let over: Vec<JobId> = ends.iter().filter(|(_, end)| **end == now).map(|(job, _)| *job).collect();
            // In the order in which they were started, as the scheduler would count.
            let order: Vec<JobId> = core.active().map(|(job, _)| job).filter(|job| over.contains(job)).collect();
            for job in order {
                let attempt = core.view(job).unwrap().lifecycle.attempt;
                let event = Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now };
                core.handle(job, event, now).unwrap();
                ends.remove(&job);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_explanation_agrees_with_the_next_pass(
        steps in prop::collection::vec(step(), 1..90),
        strict in prop::bool::weighted(0.2),
        preempt in prop::bool::ANY,
        fair_pool in prop::bool::ANY,
    ) {
        let mut world = World::new(setup(strict, preempt, fair_pool));
        for step in &steps {
            world.run(step)?;
        }
        world.check()?;
    }
}

/// The property says something only if everything occurs in it.
#[test]
fn every_reason_occurs_in_such_histories() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..60 {
        let steps = prop::collection::vec(step(), 90).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(setup(round % 5 == 0, round % 2 == 0, round % 3 == 0));
        for step in &steps {
            world.run(step).unwrap();
        }
        for (word, count) in world.seen {
            *seen.entry(word).or_default() += count;
        }
    }
    for word in
        ["scheduling", "resources", "behind", "reserved", "limit", "keptBack", "makingRoom", "never", "suggested", "latest"]
    {
        assert!(seen.get(word).is_some_and(|count| *count > 10), "{word}: {seen:?}");
    }
}
