//! Short jobs first: who passes whom, by how much at most, and what a change of the rule does to jobs in line.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, at, job, node, queue};
use proptest::prelude::*;
use scheduler_core::time::Span;
use scheduler_core::{ConfigError, QueueConfig, Scheduler, ShortFirst};

const HOUR: u64 = 3600;

/// 10 times the stay, at most what it leaves of an hour.
fn short_first() -> QueueConfig {
    QueueConfig { short_first: Some(ShortFirst { per_stay: 10, most: Span::from_secs(HOUR) }), ..queue("q", 0) }
}

/// One node of 100 cores, so that a core is a hundredth of all.
fn world(queue: QueueConfig) -> World {
    World::new(vec![queue], vec![node("a", 100, 0)])
}

#[test]
fn a_short_job_passes_a_long_one_that_came_earlier() {
    let mut world = world(short_first());
    world.submit(&job(1).limit(300), at(0));
    world.submit(&job(2).limit(50), at(1000));
    world.submit(&job(3), at(1001));
    world.submit(&job(4).limit(50), at(1002));
    assert_eq!(world.plan(at(2000)), [2, 4, 1, 3], "a job without a limit counts as the longest");
}

#[test]
fn nobody_who_comes_an_hour_later_passes() {
    let mut world = world(short_first());
    world.submit(&job(1), at(0));
    world.submit(&job(2).limit(1), at(3600));
    assert_eq!(world.plan(at(3600)), [1, 2]);
}

#[test]
fn what_takes_an_hour_anyway_counts_from_when_it_came() {
    let mut world = world(short_first());
    world.submit(&job(1).limit(300), at(0));
    world.submit(&job(2).limit(3600), at(100));
    world.submit(&job(3).limit(100_000), at(101));
    world.submit(&job(4).limit(3000), at(102));
    assert_eq!(world.plan(at(110)), [2, 3, 4, 1]);
}

#[test]
fn of_equally_long_jobs_the_wider_goes_first() {
    let mut world = world(short_first());
    world.submit(&job(1).limit(300), at(0));
    world.submit(&job(2).limit(300).asks(1, 50, 0), at(10));
    assert_eq!(world.plan(at(20)), [2, 1], "half of the node is its own, so it counts as later by half as much");
}

#[test]
fn priority_goes_before_length() {
    let mut world = world(short_first());
    world.submit(&job(1).limit(100_000).priority(1), at(0));
    world.submit(&job(2).limit(1), at(0));
    assert_eq!(world.plan(at(1)), [1, 2]);
}

#[test]
fn a_change_of_the_rule_orders_anew_who_waits() {
    for (before, after, order) in [(queue("q", 0), short_first(), [2, 1]), (short_first(), queue("q", 0), [1, 2])] {
        let mut world = world(before);
        world.submit(&job(1).limit(300), at(0));
        world.submit(&job(2).limit(50), at(1000));
        world.core.set_queue(after, at(1500)).unwrap();
        world.core.check_invariants().unwrap();
        assert_eq!(world.plan(at(2000)), order);
    }
}

#[test]
fn a_rule_out_of_range_is_refused() {
    for (per_stay, days) in [(0, 1), (1, 367)] {
        let rule = ShortFirst { per_stay, most: Span::from_secs(days * 24 * HOUR) };
        let config = common::config(vec![QueueConfig { short_first: Some(rule), ..queue("q", 0) }], vec![node("a", 1, 0)]);
        let error = Scheduler::new(config).err().unwrap();
        assert_eq!(error, ConfigError::ShortFirst { queue: "q".into(), per_stay, most: rule.most });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// On a machine where jobs run one at a time, nobody starts after a job that came more than an hour later.
    #[test]
    fn overtaking_is_bounded(jobs in prop::collection::vec((0..20_000_i64, prop::option::of(1..5_000_u64)), 2..40)) {
        let mut world = world(short_first());
        let mut jobs: Vec<_> = jobs;
        jobs.sort_unstable_by_key(|(arrival, _)| *arrival);
        for (number, (arrival, limit)) in jobs.iter().enumerate() {
            let build = job(number as u64).asks(1, 1, 0);
            world.submit(&limit.map_or(build.clone(), |limit| build.limit(limit)), at(*arrival));
        }
        let order = world.plan(at(30_000));
        prop_assert_eq!(order.len(), jobs.len());
        for (place, one) in order.iter().enumerate() {
            for other in &order[..place] {
                let (one, other) = (&jobs[*one as usize], &jobs[*other as usize]);
                prop_assert!(other.0 - one.0 <= 3600, "{:?} started after {:?}", one, other);
            }
        }
    }
}
