//! Builders: jobs, changes and batches with as little said as a test needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{Attempt, JobId, Name, Revision, Seq, Term};
use scheduler_core::job::{NewJob, Policy, Shape, StopPolicy, TaskGroup};
use scheduler_core::state::{FailReason, JobState, Lifecycle, Outcome, Placement, Slot, StateKind, StopReason, WaitFor};
use scheduler_core::time::{Span, Timestamp};
use smallvec::smallvec;
use store::{Batch, EventRecord, JobRecord, KeyRecord, Owner, Store, Submit};
use uuid::Uuid;

/// Where the tests' clock begins; every job gets its own second.
pub(crate) const EPOCH: i64 = 1_790_000_000_000_000;

pub(crate) fn at(second: u64) -> Timestamp {
    Timestamp(EPOCH) + Span::from_secs(second)
}

/// The id of the job with this sequence: they grow together.
pub(crate) fn id(seq: u64) -> JobId {
    let mut rest = [0; 10];
    rest[2..].copy_from_slice(&seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    JobId(uuid::Builder::from_unix_timestamp_millis(1_790_000_000_000 + seq, &rest).into_uuid())
}

pub(crate) fn queued(seq: u64) -> Lifecycle {
    lifecycle(JobState::Queued { since: at(seq) }, 0, 0)
}

pub(crate) fn lifecycle(state: JobState, attempt: u32, lost: u32) -> Lifecycle {
    Lifecycle { state, attempt: Attempt(attempt), lost }
}

/// A queued job of namespace `default`, queue `default-batch`, owner `ada`.
pub(crate) fn submit(seq: u64) -> Submit {
    submit_to(seq, "default", "default-batch")
}

pub(crate) fn submit_to(seq: u64, namespace: &str, queue: &str) -> Submit {
    let request = Request { cpu: CpuMillis(1_000), memory: MemoryBytes(1 << 30), gpus: 1 };
    let tasks = vec![TaskGroup::new("worker".into(), 2, request)];
    // Some say more than their tasks, which the table keeps too.
    let shape = Shape { min_available: u32::from(seq % 5 == 1), ..Shape::new(namespace.into(), queue.into(), tasks) };
    let policy = Policy {
        priority: 7,
        max_attempts: 3,
        time_limit: Some(Span::from_secs(60)),
        stop: StopPolicy { signal: 2, grace: Span::from_secs(5) },
        checkpointable: true,
    };
    Submit {
        job: NewJob {
            id: id(seq),
            seq: Seq(seq),
            shape: Arc::new(shape),
            policy: Arc::new(policy),
            submitted_at: at(seq),
            start_after: None,
            hold: false,
        },
        lifecycle: queued(seq),
        owner: Owner { user: "ada".into(), uid: 1_000 },
        name: Name::from(format!("job-{seq}")),
        labels: Vec::new(),
        spec: Bytes::from(format!(r#"{{"name":"job-{seq}","command":["true"]}}"#)),
    }
}

pub(crate) fn placement(node: &str) -> Placement {
    let slot = |replica| Slot {
        group: 0,
        replica,
        node: node.into(),
        gpus: smallvec![Name::from(format!("GPU-{node}-{replica}"))],
        share: None,
    };
    Placement::new(vec![slot(0), slot(1)])
}

pub(crate) fn starting(attempt: u32) -> Lifecycle {
    lifecycle(JobState::Starting { placement: std::sync::Arc::new(placement("a")) }, attempt, 0)
}

pub(crate) fn running(attempt: u32, since: u64) -> Lifecycle {
    lifecycle(JobState::Running { placement: std::sync::Arc::new(placement("a")), since: at(since) }, attempt, 0)
}

pub(crate) fn finished(outcome: Outcome, attempt: u32, when: u64) -> Lifecycle {
    lifecycle(JobState::Finished { outcome: Box::new(outcome), at: at(when) }, attempt, 0)
}

/// Every variant of every state, with each kind of data once.
pub(crate) fn every_lifecycle() -> Vec<Lifecycle> {
    let place = || std::sync::Arc::new(placement("ä-node"));
    let stopping = |why| JobState::Stopping { placement: place(), why: Box::new(why), deadline: at(99) };
    let failed = |reason| JobState::Finished { outcome: Box::new(Outcome::Failed { reason }), at: at(77) };
    vec![
        lifecycle(JobState::Waiting { on: WaitFor::Hold }, 0, 0),
        lifecycle(JobState::Waiting { on: WaitFor::NotBefore(at(500)) }, 2, 1),
        lifecycle(JobState::Queued { since: at(3) }, 0, 0),
        lifecycle(JobState::Queued { since: Timestamp(-5) }, 4, 2),
        lifecycle(JobState::Starting { placement: place() }, 1, 0),
        lifecycle(JobState::Running { placement: place(), since: at(12) }, 3, 2),
        lifecycle(stopping(StopReason::Cancel { by: "grace \"hopper\"".into() }), 1, 0),
        lifecycle(stopping(StopReason::TimeLimit), 1, 0),
        lifecycle(stopping(StopReason::Requeue { by: "ada".into() }), u32::MAX, u32::MAX),
        lifecycle(JobState::Finished { outcome: Box::new(Outcome::Succeeded), at: at(77) }, 1, 0),
        lifecycle(JobState::Finished { outcome: Box::new(Outcome::Cancelled { by: "ada".into() }), at: at(77) }, 0, 0),
        lifecycle(failed(FailReason::ExitCode { task: "worker-1".into(), code: 255 }), 1, 0),
        lifecycle(failed(FailReason::Signal { task: "worker-0".into(), signal: 9 }), 1, 0),
        lifecycle(failed(FailReason::TimeLimit), 1, 0),
        lifecycle(failed(FailReason::Start { message: "no such program: trüe\n".into() }), 1, 0),
        lifecycle(failed(FailReason::Infrastructure { message: "rebooted".into() }), 3, 3),
    ]
}

/// A change of the job with this sequence. The event is one that could have made it so; the store only records its word.
pub(crate) fn change(seq: u64, from: &Lifecycle, to: Lifecycle) -> Transition {
    let attempt = to.attempt;
    let event = match &to.state {
        JobState::Waiting { on: WaitFor::Hold } => Event::Hold { by: "ada".into() },
        JobState::Waiting { .. } => Event::Release { by: "ada".into(), not_before: None },
        JobState::Queued { .. } => Event::Due,
        JobState::Starting { placement } => Event::Place { placement: placement.clone() },
        JobState::Running { since, .. } => Event::Started { attempt, at: *since },
        JobState::Stopping { .. } => Event::Cancel { by: "ada".into() },
        JobState::Finished { at, .. } => Event::Ended { attempt, result: RunResult::Succeeded, at: *at, retry_at: *at },
    };
    Transition {
        job: id(seq),
        seq: Seq(seq),
        from: (from.state.kind(), from.attempt),
        to,
        event,
        at: at(1_000 + seq),
        effects: smallvec![],
    }
}

/// What is asked of every batch here: the term of the store that it goes to.
pub(crate) fn batch(store: &dyn Store) -> Batch {
    Batch { term: store.head().term, ..Batch::default() }
}

pub(crate) fn batch_of_term(term: Term) -> Batch {
    Batch { term, ..Batch::default() }
}

pub(crate) async fn commit_submits(store: &dyn Store, submits: Vec<Submit>) {
    store.commit(Batch { submits, ..batch(store) }).await.unwrap();
}

pub(crate) async fn commit_changes(store: &dyn Store, changes: Vec<Transition>) {
    store.commit(Batch { changes, ..batch(store) }).await.unwrap();
}

pub(crate) fn key(scope: &str, key: &str, second: u64, jobs: &[u64]) -> KeyRecord {
    let jobs = jobs.iter().map(|seq| id(*seq)).collect();
    KeyRecord { scope: scope.to_owned(), key: key.to_owned(), fingerprint: [7; 32], jobs, at: at(second) }
}

/// Everything in the table, in the order of its revisions and sequences: what two moments are compared by.
#[derive(PartialEq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) jobs: BTreeMap<u64, String>,
    pub(crate) events: Vec<EventRecord>,
    pub(crate) counts: [u64; 6],
}

impl Snapshot {
    pub(crate) async fn of(store: &dyn Store) -> Self {
        let mut jobs = BTreeMap::new();
        let mut query = store::JobQuery { limit: 1_000, ..store::JobQuery::default() };
        loop {
            let page = store.jobs(&query).await.unwrap();
            jobs.extend(page.jobs.iter().map(|job| (job.seq.0, format!("{job:?}"))));
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        let mut events: Vec<EventRecord> = Vec::new();
        loop {
            let after = events.last().map_or(store.head().floor, |event| event.revision);
            let more = store.events(after, None, 1_000).await.unwrap();
            if more.is_empty() {
                break;
            }
            events.extend(more);
        }
        Self { jobs, events, counts: store.counts().await.unwrap() }
    }

    /// Revisions of the events, which must have no gap.
    pub(crate) fn assert_gapless(&self) {
        for pair in self.events.windows(2) {
            assert_eq!(pair[0].revision.next(), pair[1].revision, "revisions have a gap");
        }
    }

    pub(crate) fn last_revision(&self) -> Revision {
        self.events.last().map_or(Revision(0), |event| event.revision)
    }
}

pub(crate) async fn job(store: &dyn Store, seq: u64) -> JobRecord {
    store.job(id(seq)).await.unwrap().expect("the job is in the table")
}

pub(crate) fn kind(job: &JobRecord) -> StateKind {
    job.lifecycle.state.kind()
}

pub(crate) fn unknown() -> JobId {
    JobId(Uuid::from_u128(0xdead))
}
