//! Two daemons on one data folder: the second reads and waits, and takes over when the first ends, however that happens, wherever the table is.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::tcp::{address, tcp};
use common::{Client, Daemon, PATIENCE, shell};
use hyper::StatusCode;
use postgres_server::{Server, server_for_test};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\n[node]\ncpus = 8\nmemory = \"8Gi\"\n";

/// A daemon on this folder, with its table in there or in a PostgreSQL.
fn daemon(dir: &std::path::Path, server: Option<&Server>) -> Daemon {
    let mut daemon = Daemon::prepare(dir, CONFIG);
    daemon.envs.extend(server.map(|server| ("FLASHD_STORE_URL".to_owned(), server.url())));
    daemon
}

/// Another daemon on the folder of this one, that waits.
fn standby(dir: &std::path::Path, server: Option<&Server>, more: &[&str]) -> Daemon {
    let mut daemon = daemon(dir, server);
    daemon.extra = [&["--standby"], more].concat().into_iter().map(str::to_owned).collect();
    daemon
}

async fn until_ready(client: &Client) {
    let begun = Instant::now();
    loop {
        // Nobody may be at the door yet.
        if let Ok((StatusCode::OK, _)) = client.call("GET", "/readyz", None, &[]).await {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody took over\n{}", client.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_reads_and_takes_over() {
    reads_and_takes_over(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_of_a_table_in_postgresql_reads_and_takes_over() {
    let Some(server) = server_for_test("two daemons on a folder, with PostgreSQL") else { return };
    reads_and_takes_over(Some(&server)).await;
}

async fn reads_and_takes_over(server: Option<&Server>) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let mut leader = daemon(&dir, server);
    leader.restart();
    let gate = folder.path().join("gate");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let long = leader.submit(shell(&script)).await;
    leader.until(&long, "running").await;
    let (_, made) = leader.post("/api/v1/tokens", json!({"name": "laptop"})).await;
    let token = format!("Bearer {}", made["secret"].as_str().unwrap());

    // It stands by, with doors of its own.
    let second = Client { dir: folder.path().join("second") };
    std::fs::create_dir(&second.dir).unwrap();
    let socket = second.socket();
    let mut waiting = standby(&dir, server, &["--socket", socket.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    waiting.restart();
    waiting.logged(|log| log.contains("serves what can be read")).await;
    let to = address(&waiting);
    let leads = format!("this is a standby: the daemon with pid {} leads on", leader.pid().as_raw_nonzero());
    let refuses = |(status, problem): (StatusCode, Value)| {
        let says = problem["detail"].as_str().unwrap_or_default().starts_with(&leads);
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && says, "{status} {problem}");
    };
    refuses(second.get("/readyz").await);

    // What is in the table is read, and what comes into it is told.
    let (here, there) = (second.job(&long).await, leader.job(&long).await);
    for field in ["id", "spec", "state", "placement", "attempt", "revision"] {
        assert_eq!(here[field], there[field], "{field}");
    }
    assert_eq!(tcp(to, "GET", "/api/v1/jobs", Some(&token), "").0, 200);
    let open = common::request("GET", &format!("/api/v1/jobs/{long}/logs"), String::new(), &[]);
    let (status, text) = second.send(open).await.unwrap();
    assert_eq!((status, text.as_ref()), (StatusCode::OK, &b"begun\n"[..]));
    let after = second.get("/api/v1/info").await.1["revision"].as_u64().unwrap();
    let mut events = second.events(&format!("/api/v1/events?after={after}")).await;
    let held = leader.submit(json!({"command": ["true"], "workingDir": "/tmp", "hold": true})).await;
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(event["job"], held.as_str());
    let (_, list) = second.get("/api/v1/jobs?state=waiting").await;
    assert_eq!(list["items"][0]["id"], held.as_str());

    // Nothing is changed, nor answered that only who leads can know.
    refuses(second.post("/api/v1/jobs", shell("true")).await);
    refuses(second.post(&format!("/api/v1/jobs/{long}/cancel"), Value::Null).await);
    refuses(second.post("/api/v1/tokens", json!({"name": "x"})).await);
    refuses(second.call("PUT", "/api/v1/queues/new", Some(json!({})), &[]).await.unwrap());
    for path in ["nodes", "gpus", "queues", "cohorts", "priorityclasses", "priorityclasses/high"] {
        refuses(second.get(&format!("/api/v1/{path}")).await);
    }
    refuses(second.get(&format!("/api/v1/jobs/{held}/why")).await);
    assert_eq!(leader.get("/readyz").await.0, StatusCode::OK, "the first is untouched");

    // It is killed. Who comes meanwhile is not turned away; streams end, and are resumed.
    let stop = Arc::new(AtomicBool::new(false));
    let knocks = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                drop(TcpStream::connect(to).unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    leader.kill();
    until_ready(&second).await;
    stop.store(true, Ordering::Relaxed);
    knocks.join().unwrap();
    assert!(tokio::time::timeout(PATIENCE, events.next()).await.unwrap().is_none());
    assert_eq!(tcp(to, "GET", "/readyz", None, "").0, 200);
    let job = second.job(&long).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("running"), &json!(1)), "{job}");
    let next = second.submit(shell("true")).await;
    assert_eq!(second.finished(&next).await["outcome"]["result"], "succeeded");

    // Now the other one waits, without a door of its own, and this one ends well.
    let mut first = standby(&dir, server, &[]);
    first.restart();
    assert!(waiting.terminate().success(), "{}", waiting.log());
    until_ready(&first).await;
    std::fs::write(&gate, "").unwrap();
    let job = first.finished(&long).await;
    assert_eq!((&job["outcome"]["result"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    let revisions = first.all_revisions().await;
    assert!(revisions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{revisions:?}");

    // One that is told to end while it waits does so, and leaves the other alone.
    let mut third = standby(&dir, server, &[]);
    third.restart();
    assert!(third.terminate().success());
    assert_eq!(first.get("/readyz").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_standbys_one_takes_over() {
    one_takes_over(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_standbys_of_a_table_in_postgresql_one_takes_over() {
    let Some(server) = server_for_test("several daemons on a folder, with PostgreSQL") else { return };
    one_takes_over(Some(&server)).await;
}

async fn one_takes_over(server: Option<&Server>) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let mut leader = daemon(&dir, server);
    leader.restart();
    let mut ids = vec![leader.submit(shell("true")).await];
    let mut others: Vec<Daemon> = (0..3).map(|_| standby(&dir, server, &[])).collect();
    for other in &mut others {
        other.restart();
    }
    leader.kill();
    while !others.is_empty() {
        until_ready(&others[0]).await;
        ids.push(others[0].submit(shell("true")).await);
        let text = std::fs::read_to_string(dir.join("flashd.lock")).unwrap();
        let pid: i32 = text.lines().next().unwrap().parse().unwrap();
        let at = others.iter().position(|other| other.pid().as_raw_nonzero().get() == pid);
        others.remove(at.unwrap_or_else(|| panic!("{pid} leads, and is none of them"))).kill();
    }
    let mut last = daemon(&dir, server);
    last.restart();
    for id in ids {
        assert_eq!(last.finished(&id).await["outcome"]["result"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_cannot_know_who_asks_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let mut leader = daemon(&dir, None);
    leader.restart();
    let socket = folder.path().join("flashd.sock");
    let mut waiting =
        standby(&dir, None, &["--socket", socket.to_str().unwrap(), "--auth-kubernetes", "--kubernetes-kubeconfig", "/none"]);
    waiting.restart();
    let second = Client { dir: folder.path().to_owned() };
    let begun = Instant::now();
    loop {
        // Nobody may be at the door yet.
        if let Ok((status, problem)) = second.call("GET", "/readyz", None, &[]).await {
            let says = problem["detail"].as_str().unwrap_or_default();
            let leads = says.starts_with("this is a standby: the daemon with pid ");
            assert!(status == StatusCode::SERVICE_UNAVAILABLE && leads, "{problem}");
            if says.contains("it cannot read the job table: users of the cluster cannot be recognised") {
                break;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{}", waiting.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
