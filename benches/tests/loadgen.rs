//! The load generator against its own bare server: every request is answered, counted and checked.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Stdio};

fn loadgen(args: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn submits_over_both_sockets() {
    for transport in ["tcp", "unix"] {
        let result =
            loadgen(&["submit", "--bare", "--transport", transport, "--requests", "500", "--warmup", "50", "--connections", "7"]);
        assert_eq!((&result["errors"], &result["requests"]), (&0.into(), &500.into()), "{result}");
        assert_eq!(result["transport"], transport);
        assert!(result["jobs_per_s"].as_f64().unwrap() > 0.0, "{result}");
    }
}

#[test]
fn connections_are_spread_over_threads() {
    let result = loadgen(&["submit", "--bare", "--requests", "300", "--connections", "8", "--threads", "3"]);
    assert_eq!(result["errors"], 0, "{result}");
}

#[test]
fn batches_larger_than_a_socket_buffer() {
    let result = loadgen(&["batch", "--bare", "--requests", "6", "--warmup", "2", "--connections", "2", "--batch", "1000"]);
    assert_eq!(result["errors"], 0, "{result}");
}

#[test]
fn floors_are_measured() {
    assert!(loadgen(&["spawn", "--count", "20"])["per_s"].as_f64().unwrap() > 0.0);
    assert!(loadgen(&["fsync", "--count", "5"])["per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["submit", "--server", "unix:///nonexistent/flashd.sock", "--requests", "5"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/flashd.sock"));
}
