//! The real `flash` against the real `flashd`: what a person types, what comes back, and with which exit code.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use common::flash::{binary, command, ended, flash, told};
use common::{Daemon, PATIENCE, request, shell};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};

const CONFIG: &str = "listen = \"127.0.0.1:0\"\nnamespaces = [\"default\", \"ml\"]\n[node]\ncpus = 8\nmemory = \"8Gi\"\n";
const STRANGER: u32 = 54_321;

fn start(folder: &tempfile::TempDir) -> Daemon {
    // Other users have to reach the socket.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Daemon::start(&folder.path().join("data"), CONFIG)
}

/// The same command as another user.
fn as_stranger(command: &mut Command) -> &mut Command {
    std::os::unix::process::CommandExt::uid(command, STRANGER).env("HOME", "/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_gives_the_output_and_the_end_of_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program\n").unwrap();
    let plain = plain.to_str().unwrap();
    for (args, code, out, err) in [
        (&["sh", "-c", "echo out; echo err >&2; exit 7"][..], 7, "out\n", "err\n"),
        (&["sh", "-c", "kill -9 $$"], 137, "", "signal 9"),
        (&["sh", "-c", "kill -TERM $$"], 143, "", "signal 15"),
        (&["no-such-program-at-all"], 127, "", "\"no-such-program-at-all\" was not found in PATH"),
        (&["/no/such/program"], 127, "", "does not exist"),
        (&[plain], 127, "", "is not executable: permission denied"),
        (&["/tmp"], 127, "", "is not executable"),
        (&["readlink", "/proc/self/fd/0"], 0, "/dev/null\n", ""),
        (&["pwd"], 0, "/tmp\n", ""),
    ] {
        let ended = flash(&daemon, &[&["run", "--"], args].concat());
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), out), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(err), "{args:?}: {}", ended.err);
    }
    // The reason is told, and no exit code that the program never gave.
    let id = told(&daemon, &["submit", "--", "no-such-program-at-all"]);
    flash(&daemon, &["wait", "--quiet", &id]);
    let outcome = &daemon.job(&id).await["outcome"];
    assert_eq!((outcome["reason"].as_str(), &outcome["exitCode"]), (Some("start"), &Value::Null), "{outcome}");
    let ended = flash(&daemon, &["run", "-t", "200ms", "--", "sleep", "1000"]);
    assert_eq!(ended.code, Some(124), "{}", ended.err);
    assert!(ended.err.contains("timeLimit"), "{}", ended.err);
    for (args, code, said) in [
        (&["run", "-c", "9", "--", "true"][..], 4, "the largest node has 8"),
        (&["run", "-m", "9Gi", "--", "true"], 4, "has 8Gi"),
        (&["run", "-q", "none", "--", "true"], 4, "default-batch"),
        (&["run", "--namespace", "none", "--", "true"], 4, "default, ml"),
        (&["run", "-n", "No Name", "--", "true"], 4, "DNS-1123"),
        (&["run", "-w", "/no/such/folder", "--", "true"], 4, "does not exist"),
        (&["run", "-c", "lots", "--", "true"], 2, "not an amount of CPU"),
    ] {
        let ended = flash(&daemon, args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(said), "{args:?}: {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_told_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let script = "echo $FLASH_JOB_ID $FLASH_ATTEMPT $FLASH_TASK $FLASH_NAMESPACE $FLASH_QUEUE";
    let mut job = json!({"command": ["sh", "-c", script], "workingDir": "/", "namespace": "ml", "queue": "configfile-job"});
    job["tasks"] = json!([{"name": "worker", "replicas": 2, "command": job["command"].take()}]);
    job.as_object_mut().unwrap().remove("command");
    let id = daemon.submit(job).await;
    assert_eq!(flash(&daemon, &["wait", &id]).code, Some(0));
    for task in ["worker-0", "worker-1"] {
        assert_eq!(told(&daemon, &["logs", &id, "--task", task]), format!("{id} 1 {task} ml configfile-job"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_job_run_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    // Each waits for the other: one after the other, it would never end.
    let meet = "touch $FLASH_TASK; until [ -e task-0 ] && [ -e task-1 ] && [ -e task-2 ]; do sleep 0.02; done; echo met";
    let place = folder.path().to_str().unwrap();
    let ended = flash(&daemon, &["run", "--replicas", "3", "-w", place, "--", "sh", "-c", meet]);
    let mut lines: Vec<&str> = ended.out.lines().collect();
    lines.sort_unstable();
    assert_eq!((ended.code, lines), (Some(0), vec!["[task-0] met", "[task-1] met", "[task-2] met"]), "{}", ended.err);
    // One that fails ends the others.
    let fail = "[ $FLASH_TASK = task-1 ] && exit 9; sleep 1000";
    let ended = flash(&daemon, &["run", "--replicas", "3", "--", "sh", "-c", fail]);
    assert_eq!(ended.code, Some(9), "{}", ended.err);
    assert!(ended.err.contains("task-1"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_held_released_explained_requeued_and_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let id = told(&daemon, &["submit", "--hold", "--", "sh", "-c", "echo try $FLASH_ATTEMPT; sleep 1000"]);
    assert!(told(&daemon, &["why", &id]).contains("held"));
    assert_eq!(told(&daemon, &["ls", "-s", "waiting", "-o", "name"]), id);
    told(&daemon, &["release", &id]);
    daemon.until(&id, "running").await;
    let ended = flash(&daemon, &["hold", &id]);
    assert_eq!(ended.code, Some(4), "what runs cannot be held: {}", ended.err);
    told(&daemon, &["requeue", &id]);
    let mut events = daemon.events(&format!("/api/v1/events?after=0&job={id}")).await;
    while events.next().await.unwrap()["attempt"] != 2 {}
    daemon.until(&id, "running").await;
    told(&daemon, &["cancel", &id]);
    let ended = flash(&daemon, &["wait", &id]);
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    assert_eq!(told(&daemon, &["logs", &id, "--attempt", "1"]), "try 1");
    let ended = flash(&daemon, &["cancel", &id]);
    assert_eq!(ended.code, Some(4), "a finished job stays finished: {}", ended.err);
    let history = told(&daemon, &["events", "--job", &id]);
    for word in ["submitted", "released", "requeued", "cancelled", "ended"] {
        assert!(history.contains(word), "{word} is not in\n{history}");
    }

    let late = told(&daemon, &["submit", "--start-after", "1h", "--", "true"]);
    assert!(told(&daemon, &["why", &late]).contains("it joins queue \"default-batch\" at"));
    let soon = told(&daemon, &["submit", "--start-after", "300ms", "--", "true"]);
    assert_eq!(flash(&daemon, &["wait", &soon]).code, Some(0));
    for args in
        [["show", "00000000"], ["why", "00000000-0000"], ["logs", "00000000"], ["wait", "00000000"], ["cancel", "00000000"]]
    {
        let ended = flash(&daemon, &args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""), "{args:?}: {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_from_a_file_are_waited_for_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let file = folder.path().join("jobs.yaml");
    std::fs::write(&file, "name: one\ncommand: [sh, -c, exit 0]\n---\nname: two\ncommand: [sh, -c, exit 5]\n---\n").unwrap();
    let ids = told(&daemon, &["submit", "-f", file.to_str().unwrap()]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2);
    let ended = flash(&daemon, &[&["wait"], ids.as_slice()].concat());
    assert_eq!(ended.code, Some(5), "the largest code: {}", ended.err);
    assert!(ended.err.contains("two") && !ended.err.contains("one)"), "only what failed is told: {}", ended.err);

    let found: Value = serde_json::from_str(&told(&daemon, &["ls", "-a", "-o", "json"])).unwrap();
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
    let shown: Value = serde_json::from_str(&told(&daemon, &["show", ids[1], "-o", "json"])).unwrap();
    assert_eq!((&shown["id"], &shown["outcome"]["exitCode"]), (&json!(ids[1]), &json!(5)));
    assert!(told(&daemon, &["show", ids[1], "-o", "yaml"]).lines().any(|line| line == format!("id: {}", ids[1])));
    assert_eq!(told(&daemon, &["ls", "-a", "-o", "name"]).lines().collect::<Vec<_>>(), [ids[1], ids[0]], "newest first");
    let (table, wide) = (told(&daemon, &["ls", "-a"]), told(&daemon, &["ls", "-a", "-o", "wide"]));
    assert!(!table.contains("NAMESPACE") && wide.contains("NAMESPACE") && wide.contains(ids[0]), "{table}\n{wide}");
    assert!(told(&daemon, &["nodes"]).contains("0/8"));
    assert!(told(&daemon, &["queues"]).contains("default-batch"));

    let mut child = command(&daemon, &["submit", "-f", "-", "-o", "name"]).stdin(Stdio::piped()).spawn().unwrap();
    let job = json!({"command": ["true"]});
    write!(child.stdin.take().unwrap(), "{job}\n{job}\n{job}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flash_job_runs_as_the_programs_of_its_containers() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let said = folder.path().join("said").display().to_string();
    let container = json!({"name": "c", "image": "registry.example/train:1", "command": ["sh", "-c"],
        "args": [format!("echo $WHO; mktemp -q {said}.XXXXXX >&2")], "env": [{"name": "WHO", "value": "it is me"}],
        "resources": {"requests": {"cpu": "500m"}}});
    // A gang is over with the first that fails: that one waits until the others have said what they had to say.
    let mut last = container.clone();
    last["args"] =
        json!([format!("while set -- {said}.*; test $# -lt 2; do sleep 0.02; done; test $FLASH_TASK = task-2 && exit 4")]);
    last["env"] = json!([]);
    let task = |container: &Value| json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    let job = json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob", "metadata": {"name": "pair"},
        "spec": {"minAvailable": 3, "tasks": [task(&container), task(&container), task(&last)]}});
    let file = folder.path().join("pair.yaml");
    // JSON is YAML.
    std::fs::write(&file, format!("---\n{job}\n")).unwrap();
    let id = told(&daemon, &["submit", "-f", file.to_str().unwrap()]);
    let done = daemon.finished(&id).await;
    assert_eq!((&done["spec"]["name"], &done["outcome"]["exitCode"]), (&json!("pair"), &json!(4)), "{done}");
    assert_eq!(done["placement"].as_array().unwrap().len(), 3, "{done}");
    assert_eq!(told(&daemon, &["logs", &id, "--task", "task-0-1"]), "it is me");
    // A job that is none says what it is to be: here is no place for an image.
    std::fs::write(&file, "command: [\"true\"]\nimage: some\n").unwrap();
    let refused = flash(&daemon, &["submit", "-f", file.to_str().unwrap()]);
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    assert!(refused.err.contains("image: the executor `local`"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_interrupt_asks_to_cancel_and_the_second_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let stubborn = "trap 'echo asked' TERM; echo begun; while :; do sleep 0.05; done";
    for (script, interrupts) in [("echo begun; sleep 1000", 1), (stubborn, 2)] {
        let mut child = command(&daemon, &["run", "--", "sh", "-c", script]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "begun");
        kill_process(pid, Signal::INT).unwrap();
        if interrupts == 2 {
            assert_eq!(lines.next().unwrap().unwrap(), "asked", "the job goes on, and is shown");
            kill_process(pid, Signal::INT).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(130), "{script}");
    }
    let left = told(&daemon, &["ls", "-o", "name"]);
    assert_eq!(daemon.job(&left).await["state"], "stopping", "the second only left it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_and_the_events_are_followed_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start(&folder);
    let gate = folder.path().join("gate");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.02; done; echo through", gate.display());
    let id = daemon.submit(shell(&script)).await;
    let mut events = command(&daemon, &["events", "-f", "--after", "0", "--job", &id, "-o", "json"]).spawn().unwrap();
    let mut told_events = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut log = command(&daemon, &["logs", "-f", &id]).spawn().unwrap();
    let mut lines = BufReader::new(log.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    let mut wait = command(&daemon, &["wait", &id]).spawn().unwrap();
    // Both have to be watching: who finds no server at first does not wait for one.
    let watching = async || {
        let (_, metrics) = daemon.send(request("GET", "/metrics", String::new(), &[])).await.unwrap();
        String::from_utf8_lossy(&metrics).contains("flashd_watchers 2\n")
    };
    let begun = std::time::Instant::now();
    while !watching().await {
        assert!(begun.elapsed() < PATIENCE, "they never watched");
    }
    daemon.kill();
    daemon.restart();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "through", "nothing is said twice, nothing is left out");
    assert!(lines.next().is_none());
    assert_eq!((log.wait().unwrap().code(), wait.wait().unwrap().code()), (Some(0), Some(0)));
    let mut words = Vec::new();
    while words.last().is_none_or(|word| word != "ended") {
        let event: Value = serde_json::from_str(&told_events.next().unwrap().unwrap()).unwrap();
        words.push(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(words, ["submitted", "placed", "started", "ended"]);
    // Not INT: it is ignored by what was started in the background of a shell.
    kill_process(Pid::from_child(&events), Signal::TERM).unwrap();
    events.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_in_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    let log = daemon.log();
    let address = log.split("tcp=").nth(1).unwrap().split_whitespace().next().unwrap();
    let server = format!("http://{address}");
    let secret = told(&daemon, &["token", "create", "laptop"]);
    assert!(secret.starts_with("flash_") && secret.lines().count() == 1, "only the secret goes to stdout");
    let over_tcp = |args: &[&str], token: Option<&str>| {
        let mut command = command(&daemon, args);
        command.env("FLASH_SERVER", &server);
        token.map(|token| command.env("FLASH_TOKEN", token));
        ended(&mut command)
    };
    let run = over_tcp(&["run", "--", "id", "-u"], Some(&secret));
    assert_eq!((run.code, run.out), (Some(0), format!("{}\n", geteuid().as_raw())), "{}", run.err);
    for token in [None, Some("flash_wrong")] {
        let refused = over_tcp(&["ls"], token);
        assert_eq!(refused.code, Some(4), "{}", refused.err);
        assert!(refused.err.contains("flash token create"), "{}", refused.err);
    }
    let listed: Value = serde_json::from_str(&told(&daemon, &["token", "ls", "-o", "json"])).unwrap();
    told(&daemon, &["token", "rm", listed["items"][0]["id"].as_str().unwrap()]);
    assert_eq!(over_tcp(&["ls"], Some(&secret)).code, Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_served_as_that_user() {
    if !geteuid().is_root() {
        println!("skipped: only root can be several users");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&folder);
    // The folder of the binaries may be closed to others: the client is copied to where they may start it.
    let copy = folder.path().join("flash");
    std::fs::copy(binary(), &copy).unwrap();
    let stranger = |args: &[&str], more: &[(&str, &str)]| {
        let mut command = Command::new(&copy);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("FLASH_SERVER", format!("unix://{}", daemon.socket().display()));
        command.envs(more.iter().copied()).current_dir("/").stdin(Stdio::null());
        ended(as_stranger(&mut command))
    };
    let run = stranger(&["run", "--", "id", "-u"], &[]);
    assert_eq!((run.code, run.out), (Some(0), format!("{STRANGER}\n")), "{}", run.err);
    let log = daemon.log();
    let server = format!("http://{}", log.split("tcp=").nth(1).unwrap().split_whitespace().next().unwrap());
    let token = stranger(&["token", "create", "x"], &[]).out;
    let run = stranger(&["run", "--", "id", "-u"], &[("FLASH_SERVER", &server), ("FLASH_TOKEN", token.trim())]);
    assert_eq!((run.code, run.out), (Some(0), format!("{STRANGER}\n")), "a token is its maker: {}", run.err);

    let id = daemon.submit(shell("echo secret; sleep 1000")).await;
    daemon.until(&id, "running").await;
    for args in [["logs", &id], ["cancel", &id], ["requeue", &id], ["hold", &id]] {
        let refused = stranger(&args, &[]);
        assert_eq!((refused.code, refused.out.as_str()), (Some(4), ""), "{args:?}: {}", refused.err);
        assert!(refused.err.contains("belongs to root"), "{args:?}: {}", refused.err);
    }
    assert_eq!(daemon.job(&id).await["state"], "running");
    let closed = stranger(&["run", "-w", "/root", "--", "true"], &[]);
    assert_eq!(closed.code, Some(4), "{}", closed.err);
    told(&daemon, &["cancel", &id]);
}
