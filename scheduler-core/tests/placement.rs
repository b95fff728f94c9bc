//! Where tasks go: whole gangs, whole GPUs, the fullest node that fits; and what is refused because it could never go anywhere.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{GIB, World, at, config, id, job, node, queue};
use scheduler_core::amounts::MemoryBytes;
use scheduler_core::event::{Event, Rejected};
use scheduler_core::job::Policy;
use scheduler_core::state::Placement;
use scheduler_core::{ConfigError, Refused, Resource, Scheduler};

fn cluster() -> World {
    World::new(vec![queue("q", 0)], vec![node("cpu", 8, 0), node("a", 8, 4), node("b", 8, 8)])
}

#[test]
fn gpus_are_handed_out_as_devices_in_their_order() {
    let mut world = World::small(16, 4);
    world.submit(&job(1).asks(1, 1, 2), at(0));
    world.submit(&job(2).asks(2, 1, 1), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    assert_eq!(world.places(1), ["0.0@a[a-gpu0,a-gpu1]"]);
    assert_eq!(world.places(2), ["0.0@a[a-gpu2]", "0.1@a[a-gpu3]"]);
    world.submit(&job(3).asks(1, 1, 1), at(0));
    assert_eq!(world.plan(at(0)), [] as [u64; 0], "every GPU has an owner");
    world.done(1, at(1));
    assert_eq!(world.plan(at(1)), [3]);
    assert_eq!(world.places(3), ["0.0@a[a-gpu0]"]);
}

#[test]
fn gpus_are_kept_until_the_run_is_reported_over() {
    let mut world = World::small(4, 1);
    world.submit(&job(1).asks(1, 1, 1), at(0));
    world.submit(&job(2).asks(1, 1, 1), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.handle(1, Event::Cancel { by: "u".into() }, at(1));
    assert_eq!(world.plan(at(100)), [] as [u64; 0], "past the deadline too: only the report frees it");
    world.done(1, at(101));
    assert_eq!(world.plan(at(101)), [2]);
}

#[test]
fn gpu_tasks_pack_and_cpu_tasks_leave_gpu_nodes_alone() {
    let mut world = cluster();
    world.submit(&job(1).asks(1, 1, 1), at(0));
    world.submit(&job(2).asks(1, 1, 3), at(0));
    world.submit(&job(3).asks(1, 1, 2), at(0));
    world.submit(&job(4).asks(1, 8, 0), at(0));
    world.submit(&job(5).asks(1, 1, 0), at(0));
    assert_eq!(world.run(at(0)), [1, 2, 3, 4, 5]);
    assert_eq!(world.places(1), ["0.0@a[a-gpu0]"], "the node with fewest free GPUs");
    assert_eq!(world.places(2), ["0.0@a[a-gpu1,a-gpu2,a-gpu3]"]);
    assert_eq!(world.places(3), ["0.0@b[b-gpu0,b-gpu1]"]);
    assert_eq!(world.places(4), ["0.0@cpu[]"]);
    assert_eq!(world.places(5), ["0.0@a[]"], "the CPU node is full, of the others the fullest");
}

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    let mut world = cluster();
    world.submit(&job(1).asks(3, 1, 4), at(0));
    assert_eq!(world.run(at(0)), [1], "over two nodes, because no node alone has twelve");
    assert_eq!(
        world.places(1),
        ["0.0@a[a-gpu0,a-gpu1,a-gpu2,a-gpu3]", "0.1@b[b-gpu0,b-gpu1,b-gpu2,b-gpu3]", "0.2@b[b-gpu4,b-gpu5,b-gpu6,b-gpu7]"]
    );
    world.submit(&job(2).asks(2, 8, 0), at(0));
    assert_eq!(world.plan(at(0)), [] as [u64; 0], "one of its two tasks would fit");
    world.done(1, at(1));
    assert_eq!(world.plan(at(1)), [2]);
}

#[test]
fn a_gang_stays_on_one_node_where_it_can() {
    let mut world = cluster();
    world.submit(&job(1).asks(1, 1, 2), at(0));
    world.submit(&job(2).asks(4, 1, 1), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    assert!(world.places(2).iter().all(|place| place.contains("@b")), "{:?}", world.places(2));
}

#[test]
fn groups_of_a_job_are_placed_together() {
    let mut world = cluster();
    let mixed = job(1).asks(1, 4, 0).task("worker", 2, 2, 4).task("loader", 3, 1, 0);
    world.submit(&mixed, at(0));
    assert_eq!(world.run(at(0)), [1]);
    let places = world.places(1);
    let order: Vec<&str> = places.iter().map(|place| place.split('@').next().unwrap()).collect();
    assert_eq!(order, ["0.0", "1.0", "1.1", "2.0", "2.1", "2.2"]);
    world.submit(&job(2).asks(1, 4, 0).task("worker", 1, 1, 5), at(0));
    assert_eq!(world.plan(at(0)), [] as [u64; 0], "4 GPUs are left on one node");
}

#[test]
fn what_could_never_run_is_refused_with_what_there_is() {
    let world = cluster();
    let refused = |job: &common::Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    let task = |resource, asked, largest| Refused::TaskTooLarge { task: "main".into(), resource, asked, largest };
    assert_eq!(refused(&job(1).asks(1, 9, 0)), task(Resource::Cpu, 9000, 8000));
    assert_eq!(refused(&job(1).asks(1, 1, 9)), task(Resource::Gpu, 9000, 8000));
    let mut large = job(1);
    large.tasks[0].request.memory = MemoryBytes(8 * GIB + 1);
    assert_eq!(refused(&large), task(Resource::Memory, 8 * GIB + 1, 8 * GIB));
    let sum = Refused::JobTooLarge { resource: Resource::Gpu, asked: 13_000, total: 12_000, task: "main".into(), possible: 12 };
    assert_eq!(refused(&job(1).asks(13, 0, 1)), sum);
    let two_of_three = Refused::NoFit { task: "main".into(), asked: 4, possible: 3 };
    assert_eq!(refused(&job(1).asks(4, 5, 0)), two_of_three, "20 of 24 cores, but not in fives");
    assert_eq!(
        refused(&job(1).asks(1, 8, 0).task("b", 1, 8, 0).task("c", 1, 8, 4).task("d", 1, 0, 9)).to_string(),
        "task \"d\" asks for 9 GPUs, the largest node has 8"
    );
    let absurd = job(1).asks(u32::MAX, u64::MAX / 1000, u32::MAX);
    assert!(matches!(refused(&absurd), Refused::TooManyTasks { .. }));
    let absurd = job(1).asks(2, u64::MAX / 1000, u32::MAX);
    assert!(matches!(refused(&absurd), Refused::TaskTooLarge { .. }));
}

#[test]
fn malformed_jobs_are_refused_by_name() {
    let world = cluster();
    let refused = |job: &common::Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    assert_eq!(refused(&job(1).queue("nope")), Refused::UnknownQueue { queue: "nope".into() });
    assert_eq!(refused(&job(1).asks(0, 1, 0)), Refused::NoReplicas { task: "main".into() });
    assert_eq!(refused(&job(1).task("main", 1, 1, 0)), Refused::DuplicateTask { task: "main".into() });
    let mut none = job(1);
    none.tasks.clear();
    assert_eq!(refused(&none), Refused::NoTasks);
    assert_eq!(refused(&job(1).priority(1_000_001)), Refused::Priority { got: 1_000_001 });
    assert_eq!(refused(&job(1).attempts(0)), Refused::NoAttempts);
    world.core.admit(&job(1).priority(-1_000_000).shape(), &Policy::default()).unwrap();
}

#[test]
fn what_was_accepted_once_is_still_checked_for_its_policy() {
    let mut world = World::small(4, 0);
    world.submit(&job(1), at(0));
    let refused = world.core.submit(job(2).priority(i32::MAX).build(at(0)), at(0)).unwrap_err();
    assert_eq!(refused, Refused::Priority { got: i32::MAX });
    assert_eq!(
        world.core.submit(job(2).asks(1, 5, 0).build(at(0)), at(0)).unwrap_err().to_string(),
        "task \"main\" asks for 5000 cpu (millicores), the largest node has 4000"
    );
    assert_eq!(world.core.counts(), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn wrong_configurations_are_named() {
    let new = |queues, nodes| Scheduler::new(config(queues, nodes)).err().map(|error| error.to_string());
    assert_eq!(new(vec![queue("q", 0), queue("q", 1)], vec![]).unwrap(), "queue \"q\" is configured twice");
    assert_eq!(new(vec![], vec![node("a", 1, 0), node("a", 2, 0)]).unwrap(), "node \"a\" is configured twice");
    let mut twin = node("b", 1, 1);
    twin.gpus[0].uuid = "a-gpu0".into();
    assert_eq!(new(vec![], vec![node("a", 1, 1), twin]).unwrap(), "GPU a-gpu0 is listed twice, last on node \"b\"");
    assert!(new(vec![queue("q", 10_000_001)], vec![]).unwrap().contains("priority 10000001"));
    assert!(new(vec![common::aging("q", 0, 0)], vec![]).unwrap().contains("0 s per priority point"));
    let none = scheduler_core::Config { scan_limit: 0, ..config(vec![], vec![]) };
    assert_eq!(Scheduler::new(none).err(), Some(ConfigError::ScanLimit));
}

#[test]
fn placing_is_the_planners_alone() {
    let mut world = World::small(4, 0);
    world.submit(&job(1), at(0));
    let placement = std::sync::Arc::new(Placement::new(Vec::new()));
    let answer = world.core.handle(id(1), Event::Place { placement }, at(0));
    assert!(matches!(answer, Err(Rejected::NotInState { .. })));
    assert_eq!(world.core.handle(id(2), Event::Due, at(0)), Err(Rejected::Unknown));
}

#[test]
fn nodes_and_queues_show_who_has_what() {
    let mut world = cluster();
    world.submit(&job(1).asks(1, 2, 1), at(0));
    world.submit(&job(2).held(), at(0));
    world.submit(&job(3).asks(1, 1, 8), at(0));
    assert_eq!(world.plan(at(0)), [1, 3]);
    let nodes: Vec<_> = world.core.nodes().collect();
    let busy = |node: usize| nodes[node].gpus.iter().filter(|gpu| gpu.job.is_some()).count();
    assert_eq!((nodes[1].cpu_used.0, busy(1), nodes[1].gpus[0].job), (2000, 1, Some(id(1))));
    assert_eq!((nodes[0].cpu_used.0, busy(2)), (0, 8));
    let queue = world.core.queues().next().unwrap();
    assert_eq!((queue.waiting, queue.queued, queue.active), (1, 0, 2));
    assert_eq!(world.core.active().map(|(job, _)| job).collect::<Vec<_>>(), [id(1), id(3)]);
    assert_eq!(world.core.counts(), [1, 0, 2, 0, 0, 0]);
}

#[test]
fn equal_shapes_and_policies_are_kept_once() {
    let mut world = World::small(4, 0);
    world.submit(&job(1), at(0));
    world.submit(&job(2), at(0));
    let view = |number| world.core.view(id(number)).unwrap();
    assert!(Arc::ptr_eq(view(1).shape, view(2).shape));
    assert!(Arc::ptr_eq(view(1).policy, view(2).policy));
}
