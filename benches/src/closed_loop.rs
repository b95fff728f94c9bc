//! Closed loops: every connection has one request under way and sends the next when the answer is there.
//!
//! One thread serves many connections with epoll and sockets that do not block: with the server on the same two processors, a
//! thread a connection would measure the kernel's scheduler (`--threads` equal to `--connections` shows that).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Method;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

use crate::LoopOptions;
use crate::body::{self, Random};
use crate::control::{Client, Endpoint};
use crate::server::{Server, ServerOptions};
use crate::stats::{Latencies, per_second};
use crate::wire;

/// Silence of all connections after which the measurement is given up.
const SILENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// What all threads share.
struct Shared {
    /// Requests answered so far.
    answered: AtomicU64,
    warmup: u64,
    /// Answers after which everybody ends.
    end: u64,
    batch: usize,
    begun: Instant,
    /// Nanoseconds after `begun` when a mark was reached: start of the measurement, end of its first tenth, start of its last, end.
    marks: [AtomicU64; 4],
    /// Answers at which the marks are.
    marks_at: [u64; 4],
}

impl Shared {
    fn new(warmup: u64, requests: u64, batch: usize) -> Self {
        let end = warmup + requests;
        let tenth = (requests / 10).max(1);
        Self {
            answered: AtomicU64::new(0),
            warmup,
            end,
            batch,
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

/// What one thread saw.
#[derive(Default)]
struct Seen {
    latencies: Latencies,
    errors: u64,
    first_error: Option<String>,
    /// The last good answer.
    last: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(endpoint: &Endpoint) -> std::io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Self::Unix(stream))
            }
        }
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(from),
            Self::Unix(stream) => stream.write(from),
        }
    }
}

/// One connection.
struct Connection {
    stream: Stream,
    random: Random,
    out: Vec<u8>,
    written: usize,
    body: Vec<u8>,
    input: Vec<u8>,
    sent_at: Instant,
}

impl Connection {
    /// Writes the next request into `out`.
    fn prepare(&mut self, head: &[u8], batch: usize) {
        self.body.clear();
        if batch == 1 {
            body::job(&mut self.random, &mut self.body);
        } else {
            body::batch(&mut self.random, batch, &mut self.body);
        }
        self.out.clear();
        self.written = 0;
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(self.body.len().to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(&self.body);
        self.sent_at = Instant::now();
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the server closed a connection under a request"),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending a request"),
            }
        }
        Ok(())
    }

    /// Reads what is there; edges are announced once, so it reads until there is less than it has room for.
    fn fill(&mut self, scratch: &mut [u8]) -> Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading an answer"),
            }
        }
    }

    /// Takes an answer, if it is whole, and sends the next request. False when all work is done.
    fn turn(&mut self, head: &[u8], shared: &Shared, seen: &mut Seen) -> Result<bool> {
        let Some(response) = wire::response(&self.input)? else { return Ok(true) };
        let now = Instant::now();
        let number = shared.count(now);
        if response.status != 201 || wire::count_ids(response.body) != shared.batch {
            seen.errors += 1;
            if seen.first_error.is_none() {
                seen.first_error = Some(format!("{}: {}", response.status, String::from_utf8_lossy(response.body)));
            }
        } else {
            seen.last.clear();
            seen.last.extend_from_slice(response.body);
        }
        if number > shared.warmup && number <= shared.end {
            seen.latencies.add(now.duration_since(self.sent_at));
        }
        let length = response.length;
        self.input.drain(..length);
        if number >= shared.end {
            return Ok(false);
        }
        self.prepare(head, shared.batch);
        self.flush()?;
        Ok(true)
    }
}

/// One thread's loop over its connections.
fn drive(client: &Client, connections: usize, seed: u64, shared: &Shared) -> Result<Seen> {
    let path = if shared.batch == 1 { "/api/v1/jobs" } else { "/api/v1/jobs:batch" };
    let head = wire::head(path, client.endpoint.host(), client.token.as_deref()).into_bytes();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
    let mut all = Vec::with_capacity(connections);
    for index in 0..connections {
        let stream = Stream::connect(&client.endpoint).with_context(|| format!("connecting to {:?}", client.endpoint))?;
        let fd = match &stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&poll, fd, epoll::EventData::new_u64(index as u64), flags).context("epoll_ctl")?;
        let mut connection = Connection {
            stream,
            random: Random::new(seed.wrapping_mul(1_000_003).wrapping_add(index as u64)),
            out: Vec::new(),
            written: 0,
            body: Vec::new(),
            input: Vec::new(),
            sent_at: Instant::now(),
        };
        connection.prepare(&head, shared.batch);
        connection.flush()?;
        all.push(connection);
    }
    let mut seen = Seen::default();
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
            if !connection.turn(&head, shared, &mut seen)? {
                return Ok(seen);
            }
        }
    }
    Ok(seen)
}

/// An id out of an answer to a submit.
fn some_id(answer: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    let id = value["id"].as_str().or_else(|| value["jobs"].as_array()?.last()?["id"].as_str())?;
    Some(id.to_owned())
}

/// Measures submits of `batch` jobs a request.
pub(crate) fn run(options: &LoopOptions, batch: usize, server: &ServerOptions) -> Result<Value> {
    let (threads, connections) = (options.threads.max(1), options.connections.max(1));
    let requests = options.requests.unwrap_or(if batch == 1 { 50_000 } else { 100 }).max(2);
    let warmup = options.warmup.unwrap_or(if batch == 1 { 2_000 } else { 4 }).max(1);
    let mut server = Server::open(server)?;
    server.hold_node()?;
    let shared = Shared::new(warmup, requests, batch);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let share = connections / threads + usize::from(thread < connections % threads);
                let (client, shared, seed) = (&server.client, &shared, options.seed.wrapping_add((thread as u64) << 32));
                scope.spawn(move || drive(client, share, seed, shared))
            })
            .collect();
        for thread in running {
            let one = thread.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
            seen.latencies.merge(one.latencies);
            seen.errors += one.errors;
            seen.first_error = seen.first_error.take().or(one.first_error);
            seen.last = if one.last.is_empty() { seen.last.clone() } else { one.last };
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let usage = server.usage();
    if server.name != "bare" {
        let id = some_id(&seen.last).context("no submit was answered with an id")?;
        let job = server.client.call(Method::GET, &format!("/api/v1/jobs/{id}"), b"")?;
        if job["id"].as_str() != Some(id.as_str()) {
            bail!("job {id} was acknowledged and cannot be read back: {job}");
        }
    }
    let (seconds, tenth) = (shared.seconds(0, 3), (requests / 10).max(1));
    Ok(json!({
        "mode": if batch == 1 { "submit" } else { "batch" },
        "server": server.name, "transport": server.transport,
        "connections": connections, "threads": threads, "batch": batch, "requests": requests, "seconds": seconds,
        "requests_per_s": per_second(requests, seconds),
        "jobs_per_s": per_second(requests * batch as u64, seconds),
        "first_tenth_jobs_per_s": per_second(tenth * batch as u64, shared.seconds(0, 1)),
        "last_tenth_jobs_per_s": per_second(tenth * batch as u64, shared.seconds(2, 3)),
        "latency_ms": seen.latencies.summary(),
        "errors": seen.errors, "first_error": seen.first_error, "server_usage": usage,
    }))
}
