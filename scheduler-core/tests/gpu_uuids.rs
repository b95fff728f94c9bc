//! GPUs by UUID: jobs get exactly those, wait while they are taken, and are refused where they could never have them; nobody is told of lanes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Build, GIB, World, at, config, id, job, node, queue};
use scheduler_core::amounts::MemoryBytes;
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::Name;
use scheduler_core::job::{Constraints, Selector};
use scheduler_core::scheduler::{GpuDevice, GpuKind, NodeConfig, NodeState};
use scheduler_core::state::{Lifecycle, StateKind};
use scheduler_core::{
    Config, Discipline, Estimate, JobRef, Preemption, QueueConfig, Refused, RestoreError, Scheduler, Shortfall, TakenGpu, Why,
};

const NONE: [u64; 0] = [];

fn two() -> World {
    World::new(vec![queue("q", 0)], vec![node("a", 64, 4), node("b", 64, 4)])
}

fn named(number: u64, uuids: &[&str]) -> Build {
    job(number).named(uuids)
}

fn place(world: &mut World, job: &Build) -> Vec<String> {
    world.submit(job, at(0));
    world.run(at(0));
    world.places(job.number)
}

fn refused(world: &World, job: &Build) -> Refused {
    world.core.admit(&job.shape(), &job.policy).unwrap_err()
}

fn why(world: &World, number: u64) -> Why {
    world.core.explain(id(number), at(1)).unwrap().why
}

fn taken(uuid: &str, by: &[u64]) -> TakenGpu {
    let by = by.iter().map(|&number| JobRef { id: id(number), seq: scheduler_core::ids::Seq(number) }).collect();
    TakenGpu { uuid: uuid.into(), node: "a".into(), by, more: 0, aside: None }
}

/// A node with MIG instances of one GPU.
fn divided(name: &str, parts: usize) -> NodeConfig {
    let mut config = node(name, 64, 0);
    let part = |part: usize| GpuDevice {
        kind: GpuKind::Mig { profile: "1g".into() },
        ..GpuDevice::whole(format!("MIG-{name}-{part}").into(), "H200".into(), MemoryBytes(10 * GIB))
    };
    config.gpus = (0..parts).map(part).collect();
    config
}

#[test]
fn a_job_gets_exactly_the_gpus_that_it_names() {
    let mut world = two();
    assert_eq!(place(&mut world, &named(1, &["b-gpu2"])), ["0.0@b[b-gpu2]"]);
    assert_eq!(place(&mut world, &named(2, &["a-gpu1", "a-gpu3"])), ["0.0@a[a-gpu1,a-gpu3]"]);
    assert_eq!(place(&mut world, &job(3).asks(1, 1, 2)), ["0.0@a[a-gpu0,a-gpu2]"], "others get the others");
    assert_eq!(place(&mut world, &job(4).asks(1, 1, 3)), ["0.0@b[b-gpu0,b-gpu1,b-gpu3]"]);
    world.submit(&named(5, &["a-gpu1"]), at(0));
    assert_eq!(world.run(at(0)), NONE, "it waits though others are free elsewhere");
    world.done(2, at(1));
    assert_eq!(world.run(at(1)), [5]);
    assert_eq!(place(&mut world, &job(6).asks(1, 1, 1)), ["0.0@a[a-gpu3]"]);
}

#[test]
fn others_take_a_gpu_that_is_named_last_and_may_take_it() {
    let mut world = World::small(64, 4);
    world.submit(&named(1, &["a-gpu0", "a-gpu1"]).after(at(100)), at(0));
    assert_eq!(place(&mut world, &job(2).asks(1, 1, 2)), ["0.0@a[a-gpu2,a-gpu3]"]);
    assert_eq!(place(&mut world, &job(3).asks(1, 1, 1)), ["0.0@a[a-gpu0]"], "nothing is kept before its time");
    world.done(2, at(1));
    assert_eq!(place(&mut world, &job(4).asks(1, 1, 3)), ["0.0@a[a-gpu1,a-gpu2,a-gpu3]"], "one task takes from both");
}

#[test]
fn a_part_and_an_instance_can_be_named_too() {
    let mut world = two();
    assert_eq!(place(&mut world, &named(1, &["b-gpu3"]).part(500, 0)), ["0.0@b[b-gpu3]"]);
    assert_eq!(place(&mut world, &job(2).part(300, 0)), ["0.0@b[b-gpu3]"], "it is shared as any other");
    assert_eq!(place(&mut world, &named(3, &["b-gpu3"]).part(200, 0)), ["0.0@b[b-gpu3]"]);
    world.submit(&named(4, &["b-gpu3"]).part(300, 0), at(0));
    world.submit(&named(5, &["b-gpu3"]), at(0));
    assert_eq!(world.run(at(0)), NONE);
    world.done(1, at(1));
    assert_eq!(world.run(at(1)), [4]);
    let both = job(6).asks(2, 1, 1).part(500, 0);
    let both = Build { tasks: both.named(&["a-gpu0"]).tasks, ..job(6) };
    assert_eq!(place(&mut world, &both), ["0.0@a[a-gpu0]", "0.1@a[a-gpu0]"]);

    let mut world = World::new(vec![queue("q", 0)], vec![divided("a", 3)]);
    assert_eq!(place(&mut world, &named(1, &["MIG-a-1"])), ["0.0@a[MIG-a-1]"]);
    let profile = Constraints { mig_profile: Some("1g".into()), gpu_uuids: vec!["MIG-a-0".into()], ..Constraints::NONE };
    assert_eq!(place(&mut world, &job(2).asks(1, 1, 1).wants(&profile)), ["0.0@a[MIG-a-0]"]);
}

#[test]
fn tasks_of_one_job_do_not_take_each_others() {
    let mut world = World::small(64, 4);
    let gang = job(1).asks(1, 1, 3).task("one", 1, 1, 1);
    let mut gang = gang;
    gang.tasks[1].constraints.gpu_uuids = vec!["a-gpu0".into()];
    assert_eq!(place(&mut world, &gang), ["0.0@a[a-gpu1,a-gpu2,a-gpu3]", "1.0@a[a-gpu0]"]);
}

#[test]
fn what_could_never_be_had_is_refused() {
    let world = two();
    let task = || Name::from("main");
    let all: Vec<Name> = ["a", "b"].iter().flat_map(|node| (0..4).map(move |gpu| format!("{node}-gpu{gpu}").into())).collect();
    assert_eq!(
        refused(&world, &named(1, &["a-gpu9"])),
        Refused::NoSuchGpu { task: task(), uuid: "a-gpu9".into(), there: all, more: 0 }
    );
    let apart = refused(&world, &named(1, &["a-gpu0", "b-gpu1"]));
    assert_eq!(
        apart.to_string(),
        r#"task "main" asks for GPU a-gpu0 of node "a" and GPU b-gpu1 of node "b": a task is on one node"#
    );
    let bad = |job: &Build| match refused(&world, job) {
        Refused::BadGpus { detail, .. } => detail,
        Refused::OtherGpu { uuid, detail, .. } => format!("{uuid}: {detail}"),
        other => panic!("{other}"),
    };
    let with = |change: &dyn Fn(&mut Build)| {
        let mut build = named(1, &["a-gpu0"]);
        change(&mut build);
        bad(&build)
    };
    assert_eq!(with(&|job| job.tasks[0].request.gpus = 2), "it names 1 GPUs and asks for 2");
    assert_eq!(bad(&named(1, &["a-gpu0", "a-gpu0"])), "it names GPU a-gpu0 twice");
    let twice = "the tasks of the job that name GPU a-gpu0 ask for 2 of it together, there is one";
    assert_eq!(with(&|job| job.tasks[0].replicas = 2), twice);
    assert_eq!(bad(&job(1).task("other", 1, 1, 0).named(&["a-gpu0"])), twice);
    assert_eq!(
        with(&|job| job.tasks[0].constraints.gpu_models = vec!["T4".into()]),
        "a-gpu0: it is of the model H200, not of (T4)"
    );
    assert_eq!(
        with(&|job| job.tasks[0].constraints.gpu_memory = MemoryBytes(81 * GIB)),
        format!("a-gpu0: it has {} bytes of memory, {} are asked for", 80 * GIB, 81 * GIB)
    );
    assert_eq!(
        with(&|job| job.tasks[0].constraints.mig_profile = Some("1g".into())),
        "a-gpu0: it is a whole GPU, not a MIG instance of the profile 1g"
    );
    let elsewhere = vec![Selector::Exists { label: "gone".into() }];
    let mut build = named(1, &["a-gpu0"]);
    build.tasks[0].constraints.nodes = elsewhere;
    assert!(matches!(refused(&world, &build), Refused::NoNode { .. }));
    assert!(matches!(refused(&world, &named(1, &["a-gpu0"]).asks(1, 65, 1).named(&["a-gpu0"])), Refused::TaskTooLarge { .. }));
    let none = World::small(8, 0);
    let there = Refused::NoSuchGpu { task: task(), uuid: "x".into(), there: Vec::new(), more: 0 };
    assert_eq!(refused(&none, &named(1, &["x"])), there);
    assert_eq!(there.to_string(), r#"task "main" asks for GPU x, there is none of that UUID; there are no GPUs"#);
    let parts = World::new(vec![queue("q", 0)], vec![divided("a", 2), node("b", 8, 20)]);
    assert_eq!(
        match refused(&parts, &named(1, &["MIG-a-0"]).part(500, 0)) {
            Refused::OtherGpu { detail, .. } => detail,
            other => panic!("{other}"),
        },
        "it is a MIG instance (profile 1g): those are not shared"
    );
    assert!(matches!(refused(&parts, &named(1, &["x"])), Refused::NoSuchGpu { there, more: 6, .. } if there.len() == 16));
}

#[test]
fn only_so_many_sets_can_be_told_apart_on_a_node() {
    let mut world = World::new(vec![queue("q", 0)], vec![divided("a", 10), node("b", 64, 8)]);
    for gpu in 0..8 {
        world.submit(&named(gpu + 1, &[&format!("b-gpu{gpu}")]), at(0));
    }
    assert_eq!(world.run(at(0)).len(), 8, "on nodes of eight GPUs and fewer there is no bound");
    for gpu in 0..7 {
        world.submit(&named(gpu + 11, &[&format!("MIG-a-{gpu}")]), at(0));
    }
    let more = named(20, &["MIG-a-7"]);
    assert_eq!(refused(&world, &more), Refused::NamedApart { task: "main".into(), uuid: "MIG-a-7".into(), node: "a".into() });
    world.submit(&named(21, &["MIG-a-6"]), at(0));
    let rest: Vec<String> = (7..10).map(|gpu| format!("MIG-a-{gpu}")).collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    world.submit(&named(22, &rest), at(0));
    assert_eq!(
        world.run(at(0)),
        [11, 12, 13, 14, 15, 16, 17, 22],
        "all that are left are one set more, and the last of their kind"
    );
    for number in 11..=16 {
        world.done(number, at(1));
    }
    world.submit(&named(23, &["MIG-a-7"]), at(1));
    world.done(22, at(2));
    assert_eq!(world.run(at(2)), [23]);
    assert_eq!(world.places(23), ["0.0@a[MIG-a-7]"]);
}

#[test]
fn a_restored_job_that_finds_no_lane_waits_for_one() {
    let queued = |number: u64| (named(number, &[&format!("MIG-a-{number}")]), common::queued(at(0)));
    let mut world = World::new(vec![queue("q", 0)], vec![divided("a", 10)]);
    for number in 0..9 {
        let (build, lifecycle) = queued(number);
        world.core.restore(build.live(lifecycle), at(0)).unwrap();
    }
    world.core.check_invariants().unwrap();
    assert_eq!(world.run(at(0)), [0, 1, 2, 3, 4, 5, 6]);
    let never = why(&world, 8);
    assert!(matches!(never, Why::Never(Refused::NamedApart { .. })), "{never:?}");
    world.done(3, at(1));
    world.done(5, at(1));
    assert_eq!(world.run(at(1)), [7, 8]);
    assert_eq!(world.places(8), ["0.0@a[MIG-a-8]"]);
}

#[test]
fn why_names_the_gpu_and_who_has_it() {
    let mut world = World::small(64, 4);
    world.submit(&job(1).asks(1, 1, 2).limit(100), at(0));
    world.submit(&named(2, &["a-gpu2"]).part(500, 0), at(0));
    world.submit(&job(3).part(300, 0), at(0));
    assert_eq!(world.run(at(0)), [1, 2, 3]);
    world.submit(&named(4, &["a-gpu0", "a-gpu2", "a-gpu3"]), at(0));
    assert_eq!(world.run(at(0)), NONE);
    let taken = vec![taken("a-gpu0", &[1]), taken("a-gpu2", &[2, 3])];
    let shortfall = Shortfall { taken, ..Shortfall::default() };
    assert_eq!(why(&world, 4), Why::Resources { shortfall, expected: None });

    let mut world = World::small(64, 2);
    world.submit(&job(1).asks(1, 1, 1).limit(100), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&named(2, &["a-gpu0"]), at(0));
    let explained = world.core.explain(id(2), at(1)).unwrap();
    let Why::Resources { shortfall, expected } = explained.why else { panic!("{:?}", explained.why) };
    assert_eq!((shortfall.room_at, expected), (Some(("a".into(), at(110))), Some(at(110))));
    assert_eq!(explained.estimate, Some(Estimate::Latest(at(110))));
    world.core.set_gpu_aside(&"a-gpu1".into(), Some("hot".into())).unwrap();
    world.submit(&named(3, &["a-gpu1"]), at(1));
    let aside = why(&world, 3);
    assert!(
        matches!(&aside, Why::GpusAside { gpus, more: 0 } if gpus.len() == 1 && gpus[0].uuid == "a-gpu1".into()),
        "{aside:?}"
    );
    let mut less = node("a", 64, 2);
    less.gpus.pop();
    world.core.set_node(less).unwrap();
    world.core.check_invariants().unwrap();
    assert!(matches!(why(&world, 3), Why::Never(Refused::NoSuchGpu { .. })));
}

#[test]
fn the_very_gpu_is_kept_for_the_head_and_no_other() {
    for discipline in [Discipline::Easy, Discipline::Conservative { heads: 1 }] {
        let config = Config { discipline, ..config(vec![queue("q", 0)], vec![node("a", 64, 4)]) };
        let mut world = World { core: Scheduler::new(config).unwrap() };
        world.submit(&named(1, &["a-gpu0"]).limit(100), at(0));
        world.submit(&named(2, &["a-gpu2"]), at(0));
        assert_eq!(world.run(at(0)), [1, 2]);
        // At 110 it gets the first and the second; the second is free until then.
        world.submit(&named(3, &["a-gpu0", "a-gpu1"]).priority(5), at(0));
        world.submit(&named(4, &["a-gpu1"]), at(0));
        world.submit(&job(5).asks(1, 1, 2), at(0));
        world.submit(&job(6).asks(1, 1, 1), at(0));
        world.submit(&named(7, &["a-gpu1"]).limit(80), at(0));
        assert_eq!(world.run(at(0)), [6, 7], "{discipline:?}");
        assert_eq!(world.places(6), ["0.0@a[a-gpu3]"], "what the head does not need, for as long as it likes");
        for number in [1, 7] {
            world.done(number, at(100));
        }
        assert_eq!(world.run(at(100)), [3]);
        assert_eq!(world.places(3), ["0.0@a[a-gpu0,a-gpu1]"]);
    }
}

#[test]
fn whoever_has_the_gpu_gives_way_and_nobody_else() {
    let queues = vec![QueueConfig { preemptible: true, ..queue("low", 0) }, queue("high", 100)];
    let preemption = Preemption { across_queues: true, ..Preemption::default() };
    let config = Config { preemption, ..config(queues, vec![node("a", 64, 4)]) };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    for number in 1..=4 {
        world.submit(&job(number).asks(1, 1, 1).queue("low"), at(0));
    }
    assert_eq!(world.run(at(0)), [1, 2, 3, 4]);
    assert_eq!(world.places(3), ["0.0@a[a-gpu2]"]);
    world.submit(&named(5, &["a-gpu2"]).queue("high"), at(10));
    assert_eq!(world.plan(at(10)), [3], "it is told to end");
    assert_eq!(world.state(3), Some(StateKind::Stopping));
    world.ended(3, RunResult::Succeeded, at(11));
    assert_eq!(world.run(at(11)), [5]);
    assert_eq!(world.places(5), ["0.0@a[a-gpu2]"]);
}

#[test]
fn a_restart_knows_who_has_what_and_who_waits_for_what() {
    let mut world = two();
    let jobs = [named(1, &["a-gpu1"]), named(2, &["a-gpu1", "a-gpu2"]), job(3).asks(1, 1, 3)];
    for job in &jobs {
        world.submit(job, at(0));
    }
    world.run(at(0));
    let stored = |number: u64| serde_json::to_string(world.core.view(id(number)).unwrap().lifecycle).unwrap();
    let read = |number: u64| serde_json::from_str::<Lifecycle>(&stored(number)).unwrap();
    let shape = serde_json::to_string(&jobs[1].shape()).unwrap();
    assert!(shape.contains(r#""gpu_uuids":["a-gpu1","a-gpu2"]"#), "{shape}");
    assert_eq!(serde_json::from_str::<scheduler_core::job::Shape>(&shape).unwrap(), jobs[1].shape());
    assert!(!serde_json::to_string(&jobs[2].shape()).unwrap().contains("uuids"), "nothing more is stored of others");
    let mut again = two();
    for number in [3, 2, 1] {
        again.core.restore(jobs[number as usize - 1].live(read(number)), at(9)).unwrap();
        again.core.check_invariants().unwrap();
    }
    assert_eq!(again.run(at(9)), NONE);
    again.done(1, at(10));
    assert_eq!(again.run(at(10)), [2]);
    assert_eq!(again.places(2), ["0.0@a[a-gpu1,a-gpu2]"]);
    let other = two().core.restore(named(7, &["a-gpu3"]).live(read(1)), at(9)).unwrap_err();
    assert!(matches!(other, RestoreError::Malformed { .. }), "{other}");
}

#[test]
fn a_run_that_is_lost_waits_for_its_gpu_again() {
    let mut world = two();
    assert_eq!(place(&mut world, &named(1, &["a-gpu1"])), ["0.0@a[a-gpu1]"]);
    world.core.set_node_state(&"a".into(), NodeState::Lost, at(1)).unwrap();
    world.core.check_invariants().unwrap();
    assert_eq!(world.run(at(100)), NONE, "there are others, and it asked for this one");
    assert!(matches!(why(&world, 1), Why::NodesClosed { .. } | Why::Backoff { .. }), "{:?}", why(&world, 1));
    world.core.set_node_state(&"a".into(), NodeState::Ready, at(200)).unwrap();
    world.core.tick(at(300), usize::MAX);
    assert_eq!(world.run(at(300)), [1]);
    assert_eq!(world.places(1), ["0.0@a[a-gpu1]"]);
    world.handle(1, Event::Cancel { by: "ada".into() }, at(301));
    world.core.check_invariants().unwrap();
}
