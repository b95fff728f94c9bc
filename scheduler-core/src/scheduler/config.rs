//! What the core is told about queues and nodes, and what of it cannot be.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::amounts::{CpuMillis, GPU_MILLIS, MemoryBytes, Request};
use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::errors::ConfigError;
use crate::scheduler::place::LANES;
use crate::scheduler::policy::{CohortConfig, FairShare, HALF_LIFE, Limits, ShortFirst, TenantLimits, Weight};
use crate::time::Span;

/// Job priorities lie within plus and minus this.
pub const PRIORITY_LIMIT: i32 = 1_000_000;
/// Base priorities of queues lie within plus and minus this.
pub const QUEUE_PRIORITY_LIMIT: i32 = 10_000_000;
/// Longest time that may count as one priority point: keeps all order keys within 64 bits.
pub const AGE_PER_POINT_LIMIT: Span = Span::from_secs(7 * 24 * 3600);
/// A job has at most this many tasks over all its groups.
pub const TASK_LIMIT: u64 = 10_000;

/// Most reservations that a pass can be told to keep: each is a look at all runs and nodes.
pub const HEADS_LIMIT: u32 = 64;

/// A node has at most this many GPUs, MIG instances counted.
pub const GPU_LIMIT: usize = u16::MAX as usize;
/// A node has GPUs of at most this many kinds: model, memory, MIG profile.
pub const GPU_KIND_LIMIT: usize = LANES;

/// A queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueConfig {
    /// Its name; unique.
    pub name: Name,
    /// Added to the priority of its jobs. Within ±10,000,000.
    pub priority: i32,
    /// Whether its running jobs may be ended to make room.
    pub preemptible: bool,
    /// Waiting this long is worth one priority point, at most 7 days. `None`: waiting counts only between equal priorities.
    pub age_per_point: Option<Span>,
    /// The cohort that it lends to and borrows from.
    pub cohort: Option<Name>,
    /// Its share in a cohort that shares fairly.
    pub weight: Weight,
    /// What it brings into its cohort and can always have back. Says nothing outside of one.
    pub guaranteed: Limits,
    /// What its jobs hold together at most, borrowed or not.
    pub limit: Limits,
    /// How many of its jobs hold resources at most. `None`: as many as there is room for.
    pub max_concurrent: Option<u32>,
    /// What each of its tenants has at most.
    pub tenant: TenantLimits,
    /// How its tenants take turns. `None`: by the priority and age of their jobs alone.
    pub fair_share: Option<FairShare>,
    /// Whether its short jobs pass long ones. `None`: age counts alone.
    pub short_first: Option<ShortFirst>,
}

impl QueueConfig {
    /// A queue of base priority 0 without ageing, cohort, limits and shares, whose jobs are not preempted.
    pub const fn named(name: Name) -> Self {
        Self {
            name,
            priority: 0,
            preemptible: false,
            age_per_point: None,
            cohort: None,
            weight: Weight::ONE,
            guaranteed: Limits::NONE,
            limit: Limits::NONE,
            max_concurrent: None,
            tenant: TenantLimits { jobs: None, amounts: Limits::NONE },
            fair_share: None,
            short_first: None,
        }
    }
}

/// What of a GPU is given to one task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GpuKind {
    /// All of it.
    #[default]
    Whole,
    /// A MIG instance. A GPU that is divided is listed as its instances alone, never as a whole besides.
    Mig {
        /// Its profile, as `1g.10gb`.
        profile: Name,
    },
    /// One of the equal parts of a GPU that a device plugin gives out by count. Nobody says which parts are of the same GPU, so a task has one at most,
    /// and has all of it. A GPU that is given out so is listed as its parts alone; its memory is said of each of them.
    Replica {
        /// How much of the GPU it is, in thousandths: 1 to 999.
        millis: u32,
    },
}

impl GpuKind {
    /// Its size in thousandths where it is a part that a device plugin gives out.
    pub const fn replica(&self) -> Option<u32> {
        if let Self::Replica { millis } = self { Some(*millis) } else { None }
    }

    /// As what it counts in amounts, in thousandths of a GPU.
    pub const fn millis(&self) -> u32 {
        match self {
            Self::Whole | Self::Mig { .. } => GPU_MILLIS,
            Self::Replica { millis } => *millis,
        }
    }
}

/// A GPU of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuDevice {
    /// Its identity; unique over all nodes.
    pub uuid: Name,
    /// Product name.
    pub model: Name,
    /// Its memory.
    pub memory: MemoryBytes,
    /// The whole device or a part of it.
    pub kind: GpuKind,
    /// Those of a node with the same number reach each other by NVLink: tasks with several GPUs get them from one group where one has enough.
    pub link_group: Option<u16>,
    /// The NUMA node that it is attached to.
    pub numa: Option<u16>,
}

impl GpuDevice {
    /// A whole device of which no links are known.
    pub const fn whole(uuid: Name, model: Name, memory: MemoryBytes) -> Self {
        Self { uuid, model, memory, kind: GpuKind::Whole, link_group: None, numa: None }
    }
}

/// What may be done with a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// It takes tasks.
    #[default]
    Ready,
    /// It takes no new tasks; what runs goes on.
    Cordoned,
    /// As cordoned, and somebody waits for the last run to end: see [`NodeUse::is_drained`](crate::NodeUse::is_drained).
    Draining,
    /// Nobody hears of it: what ran there has to be taken for lost.
    Lost,
}

impl NodeState {
    /// The wire word: `ready`, `cordoned`, `draining`, `lost`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

/// A machine and what may be used of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Its name; unique.
    pub name: Name,
    /// Processor time.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: MemoryBytes,
    /// GPUs; promised in this order.
    pub gpus: Vec<GpuDevice>,
    /// What jobs may select it by.
    pub labels: BTreeMap<Name, Name>,
}

impl NodeConfig {
    /// A node without labels.
    pub const fn new(name: Name, cpu: CpuMillis, memory: MemoryBytes, gpus: Vec<GpuDevice>) -> Self {
        Self { name, cpu, memory, gpus, labels: BTreeMap::new() }
    }
}

/// What a pass may do behind a job that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Discipline {
    /// Nothing: the first job that does not fit stops everybody behind it. The yardstick that others are measured against.
    Strict,
    /// That job gets a reservation, and others start beside it where that cannot delay it (EASY backfill).
    #[default]
    Easy,
    /// So many jobs that cannot start each get a reservation at their earliest time, in the order of the jobs, and nothing that starts
    /// beside them delays any of them (conservative backfill). 1 to [`HEADS_LIMIT`]; with 1 it is EASY backfill.
    Conservative {
        /// How many.
        heads: u32,
    },
}

/// Whose runs may be ended to make room. Only runs of preemptible queues ever are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preemption {
    /// Those of lower priority in the same queue.
    pub within_queue: bool,
    /// Those of other queues of the same cohort that hold what they borrowed, when a guarantee is claimed.
    pub reclaim: bool,
    /// Those of queues of lower base priority outside of the cohort, unless they are within a guarantee.
    pub across_queues: bool,
}

/// All that the core is told at its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The queues.
    pub queues: Vec<QueueConfig>,
    /// The cohorts that queues name.
    pub cohorts: Vec<CohortConfig>,
    /// The machines.
    pub nodes: Vec<NodeConfig>,
    /// Pause before the second try of what infrastructure lost; doubles with each further try.
    pub retry_backoff: Span,
    /// Longest such pause, before jitter.
    pub retry_backoff_max: Span,
    /// How many shapes that find no room one pass looks at before it gives up; at least 1.
    pub scan_limit: usize,
    /// What happens behind a job that does not fit.
    pub discipline: Discipline,
    /// Whose runs may be ended to make room; nobody's unless something is said.
    pub preemption: Preemption,
}

impl Default for Config {
    /// No queues and no nodes; 1 second to 5 minutes between tries; 10,000 shapes a pass; EASY backfill; no preemption.
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            cohorts: Vec::new(),
            nodes: Vec::new(),
            retry_backoff: Span::from_secs(1),
            retry_backoff_max: Span::from_secs(300),
            scan_limit: 10_000,
            discipline: Discipline::Easy,
            preemption: Preemption::default(),
        }
    }
}

impl Config {
    /// Whether names and GPUs are unique and values within their ranges.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check_queues(&self.queues, &self.cohorts)?;
        let mut nodes = HashSet::<&Name, Build>::default();
        let mut gpus = HashSet::<&Name, Build>::default();
        for node in &self.nodes {
            if !nodes.insert(&node.name) {
                return Err(ConfigError::DuplicateNode { name: node.name.clone() });
            }
            check_gpus(node)?;
            if let Some(gpu) = node.gpus.iter().find(|gpu| !gpus.insert(&gpu.uuid)) {
                return Err(ConfigError::DuplicateGpu { uuid: gpu.uuid.clone(), node: node.name.clone() });
            }
        }
        if let Discipline::Conservative { heads } = self.discipline
            && !(1..=HEADS_LIMIT).contains(&heads)
        {
            return Err(ConfigError::Heads { got: heads });
        }
        if self.scan_limit == 0 { Err(ConfigError::ScanLimit) } else { Ok(()) }
    }
}

/// What a node has a finite amount of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Resource {
    /// Processor time in thousandths of a core.
    Cpu,
    /// Memory in bytes.
    Memory,
    /// GPUs in thousandths.
    Gpu,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Gpu];

    /// The word and unit for people: `cpu (millicores)`, `memory (bytes)`, `GPUs`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu (millicores)",
            Self::Memory => "memory (bytes)",
            Self::Gpu => "GPUs",
        }
    }

    /// An amount in the unit of [`as_str`](Self::as_str): thousandths of GPUs as GPUs.
    pub fn in_words(self, amount: u128) -> String {
        let thousand = u128::from(GPU_MILLIS);
        match (self, amount % thousand) {
            (Self::Gpu, 0) => (amount / thousand).to_string(),
            (Self::Gpu, rest) => format!("{}.{}", amount / thousand, format!("{rest:03}").trim_end_matches('0')),
            (Self::Cpu | Self::Memory, _) => amount.to_string(),
        }
    }
}

impl Request {
    /// The amount of one resource, all of each GPU counted.
    pub fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu.0,
            Resource::Memory => self.memory.0,
            Resource::Gpu => u64::from(self.gpus) * u64::from(GPU_MILLIS),
        }
    }
}

/// Whether the GPUs of a node can be counted.
pub(crate) fn check_gpus(node: &NodeConfig) -> Result<(), ConfigError> {
    let mut kinds: Vec<_> = node.gpus.iter().map(|gpu| (&gpu.model, gpu.memory, &gpu.kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() > LANES {
        return Err(ConfigError::GpuKinds { node: node.name.clone(), got: kinds.len() });
    }
    if node.gpus.len() > GPU_LIMIT {
        return Err(ConfigError::GpuCount { node: node.name.clone(), got: node.gpus.len() });
    }
    let is_none = |millis: u32| !(1..GPU_MILLIS).contains(&millis);
    if let Some((gpu, got)) = node.gpus.iter().find_map(|gpu| Some((gpu, gpu.kind.replica().filter(|&millis| is_none(millis))?)))
    {
        return Err(ConfigError::GpuReplica { uuid: gpu.uuid.clone(), got });
    }
    Ok(())
}

/// Whether queues and cohorts can be as they are, together.
pub(crate) fn check_queues(queues: &[QueueConfig], cohorts: &[CohortConfig]) -> Result<(), ConfigError> {
    let mut names = HashSet::<&Name, Build>::default();
    for cohort in cohorts {
        if !names.insert(&cohort.name) {
            return Err(ConfigError::DuplicateCohort { name: cohort.name.clone() });
        }
    }
    for cohort in cohorts {
        check_cohort(cohort, queues, cohorts)?;
    }
    let mut names = HashSet::<&Name, Build>::default();
    for queue in queues {
        if !names.insert(&queue.name) {
            return Err(ConfigError::DuplicateQueue { name: queue.name.clone() });
        }
        check_queue(queue)?;
        if let Some(cohort) = queue.cohort.as_ref().filter(|name| !cohorts.iter().any(|cohort| cohort.name == **name)) {
            return Err(ConfigError::UnknownCohort { of: queue.name.clone(), cohort: cohort.clone() });
        }
    }
    Ok(())
}

fn check_queue(queue: &QueueConfig) -> Result<(), ConfigError> {
    let name = || queue.name.clone();
    if !(-QUEUE_PRIORITY_LIMIT..=QUEUE_PRIORITY_LIMIT).contains(&queue.priority) {
        return Err(ConfigError::QueuePriority { queue: name(), got: queue.priority });
    }
    if let Some(got) = queue.age_per_point.filter(|age| age.0 == 0 || *age > AGE_PER_POINT_LIMIT) {
        return Err(ConfigError::AgePerPoint { queue: name(), got });
    }
    if let Some(got) = queue.fair_share.as_ref().map(|fair| fair.half_life).filter(|half_life| is_no_half_life(*half_life)) {
        return Err(ConfigError::HalfLife { of: name(), got });
    }
    if let Some(got) = queue.short_first.filter(|rule| rule.per_stay == 0 || rule.most > HALF_LIFE.1) {
        return Err(ConfigError::ShortFirst { queue: name(), per_stay: got.per_stay, most: got.most });
    }
    for resource in Resource::ALL {
        let (guaranteed, limit) = (queue.guaranteed.of(resource), queue.limit.of(resource));
        if let Some((guaranteed, limit)) = guaranteed.zip(limit).filter(|(guaranteed, limit)| guaranteed > limit) {
            return Err(ConfigError::GuaranteeOverLimit { of: name(), resource, guaranteed: guaranteed.into(), limit });
        }
    }
    Ok(())
}

fn is_no_half_life(span: Span) -> bool {
    !(HALF_LIFE.0..=HALF_LIFE.1).contains(&span)
}

/// The cohorts from this one up to its root, itself first. Ends where a parent is not known, and after as many as there are.
fn line<'a>(cohort: &'a CohortConfig, cohorts: &'a [CohortConfig]) -> impl Iterator<Item = &'a CohortConfig> {
    let parent = |of: &&CohortConfig| cohorts.iter().find(|other| Some(&other.name) == of.parent.as_ref());
    std::iter::successors(Some(cohort), parent).take(cohorts.len() + 1)
}

fn check_cohort(cohort: &CohortConfig, queues: &[QueueConfig], cohorts: &[CohortConfig]) -> Result<(), ConfigError> {
    let name = || cohort.name.clone();
    if let Some(parent) = cohort.parent.as_ref().filter(|parent| !cohorts.iter().any(|other| other.name == **parent)) {
        return Err(ConfigError::UnknownCohort { of: name(), cohort: parent.clone() });
    }
    if line(cohort, cohorts).count() > cohorts.len() {
        return Err(ConfigError::CohortLoop { name: name() });
    }
    if let Some(got) = cohort.fair_share {
        if cohort.parent.is_some() {
            return Err(ConfigError::ShareBelowRoot { name: name() });
        }
        if is_no_half_life(got) {
            return Err(ConfigError::HalfLife { of: name(), got });
        }
    }
    let under = |queue: &&QueueConfig| {
        let own = cohorts.iter().find(|other| Some(&other.name) == queue.cohort.as_ref());
        own.is_some_and(|own| line(own, cohorts).any(|above| above.name == cohort.name))
    };
    for resource in Resource::ALL {
        let Some(limit) = cohort.limit.of(resource) else { continue };
        let guaranteed: u128 =
            queues.iter().filter(under).filter_map(|queue| queue.guaranteed.of(resource)).map(u128::from).sum();
        if guaranteed > u128::from(limit) {
            return Err(ConfigError::GuaranteeOverLimit { of: name(), resource, guaranteed, limit });
        }
    }
    Ok(())
}
