//! The decision log: every call that changes the core, with what it answered, as lines of JSON. `flash simulate --replay` plays them into a
//! fresh core and compares.
//!
//! What must hold:
//! - The engine does not wait for the disk. Lines go through a bounded queue to a thread of their own; only what a core takes over from
//!   the store while it is made waits for room there, and not for ever, because nobody is served then.
//! - What is in the file of one core's part is everything from its beginning, without a hole: where the writer cannot follow, the disk
//!   refuses, or the file has reached its limit, the part is cut with a line that says so, and nothing of it follows.
//! - The file is bounded: one that is full at a start becomes `FILE.1` in place of an older one. In between it is only appended to, also by
//!   the next daemon, so a log of several starts is one file.
//! - It is the operator's: nobody else may read it, since it says who runs what.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use scheduler_core::Config;
use scheduler_core::record::{Begin, Entry, FORMAT, Input, Line, Tap};

/// Lines that wait for the writer at most. A line is a few hundred bytes: some 10 MB.
const QUEUE: usize = 16_384;

/// How long a core that is being made waits for room in the queue, over all of its lines.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);
/// How often the writer looks whether something was left out, while it has nothing to write.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[error("opening the decision log {path}", path = path.display())]
pub struct OpenError {
    /// The file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

enum Message {
    /// A part begins. The flag says that something of it had to be left out behind what was sent.
    Begin(Box<Begin>, Arc<AtomicBool>),
    Did(Box<Entry>),
    Finish,
}

/// A log that is being written.
pub struct DecisionLog {
    sender: SyncSender<Message>,
    /// The file takes no more lines.
    closed: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

/// Makes taps, one for each core.
pub struct Tapper {
    sender: SyncSender<Message>,
    closed: Arc<AtomicBool>,
}

/// What one core's calls are told to.
struct PartTap {
    sender: SyncSender<Message>,
    closed: Arc<AtomicBool>,
    /// Something was left out: nothing of this part is worth writing any more.
    gap: Arc<AtomicBool>,
    patience: Duration,
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    written: u64,
    limit: u64,
    closed: Arc<AtomicBool>,
    /// Of the present part.
    gap: Arc<AtomicBool>,
    /// The present part is cut.
    cut: bool,
}

impl DecisionLog {
    /// Opens the file, or makes it, and starts the thread. `limit` is in bytes.
    ///
    /// # Errors
    /// The system's, with the file's name.
    pub fn open(path: &Path, limit: u64) -> Result<Self, OpenError> {
        let wrong = |source| OpenError { path: path.to_owned(), source };
        let (file, written) = open(path, limit).map_err(wrong)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let closed = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 16, file),
            written,
            limit,
            closed: Arc::clone(&closed),
            gap: Arc::default(),
            cut: false,
        };
        let thread = std::thread::Builder::new().name("decision-log".to_owned());
        let writer = thread.spawn(move || writer.run(&receiver)).map_err(wrong)?;
        Ok(Self { sender, closed, writer })
    }

    /// Makes taps of this log.
    pub fn tapper(&self) -> Tapper {
        Tapper { sender: self.sender.clone(), closed: Arc::clone(&self.closed) }
    }

    /// Writes what waits, and ends the thread. Taps that are still there are heard no more.
    pub fn finish(self) {
        let mut patience = PATIENCE;
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Finish) {
            if patience.is_zero() {
                tracing::warn!("the decision log is still being written and is left as it is");
                return;
            }
            patience = patience.saturating_sub(PAUSE);
            std::thread::sleep(PAUSE);
        }
        if self.writer.join().is_err() {
            tracing::error!("the writer of the decision log panicked");
        }
    }
}

/// The file, ready to be appended to, and how long it is.
fn open(path: &Path, limit: u64) -> io::Result<(File, u64)> {
    let options = || {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        options
    };
    let mut file = options().open(path)?;
    let mut length = file.metadata()?.len();
    if length >= limit {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        std::fs::rename(path, older)?;
        (file, length) = (options().open(path)?, 0);
    }
    // A killed daemon leaves half a line; what follows begins on its own.
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

impl Tapper {
    /// For one core; its part begins when the core is made.
    pub fn tap(&self) -> Box<dyn Tap> {
        let (sender, closed) = (self.sender.clone(), Arc::clone(&self.closed));
        Box::new(PartTap { sender, closed, gap: Arc::default(), patience: PATIENCE })
    }
}

impl PartTap {
    /// Sends at once or not at all; a core that is being made has some patience.
    fn send(&mut self, mut message: Message, patient: bool) {
        if self.gap.load(Ordering::Relaxed) || self.closed.load(Ordering::Relaxed) {
            return;
        }
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            if !patient || self.patience.is_zero() {
                tracing::warn!("the decision log cannot follow; it goes on when the daemon is started again");
                self.gap.store(true, Ordering::Relaxed);
                return;
            }
            self.patience = self.patience.saturating_sub(PAUSE);
            std::thread::sleep(PAUSE);
            message = back;
        }
    }
}

impl Tap for PartTap {
    fn begin(&mut self, config: &Config) {
        let begin = Begin { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), config: config.clone() };
        self.send(Message::Begin(Box::new(begin), Arc::clone(&self.gap)), true);
    }

    fn entry(&mut self, entry: Entry) {
        let patient = matches!(entry.input, Input::Restore(_) | Input::RestoreUsage(_));
        self.send(Message::Did(Box::new(entry)), patient);
    }
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let done = match messages.try_recv() {
                Ok(message) => self.message(message),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    let flushed = self.settle();
                    self.checked(flushed);
                    match messages.recv_timeout(LOOK) {
                        Ok(message) => self.message(message),
                        Err(RecvTimeoutError::Timeout) => continue,
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            match done {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.checked(Err(error)),
            }
        }
        let flushed = self.settle();
        self.checked(flushed);
    }

    /// Writes a message; false for the last one.
    fn message(&mut self, message: Message) -> io::Result<bool> {
        match message {
            Message::Begin(begin, gap) => {
                self.settle()?;
                (self.gap, self.cut) = (gap, false);
                self.line(&Line::Begin(begin))?;
            }
            Message::Did(entry) => self.line(&Line::Did(*entry))?,
            Message::Finish => return Ok(false),
        }
        Ok(true)
    }

    /// What was sent is written: it can be read from now on, also if the daemon is killed.
    fn settle(&mut self) -> io::Result<()> {
        if self.gap.load(Ordering::Relaxed) {
            self.cut("the writer could not follow")?;
        }
        self.out.flush()
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        if self.cut || self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.written >= self.limit {
            tracing::warn!(path = %self.path.display(), limit = self.limit, "the decision log has reached its limit and ends");
            self.cut(&format!("the file has reached its limit of {} bytes", self.limit))?;
            self.closed.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.write(line)
    }

    /// Ends the present part.
    fn cut(&mut self, why: &str) -> io::Result<()> {
        if self.cut || self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.cut = true;
        self.write(&Line::Cut { why: why.to_owned() })
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.written += text.len() as u64;
        self.out.write_all(&text)
    }

    /// After the first error there is no log any more; the daemon goes on without.
    fn checked(&self, done: io::Result<()>) {
        if let Err(error) = done
            && !self.closed.swap(true, Ordering::Relaxed)
        {
            tracing::error!(path = %self.path.display(), %error, "the decision log cannot be written and ends");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use scheduler_core::record::Recorded;
    use scheduler_core::time::Timestamp;

    use super::*;

    fn lines(path: &Path) -> Vec<Line> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn passes(log: &DecisionLog, count: usize) {
        let mut core = Recorded::new(Config::default(), Some(log.tapper().tap())).unwrap();
        for _ in 0..count {
            core.plan(Timestamp(7), 1);
        }
    }

    #[test]
    fn a_log_is_appended_to_and_nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        for _ in 0..2 {
            let log = DecisionLog::open(&path, 1 << 20).unwrap();
            passes(&log, 3);
            log.finish();
            // As if it had been killed in the middle of a line.
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"did").unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 10, "{text}");
        assert!(lines[5].starts_with("{\"begin\":") && lines[4] == "{\"did" && lines[9] == "{\"did");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_log_ends_and_the_next_start_begins_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let log = DecisionLog::open(&path, 1_000).unwrap();
        passes(&log, 100);
        passes(&log, 100);
        log.finish();
        let written = lines(&path);
        let Some(Line::Cut { why }) = written.last() else { panic!("{written:?}") };
        assert_eq!(why, "the file has reached its limit of 1000 bytes");
        assert!(matches!(written[..], [Line::Begin(_), Line::Did(_), ..]) && written.len() < 100);
        let log = DecisionLog::open(&path, 1_000).unwrap();
        passes(&log, 1);
        log.finish();
        assert!(matches!(lines(&path)[..], [Line::Begin(_), Line::Did(_)]));
        assert_eq!(lines(&folder.path().join("decisions.jsonl.1")).len(), written.len());
    }

    /// A writer that does nothing: the queue fills, nobody waits, and what is written then ends with the gap.
    #[test]
    fn where_the_writer_cannot_follow_the_part_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let (file, written) = open(&path, 1 << 30).unwrap();
        let (sender, receiver) = sync_channel(4);
        let (closed, gap) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let tap = PartTap { sender: sender.clone(), closed: Arc::clone(&closed), gap, patience: PATIENCE };
        let mut core = Recorded::new(Config::default(), Some(Box::new(tap))).unwrap();
        for _ in 0..100 {
            core.plan(Timestamp(7), 1);
        }
        drop((core, sender));
        let out = BufWriter::new(file);
        Writer { path: path.clone(), out, written, limit: 1 << 30, closed, gap: Arc::default(), cut: false }.run(&receiver);
        let written = lines(&path);
        let [Line::Begin(_), Line::Did(_), Line::Did(_), Line::Did(_), Line::Cut { why }] = &written[..] else {
            panic!("{written:?}")
        };
        assert_eq!(why, "the writer could not follow");
    }
}
