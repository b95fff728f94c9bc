//! The crash suite: the daemon is killed with SIGKILL at seeded points while jobs are submitted, run and end, and in a third of the points
//! the runner with it. After each restart the promises are checked; at the end all of them, for every job.
//!
//! With the job table in PostgreSQL the database is killed too, at every second of the points.
//!
//! Every job appends `begin JOB ATTEMPT` and `end JOB ATTEMPT` to one file (appends of a line are atomic), so the test sees what really
//! ran, whatever the daemon says. `FLASH_CRASH_POINTS` sets the number of points, `FLASH_CRASH_SEED` the seed, which is printed;
//! `FLASH_CRASH_KEEP` leaves the folder for a look.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, Daemon, PATIENCE, request};
use hyper::StatusCode;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// SplitMix64: seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What was asked for: enough to check every promise afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    exit: u64,
}

fn job(random: &mut Random, ledger: &Path) -> (Value, Asked) {
    let exit = if random.below(5) == 0 { 1 + random.below(100) } else { 0 };
    let pause = match random.below(4) {
        0 | 1 => "true".to_owned(),
        2 => format!("sleep 0.{:02}", random.below(40)),
        _ => format!("sleep 0.{}", 3 + random.below(6)),
    };
    let ledger = ledger.display();
    let script = format!(
        "echo begin $FLASH_JOB_ID $FLASH_ATTEMPT >> {ledger}; {pause}; echo end $FLASH_JOB_ID $FLASH_ATTEMPT >> {ledger}; exit {exit}"
    );
    let spec = json!({
        "command": ["/bin/sh", "-c", script], "workingDir": "/tmp", "name": format!("crash-{}", random.below(1000)),
        "resources": {"cpu": "125m"}, "labels": {"exit": exit.to_string()}, "retry": {"maxAttempts": 100},
    });
    (spec, Asked { exit })
}

#[derive(Default)]
struct Book {
    acknowledged: Mutex<BTreeMap<String, Asked>>,
    count: AtomicU64,
    stop: AtomicBool,
}

/// Submits until told to stop; every request carries a key and is repeated until it is answered, over any number of crashes.
async fn submitter(daemon: Client, book: Arc<Book>, ledger: std::path::PathBuf, seed: u64) {
    let mut random = Random(seed);
    let mut number = 0;
    while !book.stop.load(Ordering::Relaxed) {
        number += 1;
        let (spec, asked) = job(&mut random, &ledger);
        let key = format!("client-{seed}-{number}");
        loop {
            let sent = request("POST", "/api/v1/jobs", spec.to_string(), &[("idempotency-key", &key)]);
            if let Ok((status, body)) = daemon.send(sent).await {
                if status == StatusCode::CREATED {
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    let id = body["id"].as_str().unwrap().to_owned();
                    let before = book.acknowledged.lock().unwrap().insert(id, asked);
                    assert_eq!(before, None, "two submits got the same id");
                    book.count.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{}", String::from_utf8_lossy(&body));
            }
            if book.stop.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await; // the daemon is away: a client's pause, nothing is timed by it
        }
        // The machine runs a few hundred of these a second; a client that goes on faster only fills the queue.
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
    }
}

/// What really ran: how often each (job, attempt) began and ended.
fn read_ledger(path: &Path) -> BTreeMap<(String, u32), (u32, u32)> {
    let mut runs: BTreeMap<(String, u32), (u32, u32)> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [word, job, attempt] = words.as_slice() else { panic!("torn line {line:?}") };
        let entry = runs.entry(((*job).to_owned(), attempt.parse().unwrap())).or_default();
        match *word {
            "begin" => entry.0 += 1,
            "end" => entry.1 += 1,
            _ => panic!("strange line {line:?}"),
        }
    }
    runs
}

fn no_run_began_twice(ledger: &Path) {
    for ((job, attempt), (begun, ended)) in read_ledger(ledger) {
        assert_eq!(begun, 1, "{job} attempt {attempt} was started {begun} times");
        assert!(ended <= 1, "{job} attempt {attempt} ended {ended} times");
    }
}

/// What the daemon knows of jobs that do not go on: for the first few what they are, why they wait, and what happened to them.
async fn stuck(daemon: &Daemon, open: &BTreeSet<String>) -> String {
    let mut text = daemon.log();
    for id in open.iter().take(5) {
        for part in ["", "/why", "/events"] {
            let (status, body) = daemon.get(&format!("/api/v1/jobs/{id}{part}")).await;
            writeln!(text, "{id}{part}: {status} {body}").unwrap();
        }
        let lines = text.lines().filter(|line| line.contains(id.as_str())).map(ToOwned::to_owned).collect::<Vec<_>>();
        writeln!(text, "the log of {id}: {lines:#?}").unwrap();
    }
    text
}

/// Waits until all these jobs are finished. Driven by the event stream: it fails only if nothing at all happens for long, and longer than
/// the pause after the seventh loss of one job.
async fn drain(daemon: &Daemon, jobs: &BTreeMap<String, Asked>) {
    let (_, info) = daemon.get("/api/v1/info").await;
    let mut events = daemon.events(&format!("/api/v1/events?after={}", info["revision"])).await;
    let mut open = BTreeSet::new();
    for id in jobs.keys() {
        if daemon.job(id).await["state"] != "finished" {
            open.insert(id.clone());
        }
    }
    while !open.is_empty() {
        let event = tokio::time::timeout(PATIENCE * 3, events.next()).await;
        let Ok(event) = event else { panic!("{} jobs do not finish\n{}", open.len(), stuck(daemon, &open).await) };
        let event = event.expect("the stream ended early");
        if event["state"] == "finished" {
            open.remove(event["job"].as_str().unwrap());
        }
    }
}

async fn every_acknowledged_job_is_there(daemon: &Daemon, acknowledged: &BTreeMap<String, Asked>, sample: &mut Random) {
    // All of them at the end; in between a sample of old ones and all of the latest.
    let ids: Vec<&String> = acknowledged.keys().collect();
    let latest = ids.iter().rev().take(30).copied();
    let old = (0..20.min(ids.len())).map(|_| ids[sample.below(ids.len() as u64) as usize]);
    for id in latest.chain(old).collect::<BTreeSet<_>>() {
        let (status, job) = daemon.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!(status, StatusCode::OK, "acknowledged job {id} is gone: {job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_run_twice_over_kills_at_seeded_points() {
    kill_at_seeded_points(setting("FLASH_CRASH_POINTS", 100), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_run_twice_over_kills_of_the_database_and_the_daemon() {
    let Some(server) = postgres_server::server_for_test("the crash suite on PostgreSQL") else { return };
    kill_at_seeded_points(setting("FLASH_CRASH_POINTS", 100).min(16), Some(server)).await;
}

/// The suite, on SQLite or on this server.
async fn kill_at_seeded_points(points: u64, mut server: Option<postgres_server::Server>) {
    let seed = setting("FLASH_CRASH_SEED", 20_261_121);
    println!("crash suite: {points} points, seed {seed}");
    let mut folder = tempfile::tempdir().unwrap();
    folder.disable_cleanup(std::env::var_os("FLASH_CRASH_KEEP").is_some());
    let ledger = folder.path().join("ledger");
    // On a slow machine the runner is killed five times before a run gets through; that is this test's doing, and no fault of the node.
    let config = "listen = \"off\"\n[node]\ncpus = 4\nfailures_in_a_row = 0\n";
    let mut daemon = Daemon::prepare(&folder.path().join("data"), config);
    if let Some(server) = &server {
        daemon.envs.push(("FLASHD_STORE_URL".to_owned(), server.url()));
    }
    daemon.restart();
    let book = Arc::new(Book::default());
    let clients: Vec<_> = (0..6)
        .map(|number| tokio::spawn(submitter(daemon.client(), book.clone(), ledger.clone(), seed.wrapping_add(number * 7_919))))
        .collect();

    let mut random = Random(seed);
    let mut runner_kills = 0;
    for point in 0..points {
        // The point is a number of acknowledged submits, plus a few random microseconds: it falls anywhere between two commits.
        let target = book.count.load(Ordering::Relaxed) + 2 + random.below(40);
        let waited = std::time::Instant::now();
        while book.count.load(Ordering::Relaxed) < target {
            assert!(waited.elapsed() < PATIENCE, "no submit was acknowledged for long\n{}", daemon.log());
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        tokio::time::sleep(Duration::from_micros(random.below(3_000))).await;
        if let Some(server) = server.as_mut().filter(|_| point % 2 == 1) {
            server.kill();
            // Now and then the daemon with it, before or after it is back.
            match random.below(4) {
                0 => {
                    daemon.kill();
                    server.restart().unwrap();
                    daemon.restart();
                }
                1 => {
                    server.restart().unwrap();
                    daemon.kill();
                    daemon.restart();
                }
                _ => server.restart().unwrap(),
            }
            no_run_began_twice(&ledger);
            continue;
        }
        let with_runner = point % 3 == 2;
        let runners = if with_runner { daemon.runners() } else { Vec::new() };
        let kill_runners = || {
            for pid in &runners {
                let _gone_already = kill_process(*pid, Signal::KILL);
            }
        };
        if random.below(2) == 0 {
            kill_runners();
            daemon.kill();
        } else {
            daemon.kill();
            kill_runners();
        }
        runner_kills += u64::from(with_runner);
        daemon.restart();
        no_run_began_twice(&ledger);
        let acknowledged = book.acknowledged.lock().unwrap().clone();
        every_acknowledged_job_is_there(&daemon, &acknowledged, &mut random).await;
        if point % 10 == 9 {
            println!("  point {}: {} jobs acknowledged, {runner_kills} runner kills", point + 1, acknowledged.len());
        }
    }
    book.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    let acknowledged = book.acknowledged.lock().unwrap().clone();
    drain(&daemon, &acknowledged).await;
    let mut retried = 0;
    for (id, asked) in &acknowledged {
        let job = daemon.finished(id).await;
        let attempts = job["attempt"].as_u64().unwrap();
        retried += u64::from(attempts > 1);
        let outcome = &job["outcome"];
        if asked.exit == 0 {
            assert_eq!(outcome["result"], "succeeded", "{job}");
        } else {
            assert_eq!(outcome["result"], "failed", "{job}");
            assert_eq!(outcome["exitCode"].as_u64(), Some(asked.exit), "{job}");
        }
        if runner_kills == 0 {
            assert_eq!(attempts, 1, "only the daemon was killed, and yet a run was lost: {job}");
        }
    }
    no_run_began_twice(&ledger);
    let runs = read_ledger(&ledger);
    for id in acknowledged.keys() {
        let attempts = daemon.job(id).await["attempt"].as_u64().unwrap() as u32;
        assert_eq!(runs.get(&(id.clone(), attempts)), Some(&(1, 1)), "the run that counts of {id} did not run whole");
    }
    for ((job, attempt), (begun, ended)) in &runs {
        assert_eq!((begun, ended), (&1, &1), "{job} attempt {attempt} was killed by the daemon's or the runner's death");
    }
    let revisions = daemon.all_revisions().await;
    assert!(revisions.iter().copied().eq(1..=revisions.len() as u64), "revisions have a gap");
    println!(
        "crash suite: {} jobs, {} runs, {retried} retried after {runner_kills} runner kills, {} revisions",
        acknowledged.len(),
        runs.len(),
        revisions.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_only_the_daemon_loses_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let mut daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n[node]\ncpus = 64\n");
    let gate = folder.path().join("gate");
    let script = format!(
        "echo begin $FLASH_JOB_ID $FLASH_ATTEMPT >> {0}; while [ ! -e {1} ]; do sleep 0.05; done; echo end $FLASH_JOB_ID $FLASH_ATTEMPT >> {0}; exit 7",
        ledger.display(),
        gate.display()
    );
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(daemon.submit(common::shell(&script)).await);
    }
    for id in &ids {
        daemon.until(id, "running").await;
    }
    for _ in 0..5 {
        daemon.kill();
        daemon.restart();
    }
    std::fs::write(&gate, "").unwrap();
    for id in &ids {
        let job = daemon.finished(id).await;
        assert_eq!((job["attempt"].as_u64(), job["outcome"]["exitCode"].as_u64()), (Some(1), Some(7)), "{job}");
    }
    let runs = read_ledger(&ledger);
    assert_eq!(runs.len(), 20);
    assert!(runs.values().all(|counts| *counts == (1, 1)));
}

/// Jobs of a moment, hundreds at a time on two slots: most of them wait in the runner's line when it or the daemon is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lined_up_begins_once_over_kills_of_either_side() {
    let points = setting("FLASH_CRASH_POINTS", 40).min(40);
    let mut random = Random(setting("FLASH_CRASH_SEED", 20_261_121));
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let mut daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n[node]\ncpus = 2\nfailures_in_a_row = 0\n");
    let mut ids = BTreeSet::new();
    let mut cancelled = BTreeSet::new();
    let (mut runner_kills, mut most_lined_up) = (0, 0);
    for point in 0..points {
        let script = format!("echo begin $FLASH_JOB_ID $FLASH_ATTEMPT >> {}", ledger.display());
        let spec = json!({"command": ["/bin/sh", "-c", script], "workingDir": "/tmp", "retry": {"maxAttempts": 100}});
        let (status, body) = daemon.post("/api/v1/jobs:batch", json!({"jobs": vec![spec; 150]})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let new: Vec<String> =
            body["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        // A while into them: some have ended, some run, some wait in the line, some in the queue.
        let target = read_ledger(&ledger).len() + 5 + random.below(60) as usize;
        let waited = std::time::Instant::now();
        while read_ledger(&ledger).len() < target {
            assert!(waited.elapsed() < PATIENCE, "nothing begins\n{}", daemon.log());
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        let (_, starting) = daemon.get("/api/v1/jobs?state=starting&limit=500").await;
        most_lined_up = most_lined_up.max(starting["items"].as_array().map_or(0, Vec::len));
        for _ in 0..3 {
            let id = &new[random.below(150) as usize];
            let (status, _) = daemon.post(&format!("/api/v1/jobs/{id}/cancel"), Value::Null).await;
            if status.is_success() {
                cancelled.insert(id.clone());
            }
        }
        ids.extend(new);
        let runners = if point % 2 == 1 { daemon.runners() } else { Vec::new() };
        runner_kills += u64::from(!runners.is_empty());
        let with_daemon = point % 4 != 3;
        if with_daemon {
            daemon.kill();
        }
        for pid in &runners {
            let _gone_already = kill_process(*pid, Signal::KILL);
        }
        if with_daemon {
            daemon.restart();
        }
        no_run_began_twice(&ledger);
    }
    let asked: BTreeMap<String, Asked> = ids.iter().map(|id| (id.clone(), Asked { exit: 0 })).collect();
    drain(&daemon, &asked).await;
    no_run_began_twice(&ledger);
    let runs = read_ledger(&ledger);
    let mut tries = 0;
    for id in &ids {
        let job = daemon.finished(id).await;
        let attempt = job["attempt"].as_u64().unwrap() as u32;
        tries += u64::from(attempt);
        let ran = runs.contains_key(&(id.clone(), attempt));
        match job["outcome"]["result"].as_str() {
            Some("succeeded") => assert!(ran, "it is said to have succeeded and did not run: {job}"),
            Some("cancelled") => assert!(cancelled.contains(id), "{job}"),
            _ => panic!("{job}"),
        }
    }
    println!("{} jobs, {tries} tries, {runner_kills} runner kills, {most_lined_up} starting at a time", ids.len());
    assert!(most_lined_up > 20, "next to nobody was lined up: {most_lined_up}");
}
