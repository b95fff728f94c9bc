//! What the local executor gives a task beside its program: a user, niceness, limits, a cgroup, log files that can be written.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use executors::log_file_name;
use scheduler_core::event::RunResult;

use crate::rig::*;
use crate::site::Site;

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn a_log_folder_that_cannot_be_written_loses_the_run() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    std::fs::remove_dir(site.logs()).unwrap();
    std::fs::write(site.logs(), "in the way").unwrap();
    let message = lost_message(&rig.result(script("true")).await);
    assert!(message.contains("log file") && message.contains("Not a directory"), "{message}");
}

#[tokio::test]
async fn a_log_file_is_never_written_through_a_link() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let order = script("echo overwritten");
    let victim = site.work().join("victim");
    std::os::unix::fs::symlink(&victim, site.logs().join(log_file_name(order.run, "main", "out"))).unwrap();
    lost_message(&rig.result(order).await);
    assert!(!victim.exists());
}

#[tokio::test]
async fn a_task_runs_as_its_user_with_its_groups_alone() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut order = script("id -u; id -g; id -G; umask; cat /etc/shadow; echo $?");
    order.uid = Some(NOBODY);
    let run = order.run;
    assert_eq!(rig.result(order).await, RunResult::Succeeded);
    let out = rig.log(run, "main", "out");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], NOBODY.to_string());
    assert!(lines[1] != "0" && lines[2].split(' ').all(|group| group != "0"), "{out}");
    assert_eq!(lines[3..], ["0022", "1"], "{out}");
    let log = std::fs::metadata(site.logs().join(log_file_name(run, "main", "err"))).unwrap();
    assert_eq!((log.uid(), log.mode() & 0o777), (NOBODY, 0o600));
}

#[tokio::test]
async fn a_folder_that_the_user_may_not_enter_is_the_reason() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let mut rig = site.daemon().await;
    let closed = site.work().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut order = script("true");
    order.tasks[0].working_dir = closed.display().to_string();
    order.uid = Some(NOBODY);
    let message = start_message(&rig.result(order).await);
    assert!(message.contains("working folder") && message.contains(&format!("as user {NOBODY}")), "{message}");
}

#[tokio::test]
async fn limits_and_niceness_are_the_tasks_own() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut order = script("ulimit -n; ulimit -Hn; ulimit -c; nice");
    order.rlimits.extend([("nofile".to_owned(), 77), ("core".to_owned(), 0)]);
    order.nice = 5;
    let run = order.run;
    assert_eq!(rig.result(order).await, RunResult::Succeeded);
    let base = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(rig.log(run, "main", "out"), format!("77\n77\n0\n{}\n", (base + 5).min(19)));
    let plain = script("ulimit -n; ulimit -Hn; nice");
    let run = plain.run;
    assert_eq!(rig.result(plain).await, RunResult::Succeeded);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap(), limit.maximum.unwrap());
    assert_eq!(rig.log(run, "main", "out"), format!("{soft}\n{hard}\n{base}\n"));
}

#[tokio::test]
async fn signals_that_the_daemon_ignored_are_not_ignored_by_tasks() {
    let mut site = Site::new();
    site.wrapper = ["/bin/sh", "-c", "trap '' HUP INT QUIT TERM PIPE USR1; exec \"$@\"", "wrapper"].map(Into::into).to_vec();
    let mut rig = site.daemon().await;
    let order = order(vec![command("main", &["cat", "/proc/self/status"])]);
    let run = order.run;
    assert_eq!(rig.result(order).await, RunResult::Succeeded);
    let out = rig.log(run, "main", "out");
    for field in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let mask = out.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
        // 32 and above are the C library's business.
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff, 0, "{field} {mask}");
    }
}

#[tokio::test]
async fn a_run_has_a_cgroup_where_there_is_a_root_for_them() {
    let mut site = Site::new();
    let root = site.work().join("cgroups");
    std::fs::create_dir(&root).unwrap();
    site.runner_args.extend(["--cgroup-root".into(), root.clone().into()]);
    let mut rig = site.daemon().await;
    let mut order = order(vec![task("a", "true"), task("b", "true")]);
    order.tasks.iter_mut().for_each(|task| (task.cpu_millis, task.memory_bytes) = (1_500, 1 << 20));
    let folder = root.join(format!("flash-{}", order.run));
    assert_eq!(rig.result(order).await, RunResult::Succeeded);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    assert_eq!((read("cpu.max").as_str(), read("memory.max").as_str()), ("300000 100000", "2097152"));
    // Each task has put itself in before its program began.
    assert!(read("cgroup.procs").starts_with("0\n"));
}

#[tokio::test]
async fn tasks_beyond_the_descriptors_end_like_the_others() {
    let mut site = Site::new();
    site.runner_args.extend(["--descriptors", "2"].map(Into::into));
    let mut rig = site.daemon().await;
    let mut gates = Vec::new();
    for number in 0..6 {
        let (mut ready, go) = (rig.signal(&format!("ready-{number}")), rig.signal(&format!("go-{number}")));
        let run = rig.start(script(&format!("echo > {}; read line < {}; exit {number}", ready.path(), go.path()))).await;
        ready.line().await;
        gates.push((run, go));
    }
    // Each waits for its own way of being watched, with others' ends in between.
    for number in [5, 0, 3, 1, 4, 2] {
        let (run, go) = &gates[number];
        std::fs::write(go.path().to_string(), "go\n").unwrap();
        let expected = if number == 0 { RunResult::Succeeded } else { exit_code("main", number as i32) };
        assert_eq!(rig.inbox.ended(*run).await, expected);
        assert_eq!(rig.result(script("(true &) ; true")).await, RunResult::Succeeded);
    }
}

#[tokio::test]
async fn a_long_data_folder_still_has_a_socket() {
    let mut site = Site::new();
    site.below = "long-".repeat(40);
    let mut rig = site.daemon().await;
    assert_eq!(rig.result(script("true")).await, RunResult::Succeeded);
    assert!(rig.executor.observe().await.unwrap().len() == 1);
}
