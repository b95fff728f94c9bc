//! The runner's memory on disk: what it was told to start, what it started, how it ended, what may be forgotten.
//!
//! A record is a line: the xxh3 checksum of its JSON in 16 hexadecimal digits, a space, the JSON. A line that is torn or does not fit
//! its checksum is skipped; a torn last line is cut off before anything is appended.
//!
//! What must be durable, and when:
//! - An intent is written before its first process is made, a process right after; neither is synced. A crash of the runner alone
//!   keeps what was written, and a crash of the machine ends every process and changes the boot id, after which it does not matter
//!   how far a run had come.
//! - An end is synced before it is reported: after a crash of the machine it is the only witness that a run has succeeded.
//!
//! Reading the same record twice, or a record of a run that was forgotten, changes nothing. That lets the journal be rewritten while
//! it is appended to ([`Journal::compact`]).

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use scheduler_core::event::RunResult;
use scheduler_core::ids::{Name, RunId};
use scheduler_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::lines::Share;
use super::table::{Exit, Pid};

/// Hexadecimal digits of a checksum, and the space after them.
const CHECKSUM_BYTES: usize = 17;
/// What is copied at a time when the journal is rewritten, in bytes.
const COPY_BYTES: u64 = 256 << 10;

/// One thing that the runner must still know after its death.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Record {
    /// A runner began; everything up to the next of these happened in this boot of the machine.
    Boot {
        /// Which boot.
        boot_id: String,
        /// The runner.
        pid: u32,
    },
    /// Runs were accepted that wait in a line. None of them has begun that has no intent.
    Held {
        /// Which.
        runs: Vec<RunId>,
    },
    /// A run is about to begin: from now on there may be processes of it.
    Intent {
        /// Which.
        run: RunId,
        /// As whom, if not as the runner.
        uid: Option<u32>,
        /// Its tasks' names.
        tasks: Vec<Name>,
        /// What it has of its line, if it has waited in one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        share: Option<Share>,
        /// Folder of its output files, if those have no names yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unnamed: Option<String>,
    },
    /// A task has a process.
    Spawned {
        /// The run.
        run: RunId,
        /// Which task of it.
        task: usize,
        /// The process.
        pid: Pid,
        /// Between these ticks since boot it was made; `/proc/PID/stat` shows one of them.
        ticks: (u64, u64),
        /// When.
        at: Timestamp,
    },
    /// A task's process ended, and the run did not end with it at once.
    Exited {
        /// The run.
        run: RunId,
        /// Which task of it.
        task: usize,
        /// How.
        exit: Exit,
    },
    /// The run is being ended.
    Ending {
        /// The run.
        run: RunId,
        /// Somebody asked for it.
        asked: bool,
        /// The signal that was sent.
        signal: i32,
        /// SIGKILL follows at this time of the boot clock, in microseconds.
        deadline_us: u64,
    },
    /// Nothing of the run is left.
    Ended {
        /// The run.
        run: RunId,
        /// How.
        result: RunResult,
        /// When its tasks were started, if they were.
        started_at: Option<Timestamp>,
        /// When.
        at: Timestamp,
    },
    /// The run never began and never will.
    NotBegun {
        /// The run.
        run: RunId,
        /// Why.
        message: String,
        /// When that was known.
        at: Timestamp,
    },
    /// The ends of these runs are on record elsewhere.
    Forgotten {
        /// Which.
        runs: Vec<RunId>,
    },
}

/// What reading a journal met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Replayed {
    /// Records that were read.
    pub records: usize,
    /// Lines that were not whole or not understood.
    pub skipped: usize,
    /// End of the last whole line, in bytes.
    pub end: u64,
}

/// The journal, open for appending. Usable by all threads.
pub(super) struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: Arc<File>,
    /// Bytes in the file.
    length: u64,
    /// The last write failed half way: what it left is closed with a newline before anything else is written.
    torn: bool,
    buffer: Vec<u8>,
}

fn encode(record: &Record, into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.extend_from_slice(&[b' '; CHECKSUM_BYTES]);
    serde_json::to_writer(&mut *into, record)?;
    let sum = xxh3_64(&into[start + CHECKSUM_BYTES..]);
    write!(&mut into[start..start + CHECKSUM_BYTES - 1], "{sum:016x}")?;
    into.push(b'\n');
    Ok(())
}

fn decode(line: &[u8]) -> Option<Record> {
    let json = line.get(CHECKSUM_BYTES..)?;
    let sum = u64::from_str_radix(std::str::from_utf8(&line[..CHECKSUM_BYTES - 1]).ok()?, 16).ok()?;
    if sum != xxh3_64(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Reads a journal from its beginning. One that does not exist is empty.
pub(super) fn replay(path: &Path, mut each: impl FnMut(Record)) -> io::Result<Replayed> {
    let mut replayed = Replayed::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(replayed),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(replayed);
        }
        if line.pop() != Some(b'\n') {
            replayed.skipped += 1;
            return Ok(replayed);
        }
        replayed.end += read as u64;
        match decode(&line) {
            Some(record) => {
                replayed.records += 1;
                each(record);
            }
            None if line.is_empty() => {}
            None => replayed.skipped += 1,
        }
    }
}

impl Journal {
    /// Opens for appending after `end`, the end of what [`replay`] has read; what stands behind it is cut off.
    pub(super) fn open(path: &Path, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.set_len(end)?;
        file.sync_all()?;
        sync_folder(path)?;
        let inner = Inner { file: Arc::new(file), length: end, torn: false, buffer: Vec::new() };
        Ok(Self { path: path.to_owned(), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records with one write. After an error none of them counts as written.
    pub(super) fn append<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> io::Result<()> {
        let mut inner = self.lock();
        let mut buffer = std::mem::take(&mut inner.buffer);
        buffer.clear();
        if inner.torn {
            buffer.push(b'\n');
        }
        let encoded = records.into_iter().try_for_each(|record| encode(record, &mut buffer));
        let written = encoded.and_then(|()| (&*inner.file).write_all(&buffer));
        inner.torn = written.is_err();
        inner.length = match &written {
            Ok(()) => inner.length + buffer.len() as u64,
            Err(_) => inner.file.metadata().map_or(inner.length, |data| data.len()),
        };
        inner.buffer = buffer;
        written
    }

    /// Returns when everything that was appended before is durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        // Not under the lock: others may append while the disk works.
        let file = Arc::clone(&self.lock().file);
        file.sync_data()
    }

    /// Bytes in the file.
    pub(super) fn length(&self) -> u64 {
        self.lock().length
    }

    /// Rewrites the journal. `page` is called until it gives nothing more, for records of what is to be kept; each must say at least
    /// as much as was appended about it before this call. What is appended meanwhile is kept too. One caller at a time.
    pub(super) fn compact(&self, mut page: impl FnMut() -> Vec<Record>) -> io::Result<()> {
        let mut copied = self.length();
        let new_path = self.path.with_extension("new");
        match std::fs::remove_file(&new_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut new = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&new_path)?;
        let mut buffer = Vec::new();
        loop {
            let records = page();
            if records.is_empty() {
                break;
            }
            buffer.clear();
            records.iter().try_for_each(|record| encode(record, &mut buffer))?;
            new.write_all(&buffer)?;
        }
        let mut old = File::open(&self.path)?;
        old.seek(SeekFrom::Start(copied))?;
        loop {
            let length = self.length();
            if length.saturating_sub(copied) < COPY_BYTES {
                break;
            }
            copied += io::copy(&mut (&mut old).take(COPY_BYTES), &mut new)?;
        }
        new.sync_data()?;
        let mut inner = self.lock();
        io::copy(&mut old, &mut new)?;
        new.sync_all()?;
        let length = new.metadata()?.len();
        std::fs::rename(&new_path, &self.path)?;
        inner.length = length;
        inner.file = Arc::new(new);
        sync_folder(&self.path)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
