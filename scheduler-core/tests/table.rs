//! Every state x every event, as one table whose cells are what must come of it.
//!
//! The job is at attempt 2 (0 where it was never tried), lost once of 3 attempts; it is 1,000 s, its time limit of 100 s is over for the
//! running rows; `lined` was queued at 600 s and ordered ahead. Stops were ordered at 980 s; reports speak of 995 s, those marked `before` of 980 s, which is just not after the order. Cells: the state afterwards with what is new in it and, after `!`, the effects; `same` is already so, `-` is not possible
//! in this state, `stale` speaks of another attempt, `end` is finished for good.
#![expect(clippy::unwrap_used, reason = "tests")]

use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::apply::apply;
use scheduler_core::event::{Effect, Event, Rejected, RunResult};
use scheduler_core::ids::{Attempt, JobId, Name};
use scheduler_core::job::{Policy, StopPolicy};
use scheduler_core::state::{FailReason, JobState, Lifecycle, Line, Outcome, Placement, Slot, StopReason, WaitFor};
use scheduler_core::time::{Span, Timestamp};
use uuid::Uuid;

const TABLE: &str = "
event            | untried         | held            | later           | due             | queued          | starting                   | lined                     | running                    | s-cancel          | s-limit                    | s-requeue                  | s-preempt                  | s-evict                    | s-idle                     | finished
hold             | held            | same            | held            | held            | held            | -                          | -                          | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
release          | same            | queued@1000     | same            | same            | same            | -                          | -                          | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
release until    | same            | later@2000      | same            | same            | same            | -                          | -                          | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
release past     | same            | queued@1000     | same            | same            | same            | -                          | -                          | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
due              | -               | -               | -               | queued@990      | -               | -                          | -                          | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
place            | starting#1!start| -               | -               | -               | starting#3!start| -                          | -                          | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
started 2        | stale           | -               | -               | -               | -               | running@995                | running@995                | same                       | same              | same                       | same                       | same                       | same                       | same                       | end
started 1        | stale           | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
started 3        | stale           | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
started 0        | -               | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
succeeded 2      | stale           | same            | same            | same            | same            | succeeded@995!forget       | succeeded@995!forget       | succeeded@995!forget       | cancelled ann@995!forget | limit@995!forget    | queued@1000!forget         | queued@400!forget          | queued@1000 lost=2!forget  | idle unused@995!forget     | end
failed 2         | stale           | same            | same            | same            | same            | exit 7@995!forget          | exit 7@995!forget          | exit 7@995!forget          | cancelled ann@995!forget | limit@995!forget    | queued@1000!forget         | queued@400!forget          | queued@1000 lost=2!forget  | idle unused@995!forget     | end
lost 2, now      | stale           | same            | same            | same            | same            | queued@1000 lost=2!forget  | queued@1000 lost=2!forget  | queued@1000 lost=2!forget  | cancelled ann@995!forget | limit@995!forget    | queued@1000!forget         | queued@400!forget          | queued@1000 lost=2!forget  | idle unused@995!forget     | end
lost 2, later    | stale           | same            | same            | same            | same            | later@1060 lost=2!forget   | later@1060 lost=2!forget   | later@1060 lost=2!forget   | cancelled ann@995!forget | limit@995!forget    | queued@1000!forget         | queued@400!forget          | later@1060 lost=2!forget   | idle unused@995!forget     | end
succeeded 2, before | stale        | same            | same            | same            | same            | succeeded@980!forget       | succeeded@980!forget       | succeeded@980!forget       | succeeded@980!forget | succeeded@980!forget    | succeeded@980!forget       | succeeded@980!forget       | succeeded@980!forget       | succeeded@980!forget       | end
failed 2, before | stale           | same            | same            | same            | same            | exit 7@980!forget          | exit 7@980!forget          | exit 7@980!forget          | exit 7@980!forget | exit 7@980!forget          | exit 7@980!forget          | exit 7@980!forget          | exit 7@980!forget          | exit 7@980!forget          | end
lost 2, before   | stale           | same            | same            | same            | same            | queued@1000 lost=2!forget  | queued@1000 lost=2!forget  | queued@1000 lost=2!forget  | cancelled ann@980!forget | limit@980!forget    | queued@1000!forget         | queued@400!forget          | queued@1000 lost=2!forget  | idle unused@980!forget     | end
succeeded 1      | stale           | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
lost 3, now      | stale           | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
succeeded 0      | -               | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
not begun 2      | stale           | same            | same            | same            | same            | queued@1000!forget         | queued@600!forget          | -                          | cancelled ann@995!forget | limit@995!forget    | queued@1000!forget         | queued@400!forget          | queued@1000!forget         | idle unused@995!forget     | end
not begun 2, later | stale         | same            | same            | same            | same            | later@1060!forget          | later@1060!forget          | -                          | cancelled ann@995!forget | limit@995!forget    | queued@1000!forget         | queued@400!forget          | queued@1000!forget         | idle unused@995!forget     | end
not begun 1      | stale           | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
not begun 0      | -               | stale           | stale           | stale           | stale           | stale                      | stale                      | stale                      | stale             | stale                      | stale                      | stale                      | stale                      | stale                      | end
cancel           | cancelled bob@1000 | cancelled bob@1000 | cancelled bob@1000 | cancelled bob@1000 | cancelled bob@1000 | s-cancel bob@1030!stop | s-cancel bob@1030!stop | s-cancel bob@1030!stop | same     | s-cancel bob@1010          | s-cancel bob@1010          | s-cancel bob@1010          | s-cancel bob@1010          | s-cancel bob@1010          | end
requeue          | -               | -               | -               | -               | -               | s-requeue bob@1030!stop    | s-requeue bob@1030!stop    | s-requeue bob@1030!stop    | -                 | -                          | same                       | -                          | -                          | -                          | end
time limit       | -               | -               | -               | -               | -               | -                          | -                          | s-limit@1030!stop          | -                 | -                          | -                          | -                          | -                          | -                          | end
preempt          | -               | -               | -               | -               | -               | s-preempt 9 400@1030!stop  | s-preempt 9 400@1030!stop  | s-preempt 9 400@1030!stop  | -                 | -                          | -                          | -                          | -                          | -                          | end
evict            | -               | -               | -               | -               | -               | s-evict xid@1030!stop      | s-evict xid@1030!stop      | s-evict xid@1030!stop      | -                 | -                          | -                          | -                          | -                          | -                          | end
update           | queued@500      | held            | later@1001      | later@990       | queued@500      | -                          | -                         | -                          | -                 | -                          | -                          | -                          | -                          | -                          | end
warn             | - | - | - | - | - | - | - | running@900 | - | - | - | - | - | - | end
idle             | - | - | - | - | - | - | - | s-idle unused@1030!stop | - | - | - | - | - | - | end
";

fn time(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn placement() -> Placement {
    let slot = Slot { group: 0, replica: 0, node: "a".into(), gpus: ["g0".into()].into_iter().collect(), share: None };
    Placement::new(vec![slot])
}

/// The same in a line, ordered ahead.
fn lined() -> Placement {
    let line = Line { cpu: CpuMillis(2000), memory: MemoryBytes(0), since: time(600), ahead: true };
    Placement { line: Some(line), ..placement() }
}

fn policy() -> Policy {
    let stop = StopPolicy { signal: 2, grace: Span::from_secs(30) };
    Policy { time_limit: Some(Span::from_secs(100)), stop, ..Policy::default() }
}

fn from(column: &str) -> Lifecycle {
    let placement = std::sync::Arc::new(placement());
    let stopping =
        |why| JobState::Stopping { placement: std::sync::Arc::new(self::placement()), why: Box::new(why), deadline: time(1010) };
    let state = match column {
        "held" => JobState::Waiting { on: WaitFor::Hold },
        "later" => JobState::Waiting { on: WaitFor::NotBefore(time(1001)) },
        "due" => JobState::Waiting { on: WaitFor::NotBefore(time(990)) },
        "untried" | "queued" => JobState::Queued { since: time(500) },
        "starting" => JobState::Starting { placement },
        "lined" => JobState::Starting { placement: std::sync::Arc::new(lined()) },
        "running" => JobState::Running { placement, since: time(900) },
        "s-cancel" => stopping(StopReason::Cancel { by: "ann".into() }),
        "s-limit" => stopping(StopReason::TimeLimit),
        "s-requeue" => stopping(StopReason::Requeue { by: "ann".into() }),
        "s-preempt" => stopping(StopReason::Preempted { by: JobId(Uuid::from_u128(9)), age_from: time(400) }),
        "s-evict" => stopping(StopReason::Evicted { message: "xid".into() }),
        "s-idle" => stopping(StopReason::Idle { message: "unused".into() }),
        "finished" => JobState::Finished { outcome: Box::new(Outcome::Succeeded), at: time(999) },
        other => panic!("no such column: {other}"),
    };
    let tried = column != "untried";
    Lifecycle { state, attempt: Attempt(if tried { 2 } else { 0 }), lost: u32::from(tried) }
}

fn event(row: &str) -> Event {
    let by: Name = "bob".into();
    let (word, rest) = row.split_once(' ').unwrap_or((row, ""));
    let (number, when) = rest.split_once(", ").unwrap_or((rest, ""));
    let ended = |result| Event::Ended {
        attempt: Attempt(number.parse().unwrap()),
        result,
        at: time(if when == "before" { 980 } else { 995 }),
        retry_at: time(if when == "later" { 1060 } else { 1000 }),
    };
    match word {
        "hold" => Event::Hold { by },
        "release" => {
            let not_before = match rest {
                "until" => Some(time(2000)),
                "past" => Some(time(999)),
                _ => None,
            };
            Event::Release { by, not_before }
        }
        "update" => Event::Update { by, queue: "other".into(), policy: std::sync::Arc::new(policy()) },
        "due" => Event::Due,
        "place" => Event::Place { placement: std::sync::Arc::new(placement()) },
        "started" => Event::Started { attempt: Attempt(number.parse().unwrap()), at: time(995) },
        "succeeded" => ended(RunResult::Succeeded),
        "failed" => ended(RunResult::Failed { reason: FailReason::ExitCode { task: "main".into(), code: 7 } }),
        "lost" => ended(RunResult::Lost { message: "reboot".into() }),
        "not" => Event::NotBegun {
            attempt: Attempt(number.split_once(' ').unwrap().1.parse().unwrap()),
            at: time(995),
            retry_at: time(if when == "later" { 1060 } else { 1000 }),
        },
        "cancel" => Event::Cancel { by },
        "requeue" => Event::Requeue { by },
        "time" => Event::TimeLimit,
        "evict" => Event::Evict { message: "xid".into() },
        "warn" => Event::Warn { message: "unused".into() },
        "idle" => Event::Idle { message: "unused".into() },
        "preempt" => Event::Preempt { by: JobId(Uuid::from_u128(9)), age_from: time(400) },
        other => panic!("no such row: {other}"),
    }
}

fn seconds(time: Timestamp) -> i64 {
    time.0 / 1_000_000
}

fn describe(before: &Lifecycle, answer: Result<(Lifecycle, scheduler_core::apply::Effects), Rejected>) -> String {
    let (after, effects) = match answer {
        Ok(made) => made,
        Err(Rejected::Finished) => return "end".to_owned(),
        Err(Rejected::AlreadySo { state }) if state == before.state.kind() => return "same".to_owned(),
        Err(Rejected::NotInState { state }) if state == before.state.kind() => return "-".to_owned(),
        Err(Rejected::StaleAttempt { present, .. }) if present == before.attempt => return "stale".to_owned(),
        Err(other) => return format!("{other:?}"),
    };
    if let Some(placed) = after.state.placement() {
        let was = before.state.placement().cloned().unwrap_or_else(placement);
        assert_eq!(*placed, was, "a placement never changes");
    }
    let mut text = match &after.state {
        JobState::Waiting { on: WaitFor::Hold } => "held".to_owned(),
        JobState::Waiting { on: WaitFor::NotBefore(at) } => format!("later@{}", seconds(*at)),
        JobState::Queued { since } => format!("queued@{}", seconds(*since)),
        JobState::Starting { .. } => format!("starting#{}", after.attempt),
        JobState::Running { since, .. } => format!("running@{}", seconds(*since)),
        JobState::Stopping { why, deadline, .. } => {
            let why = match &**why {
                StopReason::Cancel { by } => format!("s-cancel {by}"),
                StopReason::TimeLimit => "s-limit".to_owned(),
                StopReason::Requeue { by } => format!("s-requeue {by}"),
                StopReason::Idle { message } => format!("s-idle {message}"),
                StopReason::Evicted { message } => format!("s-evict {message}"),
                StopReason::Preempted { by, age_from } => format!("s-preempt {} {}", by.0.as_u128(), seconds(*age_from)),
            };
            format!("{why}@{}", seconds(*deadline))
        }
        JobState::Finished { outcome, at } => {
            let outcome = match &**outcome {
                Outcome::Succeeded => "succeeded".to_owned(),
                Outcome::Cancelled { by } => format!("cancelled {by}"),
                Outcome::Failed { reason: FailReason::TimeLimit } => "limit".to_owned(),
                Outcome::Failed { reason: FailReason::Idle { message } } => format!("idle {message}"),
                Outcome::Failed { reason: FailReason::ExitCode { code, .. } } => format!("exit {code}"),
                Outcome::Failed { reason: FailReason::Infrastructure { message } } => format!("lost {message}"),
                Outcome::Failed { reason } => format!("{reason:?}"),
            };
            format!("{outcome}@{}", seconds(*at))
        }
    };
    if after.lost != before.lost {
        text = format!("{text} lost={}", after.lost);
    }
    for effect in effects {
        text += match effect {
            Effect::Start { run } if run.attempt == after.attempt => "!start",
            Effect::Stop { run, policy } if run.attempt == after.attempt && policy == self::policy().stop => "!stop",
            Effect::Forget { run } if run.attempt == before.attempt => "!forget",
            _ => "!wrong",
        };
    }
    text
}

fn job() -> JobId {
    JobId(Uuid::from_u128(7))
}

#[test]
fn every_state_meets_every_event() {
    let mut lines = TABLE.trim().lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    let mut wrong = Vec::new();
    for line in lines {
        assert_eq!(line.len(), columns.len(), "row {}", line[0]);
        for (column, expected) in columns.iter().zip(&line).skip(1) {
            let before = from(column);
            let got = describe(&before, apply(&before, &policy(), job(), &event(line[0]), time(1000)));
            if got != *expected {
                wrong.push(format!("{} + {}: {got}, not {expected}", column, line[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_last_loss_is_a_failure() {
    let before = Lifecycle { lost: 2, ..from("running") };
    assert_eq!(
        describe(&before, apply(&before, &policy(), job(), &event("lost 2, now"), time(1000))),
        "lost reboot@995 lost=3!forget"
    );
    let once = Policy { max_attempts: 1, ..policy() };
    let before = Lifecycle { lost: 0, ..from("starting") };
    assert_eq!(
        describe(&before, apply(&before, &once, job(), &event("lost 2, later"), time(1000))),
        "lost reboot@995 lost=1!forget"
    );
}

#[test]
fn a_time_limit_is_not_over_before_its_time() {
    let limit =
        |policy: &Policy, now| describe(&from("running"), apply(&from("running"), policy, job(), &Event::TimeLimit, time(now)));
    assert_eq!(limit(&policy(), 999), "-");
    assert_eq!(limit(&policy(), 1000), "s-limit@1030!stop");
    assert_eq!(limit(&Policy { time_limit: None, ..policy() }, 1_000_000), "-");
}

#[test]
fn reports_from_the_future_are_entered_as_of_now() {
    let started = Event::Started { attempt: Attempt(2), at: time(5000) };
    let (after, _) = apply(&from("starting"), &policy(), job(), &started, time(1000)).unwrap();
    assert!(
        matches!(after.state, JobState::Running { since, .. } if since == time(1000)),
        "a limit counts from when tasks started"
    );
}

#[test]
fn a_lifecycle_survives_its_json() {
    for column in TABLE.trim().lines().next().unwrap().split('|').skip(1) {
        let lifecycle = from(column.trim());
        let text = serde_json::to_string(&lifecycle).unwrap();
        assert_eq!(serde_json::from_str::<Lifecycle>(&text).unwrap(), lifecycle);
    }
}
