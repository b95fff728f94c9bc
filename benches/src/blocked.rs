//! Queued jobs behind a head that does not fit: P9.
//!
//! A machine that runs are on until their limits; a head with a reservation; behind it jobs of which none can start now. One of them fits
//! and has no limit, so every pass works out the reservation and looks at every shape: a pass is never left out because the one before
//! found nothing.

use anyhow::{Result, ensure};
use scheduler_core::event::Event;
use scheduler_core::time::Span;
use scheduler_core::{Config, QueueConfig, Scheduler};

use crate::make::{Ask, GIB, START, job, node, queue_name, scramble};

const NODES: u64 = 4;
/// Thousandths of a core of a node.
const CPU: u64 = 128_000;
/// GiB of a node.
const MEMORY: u64 = 1024;
/// Runs of a node, each with 1 GiB; they leave a little of it.
const RUNS: u64 = 100;

/// What waits behind the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Everybody asks for something else, and nothing of it fits.
    Shapes,
    /// 400 shapes that do not fit, each with many time limits.
    Few,
    /// All of one shape, which fits; each stays for another time, all of them for too long.
    Stays,
}

/// See the module.
pub struct Blocked {
    core: Scheduler,
    passes: u64,
}

impl Blocked {
    /// With so many queued behind the head.
    ///
    /// # Errors
    /// None that are expected.
    pub fn new(waiting: Waiting, jobs: u64) -> Result<Self> {
        let core = Scheduler::new(Config {
            queues: vec![QueueConfig::named(queue_name(0).into())],
            nodes: (0..NODES).map(|number| node(number, CPU, MEMORY * GIB, 8)).collect(),
            ..Config::default()
        })?;
        let mut blocked = Self { core, passes: 0 };
        let mut number = 0;
        let mut submit = |core: &mut Scheduler, ask: Ask| {
            number += 1;
            core.submit(job(number, ask, START), START)
        };
        for run in 0..NODES * RUNS {
            let limit = Some(Span::from_secs(3600 + run));
            submit(&mut blocked.core, Ask { priority: 2, limit, ..Ask::task(CPU / RUNS - 1, GIB, 0) })?;
        }
        for made in blocked.core.plan(START, usize::MAX) {
            blocked.core.handle(made.job, Event::Started { attempt: made.to.attempt, at: START }, START)?;
        }
        submit(&mut blocked.core, Ask { priority: 1, ..Ask::task(CPU, GIB, 0) })?;
        for other in 0..jobs {
            let tenant = other % 50;
            let hours = |hours: u64| Some(Span(Span::from_secs(hours * 3600).0 + scramble(other) % 1_000_000_000));
            let ask = match waiting {
                Waiting::Shapes => Ask { tenant, limit: hours(1), ..Ask::task(2000 + other, GIB, 0) },
                Waiting::Few => Ask { tenant, limit: hours(1), ..Ask::task(2000 + other % 400, GIB, 0) },
                Waiting::Stays => Ask { limit: hours(2), ..Ask::task(20, GIB, 0) },
            };
            submit(&mut blocked.core, ask)?;
        }
        // Whatever may start beside the head does so now. Of these one stays: it fits on the head's node alone.
        for _ in 0..NODES {
            submit(&mut blocked.core, Ask::task(10, (MEMORY - RUNS) * GIB, 0))?;
        }
        blocked.core.plan(START, usize::MAX);
        let queued = blocked.core.counts()[1];
        ensure!(queued > jobs / 2, "{queued} of {jobs} wait");
        Ok(blocked)
    }

    /// A pass that starts nobody.
    ///
    /// # Errors
    /// It started somebody.
    pub fn pass(&mut self) -> Result<()> {
        self.passes += 1;
        let made = self.core.plan(START + Span(self.passes), usize::MAX);
        ensure!(made.is_empty(), "{} of those that are blocked started", made.len());
        Ok(())
    }
}
