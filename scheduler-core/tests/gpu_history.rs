//! Ten thousand steps of jobs that come, start, end and are lost, of crashes, lost nodes, drained GPUs and divided ones, on eight nodes with eight
//! GPUs each: at no time is any GPU promised twice.
//!
//! The books against which that is held are this file's own. They know of the core only the transitions that it gives out, which is what the store
//! would write; a crash throws the core away and makes another one from the rows, through their JSON. `FLASH_GPU_SEEDS=100` tries so
//! many seeds, `FLASH_GPU_SEED=7` that one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Build, GIB, at, id, job, queue};
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{Attempt, Name};
use scheduler_core::job::{Constraints, LiveJob};
use scheduler_core::scheduler::{GpuDevice, GpuKind, NodeConfig, NodeState};
use scheduler_core::state::{Lifecycle, Placement, StateKind};
use scheduler_core::time::Timestamp;
use scheduler_core::{Config, Discipline, Preemption, QueueConfig, Scheduler};

const STEPS: u32 = 10_000;
const NODES: usize = 8;
const GPUS: usize = 8;
/// Instances of a divided GPU.
const INSTANCES: usize = 7;

/// Numbers that only depend on the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.below(list.len() as u64) as usize) }
    }
}

/// Who has what of one GPU.
#[derive(Default, Debug)]
struct Promised {
    whole: Option<u64>,
    /// Job, thousandths and bytes of each task.
    parts: Vec<(u64, u32, u64)>,
}

/// A row of the table.
struct Row {
    build: Build,
    lifecycle: Lifecycle,
}

struct World {
    seed: u64,
    random: Random,
    core: Scheduler,
    config: Config,
    lost: BTreeSet<Name>,
    aside: BTreeSet<Name>,
    divided: BTreeSet<(usize, usize)>,
    rows: BTreeMap<u64, Row>,
    books: BTreeMap<Name, Promised>,
    next: u64,
    seconds: i64,
    /// How much of each kind was promised: whole GPUs, parts, parts with memory, MIG instances; the most parts on one GPU; whole GPUs, parts and MIG
    /// instances by UUID.
    seen: [u64; 8],
}

fn gpus(node: usize, divided: &BTreeSet<(usize, usize)>) -> Vec<GpuDevice> {
    let whole = |gpu: usize| {
        let uuid = format!("GPU-{node}-{gpu}");
        let memory = if node < 4 { 80 } else { 40 };
        GpuDevice {
            link_group: node.is_multiple_of(2).then_some((gpu / 4) as u16),
            ..GpuDevice::whole(uuid.as_str().into(), if node < 4 { "H100" } else { "A100" }.into(), MemoryBytes(memory * GIB))
        }
    };
    let parts = |gpu: usize| {
        (0..INSTANCES).map(move |part| GpuDevice {
            kind: GpuKind::Mig { profile: "1g".into() },
            memory: MemoryBytes(10 * GIB),
            uuid: format!("MIG-{node}-{gpu}-{part}").as_str().into(),
            link_group: None,
            ..whole(gpu)
        })
    };
    let each = |gpu: usize| if divided.contains(&(node, gpu)) { parts(gpu).collect() } else { vec![whole(gpu)] };
    (0..GPUS).flat_map(each).collect()
}

fn node(index: usize, divided: &BTreeSet<(usize, usize)>) -> NodeConfig {
    let (cpu, memory) = (CpuMillis(64_000), MemoryBytes(512 * GIB));
    NodeConfig::new(format!("n{index}").as_str().into(), cpu, memory, gpus(index, divided))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let divided: BTreeSet<_> = [(6, 0), (6, 1), (7, 0), (7, 7)].into();
        let queues = vec![QueueConfig { preemptible: true, ..queue("q", 0) }, queue("high", 1000)];
        let discipline = [Discipline::Easy, Discipline::Conservative { heads: 4 }, Discipline::Strict][random.below(3) as usize];
        let preemption = Preemption { across_queues: random.below(2) == 0, ..Preemption::default() };
        let nodes = (0..NODES).map(|index| node(index, &divided)).collect();
        let config = Config { queues, nodes, discipline, preemption, ..Config::default() };
        let core = Scheduler::new(config.clone()).unwrap();
        let (lost, aside) = (BTreeSet::new(), BTreeSet::new());
        let (rows, books) = (BTreeMap::new(), BTreeMap::new());
        Self { seed, random, core, config, lost, aside, divided, rows, books, next: 1, seconds: 0, seen: [0; 8] }
    }

    fn now(&self) -> Timestamp {
        at(self.seconds)
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {}, second {}: {what}", self.seed, self.seconds)
    }

    fn device(&self, uuid: &Name) -> Option<(&Name, &GpuDevice)> {
        let listed = self.config.nodes.iter().flat_map(|node| node.gpus.iter().map(move |gpu| (&node.name, gpu)));
        listed.into_iter().find(|(_, gpu)| gpu.uuid == *uuid)
    }

    /// Enters what a transition promises, by the job's own words alone.
    fn promise(&mut self, number: u64, placement: &Placement) {
        let tasks = self.rows[&number].build.tasks.clone();
        for slot in &placement.slots {
            let group = &tasks[usize::from(slot.group)];
            let asked = &group.constraints;
            assert_eq!(slot.gpus.len(), group.request.gpus as usize);
            assert_eq!(slot.gpus.iter().collect::<BTreeSet<_>>().len(), slot.gpus.len(), "seed {}", self.seed);
            for uuid in &slot.gpus {
                let Some((node, gpu)) = self.device(uuid) else { self.fail(&format!("{uuid} is not listed")) };
                assert_eq!(*node, slot.node, "seed {}", self.seed);
                let profile = if let GpuKind::Mig { profile } = &gpu.kind { Some(profile) } else { None };
                let total = gpu.memory.0;
                if asked.gpu_uuids.is_empty() {
                    assert_eq!(profile, asked.mig_profile.as_ref(), "seed {}", self.seed);
                } else if asked.gpu_uuids.contains(uuid) {
                    self.seen[if profile_is_mig(uuid) { 7 } else { 5 + usize::from(asked.gpu_share.is_some()) }] += 1;
                } else {
                    self.fail(&format!("{number} named {:?} and got {uuid}", asked.gpu_uuids));
                }
                if self.aside.contains(uuid) || self.lost.contains(&slot.node) {
                    self.fail(&format!("{uuid} of {} is out of service and was promised to {number}", slot.node));
                }
                let taken = self.books.entry(uuid.clone()).or_default();
                match (slot.share, asked.gpu_share) {
                    (None, None) => {
                        if taken.whole.is_some() || !taken.parts.is_empty() {
                            let taken = format!("{uuid} whole for {number} beside {taken:?}");
                            self.fail(&taken);
                        }
                        taken.whole = Some(number);
                        self.seen[if profile_is_mig(uuid) { 3 } else { 0 }] += 1;
                    }
                    (Some(share), Some(asked)) => {
                        assert_eq!(share.millis, asked.millis, "seed {}", self.seed);
                        let memory = if asked.memory.0 == 0 { total * u64::from(asked.millis) / 1000 } else { asked.memory.0 };
                        assert_eq!(share.memory.0, memory, "seed {}", self.seed);
                        taken.parts.push((number, share.millis, share.memory.0));
                        let millis: u32 = taken.parts.iter().map(|part| part.1).sum();
                        let memory: u64 = taken.parts.iter().map(|part| part.2).sum();
                        self.seen[1] += 1;
                        self.seen[2] += u64::from(asked.memory.0 > 0);
                        self.seen[4] = self.seen[4].max(taken.parts.len() as u64);
                        if taken.whole.is_some() || millis > 1000 || memory > total {
                            let taken = format!("{uuid} of {total} bytes: {taken:?}");
                            self.fail(&taken);
                        }
                    }
                    (got, asked) => self.fail(&format!("{number} asked {asked:?} and got {got:?}")),
                }
            }
        }
    }

    fn take_back(&mut self, number: u64) {
        for taken in self.books.values_mut() {
            taken.parts.retain(|part| part.0 != number);
            taken.whole = taken.whole.filter(|owner| *owner != number);
        }
    }

    /// What the store would write, and what follows for the books.
    fn write(&mut self, made: Transition) {
        let number = made.seq.0;
        let before = self.rows[&number].lifecycle.state.placement().cloned();
        let after = made.to.state.placement().cloned();
        match (before, after) {
            (None, Some(placement)) => self.promise(number, &placement),
            (Some(_), None) => self.take_back(number),
            (before, after) => assert_eq!(before, after, "seed {}: a run moved", self.seed),
        }
        if made.to.state.kind() == StateKind::Finished {
            self.rows.remove(&number);
        } else if let Some(row) = self.rows.get_mut(&number) {
            row.lifecycle = made.to;
        }
    }

    /// One to three GPUs of a node, or instances; now and then one that is gone.
    fn some_gpus(&mut self) -> Vec<Name> {
        let index = self.random.below(NODES as u64) as usize;
        let listed: Vec<Name> = node(index, &self.divided).gpus.into_iter().map(|gpu| gpu.uuid).collect();
        let mut chosen: BTreeSet<Name> = BTreeSet::new();
        for _ in 0..=self.random.below(3) {
            chosen.extend(self.random.of(&listed).cloned());
        }
        if self.random.below(20) == 0 {
            chosen.insert(format!("GPU-{index}-{}", self.random.below(GPUS as u64)).as_str().into());
        }
        chosen.into_iter().collect()
    }

    fn submit(&mut self) {
        let number = self.next;
        self.next += 1;
        let limit = 10 + self.random.below(200);
        let tasks = 1 + self.random.below(3) as u32;
        let build = job(number).priority(self.random.below(3) as i32);
        let build = if self.random.below(2) == 0 { build.limit(limit) } else { build };
        let build = if self.random.below(6) == 0 { build.queue("high") } else { build };
        let memory = (1 + self.random.below(40)) * GIB;
        let millis = [100, 250, 300, 500, 700, 999][self.random.below(6) as usize];
        let build = match self.random.below(13) {
            0 => build.asks(1, 1, 1 + self.random.below(8) as u32),
            1 => build.asks(tasks, 1, 1 + self.random.below(2) as u32),
            2 => {
                let mig = Constraints { mig_profile: Some("1g".into()), ..Constraints::NONE };
                build.asks(tasks, 1, 1).wants(&mig)
            }
            3 => build.asks(tasks, 1, 1).part(millis, 0),
            4 => build.asks(1, 1, 1).part(millis, memory),
            5 => build.asks(5, 1, 1).part(millis, memory).least(2),
            6 => build.asks(tasks, 1, 1).part(millis, 0).spread(),
            7 => {
                let mut mixed = build.asks(1, 1, 1).part(millis, 0).task("whole", 1, 1, 1);
                mixed.tasks[0].name = "part".into();
                mixed
            }
            9..12 => {
                let uuids = self.some_gpus();
                let uuids: Vec<&str> = uuids.iter().map(Name::as_str).collect();
                match self.random.below(4) {
                    0 => build.asks(1, 1, 0).named(&uuids[..1]).part(millis, 0),
                    1 => build.asks(1, 1, 0).named(&uuids).task("other", 1, 1, 1 + self.random.below(3) as u32),
                    _ => build.asks(1, 1, 0).named(&uuids),
                }
            }
            _ => build.asks(1, 1, 1).part(millis, 0),
        };
        let now = self.now();
        // A part of an A100 cannot be as large as one of an H100, and while GPUs are divided some jobs fit nowhere: that is no matter here.
        if let Ok(lifecycle) = self.core.submit(build.build(now), now) {
            self.rows.insert(number, Row { build, lifecycle });
        }
    }

    fn plan(&mut self) {
        let limit = 1 + self.random.below(50) as usize;
        for made in self.core.plan(self.now(), limit) {
            self.write(made);
        }
    }

    fn of_state(&self, kinds: &[StateKind]) -> Vec<(u64, Attempt)> {
        let rows = self.rows.iter().filter(|(_, row)| kinds.contains(&row.lifecycle.state.kind()));
        rows.map(|(number, row)| (*number, row.lifecycle.attempt)).collect()
    }

    fn report(&mut self) {
        let now = self.now();
        let active = self.of_state(&[StateKind::Starting, StateKind::Running, StateKind::Stopping]);
        let Some(&(number, attempt)) = self.random.of(&active) else { return };
        let event = match self.random.below(5) {
            0 | 1 => Event::Started { attempt, at: now },
            2 => Event::Cancel { by: "ada".into() },
            other => {
                let message = Name::from("gone");
                let result = if other == 3 { RunResult::Succeeded } else { RunResult::Lost { message } };
                Event::Ended { attempt, result, at: now, retry_at: now }
            }
        };
        // Said twice, and of a run that is long over, it changes nothing.
        for _ in 0..2 {
            if let Ok(made) = self.core.handle(id(number), event.clone(), now) {
                self.write(made);
            }
        }
    }

    /// Ends enough that there is always something to promise again.
    fn end_some(&mut self) {
        let now = self.now();
        for (number, attempt) in self.of_state(&[StateKind::Starting, StateKind::Running, StateKind::Stopping]) {
            if self.random.below(3) == 0 {
                let event = Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now };
                let made = self.core.handle(id(number), event, now).unwrap();
                self.write(made);
            }
        }
    }

    /// Everything but the rows is gone.
    fn crash(&mut self) {
        let mut core = Scheduler::new(self.config.clone()).unwrap();
        let now = self.now();
        let mut order: Vec<u64> = self.rows.keys().copied().collect();
        (0..order.len()).for_each(|at| order.swap(at, self.random.below(at as u64 + 1) as usize));
        for number in order {
            let Row { build, lifecycle } = &self.rows[&number];
            let stored = serde_json::to_string(lifecycle).unwrap();
            let lifecycle: Lifecycle = serde_json::from_str(&stored).unwrap();
            let live: LiveJob = build.live(lifecycle);
            if let Err(error) = core.restore(live, now) {
                self.fail(&error.to_string());
            }
        }
        self.core = core;
        for uuid in self.aside.clone() {
            self.core.set_gpu_aside(&uuid, Some("drained".into())).unwrap();
        }
        for name in self.lost.clone() {
            let ended = self.core.set_node_state(&name, NodeState::Lost, now).unwrap().ended;
            for made in ended {
                self.write(made);
            }
        }
    }

    fn lose_or_find_node(&mut self) {
        let name = Name::from(format!("n{}", self.random.below(NODES as u64)));
        let state = if self.lost.contains(&name) { NodeState::Ready } else { NodeState::Lost };
        let lost = self.core.set_node_state(&name, state, self.now()).unwrap();
        for made in lost.ended {
            self.write(made);
        }
        let now = self.now();
        for run in lost.elsewhere {
            let message = Name::from("its node was lost");
            let event = Event::Ended { attempt: run.attempt, result: RunResult::Lost { message }, at: now, retry_at: now };
            let made = self.core.handle(run.job, event, now).unwrap();
            self.write(made);
        }
        if state == NodeState::Lost {
            self.lost.insert(name)
        } else {
            self.lost.remove(&name)
        };
    }

    fn drain_or_resume_gpu(&mut self) {
        let listed: Vec<Name> = self.config.nodes.iter().flat_map(|node| &node.gpus).map(|gpu| gpu.uuid.clone()).collect();
        let resumes = self.random.below(2) == 0;
        let drained: Vec<Name> = self.aside.iter().cloned().collect();
        let from = if resumes { &drained } else { &listed };
        let Some(uuid) = self.random.of(from).cloned() else { return };
        self.core.set_gpu_aside(&uuid, (!resumes).then(|| "drained".into())).unwrap();
        if resumes {
            self.aside.remove(&uuid)
        } else {
            self.aside.insert(uuid)
        };
    }

    /// Has a GPU divided that nobody has, or made whole again.
    fn divide_or_join(&mut self) {
        let (index, gpu) = (self.random.below(NODES as u64) as usize, self.random.below(GPUS as u64) as usize);
        let of_gpu = |uuid: &Name| {
            let uuid = uuid.as_str();
            uuid == format!("GPU-{index}-{gpu}") || uuid.starts_with(&format!("MIG-{index}-{gpu}-"))
        };
        let busy = self.books.iter().any(|(uuid, taken)| of_gpu(uuid) && (taken.whole.is_some() || !taken.parts.is_empty()));
        if busy {
            return;
        }
        if !self.divided.remove(&(index, gpu)) && self.divided.len() < 8 {
            self.divided.insert((index, gpu));
        }
        let config = node(index, &self.divided);
        self.config.nodes[index] = config.clone();
        self.core.set_node(config).unwrap();
        let gone: Vec<Name> = self.aside.iter().filter(|uuid| self.device(uuid).is_none()).cloned().collect();
        self.aside.retain(|uuid| !gone.contains(uuid));
    }

    fn step(&mut self) {
        self.seconds += self.random.below(4) as i64;
        let due = self.core.tick(self.now(), usize::MAX);
        for made in due {
            self.write(made);
        }
        match self.random.below(100) {
            0..30 if self.rows.len() < 120 => self.submit(),
            0..55 => self.plan(),
            55..90 => self.report(),
            90..92 => self.end_some(),
            92..94 => self.lose_or_find_node(),
            94..97 => self.drain_or_resume_gpu(),
            97..98 => self.divide_or_join(),
            _ => self.crash(),
        }
    }
}

fn profile_is_mig(uuid: &Name) -> bool {
    uuid.as_str().starts_with("MIG")
}

fn run(seed: u64) -> [u64; 8] {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.step();
        if step % 8 == 0
            && let Err(violation) = world.core.check_invariants()
        {
            world.fail(&violation.to_string());
        }
    }
    world.seen
}

#[test]
fn no_gpu_is_promised_twice_whatever_comes_ends_and_breaks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("FLASH_GPU_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("FLASH_GPU_SEEDS").unwrap_or(3)).collect(),
    };
    for seed in seeds {
        let seen = run(seed);
        println!(
            "seed {seed}: {seen:?} whole GPUs, parts, parts with memory, MIG instances; most parts on one GPU; whole GPUs, parts and MIG instances by UUID"
        );
        let by_uuid = seen[5] > 100 && seen[6] > 40 && seen[7] > 20;
        assert!(seen[..4].iter().all(|count| *count > 100) && seen[4] >= 4 && by_uuid, "seed {seed} showed nothing: {seen:?}");
    }
}
