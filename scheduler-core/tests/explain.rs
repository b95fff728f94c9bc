//! Why a job is where it is: each reason with its figures, who is ahead by what rule, when it starts, and what would help.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Build, GIB, GRACE_S, World, aging, at, config, id, job, node, queue};
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::Seq;
use scheduler_core::state::StopReason;
use scheduler_core::time::Span;
use scheduler_core::{
    Change, CohortConfig, Config, Counted, Estimate, Explanation, Exposure, FairShare, Gang, JobRef, Limits, NodeConfig,
    Preemption, QueueConfig, Refused, Resource, Rule, Scheduler, Shortage, Shortfall, Suggestion, Unknown, Whose, Why,
};

fn reference(number: u64) -> JobRef {
    JobRef { id: id(number), seq: Seq(number) }
}

fn explain(world: &World, number: u64, now: i64) -> Explanation {
    world.core.explain(id(number), at(now)).unwrap()
}

fn why(world: &World, number: u64, now: i64) -> Why {
    explain(world, number, now).why
}

fn rules(explained: &Explanation) -> Vec<(u64, Rule)> {
    explained.position.as_ref().unwrap().ahead.iter().map(|ahead| (ahead.job.seq.0, ahead.rule)).collect()
}

fn changes(explained: &Explanation) -> Vec<Change> {
    explained.suggestions.iter().map(|suggestion| suggestion.change.clone()).collect()
}

fn two_gpu_nodes() -> World {
    World::new(vec![queue("q", 0)], vec![node("a", 8, 4), node("b", 8, 4)])
}

#[test]
fn too_few_gpus_on_one_node() {
    let mut world = two_gpu_nodes();
    world.submit(&job(1).asks(1, 1, 1).limit(90), at(0));
    world.submit(&job(2).asks(1, 1, 2).limit(600), at(0));
    world.submit(&job(3).asks(1, 1, 3), at(0));
    assert_eq!(world.run(at(0)), [1, 2, 3]);
    assert_eq!((world.places(1), world.places(3).len()), (vec!["0.0@a[a-gpu0]".to_owned()], 1));
    world.submit(&job(4).asks(1, 1, 4), at(5));
    let explained = explain(&world, 4, 5);
    let Why::Resources { shortfall, expected } = &explained.why else { panic!("{explained:?}") };
    let gpus = Shortage {
        resource: Resource::Gpu,
        asked: 4000,
        free: 2000,
        total: 8000,
        largest_task: 4000,
        largest_free: 1000,
        node: Some("a".into()),
    };
    assert_eq!(shortfall.shortages, [gpus]);
    assert_eq!(shortfall.gang, None);
    let end = at(600 + GRACE_S as i64);
    assert_eq!((shortfall.room_at.clone(), *expected), (Some(("a".into(), end)), Some(end)));
    assert_eq!(explained.estimate, Some(Estimate::Latest(end)));
    let smaller = Change::Gpus { task: "main".into(), gpus: 1 };
    assert_eq!(explained.suggestions, [Suggestion { change: smaller, nodes: vec!["a".into()] }]);
}

#[test]
fn the_first_and_who_stands_behind_it() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("a", 8, 2), node("b", 8, 2)]);
    world.submit(&job(1).asks(1, 1, 1).limit(90), at(0));
    world.submit(&job(2).asks(1, 1, 1), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(2, 1, 2).priority(1), at(1));
    world.submit(&job(4).asks(1, 1, 0), at(2));
    world.submit(&job(5).held(), at(2));
    world.submit(&job(6).after(at(60)), at(2));
    let explained = explain(&world, 3, 5);
    let Why::Resources { shortfall, expected: None } = &explained.why else { panic!("{explained:?}") };
    assert_eq!(shortfall.gang, Some(Gang { task: "main".into(), needed: 2, possible: 1 }));
    assert_eq!(explained.estimate, Some(Estimate::Unknown(Unknown::NoTimeLimit(reference(2)))));
    assert_eq!(world.core.explain(id(99), at(5)), None);
    assert_eq!(why(&world, 5, 5), Why::Held);
    assert_eq!(why(&world, 6, 5), Why::NotBefore(at(60)));
    assert_eq!(explain(&world, 6, 5).estimate, Some(Estimate::NotBefore(at(60))));
    let running = Why::Running { since: at(0), until: Some(at(90)), exposure: Exposure::default() };
    assert_eq!(why(&world, 1, 5), running);
    world.done(2, at(6));
    let end = at(90 + GRACE_S as i64);
    let Why::Resources { expected: Some(got), .. } = why(&world, 3, 6) else { panic!() };
    assert_eq!(got, end);
    world.done(1, at(7));
    assert_eq!((why(&world, 3, 7), explain(&world, 3, 7).estimate), (Why::Scheduling, Some(Estimate::Now)));
}

#[test]
fn it_would_fit_and_would_delay_who_has_a_reservation() {
    let mut world = World::small(8, 0);
    world.submit(&job(1).asks(1, 6, 0).limit(3600), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 8, 0).limit(60), at(1));
    world.submit(&job(3).asks(1, 2, 0).limit(7200), at(2));
    world.submit(&job(4).asks(1, 1, 0), at(3));
    assert_eq!(world.run(at(3)), Vec::<u64>::new());
    let start = at(3600 + GRACE_S as i64);
    let explained = explain(&world, 3, 10);
    let Why::Reserved { head, more: 0, at: Some(reserved), stay: Some(stay) } = &explained.why else { panic!("{explained:?}") };
    assert_eq!((head.job, head.rule, *reserved), (reference(2), Rule::Fifo, start));
    assert_eq!(*stay, Span::from_secs(7200 + GRACE_S));
    // One minute less than there is, because whoever follows it types for a while.
    assert_eq!(changes(&explained), [Change::TimeLimit(Span::from_secs(58 * 60))]);
    assert_eq!(explained.estimate, Some(Estimate::Latest(start + Span::from_secs(60 + GRACE_S))));
    assert_eq!(explained.position.unwrap().place, 2);
    let Why::Reserved { stay: None, .. } = why(&world, 4, 10) else { panic!() };
}

#[test]
fn a_gang_of_which_only_a_part_fits() {
    let mut world = two_gpu_nodes();
    world.submit(&job(1).asks(1, 1, 2), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(8, 1, 1), at(1));
    let explained = explain(&world, 2, 1);
    let Why::Resources { shortfall, .. } = &explained.why else { panic!("{explained:?}") };
    assert_eq!(shortfall.gang, Some(Gang { task: "main".into(), needed: 8, possible: 6 }));
    assert_eq!(changes(&explained), [Change::Replicas(6)]);
    assert_eq!(explained.suggestions[0].nodes, ["a".into(), "b".into()]);
    world.submit(&job(3).asks(9, 1, 1).least(7).priority(1), at(1));
    assert!(changes(&explain(&world, 3, 1)).contains(&Change::MinAvailable(6)));
}

fn cores(cores: u64) -> Limits {
    Limits { cpu: Some(CpuMillis(cores * 1000)), ..Limits::NONE }
}

#[test]
fn limits_of_tenants_queues_and_cohorts() {
    let tenant = scheduler_core::TenantLimits { jobs: None, amounts: cores(2) };
    let cohort =
        |name: &str, guaranteed| QueueConfig { cohort: Some("pool".into()), guaranteed: cores(guaranteed), ..queue(name, 0) };
    let queues = vec![
        QueueConfig { tenant, ..queue("t", 0) },
        QueueConfig { limit: cores(4), ..queue("l", 0) },
        cohort("x", 2),
        cohort("y", 2),
        queue("free", 0),
    ];
    let config = Config { cohorts: vec![CohortConfig::named("pool".into())], ..config(queues, vec![node("a", 32, 0)]) };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    for (number, queue, cores) in [(1, "t", 2), (2, "t", 1), (3, "l", 3), (4, "l", 3), (5, "x", 4), (6, "x", 1)] {
        world.submit(&job(number).queue(queue).asks(1, cores, 0), at(0));
    }
    assert_eq!(world.run(at(0)), [1, 3, 5]);
    let limit = |number| match why(&world, number, 0) {
        Why::Limit { whose, of, counted, held, asked, limit } => (whose, of.as_str().to_owned(), counted, held, asked, limit),
        other => panic!("{other:?}"),
    };
    let cpu = Counted::Amount(Resource::Cpu);
    assert_eq!(limit(2), (Whose::Tenant, "default".to_owned(), cpu, 2000, 1000, 2000));
    assert_eq!(limit(4), (Whose::Queue, "l".to_owned(), cpu, 3000, 3000, 4000));
    assert_eq!(limit(6), (Whose::Cohort, "pool".to_owned(), cpu, 4000, 1000, 4000));
    let changes = changes(&explain(&world, 4, 0));
    assert_eq!(changes[0], Change::Cpu { task: "main".into(), cpu: CpuMillis(1000) });
    assert_eq!(explain(&world, 2, 0).suggestions.last().unwrap().change, Change::Queue("free".into()));
    // A smaller one waits behind the one that waits for the limit.
    world.submit(&job(7).queue("l"), at(1));
    let Why::KeptBack { first, whose: Whose::Queue, counted, .. } = why(&world, 7, 1) else { panic!("{:?}", why(&world, 7, 1)) };
    assert_eq!((first.job, first.rule, counted), (reference(4), Rule::Fifo, cpu));
}

#[test]
fn who_is_ahead_and_by_what_rule() {
    let mut world = World::new(vec![aging("q", 5, 100), queue("other", 50)], vec![node("a", 1, 0)]);
    world.submit(&job(1), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2), at(0));
    world.submit(&job(3).priority(3).namespace("b"), at(1));
    world.submit(&job(4), at(250));
    world.submit(&job(5).priority(1), at(250));
    for number in 6..20 {
        world.submit(&job(number), at(251));
    }
    let explained = explain(&world, 5, 260);
    assert_eq!(rules(&explained), [(3, Rule::Priority { theirs: 8, own: 6 }), (2, Rule::Age)]);
    let explained = explain(&world, 19, 260);
    let position = explained.position.clone().unwrap();
    assert_eq!((position.place, position.queued, position.ahead.len()), (18, 18, 5));
    assert_eq!(rules(&explained)[3], (4, Rule::Fifo));
    assert_eq!(position.ahead[0].namespace, "b".into());
    // Over all queues another one is first.
    world.submit(&job(20).queue("other"), at(260));
    let Why::Behind { first, .. } = why(&world, 3, 260) else { panic!() };
    assert_eq!((first.job, first.rule), (reference(20), Rule::Priority { theirs: 50, own: 8 }));
}

#[test]
fn shares_decide_whose_turn_it_is() {
    let fair = QueueConfig { fair_share: Some(FairShare::equal(Span::from_secs(3600))), ..queue("q", 0) };
    let mut world = World::new(vec![fair], vec![node("a", 4, 0)]);
    for number in 1..=3 {
        world.submit(&job(number).namespace("a"), at(0));
    }
    world.submit(&job(4).namespace("b"), at(0));
    assert_eq!(world.run(at(0)).len(), 4);
    world.submit(&job(5).namespace("a"), at(1));
    world.submit(&job(6).namespace("b"), at(2));
    world.core.plan(at(1800), 1);
    let explained = explain(&world, 5, 1800);
    let [(6, Rule::TenantShare { theirs, own })] = rules(&explained)[..] else { panic!("{explained:?}") };
    assert!(
        (2195..2200).contains(&own) && (730..734).contains(&theirs),
        "three quarters and one quarter of 1 - 2^-(1/2): {own} {theirs}"
    );
    assert!(rules(&explain(&world, 6, 1800)).is_empty());
}

fn yields(name: &str) -> QueueConfig {
    QueueConfig { preemptible: true, ..queue(name, 0) }
}

#[test]
fn runs_that_are_ended_for_it() {
    let preemption = Preemption { within_queue: true, reclaim: false, across_queues: true };
    let config = Config { preemption, ..config(vec![yields("q")], vec![node("a", 4, 0)]) };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    world.submit(&job(1).asks(1, 4, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let exposure = Exposure { within_queue: true, reclaim: false, across_queues: true };
    assert_eq!(why(&world, 1, 1), Why::Running { since: at(0), until: None, exposure });
    world.submit(&job(2).asks(1, 2, 0).priority(5), at(1));
    assert_eq!(why(&world, 2, 1), Why::MakingRoom { victims: vec![reference(1)], until: None }, "the next pass asks");
    let made = world.core.plan(at(2), usize::MAX);
    assert_eq!(made.len(), 1);
    let deadline = at(2 + GRACE_S as i64);
    let explained = explain(&world, 2, 3);
    assert_eq!(explained.why, Why::MakingRoom { victims: vec![reference(1)], until: Some(deadline) });
    assert_eq!(explained.estimate, Some(Estimate::Latest(deadline)));
    let Why::Stopping { reason: StopReason::Preempted { .. }, for_job, .. } = why(&world, 1, 3) else { panic!() };
    assert_eq!(for_job, Some(reference(2)));
}

#[test]
fn what_was_lost_waits_for_its_next_try() {
    let mut world = World::small(4, 0);
    world.submit(&job(1), at(0));
    world.run(at(0));
    let event = Event::Ended {
        attempt: world.attempt(1),
        result: RunResult::Lost { message: "gone".into() },
        at: at(5),
        retry_at: at(8),
    };
    world.handle(1, event, at(5));
    let explained = explain(&world, 1, 6);
    assert_eq!(explained.why, Why::Backoff { at: at(8), lost: 1, max_attempts: 3 });
    assert_eq!((explained.attempt.0, explained.estimate), (1, Some(Estimate::NotBefore(at(8)))));
}

/// A core to which a job was restored that it would not accept.
fn restored(nodes: Vec<NodeConfig>, build: &Build) -> World {
    let mut world = World::new(vec![queue("q", 0)], nodes);
    world.core.restore(build.live(common::queued(at(0))), at(0)).unwrap();
    world
}

#[test]
fn what_can_never_start_any_more() {
    let world = restored(vec![node("a", 8, 2)], &job(1).asks(1, 1, 4));
    let refused = Refused::TaskTooLarge { task: "main".into(), resource: Resource::Gpu, asked: 4000, largest: 2000 };
    let explained = explain(&world, 1, 0);
    assert_eq!((explained.why, explained.estimate), (Why::Never(refused), Some(Estimate::Unknown(Unknown::Change))));
    assert_eq!(why(&restored(Vec::new(), &job(1)), 1, 0), Why::NoNodes);
}

#[test]
fn less_memory_or_fewer_cores() {
    let mut world = World::small(8, 0);
    world.submit(&job(1).asks(1, 5, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    let mut large = job(2).asks(1, 4, 0);
    large.tasks[0].request.memory = MemoryBytes(2 * GIB);
    world.submit(&large, at(1));
    assert_eq!(changes(&explain(&world, 2, 1)), [Change::Cpu { task: "main".into(), cpu: CpuMillis(3000) }]);
    assert_eq!(
        why(&world, 2, 1),
        Why::Resources {
            shortfall: Shortfall {
                taken: Vec::new(),
                more_taken: 0,
                part: None,
                shortages: vec![Shortage {
                    resource: Resource::Cpu,
                    asked: 4000,
                    free: 3000,
                    total: 8000,
                    largest_task: 4000,
                    largest_free: 3000,
                    node: Some("a".into()),
                }],
                closest: None,
                gang: None,
                room_at: None,
            },
            expected: None,
        }
    );
}

#[test]
fn a_long_queue_is_looked_at_in_part() {
    let mut world = World::small(1, 0);
    let first = job(0).limit(60);
    world.core.submit(first.build(at(0)), at(0)).unwrap();
    assert_eq!(world.run(at(0)), [0]);
    for number in 1..=10_000 {
        world.core.submit(job(number).limit(60).build(at(1)), at(1)).unwrap();
    }
    let near = explain(&world, 10, 2);
    assert_eq!(near.estimate, Some(Estimate::Latest(at(10 * (60 + GRACE_S as i64)))));
    let far = explain(&world, 9000, 2);
    let Why::Behind { first, .. } = &far.why else { panic!("{far:?}") };
    assert_eq!((first.job, far.position.unwrap().place), (reference(1), 9000));
    assert!(matches!(far.estimate, Some(Estimate::Unknown(Unknown::TooFar { .. }))));
}
