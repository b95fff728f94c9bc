//! Our own trace format: one job a line, as JSON, in the words of the API.
//!
//! ```text
//! {"at": "0s", "duration": "90s", "timeLimit": "2m", "priority": 5, "queue": "q", "namespace": "a", "replicas": 4,
//!  "resources": {"cpu": "4", "memory": "16Gi", "gpu": "2"}}
//! ```
//! `at` and `duration` are needed; times count from wherever the trace likes; `resources` are those of one task, by default one core as for
//! a job that is submitted.

use api::quantity::{Cpu, Duration, Gpus, Memory};
use scheduler::{CpuMillis, MemoryBytes, Request, Span};
use serde::Deserialize;
use simulator::scheduler;
use simulator::{Builder, Job, Workload};

use crate::error::Error;

/// Most tasks of one job: more are refused by the scheduler anyway.
const MOST_REPLICAS: u32 = 1_000_000;
/// Priorities that a job may have.
const PRIORITIES: std::ops::RangeInclusive<i32> = -scheduler::PRIORITY_LIMIT..=scheduler::PRIORITY_LIMIT;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    at: Duration,
    duration: Duration,
    time_limit: Option<Duration>,
    #[serde(default)]
    priority: i32,
    #[serde(default = "default_queue")]
    queue: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default = "one")]
    replicas: u32,
    #[serde(default = "one_core")]
    resources: Resources,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
    #[serde(default)]
    gpu: Gpus,
}

fn default_queue() -> String {
    "default-batch".to_owned()
}

fn default_namespace() -> String {
    "default".to_owned()
}

const fn one() -> u32 {
    1
}

const fn one_core() -> Resources {
    Resources { cpu: Cpu(1_000), memory: Memory(0), gpu: Gpus(0) }
}

/// Reads a trace; errors name the line and the field.
pub(super) fn read(file: &str, text: &str) -> Result<Workload, Error> {
    let mut builder = Builder::new();
    let mut before = Duration(0);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Error::usage(format!("{file}:{}: {what}", index + 1));
        let line: Line = parse(line).map_err(wrong)?;
        if line.at < before {
            return Err(wrong(format!(
                "not sorted: at {} comes after {before} of the job before; sort the trace by at",
                line.at
            )));
        }
        before = line.at;
        if !(1..=MOST_REPLICAS).contains(&line.replicas) {
            return Err(wrong(format!("replicas: {} is not within 1 to {MOST_REPLICAS}", line.replicas)));
        }
        if !PRIORITIES.contains(&line.priority) {
            return Err(wrong(format!("priority: {} is not within ±{}", line.priority, PRIORITIES.end())));
        }
        if line.time_limit.is_some_and(|limit| limit.0 == 0) {
            return Err(wrong("timeLimit: must be longer than 0s; leave it out for none".to_owned()));
        }
        let (queue, tenant) = (builder.queue(&line.queue), builder.tenant(&line.namespace));
        builder.push(Job {
            at: Span(line.at.0),
            duration: Span(line.duration.0),
            limit: line.time_limit.map(|limit| Span(limit.0)),
            priority: line.priority,
            queue,
            tenant,
            tasks: line.replicas,
            request: Request {
                cpu: CpuMillis(line.resources.cpu.0),
                memory: MemoryBytes(line.resources.memory.0),
                gpus: line.resources.gpu.0,
            },
        });
    }
    builder.finish().ok_or_else(|| Error::usage(format!("{file}: there is no job in it")))
}

/// A line, or what is wrong with it: `field: what`.
fn parse(line: &str) -> Result<Line, String> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.into_inner());
        let text = inner.to_string();
        // The parser's own position is within this line: always line 1.
        let text = text.split(" at line 1 column").next().unwrap_or(&text).to_owned();
        if path == "." { text } else { format!("{path}: {text}") }
    })?;
    reader.end().map_err(|_| "more than one JSON object on the line".to_owned())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_line_is_a_job() {
        let text = r#"{"at": "10s", "duration": "1m"}

{"at": "15s", "duration": "500ms", "timeLimit": "2m", "priority": -5, "queue": "q", "namespace": "a", "replicas": 4, "resources": {"memory": "16Gi", "gpu": "2"}}"#;
        let workload = read("t", text).unwrap();
        let [first, second] = &workload.jobs[..] else { panic!("{workload:?}") };
        assert_eq!((first.at, first.duration, first.limit, first.tasks), (Span(0), Span::from_secs(60), None, 1));
        assert_eq!(first.request, Request { cpu: CpuMillis(1_000), memory: MemoryBytes(0), gpus: 0 });
        assert_eq!((second.at, second.limit, second.priority), (Span::from_secs(5), Some(Span::from_secs(120)), -5));
        assert_eq!((second.tasks, second.request), (4, Request { cpu: CpuMillis(0), memory: MemoryBytes(16 << 30), gpus: 2 }));
        assert_eq!(workload.queues[second.queue].config.name.as_str(), "q");
        assert_eq!(workload.tenants[second.tenant].as_str(), "a");
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_field() {
        let good = r#"{"at": "10s", "duration": "1m"}"#;
        for (line, expected) in [
            (r#"{"duration": "1m"}"#, "t:2: missing field `at`"),
            (r#"{"at": "11s"}"#, "t:2: missing field `duration`"),
            (r#"{"at": "-1s", "duration": "1m"}"#, "t:2: at: `-1s` is not a duration"),
            (r#"{"at": "11s", "duration": "-5s"}"#, "t:2: duration: `-5s` is not a duration"),
            (r#"{"at": "9s", "duration": "1m"}"#, "t:2: not sorted: at 9s comes after 10s"),
            (r#"{"at": "11s", "duration": "1m", "gpus": 1}"#, "t:2: gpus: unknown field `gpus`"),
            (r#"{"at": "11s", "duration": "1m", "resources": {"cpu": "x"}}"#, "t:2: resources.cpu: `x` is not an amount of CPU"),
            (r#"{"at": "11s", "duration": "1m", "replicas": 0}"#, "t:2: replicas: 0 is not within 1 to"),
            (r#"{"at": "11s", "duration": "1m", "priority": 1000001}"#, "t:2: priority: 1000001 is not within ±1000000"),
            (r#"{"at": "11s", "duration": "1m", "timeLimit": "0s"}"#, "t:2: timeLimit: must be longer"),
            (r#"{"at": "11s", "duration": "1m"} {}"#, "t:2: more than one JSON object"),
            ("nonsense", "t:2: expected"),
        ] {
            let error = read("t", &format!("{good}\n{line}")).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert_eq!(read("t", "\n \n").unwrap_err().to_string(), "t: there is no job in it");
    }
}
