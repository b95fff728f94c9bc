//! The daemon comes and goes, jobs stay: upgrades under running jobs, drains under load, two daemons on one folder, a dead runner.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Daemon, PATIENCE, request, shell};
use hyper::StatusCode;
use rustix::fs::inotify;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\n[node]\ncpus = 64\nmemory = \"64Gi\"\n";

/// A job that runs until a file appears.
fn gated(gate: &std::path::Path, exit: u32) -> Value {
    let mut job = shell(&format!("while [ ! -e {} ]; do sleep 0.05; done; echo through; exit {exit}", gate.display()));
    job["resources"] = json!({"cpu": "1"});
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_binary_takes_over_fifty_running_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(&folder.path().join("data"), CONFIG);
    let old = folder.path().join("flashd-old");
    std::fs::copy(env!("CARGO_BIN_EXE_flashd"), &old).unwrap();
    daemon.use_binary(old.clone());
    daemon.restart();
    let gate = folder.path().join("gate");
    let mut ids = Vec::new();
    for number in 0..50 {
        ids.push(daemon.submit(gated(&gate, number % 3)).await);
    }
    for id in &ids {
        daemon.until(id, "running").await;
    }
    let status = daemon.terminate();
    assert!(status.success(), "the first signal drains and ends well: {status}\n{}", daemon.log());
    // The old binary is replaced on disk, as a package manager does it: the runner of the old one lives on.
    std::fs::remove_file(&old).unwrap();
    daemon.use_binary(env!("CARGO_BIN_EXE_flashd").into());
    daemon.restart();
    for id in &ids {
        assert_eq!(daemon.job(id).await["state"], "running");
    }
    std::fs::write(&gate, "").unwrap();
    for (number, id) in ids.iter().enumerate() {
        let job = daemon.finished(id).await;
        assert_eq!(job["attempt"], 1, "{job}");
        assert_eq!(job["outcome"]["exitCode"], number % 3, "{job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let stop = Arc::new(AtomicBool::new(false));
    let (progress, mut seen) = tokio::sync::mpsc::channel::<String>(10_000);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop, progress) = (daemon.client(), stop.clone(), progress.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let sent = request("POST", "/api/v1/jobs", shell("exit 0").to_string(), &[]);
                    // A connection that the drain refuses or closes is an answer too: not acknowledged.
                    let Ok((status, body)) = client.send(sent).await else { continue };
                    if status == StatusCode::CREATED {
                        let body: Value = serde_json::from_slice(&body).unwrap();
                        progress.send(body["id"].as_str().unwrap().to_owned()).await.unwrap();
                    } else {
                        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                    }
                }
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 200 {
        acknowledged.push(seen.recv().await.unwrap());
    }
    let status = daemon.terminate();
    assert!(status.success(), "{status}\n{}", daemon.log());
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    drop(progress);
    while let Some(id) = seen.recv().await {
        acknowledged.push(id);
    }
    daemon.restart();
    for id in &acknowledged {
        let job = daemon.finished(id).await;
        assert_eq!((&job["outcome"]["result"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let output = daemon.command().output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let pid = daemon.pid().as_raw_nonzero().to_string();
    assert!(message.contains("in use by another daemon") && message.contains(&pid), "{message}");
    assert_eq!(daemon.get("/readyz").await.0, StatusCode::OK, "the first one is untouched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_signal_aborts_a_drain() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let id = daemon.submit(gated(&gate, 0)).await;
    daemon.until(&id, "running").await;
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::TERM);
    daemon.wait();
    daemon.restart();
    assert_eq!(daemon.job(&id).await["state"], "running", "an abort kills no job either");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(daemon.finished(&id).await["outcome"]["result"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_runner_is_replaced_and_what_ended_unseen_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let id = daemon.submit(gated(&gate, 0)).await;
    daemon.until(&id, "running").await;
    let runners = daemon.runners();
    assert_eq!(runners.len(), 1, "one runner a data folder");
    kill_process(runners[0], Signal::KILL).unwrap();
    // The program runs on; its end is not seen by anybody who could know its exit code.
    std::fs::write(&gate, "").unwrap();
    let job = daemon.finished(&id).await;
    assert_eq!((&job["attempt"], &job["outcome"]["result"]), (&json!(2), &json!("succeeded")), "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infrastructure_losses_are_bounded_by_max_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let mut spec = gated(&gate, 0);
    spec["retry"] = json!({"maxAttempts": 1});
    let id = daemon.submit(spec).await;
    daemon.until(&id, "running").await;
    for runner in daemon.runners() {
        kill_process(runner, Signal::KILL).unwrap();
    }
    std::fs::write(&gate, "").unwrap();
    let job = daemon.finished(&id).await;
    assert_eq!((&job["outcome"]["result"], &job["outcome"]["reason"]), (&json!("failed"), &json!("infrastructure")), "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_ends_all_that_a_job_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let marker = folder.path().join("pid");
    // A grandchild in a session of its own that ignores SIGTERM.
    let script = format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.1; done' & wait",
        marker.display()
    );
    let mut spec = shell(&script);
    spec["stop"] = json!({"grace": "300ms"});
    let id = daemon.submit(spec).await;
    daemon.until(&id, "running").await;
    let pid = loop {
        if let Ok(text) = std::fs::read_to_string(&marker) {
            break text.trim().to_owned();
        }
        tokio::task::yield_now().await;
    };
    let (status, body) = daemon.post(&format!("/api/v1/jobs/{id}/cancel"), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let job = daemon.finished(&id).await;
    assert_eq!(job["outcome"]["result"], "cancelled", "{job}");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "finished means that nothing of it is left");
    let (status, problem) = daemon.post(&format!("/api/v1/jobs/{id}/cancel"), Value::Null).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("conflict")), "a finished job stays finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_ends_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let mut spec = shell("while :; do sleep 0.1; done");
    spec["timeLimit"] = json!("300ms");
    let id = daemon.submit(spec).await;
    let job = daemon.finished(&id).await;
    assert_eq!((&job["outcome"]["result"], &job["outcome"]["reason"]), (&json!("failed"), &json!("timeLimit")), "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_starts_with_what_it_needs_at_least_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n[node]\ncpus = 3\nmemory = \"8Gi\"\n");
    let gate = folder.path().join("gate");
    let holder = daemon.submit(gated(&gate, 0)).await;
    daemon.until(&holder, "running").await;
    let out = folder.path().join("out");
    let script = format!("echo $FLASH_TASK $FLASH_REPLICAS >> {}", out.display());
    let gang = |least: u32| {
        let task = json!({"name": "worker", "replicas": 5, "command": ["/bin/sh", "-c", script], "workingDir": "/tmp"});
        json!({"tasks": [task], "minAvailable": least})
    };
    // Two of three CPUs are free: a gang of at least 3 waits, one of at least 2 would delay nobody but may not pass it either.
    let three = daemon.submit(gang(3)).await;
    let (_, why) = daemon.get(&format!("/api/v1/jobs/{three}/why")).await;
    assert_eq!(why["reason"], "resources", "{why}");
    assert!(!out.exists(), "no task of a gang starts alone");
    std::fs::write(&gate, "").unwrap();
    let job = daemon.finished(&three).await;
    assert_eq!((&job["outcome"]["result"], job["placement"].as_array().unwrap().len()), (&json!("succeeded"), 3), "{job}");
    let mut lines: Vec<String> = std::fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["worker-0 3", "worker-1 3", "worker-2 3"]);
}

/// What a crash between removing a job and removing its logs leaves behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_jobs_that_are_gone_are_removed_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let id = daemon.submit(shell("echo kept")).await;
    daemon.finished(&id).await;
    daemon.terminate();
    let logs = daemon.dir.join("logs");
    let nobodys = logs.join("0192f0c1-2345-7abc-8def-0123456789ab.1.task.out");
    std::fs::write(&nobodys, "gone\n").unwrap();
    std::fs::write(logs.join("notes.txt"), "not a log\n").unwrap();

    let removals = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&removals, &logs, inotify::WatchFlags::DELETE).unwrap();
    daemon.restart();
    let removed = tokio::task::spawn_blocking(move || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        inotify::Reader::new(removals, &mut buffer).next().unwrap().file_name().unwrap().to_owned()
    });
    let removed = tokio::time::timeout(PATIENCE, removed).await.unwrap_or_else(|_| panic!("{}", daemon.log())).unwrap();
    assert_eq!(removed.to_str().unwrap(), nobodys.file_name().unwrap());
    let kept = daemon.send(request("GET", &format!("/api/v1/jobs/{id}/logs"), String::new(), &[])).await.unwrap();
    assert_eq!((kept.0, kept.1.as_ref()), (StatusCode::OK, b"kept\n".as_slice()));
    assert!(logs.join("notes.txt").exists());
}
