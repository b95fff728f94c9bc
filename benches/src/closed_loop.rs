//! Closed loops: every connection has one request under way and sends the next when the answer is there.
//!
//! One thread serves many connections with epoll and sockets that do not block: with the server on the same two processors, a
//! thread a connection would measure the kernel's scheduler (`--threads` equal to `--connections` shows that).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Method;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

use crate::LoopOptions;
use crate::connection::{Answers, Connection, Dialect};
use crate::control::Client;
use crate::server::{Server, ServerOptions};
use crate::stats::{Latencies, per_second};

/// Silence of all connections after which the measurement is given up.
pub(crate) const SILENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// What all threads share.
struct Shared {
    /// Requests answered so far.
    answered: AtomicU64,
    warmup: u64,
    /// Answers after which everybody ends.
    end: u64,
    dialect: Dialect,
    begun: Instant,
    /// Nanoseconds after `begun` when a mark was reached: start of the measurement, end of its first tenth, start of its last, end.
    marks: [AtomicU64; 4],
    /// Answers at which the marks are.
    marks_at: [u64; 4],
}

impl Shared {
    fn new(warmup: u64, requests: u64, dialect: Dialect) -> Self {
        let end = warmup + requests;
        let tenth = (requests / 10).max(1);
        Self {
            answered: AtomicU64::new(0),
            warmup,
            end,
            dialect,
            begun: Instant::now(),
            marks: Default::default(),
            marks_at: [warmup, warmup + tenth, end - tenth, end],
        }
    }

    /// Counts one answer, remembers when the marks were reached, and returns its number from 1.
    fn count(&self, now: Instant) -> u64 {
        let number = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        for (mark, at) in self.marks.iter().zip(self.marks_at) {
            if number == at {
                mark.store(now.duration_since(self.begun).as_nanos() as u64, Ordering::Relaxed);
            }
        }
        number
    }

    fn seconds(&self, from: usize, to: usize) -> f64 {
        let at = |mark: usize| self.marks[mark].load(Ordering::Relaxed);
        Duration::from_nanos(at(to).saturating_sub(at(from))).as_secs_f64()
    }
}

/// One thread's loop over its connections.
fn drive(client: &Client, connections: usize, seed: u64, shared: &Shared) -> Result<(Latencies, Answers)> {
    let head = shared.dialect.head(client);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
    let mut all = Vec::with_capacity(connections);
    for index in 0..connections as u64 {
        let mut connection = Connection::open(client, shared.dialect, seed.wrapping_mul(1_000_003).wrapping_add(index))?;
        connection.watch(&poll, index)?;
        connection.send(&head, None)?;
        all.push(connection);
    }
    let (mut latencies, mut answers) = (Latencies::new()?, Answers::default());
    let mut scratch = vec![0_u8; 64 * 1024];
    let mut events: Vec<epoll::Event> = Vec::with_capacity(connections.max(1));
    while shared.answered.load(Ordering::Relaxed) < shared.end {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), Some(&SILENCE)).context("epoll_wait")?;
        if events.is_empty() {
            bail!("no answer on any connection for {} s", SILENCE.tv_sec);
        }
        for event in &events {
            let connection = &mut all[event.data.u64() as usize];
            connection.flush()?;
            connection.fill(&mut scratch)?;
            if !connection.answer(&mut answers)? {
                continue;
            }
            let now = Instant::now();
            let number = shared.count(now);
            if number > shared.warmup && number <= shared.end {
                latencies.add(now.duration_since(connection.since));
            }
            if number >= shared.end {
                return Ok((latencies, answers));
            }
            connection.send(&head, None)?;
        }
    }
    Ok((latencies, answers))
}

/// An id out of an answer to a submit.
fn some_id(answer: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    let id = value["id"].as_str().or_else(|| value["jobs"].as_array()?.last()?["id"].as_str())?;
    Some(id.to_owned())
}

/// An acknowledged job can be read back.
pub(crate) fn check_last(server: &Server, answers: &Answers) -> Result<()> {
    if server.name == "bare" {
        return Ok(());
    }
    let id = some_id(&answers.last).context("no submit was answered with an id")?;
    let job = server.client.call(Method::GET, &format!("/api/v1/jobs/{id}"), b"")?;
    if job["id"].as_str() != Some(id.as_str()) {
        bail!("job {id} was acknowledged and cannot be read back: {job}");
    }
    Ok(())
}

/// Runs the loops, and says what they measured and what the answers were.
pub(crate) fn load(client: &Client, options: &LoopOptions, dialect: Dialect) -> Result<(Value, Answers)> {
    let (threads, connections) = (options.threads.max(1), options.connections.max(1));
    let batch = dialect.jobs();
    let requests = options.requests.unwrap_or(if batch == 1 { 50_000 } else { 100 }).max(2);
    let warmup = options.warmup.unwrap_or(if batch == 1 { 2_000 } else { 4 }).max(1);
    let shared = Shared::new(warmup, requests, dialect);
    let (mut latencies, mut answers) = (Latencies::new()?, Answers::default());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let share = connections / threads + usize::from(thread < connections % threads);
                let (shared, seed) = (&shared, options.seed.wrapping_add((thread as u64) << 32));
                scope.spawn(move || drive(client, share, seed, shared))
            })
            .collect();
        for thread in running {
            let (seen, said) = thread.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
            latencies.merge(&seen)?;
            answers.merge(said);
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let (seconds, tenth) = (shared.seconds(0, 3), (requests / 10).max(1));
    let result = json!({
        "connections": connections, "threads": threads, "batch": batch, "requests": requests, "seconds": seconds,
        "requests_per_s": per_second(requests, seconds),
        "jobs_per_s": per_second(requests * batch as u64, seconds),
        "first_tenth_jobs_per_s": per_second(tenth * batch as u64, shared.seconds(0, 1)),
        "last_tenth_jobs_per_s": per_second(tenth * batch as u64, shared.seconds(2, 3)),
        "latency_ms": latencies.summary(),
        "errors": answers.errors, "first_error": answers.first_error,
    });
    Ok((result, answers))
}

/// Measures submits.
pub(crate) fn run(options: &LoopOptions, dialect: Dialect, server: &ServerOptions) -> Result<Value> {
    let mut server = Server::open(server)?;
    server.hold_node()?;
    let (mut result, answers) = load(&server.client, options, dialect)?;
    result["mode"] = if dialect.jobs() == 1 { "submit" } else { "batch" }.into();
    result["server"] = server.name.as_str().into();
    result["transport"] = server.transport.into();
    result["server_usage"] = server.usage();
    check_last(&server, &answers)?;
    Ok(result)
}
