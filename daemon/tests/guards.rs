//! What keeps jobs off GPUs that are not theirs: nothing of a job stays on its GPUs, and it opens no others.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;

use common::flash::told;
use common::gpus::{Machine, Somebody, device};
use common::{PATIENCE, shell};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

/// A job with a GPU that runs until a file appears; before that it runs a script.
fn gated(script: &str, gate: &Path) -> Value {
    let mut job = shell(&format!("{script}\nwhile [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    job["resources"] = json!({"gpu": 1});
    job
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// What happened to GPUs: event, cause, author.
async fn told_of_gpus(machine: &Machine) -> Vec<[String; 3]> {
    let (_, list) = machine.daemon.get("/api/v1/notices?kind=gpu").await;
    let word = |notice: &Value, field: &str| notice[field].as_str().unwrap_or("-").to_owned();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|notice| ["event", "cause", "by"].map(|field| word(notice, field))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_when_it_is_asked_is_killed_and_that_is_told() {
    let machine = Machine::new(&device(1, ""), "release_timeout = \"1h\"\norphan_grace = \"50ms\"");
    let (gate, deaf) = (machine.gate("gate"), machine.gate("deaf"));
    let job = machine.daemon.submit(gated("", &gate)).await;
    machine.daemon.until(&job, "running").await;
    let script = format!("trap '' TERM; echo > {}; while :; do sleep 1; done", deaf.display());
    let mut orphan = Somebody(Command::new("sh").args(["-c", &script]).env("FLASH_JOB_ID", &job).spawn().unwrap());
    until(|| deaf.exists()).await;
    machine.set(&device(1, &format!("processes = [{}]", orphan.entry("512Mi", ""))));
    machine.until("GPU-1", |gpu| gpu["processes"][0]["job"] == *job).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(orphan.0.wait().unwrap().signal(), Some(9));
    machine.set(&device(1, ""));
    assert_eq!(machine.daemon.finished(&job).await["outcome"]["result"], "succeeded");
    assert_eq!(told_of_gpus(&machine).await[0], ["swept", "leftBehind", "flashd"]);
    assert!(told(&machine.daemon, &["events", "--kind", "gpu"]).contains(&format!("pid {} of ", orphan.0.id())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_a_job_made_ends_with_it() {
    let machine = Machine::new(&device(1, ""), "release_timeout = \"1h\"");
    let (gate, pid) = (machine.gate("gate"), machine.gate("pid"));
    // Twice forked, in a session of its own, and the parent is gone.
    let daemon = format!("(setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' &)", pid.display());
    let job = machine.daemon.submit(gated(&daemon, &gate)).await;
    until(|| pid.exists()).await;
    let pid: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    machine.set(&device(1, &format!("processes = [{{ pid = {pid}, memory = \"512Mi\" }}]")));
    let seen = machine.until("GPU-1", |gpu| gpu["processes"][0]["pid"] == pid).await;
    assert_eq!((&seen["processes"][0]["job"], &seen["processes"][0]["foreign"]), (&json!(job), &json!(false)), "{seen}");
    std::fs::write(&gate, "").unwrap();
    until(|| !Path::new(&format!("/proc/{pid}")).exists()).await;
    machine.set(&device(1, ""));
    assert_eq!(machine.daemon.finished(&job).await["outcome"]["result"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_surely_of_the_job_is_left_and_the_gpu_is_held_back() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = Machine::new(&device(1, ""), "release_timeout = \"50ms\"");
    let gate = machine.gate("gate");
    let job = machine.daemon.submit(gated("", &gate)).await;
    machine.daemon.until(&job, "running").await;
    // Another user says that he is of this job.
    let mut other = Somebody(Command::new("sleep").arg("1000").env("FLASH_JOB_ID", &job).uid(65_534).spawn().unwrap());
    machine.set(&device(1, &format!("processes = [{}]", other.entry("512Mi", ""))));
    machine.until("GPU-1", |gpu| gpu["processes"][0]["job"] == *job).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(machine.daemon.finished(&job).await["outcome"]["result"], "succeeded");
    let held = machine.until("GPU-1", |gpu| gpu["state"] == "aside").await;
    assert!(held["reason"].as_str().unwrap().contains(&format!("job {job}, which has ended")), "{held}");
    assert!(other.0.try_wait().unwrap().is_none());
    machine.set(&device(1, ""));
    // It is told with the transaction that follows what can be seen.
    let mut events = machine.daemon.events("/api/v1/events?after=0&kind=gpu").await;
    for expected in ["heldBack", "free"] {
        let next = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        assert_eq!(next["event"], expected, "{next}");
    }
    assert_eq!(told_of_gpus(&machine).await, [["heldBack", "leftBehind", "-"], ["free", "-", "-"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_opens_its_own_gpus_where_that_can_be_enforced() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // `/dev/full` and `/dev/zero` by the names of GPUs: they do no harm.
    let nodes = |folder: &Path| {
        std::fs::create_dir(folder.join("dev")).unwrap();
        for (name, minor) in [("nvidia0", 7), ("nvidia1", 5)] {
            let path = folder.join("dev").join(name);
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, minor)).unwrap();
        }
        format!("device_directory = \"{}\"", folder.join("dev").display())
    };
    let both = [device(1, ""), device(2, "")].concat();
    for (policy, is_off) in [("auto", false), ("off", true)] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("{}\ndevice_cgroup = \"{policy}\"", nodes(folder.path()));
        let machine = Machine::within(folder, &both, &config);
        let look = |number: u32| {
            let node = machine.folder.path().join("dev").join(format!("nvidia{number}"));
            format!("head -c 1 {} > /dev/null 2>&1 && echo {number}", node.display())
        };
        let script = format!("{}; {}; echo $CUDA_VISIBLE_DEVICES", look(0), look(1));
        let run = async |gpus: u32| {
            let mut job = shell(&script);
            job["resources"] = json!({"gpu": gpus});
            let job = machine.daemon.submit(job).await;
            assert_eq!(machine.daemon.finished(&job).await["outcome"]["result"], "succeeded");
            told(&machine.daemon, &["logs", &job]).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let node = told(&machine.daemon, &["nodes", "show", "box"]);
        println!("{node}");
        if is_off || !node.contains("enforced (cgroup") {
            // Not permitted here: nothing is kept from anybody, and that is said.
            assert!(node.contains("by environment only: "), "{node}");
            assert_eq!(run(1).await[..2], ["0", "1"]);
            assert!(!is_off || node.contains("gpu.device_cgroup is off"), "{node}");
            continue;
        }
        let one = run(1).await;
        assert!(one == ["0", "GPU-1"] || one == ["1", "GPU-2"], "{one:?}");
        assert_eq!(run(2).await[..2], ["0", "1"]);
        assert_eq!(run(0).await, [""; 0]);
        // A driver whose nodes are not there.
        std::fs::remove_file(machine.folder.path().join("dev/nvidia1")).unwrap();
        let node = told(&machine.daemon, &["nodes", "show", "box"]);
        assert!(node.contains("by environment only: ") && node.contains("nvidia1 is not there"), "{node}");
    }
}
