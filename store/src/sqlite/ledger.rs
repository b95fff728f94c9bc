//! The ledger of what was used: the writer's part.
//!
//! What must hold: a run is counted in the transaction that writes its end, and that compare-and-set happens once, so nothing is lost and
//! nothing counted twice, whenever the process dies; within a batch sums are made in memory, and a batch writes a few rows however many
//! runs ended in it. Only a run that its job's row will say nothing more of gets a row of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use scheduler_core::event::{Event, Transition};
use scheduler_core::ids::Name;
use scheduler_core::job::Shape;
use scheduler_core::state::{JobState, Placement, StateKind};
use scheduler_core::time::Timestamp;

use super::codec::parse;
use super::intern::shape;
use super::raw::{Arg, RawError};
use super::writer::Writer;
use crate::usage::{Day, Promise, RunSample, Sampled, Used, by_days};

/// Shapes and owners that are remembered by the ids of their rows.
const MOST: usize = 16_384;

static SHAPE: &str = include_str!("queries/shape.sql");
static ENDED_RUN: &str = include_str!("queries/usage_ended_run.sql");
static PLACEMENT: &str = include_str!("queries/usage_placement.sql");
static OWNER_OF: &str = include_str!("queries/usage_owner_of.sql");
static OWNER: &str = include_str!("queries/usage_owner.sql");
static ADD_DAY: &str = include_str!("queries/usage_add_day.sql");
static END_RUN: &str = include_str!("queries/usage_end_run.sql");
static SAMPLE_RUN: &str = include_str!("queries/usage_sample_run.sql");
static FORGET_DAYS: &str = include_str!("queries/usage_forget_days.sql");

/// What is needed of a shape.
struct Known {
    namespace: Name,
    queue: Name,
    /// Of all of its tasks.
    promise: Promise,
    /// Where some of its tasks may be left out.
    shape: Option<Shape>,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    used: Used,
}

/// Of what a batch has seen so far, and what it takes to name it.
#[derive(Default)]
pub(super) struct Ledger {
    shapes: HashMap<i64, Arc<Known>>,
    owners: HashMap<i64, Name>,
    /// By day, row of the shape and row of the owner.
    sums: HashMap<(Day, i64, i64), Sum>,
}

impl Ledger {
    /// Forgets all: after a transaction that failed, ids may come to mean something else.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// When the run ended that this change ends; `None` where it ends none.
pub(super) fn end_of_run(change: &Transition) -> Option<Timestamp> {
    let held = |kind| matches!(kind, StateKind::Starting | StateKind::Running | StateKind::Stopping);
    if !held(change.from.0) || held(change.to.state.kind()) {
        return None;
    }
    Some(match (&change.to.state, &change.event) {
        (JobState::Finished { at, .. }, _) => *at,
        (_, Event::Ended { at, .. }) => (*at).min(change.at),
        _ => change.at,
    })
}

impl Writer {
    /// Counts a run that has ended. Its job's row is written already.
    pub(super) fn count_run(&mut self, change: &Transition, ended: Timestamp) -> Result<(), RawError> {
        let seq = int(change.seq.0);
        let found = self.db.first(ENDED_RUN, &[seq], |row| Ok((row.int(0)?, row.int(1)?, row.opt_int(2)?)))?;
        // One whose tasks never started has used nothing.
        let Some((shape, owner, Some(started))) = found else { return Ok(()) };
        let started = Timestamp(started);
        let known = self.known_shape(shape)?;
        let promise = match &known.shape {
            None => known.promise,
            Some(shape) => {
                let text = |row: &super::raw::Row| row.opt_text(0).map(|text| text.map(str::to_owned));
                let placed = self.db.first(PLACEMENT, &[seq], text)?.flatten();
                let placed: Option<Placement> = placed.map(|text| parse("a placement", &text)).transpose()?;
                Promise::of(shape, placed.as_ref())
            }
        };
        self.sum(Day::of(ended), shape, owner).runs += 1;
        if Day::of(started) == Day::of(ended) {
            let promised = promise.over(ended.since(started));
            self.sum(Day::of(ended), shape, owner).used.promised.add(&promised);
        } else {
            for (day, span) in by_days(started, ended) {
                self.sum(day, shape, owner).used.promised.add(&promise.over(span));
            }
        }
        if matches!(change.to.state, JobState::Finished { .. }) {
            return Ok(());
        }
        let Promise { cpu, memory, gpu_millis } = promise;
        let attempt = Arg::Int(change.from.1.0.into());
        let (started, ended) = (Arg::Int(started.0), Arg::Int(ended.0));
        self.db.execute(END_RUN, &[seq, attempt, started, ended, int(cpu.0), int(memory.0), int(gpu_millis)]).map(|_| ())
    }

    /// Counts what was seen of a run. One whose job is gone is nobody's.
    pub(super) fn count_sample(&mut self, sample: &RunSample) -> Result<(), RawError> {
        let seq = int(sample.seq.0);
        let id = Arg::Blob(sample.job.0.as_bytes());
        let found = self.db.first(OWNER_OF, &[seq, id], |row| Ok((row.int(0)?, row.int(1)?)))?;
        let Some((shape, owner)) = found else { return Ok(()) };
        self.sum(Day::of(sample.at), shape, owner).used.sampled.add(&sample.sampled);
        let [known, busy, peak_busy, peak_memory, energy] = columns(&sample.sampled);
        let attempt = Arg::Int(sample.attempt.0.into());
        self.db.execute(SAMPLE_RUN, &[seq, attempt, known, busy, peak_busy, peak_memory, energy]).map(|_| ())
    }

    /// Begins a batch: what one that failed has summed up is not counted.
    pub(super) fn begin_sums(&mut self) {
        self.ledger.sums.clear();
    }

    /// Writes what the batch has summed up.
    pub(super) fn write_sums(&mut self) -> Result<(), RawError> {
        if self.ledger.sums.is_empty() {
            return Ok(());
        }
        let mut rows: BTreeMap<(Day, Name, Name, Name), Sum> = BTreeMap::new();
        for ((day, shape, owner), sum) in std::mem::take(&mut self.ledger.sums) {
            let known = self.known_shape(shape)?;
            let user = self.known_owner(owner)?;
            let row = rows.entry((day, known.namespace.clone(), user, known.queue.clone())).or_default();
            row.runs += sum.runs;
            row.used.add(&sum.used);
        }
        for ((day, namespace, user, queue), Sum { runs, used }) in rows {
            let promised = used.promised;
            let [known, busy, peak_busy, peak_memory, energy] = columns(&used.sampled);
            let args = [
                Arg::Int(day.0),
                namespace.as_str().into(),
                user.as_str().into(),
                queue.as_str().into(),
                int(runs),
                int(promised.cpu_micros),
                int(promised.memory_mib_millis),
                int(promised.gpu_micros),
                known,
                busy,
                peak_busy,
                peak_memory,
                energy,
            ];
            self.db.execute(ADD_DAY, &args)?;
        }
        Ok(())
    }

    /// Removes the days before this one.
    pub(super) fn forget_usage(&mut self, before: Day) -> Result<u64, crate::StoreError> {
        const OP: &str = "forget usage";
        self.transaction(OP, |writer| writer.execute(OP, FORGET_DAYS, &[Arg::Int(before.0)]))
    }

    fn sum(&mut self, day: Day, shape: i64, owner: i64) -> &mut Sum {
        self.ledger.sums.entry((day, shape, owner)).or_default()
    }

    fn known_shape(&mut self, id: i64) -> Result<Arc<Known>, RawError> {
        if let Some(known) = self.ledger.shapes.get(&id) {
            return Ok(Arc::clone(known));
        }
        let found = self.db.first(SHAPE, &[Arg::Int(id)], |row| shape(row, 0))?;
        let shape = found.ok_or_else(|| RawError::corrupt(format!("there is no shape {id}")))?;
        let known = Arc::new(Known {
            namespace: shape.namespace.clone(),
            queue: shape.queue.clone(),
            promise: Promise::of(&shape, None),
            shape: (shape.min_available > 0).then_some(shape),
        });
        if self.ledger.shapes.len() >= MOST {
            self.ledger.shapes.clear();
        }
        self.ledger.shapes.insert(id, Arc::clone(&known));
        Ok(known)
    }

    fn known_owner(&mut self, id: i64) -> Result<Name, RawError> {
        if let Some(known) = self.ledger.owners.get(&id) {
            return Ok(known.clone());
        }
        let found = self.db.first(OWNER, &[Arg::Int(id)], |row| row.text(0).map(Name::from))?;
        let user = found.ok_or_else(|| RawError::corrupt(format!("there is no owner {id}")))?;
        if self.ledger.owners.len() >= MOST {
            self.ledger.owners.clear();
        }
        self.ledger.owners.insert(id, user.clone());
        Ok(user)
    }
}

fn columns(sampled: &Sampled) -> [Arg<'static>; 5] {
    let Sampled { known_micros, busy_micros, peak_busy_percent, peak_memory_bytes, energy_millijoules } = *sampled;
    let busy = busy_micros.min(known_micros);
    let percent = Arg::Int(peak_busy_percent.min(100).into());
    [int(known_micros), int(busy), percent, int(peak_memory_bytes), int(energy_millijoules)]
}

fn int(number: u64) -> Arg<'static> {
    Arg::Int(i64::try_from(number).unwrap_or(i64::MAX))
}
