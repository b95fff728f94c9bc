//! Fair shares: tenants of a queue and queues of a cohort converge to their weights; use is forgotten with time and kept over restarts.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use common::{World, at, config, id, job, node, queue};
use proptest::prelude::*;
use scheduler_core::event::{Event, RunResult};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{CohortConfig, Config, FairShare, QueueConfig, Scheduler, Weight};

const HOUR: Span = Span::from_secs(3600);

fn weight(weight: f64) -> Weight {
    Weight::new(weight).unwrap()
}

fn fair(weights: &[(&str, f64)]) -> QueueConfig {
    let weights = weights.iter().map(|(name, each)| ((*name).into(), weight(*each))).collect();
    QueueConfig { fair_share: Some(FairShare { half_life: HOUR, weights }), ..queue("q", 0) }
}

/// One kind of job of somebody: (queue, namespace, cores, milliseconds).
type Kind<'a> = (&'a str, &'a str, u64, u64);

/// Lets everybody always have jobs queued until `count` have ended; core-milliseconds that each kind got, those of running jobs included.
fn contend(core: &mut Scheduler, kinds: &[Kind<'_>], count: usize) -> Vec<f64> {
    let mut now = at(0);
    let mut got = vec![0.0; kinds.len()];
    let mut ends: BinaryHeap<Reverse<(Timestamp, u64)>> = BinaryHeap::new();
    let mut number = 0;
    let mut owners = BTreeMap::new();
    let mut submit = |core: &mut Scheduler, owners: &mut BTreeMap<u64, (usize, Timestamp)>, kind: usize, now| {
        let (queue, namespace, cores, _) = kinds[kind];
        core.submit(job(number).queue(queue).namespace(namespace).asks(1, cores, 0).build(now), now).unwrap();
        owners.insert(number, (kind, now));
        number += 1;
    };
    for kind in 0..kinds.len() {
        for _ in 0..20 {
            submit(core, &mut owners, kind, now);
        }
    }
    let mut ended = 0;
    while ended < count {
        for made in core.plan(now, 100) {
            let (kind, since) = owners.get_mut(&made.seq.0).unwrap();
            *since = now;
            ends.push(Reverse((now + Span::from_millis(kinds[*kind].3), made.seq.0)));
            let kind = *kind;
            submit(core, &mut owners, kind, now);
        }
        let Some(Reverse((end, which))) = ends.pop() else { panic!("nothing runs") };
        now = end;
        let attempt = core.view(id(which)).unwrap().lifecycle.attempt;
        core.handle(id(which), Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now }, now).unwrap();
        let (kind, since) = owners[&which];
        got[kind] += (kinds[kind].2 * now.since(since).0) as f64;
        ended += 1;
    }
    for Reverse((_, which)) in ends {
        let (kind, since) = owners[&which];
        got[kind] += (kinds[kind].2 * now.since(since).0) as f64;
    }
    core.check_invariants().unwrap();
    got
}

/// How far parts are from what they should be, the worst of them.
fn error(got: &[f64], weights: &[f64]) -> f64 {
    let (all, sum) = (got.iter().sum::<f64>(), weights.iter().sum::<f64>());
    got.iter().zip(weights).map(|(got, weight)| (got / all / (weight / sum) - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn three_tenants_get_one_two_and_four_parts_of_two_slots() {
    let weights = [("a", 1.0), ("b", 2.0), ("c", 4.0)];
    let mut core = Scheduler::new(config(vec![fair(&weights)], vec![node("n", 2, 0)])).unwrap();
    let got = contend(&mut core, &[("q", "a", 1, 50), ("q", "b", 1, 50), ("q", "c", 1, 50)], 2000);
    assert!(error(&got, &[1.0, 2.0, 4.0]) < 0.02, "{got:?}");
}

#[test]
fn queues_of_a_cohort_get_their_parts() {
    let member = |name: &str, each| QueueConfig { cohort: Some("pool".into()), weight: weight(each), ..queue(name, 0) };
    let cohorts = vec![CohortConfig { fair_share: Some(HOUR), ..CohortConfig::named("pool".into()) }];
    let queues = vec![member("x", 1.0), member("y", 3.0), queue("alone", -5)];
    let mut core = Scheduler::new(Config { cohorts, ..config(queues, vec![node("n", 4, 0)]) }).unwrap();
    let got = contend(&mut core, &[("x", "a", 1, 100), ("y", "a", 2, 70), ("alone", "a", 1, 100)], 2000);
    assert!(error(&got[..2], &[1.0, 3.0]) < 0.02, "{got:?}");
    assert!(got[2] < got[0] / 20.0, "a queue of lower priority outside the cohort gets what is left: {got:?}");
}

#[test]
fn a_burst_on_an_idle_cluster_is_divided_at_once() {
    let mut world = World::new(vec![fair(&[("b", 3.0)])], vec![node("n", 8, 0)]);
    for number in 0..20 {
        world.submit(&job(number).namespace("a"), at(0));
        world.submit(&job(100 + number).namespace("b"), at(0));
    }
    let started = world.run(at(0));
    assert_eq!(started.iter().filter(|number| **number < 100).count(), 2, "of eight: {started:?}");
}

#[test]
fn whoever_used_much_waits_until_it_is_forgotten() {
    let mut world = World::new(vec![fair(&[])], vec![node("n", 1, 0)]);
    world.submit(&job(1).namespace("a"), at(0));
    world.run(at(0));
    world.submit(&job(2).namespace("a"), at(1));
    world.submit(&job(3).namespace("b"), at(2));
    world.done(1, at(3600));
    assert_eq!(world.run(at(3600)), [3], "b has used nothing yet");
    world.submit(&job(4).namespace("b"), at(3601));
    world.done(3, at(3700));
    world.submit(&job(5).namespace("a"), at(3700));
    assert_eq!(world.run(at(3700)), [4], "100 seconds against an hour");
    world.done(4, at(10_800));
    assert_eq!(world.run(at(10_800)), [2], "two hours against one that counts a quarter");
}

#[test]
fn priority_decides_within_a_tenant_and_the_share_between_them() {
    let mut world = World::new(vec![fair(&[])], vec![node("n", 1, 0)]);
    world.submit(&job(1).namespace("a"), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).namespace("a").priority(10), at(1));
    world.submit(&job(3).namespace("b").priority(-10), at(1));
    world.submit(&job(4).namespace("b"), at(1));
    world.done(1, at(5));
    assert_eq!(world.run(at(5)), [4]);
    world.done(4, at(60));
    assert_eq!(world.run(at(60)), [2]);
}

#[test]
fn use_is_kept_over_a_restart() {
    let config = || config(vec![fair(&[])], vec![node("n", 1, 0)]);
    let mut old = World { core: Scheduler::new(config()).unwrap() };
    for number in 1..=3 {
        old.submit(&job(number).namespace("a"), at(0));
    }
    assert_eq!(old.run(at(0)), [1]);
    old.done(1, at(500));
    let kept = old.core.usage_snapshot(at(500));
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].cpu_milli_seconds / 10_000, 47, "500 seconds, a little of it forgotten: {kept:?}");
    let text = serde_json::to_string(&kept).unwrap();
    let mut new = World { core: Scheduler::new(config()).unwrap() };
    assert_eq!(new.core.restore_usage(&serde_json::from_str::<Vec<_>>(&text).unwrap()), 0);
    assert_eq!(new.core.usage_snapshot(at(500)), kept);
    new.submit(&job(2).namespace("a"), at(501));
    new.submit(&job(4).namespace("b"), at(502));
    assert_eq!(new.run(at(503)), [4], "without the past job 2 would be first");
    let mut plain = World::small(1, 0);
    assert_eq!(plain.core.restore_usage(&kept), 1);
    assert_eq!(plain.core.usage_snapshot(at(501)), []);
}

#[test]
fn sharing_begins_and_ends_while_jobs_run() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("n", 2, 0)]);
    world.submit(&job(1).namespace("a"), at(0));
    world.submit(&job(2).namespace("a"), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).namespace("a"), at(1));
    world.submit(&job(4).namespace("b"), at(2));
    world.core.set_queue(fair(&[]), at(3)).unwrap();
    world.core.check_invariants().unwrap();
    world.done(1, at(4));
    assert_eq!(world.run(at(4)), [4], "a holds one and b nothing");
    world.core.set_queue(queue("q", 0), at(5)).unwrap();
    world.submit(&job(5).namespace("b").priority(1), at(6));
    world.done(2, at(7));
    assert_eq!(world.run(at(7)), [5]);
    world.done(4, at(8));
    assert_eq!(world.run(at(8)), [3]);
}

#[test]
fn what_is_no_weight_is_refused() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-9, 1e10] {
        assert!(Weight::new(bad).is_err(), "{bad}");
    }
    assert_eq!(Weight::new(f64::NAN).unwrap_err().to_string(), "weight NaN is not between 0.001 and 1000000");
    let share = FairShare::equal(Span(0));
    let config = config(vec![QueueConfig { fair_share: Some(share), ..queue("q", 0) }], vec![]);
    assert!(Scheduler::new(config).err().unwrap().to_string().contains("half-life of 0 s"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the weights, the lengths of jobs and the machine: what each tenant gets comes to its weight, but for 2 % and a few jobs.
    /// Sizes are equal and fill the machine: small jobs may always take what is left beside large ones.
    #[test]
    fn shares_converge_to_weights(
        tenants in prop::collection::vec((1..6_u32, 20..200_u64), 2..5),
        (slots, size) in (6..20_u64, 1..3_u64),
    ) {
        let names = ["a", "b", "c", "d"];
        let weights: Vec<_> = tenants.iter().zip(names).map(|((weight, ..), name)| (name, f64::from(*weight))).collect();
        let mut core = Scheduler::new(config(vec![fair(&weights)], vec![node("n", slots * size, 0)])).unwrap();
        let kinds: Vec<Kind<'_>> =
            tenants.iter().zip(names).map(|((_, millis), name)| ("q", name, size, *millis)).collect();
        let got = contend(&mut core, &kinds, 4000);
        let (all, sum) = (got.iter().sum::<f64>(), weights.iter().map(|(_, weight)| weight).sum::<f64>());
        let largest = tenants.iter().map(|(_, millis)| (size * millis * 1000) as f64).fold(0.0, f64::max);
        for (got, (name, weight)) in got.iter().zip(&weights) {
            let wanted = all * weight / sum;
            prop_assert!((got - wanted).abs() < wanted * 0.02 + largest * 5.0, "{name} got {got}, not {wanted}: {tenants:?}");
        }
    }
}
