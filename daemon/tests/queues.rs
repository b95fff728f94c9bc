//! Queues, cohorts and priority classes over the real daemon's REST API: what is taken, what is refused and how, what a change does at
//! once, and what of it outlives the daemon.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::os::unix::process::CommandExt as _;

use common::{Client, Daemon, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

const CONFIG: &str = r#"
listen = "off"
namespaces = ["default", "ml"]
[node]
cpus = 2
memory = "4Gi"
[[cohorts]]
name = "lab"
limit = { cpu = 2 }
[[queues]]
name = "seeded"
weight = 2
cohort = "lab"
[[priority_classes]]
name = "low"
priority = -7
"#;

fn start(folder: &tempfile::TempDir) -> Daemon {
    Daemon::start(&folder.path().join("data"), CONFIG)
}

async fn call(client: &Client, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = client.call(method, &format!("/api/v1/{path}"), Some(body), &[]).await.unwrap();
    (status.as_u16(), answer)
}

async fn delete(client: &Client, path: &str) -> (u16, Value) {
    let (status, answer) = client.call("DELETE", &format!("/api/v1/{path}"), None, &[]).await.unwrap();
    (status.as_u16(), answer)
}

async fn get(client: &Client, path: &str) -> Value {
    let (status, answer) = client.get(&format!("/api/v1/{path}")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn put(client: &Client, path: &str, body: Value) -> Value {
    let (status, answer) = call(client, "PUT", path, body).await;
    assert!(status == 200 || status == 201, "{status} {answer}");
    answer
}

/// A job that runs until a file appears.
fn gated(gate: &std::path::Path, queue: &str) -> Value {
    let mut job = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    job["queue"] = queue.into();
    job
}

#[tokio::test]
async fn bad_specs_are_refused_with_their_field_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let before = (get(&daemon, "queues").await, get(&daemon, "cohorts").await, get(&daemon, "priorityclasses").await);
    for (method, path, body, status, field, said) in [
        ("PUT", "queues/q", json!({"weight": 0}), 400, "weight", "`0` is not a weight"),
        ("PUT", "queues/q", json!({"weight": -1}), 400, "weight", "`-1` is not a weight"),
        ("PUT", "queues/q", json!({"weight": "NaN"}), 400, "weight", "`NaN` is not a weight"),
        ("PUT", "queues/q", json!({"wieght": 1}), 400, "wieght", "unknown field"),
        ("PUT", "queues/q", json!({"limit": {"cpu": "-1"}}), 400, "limit.cpu", "not an amount of CPU"),
        ("PUT", "queues/q", json!({"fairShare": {"halfLife": "soon"}}), 400, "fairShare.halfLife", "not a duration"),
        ("PUT", "queues/q", json!({"fairShare": {"halfLife": "1ms"}}), 422, "fairShare.halfLife", "1s to 366d"),
        ("PUT", "queues/q", json!({"fairShare": {"weights": {"a": 0}}}), 400, "fairShare.weights.a", "not a weight"),
        ("PUT", "queues/q", json!({"priority": 10_000_001}), 422, "priority", "-10000000 to 10000000"),
        ("PUT", "queues/q", json!({"maxConcurrent": 0}), 422, "maxConcurrent", "at least 1"),
        ("PUT", "queues/q", json!({"cohort": "none"}), 422, "cohort", "does not exist"),
        ("PUT", "queues/q", json!({"limit": {"gpu": 1}, "guaranteed": {"gpu": 2}}), 422, "guaranteed", "its limit is 1"),
        ("PUT", "queues/q", json!({"cohort": "lab", "guaranteed": {"cpu": 3}}), 422, "guaranteed", "its limit is 2000"),
        ("PUT", "queues/No%20Name", json!({}), 422, "name", "DNS-1123"),
        ("PATCH", "queues/seeded", json!({"weight": 0}), 422, "weight", "`0` is not a weight"),
        ("PATCH", "queues/seeded", json!({"limits": {}}), 422, "limits", "unknown field"),
        ("PUT", "cohorts/loop", json!({"parent": "loop"}), 422, "parent", "lead back to it"),
        ("PATCH", "cohorts/lab", json!({"parent": "lab"}), 422, "parent", "lead back to it"),
        ("PUT", "cohorts/c", json!({"parent": "none"}), 422, "parent", "does not exist"),
        ("PUT", "cohorts/c", json!({"parent": "lab", "fairShare": {}}), 422, "fairShare", "has a parent"),
        ("PUT", "priorityclasses/c", json!({"priority": 1_000_001}), 422, "priority", "-1000000 to 1000000"),
        ("PUT", "priorityclasses/c", json!({}), 400, "", "missing field `priority`"),
    ] {
        let (got, answer) = call(&daemon, method, path, body.clone()).await;
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        assert_eq!(answer["field"].as_str().unwrap_or_default(), field, "{method} {path} {body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{method} {path} {body}: {answer}");
    }
    for (method, path, status) in [
        ("PATCH", "queues/none", 404),
        ("DELETE", "queues/none", 404),
        ("GET", "queues/none", 404),
        ("DELETE", "cohorts/none", 404),
        ("DELETE", "priorityclasses/none", 404),
        ("POST", "queues", 405),
    ] {
        let (got, answer) = call(&daemon, method, path, json!({})).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
    }
    let (status, answer) = delete(&daemon, "cohorts/lab").await;
    assert_eq!(status, 409);
    assert!(answer["detail"].as_str().unwrap().contains("`seeded` is in cohort `lab`"), "{answer}");
    let after = (get(&daemon, "queues").await, get(&daemon, "cohorts").await, get(&daemon, "priorityclasses").await);
    assert_eq!(before, after);
}

#[tokio::test]
async fn bad_jobs_of_gangs_and_classes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let gang = |replicas: u32, least: u32, cpu: u32| {
        json!({"workingDir": "/", "tasks": [{"name": "w", "replicas": replicas, "command": ["true"], "resources": {"cpu": cpu, "memory": "3Gi"}}],
               "minAvailable": least})
    };
    for (job, status, field, said) in [
        (gang(2, 2, 1), 422, "tasks[0].resources.memory", "all nodes have 4Gi"),
        (gang(2, 3, 1), 422, "minAvailable", "`3` is not 1 to 2"),
        (gang(2, 0, 1), 422, "minAvailable", "`0` is not 1 to 2"),
        (json!({"command": ["true"], "priorityClass": "no"}), 422, "priorityClass", "there are: low"),
        (json!({"command": ["true"], "priorityClass": "low", "priority": 3}), 422, "priority", "say one of them"),
        (
            json!({"command": ["true"], "queue": "no"}),
            422,
            "queue",
            "configfile-interactive, configfile-job, default-batch, seeded",
        ),
        (json!({"command": ["true"], "queue": "seeded", "resources": {"cpu": 2}, "workingDir": "/"}), 201, "", ""),
    ] {
        let (got, answer) = call(&daemon, "POST", "jobs", job.clone()).await;
        assert_eq!(got, status, "{job}: {answer}");
        assert_eq!(answer["field"].as_str().unwrap_or_default(), field, "{job}: {answer}");
        assert!(answer["detail"].as_str().unwrap_or_default().contains(said), "{job}: {answer}");
    }
    // More than the queue may ever hold.
    put(&daemon, "queues/small", json!({"limit": {"cpu": 1}})).await;
    let (status, answer) =
        call(&daemon, "POST", "jobs", json!({"command": ["true"], "queue": "small", "resources": {"cpu": 2}, "workingDir": "/"}))
            .await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("too-large-for-cluster")), "{answer}");
}

#[tokio::test]
async fn only_administrators_change_queues_and_nodes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if !rustix::process::geteuid().is_root() {
        // A daemon that is not root serves its own user and root alone: both are administrators.
        return;
    }
    let daemon = start(&folder);
    let ask = |method: &str, path: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]).arg(daemon.socket());
        curl.args(["-X", method, "-H", "content-type: application/json", "-d", "{\"priority\":1}"]);
        curl.arg(format!("http://localhost/api/v1/{path}")).uid(54_321);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    for path in ["queues/q", "cohorts/c", "priorityclasses/c"] {
        assert_eq!(ask("PUT", path), "403", "{path}");
        assert_eq!(ask("PATCH", path), "403", "{path}");
        assert_eq!(ask("DELETE", path), "403", "{path}");
    }
    for path in ["nodes/any/cordon", "nodes/any/drain", "nodes/any/resume"] {
        assert_eq!(ask("POST", path), "403", "{path}");
    }
    assert_eq!(ask("GET", "queues/default-batch"), "200");
}

#[tokio::test]
async fn what_was_set_outlives_the_daemon_and_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start(&folder);
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let queues = get(&daemon, "queues").await;
    assert_eq!(names(&queues), ["configfile-interactive", "configfile-job", "default-batch", "seeded"]);
    let origins: Vec<_> = queues["items"].as_array().unwrap().iter().map(|queue| queue["origin"].as_str().unwrap()).collect();
    assert_eq!(origins, ["builtIn", "builtIn", "builtIn", "file"]);

    let full = json!({"priority": 5, "preemptible": true, "maxConcurrent": 3, "agePerPoint": "2m", "cohort": "team", "weight": 2.5,
        "guaranteed": {"cpu": "1"}, "limit": {"cpu": "1500m", "memory": "1Gi"}, "tenantLimits": {"jobs": 2},
        "fairShare": {"halfLife": "1h", "weights": {"ml": 4}}});
    assert_eq!(call(&daemon, "PUT", "cohorts/team", json!({"parent": "lab"})).await.0, 201);
    assert_eq!(call(&daemon, "PUT", "queues/train", full.clone()).await.0, 201);
    assert_eq!(call(&daemon, "PUT", "queues/train", full.clone()).await.0, 200);
    assert_eq!(call(&daemon, "PATCH", "queues/seeded", json!({"priority": 9})).await.0, 200);
    assert_eq!(call(&daemon, "PATCH", "queues/default-batch", json!({"preemptible": false})).await.0, 200);
    assert_eq!(call(&daemon, "PUT", "priorityclasses/urgent", json!({"priority": 50})).await.0, 201);
    assert_eq!(call(&daemon, "PUT", "priorityclasses/low", json!({"priority": -9})).await.0, 200);
    assert_eq!(call(&daemon, "PUT", "queues/gone", json!({})).await.0, 201);
    assert_eq!(delete(&daemon, "queues/gone").await.0, 204);
    let before = (get(&daemon, "queues").await, get(&daemon, "cohorts").await, get(&daemon, "priorityclasses").await);
    let train = get(&daemon, "queues/train").await;
    for (key, value) in full.as_object().unwrap() {
        assert_eq!(&train[key], value, "{key}");
    }

    for kill in [true, false] {
        if kill {
            daemon.kill();
        } else {
            assert!(daemon.terminate().success());
        }
        daemon.restart();
        let after = (get(&daemon, "queues").await, get(&daemon, "cohorts").await, get(&daemon, "priorityclasses").await);
        assert_eq!(before, after);
    }
    let seeded = get(&daemon, "queues/seeded").await;
    assert_eq!((&seeded["priority"], &seeded["weight"], &seeded["origin"]), (&json!(9), &json!(2), &json!("api")));
    let pool = get(&daemon, "cohorts/lab").await;
    assert_eq!((&pool["guaranteed"]["cpu"], &pool["pool"]["cpu"]), (&json!("1"), &json!("2")));
    // What the file names is there again after it was deleted; what only the API named is not.
    assert_eq!(delete(&daemon, "queues/seeded").await.0, 204);
    assert_eq!(delete(&daemon, "queues/train").await.0, 204);
    assert_eq!(names(&get(&daemon, "queues").await), ["configfile-interactive", "configfile-job", "default-batch"]);
    daemon.kill();
    daemon.restart();
    assert_eq!(names(&get(&daemon, "queues").await), ["configfile-interactive", "configfile-job", "default-batch", "seeded"]);
    assert_eq!(get(&daemon, "queues/seeded").await["origin"], "file");
    assert_eq!(get(&daemon, "queues/default-batch").await["preemptible"], false);

    // A file that does not fit what is stored keeps the daemon from starting, and says why.
    put(&daemon, "queues/train", json!({"cohort": "lab"})).await;
    daemon.kill();
    std::fs::write(daemon.dir.join("flashd.toml"), "listen = \"off\"\n").unwrap();
    assert!(!daemon.try_restart().unwrap_err().success());
    assert!(daemon.log().contains("cohort \"lab\" does not exist"), "{}", daemon.log());
}

#[tokio::test]
async fn a_queue_with_jobs_is_not_deleted_and_a_raised_limit_lets_them_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start(&folder);
    let gate = folder.path().join("gate");
    put(&daemon, "queues/narrow", json!({"maxConcurrent": 1})).await;
    let first = daemon.submit(gated(&gate, "narrow")).await;
    daemon.until(&first, "running").await;
    let second = daemon.submit(gated(&gate, "narrow")).await;
    let queue = get(&daemon, "queues/narrow").await;
    assert_eq!((&queue["active"], &queue["queued"], &queue["used"]["cpu"]), (&json!(1), &json!(1), &json!("1")));
    assert_eq!((&queue["share"]["held"], &queue["tenants"][0]["namespace"]), (&json!(500_000), &json!("default")));
    assert_eq!(daemon.job(&second).await["state"], "queued", "the limit keeps it back: there is room");
    let (status, answer) = delete(&daemon, "queues/narrow").await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")));
    assert!(answer["detail"].as_str().unwrap().contains("queue `narrow` has 2 unfinished jobs"), "{answer}");

    // Over a restart too: the limit is that of the stored queue.
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.job(&second).await["state"], "queued");
    let (status, answer) = call(&daemon, "PATCH", "queues/narrow", json!({"maxConcurrent": 2})).await;
    assert_eq!(status, 200, "{answer}");
    daemon.until(&second, "running").await;
    std::fs::write(&gate, "").unwrap();
    daemon.finished(&first).await;
    daemon.finished(&second).await;
    assert_eq!(delete(&daemon, "queues/narrow").await.0, 204);
    let (status, answer) = call(&daemon, "POST", "jobs", gated(&gate, "narrow")).await;
    assert_eq!((status, answer["field"].as_str()), (422, Some("queue")), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_many_clients_all_count() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    put(&daemon, "queues/shared", json!({"fairShare": {}})).await;
    let patches = (0..40).map(|number| {
        let client = daemon.client();
        tokio::spawn(async move {
            let patch = json!({"fairShare": {"weights": {format!("t{number}"): 2}}});
            assert_eq!(call(&client, "PATCH", "queues/shared", patch).await.0, 200);
        })
    });
    for patch in patches.collect::<Vec<_>>() {
        patch.await.unwrap();
    }
    let queue = get(&daemon, "queues/shared").await;
    assert_eq!(queue["fairShare"]["weights"].as_object().unwrap().len(), 40);
}
