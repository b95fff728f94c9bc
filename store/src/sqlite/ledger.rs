//! The ledger of what was used: how the writer of SQLite reads and writes what [`crate::ledger`] sums up.

use std::sync::Arc;

use scheduler_core::event::Transition;
use scheduler_core::ids::Name;
use scheduler_core::state::{JobState, Placement};
use scheduler_core::time::Timestamp;

use super::codec::{int, parse};
use super::intern::shape;
use super::raw::{Arg, RawError};
use super::writer::Writer;
use crate::ledger::{DayRows, Known, Sum, sampled_columns};
use crate::usage::{Day, Promise, RunSample};

static SHAPE: &str = include_str!("queries/shape.sql");
static ENDED_RUN: &str = include_str!("queries/usage_ended_run.sql");
static PLACEMENT: &str = include_str!("queries/usage_placement.sql");
static OWNER_OF: &str = include_str!("queries/usage_owner_of.sql");
static OWNER: &str = include_str!("queries/usage_owner.sql");
static ADD_DAY: &str = include_str!("queries/usage_add_day.sql");
static END_RUN: &str = include_str!("queries/usage_end_run.sql");
static SAMPLE_RUN: &str = include_str!("queries/usage_sample_run.sql");
static FORGET_DAYS: &str = include_str!("queries/usage_forget_days.sql");

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
        self.ledger.count_run((shape, owner), promise, started, ended);
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
        self.ledger.sum(Day::of(sample.at), shape, owner).used.sampled.add(&sample.sampled);
        let [known, busy, peak_busy, peak_memory, energy] = sampled_columns(&sample.sampled).map(Arg::Int);
        let attempt = Arg::Int(sample.attempt.0.into());
        self.db.execute(SAMPLE_RUN, &[seq, attempt, known, busy, peak_busy, peak_memory, energy]).map(|_| ())
    }

    /// Writes what the batch has summed up.
    pub(super) fn write_sums(&mut self) -> Result<(), RawError> {
        let mut rows = DayRows::new();
        for ((day, shape, owner), sum) in self.ledger.take() {
            let known = self.known_shape(shape)?;
            let user = self.known_owner(owner)?;
            let row = rows.entry((day, known.namespace.clone(), user, known.queue.clone())).or_default();
            row.runs += sum.runs;
            row.used.add(&sum.used);
        }
        for ((day, namespace, user, queue), Sum { runs, used }) in rows {
            let promised = used.promised;
            let [known, busy, peak_busy, peak_memory, energy] = sampled_columns(&used.sampled).map(Arg::Int);
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

    fn known_shape(&mut self, id: i64) -> Result<Arc<Known>, RawError> {
        if let Some(known) = self.ledger.shape(id) {
            return Ok(known);
        }
        let found = self.db.first(SHAPE, &[Arg::Int(id)], |row| shape(row, 0))?;
        let shape = found.ok_or_else(|| RawError::corrupt(format!("there is no shape {id}")))?;
        Ok(self.ledger.learn_shape(id, shape))
    }

    fn known_owner(&mut self, id: i64) -> Result<Name, RawError> {
        if let Some(known) = self.ledger.owner(id) {
            return Ok(known);
        }
        let found = self.db.first(OWNER, &[Arg::Int(id)], |row| row.text(0).map(Name::from))?;
        let user = found.ok_or_else(|| RawError::corrupt(format!("there is no owner {id}")))?;
        Ok(self.ledger.learn_owner(id, user))
    }
}
