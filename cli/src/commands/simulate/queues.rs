//! Queues and cohorts in the words of the API, as the core has them.
//!
//! Invariant: names and ranges are the core's to refuse, when it is made: here nothing is lost on the way.

use api::quantity::{Cpu, Duration, Memory, Weight};
use api::{Amounts, CohortSpec, QueueSpec};
use simulator::scheduler as core;
use simulator::scheduler::{
    CohortConfig, CpuMillis, FairShare, Limits, MemoryBytes, Name, QueueConfig, ShortFirst, Span, TenantLimits,
};

fn span(duration: Duration) -> Span {
    Span(duration.0)
}

fn limits(amounts: &Amounts) -> Limits {
    Limits {
        cpu: amounts.cpu.map(|Cpu(millis)| CpuMillis(millis)),
        memory: amounts.memory.map(|Memory(bytes)| MemoryBytes(bytes)),
        gpus: amounts.gpu.map(|gpus| gpus.0 / 1_000),
    }
}

/// Both keep thousandths, within the same range.
fn weight(weight: Weight) -> core::Weight {
    core::Weight::new(f64::from(weight.0) / 1_000.0).unwrap_or_default()
}

/// A queue.
pub(super) fn queue(name: &str, spec: &QueueSpec) -> QueueConfig {
    let fair = |fair: &api::FairShare| FairShare {
        half_life: span(fair.half_life),
        weights: fair.weights.iter().map(|(name, given)| (Name::from(name.as_str()), weight(*given))).collect(),
    };
    let api::TenantLimits { jobs, cpu, memory, gpu } = spec.tenant_limits;
    QueueConfig {
        name: name.into(),
        priority: spec.priority,
        preemptible: spec.preemptible,
        age_per_point: Some(span(spec.age_per_point)).filter(|age| age.0 > 0),
        cohort: spec.cohort.as_deref().map(Name::from),
        weight: weight(spec.weight),
        guaranteed: limits(&spec.guaranteed),
        limit: limits(&spec.limit),
        max_concurrent: spec.max_concurrent,
        tenant: TenantLimits { jobs, amounts: limits(&Amounts { cpu, memory, gpu }) },
        fair_share: spec.fair_share.as_ref().map(fair),
        short_first: spec.short_first.map(|rule| ShortFirst { per_stay: rule.per_stay, most: span(rule.most) }),
    }
}

/// A cohort.
pub(super) fn cohort(name: &str, spec: &CohortSpec) -> CohortConfig {
    CohortConfig {
        name: name.into(),
        parent: spec.parent.as_deref().map(Name::from),
        limit: limits(&spec.limit),
        fair_share: spec.fair_share.map(|fair| span(fair.half_life)),
    }
}
