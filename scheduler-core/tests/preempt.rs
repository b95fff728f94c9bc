//! Preemption: who gives way to whom, what it costs, and that it never goes round in circles.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{Build, World, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::amounts::CpuMillis;
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::{Attempt, JobId};
use scheduler_core::state::{JobState, StateKind, StopReason};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{CohortConfig, Config, FairShare, Limits, NodeConfig, Preemption, QueueConfig, Scheduler};

const ALL: Preemption = Preemption { within_queue: true, reclaim: true, across_queues: true };
const NONE: [u64; 0] = [];

fn cores(cores: u64) -> Limits {
    Limits { cpu: Some(CpuMillis(cores * 1000)), ..Limits::NONE }
}

fn yields(name: &str, priority: i32) -> QueueConfig {
    QueueConfig { preemptible: true, ..queue(name, priority) }
}

fn member(name: &str, guaranteed: u64) -> QueueConfig {
    QueueConfig { cohort: Some("pool".into()), guaranteed: cores(guaranteed), ..yields(name, 0) }
}

fn world(preemption: Preemption, queues: Vec<QueueConfig>, nodes: Vec<NodeConfig>) -> World {
    let cohorts = vec![CohortConfig::named("pool".into())];
    let config = Config { cohorts, preemption, ..config(queues, nodes) };
    World { core: Scheduler::new(config).unwrap() }
}

fn number(job: JobId) -> u64 {
    job.0.as_u128() as u64 & 0xffff
}

/// A pass: who starts, and who is ended.
fn pass(world: &mut World, now: Timestamp) -> (Vec<u64>, Vec<u64>) {
    let made = world.core.plan(now, usize::MAX);
    world.core.check_invariants().unwrap();
    let ended = |to: &JobState| matches!(to, JobState::Stopping { .. });
    let (stops, starts): (Vec<_>, Vec<_>) = made.into_iter().partition(|made| ended(&made.to.state));
    for start in &starts {
        world.started(start.seq.0, now);
    }
    (starts.iter().map(|made| made.seq.0).collect(), stops.iter().map(|made| made.seq.0).collect())
}

/// The runs that were told to end do so.
fn obey(world: &mut World, now: Timestamp) {
    let stopping: Vec<JobId> =
        world.core.active().filter(|(_, lifecycle)| lifecycle.state.kind() == StateKind::Stopping).map(|(job, _)| job).collect();
    for job in stopping {
        let attempt = world.core.view(job).unwrap().lifecycle.attempt;
        let later = Timestamp(now.0 + 1);
        let event = Event::Ended { attempt, result: RunResult::Succeeded, at: later, retry_at: later };
        world.core.handle(job, event, later).unwrap();
    }
    world.core.check_invariants().unwrap();
}

#[test]
fn nobody_is_ended_unless_it_is_on() {
    let mut world = world(Preemption::default(), vec![yields("q", 0)], vec![node("a", 4, 0)]);
    world.submit(&job(1).asks(1, 4, 0), at(0));
    assert_eq!(pass(&mut world, at(0)), (vec![1], vec![]));
    world.submit(&job(2).asks(1, 4, 0).priority(5), at(1));
    assert_eq!(pass(&mut world, at(1)), (vec![], vec![]));
}

#[test]
fn whoever_runs_where_the_job_cannot_go_is_let_be() {
    // Two hundred runs that cost less than the one in the way.
    let mut world = world(ALL, vec![yields("q", 0)], vec![node("a", 200, 0), node("b", 4, 1)]);
    world.submit(&job(1).asks(1, 1, 1), at(0));
    assert_eq!(pass(&mut world, at(0)).0, [1]);
    for number in 100..300 {
        world.submit(&job(number), at(100));
    }
    assert_eq!(pass(&mut world, at(100)).0.len(), 200);
    world.submit(&job(2).asks(1, 1, 1).priority(1), at(200));
    assert_eq!(pass(&mut world, at(200)), (vec![], vec![1]));
}

#[test]
fn lower_priority_gives_way_and_keeps_its_age() {
    let mut world = world(ALL, vec![yields("q", 0)], vec![node("a", 4, 0)]);
    world.submit(&job(1).asks(1, 4, 0), at(0));
    assert_eq!(pass(&mut world, at(0)), (vec![1], vec![]));
    world.submit(&job(2).asks(1, 4, 0), at(1));
    assert_eq!(pass(&mut world, at(1)), (vec![], vec![]), "equal priority waits");
    world.submit(&job(3).asks(1, 2, 0).priority(5), at(2));
    assert_eq!(pass(&mut world, at(2)), (vec![], vec![1]));
    let state = world.core.view(id(1)).unwrap().lifecycle.state.clone();
    let JobState::Stopping { why, .. } = state else { panic!() };
    assert_eq!(*why, StopReason::Preempted { by: id(3), age_from: at(0) });
    assert_eq!(pass(&mut world, at(3)), (vec![], vec![]), "one order is enough");
    obey(&mut world, at(5));
    assert_eq!(pass(&mut world, at(6)), (vec![3], vec![]));
    world.done(3, at(7));
    assert_eq!(pass(&mut world, at(7)), (vec![1], vec![]), "it is older than job 2");
    assert_eq!(world.attempt(1), Attempt(2));
}

#[test]
fn a_queue_that_does_not_yield_is_left_alone() {
    let mut world = world(ALL, vec![queue("q", 0)], vec![node("a", 4, 0)]);
    world.submit(&job(1).asks(1, 4, 0), at(0));
    pass(&mut world, at(0));
    world.submit(&job(2).asks(1, 4, 0).priority(5), at(1));
    assert_eq!(pass(&mut world, at(1)), (vec![], vec![]));
}

#[test]
fn the_cheapest_go_first_and_no_more_than_needed() {
    let mut world = world(ALL, vec![yields("q", 0)], vec![node("a", 8, 0)]);
    let mut saves = job(4).asks(1, 2, 0);
    saves.policy.checkpointable = true;
    for (build, start) in [(job(1).asks(1, 2, 0), 0), (saves, 1), (job(2).asks(1, 2, 0), 50), (job(3).asks(1, 1, 0), 60)] {
        world.submit(&build, at(start));
        pass(&mut world, at(start));
    }
    world.submit(&job(9).asks(1, 3, 0).priority(1), at(100));
    assert_eq!(pass(&mut world, at(100)), (vec![], vec![4]), "one core is free, and it saves its work");
    obey(&mut world, at(101));
    assert_eq!(pass(&mut world, at(102)), (vec![9], vec![]));
    world.submit(&job(10).asks(1, 2, 0).priority(1), at(103));
    assert_eq!(pass(&mut world, at(103)), (vec![], vec![2]), "job 3 alone is not enough, job 1 has run longer");
}

#[test]
fn whole_gangs_give_way_and_only_if_it_helps() {
    let mut world = world(ALL, vec![yields("q", 0)], vec![node("a", 4, 0), node("b", 4, 0)]);
    world.submit(&job(1).asks(4, 2, 0), at(0));
    pass(&mut world, at(0));
    world.submit(&job(2).asks(1, 2, 0).priority(1), at(1));
    assert_eq!(pass(&mut world, at(1)), (vec![], vec![1]));
    obey(&mut world, at(2));
    assert_eq!(pass(&mut world, at(3)).0, [2]);
    world.submit(&job(3).asks(2, 4, 0).priority(1), at(4));
    assert_eq!(pass(&mut world, at(4)), (vec![], vec![]), "job 2 is its equal, so nothing would help");
}

#[test]
fn what_was_lent_is_taken_back_and_no_more() {
    let mut world = world(ALL, vec![member("x", 4), member("y", 4)], vec![node("a", 64, 0)]);
    for number in 1..=4 {
        world.submit(&job(number).queue("x").asks(1, 2, 0), at(number as i64));
    }
    assert_eq!(pass(&mut world, at(5)).0, [1, 2, 3, 4]);
    world.submit(&job(11).queue("y").asks(1, 2, 0), at(6));
    assert_eq!(pass(&mut world, at(6)), (vec![], vec![4]), "the youngest that was borrowed");
    obey(&mut world, at(7));
    assert_eq!(pass(&mut world, at(8)), (vec![11], vec![]));
    world.submit(&job(12).queue("y").asks(1, 2, 0), at(9));
    assert_eq!(pass(&mut world, at(9)), (vec![], vec![3]));
    obey(&mut world, at(10));
    assert_eq!(pass(&mut world, at(11)), (vec![12], vec![]));
    world.submit(&job(13).queue("y").asks(1, 2, 0).priority(9), at(12));
    let (starts, stops) = pass(&mut world, at(12));
    assert_eq!((starts, stops.len()), (vec![], 1), "jobs 1 and 2 are what queue x is guaranteed");
    assert!(stops[0] > 10, "so one of its own gives way: {stops:?}");
}

#[test]
fn several_claims_are_served_at_once() {
    let queues = vec![member("x", 2), member("y", 2), member("z", 2)];
    let mut world = world(ALL, queues, vec![node("a", 6, 0)]);
    for number in 1..=6 {
        world.submit(&job(number).queue("x"), at(0));
    }
    assert_eq!(pass(&mut world, at(0)).0.len(), 6);
    world.submit(&job(11).queue("y").asks(1, 2, 0), at(1));
    world.submit(&job(12).queue("z").asks(1, 2, 0), at(1));
    let (_, stops) = pass(&mut world, at(1));
    assert_eq!(stops.len(), 4, "room for both: {stops:?}");
    assert_eq!(pass(&mut world, at(2)), (vec![], vec![]));
    obey(&mut world, at(3));
    assert_eq!(pass(&mut world, at(4)).0, [11, 12]);
}

#[test]
fn a_queue_of_higher_base_priority_takes_from_a_lower_one() {
    let mut world = world(ALL, vec![queue("interactive", 10_000), yields("batch", 100)], vec![node("a", 4, 0)]);
    world.submit(&job(1).queue("batch").asks(1, 4, 0).priority(999_999), at(0));
    pass(&mut world, at(0));
    world.submit(&job(2).queue("interactive"), at(1));
    assert_eq!(pass(&mut world, at(1)).1, NONE, "job 1 would be before it again");
    world.done(1, at(2));
    assert_eq!(pass(&mut world, at(2)).0, [2]);
    world.submit(&job(3).queue("batch").asks(1, 3, 0), at(3));
    assert_eq!(pass(&mut world, at(3)).0, [3]);
    world.submit(&job(4).queue("interactive").priority(-5), at(4));
    assert_eq!(pass(&mut world, at(4)).1, [3]);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { queue: usize, tenant: usize, replicas: u32, cores: u64, gpus: u32, priority: i32 },
    End(usize),
    Obey,
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..5_usize, 0..2_usize, 1..3_u32, 0..4_u64, 0..2_u32, -2..3_i32)
            .prop_map(|(queue, tenant, replicas, cores, gpus, priority)| Step::Submit { queue, tenant, replicas, cores, gpus, priority }),
        1 => (0..50_usize).prop_map(Step::End),
        3 => Just(Step::Obey),
        6 => Just(Step::Pass),
    ]
}

const QUEUES: [&str; 5] = ["x", "y", "z", "low", "high"];

/// Plain queues, or one that shares fairly and one that ages fast.
fn any_world(plain: bool) -> World {
    let fair_share = (!plain).then(|| FairShare::equal(Span::from_secs(60)));
    let age_per_point = (!plain).then(|| Span::from_secs(7));
    let z = QueueConfig { limit: cores(6), max_concurrent: Some(3), ..member("z", 2) };
    let high = QueueConfig { preemptible: false, ..yields("high", 10) };
    let x = QueueConfig { fair_share, ..member("x", 4) };
    let low = QueueConfig { age_per_point, ..yields("low", 1) };
    let queues = vec![x, QueueConfig { priority: 3, ..member("y", 3) }, z, low, high];
    world(ALL, queues, vec![node("a", 5, 2), node("b", 6, 1)])
}

/// Who made room for whom: by victim, the preemptor and the attempt that it starts with then.
type Debts = BTreeMap<u64, (u64, Attempt)>;

/// A pass in which no victim has the job ended that it made room for.
fn watched_pass(world: &mut World, debts: &mut Debts, now: Timestamp) -> Result<usize, TestCaseError> {
    let made = world.core.plan(now, usize::MAX);
    let count = made.len();
    for made in made {
        let JobState::Stopping { why, .. } = &made.to.state else { continue };
        let StopReason::Preempted { by, .. } = **why else { return Err(TestCaseError::fail("ended for another reason")) };
        let (victim, by) = (made.seq.0, number(by));
        if let Some((creditor, attempt)) = debts.get(&by) {
            prop_assert!(*creditor != victim || made.to.attempt != *attempt, "{by} has {victim} ended, for which it made room");
        }
        let next = world.core.view(id(by)).unwrap().lifecycle.attempt.next();
        debts.insert(victim, (by, next));
    }
    world.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// In any history no victim takes its place back, and when nothing is submitted and nothing ends by itself, preemption comes to an end.
    #[test]
    fn preemption_comes_to_an_end(steps in prop::collection::vec(step(), 1..100), plain in prop::bool::ANY) {
        let mut world = any_world(plain);
        let (mut jobs, mut debts, mut now) = (0, Debts::new(), at(0));
        for step in steps {
            now.0 += 1_000_000;
            match step {
                Step::Submit { queue, tenant, replicas, cores, gpus, priority } => {
                    let build: Build = job(jobs).queue(QUEUES[queue]).namespace(["a", "b"][tenant]).asks(replicas, cores, gpus).priority(priority);
                    jobs += u64::from(world.core.submit(build.build(now), now).is_ok());
                }
                Step::End(which) => {
                    let active: Vec<u64> = world.core.active().map(|(job, _)| number(job)).collect();
                    if !active.is_empty() {
                        world.done(active[which % active.len()], now);
                    }
                }
                Step::Obey => obey(&mut world, now),
                Step::Pass => drop(watched_pass(&mut world, &mut debts, now)?),
            }
        }
        let mut rounds = 0;
        loop {
            now.0 += 1_000_000;
            obey(&mut world, now);
            if watched_pass(&mut world, &mut debts, now)? == 0 && world.core.counts()[StateKind::Stopping as usize] == 0 {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 20 + 4 * jobs, "still going after {rounds} rounds");
        }
    }
}
