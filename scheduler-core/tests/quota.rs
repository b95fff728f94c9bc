//! Limits and quotas: of tenants, queues and cohorts; who waits for them, who does not; changes while running; what is refused.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::amounts::CpuMillis;
use scheduler_core::time::Span;
use scheduler_core::{
    ChangeError, CohortConfig, Config, Counted, FairShare, Limits, QueueConfig, Refused, Resource, Scheduler, TenantLimits,
    Whose, Why,
};

fn cores(cores: u64) -> Limits {
    Limits { cpu: Some(CpuMillis(cores * 1000)), ..Limits::NONE }
}

/// A queue of cohort `pool`: what it is guaranteed and may hold, in cores.
fn member(name: &str, guaranteed: u64, limit: u64) -> QueueConfig {
    QueueConfig { cohort: Some("pool".into()), guaranteed: cores(guaranteed), limit: cores(limit), ..queue(name, 0) }
}

fn world(queues: Vec<QueueConfig>) -> World {
    let cohorts = vec![CohortConfig::named("pool".into())];
    let config = Config { cohorts, ..config(queues, vec![node("a", 64, 8)]) };
    World { core: Scheduler::new(config).unwrap() }
}

#[test]
fn a_queue_runs_no_more_jobs_at_once_than_it_may() {
    let mut world = world(vec![QueueConfig { max_concurrent: Some(2), ..queue("q", 0) }, queue("other", -1)]);
    for number in 1..=4 {
        world.submit(&job(number), at(0));
    }
    world.submit(&job(9).queue("other"), at(0));
    assert_eq!(world.run(at(0)), [1, 2, 9]);
    let explained = world.core.explain(id(4), at(0)).unwrap();
    let position = explained.position.unwrap().place;
    let Why::Limit { whose, counted, held, asked, limit, .. } = explained.why else { panic!() };
    assert_eq!((position, whose, counted, held, asked, limit), (2, Whose::Queue, Counted::Jobs, 2, 1, 2));
    world.done(2, at(1));
    assert_eq!(world.run(at(1)), [3]);
}

#[test]
fn a_tenant_holds_no_more_than_it_may_and_others_go_on() {
    let amounts = Limits { gpus: Some(2), ..Limits::NONE };
    let mut world = world(vec![QueueConfig { tenant: TenantLimits { jobs: Some(3), amounts }, ..queue("q", 0) }]);
    world.submit(&job(1).namespace("a").asks(1, 1, 2), at(0));
    world.submit(&job(2).namespace("a").asks(1, 1, 1), at(0));
    world.submit(&job(3).namespace("b").asks(1, 1, 1), at(0));
    for number in 4..8 {
        world.submit(&job(number).namespace("a"), at(0));
    }
    assert_eq!(world.run(at(0)), [1, 3, 4, 5], "two GPUs, three jobs");
    world.done(4, at(1));
    assert_eq!(world.run(at(1)), [6]);
    world.done(1, at(2));
    assert_eq!(world.run(at(2)), [2]);
}

#[test]
fn a_large_job_at_a_limit_is_not_starved_by_small_ones() {
    let mut world = world(vec![QueueConfig { limit: cores(8), ..queue("q", 0) }]);
    world.submit(&job(1).asks(1, 6, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 4, 0), at(1));
    world.submit(&job(3).asks(1, 1, 0), at(1));
    world.submit(&job(4).asks(1, 0, 1), at(1));
    assert_eq!(world.run(at(1)), [4], "job 3 would take of the cores that job 2 waits for, job 4 does not");
    world.done(1, at(2));
    assert_eq!(world.run(at(2)), [2, 3]);
}

#[test]
fn what_is_idle_is_lent_and_a_guarantee_is_not_used_up_by_borrowers() {
    let mut world = world(vec![member("x", 8, 12), member("y", 8, 16)]);
    for number in 1..=5 {
        world.submit(&job(number).queue("x").asks(1, 4, 0), at(0));
    }
    assert_eq!(world.run(at(0)), [1, 2, 3], "eight of its own and four borrowed: its limit");
    world.submit(&job(10).queue("y").asks(1, 4, 0), at(1));
    world.submit(&job(11).queue("y").asks(1, 2, 0), at(1));
    assert_eq!(world.run(at(1)), [10]);
    let Some(Why::Limit { whose: Whose::Cohort, held: 16_000, asked: 2000, limit: 16_000, .. }) =
        world.core.explain(id(11), at(1)).map(|explained| explained.why)
    else {
        panic!()
    };
    world.done(1, at(2));
    assert_eq!(world.run(at(2)), [11], "of its own guarantee, before anybody borrows again");
    world.done(2, at(3));
    assert_eq!(world.run(at(3)), [4]);
}

#[test]
fn whoever_waits_for_the_pool_is_not_passed_by_other_borrowers() {
    let mut world = world(vec![member("x", 4, 20), member("y", 4, 16), member("z", 8, 16)]);
    world.submit(&job(1).queue("x").asks(1, 10, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).queue("x").asks(1, 7, 0), at(1));
    world.submit(&job(3).queue("y").asks(1, 5, 0), at(2));
    world.submit(&job(4).queue("z").asks(1, 6, 0), at(3));
    assert_eq!(world.run(at(3)), [4], "job 3 would borrow what job 2 waits for, job 4 has it from its own guarantee");
    world.done(4, at(4));
    world.done(1, at(4));
    assert_eq!(world.run(at(4)), [2, 3]);
}

#[test]
fn cohorts_under_one_root_lend_to_each_other_within_their_limits() {
    let child =
        |name: &str, limit: Limits| CohortConfig { parent: Some("root".into()), limit, ..CohortConfig::named(name.into()) };
    let cohorts = vec![child("left", cores(6)), CohortConfig::named("root".into()), child("right", Limits::NONE)];
    let of = |name: &str, cohort: &str| QueueConfig { cohort: Some(cohort.into()), guaranteed: cores(4), ..queue(name, 0) };
    let config = Config { cohorts, ..config(vec![of("l", "left"), of("r", "right")], vec![node("a", 64, 0)]) };
    let mut world = World { core: Scheduler::new(config).unwrap() };
    for number in 0..10 {
        world.submit(&job(number).queue("l"), at(0));
    }
    world.submit(&job(100).queue("r"), at(0));
    let started = world.run(at(0));
    assert_eq!(started, [0, 1, 2, 3, 100, 4, 5], "what is guaranteed, then two borrowed: the limit of the left cohort");
    world.submit(&job(101).queue("r").asks(1, 2, 0), at(1));
    assert_eq!(world.run(at(1)), [] as [u64; 0], "the pool is the sum of the guarantees");
}

#[test]
fn what_no_limit_will_ever_allow_is_refused() {
    let tenant = TenantLimits { jobs: None, amounts: Limits { gpus: Some(1), ..Limits::NONE } };
    let world = world(vec![QueueConfig { tenant, ..member("x", 8, 12) }, member("y", 2, 64)]);
    let refused = |job: &common::Build| world.core.admit(&job.shape(), &job.policy).unwrap_err();
    let over = |resource, asked, limit, whose| Refused::OverLimit { resource, asked, limit, whose };
    assert_eq!(refused(&job(1).queue("x").asks(1, 1, 2)), over(Resource::Gpu, 2000, 1000, Whose::Tenant));
    assert_eq!(refused(&job(1).queue("x").asks(13, 1, 0)), over(Resource::Cpu, 13_000, 12_000, Whose::Queue));
    assert_eq!(refused(&job(1).queue("y").asks(11, 1, 0)), over(Resource::Cpu, 11_000, 10_000, Whose::Cohort));
    assert_eq!(
        refused(&job(1).queue("y").asks(11, 1, 0)).to_string(),
        "the job's tasks ask for 11000 cpu (millicores) together, the limit of the cohort is 10000"
    );
}

#[test]
fn queues_come_change_and_go_while_jobs_wait() {
    let mut world = world(vec![queue("q", 0), queue("r", 5)]);
    for number in 1..=3 {
        world.submit(&job(number).priority(number as i32), at(0));
        world.submit(&job(10 + number).queue("r").priority(-1), at(0));
    }
    world.core.set_queue(QueueConfig { max_concurrent: Some(2), ..queue("q", 100) }, at(1)).unwrap();
    world.core.check_invariants().unwrap();
    assert_eq!(world.run(at(1)), [3, 2, 11, 12, 13]);
    world.core.set_queue(queue("new", 0), at(2)).unwrap();
    world.submit(&job(20).queue("new"), at(2));
    assert_eq!(world.run(at(2)), [20]);
    let refused = |world: &mut World, name: &str| world.core.remove_queue(&name.into(), at(3)).unwrap_err();
    assert_eq!(refused(&mut world, "new"), ChangeError::HasJobs { name: "new".into(), jobs: 1 });
    assert_eq!(refused(&mut world, "nope"), ChangeError::Unknown { name: "nope".into() });
    world.done(20, at(3));
    world.core.remove_queue(&"new".into(), at(3)).unwrap();
    assert!(world.core.queues().all(|queue| queue.name.as_str() != "new"));
    assert!(matches!(world.core.admit(&job(21).queue("new").shape(), &job(21).policy), Err(Refused::UnknownQueue { .. })));
    world.core.set_queue(queue("q", 0), at(4)).unwrap();
    assert_eq!(world.run(at(4)), [1], "the limit is gone");
    world.core.set_queue(queue("new", 0), at(5)).unwrap();
    world.submit(&job(22).queue("new"), at(5));
    assert_eq!(world.run(at(5)), [22]);
}

/// Who starts changes whose turn it is, and so for whom a slot is kept.
#[test]
fn a_pass_that_may_not_be_the_last_says_so() {
    for fair_share in [Some(FairShare::equal(Span::from_secs(3600))), None] {
        let fair = fair_share.is_some();
        let mut world = world(vec![QueueConfig { max_concurrent: Some(2), fair_share, ..queue("q", 0) }, queue("other", 1)]);
        world.submit(&job(1).queue("other").asks(1, 10, 0), at(0));
        assert_eq!(world.run(at(0)), [1]);
        world.submit(&job(2).namespace("a").asks(1, 60, 0), at(1));
        world.submit(&job(3).namespace("a").asks(1, 1, 0), at(1));
        world.submit(&job(4).namespace("b").asks(1, 1, 0), at(1));
        assert_eq!((world.run(at(1)), world.core.is_unsettled()), (vec![3], fair), "a slot is kept for job 2, which was first");
        assert_eq!(
            (world.run(at(1)), world.core.is_unsettled()),
            (if fair { vec![4] } else { vec![] }, false),
            "it is the turn of `b`"
        );
        assert_eq!((world.run(at(1)), world.core.is_unsettled()), (vec![], false));
    }
}

#[test]
fn jobs_of_other_queues_do_not_notice_that_one_is_removed() {
    let mut world = world(vec![queue("gone", 5), member("x", 4, 8), member("y", 4, 8), queue("z", 0)]);
    world.submit(&job(1).queue("x").asks(1, 4, 0), at(0));
    world.submit(&job(2).queue("y").namespace("b").asks(1, 8, 0), at(0));
    world.submit(&job(4).queue("z"), at(0));
    assert_eq!(world.run(at(0)), [1, 4]);
    world.core.remove_queue(&"gone".into(), at(1)).unwrap();
    world.core.check_invariants().unwrap();
    assert_eq!(world.core.queues().map(|queue| queue.name.to_string()).collect::<Vec<_>>(), ["x", "y", "z"]);
    world.submit(&job(5).queue("z"), at(1));
    assert_eq!(world.run(at(1)), [5]);
    world.done(1, at(2));
    assert_eq!(world.run(at(2)), [2], "what `x` gave back goes to its cohort");
    for done in [2, 4, 5] {
        world.done(done, at(3));
        world.core.check_invariants().unwrap();
    }
    world.core.set_queue(queue("gone", 5), at(4)).unwrap();
    assert_eq!(world.core.queues().last().unwrap().name.as_str(), "gone", "it is another one");
    world.submit(&job(6).queue("gone"), at(4));
    assert_eq!(world.run(at(4)), [6]);
    world.core.check_invariants().unwrap();
}

#[test]
fn an_acceptance_is_checked_anew_after_a_change() {
    let mut world = world(vec![queue("q", 0)]);
    world.submit(&job(1).asks(1, 4, 0), at(0));
    world.core.set_queue(QueueConfig { limit: cores(2), ..queue("q", 0) }, at(1)).unwrap();
    assert!(world.core.admit(&job(2).asks(1, 4, 0).shape(), &job(2).policy).is_err());
    world.submit(&job(3), at(1));
    assert_eq!(world.run(at(1)), [3], "job 1 can never start now, so it keeps nobody back");
}

#[test]
fn wrong_cohorts_and_quotas_are_named() {
    let error = |queues: Vec<QueueConfig>, cohorts: Vec<CohortConfig>| {
        let config = Config { cohorts, ..config(queues, vec![]) };
        Scheduler::new(config).err().unwrap().to_string()
    };
    let cohort = |name: &str, parent: &str| CohortConfig { parent: Some(parent.into()), ..CohortConfig::named(name.into()) };
    let pool = || CohortConfig::named("pool".into());
    assert_eq!(
        error(vec![], vec![cohort("a", "b"), cohort("b", "a")]),
        "cohort \"a\": its parents lead back to it, must end at a cohort without a parent"
    );
    assert!(error(vec![], vec![cohort("a", "a")]).contains("lead back"));
    assert_eq!(error(vec![], vec![cohort("a", "b")]), "\"a\": cohort \"b\" does not exist");
    assert_eq!(error(vec![member("q", 1, 1)], vec![]), "\"q\": cohort \"pool\" does not exist");
    assert_eq!(error(vec![], vec![pool(), pool()]), "cohort \"pool\" is configured twice");
    assert_eq!(error(vec![member("q", 2, 1)], vec![pool()]), "\"q\": 2000 cpu (millicores) guaranteed, its limit is 1000");
    let small = CohortConfig { limit: cores(3), ..pool() };
    assert_eq!(
        error(vec![member("q", 2, 2), member("r", 2, 2)], vec![small]),
        "\"pool\": 4000 cpu (millicores) guaranteed, its limit is 3000"
    );
    let mut world = world(vec![member("q", 1, 1)]);
    assert!(matches!(world.core.remove_cohort(&"pool".into(), at(0)), Err(ChangeError::Invalid(_))));
    assert!(matches!(world.core.remove_cohort(&"nope".into(), at(0)), Err(ChangeError::Unknown { .. })));
    world.core.set_cohort(CohortConfig::named("other".into()), at(0)).unwrap();
    world.core.remove_cohort(&"other".into(), at(0)).unwrap();
}

/// Kinds of jobs on nodes with room for everything, so that only limits keep anybody from starting.
#[derive(Clone, Debug)]
enum Step {
    Submit { queue: usize, tenant: usize, cores: u64, gpus: u32, priority: i32 },
    End(usize),
    Plan,
    Limit { queue: usize, limit: u64, jobs: u32 },
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..2_usize, 0..6_u64, 0..3_u32, -1..2_i32)
            .prop_map(|(queue, tenant, cores, gpus, priority)| Step::Submit { queue, tenant, cores, gpus, priority }),
        4 => (0..50_usize).prop_map(Step::End),
        5 => Just(Step::Plan),
        1 => (0..3_usize, 6..20_u64, 1..6_u32).prop_map(|(queue, limit, jobs)| Step::Limit { queue, limit, jobs }),
        1 => (0..3_usize).prop_map(Step::Remove),
    ]
}

const QUEUES: [&str; 3] = ["x", "y", "z"];

/// No limit is exceeded by a start, and whoever does not start is kept back by a limit, or stands behind somebody who is.
fn check_pass(world: &World, started: &[u64]) -> Result<(), TestCaseError> {
    let mut pool = 0;
    for config in world.core.queue_configs() {
        let queue = world.core.queues().find(|queue| queue.name == &config.name).unwrap();
        pool += queue.cpu_used.0;
        let asks = |number: &&u64| {
            let shape = world.core.view(id(**number)).unwrap().shape;
            shape.queue == config.name && shape.tasks[0].request.cpu.0 > 0
        };
        if started.iter().any(|number| asks(&number)) {
            prop_assert!(queue.active <= u64::from(config.max_concurrent.unwrap_or(u32::MAX)));
            prop_assert!(
                queue.cpu_used <= config.limit.cpu.unwrap_or(CpuMillis(u64::MAX)),
                "{} {:?}",
                config.name,
                queue.cpu_used
            );
        }
    }
    prop_assert!(pool <= 18_000 || started.is_empty(), "{pool} of the pool");
    for number in 0..200 {
        let Some(Why::Scheduling) = world.core.explain(id(number), at(0)).map(|explained| explained.why) else { continue };
        // Whoever would borrow is also kept back by others who wait for what is theirs.
        let shape = world.core.view(id(number)).unwrap().shape.clone();
        let queue = world.core.queues().find(|queue| *queue.name == shape.queue).unwrap();
        if queue.cpu_used.0 + shape.tasks[0].request.cpu.0 > 6000 {
            continue;
        }
        return Err(TestCaseError::fail(format!("{number} could start and did not")));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_and_only_limits_hold_back(steps in prop::collection::vec(step(), 1..120)) {
        let tenant = TenantLimits { jobs: Some(3), amounts: Limits { gpus: Some(4), ..Limits::NONE } };
        let x = QueueConfig { tenant, ..member("x", 6, 12) };
        let mut world = world(vec![x.clone(), member("y", 6, 18), member("z", 6, 18)]);
        let mut number = 0;
        for step in steps {
            match step {
                Step::Submit { queue, tenant, cores, gpus, priority } => {
                    let build = job(number).queue(QUEUES[queue]).namespace(["a", "b"][tenant]).asks(1, cores, gpus).priority(priority);
                    if world.core.submit(build.build(at(0)), at(0)).is_ok() {
                        number += 1;
                    }
                }
                Step::End(which) => {
                    let active: Vec<u64> = world.core.active().map(|(job, _)| job.0.as_u128() as u64 & 0xffff).collect();
                    if !active.is_empty() {
                        world.done(active[which % active.len()], at(0));
                    }
                }
                Step::Plan => {
                    // Who starts changes which queue is first, and so for whom a blocked head keeps room: what is right is where passes come to
                    // rest. In the daemon the next one comes with the first word of who was started.
                    let mut started = Vec::new();
                    loop {
                        let more = world.plan(at(0));
                        if more.is_empty() {
                            break;
                        }
                        started.extend(more);
                    }
                    check_pass(&world, &started)?;
                }
                Step::Limit { queue, limit, jobs } => {
                    let config = QueueConfig { max_concurrent: Some(jobs), ..member(QUEUES[queue], 6, limit) };
                    world.core.set_queue(config, at(0)).unwrap();
                }
                // Where it has no jobs; others, which have, move up meanwhile.
                Step::Remove(queue) => {
                    if world.core.remove_queue(&QUEUES[queue].into(), at(0)).is_ok() {
                        world.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
                        world.core.set_queue(member(QUEUES[queue], 6, 18), at(0)).unwrap();
                    }
                }
            }
            world.core.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
        }
    }
}
