//! What was used, over the real daemon: to the microsecond what the table of jobs says, also when the daemon is killed in between.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use common::flash::{flash, told};
use common::{Daemon, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\nnamespaces = [\"default\", \"ml\"]\n[node]\nname = \"box\"\ncpus = 8\nmemory = \"1Gi\"\n\
                      [[gpu.static]]\nuuid = \"amd-0\"\nmodel = \"MI300X\"\nmemory = \"192Gi\"\n";

/// Seconds between two times of a job.
fn seconds(job: &Value) -> f64 {
    let at = |key: &str| job[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
    (at("finishedAt") - at("startedAt")) as f64 / 1e6
}

fn near(one: &Value, other: f64) -> bool {
    (one.as_f64().unwrap() - other).abs() < 1e-4
}

async fn usage(daemon: &Daemon, query: &str) -> Value {
    let (status, list) = daemon.get(&format!("/api/v1/usage{query}")).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    list
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_is_counted_once_over_kills_of_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let waits = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    let job = |script: &str, namespace: &str, gpu: u32| {
        let mut job = shell(script);
        job["namespace"] = json!(namespace);
        job["resources"] = json!({"cpu": "1500m", "memory": "32Mi", "gpu": gpu});
        job
    };
    let held = daemon.submit(job(&waits, "ml", 1)).await;
    daemon.until(&held, "running").await;
    let mut ids = vec![held.clone()];
    for round in 0..3 {
        for number in 0..20 {
            ids.push(daemon.submit(job(if number % 5 == 4 { "exit 3" } else { "true" }, "default", 0)).await);
        }
        if round < 2 {
            // In the midst of it.
            daemon.finished(&ids[1 + round * 20 + 3]).await;
            daemon.kill();
            daemon.restart();
        }
    }
    let running = daemon.job(&held).await;
    assert!(running["usage"]["gpuSeconds"].as_f64().unwrap() > 0.0, "it counts while it runs: {running}");
    assert_eq!(running["usage"]["runs"], 1);
    let waiting = {
        let mut job = job("true", "default", 0);
        job["hold"] = json!(true);
        daemon.submit(job).await
    };
    assert!(daemon.job(&waiting).await.get("usage").is_none(), "nothing of it ran");
    std::fs::write(&gate, "").unwrap();
    let (mut ml, mut default) = (0.0, 0.0);
    for id in &ids {
        let job = daemon.finished(id).await;
        assert_eq!(job["attempt"], 1, "{job}");
        let seconds = seconds(&job);
        assert!(near(&job["usage"]["cpuSeconds"], seconds * 1.5), "{job}");
        *(if *id == held { &mut ml } else { &mut default }) += seconds;
    }
    let list = usage(&daemon, "?by=namespace").await;
    let rows = list["items"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{list}");
    assert_eq!((&rows[0]["namespace"], &rows[0]["runs"]), (&json!("default"), &json!(60)), "{list}");
    assert_eq!((&rows[1]["namespace"], &rows[1]["runs"]), (&json!("ml"), &json!(1)), "{list}");
    assert!(near(&rows[0]["cpuSeconds"], default * 1.5), "{list}");
    let memory = rows[0]["memoryMibSeconds"].as_f64().unwrap();
    assert!((memory - default * 32.0).abs() < 60.0 * 0.000_51, "half a millisecond of a MiB each: {list}");
    assert!(near(&rows[0]["gpuSeconds"], 0.0) && near(&rows[1]["gpuSeconds"], ml), "{list}");
    assert!(rows[1].get("gpuBusyPercent").is_none(), "nobody asks such a GPU");
    let jobs = usage(&daemon, "?by=job&namespace=ml").await;
    assert_eq!((jobs["items"].as_array().unwrap().len(), &jobs["items"][0]["job"]), (1, &json!(held)), "{jobs}");
    assert!(near(&jobs["items"][0]["gpuSeconds"], ml));
    let all = usage(&daemon, "?by=job&limit=7").await;
    assert_eq!((all["items"].as_array().unwrap().len(), &all["more"]), (7, &json!(true)));

    let table = told(&daemon, &["usage", "--by", "queue,namespace"]);
    assert!(table.starts_with("NAMESPACE  QUEUE          RUNS  GPU TIME  CPU TIME  GPU USE\nml "), "{table}");
    let one: Value = serde_json::from_str(&told(&daemon, &["usage", "--job", &held, "-o", "json"])).unwrap();
    assert_eq!((&one["by"], &one["items"][0]["runs"]), (&json!(["job"]), &json!(1)));
    assert!(told(&daemon, &["show", &held]).contains(" GPU time"));
    daemon.terminate();
    daemon.restart();
    assert_eq!(usage(&daemon, "?by=namespace").await, list);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_try_counts_and_what_cannot_be_asked_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let job = daemon.submit(shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()))).await;
    daemon.until(&job, "running").await;
    assert_eq!(daemon.post(&format!("/api/v1/jobs/{job}/requeue"), Value::Null).await.0, StatusCode::OK);
    std::fs::write(&gate, "").unwrap();
    let ended = daemon.finished(&job).await;
    assert_eq!((&ended["attempt"], &ended["usage"]["runs"]), (&json!(2), &json!(2)), "{ended}");
    assert!(ended["usage"]["cpuSeconds"].as_f64().unwrap() > seconds(&ended), "{ended}");
    let sum = usage(&daemon, "").await;
    assert_eq!((&sum["items"][0]["runs"], &sum["items"][0]["cpuSeconds"]), (&json!(2), &ended["usage"]["cpuSeconds"]), "{sum}");
    for (query, status, field, said) in [
        ("?by=gpu", 422, "by", "`gpu` is not user, namespace, queue, day or job"),
        ("?since=tomorrow", 422, "since", "is not a day such as 2026-11-21"),
        ("?until=2026-02-30", 422, "until", "is not a day such as 2026-11-21"),
        ("?since=2026-11-22&until=2026-11-21", 422, "since", "2026-11-22 is after 2026-11-21"),
        ("?limit=0", 422, "limit", "1 to 10000"),
        ("?days=3", 400, "", "days"),
        ("?job=99999", 404, "", "99999"),
    ] {
        let (got, problem) = daemon.get(&format!("/api/v1/usage{query}")).await;
        assert_eq!((got.as_u16(), problem["field"].as_str().unwrap_or_default()), (status, field), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{query}: {problem}");
    }
    let refused = flash(&daemon, &["usage", "--by", "gpu"]);
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    assert!(refused.err.contains("by: `gpu` is not user, namespace, queue, day or job"), "{}", refused.err);
}
