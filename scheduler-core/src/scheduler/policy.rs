//! What queues may have and how they share it: weights, quotas, limits, cohorts.
//!
//! The words. A *limit* is never exceeded. A *guarantee* is what a queue brings into its cohort's pool and can take back at any time: queues
//! of a cohort together never use more than the pool, each may borrow what others leave idle, and what was lent is reclaimed.

use crate::amounts::{CpuMillis, MemoryBytes};
use crate::ids::Name;
use crate::scheduler::config::Resource;
use crate::time::Span;

/// Shortest and longest half-life of use.
pub const HALF_LIFE: (Span, Span) = (Span::from_secs(1), Span::from_secs(366 * 24 * 3600));

/// How much somebody gets in relation to others: 0.001 to 1,000,000, kept in thousandths so that no decision depends on rounding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// An amount of each resource; `None` says nothing about that resource.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<CpuMillis>,
    /// Memory.
    pub memory: Option<MemoryBytes>,
    /// Whole GPUs.
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
            Resource::Gpu => self.gpus.map(u64::from),
        }
    }
}

/// What each tenant may have in a queue at the same time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TenantLimits {
    /// Jobs that hold resources.
    pub jobs: Option<u32>,
    /// What they hold together.
    pub amounts: Limits,
}

/// Tenants of a queue take turns by their weighted dominant share instead of by the priority and age of their jobs alone.
#[derive(Clone, PartialEq, Eq, Debug)]
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

/// Queues that lend to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
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
