//! Parts of GPUs that device plugins give out: where they go, as what they count, what is refused, and that nothing is promised twice or lost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{Build, GIB, World, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::amounts::{CpuMillis, GpuShare, MemoryBytes};
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::Name;
use scheduler_core::job::Constraints;
use scheduler_core::scheduler::{GpuDevice, GpuKind, NodeConfig, Resource};
use scheduler_core::state::{Lifecycle, StateKind};
use scheduler_core::{Config, ConfigError, Discipline, Limits, Preemption, QueueConfig, Refused, Scheduler, Why};

/// A node whose `gpus` GPUs are given out in parts, so many of each.
fn sharing(name: &str, gpus: u32, replicas: u32) -> NodeConfig {
    let kind = GpuKind::Replica { millis: 1000 / replicas };
    let part = |number| GpuDevice {
        kind: kind.clone(),
        ..GpuDevice::whole(format!("{name}-part{number}").as_str().into(), "H200".into(), MemoryBytes(80 * GIB))
    };
    NodeConfig::new(name.into(), CpuMillis(64_000), MemoryBytes(64 * GIB), (0..gpus * replicas).map(part).collect())
}

fn ask(number: u64, millis: u32) -> Build {
    job(number).replica(millis, 0)
}

/// What each task has, in thousandths.
fn had(world: &World, number: u64) -> Vec<u32> {
    let view = world.core.view(id(number)).unwrap();
    view.lifecycle.state.placement().unwrap().slots.iter().map(|slot| slot.share.unwrap().millis).collect()
}

#[test]
fn a_part_is_had_whole_and_as_large_as_its_node_makes_it() {
    let mut world = World::new(vec![queue("q", 0)], vec![sharing("a", 1, 4), sharing("b", 1, 2), node("c", 64, 2)]);
    let many = job(9).asks(20, 1, 1).replica(500, 0);
    let sum = Refused::JobTooLarge { resource: Resource::Gpu, asked: 10_000, total: 4000, task: "main".into(), possible: 2 };
    assert_eq!(world.core.admit(&many.shape(), &many.policy), Err(sum), "parts count as parts");
    world.submit(&ask(1, 500), at(0));
    world.submit(&ask(2, 500), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    assert_eq!([world.places(1), world.places(2)], [["0.0@b[b-part0]"], ["0.0@b[b-part1]"]]);
    world.submit(&ask(3, 251), at(0));
    assert_eq!(world.run(at(0)), [] as [u64; 0], "no part of a is as large, and no whole GPU is divided");
    world.submit(&job(4).asks(4, 1, 1).replica(1, 0), at(0));
    assert_eq!((world.run(at(0)), had(&world, 4)), (vec![4], vec![250; 4]));
    let share = world.core.view(id(4)).unwrap().lifecycle.state.placement().unwrap().slots[0].share;
    assert_eq!(share, Some(GpuShare { millis: 250, memory: MemoryBytes(20 * GIB) }));
    world.submit(&ask(5, 1), at(0));
    assert_eq!(world.run(at(0)), [] as [u64; 0], "nobody joins who has a part");
    world.submit(&job(6).asks(1, 1, 2), at(0));
    world.submit(&job(7).part(100, 0), at(0));
    assert_eq!(world.run(at(0)), [6], "whole ones, and parts of whole ones, are others");
    assert_eq!(world.places(6), ["0.0@c[c-gpu0,c-gpu1]"]);
    world.done(1, at(1));
    world.done(6, at(1));
    assert_eq!(world.run(at(1)), [3, 7], "the first of those that wait, and it is rounded up");
    assert_eq!(
        (had(&world, 3), world.places(3), world.places(7)),
        (vec![500], vec!["0.0@b[b-part0]".to_owned()], vec!["0.0@c[c-gpu0]".to_owned()])
    );
}

#[test]
fn memory_is_as_large_a_part_as_of_the_gpu() {
    let mut world = World::new(vec![queue("q", 0)], vec![sharing("a", 1, 4), sharing("b", 1, 2)]);
    world.submit(&job(1).replica(100, 21 * GIB), at(0));
    assert_eq!((world.run(at(0)), world.places(1)), (vec![1], vec!["0.0@b[b-part0]".to_owned()]), "a quarter has 20 GiB");
    let refused = |build: &Build| world.core.admit(&build.shape(), &build.policy).unwrap_err();
    let half = GpuShare { millis: 500, memory: MemoryBytes(40 * GIB) };
    let of = |millis, gib| GpuShare { millis, memory: MemoryBytes(gib * GIB) };
    let none = |asked, largest| Refused::NoReplica { task: "main".into(), asked, largest };
    assert_eq!(refused(&job(2).replica(100, 41 * GIB)), none(of(100, 41), Some(half)));
    assert_eq!(refused(&ask(2, 501)), none(of(501, 0), Some(half)));
    let said = refused(&ask(2, 501)).to_string();
    assert!(
        said.starts_with("task \"main\" asks for 0.501 of a GPU, the largest part that a node gives out is 0.5 with"),
        "{said}"
    );
    let constraints = Constraints { gpu_models: vec!["T4".into()], ..ask(2, 100).tasks[0].constraints.clone() };
    assert!(matches!(refused(&ask(2, 100).wants(&constraints)), Refused::NoGpuModel { .. }));
    assert!(matches!(refused(&job(2).asks(1, 1, 1)), Refused::NoGpuKind { asked: None, .. }), "none is whole");
    assert!(matches!(refused(&job(2).part(100, 0)), Refused::NoGpuKind { .. }), "nor is one divided by us");
    for nodes in [vec![], vec![node("c", 8, 2)], vec![node("d", 8, 0)]] {
        let other = World::new(vec![queue("q", 0)], nodes);
        let got = other.core.admit(&ask(1, 500).shape(), &ask(1, 500).policy).unwrap_err();
        assert_eq!(got.to_string(), "task \"main\" asks for 0.5 of a GPU, no node gives out parts of GPUs");
    }
    for millis in [0, 1000] {
        let mut bad = sharing("a", 1, 2);
        bad.gpus[1].kind = GpuKind::Replica { millis };
        let got = Scheduler::new(config(vec![queue("q", 0)], vec![bad])).err();
        assert_eq!(got, Some(ConfigError::GpuReplica { uuid: "a-part1".into(), got: millis }));
    }
}

#[test]
fn limits_and_use_count_what_is_had() {
    let limit = Limits { gpus: Some(1), ..Limits::NONE };
    let mut world = World::new(vec![QueueConfig { limit, ..queue("q", 0) }], vec![sharing("a", 4, 2)]);
    let used = |world: &World| world.core.queues().next().unwrap().gpu_millis_used;
    for number in 1..=3 {
        world.submit(&ask(number, 100), at(0));
    }
    assert_eq!((world.run(at(0)), used(&world)), (vec![1, 2], 1000), "three of them are a GPU and a half");
    world.submit(&job(4).asks(2, 1, 1).replica(1, 0), at(0));
    assert_eq!(world.run(at(0)), [] as [u64; 0]);
    world.done(1, at(1));
    let mut only = World::new(vec![QueueConfig { limit, ..queue("q", 0) }], vec![sharing("a", 4, 2)]);
    for number in 1..=2 {
        only.submit(&ask(number, if number == 1 { 500 } else { 1 }), at(0));
    }
    only.submit(&job(3).asks(2, 1, 1).replica(1, 0).priority(-1), at(0));
    assert_eq!(only.run(at(0)), [1, 2]);
    only.done(2, at(1));
    assert_eq!(only.run(at(1)), [] as [u64; 0]);
    let why = only.core.explain(id(3), at(1)).unwrap().why;
    let by_what_it_would_have = matches!(&why, Why::Limit { held: 500, asked: 1000, limit: 1000, .. });
    assert!(by_what_it_would_have, "{why:?}");
    assert_eq!((world.run(at(1)), used(&world)), (vec![3], 1000));
    world.done(2, at(2));
    world.done(3, at(2));
    assert_eq!((world.run(at(2)), used(&world)), (vec![4], 1000));
    world.done(4, at(3));
    // More than the limit allows by what it would have: it keeps nobody back for ever.
    world.submit(&job(5).asks(3, 1, 1).replica(1, 0), at(3));
    world.submit(&ask(6, 1), at(3));
    assert_eq!((world.run(at(3)), used(&world)), (vec![6], 500));
}

#[test]
fn one_that_waits_has_a_reservation_and_others_pass_beside_it() {
    for discipline in [Discipline::Easy, Discipline::Conservative { heads: 2 }] {
        let config = Config { discipline, ..config(vec![queue("q", 0)], vec![sharing("a", 1, 2), sharing("b", 1, 4)]) };
        let mut world = World { core: Scheduler::new(config).unwrap() };
        world.submit(&ask(1, 500).limit(100), at(0));
        world.submit(&ask(2, 500).limit(200), at(0));
        assert_eq!(world.run(at(0)), [1, 2]);
        world.submit(&ask(3, 500).priority(5).limit(50), at(0));
        world.submit(&ask(4, 100), at(0));
        assert_eq!(world.run(at(0)), [4], "{discipline:?}: on the other node, where nothing is kept");
        assert_eq!(world.places(4), ["0.0@b[b-part0]"]);
        world.done(1, at(60));
        assert_eq!(world.run(at(60)), [3]);
        assert_eq!(world.places(3), ["0.0@a[a-part0]"]);
    }
}

#[test]
fn a_part_gives_way_to_higher_priority() {
    let queues = vec![QueueConfig { preemptible: true, ..queue("q", 0) }];
    let preemption = Preemption { within_queue: true, ..Preemption::default() };
    let config = Config { preemption, ..config(queues, vec![sharing("a", 1, 2)]) };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    world.submit(&ask(1, 100), at(0));
    world.submit(&ask(2, 100), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&ask(3, 400).priority(5), at(1));
    assert_eq!(world.plan(at(1)).len(), 1, "one of them is enough");
    let ending = [1, 2].into_iter().find(|number| world.state(*number) == Some(StateKind::Stopping)).unwrap();
    world.ended(ending, RunResult::Succeeded, at(2));
    assert_eq!(world.run(at(2)), [3]);
}

#[test]
fn a_node_that_makes_other_parts_leaves_what_is_had() {
    let mut world = World::new(vec![queue("q", 0)], vec![sharing("a", 1, 2)]);
    world.submit(&ask(1, 300), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.core.set_node(sharing("a", 1, 4)).unwrap();
    world.core.check_invariants().unwrap();
    assert_eq!(had(&world, 1), [500]);
    world.submit(&job(2).asks(3, 1, 1).replica(250, 0), at(1));
    assert_eq!((world.run(at(1)), had(&world, 2)), (vec![2], vec![250; 3]));
    assert_eq!(world.core.queues().next().unwrap().gpu_millis_used, 1250);
    world.done(1, at(2));
    world.done(2, at(2));
    assert_eq!(world.core.queues().next().unwrap().gpu_millis_used, 0);
    world.core.set_node(node("a", 64, 2)).unwrap();
    world.core.check_invariants().unwrap();
}

/// A step of the history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Submit {
        tasks: u32,
        millis: u32,
        limit: bool,
    },
    Plan,
    Start(usize),
    End(usize),
    Aside(usize),
    /// The first node makes parts of another size.
    Divide(u32),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_u32, prop::sample::select(vec![1, 100, 250, 333, 500]), any::<bool>())
            .prop_map(|(tasks, millis, limit)| Step::Submit { tasks, millis, limit }),
        4 => Just(Step::Plan),
        2 => (0..64_usize).prop_map(Step::Start),
        3 => (0..64_usize).prop_map(Step::End),
        1 => (0..64_usize).prop_map(Step::Aside),
        1 => (2..5_u32).prop_map(Step::Divide),
        1 => Just(Step::Crash),
    ]
}

/// What the store has.
struct Row {
    build: Build,
    lifecycle: Lifecycle,
}

struct History {
    core: Scheduler,
    nodes: Vec<NodeConfig>,
    limit: Limits,
    rows: BTreeMap<u64, Row>,
    aside: Vec<Name>,
    next: u64,
}

impl History {
    fn new() -> Self {
        let nodes = vec![sharing("a", 2, 2), sharing("b", 1, 4), sharing("c", 1, 3), node("d", 8, 1)];
        let limit = Limits { gpus: Some(3), ..Limits::NONE };
        Self { core: Self::core(&nodes, limit), nodes, limit, rows: BTreeMap::new(), aside: Vec::new(), next: 1 }
    }

    fn core(nodes: &[NodeConfig], limit: Limits) -> Scheduler {
        Scheduler::new(config(vec![QueueConfig { limit, ..queue("q", 0) }], nodes.to_vec())).unwrap()
    }

    fn of(&self, kinds: &[StateKind], pick: usize) -> Option<u64> {
        let fit: Vec<u64> =
            self.rows.iter().filter(|(_, row)| kinds.contains(&row.lifecycle.state.kind())).map(|(number, _)| *number).collect();
        (!fit.is_empty()).then(|| fit[pick % fit.len()])
    }

    fn write(&mut self, number: u64, lifecycle: Lifecycle) {
        if lifecycle.state.kind() == StateKind::Finished {
            self.rows.remove(&number);
        } else {
            self.rows.get_mut(&number).unwrap().lifecycle = lifecycle;
        }
    }

    fn step(&mut self, number: usize, step: Step) {
        let now = at(number as i64);
        match step {
            Step::Submit { tasks, millis, limit } => {
                let build = job(self.next).asks(tasks, 1, 1).replica(millis, 0);
                let build = if limit { build.limit(50) } else { build };
                if let Ok(lifecycle) = self.core.submit(build.build(now), now) {
                    self.rows.insert(self.next, Row { build, lifecycle });
                    self.next += 1;
                }
            }
            Step::Plan => {
                for made in self.core.plan(now, usize::MAX) {
                    self.write(made.seq.0, made.to);
                }
            }
            Step::Start(pick) => {
                let Some(number) = self.of(&[StateKind::Starting], pick) else { return };
                let attempt = self.rows[&number].lifecycle.attempt;
                let made = self.core.handle(id(number), Event::Started { attempt, at: now }, now).unwrap();
                self.write(number, made.to);
            }
            Step::End(pick) => {
                let Some(number) = self.of(&[StateKind::Starting, StateKind::Running], pick) else { return };
                let attempt = self.rows[&number].lifecycle.attempt;
                let event = Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now };
                let made = self.core.handle(id(number), event, now).unwrap();
                self.write(number, made.to);
            }
            Step::Aside(pick) => {
                let all: Vec<Name> = self.nodes.iter().flat_map(|node| &node.gpus).map(|gpu| gpu.uuid.clone()).collect();
                let uuid = all[pick % all.len()].clone();
                let is_aside = self.aside.contains(&uuid);
                self.core.set_gpu_aside(&uuid, (!is_aside).then(|| "in use by others".into())).unwrap();
                self.aside.retain(|other| *other != uuid);
                self.aside.extend((!is_aside).then_some(uuid));
            }
            Step::Divide(replicas) => {
                self.nodes[0] = sharing("a", 2, replicas);
                self.core.set_node(self.nodes[0].clone()).unwrap();
                let there = |uuid: &Name| self.nodes.iter().flat_map(|node| &node.gpus).any(|gpu| gpu.uuid == *uuid);
                self.aside.retain(there);
            }
            Step::Crash => self.crash(number),
        }
    }

    /// Everything but the rows is gone.
    fn crash(&mut self, number: usize) {
        let mut core = Self::core(&self.nodes, self.limit);
        for row in self.rows.values() {
            let stored = serde_json::to_string(&row.lifecycle).unwrap();
            core.restore(row.build.live(serde_json::from_str(&stored).unwrap()), at(number as i64)).unwrap();
        }
        for uuid in &self.aside {
            core.set_gpu_aside(uuid, Some("in use by others".into())).unwrap();
        }
        let seen = |core: &Scheduler| {
            let parts: BTreeMap<Name, Vec<_>> = core
                .nodes()
                .flat_map(|node| node.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>())
                .map(|uuid| (uuid.clone(), core.gpu_sharers(&uuid).collect()))
                .collect();
            (parts, core.queues().next().unwrap().gpu_millis_used)
        };
        assert_eq!(seen(&core), seen(&self.core), "what was rebuilt is another");
        self.core = core;
    }

    /// By the rows alone: each part has one task, of a node that is as large as asked for, and all of them are within the limit.
    fn check(&self) {
        self.core.check_invariants().unwrap();
        let mut tasks: BTreeMap<&Name, u64> = BTreeMap::new();
        let mut sum = 0;
        for (number, row) in &self.rows {
            let Some(placement) = row.lifecycle.state.placement() else { continue };
            for slot in &placement.slots {
                let asked = row.build.tasks[0].constraints.gpu_share.unwrap();
                let share = slot.share.unwrap();
                assert!(share.millis >= asked.millis && slot.gpus.len() == 1, "{number}: {slot:?}");
                assert!(slot.gpus[0].as_str().starts_with(slot.node.as_str()), "{slot:?}");
                sum += u64::from(share.millis);
                if let Some(other) = tasks.insert(&slot.gpus[0], *number) {
                    panic!("{} is of {other} and of {number}", slot.gpus[0]);
                }
            }
        }
        assert!(sum <= 3000, "{sum} are beyond the limit");
        assert_eq!(self.core.queues().next().unwrap().gpu_millis_used, sum);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, starts, ends, is set aside or divided anew, and after any crash: never more tasks than parts, and what counts is what is had.
    #[test]
    fn no_part_is_promised_twice_and_nothing_is_lost(steps in prop::collection::vec(step(), 1..120)) {
        let mut history = History::new();
        for (number, step) in steps.into_iter().enumerate() {
            history.step(number, step);
            history.check();
        }
    }
}
