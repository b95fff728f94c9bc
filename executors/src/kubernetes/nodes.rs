//! The machines of a cluster, as far as jobs may use them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, Client};

use super::error::executor_error;
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

/// A quantity in thousandths of its unit, rounded down: a cluster says `4`, `3920m`, `65Gi`, `1e3`, `0.5`.
fn thousandths(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Nine places are more than any cluster says.
    let part: u128 = format!("{part:0<9.9}").parse().ok()?;
    let billionths = whole.checked_mul(1_000_000_000)?.checked_add(part)?;
    let scaled = match suffix {
        "" => billionths,
        "n" => billionths / 1_000_000_000,
        "u" => billionths / 1_000_000,
        "m" => billionths / 1_000,
        _ => billionths.checked_mul(factor(suffix)?)?,
    };
    Some(scaled / 1_000_000)
}

fn factor(suffix: &str) -> Option<u128> {
    let decimal = ["k", "M", "G", "T", "P", "E"];
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let place = |list: [&str; 6]| list.iter().position(|known| *known == suffix).and_then(|at| u32::try_from(at + 1).ok());
    if let Some(power) = place(decimal) {
        return 1_000_u128.checked_pow(power);
    }
    if let Some(power) = place(binary) {
        return 1_024_u128.checked_pow(power);
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    10_u128.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_a_cluster_writes_them() {
        let read = |text: &str| thousandths(&Quantity(text.to_owned()));
        assert_eq!((read("4"), read("3920m"), read("0.5"), read("100u")), (Some(4_000), Some(3_920), Some(500), Some(0)));
        assert_eq!(read("65Gi"), Some(65 * 1_024 * 1_024 * 1_024 * 1_000));
        assert_eq!((read("1e3"), read("2k"), read("1.5Ki")), (Some(1_000_000), Some(2_000_000), Some(1_536_000)));
        assert_eq!((read("many"), read("4Xi")), (None, None));
    }
}
