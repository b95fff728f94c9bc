//! Shares of short jobs that are lined up. What counts as use is what runs had a slot for: not their time in line, and not the time until
//! their ends were heard of. So whoever is lined up is whoever has had least of what is his, and shares are as exact as without a line.
//!
//! The executor is as that of a machine: ends are gathered before they are told, starts are told only of runs that go on, what is decided
//! takes effect once it is durable, now and then that takes long, and no two runs take quite the same time.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod runner;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use common::{at, config, id, job, node, queue};
use proptest::prelude::*;
use runner::{Order, Report, Runner};
use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::event::{Effect, Event, RunResult};
use scheduler_core::ids::{Attempt, JobId, RunId};
use scheduler_core::state::{JobState, Lifecycle, Line, Placement, Slot};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{FairShare, QueueConfig, Scheduler, UsageRecord, Weight};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// What one turn decides at most.
const STARTS: usize = 128;
/// A run that goes on for so long is said to have started before it ends.
const FRESH: Span = Span::from_millis(10);

/// How a machine goes, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Going {
    slots: u64,
    /// How long runs take at least, and by how much longer the longest do.
    run: (u64, u64),
    /// For how long ends wait for others while somebody is in line.
    gather: u64,
    /// How long a decision takes to be durable; and one in 16, which is held up.
    commit: (u64, u64),
    seed: u64,
}

/// Runs of 11 to 12 ms on two slots, as three tenants of a small machine have them.
const QUIET: Going = Going { slots: 2, run: (11_000, 800), gather: 20_000, commit: (2_000, 3_000), seed: 1 };
/// The same beside others who take the processor and the disk.
const BUSY: Going = Going { run: (11_000, 6_000), commit: (4_000, 120_000), ..QUIET };

struct Machine {
    going: Going,
    core: Scheduler,
    runner: Runner,
    now: Timestamp,
    noise: u64,
    ends: BTreeSet<(Timestamp, RunId)>,
    fresh: VecDeque<(Timestamp, RunId, Timestamp)>,
    /// Ends that wait to be told, until then.
    gathered: Vec<Report>,
    told_at: Option<Timestamp>,
    /// What was decided and is not durable before then.
    orders: VecDeque<(Timestamp, Vec<Effect>)>,
    owners: BTreeMap<JobId, usize>,
    /// By tenant: runs of which the end was told, and the time that they had a slot.
    got: Vec<(u64, Span)>,
    /// Runs that have waited in line.
    lined_up: u64,
}

impl Machine {
    /// Of tenants that have so many jobs each.
    fn new(going: Going, weights: &[f64], jobs: u64) -> Self {
        let of = |(name, weight): (&&str, &f64)| ((*name).into(), Weight::new(*weight).unwrap());
        let weights = NAMES.iter().zip(weights).map(of).collect::<Vec<_>>();
        let tenants = weights.len();
        let share = FairShare { half_life: Span::from_secs(3600), weights };
        let fair = QueueConfig { fair_share: Some(share), ..queue("q", 0) };
        let mut core = Scheduler::new(config(vec![fair], vec![node("n", going.slots, 0)])).unwrap();
        core.set_holding(true);
        let mut owners = BTreeMap::new();
        for number in 0..jobs * tenants as u64 {
            let owner = (number / jobs) as usize;
            let new = job(number).namespace(NAMES[owner]).build(at(0));
            owners.insert(new.id, owner);
            core.submit(new, at(0)).unwrap();
        }
        let mut machine = Self {
            going,
            core,
            runner: Runner::default(),
            now: at(0),
            noise: going.seed,
            ends: BTreeSet::new(),
            fresh: VecDeque::new(),
            gathered: Vec::new(),
            told_at: None,
            orders: VecDeque::new(),
            owners,
            got: vec![(0, Span(0)); tenants],
            lined_up: 0,
        };
        machine.turn(Vec::new());
        machine
    }

    /// The same numbers each time.
    fn random(&mut self, below: u64) -> u64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if below == 0 { 0 } else { (self.noise >> 33) % below }
    }

    fn told(&self) -> u64 {
        self.got.iter().map(|(runs, _)| runs).sum()
    }

    /// Whatever comes next; false where nothing does.
    fn step(&mut self) -> bool {
        let due = [
            self.ends.first().map(|(at, _)| *at),
            self.fresh.front().map(|(at, ..)| *at),
            self.orders.front().map(|(at, _)| *at),
            self.told_at,
        ];
        let Some(next) = due.into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        let now = self.now;
        while let Some((_, effects)) = self.orders.pop_front_if(|(due, _)| *due <= now) {
            for effect in effects {
                self.carry_out(effect);
            }
        }
        while let Some((_, run)) = self.ends.first().copied().filter(|(due, _)| *due <= now) {
            self.ends.pop_first();
            self.runner.end(run, RunResult::Succeeded, now);
        }
        self.hear();
        let mut reports = Vec::new();
        while let Some((_, run, since)) = self.fresh.pop_front_if(|(due, ..)| *due <= now) {
            if self.runner.running.contains_key(&run) {
                reports.push(Report::Started(run, since));
            }
        }
        if self.told_at.is_some_and(|due| due <= now) {
            self.told_at = None;
            reports.append(&mut self.gathered);
        }
        if !reports.is_empty() {
            self.turn(reports);
        }
        true
    }

    fn carry_out(&mut self, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Start { run } => {
                let order = self.core.view(run.job).and_then(|view| Order::of(&view, run));
                if let Some(order) = order {
                    self.runner.start(order, now);
                }
            }
            Effect::Withdraw { run } => self.runner.drop_waiting(run, now),
            Effect::Forget { run } => drop(self.runner.over.remove(&run)),
            Effect::Stop { .. } => panic!("nobody is stopped"),
        }
    }

    /// What the runner has to tell.
    fn hear(&mut self) {
        while let Some(report) = self.runner.reports.pop_front() {
            if let Report::Started(run, since) = report {
                let took = self.going.run.0 + self.random(self.going.run.1);
                self.ends.insert((since + Span(took), run));
                self.fresh.push_back((since + FRESH, run, since));
                continue;
            }
            let waits = self.runner.lines.values().any(|line| !line.is_empty());
            let due = self.now + Span(if waits { self.going.gather } else { 0 });
            self.told_at.get_or_insert(due);
            self.gathered.push(report);
        }
    }

    /// As the daemon's: everything that was told, then a pass.
    fn turn(&mut self, reports: Vec<Report>) {
        let now = self.now;
        let mut effects = Vec::new();
        for report in reports {
            let (run, event) = match report {
                Report::Started(run, at) => (run, Event::Started { attempt: run.attempt, at }),
                Report::NotBegun(run, at) => (run, Event::NotBegun { attempt: run.attempt, at, retry_at: at }),
                Report::Ended(run, started, result, at) => {
                    let started = started.unwrap();
                    let (runs, held) = &mut self.got[self.owners[&run.job]];
                    (*runs, held.0) = (*runs + 1, held.0 + at.since(started).0);
                    // Most starts are told with the end.
                    drop(self.core.handle(run.job, Event::Started { attempt: run.attempt, at: started }, now));
                    (run, Event::Ended { attempt: run.attempt, result, at, retry_at: now })
                }
            };
            effects.extend(self.core.handle(run.job, event, now).unwrap().effects);
        }
        for made in self.core.plan(now, STARTS) {
            self.lined_up += u64::from(made.to.state.placement().is_some_and(Placement::is_ahead));
            effects.extend(made.effects);
        }
        effects.extend(self.core.take_withdrawn().into_iter().map(|run| Effect::Withdraw { run }));
        let (usual, held_up) = self.going.commit;
        let takes = if self.random(16) == 0 { held_up } else { usual };
        // Commits follow one another.
        let due = self.orders.back().map_or(now, |(due, _)| *due).max(now) + Span(takes);
        self.orders.push_back((due, effects));
    }

    /// Goes on until so many ends were told.
    fn run_until(&mut self, told: u64) {
        while self.told() < told {
            assert!(self.step(), "nothing happens any more after {:?}", self.got);
        }
        assert!(self.lined_up * 2 > told, "{} of {told} were lined up", self.lined_up);
    }

    /// By how much each tenant is off its due part of the time that all had, in thousandths of that part.
    fn off(&self, weights: &[f64]) -> Vec<f64> {
        let (all, sum) = (self.got.iter().map(|(_, held)| held.0 as f64).sum::<f64>(), weights.iter().sum::<f64>());
        let off = |((_, held), weight): (&(u64, Span), &f64)| (held.0 as f64 / all / (weight / sum) - 1.0) * 1000.0;
        self.got.iter().zip(weights).map(off).collect()
    }
}

/// What a run has in a line is its use since this core knows of it: an end of an hour ago takes back nothing that was used before.
#[test]
fn an_end_that_is_heard_of_after_a_restart_takes_back_no_other_use() {
    let share = FairShare::equal(Span::from_secs(3600));
    let mut core =
        Scheduler::new(config(vec![QueueConfig { fair_share: Some(share), ..queue("q", 0) }], vec![node("n", 2, 0)])).unwrap();
    core.set_holding(true);
    let line = Line { cpu: CpuMillis(1000), memory: MemoryBytes(0), since: at(0), ahead: true };
    let slots = vec![Slot { group: 0, replica: 0, node: "n".into(), gpus: smallvec::smallvec![], share: None }];
    let state = JobState::Running { placement: Arc::new(Placement { slots, line: Some(line) }), since: at(0) };
    core.restore(job(1).namespace("a").live(Lifecycle { state, attempt: Attempt(1), lost: 0 }), at(3600)).unwrap();
    let record = UsageRecord {
        queue: "q".into(),
        namespace: Some("a".into()),
        at: at(3600),
        cpu_milli_seconds: 1_000_000,
        memory_mib_seconds: 0,
        gpu_seconds: 0,
    };
    assert_eq!(core.restore_usage(&[record]), 0);
    let end = Event::Ended { attempt: Attempt(1), result: RunResult::Succeeded, at: at(10), retry_at: at(3602) };
    core.handle(id(1), end, at(3602)).unwrap();
    let used = core.usage_snapshot(at(3602))[0].cpu_milli_seconds;
    assert!((999_000..=1_000_000).contains(&used), "{used}: what it had before, a little of it forgotten");
}

const WEIGHTS: [f64; 3] = [1.0, 2.0, 4.0];

#[test]
fn use_is_the_time_that_runs_had_a_slot() {
    for going in [QUIET, BUSY] {
        let mut machine = Machine::new(going, &WEIGHTS, 300);
        machine.run_until(900);
        while machine.step() {}
        machine.core.check_invariants().unwrap();
        let records = machine.core.usage_snapshot(machine.now);
        for ((record, name), (runs, held)) in records.iter().zip(NAMES).zip(&machine.got) {
            let (used, had) = (record.cpu_milli_seconds as f64, held.0 as f64 / 1000.0);
            println!("{name}: {used} used of {had} had in {runs} runs");
            // The first few begin at once, and what they have is theirs from when it was decided.
            assert!((used / had - 1.0).abs() < 0.02, "{name} used {used} and had {had}: {going:?}");
        }
    }
}

#[test]
fn tenants_get_one_two_and_four_parts_of_two_slots() {
    for going in [QUIET, BUSY] {
        for runs in [2000, 5000] {
            let mut machine = Machine::new(going, &WEIGHTS, 3000);
            machine.run_until(runs);
            machine.core.check_invariants().unwrap();
            let off = machine.off(&WEIGHTS);
            println!("{off:.1?} after {runs} runs, {:?}: {going:?}", machine.got);
            assert!(off.iter().all(|off| off.abs() < 5.0), "{off:?} after {runs} runs: {going:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the weights and however the machine goes: nobody is further off than a few runs.
    #[test]
    fn shares_of_those_in_line_come_to_their_weights(
        weights in prop::collection::vec(1..6_u32, 2..5),
        (slots, run, spread) in (1..5_u64, 1_000..30_000_u64, 0..10_000_u64),
        (gather, usual, held_up) in (0..30_000_u64, 0..10_000_u64, 0..150_000_u64),
        seed: u64,
    ) {
        let going = Going { slots, run: (run, spread), gather, commit: (usual, held_up), seed };
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let mut machine = Machine::new(going, &weights, 1800);
        machine.run_until(1000);
        machine.core.check_invariants().unwrap();
        let (off, all) = (machine.off(&weights), machine.got.iter().map(|(_, held)| held.0 as f64).sum::<f64>());
        let longest = (run + spread) as f64;
        for ((off, weight), (_, held)) in off.iter().zip(&weights).zip(&machine.got) {
            let due = all * weight / weights.iter().sum::<f64>();
            let runs = (held.0 as f64 - due).abs() / longest;
            prop_assert!(runs < 6.0 + 0.01 * due / longest, "{off} thousandths, {runs} runs: {:?} {weights:?}", machine.got);
        }
    }
}
