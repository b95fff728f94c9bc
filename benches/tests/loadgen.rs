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
fn an_open_loop_sends_all_that_its_rate_says() {
    let result = loadgen(&["submit", "--bare", "--transport", "unix", "--rate", "500", "--seconds", "1", "--connections", "4"]);
    assert_eq!((&result["errors"], &result["requests"]), (&0.into(), &1_000.into()), "{result}");
    assert_eq!(result["latency_ms"]["count"], 500, "the first second is not counted: {result}");
}

#[test]
fn a_program_stamps_its_start() {
    let result = loadgen(&["start", "--spawn", "--count", "3"]);
    assert_eq!(result["latency_ms"]["count"], 3, "{result}");
}

/// Processes with `word` in their command line.
fn processes_with(word: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let lines = entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(word)).collect()
}

#[test]
fn what_is_not_done_in_time_is_ended_with_all_that_it_started() {
    let dir = std::env::temp_dir().join(format!("loadgen-limit-{}", std::process::id()));
    let name = dir.to_str().unwrap();
    // A closed loop that would go on for hours, against a server that has the folder in its command line.
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["submit", "--bare", "--requests", "1000000000000", "--connections", "1", "--limit", "1", "--keep", "--dir", name])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(124), "{}", String::from_utf8_lossy(&output.stderr));
    // It got as far as having a server.
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(processes_with(name), [""; 0]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn peers_that_are_not_there_are_said_to_be_missing() {
    let result = loadgen(&["peers", "--prefix", "/nonexistent"]);
    for name in ["hq", "pueue", "gflow", "tsp", "nq", "slurm"] {
        let about = &result[name];
        assert!(about["version"].is_string() != about["missing"].is_string(), "{name}: {about}");
    }
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
