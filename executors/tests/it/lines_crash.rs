//! Orders that wait in lines, when a daemon, a runner or the machine goes away.

use std::collections::BTreeMap;

use executors::{Executor as _, Report, RunPhase};
use scheduler_core::event::RunResult;

use crate::rig::*;
use crate::site::Site;

#[tokio::test]
async fn a_line_goes_on_without_a_daemon_and_the_next_one_finds_it() {
    let site = Site::new();
    let mut first = site.daemon().await;
    let (mut ready, go) = (first.signal("ready"), first.signal("go"));
    let log = site.work().join("log");
    let begun = first.start(in_line(1, 1, script("exit 4"))).await;
    let text = format!("echo $$ > {}; read line < {}", ready.path(), go.path());
    let gate = first.start(in_line(1, 1, script(&text))).await;
    let held: Vec<_> = (0..5).map(|number| in_line(1, 1, script(&format!("echo {number} >> {}", log.display())))).collect();
    first.executor.start(held.clone()).await.unwrap();
    ready.line().await;
    first.inbox.ended(begun).await;
    first.inbox.started(gate).await;
    drop(first);

    let (executor, inbox) = site.executor();
    let observed: BTreeMap<_, _> = executor.adopt().await.unwrap().into_iter().map(|seen| (seen.run, seen.phase)).collect();
    assert!(matches!(&observed[&begun], RunPhase::Ended { result, .. } if *result == exit_code("main", 4)));
    assert!(matches!(&observed[&gate], RunPhase::Running { .. }));
    assert!(held.iter().all(|order| observed[&order.run] == RunPhase::Held), "{observed:?}");
    // As a daemon that does not know what it has sent, and one that goes away again.
    executor.start(held.clone()).await.unwrap();
    executor.observe().await.unwrap();
    drop((executor, inbox));
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    until(|| std::fs::read_to_string(&log).unwrap_or_default().lines().count() == 5).await;
    let mut third = site.daemon().await;
    for order in &held {
        assert_eq!(third.inbox.ended(order.run).await, RunResult::Succeeded);
    }
    assert_eq!(third.inbox.ended(gate).await, RunResult::Succeeded);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "0\n1\n2\n3\n4\n");
}

#[tokio::test]
async fn what_waited_in_a_runner_that_was_killed_has_never_begun() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let (mut ready, go) = (rig.signal("ready"), rig.signal("go"));
    let log = site.work().join("log");
    let text = format!("echo $$ > {}; read line < {}", ready.path(), go.path());
    let begun = rig.start(in_line(1, 1, script(&text))).await;
    let say = || in_line(1, 1, script(&format!("echo run >> {}", log.display())));
    let held: Vec<_> = (0..3).map(|_| say()).collect();
    rig.executor.start(held.clone()).await.unwrap();
    let dropped = rig.start(say()).await;
    rig.executor.withdraw(vec![dropped]).await.unwrap();
    rig.inbox.not_begun(dropped).await;
    let pid = ready.pid().await;
    kill(site.runner_pid());
    rig.inbox.disturbed(2).await;
    for order in &held {
        assert!(rig.inbox.not_begun(order.run).await.contains("runner was killed"));
        assert!(matches!(rig.phase(order.run).await, Some(RunPhase::NotBegun { .. })));
    }
    // Told again as it was told before.
    assert!(rig.inbox.not_begun(dropped).await.contains("withdrawn"));
    // The run that goes on has what it had of its line.
    let next = rig.start(say()).await;
    assert_eq!(rig.phase(next).await, Some(RunPhase::Held));
    assert!(lives(pid) && !log.exists());
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    lost_message(&rig.inbox.ended(begun).await);
    assert_eq!(rig.inbox.ended(next).await, RunResult::Succeeded);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "run\n");
    let all: Vec<_> = held.iter().map(|order| order.run).chain([begun, dropped, next]).collect();
    rig.executor.forget(all).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn a_runner_that_is_killed_between_the_record_of_a_start_and_the_program_has_lost_it() {
    let mut site = Site::new();
    let root = site.work().join("cgroups");
    site.runner_args.extend(["--cgroup-root".into(), root.clone().into()]);
    let log = site.work().join("log");
    let order = in_line(1, 1, script(&format!("echo run >> {}", log.display())));
    let held = in_line(1, 1, script(&format!("echo run >> {}", log.display())));
    // What keeps the start from going on: a pipe that nobody reads, in the place of the group that the task is to join.
    let group = root.join(format!("flash-{}", order.run));
    std::fs::create_dir_all(&group).unwrap();
    let pipe = group.join("cgroup.procs");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let mut rig = site.daemon().await;
    rig.executor.start(vec![order.clone(), held.clone()]).await.unwrap();
    // The last that it does before is to make the group, and before that it has written down that it begins.
    until(|| group.join("cpu.max").exists()).await;
    assert_eq!(rig.phase(order.run).await, Some(RunPhase::Starting));
    kill(site.runner_pid());
    std::fs::remove_file(&pipe).unwrap();
    rig.inbox.disturbed(2).await;
    let message = lost_message(&rig.inbox.ended(order.run).await);
    assert!(message.contains("while it started the run"), "{message}");
    rig.inbox.not_begun(held.run).await;
    // Whether it began is not known, so it is not started again, whoever asks.
    rig.executor.start(vec![order.clone(), held.clone()]).await.unwrap();
    rig.executor.observe().await.unwrap();
    assert_eq!(rig.result(in_line(1, 1, script("true"))).await, RunResult::Succeeded);
    assert!(!log.exists());
}

#[tokio::test]
async fn after_a_reboot_what_waited_counts_as_lost() {
    let mut site = Site::new();
    site.runner_args.extend(["--boot-id".into(), "first".into()]);
    let rig = site.daemon().await;
    let mut ready = rig.signal("ready");
    let begun = rig.start(in_line(1, 1, script(&format!("echo $$ > {}; exec sleep 60", ready.path())))).await;
    let held = rig.start(in_line(1, 1, script("true"))).await;
    let pid = ready.pid().await;
    rig.executor.observe().await.unwrap();
    drop(rig);
    kill(site.runner_pid());
    let last = site.runner_args.len() - 1;
    site.runner_args[last] = "second".into();
    let mut rig = site.daemon().await;
    for run in [begun, held] {
        // The record that it had begun may have been in memory only when the machine went down.
        let message = lost_message(&rig.inbox.ended(run).await);
        assert!(message.contains("rebooted"), "{message}");
    }
    kill(pid);
}

#[tokio::test]
async fn runners_killed_at_any_point_begin_nothing_twice_and_nothing_that_is_told_not_to_have_begun() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut orders = BTreeMap::new();
    for round in 0..20 {
        let text = format!("echo run >> {}/$FLASH_JOB_ID", site.work().display());
        let new: Vec<_> = (0..30).map(|_| in_line(round % 3, 2, script(&text))).collect();
        orders.extend(new.iter().map(|order| (order.run, order.clone())));
        let before = rig.inbox.all_ends();
        rig.executor.start(new).await.unwrap();
        while rig.inbox.all_ends() < before + round as usize % 7 {
            rig.inbox.next().await;
        }
        kill(site.runner_pid());
        rig.inbox.disturbed(2 * round as usize + 2).await;
        // As a reconciler: what the runner does not know it has never had.
        let known: Vec<_> = rig.executor.observe().await.unwrap().into_iter().map(|observed| observed.run).collect();
        let missing = orders.values().filter(|order| !known.contains(&order.run)).cloned().collect();
        rig.executor.start(missing).await.unwrap();
    }
    let (mut never, mut ran) = (0, 0);
    for run in orders.into_keys() {
        let over = rig.inbox.over(run).await;
        let times = std::fs::read_to_string(site.work().join(run.job.to_string())).map_or(0, |text| text.lines().count());
        match over {
            Report::NotBegun { message, .. } => {
                assert_eq!(times, 0, "{run} ran: {message}");
                never += 1;
            }
            Report::Ended { result: RunResult::Succeeded, .. } => {
                assert_eq!(times, 1, "{run}");
                ran += 1;
            }
            Report::Ended { result, .. } => {
                lost_message(&result);
                assert!(times <= 1, "{run} ran {times} times");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(never > 0 && ran > 0, "{never} never began, {ran} ran: the test has tested nothing");
}

#[tokio::test]
async fn a_rewritten_journal_still_knows_who_waits() {
    let mut site = Site::new();
    site.runner_args.extend(["--compact-bytes".into(), "16384".into()]);
    let mut rig = site.daemon().await;
    let (mut ready, go) = (rig.signal("ready"), rig.signal("go"));
    let text = format!("echo $$ > {}; read line < {}", ready.path(), go.path());
    let begun = rig.start(in_line(1, 1, script(&text))).await;
    let held = rig.start(in_line(1, 1, script("true"))).await;
    let dropped = rig.start(in_line(1, 1, script("true"))).await;
    rig.executor.stop(dropped, stop_after(PATIENCE)).await.unwrap();
    rig.inbox.not_begun(dropped).await;
    ready.line().await;
    rig.rewrite_journal(&site.dir()).await;
    rig.executor.observe().await.unwrap();
    kill(site.runner_pid());
    rig.inbox.disturbed(2).await;
    assert!(rig.inbox.not_begun(held).await.contains("killed"));
    let next = rig.start(in_line(1, 1, script("true"))).await;
    assert_eq!(rig.phase(next).await, Some(RunPhase::Held), "what has begun lost its part of the line");
    assert!(matches!(rig.phase(dropped).await, Some(RunPhase::NotBegun { message, .. }) if message.contains("stopped")));
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    lost_message(&rig.inbox.ended(begun).await);
    assert_eq!(rig.inbox.ended(next).await, RunResult::Succeeded);
}
