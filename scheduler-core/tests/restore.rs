//! A core rebuilt from stored jobs goes on where the old one was, also where the machines have changed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Build, World, at, id, job, node, queue};
use scheduler_core::RestoreError;
use scheduler_core::ids::Attempt;
use scheduler_core::state::{JobState, Lifecycle, Outcome, Placement, Slot, StateKind};

fn running(build: &Build, node: &str, gpus: &[&str]) -> Lifecycle {
    let slots = build.tasks.iter().enumerate().flat_map(|(group, task)| {
        (0..task.replicas).map(move |replica| Slot {
            group: u16::try_from(group).unwrap(),
            replica,
            node: node.into(),
            gpus: gpus.iter().map(|&gpu| gpu.into()).collect(),
            share: None,
        })
    });
    let placement = std::sync::Arc::new(Placement::new(slots.collect()));
    Lifecycle { state: JobState::Running { placement, since: at(0) }, attempt: Attempt(1), lost: 0 }
}

fn restore(world: &mut World, build: &Build, lifecycle: Lifecycle) -> Result<(), RestoreError> {
    let answer = world.core.restore(build.live(lifecycle), at(10));
    world.core.check_invariants().unwrap();
    answer
}

#[test]
fn a_rebuilt_core_decides_as_the_old_one() {
    let mut old = World::small(8, 2);
    old.submit(&job(1).asks(1, 4, 1).limit(50), at(0));
    old.submit(&job(2).asks(1, 4, 0), at(0));
    assert_eq!(old.run(at(0)), [1, 2]);
    old.submit(&job(3).held(), at(1));
    old.submit(&job(4).after(at(30)), at(1));
    old.submit(&job(5).asks(1, 8, 0), at(2));
    old.submit(&job(6).priority(3), at(3));
    let mut new = World::small(8, 2);
    for build in [
        job(5).asks(1, 8, 0),
        job(1).asks(1, 4, 1).limit(50),
        job(4).after(at(30)),
        job(2).asks(1, 4, 0),
        job(6).priority(3),
        job(3).held(),
    ] {
        let lifecycle = old.core.view(id(build.number)).unwrap().lifecycle.clone();
        restore(&mut new, &build, lifecycle).unwrap();
    }
    assert_eq!(new.core.counts(), old.core.counts());
    assert_eq!(new.core.next_wakeup(), old.core.next_wakeup());
    for world in [&mut old, &mut new] {
        world.done(2, at(20));
    }
    assert_eq!(new.plan(at(20)), old.plan(at(20)));
    for now in [at(35), at(60)] {
        assert_eq!(new.core.tick(now, 10), old.core.tick(now, 10));
        assert_eq!(new.core.plan(now, 10), old.core.plan(now, 10));
    }
}

#[test]
fn a_smaller_node_offers_nothing_until_it_is_within_its_means() {
    let mut world = World::small(4, 0);
    for number in 1..=3 {
        let build = job(number).asks(1, 2, 0);
        restore(&mut world, &build, running(&build, "a", &[])).unwrap();
    }
    world.submit(&job(9).asks(1, 1, 0), at(10));
    assert_eq!(world.plan(at(10)), [] as [u64; 0]);
    world.done(1, at(11));
    assert_eq!(world.plan(at(11)), [] as [u64; 0], "full, but no more than that");
    world.done(2, at(12));
    assert_eq!(world.plan(at(12)), [9]);
}

#[test]
fn an_unknown_node_keeps_its_jobs_and_gets_no_more() {
    let mut world = World::small(4, 1);
    let build = job(1).asks(1, 64, 1);
    restore(&mut world, &build, running(&build, "gone", &["gone-gpu0"])).unwrap();
    let gone = world.core.nodes().last().unwrap();
    assert!(!gone.configured && !gone.gpus[0].configured);
    assert_eq!((gone.cpu.0, gone.cpu_used.0, gone.gpus[0].job), (0, 64_000, Some(id(1))));
    world.submit(&job(2).asks(1, 1, 1), at(10));
    world.submit(&job(3).asks(1, 1, 1), at(10));
    assert_eq!(world.run(at(10)), [2]);
    world.done(1, at(11));
    assert_eq!(world.plan(at(11)), [] as [u64; 0], "a GPU that is not configured is nobody's");
}

#[test]
fn a_gpu_that_moved_is_not_promised_while_its_old_run_has_it() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("a", 8, 1), node("b", 8, 1)]);
    let build = job(1).asks(1, 1, 1);
    restore(&mut world, &build, running(&build, "a", &["b-gpu0"])).unwrap();
    world.submit(&job(2).asks(1, 1, 1), at(10));
    world.submit(&job(3).asks(1, 1, 1), at(10));
    assert_eq!(world.run(at(10)), [2]);
    assert_eq!(world.places(2), ["0.0@a[a-gpu0]"]);
    world.done(1, at(11));
    assert_eq!(world.run(at(11)), [3]);
    assert_eq!(world.places(3), ["0.0@b[b-gpu0]"]);
}

#[test]
fn a_queue_that_is_gone_keeps_its_jobs_and_accepts_no_more() {
    let mut world = World::small(4, 0);
    restore(&mut world, &job(1).queue("gone").priority(5), common::queued(at(0))).unwrap();
    assert!(world.core.admit(&job(2).queue("gone").shape(), &job(2).policy).is_err());
    world.submit(&job(3), at(10));
    assert_eq!(world.plan(at(10)), [1, 3]);
    assert!(world.core.queues().any(|queue| queue.name.as_str() == "gone" && !queue.configured));
}

#[test]
fn a_damaged_table_is_named() {
    let mut world = World::small(4, 2);
    let build = job(1).asks(1, 1, 1);
    restore(&mut world, &build, running(&build, "a", &["a-gpu0"])).unwrap();
    let again = restore(&mut world, &build, common::queued(at(0)));
    assert_eq!(again, Err(RestoreError::Duplicate { job: id(1) }));
    let thief = job(2).asks(1, 1, 1);
    let taken = restore(&mut world, &thief, running(&thief, "a", &["a-gpu0"]));
    assert_eq!(taken, Err(RestoreError::GpuTaken { job: id(2), uuid: "a-gpu0".into(), owner: id(1) }));
    let twins = job(2).asks(2, 1, 1);
    let taken = restore(&mut world, &twins, running(&twins, "a", &["a-gpu1"]));
    assert_eq!(taken, Err(RestoreError::GpuTaken { job: id(2), uuid: "a-gpu1".into(), owner: id(2) }));
    let more = running(&job(2).asks(2, 1, 0), "a", &[]);
    assert!(matches!(restore(&mut world, &job(2), more), Err(RestoreError::Malformed { .. })));
    let state = JobState::Finished { outcome: Box::new(Outcome::Succeeded), at: at(1) };
    let finished = restore(&mut world, &job(2), Lifecycle { state, attempt: Attempt(1), lost: 0 });
    assert_eq!(finished, Err(RestoreError::Finished { job: id(2) }));
    assert_eq!(world.state(1), Some(StateKind::Running));
    assert_eq!(world.core.counts(), [0, 0, 0, 1, 0, 0], "nothing of the refused is on the books");
}
