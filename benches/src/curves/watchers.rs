//! From one to a thousand watchers of all events: how late each of them hears of a submit, and what they cost those who submit.
//!
//! Watchers are raw connections on one thread; of what they receive only the times are read. An event's latency counts from the time that it says
//! itself, the decision, so the commit is in it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::{Curve, Point};
use crate::LoopOptions;
use crate::closed_loop::load;
use crate::connection::Dialect;
use crate::control::Endpoint;
use crate::open_loop::paced;
use crate::server::{Server, ServerOptions};
use crate::stats::Latencies;
use crate::wire::find;

const SIZES: [u64; 4] = [1, 10, 100, 1_000];
/// Arrivals a second while latencies are measured, and for how long.
const RATE: u32 = 40;
const SECONDS: u32 = 3;
/// Submits of the closed loop: fewer where each is told to many.
const SUBMITS: u64 = 200_000;
const CONFIG: &str = "[node]\ncpus = 2\n\n[limits]\nwatchers = 2000\nunix_connections = 4000\n";

struct Watcher {
    socket: UnixStream,
    input: Vec<u8>,
}

impl Watcher {
    fn open(path: &std::path::Path) -> Result<Self> {
        let mut socket = UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
        socket.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").context("asking for events")?;
        // The head of the answer: from then on it is told of everything.
        let mut input = vec![0; 4_096];
        let count = socket.read(&mut input).context("reading the answer to a watch")?;
        input.truncate(count);
        if !input.starts_with(b"HTTP/1.1 200") {
            bail!("a watch was answered {:?}", String::from_utf8_lossy(&input));
        }
        socket.set_nonblocking(true).context("setting a socket not to block")?;
        Ok(Self { socket, input: Vec::new() })
    }

    /// Reads what is there. Returns the number of events, whose latencies are added where they are wanted.
    fn read(&mut self, scratch: &mut [u8], latencies: Option<&mut Latencies>) -> Result<u64> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed a watch"),
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    if count < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading events"),
            }
        }
        let now = jiff::Timestamp::now();
        let (mut events, mut from, mut latencies) = (0, 0, latencies);
        while let Some(at) = find(&self.input[from..], b"\"at\":\"") {
            let start = from + at + 6;
            let Some(length) = find(&self.input[start..], b"\"") else { break };
            let text = std::str::from_utf8(&self.input[start..start + length]).context("the time of an event")?;
            if let Some(latencies) = latencies.as_deref_mut() {
                let then: jiff::Timestamp = text.parse().with_context(|| format!("the time of an event: {text}"))?;
                latencies.add(Duration::try_from(now.duration_since(then)).unwrap_or_default());
            }
            events += 1;
            from = start + length;
        }
        // What may be the beginning of the next one stays.
        self.input.drain(..from.max(self.input.len().saturating_sub(1_024)).min(self.input.len()));
        Ok(events)
    }
}

/// Reads all watchers until it is told to stop. Returns how many events there were.
fn drain(watchers: &mut [Watcher], stop: &AtomicBool, mut latencies: Option<&mut Latencies>) -> Result<u64> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
    for (index, watcher) in watchers.iter().enumerate() {
        epoll::add(&poll, &watcher.socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)
            .context("epoll_ctl")?;
    }
    let mut ready: Vec<epoll::Event> = Vec::with_capacity(256);
    let (mut scratch, mut events) = (vec![0; 64 * 1_024], 0);
    // Until nothing has come for a while after the end.
    loop {
        ready.clear();
        epoll::wait(&poll, spare_capacity(&mut ready), Some(&Timespec { tv_sec: 0, tv_nsec: 300_000_000 }))
            .context("epoll_wait")?;
        if ready.is_empty() && stop.load(Ordering::Relaxed) {
            return Ok(events);
        }
        for event in &ready {
            events += watchers[event.data.u64() as usize].read(&mut scratch, latencies.as_deref_mut())?;
        }
    }
}

/// Runs `work` while the watchers are read.
fn beside<T: Send>(
    watchers: &mut [Watcher],
    latencies: Option<&mut Latencies>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, u64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let done = work();
            stop.store(true, Ordering::Relaxed);
            done
        });
        let events = drain(watchers, &stop, latencies);
        let done = worker.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        Ok((done?, events?))
    })
}

/// Measures up to `most` watchers.
pub(super) fn measure(options: &ServerOptions, most: u64) -> Result<Curve> {
    let mut options = options.clone();
    CONFIG.clone_into(&mut options.config);
    let mut server = Server::open(&options)?;
    server.hold_node()?;
    let Endpoint::Unix(path) = server.client.endpoint.clone() else { bail!("watchers come over the Unix socket") };
    let mut watchers = Vec::new();
    let mut points = Vec::new();
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        while (watchers.len() as u64) < size {
            watchers.push(Watcher::open(&path)?);
        }
        let mut latencies = Latencies::new()?;
        let client = &server.client;
        let ((), heard) = beside(&mut watchers, Some(&mut latencies), || paced(client, 4, size, RATE, SECONDS))?;
        if heard != size * u64::from(RATE * SECONDS) {
            bail!("{size} watchers heard of {heard} events instead of {} each", RATE * SECONDS);
        }
        let requests = (SUBMITS / size).clamp(1_000, 20_000);
        let closed = LoopOptions { connections: 16, requests: Some(requests), warmup: Some(100), threads: 1, seed: size };
        let before = server.usage();
        let ((submitted, _), events) = beside(&mut watchers, None, || load(client, &closed, Dialect::One))?;
        let after = server.usage();
        let cpu = after["cpu_s"].as_f64().unwrap_or_default() - before["cpu_s"].as_f64().unwrap_or_default();
        let summary = latencies.summary();
        points.push(Point::new(
            size as f64,
            [
                ("event_p50_ms", summary["p50"].as_f64().unwrap_or_default()),
                ("event_p99_ms", summary["p99"].as_f64().unwrap_or_default()),
                ("singles_per_s", submitted["jobs_per_s"].as_f64().unwrap_or_default()),
                ("events_told_per_s", events as f64 / submitted["seconds"].as_f64().unwrap_or(1.0)),
                ("cpu_us_an_event_told", 1e6 * cpu / events.max(1) as f64),
                ("rss_mib", after["rss_mib"].as_f64().unwrap_or_default()),
            ],
        ));
    }
    Ok(Curve { name: "watchers", title: "watchers of all events", points })
}
