//! What queues may have and how they share it: weights, quotas, limits, cohorts.
//!
//! The words. A *limit* is never exceeded. A *guarantee* is what a queue brings into its cohort's pool and can take back at any time: queues
//! of a cohort together never use more than the pool, each may borrow what others leave idle, and what was lent is reclaimed.

use serde::{Deserialize, Serialize};

use crate::amounts::{CpuMillis, GPU_MILLIS, MemoryBytes};
use crate::ids::Name;
use crate::scheduler::config::Resource;
use crate::time::Span;

/// Shortest and longest half-life of use.
pub const HALF_LIFE: (Span, Span) = (Span::from_secs(1), Span::from_secs(366 * 24 * 3600));

/// How much somebody gets in relation to others: 0.001 to 1,000,000, kept in thousandths so that no decision depends on rounding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Weight(u32);

/// A number that is no weight.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("weight {got} is not between 0.001 and 1000000")]
pub struct BadWeight {
    /// What was given.
    pub got: f64,
}

impl Weight {
    /// The weight of whoever has none.
    pub const ONE: Self = Self(1000);

    /// Rounded to thousandths.
    ///
    /// # Errors
    /// Zero, negative, infinite, not a number, or out of range.
    pub fn new(weight: f64) -> Result<Self, BadWeight> {
        let thousandths = (weight * 1000.0).round();
        if (1.0..=1e9).contains(&thousandths) { Ok(Self(thousandths as u32)) } else { Err(BadWeight { got: weight }) }
    }

    /// At least 1.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl From<Weight> for f64 {
    fn from(weight: Weight) -> Self {
        Self::from(weight.0) / 1000.0
    }
}

impl TryFrom<f64> for Weight {
    type Error = BadWeight;
    fn try_from(weight: f64) -> Result<Self, BadWeight> {
        Self::new(weight)
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// An amount of each resource; `None` says nothing about that resource.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<CpuMillis>,
    /// Memory.
    pub memory: Option<MemoryBytes>,
    /// GPUs; shares count as the parts that they are.
    pub gpus: Option<u32>,
}

impl Limits {
    /// Nothing said about anything.
    pub const NONE: Self = Self { cpu: None, memory: None, gpus: None };

    /// What is said about one resource.
    pub fn of(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Cpu => self.cpu.map(|cpu| cpu.0),
            Resource::Memory => self.memory.map(|memory| memory.0),
            Resource::Gpu => self.gpus.map(|gpus| u64::from(gpus) * u64::from(GPU_MILLIS)),
        }
    }
}

/// What each tenant may have in a queue at the same time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantLimits {
    /// Jobs that hold resources.
    pub jobs: Option<u32>,
    /// What they hold together.
    pub amounts: Limits,
}

/// Tenants of a queue take turns by their weighted dominant share instead of by the priority and age of their jobs alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FairShare {
    /// After this time use counts half. 1 second to 366 days.
    pub half_life: Span,
    /// Weights of tenants; all others have [`Weight::ONE`].
    pub weights: Vec<(Name, Weight)>,
}

impl FairShare {
    /// All weights equal.
    pub const fn equal(half_life: Span) -> Self {
        Self { half_life, weights: Vec::new() }
    }

    /// The weight of a tenant.
    pub fn weight(&self, namespace: &Name) -> Weight {
        self.weights.iter().find(|(name, _)| name == namespace).map_or(Weight::ONE, |(_, weight)| *weight)
    }
}

/// Short jobs pass long ones. A job counts as if it had come later than it did: by its longest stay (time limit and grace) times
/// [`per_stay`](Self::per_stay), at most by what its stay leaves of [`most`](Self::most); and of that, only by the part of all nodes that it
/// leaves to others.
///
/// So the shortest count as later by little, those of middling length by much, and those that stay for `most` anyway not at all; and of
/// equally long ones the wider go first. What is gained: a short job no longer waits for long ones, which hardly notice it; the longest
/// begin early, because whatever begins late ends last; and wide ones go first because narrow ones find room beside them and not the other
/// way round. Nobody starves: whoever comes `most` after a job never passes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShortFirst {
    /// How many times its longest stay a job counts as later. At least 1.
    pub per_stay: u32,
    /// No job counts as later by more; one without a time limit counts as later by this. At most 366 days.
    pub most: Span,
}

impl ShortFirst {
    /// Two hundred times the stay, at most five days: what did best on recorded traces (see the benches).
    pub const USUAL: Self = Self { per_stay: 200, most: Span::from_secs(5 * 24 * 3600) };

    /// How much later a job counts that stays this long and holds this part of all nodes, in millionths.
    pub(crate) fn later(&self, stay: Option<Span>, millionths: u128) -> Span {
        let most = self.most.0;
        let by_stay = stay.map_or(most, |stay| stay.0.saturating_mul(self.per_stay.into()).min(most.saturating_sub(stay.0)));
        let left = 1_000_000 - millionths.min(1_000_000);
        // Not more than `most`, so it fits.
        Span((u128::from(by_stay) * left / 1_000_000) as u64)
    }
}

/// Queues that lend to each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CohortConfig {
    /// Its name; unique among cohorts.
    pub name: Name,
    /// The cohort that it is a part of: queues of all cohorts under one root lend to each other.
    pub parent: Option<Name>,
    /// What its queues, and those of cohorts under it, hold together at most. Where a root says nothing about a resource, that is the sum of
    /// the guarantees under it; where there is none either, the resource is not limited by the cohort.
    pub limit: Limits,
    /// Queues under a root take turns by their weighted dominant share, use counting half after this time, instead of by the priority and
    /// age of their jobs. Roots only.
    pub fair_share: Option<Span>,
}

impl CohortConfig {
    /// A root without limits of its own, whose queues keep the order of their jobs.
    pub const fn named(name: Name) -> Self {
        Self { name, parent: None, limit: Limits::NONE, fair_share: None }
    }
}
