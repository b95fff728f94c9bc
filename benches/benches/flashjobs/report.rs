//! What is said of a run: one JSON object, and a table of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{CLASSES, Created, Load};
use crate::meters::{MACHINE, Requests, Seconds};
use crate::watch::Seen;
use crate::{Options, What};

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// Seconds: mean, p50, p99.
fn waits(mut all: Vec<f64>) -> Value {
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| all.get(((all.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or_default();
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    json!({"count": all.len(), "mean": rounded(mean, 2), "p50": rounded(at(0.5), 2), "p99": rounded(at(0.99), 2)})
}

pub(crate) fn result(
    options: &Options,
    load: &Load,
    makespan: Duration,
    created: &Created,
    seen: &Seen,
    requests: &Requests,
    seconds: &Seconds,
) -> Value {
    let count = load.jobs.len() as f64;
    let span = makespan.as_secs_f64();
    let of_class = |class: usize| {
        let jobs = load.jobs.iter().zip(&seen.bound).filter(|(job, _)| job.class == class);
        waits(jobs.filter_map(|(job, bound)| Some(bound.as_ref()?.saturating_sub(job.at).as_secs_f64())).collect())
    };
    let all = load.jobs.iter().zip(&seen.bound);
    let all = waits(all.filter_map(|(job, bound)| Some(bound.as_ref()?.saturating_sub(job.at).as_secs_f64())).collect());
    let mut admission: serde_json::Map<String, Value> =
        CLASSES.iter().enumerate().map(|(at, (name, _))| ((*name).to_owned(), of_class(at))).collect();
    admission.insert("all".to_owned(), all);
    let per_job = |counts: &std::collections::BTreeMap<String, u64>| -> serde_json::Map<String, Value> {
        // What was asked for once or twice is of the start and of the end.
        let common = counts.iter().filter(|(_, value)| **value as f64 >= count / 100.0);
        common.map(|(key, value)| (key.clone(), json!(rounded(*value as f64 / count, 3)))).collect()
    };
    let ours: f64 = seconds.0.iter().filter(|(name, _)| *name != MACHINE).map(|(_, value)| value).sum();
    let machine = seconds.0.get(MACHINE).copied().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu: serde_json::Map<String, Value> = seconds
        .0
        .iter()
        .filter(|(name, _)| *name != MACHINE)
        .map(|(name, value)| (name.clone(), json!(rounded(*value, 1))))
        .collect();
    json!({
        "what": if options.what == What::Flashjobs { "FlashJobs" } else { "Jobs" },
        "jobs": load.jobs.len(), "scale": options.scale, "seed": options.seed, "default_rates": options.default_rates,
        "makespan_s": rounded(span, 1), "bound_s": rounded(load.bound(), 1),
        "quota_cores": load.cores(), "peak_cores": seen.peak,
        "use_by_work": rounded(load.work() / load.cores() as f64 / span, 3),
        "use_by_pods": rounded(seen.held / load.cores() as f64 / span, 3),
        "admission_s": admission,
        "pods": seen.pods, "pods_ended_early": seen.failed,
        "created": {"last_s": rounded(created.last_at.as_secs_f64(), 1), "latest_by_s": rounded(created.latest.as_secs_f64(), 2),
            "tried_again": created.refused},
        "requests_per_job": rounded(requests.total() as f64 / count, 2), "requests": per_job(&requests.asked),
        "told_per_job": per_job(&requests.told), "pod_watches": requests.watches.get("pods"),
        "cpu_s": cpu, "cpu_s_all": rounded(ours, 1), "cpu_ms_per_job": rounded(ours * 1_000.0 / count, 1),
        "machine": {"cores": cores, "others_in_use": rounded((machine - ours).max(0.0) / span / cores as f64, 3)},
    })
}

pub(crate) fn print(result: &Value) {
    let line = |name: &str, value: String| println!("{name:<34} {value}");
    let percent = |value: &Value| format!("{:.1} %", value.as_f64().unwrap_or_default() * 100.0);
    println!(
        "\nKueue's baseline workload as {} {}, scale 1/{}",
        result["jobs"],
        result["what"].as_str().unwrap_or_default(),
        result["scale"]
    );
    line("makespan, bound (s)", format!("{}, {}", result["makespan_s"], result["bound_s"]));
    line("quota in use: by pods, by work", format!("{}, {}", percent(&result["use_by_pods"]), percent(&result["use_by_work"])));
    for (class, waits) in result["admission_s"].as_object().into_iter().flatten() {
        let value = format!("{} / {} / {}", waits["mean"], waits["p50"], waits["p99"]);
        line(&format!("until bound (s), mean/p50/p99, {class}"), value);
    }
    line("pods, of them ended early", format!("{}, {}", result["pods"], result["pods_ended_early"]));
    line("requests a job", result["requests_per_job"].to_string());
    for (name, count) in result["requests"].as_object().into_iter().flatten() {
        line(&format!("  {name}"), count.to_string());
    }
    line("told to watchers a job", String::new());
    for (name, count) in result["told_per_job"].as_object().into_iter().flatten() {
        line(&format!("  {name}"), count.to_string());
    }
    line("processor seconds, ms a job", format!("{}, {}", result["cpu_s_all"], result["cpu_ms_per_job"]));
    for (name, seconds) in result["cpu_s"].as_object().into_iter().flatten() {
        line(&format!("  {name}"), seconds.to_string());
    }
    line("others on the machine", percent(&result["machine"]["others_in_use"]));
    line(
        "created: latest by (s), tried again",
        format!("{}, {}", result["created"]["latest_by_s"], result["created"]["tried_again"]),
    );
}
