//! One kept-alive connection of a load generator: sockets that do not block, hand-written HTTP, one request under way.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::event::epoll;

use crate::body::{self, Random};
use crate::control::{Client, Endpoint};
use crate::wire;

/// What is sent, and what counts as a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// One job a request.
    One,
    /// That many jobs a request.
    Batch(usize),
    /// One job for gflow's daemon, behind its job 1.
    Gflow,
}

impl Dialect {
    /// Jobs in a request.
    pub(crate) const fn jobs(self) -> usize {
        match self {
            Self::One | Self::Gflow => 1,
            Self::Batch(jobs) => jobs,
        }
    }

    /// All of the head but the length.
    pub(crate) fn head(self, client: &Client) -> Vec<u8> {
        let path = match self {
            Self::One => "/api/v1/jobs",
            Self::Batch(_) => "/api/v1/jobs:batch",
            Self::Gflow => "/jobs",
        };
        wire::head(path, client.endpoint.host(), client.token.as_deref()).into_bytes()
    }

    fn body(self, random: &mut Random, out: &mut Vec<u8>) {
        match self {
            Self::One => body::job(random, out),
            Self::Batch(jobs) => body::batch(random, jobs, out),
            Self::Gflow => body::gflow(random, out),
        }
    }

    fn is_good(self, response: &wire::Response<'_>) -> bool {
        match self {
            Self::One | Self::Batch(_) => response.status == 201 && wire::count_ids(response.body) == self.jobs(),
            Self::Gflow => matches!(response.status, 200 | 201) && wire::find(response.body, br#""id":"#).is_some(),
        }
    }
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

/// What became of the answers that one thread saw.
#[derive(Default)]
pub(crate) struct Answers {
    /// Those that were not as they should be.
    pub(crate) errors: u64,
    /// The first of those.
    pub(crate) first_error: Option<String>,
    /// The last good one.
    pub(crate) last: Vec<u8>,
}

impl Answers {
    fn take(&mut self, response: &wire::Response<'_>, is_good: bool) {
        if is_good {
            self.last.clear();
            self.last.extend_from_slice(response.body);
        } else {
            self.errors += 1;
            if self.first_error.is_none() {
                self.first_error = Some(format!("{}: {}", response.status, String::from_utf8_lossy(response.body)));
            }
        }
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: Self) {
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        if !other.last.is_empty() {
            self.last = other.last;
        }
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: Stream,
    dialect: Dialect,
    random: Random,
    out: Vec<u8>,
    written: usize,
    body: Vec<u8>,
    input: Vec<u8>,
    /// From when the latency of the request under way counts.
    pub(crate) since: Instant,
}

impl Connection {
    /// Connects. The seed makes the bodies.
    pub(crate) fn open(client: &Client, dialect: Dialect, seed: u64) -> Result<Self> {
        let stream = Stream::connect(&client.endpoint).with_context(|| format!("connecting to {:?}", client.endpoint))?;
        Ok(Self {
            stream,
            dialect,
            random: Random::new(seed),
            out: Vec::new(),
            written: 0,
            body: Vec::new(),
            input: Vec::new(),
            since: Instant::now(),
        })
    }

    /// Has its edges announced under `key`.
    pub(crate) fn watch(&self, poll: impl AsFd, key: u64) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(poll, self.fd(), epoll::EventData::new_u64(key), flags).context("epoll_ctl")
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }

    /// Makes the next request and begins to send it; its latency counts from `since`.
    pub(crate) fn send(&mut self, head: &[u8], since: Option<Instant>) -> Result<()> {
        self.body.clear();
        self.dialect.body(&mut self.random, &mut self.body);
        self.out.clear();
        self.written = 0;
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(self.body.len().to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(&self.body);
        self.since = since.unwrap_or_else(Instant::now);
        self.flush()
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<()> {
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
    pub(crate) fn fill(&mut self, scratch: &mut [u8]) -> Result<()> {
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

    /// Takes the answer, if it is whole: true then.
    pub(crate) fn answer(&mut self, answers: &mut Answers) -> Result<bool> {
        let Some(response) = wire::response(&self.input)? else { return Ok(false) };
        answers.take(&response, self.dialect.is_good(&response));
        let length = response.length;
        self.input.drain(..length);
        Ok(true)
    }
}
