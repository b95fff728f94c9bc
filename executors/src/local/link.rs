//! One connection with a runner, from the daemon's side: how it is made, and what goes over it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scheduler_core::ids::RunId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::client::{KIND, LocalOptions};
use super::protocol::{Hello, MAX_FRAME, MAX_HELLO, Order, PROTOCOL, Told, decode, encode, frame_length};
use super::socket::SocketPath;
use crate::contract::{DeviceAccess, ExecutorError, Observed, Report};

/// Frames that wait to be written; who has more to say waits.
const FRAMES_AHEAD: usize = 64;
/// Most reports that wait for somebody to take them.
const MAX_UNTAKEN: usize = 65_536;
/// How long a runner may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to connect to a runner that was just started.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Number of the observation that only asks for reports.
const SUBSCRIBE: u64 = 0;

/// Where orders go in, and answers are waited for. Cloning gives another handle on the same connection.
#[derive(Clone)]
pub(super) struct Link {
    frames: mpsc::Sender<Vec<u8>>,
    answers: Arc<Mutex<Answers>>,
    /// The runner knows of lines.
    pub(super) lines: bool,
    /// Whether the runner can keep runs from devices.
    pub(super) devices: DeviceAccess,
}

/// Observations that are under way.
#[derive(Default)]
struct Answers {
    last: u64,
    waiting: BTreeMap<u64, (Vec<Observed>, oneshot::Sender<Vec<Observed>>)>,
}

/// How a connection ended.
pub(super) enum Over {
    /// The runner has another daemon now.
    Replaced,
    /// For this reason.
    Broken(String),
}

/// A connection that has been made: to be served by [`Session::serve`].
pub(super) struct Session {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    frames: mpsc::Receiver<Vec<u8>>,
    answers: Arc<Mutex<Answers>>,
    subscribe: bool,
}

/// An error of this executor.
pub(super) fn unreachable(op: &'static str, detail: impl ToString) -> ExecutorError {
    ExecutorError::Unreachable { op, executor: KIND, detail: detail.to_string() }
}

impl Link {
    /// Hands a frame to the connection. `Ok` says that it will be sent if the connection holds.
    pub(super) async fn send(&self, op: &'static str, frame: Vec<u8>) -> Result<(), ExecutorError> {
        self.frames.send(frame).await.map_err(|_| unreachable(op, "the connection to the runner has just broken"))
    }

    /// Asks for all runs that are there.
    pub(super) async fn observe(&self, op: &'static str) -> Result<Vec<Observed>, ExecutorError> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut answers = lock(&self.answers);
            answers.last += 1;
            let id = answers.last;
            answers.waiting.insert(id, (Vec::new(), answer));
            id
        };
        let order = frame(op, &Order::Observe { id })?;
        self.send(op, order).await?;
        answered.await.map_err(|_| unreachable(op, "the connection to the runner broke before it answered"))
    }
}

/// An order as a frame.
pub(super) fn frame(op: &'static str, order: &Order) -> Result<Vec<u8>, ExecutorError> {
    let mut bytes = Vec::new();
    encode(order, &mut bytes).map_err(|error| ExecutorError::Other { op, executor: KIND, detail: error.to_string() })?;
    Ok(bytes)
}

fn lock(answers: &Mutex<Answers>) -> std::sync::MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to the runner that is there; starts one if none is.
pub(super) async fn connect_or_start(op: &'static str, options: &LocalOptions) -> Result<(Link, Session), ExecutorError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.dir)
        .map_err(|error| unreachable(op, format!("{}: {error}", options.dir.display())))?;
    let deadline = Instant::now() + options.connect_timeout;
    let mut child: Option<tokio::process::Child> = None;
    let mut pause = CONNECT_PAUSE.0;
    loop {
        let nobody = match connect(&options.dir).await {
            Ok(stream) => match greet(op, stream).await {
                Ok(connected) => {
                    if let Some(child) = child {
                        wait_for_end(child);
                    }
                    return Ok(connected);
                }
                // It was there and is gone, as a runner that has just found itself idle.
                Err(ExecutorError::Unreachable { detail, .. }) => detail,
                Err(error) => return Err(error),
            },
            Err(error) if is_nobody(&error) => error.to_string(),
            Err(error) => return Err(unreachable(op, format!("{}: {error}", options.dir.display()))),
        };
        match child.as_mut().map(tokio::process::Child::try_wait) {
            Some(Ok(Some(status))) if Instant::now() >= deadline => {
                return Err(gave_up(op, options, &format!("it ended with {status}")));
            }
            // Ended: another runner may have the folder, one that is about to listen or to end. Then the next attempt tells.
            None | Some(Ok(Some(_))) => child = Some(start_runner(op, options)?),
            Some(_) if Instant::now() >= deadline => return Err(gave_up(op, options, &nobody)),
            Some(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(CONNECT_PAUSE.1);
    }
}

fn gave_up(op: &'static str, options: &LocalOptions, last: &str) -> ExecutorError {
    let log = options.dir.join("runner.log");
    let waited = options.connect_timeout.as_millis();
    unreachable(op, format!("no runner answered for {waited} ms: {last}; {} may say why", log.display()))
}

async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let path = SocketPath::new(dir)?;
    UnixStream::connect(path.as_path()).await
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

fn start_runner(op: &'static str, options: &LocalOptions) -> Result<tokio::process::Child, ExecutorError> {
    let Some((program, args)) = options.runner_command.split_first() else {
        return Err(ExecutorError::Other { op, executor: KIND, detail: "no command to start a runner with".to_owned() });
    };
    let log = options.dir.join("runner.log");
    let start = || -> io::Result<tokio::process::Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log)?;
        let mut command = tokio::process::Command::new(program);
        command.args(args).arg("--dir").arg(&options.dir);
        // It makes itself a session of its own; what it says goes to its log.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(false);
        command.spawn()
    };
    start().map_err(|error| unreachable(op, format!("starting a runner ({}): {error}", program.display())))
}

/// Takes the exit of a runner that ends while this daemon lives, so that no zombie stays.
fn wait_for_end(mut child: tokio::process::Child) {
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => tracing::info!(%status, "the runner ended"),
            Err(error) => tracing::warn!(%error, "waiting for the runner"),
        }
    });
}

/// Says hello, and makes sure that it is a runner of ours that answers.
async fn greet(op: &'static str, mut stream: UnixStream) -> Result<(Link, Session), ExecutorError> {
    let peer = stream.peer_cred().map_err(|error| unreachable(op, error))?;
    if peer.uid() != rustix::process::geteuid().as_raw() && peer.uid() != 0 {
        let detail = format!("the socket is served by user {}", peer.uid());
        return Err(ExecutorError::Other { op, executor: KIND, detail });
    }
    let hello = Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        lines: true,
        devices: None,
    };
    let mut bytes = Vec::new();
    encode(&hello, &mut bytes).map_err(|error| unreachable(op, error))?;
    let exchange = async {
        stream.write_all(&bytes).await?;
        read_frame(&mut stream, &mut bytes, MAX_HELLO).await?;
        decode::<Hello>(&bytes)
    };
    let theirs = match timeout(HELLO_TIMEOUT, exchange).await {
        Ok(Ok(theirs)) => theirs,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            let detail = format!("what listens there is no runner: {error}");
            return Err(ExecutorError::Other { op, executor: KIND, detail });
        }
        Ok(Err(error)) => return Err(unreachable(op, format!("saying hello: {error}"))),
        Err(_) => return Err(unreachable(op, "the runner did not say hello in time")),
    };
    if theirs.protocol != PROTOCOL {
        return Err(ExecutorError::Protocol { executor: KIND, theirs: theirs.protocol, ours: PROTOCOL });
    }
    let (reader, writer) = stream.into_split();
    let (frames, waiting) = mpsc::channel(FRAMES_AHEAD);
    let answers = Arc::default();
    let session = Session {
        reader: BufReader::with_capacity(64 << 10, reader),
        writer,
        frames: waiting,
        answers: Arc::clone(&answers),
        subscribe: false,
    };
    let devices = theirs.devices.unwrap_or_else(|| DeviceAccess {
        enforced: false,
        detail: format!("the runner is that of flashd {}, which cannot", theirs.version),
    });
    tracing::info!(
        pid = theirs.pid,
        version = theirs.version,
        devices_enforced = devices.enforced,
        devices = devices.detail,
        "connected to the runner"
    );
    Ok((Link { frames, answers, lines: theirs.lines, devices }, session))
}

async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>, max: usize) -> io::Result<()> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    buffer.clear();
    buffer.resize(frame_length(header, max)?, 0);
    stream.read_exact(buffer).await?;
    Ok(())
}

impl Session {
    /// Has reports flow from the beginning. Otherwise they do from the first observation on, whose answer then comes before them:
    /// who begins with one needs no reader of reports until it is answered.
    pub(super) fn subscribed(self) -> Self {
        Self { subscribe: true, ..self }
    }

    /// Serves the connection until it ends; says why it did. Reports go to `reports`, and wait there if need be: then the runner
    /// waits too.
    pub(super) async fn serve(self, reports: &mpsc::Sender<Report>) -> Over {
        let Self { mut reader, writer, frames, answers, subscribe } = self;
        let (tell, told) = mpsc::channel(FRAMES_AHEAD);
        let ended = tokio::select! {
            ended = read_all(&mut reader, tell) => ended,
            ended = hand_on(told, &answers, reports) => ended,
            ended = write_all(writer, frames, subscribe) => ended,
        };
        // Whoever waits for an answer hears that none will come.
        lock(&answers).waiting.clear();
        match ended {
            Ok(()) => Over::Replaced,
            Err(error) => Over::Broken(error.to_string()),
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<u8>>, subscribe: bool) -> io::Result<()> {
    let mut waiting = Vec::new();
    let mut bytes = Vec::new();
    if subscribe {
        encode(&Order::Observe { id: SUBSCRIBE }, &mut bytes)?;
    }
    loop {
        writer.write_all(&bytes).await?;
        if frames.recv_many(&mut waiting, FRAMES_AHEAD).await == 0 {
            // Nobody can give orders any more, but there may still be reports.
            std::future::pending::<()>().await;
        }
        bytes.clear();
        waiting.drain(..).for_each(|frame| bytes.extend_from_slice(&frame));
    }
}

async fn read_all(reader: &mut BufReader<OwnedReadHalf>, told: mpsc::Sender<Told>) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        read_frame(reader, &mut frame, MAX_FRAME).await?;
        match decode(&frame) {
            Ok(Told::Replaced {}) => return Ok(()),
            Ok(message) => told.send(message).await.map_err(|_| nobody_listens())?,
            // A newer runner may say what this daemon does not know.
            Err(error) => tracing::warn!(%error, "the runner said something that was not understood"),
        }
    }
}

/// Hands on what the runner tells. Reports that nobody takes yet do not keep answers from who waits for them, until there are
/// very many; then nothing more is read, and the runner waits.
async fn hand_on(mut told: mpsc::Receiver<Told>, answers: &Mutex<Answers>, reports: &mpsc::Sender<Report>) -> io::Result<()> {
    let mut untaken = VecDeque::new();
    loop {
        tokio::select! {
            message = told.recv(), if untaken.len() < MAX_UNTAKEN => match message {
                Some(Told::Reports { reports }) => untaken.extend(reports),
                Some(Told::Runs { id, runs, last }) => answer(answers, id, runs, last),
                // The reader knows that the connection is over, and says so itself. What was not taken is told again on the next.
                Some(Told::Replaced {}) | None => std::future::pending::<()>().await,
            },
            place = reports.reserve(), if !untaken.is_empty() => {
                let place = place.map_err(|_| nobody_listens())?;
                if let Some(report) = untaken.pop_front() {
                    place.send(report);
                }
            }
        }
    }
}

fn nobody_listens() -> io::Error {
    io::Error::other("nobody takes reports any more")
}

fn answer(answers: &Mutex<Answers>, id: u64, runs: Vec<Observed>, last: bool) {
    let mut answers = lock(answers);
    let Some((collected, _)) = answers.waiting.get_mut(&id) else { return };
    collected.extend(runs);
    if last && let Some((collected, waiting)) = answers.waiting.remove(&id) {
        // Who has given up waiting needs no answer.
        let _ = waiting.send(collected);
    }
}

/// Runs of one order that go into one frame.
const ORDER_RUNS: usize = 2_000;

/// Splits runs into orders to forget them.
pub(super) fn forget_orders(runs: &[RunId]) -> impl Iterator<Item = Order> + '_ {
    runs.chunks(ORDER_RUNS).map(|runs| Order::Forget { runs: runs.to_vec() })
}

/// Splits runs into orders to withdraw them.
pub(super) fn withdraw_orders(runs: &[RunId]) -> impl Iterator<Item = Order> + '_ {
    runs.chunks(ORDER_RUNS).map(|runs| Order::Withdraw { runs: runs.to_vec() })
}
