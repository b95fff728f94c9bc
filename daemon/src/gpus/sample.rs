//! What runs do with their GPUs, summed up from looks: pure, time is given.
//!
//! What must hold: a look counts for the time since the one before it, or since the run began where that was later, up to the end of its
//! tasks where that is known by then, and for no more than the longest gap between two looks: what nobody saw is not known. A part of a GPU
//! counts for as much time as it is of the GPU, as what is promised does. Energy is that of the GPU's own counter, which misses nothing, or what it
//! drew at the look.

use std::collections::BTreeMap;

use scheduler_core::amounts::GPU_MILLIS;
use scheduler_core::ids::{JobId, Name};
use scheduler_core::time::{Span, Timestamp};
use store::RunSample;
use store::usage::Sampled;

use super::{Board, Seen};
use crate::engine::GpuRun;

/// A GPU at the look before.
#[derive(Clone, Copy, Debug)]
struct Before {
    at: Timestamp,
    energy_millijoules: Option<u64>,
}

/// What the next look is compared with.
#[derive(Debug)]
pub struct Sampler {
    before: BTreeMap<Name, Before>,
    /// The longest time that a look counts for.
    longest: Span,
}

/// What a run did with its GPUs at a look.
#[derive(Clone, Debug)]
pub struct Looked<'a> {
    /// The run.
    pub run: &'a GpuRun,
    /// How busy the busiest of its GPUs was, in percent; `None` where that is not known of all of them.
    pub busiest: Option<u32>,
    /// What the look adds.
    pub sample: RunSample,
}

impl Sampler {
    /// One that has seen nothing yet.
    pub const fn new(longest: Span) -> Self {
        Self { before: BTreeMap::new(), longest }
    }

    /// What a look adds to each run.
    pub fn look<'a>(&mut self, board: &Board, runs: &'a [GpuRun], now: Timestamp) -> Vec<Looked<'a>> {
        let mut holders: BTreeMap<&Name, u32> = BTreeMap::new();
        runs.iter().flat_map(|run| run.gpus.keys()).for_each(|uuid| *holders.entry(uuid).or_default() += 1);
        let looked = runs.iter().map(|run| {
            let mut sampled = Sampled::default();
            let mut busiest = Some(0);
            for (uuid, &millis) in &run.gpus {
                let Some(seen) = board.gpus.get(uuid).filter(|seen| seen.reading.lost.is_none()) else {
                    busiest = None;
                    continue;
                };
                let alone = holders.get(uuid) == Some(&1);
                let busy = busy(seen, run.run.job, alone);
                busiest = busiest.zip(busy).map(|(one, other): (u32, u32)| one.max(other));
                sampled.add(&of_part(self.of_gpu(uuid, seen, run, busy, alone, now), millis));
            }
            let sample = RunSample { job: run.run.job, seq: run.seq, attempt: run.run.attempt, at: now, sampled };
            Looked { run, busiest, sample }
        });
        let looked = looked.collect();
        let before = |seen: &Seen| Before { at: now, energy_millijoules: seen.reading.energy_millijoules };
        self.before = board.gpus.iter().map(|(uuid, seen)| (uuid.clone(), before(seen))).collect();
        looked
    }

    fn of_gpu(&self, uuid: &Name, seen: &Seen, run: &GpuRun, busy: Option<u32>, alone: bool, now: Timestamp) -> Sampled {
        let before = self.before.get(uuid);
        // The first look only begins: what was before it, another daemon has counted. A run that is being ended was seen before.
        let from = before.map_or(now, |before| run.since.map_or(before.at, |since| since.max(before.at)));
        let time = run.until.unwrap_or(now).min(now).since(from);
        let micros = time.0.min(self.longest.0);
        let reading = &seen.reading;
        let drawn = reading.milliwatts.map_or(0, |milliwatts| u64::from(milliwatts) * micros / 1_000_000);
        let counted = before.and_then(|before| {
            let more = reading.energy_millijoules?.checked_sub(before.energy_millijoules?)?;
            let whole = u128::from(now.since(before.at).0).max(1);
            u64::try_from(u128::from(more) * u128::from(time.0) / whole).ok()
        });
        // What is not its own alone cannot be told apart.
        let energy_millijoules = if alone { counted.unwrap_or(drawn) } else { 0 };
        Sampled {
            known_micros: busy.map_or(0, |_| micros),
            busy_micros: busy.map_or(0, |percent| micros * u64::from(percent) / 100),
            peak_busy_percent: busy.unwrap_or(0),
            peak_memory_bytes: memory(seen, run.run.job, alone),
            energy_millijoules,
        }
    }
}

/// What is counted in time of GPUs, for a run that has so many thousandths of the GPU.
fn of_part(sampled: Sampled, millis: u32) -> Sampled {
    let part = |micros: u64| {
        let part = u128::from(micros) * u128::from(millis) / u128::from(GPU_MILLIS);
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    Sampled { known_micros: part(sampled.known_micros), busy_micros: part(sampled.busy_micros), ..sampled }
}

/// How busy a job keeps a GPU: all that is done there if it is its own, else what its processes do.
fn busy(seen: &Seen, job: JobId, alone: bool) -> Option<u32> {
    if alone {
        return seen.reading.busy_percent.map(|percent| percent.min(100));
    }
    seen.reading.busy_percent?;
    let own = seen.processes.iter().filter(|process| process.job == Some(job));
    Some(own.filter_map(|process| process.busy_percent).sum::<u32>().min(100))
}

/// What a job holds of a GPU's memory: that of its processes, or where these cannot be seen, all that is in use of a GPU of its own.
fn memory(seen: &Seen, job: JobId, alone: bool) -> u64 {
    let own = || seen.processes.iter().filter(|process| process.job == Some(job)).filter_map(|process| process.memory_bytes);
    match own().reduce(u64::saturating_add) {
        Some(bytes) => bytes,
        None if alone => seen.reading.memory_used_bytes.unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use executors::gpu::Reading;
    use scheduler_core::ids::{Attempt, RunId, Seq};
    use uuid::Uuid;

    use super::*;
    use crate::gpus::SeenProcess;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(1_795_305_590_000_000 + seconds * 1_000_000)
    }

    fn job(number: u128) -> JobId {
        JobId(Uuid::from_u128(number))
    }

    fn run(number: u128, gpus: &[&str], since: i64) -> GpuRun {
        GpuRun {
            run: RunId { job: job(number), attempt: Attempt(1) },
            seq: Seq(number as u64),
            queue: "q".into(),
            since: Some(at(since)),
            until: None,
            gpus: gpus.iter().map(|uuid| (Name::from(*uuid), GPU_MILLIS)).collect(),
        }
    }

    fn board(gpus: &[(&str, u32, u64)]) -> Board {
        let seen = |(uuid, busy, joules): &(&str, u32, u64)| {
            let reading = Reading {
                busy_percent: Some(*busy),
                energy_millijoules: Some(joules * 1_000),
                milliwatts: Some(100_000),
                memory_used_bytes: Some(u64::from(*busy) << 20),
                ..Reading::default()
            };
            (Name::from(*uuid), Seen { reading, processes: Vec::new() })
        };
        Board { gpus: gpus.iter().map(seen).collect(), ..Board::default() }
    }

    #[test]
    fn a_look_counts_for_the_time_since_the_one_before() {
        let mut sampler = Sampler::new(Span::from_secs(6));
        assert!(sampler.look(&board(&[("a", 90, 100), ("b", 0, 5)]), &[], at(0)).is_empty());
        let runs = [run(1, &["a", "b"], 1)];
        let looked = sampler.look(&board(&[("a", 50, 120), ("b", 10, 7)]), &runs, at(2));
        // It began a second ago: half of what was drawn since is its own.
        assert_eq!(
            looked[0].sample.sampled,
            Sampled {
                known_micros: 2 * SECOND,
                busy_micros: 600_000,
                peak_busy_percent: 50,
                peak_memory_bytes: 50 << 20,
                energy_millijoules: 11_000
            }
        );
        assert_eq!((looked[0].busiest, looked[0].sample.at, looked[0].sample.seq), (Some(50), at(2), Seq(1)));
        // Nobody looked for a while: what was done is not known, what was drawn is.
        let looked = sampler.look(&board(&[("a", 100, 200), ("b", 0, 7)]), &runs, at(102));
        assert_eq!(looked[0].sample.sampled.known_micros, 12 * SECOND);
        assert_eq!((looked[0].sample.sampled.busy_micros, looked[0].sample.sampled.energy_millijoules), (6 * SECOND, 80_000));
        // It ended meanwhile.
        let ended = [GpuRun { until: Some(at(103)), ..runs[0].clone() }];
        let looked = sampler.look(&board(&[("a", 100, 210), ("b", 0, 7)]), &ended, at(104));
        assert_eq!((looked[0].sample.sampled.known_micros, looked[0].sample.sampled.energy_millijoules), (2 * SECOND, 5_000));
        // The counter began anew with the driver, and the clock was set back.
        let looked = sampler.look(&board(&[("a", 0, 1), ("b", 0, 7)]), &runs, at(106));
        assert_eq!(looked[0].sample.sampled.energy_millijoules, 200_000, "as much as it draws");
        assert_eq!(sampler.look(&board(&[("a", 9, 2)]), &runs, at(50))[0].sample.sampled.known_micros, 0);
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let mut sampler = Sampler::new(Span::from_secs(6));
        let runs = [run(1, &["a", "gone"], 0)];
        sampler.look(&board(&[("a", 50, 1)]), &runs, at(0));
        let looked = sampler.look(&board(&[("a", 50, 1)]), &runs, at(2));
        assert_eq!((looked[0].busiest, looked[0].sample.sampled.known_micros), (None, 2 * SECOND));
        let mut silent = board(&[("a", 0, 0)]);
        silent.gpus.insert("a".into(), Seen::default());
        let looked = sampler.look(&silent, &runs[..1], at(4));
        assert_eq!((looked[0].busiest, looked[0].sample.sampled), (None, Sampled::default()));
    }

    #[test]
    fn those_who_share_a_gpu_have_what_their_processes_do() {
        let mut sampler = Sampler::new(Span::from_secs(6));
        let mut runs = [run(1, &["a"], 0), run(2, &["a"], 0)];
        for (run, millis) in runs.iter_mut().zip([500, 250]) {
            run.gpus.insert("a".into(), millis);
        }
        sampler.look(&board(&[("a", 80, 1)]), &runs, at(0));
        let mut shared = board(&[("a", 80, 1)]);
        let process = |number, busy, memory| SeenProcess {
            pid: 1,
            user: None,
            command: String::new(),
            memory_bytes: Some(memory),
            job: Some(job(number)),
            started: 1,
            graphics: false,
            busy_percent: Some(busy),
        };
        let processes = vec![process(1, 30, 5), process(1, 20, 6), process(2, 0, 7)];
        shared.gpus.entry("a".into()).and_modify(|seen| seen.processes = processes);
        let looked = sampler.look(&shared, &runs, at(1));
        let said: Vec<_> = looked.iter().map(|looked| (looked.busiest, looked.sample.sampled.peak_memory_bytes)).collect();
        assert_eq!(said, [(Some(50), 11), (Some(0), 7)]);
        let time = |looked: &Looked<'_>| (looked.sample.sampled.known_micros, looked.sample.sampled.busy_micros);
        let times: Vec<_> = looked.iter().map(time).collect();
        assert_eq!(times, [(SECOND / 2, SECOND / 4), (SECOND / 4, 0)], "half of a GPU for a second is half a second of a GPU");
    }
}
