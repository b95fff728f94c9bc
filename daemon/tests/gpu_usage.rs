//! What jobs do with their GPUs, over the real daemon and the stand-in for NVML: measured, kept, and seen to where they do nothing.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use common::flash::told;
use common::gpus::{Machine, Somebody, device};
use common::{PATIENCE, request, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

impl Machine {
    /// A job with one GPU that runs until the gate is open.
    fn gated(&self) -> Value {
        let mut job = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", self.folder.path().join("gate").display()));
        job["resources"] = json!({"gpu": 1});
        job
    }

    fn open_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").unwrap();
    }

    /// Waits until a job is so.
    async fn until_job(&self, job: &str, what: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let found = self.daemon.job(job).await;
                if what(&found) {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{job}\n{}", self.daemon.log()))
    }
}

impl Somebody {
    /// As a line of a device.
    fn line(&self, memory: &str) -> String {
        format!("processes = [{}]", self.entry(memory, ", busy = 30"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_does_with_its_gpu_is_measured_and_kept() {
    let mut machine = Machine::new(&device(1, "busy = 60\njoules = 100"), "");
    let job = machine.daemon.submit(machine.gated()).await;
    machine.daemon.until(&job, "running").await;
    let process = Somebody::new(Some(&job));
    machine.set(&device(1, &format!("busy = 60\njoules = 100\n{}", process.line("512Mi"))));
    machine.until_job(&job, |job| job["usage"]["gpuPeakMemory"] == "512Mi").await;
    machine.set(&device(1, &format!("busy = 20\njoules = 160\n{}", process.line("128Mi"))));
    let before = machine.until_job(&job, |job| job["usage"]["gpuEnergyJoules"] == 60.0).await;
    machine.daemon.kill();
    machine.daemon.restart();
    let after =
        machine.until_job(&job, |job| job["usage"]["gpuSeenSeconds"].as_f64() > before["usage"]["gpuSeenSeconds"].as_f64());
    let after = after.await;
    assert_eq!((&after["usage"]["gpuEnergyJoules"], &after["usage"]["runs"]), (&json!(60.0), &json!(1)), "{after}");
    // The driver hangs in the midst of it: nobody else does.
    let hang = "[[faults]]\nfunction = \"nvmlDeviceGetProcessUtilization\"\nhang = true\n";
    machine.set(&(device(1, &format!("busy = 20\njoules = 160\n{}", process.line("128Mi"))) + hang));
    let plain = machine.daemon.submit(shell("true")).await;
    assert_eq!(machine.daemon.finished(&plain).await["outcome"]["result"], "succeeded");
    machine.set(&device(1, "busy = 20\njoules = 160"));
    drop(process);
    machine.open_gate();
    let usage = machine.daemon.finished(&job).await["usage"].clone();
    let number = |key: &str| usage[key].as_f64().unwrap();
    assert_eq!((&usage["gpuPeakBusyPercent"], &usage["gpuPeakMemory"]), (&json!(60), &json!("512Mi")), "{usage}");
    assert!((20.0..60.0).contains(&number("gpuBusyPercent")), "{usage}");
    assert!((number("gpuEnergyJoules") - 60.0).abs() < 1e-9, "{usage}");
    // A look between the end of a task and the news of it counts up to that look: no more than the longest time that one look counts for.
    let seen = number("gpuSeenSeconds");
    assert!(seen > 0.0 && seen <= number("gpuSeconds") + 2.0, "{usage}");
    let (status, sums) = machine.daemon.get("/api/v1/usage?by=queue").await;
    assert_eq!(status, StatusCode::OK);
    let sum = &sums["items"][0];
    for key in ["gpuSeconds", "gpuSeenSeconds", "gpuBusyPercent", "gpuPeakBusyPercent", "gpuPeakMemory", "gpuEnergyJoules"] {
        assert_eq!(sum[key], usage[key], "{key}: {sum}");
    }
    assert_eq!(sum["runs"], 2, "{sum}");
    let shown = told(&machine.daemon, &["show", &job]);
    assert!(shown.contains("busy, 60% at most") && shown.contains("512Mi GPU memory") && shown.contains("60J drawn"), "{shown}");
    let wide = told(&machine.daemon, &["usage", "--by", "job", "-o", "wide"]);
    assert!(wide.contains("60%") && wide.contains("512Mi") && wide.contains("60J"), "{wide}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_leaves_its_gpu_idle_is_warned_and_then_stopped() {
    let rules =
        "[gpu.idle]\nbelow = 10\nwarn_after = \"100ms\"\nstop_after = \"400ms\"\nexempt_queues = [\"configfile-interactive\"]";
    let devices =
        |busy: [u32; 4]| (1..).zip(busy).map(|(number, busy)| device(number, &format!("busy = {busy}"))).collect::<String>();
    let machine = Machine::new(&devices([50; 4]), rules);
    let mut exempt = machine.gated();
    exempt["queue"] = json!("configfile-interactive");
    let mut excused = machine.gated();
    excused["annotations"] = json!({"scheduling.flash-sched.io/gpu-idle": "allowed"});
    let mut jobs = Vec::new();
    for job in [machine.gated(), exempt, excused, machine.gated()] {
        let id = machine.daemon.submit(job).await;
        let running = machine.daemon.until(&id, "running").await;
        jobs.push((id, running["placement"][0]["gpus"][0].as_str().unwrap().to_owned()));
    }
    // All but the last one's GPU.
    let idle = (1..=4).map(|number| if jobs[3].1 == format!("GPU-{number}") { 50 } else { 3 }).collect::<Vec<u32>>();
    machine.set(&devices(idle.try_into().unwrap()));
    let job = &jobs[0].0;
    let warned = machine.until_job(job, |job| job["warnings"].is_array() || job["state"] == "finished").await;
    let warning = warned["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("Its GPUs have been less than 10 % busy for ") && warning.ends_with("stopped after 400ms"),
        "{warning}"
    );
    let ended = machine.daemon.finished(job).await;
    assert_eq!((&ended["outcome"]["result"], &ended["outcome"]["reason"]), (&json!("failed"), &json!("idle")), "{ended}");
    assert_eq!((&ended["attempt"], ended.get("warnings")), (&json!(1), None), "it is not tried again: {ended}");
    assert!(ended["usage"]["gpuSeenSeconds"].as_f64().unwrap() > 0.0, "{ended}");
    assert!(ended["outcome"]["message"].as_str().unwrap().contains("gpu.idle.stop_after"), "{ended}");
    let (_, events) = machine.daemon.get(&format!("/api/v1/jobs/{job}/events")).await;
    let words: Vec<&str> = events["items"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["submitted", "placed", "started", "warned", "idle", "ended"]);
    assert!(told(&machine.daemon, &["why", job]).contains("left its GPUs less than 10 % busy"));
    for (other, _) in &jobs[1..] {
        let other = machine.daemon.job(other).await;
        assert_eq!((&other["state"], other.get("warnings")), (&json!("running"), None), "{other}");
    }
    let (_, metrics) = machine.daemon.send(request("GET", "/metrics", String::new(), &[])).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in ["flashd_decisions_total{event=\"warned\"} 1", "flashd_decisions_total{event=\"idle\"} 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    machine.open_gate();
}
