//! Who gets what: shares by weight, use that outlives the daemon, and guarantees that are taken back from running jobs.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Daemon, PATIENCE, gpus, shell};
use hyper::StatusCode;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// Runs that are looked at, and jobs of each tenant: none of them runs out of jobs before. Ends are told some at a time, so wherever one stops
/// counting a tenant may be a few runs off, whatever went before.
const RUNS: u64 = 5_000;
const JOBS: usize = 3_000;

fn in_queue(mut job: Value, queue: &str, namespace: &str) -> Value {
    job["queue"] = queue.into();
    job["namespace"] = namespace.into();
    job
}

/// What a tenant got.
#[derive(Clone, Copy, Default, Debug)]
struct Got {
    runs: u64,
    /// Microseconds that its runs had a slot, from their starts: what is lined up ahead has none yet.
    held: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_tenants_get_shares_in_the_ratio_of_their_weights() {
    let config = "listen = \"off\"\nnamespaces = [\"a\", \"b\", \"c\"]\n[node]\ncpus = 2\nmemory = \"1Gi\"\n[[queues]]\nname = \"shared\"\n\
                  fair_share = { half_life = \"1h\", weights = { a = 1, b = 2, c = 4 } }\n";
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), config);
    // Whoever has most weight comes last in the order of submission, so that first come, first served would look otherwise.
    let job = |namespace: &str| in_queue(json!({"command": ["/bin/sleep", "0.01"], "workingDir": "/"}), "shared", namespace);
    let jobs: Vec<Value> = ["a", "b", "c"].into_iter().flat_map(|namespace| std::iter::repeat_n(job(namespace), JOBS)).collect();
    let (status, answer) = daemon.post("/api/v1/jobs:batch", json!({"jobs": jobs})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");

    let mut events = daemon.events("/api/v1/events?after=0").await;
    let mut ended = BTreeSet::new();
    let count = async {
        while (ended.len() as u64) < RUNS {
            let event = events.next().await.expect("the stream ended early");
            if event["event"] == "ended" {
                ended.insert(event["job"].as_str().unwrap().to_owned());
            }
        }
    };
    tokio::time::timeout(PATIENCE * 3, count).await.unwrap();
    let mut got: BTreeMap<String, Got> = BTreeMap::new();
    for namespace in ["a", "b", "c"] {
        let mut query = format!("/api/v1/jobs?state=finished&limit=1000&namespace={namespace}");
        loop {
            let (_, page) = daemon.get(&query).await;
            for job in page["items"].as_array().unwrap().iter().filter(|job| ended.contains(job["id"].as_str().unwrap())) {
                let at = |key: &str| job[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
                let got = got.entry(namespace.to_owned()).or_default();
                got.runs += 1;
                got.held += at("finishedAt") - at("startedAt");
            }
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            query = format!("/api/v1/jobs?state=finished&limit=1000&namespace={namespace}&cursor={cursor}");
        }
    }
    assert_eq!(got.values().map(|got| got.runs).sum::<u64>(), RUNS);
    println!("{got:?}");
    assert!(got.values().all(|got| got.runs < JOBS as u64), "somebody ran out of jobs: {got:?}");
    let all = got.values().map(|got| got.held).sum::<i64>() as f64;
    for (namespace, weight) in [("a", 1.0), ("b", 2.0), ("c", 4.0)] {
        let (got, due) = (got[namespace], weight / 7.0);
        // Time on a slot is what is shared. How many runs that makes follows, as far as all take the same time: a machine that
        // stalls for a while makes it less exact.
        for (got, tolerance) in [(got.held as f64 / all, 0.05), (got.runs as f64 / RUNS as f64, 0.2)] {
            assert!((got - due).abs() <= due * tolerance, "{namespace}: {got:.4}, {due:.4} is due");
        }
    }
    let (_, queue) = daemon.get("/api/v1/queues/shared").await;
    assert_eq!((&queue["tenantCount"], queue["tenants"].as_array().unwrap().len()), (&json!(3), 3), "{queue}");
}

/// Ends all that runs of a queue by letting its jobs through.
async fn through(daemon: &Daemon, gate: &Path, ids: &[&str]) {
    std::fs::write(gate, "").unwrap();
    for id in ids {
        assert_eq!(daemon.finished(id).await["outcome"]["result"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_outlives_the_daemon() {
    let config = "listen = \"off\"\nnamespaces = [\"a\", \"b\"]\n[node]\ncpus = 1\nmemory = \"1Gi\"\n[[queues]]\nname = \"shared\"\n\
                  fair_share = { half_life = \"1h\" }\n";
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), config);
    // What `a` uses, nobody else has.
    for _ in 0..2 {
        let id = daemon.submit(in_queue(shell("sleep 1"), "shared", "a")).await;
        daemon.finished(&id).await;
    }
    let used = |queue: &Value| queue["tenants"][0]["share"]["used"].as_u64().unwrap();
    let (_, before) = daemon.get("/api/v1/queues/shared").await;
    assert_eq!(before["tenants"][0]["namespace"], "a", "{before}");
    assert!(used(&before) > 0, "{before}");
    assert!(daemon.terminate().success());
    daemon.restart();
    let (_, after) = daemon.get("/api/v1/queues/shared").await;
    assert!(used(&after).abs_diff(used(&before)) <= 1, "{before} {after}");

    // It counts: a job of the other tenant goes first, although it was submitted later.
    let gate = folder.path().join("gate");
    let blocker = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    let blocker = daemon.submit(in_queue(blocker, "default-batch", "a")).await;
    daemon.until(&blocker, "running").await;
    let one = daemon.submit(in_queue(shell("true"), "shared", "a")).await;
    let other = daemon.submit(in_queue(shell("true"), "shared", "b")).await;
    through(&daemon, &gate, &[&blocker, &one, &other]).await;
    let placed = |job: &Value| job["startedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(placed(&daemon.job(&other).await) < placed(&daemon.job(&one).await));
    // A queue that does not share fairly any more keeps no use, and says nothing of it.
    let (status, queue) = daemon.call("PATCH", "/api/v1/queues/shared", Some(json!({"fairShare": null})), &[]).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(queue["tenants"].as_array().is_none_or(|tenants| tenants.iter().all(|tenant| tenant["share"].get("used").is_none())));
    daemon.kill();
    daemon.restart();
}

/// The guest says what happened to it: that it began, which signal it got, and that it began again.
fn guest(log: &Path, resources: Value) -> Value {
    let log = log.display();
    let mut job = shell(&format!(
        "trap 'echo INT >> {log}; exit 3' INT; trap 'echo TERM >> {log}; exit 4' TERM; echo begin $FLASH_ATTEMPT >> {log}; \
         [ $FLASH_ATTEMPT = 2 ] && exit 0; while :; do sleep 0.02; done"
    ));
    job["resources"] = resources;
    job["stop"] = json!({"signal": "SIGINT", "grace": "20s"});
    in_queue(job, "guest", "default")
}

const COHORT: &str = "listen = \"off\"\n[node]\ncpus = 2\nmemory = \"1Gi\"\n[[cohorts]]\nname = \"lab\"\n[[queues]]\nname = \"own\"\ncohort = \"lab\"\n\
                      guaranteed = { gpu = 2 }\n[[queues]]\nname = \"guest\"\ncohort = \"lab\"\npreemptible = true\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarantee_is_taken_back_from_who_borrowed_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(&folder.path().join("data"), COHORT);
    daemon.extra = vec!["--gpu-nvml-library".to_owned(), gpus::stand_in(folder.path()).to_str().unwrap().to_owned()];
    daemon.restart();
    let (log, gate) = (folder.path().join("log"), folder.path().join("gate"));
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let borrower = daemon.submit(guest(&log, json!({"cpu": 1, "gpu": 2}))).await;
    // It says that it has begun, so that its traps are set.
    let begun = async {
        daemon.until(&borrower, "running").await;
        while !said().contains("begin 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    let (_, queue) = daemon.get("/api/v1/queues/guest").await;
    assert_eq!((&queue["used"]["gpu"], &queue["borrowed"]["gpu"]), (&json!("2"), &json!("2")), "{queue}");

    let mut owner = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    owner["resources"] = json!({"cpu": 1, "gpu": 1});
    let owner = daemon.submit(in_queue(owner, "own", "default")).await;
    let running = daemon.until(&owner, "running").await;
    assert_eq!(running["placement"][0]["gpus"].as_array().unwrap().len(), 1, "{running}");
    let waiting = daemon.job(&borrower).await;
    assert_eq!((&waiting["state"], &waiting["attempt"]), (&json!("queued"), &json!(1)), "{waiting}");
    through(&daemon, &gate, &[&owner, &borrower]).await;
    let again = daemon.job(&borrower).await;
    assert_eq!((&again["attempt"], again["placement"][0]["gpus"].as_array().unwrap().len()), (&json!(2), 2), "{again}");
    assert_eq!(said(), "begin 1\nINT\nbegin 2\n");
    let (_, history) = daemon.get(&format!("/api/v1/jobs/{borrower}/events")).await;
    let words: Vec<_> = history["items"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["submitted", "placed", "started", "preempted", "ended", "placed", "started", "ended"]);
}

/// A guarantee that is given while somebody borrows is one: who held more than his own before it was given gives it back as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarantee_that_is_given_later_counts_for_what_runs() {
    let config = "listen = \"off\"\n[node]\ncpus = 2\nmemory = \"1Gi\"\n[[cohorts]]\nname = \"lab\"\nlimit = { cpu = 2 }\n[[queues]]\nname = \"own\"\n\
                  cohort = \"lab\"\n[[queues]]\nname = \"guest\"\npreemptible = true\n";
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), config);
    let log = folder.path().join("log");
    let borrower = daemon.submit(guest(&log, json!({"cpu": 2}))).await;
    let begun = async {
        daemon.until(&borrower, "running").await;
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("begin 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    let mut owner = shell("true");
    owner["resources"] = json!({"cpu": 2});
    let owner = daemon.submit(in_queue(owner, "own", "default")).await;
    for (path, patch) in [("guest", json!({"cohort": "lab"})), ("own", json!({"guaranteed": {"cpu": 2}}))] {
        let (status, answer) = daemon.call("PATCH", &format!("/api/v1/queues/{path}"), Some(patch), &[]).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    daemon.finished(&owner).await;
    let job = daemon.finished(&borrower).await;
    assert_eq!((&job["attempt"], &job["outcome"]["result"]), (&json!(2), &json!("succeeded")), "{job}");
    daemon.kill();
}

/// Who starts changes whose turn it is. Whoever can start because of that does so at once, and not with the next word of a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_turn_it_is_after_a_start_starts_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = "listen = \"off\"\nnamespaces = [\"a\", \"b\"]\n[node]\ncpus = 8\nmemory = \"1Gi\"\n[[queues]]\nname = \"other\"\n\
                  [[queues]]\nname = \"shared\"\nmax_concurrent = 2\nfair_share = { half_life = \"1h\" }\n";
    let daemon = Daemon::start(&folder.path().join("data"), config);
    let gate = folder.path().join("gate");
    let job = |queue: &str, namespace: &str, cpus: &str| {
        let mut job = in_queue(shell(&format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display())), queue, namespace);
        job["resources"] = json!({"cpu": cpus});
        job
    };
    let first = daemon.submit(job("other", "a", "2")).await;
    daemon.until(&first, "running").await;
    // From now on nobody hears of a start, or of anything else.
    let runner = daemon.runners()[0];
    kill_process(runner, Signal::STOP).unwrap();
    let jobs = [job("shared", "a", "7"), job("shared", "a", "100m"), job("shared", "b", "100m")];
    let (_, answer) = daemon.post("/api/v1/jobs:batch", json!({"jobs": jobs})).await;
    let ids: Vec<&str> = answer["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    let starts = async {
        let mut events = daemon.events("/api/v1/events?after=0").await;
        let mut starting = Vec::new();
        while starting.len() < 2 {
            let event = events.next().await.expect("the stream ended early");
            let id = event["job"].as_str().unwrap().to_owned();
            if event["event"] == "placed" && id != first {
                starting.push(id);
            }
        }
        starting
    };
    // Left alone, the daemon looks again within a minute.
    let starting = tokio::time::timeout(PATIENCE / 4, starts).await;
    kill_process(runner, Signal::CONT).unwrap();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(
        starting.expect("the third waits for somebody's word"),
        [ids[1], ids[2]],
        "a slot was kept for the one that is too large"
    );
    for id in ids {
        assert_eq!(daemon.finished(id).await["outcome"]["result"], "succeeded");
    }
}
