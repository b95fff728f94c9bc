//! `PATCH /jobs/{id}` and `flash update` against the real daemon: what can be changed and when, what is refused, and that it outlives the daemon.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use common::flash::{flash, told};
use common::{Client, Daemon, shell};
use serde_json::{Value, json};

const CONFIG: &str = r#"
listen = "off"
[node]
cpus = 2
memory = "4Gi"
[[queues]]
name = "small"
limit = { cpu = 1 }
[[priority_classes]]
name = "urgent"
priority = 500
"#;

async fn call(client: &Client, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = client.call(method, &format!("/api/v1/{path}"), Some(body), &[]).await.unwrap();
    (status.as_u16(), answer)
}

async fn submit(client: &Client, job: Value) -> String {
    let (status, answer) = call(client, "POST", "jobs", job).await;
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_str().unwrap().to_owned()
}

async fn patch(client: &Client, id: &str, body: Value) -> (u16, Value) {
    call(client, "PATCH", &format!("jobs/{id}"), body).await
}

async fn events(client: &Client, id: &str) -> Vec<String> {
    let (_, answer) = client.get(&format!("/api/v1/jobs/{id}/events")).await;
    answer["items"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_job_that_waits_can_be_changed_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let daemon = Daemon::start(&data, CONFIG);
    let mut held = shell("true");
    (held["hold"], held["priorityClass"]) = (true.into(), "urgent".into());
    let id = submit(&daemon, held).await;

    let change =
        json!({"priority": 7, "queue": "small", "timeLimit": "90s", "retry": {"maxAttempts": 5}, "stop": {"grace": "5s"}});
    let (status, changed) = patch(&daemon, &id, change.clone()).await;
    assert_eq!(status, 200, "{changed}");
    let spec = &changed["spec"];
    assert_eq!((&spec["priority"], &spec["priorityClass"], &spec["queue"]), (&json!(7), &Value::Null, &json!("small")));
    assert_eq!((&spec["timeLimit"], &spec["retry"]["maxAttempts"]), (&json!("1m30s"), &json!(5)));
    assert_eq!((&spec["stop"]["grace"], &spec["stop"]["signal"]), (&json!("5s"), &json!("SIGTERM")), "what is not named stays");
    assert_eq!(spec["command"], Value::Null);
    assert_eq!(changed["state"], "waiting");

    // Once more changes nothing: no second event.
    let (status, again) = patch(&daemon, &id, change).await;
    assert_eq!((status, &again["revision"]), (200, &changed["revision"]));
    assert_eq!(events(&daemon, &id).await, ["submitted", "updated"]);

    for (body, status, field, said) in [
        (json!({"command": ["false"]}), 422, "command", "these can: priority, priorityClass, queue, timeLimit, retry, stop"),
        (json!({"resources": {"cpu": 1}}), 422, "resources", "cannot be changed"),
        (json!({"priority": 1_000_001}), 422, "priority", "-1000000 to 1000000"),
        (json!({"priority": "high"}), 422, "priority", "invalid type"),
        (json!({"queue": "none"}), 422, "queue", "no queue `none`; there are:"),
        (json!({"priorityClass": "none"}), 422, "priorityClass", "there are: urgent"),
        (json!({"priorityClass": "urgent", "priority": 3}), 422, "priority", "say one of them"),
        (json!({"timeLimit": "0s"}), 422, "timeLimit", "at least 1ms"),
        (json!({"stop": {"signal": "SIGNONE"}}), 422, "stop.signal", "not a signal"),
        (json!({"retry": {"maxAttempts": 0}}), 422, "retry.maxAttempts", "1 to 100"),
        (json!([1]), 400, "", ""),
    ] {
        let (got, answer) = patch(&daemon, &id, body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert_eq!(answer["field"].as_str().unwrap_or_default(), field, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{body}: {answer}");
    }
    // A queue in which it could never start is refused with what there is.
    let mut wide = shell("true");
    (wide["hold"], wide["resources"]) = (true.into(), json!({"cpu": 2}));
    let wide = submit(&daemon, wide).await;
    let (status, answer) = patch(&daemon, &wide, json!({"queue": "small"})).await;
    assert_eq!((status, &answer["code"]), (422, &json!("too-large-for-cluster")), "{answer}");

    let (status, classed) = patch(&daemon, &id, json!({"priorityClass": "urgent", "timeLimit": null})).await;
    assert_eq!(
        (status, &classed["spec"]["priority"], &classed["spec"]["timeLimit"]),
        (200, &json!(500), &Value::Null),
        "{classed}"
    );

    // The core of the next daemon has it too: `small` takes one CPU, and the job goes where it was sent.
    drop(daemon);
    let daemon = Daemon::start(&data, CONFIG);
    let (_, stored) = daemon.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(stored["spec"], classed["spec"]);
    let (_, small) = daemon.get("/api/v1/queues/small").await;
    assert_eq!(small["waiting"], 1, "{small}");
    let (status, _) = call(&daemon, "POST", &format!("jobs/{id}/release"), json!({})).await;
    assert_eq!(status, 200);
    let done = daemon.finished(&id).await;
    assert_eq!(done["outcome"]["result"], "succeeded");
    let (status, answer) = patch(&daemon, &id, json!({"priority": 1})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("conflict")));
    let said = "is finished (succeeded): priority, priorityClass, queue, timeLimit, retry, stop can be changed while it is waiting or queued";
    assert!(answer["detail"].as_str().unwrap().contains(said), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_has_become_of_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let mut held = shell("true");
    held["hold"] = true.into();
    let id = submit(&daemon, held).await;
    told(&daemon, &["update", &id, "--priority", "9", "--queue", "small", "--time-limit", "2m"]);
    let spec = daemon.job(&id).await["spec"].clone();
    assert_eq!((&spec["priority"], &spec["queue"], &spec["timeLimit"]), (&json!(9), &json!("small"), &json!("2m")));
    for (args, code, said) in [
        (&["update", &id][..], 2, "--priority"),
        (&["update", &id, "--queue", "none"], 4, "no queue `none`"),
        (&["update", &id, "--time-limit", "soon"], 2, "soon"),
        (&["update", "01890000-0000-7000-8000-000000000000", "--priority", "1"], 3, "no"),
    ] {
        let refused = flash(&daemon, args);
        assert_eq!(refused.code, Some(code), "{args:?}: {}", refused.err);
        assert!(refused.err.contains(said), "{args:?}: {}", refused.err);
    }
    assert_eq!(daemon.job(&id).await["spec"], spec);
}
