//! What might be otherwise: nodes that are added or drained, queues that are set up differently.
//!
//! Invariant: an error names the option, what was given, and what is possible.

use api::QueueSpec;
use serde_json::{Value, json};
use simulator::Machine;
use simulator::scheduler::{Config, CpuMillis, GpuDevice, MemoryBytes, Name, NodeConfig};

use super::{nodes, queues};
use crate::error::Error;
use crate::patch::{self, without_nulls};

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
    /// With a queue otherwise, in the fields of the API: `batch.weight=2`, `batch.limit.gpu=8`, `batch.fairShare.halfLife=7d`,
    /// `batch.maxConcurrent=none` (repeatable)
    #[arg(long, value_name = "QUEUE.FIELD=VALUE", conflicts_with_all = ["format", "replay"])]
    set_queue: Vec<String>,
}

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

    /// The configuration as it would be. `specs` are the queues as they are.
    pub(super) fn apply(&self, mut config: Config, specs: &[(String, QueueSpec)]) -> Result<Config, Error> {
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
        let mut specs = specs.to_vec();
        for text in &self.set_queue {
            let wrong = |what: String| Error::usage(format!("--set-queue `{text}`: {what}"));
            let parts = text.split_once('=').and_then(|(path, value)| Some((path.split_once('.')?, value)));
            let ((name, field), value) = parts.ok_or_else(|| wrong("write QUEUE.FIELD=VALUE".to_owned()))?;
            let Some((_, spec)) = specs.iter_mut().find(|(queue, _)| queue == name) else {
                return Err(unknown("--set-queue", "queue", name, specs.iter().map(|(queue, _)| queue.as_str())));
            };
            *spec = set(spec, field, value).map_err(wrong)?;
        }
        config.queues = specs.iter().map(|(name, spec)| queues::queue(name, spec)).collect();
        Ok(config)
    }
}

fn unknown<'a>(flag: &str, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known = known.collect::<Vec<_>>().join(", ");
    Error::usage(format!("{flag}: there is no {what} `{name}`; there are: {known}"))
}

fn node(machine: &Machine, number: usize) -> NodeConfig {
    let name = format!("added-{number}");
    let model = Name::from(machine.gpu_model.as_str());
    let gpu = |index| GpuDevice::whole(format!("{name}-gpu-{index}").into(), model.clone(), MemoryBytes(0));
    let gpus = (0..machine.gpus).map(gpu).collect();
    NodeConfig::new(name.as_str().into(), CpuMillis(machine.cpu_millis), MemoryBytes(machine.memory_bytes), gpus)
}

/// A spec with one field otherwise; `none` takes back what is said of it.
fn set(spec: &QueueSpec, path: &str, value: &str) -> Result<QueueSpec, String> {
    let mut whole = serde_json::to_value(spec).map_err(|error| error.to_string())?;
    let mut place = &mut whole;
    for key in path.split('.') {
        if place.is_null() {
            *place = json!({});
        }
        let object = place.as_object_mut().ok_or_else(|| format!("`{path}` is not a field"))?;
        place = object.entry(key).or_insert(Value::Null);
    }
    *place = match value {
        patch::NONE => Value::Null,
        // Numbers and truth are as JSON has them; all else is text.
        text => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    };
    serde_path_to_error::deserialize(without_nulls(whole)).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        field => format!("{field}: {}", error.inner()),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use simulator::scheduler::Span;

    use super::*;

    fn config() -> Config {
        let named = |name: &str| NodeConfig::new(name.into(), CpuMillis(1), MemoryBytes(1), vec![]);
        Config { nodes: vec![named("a"), named("b")], ..Config::default() }
    }

    fn specs() -> Vec<(String, QueueSpec)> {
        let spec = serde_json::from_str(r#"{"limit": {"gpu": 4}, "maxConcurrent": 5}"#).unwrap();
        vec![("batch".to_owned(), spec), ("other".to_owned(), QueueSpec::default())]
    }

    fn changes(add: &[&str], drain: &[&str], set: &[&str]) -> Changes {
        let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Changes { add_node: own(add), drain: own(drain), set_queue: own(set) }
    }

    #[test]
    fn changes_are_made_to_what_there_is() {
        let set = ["batch.weight=2.5", "batch.limit.gpu=none", "batch.guaranteed.cpu=500m", "batch.maxConcurrent=none"];
        let more = ["batch.priority=-7", "batch.fairShare.halfLife=2d", "batch.shortFirst.perStay=7", "batch.preemptible=true"];
        let wanted = changes(&["2*cpu=4,gpu=1"], &["a"], &[set, more].concat());
        let config = wanted.apply(config(), &specs()).unwrap();
        let names: Vec<_> = config.nodes.iter().map(|node| (node.name.as_str(), node.gpus.len())).collect();
        assert_eq!(names, [("b", 0), ("added-1", 1), ("added-2", 1)]);
        let queue = &config.queues[0];
        assert_eq!((queue.weight.thousandths(), queue.priority, queue.max_concurrent), (2_500, -7, None));
        assert_eq!((queue.limit.gpus, queue.guaranteed.cpu, queue.preemptible), (None, Some(CpuMillis(500)), true));
        assert_eq!(queue.fair_share.as_ref().unwrap().half_life, Span::from_secs(2 * 86_400));
        assert_eq!(queue.short_first.unwrap().per_stay, 7);
        assert_eq!(config.queues.len(), 2);
        assert_eq!(wanted.words().len(), 10);
        assert!(changes(&[], &[], &[]).is_empty() && !wanted.is_empty());
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        for (wanted, expected) in [
            (changes(&["cpus=4"], &[], &[]), "--add-node: `cpus=4`: `cpus` is not a resource"),
            (changes(&[], &["c"], &[]), "--drain: there is no node `c`; there are: a, b"),
            (changes(&[], &[], &["night.weight=1"]), "--set-queue: there is no queue `night`; there are: batch, other"),
            (changes(&[], &[], &["batch"]), "--set-queue `batch`: write QUEUE.FIELD=VALUE"),
            (changes(&[], &[], &["batch.size=1"]), "--set-queue `batch.size=1`: size: unknown field `size`, expected one of"),
            (changes(&[], &[], &["batch.weight.x=1"]), "--set-queue `batch.weight.x=1`: `weight.x` is not a field"),
            (changes(&[], &[], &["batch.weight=0"]), "--set-queue `batch.weight=0`: weight: `0` is not a weight"),
            (changes(&[], &[], &["batch.weight=NaN"]), "--set-queue `batch.weight=NaN`: weight: `NaN` is not a weight"),
            (changes(&[], &[], &["batch.limit.disk=1"]), "--set-queue `batch.limit.disk=1`: limit.disk: unknown field `disk`"),
            (
                changes(&[], &[], &["batch.limit.gpu=x"]),
                "--set-queue `batch.limit.gpu=x`: limit.gpu: `x` is not an amount of GPUs",
            ),
        ] {
            let error = wanted.apply(config(), &specs()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
