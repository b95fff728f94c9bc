//! What a node says of itself. Pure.

use k8s_openapi::api::core::v1::{Node, Taint};

use super::super::quantity::{Amounts, amounts};
use super::requests::{is_uncounted, of};
use super::traits::Traits;
use super::{ClusterNode, GpuCounts, GpuResource, Standing};
use crate::node::HOSTNAME;

/// Label that we give a node in our books where it has a taint that our own pods tolerate, for the pods of others that do not.
pub const TAINTED: &str = "scheduling.flash-sched.io/tainted";

/// Begins labels that we give a node in our books for what its device plugins give out and the core does not count.
const HAS: &str = "has.flash-sched.io/";
/// Label that says of how many parts each GPU is given out.
const REPLICAS: &str = "nvidia.com/gpu.replicas";
/// Longest name of a label behind its prefix, and longest value of one.
const LABEL_CHARS: usize = 63;

/// Whether a label is one of our books: kubelets do not know it, and take no pod that asks for it.
pub fn is_of_books(label: &str) -> bool {
    label == HOSTNAME || label == TAINTED || label.starts_with(HAS)
}

/// Label of nodes that have some of a resource; `None` where it is too long for one.
pub fn has(resource: &str) -> Option<String> {
    (resource.len() <= LABEL_CHARS).then(|| format!("{HAS}{}", resource.replace('/', "_")))
}

/// A node as it is told, before anything is known of its pods.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    /// Open, cordoned or closed.
    pub(super) node: ClusterNode,
    /// Why it is silent, where it is.
    pub(super) silent: Option<String>,
    /// What decides which pods may go on it.
    pub(super) traits: Traits,
    /// All that pods may ask of it together.
    pub(super) allocatable: Amounts,
}

/// Reads a node; `None` where it has no name. Taints with one of the keys in `tolerated` keep none of our pods away.
pub(super) fn read(node: Node, tolerated: &[String]) -> Option<Told> {
    let traits = Traits::of(&node);
    let name = node.metadata.name?;
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let silent = match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => {
            let why = ready.message.as_deref().or(ready.reason.as_deref()).unwrap_or("no reason given");
            Some(format!("not ready: {why}"))
        }
        None => Some("not ready: its kubelet has not said anything yet".to_owned()),
    };
    let taint = spec.taints.iter().flatten().find(|taint| keeps_away(taint, tolerated));
    let standing = match (&silent, taint) {
        _ if spec.unschedulable == Some(true) => {
            Standing::Cordoned(format!("cordoned in the cluster; `kubectl uncordon {name}` opens it"))
        }
        (Some(why), _) => Standing::Closed(why.clone()),
        (None, Some(taint)) => Standing::Closed(format!("taint {} keeps pods away", shown(taint))),
        (None, None) => Standing::Open,
    };
    let capacity = status.capacity.as_ref().map(amounts).unwrap_or_default();
    let allocatable = status.allocatable.as_ref().map_or_else(|| capacity.clone(), amounts);
    let down = |amount: u128, by: u128| amount / by;
    let (capacity, counted) = (of(&capacity, down), of(&allocatable, down));
    let mut labels = node.metadata.labels.unwrap_or_default();
    // A longer name is no value of a label.
    if name.len() <= LABEL_CHARS {
        labels.insert(HOSTNAME.to_owned(), name.clone());
    }
    if spec.taints.iter().flatten().any(|taint| taint.effect != "PreferNoSchedule" && tolerated.contains(&taint.key)) {
        labels.insert(TAINTED.to_owned(), "true".to_owned());
    }
    let others = allocatable.iter().filter(|(resource, amount)| **amount > 0 && is_uncounted(resource));
    labels.extend(others.filter_map(|(resource, _)| Some((has(resource)?, "true".to_owned()))));
    let memory = |of: &str| {
        let mebibytes = labels.get(&format!("{of}.memory")).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        mebibytes.saturating_mul(1 << 20)
    };
    let of_instances = |(resource, _): (&GpuResource, u32)| match resource {
        GpuResource::Whole | GpuResource::Shared => None,
        GpuResource::Mig(profile) => Some((profile.clone(), memory(&resource.name()))),
    };
    let sick: GpuCounts = capacity.gpus.minus(&counted.gpus);
    let mig_memory_bytes = counted.gpus.clone().plus(&sick).each().filter_map(of_instances).collect();
    let node = ClusterNode {
        name,
        allocatable: counted,
        sick_gpus: sick,
        gpu_model: labels.get("nvidia.com/gpu.product").cloned().unwrap_or_default(),
        gpu_memory_bytes: memory(&GpuResource::Whole.name()),
        gpu_replicas: labels.get(REPLICAS).and_then(|text| text.parse().ok()).unwrap_or(0),
        mig_memory_bytes,
        labels,
        standing,
        ..ClusterNode::default()
    };
    Some(Told { node, silent, traits, allocatable })
}

/// The cluster taints silent and cordoned nodes itself: that is told apart from what people say.
fn keeps_away(taint: &Taint, tolerated: &[String]) -> bool {
    taint.effect != "PreferNoSchedule" && !tolerated.contains(&taint.key)
}

/// As people write it.
fn shown(taint: &Taint) -> String {
    let value = taint.value.as_deref().filter(|value| !value.is_empty()).map(|value| format!("={value}")).unwrap_or_default();
    format!("{}{value}:{}", taint.key, taint.effect)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::super::NodeAmounts;
    use super::*;

    fn told(spec: Value, ready: &str) -> Told {
        let node = json!({"metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "H100", "nvidia.com/gpu.memory": "1024"}},
            "spec": spec, "status": {"capacity": {"cpu": "8", "memory": "2Ki", "nvidia.com/gpu": "4"},
            "allocatable": {"cpu": "7500m", "memory": "1Ki", "nvidia.com/gpu": "3"},
            "conditions": [{"type": "Ready", "status": ready, "message": "kubelet stopped"}]}});
        read(serde_json::from_value(node).unwrap(), &["nvidia.com/gpu".to_owned()]).unwrap()
    }

    #[test]
    fn a_node_says_what_it_has() {
        let Told { node, silent, .. } = told(json!({}), "True");
        assert_eq!(node.allocatable, NodeAmounts { cpu_millis: 7_500, memory_bytes: 1_024, gpus: GpuCounts::whole(3) });
        assert_eq!((node.sick_gpus, node.gpu_model.as_str(), node.gpu_memory_bytes), (GpuCounts::whole(1), "H100", 1 << 30));
        assert_eq!((node.standing, silent), (Standing::Open, None));
    }

    #[test]
    fn what_keeps_pods_away_is_told_apart() {
        let standing = |spec: Value, ready: &str| told(spec, ready).node.standing;
        let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "value": "x", "effect": effect}]});
        assert_eq!(standing(taint("nvidia.com/gpu", "NoSchedule"), "True"), Standing::Open);
        assert_eq!(standing(taint("team", "PreferNoSchedule"), "True"), Standing::Open);
        assert!(
            matches!(standing(taint("team", "NoExecute"), "True"), Standing::Closed(why) if why.contains("team=x:NoExecute"))
        );
        let cordoned = standing(json!({"unschedulable": true}), "True");
        assert!(matches!(cordoned, Standing::Cordoned(why) if why.contains("kubectl uncordon n")));
        let silent = told(json!({}), "Unknown");
        assert_eq!(silent.silent.as_deref(), Some("not ready: kubelet stopped"));
        assert!(matches!(silent.node.standing, Standing::Closed(_)));
    }

    #[test]
    fn a_node_says_which_mig_instances_and_parts_of_gpus_it_has() {
        let node = json!({"metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "H100", "nvidia.com/gpu.memory": "81559",
                "nvidia.com/mig-1g.10gb.memory": "9984", "nvidia.com/gpu.replicas": "4"}},
            "status": {"capacity": {"nvidia.com/gpu": "6", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-1g.20gb.me": "1"},
                "allocatable": {"nvidia.com/gpu": "6", "nvidia.com/mig-1g.10gb": "5", "nvidia.com/mig-1g.20gb.me": "1",
                    "nvidia.com/gpu.shared": "4", "nvidia.com/mig-3g.40gb.shared": "2", "rdma/hca": "0"}}});
        let Told { node, .. } = read(serde_json::from_value(node).unwrap(), &[]).unwrap();
        assert_eq!(node.gpu_replicas, 4);
        let mig = |profile: &str| GpuResource::Mig(profile.to_owned());
        let all = [(GpuResource::Whole, 6), (mig("1g.10gb"), 5), (mig("1g.20gb+me"), 1), (GpuResource::Shared, 4)];
        assert_eq!(node.allocatable.gpus, all.into_iter().collect());
        assert_eq!(node.sick_gpus, [(mig("1g.10gb"), 2)].into_iter().collect());
        assert_eq!(node.labels.get("has.flash-sched.io/nvidia.com_mig-3g.40gb.shared").map(String::as_str), Some("true"));
        assert_eq!(node.labels.keys().filter(|key| key.starts_with(HAS)).count(), 1);
        assert_eq!(node.mig_memory_bytes, [("1g.10gb".to_owned(), 9_984 << 20), ("1g.20gb+me".to_owned(), 0)].into());
    }
}
