//! This machine as a node: what it has, what the configuration says of it, and the labels that it has by itself.

use std::collections::BTreeMap;

use executors::node::HOSTNAME;
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::ids::Name;
use scheduler_core::scheduler::{GpuDevice, NodeConfig};

use crate::config::Config;
use crate::names;

/// This machine as a node of the core, with these GPUs.
pub(crate) fn node(config: &Config, gpus: Vec<GpuDevice>) -> NodeConfig {
    let machine = executors::node::inventory();
    let name = config.node.name.as_ref().map_or(machine.hostname.as_str(), |name| name.as_str());
    let cpu = CpuMillis(config.node.cpus.map_or(machine.cpu_millis, |cpu| cpu.0));
    let memory = MemoryBytes(config.node.memory.map_or(machine.memory_bytes, |memory| memory.0));
    let mut node = NodeConfig::new(name.into(), cpu, memory, gpus);
    node.labels = labels(&machine.hostname, config);
    node
}

/// What the configuration says, and what every machine says of itself.
fn labels(hostname: &str, config: &Config) -> BTreeMap<Name, Name> {
    // A host name may have what a label may not.
    let hostname = if names::is_label_value(hostname) { hostname.to_owned() } else { names::to_label(hostname, "unknown") };
    let key = |key: &str| format!("{}{key}", names::OWN_PREFIX);
    let kind = [(key("arch"), std::env::consts::ARCH), (key("os"), std::env::consts::OS)];
    let own = [(HOSTNAME.to_owned(), hostname.as_str())].into_iter().chain(kind);
    let own = own.map(|(key, value)| (Name::from(key), Name::from(value)));
    let said = config.node.labels.iter().map(|(key, value)| (Name::from(key), Name::from(value)));
    said.chain(own).collect()
}
