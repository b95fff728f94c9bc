//! The machines of a simulation.
//!
//! Defaults are there so that a trace can be run without knowing it; each says why it is what it is.

use scheduler_core::NodeConfig;
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::{GpuDevice, ids::Name};

/// Cores of the one machine that SWF traces run on by default: the processors of the Lublin model's trace. One machine, because the
/// processors of that model are all alike and a job may have any of them.
pub const SWF_PROCESSORS: u64 = 256;
/// Nodes of 8 GPUs that the Philly trace runs on by default. Its first half keeps 421 GPUs busy on average and far more in its last
/// weeks: on 768, jobs queue up by the hundred then and the queue drains again and again; on 512 thousands wait for days, on 1,024
/// hardly anybody waits.
pub const PHILLY_NODES: usize = 96;

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its name; unique in its cluster.
    pub name: String,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Whole GPUs.
    pub gpus: u32,
    /// Their product name.
    pub gpu_model: String,
}

impl Machine {
    fn config(&self) -> NodeConfig {
        let name = self.name.as_str();
        let model = Name::from(self.gpu_model.as_str());
        // No trace that is read asks for GPU memory.
        let gpu = |index| GpuDevice::whole(format!("{name}-gpu-{index}").into(), model.clone(), MemoryBytes(0));
        let gpus = (0..self.gpus).map(gpu).collect();
        NodeConfig::new(name.into(), CpuMillis(self.cpu_millis), MemoryBytes(self.memory_bytes), gpus)
    }
}

/// The machines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// All of them.
    pub machines: Vec<Machine>,
}

impl Cluster {
    /// These machines.
    pub const fn new(machines: Vec<Machine>) -> Self {
        Self { machines }
    }

    /// The core's nodes.
    pub(crate) fn nodes(&self) -> Vec<NodeConfig> {
        self.machines.iter().map(Machine::config).collect()
    }

    /// CPU in millicores, memory in bytes and GPUs of all of them.
    pub(crate) fn amounts(&self) -> [u128; 3] {
        let mut sum = [0; 3];
        for machine in &self.machines {
            sum[0] += u128::from(machine.cpu_millis);
            sum[1] += u128::from(machine.memory_bytes);
            sum[2] += u128::from(machine.gpus);
        }
        sum
    }
}
