//! Output of runs that have waited in a line: files that are named late, or not at all.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use executors::log_file_name;
use scheduler_core::event::RunResult;

use crate::rig::*;
use crate::site::Site;

/// So long that nothing is named because it has gone on.
const NEVER: [&str; 2] = ["--gather-held-ms", "30000"];

fn names(site: &Site) -> BTreeSet<String> {
    std::fs::read_dir(site.logs()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn what_was_written_is_there_and_what_was_not_has_no_file() {
    let mut site = Site::new();
    // However slow the machine is, none of them goes on for so long that it is told.
    site.runner_args.extend(["--fresh-ms", "600000"].map(Into::into));
    let mut rig = site.daemon().await;
    let texts = ["true", "echo out", "echo err >&2", "echo out; echo err >&2", "exit 3", "true", "printf x; printf y >&2"];
    let orders: Vec<_> = (0..140).map(|number| in_line(1, 2, script(texts[number % texts.len()]))).collect();
    rig.executor.start(orders.clone()).await.unwrap();
    let mut expected = BTreeSet::new();
    for (number, order) in orders.iter().enumerate() {
        rig.inbox.ended(order.run).await;
        let read =
            |stream| std::fs::read_to_string(site.logs().join(log_file_name(order.run, "main", stream))).unwrap_or_default();
        let (out, err) = match number % texts.len() {
            1 => ("out\n", ""),
            2 => ("", "err\n"),
            3 => ("out\n", "err\n"),
            6 => ("x", "y"),
            _ => ("", ""),
        };
        assert_eq!((read("out").as_str(), read("err").as_str()), (out, err), "{number}");
        expected.extend((!out.is_empty()).then(|| log_file_name(order.run, "main", "out")));
        expected.extend((!err.is_empty()).then(|| log_file_name(order.run, "main", "err")));
    }
    // The last may have begun with nobody behind them: then they have files, which are empty.
    let empty = |name: &String| std::fs::metadata(site.logs().join(name)).unwrap().len() == 0;
    let all = names(&site);
    assert!(all.len() <= expected.len() + 4, "{all:?}");
    assert_eq!(all.into_iter().filter(|name| !empty(name)).collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn a_run_that_goes_on_has_its_files_before_it_writes() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let (mut ready, go) = (rig.signal("ready"), rig.signal("go"));
    let order = in_line(1, 1, script(&format!("echo first; echo > {}; read line < {}; echo last", ready.path(), go.path())));
    let run = order.run;
    let behind = in_line(1, 1, script("true"));
    rig.executor.start(vec![order, behind.clone()]).await.unwrap();
    ready.line().await;
    // Its start is told when it has gone on for a moment; the names follow.
    rig.inbox.started(run).await;
    let path = |stream: &str| site.logs().join(log_file_name(run, "main", stream));
    until(|| path("out").exists() && path("err").exists()).await;
    assert_eq!(rig.log(run, "main", "out"), "first\n");
    let found = std::fs::metadata(path("out")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, rustix::process::geteuid().as_raw()));
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    assert_eq!(rig.log(run, "main", "out"), "first\nlast\n");
    assert_eq!(rig.log(run, "main", "err"), "");
}

#[tokio::test]
async fn the_next_runner_names_what_a_process_goes_on_writing_to() {
    let mut site = Site::new();
    site.runner_args.extend(NEVER.map(Into::into));
    let mut rig = site.daemon().await;
    let (mut ready, go) = (rig.signal("ready"), rig.signal("go"));
    let order = in_line(1, 1, script(&format!("echo first; echo > {}; read line < {}; echo last", ready.path(), go.path())));
    let run = order.run;
    rig.executor.start(vec![order, in_line(1, 1, script("true"))]).await.unwrap();
    ready.line().await;
    assert_eq!(names(&site), BTreeSet::new());
    kill(site.runner_pid());
    rig.inbox.disturbed(2).await;
    assert_eq!(rig.log(run, "main", "out"), "first\n");
    // A third has nothing to name any more.
    kill(site.runner_pid());
    rig.inbox.disturbed(4).await;
    std::fs::write(go.path().to_string(), "go\n").unwrap();
    lost_message(&rig.inbox.ended(run).await);
    assert_eq!(rig.log(run, "main", "out"), "first\nlast\n");
    let log = std::fs::read_to_string(site.dir().join("runner.log")).unwrap();
    assert!(!log.contains("log file"), "{log}");
}

#[tokio::test]
async fn a_file_that_somebody_else_can_reach_is_not_given_to_the_next() {
    let mut site = Site::new();
    site.runner_args.extend(NEVER.map(Into::into));
    let mut rig = site.daemon().await;
    let keeps = site.work().join("kept");
    // One gives its output a name of its own, one opens it to others, one leaves room in it.
    let texts = [
        format!("ln -L /proc/self/fd/1 {}", keeps.display()),
        "chmod 666 /proc/self/fd/1".to_owned(),
        "fallocate --keep-size --length 4096 /proc/self/fd/1 || true".to_owned(),
    ];
    let mut orders: Vec<_> = texts.iter().map(|text| in_line(1, 1, script(text))).collect();
    orders.extend((0..20).map(|number| in_line(1, 1, script(&format!("echo {number}")))));
    let last = in_line(1, 1, script("true"));
    orders.push(last.clone());
    rig.executor.start(orders.clone()).await.unwrap();
    rig.inbox.ended(last.run).await;
    for order in &orders[..3] {
        assert_eq!(rig.inbox.ended(order.run).await, RunResult::Succeeded);
    }
    assert_eq!(std::fs::read_to_string(&keeps).unwrap(), "");
    for (number, order) in orders[3..23].iter().enumerate() {
        assert_eq!(rig.inbox.ended(order.run).await, RunResult::Succeeded);
        let path = site.logs().join(log_file_name(order.run, "main", "out"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{number}\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

#[tokio::test]
async fn files_go_only_to_runs_of_the_same_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let site = Site::new();
    let mut rig = site.daemon().await;
    let users = [None, Some(65_534), Some(65_533)];
    let orders: Vec<_> = (0..60)
        .map(|number| {
            let mut order = in_line(1, 2, script(if number % 2 == 0 { "true" } else { "id -u; ls -ln /proc/self/fd/ >&2" }));
            order.uid = users[number % 3];
            order
        })
        .collect();
    rig.executor.start(orders.clone()).await.unwrap();
    for (number, order) in orders.iter().enumerate() {
        assert_eq!(rig.inbox.ended(order.run).await, RunResult::Succeeded);
        if number % 2 == 1 {
            let uid = users[number % 3].unwrap_or(0);
            assert_eq!(rig.log(order.run, "main", "out"), format!("{uid}\n"));
            let found = std::fs::metadata(site.logs().join(log_file_name(order.run, "main", "out"))).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777), (uid, 0o600));
        }
    }
}
