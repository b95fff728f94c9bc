//! Nodes over the real daemon: selectors, GPU models and memory, what is refused and with which words, and nodes that are taken out of
//! service while jobs run, over `kill -9` too.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::flash::{command, ended, flash, told};
use common::{Client, Daemon, PATIENCE, gpus, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

const CONFIG: &str =
    "listen = \"off\"\n[node]\nname = \"box\"\ncpus = 2\nmemory = \"1Gi\"\nlabels = { zone = \"a\", disk = \"ssd\" }\n";

fn start(folder: &tempfile::TempDir) -> Daemon {
    Daemon::start(&folder.path().join("data"), CONFIG)
}

/// With two GPUs: `GPU-1` of 1 GiB and `GPU-2` of 2 GiB.
fn start_with_gpus(folder: &tempfile::TempDir) -> Daemon {
    let mut daemon = Daemon::prepare(&folder.path().join("data"), CONFIG);
    daemon.extra = vec!["--gpu-nvml-library".to_owned(), gpus::stand_in(folder.path()).to_str().unwrap().to_owned()];
    daemon.restart();
    daemon
}

async fn order(client: &Client, path: &str, body: Option<Value>) -> (u16, Value) {
    let (status, answer) = client.call("POST", &format!("/api/v1/nodes/{path}"), body, &[]).await.unwrap();
    (status.as_u16(), answer)
}

async fn node(client: &Client) -> Value {
    let (status, node) = client.get("/api/v1/nodes/box").await;
    assert_eq!(status, StatusCode::OK, "{node}");
    node
}

/// A job that runs until a file appears.
fn gated(gate: &Path) -> Value {
    shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()))
}

fn with(mut job: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        job[key] = value.clone();
    }
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_can_give_is_refused_with_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_with_gpus(&folder);
    let own = "disk, flash-sched.io/arch, flash-sched.io/hostname, flash-sched.io/os, zone";
    for (job, code, field, said) in [
        (
            json!({"nodeSelector": {"zone": "b"}}),
            "no-such-node",
            "nodeSelector",
            "zone in (b), there is none; values of this label are (a)",
        ),
        (json!({"nodeSelector": {"rack": "7"}}), "no-such-node", "nodeSelector", own),
        (
            json!({"nodeExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}),
            "no-such-node",
            "nodeSelector",
            "disk not in (ssd)",
        ),
        (
            json!({"nodeExpressions": [{"key": "disk", "operator": "Gt", "values": ["10"]}]}),
            "no-such-node",
            "nodeSelector",
            "disk above 10, there is none; values of this label are (ssd)",
        ),
        (
            json!({"resources": {"gpu": 1, "gpuModel": "H100"}}),
            "no-such-node",
            "resources.gpuModel",
            "of the models (H100), there are (Stand-in)",
        ),
        (
            json!({"resources": {"gpu": 1, "gpuMemory": "3Gi"}}),
            "no-such-node",
            "resources.gpuMemory",
            "at least 3Gi, the largest of those that it may have has 2Gi",
        ),
        (
            json!({"resources": {"gpu": 2, "gpuMemory": "2Gi"}}),
            "too-large-for-cluster",
            "resources.gpu",
            "the largest node has 1",
        ),
        (
            json!({"command": null, "tasks": [{"name": "w", "replicas": 3, "command": ["true"]}]}),
            "too-large-for-cluster",
            "tasks[0].resources.cpu",
            "ask for 3 together, all nodes have 2: at most 2 of the tasks `w` can run at once",
        ),
        (
            json!({"command": null, "tasks": [
                {"command": ["true"]},
                {"name": "x", "command": ["true"], "resources": {"gpu": 1, "gpuModel": "H100"}},
            ]}),
            "no-such-node",
            "tasks[1].resources.gpuModel",
            "task \"x\" asks for GPUs of the models (H100)",
        ),
        (
            json!({"command": null, "resources": {"cpu": 9}, "tasks": [{"command": ["true"], "resources": {}}, {"command": ["true"]}]}),
            "too-large-for-cluster",
            "resources.cpu",
            "task task-1 asks for 9, the largest node has 2",
        ),
        (
            json!({"command": null, "tasks": [{"command": ["true"]}, {"command": ["true"], "nodeSelector": {"zone": "b"}}]}),
            "no-such-node",
            "tasks[1].nodeSelector",
            "values of this label are (a)",
        ),
        (json!({"resources": {"gpuMemory": "1Gi"}}), "invalid", "resources.gpuMemory", "`gpu` asks for none"),
        (json!({"resources": {"gpu": 1, "gpuMemory": "lots"}}), "malformed", "resources.gpuMemory", "not an amount of memory"),
        (json!({"nodeSelector": {"a b": "c"}}), "invalid", "nodeSelector", "`a b` is not a key"),
        (json!({"nodeSelector": {"zone": 1}}), "malformed", "nodeSelector.zone", "text, or a list of texts"),
        (json!({"nodeSelectors": {}}), "malformed", "nodeSelectors", "unknown field"),
        (json!({"placement": "scatter"}), "malformed", "placement", "`pack` or `spread`"),
    ] {
        let job = with(shell("true"), job);
        let (_, answer) = daemon.post("/api/v1/jobs", job.clone()).await;
        assert_eq!((answer["code"].as_str(), answer["field"].as_str()), (Some(code), Some(field)), "{job}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{job}: {answer}");
        let (_, answer) = daemon.post("/api/v1/jobs:batch", json!({"jobs": [shell("true"), job]})).await;
        assert_eq!(
            (answer["code"].as_str(), answer["field"].as_str()),
            (Some(code), Some(&*format!("jobs[1].{field}"))),
            "{answer}"
        );
    }
    let refused = flash(&daemon, &["submit", "-w", "/", "--node-selector", "zone=b", "--", "true"]);
    assert_eq!(refused.code, Some(4));
    assert!(refused.err.contains("values of this label are (a)"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gets_the_node_and_the_gpu_that_it_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_with_gpus(&folder);
    let gate = folder.path().join("gate");
    let (_, nodes) = daemon.get("/api/v1/nodes").await;
    let found = &nodes["items"][0];
    assert_eq!((&found["state"], &found["tasks"], &found["labels"]["zone"]), (&json!("ready"), &json!(0), &json!("a")));
    let labels: Vec<_> = found["labels"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(labels, ["disk", "flash-sched.io/arch", "flash-sched.io/hostname", "flash-sched.io/os", "zone"]);
    let gpu = json!({"uuid": "GPU-2", "model": "Stand-in", "memory": "2Gi", "kind": "whole", "state": "ready", "index": 1});
    for (key, value) in gpu.as_object().unwrap() {
        assert_eq!(found["gpus"][1][key], *value, "{key}: {found}");
    }
    let holes = json!([{"gpus": 1, "fit": 2, "unusable": 0}, {"gpus": 2, "fit": 1, "unusable": 0},
                       {"gpus": 4, "fit": 0, "unusable": 2}, {"gpus": 8, "fit": 0, "unusable": 2}]);
    assert_eq!(nodes["fragmentation"], json!({"free": 2, "closed": 0, "largest": 2, "largestNode": "box", "holes": holes}));

    let gate_path = gate.display().to_string();
    let script = format!("while [ ! -e {gate_path} ]; do sleep 0.02; done; echo $CUDA_VISIBLE_DEVICES");
    let line = [
        "submit",
        "-w",
        "/",
        "-g",
        "1",
        "--gpu-memory",
        "2Gi",
        "--gpu-model",
        "Stand-in",
        "--gpu-model",
        "Other",
        "--node-selector",
        "zone=a,disk=ssd",
        "--spread",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let large = told(&daemon, &line);
    let running = daemon.until(&large, "running").await;
    assert_eq!(running["placement"], json!([{"task": "task", "node": "box", "gpus": ["GPU-2"]}]), "{running}");
    assert_eq!(running["spec"]["tasks"][0]["resources"]["gpuModel"], json!(["Stand-in", "Other"]));
    // The other GPU is free, and too small.
    let second = daemon.submit(with(shell("true"), json!({"resources": {"gpu": 1, "gpuMemory": "1.5Gi"}}))).await;
    let any = daemon.submit(with(gated(&gate), json!({"resources": {"gpu": 1}, "timeLimit": "1m"}))).await;
    assert_eq!(daemon.job(&second).await["state"], "queued");
    let shown = told(&daemon, &["nodes", "show", "box"]);
    assert!(shown.contains("zone=a") && shown.contains(&format!("#{}", running["number"])), "{shown}");
    std::fs::write(&gate, "").unwrap();
    for job in [&large, &second, &any] {
        let job = daemon.finished(job).await;
        assert_eq!(job["outcome"]["result"], "succeeded", "{job}");
    }
    assert_eq!(told(&daemon, &["logs", &large]).trim(), "GPU-2");
    assert_eq!(daemon.job(&second).await["placement"][0]["gpus"], json!(["GPU-2"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_node_takes_nothing_until_it_is_resumed_over_a_crash_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start(&folder);
    let gate = folder.path().join("gate");
    let first = daemon.submit(gated(&gate)).await;
    daemon.until(&first, "running").await;
    for (path, body, status, field) in [
        ("none/cordon", None, 404, ""),
        ("box/cordon", Some(json!({"reason": ""})), 422, "reason"),
        ("box/cordon", Some(json!({"reason": "a\nb"})), 422, "reason"),
        ("box/cordon", Some(json!({"why": "x"})), 400, "why"),
        ("box/drain", Some(json!(["x"])), 400, ""),
        ("box/lose", None, 404, ""),
    ] {
        let (got, answer) = order(&daemon, path, body).await;
        assert_eq!((got, answer["field"].as_str().unwrap_or_default()), (status, field), "{path}: {answer}");
    }
    assert_eq!(node(&daemon).await["state"], "ready");

    let (status, answer) = order(&daemon, "box/cordon", Some(json!({"reason": "new disk"}))).await;
    assert_eq!((status, &answer["state"], &answer["reason"]), (200, &json!("cordoned"), &json!("new disk")), "{answer}");
    let waiting = daemon.submit(shell("true")).await;
    assert_eq!(daemon.job(&waiting).await["state"], "queued", "there is room, but not on this node");
    daemon.kill();
    daemon.restart();
    let after = node(&daemon).await;
    for key in ["state", "reason", "by", "since"] {
        assert_eq!(after[key], answer[key], "{key}: {after}");
    }
    assert!(answer["since"].is_string() && answer["by"].is_string(), "{answer}");
    // What runs goes on, and what it leaves free is not given out.
    assert_eq!(daemon.job(&first).await["state"], "running");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(daemon.finished(&first).await["outcome"]["result"], "succeeded");
    assert_eq!(daemon.job(&waiting).await["state"], "queued");
    // Saying it again is no fault and changes nothing.
    let (status, again) = order(&daemon, "box/cordon", None).await;
    assert_eq!((status, &again["since"], &again["reason"]), (200, &answer["since"], &answer["reason"]), "{again}");

    let (status, answer) = order(&daemon, "box/resume", None).await;
    assert_eq!((status, &answer["state"], answer.get("reason")), (200, &json!("ready"), None), "{answer}");
    assert_eq!(daemon.finished(&waiting).await["outcome"]["result"], "succeeded");
    assert_eq!(order(&daemon, "box/resume", None).await.0, 200);
    daemon.kill();
    daemon.restart();
    assert_eq!(node(&daemon).await["state"], "ready", "nothing of it is left");
    // A state belongs to its node: another name does not have it, and the first one still does.
    assert_eq!(order(&daemon, "box/drain", None).await.0, 200);
    daemon.kill();
    daemon.extra = vec!["--node-name".to_owned(), "other".to_owned()];
    daemon.restart();
    let (_, nodes) = daemon.get("/api/v1/nodes").await;
    assert_eq!((&nodes["items"][0]["name"], &nodes["items"][0]["state"]), (&json!("other"), &json!("ready")), "{nodes}");
    daemon.kill();
    daemon.extra.clear();
    daemon.restart();
    assert_eq!(node(&daemon).await["state"], "drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let gate = folder.path().join("gate");
    let running = daemon.submit(gated(&gate)).await;
    daemon.until(&running, "running").await;
    let mut drain = command(&daemon, &["nodes", "drain", "box", "--reason", "kernel", "--wait", "-o", "json"]).spawn().unwrap();
    let begun = async {
        while node(&daemon).await["state"] != "draining" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    let waiting = daemon.submit(shell("true")).await;
    let table = told(&daemon, &["nodes"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["box", "draining", "1/2", "0/1Gi", "0/0", "-", "kernel"], "{table}");
    assert!(drain.try_wait().unwrap().is_none(), "a task is left");
    std::fs::write(&gate, "").unwrap();
    let output = drain.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let drained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&drained["state"], &drained["tasks"]), (&json!("drained"), &json!(0)), "{drained}");
    assert_eq!(daemon.finished(&running).await["outcome"]["result"], "succeeded");
    assert_eq!(daemon.job(&waiting).await["state"], "queued");
    let again = ended(&mut command(&daemon, &["nodes", "drain", "box", "--wait", "-o", "name"]));
    assert_eq!((again.code, again.out.as_str()), (Some(0), "box\n"), "{}", again.err);
    assert!(told(&daemon, &["nodes", "resume", "box"]).contains("state:  ready"));
    daemon.finished(&waiting).await;
    let unknown = flash(&daemon, &["nodes", "cordon", "none"]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_which_run_after_run_is_lost_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = CONFIG.replace("[node]\n", "[node]\nfailures_in_a_row = 2\n");
    let mut daemon = Daemon::start(&data, &config);
    // Programs that fail are their user's business, however many do.
    for _ in 0..4 {
        let failing = daemon.submit(shell("exit 3")).await;
        assert_eq!(daemon.finished(&failing).await["outcome"]["exitCode"], 3);
    }
    assert_eq!(node(&daemon).await["state"], "ready");
    // A folder that is a file: no run can have its output written.
    std::fs::remove_dir_all(data.join("logs")).unwrap();
    std::fs::write(data.join("logs"), "").unwrap();
    let patient = with(shell("true"), json!({"retry": {"maxAttempts": 100}}));
    let job = daemon.submit(patient).await;
    let closed = async {
        // The reason can be seen when it has been written down.
        while node(&daemon).await["reason"].is_null() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    let after = node(&daemon).await;
    assert!(after["state"].as_str().unwrap().starts_with("drain"), "{after}");
    let reason = after["reason"].as_str().unwrap();
    assert!(reason.starts_with("2 runs in a row failed here; last, a run was lost"), "{reason}");
    assert_eq!(after["by"], "flashd");
    daemon.kill();
    std::fs::remove_file(data.join("logs")).unwrap();
    std::fs::create_dir(data.join("logs")).unwrap();
    daemon.restart();
    assert_eq!(node(&daemon).await["reason"], after["reason"], "it is written down");
    let next = daemon.submit(shell("true")).await;
    let why = told(&daemon, &["why", &next]);
    assert!(why.contains("only on node box (flashd: 2 runs in a row failed here"), "{why}");
    assert!(told(&daemon, &["nodes", "resume", "box"]).contains("state:  ready"));
    let (_, notices) = daemon.get("/api/v1/notices?kind=node").await;
    let events: Vec<_> = notices["items"].as_array().unwrap().iter().map(|notice| &notice["event"]).collect();
    assert_eq!(events, ["setAside", "resumed"], "{notices}");
    assert_eq!((&notices["items"][0]["reason"], &notices["items"][0]["by"]), (&after["reason"], &json!("flashd")));
    for job in [&next, &job] {
        assert_eq!(daemon.finished(job).await["outcome"]["result"], "succeeded");
    }
}
