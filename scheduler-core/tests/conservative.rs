//! Conservative backfill: the first few blocked jobs have reservations, and nothing that starts beside them moves one back.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use common::{Build, GRACE_S, World, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::JobId;
use scheduler_core::job::LiveJob;
use scheduler_core::state::StateKind;
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, Discipline, Estimate, Scheduler, Why};

fn core(discipline: Discipline, nodes: &[(u64, usize)]) -> Scheduler {
    let nodes = nodes.iter().enumerate().map(|(number, (cores, gpus))| node(&format!("n{number}"), *cores, *gpus)).collect();
    Scheduler::new(Config { discipline, ..config(vec![queue("q", 0)], nodes) }).unwrap()
}

fn world(discipline: Discipline) -> World {
    World { core: core(discipline, &[(4, 0)]) }
}

/// Of four cores two are taken until 100 s and one until 200 s; job 3 needs two of them, job 4 all.
fn two_blocked(discipline: Discipline) -> World {
    let mut world = world(discipline);
    world.submit(&job(1).asks(1, 2, 0).limit(100 - GRACE_S), at(0));
    world.submit(&job(2).asks(1, 1, 0).limit(200 - GRACE_S), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(1, 2, 0).limit(50 - GRACE_S), at(1));
    world.submit(&job(4).asks(1, 4, 0).limit(10), at(2));
    assert_eq!(world.plan(at(2)), [0; 0]);
    world
}

fn reserved(world: &World) -> Vec<(JobId, Option<Timestamp>)> {
    world.core.reservations().iter().map(|kept| (kept.job, kept.at)).collect()
}

const TWO: Discipline = Discipline::Conservative { heads: 2 };

#[test]
fn the_second_blocked_job_is_not_delayed_either() {
    let long = job(5).limit(10_000);
    let mut easy = two_blocked(Discipline::Easy);
    easy.submit(&long, at(3));
    assert_eq!(easy.plan(at(3)), [5], "it fits beside the head, and job 4 waits for it");
    let mut world = two_blocked(TWO);
    world.submit(&long, at(3));
    assert_eq!(world.plan(at(3)), [0; 0]);
    assert_eq!(reserved(&world), [(id(3), Some(at(100))), (id(4), Some(at(200)))]);
    world.submit(&job(6).limit(200 - GRACE_S - 2), at(4));
    assert_eq!(world.plan(at(4)), [0; 0], "two seconds too long");
    world.submit(&job(7).limit(200 - GRACE_S - 4), at(4));
    assert_eq!(world.run(at(4)), [7], "job 3 needs no more than what job 1 gives back");
    world.done(1, at(50));
    assert_eq!(world.run(at(50)), [3]);
    assert_eq!(reserved(&world)[0], (id(4), Some(at(200))));
    world.done(3, at(60));
    world.done(2, at(60));
    world.done(7, at(60));
    assert_eq!(world.run(at(60)), [4]);
    assert_eq!(reserved(&world), [(id(5), Some(at(80))), (id(6), Some(at(80)))]);
}

/// Four cores are taken, three until 60 s and one until 100 s; job 3 needs all of them then, for 50 s.
#[test]
fn a_reservation_may_lie_before_that_of_a_job_ahead_if_it_is_over_by_then() {
    let mut world = world(Discipline::Conservative { heads: 4 });
    world.submit(&job(1).asks(1, 3, 0).limit(60 - GRACE_S), at(0));
    world.submit(&job(2).asks(1, 1, 0).limit(100 - GRACE_S), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(1, 4, 0).limit(50 - GRACE_S), at(0));
    world.submit(&job(4).asks(1, 2, 0).limit(41 - GRACE_S), at(0));
    world.submit(&job(5).asks(1, 2, 0).limit(40 - GRACE_S), at(0));
    world.submit(&job(6).asks(1, 2, 0).limit(1000), at(0));
    assert_eq!(world.plan(at(0)), [0; 0]);
    let times: Vec<_> = reserved(&world).into_iter().map(|(_, time)| time).collect();
    assert_eq!(times, [Some(at(100)), Some(at(150)), Some(at(60)), Some(at(150))], "job 4 would be a second too long at 60 s");
}

/// Of six cores two are taken until 60 s and three until 100 s; job 3 needs four of them at 100 s, and job 4, from 60 s on, the other two.
#[test]
fn a_reservation_counts_at_those_that_begin_while_it_lasts() {
    let mut world = World { core: core(TWO, &[(6, 0)]) };
    world.submit(&job(1).asks(1, 2, 0).limit(60 - GRACE_S), at(0));
    world.submit(&job(2).asks(1, 3, 0).limit(100 - GRACE_S), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(1, 4, 0).limit(50), at(0));
    world.submit(&job(4).asks(1, 2, 0).limit(100), at(0));
    world.submit(&job(5).limit(101 - GRACE_S), at(0));
    assert_eq!(world.plan(at(0)), [0; 0], "nothing is left at 100 s");
    assert_eq!(reserved(&world), [(id(3), Some(at(100))), (id(4), Some(at(60)))]);
    world.submit(&job(6).limit(100 - GRACE_S), at(0));
    assert_eq!(world.plan(at(0)), [6]);
}

/// Job 2 takes all of the twelve cores from 60 s on and for good. Jobs 3 and 5 ask for the same, a GPU among it; job 3 would not be over by then.
#[test]
fn what_is_kept_for_a_short_job_does_not_hang_on_a_long_one_of_its_shape() {
    let mut world = World { core: core(TWO, &[(12, 4)]) };
    world.submit(&job(1).asks(1, 1, 2).limit(60 - GRACE_S), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 12, 0), at(0));
    world.submit(&job(3).asks(1, 3, 1).limit(61 - GRACE_S), at(0));
    world.submit(&job(4).asks(2, 1, 1).limit(30 - GRACE_S), at(0));
    world.submit(&job(5).asks(1, 3, 1).limit(15 - GRACE_S), at(0));
    assert_eq!(world.plan(at(0)), [4]);
    let kept = [(id(2), Some(at(60))), (id(5), Some(at(30)))];
    assert_eq!(reserved(&world), kept, "job 3 has room in this pass, and would delay job 2");
    world.submit(&job(6).limit(15 - GRACE_S), at(0));
    assert_eq!(world.plan(at(0)), [6]);
    assert_eq!(reserved(&world), kept, "job 3 has none in this one");
    assert!(matches!(world.core.explain(id(3), at(0)).unwrap().why, Why::Resources { .. } | Why::Behind { .. }));
}

#[test]
fn an_explanation_knows_later_reservations() {
    let mut world = two_blocked(TWO);
    world.submit(&job(5).limit(10_000), at(3));
    assert_eq!(world.plan(at(3)), [0; 0]);
    let why = |number| world.core.explain(id(number), at(3)).unwrap();
    let Why::Resources { expected, .. } = why(3).why else { panic!() };
    assert_eq!(expected, Some(at(100)));
    let Why::Behind { first, expected, .. } = why(4).why else { panic!("{:?}", why(4)) };
    assert_eq!((first.job.id, expected), (id(3), Some(at(200))));
    assert_eq!(why(4).estimate, Some(Estimate::Latest(at(200))));
    let Why::Reserved { head, more, at: from, .. } = why(5).why else { panic!("{:?}", why(5)) };
    assert_eq!((head.job.id, more, from), (id(3), 1, Some(at(100))), "who would be delayed is job 4");
    let easy = two_blocked(Discipline::Easy);
    let Some(Why::Behind { expected, .. }) = easy.core.explain(id(4), at(3)).map(|why| why.why) else { panic!() };
    assert_eq!(expected, None, "nothing is kept for it there");
}

#[test]
fn jobs_of_one_shape_have_a_reservation_each() {
    let mut world = world(Discipline::Conservative { heads: 3 });
    world.submit(&job(1).asks(1, 4, 0).limit(100 - GRACE_S), at(0));
    assert_eq!(world.run(at(0)), [1]);
    for number in 2..6 {
        world.submit(&job(number).asks(1, 3, 0).limit(50 - GRACE_S), at(1));
    }
    assert_eq!(world.plan(at(1)), [0; 0]);
    assert_eq!(reserved(&world), [(id(2), Some(at(100))), (id(3), Some(at(150))), (id(4), Some(at(200)))]);
}

#[test]
fn what_waits_for_a_run_without_a_limit_keeps_its_place_at_any_time() {
    let mut world = world(TWO);
    world.submit(&job(1).asks(1, 3, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 2, 0), at(1));
    world.submit(&job(3).asks(1, 3, 0), at(1));
    world.submit(&job(4).limit(1), at(2));
    assert_eq!(world.plan(at(2)), [4], "two cores are left beside job 2; job 3 waits for job 2");
    assert_eq!(reserved(&world), [(id(2), None), (id(3), None)][..1], "job 3 could never start while job 2 runs for good");
}

#[test]
fn a_number_of_reservations_out_of_range_is_refused() {
    for heads in [0, 65] {
        let config = Config { discipline: Discipline::Conservative { heads }, ..config(vec![queue("q", 0)], vec![]) };
        let error = Scheduler::new(config).err().unwrap().to_string();
        assert_eq!(error, format!("conservative backfill with {heads} reservations, must be 1 to 64"));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Submit { cores: u64, gpus: u32, replicas: u32, limit: Option<u64>, priority: i32 },
    Started(usize),
    Ended(usize),
    Advance(i64),
    Plan,
}

fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![6 => (1..100_u64).prop_map(Some), 2 => Just(Some(20)), 1 => Just(None)];
    prop_oneof![
        8 => (1..5_u64, 0..3_u32, 1..4_u32, limit, 0..3_i32)
            .prop_map(|(cores, gpus, replicas, limit, priority)| Step::Submit { cores, gpus, replicas, limit, priority }),
        4 => any::<usize>().prop_map(Step::Started),
        3 => any::<usize>().prop_map(Step::Ended),
        3 => (1..20_i64).prop_map(Step::Advance),
        4 => Just(Step::Plan),
    ]
}

/// Cores and GPUs of each node.
type Nodes = &'static [(u64, usize)];

const ONE: Nodes = &[(12, 4)];
const THREE: Nodes = &[(8, 2), (8, 2), (4, 0)];

/// Jobs and the time; what the core says of them is asked of it.
struct History {
    discipline: Discipline,
    nodes: Nodes,
    core: Scheduler,
    now: Timestamp,
    jobs: Vec<Build>,
}

impl History {
    fn new(discipline: Discipline, nodes: Nodes) -> Self {
        Self { discipline, nodes, core: core(discipline, nodes), now: at(0), jobs: Vec::new() }
    }

    fn tell(&mut self, which: usize, event: impl FnOnce(scheduler_core::ids::Attempt) -> Event) {
        let active: Vec<_> = self.core.active().map(|(job, lifecycle)| (job, lifecycle.attempt)).collect();
        if let Some(&(job, attempt)) = active.get(which % active.len().max(1)) {
            // A second report of a start changes nothing.
            let _ = self.core.handle(job, event(attempt), self.now);
        }
    }

    /// What a pass started, if the step is one.
    fn run(&mut self, step: &Step) -> Result<Option<Vec<u64>>, TestCaseError> {
        let now = self.now;
        match *step {
            Step::Submit { cores, gpus, replicas, limit, priority } => {
                let mut build = job(self.jobs.len() as u64).asks(replicas, cores, gpus).priority(priority);
                build.policy.time_limit = limit.map(Span::from_secs);
                // What could never run is refused, and then it is not there.
                if self.core.submit(build.build(now), now).is_ok() {
                    self.jobs.push(build);
                }
            }
            Step::Started(which) => self.tell(which, |attempt| Event::Started { attempt, at: now }),
            Step::Ended(which) => {
                self.tell(which, |attempt| Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now });
            }
            Step::Advance(seconds) => self.now.0 += seconds * 1_000_000,
            Step::Plan => {
                let made = self.core.plan(now, usize::MAX);
                self.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
                return Ok(Some(made.iter().map(|made| made.seq.0).collect()));
            }
        }
        Ok(None)
    }

    /// The jobs that are there, those that run first and in their order.
    fn live(&self) -> Vec<LiveJob> {
        let active: Vec<_> = self.core.active().map(|(job, _)| job).collect();
        let queued = self.jobs.iter().map(|build| id(build.number)).filter(|job| !active.contains(job));
        let all = active.iter().copied().chain(queued.collect::<Vec<_>>());
        let live = all.filter_map(|job| self.core.view(job)).map(|view| LiveJob {
            id: view.id,
            seq: view.seq,
            shape: view.shape.clone(),
            policy: view.policy.clone(),
            submitted_at: view.submitted_at,
            start_after: view.start_after,
            lifecycle: view.lifecycle.clone(),
        });
        live.collect()
    }

    fn place(&self, job: JobId) -> (i32, Timestamp, u64) {
        let view = self.core.view(job).unwrap();
        (-view.policy.priority, view.submitted_at, view.seq.0)
    }

    /// A core with these jobs, and what a pass of it starts. Unlike one that knows that nothing has changed it always looks.
    fn again(&self, jobs: impl Iterator<Item = LiveJob>) -> (Scheduler, Vec<u64>) {
        let mut core = core(self.discipline, self.nodes);
        jobs.for_each(|live| core.restore(live, self.now).unwrap());
        let made = core.plan(self.now, usize::MAX);
        (core, made.iter().map(|made| made.seq.0).collect())
    }

    /// Every reservation is where it would be if nobody behind its job had started.
    fn check(&self, before: &[LiveJob], started: &[u64]) -> Result<(), TestCaseError> {
        let (with, same) = self.again(before.iter().cloned());
        prop_assert_eq!(&same, started);
        let kept = with.reservations();
        prop_assert!(kept.iter().map(|kept| self.place(kept.job)).is_sorted(), "reservations are made in the order of the jobs");
        for head in kept {
            let behind: BTreeSet<JobId> =
                started.iter().map(|&number| id(number)).filter(|&job| self.place(job) > self.place(head.job)).collect();
            let (without, made) = self.again(before.iter().filter(|live| !behind.contains(&live.id)).cloned());
            prop_assert!(made.iter().all(|&made| id(made) != head.job), "{:?} could start but for {behind:?}", head.job);
            let other = without.reservations().iter().find(|other| other.job == head.job);
            prop_assert_eq!(other, Some(head), "but for {:?}", behind);
        }
        // What has started runs now. On one node, where places are all alike, every reservation is still there and nobody else may start; on
        // several the first is, and others may have to give way to another place of it. Where one waits for a run without a limit, what
        // starts beside it counts as if it stayed for good, but only in that pass.
        if kept.iter().any(|head| head.at.is_none()) {
            return Ok(());
        }
        let (after, more) = self.again(self.live().into_iter());
        let later =
            |other: Option<Timestamp>, than: Option<Timestamp>| other.is_none_or(|other| than.is_some_and(|than| other > than));
        for (number, head) in kept.iter().enumerate().take(if self.nodes.len() == 1 { kept.len() } else { 1 }) {
            let now = after.reservations().get(number).copied();
            prop_assert_eq!(now.map(|now| now.job), Some(head.job));
            let moved = now.is_some_and(|now| now.at != head.at && later(now.at, head.at));
            prop_assert!(!moved, "{now:?} was {head:?} before {started:?} started");
        }
        prop_assert!(self.nodes.len() > 1 || more.is_empty(), "{more:?} were left behind");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_starts_moves_a_reservation(
        steps in prop::collection::vec(step(), 1..80),
        heads in 1..6_u32,
        nodes in prop_oneof![Just(ONE), Just(THREE)],
    ) {
        let mut history = History::new(Discipline::Conservative { heads }, nodes);
        for step in steps.iter().chain([&Step::Plan]) {
            let before = history.live();
            if let Some(started) = history.run(step)? {
                prop_assert!(history.core.reservations().len() <= heads as usize);
                history.check(&before, &started)?;
            }
        }
        // Everybody gets through.
        for _ in 0..400 {
            history.now.0 += 1_000_000;
            history.run(&Step::Ended(0))?;
            history.run(&Step::Plan)?;
        }
        prop_assert_eq!(history.core.counts()[StateKind::Queued as usize], 0, "somebody starves");
    }

    #[test]
    fn with_one_reservation_it_is_easy_backfill(steps in prop::collection::vec(step(), 1..80)) {
        let (mut one, mut easy) = (History::new(Discipline::Conservative { heads: 1 }, THREE), History::new(Discipline::Easy, THREE));
        for step in steps.iter().chain([&Step::Plan]) {
            prop_assert_eq!(one.run(step)?, easy.run(step)?);
        }
    }
}
