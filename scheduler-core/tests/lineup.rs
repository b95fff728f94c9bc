//! Who is lined up, who is not, and who is taken back.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeSet, VecDeque};

use common::{Build, GIB, World, id, job, node, queue};
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::RunId;
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, FairShare, NodeState, Preemption, QueueConfig, Scheduler, Why};

/// Milliseconds after an arbitrary start.
fn ms(millis: i64) -> Timestamp {
    Timestamp(common::at(0).0 + millis * 1000)
}

fn holding(queues: Vec<QueueConfig>, cores: u64) -> World {
    let mut world = World::new(queues, vec![node("a", cores, 1)]);
    world.core.set_holding(true);
    world
}

/// Runs jobs `from..from + 4` of a kind for 2 ms each, so that the kind is known to be short, and leaves two of it running and `more` queued.
fn warm(world: &mut World, from: u64, more: u64, build: impl Fn(u64) -> Build) {
    for number in from..from + 6 + more {
        world.submit(&build(number), ms(0));
    }
    for number in [from, from + 2] {
        assert_eq!(world.run(ms(0)), [number, number + 1]);
        world.done(number, ms(2));
        world.done(number + 1, ms(2));
    }
}

fn is_ahead(world: &World, number: u64) -> bool {
    let view = world.core.view(id(number)).unwrap();
    matches!(&view.lifecycle.state, JobState::Starting { placement } if placement.is_ahead())
}

fn not_begun(world: &mut World, runs: Vec<RunId>, now: Timestamp) {
    for run in runs {
        world.core.handle(run.job, Event::NotBegun { attempt: run.attempt, at: now, retry_at: now }, now).unwrap();
        world.core.check_invariants().unwrap();
    }
}

fn small() -> World {
    holding(vec![queue("q", 0)], 2)
}

#[test]
fn short_jobs_are_lined_up_in_their_order_behind_those_that_run() {
    let mut world = small();
    warm(&mut world, 1, 10, job);
    assert_eq!(world.plan(ms(2)), (5..=16).collect::<Vec<_>>());
    assert!(!is_ahead(&world, 6) && (7..=16).all(|number| is_ahead(&world, number)));
    let node = world.core.nodes().next().unwrap();
    assert_eq!((node.cpu_used.0, node.tasks), (2000, 12), "no more is set aside than two may have in use");
    let Why::LinedUp { behind, wait: Some(_), .. } = world.core.explain(id(9), ms(2)).unwrap().why else { panic!() };
    assert_eq!(behind, 2);
    // An end makes room for those in line alone; what it leaves is told once nobody waits.
    for number in 5..=14 {
        world.done(number, ms(3));
    }
    assert_eq!(world.core.nodes().next().unwrap().cpu_used.0, 2000);
    world.done(15, ms(3));
    assert_eq!(world.core.nodes().next().unwrap().cpu_used.0, 1000);
    world.done(16, ms(3));
    assert_eq!(world.core.nodes().next().unwrap().cpu_used.0, 0);
}

#[test]
fn nobody_is_lined_up_who_is_not_known_to_be_short() {
    let mut world = small();
    for number in 1..9 {
        world.submit(&job(number), ms(0));
    }
    let mut now = 0;
    for first in [1, 3, 5] {
        assert_eq!(world.run(ms(now)), [first, first + 1]);
        now += 60;
        world.done(first, ms(now));
        world.done(first + 1, ms(now));
    }
    assert_eq!(world.run(ms(now)), [7, 8]);
    // Where orders are not held, nobody is.
    let mut world = small();
    warm(&mut world, 1, 3, job);
    world.core.set_holding(false);
    assert_eq!(world.plan(ms(2)), [5, 6]);
    assert!(world.core.view(id(5)).unwrap().lifecycle.state.placement().unwrap().line.is_none());
}

#[test]
fn so_many_are_lined_up_as_the_line_gets_through_in_a_moment() {
    let mut world = small();
    warm(&mut world, 1, 400, job);
    // 2 slots, 2 ms each: 50 behind those that run.
    assert_eq!(world.plan(ms(2)).len(), 2 + 50);
    assert_eq!(world.plan(ms(2)).len(), 0);
    world.done(5, ms(4));
    assert_eq!(world.plan(ms(4)).len(), 1);
}

#[test]
fn a_head_that_waits_for_more_is_not_passed() {
    let mut world = small();
    warm(&mut world, 1, 0, job);
    world.submit(&job(7).asks(1, 2, 0), ms(1));
    world.submit(&job(8), ms(1));
    assert_eq!(world.plan(ms(2)), [5, 6]);
    // Nor one that asks for a GPU, or for several tasks.
    for head in [job(7).asks(1, 1, 1), job(7).asks(2, 1, 0)] {
        let mut world = small();
        warm(&mut world, 1, 0, job);
        world.submit(&head, ms(1));
        world.submit(&job(8), ms(1));
        assert_eq!(world.plan(ms(2)), [5, 6]);
    }
}

#[test]
fn a_gate_holds_for_those_in_line() {
    let mut world = holding(vec![QueueConfig { max_concurrent: Some(5), ..queue("q", 0) }], 2);
    warm(&mut world, 1, 10, job);
    assert_eq!(world.plan(ms(2)), (5..=9).collect::<Vec<_>>());
    world.done(5, ms(3));
    assert_eq!(world.plan(ms(3)), [10]);
}

#[test]
fn who_ranks_above_takes_back_who_has_not_begun() {
    let mut world = small();
    warm(&mut world, 1, 10, job);
    world.plan(ms(2));
    world.submit(&job(50).priority(1), ms(3));
    assert!(world.plan(ms(3)).contains(&50), "short itself, and lined up behind those that the executor may still begin");
    let mut asked: Vec<_> = world.core.take_withdrawn();
    asked.sort();
    assert_eq!(asked.iter().map(|run| run.job).collect::<Vec<_>>(), (7..=16).map(id).collect::<Vec<_>>());
    assert_eq!(world.core.take_withdrawn(), [], "asked once");
    not_begun(&mut world, asked, ms(4));
    assert_eq!(world.state(7), Some(StateKind::Queued));
    let JobState::Queued { since } = world.core.view(id(7)).unwrap().lifecycle.state else { panic!() };
    assert_eq!(since, ms(0), "as if it had not been placed");
    assert_eq!(world.plan(ms(4)), (7..=16).collect::<Vec<_>>());
}

#[test]
fn a_larger_one_that_ranks_above_gets_its_room() {
    let mut world = small();
    warm(&mut world, 1, 10, job);
    world.plan(ms(2));
    world.submit(&job(50).asks(1, 2, 0).priority(1), ms(3));
    assert_eq!(world.plan(ms(3)), [0; 0]);
    let asked = world.core.take_withdrawn();
    assert_eq!(asked.len(), 10);
    let withdrawing = |world: &World| world.core.withdrawing().collect::<BTreeSet<_>>();
    assert_eq!(withdrawing(&world), asked.iter().copied().collect(), "until it is known of each whether it has begun");
    // One had begun meanwhile.
    let (begun, rest): (Vec<_>, Vec<_>) = asked.into_iter().partition(|run| run.job == id(7));
    assert_eq!(begun.len(), 1);
    world.started(7, ms(4));
    assert_eq!(withdrawing(&world), rest.iter().copied().collect());
    not_begun(&mut world, rest, ms(4));
    assert_eq!(withdrawing(&world), BTreeSet::new());
    assert_eq!(world.plan(ms(4)), [0; 0], "nobody is lined up past the head");
    for number in [5, 6, 7] {
        world.done(number, ms(5));
    }
    assert_eq!(world.plan(ms(5))[0], 50);
    assert!(!is_ahead(&world, 50) && is_ahead(&world, 8), "the others wait behind it");
}

#[test]
fn a_line_that_stands_still_is_taken_back_and_its_kind_has_to_show_anew_that_it_is_short() {
    let mut world = small();
    warm(&mut world, 1, 10, job);
    world.plan(ms(2));
    assert_eq!(world.core.next_wakeup(), Some(ms(202)));
    world.plan(ms(201));
    assert_eq!(world.core.take_withdrawn(), []);
    world.plan(ms(202));
    let asked = world.core.take_withdrawn();
    assert_eq!((asked.len(), world.core.next_wakeup()), (10, None));
    not_begun(&mut world, asked, ms(203));
    assert_eq!(world.plan(ms(203)), [0; 0]);
    world.done(5, ms(300));
    assert_eq!(world.plan(ms(300)), [7], "room, and nobody ahead of it");
}

#[test]
fn a_node_that_takes_no_tasks_keeps_nobody_waiting() {
    let mut world = small();
    warm(&mut world, 1, 10, job);
    world.plan(ms(2));
    world.core.set_node_state(&"a".into(), NodeState::Draining, ms(3)).unwrap();
    assert_eq!(world.plan(ms(3)), [0; 0]);
    let asked = world.core.take_withdrawn();
    assert_eq!(asked.len(), 10);
    not_begun(&mut world, asked, ms(4));
    assert_eq!(world.plan(ms(4)), [0; 0]);
}

#[test]
fn whoever_has_not_begun_gives_way_before_a_run_is_ended() {
    let low = QueueConfig { preemptible: true, ..queue("low", 0) };
    let config = Config {
        preemption: Preemption { across_queues: true, ..Preemption::default() },
        ..common::config(vec![low, queue("high", 100)], vec![node("a", 3, 0)])
    };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    world.core.set_holding(true);
    let long = job(90).queue("low").asks(1, 1, 0).limit(1000);
    world.submit(&long, ms(0));
    world.run(ms(0));
    warm(&mut world, 1, 10, |number| job(number).queue("low"));
    assert_eq!(world.plan(ms(2)).len(), 12);
    world.submit(&job(91).queue("high").asks(1, 3, 0), ms(3));
    assert_eq!(world.plan(ms(3)), [0; 0], "nobody's run is ended while others wait in line");
    let asked = world.core.take_withdrawn();
    assert_eq!(asked.len(), 10);
    not_begun(&mut world, asked, ms(4));
    let ended = world.plan(ms(4));
    assert_eq!(ended.len(), 3, "now those that run give way: {ended:?}");
}

#[test]
fn time_in_line_is_no_use() {
    let fair = QueueConfig { fair_share: Some(FairShare::equal(Span::from_secs(3600))), ..queue("q", 0) };
    let mut world = holding(vec![fair], 2);
    warm(&mut world, 1, 10, job);
    world.plan(ms(2));
    let used = |world: &World, now| world.core.usage_snapshot(now).first().map_or(0, |record| record.cpu_milli_seconds);
    let before = used(&world, ms(2));
    for number in 5..=6 {
        world.started(number, ms(2));
    }
    for number in 7..=16 {
        world.core.handle(id(number), Event::Started { attempt: world.attempt(number), at: ms(1002) }, ms(1002)).unwrap();
        world.ended(number, RunResult::Succeeded, ms(1002));
    }
    let used = used(&world, ms(1002)) - before;
    assert!((1990..=2010).contains(&used), "two cores for a second, and not twelve: {used}");
}

/// Of tenants that share fairly the one whose turn it is takes nobody else's place, however old its jobs are; among its own jobs priority
/// decides, as ever.
#[test]
fn tenants_that_take_turns_do_not_take_each_other_out_of_line() {
    let fair = QueueConfig { fair_share: Some(FairShare::equal(Span::from_secs(3600))), ..queue("q", 0) };
    let mut world = holding(vec![fair], 2);
    for number in 0..100 {
        world.submit(&job(number).namespace("a"), ms(0));
        world.submit(&job(100 + number).namespace("b"), ms(0));
    }
    let (mut placed, mut lined_up) = (VecDeque::new(), 0);
    // Two begin and end; what is taken back meanwhile.
    let mut round = |world: &mut World, number: i64| {
        let now = ms(2 * number);
        let made = world.plan(now);
        lined_up += made.iter().filter(|number| is_ahead(world, **number)).count();
        placed.extend(made);
        let asked = world.core.take_withdrawn();
        for next in placed.drain(..2) {
            world.started(next, now);
            world.done(next, ms(2 * number + 2));
        }
        asked
    };
    for number in 0..60 {
        assert_eq!(round(&mut world, number), [], "in round {number}");
    }
    world.submit(&job(500).namespace("a").priority(1), ms(120));
    let asked = (60..65).map(|number| round(&mut world, number)).find(|asked| !asked.is_empty()).unwrap();
    let owner = |run: &RunId| world.core.view(run.job).unwrap().shape.namespace.clone();
    assert!(asked.iter().all(|run| owner(run) == "a".into()), "{asked:?}");
    assert!(lined_up > 100, "{lined_up}");
}

#[test]
fn memory_is_counted_apart() {
    let mut world = small();
    let asks = |number, memory| {
        let mut build = job(number);
        build.tasks[0].request.memory.0 = memory;
        build
    };
    warm(&mut world, 1, 10, |number| asks(number, GIB / 2));
    world.plan(ms(2));
    let node = world.core.nodes().next().unwrap();
    assert_eq!((node.cpu_used.0, node.memory_used.0), (2000, GIB));
}

/// A run handed back says nothing of how well the next would go: only tries that were lost lengthen the pause.
#[test]
fn being_handed_back_does_not_lengthen_the_pause_after_a_loss() {
    let mut world = small();
    world.submit(&job(1), ms(0));
    for _ in 0..20 {
        assert_eq!(world.plan(ms(0)), [1]);
        let run = RunId { job: id(1), attempt: world.core.view(id(1)).unwrap().lifecycle.attempt };
        not_begun(&mut world, vec![run], ms(0));
    }
    let mut pauses = Vec::new();
    let mut now = ms(0);
    for _ in 0..3 {
        assert_eq!(world.plan(now), [1]);
        let run = RunId { job: id(1), attempt: world.core.view(id(1)).unwrap().lifecycle.attempt };
        let retry_at = world.core.retry_at(run, now);
        pauses.push(retry_at.since(now).0 / 1_000_000);
        let result = RunResult::Lost { message: "its runner was killed".into() };
        world.core.handle(run.job, Event::Ended { attempt: run.attempt, result, at: now, retry_at }, now).unwrap();
        now = retry_at;
        world.core.tick(now, 10);
    }
    // A second, two, four, each with a jitter of up to the same length.
    assert!((1..2).contains(&pauses[0]) && (2..4).contains(&pauses[1]) && (4..8).contains(&pauses[2]), "{pauses:?}");
}
