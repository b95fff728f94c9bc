//! Wire specs as what the core takes, and back.
//!
//! Invariants: the two ways are each other's inverse; what one thing alone can get wrong is refused here with its field; what things can
//! get wrong together is the core's to say, and [`field`] says at which field.

use api::quantity::{Cpu, Duration, GpuMillis, Memory};
use api::{Amounts, CohortShare, CohortSpec, FairShare, PriorityClassSpec, QueueSpec, ShortFirst, TenantLimits};
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::ids::Name;
use scheduler_core::scheduler::{
    self as core, AGE_PER_POINT_LIMIT, CohortConfig, ConfigError, HALF_LIFE, Limits, PRIORITY_LIMIT, QUEUE_PRIORITY_LIMIT,
    QueueConfig, Weight,
};
use scheduler_core::time::Span;

use crate::names;

/// Namespaces that a queue may weigh.
const WEIGHTS: usize = 10_000;

/// A value that is not allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct Invalid {
    /// Its path in the spec.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub detail: String,
}

impl Invalid {
    /// At this field.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

fn label(field: &str, text: &str) -> Result<Name, Invalid> {
    if names::is_label(text) {
        Ok(Name::from(text))
    } else {
        Err(Invalid::new(field, format!("`{}` is not a name: {}", text.escape_debug(), names::LABEL_RULE)))
    }
}

fn limits(field: &str, amounts: &Amounts) -> Result<Limits, Invalid> {
    let whole = |amount: GpuMillis| {
        let fault = || Invalid::new(format!("{field}.gpu"), format!("`{amount}` is not a whole number of GPUs"));
        amount.gpus().ok_or_else(fault)
    };
    Ok(Limits {
        cpu: amounts.cpu.map(|cpu| CpuMillis(cpu.0)),
        memory: amounts.memory.map(|memory| MemoryBytes(memory.0)),
        gpus: amounts.gpu.map(whole).transpose()?,
    })
}

fn amounts(limits: &Limits) -> Amounts {
    Amounts {
        cpu: limits.cpu.map(|cpu| Cpu(cpu.0)),
        memory: limits.memory.map(|memory| Memory(memory.0)),
        gpu: limits.gpus.map(GpuMillis::whole),
    }
}

/// What is held, or counted otherwise, in the order of resources.
pub fn counted([cpu, memory, gpus]: [u64; 3]) -> Amounts {
    known([Some(cpu), Some(memory), Some(gpus)])
}

/// The same where not everything is known.
pub fn known([cpu, memory, gpus]: [Option<u64>; 3]) -> Amounts {
    let gpu = gpus.map(|millis| GpuMillis(u32::try_from(millis).unwrap_or(u32::MAX)));
    Amounts { cpu: cpu.map(Cpu), memory: memory.map(Memory), gpu }
}

fn half_life(half_life: Duration) -> Result<Span, Invalid> {
    let span = Span(half_life.0);
    if (HALF_LIFE.0..=HALF_LIFE.1).contains(&span) {
        return Ok(span);
    }
    Err(Invalid::new("fairShare.halfLife", format!("`{half_life}` is not 1s to 366d")))
}

fn short_first(rule: ShortFirst) -> Result<core::ShortFirst, Invalid> {
    let most = Span(rule.most.0);
    if rule.per_stay == 0 {
        return Err(Invalid::new("shortFirst.perStay", "`0` is not at least 1"));
    }
    if most > HALF_LIFE.1 {
        return Err(Invalid::new("shortFirst.most", format!("`{}` is more than 366d", rule.most)));
    }
    Ok(core::ShortFirst { per_stay: rule.per_stay, most })
}

fn at_least_one(field: &str, count: Option<u32>) -> Result<Option<u32>, Invalid> {
    if count == Some(0) {
        return Err(Invalid::new(field, "`0` would let nothing start: at least 1; leave it out for no limit"));
    }
    Ok(count)
}

/// A weight of the core. Both keep thousandths.
fn weight(weight: api::quantity::Weight) -> Weight {
    Weight::new(f64::from(weight.0) / 1_000.0).unwrap_or_default()
}

/// A weight of the wire.
pub const fn wire_weight(weight: Weight) -> api::quantity::Weight {
    api::quantity::Weight(weight.thousandths())
}

/// A queue.
///
/// # Errors
/// A value that is out of its range.
pub fn queue_config(name: &Name, spec: &QueueSpec) -> Result<QueueConfig, Invalid> {
    let range = -QUEUE_PRIORITY_LIMIT..=QUEUE_PRIORITY_LIMIT;
    if !range.contains(&spec.priority) {
        return Err(Invalid::new("priority", format!("`{}` is not {} to {}", spec.priority, range.start(), range.end())));
    }
    if spec.age_per_point.0 > AGE_PER_POINT_LIMIT.0 {
        return Err(Invalid::new("agePerPoint", format!("`{}` is more than 7d a point", spec.age_per_point)));
    }
    let fair_share = match &spec.fair_share {
        None => None,
        Some(fair) if fair.weights.len() > WEIGHTS => {
            return Err(Invalid::new("fairShare.weights", format!("{} of them; at most {WEIGHTS}", fair.weights.len())));
        }
        Some(fair) => {
            let weights = fair.weights.iter().map(|(name, given)| Ok((label("fairShare.weights", name)?, weight(*given))));
            Some(core::FairShare { half_life: half_life(fair.half_life)?, weights: weights.collect::<Result<_, Invalid>>()? })
        }
    };
    let TenantLimits { jobs, cpu, memory, gpu } = spec.tenant_limits;
    Ok(QueueConfig {
        name: name.clone(),
        priority: spec.priority,
        preemptible: spec.preemptible,
        age_per_point: (spec.age_per_point.0 > 0).then_some(Span(spec.age_per_point.0)),
        cohort: spec.cohort.as_deref().map(|name| label("cohort", name)).transpose()?,
        weight: weight(spec.weight),
        guaranteed: limits("guaranteed", &spec.guaranteed)?,
        limit: limits("limit", &spec.limit)?,
        max_concurrent: at_least_one("maxConcurrent", spec.max_concurrent)?,
        tenant: core::TenantLimits {
            jobs: at_least_one("tenantLimits.jobs", jobs)?,
            amounts: limits("tenantLimits", &Amounts { cpu, memory, gpu })?,
        },
        fair_share,
        short_first: spec.short_first.map(short_first).transpose()?,
    })
}

/// What is said of a queue.
pub fn queue_spec(config: &QueueConfig) -> QueueSpec {
    let Amounts { cpu, memory, gpu } = amounts(&config.tenant.amounts);
    let fair_share = config.fair_share.as_ref().map(|fair| FairShare {
        half_life: Duration(fair.half_life.0),
        weights: fair.weights.iter().map(|(name, weight)| (name.to_string(), wire_weight(*weight))).collect(),
    });
    QueueSpec {
        priority: config.priority,
        preemptible: config.preemptible,
        max_concurrent: config.max_concurrent,
        age_per_point: Duration(config.age_per_point.map_or(0, |age| age.0)),
        cohort: config.cohort.as_ref().map(Name::to_string),
        weight: wire_weight(config.weight),
        guaranteed: amounts(&config.guaranteed),
        limit: amounts(&config.limit),
        tenant_limits: TenantLimits { jobs: config.tenant.jobs, cpu, memory, gpu },
        fair_share,
        short_first: config.short_first.map(|rule| ShortFirst { per_stay: rule.per_stay, most: Duration(rule.most.0) }),
    }
}

/// A cohort.
///
/// # Errors
/// A value that is out of its range.
pub fn cohort_config(name: &Name, spec: &CohortSpec) -> Result<CohortConfig, Invalid> {
    Ok(CohortConfig {
        name: name.clone(),
        parent: spec.parent.as_deref().map(|name| label("parent", name)).transpose()?,
        limit: limits("limit", &spec.limit)?,
        fair_share: spec.fair_share.map(|fair| half_life(fair.half_life)).transpose()?,
    })
}

/// What is said of a cohort.
pub fn cohort_spec(config: &CohortConfig) -> CohortSpec {
    CohortSpec {
        parent: config.parent.as_ref().map(Name::to_string),
        limit: amounts(&config.limit),
        fair_share: config.fair_share.map(|half_life| CohortShare { half_life: Duration(half_life.0) }),
    }
}

/// The number of a priority class.
///
/// # Errors
/// It is out of its range.
pub fn class_priority(spec: &PriorityClassSpec) -> Result<i32, Invalid> {
    let range = -PRIORITY_LIMIT..=PRIORITY_LIMIT;
    if range.contains(&spec.priority) {
        return Ok(spec.priority);
    }
    Err(Invalid::new("priority", format!("`{}` is not {} to {}", spec.priority, range.start(), range.end())))
}

/// Whose fault an error of queues and cohorts together is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Culprit<'a> {
    /// Its name.
    pub name: &'a Name,
    /// Whether it is a cohort.
    pub cohort: bool,
    /// The field of its spec.
    pub field: &'static str,
}

/// Where an error belongs; `is_cohort` says whether there is a cohort of a name. `None` where it is about neither queues nor cohorts.
pub fn culprit(error: &ConfigError, is_cohort: impl Fn(&Name) -> bool) -> Option<Culprit<'_>> {
    let (name, cohort, field) = match error {
        ConfigError::DuplicateQueue { name } => (name, false, "name"),
        ConfigError::DuplicateCohort { name } => (name, true, "name"),
        ConfigError::UnknownCohort { of, .. } if is_cohort(of) => (of, true, "parent"),
        ConfigError::UnknownCohort { of, .. } => (of, false, "cohort"),
        ConfigError::CohortLoop { name } => (name, true, "parent"),
        ConfigError::ShareBelowRoot { name } => (name, true, "fairShare"),
        ConfigError::HalfLife { of, .. } => (of, is_cohort(of), "fairShare"),
        ConfigError::GuaranteeOverLimit { of, .. } if is_cohort(of) => (of, true, "limit"),
        ConfigError::GuaranteeOverLimit { of, .. } => (of, false, "guaranteed"),
        ConfigError::QueuePriority { queue, .. } => (queue, false, "priority"),
        ConfigError::AgePerPoint { queue, .. } => (queue, false, "agePerPoint"),
        ConfigError::ShortFirst { queue, .. } => (queue, false, "shortFirst"),
        _ => return None,
    };
    Some(Culprit { name, cohort, field })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_each_others_inverse() {
        let full = r#"{"priority": -5, "preemptible": true, "maxConcurrent": 3, "agePerPoint": "0s", "cohort": "lab", "weight": 2.5,
            "guaranteed": {"cpu": "500m", "gpu": 1}, "limit": {"cpu": 4, "memory": "3Gi", "gpu": 2},
            "tenantLimits": {"jobs": 2, "memory": "1Gi"}, "fairShare": {"halfLife": "1h30m", "weights": {"a": 0.5, "b": 2}},
            "shortFirst": {"perStay": 7, "most": "3h"}}"#;
        for text in ["{}", full] {
            let spec: QueueSpec = serde_json::from_str(text).unwrap();
            let config = queue_config(&"q".into(), &spec).unwrap();
            assert_eq!(queue_spec(&config), spec);
            assert_eq!(queue_config(&"q".into(), &queue_spec(&config)).unwrap(), config);
        }
        let text = r#"{"parent": "all", "limit": {"gpu": 8}, "fairShare": {"halfLife": "1d"}}"#;
        for text in ["{}", text] {
            let spec: CohortSpec = serde_json::from_str(text).unwrap();
            assert_eq!(cohort_spec(&cohort_config(&"c".into(), &spec).unwrap()), spec);
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (text, field) in [
            (r#"{"priority": 10000001}"#, "priority"),
            (r#"{"agePerPoint": "8d"}"#, "agePerPoint"),
            (r#"{"maxConcurrent": 0}"#, "maxConcurrent"),
            (r#"{"tenantLimits": {"jobs": 0}}"#, "tenantLimits.jobs"),
            (r#"{"cohort": "No Name"}"#, "cohort"),
            (r#"{"fairShare": {"halfLife": "999ms"}}"#, "fairShare.halfLife"),
            (r#"{"fairShare": {"halfLife": "367d"}}"#, "fairShare.halfLife"),
            (r#"{"fairShare": {"weights": {"No Name": 1}}}"#, "fairShare.weights"),
            (r#"{"shortFirst": {"perStay": 0}}"#, "shortFirst.perStay"),
            (r#"{"shortFirst": {"most": "367d"}}"#, "shortFirst.most"),
        ] {
            let spec: QueueSpec = serde_json::from_str(text).unwrap();
            assert_eq!(queue_config(&"q".into(), &spec).unwrap_err().field, field, "{text}");
        }
        assert!(class_priority(&PriorityClassSpec { priority: 1_000_001 }).is_err());
    }
}
