//! What nodes and GPUs have to be: labels, models, memory, MIG profiles; links between GPUs; jobs that spread.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Build, GIB, World, at, job, node, queue};
use scheduler_core::amounts::MemoryBytes;
use scheduler_core::ids::Name;
use scheduler_core::job::{Arrangement, Constraints, Selector, Shape};
use scheduler_core::{ConfigError, GpuDevice, GpuKind, NodeConfig, Refused, Resource, Scheduler};

const NONE: [u64; 0] = [];

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|&name| name.into()).collect()
}

fn within(label: &str, values: &[&str]) -> Selector {
    Selector::In { label: label.into(), values: names(values) }
}

fn select(selectors: &[Selector]) -> Constraints {
    Constraints { nodes: selectors.to_vec(), ..Constraints::NONE }
}

fn models(models: &[&str]) -> Constraints {
    Constraints { gpu_models: names(models), ..Constraints::NONE }
}

fn mig(profile: &str) -> Constraints {
    Constraints { mig_profile: Some(profile.into()), ..Constraints::NONE }
}

fn labelled(mut node: NodeConfig, labels: &[(&str, &str)]) -> NodeConfig {
    node.labels = labels.iter().map(|&(label, value)| (label.into(), value.into())).collect();
    node
}

fn with_gpu(mut node: NodeConfig, uuid: &str, model: &str, gib: u64) -> NodeConfig {
    node.gpus.push(GpuDevice::whole(uuid.into(), model.into(), MemoryBytes(gib * GIB)));
    node
}

fn divided(mut node: NodeConfig, uuid: &str, profile: &str) -> NodeConfig {
    node = with_gpu(node, uuid, "A100", 10);
    node.gpus.last_mut().unwrap().kind = GpuKind::Mig { profile: profile.into() };
    node
}

fn above(bound: i64) -> Selector {
    Selector::Above { label: "slots".into(), bound }
}

fn below(bound: i64) -> Selector {
    Selector::Below { label: "slots".into(), bound }
}

#[test]
fn labels_are_compared_as_numbers() {
    let nodes = vec![
        labelled(node("few", 8, 0), &[("slots", "9")]),
        labelled(node("many", 8, 0), &[("slots", "10")]),
        labelled(node("some", 8, 0), &[("slots", "many")]),
        node("none", 8, 0),
    ];
    let mut world = World::new(vec![queue("q", 0)], nodes);
    // By the letters `9` were larger than `10`; what is no number, or not there, is neither larger nor less.
    assert_eq!(places(&mut world, &job(1).wants(&select(&[above(9)]))), ["0.0@many[]"]);
    assert_eq!(places(&mut world, &job(2).wants(&select(&[below(10)]))), ["0.0@few[]"]);
    assert_eq!(places(&mut world, &job(3).wants(&select(&[above(8), below(10)]))), ["0.0@few[]"]);
    // Either of these, each with all that it says.
    let either = |of: &[&[Selector]]| Selector::Any { of: of.iter().map(|all| all.to_vec()).collect() };
    let few_or_none = either(&[&[below(10), above(0)], &[Selector::Absent { label: "slots".into() }]]);
    let alone = |number: u64| job(number).asks(1, 8, 0).wants(&select(std::slice::from_ref(&few_or_none)));
    for number in 1..=3 {
        world.done(number, at(1));
    }
    assert_eq!(places(&mut world, &alone(4)), ["0.0@few[]"]);
    assert_eq!(places(&mut world, &alone(5)), ["0.0@none[]"]);
    assert_eq!(places(&mut world, &alone(6)), [] as [&str; 0], "room elsewhere does not help");
    let nowhere = either(&[&[above(9), below(10)], &[within("slots", &["x"]), above(9)]]);
    let refused = world.core.admit(&job(7).wants(&select(&[nowhere])).shape(), &job(7).policy).unwrap_err();
    let said = "asks for nodes where either slots above 9 and slots below 10, or slots in (x) and slots above 9, there is none";
    assert!(refused.to_string().ends_with(said), "{refused}");
    for selector in [above(10), below(9)] {
        let (task, there) = ("main".into(), names(&["10", "9", "many"]));
        let job = job(4).wants(&select(std::slice::from_ref(&selector)));
        assert_eq!(world.core.admit(&job.shape(), &job.policy).unwrap_err(), Refused::NoNode { task, selector, there });
    }
}

/// `cpu` in zone x without GPUs; `mixed` in zone x with two A100 and one H100, `large` in zone y with two H100, `mig` with a divided GPU.
fn cluster() -> World {
    let mixed = with_gpu(with_gpu(node("mixed", 8, 0), "m-a0", "A100", 40), "m-h0", "H100", 80);
    let large = with_gpu(with_gpu(node("large", 8, 0), "l-h0", "H100", 80), "l-h1", "H100", 80);
    let mig = divided(divided(node("mig", 8, 0), "g-0", "1g.10gb"), "g-1", "1g.10gb");
    let nodes = vec![
        labelled(node("cpu", 8, 0), &[("zone", "x"), ("disk", "fast")]),
        labelled(with_gpu(mixed, "m-a1", "A100", 40), &[("zone", "x")]),
        labelled(large, &[("zone", "y")]),
        mig,
    ];
    World::new(vec![queue("q", 0)], nodes)
}

fn places(world: &mut World, job: &Build) -> Vec<String> {
    world.submit(job, at(0));
    let started = world.run(at(0));
    assert!(started.is_empty() || started == [job.number], "{started:?}");
    world.places(job.number)
}

#[test]
fn labels_say_where_tasks_go() {
    let mut world = cluster();
    assert_eq!(places(&mut world, &job(1).wants(&select(&[within("zone", &["y", "z"])]))), ["0.0@large[]"]);
    let not = |values: &[&str]| Selector::NotIn { label: "zone".into(), values: names(values) };
    assert_eq!(places(&mut world, &job(2).wants(&select(&[not(&["x", "y"])]))), ["0.0@mig[]"], "a node without the label too");
    assert_eq!(places(&mut world, &job(3).wants(&select(&[Selector::Exists { label: "disk".into() }]))), ["0.0@cpu[]"]);
    assert_eq!(places(&mut world, &job(4).wants(&select(&[Selector::Absent { label: "zone".into() }]))), ["0.0@mig[]"]);
    let both = select(&[within("zone", &["x"]), Selector::Absent { label: "disk".into() }]);
    assert_eq!(places(&mut world, &job(5).wants(&both)), ["0.0@mixed[]"]);
    assert_eq!(places(&mut world, &job(6).asks(1, 8, 0).wants(&both)), [] as [&str; 0], "room elsewhere does not help");
    assert_eq!(places(&mut world, &job(7)), ["0.0@cpu[]"], "nor does it wait for anybody who waits for another node");
}

#[test]
fn a_task_gets_gpus_of_a_model_that_it_asked_for() {
    let mut world = cluster();
    assert_eq!(places(&mut world, &job(1).asks(1, 1, 1).wants(&models(&["H100"]))), ["0.0@mixed[m-h0]"]);
    assert_eq!(places(&mut world, &job(2).asks(1, 1, 2).wants(&models(&["H100", "B200"]))), ["0.0@large[l-h0,l-h1]"]);
    assert_eq!(places(&mut world, &job(3).asks(1, 1, 1).wants(&models(&["H100"]))), [] as [&str; 0]);
    world.done(1, at(1));
    assert_eq!(world.run(at(1)), [3]);
    assert_eq!(world.places(3), ["0.0@mixed[m-h0]"]);
    assert_eq!(places(&mut world, &job(4).asks(1, 1, 2)), ["0.0@mixed[m-a0,m-a1]"]);
}

#[test]
fn memory_of_each_gpu_and_mixed_models_on_one_node() {
    let mut world = cluster();
    let large = Constraints { gpu_memory: MemoryBytes(41 * GIB), ..Constraints::NONE };
    assert_eq!(places(&mut world, &job(1).asks(1, 1, 2).wants(&large)), ["0.0@large[l-h0,l-h1]"]);
    assert_eq!(places(&mut world, &job(2).asks(1, 1, 3)), ["0.0@mixed[m-a0,m-a1,m-h0]"]);
}

#[test]
fn tasks_of_one_kind_leave_other_kinds_whole() {
    let mut world = cluster();
    assert_eq!(places(&mut world, &job(1).asks(1, 1, 1)), ["0.0@large[l-h0]"], "the node with fewest free GPUs");
    assert_eq!(places(&mut world, &job(2).asks(1, 1, 2)), ["0.0@mixed[m-a0,m-a1]"], "two alike");
    assert_eq!(places(&mut world, &job(3).asks(2, 1, 1)), ["0.0@mixed[m-h0]", "0.1@large[l-h1]"]);
}

#[test]
fn mig_instances_are_for_those_who_ask_for_them() {
    let mut world = cluster();
    assert_eq!(places(&mut world, &job(1).asks(2, 1, 1).wants(&mig("1g.10gb"))), ["0.0@mig[g-0]", "0.1@mig[g-1]"]);
    assert_eq!(places(&mut world, &job(2).asks(5, 1, 1)).len(), 5, "the whole ones");
    assert_eq!(places(&mut world, &job(3).asks(1, 1, 1)), [] as [&str; 0], "and no instance, even if one were free");
    world.done(1, at(1));
    assert_eq!(world.plan(at(1)), NONE);
}

#[test]
fn what_a_reservation_counts_on_is_not_given_away() {
    // Both GPUs of the node fit the head, one of them the others too.
    let pair = with_gpu(with_gpu(node("n", 8, 0), "a", "A", 40), "b", "B", 40);
    let mut world = World::new(vec![queue("q", 0)], vec![pair]);
    world.submit(&job(1).asks(1, 1, 1).wants(&models(&["B"])).limit(100), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 1, 2).limit(50), at(1));
    world.submit(&job(3).asks(1, 1, 1).wants(&models(&["A"])).limit(500), at(2));
    world.submit(&job(4).asks(1, 1, 1).wants(&models(&["A"])).limit(50), at(3));
    assert_eq!(world.run(at(3)), [4], "over before job 1 is; job 3 would keep the head waiting");
    world.done(4, at(50));
    world.done(1, at(60));
    assert_eq!(world.run(at(60)), [2]);
}

#[test]
fn gpus_of_one_link_group_where_one_has_enough() {
    let mut linked = node("n", 16, 8);
    for (at, gpu) in linked.gpus.iter_mut().enumerate() {
        // Two groups, interleaved; the last two GPUs have no links.
        gpu.link_group = (at < 6).then_some(u16::from(at % 2 == 1));
    }
    let mut world = World::new(vec![queue("q", 0)], vec![linked]);
    let gpus = |world: &World, number: u64| world.places(number).join(" ").replace("n-gpu", "");
    world.submit(&job(1).asks(1, 1, 1), at(0));
    world.submit(&job(2).asks(1, 1, 2), at(0));
    world.submit(&job(3).asks(1, 1, 3), at(0));
    assert_eq!(world.run(at(0)), [1, 2, 3]);
    assert_eq!(gpus(&world, 1), "0.0@n[0]");
    assert_eq!(gpus(&world, 2), "0.0@n[2,4]", "the rest of the group that was begun");
    assert_eq!(gpus(&world, 3), "0.0@n[1,3,5]", "the other one whole");
    world.submit(&job(4).asks(1, 1, 2), at(0));
    world.done(2, at(1));
    assert_eq!(world.run(at(1)), [4]);
    assert_eq!(gpus(&world, 4), "0.0@n[2,4]", "not those without links, though they come as early");
    world.submit(&job(5).asks(1, 1, 2), at(2));
    assert_eq!(world.run(at(2)), [5]);
    assert_eq!(gpus(&world, 5), "0.0@n[6,7]", "across, where there is no other way");
}

#[test]
fn all_tasks_of_a_share_stay_in_one_link_group_where_they_can() {
    let mut linked = node("n", 16, 6);
    for (at, gpu) in linked.gpus.iter_mut().enumerate() {
        gpu.link_group = Some(u16::from(at >= 2));
    }
    let mut world = World::new(vec![queue("q", 0)], vec![linked]);
    world.submit(&job(1).asks(2, 1, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    assert_eq!(world.places(1), ["0.0@n[n-gpu2,n-gpu3]", "0.1@n[n-gpu4,n-gpu5]"]);
}

#[test]
fn a_job_that_spreads_takes_one_node_after_the_other() {
    let nodes = || vec![node("a", 4, 0), node("b", 8, 0), node("c", 8, 0)];
    let mut world = World::new(vec![queue("q", 0)], nodes());
    world.submit(&job(1).asks(2, 1, 0).spread(), at(0));
    world.submit(&job(2).asks(1, 1, 0).spread(), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    assert_eq!(world.places(1), ["0.0@b[]", "0.1@c[]"], "the emptiest, in their order");
    assert_eq!(world.places(2), ["0.0@b[]"]);
    world.submit(&job(3).asks(8, 2, 0).spread(), at(0));
    assert_eq!(world.run(at(0)), [3]);
    let on = |name: &str| world.places(3).iter().filter(|place| place.contains(name)).count();
    assert_eq!((on("@a"), on("@b"), on("@c")), (2, 3, 3), "as even as there is room");
    world.submit(&job(4).asks(3, 8, 0).least(2).spread(), at(1));
    for number in 1..=3 {
        world.done(number, at(1));
    }
    assert_eq!(world.run(at(1)), [4]);
    assert_eq!(world.places(4), ["0.0@b[]", "0.1@c[]"]);
}

#[test]
fn a_constraint_that_nothing_satisfies_is_named_with_what_there_is() {
    let world = cluster();
    let refused = |job: &Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    let task = || Name::from("main");
    let zone = within("zone", &["z"]);
    assert_eq!(
        refused(&job(1).wants(&select(std::slice::from_ref(&zone)))),
        Refused::NoNode { task: task(), selector: zone, there: names(&["x", "y"]) }
    );
    let exists = Selector::Exists { label: "rack".into() };
    assert_eq!(
        refused(&job(1).wants(&select(&[exists]))).to_string(),
        "task \"main\" asks for nodes where rack exists, there is none; no node has this label"
    );
    assert_eq!(
        refused(&job(1).asks(1, 1, 1).wants(&models(&["B200"]))).to_string(),
        "task \"main\" asks for GPUs of the models (B200), there are (A100, H100)"
    );
    let memory = Constraints { gpu_memory: MemoryBytes(41 * GIB), ..models(&["A100"]) };
    let largest = MemoryBytes(40 * GIB);
    assert_eq!(
        refused(&job(1).asks(1, 1, 1).wants(&memory)),
        Refused::NoGpuMemory { task: task(), asked: MemoryBytes(41 * GIB), largest }
    );
    assert_eq!(
        refused(&job(1).asks(1, 1, 1).wants(&mig("7g.80gb"))),
        Refused::NoGpuKind { task: task(), asked: Some("7g.80gb".into()), there: names(&["1g.10gb"]) }
    );
    assert_eq!(
        refused(&job(1).asks(1, 1, 3).wants(&mig("1g.10gb"))).to_string(),
        "task \"main\" asks for 3 MIG instances of the profile \"1g.10gb\", the largest node has 2"
    );
    // Other GPUs, and instances of other profiles, do not count.
    for tasks in [3, 30] {
        assert_eq!(
            refused(&job(1).asks(tasks, 1, 1).wants(&mig("1g.10gb"))),
            Refused::TooFewInstancesInAll { task: task(), of: "1g.10gb".into(), asked: tasks.into(), total: 2, possible: 2 }
        );
    }
    let apart = Constraints { nodes: vec![within("zone", &["y"])], ..models(&["A100"]) };
    assert_eq!(refused(&job(1).asks(1, 1, 1).wants(&apart)), Refused::NoNodeForAll { task: task() });
}

/// Where no node has a GPU at all, it is GPUs that are short, and not the CPUs that the job would have.
#[test]
fn gpus_where_there_are_none_are_short_in_numbers() {
    let world = World::new(vec![queue("q", 0)], vec![node("a", 8, 0)]);
    let refused = |job: &Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    let task = |resource, asked, largest| Refused::TaskTooLarge { task: "main".into(), resource, asked, largest };
    let memory = Constraints { gpu_memory: MemoryBytes(40 * GIB), ..Constraints::NONE };
    for asked in [job(1).asks(1, 1, 1), job(1).asks(1, 1, 1).wants(&memory)] {
        assert_eq!(refused(&asked), task(Resource::Gpu, 1000, 0));
    }
    assert_eq!(refused(&job(1).asks(1, 9, 1)), task(Resource::Cpu, 9_000, 8_000));
    assert!(
        matches!(refused(&job(1).asks(1, 1, 1).wants(&models(&["A100"]))), Refused::NoGpuModel { there, .. } if there.is_empty())
    );
}

#[test]
fn the_largest_possible_gang_is_named() {
    let world = cluster();
    let refused = |job: &Build| world.core.admit(&job.shape(), &job.policy).unwrap_err().to_string();
    assert_eq!(
        refused(&job(1).asks(8, 1, 1)),
        "the job's tasks ask for 8 GPUs together, all nodes have 7: at most 5 of the tasks \"main\" can run at once"
    );
    assert_eq!(
        refused(&job(1).asks(4, 1, 1).wants(&models(&["H100"]))),
        "task \"main\": only 3 of its 4 tasks fit on the nodes together with the others, even when nothing else runs"
    );
    assert_eq!(refused(&job(1).asks(1, 1, 3).wants(&models(&["H100"]))), "task \"main\" asks for 3 GPUs, the largest node has 2");
    world.core.admit(&job(1).asks(4, 1, 1).least(3).wants(&models(&["H100"])).shape(), &job(1).policy).unwrap();
}

#[test]
fn constraints_on_gpus_mean_nothing_where_none_are_asked_for() {
    let world = cluster();
    world.core.admit(&job(1).wants(&models(&["none such"])).shape(), &job(1).policy).unwrap();
}

#[test]
fn a_stored_shape_without_constraints_reads_and_writes_as_before() {
    let text = r#"{"namespace":"n","queue":"q","tasks":[{"name":"main","replicas":2,"request":{"cpu":1,"memory":0,"gpus":0}}],"min_available":0}"#;
    let shape: Shape = serde_json::from_str(text).unwrap();
    assert_eq!((shape.arrangement, &shape.tasks[0].constraints), (Arrangement::Pack, &Constraints::NONE));
    assert_eq!(serde_json::to_string(&shape).unwrap(), text);
    let mut full = job(1).asks(1, 1, 1).wants(&Constraints { gpu_memory: MemoryBytes(1), ..mig("1g") }).spread().shape();
    full.tasks[0].constraints.nodes = vec![within("a", &["b"]), Selector::Absent { label: "c".into() }];
    full.tasks[0].constraints.gpu_models = names(&["m"]);
    let again: Shape = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
    assert_eq!(again, full);
    assert_ne!(shape, full);
}

#[test]
fn a_node_with_more_kinds_of_gpus_than_can_be_told_apart_is_refused() {
    let mut node = node("n", 1, 0);
    for kind in 0..9 {
        node = with_gpu(node, &format!("g{kind}"), &format!("model-{kind}"), 1);
    }
    let refused = Scheduler::new(common::config(vec![], vec![node])).err();
    assert_eq!(refused, Some(ConfigError::GpuKinds { node: "n".into(), got: 9 }));
}
