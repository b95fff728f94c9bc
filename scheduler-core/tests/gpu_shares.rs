//! Parts of GPUs: where they go, what they leave to others, how they are counted, refused, explained and taken over.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{GIB, World, at, config, id, job, node, queue};
use scheduler_core::amounts::{GpuShare, MemoryBytes};
use scheduler_core::event::Event;
use scheduler_core::ids::Name;
use scheduler_core::job::Constraints;
use scheduler_core::scheduler::{GpuKind, NodeState, Resource};
use scheduler_core::state::{Lifecycle, StateKind};
use scheduler_core::{
    Config, Discipline, Estimate, Limits, NoPart, Preemption, QueueConfig, Refused, RestoreError, Scheduler, Whose, Why,
};

fn two() -> World {
    World::new(vec![queue("q", 0)], vec![node("a", 64, 2), node("b", 64, 4)])
}

fn place(world: &mut World, job: &common::Build) -> Vec<String> {
    world.submit(job, at(0));
    world.run(at(0));
    world.places(job.number)
}

fn part(number: u64, millis: u32) -> common::Build {
    job(number).part(millis, 0)
}

#[test]
fn a_part_goes_where_least_is_left_and_whole_gpus_stay_whole() {
    let mut world = two();
    assert_eq!(place(&mut world, &part(1, 500)), ["0.0@a[a-gpu0]"]);
    assert_eq!(place(&mut world, &part(2, 700)), ["0.0@a[a-gpu1]"], "there is no room beside the first");
    assert_eq!(place(&mut world, &part(3, 300)), ["0.0@a[a-gpu1]"], "300 are left there, and 500 beside the first");
    assert_eq!(place(&mut world, &part(4, 300)), ["0.0@a[a-gpu0]"]);
    assert_eq!(place(&mut world, &job(5).asks(1, 1, 4)), ["0.0@b[b-gpu0,b-gpu1,b-gpu2,b-gpu3]"]);
    world.submit(&part(6, 201), at(0));
    assert_eq!(world.run(at(0)), [] as [u64; 0]);
    assert_eq!(place(&mut world, &part(7, 200)), ["0.0@a[a-gpu0]"], "it fits beside the one that waits");
    world.done(2, at(1));
    assert_eq!(world.run(at(1)), [6]);
    world.submit(&job(8).asks(1, 1, 1), at(1));
    assert_eq!(world.run(at(1)), [] as [u64; 0], "a shared GPU is nobody's alone");
    for number in [3, 6] {
        world.done(number, at(2));
    }
    assert_eq!(world.run(at(2)), [8], "it is whole again");
    assert_eq!(world.places(8), ["0.0@a[a-gpu1]"]);
}

#[test]
fn memory_is_a_sum_of_its_own() {
    let mut world = World::small(64, 1);
    assert_eq!(place(&mut world, &job(1).part(100, 60 * GIB)), ["0.0@a[a-gpu0]"]);
    world.submit(&part(2, 300), at(0));
    assert_eq!(world.run(at(0)), [] as [u64; 0], "it would take 24 GiB, and 20 are left");
    assert_eq!(place(&mut world, &job(3).part(300, 20 * GIB)), ["0.0@a[a-gpu0]"]);
    let seen = world.core.nodes().next().unwrap().gpus[0];
    assert_eq!((seen.job, seen.sharers, seen.millis_shared, seen.memory_shared.0), (None, 2, 400, 80 * GIB));
    let sharers: Vec<_> = world.core.gpu_sharers(&"a-gpu0".into()).collect();
    let of = |millis, gib| GpuShare { millis, memory: MemoryBytes(gib * GIB) };
    assert_eq!(sharers, [(id(1), of(100, 60)), (id(3), of(300, 20))]);
}

#[test]
fn tasks_of_one_job_share_too_and_spread_where_they_should() {
    let mut world = two();
    let five = job(1).asks(5, 1, 1).part(400, 0);
    assert_eq!(
        place(&mut world, &five),
        ["0.0@b[b-gpu0]", "0.1@b[b-gpu0]", "0.2@b[b-gpu1]", "0.3@b[b-gpu1]", "0.4@b[b-gpu2]"],
        "all on the node that has room for all"
    );
    let spread = job(2).asks(2, 1, 1).part(200, 0).spread();
    assert_eq!(place(&mut world, &spread), ["0.0@a[a-gpu0]", "0.1@b[b-gpu0]"]);
    let mut mixed = job(3).asks(1, 1, 1).part(100, 0).task("whole", 1, 1, 2);
    mixed.tasks[0].name = "part".into();
    world.submit(&mixed, at(0));
    assert_eq!(world.run(at(0)), [] as [u64; 0], "two whole ones on one node are nowhere");
    world.done(2, at(0));
    assert_eq!(world.run(at(0)), [3]);
    assert_eq!(world.places(3), ["0.0@b[b-gpu0]", "1.0@a[a-gpu0,a-gpu1]"]);
}

#[test]
fn a_link_group_is_broken_last() {
    let mut linked = node("a", 64, 3);
    for gpu in &mut linked.gpus[..2] {
        gpu.link_group = Some(0);
    }
    let mut world = World::new(vec![queue("q", 0)], vec![linked]);
    assert_eq!(place(&mut world, &part(1, 500)), ["0.0@a[a-gpu2]"]);
    assert_eq!(place(&mut world, &job(2).asks(1, 1, 2)), ["0.0@a[a-gpu0,a-gpu1]"]);
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let mut divided = node("m", 8, 1);
    divided.gpus[0].kind = GpuKind::Mig { profile: "1g".into() };
    let world = World::new(vec![queue("q", 0)], vec![node("a", 8, 2), divided]);
    let refused = |job: &common::Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    let bad = |detail| Refused::BadShare { task: "main".into(), detail };
    for millis in [0, 1000, 1500] {
        assert_eq!(refused(&part(1, millis)), bad("a share is 1 to 999 thousandths of a GPU"));
    }
    let mut several = part(1, 500);
    several.tasks[0].request.gpus = 2;
    assert_eq!(refused(&several), bad("a share is of one GPU"));
    let mut mig = part(1, 500);
    mig.tasks[0].constraints.mig_profile = Some("1g".into());
    assert_eq!(refused(&mig), bad("MIG instances are not shared"));
    let large = Refused::NoShareMemory { task: "main".into(), asked: MemoryBytes(81 * GIB), largest: MemoryBytes(80 * GIB) };
    assert_eq!(refused(&job(1).part(500, 81 * GIB)), large);
    assert_eq!(
        refused(&part(1, 500).wants(&Constraints { gpu_models: vec!["T4".into()], ..part(1, 500).tasks[0].constraints.clone() })),
        Refused::NoGpuModel { task: "main".into(), asked: vec!["T4".into()], there: vec!["H200".into()] }
    );
    let sum = Refused::JobTooLarge { resource: Resource::Gpu, asked: 3500, total: 3000, task: "main".into(), possible: 2 };
    assert_eq!(refused(&job(1).asks(5, 1, 1).part(700, 0)), sum);
    let none = World::new(vec![queue("q", 0)], vec![node("c", 8, 0)]);
    let got = none.core.admit(&part(1, 500).shape(), &part(1, 500).policy).unwrap_err();
    assert_eq!(got.to_string(), "task \"main\" asks for 0.5 GPUs, the largest node has 0");
}

#[test]
fn limits_count_parts_as_parts() {
    let limit = Limits { gpus: Some(1), ..Limits::NONE };
    let mut world = World::new(vec![QueueConfig { limit, ..queue("q", 0) }], vec![node("a", 64, 4)]);
    for number in 1..=3 {
        world.submit(&part(number, 400), at(0));
    }
    assert_eq!(world.run(at(0)), [1, 2], "1200 thousandths are more than one GPU");
    assert_eq!(world.core.queues().next().unwrap().gpu_millis_used, 800);
    world.done(1, at(1));
    assert_eq!(world.run(at(1)), [3]);
    let over = Refused::OverLimit { resource: Resource::Gpu, asked: 1200, limit: 1000, whose: Whose::Queue };
    let three = job(9).asks(3, 1, 1).part(400, 0);
    assert_eq!(world.core.admit(&three.shape(), &three.policy), Err(over));
}

#[test]
fn a_blocked_part_has_a_reservation_and_others_pass_only_beside_it() {
    for discipline in [Discipline::Easy, Discipline::Conservative { heads: 2 }] {
        let config = Config { discipline, ..config(vec![queue("q", 0)], vec![node("a", 64, 2)]) };
        let mut world = World { core: Scheduler::new(config).unwrap() };
        world.submit(&part(1, 600).limit(100), at(0));
        world.submit(&part(2, 600).limit(200), at(0));
        assert_eq!(world.run(at(0)), [1, 2]);
        world.submit(&part(3, 900).priority(5).limit(50), at(0));
        world.submit(&part(4, 300), at(0));
        assert_eq!(world.run(at(0)), [4], "{discipline:?}: beside the second, where nothing is kept");
        assert_eq!(world.places(4), ["0.0@a[a-gpu1]"]);
        world.submit(&part(5, 300), at(0));
        world.submit(&part(6, 300).limit(50), at(0));
        assert_eq!(
            world.run(at(0)),
            [6],
            "{discipline:?}: over before the first ends; the one without a limit would be in the way"
        );
        world.done(1, at(60));
        world.done(6, at(60));
        assert_eq!(world.run(at(60)), [3]);
    }
}

#[test]
fn a_part_makes_room_for_a_whole_gpu_where_that_is_allowed() {
    let queues = vec![QueueConfig { preemptible: true, ..queue("q", 0) }];
    let preemption = Preemption { within_queue: true, ..Preemption::default() };
    let config = Config { preemption, ..config(queues, vec![node("a", 64, 1)]) };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    world.submit(&part(1, 300), at(0));
    world.submit(&part(2, 300), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(1, 1, 1).priority(9), at(1));
    let mut victims = world.plan(at(1));
    victims.sort_unstable();
    assert_eq!(victims, [1, 2], "both have to go");
    world.done(1, at(2));
    world.done(2, at(2));
    assert_eq!(world.run(at(2)), [3]);
}

#[test]
fn why_tells_what_is_left_of_each() {
    let mut world = World::small(64, 4);
    for number in 1..=4 {
        world.submit(&part(number, 700).limit(100), at(0));
    }
    assert_eq!(world.run(at(0)).len(), 4);
    world.submit(&part(5, 500), at(0));
    world.run(at(0));
    let explained = world.core.explain(id(5), at(0)).unwrap();
    let Why::Resources { shortfall, .. } = &explained.why else { panic!("{explained:?}") };
    let left = GpuShare { millis: 300, memory: MemoryBytes(80 * GIB - 80 * GIB * 7 / 10) };
    let asked = GpuShare { millis: 500, memory: MemoryBytes(0) };
    assert_eq!(shortfall.part, Some(NoPart { asked, gpus: 4, largest: Some((left, Name::from("a"))) }));
    assert_eq!((shortfall.shortages.len(), &shortfall.closest), (0, &None));
    assert_eq!(shortfall.room_at, Some(("a".into(), at(110))));
    assert_eq!(explained.estimate, Some(Estimate::Latest(at(110))));
}

#[test]
fn who_shares_keeps_it_whatever_becomes_of_the_gpu() {
    let mut world = World::small(64, 2);
    place(&mut world, &part(1, 500));
    world.core.set_gpu_aside(&"a-gpu0".into(), Some("drained".into())).unwrap();
    assert_eq!(place(&mut world, &part(2, 100)), ["0.0@a[a-gpu1]"], "nobody joins");
    world.core.set_gpu_aside(&"a-gpu0".into(), None).unwrap();
    assert_eq!(place(&mut world, &part(3, 400)), ["0.0@a[a-gpu0]"]);
    let mut less = node("a", 64, 2);
    less.gpus.remove(0);
    world.core.set_node(less).unwrap();
    world.core.check_invariants().unwrap();
    world.done(1, at(1));
    world.done(3, at(1));
    assert_eq!(world.core.nodes().next().unwrap().gpus.len(), 1, "and is forgotten with the last of them");
    let lost = world.core.set_node_state(&"a".into(), NodeState::Lost, at(2)).unwrap();
    assert_eq!(lost.ended.len(), 1);
    world.core.check_invariants().unwrap();
}

#[test]
fn a_restart_books_the_same_and_refuses_more_than_there_is() {
    let mut world = World::small(64, 2);
    place(&mut world, &part(1, 500));
    place(&mut world, &part(2, 400));
    let stored = |number: u64| serde_json::to_string(world.core.view(id(number)).unwrap().lifecycle).unwrap();
    let rows = [stored(1), stored(2)];
    assert!(rows[0].contains(r#""share":{"millis":500,"memory":42949672960}"#), "{}", rows[0]);
    let read = |row: &str| serde_json::from_str::<Lifecycle>(row).unwrap();
    let mut again = World::small(64, 2);
    again.core.restore(part(1, 500).live(read(&rows[0])), at(9)).unwrap();
    again.core.restore(part(2, 400).live(read(&rows[1])), at(9)).unwrap();
    again.core.check_invariants().unwrap();
    assert_eq!(place(&mut again, &part(3, 200)), ["0.0@a[a-gpu1]"], "100 are left of the first");
    // A row of the version before has no share: a whole GPU.
    let old = rows[0].replace(r#","share":{"millis":500,"memory":42949672960}"#, "");
    let taken = again.core.restore(job(7).asks(1, 1, 1).live(read(&old)), at(9)).unwrap_err();
    assert_eq!(taken, RestoreError::GpuTaken { job: id(7), uuid: "a-gpu0".into(), owner: id(1) });
    let more = again.core.restore(part(8, 500).live(read(&rows[0])), at(9)).unwrap_err();
    assert_eq!(more, RestoreError::GpuTaken { job: id(8), uuid: "a-gpu0".into(), owner: id(1) });
    let other = World::small(64, 2).core.restore(part(9, 300).live(read(&rows[0])), at(9)).unwrap_err();
    assert!(matches!(other, RestoreError::Malformed { .. }), "{other}");
    let mut whole = World::small(64, 2);
    whole.core.restore(job(7).asks(1, 1, 1).live(read(&old)), at(9)).unwrap();
    whole.core.check_invariants().unwrap();
    assert_eq!(whole.state(7), Some(StateKind::Running));
    let attempt = whole.attempt(7);
    whole.handle(7, Event::Cancel { by: "ada".into() }, at(10));
    assert_eq!(attempt.0, 1);
}

#[test]
fn a_gpu_that_becomes_whole_in_time_is_not_counted_on_twice() {
    for discipline in [Discipline::Easy, Discipline::Conservative { heads: 3 }] {
        let config = Config { discipline, ..config(vec![queue("q", 0)], vec![node("a", 64, 2)]) };
        let mut world = World { core: Scheduler::new(config).unwrap() };
        world.submit(&part(1, 200).limit(100), at(0));
        world.submit(&part(2, 900).limit(100), at(0));
        assert_eq!(world.run(at(0)), [1, 2]);
        world.submit(&job(3).asks(1, 1, 2).priority(5), at(0));
        world.submit(&part(4, 200), at(0));
        world.submit(&part(5, 200).limit(90), at(0));
        assert_eq!(world.run(at(0)), [5], "{discipline:?}: the first would keep one of the two from being whole");
        for number in [1, 2, 5] {
            world.done(number, at(50));
        }
        assert_eq!(world.run(at(50)), [3]);
        assert_eq!(world.state(4), Some(StateKind::Queued));
    }
}
