//! The real daemon where its surroundings fail: a full disk, a database it may not write or does not know, a log folder in the way, a
//! configuration that is wrong.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Client, Daemon, PATIENCE, shell};
use hyper::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\n[node]\ncpus = 4\nmemory = \"4Gi\"\n";

/// A file system of its own, for as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs"]).arg(folder.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.path().join("ballast")).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ended = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Asks until readiness is as expected; the last answer.
async fn readiness(client: &Client, expected: StatusCode) -> Value {
    let ask = async {
        loop {
            let (status, body) = client.get("/readyz").await;
            if status == expected {
                return body;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("it never says {expected}\n{}", client.log()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_keeps_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let mut daemon = Daemon::start(&disk.0.path().join("data"), CONFIG);
    let held = |bytes: usize| json!({"command": ["true"], "workingDir": "/", "hold": true, "env": {"A": "x".repeat(bytes)}});
    let mut kept = vec![daemon.submit(held(10)).await];
    disk.fill();
    // What is left of a block may take a small one.
    let mut refused = 0;
    while refused < 3 {
        let (status, body) = daemon.post("/api/v1/jobs", held(20_000)).await;
        if status == StatusCode::CREATED {
            kept.push(body["id"].as_str().unwrap().to_owned());
            continue;
        }
        assert_eq!((status, body["code"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("unavailable")), "{body}");
        assert!(body["detail"].as_str().unwrap().contains("no space left"), "{body}");
        refused += 1;
    }
    readiness(&daemon, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(daemon.get("/healthz").await.0, StatusCode::OK, "it is alive");
    for id in &kept {
        assert_eq!(daemon.job(id).await["state"], "waiting", "reading goes on");
    }
    let (status, _) = daemon.post(&format!("/api/v1/jobs/{}/release", kept[0]), Value::Null).await;
    assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status}");

    // Nobody submits anything, and it finds out all the same.
    disk.empty();
    readiness(&daemon, StatusCode::OK).await;
    let ran = daemon.submit(shell("exit 0")).await;
    assert_eq!(daemon.finished(&ran).await["outcome"]["result"], "succeeded");
    daemon.kill();
    daemon.restart();
    for id in kept.iter().chain([&ran]) {
        daemon.job(id).await;
    }
    let revisions = daemon.all_revisions().await;
    assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>(), "what was refused has left no gap");
}

/// What could not be made durable is decided again, and is one start and one end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_at_the_second_try_is_counted_once() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let daemon = Daemon::start(&disk.0.path().join("data"), CONFIG);
    let gate = tempfile::tempdir().unwrap();
    let waits = format!("while [ ! -e {}/open ]; do sleep 0.05; done", gate.path().display());
    let job = daemon.submit(shell(&waits)).await;
    daemon.until(&job, "running").await;
    disk.fill();
    std::fs::write(gate.path().join("open"), "").unwrap();
    readiness(&daemon, StatusCode::SERVICE_UNAVAILABLE).await;
    disk.empty();
    assert_eq!(daemon.finished(&job).await["outcome"]["result"], "succeeded");
    let (_, text) = daemon.send(common::request("GET", "/metrics", String::new(), &[])).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    for (series, count) in [
        ("commit_failures_total", None),
        ("starts_total", Some(1)),
        ("exits_total{result=\"succeeded\"}", Some(1)),
        ("start_latency_seconds_count", Some(1)),
        ("decisions_total{event=\"submitted\"}", Some(1)),
        ("decisions_total{event=\"ended\"}", Some(1)),
    ] {
        let told = text.lines().find_map(|line| line.strip_prefix(&format!("flashd_{series} ")));
        let told: u64 = told.unwrap_or_else(|| panic!("no {series}\n{text}")).parse().unwrap();
        assert!(count.map_or(told > 0, |count| told == count), "{series} {told}");
    }
}

/// A change of a queue that could not be made durable has not been made, in the core neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_written_is_not_there() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let mut daemon = Daemon::start(&disk.0.path().join("data"), CONFIG);
    let path = "/api/v1/queues/q";
    let spec = |priority: u32| {
        let weights: serde_json::Map<_, _> =
            (0..2_000).map(|number| (format!("namespace-{number}-{priority}"), json!(2))).collect();
        json!({"priority": priority, "fairShare": {"weights": weights}})
    };
    let put = |priority: u32| daemon.call("PUT", path, Some(spec(priority)), &[]);
    assert_eq!(put(0).await.unwrap().0, StatusCode::CREATED);
    disk.fill();
    let mut written = 0;
    let refused = loop {
        let (status, body) = put(written + 1).await.unwrap();
        if status != StatusCode::OK {
            break (status, body["code"].as_str().unwrap().to_owned());
        }
        written += 1;
    };
    assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned()));
    assert_eq!(daemon.get(path).await.1["priority"], written);
    // A new one is not known to submits either.
    let (status, _) = daemon.call("PUT", "/api/v1/queues/new", Some(spec(1)), &[]).await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(daemon.get("/api/v1/queues/new").await.0, StatusCode::NOT_FOUND);
    disk.empty();
    readiness(&daemon, StatusCode::OK).await;
    let (status, body) = daemon.post("/api/v1/jobs", json!({"command": ["true"], "workingDir": "/", "queue": "new"})).await;
    assert_eq!((status, body["field"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("queue")), "{body}");
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.get(path).await.1["priority"], written);
    assert_eq!(daemon.call("PUT", path, Some(spec(99)), &[]).await.unwrap().0, StatusCode::OK);
}

/// A daemon that has to refuse to start; what it says.
fn refused(daemon: &Daemon) -> String {
    let mut child = daemon.command().stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains("listening") && line.contains("INFO") {
            kill_process(pid, Signal::KILL).unwrap();
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn a_database_that_is_not_ours_to_write_is_named_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut daemon = Daemon::start(&data, CONFIG);
    let id = daemon.submit(json!({"command": ["true"], "workingDir": "/", "hold": true})).await;
    daemon.terminate();
    let file = data.join("flash.db");
    let kept = std::fs::read(&file).unwrap();
    // The header says whose database it is (bytes 68 to 71).
    let mut another = kept.clone();
    another[68..72].copy_from_slice(b"abcd");
    for (content, said) in
        [(another.as_slice(), "of another program"), (b"this is no database at all".as_slice(), "damaged or not one")]
    {
        std::fs::write(&file, content).unwrap();
        let message = refused(&daemon);
        assert!(message.contains(said) && message.contains(file.to_str().unwrap()), "{message}");
        assert_eq!(std::fs::read(&file).unwrap(), content, "it was left as it is");
    }
    std::fs::write(&file, &kept).unwrap();
    read_only(&daemon, &file);
    daemon.restart();
    assert_eq!(daemon.job(&id).await["state"], "waiting");
}

/// Root may write whatever the modes say; a file system that is mounted read-only stops it, too.
fn read_only(daemon: &Daemon, file: &Path) {
    let data = file.parent().unwrap();
    let mount = |args: &[&str]| Command::new("mount").args(args).arg(data).status().is_ok_and(|status| status.success());
    if rustix::process::geteuid().is_root() {
        if !(mount(&["--bind", data.to_str().unwrap()]) && mount(&["-o", "remount,bind,ro"])) {
            println!("skipped: mounting read-only is not allowed here");
            return;
        }
        let message = refused(daemon);
        assert!(Command::new("umount").arg(data).status().unwrap().success());
        assert!(message.contains("cannot be written"), "{message}");
    } else {
        let set = |mode| std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        set(0o400);
        let message = refused(daemon);
        set(0o600);
        assert!(message.contains("cannot be written") && message.contains(file.to_str().unwrap()), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_folder_in_the_way_fails_jobs_with_that_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut daemon = Daemon::start(&data, CONFIG);
    std::fs::remove_dir(data.join("logs")).unwrap();
    std::fs::write(data.join("logs"), "in the way").unwrap();
    let mut once = shell("true");
    once["retry"] = json!({"maxAttempts": 1});
    let id = daemon.submit(once).await;
    let job = daemon.finished(&id).await;
    assert_eq!((job["outcome"]["result"].as_str(), job["outcome"]["reason"].as_str()), (Some("failed"), Some("infrastructure")));
    assert!(job["outcome"]["message"].as_str().unwrap().contains("log file"), "{job}");
    daemon.terminate();
    let message = refused(&daemon);
    assert!(message.contains("log folder") && message.contains("logs"), "{message}");
}

#[test]
fn a_wrong_configuration_is_named_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flashd.toml");
    let flashd = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_flashd")).args(args).arg("--config").arg(&file).env_clear().output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = flashd(&["config", "check"]);
    assert_eq!(code, Some(1));
    assert_eq!(message.matches("No such file").count(), 1, "said once: {message}");
    std::fs::write(&file, "listen = \"x\"\ncolour = 1\n[limits]\nbody = 3\n[nod]\ncpus = 1\n").unwrap();
    for args in [&["config", "check"][..], &["serve", "--data", folder.path().join("data").to_str().unwrap()]] {
        let (code, message) = flashd(args);
        assert_eq!(code, Some(1), "{message}");
        for (line, said) in
            [(1, "`x` is not an address"), (2, "unknown key `colour`"), (4, "invalid type"), (5, "unknown key `nod`")]
        {
            let named = format!("{}:{line}: ", file.display());
            assert!(message.lines().any(|found| found.contains(&named) && found.contains(said)), "{named}{said}\n{message}");
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn the_log_is_text_or_json() {
    let folder = tempfile::tempdir().unwrap();
    for (format, json) in [("text", false), ("json", true)] {
        let daemon = Daemon::prepare(&folder.path().join(format), CONFIG);
        let mut child = daemon.command().args(["--log-format", format]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = loop {
            let line = lines.next().unwrap().unwrap();
            if line.contains("listening") {
                break line;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        let read: Result<Value, _> = serde_json::from_str(&line);
        assert_eq!(read.is_ok(), json, "{line}");
        if let Ok(read) = read {
            assert_eq!((read["level"].as_str(), read["message"].as_str()), (Some("INFO"), Some("listening")), "{line}");
        }
        assert!(line.contains("flashd.sock") && !line.contains('\u{1b}'), "{line}");
    }
}
