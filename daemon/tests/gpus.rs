//! GPUs over the real daemon and the stand-in for NVML: who gets none, which are not given, what follows from sick ones and from drivers
//! that hang.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use common::flash::{flash, told};
use common::gpus::{CONFIG, Machine, Somebody, device};
use common::{Daemon, PATIENCE, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

impl Machine {
    async fn gpu(&self, uuid: &str) -> Value {
        let (status, gpu) = self.daemon.get(&format!("/api/v1/gpus/{uuid}")).await;
        assert_eq!(status, StatusCode::OK, "{gpu}");
        gpu
    }

    async fn until_state(&self, uuid: &str, state: &str) -> Value {
        self.until(uuid, |gpu| gpu["state"] == state).await
    }

    async fn why(&self, job: &str) -> Value {
        let (status, why) = self.daemon.get(&format!("/api/v1/jobs/{job}/why")).await;
        assert_eq!(status, StatusCode::OK, "{why}");
        why
    }

    async fn order(&self, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, answer) = self.daemon.call("POST", &format!("/api/v1/gpus/{path}"), body, &[]).await.unwrap();
        (status.as_u16(), answer)
    }
}

/// A job with GPUs that runs until a file appears.
fn gated(gpus: u32, gate: &Path) -> Value {
    let mut job = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    job["resources"] = json!({"gpu": gpus});
    job
}

impl Somebody {
    /// As a line of a device.
    fn line(&self) -> String {
        format!("processes = [{}]", self.entry("512Mi", ""))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_somebody_uses_is_not_given_to_jobs() {
    let somebody = Somebody::new(None);
    let used = [device(1, &somebody.line()), device(2, "")].concat();
    let machine = Machine::new(&used, "");
    let aside = machine.gpu("GPU-1").await;
    assert_eq!(aside["state"], "aside", "before the first job could get it: {aside}");
    let said = aside["reason"].as_str().unwrap();
    assert!(said.contains(&format!("pid {} of ", somebody.0.id())) && said.contains("512 MiB"), "{said}");
    assert_eq!((&aside["processes"][0]["foreign"], &aside["processes"][0]["command"]), (&json!(true), &json!("sleep")));
    let gate = machine.gate("gate");
    let first = machine.daemon.submit(gated(1, &gate)).await;
    let running = machine.daemon.until(&first, "running").await;
    assert_eq!(running["placement"][0]["gpus"], json!(["GPU-2"]));
    let both = machine.daemon.submit(gated(2, &gate)).await;
    let why = machine.why(&both).await;
    assert!(why["message"].as_str().unwrap().contains("GPU-1 of box (used past the scheduler by pid"), "{why}");
    let table = told(&machine.daemon, &["gpus"]);
    let number = format!("#{}", running["number"]);
    assert!(table.contains("aside") && table.contains("used past the scheduler") && table.contains(&number), "{table}");
    machine.set(&[device(1, ""), device(2, "")].concat());
    machine.until_state("GPU-1", "ready").await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(machine.daemon.finished(&both).await["outcome"]["result"], "succeeded");
    // Where the policy says so, it is given all the same.
    let free = Machine::new(&used, "foreign = \"ignore\"");
    let any = free.daemon.submit(gated(2, &gate)).await;
    assert_eq!(free.daemon.finished(&any).await["outcome"]["result"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_is_free_when_what_its_job_left_behind_is_gone() {
    let machine = Machine::new(&device(1, ""), "release_timeout = \"1h\"");
    let gate = machine.gate("gate");
    let first = machine.daemon.submit(gated(1, &gate)).await;
    let next = machine.daemon.submit(gated(1, &gate)).await;
    machine.daemon.until(&first, "running").await;
    let mut orphan = Somebody::new(Some(&first));
    machine.set(&device(1, &orphan.line()));
    machine.until("GPU-1", |gpu| gpu["processes"][0]["job"] == *first).await;
    std::fs::write(&gate, "").unwrap();
    // The orphan is asked to end, by number and start, and nothing else is.
    assert_eq!(orphan.0.wait().unwrap().signal(), Some(15));
    assert_eq!(machine.daemon.job(&next).await["state"], "queued", "the driver still shows it");
    assert_eq!(machine.daemon.job(&first).await["state"], "running", "its end is not believed yet");
    // Its memory is not back.
    machine.set(&device(1, "used = \"900Mi\""));
    machine.until("GPU-1", |gpu| gpu["processes"].is_null()).await;
    assert_eq!(machine.daemon.job(&next).await["state"], "queued");
    machine.set(&device(1, ""));
    for job in [&first, &next] {
        assert_eq!(machine.daemon.finished(job).await["outcome"]["result"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_does_not_become_free_is_held_back() {
    let machine = Machine::new(&device(1, ""), "release_timeout = \"50ms\"\norphans = \"hold\"");
    let gate = machine.gate("gate");
    let first = machine.daemon.submit(gated(1, &gate)).await;
    machine.daemon.until(&first, "running").await;
    let mut orphan = Somebody::new(Some(&first));
    machine.set(&device(1, &orphan.line()));
    machine.until("GPU-1", |gpu| gpu["processes"][0]["job"] == *first).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(machine.daemon.finished(&first).await["outcome"]["result"], "succeeded");
    let held = machine.gpu("GPU-1").await;
    assert_eq!(held["state"], "aside");
    assert!(held["reason"].as_str().unwrap().contains(&format!("job {first}, which has ended")), "{held}");
    assert!(orphan.0.try_wait().unwrap().is_none());
    let next = machine.daemon.submit(gated(1, &gate)).await;
    assert_eq!(machine.daemon.job(&next).await["state"], "queued");
    machine.set(&device(1, ""));
    assert_eq!(machine.daemon.finished(&next).await["outcome"]["result"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_gpu_is_drained_and_its_run_is_tried_elsewhere() {
    let both = [device(1, "ecc_errors = 3"), device(2, "ecc_errors = 0")].concat();
    let mut machine = Machine::new(&both, "");
    let gate = machine.gate("gate");
    let job = machine.daemon.submit(gated(1, &gate)).await;
    let running = machine.daemon.until(&job, "running").await;
    let sick = running["placement"][0]["gpus"][0].as_str().unwrap().to_owned();
    let other = if sick == "GPU-1" { "GPU-2" } else { "GPU-1" };
    // A program's fault is none of the GPU's.
    let event = |xid: u32| format!("[[events]]\ndevice = \"{sick}\"\nxid = {xid}\n");
    machine.set(&(both.clone() + &event(31) + &event(79)));
    let drained = machine.until_state(&sick, "drained").await;
    assert_eq!(drained["reason"], "drained by flashd: critical error (Xid 79)");
    let again = async {
        loop {
            let job = machine.daemon.job(&job).await;
            if job["attempt"] == 2 && job["state"] == "running" {
                return job;
            }
            tokio::task::yield_now().await;
        }
    };
    let again = tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert_eq!(again["placement"][0]["gpus"], json!([other]));
    let why = machine.why(&job).await;
    assert_eq!(why["attempts"][0]["end"], "lost", "{why}");
    machine.daemon.kill();
    machine.daemon.restart();
    assert_eq!(machine.gpu(&sick).await["state"], "drained", "it is written down");
    let (status, resumed) = machine.order(&format!("{sick}/resume"), None).await;
    assert_eq!((status, &resumed["state"], resumed.get("reason")), (200, &json!("ready"), None), "{resumed}");
    // Memory errors that come while we are there.
    let worse = [device(1, "ecc_errors = 5"), device(2, "ecc_errors = 2")].concat();
    machine.set(&(worse + &event(31) + &event(79)));
    let drained = machine.until_state(&sick, "drained").await;
    assert!(drained["reason"].as_str().unwrap().ends_with("2 uncorrectable memory errors"), "{drained}");
    std::fs::write(&gate, "").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_falls_off_the_bus_loses_its_run_and_comes_back() {
    let machine = Machine::new(&device(1, ""), "");
    let gate = machine.gate("gate");
    let job = machine.daemon.submit(gated(1, &gate)).await;
    machine.daemon.until(&job, "running").await;
    machine.set(&device(1, "lost = true"));
    let aside = machine.until_state("GPU-1", "aside").await;
    assert!(aside["reason"].as_str().unwrap().contains("does not answer"), "{aside}");
    let waits = async {
        while !["waiting", "queued"].contains(&machine.daemon.job(&job).await["state"].as_str().unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap();
    machine.set(&[device(1, ""), device(2, "")].concat());
    machine.until_state("GPU-2", "ready").await;
    std::fs::write(&gate, "").unwrap();
    let ended = machine.daemon.finished(&job).await;
    assert_eq!((&ended["outcome"]["result"], &ended["attempt"]), (&json!("succeeded"), &json!(2)), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_hangs_holds_up_nobody_but_jobs_with_gpus() {
    let machine = Machine::new(&device(1, ""), "patience = \"100ms\"");
    let (gate, open) = (machine.gate("gate"), machine.gate("open"));
    std::fs::write(&open, "").unwrap();
    let before = machine.daemon.submit(gated(1, &gate)).await;
    machine.daemon.until(&before, "running").await;
    let hang = "[[faults]]\nfunction = \"nvmlDeviceGetPowerUsage\"\nhang = true\n";
    machine.set(&(device(1, "") + hang));
    let aside = machine.until_state("GPU-1", "aside").await;
    assert!(aside["reason"].as_str().unwrap().contains("nvmlDeviceGetPowerUsage"), "{aside}");
    let waits = machine.daemon.submit(gated(1, &open)).await;
    // Others are taken, started and ended meanwhile, and whoever had the GPU ends.
    for _ in 0..10 {
        let plain = machine.daemon.submit(shell("true")).await;
        assert_eq!(machine.daemon.finished(&plain).await["outcome"]["result"], "succeeded");
    }
    std::fs::write(&gate, "").unwrap();
    assert_eq!(machine.daemon.finished(&before).await["outcome"]["result"], "succeeded");
    let (_, told_of) = machine.daemon.get("/api/v1/notices?kind=gpu").await;
    assert_eq!(
        (&told_of["items"][0]["event"], &told_of["items"][0]["cause"]),
        (&json!("heldBack"), &json!("silent")),
        "{told_of}"
    );
    assert_eq!(machine.daemon.job(&waits).await["state"], "queued");
    assert!(told(&machine.daemon, &["nodes", "show", "box"]).contains("nvmlDeviceGetPowerUsage"));
    machine.set(&device(1, ""));
    assert_eq!(machine.daemon.finished(&waits).await["outcome"]["result"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_gpu_is_left_to_cool() {
    let machine = Machine::new(&device(1, "celsius = 91\nslowdown_celsius = 90"), "");
    assert!(machine.gpu("GPU-1").await["reason"].as_str().unwrap().contains("too hot: 91"));
    machine.set(&device(1, "celsius = 70"));
    machine.until_state("GPU-1", "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_drains_and_resumes() {
    let machine = Machine::new(&device(1, "celsius = 40\nbusy = 7"), "");
    let (status, list) = machine.daemon.get("/api/v1/gpus").await;
    assert_eq!((status, &list["driver"], &list["cuda"]), (StatusCode::OK, &json!("550.54.15"), &json!("12.4")), "{list}");
    let gpu = &list["items"][0];
    assert_eq!((&gpu["node"], &gpu["celsius"], &gpu["busyPercent"]), (&json!("box"), &json!(40), &json!(7)), "{gpu}");
    for (path, body, status) in [
        ("none/drain", None, 404),
        ("GPU-1/drain", Some(json!({"reason": "a\nb"})), 422),
        ("GPU-1/drain", Some(json!({"why": "x"})), 400),
        ("GPU-1/end", None, 404),
    ] {
        let (got, answer) = machine.order(path, body).await;
        assert_eq!(got, status, "{path}: {answer}");
    }
    let drained = told(&machine.daemon, &["gpus", "drain", "GPU-1", "--reason", "fan"]);
    assert!(drained.contains("drained by ") && drained.contains(": fan"), "{drained}");
    let job = machine.daemon.submit(gated(1, &machine.gate("none"))).await;
    assert_eq!(machine.daemon.job(&job).await["state"], "queued");
    assert!(told(&machine.daemon, &["gpus", "resume", "GPU-1"]).contains("state:       ready"));
    machine.daemon.until(&job, "running").await;
    assert_eq!(flash(&machine.daemon, &["gpus", "show", "GPU-9"]).code, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_that_are_written_down_are_given_and_faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let fixed = "[[gpu.static]]\nuuid = \"amd-0\"\nmodel = \"MI300X\"\nmemory = \"192Gi\"\n";
    let daemon = Daemon::start(&folder.path().join("data"), &format!("{CONFIG}{fixed}"));
    let mut job = shell("echo $CUDA_VISIBLE_DEVICES");
    job["resources"] = json!({"gpu": 1, "gpuModel": "MI300X"});
    let job = daemon.submit(job).await;
    assert_eq!(daemon.finished(&job).await["placement"][0]["gpus"], json!(["amd-0"]));
    assert_eq!(told(&daemon, &["logs", &job]).trim(), "amd-0");
    for (more, said) in [
        ("memori = \"1Gi\"\n", "flashd.toml:12: `gpu.static[0].memori`: unknown field `memori`"),
        (fixed, "flashd.toml:12: GPU `amd-0` is there twice"),
        (
            "[[gpu.static]]\nuuid = \"a b\"\nmodel = \"x\"\nmemory = \"1Gi\"\n",
            "flashd.toml:13: `gpu.static[1].uuid`: `a b` is not the name of a GPU",
        ),
        ("[[gpu.static]]\nuuid = \"x\"\nmodel = \"x\"\n", "flashd.toml:12: `gpu.static[1]`: missing field `memory`"),
        (
            "[[gpu.static]]\nuuid = \"x\"\nmodel = \"x\"\nmemory = \"lots\"\n",
            "flashd.toml:15: `gpu.static[1].memory`: `lots` is not an amount",
        ),
        (
            "[[gpu.static]]\nuuid = \"x\"\nmodel = \" \"\nmemory = \"1Gi\"\n",
            "flashd.toml:12: `gpu.static[1].model`: ` ` is not the name of a model",
        ),
        ("[[gpu.static]]\nuuid = \"x\"\nmodel = \"x\"\nmemory = 0\n", "flashd.toml:12: `gpu.static[1].memory`: a GPU has some"),
        (
            "[[gpu.static]]\nuuid = \"x\"\nmodel = \"x\"\nmemory = \"1Gi\"\nmig_profile = \"\"\n",
            "`gpu.static[1].mig_profile`: `` is not a MIG profile",
        ),
    ] {
        let file = folder.path().join("flashd.toml");
        std::fs::write(&file, format!("{CONFIG}{fixed}{more}")).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_flashd")).args(["config", "check", "--config"]).arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(said), "{said}: {told}");
    }
}
