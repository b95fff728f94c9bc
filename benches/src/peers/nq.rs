//! nq: no daemon; each job is a process that waits for the locks of those before it in one folder. Two slots are two folders.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::peers::Peer;
use crate::peers::place::{Gates, Place, in_parallel, said};

/// Slots.
const SLOTS: u32 = 2;

pub(super) struct Nq {
    place: Place,
    gates: Gates,
    queues: Vec<PathBuf>,
}

impl Nq {
    pub(super) fn start(place: Place) -> Result<Self> {
        let gates = Gates::new(&place.folder, SLOTS)?;
        let queues = (0..SLOTS).map(|slot| place.folder(&format!("queue-{slot}"))).collect::<Result<_>>()?;
        Ok(Self { place, gates, queues })
    }

    fn client(&self, queue: u32, args: &[&str]) -> Result<Command> {
        let mut command = self.place.program("nq")?;
        command.env("NQDIR", &self.queues[(queue % SLOTS) as usize]).args(args);
        Ok(command)
    }
}

impl Peer for Nq {
    fn hold(&mut self) -> Result<()> {
        for (slot, gate) in (0..).zip(self.gates.paths()) {
            said(self.client(slot, &["-q", "cat", &gate.to_string_lossy()])?)?;
        }
        self.gates.hold()
    }

    fn submit(&self, number: u32) -> Result<Command> {
        self.client(number, &["-q", "true"])
    }

    fn fill(&mut self, count: u32) -> Result<()> {
        // One after the other for each folder: the name of a job is the time at which it was submitted.
        in_parallel(count, 1, |number| self.submit(number)).map(drop)
    }

    fn drain(&mut self, count: u32) -> Result<f64> {
        let begun = Instant::now();
        self.gates.release();
        for slot in 0..SLOTS {
            said(self.client(slot, &["-w"])?)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let mut jobs = 0;
        for queue in &self.queues {
            let entries = std::fs::read_dir(queue).with_context(|| format!("reading {}", queue.display()))?;
            jobs += entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(',')).count();
        }
        if jobs != (count + SLOTS) as usize {
            bail!("{jobs} of {} jobs left a file", count + SLOTS);
        }
        Ok(seconds)
    }
}
