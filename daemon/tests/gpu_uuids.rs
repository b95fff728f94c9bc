//! GPUs by UUID over the real daemon, the real client and the stand-in for NVML: who gets which, who waits for whom, what a crash leaves, and what
//! is refused.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::flash::{flash, told};
use common::gpus::{CONFIG, Machine, device};
use common::{Daemon, shell};
use serde_json::{Value, json};

/// A program that says which GPUs it was given, and ends when a file appears.
fn program(gate: &Path) -> String {
    format!("echo $CUDA_VISIBLE_DEVICES; while [ ! -e {} ]; do sleep 0.02; done", gate.display())
}

fn gated(resources: &Value, gate: &Path) -> Value {
    let mut job = shell(&program(gate));
    job["resources"] = resources.clone();
    job
}

fn placed(job: &Value) -> &Value {
    &job["placement"][0]["gpus"]
}

fn three() -> String {
    [device(1, ""), device(2, ""), device(3, "")].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gpus_that_are_named_are_given_waited_for_and_kept_over_a_crash() {
    let mut machine = Machine::new(&three(), "");
    machine.until("GPU-3", |gpu| gpu["state"] == "ready").await;
    let gates = ["a", "b", "c"].map(|name| machine.gate(name));
    let first = told(
        &machine.daemon,
        &["submit", "-w", "/tmp", "--gpu-uuid", "GPU-3", "--gpu-uuid", "GPU-2", "--", "sh", "-c", &program(&gates[0])],
    );
    machine.daemon.until(&first, "running").await;
    let job = machine.daemon.job(&first).await;
    assert_eq!(placed(&job), &json!(["GPU-2", "GPU-3"]));
    assert_eq!(job["spec"]["tasks"][0]["resources"]["gpu"], "2", "as many as it names");
    assert_eq!(job["spec"]["tasks"][0]["resources"]["gpuUuids"], json!(["GPU-3", "GPU-2"]));
    let shown = told(&machine.daemon, &["show", &first]);
    assert!(shown.contains("gpu 2, gpus GPU-3 and GPU-2"), "{shown}");

    // One job file, as it is written by hand.
    let file = machine.folder.path().join("job.yaml");
    let text = format!("command: [sh, -c, '{}']\nworkingDir: /tmp\nresources:\n  gpuUuids: [GPU-2]\n", program(&gates[1]));
    std::fs::write(&file, text).unwrap();
    let second = told(&machine.daemon, &["submit", "-f", file.to_str().unwrap()]);
    let third = machine.daemon.submit(gated(&json!({"gpu": 1}), &gates[2])).await;
    machine.daemon.until(&third, "running").await;
    assert_eq!(placed(&machine.daemon.job(&third).await), &json!(["GPU-1"]), "others are not in its way");
    let number = |job: &Value| job["number"].as_u64().unwrap();
    let holder = number(&machine.daemon.job(&first).await);
    let (_, why) = machine.daemon.get(&format!("/api/v1/jobs/{second}/why")).await;
    let taken = json!([{"uuid": "GPU-2", "node": "box", "jobs": [{"id": first, "number": holder}]}]);
    assert_eq!(why["shortfall"]["takenGpus"], taken, "{why}");
    let message = why["message"].as_str().unwrap();
    assert!(message.contains(&format!("it needs GPU GPU-2 of node box, which job #{holder} has")), "{message}");

    machine.daemon.kill();
    machine.daemon.restart();
    assert_eq!(machine.daemon.job(&second).await["state"], "queued");
    assert_eq!(placed(&machine.daemon.job(&first).await), &json!(["GPU-2", "GPU-3"]));
    std::fs::write(&gates[2], "").unwrap();
    machine.daemon.finished(&third).await;
    assert_eq!(machine.daemon.job(&second).await["state"], "queued", "another GPU is not what it waits for");
    std::fs::write(&gates[0], "").unwrap();
    machine.daemon.until(&second, "running").await;
    assert_eq!(placed(&machine.daemon.job(&second).await), &json!(["GPU-2"]));
    let half = machine.daemon.submit(gated(&json!({"gpu": "0.5", "gpuUuids": ["GPU-1"]}), &gates[2])).await;
    assert_eq!(placed(&machine.daemon.finished(&half).await), &json!(["GPU-1"]));
    std::fs::write(&gates[1], "").unwrap();
    machine.daemon.finished(&second).await;
    assert_eq!(told(&machine.daemon, &["logs", &second]).trim(), "GPU-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_have_is_refused_with_what_there_is() {
    let mig = "[[devices.mig]]\nuuid = \"MIG-1\"\nprofile = \"1g.10gb\"\nmemory = \"1Gi\"\n";
    let machine = Machine::new(&format!("{}{}{mig}", device(1, ""), device(2, "")), "");
    machine.until("GPU-1", |gpu| gpu["state"] == "ready").await;
    let many: Vec<String> = (0..65).map(|gpu| format!("GPU-{gpu}")).collect();
    for (resources, code, said) in [
        (
            json!({"gpuUuids": ["GPU-9"]}),
            "no-such-node",
            "asks for GPU GPU-9, there is none of that UUID; there are (GPU-1, MIG-1)",
        ),
        (json!({"gpu": 2, "gpuUuids": ["GPU-1"]}), "invalid", "it names 1, and `gpu` asks for 2: leave `gpu` out"),
        (json!({"gpu": "0.5", "gpuUuids": ["GPU-1", "MIG-1"]}), "invalid", "`gpu` asks for a part of one GPU"),
        (json!({"gpu": "0.5", "gpuUuids": ["MIG-1"]}), "no-such-node", "it is a MIG instance (profile 1g.10gb)"),
        (json!({"gpuUuids": ["GPU-1", "GPU-1"]}), "invalid", "`GPU-1` is there twice"),
        (json!({"gpuUuids": []}), "invalid", "0 UUIDs; 1 to 64 are taken, and where any GPU will do it is left out"),
        (json!({"gpuUuids": many}), "invalid", "65 UUIDs; 1 to 64"),
        (json!({"gpuUuids": ["GPU 1"]}), "invalid", "`GPU 1` is not the UUID of a GPU"),
        (json!({"gpuUuids": "GPU-1"}), "malformed", "expected a sequence"),
        (json!({"gpuUuids": ["GPU-1"], "gpuModel": "T4"}), "no-such-node", "not of (T4)"),
        (json!({"gpuUuids": ["GPU-1"], "migProfile": "1g.10gb"}), "no-such-node", "not a MIG instance"),
    ] {
        let mut job = shell("true");
        job["resources"] = resources.clone();
        let (_, problem) = machine.daemon.post("/api/v1/jobs", job).await;
        assert_eq!(problem["code"], code, "{resources}: {problem}");
        assert_eq!(problem["field"], "resources.gpuUuids", "{resources}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{resources}: {problem}");
    }
    let mut twice = shell("true");
    twice["resources"] = json!({"gpuUuids": ["GPU-1"]});
    let command = twice["command"].take();
    twice["tasks"] = json!([{"command": command, "replicas": 2}]);
    let (_, problem) = machine.daemon.post("/api/v1/jobs", twice).await;
    let said = "the tasks of the job that name GPU GPU-1 ask for 2 of it together, there is one";
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{problem}");
    let refused = flash(&machine.daemon, &["submit", "--gpu-uuid", "GPU-9", "--", "true"]);
    assert!(refused.code == Some(4) && refused.err.contains("GPU GPU-9, there is none of that UUID"), "{}", refused.err);
    let none = Daemon::start(&machine.folder.path().join("none"), &format!("{CONFIG}nvml_library = \"/nowhere.so\"\n"));
    let mut job = shell("true");
    job["resources"] = json!({"gpuUuids": ["GPU-1"]});
    let (_, problem) = none.post("/api/v1/jobs", job).await;
    assert!(problem["detail"].as_str().unwrap().contains("there are no GPUs"), "{problem}");
}
