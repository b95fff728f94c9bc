//! From a submit on an idle machine to the first instruction of the job's program.
//!
//! The job is this program again, as `loadgen stamp FIFO`: first of all it reads the monotonic clock, which all processes share, and
//! writes it into a pipe. The bound is the same program started by posix_spawn from here, so that what is left between the two is
//! what the daemon adds.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::control::Endpoint;
use crate::server::{Server, ServerOptions, fresh_folder, poll_until};
use crate::stats::Latencies;
use crate::wire;

/// How long one start may take.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Quiet time before each submit: the machine is meant to be idle.
const QUIET: Duration = Duration::from_millis(15);
/// Starts before the clock counts.
const WARMUP: u32 = 5;

/// The monotonic clock, in nanoseconds.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// What the measured job does.
pub(crate) fn stamp(fifo: &Path) -> Result<()> {
    let at = now();
    let mut fifo = OpenOptions::new().write(true).open(fifo).with_context(|| format!("opening {}", fifo.display()))?;
    fifo.write_all(&at.to_ne_bytes()).context("writing a stamp")
}

/// The reading end of the pipe that the jobs stamp into.
pub(crate) struct Stamps {
    path: PathBuf,
    file: File,
}

impl Stamps {
    /// In this folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("stamps");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .with_context(|| format!("creating {}", path.display()))?;
        // Open for writing too: so there is no end of file between two jobs.
        let file =
            OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path, file })
    }

    fn next(&mut self) -> Result<u64> {
        let mut one = [PollFd::new(&self.file, PollFlags::IN)];
        if poll(&mut one, Some(&PATIENCE)).context("waiting for a stamp")? == 0 {
            bail!("a job did not start within {} s", PATIENCE.tv_sec);
        }
        let mut bytes = [0_u8; 8];
        self.file.read_exact(&mut bytes).context("reading a stamp")?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// A kept connection that submits one job after the other and waits for each answer.
struct Submitter {
    socket: Box<dyn Socket>,
    request: Vec<u8>,
}

impl Submitter {
    fn new(server: &Server, stamps: &Stamps, mut job: Value) -> Result<Self> {
        let endpoint = &server.client.endpoint;
        let socket: Box<dyn Socket> = match endpoint {
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).with_context(|| format!("connecting to {endpoint:?}"))?),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).with_context(|| format!("connecting to {endpoint:?}"))?;
                stream.set_nodelay(true).context("setting TCP_NODELAY")?;
                Box::new(stream)
            }
        };
        let program = std::env::current_exe().context("finding this program")?;
        job["command"] = json!([program, "stamp", stamps.path]);
        let body = job.to_string();
        let head = wire::head("/api/v1/jobs", endpoint.host(), server.client.token.as_deref());
        Ok(Self { socket, request: format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes() })
    }

    /// Submits, and returns the job's id.
    fn submit(&mut self) -> Result<String> {
        self.socket.write_all(&self.request).context("submitting")?;
        let mut input = Vec::new();
        let mut chunk = [0_u8; 4_096];
        loop {
            let count = self.socket.read(&mut chunk).context("reading the answer to a submit")?;
            if count == 0 {
                bail!("the server closed the connection");
            }
            input.extend_from_slice(&chunk[..count]);
            if let Some(response) = wire::response(&input)? {
                let answer: Value = serde_json::from_slice(response.body).unwrap_or_default();
                return answer["id"]
                    .as_str()
                    .map(str::to_owned)
                    .with_context(|| format!("a submit was answered {}", response.status));
            }
        }
    }
}

/// One after the other, `count` submits on an idle daemon.
pub(crate) fn through_daemon(count: u32, options: &ServerOptions) -> Result<Value> {
    let server = Server::open(options)?;
    let job = json!({"name": "stamp", "resources": {"cpu": "1"}});
    let (starts, answers) = one_by_one(&server, &mut Stamps::new(&server.data()?)?, count, job)?;
    Ok(json!({"mode": "start", "server": server.name, "transport": server.transport, "count": count,
        "latency_ms": starts.summary(), "answer_ms": answers.summary()}))
}

/// Submits a job that only lacks its command, again and again, and waits for its end each time: how long until it started, and until
/// the submit was answered.
pub(crate) fn one_by_one(server: &Server, stamps: &mut Stamps, count: u32, job: Value) -> Result<(Latencies, Latencies)> {
    let mut submitter = Submitter::new(server, stamps, job)?;
    let (mut starts, mut answers) = (Latencies::new()?, Latencies::new()?);
    for number in 0..count + WARMUP {
        std::thread::sleep(QUIET);
        let begun = now();
        let id = submitter.submit()?;
        let answered = now();
        let started = stamps.next()?;
        if number >= WARMUP {
            // The job may start before its submitter has read the answer.
            starts.add(Duration::from_nanos(started.saturating_sub(begun)));
            answers.add(Duration::from_nanos(answered - begun));
        }
        let path = format!("/api/v1/jobs/{id}");
        poll_until("the end of a job that stamps its start", Duration::from_mins(1), || {
            let job = server.client.call(Method::GET, &path, b"")?;
            Ok((job["state"] == "finished").then_some(()))
        })?;
    }
    Ok((starts, answers))
}

/// The bound: the same program, spawned from here.
pub(crate) fn by_spawn(count: u32, dir: Option<PathBuf>) -> Result<Value> {
    let folder = fresh_folder(&dir.unwrap_or_else(std::env::temp_dir))?;
    let mut stamps = Stamps::new(&folder)?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut starts = Latencies::new()?;
    for number in 0..count + WARMUP {
        std::thread::sleep(QUIET);
        let begun = now();
        let mut child = Command::new(&program).arg("stamp").arg(&stamps.path).stdin(Stdio::null()).spawn().context("spawning")?;
        let started = stamps.next()?;
        child.wait().context("waiting for a spawned program")?;
        if number >= WARMUP {
            starts.add(Duration::from_nanos(started - begun));
        }
    }
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    Ok(json!({"mode": "start", "server": "posix_spawn", "count": count, "latency_ms": starts.summary()}))
}
