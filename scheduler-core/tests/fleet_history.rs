//! Long random histories on machines that are resized, relabelled, cordoned, lost, removed and brought back while jobs with constraints
//! run on them. After each step all books are audited. What a pass starts is held against the configuration of the machines as this
//! test knows it, and against a core that is rebuilt from the stored jobs.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Build, GIB, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::Name;
use scheduler_core::job::{Constraints, Selector, TaskGroup};
use scheduler_core::state::{JobState, Lifecycle, Slot, StateKind};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{GpuDevice, GpuKind, NodeConfig, NodeState, Scheduler, Why};

#[derive(Clone, Debug)]
enum Step {
    Submit { kind: u8, constraints: u8, limit: Option<u64>, spread: bool },
    Started(u64),
    Ended { job: u64, lost: bool },
    Cancel(u64),
    Advance(i64),
    Plan(usize),
    State { node: u8, state: u8 },
    Set { node: u8, version: u8 },
    Move { gpu: u8, to: u8 },
    Aside { gpu: u8, aside: bool },
    Remove(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let job = 0..60_u64;
    prop_oneof![
        8 => (0..8_u8, 0..14_u8, prop::option::of(1..200_u64), prop::bool::weighted(0.2))
            .prop_map(|(kind, constraints, limit, spread)| Step::Submit { kind, constraints, limit, spread }),
        5 => job.clone().prop_map(Step::Started),
        5 => (job.clone(), prop::bool::weighted(0.2)).prop_map(|(job, lost)| Step::Ended { job, lost }),
        1 => job.prop_map(Step::Cancel),
        3 => (0..40_i64).prop_map(Step::Advance),
        6 => (0..6_usize).prop_map(Step::Plan),
        3 => (0..5_u8, 0..6_u8).prop_map(|(node, state)| Step::State { node, state }),
        2 => (0..5_u8, 0..6_u8).prop_map(|(node, version)| Step::Set { node, version }),
        1 => (0..4_u8, 0..5_u8).prop_map(|(gpu, to)| Step::Move { gpu, to }),
        2 => (0..20_u8, prop::bool::weighted(0.6)).prop_map(|(gpu, aside)| Step::Aside { gpu, aside }),
        1 => (0..5_u8).prop_map(Step::Remove),
        1 => Just(Step::Restart),
    ]
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn gpu(uuid: &str, number: usize) -> GpuDevice {
    let (model, gib) = [("A", 40), ("A", 80), ("B", 80)][number % 3];
    let gpu = GpuDevice::whole(uuid.into(), model.into(), MemoryBytes(gib * GIB));
    let kind = if number % 5 == 4 { GpuKind::Mig { profile: "1g".into() } } else { GpuKind::Whole };
    GpuDevice { kind, link_group: Some((number / 2) as u16).filter(|group| *group < 2), ..gpu }
}

/// A machine as it is configured at one time or another.
fn version(index: u8, version: u8) -> NodeConfig {
    let name = NAMES[usize::from(index)];
    let (cores, gpus) = [(8, 4), (4, 2), (8, 0), (2, 4), (8, 6), (1, 1)][usize::from((version + index) % 6)];
    let mut node = node(name, cores, 0);
    node.gpus = (0..gpus).map(|number| gpu(&format!("{name}-gpu{number}"), number + usize::from(index))).collect();
    let zone = ["x", "y", "z"][usize::from(version % 3)];
    node.labels = BTreeMap::from([("zone".into(), zone.into())]);
    node
}

fn constraints(number: u8) -> Constraints {
    let zone = |values: &[&str]| values.iter().map(|&value| Name::from(value)).collect();
    let (label, memory) = (Name::from("zone"), MemoryBytes(80 * GIB));
    match number {
        0 => Constraints { nodes: vec![Selector::In { label, values: zone(&["x", "y"]) }], ..Constraints::NONE },
        1 => Constraints { nodes: vec![Selector::NotIn { label, values: zone(&["x"]) }], ..Constraints::NONE },
        2 => Constraints { gpu_models: vec!["A".into()], ..Constraints::NONE },
        3 => Constraints { gpu_memory: memory, ..Constraints::NONE },
        4 => Constraints { mig_profile: Some("1g".into()), ..Constraints::NONE },
        5 => Constraints {
            nodes: vec![Selector::Exists { label }],
            gpu_models: vec!["B".into()],
            gpu_memory: memory,
            ..Constraints::NONE
        },
        // Two jobs may ask for the same GPU, and one for a GPU that is not there.
        9..14 => Constraints {
            gpu_uuids: vec![format!("{}-gpu{}", NAMES[usize::from(number - 9)], number % 2).into()],
            ..Constraints::NONE
        },
        _ => Constraints::NONE,
    }
}

fn kind(number: u64, kind: u8) -> Build {
    match kind {
        0 => job(number),
        1 => job(number).asks(1, 1, 1),
        2 => job(number).asks(3, 1, 1).least(2),
        3 => job(number).asks(2, 1, 2),
        4 => job(number).asks(1, 6, 0),
        5 => job(number).asks(4, 2, 0),
        6 => job(number).asks(1, 1, 0).named(&["a-gpu0", "a-gpu1"]),
        _ => job(number).asks(1, 0, 0),
    }
}

struct World {
    core: Scheduler,
    now: Timestamp,
    jobs: Vec<Build>,
    model: BTreeMap<u64, Lifecycle>,
    nodes: BTreeMap<Name, NodeConfig>,
    states: BTreeMap<Name, NodeState>,
}

impl World {
    fn new() -> Self {
        let nodes: Vec<NodeConfig> = (0..4).map(|index| version(index, 0)).collect();
        let core = Scheduler::new(config(vec![queue("q", 0)], nodes.clone())).unwrap();
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        Self { core, now: at(0), jobs: Vec::new(), model: BTreeMap::new(), nodes, states: BTreeMap::new() }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Submit { kind: number, constraints: wanted, limit, spread } => {
                let mut build = kind(self.jobs.len() as u64, *number).attempts(2);
                if *number != 6 {
                    build = build.wants(&constraints(*wanted));
                }
                build = if *spread { build.spread() } else { build };
                build.policy.time_limit = limit.map(Span::from_secs);
                // What no node can hold as they are now is refused, whatever comes later.
                if let Ok(lifecycle) = self.core.submit(build.build(self.now), self.now) {
                    self.model.insert(build.number, lifecycle);
                    self.jobs.push(build);
                }
            }
            Step::Started(job) => {
                let now = self.now;
                self.tell(*job, |attempt| Event::Started { attempt, at: now })?;
            }
            Step::Ended { job, lost } => {
                let now = self.now;
                let result = if *lost { RunResult::Lost { message: "gone".into() } } else { RunResult::Succeeded };
                self.tell(*job, |attempt| Event::Ended { attempt, result, at: now, retry_at: now })?;
            }
            Step::Cancel(job) => self.tell(*job, |_| Event::Cancel { by: "u".into() })?,
            Step::Advance(seconds) => {
                self.now.0 += seconds * 1_000_000;
                for transition in self.core.tick(self.now, 100) {
                    self.enter(&transition)?;
                }
            }
            Step::Plan(limit) => self.plan(*limit)?,
            Step::State { node, state } => self.set_state(*node, *state)?,
            Step::Set { node, version: number } => {
                let mut config = version(*node, *number);
                // GPUs that another machine has got meanwhile stay there.
                let lists = |node: &NodeConfig, uuid: &Name| node.gpus.iter().any(|gpu| gpu.uuid == *uuid);
                let elsewhere = |uuid: &Name| self.nodes.values().any(|other| other.name != config.name && lists(other, uuid));
                config.gpus = config.gpus.iter().filter(|gpu| !elsewhere(&gpu.uuid)).cloned().collect();
                self.set(config);
            }
            Step::Move { gpu, to } => self.move_gpu(*gpu, NAMES[usize::from(*to)]),
            Step::Remove(node) => {
                let name = Name::from(NAMES[usize::from(*node)]);
                prop_assert_eq!(self.core.remove_node(&name).is_ok(), self.nodes.remove(&name).is_some());
                self.states.remove(&name);
            }
            Step::Aside { gpu, aside } => {
                let listed: Vec<Name> = self.nodes.values().flat_map(|node| &node.gpus).map(|gpu| gpu.uuid.clone()).collect();
                if let Some(uuid) = usize::from(*gpu).checked_rem(listed.len()).map(|at| &listed[at]) {
                    self.core.set_gpu_aside(uuid, aside.then(|| "sick".into())).unwrap();
                }
            }
            Step::Restart => self.core = self.rebuilt(|_| true),
        }
        self.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
        self.compare()
    }

    fn set(&mut self, config: NodeConfig) {
        self.core.set_node(config.clone()).unwrap();
        self.nodes.insert(config.name.clone(), config);
    }

    /// Takes a GPU out of one machine and puts it into another, whoever has it.
    fn move_gpu(&mut self, number: u8, to: &str) {
        let Some(mut from) = self.nodes.values().find(|node| node.name.as_str() != to && !node.gpus.is_empty()).cloned() else {
            return;
        };
        let Some(mut to) = self.nodes.get(to).cloned() else { return };
        let gpu = from.gpus.remove(usize::from(number) % from.gpus.len());
        to.gpus.push(gpu);
        self.core.set_node(to.clone()).unwrap_err();
        self.set(from);
        self.set(to);
    }

    fn set_state(&mut self, node: u8, state: u8) -> Result<(), TestCaseError> {
        let states =
            [NodeState::Ready, NodeState::Ready, NodeState::Ready, NodeState::Cordoned, NodeState::Draining, NodeState::Lost];
        let (name, state) = (Name::from(NAMES[usize::from(node)]), states[usize::from(state)]);
        let here = |slot: &Slot| slot.node == name;
        let runs: BTreeSet<u64> = self.active(|slots| slots.iter().any(here));
        let Ok(lost) = self.core.set_node_state(&name, state, self.now) else {
            prop_assert!(!self.nodes.contains_key(&name));
            return Ok(());
        };
        self.states.insert(name.clone(), state);
        let is_lost = |slot: &Slot| self.nodes.contains_key(&slot.node) && self.states.get(&slot.node) == Some(&NodeState::Lost);
        let whole = self.active(|slots| slots.iter().all(is_lost) && slots.iter().any(here));
        let ended: BTreeSet<u64> = lost.ended.iter().map(|transition| transition.seq.0).collect();
        let rest: BTreeSet<u64> = lost.elsewhere.iter().map(|run| run.job.0.as_u128() as u64 & 0xffff).collect();
        if state == NodeState::Lost {
            prop_assert_eq!(&ended, &whole);
            prop_assert_eq!(rest, &runs - &ended);
        } else {
            prop_assert!(ended.is_empty() && rest.is_empty());
        }
        for transition in &lost.ended {
            self.enter(transition)?;
        }
        Ok(())
    }

    /// Numbers of the jobs that hold something, by their slots as the model knows them.
    fn active(&self, pick: impl Fn(&[Slot]) -> bool) -> BTreeSet<u64> {
        let held = |lifecycle: &Lifecycle| lifecycle.state.placement().is_some_and(|placement| pick(&placement.slots));
        self.model.iter().filter(|(_, lifecycle)| held(lifecycle)).map(|(number, _)| *number).collect()
    }

    fn tell(&mut self, number: u64, event: impl FnOnce(scheduler_core::ids::Attempt) -> Event) -> Result<(), TestCaseError> {
        let Some(number) = number.checked_rem(self.jobs.len() as u64) else { return Ok(()) };
        let event = event(self.model[&number].attempt);
        if let Ok(transition) = self.core.handle(id(number), event, self.now) {
            self.enter(&transition)?;
        }
        Ok(())
    }

    fn enter(&mut self, transition: &Transition) -> Result<(), TestCaseError> {
        let before = &self.model[&transition.seq.0];
        prop_assert_eq!(transition.from, (before.state.kind(), before.attempt));
        self.model.insert(transition.seq.0, transition.to.clone());
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        for (&number, lifecycle) in &self.model {
            let view = self.core.view(id(number));
            prop_assert_eq!(view.map(|view| view.lifecycle), Some(lifecycle).filter(|at| at.state.kind() != StateKind::Finished));
        }
        let shown: BTreeSet<&Name> = self.core.nodes().filter(|node| node.configured).map(|node| node.name).collect();
        prop_assert_eq!(shown, self.nodes.keys().collect::<BTreeSet<_>>());
        for node in self.core.nodes() {
            let tasks: usize = self.slots().filter(|(_, slot)| slot.node == *node.name).count();
            prop_assert_eq!(node.tasks as usize, tasks);
            prop_assert!(node.configured || node.tasks > 0 || node.gpus.iter().any(|gpu| gpu.job.is_some()));
        }
        Ok(())
    }

    /// Every task that holds something, with its job.
    fn slots(&self) -> impl Iterator<Item = (u64, &Slot)> {
        let placed = self.model.iter().filter_map(|(number, lifecycle)| Some((*number, lifecycle.state.placement()?)));
        placed.flat_map(|(number, placement)| placement.slots.iter().map(move |slot| (number, slot)))
    }

    /// GPUs that are promised to nobody.
    fn aside(&self) -> BTreeSet<Name> {
        let gpus = self.core.nodes().flat_map(|node| node.gpus);
        gpus.filter(|gpu| gpu.configured && gpu.aside.is_some()).map(|gpu| gpu.uuid.clone()).collect()
    }

    /// A core made from the stored jobs that are asked for, on the machines as they are now.
    fn rebuilt(&self, keep: impl Fn(u64) -> bool) -> Scheduler {
        let configured: Vec<NodeConfig> =
            self.core.nodes().filter(|node| node.configured).map(|node| self.nodes[node.name].clone()).collect();
        let mut core = Scheduler::new(config(vec![queue("q", 0)], configured)).unwrap();
        for (name, state) in &self.states {
            core.set_node_state(name, *state, self.now).unwrap();
        }
        for uuid in self.aside() {
            core.set_gpu_aside(&uuid, Some("sick".into())).unwrap();
        }
        let active: Vec<u64> = self.core.active().map(|(job, _)| job.0.as_u128() as u64 & 0xffff).collect();
        let others = self.model.keys().copied().filter(|number| !active.contains(number));
        for number in active.iter().copied().chain(others.collect::<Vec<_>>()).filter(|&number| keep(number)) {
            let lifecycle = self.model[&number].clone();
            if lifecycle.state.kind() != StateKind::Finished {
                let mut live = self.jobs[number as usize].live(lifecycle);
                live.submitted_at = self.core.view(live.id).unwrap().submitted_at;
                core.restore(live, self.now).unwrap();
            }
        }
        core
    }

    fn plan(&mut self, limit: usize) -> Result<(), TestCaseError> {
        let mut order: Vec<(Timestamp, u64)> = Vec::new();
        for (number, lifecycle) in &self.model {
            if let JobState::Queued { since } = lifecycle.state {
                order.push((since, *number));
            }
        }
        order.sort_unstable();
        let mut twin = self.rebuilt(|_| true);
        let made = self.core.plan(self.now, limit);
        prop_assert_eq!(&twin.plan(self.now, limit), &made, "a rebuilt core decides the same");
        for transition in &made {
            self.enter(transition)?;
        }
        let started: Vec<u64> = made.iter().map(|transition| transition.seq.0).collect();
        for &number in &started {
            self.check_start(number)?;
        }
        let mut owners = BTreeSet::new();
        for uuid in self.slots().flat_map(|(_, slot)| &slot.gpus) {
            prop_assert!(owners.insert(uuid), "{uuid} is promised twice");
        }
        if made.len() < limit {
            self.check_reservation(&order, &started)?;
        }
        Ok(())
    }

    /// Whoever has just started is where it may be, with what it asked for, and there is as much.
    fn check_start(&self, number: u64) -> Result<(), TestCaseError> {
        let build = &self.jobs[number as usize];
        let slots = &self.model[&number].state.placement().unwrap().slots;
        prop_assert!((build.shape().least_tasks()..=build.shape().task_count()).contains(&(slots.len() as u64)));
        for slot in slots {
            let TaskGroup { request, constraints, .. } = &build.tasks[usize::from(slot.group)];
            let node = &self.nodes[&slot.node];
            prop_assert_eq!(self.states.get(&slot.node).copied().unwrap_or_default(), NodeState::Ready);
            prop_assert!(constraints.nodes.iter().all(|selector| selector.accepts(&node.labels)), "{number} on {slot:?}");
            prop_assert_eq!(slot.gpus.len(), request.gpus as usize);
            let aside = self.aside();
            for uuid in &slot.gpus {
                prop_assert!(!aside.contains(uuid), "{uuid} is set aside");
                let gpu = node.gpus.iter().find(|gpu| gpu.uuid == *uuid);
                let gpu = gpu.ok_or_else(|| TestCaseError::fail(format!("{uuid} is not on {}", slot.node)))?;
                prop_assert!(constraints.gpu_models.is_empty() || constraints.gpu_models.contains(&gpu.model));
                prop_assert!(gpu.memory >= constraints.gpu_memory);
                let profile = if let GpuKind::Mig { profile } = &gpu.kind { Some(profile) } else { None };
                prop_assert!(!constraints.gpu_uuids.is_empty() || profile == constraints.mig_profile.as_ref());
                prop_assert!(constraints.gpu_uuids.is_empty() || constraints.gpu_uuids.contains(uuid));
            }
            let requests = self.slots().filter(|(_, other)| other.node == slot.node);
            let requests = requests.map(|(number, other)| self.jobs[number as usize].tasks[usize::from(other.group)].request);
            let (cpu, memory) = requests.fold((0, 0), |sum, request| (sum.0 + request.cpu.0, sum.1 + request.memory.0));
            let asks = request.cpu.0 + request.memory.0 > 0;
            prop_assert!(
                !asks || (CpuMillis(cpu) <= node.cpu && MemoryBytes(memory) <= node.memory),
                "{} is overcommitted",
                node.name
            );
        }
        Ok(())
    }

    /// The first job that stayed behind can start no later with those that passed it than without them.
    fn check_reservation(&self, order: &[(Timestamp, u64)], started: &[u64]) -> Result<(), TestCaseError> {
        let Some(position) = order.iter().position(|(_, number)| !started.contains(number)) else { return Ok(()) };
        let head = order[position].1;
        let before = |number: &u64| order[..position].iter().any(|(_, other)| other == number);
        let passed: Vec<u64> = started.iter().copied().filter(|number| !before(number)).collect();
        let without = self.rebuilt(|number| !passed.contains(&number));
        let expected = |core: &Scheduler| match core.explain(id(head), self.now).unwrap().why {
            Why::Resources { expected, .. } => Ok(expected),
            // Nothing is reserved for what no node could take.
            Why::Never(_) | Why::NodesClosed { .. } | Why::GpusAside { .. } | Why::NoNodes => Ok(None),
            why => Err(TestCaseError::fail(format!("{head}: {why:?}"))),
        };
        let (with, without) = (expected(&self.core)?, expected(&without)?);
        let later = match (with, without) {
            (Some(with), Some(without)) => with > without,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        prop_assert!(!later, "{passed:?} delayed {head} from {without:?} to {with:?}");
        Ok(())
    }
}

/// Machines stay as they are, and passes come often.
fn calm() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..7_u8, 0..9_u8, prop::option::weighted(0.8, 1..100_u64), prop::bool::weighted(0.2))
            .prop_map(|(kind, constraints, limit, spread)| Step::Submit { kind, constraints, limit, spread }),
        4 => (0..60_u64).prop_map(Step::Started),
        2 => (0..60_u64).prop_map(|job| Step::Ended { job, lost: false }),
        1 => (0..40_i64).prop_map(Step::Advance),
        4 => Just(Step::Plan(100)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn machines_may_change_as_they_like(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
        // In the end nothing is left of what is not configured any more.
        let active: Vec<u64> = world.active(|_| true).into_iter().collect();
        for number in active {
            world.run(&Step::Ended { job: number, lost: false })?;
        }
        prop_assert!(world.core.nodes().all(|node| node.configured && node.tasks == 0 && (node.cpu_used.0, node.memory_used.0) == (0, 0)));
        prop_assert!(world.core.nodes().flat_map(|node| node.gpus).all(|gpu| gpu.job.is_none() && gpu.configured));
    }
    #[test]
    fn reservations_hold_whatever_nodes_and_gpus_jobs_ask_for(steps in prop::collection::vec(calm(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
    }
}
