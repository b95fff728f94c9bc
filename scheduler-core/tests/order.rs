//! Who is first: priority, due time, sequence; between queues, with ageing and without.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, aging, at, id, job, node, queue};
use scheduler_core::event::Event;
use scheduler_core::{Refused, Scheduler};

#[test]
fn equal_priorities_run_in_the_order_of_submission() {
    let mut world = World::small(64, 0);
    for number in [3, 1, 2, 40, 20, 30] {
        // All at one time, from changing namespaces and shapes: only the sequence can tell them apart.
        let namespace = if number % 2 == 0 { "even" } else { "odd" };
        world.submit(&job(number).namespace(namespace).asks(1, 1 + number % 3, 0), at(0));
    }
    assert_eq!(world.plan(at(0)), [1, 2, 3, 20, 30, 40]);
}

#[test]
fn priority_goes_before_age_and_age_before_sequence() {
    let mut world = World::small(64, 0);
    world.submit(&job(1).priority(-5), at(0));
    world.submit(&job(3), at(1));
    world.submit(&job(2), at(2));
    world.submit(&job(4).priority(7), at(3));
    assert_eq!(world.plan(at(9)), [4, 3, 2, 1]);
}

#[test]
fn a_queue_adds_its_base_priority() {
    let queues = vec![queue("batch", 100), queue("interactive", 10_000)];
    let mut world = World::new(queues, vec![node("a", 64, 0)]);
    world.submit(&job(1).queue("batch").priority(9_800), at(0));
    world.submit(&job(2).queue("interactive"), at(0));
    world.submit(&job(3).queue("batch").priority(9_900), at(0));
    world.submit(&job(4).queue("batch").priority(9_901), at(0));
    assert_eq!(world.plan(at(1)), [4, 2, 3, 1], "equal sums are FIFO, over queues too");
}

#[test]
fn waiting_is_worth_points_where_a_queue_ages() {
    let mut world = World::new(vec![aging("q", 0, 60)], vec![node("a", 64, 0)]);
    world.submit(&job(1), at(0));
    world.submit(&job(2).priority(10), at(599));
    world.submit(&job(3).priority(10), at(601));
    assert_eq!(world.plan(at(700)), [2, 1, 3], "600 s are worth 10 points");
}

#[test]
fn queues_that_age_differently_are_compared_at_the_time_of_the_pass() {
    let world = || {
        let queues = vec![aging("fast", 0, 1), queue("fixed", 100)];
        let mut world = World::new(queues, vec![node("a", 64, 0)]);
        world.submit(&job(1).queue("fast"), at(0));
        world.submit(&job(2).queue("fixed"), at(0));
        world
    };
    assert_eq!(world().plan(at(99)), [2, 1]);
    assert_eq!(world().plan(at(101)), [1, 2]);
}

#[test]
fn a_limit_ends_a_pass_and_the_next_goes_on() {
    let mut world = World::small(64, 0);
    for number in 1..=5 {
        world.submit(&job(number), at(0));
    }
    let first: Vec<u64> = world.core.plan(at(0), 2).iter().map(|made| made.seq.0).collect();
    assert_eq!(first, [1, 2]);
    assert_eq!(world.core.plan(at(0), 0), []);
    assert_eq!(world.plan(at(0)), [3, 4, 5]);
}

#[test]
fn held_and_delayed_jobs_are_not_in_the_order() {
    let mut world = World::small(64, 0);
    world.submit(&job(1).held().after(at(50)), at(0));
    world.submit(&job(2).after(at(10)), at(0));
    world.submit(&job(3), at(0));
    assert_eq!(world.core.next_wakeup(), Some(at(10)));
    assert_eq!(world.plan(at(9)), [3]);
    assert_eq!(world.core.tick(at(9), 10), []);
    let due = world.core.tick(at(12), 10);
    assert_eq!(due.len(), 1);
    assert_eq!(world.core.next_wakeup(), None);
    assert_eq!(world.plan(at(12)), [2]);
    let release = Event::Release { by: "u".into(), not_before: world.core.view(id(1)).unwrap().start_after };
    world.handle(1, release, at(20));
    assert_eq!(world.core.next_wakeup(), Some(at(50)), "a released job still waits for its time");
}

#[test]
fn a_job_is_there_once() {
    let mut world = World::small(4, 0);
    world.submit(&job(1), at(0));
    let again = world.core.submit(job(1).build(at(1)), at(1));
    assert_eq!(again, Err(Refused::Duplicate { job: id(1) }));
    assert_eq!(world.core.counts(), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn an_empty_core_has_nothing_to_do() {
    let mut core = Scheduler::new(scheduler_core::Config::default()).unwrap();
    assert_eq!(core.plan(at(0), 10), []);
    assert_eq!(core.tick(at(0), 10), []);
    assert_eq!(core.next_wakeup(), None);
    core.check_invariants().unwrap();
}
