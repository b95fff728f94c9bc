//! The machines of a simulation, in pools that share nothing.
//!
//! Defaults are there so that a trace can be run without knowing it; each says why it is what it is.

use scheduler_core::NodeConfig;
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::{GpuDevice, ids::Name};

use crate::workload::Workload;

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
    fn config(&self, pool: usize, pools: usize) -> NodeConfig {
        let name = if pools > 1 { format!("pool-{pool}-{}", self.name) } else { self.name.clone() };
        let model = Name::from(self.gpu_model.as_str());
        // No trace that is read asks for GPU memory.
        let gpu = |index| GpuDevice::whole(format!("{name}-gpu-{index}").into(), model.clone(), MemoryBytes(0));
        let gpus = (0..self.gpus).map(gpu).collect();
        NodeConfig::new(name.as_str().into(), CpuMillis(self.cpu_millis), MemoryBytes(self.memory_bytes), gpus)
    }
}

/// The machines; each pool has all of them once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Of one pool.
    pub machines: Vec<Machine>,
    /// How many pools there are, at least 1.
    pub pools: usize,
}

impl Cluster {
    /// These machines, once for each pool of the workload.
    pub fn new(machines: Vec<Machine>, workload: &Workload) -> Self {
        Self { machines, pools: workload.pools() }
    }

    /// The core's nodes of one pool.
    pub(crate) fn nodes(&self, pool: usize) -> Vec<NodeConfig> {
        self.machines.iter().map(|machine| machine.config(pool, self.pools)).collect()
    }

    /// CPU in millicores, memory in bytes and GPUs of one pool.
    pub(crate) fn pool_amounts(&self) -> [u128; 3] {
        let mut sum = [0; 3];
        for machine in &self.machines {
            sum[0] += u128::from(machine.cpu_millis);
            sum[1] += u128::from(machine.memory_bytes);
            sum[2] += u128::from(machine.gpus);
        }
        sum
    }

    /// The same of all pools.
    pub(crate) fn amounts(&self) -> [u128; 3] {
        self.pool_amounts().map(|amount| amount * self.pools as u128)
    }
}
