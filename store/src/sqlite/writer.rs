//! The one writer: a thread that owns the connection and serves commands in order.
//!
//! One command is one transaction, and its answer leaves after the transaction is on disk. A transaction that fails is rolled back
//! whole, and what the writer remembers of the table is read anew, so that it goes on as soon as the cause is gone. When the thread
//! ends, for whatever reason, its channel closes and callers get [`StoreError::Closed`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use scheduler_core::ids::{JobId, Revision, Seq, Term};
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::fault::At;
use super::intern::Interned;
use super::lock::FolderLock;
use super::raw::{Connection, RawError};
use super::{SqliteOptions, codec, schema};
use crate::ledger::Ledger;
use crate::usage::Day;
use crate::{Batch, Committed, Compaction, Head, StateCounts, StoreError, TokenRecord};

/// Commands that may wait for the writer; callers beyond that wait for room.
const WAITING: usize = 64;

static COUNT_STATES: &str = include_str!("queries/count_states.sql");
static CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer can be asked to do.
pub(super) enum Command {
    Commit {
        batch: Batch,
        answer: Answer<Committed>,
    },
    RaiseTerm {
        least: Term,
        answer: Answer<Term>,
    },
    Compact {
        before: Timestamp,
        limit: u32,
        answer: Answer<Compaction>,
    },
    Prune {
        before: Timestamp,
        limit: u32,
        answer: Answer<Vec<JobId>>,
    },
    ForgetUsage {
        before: Day,
        answer: Answer<u64>,
    },
    AddToken {
        token: TokenRecord,
        answer: Answer<()>,
    },
    RemoveToken {
        id: String,
        answer: Answer<bool>,
    },
    Limit {
        max_pages: Option<u32>,
        answer: Answer<()>,
    },
    Close {
        answer: Answer<()>,
    },
    /// Ends the thread as a fault would.
    #[cfg(test)]
    Panic {
        _answer: Answer<()>,
    },
}

/// What the store keeps of its writer.
pub(super) struct Started {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) head: Head,
    pub(super) counts: Arc<Mutex<StateCounts>>,
}

/// Everything that the thread owns.
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) path: PathBuf,
    /// Number that this term began with; it may have been raised since.
    pub(super) begun: Term,
    pub(super) term: Term,
    pub(super) last_seq: Seq,
    pub(super) last_revision: Revision,
    pub(super) interned: Interned,
    pub(super) ledger: Ledger,
    pub(super) counts: Arc<Mutex<StateCounts>>,
    /// False after a failure that left the memory above in doubt.
    in_step: bool,
}

/// Takes the folder, opens the database and begins a term, all on the new thread.
pub(super) async fn start(dir: PathBuf, path: PathBuf, options: SqliteOptions, now: Timestamp) -> Result<Started, StoreError> {
    let (commands, inbox) = mpsc::channel(WAITING);
    let (ready, opened) = oneshot::channel();
    let subject = dir.clone();
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || run(&dir, &path, &options, now, ready, inbox))
        .map_err(|error| At { op: "start the writer", path: &subject }.io(&error))?;
    let (head, counts) = opened.await.unwrap_or(Err(StoreError::Closed { op: "open" }))?;
    Ok(Started { commands, head, counts })
}

fn run(
    dir: &Path,
    path: &Path,
    options: &SqliteOptions,
    now: Timestamp,
    ready: Answer<(Head, Arc<Mutex<StateCounts>>)>,
    mut inbox: mpsc::Receiver<Command>,
) {
    // The lock comes first and so is dropped last: nobody else may open the database before it is closed.
    let opened =
        FolderLock::take(dir).and_then(|lock| Writer::open(path, options, now).map(|(writer, head)| (lock, writer, head)));
    let (lock, mut writer, head) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // Where nobody waits for it any more, nobody needs it.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok((head, Arc::clone(&writer.counts))));
    let closer = writer.serve(&mut inbox);
    if let Err(error) = writer.db.query(CHECKPOINT, &[], |_| Ok(())) {
        // Nothing is lost by it: the next opening finds the log.
        tracing::warn!(database = %path.display(), error = error.message, "the last checkpoint failed");
    }
    drop(writer);
    drop(lock);
    if let Some(answer) = closer {
        let _ = answer.send(Ok(()));
    }
}

impl Writer {
    fn open(path: &Path, options: &SqliteOptions, now: Timestamp) -> Result<(Self, Head), StoreError> {
        let at = At { op: "open", path };
        let mut db = schema::open(path, options)?;
        let head = schema::begin_term(&mut db, path, now)?;
        Interned::sweep(&mut db).map_err(|error| at.sqlite(error))?;
        let interned = Interned::load(&mut db).map_err(|error| at.sqlite(error))?;
        let counts = count(&mut db).map_err(|error| at.sqlite(error))?;
        let writer = Self {
            db,
            path: path.to_owned(),
            begun: head.term,
            term: head.term,
            last_seq: head.last_seq,
            last_revision: head.last_revision,
            interned,
            ledger: Ledger::default(),
            counts: Arc::new(Mutex::new(counts)),
            in_step: true,
        };
        Ok((writer, head))
    }

    /// Serves until it is told to close, and then returns who wants to know of it; or until no store is left to ask.
    fn serve(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Answer<()>> {
        while let Some(command) = inbox.blocking_recv() {
            // A caller that has gone away does not undo what it asked for.
            match command {
                Command::Commit { batch, answer } => drop(answer.send(self.commit(&batch))),
                Command::RaiseTerm { least, answer } => drop(answer.send(self.raise_term(least))),
                Command::Compact { before, limit, answer } => drop(answer.send(self.compact(before, limit))),
                Command::Prune { before, limit, answer } => drop(answer.send(self.prune(before, limit))),
                Command::ForgetUsage { before, answer } => drop(answer.send(self.forget_usage(before))),
                Command::AddToken { token, answer } => drop(answer.send(self.add_token(&token))),
                Command::RemoveToken { id, answer } => drop(answer.send(self.remove_token(&id))),
                Command::Limit { max_pages, answer } => drop(answer.send(self.limit(max_pages))),
                Command::Close { answer } => {
                    inbox.close();
                    return Some(answer);
                }
                #[cfg(test)]
                Command::Panic { _answer } => panic!("asked for by a test"),
            }
        }
        None
    }

    /// An operation on this database, for its errors.
    pub(super) fn at(&self, op: &'static str) -> At<'_> {
        At { op, path: &self.path }
    }

    /// Runs `work` in a transaction: durable when this returns a value, undone when it returns an error.
    pub(super) fn transaction<T>(
        &mut self,
        op: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !self.in_step {
            self.fall_back().map_err(|error| self.at(op).sqlite(error))?;
        }
        let done = self.run("BEGIN IMMEDIATE", op).and_then(|()| work(self)).and_then(|value| {
            self.run("COMMIT", op)?;
            Ok(value)
        });
        if done.is_err()
            && let Err(error) = self.fall_back()
        {
            tracing::warn!(database = %self.path.display(), error = error.message, "cannot read the job table after a failed {op}");
        }
        done
    }

    fn run(&mut self, sql: &'static str, op: &'static str) -> Result<(), StoreError> {
        self.db.execute(sql, &[]).map(|_| ()).map_err(|error| self.at(op).sqlite(error))
    }

    /// Undoes what is under way, if SQLite has not done so, and reads anew what the writer remembers of the table.
    fn fall_back(&mut self) -> Result<(), RawError> {
        self.in_step = false;
        if self.db.in_transaction() {
            self.db.execute("ROLLBACK", &[])?;
        }
        let head = schema::head(&mut self.db)?;
        self.interned = Interned::load(&mut self.db)?;
        self.ledger.clear();
        self.last_seq = head.last_seq;
        self.last_revision = head.last_revision;
        self.in_step = true;
        Ok(())
    }

    /// Adds the differences of a committed transaction to the numbers that readers see.
    pub(super) fn count(&self, differences: [i64; 6]) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (count, difference) in counts.iter_mut().zip(differences) {
            *count = count.saturating_add_signed(difference);
        }
    }

    fn limit(&mut self, max_pages: Option<u32>) -> Result<(), StoreError> {
        let pragma = format!("PRAGMA max_page_count = {}", max_pages.unwrap_or(schema::MOST_PAGES));
        self.db.batch(&pragma).map_err(|error| self.at("limit the size").sqlite(error))
    }
}

pub(super) fn count(db: &mut Connection) -> Result<StateCounts, RawError> {
    let mut counts = StateCounts::default();
    db.query(COUNT_STATES, &[], |row| {
        counts[codec::state_kind(row.int(0)?)? as usize] = row.number(1)?;
        Ok(())
    })?;
    Ok(counts)
}
