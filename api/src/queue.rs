//! Queues, cohorts and priority classes: what administrators say of them, and how they stand.
//!
//! What is sent is a spec: every field optional, unknown ones refused by name, and a field that is left out has its default. What comes
//! back is the whole spec, with how the thing stands beside it, in one flat object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::quantity::{Cpu, Duration, GpuMillis, Memory, Weight};

/// An amount of each resource; what is left out is not spoken of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Amounts {
    /// Processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Whole GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuMillis>,
}

impl Amounts {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What each namespace may have in a queue at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantLimits {
    /// Jobs that hold resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub jobs: Option<u32>,
    /// Processor time that they hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory that they hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Whole GPUs that they hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuMillis>,
}

impl TenantLimits {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Namespaces of a queue take turns by what they have used, whatever the priorities of their jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FairShare {
    /// After this time use counts half: 1 s to 366 days. Default: a week.
    #[serde(default = "week")]
    pub half_life: Duration,
    /// Weights of namespaces; all others have 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"vision": 2}))]
    pub weights: BTreeMap<String, Weight>,
}

/// The half-life where none is given.
pub const fn week() -> Duration {
    Duration(7 * 86_400_000_000)
}

/// Waiting this long is worth a point of priority where nothing is said.
pub const fn minute() -> Duration {
    Duration(60_000_000)
}

/// Short jobs of a queue pass long ones: a job counts as if it had come later than it did, by so many times the time that it may stay, at most
/// by what that leaves of `most`; of that, by the part of all nodes that it leaves to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShortFirst {
    /// How many times its time limit and grace a job counts as later. Default: 200.
    #[serde(default = "two_hundred")]
    #[schema(minimum = 1)]
    pub per_stay: u32,
    /// The most that a job counts as later, and what one does without a time limit; at most 366 days. Nobody is passed by jobs that come
    /// later than that. Default: five days.
    #[serde(default = "five_days")]
    pub most: Duration,
}

/// Times the stay where nothing is said.
pub const fn two_hundred() -> u32 {
    200
}

/// The most where nothing is said.
pub const fn five_days() -> Duration {
    Duration(5 * 86_400_000_000)
}

/// What an administrator says of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueSpec {
    /// Added to the priority of its jobs. Default: 0.
    #[serde(default)]
    #[schema(minimum = -10_000_000, maximum = 10_000_000)]
    pub priority: i32,
    /// Whether its running jobs may be ended to make room. Default: false.
    #[serde(default)]
    pub preemptible: bool,
    /// Jobs of it that hold resources at the same time, at most. Default: as many as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_concurrent: Option<u32>,
    /// Time in line that is worth one point of priority, at most 7 days; `0s` for no ageing. Default: a minute.
    #[serde(default = "minute")]
    pub age_per_point: Duration,
    /// The cohort that it lends to and borrows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// Its part among the queues of a cohort that shares fairly. Default: 1.
    #[serde(default)]
    pub weight: Weight,
    /// What it brings into its cohort and can have back at any time.
    #[serde(default, deserialize_with = "crate::object::or_default", skip_serializing_if = "Amounts::is_empty")]
    pub guaranteed: Amounts,
    /// What its jobs hold together at most, borrowed or not.
    #[serde(default, deserialize_with = "crate::object::or_default", skip_serializing_if = "Amounts::is_empty")]
    pub limit: Amounts,
    /// What each namespace may have in it.
    #[serde(default, deserialize_with = "crate::object::or_default", skip_serializing_if = "TenantLimits::is_empty")]
    pub tenant_limits: TenantLimits,
    /// How its namespaces take turns. Default: by the priority and age of their jobs alone.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub fair_share: Option<FairShare>,
    /// Whether its short jobs pass long ones. Default: they do not.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub short_first: Option<ShortFirst>,
}

impl Default for QueueSpec {
    /// As an empty object.
    fn default() -> Self {
        Self {
            priority: 0,
            preemptible: false,
            max_concurrent: None,
            age_per_point: minute(),
            cohort: None,
            weight: Weight::ONE,
            guaranteed: Amounts::default(),
            limit: Amounts::default(),
            tenant_limits: TenantLimits::default(),
            fair_share: None,
            short_first: None,
        }
    }
}

/// Who said how a thing is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The daemon itself: it exists from the start.
    BuiltIn,
    /// `flashd.toml`.
    File,
    /// A request to this API; from then on the file is not asked about it.
    Api,
    /// A ClusterResourceQueue of the cluster that jobs run on: it is changed there.
    Cluster,
    /// Nobody any more: it is shown as long as it has jobs.
    Removed,
}

/// A queue, what is in it, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How it is to be.
    #[serde(flatten)]
    pub spec: QueueSpec,
    /// Who said so.
    pub origin: Origin,
    /// Jobs waiting for a time or a release.
    pub waiting: u64,
    /// Jobs in line.
    pub queued: u64,
    /// Jobs that hold resources.
    pub active: u64,
    /// What they hold.
    pub used: Amounts,
    /// What of that is more than its guarantee, where its cohort has a pool of it.
    pub borrowed: Amounts,
    /// Its shares.
    pub share: Share,
    /// Namespaces that have jobs in it or use that counts.
    pub tenant_count: u64,
    /// Of these, the hundred with the largest shares; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantUse>,
}

/// Weighted dominant shares: the largest part of any resource of all nodes, divided by the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Of what is held now, in millionths of all nodes.
    pub held: u64,
    /// Of what was used, older use counting less, in millionths; where use is kept, which is where turns are taken by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What they are divided by.
    pub weight: Weight,
}

/// A namespace's part of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantUse {
    /// The namespace.
    pub namespace: String,
    /// Its jobs that hold resources.
    pub active: u64,
    /// What they hold.
    pub used: Amounts,
    /// Its shares.
    pub share: Share,
}

/// All queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueList {
    /// By name.
    pub items: Vec<Queue>,
}

/// Queues of a cohort take turns by what they have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CohortShare {
    /// After this time use counts half: 1 s to 366 days. Default: a week.
    #[serde(default = "week")]
    pub half_life: Duration,
}

/// What an administrator says of a cohort: queues that lend to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CohortSpec {
    /// The cohort that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What its queues, and those of cohorts under it, hold together at most. Default, where it has no parent: the sum of their guarantees.
    #[serde(default, deserialize_with = "crate::object::or_default", skip_serializing_if = "Amounts::is_empty")]
    pub limit: Amounts,
    /// How its queues take turns; only without a parent. Default: by the priority and age of their jobs alone.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub fair_share: Option<CohortShare>,
}

/// A cohort and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cohort {
    /// Its name.
    pub name: String,
    /// How it is to be.
    #[serde(flatten)]
    pub spec: CohortSpec,
    /// Who said so.
    pub origin: Origin,
    /// Queues that name it.
    pub queues: Vec<String>,
    /// What the queues under it are guaranteed together.
    pub guaranteed: Amounts,
    /// What they hold together at most.
    pub pool: Amounts,
    /// What they hold.
    pub used: Amounts,
}

/// All cohorts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CohortList {
    /// By name.
    pub items: Vec<Cohort>,
}

/// What an administrator says of a priority class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriorityClassSpec {
    /// The priority of jobs that name it when they are submitted.
    #[schema(minimum = -1_000_000, maximum = 1_000_000)]
    pub priority: i32,
}

/// A priority with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriorityClass {
    /// Its name.
    pub name: String,
    /// How it is to be.
    #[serde(flatten)]
    pub spec: PriorityClassSpec,
    /// Who said so.
    pub origin: Origin,
}

/// All priority classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PriorityClassList {
    /// By name.
    pub items: Vec<PriorityClass>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        serde_json::from_str::<QueueSpec>(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_object_is_the_default() {
        assert_eq!(serde_json::from_str::<QueueSpec>("{}").unwrap(), QueueSpec::default());
        assert_eq!(serde_json::from_str::<CohortSpec>("{}").unwrap(), CohortSpec::default());
        let fair: QueueSpec = serde_json::from_str(r#"{"fairShare": {}}"#).unwrap();
        assert_eq!(fair.fair_share.unwrap().half_life, week());
        let short: QueueSpec = serde_json::from_str(r#"{"shortFirst": {}}"#).unwrap();
        assert_eq!(short.short_first, Some(ShortFirst { per_stay: 200, most: five_days() }));
        let printed = serde_json::to_string(&QueueSpec::default()).unwrap();
        assert_eq!(printed, r#"{"priority":0,"preemptible":false,"agePerPoint":"1m","weight":1}"#);
    }

    #[test]
    fn what_is_not_known_or_no_weight_is_refused() {
        for (text, said) in [
            (r#"{"wieght": 1}"#, "unknown field `wieght`"),
            (r#"{"limit": {"cpus": 1}}"#, "unknown field `cpus`"),
            (r#"{"limit": [1]}"#, "expected an object"),
            (r#"{"fairShare": ["1h"]}"#, "expected an object"),
            (r#"{"weight": 0}"#, "`0` is not a weight"),
            (r#"{"weight": -1}"#, "`-1` is not a weight"),
            (r#"{"weight": "NaN"}"#, "`NaN` is not a weight"),
            (r#"{"weight": 0.0001}"#, "is not a weight"),
            (r#"{"weight": 1e9}"#, "is not a weight"),
            (r#"{"weight": NaN}"#, "expected value"),
            (r#"{"fairShare": {"weights": {"a": 0}}}"#, "`0` is not a weight"),
            (r#"{"maxConcurrent": -1}"#, "-1"),
            (r#"{"guaranteed": {"gpu": "-1"}}"#, "is not an amount of GPUs"),
        ] {
            let found = fault(text);
            assert!(found.contains(said), "{text}: {found}");
        }
    }

    /// What comes back is flat, and can be read back although a spec by itself refuses what it does not know.
    #[test]
    fn a_queue_is_one_flat_object() {
        let spec = QueueSpec { weight: "2.5".parse().unwrap(), cohort: Some("lab".to_owned()), ..QueueSpec::default() };
        let share = Share { held: 1, used: None, weight: Weight::ONE };
        let queue = Queue {
            name: "q".to_owned(),
            spec,
            origin: Origin::Api,
            waiting: 0,
            queued: 1,
            active: 2,
            used: Amounts { cpu: Some(Cpu(500)), ..Amounts::default() },
            borrowed: Amounts::default(),
            share,
            tenant_count: 0,
            tenants: Vec::new(),
        };
        let value = serde_json::to_value(&queue).unwrap();
        assert_eq!((&value["weight"], &value["cohort"], &value["used"]["cpu"]), (&2.5.into(), &"lab".into(), &"500m".into()));
        assert_eq!(serde_json::from_value::<Queue>(value).unwrap(), queue);
    }
}
