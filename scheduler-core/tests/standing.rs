//! How queues, tenants and cohorts stand, and what a change of guarantees makes of runs that are there.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{at, config, job, node, queue};
use scheduler_core::amounts::CpuMillis;
use scheduler_core::event::Event;
use scheduler_core::ids::Attempt;
use scheduler_core::state::StateKind;
use scheduler_core::time::Span;
use scheduler_core::{CohortConfig, Config, FairShare, Limits, Preemption, QueueConfig, Scheduler, Weight};

fn cores(cores: u64) -> Limits {
    Limits { cpu: Some(CpuMillis(cores * 1000)), ..Limits::NONE }
}

fn member(name: &str, guaranteed: Limits) -> QueueConfig {
    QueueConfig { cohort: Some("pool".into()), guaranteed, preemptible: true, ..queue(name, 0) }
}

fn core(queues: Vec<QueueConfig>, fair_share: Option<Span>) -> Scheduler {
    let cohorts = vec![CohortConfig { fair_share, limit: cores(4), ..CohortConfig::named("pool".into()) }];
    let preemption = Preemption { reclaim: true, ..Preemption::default() };
    Scheduler::new(Config { cohorts, preemption, ..config(queues, vec![node("a", 4, 0)]) }).unwrap()
}

/// Submits a job of so many cores and starts what can start.
fn run(core: &mut Scheduler, number: u64, queue: &str, namespace: &str, asked: u64) {
    core.submit(job(number).queue(queue).namespace(namespace).asks(1, asked, 0).build(at(0)), at(0)).unwrap();
    for placed in core.plan(at(0), usize::MAX) {
        core.handle(placed.job, Event::Started { attempt: Attempt(1), at: at(0) }, at(0)).unwrap();
    }
}

#[test]
fn shares_are_parts_of_the_cluster_divided_by_weights() {
    let hour = Span::from_secs(3_600);
    let mut fair = QueueConfig { weight: Weight::new(2.0).unwrap(), ..member("fair", cores(1)) };
    fair.fair_share = Some(FairShare { half_life: hour, weights: vec![("heavy".into(), Weight::new(4.0).unwrap())] });
    let mut core = core(vec![fair, member("other", cores(1))], Some(hour));
    run(&mut core, 1, "fair", "heavy", 2);
    run(&mut core, 2, "fair", "light", 1);
    // Held for a half-life: half of what holding it for ever comes to.
    let now = at(3_600);
    let queue = core.queue_standing(&"fair".into(), now).unwrap();
    assert_eq!((queue.standing.held, queue.borrowed), ([3_000, 0, 0], [2_000, 0, 0]));
    assert_eq!(queue.standing.held_share, 375_000, "three quarters of the cluster, by a weight of two");
    assert!(queue.standing.used_share.unwrap().abs_diff(187_500) <= 20, "{queue:?}");
    let tenants: Vec<_> = core.tenant_standings(&"fair".into(), now).collect();
    let of = |name: &str| tenants.iter().find(|tenant| tenant.namespace.as_str() == name).unwrap();
    assert_eq!((of("heavy").jobs, of("heavy").standing.held_share), (1, 125_000));
    assert_eq!(of("light").standing.held_share, 250_000);
    assert!(of("light").standing.used_share.unwrap().abs_diff(125_000) <= 20);
    let cohorts: Vec<_> = core.cohort_standings().collect();
    assert_eq!((cohorts[0].held[0], cohorts[0].bound[0], cohorts[0].guaranteed[0]), (3_000, Some(4_000), Some(2_000)));
    assert_eq!(core.queue_standing(&"none".into(), now), None);
}

#[test]
fn a_guarantee_that_is_given_later_is_taken_from_who_started_last() {
    let mut core = core(vec![member("own", Limits::NONE), member("guest", Limits::NONE)], None);
    for number in 1..=4 {
        run(&mut core, number, "guest", "default", 1);
    }
    core.submit(job(9).queue("own").asks(1, 2, 0).build(at(1)), at(1)).unwrap();
    let ended = |core: &mut Scheduler| -> Vec<u64> {
        let made = core.plan(at(2), usize::MAX);
        core.check_invariants().unwrap();
        made.iter().filter(|made| made.to.state.kind() == StateKind::Stopping).map(|made| made.seq.0).collect()
    };
    assert_eq!(ended(&mut core), [0; 0], "nothing is guaranteed");
    core.set_queue(member("guest", cores(2)), at(2)).unwrap();
    assert_eq!(ended(&mut core), [0; 0], "the claim would borrow itself");
    core.set_queue(member("own", cores(2)), at(2)).unwrap();
    assert_eq!(ended(&mut core), [4, 3], "the two that started first are the guest's own");
}
