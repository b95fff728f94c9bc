//! A Kubernetes cluster as the place where jobs run: how it is reached, and its machines as nodes of the core.
//!
//! The nodes are read when the daemon starts. GPUs of a cluster have no identity that could be chosen: the core counts them under names of
//! ours, and the cluster gives a pod whichever are free on its node.

use anyhow::{Context as _, ensure};
use executors::kubernetes::{ClusterNode, connect as client_of, nodes as nodes_of};
use kube::Client;
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::ids::Name;
use scheduler_core::scheduler::{GpuDevice, NodeConfig};

use crate::config::Config;

/// A client of the cluster that the configuration speaks of.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<Client> {
    Ok(client_of(config.kubernetes.kubeconfig.as_deref()).await?)
}

/// Its machines.
pub(crate) async fn nodes(client: &Client) -> anyhow::Result<Vec<NodeConfig>> {
    let nodes = nodes_of(client.clone()).await.context("the cluster")?;
    ensure!(!nodes.is_empty(), "the cluster has no node that takes pods: `kubectl get nodes` shows why");
    Ok(nodes.into_iter().map(node).collect())
}

fn node(node: ClusterNode) -> NodeConfig {
    let device = |number: u32| {
        let name = format!("{}/gpu-{number}", node.name);
        GpuDevice::whole(name.into(), Name::from(node.gpu_model.as_str()), MemoryBytes(node.gpu_memory_bytes))
    };
    let gpus = (0..node.gpus).map(device).collect();
    let name = Name::from(node.name.as_str());
    let mut made = NodeConfig::new(name, CpuMillis(node.cpu_millis), MemoryBytes(node.memory_bytes), gpus);
    made.labels = node.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    made
}
