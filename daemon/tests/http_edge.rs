//! The edge of the real daemon: tokens, bounds on what a connection may cost, what is no HTTP, no route, no method.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::io::Write as _;
use std::net::TcpStream;

use common::tcp::{address, connect, rest, tcp};
use common::{Daemon, PATIENCE, request};
use hyper::StatusCode;
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"127.0.0.1:0\"\n[limits]\ntcp_connections = 2\nidle_timeout = \"1s\"\n";

#[tokio::test]
async fn tcp_wants_a_token_that_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let tcp_address = address(&daemon);
    let wrong = format!("Bearer flash_{}", "A".repeat(43));
    for authorization in [None, Some(""), Some("Bearer"), Some("Bearer x"), Some("Basic eDp5"), Some(wrong.as_str())] {
        let (status, body, head) = tcp(tcp_address, "GET", "/api/v1/jobs", authorization, "");
        assert_eq!((status, body["code"].as_str()), (401, Some("unauthenticated")), "{authorization:?}");
        assert!(head.contains("www-authenticate: Bearer"), "{head}");
    }
    for (path, expected) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/nowhere", 401),
        ("/docs/", 200),
        ("/api/v1/openapi.json", 200),
    ] {
        assert_eq!(tcp(tcp_address, "GET", path, None, "").0, expected, "{path}");
    }

    let (status, made) = daemon.post("/api/v1/tokens", json!({"name": "laptop"})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let good = format!("Bearer {}", made["secret"].as_str().unwrap());
    let (status, info, _) = tcp(tcp_address, "GET", "/api/v1/info", Some(&good), "");
    let (_, own) = daemon.get("/api/v1/info").await;
    assert_eq!((status, &info["user"]), (200, &own["user"]), "a token is its maker");
    assert_eq!(tcp(tcp_address, "GET", "/metrics", Some(&good), "").0, 200);
    let spec = json!({"command": ["true"], "workingDir": "/", "hold": true}).to_string();
    assert_eq!(tcp(tcp_address, "POST", "/api/v1/jobs", Some(&good), &spec).0, 201);
    let (status, body, _) = tcp(tcp_address, "POST", "/api/v1/tokens", Some(&good), r#"{"name":"x"}"#);
    assert_eq!((status, body["code"].as_str()), (403, Some("forbidden")), "a token makes no tokens");
    let (_, list) = daemon.get("/api/v1/tokens").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert!(!list.to_string().contains("secret") && !daemon.log().contains(made["secret"].as_str().unwrap()));

    daemon.terminate();
    daemon.restart();
    let tcp_address = address(&daemon);
    assert_eq!(tcp(tcp_address, "GET", "/api/v1/info", Some(&good), "").0, 200, "tokens outlive the daemon");
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(daemon.call("DELETE", &path, None, &[]).await.unwrap().0, StatusCode::NO_CONTENT);
    assert_eq!(tcp(tcp_address, "GET", "/api/v1/info", Some(&good), "").0, 401, "gone at once");
    assert_eq!(daemon.call("DELETE", &path, None, &[]).await.unwrap().0, StatusCode::NOT_FOUND);

    let (_, short) = daemon.post("/api/v1/tokens", json!({"name": "short", "ttl": "1s"})).await;
    let short = format!("Bearer {}", short["secret"].as_str().unwrap());
    let begun = std::time::Instant::now();
    while tcp(tcp_address, "GET", "/api/v1/info", Some(&short), "").0 != 401 {
        assert!(begun.elapsed() < PATIENCE, "it never ends");
    }
    for (body, field) in
        [(json!({"name": ""}), "name"), (json!({"name": "a\nb"}), "name"), (json!({"name": "x", "ttl": "0s"}), "ttl")]
    {
        let (status, answer) = daemon.post("/api/v1/tokens", body).await;
        assert_eq!((status, answer["field"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some(field)), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_dawdles_is_cut_and_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let address = address(&daemon);
    // Both places are taken by clients that never finish their head; the third waits in the kernel and is served after them.
    let mut dawdlers: Vec<TcpStream> = (0..2).map(|_| connect(address)).collect();
    for stream in &mut dawdlers {
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
    }
    assert_eq!(daemon.get("/api/v1/info").await.0, StatusCode::OK, "the Unix socket has its own places");
    assert_eq!(tcp(address, "GET", "/healthz", None, "").0, 200);
    for stream in dawdlers {
        let answer = rest(stream);
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    // One that says nothing at all, and one that idles after an answer.
    assert_eq!(rest(connect(address)), "");
    let mut idle = connect(address);
    write!(idle, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(rest(idle).contains("200 OK"));
}

#[tokio::test]
async fn what_is_too_large_or_no_http_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let address = address(&daemon);
    let large = json!({"command": ["true"], "annotations": {"a": "x".repeat(2 << 20)}}).to_string();
    let (status, body) = daemon.send(request("POST", "/api/v1/jobs", large, &[])).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, body["code"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("body-too-large")));

    let mut stream = connect(address);
    // The connection may be cut before all of it is sent; then the answer may be lost with it.
    let _cut = write!(stream, "GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = rest(stream);
    assert!(answer.is_empty() || answer.contains("431"), "a head has a bound: {answer}");
    let mut stream = connect(address);
    let many = "x-many: 1\r\n".repeat(500);
    write!(stream, "GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n").unwrap();
    assert!(rest(stream).contains("431"), "headers are counted");
    let mut stream = connect(address);
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    assert!(rest(stream).contains("400"));
    // A body that is promised and never comes, from a client that leaves: nothing of it is taken.
    let mut stream = connect(address);
    write!(stream, "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{").unwrap();
    drop(stream);
    let (status, list) = daemon.get("/api/v1/jobs").await;
    assert_eq!((status, &list["items"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn what_is_no_route_or_no_method_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n");
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/api/v1/jobs/", 404, "not-found"),
        ("PUT", "/api/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/api/v1/jobs:batch", 405, "method-not-allowed"),
        ("DELETE", "/healthz", 405, "method-not-allowed"),
    ] {
        let (found, body) = daemon.call(method, path, None, &[]).await.unwrap();
        assert_eq!((found.as_u16(), body["code"].as_str()), (status, Some(code)), "{method} {path}: {body}");
    }
    let (status, document) = daemon.get("/api/v1/openapi.json").await;
    assert_eq!((status, document["openapi"].as_str()), (StatusCode::OK, Some("3.1.0")));
    let response = daemon.open(request("GET", "/docs/", String::new(), &[])).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_it_does_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n");
    let ran = daemon.submit(common::shell("exit 3")).await;
    daemon.finished(&ran).await;
    daemon.submit(json!({"command": ["true"], "workingDir": "/", "hold": true})).await;
    let (status, body) = daemon.send(request("GET", "/metrics", String::new(), &[])).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(status, StatusCode::OK);
    for line in [
        "flashd_decisions_total{event=\"submitted\"} 2",
        "flashd_decisions_total{event=\"placed\"} 1",
        "flashd_starts_total 1",
        "flashd_exits_total{result=\"failed\"} 1",
        "flashd_http_requests_total{route=\"/api/v1/jobs\",status=\"201\"} 2",
        "flashd_commit_failures_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for series in ["flashd_commit_seconds_count ", "flashd_commit_batch_size_sum ", "flashd_http_request_seconds_count{"] {
        assert!(text.lines().any(|line| line.starts_with(series) && !line.ends_with(" 0")), "{series} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_start_that_is_told_with_its_end_is_counted_too() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n[node]\ncpus = 1\n");
    let mut jobs = Vec::new();
    for _ in 0..40 {
        jobs.push(daemon.submit(json!({"command": ["true"], "workingDir": "/"})).await);
    }
    for job in &jobs {
        daemon.finished(job).await;
    }
    let (_, text) = daemon.send(request("GET", "/metrics", String::new(), &[])).await.unwrap();
    let text = String::from_utf8_lossy(&text);
    for line in ["flashd_starts_total 40", "flashd_exits_total{result=\"succeeded\"} 40", "flashd_start_latency_seconds_count 40"]
    {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn metrics_tell_how_many_jobs_stand_in_each_queue() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder.path().join("data"), "listen = \"off\"\n[node]\ncpus = 1\n");
    daemon.submit(json!({"command": ["true"], "workingDir": "/", "hold": true})).await;
    let running = daemon.submit(json!({"command": ["sleep", "60"], "workingDir": "/"})).await;
    daemon.until(&running, "running").await;
    for _ in 0..2 {
        daemon.submit(json!({"command": ["true"], "workingDir": "/"})).await;
    }
    let (_, text) = daemon.send(request("GET", "/metrics", String::new(), &[])).await.unwrap();
    let text = String::from_utf8_lossy(&text);
    for line in [
        "flashd_queue_jobs{queue=\"default-batch\",state=\"waiting\"} 1",
        "flashd_queue_jobs{queue=\"default-batch\",state=\"queued\"} 2",
        "flashd_queue_jobs{queue=\"default-batch\",state=\"active\"} 1",
        "flashd_starts_total 1",
        "flashd_start_latency_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
