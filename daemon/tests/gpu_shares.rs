//! Parts of GPUs over the real daemon and the stand-in for NVML: who shares what, what the program is told, why one waits, what a crash
//! leaves, and what is refused.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::flash::{flash, told};
use common::gpus::{CONFIG, Machine, Somebody, device};
use common::{Daemon, PATIENCE, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

impl Machine {
    /// With a folder for an MPS daemon.
    fn start(state: &str, gpu: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipes = folder.path().join("mps");
        Self::within(folder, state, &format!("mps_pipe_directory = \"{}\"\n{gpu}", pipes.display()))
    }

    /// What a job's program wrote about its devices before it waited.
    async fn environment(&self, job: &str) -> Vec<String> {
        let wait = async {
            loop {
                let log = told(&self.daemon, &["logs", job]);
                if log.contains("end") {
                    return log.lines().map(str::to_owned).collect();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{job}\n{}", self.daemon.log()))
    }
}

/// A job that says what it sees and runs until a file appears.
fn gated(resources: &Value, gate: &Path) -> Value {
    let gate = gate.display();
    let vars = "env | grep -E '^(CUDA|NVIDIA|FLASH_GPU)' | sort";
    let mut job = shell(&format!("{vars}; echo end; while [ ! -e {gate} ]; do sleep 0.02; done"));
    job["resources"] = resources.clone();
    job
}

impl Somebody {
    fn line(&self) -> String {
        self.entry("100Mi", "")
    }
}

fn jobs(gpu: &Value) -> Vec<&str> {
    gpu["sharers"].as_array().map(|all| all.iter().map(|sharer| sharer["job"].as_str().unwrap()).collect()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_halves_share_a_gpu_the_third_waits_and_a_crash_changes_nothing() {
    let mut machine = Machine::start(&device(4, ""), "");
    let half = json!({"gpu": "0.5"});
    let gates: Vec<PathBuf> = ["a", "b", "c"].map(|name| machine.gate(name)).into();
    let first = machine.daemon.submit(gated(&half, &gates[0])).await;
    let second = machine.daemon.submit(gated(&json!({"gpu": "500m", "gpuMemoryShare": "1Gi"}), &gates[1])).await;
    for (job, memory) in [(&first, 2_u64 << 30), (&second, 1 << 30)] {
        assert_eq!(
            machine.environment(job).await,
            [
                "CUDA_DEVICE_ORDER=PCI_BUS_ID".to_owned(),
                "CUDA_VISIBLE_DEVICES=GPU-4".to_owned(),
                format!("FLASH_GPU_MEMORY_BYTES={memory}"),
                "FLASH_GPU_MILLIS=500".to_owned(),
                "NVIDIA_VISIBLE_DEVICES=GPU-4".to_owned(),
                "end".to_owned()
            ]
        );
    }
    let third = machine.daemon.submit(gated(&json!({"gpuMpsUnits": 3}), &gates[2])).await;
    assert_eq!(machine.daemon.job(&third).await["spec"]["tasks"][0]["resources"]["gpu"], "300m");
    let whole = machine.daemon.submit(gated(&json!({"gpu": 1}), &gates[2])).await;
    let why = |job: String| {
        let daemon = &machine.daemon;
        async move { daemon.get(&format!("/api/v1/jobs/{job}/why")).await.1 }
    };
    let reason = why(third.clone()).await;
    assert_eq!(reason["shortfall"]["gpuPart"], json!({"asked": "300m", "gpus": 0}), "{reason}");
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains("it needs 300m of one GPU, and none has anything left"), "{message}");
    assert_eq!(machine.daemon.job(&whole).await["state"], "queued");
    let before = machine.until("GPU-4", |gpu| jobs(gpu).len() == 2).await;
    let list = told(&machine.daemon, &["gpus"]);
    for job in [&first, &second] {
        let number = &machine.daemon.job(job).await["number"];
        assert!(list.contains(&format!("500m #{number}")) && !list.contains(job.as_str()), "{list}");
    }

    machine.daemon.kill();
    machine.daemon.restart();
    let after = machine.until("GPU-4", |gpu| jobs(gpu).len() == 2).await;
    let sorted = |gpu: &Value| {
        let mut sharers: Vec<String> = gpu["sharers"].as_array().unwrap().iter().map(ToString::to_string).collect();
        sharers.sort();
        sharers
    };
    assert_eq!(sorted(&before), sorted(&after));
    assert_eq!(machine.daemon.job(&third).await["state"], "queued");
    let share = json!({"gpu": "500m", "memory": "1Gi"});
    assert_eq!(machine.daemon.job(&second).await["placement"][0]["gpuShare"], share);

    // The whole GPU is free when the last part has been given back, and the part before it goes first.
    std::fs::write(&gates[0], "").unwrap();
    assert_eq!(machine.daemon.finished(&first).await["outcome"]["result"], "succeeded");
    machine.daemon.until(&third, "running").await;
    assert_eq!(machine.daemon.job(&whole).await["state"], "queued");
    std::fs::write(&gates[1], "").unwrap();
    std::fs::write(&gates[2], "").unwrap();
    for job in [&second, &third, &whole] {
        assert_eq!(machine.daemon.finished(job).await["outcome"]["result"], "succeeded");
    }
    assert_eq!(machine.until("GPU-4", |gpu| gpu["job"].is_null()).await["sharers"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shares_a_gpu_is_no_stranger_and_what_is_left_of_one_is_told_apart() {
    let machine = Machine::start(&device(4, ""), "release_timeout = \"1h\"");
    let half = json!({"gpu": "0.5"});
    let (gate, other) = (machine.gate("a"), machine.gate("b"));
    let first = machine.daemon.submit(gated(&half, &gate)).await;
    let second = machine.daemon.submit(gated(&half, &other)).await;
    machine.daemon.until(&first, "running").await;
    machine.daemon.until(&second, "running").await;
    let (mut one, two) = (Somebody::new(Some(&first)), Somebody::new(Some(&second)));
    machine.set(&device(4, &format!("used = \"3Gi\"\nprocesses = [{}, {}]", one.line(), two.line())));
    let seen = machine.until("GPU-4", |gpu| gpu["processes"].as_array().is_some_and(|all| all.len() == 2)).await;
    assert_eq!((seen["state"].as_str(), &seen["processes"][0]["foreign"]), (Some("ready"), &json!(false)), "{seen}");
    std::fs::write(&gate, "").unwrap();
    // Its own is ended; that of the job that goes on is not, and its memory holds nobody up.
    assert!(!one.0.wait().unwrap().success());
    assert_eq!(machine.daemon.job(&first).await["state"], "running", "the driver still shows it");
    machine.set(&device(4, &format!("used = \"3Gi\"\nprocesses = [{}]", two.line())));
    assert_eq!(machine.daemon.finished(&first).await["outcome"]["result"], "succeeded");
    let third = machine.daemon.submit(gated(&half, &gate)).await;
    assert_eq!(machine.daemon.finished(&third).await["outcome"]["result"], "succeeded");
    assert_eq!(machine.daemon.job(&second).await["state"], "running");
    machine.set(&device(4, ""));
    std::fs::write(&other, "").unwrap();
    machine.daemon.finished(&second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mps_keeps_parts_to_themselves_and_instances_are_asked_for_by_profile() {
    let part = |number| format!("[[devices.mig]]\nuuid = \"MIG-{number}\"\nprofile = \"1g.10gb\"\nmemory = \"10Gi\"\n");
    let machine = Machine::start(&format!("{}{}{}{}", device(1, ""), part(1), part(2), device(8, "")), "");
    std::fs::create_dir(machine.gate("mps")).unwrap();
    let _mps = std::os::unix::net::UnixListener::bind(machine.gate("mps/control")).unwrap();
    let gate = machine.gate("gate");
    let told = told(
        &machine.daemon,
        &["submit", "-g", "0.25", "--gpu-memory-share", "3Gi", "--", "sh", "-c", "env | sort | grep CUDA_MPS"],
    );
    let job = told.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(machine.daemon.finished(&job).await["outcome"]["result"], "succeeded");
    let folder = machine.gate("mps");
    let wanted = format!(
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25\nCUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=3072M\nCUDA_MPS_PIPE_DIRECTORY={}",
        folder.display()
    );
    assert_eq!(common::flash::told(&machine.daemon, &["logs", &job]).trim(), wanted);
    let mig = json!({"gpu": 1, "migProfile": "1g.10gb"});
    for wanted in ["MIG-1", "MIG-2"] {
        let job = machine.daemon.submit(gated(&mig, &gate)).await;
        let said = machine.environment(&job).await;
        assert!(said.contains(&format!("CUDA_VISIBLE_DEVICES={wanted}")), "{said:?}");
    }
    std::fs::write(gate, "").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_given_in_part_is_refused_with_what_there_is() {
    let mig = "[[devices.mig]]\nuuid = \"MIG-1\"\nprofile = \"1g.10gb\"\nmemory = \"10Gi\"\n";
    let machine = Machine::start(&format!("{}{mig}{}", device(1, ""), device(4, "")), "");
    machine.until("GPU-4", |gpu| gpu["state"] == "ready").await;
    for (resources, field, said) in [
        (
            json!({"gpu": "1.5"}),
            "resources.gpu",
            "`1500m` is more than one GPU and not whole: write a whole number of GPUs (\"2\"), or a part",
        ),
        (json!({"gpu": "-0.5"}), "resources.gpu", "`-0.5` is not an amount of GPUs"),
        (json!({"gpuMpsUnits": 11}), "resources.gpuMpsUnits", "`11` is not a number of MPS units: 1 to 10"),
        (json!({"gpuMpsUnits": -1}), "resources.gpuMpsUnits", "`-1` is not a number of MPS units"),
        (json!({"gpuMpsUnits": 3, "gpu": 1}), "resources.gpuMpsUnits", "say one of the two"),
        (json!({"gpu": "half"}), "resources.gpu", "`half` is not an amount of GPUs"),
        (json!({"gpu": 1, "gpuMemoryShare": "1Gi"}), "resources.gpuMemoryShare", "whole GPUs have all of their memory"),
        (json!({"gpuMemoryShare": "1Gi"}), "resources.gpuMemoryShare", "it is for a part of a GPU"),
        (json!({"gpu": "0.5", "gpuMemoryShare": "0"}), "resources.gpuMemoryShare", "at least 1 byte"),
        (
            json!({"gpu": "0.5", "gpuMemoryShare": "5Gi"}),
            "resources.gpuMemoryShare",
            "5Gi of the memory of one GPU, the largest of those that it may have has 4Gi",
        ),
        (json!({"gpu": "0.5", "gpuMemory": "11Gi"}), "resources.gpuMemory", "has 10Gi"),
        (json!({"gpu": 1, "migProfile": "3g.40gb"}), "resources.migProfile", "MIG instances of the profiles (1g.10gb)"),
        (json!({"gpu": "0.5", "migProfile": "1g.10gb"}), "resources.gpu", "MIG instances are not shared"),
        (json!({"migProfile": "1g.10gb"}), "resources.migProfile", "`gpu` asks for none"),
        (json!({"gpu": 1, "migProfile": "a b"}), "resources.migProfile", "is not a MIG profile"),
    ] {
        let mut job = shell("true");
        job["resources"] = resources.clone();
        let (status, problem) = machine.daemon.post("/api/v1/jobs", job).await;
        assert!(status.is_client_error(), "{resources}: {status}");
        let (found, detail) = (problem["field"].as_str().unwrap_or_default(), problem["detail"].as_str().unwrap());
        assert!(found.ends_with(field) && detail.contains(said), "{resources}: {problem}");
    }
    let many = json!({"tasks": [{"name": "main", "replicas": 5, "command": ["true"],
        "resources": {"cpu": "100m", "gpu": 1, "migProfile": "1g.10gb"}}], "workingDir": "/tmp"});
    let (_, problem) = machine.daemon.post("/api/v1/jobs", many).await;
    let said = "the job's tasks ask for 5 MIG instances of the profile \"1g.10gb\" together, all nodes have 1: at most 1 of the tasks \"main\" can run at once";
    assert_eq!((&problem["code"], problem["detail"].as_str().unwrap()), (&json!("too-large-for-cluster"), said), "{problem}");
    assert!(problem["field"].as_str().unwrap().ends_with("resources.gpu"), "{problem}");
    let refused = flash(&machine.daemon, &["submit", "-g", "1.5", "--", "true"]);
    assert!(refused.code == Some(4) && refused.err.contains("more than one GPU and not whole"), "{}", refused.err);
    let refused = flash(&machine.daemon, &["submit", "--gpu-mps-units", "0", "--", "true"]);
    assert!(refused.code == Some(4) && refused.err.contains("not a number of MPS units"), "{}", refused.err);
    let refused = flash(&machine.daemon, &["submit", "--gpu-mps-units", "3", "-g", "1", "--", "true"]);
    assert!(refused.code == Some(2) && refused.err.contains("cannot be used with"), "{:?} {}", refused.code, refused.err);
    let none = Daemon::start(&machine.folder.path().join("none"), &format!("{CONFIG}nvml_library = \"/nowhere.so\"\n"));
    let mut job = shell("true");
    job["resources"] = json!({"gpu": "0.5"});
    let (status, problem) = none.post("/api/v1/jobs", job).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("asks for 500m of a GPU, the largest node has none"), "{detail}");
    assert!(detail.contains("why there are none: ") && detail.contains("/nowhere.so"), "{detail}");
    for resources in
        [json!({"gpu": 1, "gpuModel": "H100"}), json!({"gpuUuids": ["GPU-1"]}), json!({"gpu": 1, "migProfile": "1g"})]
    {
        let mut job = shell("true");
        job["resources"] = resources.clone();
        let (_, problem) = none.post("/api/v1/jobs", job).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("why there are none: ") && detail.contains("/nowhere.so"), "{resources}: {detail}");
    }
}
