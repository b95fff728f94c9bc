//! Nodes that come, change, are taken out of service and get lost, one case after the other; random histories are in `fleet_history`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, at, id, job, node, queue};
use scheduler_core::event::{Effect, Event, RunResult};
use scheduler_core::ids::RunId;
use scheduler_core::job::{Constraints, Selector};
use scheduler_core::state::{FailReason, JobState, Outcome, StateKind};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{ChangeError, ConfigError, Hole, LostRuns, NodeConfig, NodeState, NodeUse, Refused, Why};

const NONE: [u64; 0] = [];

fn world() -> World {
    World::new(vec![queue("q", 0)], vec![node("a", 4, 2), node("b", 4, 2)])
}

fn set_state(world: &mut World, name: &str, state: NodeState, now: Timestamp) -> LostRuns {
    let lost = world.core.set_node_state(&name.into(), state, now).unwrap();
    world.core.check_invariants().unwrap();
    lost
}

fn set_node(world: &mut World, config: NodeConfig) {
    world.core.set_node(config).unwrap();
    world.core.check_invariants().unwrap();
}

fn shown<'a>(world: &'a World, name: &str) -> Option<NodeUse<'a>> {
    world.core.nodes().find(|node| node.name.as_str() == name)
}

#[test]
fn a_cordoned_node_takes_nobody_and_keeps_whom_it_has() {
    for state in [NodeState::Cordoned, NodeState::Draining] {
        let mut world = world();
        world.submit(&job(1).asks(1, 1, 1), at(0));
        assert_eq!(world.run(at(0)), [1]);
        assert_eq!(set_state(&mut world, "a", state, at(1)), LostRuns::default());
        assert_eq!(set_state(&mut world, "b", state, at(1)), LostRuns::default());
        // Not even who asks for nothing.
        world.submit(&job(2).asks(1, 0, 0), at(1));
        world.submit(&job(3), at(1));
        assert_eq!(world.plan(at(1)), NONE);
        let a = shown(&world, "a").unwrap();
        assert_eq!((a.state, a.tasks, a.is_drained()), (state, 1, false));
        assert!(shown(&world, "b").unwrap().is_drained());
        world.done(1, at(2));
        assert!(shown(&world, "a").unwrap().is_drained());
        assert_eq!(world.plan(at(2)), NONE);
        set_state(&mut world, "a", NodeState::Ready, at(3));
        assert_eq!(world.plan(at(3)), [2, 3]);
        assert!(!shown(&world, "a").unwrap().is_drained());
    }
}

#[test]
fn who_waits_for_a_cordoned_node_keeps_nobody_waiting() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("a", 4, 0), node("large", 8, 0)]);
    set_state(&mut world, "large", NodeState::Cordoned, at(0));
    world.submit(&job(1).asks(1, 8, 0), at(0));
    world.submit(&job(2), at(0));
    assert_eq!(world.run(at(0)), [2], "job 1 is still accepted, and reserves nothing");
    assert!(matches!(world.core.explain(id(1), at(0)).map(|found| found.why), Some(Why::NodesClosed { .. })));
    set_state(&mut world, "large", NodeState::Ready, at(1));
    assert_eq!(world.run(at(1)), [1]);
}

#[test]
fn what_ran_on_a_lost_node_is_tried_elsewhere() {
    let mut world = world();
    world.submit(&job(1).asks(1, 4, 1), at(0));
    world.submit(&job(2).asks(1, 4, 1).attempts(1), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    let lost = set_state(&mut world, "a", NodeState::Lost, at(10));
    let [ended] = &lost.ended[..] else { panic!("{lost:?}") };
    assert_eq!((ended.job, lost.elsewhere.len()), (id(1), 0));
    assert!(
        matches!(&ended.event, Event::Ended { result: RunResult::Lost { message }, .. } if message.as_str() == "node a was lost")
    );
    assert!(matches!(ended.effects[..], [Effect::Forget { .. }]));
    let JobState::Waiting { .. } = ended.to.state else { panic!("{:?}", ended.to) };
    let retry = world.core.next_wakeup().unwrap();
    assert!(retry > at(10));
    world.core.tick(retry, 10);
    assert_eq!(world.plan(retry), NONE, "node b is full, node a is lost");
    let lost = set_state(&mut world, "b", NodeState::Lost, retry);
    let reason = FailReason::Infrastructure { message: "node b was lost".into() };
    let failed = JobState::Finished { outcome: Box::new(Outcome::Failed { reason }), at: retry };
    assert_eq!(lost.ended[0].to.state, failed, "it had one try");
    set_state(&mut world, "a", NodeState::Ready, retry + Span::from_secs(1));
    assert_eq!(world.run(retry + Span::from_secs(1)), [1]);
    assert_eq!(world.attempt(1).0, 2);
}

#[test]
fn a_late_report_from_a_lost_node_changes_nothing() {
    let mut world = world();
    world.submit(&job(1).asks(1, 4, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let attempt = world.attempt(1);
    set_state(&mut world, "a", NodeState::Lost, at(1));
    let event = Event::Ended { attempt, result: RunResult::Succeeded, at: at(1), retry_at: at(1) };
    assert!(world.core.handle(id(1), event.clone(), at(2)).is_err());
    let retry = world.core.next_wakeup().unwrap();
    world.core.tick(retry, 10);
    assert_eq!(world.run(retry), [1]);
    assert!(world.core.handle(id(1), event, retry).is_err(), "nor when it runs elsewhere");
    assert_eq!(world.state(1), Some(StateKind::Running));
}

#[test]
fn a_gang_that_is_lost_in_part_holds_what_it_has_until_the_rest_is_ended() {
    let mut world = world();
    world.submit(&job(1).asks(2, 4, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let lost = set_state(&mut world, "a", NodeState::Lost, at(1));
    assert_eq!((lost.ended.len(), &lost.elsewhere[..]), (0, &[RunId { job: id(1), attempt: world.attempt(1) }][..]));
    world.submit(&job(2).asks(1, 1, 1), at(1));
    assert_eq!(world.plan(at(1)), NONE, "its task on node b still has the GPUs");
    world.ended(1, RunResult::Lost { message: "node a".into() }, at(2));
    assert_eq!(world.run(at(2)), [2]);
    let lost = set_state(&mut world, "b", NodeState::Lost, at(3));
    assert_eq!(lost.ended.len(), 1);
}

#[test]
fn a_gang_whose_nodes_are_all_lost_ends_with_the_last_of_them() {
    let mut world = world();
    world.submit(&job(1).asks(2, 4, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    assert_eq!(set_state(&mut world, "a", NodeState::Lost, at(1)).ended.len(), 0);
    let lost = set_state(&mut world, "b", NodeState::Lost, at(2));
    assert_eq!((lost.ended.len(), lost.elsewhere.len()), (1, 0));
    assert_eq!(set_state(&mut world, "b", NodeState::Lost, at(3)), LostRuns::default(), "once is enough");
}

#[test]
fn a_run_that_was_being_cancelled_is_cancelled_when_its_node_is_lost() {
    let mut world = world();
    world.submit(&job(1).asks(1, 4, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.handle(1, Event::Cancel { by: "u".into() }, at(1));
    let lost = set_state(&mut world, "a", NodeState::Lost, at(2));
    let JobState::Finished { outcome, .. } = &lost.ended[0].to.state else { panic!() };
    assert_eq!(**outcome, Outcome::Cancelled { by: "u".into() });
}

#[test]
fn a_node_that_grows_is_used_at_once_and_one_that_comes_too() {
    let mut world = world();
    world.submit(&job(1).asks(1, 4, 2), at(0));
    world.submit(&job(2).asks(1, 4, 2), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(1, 4, 2), at(1));
    world.submit(&job(4).asks(1, 3, 1), at(1));
    assert_eq!(world.plan(at(1)), NONE);
    set_node(&mut world, node("a", 8, 4));
    assert_eq!(world.run(at(1)), [3]);
    assert_eq!(world.places(3), ["0.0@a[a-gpu2,a-gpu3]"]);
    set_node(&mut world, node("c", 4, 1));
    assert_eq!(world.run(at(2)), [4]);
    assert_eq!(world.places(4), ["0.0@c[c-gpu0]"]);
    assert_eq!(world.core.nodes().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let shape = job(5).asks(1, 1, 4).shape();
    world.core.admit(&shape, &job(5).policy).unwrap();
    set_node(&mut world, node("a", 8, 2));
    assert!(matches!(world.core.admit(&shape, &job(5).policy), Err(Refused::TaskTooLarge { largest: 2000, .. })));
}

#[test]
fn a_node_that_shrinks_offers_nothing_until_it_is_within_its_means() {
    let mut world = world();
    set_state(&mut world, "b", NodeState::Cordoned, at(0));
    for number in 1..=4 {
        world.submit(&job(number), at(0));
    }
    assert_eq!(world.run(at(0)), [1, 2, 3, 4]);
    set_node(&mut world, node("a", 2, 2));
    world.submit(&job(5), at(1));
    for (number, expected) in [(1, &NONE[..]), (2, &NONE), (3, &[5])] {
        assert_eq!(world.plan(at(1)), NONE);
        world.done(number, at(2));
        assert_eq!(world.plan(at(2)), expected);
    }
}

#[test]
fn a_gpu_that_is_taken_away_is_held_until_its_run_ends_and_never_given_again() {
    let mut world = world();
    world.submit(&job(1).asks(1, 1, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let mut less = node("a", 4, 2);
    less.gpus.remove(0);
    set_node(&mut world, less);
    let a = shown(&world, "a").unwrap();
    let seen: Vec<_> = a.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.configured, gpu.job.is_some())).collect();
    assert_eq!(seen, [("a-gpu1", true, true), ("a-gpu0", false, true)]);
    world.submit(&job(2).asks(1, 1, 2), at(1));
    world.submit(&job(3).asks(1, 1, 2), at(1));
    assert_eq!(world.run(at(1)), [2], "on node b");
    world.done(1, at(2));
    assert_eq!(world.plan(at(2)), NONE);
    assert_eq!(shown(&world, "a").unwrap().gpus.len(), 1, "and is forgotten then");
    set_node(&mut world, node("a", 4, 2));
    assert_eq!(world.plan(at(2)), [3]);
}

#[test]
fn a_gpu_that_moves_keeps_its_run() {
    let mut world = world();
    world.submit(&job(1).asks(1, 1, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let mut with = node("b", 4, 2);
    with.gpus.push(node("a", 4, 2).gpus.remove(0));
    let taken = world.core.set_node(with.clone()).unwrap_err();
    assert_eq!(taken, ChangeError::Invalid(ConfigError::DuplicateGpu { uuid: "a-gpu0".into(), node: "b".into() }));
    let mut without = node("a", 4, 2);
    without.gpus.remove(0);
    set_node(&mut world, without);
    set_node(&mut world, with);
    world.submit(&job(2).asks(1, 1, 3), at(1));
    assert_eq!(world.plan(at(1)), NONE, "job 1 has it still");
    world.done(1, at(2));
    assert_eq!(world.run(at(2)), [2]);
    assert_eq!(world.places(2), ["0.0@b[b-gpu0,b-gpu1,a-gpu0]"]);
    let mut twice = node("c", 1, 1);
    twice.gpus.push(twice.gpus[0].clone());
    assert!(world.core.set_node(twice).is_err());
}

#[test]
fn a_node_that_is_removed_is_shown_until_its_last_run_ends() {
    let mut world = world();
    world.submit(&job(1).asks(1, 4, 2), at(0));
    world.submit(&job(2).asks(1, 4, 2), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.core.remove_node(&"a".into()).unwrap();
    world.core.check_invariants().unwrap();
    assert_eq!(world.core.remove_node(&"a".into()), Err(ChangeError::Unknown { name: "a".into() }));
    assert!(world.core.set_node_state(&"a".into(), NodeState::Lost, at(0)).is_err());
    let a = shown(&world, "a").unwrap();
    assert_eq!((a.configured, a.cpu.0, a.cpu_used.0, a.tasks), (false, 0, 4000, 1));
    assert!(matches!(world.core.admit(&job(3).asks(2, 4, 2).shape(), &job(3).policy), Err(Refused::JobTooLarge { .. })));
    world.submit(&job(3).asks(1, 1, 0), at(1));
    world.done(1, at(2));
    assert!(shown(&world, "a").is_none());
    assert_eq!(world.plan(at(2)), NONE, "node b is full");
    set_node(&mut world, node("d", 1, 0));
    assert_eq!(world.run(at(2)), [3]);
    assert_eq!(world.core.nodes().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["d", "b"], "in the place that was free");
    world.core.remove_node(&"d".into()).unwrap();
    set_node(&mut world, node("d", 2, 1));
    assert_eq!(shown(&world, "d").unwrap().tasks, 1, "back while its run was there");
    world.submit(&job(4).asks(1, 1, 1), at(3));
    assert_eq!(world.run(at(3)), [4]);
}

#[test]
fn labels_can_change_while_jobs_wait_for_them() {
    let mut world = world();
    let zone = |zone: &str| Selector::In { label: "zone".into(), values: vec![zone.into()] };
    let wants = |name: &str| Constraints { nodes: vec![zone(name)], ..Constraints::NONE };
    let with = |zone: &str| NodeConfig { labels: [("zone".into(), zone.into())].into(), ..node("a", 4, 2) };
    set_node(&mut world, with("x"));
    world.submit(&job(1).wants(&wants("x")), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 4, 0).wants(&wants("x")), at(0));
    world.submit(&job(3).wants(&wants("x")), at(0));
    assert_eq!(world.plan(at(0)), NONE);
    set_node(&mut world, with("y"));
    assert_eq!(world.plan(at(1)), NONE);
    assert!(matches!(world.core.admit(&job(9).wants(&wants("x")).shape(), &job(9).policy), Err(Refused::NoNode { .. })));
    world.submit(&job(4).wants(&wants("y")), at(1));
    assert_eq!(world.run(at(1)), [4], "those that wait for a label that is gone are in nobody's way");
    set_node(&mut world, NodeConfig { labels: [("zone".into(), "x".into())].into(), ..node("b", 4, 0) });
    assert_eq!(world.run(at(2)), [2]);
}

#[test]
fn fragmentation_says_what_jobs_of_a_size_can_use() {
    let nodes = vec![node("a", 64, 8), node("b", 64, 8), node("c", 64, 8), node("d", 4, 0)];
    let mut world = World::new(vec![queue("q", 0)], nodes);
    world.submit(&job(1).asks(1, 1, 3), at(0));
    world.submit(&job(2).asks(1, 1, 6), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    let found = world.core.fragmentation();
    let hole = |gpus, usable| Hole { gpus, usable };
    assert_eq!((found.free, found.closed), (15, 0), "5, 2 and 8");
    assert_eq!(found.largest.map(|(gpus, name)| (gpus, name.as_str())), Some((8, "c")));
    assert_eq!(found.holes, [hole(1, 15), hole(2, 14), hole(4, 12), hole(8, 8)]);
    assert_eq!((found.unusable(8), found.unusable(1), found.unusable(3)), (Some(7.0 / 15.0), Some(0.0), None));
    set_state(&mut world, "c", NodeState::Cordoned, at(0));
    let found = world.core.fragmentation();
    assert_eq!((found.free, found.closed, found.unusable(8)), (7, 8, Some(1.0)));
    for name in ["a", "b"] {
        set_state(&mut world, name, NodeState::Cordoned, at(0));
    }
    assert_eq!((world.core.fragmentation().unusable(8), world.core.fragmentation().largest), (Some(0.0), None));
}

#[test]
fn a_gpu_that_is_set_aside_is_nobodys_until_it_is_let() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("a", 8, 2)]);
    let aside = |world: &mut World, uuid: &str, why: Option<&str>| {
        world.core.set_gpu_aside(&uuid.into(), why.map(Into::into)).unwrap();
        world.core.check_invariants().unwrap();
    };
    let uuids: Vec<String> = shown(&world, "a").unwrap().gpus.iter().map(|gpu| gpu.uuid.to_string()).collect();
    world.submit(&job(1).asks(1, 1, 1), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let held = shown(&world, "a").unwrap().gpus.iter().position(|gpu| gpu.job.is_some()).unwrap();
    let (held, free) = (&uuids[held], &uuids[1 - held]);
    aside(&mut world, free, Some("somebody else uses it"));
    world.submit(&job(2).asks(1, 1, 1), at(1));
    world.submit(&job(3).asks(1, 1, 2), at(1));
    assert_eq!(world.plan(at(1)), NONE);
    let Some(Why::GpusAside { gpus, more: 0 }) = world.core.explain(id(3), at(1)).map(|found| found.why) else {
        panic!("not why")
    };
    let named: Vec<_> = gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.node.as_str(), gpu.why.as_str())).collect();
    assert_eq!(named, [(free.as_str(), "a", "somebody else uses it")]);
    // Whoever has one keeps it, and it does not come back when he ends.
    aside(&mut world, held, Some("sick"));
    world.done(1, at(2));
    world.core.check_invariants().unwrap();
    assert_eq!(world.plan(at(2)), NONE);
    assert_eq!(world.core.fragmentation().free, 0);
    aside(&mut world, held, None);
    assert_eq!(world.run(at(3)), [2]);
    aside(&mut world, free, None);
    world.done(2, at(4));
    assert_eq!(world.run(at(4)), [3]);
    assert!(world.core.set_gpu_aside(&"none".into(), None).is_err());
}
