//! Streams of the real daemon: events that are resumed, logs that are followed, clients that leave.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use common::{Client, Daemon, PATIENCE, request, shell};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\n[node]\ncpus = 4\nmemory = \"4Gi\"\n[limits]\nwatchers = 1\n";

async fn log(client: &Client, id: &str, query: &str) -> (StatusCode, String) {
    let path = format!("/api/v1/jobs/{id}/logs?{query}");
    let answer = tokio::time::timeout(PATIENCE, client.send(request("GET", &path, String::new(), &[]))).await;
    let (status, bytes) = answer.expect("the log never ended").unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_from_before_the_start_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let script = format!("echo first; while [ ! -e {} ]; do sleep 0.02; done; echo last; echo side >&2", gate.display());
    let mut job = shell(&script);
    job["hold"] = json!(true);
    let id = daemon.submit(job).await;
    let (status, _) = log(&daemon, &id, "").await;
    assert_eq!(status, StatusCode::CONFLICT, "nothing to read yet, and nobody wants to wait");

    let response = daemon.open(request("GET", &format!("/api/v1/jobs/{id}/logs?follow=true"), String::new(), &[])).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (status, _) = daemon.post(&format!("/api/v1/jobs/{id}/release"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let mut body = response.into_body();
    let first = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first\n", "what is written is sent while the job runs");
    std::fs::write(&gate, "").unwrap();
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(rest, "last\n", "it ends with the job, and with all of its output");
    daemon.finished(&id).await;

    for (query, expected) in
        [("", "first\nlast\n"), ("tail=1", "last\n"), ("stream=err", "side\n"), ("follow=true", "first\nlast\n")]
    {
        assert_eq!(log(&daemon, &id, query).await, (StatusCode::OK, expected.to_owned()), "{query}");
    }
    for query in ["task=other", "attempt=2", "attempt=0", "stream=both", "tail=x", "tial=1"] {
        let (status, body) = log(&daemon, &id, query).await;
        assert!(status.is_client_error(), "{query}: {status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_output_comes_whole_and_each_task_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let id = daemon
        .submit(json!({"workingDir": "/tmp", "tasks": [
            {"name": "main", "command": ["/bin/sh", "-c", "seq 1 300000"]},
            {"name": "worker", "replicas": 2, "command": ["/bin/sh", "-c", "echo $FLASH_TASK"]},
        ]}))
        .await;
    let (_, followed) = log(&daemon, &id, "task=main&follow=true").await;
    let expected = (1..=300_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    assert!(followed == expected, "{} of {} bytes", followed.len(), expected.len());
    assert_eq!(log(&daemon, &id, "task=worker-1&follow=true").await.1, "worker-1\n");
    let (status, body) = log(&daemon, &id, "").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.contains("main, worker-0 to worker-1"), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_resumed_without_gap_or_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let held = json!({"command": ["true"], "workingDir": "/", "hold": true});
    let first = daemon.submit(held.clone()).await;
    let revision = |event: &Value| event["revision"].as_u64().unwrap();
    let mut events = daemon.events("/api/v1/events?after=0").await;
    assert_eq!(revision(&events.next().await.unwrap()), 1);
    // Live, and over a restart of the daemon.
    daemon.submit(held.clone()).await;
    assert_eq!(revision(&events.next().await.unwrap()), 2);
    let status = daemon.terminate();
    assert!(status.success(), "an open stream does not hold up the end: {status}");
    assert!(tokio::time::timeout(PATIENCE, events.next()).await.unwrap().is_none());
    daemon.restart();
    daemon.submit(held).await;
    let resumed = request("GET", "/api/v1/events?after=0", String::new(), &[("last-event-id", "1")]);
    let mut body = daemon.open(resumed).await.unwrap().into_body();
    let mut seen = String::new();
    while !seen.contains("id: 3\n") {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert!(seen.contains("id: 2\n") && !seen.contains("id: 1\n"), "the header wins: {seen}");
    drop(body);
    let mut events = reopened(&daemon, &format!("/api/v1/events?after=0&job={first}")).await;
    let (status, _) = daemon.post(&format!("/api/v1/jobs/{first}/cancel"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(events.next().await.unwrap()["event"], "submitted");
    let event = events.next().await.unwrap();
    assert_eq!((event["event"].as_str(), event["outcome"]["result"].as_str()), (Some("cancelled"), Some("cancelled")));
    for (path, headers) in [
        ("/api/v1/events?after=99999", &[][..]),
        ("/api/v1/events?after=x", &[]),
        ("/api/v1/events?job=nope", &[]),
        ("/api/v1/events", &[("last-event-id", "x")]),
    ] {
        let (status, _) = daemon.call("GET", path, None, headers).await.unwrap();
        assert!(status.is_client_error(), "{path} {status}");
    }
}

/// The one place among the watchers, as soon as whoever had it is gone.
async fn reopened(client: &Client, path: &str) -> common::Events {
    let open = async {
        loop {
            let response = client.open(request("GET", path, String::new(), &[])).await.unwrap();
            if response.status() == StatusCode::OK {
                return common::Events::of(response);
            }
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        }
    };
    tokio::time::timeout(PATIENCE, open).await.expect("a client that left still counts as a watcher")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_bounded_and_one_that_leaves_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let job = daemon.submit(shell("echo begun; sleep 1000")).await;
    let path = format!("/api/v1/jobs/{job}/logs?follow=true");
    let mut log = daemon.open(request("GET", &path, String::new(), &[])).await.unwrap();
    assert_eq!(log.status(), StatusCode::OK);
    log.body_mut().frame().await.unwrap().unwrap();
    let (status, body) = daemon.get("/api/v1/events").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("busy")));
    drop(log);
    let events = reopened(&daemon, "/api/v1/events").await;
    drop(events);
    drop(reopened(&daemon, &path).await);
    let (status, _) = daemon.post(&format!("/api/v1/jobs/{job}/cancel"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_log_does_not_look_like_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let id = daemon.submit(shell("echo begun; sleep 1000")).await;
    let path = format!("/api/v1/jobs/{id}/logs?follow=true");
    let mut body = daemon.open(request("GET", &path, String::new(), &[])).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert!(daemon.terminate().success(), "a followed log does not hold up the end");
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap();
    assert!(rest.is_err(), "the job goes on: its log has not ended");
    daemon.restart();
    let (status, _) = daemon.post(&format!("/api/v1/jobs/{id}/cancel"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(log(&daemon, &id, "follow=true").await.1, "begun\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compacted_away_is_gone_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), &format!("{CONFIG}[retention]\nevents = \"1s\"\n"));
    let id = daemon.submit(json!({"command": ["true"], "workingDir": "/", "hold": true})).await;
    let begun = std::time::Instant::now();
    // Each start looks for what is old.
    loop {
        let (_, list) = daemon.get("/api/v1/jobs").await;
        let response = daemon.open(request("GET", "/api/v1/events?after=0", String::new(), &[])).await.unwrap();
        if response.status() == StatusCode::GONE {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["code"], "gone", "{body}");
            let (_, history) = daemon.get(&format!("/api/v1/jobs/{id}/events")).await;
            assert_eq!(history["items"], json!([]), "what is left is shown where nobody asked for more");
            // As the problem says: list again, and watch from there.
            let path = format!("/api/v1/events?after={}", list["revision"]);
            let mut events = daemon.events(&path).await;
            let other = daemon.submit(json!({"command": ["true"], "workingDir": "/", "hold": true})).await;
            assert_eq!(events.next().await.unwrap()["job"], *other);
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is ever compacted");
        drop(response);
        daemon.terminate();
        daemon.restart();
    }
}
