//! Jobs over the real daemon's REST API: what is taken, what is refused and how, lists, actions, idempotency, whose is what.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;

use common::{Client, Daemon, request, shell};
use hyper::StatusCode;
use serde_json::{Value, json};

const CONFIG: &str =
    "listen = \"off\"\nnamespaces = [\"default\", \"ml\"]\n[node]\ncpus = 2\nmemory = \"4Gi\"\n[limits]\nbatch_jobs = 50\n";

fn start(folder: &tempfile::TempDir) -> Daemon {
    Daemon::start(&folder.path().join("data"), CONFIG)
}

/// A problem, checked for its form; status, code, field and detail.
fn problem(status: StatusCode, body: &Value) -> (u16, String, Option<String>, String) {
    assert_eq!(body["status"], status.as_u16(), "{body}");
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    (status.as_u16(), text("code").unwrap(), text("field"), text("detail").unwrap())
}

async fn refused(client: &Client, path: &str, body: &str) -> (u16, String, Option<String>, String) {
    let (status, answer) = client.send(request("POST", path, body.to_owned(), &[])).await.unwrap();
    problem(status, &serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn bad_jobs_are_refused_with_field_and_reason_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let deep = format!("{{\"labels\":{}", "{\"a\":".repeat(100_000));
    for (body, status, code, field, said) in [
        ("", 400, "malformed", None, "empty"),
        ("{", 400, "malformed", None, "line 1"),
        ("[]", 400, "malformed", None, "object"),
        (r#"{"command":["true"],"resources":["1"]}"#, 400, "malformed", Some("resources"), "expected an object"),
        (deep.as_str(), 400, "malformed", Some("labels.a"), ""),
        (r#"{"command":["true"],"colour":"red"}"#, 400, "malformed", Some("colour"), "unknown field `colour`"),
        (r#"{"command":"true"}"#, 400, "malformed", Some("command"), "invalid type"),
        (r#"{"command":["true"],"resources":{"cpu":"-1"}}"#, 400, "malformed", Some("resources.cpu"), "not an amount of CPU"),
        (r#"{"command":["true"],"resources":{"memory":"1Zi"}}"#, 400, "malformed", Some("resources.memory"), "not an amount"),
        (r#"{"command":["true"],"resources":{"cpu":1e308}}"#, 400, "malformed", Some("resources.cpu"), "0 to 1,000,000 cores"),
        (
            r#"{"command":["true"],"resources":{"memory":"99999999Pi"}}"#,
            400,
            "malformed",
            Some("resources.memory"),
            "below 1 EiB",
        ),
        (r#"{"command":["true"],"resources":{"gpu":-1}}"#, 400, "malformed", Some("resources.gpu"), "0 to 65,535"),
        (r#"{"command":["true"],"timeLimit":"-5s"}"#, 400, "malformed", Some("timeLimit"), "not a duration"),
        (r#"{"command":["true"],"priority":99999999999999999999}"#, 400, "malformed", Some("priority"), "expected i32"),
        (r#"{"command":[]}"#, 422, "invalid", Some("command"), "a program is needed"),
        (r#"{"command":["a\u0000b"]}"#, 422, "invalid", Some("command[0]"), "NUL"),
        (r#"{"command":["true"],"name":"No Name"}"#, 422, "invalid", Some("name"), "DNS-1123"),
        (r#"{"command":["true"],"queue":"fast"}"#, 422, "invalid", Some("queue"), "default-batch"),
        (r#"{"command":["true"],"namespace":"x"}"#, 422, "invalid", Some("namespace"), "default, ml"),
        (r#"{"command":["true"],"workingDir":"/nowhere/at/all"}"#, 422, "invalid", Some("workingDir"), "does not exist"),
        (
            r#"{"command":["true"],"resources":{"cpu":3}}"#,
            422,
            "too-large-for-cluster",
            Some("resources.cpu"),
            "the largest node has 2",
        ),
        (
            r#"{"command":["true"],"resources":{"memory":"5Gi"}}"#,
            422,
            "too-large-for-cluster",
            Some("resources.memory"),
            "has 4Gi",
        ),
        (
            r#"{"command":["true"],"resources":{"gpu":1}}"#,
            422,
            "too-large-for-cluster",
            Some("resources.gpu"),
            "has none; why there are none: NVML",
        ),
        (
            r#"{"tasks":[{"command":["true"],"replicas":2},{"command":["true"],"replicas":2}]}"#,
            422,
            "too-large-for-cluster",
            Some("tasks[1].resources.cpu"),
            "together",
        ),
    ] {
        let shown = &body[..body.len().min(100)];
        let answer = refused(&daemon, "/api/v1/jobs", body).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, code), "{shown}: {answer:?}");
        // How deep the parser goes is its own affair.
        if code != "malformed" || !shown.contains("labels") {
            assert_eq!(answer.2.as_deref(), field, "{shown}: {answer:?}");
        }
        assert!(answer.3.contains(said), "{shown}: {answer:?}");
    }
    let (_, list) = daemon.get("/api/v1/jobs").await;
    assert_eq!((list["items"].as_array().unwrap().len(), list["revision"].as_u64()), (0, Some(0)));
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let held = |name: &str| json!({"command": ["true"], "workingDir": "/", "hold": true, "name": name});
    for (jobs, status, code, field) in [
        (json!([]), 422, "invalid", "jobs"),
        (json!([held("a"), held("B")]), 422, "invalid", "jobs[1].name"),
        (
            json!([held("a"), {"command": ["true"], "workingDir": "/", "resources": {"cpu": 9}}]),
            422,
            "too-large-for-cluster",
            "jobs[1].resources.cpu",
        ),
        (json!([held("a"), {"comand": []}]), 400, "malformed", "jobs[1].comand"),
        (json!(vec![held("a"); 51]), 422, "invalid", "jobs"),
    ] {
        let answer = refused(&daemon, "/api/v1/jobs:batch", &json!({"jobs": jobs}).to_string()).await;
        assert_eq!((answer.0, answer.1.as_str(), answer.2.as_deref()), (status, code, Some(field)), "{answer:?}");
    }
    let (_, list) = daemon.get("/api/v1/jobs").await;
    assert_eq!(list["items"], json!([]), "nothing of a refused batch is there");

    let names: Vec<String> = (0..50).map(|number| format!("job-{number}")).collect();
    let (status, answer) =
        daemon.post("/api/v1/jobs:batch", json!({"jobs": names.iter().map(|name| held(name)).collect::<Vec<_>>()})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let lines = names.iter().map(|name| held(name).to_string()).collect::<Vec<_>>().join("\n");
    let (status, more) =
        daemon.send(request("POST", "/api/v1/jobs:batch", lines, &[("content-type", "application/x-ndjson")])).await.unwrap();
    assert_eq!(status, StatusCode::CREATED);
    let more: Value = serde_json::from_slice(&more).unwrap();
    for answer in [&answer, &more] {
        for (job, name) in answer["jobs"].as_array().unwrap().iter().zip(&names) {
            assert_eq!(daemon.job(job["id"].as_str().unwrap()).await["spec"]["name"], **name, "ids are in the order sent");
        }
    }
    let (status, answer) = daemon.call("POST", "/api/v1/jobs", Some(json!({})), &[("content-type", "text/plain")]).await.unwrap();
    assert_eq!(problem(status, &answer).1, "unsupported-media-type");
}

#[tokio::test]
async fn a_list_is_paged_and_filtered() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let mut ids = Vec::new();
    for number in 0..25 {
        let job = json!({
            "command": ["true"], "workingDir": "/", "hold": number % 2 == 0, "startAfter": "2030-01-01T00:00:00Z",
            "name": if number == 3 { "special" } else { "plain" }, "namespace": if number < 5 { "ml" } else { "default" },
            "labels": {"parity": if number % 2 == 0 { "even" } else { "odd" }},
        });
        ids.push(daemon.submit(job).await);
    }
    let list = async |query: &str| {
        let (status, list) = daemon.get(&format!("/api/v1/jobs?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {list}");
        let items = list["items"].as_array().unwrap();
        let found: Vec<String> = items.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        (found, list["nextCursor"].as_str().map(str::to_owned))
    };
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let query = cursor.map_or_else(|| "limit=10".to_owned(), |cursor| format!("limit=10&cursor={cursor}"));
        let (page, next) = list(&query).await;
        pages.extend(page);
        // What is submitted in between belongs to no page of this list.
        daemon.submit(json!({"command": ["true"], "workingDir": "/", "hold": true, "name": "late"})).await;
        let Some(next) = next else { break };
        cursor = Some(next);
    }
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(pages, newest_first);

    for (query, count) in [
        ("namespace=ml", 5),
        ("namespace=ml&name=special", 1),
        ("name=plain&labelSelector=parity%3Deven", 13),
        ("labelSelector=parity!%3Deven,parity", 12),
        ("labelSelector=!parity", 3),
        ("state=waiting&name=plain&limit=1000", 24),
        ("fieldSelector=name%3Dspecial", 1),
        ("state=queued", 0),
        ("outcome=failed", 0),
        ("owner=nobody-of-that-name", 0),
    ] {
        assert_eq!(list(query).await.0.len(), count, "{query}");
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("cursor=abc", "cursor"),
        ("state=asleep", "state"),
        ("labelSelector=a%20in%20(b)", "labelSelector"),
        ("fieldSelector=colour%3Dred", "fieldSelector"),
    ] {
        let (status, body) = daemon.get(&format!("/api/v1/jobs?{query}")).await;
        let answer = problem(status, &body);
        assert_eq!((answer.0, answer.2.as_deref()), (422, Some(field)), "{query}: {answer:?}");
    }
    let (status, body) = daemon.get("/api/v1/jobs?colour=red").await;
    assert_eq!(problem(status, &body).1, "malformed");
}

#[tokio::test]
async fn a_job_is_found_by_what_is_unique_of_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let job = json!({"command": ["true"], "workingDir": "/", "hold": true});
    let one = daemon.submit(job.clone()).await;
    assert_eq!(daemon.job(&one[..8]).await["id"], *one);
    let other = daemon.submit(job).await;
    let common = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    if common >= 8 {
        let (status, body) = daemon.get(&format!("/api/v1/jobs/{}", &one[..common])).await;
        assert_eq!(problem(status, &body).2.as_deref(), Some("id"));
    }
    assert_eq!(daemon.job(&one).await["id"], *one);
    for id in ["00000000", "0000", "not-an-id", "00000000-0000-7000-8000-000000000000", "%00", "..%2f.."] {
        for path in ["", "/why", "/logs", "/events"] {
            let (status, body) = daemon.get(&format!("/api/v1/jobs/{id}{path}")).await;
            assert_eq!(problem(status, &body).1, "not-found", "{id}{path}");
        }
        let (status, body) = daemon.post(&format!("/api/v1/jobs/{id}/cancel"), Value::Null).await;
        assert_eq!(problem(status, &body).1, "not-found", "{id}");
    }
}

#[tokio::test]
async fn a_key_is_answered_once_with_work_and_then_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start(&folder);
    let job = json!({"command": ["true"], "workingDir": "/", "hold": true});
    let key = [("idempotency-key", "one")];
    let send = |client: Client, body: Value| async move { client.call("POST", "/api/v1/jobs", Some(body), &key).await.unwrap() };
    let calls = (0..8).map(|_| send(daemon.client(), job.clone()));
    let answers = futures::future::join_all(calls).await;
    let ids: BTreeSet<String> = answers
        .iter()
        .map(|(status, body)| {
            assert_eq!(*status, StatusCode::CREATED, "{body}");
            body["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 1, "at once or one after the other: one job");
    let (status, body) = send(daemon.client(), json!({"command": ["false"], "workingDir": "/"})).await;
    assert_eq!(problem(status, &body).1, "idempotency-key-reused");
    let (status, body) = daemon.call("POST", "/api/v1/jobs:batch", Some(json!({"jobs": [job]})), &key).await.unwrap();
    assert_eq!(problem(status, &body).1, "idempotency-key-reused", "another route is another request");
    daemon.kill();
    daemon.restart();
    let (status, body) = send(daemon.client(), job.clone()).await;
    assert_eq!(
        (status, body["id"].as_str()),
        (StatusCode::CREATED, ids.first().map(String::as_str)),
        "a key outlives the daemon"
    );
    let alias = [("x-request-id", "one")];
    let (_, body) = daemon.call("POST", "/api/v1/jobs", Some(job), &alias).await.unwrap();
    assert_eq!(body["id"].as_str(), ids.first().map(String::as_str), "both headers are one");
    let (_, list) = daemon.get("/api/v1/jobs").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn actions_can_be_repeated_and_a_finished_job_stays_finished() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let act = async |id: &str, action: &str| daemon.post(&format!("/api/v1/jobs/{id}/{action}"), Value::Null).await;
    let mut sleeper = shell("sleep 1000");
    sleeper["hold"] = json!(true);
    let id = daemon.submit(sleeper).await;
    let (_, why) = daemon.get(&format!("/api/v1/jobs/{id}/why")).await;
    assert_eq!((why["reason"].as_str(), why["state"].as_str()), (Some("held"), Some("waiting")));
    for _ in 0..2 {
        let (status, job) = act(&id, "hold").await;
        assert_eq!((status, job["waitingFor"].as_str()), (StatusCode::OK, Some("hold")), "{job}");
    }
    assert_eq!(act(&id, "release").await.0, StatusCode::OK);
    daemon.until(&id, "running").await;
    let (status, body) = act(&id, "hold").await;
    assert_eq!(problem(status, &body).1, "conflict", "what runs cannot be held");
    assert_eq!(act(&id, "cancel").await.0, StatusCode::OK);
    let job = daemon.finished(&id).await;
    assert_eq!(job["outcome"]["result"], "cancelled");
    for action in ["cancel", "hold", "release", "requeue"] {
        let (status, body) = act(&id, action).await;
        let answer = problem(status, &body);
        assert_eq!((answer.0, answer.1.as_str()), (409, "conflict"));
        assert!(answer.3.contains("finished (cancelled)"), "{answer:?}");
    }
    assert_eq!(daemon.job(&id).await, job, "nothing of it has changed");
    let (_, history) = daemon.get(&format!("/api/v1/jobs/{id}/events")).await;
    let words: Vec<&str> = history["items"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words.first(), Some(&"submitted"));
    assert!(["released", "placed", "started", "cancelled", "ended"].iter().all(|word| words.contains(word)), "{words:?}");
    let (_, why) = daemon.get(&format!("/api/v1/jobs/{id}/why")).await;
    assert_eq!(why["reason"], "finished");
    assert_eq!((&why["outcome"]["result"], &why["attempts"][0]["end"]), (&json!("cancelled"), &json!("cancelled")), "{why}");
}

#[tokio::test]
async fn a_waiting_job_is_told_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let mut large = shell("sleep 1000");
    large["resources"] = json!({"cpu": 2, "memory": "1Gi"});
    let first = daemon.submit(large.clone()).await;
    daemon.until(&first, "running").await;
    let (next, last) = (daemon.submit(large.clone()).await, daemon.submit(large).await);
    let (_, why) = daemon.get(&format!("/api/v1/jobs/{next}/why")).await;
    assert_eq!((why["reason"].as_str(), why["position"].as_u64()), (Some("resources"), Some(1)), "{why}");
    let cpu = json!({"resource": "cpu", "asked": "2", "free": "0", "total": "2", "largestTask": "2", "largestFree": "0"});
    assert_eq!(why["shortfall"]["shortages"], json!([cpu]));
    assert_eq!((&why["estimate"]["basis"], &why["estimate"]["blockedBy"]["number"]), (&json!("noTimeLimit"), &json!(1)), "{why}");
    let (_, why) = daemon.get(&format!("/api/v1/jobs/{last}/why")).await;
    assert_eq!((why["reason"].as_str(), why["position"].as_u64()), (Some("behind"), Some(2)), "{why}");
    assert_eq!((&why["number"], &why["queued"], &why["queue"]), (&json!(3), &json!(2), &json!("default-batch")));
    let ahead = json!({"id": next, "number": 2, "namespace": "default", "queue": "default-batch", "rule": "fifo", "message": "it came first"});
    assert_eq!((&why["first"], &why["ahead"]), (&ahead, &json!([ahead])));
    let (_, nodes) = daemon.get("/api/v1/nodes").await;
    assert_eq!((nodes["items"][0]["cpuUsed"].as_str(), nodes["items"][0]["memoryUsed"].as_str()), (Some("2"), Some("1Gi")));
    let (_, queues) = daemon.get("/api/v1/queues").await;
    let queue = queues["items"].as_array().unwrap().iter().find(|queue| queue["name"] == "default-batch").unwrap();
    assert_eq!((queue["queued"].as_u64(), queue["active"].as_u64()), (Some(2), Some(1)));
}

/// One request as another user: credentials belong to the thread that connects, so a thread of its own is enough.
fn as_user(client: &Client, uid: u32, method: &str, path: &str, body: &str) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let socket = client.socket();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let thread = std::thread::spawn(move || {
        rustix::thread::set_thread_res_uid(None, rustix::process::Uid::from_raw(uid), None).unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = thread.join().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_see_that_others_work_and_not_their_secrets() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be several users");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = start(&folder);
    let (ada, bob) = (54_321, 54_322);
    let spec = json!({"command": ["true"], "workingDir": "/", "hold": true, "env": {"SECRET": "hunter2"}});
    let (status, body) = as_user(&daemon, ada, "POST", "/api/v1/jobs", &spec.to_string());
    assert_eq!(status, 201, "{body}");
    let id = body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/jobs/{id}");
    for (uid, secret) in [(ada, "hunter2"), (bob, "(hidden)"), (0, "hunter2")] {
        let (status, job) = as_user(&daemon, uid, "GET", &path, "");
        assert_eq!((status, job["spec"]["env"]["SECRET"].as_str(), job["owner"].as_str()), (200, Some(secret), Some("54321")));
        let (_, list) = as_user(&daemon, uid, "GET", "/api/v1/jobs", "");
        assert_eq!(list["items"][0]["spec"]["env"]["SECRET"], secret);
    }
    for action in ["cancel", "hold", "release", "requeue"] {
        assert_eq!(as_user(&daemon, bob, "POST", &format!("{path}/{action}"), "").0, 403, "{action}");
    }
    assert_eq!(as_user(&daemon, bob, "GET", &format!("{path}/logs"), "").0, 403);
    assert_eq!(as_user(&daemon, ada, "GET", &format!("{path}/logs"), "").0, 409, "it has not begun");

    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let spec = json!({"command": ["true"], "workingDir": closed, "hold": true}).to_string();
    let (status, body) = as_user(&daemon, ada, "POST", "/api/v1/jobs", &spec);
    assert_eq!((status, body["field"].as_str()), (422, Some("workingDir")), "{body}");
    assert_eq!(as_user(&daemon, 0, "POST", "/api/v1/jobs", &spec).0, 201, "root may enter");

    let key = json!({"name": "laptop"}).to_string();
    let (status, token) = as_user(&daemon, ada, "POST", "/api/v1/tokens", &key);
    assert_eq!(status, 201);
    let (_, of_bob) = as_user(&daemon, bob, "GET", "/api/v1/tokens", "");
    assert_eq!(of_bob["items"], json!([]));
    let path = format!("/api/v1/tokens/{}", token["id"].as_str().unwrap());
    assert_eq!(as_user(&daemon, bob, "DELETE", &path, "").0, 404);
    assert_eq!(as_user(&daemon, ada, "DELETE", &path, "").0, 204);
    assert_eq!(as_user(&daemon, ada, "POST", &format!("/api/v1/jobs/{id}/cancel"), "").0, 200);
}
