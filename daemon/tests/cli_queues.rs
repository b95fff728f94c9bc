//! `flash queues`, `cohorts` and `priorities` against the real daemon: what an administrator types, and what comes back.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use common::Daemon;
use common::flash::{flash, told};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"off\"\nnamespaces = [\"default\", \"vision\"]\n[node]\ncpus = 4\nmemory = \"4Gi\"\n";

fn start(folder: &tempfile::TempDir) -> Daemon {
    Daemon::start(&folder.path().join("data"), CONFIG)
}

fn json_of(daemon: &Daemon, args: &[&str]) -> Value {
    serde_json::from_str(&told(daemon, &[args, &["-o", "json"]].concat())).unwrap()
}

/// A row of a table as its words.
fn row(table: &str, name: &str) -> Vec<String> {
    let line =
        table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_else(|| panic!("{name}: {table}"));
    line.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_made_changed_shown_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let header = "NAME PRIORITY COHORT WEIGHT GUARANTEED LIMIT USED QUEUED RUNNING SHARE";
    assert_eq!(told(&daemon, &["queues"]).lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "), header);
    told(&daemon, &["cohorts", "set", "lab", "--fair-share", "7d"]);
    let made = flash(
        &daemon,
        &[
            "queues",
            "set",
            "train",
            "--cohort",
            "lab",
            "--weight",
            "2",
            "--guaranteed",
            "cpu=2",
            "--limit",
            "cpu=3,memory=2Gi",
            "--tenant-limit",
            "jobs=10",
            "--fair-share",
            "1d",
            "--tenant-weight",
            "vision=2,default=1",
            "--max-concurrent",
            "5",
            "--preemptible",
            "--priority",
            "-3",
            "--age",
            "0s",
        ],
    );
    assert_eq!((made.code, made.err.as_str()), (Some(0), "flash: queue train is new\n"));
    let queue = json_of(&daemon, &["queues", "show", "train"]);
    let expected = json!({"priority": -3, "preemptible": true, "maxConcurrent": 5, "agePerPoint": "0s", "cohort": "lab", "weight": 2,
        "guaranteed": {"cpu": "2"}, "limit": {"cpu": "3", "memory": "2Gi"}, "tenantLimits": {"jobs": 10},
        "fairShare": {"halfLife": "1d", "weights": {"default": 1, "vision": 2}}});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&queue[key], value, "{key}");
    }
    // What no flag names stays; `none` takes back.
    let changed = flash(
        &daemon,
        &[
            "queues",
            "set",
            "train",
            "--limit",
            "memory=none",
            "--tenant-weight",
            "vision=none",
            "--max-concurrent",
            "none",
            "-o",
            "json",
        ],
    );
    assert_eq!(changed.err, "flash: queue train is changed\n");
    let queue: Value = serde_json::from_str(&changed.out).unwrap();
    assert_eq!((&queue["limit"], &queue["fairShare"]["weights"]), (&json!({"cpu": "3"}), &json!({"default": 1})));
    assert_eq!((queue.get("maxConcurrent"), &queue["weight"]), (None, &json!(2)));

    let id = told(&daemon, &["submit", "-q", "train", "--namespace", "vision", "-w", "/", "--", "sleep", "1000"]);
    daemon.until(&id, "running").await;
    let table = told(&daemon, &["queues"]);
    assert_eq!(row(&table, "train"), ["train", "-3", "lab", "2", "cpu=2", "cpu=3", "cpu=1", "0", "1", "12.5%"]);
    let shown = told(&daemon, &["queues", "show", "train"]);
    assert_eq!(row(&shown, "vision")[..5], ["vision", "1", "1", "cpu=1", "25.0%"]);
    assert_eq!(row(&told(&daemon, &["cohorts"]), "lab"), ["lab", "-", "cpu=2", "cpu=2", "cpu=1", "7d", "set", "train"]);

    for (args, code, said) in [
        (&["queues", "delete", "train"][..], 4, "queue `train` has 1 unfinished job; cancel them"),
        (&["cohorts", "delete", "lab"], 4, "`train` is in cohort `lab`"),
        (&["queues", "show", "none"], 3, "no queue `none`"),
        (&["queues", "delete", "none"], 3, "no queue `none`"),
        (&["queues", "set", "x", "--cohort", "nowhere"], 4, "cohort \"nowhere\" does not exist"),
        (&["queues", "set", "x", "--weight", "0"], 2, "`0` is not a weight"),
        (&["queues", "set", "x", "--limit", "cpus=4"], 2, "`cpus` is not cpu, memory or gpu"),
        (&["cohorts", "set", "lab", "--parent", "lab"], 4, "lead back to it"),
        (&["priorities", "set", "x", "2000000"], 4, "priority: `2000000`"),
    ] {
        let ended = flash(&daemon, args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(said), "{args:?}: {}", ended.err);
    }
    told(&daemon, &["cancel", &id]);
    daemon.finished(&id).await;
    told(&daemon, &["queues", "delete", "train"]);
    told(&daemon, &["cohorts", "delete", "lab"]);
    assert_eq!(json_of(&daemon, &["cohorts"]), json!({"items": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_applied_and_what_is_printed_can_be_applied_again() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let file = folder.path().join("queues.yaml");
    let path = file.to_str().unwrap();
    let text = "queues:\n- {name: train, cohort: vision, weight: 2, guaranteed: {cpu: 2}}\n---\ncohorts:\n- {name: vision, parent: lab}\n\
                - name: lab\n  fairShare: {halfLife: 7d}\npriorityClasses:\n- {name: urgent, priority: 50}\n";
    std::fs::write(&file, text).unwrap();
    let said = told(&daemon, &["queues", "apply", "-f", path]);
    assert_eq!(said, "cohort lab is set\ncohort vision is set\npriority class urgent is set\nqueue train is set");
    let before = json_of(&daemon, &["queues"]);
    for (printed, kind) in
        [(told(&daemon, &["queues", "-o", "yaml"]), "yaml"), (told(&daemon, &["queues", "-o", "json"]), "json")]
    {
        let file = folder.path().join(format!("printed.{kind}"));
        std::fs::write(&file, printed).unwrap();
        told(&daemon, &["queues", "apply", "-f", file.to_str().unwrap()]);
        let mut after = json_of(&daemon, &["queues"]);
        // All have been said over the API now; nothing else is different.
        for (queue, before) in after["items"].as_array_mut().unwrap().iter_mut().zip(before["items"].as_array().unwrap()) {
            assert_eq!(queue["origin"], "api");
            queue["origin"] = before["origin"].clone();
        }
        assert_eq!(after, before);
    }
    assert_eq!(
        told(&daemon, &["priorities"]).lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["urgent", "50", "set"]
    );
    let id = told(&daemon, &["submit", "--priority-class", "urgent", "-w", "/", "--", "true"]);
    assert_eq!(daemon.job(&id).await["spec"]["priority"], 50);
    let refused = flash(&daemon, &["submit", "--priority-class", "none", "-w", "/", "--", "true"]);
    assert_eq!(refused.code, Some(4));
    assert!(refused.err.contains("no priorityClass `none`; there are: urgent"), "{}", refused.err);
    std::fs::write(&file, "queues:\n- {name: train, wieght: 2}\n").unwrap();
    let wrong = flash(&daemon, &["queues", "apply", "-f", path]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("queues[0].wieght: unknown field"), "{}", wrong.err);
}
