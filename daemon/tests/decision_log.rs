//! The decision log of a real daemon: jobs run, fail, are cancelled and lost, the daemon is killed and started again; both parts replay.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Daemon, shell};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\ndecision_log = \"LOG\"\n[node]\ncpus = 4\nmemory = \"8Gi\"\nlabels = { zone = \"here\" }\n\
    [[queues]]\nname = \"low\"\npreemptible = true\n";

/// The client that was built beside the daemon.
fn flash() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_flashd")).with_file_name("flash");
    assert!(path.is_file(), "{} is not there: build the whole workspace first (cargo build --workspace)", path.display());
    path
}

/// Exit code and the JSON that it prints.
fn run(args: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(flash()).args(args).args(["-o", "json"]).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    (output.status.code(), serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}{err}")))
}

/// A job of this many cores that runs until the file appears.
fn gated(gate: &Path, cpus: u32) -> Value {
    let mut job = shell(&format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display()));
    job["resources"] = json!({ "cpu": cpus.to_string() });
    job["timeLimit"] = json!("1h");
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_daemon_decided_replays_over_a_kill_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("decisions.jsonl");
    let mut daemon = Daemon::start(&folder.path().join("data"), &CONFIG.replace("LOG", log.to_str().unwrap()));
    let gate = folder.path().join("gate");
    for exit in [0, 3] {
        let id = daemon.submit(shell(&format!("exit {exit}"))).await;
        daemon.finished(&id).await;
    }
    let runs = daemon.submit(gated(&gate, 2)).await;
    daemon.until(&runs, "running").await;
    let requeued = daemon.submit(gated(&gate, 1)).await;
    daemon.until(&requeued, "running").await;
    let (status, body) = daemon.post(&format!("/api/v1/jobs/{requeued}/requeue"), Value::Null).await;
    assert!(status.is_success(), "{body}");
    let cancelled = daemon.submit(gated(&gate, 4)).await;
    let waits = daemon.submit(gated(&gate, 4)).await;
    let held = daemon.submit(json!({"command": ["/bin/true"], "workingDir": "/tmp", "hold": true})).await;
    daemon.post(&format!("/api/v1/jobs/{cancelled}/cancel"), Value::Null).await;
    daemon.finished(&cancelled).await;
    let refused = daemon.post("/api/v1/jobs", gated(&gate, 64)).await;
    assert!(refused.0.is_client_error(), "{refused:?}");
    daemon.kill();

    daemon.restart();
    daemon.post(&format!("/api/v1/jobs/{held}/release"), Value::Null).await;
    for runner in daemon.runners() {
        kill_process(runner, Signal::KILL).unwrap();
    }
    std::fs::write(&gate, "").unwrap();
    for id in [&runs, &requeued, &waits, &held] {
        assert_eq!(daemon.finished(id).await["outcome"]["result"], "succeeded");
    }
    assert_eq!(daemon.job(&runs).await["attempt"], 2, "it was lost with its runner and tried again");
    assert!(daemon.terminate().success(), "{}", daemon.log());

    let path = log.to_str().unwrap();
    let (code, found) = run(&["simulate", "--replay", path]);
    assert_eq!((code, &found["difference"]), (Some(0), &Value::Null), "{found:#}");
    let parts = found["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2, "{found:#}");
    assert!(parts[0]["placed"].as_u64().unwrap() >= 4, "{found:#}");
    assert!(parts[1]["placed"].as_u64().unwrap() >= 2 && parts[1]["end"] == "whole", "{found:#}");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(
        text.lines().any(|line| line.starts_with("{\"did\"") && line.contains("\"restore\"")),
        "the second part begins with what was there"
    );

    // The same decisions from other inputs are not the same log.
    let first = text.find("\"by\":\"placed\"").unwrap();
    let other = format!("{}{}", &text[..first], text[first..].replacen("\"attempt\":1", "\"attempt\":2", 1));
    std::fs::write(&log, other).unwrap();
    let (code, found) = run(&["simulate", "--replay", path]);
    assert_eq!(code, Some(1));
    assert_eq!(found["difference"]["line"], text[..first].lines().count(), "{found:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_asked_when_its_jobs_would_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut daemon = Daemon::start(&folder.path().join("data"), &CONFIG.replace("LOG", log.to_str().unwrap()));
    let gate = folder.path().join("gate");
    let runs = daemon.submit(gated(&gate, 3)).await;
    daemon.until(&runs, "running").await;
    // Four cores: the second waits for the first's limit, the third for the second's; the fourth has none and the fifth is held.
    let (second, third) = (daemon.submit(gated(&gate, 4)).await, daemon.submit(gated(&gate, 2)).await);
    let mut unlimited = gated(&gate, 4);
    unlimited["timeLimit"] = Value::Null;
    let fourth = daemon.submit(unlimited).await;
    let held = daemon.submit(json!({"command": ["/bin/true"], "workingDir": "/tmp", "hold": true})).await;
    let server = format!("unix://{}", daemon.socket().display());
    let ask = |args: &[&str]| {
        let (code, answer) = run(&[&["simulate", "--server", &server, "--from-server"][..], args].concat());
        assert_eq!(code, Some(0), "{answer:#}");
        answer
    };
    // Seconds from the question until each starts, rounded to a minute; `None`: never.
    let starts = |answer: &Value, of: &dyn Fn(&Value) -> Value| -> Vec<(String, Option<i64>)> {
        let time = |value: &Value| value.as_str().map(|text| text.parse::<jiff::Timestamp>().unwrap().as_second());
        let at = time(&answer["at"]).unwrap();
        let minutes = |job: &Value| time(&of(job)).map(|start| (start - at + 30).div_euclid(60));
        answer["jobs"].as_array().unwrap().iter().map(|job| (job["id"].as_str().unwrap().to_owned(), minutes(job))).collect()
    };
    let answer = ask(&["--assume-runtime", "2h"]);
    let expected = [(&second, Some(60)), (&third, Some(121)), (&fourth, Some(181)), (&held, None)];
    // A limit ends a job, and its grace may follow: half a minute each.
    let now = starts(&answer, &|job| job["start"].clone());
    for ((id, found), (wanted, minutes)) in now.iter().zip(expected) {
        assert_eq!(id, wanted, "{answer:#}");
        let near = found.zip(minutes).map_or(found.is_none() && minutes.is_none(), |(found, wanted)| (found - wanted).abs() <= 2);
        assert!(near, "{id} {found:?} {minutes:?}: {answer:#}");
    }
    assert_eq!((&answer["assumedRuntime"], &answer["withoutLimit"]), (&json!("2h"), &json!(2)));

    let answer = ask(&["--add-node", "cpu=4", "--set-queue", "default-batch.priority=7"]);
    assert_eq!(answer["changes"], json!(["--add-node cpu=4", "--set-queue default-batch.priority=7"]));
    let changed = starts(&answer, &|job| job["changed"]["start"].clone());
    assert_eq!(changed[0], (second.clone(), Some(0)), "{answer:#}");
    assert!(answer["jobs"][0]["changed"]["seconds"].as_f64().unwrap() < -3000.0, "{answer:#}");

    let (_, node) = daemon.get("/api/v1/nodes").await;
    let answer = ask(&["--drain", node["items"][0]["name"].as_str().unwrap()]);
    assert!(starts(&answer, &|job| job["changed"]["start"].clone()).iter().all(|(_, start)| start.is_none()), "{answer:#}");
    assert!(answer["jobs"][0]["start"].is_string());

    let name = node["items"][0]["name"].as_str().unwrap();
    let mut picky = gated(&gate, 1);
    picky["nodeSelector"] = json!({"zone": "here"});
    let picky = daemon.submit(picky).await;
    let (status, body) = daemon.post(&format!("/api/v1/nodes/{name}/cordon"), json!({})).await;
    assert!(status.is_success(), "{body}");
    let answer = ask(&["--add-node", "cpu=4"]);
    let never = starts(&answer, &|job| job["start"].clone());
    assert!(never.iter().all(|(_, start)| start.is_none()), "nothing new starts on a cordoned node: {answer:#}");
    let changed = starts(&answer, &|job| job["changed"]["start"].clone());
    let of = |id: &String| changed.iter().find(|(job, _)| job == id).unwrap().1;
    assert_eq!((of(&second), of(&picky)), (Some(0), None), "the new node has no labels: {answer:#}");

    // All that was changed meanwhile is in the log, too.
    let fair = json!({"weight": 2, "fairShare": {"halfLife": "1d"}, "shortFirst": {"most": "1h"}});
    let (status, body) = daemon.call("PUT", "/api/v1/queues/default-batch", Some(fair), &[]).await.unwrap();
    assert!(status.is_success(), "{body}");
    let (status, body) = daemon.post(&format!("/api/v1/nodes/{name}/resume"), json!({})).await;
    assert!(status.is_success(), "{body}");
    std::fs::write(&gate, "").unwrap();
    for id in [&runs, &second, &third, &fourth, &picky] {
        daemon.finished(id).await;
    }
    assert!(daemon.terminate().success(), "{}", daemon.log());
    let text = std::fs::read_to_string(&log).unwrap();
    for call in ["setQueue", "setNodeState", "submit", "plan"] {
        assert!(text.contains(&format!("\"input\":{{\"{call}\"")), "{call}");
    }
    let (code, found) = run(&["simulate", "--replay", log.to_str().unwrap()]);
    assert_eq!((code, &found["difference"]), (Some(0), &Value::Null), "{found:#}");
}
