//! Answers that need quotas, shares or preemption, from a real core to the sentence; the others are in `daemon/tests/why.rs`.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use api::{Reason, State};
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::Event;
use scheduler_core::ids::{JobId, Revision, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{
    CohortConfig, Config, FairShare, Limits, NodeConfig, NodeState, Preemption, QueueConfig, Scheduler, TenantLimits,
};
use store::{JobRecord, Owner};
use uuid::Uuid;

use super::{unfinished, words};
use crate::objects::Directory;

/// 2026-11-21T10:00:00Z and some seconds.
fn at(seconds: i64) -> Timestamp {
    Timestamp((1_795_255_200 + seconds) * 1_000_000)
}

fn id(number: u64) -> JobId {
    JobId(Uuid::from_u128(u128::from(number)))
}

fn cores(cores: u64) -> Limits {
    Limits { cpu: Some(CpuMillis(cores * 1000)), ..Limits::NONE }
}

struct World(Scheduler);

impl World {
    fn new(queues: Vec<QueueConfig>, preemption: Preemption) -> Self {
        let node = NodeConfig {
            name: "a".into(),
            cpu: CpuMillis(16_000),
            memory: MemoryBytes(1 << 34),
            gpus: Vec::new(),
            labels: std::collections::BTreeMap::new(),
        };
        let cohorts = vec![CohortConfig::named("pool".into())];
        Self(Scheduler::new(Config { queues, cohorts, nodes: vec![node], preemption, ..Config::default() }).unwrap())
    }

    fn submit(&mut self, number: u64, queue: &str, namespace: &str, cores: u64, priority: i32) {
        let request = Request { cpu: CpuMillis(cores * 1000), ..Request::default() };
        let task =
            TaskGroup { name: "task".into(), replicas: 1, request, constraints: scheduler_core::job::Constraints::default() };
        let job = NewJob {
            id: id(number),
            seq: Seq(number),
            shape: Arc::new(Shape::new(namespace.into(), queue.into(), vec![task])),
            policy: Arc::new(Policy { priority, ..Policy::default() }),
            submitted_at: at(0),
            start_after: None,
            hold: false,
        };
        self.0.submit(job, at(0)).unwrap();
    }

    /// A pass, and every start is reported.
    fn run(&mut self, now: Timestamp) {
        for made in self.0.plan(now, 100) {
            drop(self.0.handle(made.job, Event::Started { attempt: made.to.attempt, at: now }, now));
        }
    }

    fn why(&self, number: u64, now: Timestamp) -> api::Why {
        self.why_with(number, now, &[])
    }

    fn why_with(&self, number: u64, now: Timestamp, nodes: &[api::Node]) -> api::Why {
        let view = self.0.view(id(number)).unwrap();
        let record = JobRecord {
            id: view.id,
            seq: view.seq,
            namespace: view.shape.namespace.clone(),
            queue: view.shape.queue.clone(),
            owner: Owner { user: "ada".into(), uid: 1000 },
            name: "train".into(),
            lifecycle: view.lifecycle.clone(),
            revision: Revision(1),
            submitted_at: view.submitted_at,
            start_after: None,
            started_at: None,
            last_placement: None,
            spec: Vec::new().into(),
        };
        let spec = api::JobSpec {
            tasks: vec![api::TaskSpec { name: Some("task".to_owned()), ..api::TaskSpec::default() }],
            ..api::JobSpec::default()
        };
        unfinished(&self.0.explain(view.id, now).unwrap(), &record, &spec, Vec::new(), &Directory::default(), nodes)
    }
}

fn queue(name: &str) -> QueueConfig {
    QueueConfig::named(name.into())
}

#[test]
fn quotas_are_told_with_what_is_held_asked_and_allowed() {
    let tenant = TenantLimits { jobs: Some(1), amounts: Limits::NONE };
    let member = |name| QueueConfig { cohort: Some("pool".into()), guaranteed: cores(1), ..queue(name) };
    let queues = vec![
        QueueConfig { limit: cores(4), ..queue("small") },
        QueueConfig { tenant, ..queue("single") },
        member("lends"),
        member("borrows"),
    ];
    let mut world = World::new(queues, Preemption::default());
    world.submit(1, "small", "a", 3, 0);
    world.submit(2, "small", "a", 3, 0);
    world.submit(4, "single", "a", 1, 0);
    world.submit(5, "single", "a", 1, 0);
    world.submit(6, "borrows", "a", 2, 0);
    world.submit(7, "borrows", "a", 1, 0);
    world.run(at(0));
    let why = world.why(2, at(1));
    assert_eq!(why.message, "The limit of queue \"small\" is 4 CPUs: 3 are held, and it asks for 3.");
    assert_eq!(
        serde_json::to_value(&why.reason).unwrap(),
        serde_json::json!({"reason": "limit", "whose": "queue", "of": "small", "counted": "cpu", "held": "3", "asked": "3", "limit": "4"})
    );
    assert_eq!(why.suggestions[0].message, "With `--cpus 1` it would start at once on node a.");
    assert_eq!((why.suggestions[0].field.as_str(), why.suggestions[0].value.as_str()), ("tasks[0].resources.cpu", "1"));
    // With one more behind it, a smaller one in its place would come too late.
    world.submit(3, "small", "a", 1, 0);
    assert!(world.why(2, at(1)).suggestions.is_empty());
    assert_eq!(
        world.why(3, at(1)).message,
        "Job #2 of namespace \"a\" (it came first) waits for the limit of queue \"small\" on CPUs, and what is left of that is kept for it."
    );
    assert_eq!(world.why(5, at(1)).message, "The limit of namespace \"a\" in its queue is 1 job at once: 1 run.");
    assert_eq!(world.why(7, at(1)).message, "The limit of cohort \"pool\" is 2 CPUs: 2 are held, and it asks for 1.");
}

#[test]
fn turns_are_told_with_shares() {
    let fair = QueueConfig { fair_share: Some(FairShare::equal(Span::from_secs(3600))), ..queue("fair") };
    let mut world = World::new(vec![fair], Preemption::default());
    world.submit(1, "fair", "a", 12, 0);
    world.submit(2, "fair", "b", 4, 0);
    world.run(at(0));
    world.submit(3, "fair", "a", 1, 0);
    world.submit(4, "fair", "b", 2, 0);
    world.run(at(3600));
    let why = world.why(3, at(3600));
    assert_eq!(
        why.message,
        "Job #4 of namespace \"b\" (its namespace's turn: share 0.12 against 0.38) waits for room, and this one does not fit beside it: \
         it needs 1 CPU, and none of 16 is free."
    );
    assert_eq!(why.position, Some(2));
    let api::Rule::TenantShare { theirs, own } = why.ahead[0].rule else { panic!("{:?}", why.ahead) };
    assert!(theirs < own && own < 0.4, "{theirs} {own}");
}

#[test]
fn preemption_is_told_to_both() {
    let yields = QueueConfig { preemptible: true, ..queue("yields") };
    let within = Preemption { within_queue: true, ..Preemption::default() };
    let mut world = World::new(vec![yields], within);
    world.submit(1, "yields", "a", 16, 0);
    world.run(at(0));
    assert!(
        world
            .why(1, at(1))
            .message
            .ends_with("It has no time limit; it may be ended before to make room for jobs of higher priority in its queue.")
    );
    world.submit(2, "yields", "a", 8, 5);
    world.run(at(10));
    let why = world.why(2, at(11));
    assert_eq!(
        why.message,
        "Room is being made for it: job #1 was asked to end, and is killed at 2026-11-21T10:00:40Z at the latest."
    );
    assert_eq!(why.estimate.unwrap().latest.unwrap().to_string(), "2026-11-21T10:00:40Z");
    let why = world.why(1, at(11));
    assert_eq!(
        why.message,
        "It is being ended: it makes room for job #2; then it is queued again. What is left of it at 2026-11-21T10:00:40Z is killed."
    );
    let Reason::Stopping { for_job: Some(job), .. } = why.reason else { panic!() };
    assert_eq!((job.number, why.state), (Some(2), State::Stopping));
}

#[test]
fn a_closed_node_is_told_with_what_keeps_it_closed() {
    let mut world = World::new(vec![queue("batch")], Preemption::default());
    world.submit(1, "batch", "a", 1, 0);
    world.0.set_node_state(&"a".into(), NodeState::Cordoned, at(0)).unwrap();
    let reason = "cordoned in the cluster; `kubectl uncordon a` opens it".to_owned();
    let node = api::Node { name: "a".to_owned(), reason: Some(reason), ..api::Node::default() };
    assert_eq!(
        world.why_with(1, at(1), &[node]).message,
        "It has room only on node a (cordoned in the cluster; `kubectl uncordon a` opens it), which takes no tasks now: it starts once that \
         takes tasks again."
    );
    let bare = world.why(1, at(1)).message;
    assert_eq!(bare, "It has room only on node a, which takes no tasks now: it starts once that takes tasks again.");
}

#[test]
fn a_held_job_of_an_object_is_told_where_to_look() {
    let spec = |key: &str| api::JobSpec { annotations: [(key.to_owned(), "after".to_owned())].into(), ..api::JobSpec::default() };
    let said = |spec: &api::JobSpec| words::held(Seq(8), spec, &"team".into());
    let of_a_flash_job = said(&spec(crate::flashjobs::FLASH_JOB_NAME));
    assert!(of_a_flash_job.contains("`kubectl get flashjob after --namespace team --output wide` says"), "{of_a_flash_job}");
    assert!(said(&spec(crate::flashjobs::POD_NAME)).contains("its pod after has scheduling gates"));
    assert_eq!(said(&api::JobSpec::default()), "It is held: it waits until somebody releases it (`flash release 8`).");
}
