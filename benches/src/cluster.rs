//! A large cluster that is full: P10.
//!
//! 4,000 nodes, three of four with 8 GPUs; 35 pods on each, 140,000 in all, with time limits of odd lengths; 10,000 pending jobs of 500
//! shapes, of 100 tenants in 20 queues. What a pass changed is put back after it, outside of the clock, so that every pass is the same.

use anyhow::{Result, ensure};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, QueueConfig, Scheduler};

use crate::make::{Ask, GIB, START, job, node, queue_name};

/// Nodes of the full size.
pub const NODES: u64 = 4000;
const PODS: u64 = 35;
const SHAPES: u64 = 500;
/// One of so many runs has ended where there is room.
const GAPS: usize = 140;

/// What a pass finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Nothing: all pending jobs ask for GPUs, and all are taken.
    None,
    /// As much as 1,000 of the pending jobs need, on as many nodes; behind them the head waits and gets a reservation.
    Some,
}

/// See the module.
pub struct Cluster {
    core: Scheduler,
    room: Room,
    next: u64,
    passes: u64,
}

impl Cluster {
    /// With so many nodes, and pods and pending jobs in proportion.
    ///
    /// # Errors
    /// None that are expected.
    pub fn new(nodes: u64, room: Room) -> Result<Self> {
        let core = Scheduler::new(Config {
            queues: (0..20).map(|number| QueueConfig::named(queue_name(number).into())).collect(),
            nodes: (0..nodes).map(|number| node(number, 64_000, 512 * GIB, if number % 4 == 3 { 0 } else { 8 })).collect(),
            ..Config::default()
        })?;
        let mut cluster = Self { core, room, next: 0, passes: 0 };
        let pods = cluster.fill(nodes)?;
        if room == Room::Some {
            for run in pods.iter().step_by(GAPS) {
                cluster.end(run, START)?;
            }
        }
        for number in 0..nodes * 10_000 / NODES {
            cluster.pend(number)?;
        }
        Ok(cluster)
    }

    fn submit(&mut self, ask: Ask) -> Result<scheduler_core::ids::JobId> {
        self.next += 1;
        let new = job(self.next, ask, START);
        let id = new.id;
        self.core.submit(new, START)?;
        Ok(id)
    }

    /// 35 pods a node: where there are GPUs 8 with one each and 27 without.
    fn fill(&mut self, nodes: u64) -> Result<Vec<Transition>> {
        let with_gpus = (nodes - nodes / 4) * 8;
        for number in 0..nodes * PODS {
            let limit = Some(Span::from_secs(3600 + number * 7919 % 36_000));
            let pod = Ask::task(1800, 14 * GIB + GIB / 2, u32::from(number < with_gpus));
            self.submit(Ask { priority: 10, limit, ..pod })?;
        }
        let made = self.core.plan(START, usize::MAX);
        ensure!(made.len() as u64 == nodes * PODS, "{} pods of {} run", made.len(), nodes * PODS);
        for run in &made {
            self.core.handle(run.job, Event::Started { attempt: run.to.attempt, at: START }, START)?;
        }
        Ok(made)
    }

    /// One more pending job.
    fn pend(&mut self, number: u64) -> Result<()> {
        let shape = number % SHAPES;
        let ask = match self.room {
            Room::None => Ask::task(500 + shape * 10, GIB, 1 + (shape % 8) as u32),
            Room::Some => {
                let limit = Some(Span::from_secs(3600 + shape));
                Ask { limit, ..Ask::task(2000 + shape, 8 * GIB, u32::from(shape.is_multiple_of(5))) }
            }
        };
        self.submit(Ask { tenant: shape % 100, queue: shape % 20, ..ask })?;
        Ok(())
    }

    fn end(&mut self, run: &Transition, at: Timestamp) -> Result<()> {
        let ended = Event::Ended { attempt: run.to.attempt, result: RunResult::Succeeded, at, retry_at: at };
        self.core.handle(run.job, ended, at)?;
        Ok(())
    }

    /// One pass, timed by `clock`; how many it started. All is as before after it.
    ///
    /// # Errors
    /// Something started where there is no room, or nothing where there is.
    pub fn pass<T>(&mut self, clock: impl FnOnce(&mut dyn FnMut()) -> T) -> Result<(T, usize)> {
        self.passes += 1;
        let now = START + Span(self.passes);
        // Another shape, so that a pass is not left out because the one before found nothing; it fits nowhere.
        let other = self.submit(Ask { priority: -1, ..Ask::task(64_000 - self.passes % 1000, GIB, 0) })?;
        let mut made = Vec::new();
        let time = clock(&mut || made = self.core.plan(now, usize::MAX));
        let expected = (self.room == Room::Some) != made.is_empty();
        ensure!(expected, "{} started where there is room for {:?}", made.len(), self.room);
        self.core.handle(other, Event::Cancel { by: "bench".into() }, now)?;
        for run in &made {
            self.end(run, now)?;
            self.pend(run.seq.0)?;
        }
        Ok((time, made.len()))
    }
}
