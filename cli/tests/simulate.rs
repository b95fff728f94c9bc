//! `flash simulate` as a program: what it prints, what it draws, and how it refuses what is wrong.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with traces, good and bad, and a list of nodes.
struct Traces {
    folder: TempDir,
}

impl Traces {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let jobs = [
            r#"{"at": "0s", "duration": "10s", "namespace": "a", "replicas": 2}"#,
            r#"{"at": "0s", "duration": "20s", "namespace": "b", "replicas": 4}"#,
            r#"{"at": "5s", "duration": "5s", "namespace": "a", "replicas": 2}"#,
            r#"{"at": "6s", "duration": "5s", "namespace": "b", "replicas": 5}"#,
        ];
        write("jobs.jsonl", &jobs.join("\n"));
        let mixed = |number: u64| {
            let (at, duration, replicas) = (number * 20, 1 + number * 37 % 97, 1 + number * 13 % 5 % 4);
            format!(r#"{{"at": "{at}s", "duration": "{duration}s", "replicas": {replicas}}}"#)
        };
        write("mixed.jsonl", &(0..300).map(mixed).collect::<Vec<_>>().join("\n"));
        write("empty.swf", "; Version: 2\n");
        write("unsorted.jsonl", &[jobs[2], jobs[0]].join("\n"));
        write("nodes.csv", "sn,cpu_milli,memory_mib,gpu,model\nn0,4000,1024,0,\n");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exit code, stdout, stderr of `flash simulate` with these arguments, in the folder.
    fn flash(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flash"));
        command.arg("simulate").args(args).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.flash(&[args, &["-o", "json"]].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        serde_json::from_str(&out).unwrap()
    }
}

const JOBS: [&str; 4] = ["--trace", "jobs.jsonl", "--format", "jsonl"];

#[test]
fn figures_come_as_json_and_policies_differ() {
    let traces = Traces::new();
    let run = |nodes: &str, policy: &str| traces.json(&[&JOBS[..], &["--nodes", nodes, "--policy", policy]].concat());
    for nodes in ["cpu=4", "nodes.csv"] {
        assert_eq!(run(nodes, "fifo")["makespanSeconds"], 35.0, "{nodes}");
        assert_eq!(run(nodes, "easy")["makespanSeconds"], 30.0, "{nodes}");
    }
    let report = run("2*cpu=2", "flash");
    assert_eq!(report["makespanSeconds"], 30.0);
    assert_eq!((&report["format"], &report["policy"], &report["estimate"]), (&"jsonl".into(), &"flash".into(), &"exact".into()));
    assert_eq!(report["capacity"], serde_json::json!({"nodes": 2, "cpu": "4", "memory": "0", "gpu": 0}));
    assert_eq!((&report["refused"]["jobs"], &report["completed"]), (&1.into(), &3.into()));
    let reason = report["refused"]["reasons"][0]["reason"].as_str().unwrap();
    let wanted = "the job's tasks ask for 5000 cpu (millicores) together, all nodes have 4000: at most 4 of the tasks \"main\" can run at once";
    assert_eq!(reason, wanted);
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&JOBS[..], &["--nodes", "cpu=4"], more].concat()
}

#[test]
fn reservations_are_counted_and_bounded() {
    let traces = Traces::new();
    for (policy, given, counted) in [("fifo", None, 0), ("easy", None, 1), ("easy", Some("3"), 3), ("flash", Some("64"), 64)] {
        let more = given.map_or_else(|| vec!["--policy", policy], |given| vec!["--policy", policy, "--reservations", given]);
        assert_eq!(traces.json(&with(&more))["reservations"], counted, "{policy}");
    }
    for wrong in ["0", "65"] {
        let (code, _, err) = traces.flash(&with(&["--reservations", wrong]));
        assert!(code == Some(2) && err.contains("is not in 1..=64"), "{err}");
    }
    let (code, _, err) = traces.flash(&with(&["--policy", "fifo", "--reservations", "2"]));
    assert!(code == Some(2) && err.contains("--reservations: the policy fifo has none"), "{err}");
}

#[test]
fn a_table_is_for_people() {
    let traces = Traces::new();
    let (code, out, _) = traces.flash(&[&JOBS[..], &["--nodes", "cpu=4", "--policy", "fifo"]].concat());
    assert_eq!(code, Some(0));
    for line in
        ["jobs:          4, 3 completed, 1 refused", "makespan:      35 s (0m35s)", "in use:        cpu 78.6 %, memory -, gpu -"]
    {
        assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
    }
    let wait = out.lines().find(|line| line.starts_with("wait (s)")).unwrap();
    assert_eq!(wait.split_whitespace().collect::<Vec<_>>(), ["wait", "(s)", "11.7", "10.0", "25.0", "25.0"]);
}

#[test]
fn a_seed_gives_the_same_figures_again() {
    let traces = Traces::new();
    let run = |seed: &str| {
        let mut report = traces.json(&[
            "--trace",
            "mixed.jsonl",
            "--format",
            "jsonl",
            "--nodes",
            "cpu=4",
            "--estimate",
            "factor:9",
            "--seed",
            seed,
        ]);
        report.as_object_mut().unwrap().remove("decisionsPerSecond").unwrap();
        report
    };
    let (one, again, other) = (run("1"), run("1"), run("2"));
    assert_eq!(one, again);
    assert_ne!(one["wait"], other["wait"]);
}

#[test]
fn a_chart_is_an_svg_with_what_the_machines_have() {
    let traces = Traces::new();
    let (code, _, err) = traces.flash(&[&JOBS[..], &["--nodes", "cpu=4", "--chart", "chart.svg"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let chart = std::fs::read_to_string(traces.path("chart.svg")).unwrap();
    assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
    assert!(chart.contains("Jobs waiting") && chart.contains("CPU in use") && !chart.contains("GPUs in use"), "{chart}");
    assert!(chart.contains("jobs.jsonl: 4 jobs, policy flash, estimates exact"));
    let (code, _, err) = traces.flash(&[&JOBS[..], &["--nodes", "cpu=4", "--chart", "none/chart.svg"]].concat());
    assert_eq!(code, Some(2));
    assert!(err.starts_with("error: --chart none/chart.svg: "), "{err}");
}

#[test]
fn a_decision_log_replays_and_a_changed_one_differs_at_its_line() {
    let traces = Traces::new();
    let mixed = ["--trace", "mixed.jsonl", "--format", "jsonl", "--nodes", "cpu=4", "--decision-log", "log.jsonl"];
    let (code, plain, err) = traces.flash(&mixed[..6]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (_, logged, _) = traces.flash(&mixed);
    let without_speed =
        |text: &str| text.lines().filter(|line| !line.starts_with("decisions")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_speed(&plain), without_speed(&logged), "a log changes nothing");
    let (code, out, err) = traces.flash(&["--replay", "log.jsonl"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains(", every answer as recorded"), "{out}");
    let text = std::fs::read_to_string(traces.path("log.jsonl")).unwrap();
    let line = text.lines().position(|line| line.contains("\"starting\"")).unwrap();
    let changed: Vec<_> = text
        .lines()
        .enumerate()
        .map(|(at, text)| if at == line { text.replace("node-1", "node-2") } else { text.to_owned() })
        .collect();
    std::fs::write(traces.path("changed.jsonl"), changed.join("\n") + "\n").unwrap();
    let (code, out, _) = traces.flash(&["--replay", "changed.jsonl"]);
    assert_eq!(code, Some(1));
    assert!(out.contains(&format!("changed.jsonl:{}, at ", line + 1)) && out.contains("node-2"), "{out}");
    let (code, out, _) = traces.flash(&["--replay", "changed.jsonl", "-o", "json"]);
    assert_eq!(code, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["difference"]["line"], line + 1);
}

#[test]
fn queues_can_be_described_to_a_trace() {
    let traces = Traces::new();
    let run = |queues: &str| {
        std::fs::write(traces.path("queues.yaml"), queues).unwrap();
        traces.json(&[&JOBS[..], &["--nodes", "cpu=4", "--policy", "easy", "--queues", "queues.yaml"]].concat())
    };
    assert_eq!(run("queues:\n- {name: default-batch, limit: {cpu: 100}}\n")["makespanSeconds"], 30.0);
    let narrow = run("queues:\n- {name: default-batch, maxConcurrent: 1}\n");
    assert_eq!(narrow["makespanSeconds"], 35.0, "one at a time: {narrow:#}");
    let lab = "cohorts:\n- {name: lab}\nqueues:\n- {name: default-batch, cohort: lab, guaranteed: {cpu: 1}}\n- {name: idle, cohort: lab, guaranteed: {cpu: 1}}\n";
    let report = run(lab);
    assert_eq!(report["refused"]["jobs"], 2, "two cores are all that the cohort has: {report:#}");
    for (text, expected) in [
        ("queues:\n- {name: q, cohort: none}\n", "\"q\": cohort \"none\" does not exist"),
        ("queues:\n- {name: q, weight: 0}\n", "queues[0].weight: `0` is not a weight"),
        ("queues:\n- {name: q, guaranteed: {gpu: 2}, limit: {gpu: 1}}\n", "\"q\": 2 GPUs guaranteed, its limit is 1"),
        ("queues:\n- {name: q, shortFirst: {perStay: 0}}\n", "queue \"q\": short jobs first by 0 times the stay"),
        ("cohorts:\n- {name: a, parent: a}\n", "cohort \"a\": its parents lead back to it"),
    ] {
        std::fs::write(traces.path("queues.yaml"), text).unwrap();
        let (code, _, err) = traces.flash(&[&JOBS[..], &["--nodes", "cpu=4", "--queues", "queues.yaml"]].concat());
        assert_eq!(code, Some(2));
        assert!(err.contains(expected), "{text}: {err}");
    }
}

#[test]
fn the_quota_workloads_stay_near_their_bounds() {
    let traces = Traces::new();
    let run = |args: &[&str]| traces.json(&[&["--format", "kueue-baseline"][..], args].concat());
    let report = run(&[]);
    assert!(report["makespanSeconds"].as_f64().unwrap() <= 75.0, "{report:#}");
    assert_eq!((&report["bound"]["makespanSeconds"], &report["preemptions"]), (&66.0.into(), &0.into()));
    let harsh = run(&["--preemption", "within-queue,reclaim"]);
    assert!(harsh["preemptions"].as_u64().unwrap() > 0 && harsh["completed"] == 15_000, "{harsh:#}");
}

#[test]
fn what_is_wrong_is_named() {
    let traces = Traces::new();
    for (args, expected) in [
        (&["--trace", "jobs.jsonl", "--format", "pbs"][..], "invalid value 'pbs' for '--format <FORMAT>'"),
        (&["--trace", "jobs.jsonl", "--format", "jsonl"], "--nodes: the machines are needed for --format jsonl"),
        (
            &["--trace", "jobs.jsonl", "--format", "jsonl", "--nodes", "2*cpu=4;3*ram=1"],
            "--nodes: `3*ram=1`: `ram` is not a resource",
        ),
        (&["--trace", "jobs.jsonl", "--format", "jsonl", "--nodes", "none.csv"], "--nodes none.csv: No such file"),
        (
            &["--trace", "unsorted.jsonl", "--format", "jsonl", "--nodes", "cpu=4"],
            "unsorted.jsonl:2: not sorted: at 0s comes after 5s",
        ),
        (&["--trace", "empty.swf", "--format", "swf"], "empty.swf: there is no job in it"),
        (&["--trace", "jobs.jsonl", "--format", "swf"], "jobs.jsonl:1: 8 columns, must be 18"),
        (&["--trace", "jobs.jsonl", "--format", "philly"], "jobs.jsonl:1: column missing: timestamp, duration"),
        (&["--trace", "nowhere.swf", "--format", "swf"], "--trace nowhere.swf: No such file"),
        (&["--format", "swf"], "--trace: a trace is needed for --format swf"),
        (&["--trace", "jobs.jsonl", "--format", "kueue-large"], "--trace: kueue-large is generated"),
        (&["--format", "kueue-large", "--estimate", "factor:0"], "`factor:0` is not an estimate"),
        (&["--format", "kueue-large", "--preemption", "all"], "`all` is none of within-queue, reclaim, across-queues, none"),
        (&["--format", "kueue-large", "--decision-log", "none/log"], "--decision-log none/log: No such file"),
        (&["--trace", "jobs.jsonl"], "--format <FORMAT>"),
        (&["--replay", "none.jsonl"], "--replay none.jsonl: No such file"),
        (&["--replay", "jobs.jsonl"], "--replay jobs.jsonl: line 1: not a line of a decision log: "),
        (&["--replay", "empty", "--format", "swf"], "cannot be used with"),
        (&["--format", "kueue-large", "--drain", "a"], "cannot be used with"),
        (&["--format", "kueue-large", "--assume-runtime", "2h"], "cannot be used with"),
    ] {
        let (code, out, err) = traces.flash(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
}
