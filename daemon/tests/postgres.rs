//! The daemon with its job table in PostgreSQL: everything is in there, an outage is outlived, and nothing tells the password.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Daemon, PATIENCE, flash, shell};
use hyper::StatusCode;
use postgres_server::{Server, server_for_test};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\n[node]\ncpus = 4\n";

fn on(server: &Server, dir: &std::path::Path, config: &str) -> Daemon {
    let mut daemon = Daemon::prepare(dir, config);
    daemon.envs.push(("FLASHD_STORE_URL".to_owned(), server.url().replace("flash@", "flash:s3cret@")));
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_queues_and_tokens_are_in_the_database_and_not_in_the_folder() {
    let Some(server) = server_for_test("a daemon on PostgreSQL") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = on(&server, &folder.path().join("one"), CONFIG);
    daemon.restart();
    let id = daemon.submit(shell("exit 3")).await;
    assert_eq!(daemon.finished(&id).await["outcome"]["exitCode"], 3);
    let (status, queue) = daemon.call("PUT", "/api/v1/queues/team", Some(json!({"priority": 7})), &[]).await.unwrap();
    assert!(status.is_success(), "{queue}");
    let (status, token) = daemon.post("/api/v1/tokens", json!({"name": "ci"})).await;
    assert!(status.is_success(), "{token}");
    // What says it is let in says no more than that.
    let (_, info) = daemon.get("/api/v1/info").await;
    assert!(!daemon.dir.join("flash.db").exists());

    // Another daemon does not take a table whose jobs run elsewhere; a second of this folder does not begin.
    let mut other = on(&server, &folder.path().join("other"), CONFIG);
    assert!(!other.try_restart().unwrap_err().success());
    assert!(other.log().contains("holds") || other.log().contains("held by"), "{}", other.log());

    assert!(daemon.terminate().success());
    // Given back, it is taken by whoever comes: all is there.
    other.restart();
    assert_eq!(other.job(&id).await["outcome"]["exitCode"], 3);
    let (status, queue) = other.get("/api/v1/queues/team").await;
    assert_eq!((status, &queue["priority"]), (StatusCode::OK, &json!(7)), "{queue}");
    let (_, tokens) = other.get("/api/v1/tokens").await;
    assert_eq!(tokens["items"][0]["name"], "ci", "{tokens}");
    let (_, usage) = other.get("/api/v1/usage").await;
    assert_eq!(usage["items"][0]["runs"], 1, "{usage}");
    let text = format!("{}{}{info}", daemon.log(), other.log());
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn a_doctor_says_where_the_job_table_stands() {
    let Some(mut server) = server_for_test("a doctor of a database") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = on(&server, &folder.path().join("data"), CONFIG);
    let doctor = |daemon: &Daemon| {
        let (well, text) = daemon.doctor(&[]);
        assert!(!text.contains("s3cret"), "{text}");
        let line = text.lines().find(|line| line.contains("  database: ")).unwrap_or_default().to_owned();
        (well, line)
    };
    let (well, line) = doctor(&daemon);
    assert!(well && line.starts_with("note") && line.contains("there is no job table yet"), "{line}");
    daemon.restart();
    let (well, line) = doctor(&daemon);
    assert!(well && line.starts_with("ok") && line.contains("term 1"), "{line}");
    assert!(daemon.terminate().success());
    server.kill();
    let (well, line) = doctor(&daemon);
    assert!(!well && line.starts_with("FAIL") && line.contains("is away"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_outlived_and_jobs_run_on() {
    let Some(mut server) = server_for_test("an outage of PostgreSQL") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = on(&server, &folder.path().join("data"), CONFIG);
    daemon.restart();
    let gate = folder.path().join("gate");
    let waits = daemon.submit(shell(&format!("while [ ! -e {} ]; do sleep 0.05; done; exit 5", gate.display()))).await;
    daemon.until(&waits, "running").await;

    server.kill();
    // Whoever asks for a change hears that there is none, once the daemon has waited for the database as long as it does.
    let (status, problem) = daemon.post("/api/v1/jobs", shell("true")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    let (status, why) = daemon.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{why}");
    let (status, problem) = daemon.get("/api/v1/jobs").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    std::fs::write(&gate, "").unwrap();

    server.restart().unwrap();
    let ready = async {
        while daemon.get("/readyz").await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await; // readiness has no other signal
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("not ready again\n{}", daemon.log()));
    let job = daemon.finished(&waits).await;
    assert_eq!((&job["attempt"], &job["outcome"]["exitCode"]), (&json!(1), &json!(5)), "{job}");
    let id = daemon.submit(shell("true")).await;
    assert_eq!(daemon.finished(&id).await["outcome"]["result"], "succeeded");
    let revisions = daemon.all_revisions().await;
    assert!(revisions.iter().copied().eq(1..=revisions.len() as u64), "revisions have a gap");
}

/// A process that does not outlive its test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// An answer over TCP, head and body; `None` where nobody listens.
fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_of_a_cluster_waits_for_the_one_that_leads_and_says_so() {
    let Some(server) = server_for_test("a standby on PostgreSQL") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut leader = on(&server, &folder.path().join("one"), CONFIG);
    leader.restart();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!("listen = \"127.0.0.1:{port}\"\nexecutors = [\"job\"]\n");
    let standby = on(&server, &folder.path().join("two"), &config);
    let mut process = Ends(standby.command().stderr(std::process::Stdio::null()).spawn().unwrap());
    let alive = async {
        while ask(port, "/healthz").is_none_or(|answer| !answer.starts_with("HTTP/1.0 200")) {
            tokio::time::sleep(Duration::from_millis(20)).await; // it tells nobody that it listens
        }
    };
    tokio::time::timeout(PATIENCE, alive).await.unwrap();
    for path in ["/readyz", "/api/v1/jobs"] {
        let answer = ask(port, path).unwrap();
        assert!(answer.starts_with("HTTP/1.0 503") && answer.contains("holds the job table"), "{answer}");
    }
    // The leader is not disturbed by it, and it ends when it is told to.
    let id = leader.submit(shell("true")).await;
    assert_eq!(leader.finished(&id).await["outcome"]["result"], "succeeded");
    kill_process(Pid::from_child(&process.0), Signal::TERM).unwrap();
    assert!(process.0.wait().unwrap().success());
}

/// A cluster at which nobody answers: whoever leads with it starts nothing.
const NO_CLUSTER: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_with_a_folder_of_its_own_reads_and_takes_over() {
    let Some(server) = server_for_test("a standby that reads") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut leader = on(&server, &folder.path().join("one"), CONFIG);
    leader.restart();
    let done = leader.submit(shell("exit 3")).await;
    leader.finished(&done).await;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NO_CLUSTER).unwrap();
    let config = format!("listen = \"off\"\nexecutors = [\"job\"]\n[kubernetes]\nkubeconfig = \"{}\"\n", kubeconfig.display());
    let mut standby = on(&server, &folder.path().join("two"), &config);
    standby.restart();
    standby.logged(|log| log.contains("serves what can be read")).await;

    // What is in the table is read, as the leader tells it.
    for path in [&*format!("/api/v1/jobs/{done}"), "/api/v1/jobs", "/api/v1/notices", "/api/v1/tokens"] {
        let (status, here) = standby.get(path).await;
        assert_eq!((status, &here), (StatusCode::OK, &leader.get(path).await.1), "{path}");
    }
    assert_eq!(standby.get("/api/v1/usage").await.1["items"][0]["runs"], 1);
    for args in [&["ls", "--all", "-o", "json"][..], &["show", &done], &["events", "--job", &done]] {
        let told = flash::told(&standby, args);
        assert!(told.contains("exit code 3") || told.contains("\"exitCode\": 3"), "{args:?}: {told}");
    }

    // What it cannot know or do it does not, and says who leads.
    let leads = format!("(pid {}) leads and holds the job table", leader.pid().as_raw_nonzero());
    let refuses = |(status, problem): (StatusCode, Value)| {
        let detail = problem["detail"].as_str().unwrap_or_default();
        let says = detail.starts_with("this is a standby: ") && detail.contains(&leads);
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && says, "{status} {problem}");
    };
    refuses(standby.get("/readyz").await);
    refuses(standby.get("/api/v1/queues").await);
    refuses(standby.get(&format!("/api/v1/jobs/{done}/why")).await);
    refuses(standby.post("/api/v1/jobs", shell("true")).await);
    refuses(standby.post(&format!("/api/v1/jobs/{done}/requeue"), Value::Null).await);
    refuses(standby.call("PUT", "/api/v1/queues/new", Some(json!({})), &[]).await.unwrap());
    for args in [["cancel", &done], ["why", &done]] {
        let refused = flash::flash(&standby, &args);
        assert!(refused.code != Some(0) && refused.err.contains(&leads), "{args:?}: {}", refused.err);
    }
    let (status, gone) = standby.get("/api/v1/jobs/00000000-0000-7000-8000-000000000000").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{gone}");

    // Jobs come, and each is told here, in order and once. In the midst of that the leader is killed.
    let after = standby.get("/api/v1/info").await.1["revision"].as_u64().unwrap();
    let mut events = standby.events(&format!("/api/v1/events?after={after}")).await;
    let client = leader.client();
    let clients = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        let held = json!({"command": ["true"], "workingDir": "/tmp", "hold": true});
        while let Ok((StatusCode::CREATED, job)) = client.call("POST", "/api/v1/jobs", Some(held.clone()), &[]).await {
            acknowledged.push(job["id"].as_str().unwrap().to_owned());
        }
        acknowledged
    });
    let mut told = Vec::new();
    let follow = async {
        while let Some(event) = events.next().await {
            told.push(event["revision"].as_u64().unwrap());
            assert_eq!(event["state"], "waiting", "{event}");
            if told.len() == 40 {
                leader.kill();
            }
        }
    };
    tokio::time::timeout(PATIENCE, follow).await.unwrap_or_else(|_| panic!("nobody took over\n{}", standby.log()));
    assert!(told.iter().copied().eq(after + 1..=after + told.len() as u64), "{told:?}");

    // Now it leads: what was acknowledged is there, nothing has a gap, and changes are taken.
    let acknowledged = clients.await.unwrap();
    assert!(acknowledged.len() >= 39, "{}", acknowledged.len());
    for id in &acknowledged {
        assert_eq!(standby.job(id).await["state"], "waiting");
    }
    assert_eq!(standby.job(&done).await["outcome"]["exitCode"], 3);
    let revisions = standby.all_revisions().await;
    assert!(revisions.iter().copied().eq(1..=revisions.len() as u64), "revisions have a gap");
    let (status, answer) = standby.post(&format!("/api/v1/jobs/{}/cancel", acknowledged[0]), Value::Null).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(standby.job(&acknowledged[0]).await["outcome"]["result"], "cancelled");
    let (status, queues) = standby.get("/api/v1/queues").await;
    assert_eq!(status, StatusCode::OK, "{queues}");

    // The one before has jobs of its machine, and does not wait; nor does who is told not to.
    assert!(!leader.try_restart().unwrap_err().success());
    assert!(leader.log().contains("its jobs run on its machine"), "{}", leader.log());
    let mut other = on(&server, &folder.path().join("three"), &config);
    other.extra = vec!["--standby=false".to_owned()];
    assert!(!other.try_restart().unwrap_err().success());
    assert!(other.log().contains("is held by"), "{}", other.log());
    assert!(standby.terminate().success(), "{}", standby.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_cannot_read_says_why() {
    let Some(server) = server_for_test("a standby that cannot read") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut leader = on(&server, &folder.path().join("one"), CONFIG);
    leader.restart();
    // As if the one that leads were older.
    server
        .schema()
        .execute("DELETE FROM public._sqlx_migrations WHERE version = (SELECT max(version) FROM public._sqlx_migrations)");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NO_CLUSTER).unwrap();
    let config = format!("listen = \"off\"\nexecutors = [\"job\"]\n[kubernetes]\nkubeconfig = \"{}\"\n", kubeconfig.display());
    let mut standby = on(&server, &folder.path().join("two"), &config);
    standby.restart();
    let leads = format!("(pid {}) leads and holds the job table", leader.pid().as_raw_nonzero());
    standby.logged(|log| log.contains("the table is not read")).await;
    for path in ["/readyz", "/api/v1/jobs"] {
        let (status, problem) = standby.get(path).await;
        let says = problem["detail"].as_str().unwrap();
        let why = says.contains("it cannot read the job table: it has schema version 1, this flashd reads version ");
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && says.contains(&leads) && why, "{path}: {problem}");
    }
    let refused = flash::flash(&standby, &["ls"]);
    assert!(refused.err.contains(&leads) && refused.err.contains("it has schema version"), "{}", refused.err);
}

#[test]
fn a_password_is_in_no_answer_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret-in-file\n").unwrap();
    let flashd = |args: &[&str], url: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_flashd"))
            .args(args)
            .args(["--data", folder.path().to_str().unwrap(), "--store-password-file", file.to_str().unwrap()])
            .env("FLASHD_STORE_URL", url)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("s3cret"), "{text}");
        (output.status.success(), text)
    };
    let good = "postgres://ada:s3cret@127.0.0.1:1/jobs?sslmode=disable";
    let (well, text) = flashd(&["config", "check"], good);
    assert!(well && text.contains("url = \"postgres://ada@127.0.0.1:1/jobs?sslmode=disable\""), "{text}");
    let (well, text) = flashd(&["migrate"], good);
    assert!(!well && text.contains("postgres://ada@127.0.0.1:1/jobs"), "{text}");
    for wrong in ["mysql://ada:s3cret@h/d", "postgres://ada:s3cret@h:x/d", "postgres://ada@h/d?password=s3cret", "s3cret"] {
        let (well, text) = flashd(&["config", "check"], wrong);
        assert!(!well && text.contains("store.url"), "{text}");
    }
    let (_, text) = flashd(&["serve", "--help"], good);
    assert!(text.contains("--store-url <URL>"), "{text}");
}
