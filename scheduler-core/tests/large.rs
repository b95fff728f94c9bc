//! A cluster large enough that nodes are searched and ends are kept in order: it decides as one that walks and sorts.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Build, at, config, id, job, node, queue};
use scheduler_core::event::{Event, RunResult};
use scheduler_core::job::{Constraints, Selector};
use scheduler_core::state::{JobState, StateKind};
use scheduler_core::time::Timestamp;
use scheduler_core::{NodeConfig, NodeState, Scheduler};

const NODES: u64 = 170;

/// A cheap scrambled number, the same in every run.
fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn machine(index: u64) -> NodeConfig {
    let gpus = if index.is_multiple_of(3) { 0 } else { 4 };
    let mut node = node(&format!("n{index}"), 6 + index % 3, gpus);
    node.labels = [("zone".into(), ["x", "y"][(index % 2) as usize].into())].into();
    node
}

fn build(number: u64) -> Build {
    let random = scramble(number);
    let job = match random % 20 {
        0 => job(number).asks(1, 2, 1),
        1 => job(number).asks(1, 1, 2),
        2 => job(number).asks(4, 2, 0),
        3 => job(number).asks(6, 1, 4).least(3),
        // A gang that waits for a good part of the cluster.
        4 if random % 64 == 4 => job(number).asks(50, 6, 0),
        _ => job(number),
    };
    let zone = |zone: &str| Selector::In { label: "zone".into(), values: vec![zone.into()] };
    let job = match (random >> 8) % 5 {
        0 => job.wants(&Constraints { nodes: vec![zone("x")], ..Constraints::NONE }),
        1 => job.spread(),
        _ => job,
    };
    if (random >> 16).is_multiple_of(4) { job } else { job.limit(50 + (random >> 20) % 300) }
}

/// A core made from what the first one knows: it has searched nothing so far, so it walks.
fn rebuilt(core: &Scheduler, jobs: &[Build], lost: &[u64], now: Timestamp) -> Scheduler {
    let mut twin = Scheduler::new(config(vec![queue("q", 0)], (0..NODES).map(machine).collect())).unwrap();
    for node in lost {
        twin.set_node_state(&format!("n{node}").into(), NodeState::Cordoned, now).unwrap();
    }
    let active: Vec<u64> = core.active().map(|(job, _)| job.0.as_u128() as u64 & 0xffff).collect();
    let others = (0..jobs.len() as u64).filter(|number| !active.contains(number));
    for number in active.iter().copied().chain(others) {
        if let Some(view) = core.view(id(number)) {
            let mut live = jobs[number as usize].live(view.lifecycle.clone());
            live.submitted_at = view.submitted_at;
            twin.restore(live, now).unwrap();
        }
    }
    twin
}

#[test]
fn a_large_cluster_decides_as_one_that_looks_at_every_node() {
    let mut core = Scheduler::new(config(vec![queue("q", 0)], (0..NODES).map(machine).collect())).unwrap();
    let mut jobs = Vec::new();
    let mut most = 0;
    for round in 0..40_u64 {
        let now = at(5 * round.cast_signed());
        for _ in 0..60 {
            let job = build(jobs.len() as u64);
            core.submit(job.build(now), now).unwrap();
            jobs.push(job);
        }
        let cordoned = [scramble(round) % NODES];
        core.set_node_state(&format!("n{}", cordoned[0]).into(), NodeState::Cordoned, now).unwrap();
        let mut twin = rebuilt(&core, &jobs, &cordoned, now);
        let made = core.plan(now, usize::MAX);
        assert_eq!(twin.plan(now, usize::MAX), made, "round {round}");
        core.check_invariants().unwrap();
        for transition in &made {
            let attempt = transition.to.attempt;
            core.handle(transition.job, Event::Started { attempt, at: now }, now).unwrap();
        }
        most = most.max(core.active().count());
        core.set_node_state(&format!("n{}", cordoned[0]).into(), NodeState::Ready, now).unwrap();
        core.tick(now, usize::MAX);
        let end: Vec<_> = core
            .active()
            .filter(|(job, lifecycle)| {
                matches!(lifecycle.state, JobState::Stopping { .. })
                    || scramble(job.0.as_u128() as u64 ^ round).is_multiple_of(30)
            })
            .map(|(job, lifecycle)| (job, lifecycle.attempt))
            .collect();
        for (job, attempt) in end {
            let ended = Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now };
            core.handle(job, ended, now).unwrap();
        }
        core.check_invariants().unwrap();
    }
    assert!(most > 520, "{most} runs: too few for the order of ends");
    assert!(core.counts()[StateKind::Queued as usize] > 100, "{:?}: nobody waited", core.counts());
    assert!(core.counts()[StateKind::Finished as usize] > 500, "{:?}", core.counts());
}
