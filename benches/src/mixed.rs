//! Many queued jobs of many kinds, whose number stays the same: P1 and P7.
//!
//! 10 queues in two tiers of priority with ageing, 50 tenants, 8 sizes of which one asks for a GPU, 5 priorities: 4,000 shapes. 512 jobs
//! run at once on 4 nodes with 8 GPUs each, so that most passes end with a head that waits for a GPU and backfill behind it.

use anyhow::{Result, ensure};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, QueueConfig, Scheduler};

use crate::make::{Ask, START, job, node, queue_name, scramble};

const QUEUES: u64 = 10;
const TENANTS: u64 = 50;
const NODES: u64 = 4;
/// Cores of all nodes.
const CORES: u64 = 512;
/// Jobs that one pass starts at most.
const BATCH: usize = 256;

/// How long jobs may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limits {
    /// All the same.
    One,
    /// One of three.
    Three,
    /// Nearly each another.
    Own,
}

impl Limits {
    fn of(self, random: u64) -> Span {
        let hour = Span::from_secs(3600);
        match self {
            Self::One => hour,
            Self::Three => Span(hour.0 << (random % 3)),
            Self::Own => Span(hour.0 + random % hour.0),
        }
    }
}

/// See the module.
pub struct Mixed {
    core: Scheduler,
    limits: Limits,
    next: u64,
}

impl Mixed {
    /// Without jobs.
    ///
    /// # Errors
    /// None that are expected: the core takes this configuration.
    pub fn new(limits: Limits) -> Result<Self> {
        let queue = |number: u64| QueueConfig {
            priority: (number / 5) as i32,
            age_per_point: Some(Span::from_secs(60)),
            ..QueueConfig::named(queue_name(number).into())
        };
        let core = Scheduler::new(Config {
            queues: (0..QUEUES).map(queue).collect(),
            nodes: (0..NODES).map(|number| node(number, CORES * 1000 / NODES, 1 << 42, 8)).collect(),
            ..Config::default()
        })?;
        Ok(Self { core, limits, next: 0 })
    }

    /// With so many queued.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn queued(limits: Limits, jobs: u64) -> Result<Self> {
        let mut mixed = Self::new(limits)?;
        mixed.submit(jobs)?;
        Ok(mixed)
    }

    fn now(&self) -> Timestamp {
        START + Span(self.next * 10)
    }

    /// Submits so many more.
    ///
    /// # Errors
    /// The core refuses one: none that is expected.
    pub fn submit(&mut self, jobs: u64) -> Result<()> {
        for _ in 0..jobs {
            let random = scramble(self.next);
            let size = random % 8;
            let ask = Ask {
                tenant: (random >> 8) % TENANTS,
                queue: (random >> 16) % QUEUES,
                priority: ((random >> 24) % 5) as i32,
                limit: Some(self.limits.of(random >> 28)),
                ..Ask::task(100 + 100 * size, (1 + size) << 28, u32::from(size == 7))
            };
            let now = self.now();
            self.core.submit(job(self.next, ask, now), now)?;
            self.next += 1;
        }
        Ok(())
    }

    fn end(&mut self, started: &Transition, at: Timestamp) -> Result<()> {
        let ended = Event::Ended { attempt: started.to.attempt, result: RunResult::Succeeded, at, retry_at: at };
        self.core.handle(started.job, ended, at)?;
        Ok(())
    }

    /// One pass, and the ends of all that it started; how many these were. Each is one decision: taken from the queue, placed, its
    /// resources taken and given back.
    ///
    /// # Errors
    /// Nothing was started.
    pub fn decide(&mut self) -> Result<u64> {
        let now = self.now();
        let made = self.core.plan(now, BATCH);
        ensure!(!made.is_empty(), "a pass over {:?} jobs started nobody", self.core.counts());
        for started in &made {
            self.end(started, now)?;
        }
        Ok(made.len() as u64)
    }

    /// The whole way of the jobs of one pass: started, told so, ended, and as many submitted; how many these were.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn cycle(&mut self) -> Result<u64> {
        let now = self.now();
        let made = self.core.plan(now, BATCH);
        ensure!(!made.is_empty(), "a pass over {:?} jobs started nobody", self.core.counts());
        for started in &made {
            self.core.handle(started.job, Event::Started { attempt: started.to.attempt, at: now }, now)?;
            self.end(started, now)?;
            self.submit(1)?;
        }
        Ok(made.len() as u64)
    }

    /// Jobs that are queued.
    pub fn len(&self) -> u64 {
        self.core.counts()[1]
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
