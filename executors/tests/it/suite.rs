//! What every executor that runs programs must do. Each function is one case; an executor's test program runs them all.

use std::time::Duration;

use executors::RunPhase;
use scheduler_core::event::RunResult;

use crate::rig::*;

/// A start that is sent again, together or later, starts nothing.
pub(crate) async fn start_is_idempotent(mut rig: Rig) {
    let file = rig.folder.join("runs");
    let order = script(&format!("echo run >> {}", file.display()));
    rig.executor.start(vec![order.clone(), order.clone()]).await.unwrap();
    rig.executor.start(vec![order.clone()]).await.unwrap();
    assert_eq!(rig.inbox.ended(order.run).await, RunResult::Succeeded);
    rig.executor.start(vec![order.clone()]).await.unwrap();
    // An answer to this comes after whatever the start before it has done.
    assert!(matches!(rig.phase(order.run).await, Some(RunPhase::Ended { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "run\n");
}

/// Exit codes and signals are told as they were.
pub(crate) async fn exits_are_told(mut rig: Rig) {
    assert_eq!(rig.result(script("exit 0")).await, RunResult::Succeeded);
    for code in [1, 7, 127, 255] {
        assert_eq!(rig.result(script(&format!("exit {code}"))).await, exit_code("main", code));
    }
    for signal in [6, 9, 15] {
        assert_eq!(rig.result(script(&format!("kill -{signal} $$; sleep 60"))).await, signalled("main", signal));
    }
}

/// Programs that cannot be started fail for that reason, and not by an exit code.
pub(crate) async fn programs_that_cannot_be_started(mut rig: Rig) {
    use std::os::unix::fs::PermissionsExt;
    let plain = rig.folder.join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let executable = |name: &str, text: &str| {
        let path = rig.folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let lost_interpreter = executable("lost", "#!/nowhere/interpreter\n");
    let no_program = executable("text", "neither this nor that\n");
    let (plain, folder) = (plain.display().to_string(), rig.folder.display().to_string());
    for (program, words) in [
        ("no-such-program", "was not found in PATH"),
        ("/no/such/program", "does not exist"),
        (&plain, "not executable: permission denied"),
        (&folder, "not executable: permission denied"),
        (&lost_interpreter, "interpreter"),
        (&no_program, "neither a binary of this machine nor a script"),
    ] {
        let message = start_message(&rig.result(order(vec![command("main", &[program])])).await);
        assert!(message.contains(words) && message.contains(program), "{program}: {message}");
    }
    // A PATH may be long: it is part of the job, and not of what its people read.
    let mut long = order(vec![command("main", &["no-such-program"])]);
    let path: Vec<String> = (0..100).map(|at| format!("/opt/of/somebody/tool-{at}/bin")).collect();
    long.tasks[0].env.insert("PATH".to_owned(), path.join(":"));
    let message = start_message(&rig.result(long).await);
    assert!(message.contains("\"no-such-program\" was not found in PATH (100 folders)") && message.len() < 200, "{message}");
}

/// Orders that make no sense fail for that reason.
pub(crate) async fn orders_that_make_no_sense(mut rig: Rig) {
    assert!(start_message(&rig.result(order(vec![])).await).contains("no tasks"));
    assert!(start_message(&rig.result(order(vec![command("main", &[])])).await).contains("command is empty"));
    assert!(start_message(&rig.result(order(vec![command("main", &["sh", "a\0b"])])).await).contains("NUL"));
    let mut bad = script("true");
    bad.tasks[0].env.insert("A=B".to_owned(), "1".to_owned());
    assert!(start_message(&rig.result(bad).await).contains("A=B"));
    let mut bad = script("true");
    bad.rlimits.insert("patience".to_owned(), 1);
    let message = start_message(&rig.result(bad).await);
    assert!(message.contains("patience") && message.contains("nofile"), "{message}");
}

/// A working folder that is missing, or is none, is the reason.
pub(crate) async fn working_folder(mut rig: Rig) {
    let mut good = script("pwd");
    good.tasks[0].working_dir = rig.folder.display().to_string();
    let run = good.run;
    assert_eq!(rig.result(good).await, RunResult::Succeeded);
    assert_eq!(rig.log(run, "main", "out").trim(), rig.folder.canonicalize().unwrap().display().to_string());
    for folder in ["/no/such/folder", "/etc/passwd"] {
        let mut bad = script("pwd");
        folder.clone_into(&mut bad.tasks[0].working_dir);
        let message = start_message(&rig.result(bad).await);
        assert!(message.contains("working folder") && message.contains(folder), "{message}");
    }
}

/// A task has the environment of its order and no other, an empty standard input, and two log files.
pub(crate) async fn environment_and_streams(mut rig: Rig) {
    let mut order = script("cat; echo to-stderr >&2; env | sort; ls /proc/self/fd | wc -l");
    order.tasks[0].env.insert("SEED".to_owned(), "17 and more".to_owned());
    let run = order.run;
    assert_eq!(rig.result(order).await, RunResult::Succeeded);
    let out = rig.log(run, "main", "out");
    assert!(out.contains("SEED=17 and more\n"), "{out}");
    assert!(out.contains(&format!("FLASH_JOB_ID={}\n", run.job)), "{out}");
    assert!(out.contains("FLASH_ATTEMPT=1\n") && out.contains("FLASH_TASK=main\n"), "{out}");
    assert!(!out.contains("CARGO"), "the environment of the test came through: {out}");
    // The three streams, and the folder that ls reads.
    assert_eq!(out.trim().lines().last(), Some("4"), "{out}");
    assert_eq!(rig.log(run, "main", "err"), "to-stderr\n");
}

/// When one task fails the others are ended, and the first failure is the result.
pub(crate) async fn a_failing_task_ends_the_others(mut rig: Rig) {
    let mut signal = rig.signal("pids");
    let path = signal.path().to_string();
    let good = task("good", &format!("echo $$ > {path}; sleep 60"));
    let go = rig.signal("go");
    let bad = task("bad", &format!("read line < {}; exit 3", go.path()));
    let run = rig.start(order(vec![good, bad])).await;
    rig.inbox.started(run).await;
    let pid = signal.pid().await;
    assert!(lives(pid));
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    assert_eq!(rig.inbox.ended(run).await, exit_code("bad", 3));
    assert!(!lives(pid));
}

/// If one task cannot be started the others are ended, and the run has not started.
pub(crate) async fn all_tasks_start_or_none(mut rig: Rig) {
    let tasks = vec![task("first", "sleep 60"), command("second", &["no-such-program"])];
    let run = rig.start(order(tasks)).await;
    let message = start_message(&rig.inbox.ended(run).await);
    assert!(message.contains("second") && message.contains("no-such-program"), "{message}");
    assert!(!rig.inbox.has_started(run));
}

/// A run with several tasks succeeds when all of them do.
pub(crate) async fn several_tasks_succeed(mut rig: Rig) {
    let tasks: Vec<_> = (0..5).map(|index| task(&format!("worker-{index}"), "echo $FLASH_TASK")).collect();
    let run = rig.start(order(tasks)).await;
    assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    for index in 0..5 {
        assert_eq!(rig.log(run, &format!("worker-{index}"), "out"), format!("worker-{index}\n"));
    }
}

/// A stop sends the signal; a program that tidies up has its own exit code.
pub(crate) async fn stop_asks_first(mut rig: Rig) {
    let mut signal = rig.signal("ready");
    let text = format!("trap 'exit 9' TERM; echo ready > {}; while :; do sleep 0.02; done", signal.path());
    let run = rig.start(script(&text)).await;
    signal.line().await;
    rig.executor.stop(run, stop_after(PATIENCE)).await.unwrap();
    rig.executor.stop(run, stop_after(PATIENCE)).await.unwrap();
    assert_eq!(rig.inbox.ended(run).await, exit_code("main", 9));
}

/// A program that ignores the signal is killed after the grace, which a second stop shortens.
pub(crate) async fn stop_kills_who_does_not_listen(mut rig: Rig) {
    let mut signal = rig.signal("ready");
    let text = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", signal.path());
    let run = rig.start(script(&text)).await;
    let pid = signal.pid().await;
    rig.executor.stop(run, stop_after(PATIENCE * 10)).await.unwrap();
    assert_eq!(rig.phase(run).await, Some(RunPhase::Stopping));
    rig.executor.stop(run, stop_after(Duration::from_millis(50))).await.unwrap();
    // This one may not lengthen it again.
    rig.executor.stop(run, stop_after(PATIENCE * 10)).await.unwrap();
    assert_eq!(rig.inbox.ended(run).await, signalled("main", 9));
    assert!(!lives(pid));
}

/// A stop that comes while a run is being started ends it as well: no task is missed.
pub(crate) async fn stop_overtakes_start(mut rig: Rig) {
    for _ in 0..50 {
        let order = order((0..3).map(|index| task(&format!("worker-{index}"), "exec sleep 60")).collect());
        let run = rig.start(order).await;
        rig.executor.stop(run, stop_after(PATIENCE * 10)).await.unwrap();
        let result = rig.inbox.ended(run).await;
        let signalled = (0..3).any(|index| result == signalled(&format!("worker-{index}"), 15));
        assert!(signalled || lost_message(&result).contains("before all its tasks were started"), "{result:?}");
    }
}

/// A stop of a run that nobody knows, or that has ended, is nothing.
pub(crate) async fn stop_of_nothing(mut rig: Rig) {
    rig.executor.stop(new_run(), stop_after(Duration::ZERO)).await.unwrap();
    let run = rig.start(script("true")).await;
    assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    rig.executor.stop(run, stop_after(Duration::ZERO)).await.unwrap();
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Ended { result: RunResult::Succeeded, .. })));
}

/// A run has ended only when its descendants have, also those that left its group and its session.
pub(crate) async fn descendants_are_ended(mut rig: Rig) {
    for (case, how) in [
        "sleep 60 & echo $! > PIDS",
        "setsid sleep 60 & echo $! > PIDS",
        "(setsid sh -c 'sleep 60 & echo $! > PIDS; exec sleep 60' &)",
        "setsid sh -c 'trap \"\" TERM; echo $$ > PIDS; sleep 60; sleep 60' &",
        "(env -i setsid sh -c 'echo $$ > PIDS; exec sleep 60' &)",
    ]
    .into_iter()
    .enumerate()
    {
        let (mut pids, go) = (rig.signal(&format!("pids{case}")), rig.signal(&format!("go{case}")));
        let how = how.replace("PIDS", &pids.path().to_string());
        let run = rig.start(script(&format!("{how}\nread line < {}\nexit 5", go.path()))).await;
        let pid = pids.pid().await;
        assert!(lives(pid), "{how}");
        std::fs::write(go.path().to_string(), "go\n").unwrap();
        assert_eq!(rig.inbox.ended(run).await, exit_code("main", 5), "{how}");
        assert!(!lives(pid), "{how}");
    }
}

/// A stop reaches descendants that left the group while their parent lives.
pub(crate) async fn stop_reaches_descendants(mut rig: Rig) {
    let mut signal = rig.signal("pids");
    let text = format!("setsid sh -c 'trap \"\" TERM; echo $$ > {}; sleep 60; sleep 60' & wait", signal.path());
    let run = rig.start(script(&text)).await;
    let pid = signal.pid().await;
    rig.executor.stop(run, stop_after(Duration::from_secs(1))).await.unwrap();
    assert_eq!(rig.inbox.ended(run).await, signalled("main", 15));
    assert!(!lives(pid));
}

/// One run's leftovers do not hold up another run, nor are they taken for the other's.
pub(crate) async fn runs_do_not_mix(mut rig: Rig) {
    let mut signal = rig.signal("pid");
    let daemon = rig.start(script(&format!("setsid sleep 60 & echo $! > {}; sleep 60", signal.path()))).await;
    let pid = signal.pid().await;
    for _ in 0..20 {
        assert_eq!(rig.result(script("(true &) ; true")).await, RunResult::Succeeded);
    }
    assert!(lives(pid));
    assert!(matches!(rig.phase(daemon).await, Some(RunPhase::Running { .. })));
    rig.executor.stop(daemon, stop_after(PATIENCE)).await.unwrap();
    rig.inbox.ended(daemon).await;
    assert!(!lives(pid));
}

/// What is forgotten is gone; what runs is not forgotten.
pub(crate) async fn forget(mut rig: Rig) {
    let mut signal = rig.signal("ready");
    let running = rig.start(script(&format!("echo > {}; sleep 60", signal.path()))).await;
    signal.line().await;
    rig.inbox.started(running).await;
    let ended = rig.start(script("true")).await;
    rig.inbox.ended(ended).await;
    rig.executor.forget(vec![running, ended, new_run()]).await.unwrap();
    rig.executor.forget(vec![ended]).await.unwrap();
    assert_eq!(rig.phase(ended).await, None);
    assert!(matches!(rig.phase(running).await, Some(RunPhase::Running { .. })));
    rig.executor.stop(running, stop_after(PATIENCE)).await.unwrap();
    assert_eq!(rig.inbox.ended(running).await, signalled("main", 15));
}

/// Many short runs at once, each with its own result.
pub(crate) async fn many_short_runs(mut rig: Rig) {
    let orders: Vec<_> = (0..200).map(|number| script(&format!("exit {}", number % 4))).collect();
    let runs: Vec<_> = orders.iter().map(|order| order.run).collect();
    rig.executor.start(orders).await.unwrap();
    for (number, run) in runs.iter().enumerate() {
        let expected = if number % 4 == 0 { RunResult::Succeeded } else { exit_code("main", (number % 4) as i32) };
        assert_eq!(rig.inbox.ended(*run).await, expected);
        assert!(rig.inbox.has_started(*run), "no start was reported");
    }
    rig.executor.forget(runs).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}
