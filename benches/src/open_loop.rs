//! Open loop: requests arrive at a constant rate, whether or not the server keeps up.
//!
//! What must hold: a request's latency counts from the time at which it was meant to be sent. A generator that waits for a slow answer
//! before it sends the next one leaves out just the requests that would have been slow (coordinated omission). When no connection is
//! free, arrivals wait in line here, and that wait counts.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use serde_json::{Value, json};

use crate::LoopOptions;
use crate::closed_loop::{SILENCE, check_last};
use crate::connection::{Answers, Connection, Dialect};
use crate::control::Client;
use crate::server::{Server, ServerOptions};
use crate::stats::{Latencies, per_second};

/// Arrivals a second at most: beyond, the gaps are too short for a timer to be kept.
const RATE_MAX: u32 = 1_000_000;

/// The plan: which request is meant to be sent when.
struct Schedule {
    start: Instant,
    rate: u32,
    total: u64,
    /// Requests that are sent and not measured.
    warmup: u64,
}

impl Schedule {
    /// When request `number`, counted from 0, is meant to be sent.
    fn at(&self, number: u64) -> Instant {
        let rate = u64::from(self.rate);
        self.start + Duration::from_secs(number / rate) + Duration::from_nanos(number % rate * 1_000_000_000 / rate)
    }

    /// How many are meant to have been sent by `now`.
    fn due(&self, now: Instant) -> u64 {
        let Some(passed) = now.checked_duration_since(self.start) else { return 0 };
        let due = passed.as_nanos() * u128::from(self.rate) / 1_000_000_000 + 1;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.total)
    }
}

/// A timer that wakes epoll with more than millisecond precision.
struct Alarm(OwnedFd);

impl Alarm {
    fn new() -> Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        timerfd_create(TimerfdClockId::Monotonic, flags).map(Self).context("timerfd_create")
    }

    /// Rings once, after `wait`.
    fn set(&self, wait: Duration) -> Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disarm it.
        let wait = wait.max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let timer = Itimerspec { it_interval: none, it_value: value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &timer).map(drop).context("timerfd_settime")
    }
}

/// Sends by the schedule. Returns the latencies, the answers and the longest line of arrivals that found no free connection.
fn drive(client: &Client, connections: usize, seed: u64, schedule: &Schedule) -> Result<(Latencies, Answers, u64)> {
    const ALARM: u64 = u64::MAX;
    let head = Dialect::One.head(client);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
    let alarm = Alarm::new()?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poll, &alarm.0, epoll::EventData::new_u64(ALARM), flags).context("epoll_ctl")?;
    let mut all = Vec::with_capacity(connections);
    for index in 0..connections as u64 {
        let connection = Connection::open(client, Dialect::One, seed.wrapping_mul(1_000_003).wrapping_add(index))?;
        connection.watch(&poll, index)?;
        all.push((connection, 0_u64));
    }
    let mut free: Vec<usize> = (0..connections).collect();
    let (mut latencies, mut answers) = (Latencies::new()?, Answers::default());
    let (mut sent, mut answered, mut longest_line) = (0_u64, 0_u64, 0_u64);
    let mut scratch = vec![0_u8; 64 * 1024];
    let mut events: Vec<epoll::Event> = Vec::with_capacity(connections + 1);
    while answered < schedule.total {
        let due = schedule.due(Instant::now());
        while sent < due
            && let Some(index) = free.pop()
        {
            let (connection, number) = &mut all[index];
            *number = sent;
            connection.send(&head, Some(schedule.at(sent)))?;
            sent += 1;
        }
        longest_line = longest_line.max(due - sent);
        if sent < schedule.total && !free.is_empty() {
            alarm.set(schedule.at(sent).saturating_duration_since(Instant::now()))?;
        }
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), Some(&SILENCE)).context("epoll_wait")?;
        if events.is_empty() {
            bail!("no answer on any connection for {} s", SILENCE.tv_sec);
        }
        for event in &events {
            let key = event.data.u64();
            // The alarm only ends the wait; it is announced again when it rings again, without being read.
            if key == ALARM {
                continue;
            }
            let (connection, number) = &mut all[key as usize];
            connection.flush()?;
            connection.fill(&mut scratch)?;
            if connection.answer(&mut answers)? {
                answered += 1;
                free.push(key as usize);
                if *number >= schedule.warmup {
                    latencies.add(connection.since.elapsed());
                }
            }
        }
    }
    Ok((latencies, answers, longest_line))
}

/// Submits that arrive at `rate` a second for `seconds`, and nothing of them is measured.
pub(crate) fn paced(client: &Client, connections: usize, seed: u64, rate: u32, seconds: u32) -> Result<()> {
    let total = u64::from(rate) * u64::from(seconds);
    let schedule = Schedule { start: Instant::now(), rate, total, warmup: 0 };
    let (_, answers, _) = drive(client, connections, seed, &schedule)?;
    match answers.first_error {
        Some(error) => bail!("{} submits failed: {error}", answers.errors),
        None => Ok(()),
    }
}

/// Measures submits that arrive at `rate` a second, for `seconds`; the first second is not counted.
pub(crate) fn run(options: &LoopOptions, rate: u32, seconds: u32, server: &ServerOptions) -> Result<Value> {
    if rate == 0 || rate > RATE_MAX {
        bail!("--rate is from 1 to {RATE_MAX}, not {rate}");
    }
    let mut server = Server::open(server)?;
    server.hold_node()?;
    let schedule = Schedule {
        start: Instant::now() + Duration::from_millis(20),
        rate,
        total: u64::from(rate) * (u64::from(seconds.max(1)) + 1),
        warmup: rate.into(),
    };
    let (latencies, answers, longest_line) = drive(&server.client, options.connections.max(1), options.seed, &schedule)?;
    let took = schedule.start.elapsed().as_secs_f64();
    let usage = server.usage();
    check_last(&server, &answers)?;
    Ok(json!({
        "mode": "submit-open", "server": server.name, "transport": server.transport, "rate": rate, "requests": schedule.total,
        "connections": options.connections, "seconds": took, "requests_per_s": per_second(schedule.total, took),
        "longest_line": longest_line, "latency_ms": latencies.summary(),
        "errors": answers.errors, "first_error": answers.first_error, "server_usage": usage,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Schedule;

    #[test]
    fn arrivals_are_evenly_spaced_and_do_not_drift() {
        let start = Instant::now();
        let schedule = Schedule { start, rate: 3_000, total: 9_001, warmup: 0 };
        assert_eq!(schedule.at(0), start);
        assert_eq!(schedule.at(9_000), start + Duration::from_secs(3));
        for number in [0, 1, 2, 2_999, 3_000, 8_999] {
            assert_eq!(schedule.due(schedule.at(number) + Duration::from_nanos(1)), number + 1);
        }
        assert_eq!(schedule.due(start + Duration::from_secs(60)), 9_001);
    }
}
