//! What happens to GPUs, nodes and queues, in the log of events: told once, in the order of revisions, over restarts too.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use common::flash::told;
use common::gpus::{Machine, Somebody, device};
use common::{Client, Events, PATIENCE, shell};
use serde_json::{Value, json};

/// The next notice of a stream.
async fn next(events: &mut Events) -> Value {
    let wait = async {
        loop {
            let (kind, data) = events.typed().await.expect("the stream ended early");
            if let Some(kind) = kind {
                assert_eq!(data["kind"], *kind, "{data}");
                return data;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

/// Kind, name, what happened, cause and author.
fn short(notice: &Value) -> [&str; 5] {
    ["kind", "name", "event", "cause", "by"].map(|field| notice[field].as_str().unwrap_or("-"))
}

async fn list(client: &Client, query: &str) -> Vec<Value> {
    let (status, list) = client.get(&format!("/api/v1/notices{query}")).await;
    assert_eq!(status, 200, "{list}");
    list["items"].as_array().unwrap().clone()
}

/// Who runs the tests.
fn me() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_gpus_is_told_once_and_kept() {
    let both = [device(1, ""), device(2, "")].concat();
    let mut machine = Machine::new(&both, "");
    let mut events = machine.daemon.events("/api/v1/events").await;
    let somebody = Somebody::new(None);
    let used = |memory: &str| [device(1, &format!("processes = [{}]", somebody.entry(memory, ""))), device(2, "")].concat();
    machine.set(&used("512Mi"));
    let held = next(&mut events).await;
    assert_eq!(short(&held), ["gpu", "GPU-1", "heldBack", "foreign", "-"]);
    assert_eq!(held["node"], "box");
    assert!(held["reason"].as_str().unwrap().contains(&format!("pid {} of ", somebody.0.id())), "{held}");
    // Another figure in the reason is no news.
    machine.set(&used("600Mi"));
    machine.until("GPU-1", |gpu| gpu["reason"].as_str().unwrap_or_default().contains("600 MiB")).await;
    machine.set(&both);
    assert_eq!(short(&next(&mut events).await), ["gpu", "GPU-1", "free", "-", "-"]);
    let me = me();
    told(&machine.daemon, &["gpus", "drain", "GPU-2", "--reason", "fan"]);
    let drained = next(&mut events).await;
    assert_eq!(short(&drained), ["gpu", "GPU-2", "drained", "-", &me]);
    assert_eq!(drained["reason"], "fan");
    told(&machine.daemon, &["gpus", "resume", "GPU-2"]);
    assert_eq!(short(&next(&mut events).await), ["gpu", "GPU-2", "resumed", "-", &me]);
    // An order that changes nothing is no news either.
    told(&machine.daemon, &["gpus", "resume", "GPU-2"]);
    machine.set(&(both.clone() + "[[events]]\ndevice = \"GPU-1\"\nxid = 79\n"));
    let sick = next(&mut events).await;
    assert_eq!(short(&sick), ["gpu", "GPU-1", "sick", "sick", "flashd"]);
    assert_eq!(sick["reason"], "critical error (Xid 79)");

    // What was told is told no more after a restart; what has changed meanwhile is.
    machine.daemon.kill();
    machine.set(&device(1, ""));
    machine.daemon.restart();
    let last = sick["revision"].as_u64().unwrap();
    let mut events = machine.daemon.events(&format!("/api/v1/events?after={last}")).await;
    assert_eq!(short(&next(&mut events).await), ["gpu", "GPU-2", "gone", "-", "-"]);
    machine.set(&both);
    assert_eq!(short(&next(&mut events).await), ["gpu", "GPU-2", "found", "-", "-"]);
    told(&machine.daemon, &["gpus", "resume", "GPU-1"]);
    assert_eq!(short(&next(&mut events).await), ["gpu", "GPU-1", "resumed", "-", &me]);

    let all = list(&machine.daemon, "?kind=gpu").await;
    let words: Vec<_> = all.iter().map(|notice| notice["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["heldBack", "free", "drained", "resumed", "sick", "gone", "found", "resumed"]);
    let revisions = machine.daemon.all_revisions().await;
    let expected: Vec<u64> = (1..=revisions.len() as u64).collect();
    assert_eq!(revisions, expected, "one sequence without a gap");
    assert_eq!(list(&machine.daemon, "?name=GPU-2&limit=1").await.len(), 1);
    let table = told(&machine.daemon, &["events", "--kind", "gpu"]);
    assert!(table.contains("critical error (Xid 79)") && table.contains("flashd"), "{table}");
    assert_eq!(told(&machine.daemon, &["events", "--name", "GPU-2", "-o", "name"]).lines().count(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_jobs_alone_hears_of_jobs_alone() {
    let machine = Machine::new(&device(1, ""), "");
    let mut all = machine.daemon.events("/api/v1/events").await;
    let mut gpus = machine.daemon.events("/api/v1/events?kind=gpu").await;
    let mut jobs = machine.daemon.events("/api/v1/events?kind=job").await;
    let mut of_namespace = machine.daemon.events("/api/v1/events?namespace=default").await;
    told(&machine.daemon, &["gpus", "drain", "GPU-1"]);
    let job = machine.daemon.submit(shell("true")).await;
    let mut of_job = machine.daemon.events(&format!("/api/v1/events?after=0&job={job}")).await;
    machine.daemon.finished(&job).await;
    told(&machine.daemon, &["gpus", "resume", "GPU-1"]);
    let mut kinds = Vec::new();
    while kinds.iter().filter(|kind| **kind == Some("gpu".to_owned())).count() < 2 {
        kinds.push(all.typed().await.unwrap().0);
    }
    // What is about a job has no type, which is what a client gets that asks for no types.
    assert_eq!(kinds.first(), Some(&Some("gpu".to_owned())));
    assert!(kinds.len() > 4 && kinds[1..kinds.len() - 1].iter().all(Option::is_none), "{kinds:?}");
    for (stream, event) in
        [(&mut jobs, "submitted"), (&mut of_namespace, "submitted"), (&mut of_job, "submitted"), (&mut gpus, "drained")]
    {
        assert_eq!(stream.next().await.unwrap()["event"], event);
    }
    assert_eq!(gpus.next().await.unwrap()["event"], "resumed");
    for bad in ["/api/v1/events?kind=gpus", "/api/v1/notices?kind=job", "/api/v1/notices?limit=0"] {
        let (status, answer) = machine.daemon.get(bad).await;
        assert_eq!(status, 422, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_queues_are_told_of() {
    let machine = Machine::new(&device(1, ""), "");
    let mut events = machine.daemon.events("/api/v1/events?kind=node,queue,cohort,priorityClass").await;
    let me = me();
    told(&machine.daemon, &["nodes", "cordon", "box", "--reason", "disk"]);
    let cordoned = next(&mut events).await;
    assert_eq!((short(&cordoned), &cordoned["reason"]), (["node", "box", "cordoned", "-", me.as_str()], &json!("disk")));
    told(&machine.daemon, &["nodes", "drain", "box"]);
    assert_eq!(short(&next(&mut events).await), ["node", "box", "draining", "-", &me]);
    told(&machine.daemon, &["nodes", "resume", "box"]);
    assert_eq!(short(&next(&mut events).await), ["node", "box", "resumed", "-", &me]);
    let put = async |path: &str, body| machine.daemon.call("PUT", &format!("/api/v1/{path}"), Some(body), &[]).await.unwrap().0;
    assert!(put("queues/night", json!({"priority": 5})).await.is_success());
    assert_eq!(short(&next(&mut events).await), ["queue", "night", "created", "-", "-"]);
    assert!(put("queues/night", json!({"priority": 6})).await.is_success());
    assert_eq!(short(&next(&mut events).await), ["queue", "night", "changed", "-", "-"]);
    assert!(put("priorityclasses/low", json!({"priority": -5})).await.is_success());
    assert_eq!(short(&next(&mut events).await), ["priorityClass", "low", "created", "-", "-"]);
    assert!(machine.daemon.call("DELETE", "/api/v1/queues/night", None, &[]).await.unwrap().0.is_success());
    assert_eq!(short(&next(&mut events).await), ["queue", "night", "removed", "-", "-"]);
}
