//! A job that waits is changed: its queue, its priority, its limits; nothing else of it, and nothing once it is placed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{GRACE_S, World, at, config, id, job, node, queue};
use scheduler_core::event::{Event, Rejected};
use scheduler_core::job::Policy;
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::Span;
use scheduler_core::{QueueConfig, Scheduler};

fn world() -> World {
    let night = QueueConfig { max_concurrent: Some(1), ..queue("night", 0) };
    World { core: Scheduler::new(config(vec![queue("q", 0), night], vec![node("a", 4, 0)])).unwrap() }
}

fn update(world: &mut World, number: u64, queue: &str, change: impl FnOnce(&mut Policy)) -> Result<StateKind, Rejected> {
    let mut policy = world.core.view(id(number)).map(|view| Policy::clone(view.policy)).unwrap_or_default();
    change(&mut policy);
    let event = Event::Update { by: "u".into(), queue: queue.into(), policy: Arc::new(policy) };
    let made = world.core.handle(id(number), event, at(5))?;
    world.core.check_invariants().unwrap();
    assert_eq!(made.event.word(), "updated");
    assert!(made.effects.is_empty());
    Ok(made.to.state.kind())
}

#[test]
fn a_priority_reorders_and_the_age_stays() {
    let mut world = world();
    world.submit(&job(1).asks(1, 4, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 4, 0), at(1));
    world.submit(&job(3).asks(1, 4, 0), at(2));
    assert_eq!(update(&mut world, 3, "q", |policy| policy.priority = 7), Ok(StateKind::Queued));
    let JobState::Queued { since } = world.core.view(id(3)).unwrap().lifecycle.state else { panic!() };
    assert_eq!(since, at(2));
    world.done(1, at(6));
    assert_eq!(world.run(at(6)), [3]);
    assert_eq!(update(&mut world, 3, "q", |_| ()), Err(Rejected::NotInState { state: StateKind::Running }));
    world.done(3, at(7));
    assert_eq!(update(&mut world, 3, "q", |_| ()), Err(Rejected::Unknown));
}

#[test]
fn a_shorter_limit_lets_it_go_ahead_of_a_reservation() {
    let mut world = world();
    world.submit(&job(1).asks(1, 3, 0).limit(100 - GRACE_S), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 4, 0), at(1));
    world.submit(&job(3), at(2));
    assert_eq!(world.plan(at(3)), [0; 0], "job 3 could run on into what is kept for job 2");
    update(&mut world, 3, "q", |policy| policy.time_limit = Some(Span::from_secs(10))).unwrap();
    assert_eq!(world.plan(at(5)), [3]);
}

#[test]
fn another_queue_has_other_limits() {
    let mut world = world();
    world.submit(&job(1).queue("night"), at(0));
    world.submit(&job(2).queue("night"), at(0));
    assert_eq!(world.run(at(0)), [1], "night runs one at a time");
    assert_eq!(update(&mut world, 2, "q", |_| ()), Ok(StateKind::Queued));
    assert_eq!(world.core.view(id(2)).unwrap().shape.queue.as_str(), "q");
    assert_eq!(world.run(at(5)), [2]);
    let queued: Vec<_> = world.core.queues().map(|queue| (queue.name.to_string(), queue.active)).collect();
    assert!(queued.contains(&("q".to_owned(), 1)) && queued.contains(&("night".to_owned(), 1)), "{queued:?}");
}

#[test]
fn who_is_held_stays_held() {
    let mut world = world();
    world.submit(&job(1).held(), at(0));
    assert_eq!(update(&mut world, 1, "night", |policy| policy.priority = -3), Ok(StateKind::Waiting));
    assert_eq!(world.run(at(5)), [0; 0]);
    world.core.handle(id(1), Event::Release { by: "u".into(), not_before: None }, at(6)).unwrap();
    assert_eq!(world.run(at(6)), [1]);
}
