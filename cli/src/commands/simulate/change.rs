//! What might be otherwise: nodes that are added or drained, queues that are set up differently.
//!
//! Invariant: an error names the option, what was given, and what is possible.

use api::quantity::{Cpu, Duration, Gpus, Memory};
use simulator::Machine;
use simulator::scheduler::{Config, CpuMillis, GpuDevice, Limits, MemoryBytes, NodeConfig, QueueConfig, Span, Weight};

use super::nodes;
use crate::error::Error;

/// Changes, as they are written on the command line.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "What if")]
pub(crate) struct Changes {
    /// With this node more, such as `cpu=64,memory=512Gi,gpu=8`, or several: `4*cpu=64` (repeatable)
    #[arg(long, value_name = "SPEC", conflicts_with_all = ["format", "replay"])]
    add_node: Vec<String>,
    /// With nothing new started on this node (repeatable)
    #[arg(long, value_name = "NODE", conflicts_with_all = ["format", "replay"])]
    drain: Vec<String>,
    /// With a queue otherwise: `batch.weight=2`, `batch.limit.gpu=8`, `batch.maxConcurrent=none` (repeatable)
    #[arg(long, value_name = "QUEUE.FIELD=VALUE", conflicts_with_all = ["format", "replay"])]
    set_queue: Vec<String>,
}

/// Fields that `--set-queue` knows.
const FIELDS: &str = "priority, weight, preemptible, agePerPoint, maxConcurrent, guaranteed.cpu, guaranteed.memory, \
                      guaranteed.gpu, limit.cpu, limit.memory, limit.gpu";

impl Changes {
    /// Nothing is to be otherwise.
    pub(super) fn is_empty(&self) -> bool {
        self.add_node.is_empty() && self.drain.is_empty() && self.set_queue.is_empty()
    }

    /// In words, for headings.
    pub(super) fn words(&self) -> Vec<String> {
        let said = |flag: &'static str, values: &[String]| values.iter().map(move |value| format!("{flag} {value}")).collect();
        let all: [Vec<String>; 3] =
            [said("--add-node", &self.add_node), said("--drain", &self.drain), said("--set-queue", &self.set_queue)];
        all.concat()
    }

    /// The configuration as it would be.
    pub(super) fn apply(&self, mut config: Config) -> Result<Config, Error> {
        for name in &self.drain {
            let before = config.nodes.len();
            // Jobs that are on it keep it on the books; whoever is not configured is offered nothing.
            config.nodes.retain(|node| node.name.as_str() != name);
            if config.nodes.len() == before {
                let known = config.nodes.iter().map(|node| node.name.as_str());
                return Err(unknown("--drain", "node", name, known));
            }
        }
        let mut added = 0;
        for spec in &self.add_node {
            for machine in nodes::parse("--add-node", spec)? {
                added += 1;
                config.nodes.push(node(&machine, added));
            }
        }
        for text in &self.set_queue {
            let wrong = |what: String| Error::usage(format!("--set-queue `{text}`: {what}"));
            let parts = text.split_once('=').and_then(|(path, value)| Some((path.split_once('.')?, value)));
            let ((name, field), value) = parts.ok_or_else(|| wrong("write QUEUE.FIELD=VALUE".to_owned()))?;
            let Some(at) = config.queues.iter().position(|queue| queue.name.as_str() == name) else {
                let known = config.queues.iter().map(|queue| queue.name.as_str());
                return Err(unknown("--set-queue", "queue", name, known));
            };
            set(&mut config.queues[at], field, value).map_err(wrong)?;
        }
        Ok(config)
    }
}

fn unknown<'a>(flag: &str, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known = known.collect::<Vec<_>>().join(", ");
    Error::usage(format!("{flag}: there is no {what} `{name}`; there are: {known}"))
}

fn node(machine: &Machine, number: usize) -> NodeConfig {
    let name = format!("added-{number}");
    let gpu = |index| GpuDevice {
        uuid: format!("{name}-gpu-{index}").as_str().into(),
        model: machine.gpu_model.as_str().into(),
        memory: MemoryBytes(0),
    };
    let gpus = (0..machine.gpus).map(gpu).collect();
    let (cpu, memory) = (CpuMillis(machine.cpu_millis), MemoryBytes(machine.memory_bytes));
    NodeConfig { name: name.as_str().into(), cpu, memory, gpus }
}

/// A value, or none where that is said.
fn optional<T: std::str::FromStr>(value: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    if value == "none" { Ok(None) } else { value.parse().map(Some).map_err(|error: T::Err| error.to_string()) }
}

fn set(queue: &mut QueueConfig, field: &str, value: &str) -> Result<(), String> {
    let number = |error: std::num::ParseIntError| format!("`{value}` is not a whole number: {error}");
    match field {
        "priority" => queue.priority = value.parse().map_err(number)?,
        "weight" => {
            let weight: f64 = value.parse().map_err(|_| format!("`{value}` is not a weight: 0.001 to 1000000"))?;
            queue.weight = Weight::new(weight).map_err(|error| error.to_string())?;
        }
        "preemptible" => queue.preemptible = value.parse().map_err(|_| format!("`{value}` is neither true nor false"))?,
        "agePerPoint" => {
            let age: Duration = value.parse().map_err(|error: api::quantity::QuantityError| error.to_string())?;
            queue.age_per_point = (age.0 > 0).then_some(Span(age.0));
        }
        "maxConcurrent" => queue.max_concurrent = optional(value)?,
        _ => match field.split_once('.') {
            Some(("guaranteed", resource)) => amount(&mut queue.guaranteed, resource, value)?,
            Some(("limit", resource)) => amount(&mut queue.limit, resource, value)?,
            _ => return Err(unknown_field(field)),
        },
    }
    Ok(())
}

fn unknown_field(field: &str) -> String {
    format!("`{field}` is not a field; there are: {FIELDS}")
}

fn amount(limits: &mut Limits, resource: &str, value: &str) -> Result<(), String> {
    match resource {
        "cpu" => limits.cpu = optional::<Cpu>(value)?.map(|cpu| CpuMillis(cpu.0)),
        "memory" => limits.memory = optional::<Memory>(value)?.map(|memory| MemoryBytes(memory.0)),
        "gpu" => limits.gpus = optional::<Gpus>(value)?.map(|gpus| gpus.0),
        other => return Err(unknown_field(other)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn config() -> Config {
        let named = |name: &str| NodeConfig { name: name.into(), cpu: CpuMillis(1), memory: MemoryBytes(1), gpus: vec![] };
        Config { nodes: vec![named("a"), named("b")], queues: vec![QueueConfig::named("batch".into())], ..Config::default() }
    }

    fn changes(add: &[&str], drain: &[&str], set: &[&str]) -> Changes {
        let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Changes { add_node: own(add), drain: own(drain), set_queue: own(set) }
    }

    #[test]
    fn changes_are_made_to_what_there_is() {
        let set = ["batch.weight=2.5", "batch.limit.gpu=8", "batch.guaranteed.cpu=500m", "batch.maxConcurrent=3"];
        let wanted = changes(&["2*cpu=4,gpu=1"], &["a"], &[&set[..], &["batch.priority=-7", "batch.limit.gpu=none"]].concat());
        let config = wanted.apply(config()).unwrap();
        let names: Vec<_> = config.nodes.iter().map(|node| (node.name.as_str(), node.gpus.len())).collect();
        assert_eq!(names, [("b", 0), ("added-1", 1), ("added-2", 1)]);
        let queue = &config.queues[0];
        assert_eq!((queue.weight, queue.priority, queue.max_concurrent), (Weight::new(2.5).unwrap(), -7, Some(3)));
        assert_eq!((queue.limit.gpus, queue.guaranteed.cpu), (None, Some(CpuMillis(500))));
        assert_eq!(wanted.words().len(), 8);
        assert!(changes(&[], &[], &[]).is_empty() && !wanted.is_empty());
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        for (wanted, expected) in [
            (changes(&["cpus=4"], &[], &[]), "--add-node: `cpus=4`: `cpus` is not a resource"),
            (changes(&[], &["c"], &[]), "--drain: there is no node `c`; there are: a, b"),
            (changes(&[], &[], &["other.weight=1"]), "--set-queue: there is no queue `other`; there are: batch"),
            (changes(&[], &[], &["batch"]), "--set-queue `batch`: write QUEUE.FIELD=VALUE"),
            (changes(&[], &[], &["batch.size=1"]), "--set-queue `batch.size=1`: `size` is not a field; there are: priority, "),
            (changes(&[], &[], &["batch.weight=0"]), "--set-queue `batch.weight=0`: weight 0 is not between 0.001 and 1000000"),
            (changes(&[], &[], &["batch.weight=NaN"]), "--set-queue `batch.weight=NaN`: weight NaN is not between"),
            (changes(&[], &[], &["batch.limit.disk=1"]), "--set-queue `batch.limit.disk=1`: `disk` is not a field"),
            (changes(&[], &[], &["batch.limit.gpu=x"]), "--set-queue `batch.limit.gpu=x`: `x` is not a number of GPUs"),
        ] {
            let error = wanted.apply(config()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
