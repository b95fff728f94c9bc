//! Nodes that kwok plays.

use serde_json::{Value, json};

/// A node to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Processors.
    pub cpus: u64,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// Whole GPUs.
    pub gpus: u64,
    /// Other resources that its device plugins give out, and how many: `nvidia.com/mig-1g.10gb`, ...
    pub devices: Vec<(String, u64)>,
    /// Labels beside those that every node has.
    pub labels: Vec<(String, String)>,
    /// Taints: key, value, effect.
    pub taints: Vec<(String, String, String)>,
}

impl NodeSpec {
    /// A machine with eight GPUs, 64 processors and 512 GiB.
    pub fn with_gpus(name: impl Into<String>) -> Self {
        Self { gpus: 8, memory_gib: 512, cpus: 64, ..Self::plain(name) }
    }

    /// A machine with 16 processors and 64 GiB.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), cpus: 16, memory_gib: 64, gpus: 0, devices: Vec::new(), labels: Vec::new(), taints: Vec::new() }
    }

    /// As the API takes it.
    pub(crate) fn object(&self) -> Value {
        let mut capacity = json!({"cpu": self.cpus.to_string(), "memory": format!("{}Gi", self.memory_gib), "pods": "250"});
        let mut labels = json!({"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "type": "kwok"});
        if self.gpus > 0 {
            capacity["nvidia.com/gpu"] = self.gpus.to_string().into();
            labels["nvidia.com/gpu.product"] = "NVIDIA-H100-80GB-HBM3".into();
            labels["nvidia.com/gpu.memory"] = "81559".into();
            labels["nvidia.com/gpu.count"] = self.gpus.to_string().into();
        }
        for (resource, count) in &self.devices {
            capacity[resource] = count.to_string().into();
        }
        for (key, value) in &self.labels {
            labels[key] = value.as_str().into();
        }
        let taints: Vec<Value> =
            self.taints.iter().map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect})).collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels},
            "spec": {"taints": taints}, "status": {"capacity": capacity, "allocatable": capacity}})
    }
}
