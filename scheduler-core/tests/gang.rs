//! Gangs: all tasks start together or none does; where fewer will do, as many as there is room for.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, at, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::Refused;

const NONE: [u64; 0] = [];

fn cluster() -> World {
    World::new(vec![queue("q", 0)], vec![node("a", 4, 2), node("b", 4, 2)])
}

#[test]
fn a_gang_that_may_be_smaller_takes_what_there_is() {
    let mut world = cluster();
    world.submit(&job(1).asks(1, 2, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(4, 2, 0).least(2), at(1));
    assert_eq!(world.run(at(1)), [2]);
    assert_eq!(world.places(2), ["0.0@a[]", "0.1@b[]", "0.2@b[]"], "three of four");
    world.done(1, at(2));
    assert_eq!(world.places(2).len(), 3, "a run does not grow");
    world.submit(&job(3).asks(3, 2, 0).least(2), at(3));
    assert_eq!(world.plan(at(3)), NONE, "one is less than two");
    world.done(2, at(4));
    assert_eq!(world.run(at(4)), [3]);
    assert_eq!(world.places(3).len(), 3);
    world.done(3, at(5));
    assert!(world.core.nodes().all(|node| node.cpu_used.0 == 0), "what was taken was given back, and no more");
}

#[test]
fn groups_fill_up_in_their_order() {
    let mut world = cluster();
    let mixed = job(1).asks(2, 1, 0).task("worker", 3, 1, 2).least(3);
    world.submit(&mixed, at(0));
    assert_eq!(world.run(at(0)), [1]);
    assert_eq!(world.places(1), ["0.0@a[]", "0.1@a[]", "1.0@a[a-gpu0,a-gpu1]", "1.1@b[b-gpu0,b-gpu1]"]);
}

#[test]
fn what_could_never_start_is_refused_with_what_could() {
    let world = cluster();
    let refused = |job: &common::Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    assert_eq!(refused(&job(1).asks(3, 1, 0).least(4)), Refused::MinAvailable { got: 4, tasks: 3 });
    assert_eq!(refused(&job(1).asks(8, 3, 0).least(3)), Refused::NoFit { task: "main".into(), asked: 8, possible: 2 });
    world.core.admit(&job(1).asks(8, 3, 0).least(2).shape(), &job(1).policy).unwrap();
}

#[test]
fn a_gang_that_may_be_smaller_waits_for_its_least_and_no_longer() {
    let mut world = cluster();
    world.submit(&job(1).asks(1, 4, 0).limit(100), at(0));
    world.submit(&job(2).asks(1, 4, 0).limit(500), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(2, 4, 0).least(1), at(1));
    let why = world.core.explain(id(3), at(1)).unwrap().why;
    let scheduler_core::Why::Resources { expected: Some(expected), .. } = why else { panic!() };
    assert_eq!(expected, at(110));
    world.done(1, at(110));
    assert_eq!(world.run(at(110)), [3]);
    assert_eq!(world.places(3).len(), 1);
}

#[test]
fn a_stored_shape_without_a_least_reads_as_before() {
    let text = r#"{"namespace":"n","queue":"q","tasks":[{"name":"main","replicas":2,"request":{"cpu":1,"memory":0,"gpus":0}}]}"#;
    let shape: scheduler_core::job::Shape = serde_json::from_str(text).unwrap();
    assert_eq!((shape.min_available, shape.least_tasks(), shape.task_count()), (0, 2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Of what starts there are never fewer tasks than asked, never more, the first replicas of each group; books are audited.
    #[test]
    fn gangs_start_whole_enough(
        jobs in prop::collection::vec((1..6_u32, 0..4_u64, 0..3_u32, 0..6_u32, prop::bool::ANY), 1..40),
        ends in prop::collection::vec(0..100_usize, 1..40),
    ) {
        let mut world = cluster();
        let mut number = 0;
        for (replicas, cores, gpus, least, two) in jobs {
            let mut build = job(number).asks(replicas, cores, gpus).least(least);
            if two {
                build = build.task("second", 2, 1, 1);
            }
            number += u64::from(world.core.submit(build.build(at(0)), at(0)).is_ok());
        }
        for end in ends {
            for started in world.plan(at(0)) {
                let view = world.core.view(id(started)).unwrap();
                let slots = &view.lifecycle.state.placement().unwrap().slots;
                let count = slots.len() as u64;
                prop_assert!((view.shape.least_tasks()..=view.shape.task_count()).contains(&count));
                for (index, slot) in slots.iter().enumerate() {
                    let before = slots[..index].iter().filter(|other| other.group == slot.group).count();
                    prop_assert_eq!(slot.replica as usize, before);
                }
            }
            let active: Vec<u64> = world.core.active().map(|(job, _)| job.0.as_u128() as u64 & 0xffff).collect();
            if !active.is_empty() {
                world.done(active[end % active.len()], at(0));
            }
        }
    }
}
