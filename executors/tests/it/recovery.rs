//! What is left when a daemon, a runner or the machine goes away.

use std::io::Write;
use std::time::Duration;

use executors::local::protocol::{Hello, PROTOCOL};
use executors::{Executor as _, ExecutorError, RunPhase};
use scheduler_core::event::RunResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::*;
use crate::site::Site;

#[tokio::test]
async fn a_daemon_that_comes_anew_finds_what_runs_and_what_has_ended() {
    let site = Site::new();
    let mut first = site.daemon().await;
    let mut ready = first.signal("ready");
    let go = first.signal("go");
    let failed = first.start(script("exit 4")).await;
    first.inbox.ended(failed).await;
    let running = first.start(script(&format!("echo > {}; read line < {}; exit 6", ready.path(), go.path()))).await;
    ready.line().await;
    first.inbox.started(running).await;
    let runner = site.runner_pid();
    drop(first);

    let (executor, mut inbox) = site.executor();
    let mut observed = executor.adopt().await.unwrap();
    observed.sort_by_key(|observed| observed.run);
    assert_eq!(site.runner_pid(), runner);
    assert_eq!(observed.len(), 2);
    assert!(matches!(&observed[0].phase, RunPhase::Ended { result, started_at: Some(_), .. } if *result == exit_code("main", 4)));
    assert!(matches!(&observed[1].phase, RunPhase::Running { .. }));
    assert_eq!(inbox.ended(failed).await, exit_code("main", 4));
    inbox.started(running).await;
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    assert_eq!(inbox.ended(running).await, exit_code("main", 6));
    assert_eq!(inbox.ends(failed), 1);
}

#[tokio::test]
async fn what_ends_while_no_daemon_is_there_is_told_to_the_next() {
    let site = Site::new();
    let first = site.daemon().await;
    let (mut ready, go) = (first.signal("ready"), first.signal("go"));
    let text = format!("echo $$ > {}; read line < {}; exit 6", ready.path(), go.path());
    let run = first.start(script(&text)).await;
    let pid = ready.pid().await;
    drop(first);
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    gone(pid).await;
    let mut second = site.daemon().await;
    assert_eq!(second.inbox.ended(run).await, exit_code("main", 6));
}

#[tokio::test]
async fn a_second_daemon_replaces_the_first() {
    let site = Site::new();
    let mut first = site.daemon().await;
    let mut second = site.daemon().await;
    first.inbox.disturbed(1).await;
    // It does not come back by itself: the two would go on replacing each other.
    assert!(matches!(first.executor.observe().await, Err(ExecutorError::Unreachable { .. })));
    assert_eq!(second.result(script("true")).await, RunResult::Succeeded);
    assert_eq!(first.executor.adopt().await.unwrap().len(), 1);
    second.inbox.disturbed(1).await;
}

#[tokio::test]
async fn a_grace_holds_without_a_daemon() {
    let site = Site::new();
    let first = site.daemon().await;
    let mut ready = first.signal("ready");
    let run = first.start(script(&format!("trap '' TERM; echo $$ > {}; sleep 60; sleep 60", ready.path()))).await;
    let pid = ready.pid().await;
    first.executor.stop(run, stop_after(Duration::from_millis(300))).await.unwrap();
    // The order is carried out once this is answered.
    first.executor.observe().await.unwrap();
    drop(first);
    gone(pid).await;
    let mut second = site.daemon().await;
    assert_eq!(second.inbox.ended(run).await, signalled("main", 9));
}

#[tokio::test]
async fn a_killed_runner_is_replaced_and_its_runs_are_followed() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let (mut ready, go) = (rig.signal("ready"), rig.signal("go"));
    let ended = rig.start(script("exit 3")).await;
    rig.inbox.ended(ended).await;
    let text = format!("echo $$ > {}; read line < {}; exit 0", ready.path(), go.path());
    let run = rig.start(script(&text)).await;
    rig.inbox.started(run).await;
    let pid = ready.pid().await;

    kill(site.runner_pid());
    rig.inbox.disturbed(2).await;
    assert!(lives(pid), "the runner's death ended a task");
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Running { .. })));
    assert!(matches!(rig.phase(ended).await, Some(RunPhase::Ended { result, .. }) if result == exit_code("main", 3)));
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    let message = lost_message(&rig.inbox.ended(run).await);
    assert!(message.contains("runner was killed") && message.contains("not seen"), "{message}");
    assert_eq!(rig.result(script("exit 2")).await, exit_code("main", 2));
}

#[tokio::test]
async fn an_adopted_run_is_stopped_with_all_its_processes() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut pids = rig.signal("pids");
    let fifo = pids.path().to_string();
    let text = format!("setsid sh -c 'trap \"\" TERM; echo $$ > {fifo}; sleep 60; sleep 60' & echo $$ > {fifo}; wait");
    let run = rig.start(script(&text)).await;
    let (one, other) = (pids.pid().await, pids.pid().await);
    rig.inbox.started(run).await;
    kill(site.runner_pid());
    rig.inbox.disturbed(2).await;
    assert!(lives(one) && lives(other));
    rig.executor.stop(run, stop_after(Duration::from_millis(200))).await.unwrap();
    lost_message(&rig.inbox.ended(run).await);
    assert!(!lives(one) && !lives(other));
}

#[tokio::test]
async fn a_stop_goes_on_under_the_next_runner() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut ready = rig.signal("ready");
    let run = rig.start(script(&format!("trap '' TERM; echo $$ > {}; sleep 60; sleep 60", ready.path()))).await;
    let pid = ready.pid().await;
    rig.inbox.started(run).await;
    rig.executor.stop(run, stop_after(Duration::from_millis(500))).await.unwrap();
    rig.executor.observe().await.unwrap();
    kill(site.runner_pid());
    lost_message(&rig.inbox.ended(run).await);
    assert!(!lives(pid));
}

#[tokio::test]
async fn what_ended_while_no_runner_was_there_is_lost_and_never_a_success() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut ready = rig.signal("ready");
    let text = format!("echo $$ > {}; exec sleep 60", ready.path());
    let runs = [rig.start(script(&text)).await, rig.start(script(&text)).await];
    let pids = [ready.pid().await, ready.pid().await];
    for run in runs {
        rig.inbox.started(run).await;
    }
    let folder = rig.folder.clone();
    drop(rig);
    kill(site.runner_pid());
    for pid in pids {
        kill(pid);
    }
    assert!(folder.exists());
    let mut rig = site.daemon().await;
    for run in runs {
        lost_message(&rig.inbox.ended(run).await);
    }
}

#[tokio::test]
async fn a_reboot_loses_what_ran_and_keeps_what_had_ended() {
    let mut site = Site::new();
    site.runner_args.extend(["--boot-id".into(), "first".into()]);
    let mut rig = site.daemon().await;
    let mut ready = rig.signal("ready");
    let ended = rig.start(script("exit 3")).await;
    rig.inbox.ended(ended).await;
    let run = rig.start(script(&format!("echo $$ > {}; exec sleep 60", ready.path()))).await;
    let pid = ready.pid().await;
    rig.inbox.started(run).await;
    drop(rig);
    kill(site.runner_pid());
    let last = site.runner_args.len() - 1;
    site.runner_args[last] = "second".into();
    let mut rig = site.daemon().await;
    let message = lost_message(&rig.inbox.ended(run).await);
    assert!(message.contains("rebooted"), "{message}");
    assert_eq!(rig.inbox.ended(ended).await, exit_code("main", 3));
    // In this test there was no reboot; a process with that number would be somebody else's after one, so it is left alone.
    assert!(lives(pid));
    kill(pid);
}

#[tokio::test]
async fn a_run_that_was_about_to_start_is_found_by_its_environment_or_lost() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut ready = rig.signal("ready");
    let run = rig.start(script(&format!("echo $$ > {}; exec sleep 60", ready.path()))).await;
    let pid = ready.pid().await;
    rig.inbox.started(run).await;
    drop(rig);
    kill(site.runner_pid());
    // As if the runner had been killed before it wrote down what it had started; and another before it had started anything.
    let path = site.dir().join("runner/journal");
    let journal = std::fs::read_to_string(&path).unwrap();
    let kept: String = journal.split_inclusive('\n').filter(|line| !line.contains("\"spawned\"")).collect();
    assert_ne!(kept, journal);
    std::fs::write(&path, kept).unwrap();
    let mut rig = site.daemon().await;
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Running { .. })));
    rig.executor.stop(run, stop_after(PATIENCE)).await.unwrap();
    lost_message(&rig.inbox.ended(run).await);
    assert!(!lives(pid));
    rig.executor.forget(vec![run]).await.unwrap();

    let ended = rig.start(script("true")).await;
    assert_eq!(rig.inbox.ended(ended).await, RunResult::Succeeded);
    drop(rig);
    kill(site.runner_pid());
    let journal = std::fs::read_to_string(&path).unwrap();
    let early = |line: &&str| line.contains("\"intent\"") || line.contains("\"boot\"");
    let intent: String = journal.split_inclusive('\n').filter(early).collect();
    std::fs::write(&path, intent).unwrap();
    let mut rig = site.daemon().await;
    let message = lost_message(&rig.inbox.ended(ended).await);
    assert!(message.contains("while it started the run"), "{message}");
}

#[tokio::test]
async fn a_torn_journal_keeps_the_ends_before_the_tear() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let runs = [rig.start(script("exit 1")).await, rig.start(script("exit 2")).await];
    for (run, code) in runs.into_iter().zip([1, 2]) {
        assert_eq!(rig.inbox.ended(run).await, exit_code("main", code));
    }
    drop(rig);
    kill(site.runner_pid());
    let mut journal = std::fs::OpenOptions::new().append(true).open(site.dir().join("runner/journal")).unwrap();
    journal.write_all(b"0123456789abcdef {\"ended\":{\"run\":").unwrap();
    drop(journal);
    let mut rig = site.daemon().await;
    for (run, code) in runs.into_iter().zip([1, 2]) {
        assert_eq!(rig.inbox.ended(run).await, exit_code("main", code));
    }
    let after = rig.start(script("exit 5")).await;
    assert_eq!(rig.inbox.ended(after).await, exit_code("main", 5));
    drop(rig);
    kill(site.runner_pid());
    let mut rig = site.daemon().await;
    assert_eq!(rig.inbox.ended(after).await, exit_code("main", 5));
}

#[tokio::test]
async fn runners_killed_at_any_point_start_nothing_twice_and_invent_no_success() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut orders = std::collections::BTreeMap::new();
    for round in 0..20 {
        let new: Vec<_> = (0..20).map(|_| script(&format!("echo run >> {}/$FLASH_JOB_ID", site.work().display()))).collect();
        orders.extend(new.iter().map(|order| (order.run, order.clone())));
        let before = rig.inbox.all_ends();
        rig.executor.start(new).await.unwrap();
        // At another point each round: with orders still to be read, processes to be made, ends to be written.
        while rig.inbox.all_ends() < before + round % 7 {
            rig.inbox.next().await;
        }
        kill(site.runner_pid());
        rig.inbox.disturbed(2 * round + 2).await;
        // As a reconciler: what the runner does not know it has never started.
        let known: Vec<_> = rig.executor.observe().await.unwrap().into_iter().map(|observed| observed.run).collect();
        let missing = orders.values().filter(|order| !known.contains(&order.run)).cloned().collect();
        rig.executor.start(missing).await.unwrap();
    }
    let mut lost = 0;
    for run in orders.into_keys() {
        let result = rig.inbox.ended(run).await;
        let times = std::fs::read_to_string(site.work().join(run.job.to_string())).map_or(0, |text| text.lines().count());
        match result {
            RunResult::Succeeded => assert_eq!(times, 1, "{run}"),
            result => {
                lost_message(&result);
                lost += 1;
                assert!(times <= 1, "{run} ran {times} times");
            }
        }
    }
    assert!(lost > 0, "no kill hit a run: the test has tested nothing");
}

#[tokio::test]
async fn a_rewritten_journal_says_what_the_old_one_said() {
    let mut site = Site::new();
    site.runner_args.extend(["--compact-bytes".into(), "16384".into()]);
    let mut rig = site.daemon().await;
    let (mut ready, go) = (rig.signal("ready"), rig.signal("go"));
    let failed = rig.start(script("exit 3")).await;
    rig.inbox.ended(failed).await;
    let tasks = vec![task("first", "exit 0"), task("last", &format!("echo $$ > {}; read line < {}", ready.path(), go.path()))];
    let run = rig.start(order(tasks)).await;
    let pid = ready.pid().await;
    rig.inbox.started(run).await;
    rig.rewrite_journal(&site.dir()).await;
    // The last order to forget is carried out once this is answered.
    rig.executor.observe().await.unwrap();
    drop(rig);
    kill(site.runner_pid());
    let mut rig = site.daemon().await;
    assert_eq!(rig.inbox.ended(failed).await, exit_code("main", 3));
    assert_eq!(rig.executor.observe().await.unwrap().len(), 2);
    assert!(lives(pid));
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    let message = lost_message(&rig.inbox.ended(run).await);
    assert!(message.contains("task last"), "{message}");
}

#[tokio::test]
async fn orders_without_a_runner_are_refused_as_unreachable() {
    let site = Site::new();
    let (executor, _inbox) = site.executor();
    for refused in [executor.start(vec![script("true")]).await, executor.stop(new_run(), stop_after(PATIENCE)).await] {
        assert!(matches!(refused, Err(ExecutorError::Unreachable { .. })), "{refused:?}");
    }
    assert!(matches!(executor.observe().await, Err(ExecutorError::Unreachable { .. })));
}

#[tokio::test]
async fn a_stranger_on_the_socket_is_no_runner() {
    let site = Site::new();
    std::fs::create_dir(site.dir()).unwrap();
    let listener = tokio::net::UnixListener::bind(site.dir().join("runner.sock")).unwrap();
    let hello =
        Hello { protocol: PROTOCOL + 6, version: "9".to_owned(), pid: 1, boot_id: String::new(), lines: false, devices: None };
    let newer = serde_json::to_vec(&hello).unwrap();
    let answers = tokio::spawn(async move {
        for answer in [newer, b"not JSON".to_vec()] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read_u32_le().await.unwrap();
            let mut theirs = vec![0; length as usize];
            stream.read_exact(&mut theirs).await.unwrap();
            stream.write_u32_le(answer.len() as u32).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    let (executor, _inbox) = site.executor();
    let refused = executor.adopt().await.unwrap_err();
    assert!(
        matches!(refused, ExecutorError::Protocol { theirs, ours, .. } if (theirs, ours) == (PROTOCOL + 6, PROTOCOL)),
        "{refused}"
    );
    let refused = executor.adopt().await.unwrap_err();
    assert!(matches!(refused, ExecutorError::Other { .. }), "{refused}");
    answers.await.unwrap();
}

#[tokio::test]
async fn a_runner_of_another_protocol_is_told_so_and_left() {
    let site = Site::new();
    let rig = site.daemon().await;
    let mut stream = tokio::net::UnixStream::connect(site.dir().join("runner.sock")).await.unwrap();
    let hello = serde_json::to_vec(&Hello {
        protocol: 99,
        version: String::new(),
        pid: 1,
        boot_id: String::new(),
        lines: false,
        devices: None,
    })
    .unwrap();
    stream.write_u32_le(hello.len() as u32).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let length = stream.read_u32_le().await.unwrap();
    let mut theirs = vec![0; length as usize];
    stream.read_exact(&mut theirs).await.unwrap();
    assert_eq!(serde_json::from_slice::<Hello>(&theirs).unwrap().protocol, PROTOCOL);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    // It did not replace the daemon that is connected.
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn a_runner_that_cannot_start_says_where_to_look() {
    let mut site = Site::new();
    site.runner_args = vec!["--no-such-option".into(), "1".into()];
    site.connect_timeout = Duration::from_millis(200);
    let (executor, _inbox) = site.executor();
    let error = executor.adopt().await.unwrap_err().to_string();
    assert!(error.contains("runner.log"), "{error}");
    let log = std::fs::read_to_string(site.dir().join("runner.log")).unwrap();
    assert!(log.contains("--no-such-option"), "{log}");
}

#[tokio::test]
async fn an_idle_runner_ends_and_one_with_a_record_does_not() {
    let mut site = Site::new();
    site.runner_args.extend(["--idle-ms".into(), "300".into()]);
    let mut rig = site.daemon().await;
    let run = rig.start(script("true")).await;
    rig.inbox.ended(run).await;
    let runner = site.runner_pid();
    drop(rig);
    let mut rig = site.daemon().await;
    assert_eq!(site.runner_pid(), runner, "a runner with an end to tell has ended");
    assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    rig.executor.forget(vec![run]).await.unwrap();
    rig.executor.observe().await.unwrap();
    drop(rig);
    gone(runner).await;
    let mut rig = site.daemon().await;
    assert_ne!(site.runner_pid(), runner);
    assert_eq!(rig.result(script("true")).await, RunResult::Succeeded);
}

#[tokio::test]
async fn a_runner_stays_small() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    for _ in 0..10 {
        let orders: Vec<_> = (0..200).map(|_| order(vec![command("main", &["true"])])).collect();
        let runs: Vec<_> = orders.iter().map(|order| order.run).collect();
        rig.executor.start(orders).await.unwrap();
        for run in runs {
            assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.runner_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 10 << 10, "{kib} KiB resident after 2,000 runs that nobody forgot");
}
