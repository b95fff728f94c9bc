//! Orders that wait in lines: who begins when, and who never does.

use std::collections::{BTreeMap, BTreeSet};

use executors::{Executor as _, ExecutorError, Line, RunPhase, StartOrder};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::*;
use crate::site::Site;

/// A run that says so when it runs, and then waits to be told to end.
struct Gate {
    order: StartOrder,
    ready: Signal,
    go: Signal,
}

impl Gate {
    fn new(rig: &Rig, name: &str) -> Self {
        let (ready, go) = (rig.signal(&format!("{name}-ready")), rig.signal(&format!("{name}-go")));
        let order = script(&format!("echo $$ > {}; read line < {}", ready.path(), go.path()));
        Self { order, ready, go }
    }

    fn open(&self) {
        std::fs::write(self.go.path().to_string(), "go\n").unwrap();
    }
}

#[tokio::test]
async fn runs_of_a_line_begin_in_their_order_as_room_comes() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    assert!(rig.executor.holds_orders());
    let mut gate = Gate::new(&rig, "gate");
    let log = site.work().join("log");
    let orders: Vec<_> = (0..30).map(|number| in_line(1, 1, script(&format!("echo {number} >> {}", log.display())))).collect();
    let first = rig.start(in_line(1, 1, gate.order.clone())).await;
    rig.executor.start(orders.clone()).await.unwrap();
    gate.ready.line().await;
    for order in &orders {
        assert_eq!(rig.phase(order.run).await, Some(RunPhase::Held));
    }
    // Who waits in no line, or in another one, is not kept back.
    assert_eq!(rig.result(script("true")).await, RunResult::Succeeded);
    assert_eq!(rig.result(in_line(2, 1, script("true"))).await, RunResult::Succeeded);
    assert!(!log.exists());
    gate.open();
    assert_eq!(rig.inbox.ended(first).await, RunResult::Succeeded);
    for order in &orders {
        assert_eq!(rig.inbox.ended(order.run).await, RunResult::Succeeded);
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().eq((0..30).map(|number| number.to_string())), "{text}");
}

#[tokio::test]
async fn an_order_that_is_sent_again_begins_once() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let log = site.work().join("log");
    let mut gate = Gate::new(&rig, "gate");
    rig.start(in_line(1, 1, gate.order.clone())).await;
    let order = in_line(1, 1, script(&format!("echo run >> {}", log.display())));
    rig.executor.start(vec![order.clone(), order.clone()]).await.unwrap();
    rig.executor.start(vec![order.clone()]).await.unwrap();
    gate.ready.line().await;
    gate.open();
    assert_eq!(rig.inbox.ended(order.run).await, RunResult::Succeeded);
    rig.executor.start(vec![order.clone()]).await.unwrap();
    assert!(matches!(rig.phase(order.run).await, Some(RunPhase::Ended { .. })));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "run\n");
}

#[tokio::test]
async fn whoever_is_stopped_or_withdrawn_in_line_never_begins_and_is_told_so() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let log = site.work().join("log");
    let mut gate = Gate::new(&rig, "gate");
    let begun = rig.start(in_line(1, 1, gate.order.clone())).await;
    let held: Vec<_> = (0..4).map(|number| in_line(1, 1, script(&format!("echo {number} >> {}", log.display())))).collect();
    let [stopped, left, withdrawn, last] = [0, 1, 2, 3].map(|index: usize| held[index].run);
    rig.executor.start(held.clone()).await.unwrap();
    gate.ready.line().await;

    rig.executor.stop(stopped, stop_after(PATIENCE)).await.unwrap();
    assert!(rig.inbox.not_begun(stopped).await.contains("stopped"));
    // What has begun is not withdrawn, and who is not known neither.
    rig.executor.withdraw(vec![begun, withdrawn, new_run()]).await.unwrap();
    assert!(rig.inbox.not_begun(withdrawn).await.contains("withdrawn"));
    assert!(matches!(rig.phase(begun).await, Some(RunPhase::Running { .. } | RunPhase::Starting)));
    assert!(matches!(rig.phase(stopped).await, Some(RunPhase::NotBegun { .. })));
    // For good.
    rig.executor.start(held.clone()).await.unwrap();
    gate.open();
    for run in [begun, left, last] {
        assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "1\n3\n");
    assert_eq!((rig.inbox.ends(stopped), rig.inbox.ends(withdrawn)), (1, 1));
    rig.executor.forget(vec![stopped, withdrawn, begun, left, last]).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn one_that_is_stopped_after_its_turn_came_makes_way_like_any_other() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let mut gate = Gate::new(&rig, "gate");
    let first = rig.start(in_line(1, 1, gate.order.clone())).await;
    let next = rig.start(in_line(1, 1, script("true"))).await;
    gate.ready.line().await;
    rig.executor.stop(first, stop_after(PATIENCE)).await.unwrap();
    assert_eq!(rig.inbox.ended(first).await, signalled("main", 15));
    assert_eq!(rig.inbox.ended(next).await, RunResult::Succeeded);
}

#[tokio::test]
async fn what_asks_for_more_than_its_line_has_is_not_kept() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let two = in_line(1, 1, order(vec![task("a", "true"), task("b", "true")]));
    let run = rig.start(two).await;
    assert!(rig.inbox.not_begun(run).await.contains("more than its line"));
    let mut huge = in_line(1, 1, order(vec![task("a", "true"), task("b", "true")]));
    huge.tasks.iter_mut().for_each(|task| task.memory_bytes = u64::MAX);
    huge.line = Some(Line { id: 1, cpu_millis: u64::MAX, memory_bytes: u64::MAX });
    let run = rig.start(huge).await;
    rig.inbox.not_begun(run).await;
    assert_eq!(rig.result(in_line(1, 1, script("true"))).await, RunResult::Succeeded);
}

#[tokio::test]
async fn room_comes_only_when_nothing_of_a_run_is_left() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let pid = site.work().join("pid");
    // It leaves its session, and does not listen to SIGTERM: it is there until the grace is over.
    let leaves = format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {0}; sleep 60; sleep 60' & while ! [ -s {0} ]; do :; done",
        pid.display()
    );
    let looks = format!("! kill -0 $(cat {})", pid.display());
    let orders = vec![in_line(1, 1, script(&leaves)), in_line(1, 1, script(&looks)), in_line(1, 1, script("true"))];
    let runs: Vec<_> = orders.iter().map(|order| order.run).collect();
    rig.executor.start(orders).await.unwrap();
    for run in runs {
        assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_does_not_hold_up_its_line() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let orders: Vec<_> = (0..10)
        .map(|number| {
            in_line(1, 1, if number % 2 == 0 { order(vec![command("main", &["no-such-program"])]) } else { script("exit 3") })
        })
        .collect();
    rig.executor.start(orders.clone()).await.unwrap();
    for (number, order) in orders.iter().enumerate() {
        let result = rig.inbox.ended(order.run).await;
        if number % 2 == 0 {
            assert!(start_message(&result).contains("no-such-program"));
        } else {
            assert_eq!(result, exit_code("main", 3));
        }
    }
}

#[tokio::test]
async fn a_run_that_goes_on_is_told_to_have_started_while_others_wait() {
    let site = Site::new();
    let mut rig = site.daemon().await;
    let gates = [Gate::new(&rig, "a"), Gate::new(&rig, "b")];
    let runs = [rig.start(in_line(1, 1, gates[0].order.clone())).await, rig.start(in_line(1, 1, gates[1].order.clone())).await];
    for (run, gate) in runs.into_iter().zip(&gates) {
        rig.inbox.started(run).await;
        gate.open();
        assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded);
    }
}

/// The same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the runs of a line may have in use together.
const LIMITS: (u64, u64) = (4_000, 1_000);

fn random_order(dice: &mut Dice, id: u64, log: &std::path::Path) -> StartOrder {
    let (cpu, memory) = (500 + 500 * dice.roll(6), 100 * dice.roll(8));
    let log = log.display();
    let (begin, end) =
        (format!("echo \"+ $FLASH_JOB_ID {cpu} {memory}\" >> {log}"), format!("echo \"- $FLASH_JOB_ID\" >> {log}"));
    let text = match dice.roll(6) {
        0 => format!("{begin}; sleep 0.0{}; {end}; exit 1", dice.roll(5)),
        // Something of it stays behind for a moment, out of its session, and does not listen to SIGTERM.
        1 => format!("{begin}; trap '' TERM; setsid sh -c 'sleep 0.05; {end}' &"),
        2 | 3 => format!("{begin}; sleep 0.0{}; {end}", dice.roll(5)),
        _ => format!("{begin}; {end}"),
    };
    let mut order = script(&text);
    (order.tasks[0].cpu_millis, order.tasks[0].memory_bytes) = (cpu, memory);
    order.line = Some(Line { id, cpu_millis: LIMITS.0, memory_bytes: LIMITS.1 });
    order
}

#[tokio::test]
async fn a_line_never_has_more_in_use_than_its_limits() {
    let seed = u64::from(std::process::id());
    let mut dice = Dice(seed);
    let mut site = Site::new();
    // What stays behind ends by itself.
    site.runner_args = ["--leftover-grace-ms", "60000"].map(Into::into).to_vec();
    let mut rig = site.daemon().await;
    let logs = [0, 1].map(|id| site.work().join(format!("line-{id}")));
    let mut orders: BTreeMap<RunId, u64> = BTreeMap::new();
    let mut dropped = BTreeSet::new();
    for _ in 0..20 {
        let batch: Vec<_> = (0..8)
            .map(|_| {
                let id = dice.roll(2);
                (id, random_order(&mut dice, id, &logs[id as usize]))
            })
            .collect();
        orders.extend(batch.iter().map(|(id, order)| (order.run, *id)));
        let victim = batch[dice.roll(8) as usize].1.run;
        rig.executor.start(batch.into_iter().map(|(_, order)| order).collect()).await.unwrap();
        if dice.roll(2) == 0 {
            dropped.insert(victim);
            rig.executor.withdraw(vec![victim]).await.unwrap();
        }
        rig.inbox.next().await;
    }
    let mut never = BTreeSet::new();
    for run in orders.keys() {
        if let executors::Report::NotBegun { .. } = rig.inbox.over(*run).await {
            never.insert(run.job.to_string());
            assert!(dropped.contains(run), "seed {seed}");
        }
    }
    let mut seen = 0;
    for log in &logs {
        let mut open: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let text = std::fs::read_to_string(log).unwrap();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["+", job, cpu, memory] => {
                    assert!(!never.contains(job), "seed {seed}: {job} has begun and was told not to have");
                    assert_eq!(
                        open.insert(job, (cpu.parse().unwrap(), memory.parse().unwrap())),
                        None,
                        "seed {seed}: {job} twice"
                    );
                    seen += 1;
                }
                ["-", job] => assert!(open.remove(job).is_some()),
                _ => panic!("{line}"),
            }
            let used = open.values().fold((0, 0), |sum, has| (sum.0 + has.0, sum.1 + has.1));
            assert!(used.0 <= LIMITS.0 && used.1 <= LIMITS.1, "seed {seed}: {used:?} in use");
        }
        assert!(open.is_empty());
    }
    assert_eq!(seen + never.len(), orders.len(), "seed {seed}");
}

#[tokio::test]
async fn an_older_runner_is_given_no_orders_to_hold() {
    let site = Site::new();
    std::fs::create_dir(site.dir()).unwrap();
    let listener = tokio::net::UnixListener::bind(site.dir().join("runner.sock")).unwrap();
    let runner = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in [&br#"{"protocol":1,"version":"0.0"}"#[..], &br#"{"runs":{"id":1,"runs":[],"last":true}}"#[..]] {
            let length = stream.read_u32_le().await.unwrap();
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            stream.write_u32_le(answer.len() as u32).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
        // Nothing more comes before the connection is closed.
        stream.read(&mut [0]).await.unwrap()
    });
    let (executor, inbox) = site.executor();
    assert!(!executor.holds_orders());
    assert_eq!(executor.adopt().await.unwrap(), []);
    assert!(!executor.holds_orders());
    let refused = executor.start(vec![script("true"), in_line(1, 1, script("true"))]).await;
    assert!(matches!(refused, Err(ExecutorError::Other { .. })), "{refused:?}");
    drop((executor, inbox));
    assert_eq!(runner.await.unwrap(), 0);
}

#[tokio::test]
async fn an_older_daemon_hears_no_words_that_it_does_not_know() {
    let site = Site::new();
    let rig = site.daemon().await;
    let mut gate = Gate::new(&rig, "gate");
    rig.start(in_line(1, 1, gate.order.clone())).await;
    let held = [rig.start(in_line(1, 1, script("true"))).await, rig.start(in_line(1, 1, script("true"))).await];
    gate.ready.line().await;
    let mut stream = tokio::net::UnixStream::connect(site.dir().join("runner.sock")).await.unwrap();
    let stop =
        format!("{{\"stop\":{{\"run\":{},\"policy\":{{\"signal\":15,\"grace\":0}}}}}}", serde_json::to_string(&held[0]).unwrap());
    for frame in [r#"{"protocol":1}"#, r#"{"observe":{"id":1}}"#, stop.as_str()] {
        stream.write_u32_le(frame.len() as u32).await.unwrap();
        stream.write_all(frame.as_bytes()).await.unwrap();
    }
    let mut told = String::new();
    while !told.contains("\"ended\"") {
        let length = stream.read_u32_le().await.unwrap();
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        told.push_str(std::str::from_utf8(&frame).unwrap());
    }
    assert!(told.contains("\"starting\"") && told.contains("\"lost\""), "{told}");
    assert!(!told.contains("\"held\"") && !told.contains("otBegun"), "{told}");
}
