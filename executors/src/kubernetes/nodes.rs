//! The machines of a cluster, as far as jobs may use them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use kube::api::ListParams;
use kube::{Api, Client};

use super::error::executor_error;
use super::quantity::thousandths;
use crate::contract::ExecutorError;

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterNode {
    /// Its host name, as pods select it.
    pub name: String,
    /// Allocatable processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Allocatable memory in bytes.
    pub memory_bytes: u64,
    /// Allocatable whole GPUs.
    pub gpus: u32,
    /// The product that its labels name; empty if they name none.
    pub gpu_model: String,
    /// Memory of each of its GPUs in bytes, as its labels say; 0 if they do not.
    pub gpu_memory_bytes: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Nodes that take pods: ready, not cordoned, without taints that keep pods away.
pub async fn nodes(client: Client) -> Result<Vec<ClusterNode>, ExecutorError> {
    let listed = Api::<Node>::all(client).list(&ListParams::default()).await;
    let listed = listed.map_err(|error| executor_error("reading the nodes", &error))?;
    let mut nodes: Vec<ClusterNode> = listed.items.into_iter().filter(takes_pods).filter_map(read).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nodes)
}

fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let keeps_away = |taint: &Taint| taint.effect != "PreferNoSchedule";
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    ready && spec.unschedulable != Some(true) && !spec.taints.iter().flatten().any(keeps_away)
}

fn read(node: Node) -> Option<ClusterNode> {
    let labels = node.metadata.labels.unwrap_or_default();
    let name = labels.get("kubernetes.io/hostname").cloned().or(node.metadata.name)?;
    let status: NodeStatus = node.status?;
    let allocatable = status.allocatable.or(status.capacity).unwrap_or_default();
    let amount = |key: &str| allocatable.get(key).and_then(thousandths).unwrap_or(0);
    let mebibytes = labels.get("nvidia.com/gpu.memory").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Some(ClusterNode {
        name,
        cpu_millis: u64::try_from(amount("cpu")).unwrap_or(u64::MAX),
        memory_bytes: u64::try_from(amount("memory") / 1_000).unwrap_or(u64::MAX),
        gpus: u32::try_from(amount("nvidia.com/gpu") / 1_000).unwrap_or(u32::MAX),
        gpu_model: labels.get("nvidia.com/gpu.product").cloned().unwrap_or_default(),
        gpu_memory_bytes: mebibytes.saturating_mul(1 << 20),
        labels,
    })
}
