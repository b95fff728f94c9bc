//! The one writer: a thread that owns a session and serves commands in order.
//!
//! What must hold:
//! - One command is one transaction, whose first statement compares the term and the number of transactions so far, and locks the row that
//!   has them. So a writer whose term has ended, or that has missed anything, writes nothing.
//! - An answer leaves after the transaction is durable. Where the session breaks while it is being committed, the outcome is looked up: the
//!   number of transactions says it, and is read only when no transaction of the old session is on its way any more (it holds that lock).
//! - After any failure what the writer remembers of the table is read anew before the next command. Attempts to connect are bounded.
//! - The lease is renewed in idle time too.
//! - The number of the term may be raised while it lasts; each transaction compares the latest. What was begun under an earlier one of its numbers is
//!   of this term.

mod transaction;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scheduler_core::ids::{JobId, Revision, Seq, Term};
use scheduler_core::time::Timestamp;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::PostgresOptions;
use super::connect::Address;
use super::fault::{At, Fault};
use super::intern::Interned;
use super::lease::{self, Standing, standing};
use super::row::get;
use super::value::kept;
use super::{read, schema};
use crate::ledger::Ledger;
use crate::usage::Day;
use crate::{Batch, Committed, Compaction, Head, StateCounts, StoreError, TokenRecord};

/// Commands that may wait for the writer; callers beyond that wait for room.
const WAITING: usize = 64;
/// How long a transaction may take before its session is given up.
const TRANSACTION: Duration = Duration::from_secs(90);
/// How long a command waits for a server that is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between attempts: doubled each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long the end of a session may take.
const GOODBYE: Duration = Duration::from_secs(2);

static SETTLED_HEAD: &str = include_str!("../queries/settled_head.sql");
/// What reads whole tables is not held to the ways of [`super::connect`].
const WHOLE_TABLES: &str = "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on";

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer can be asked to do.
pub(super) enum Command {
    Commit { batch: Batch, answer: Answer<Committed> },
    RaiseTerm { least: Term, answer: Answer<Term> },
    Compact { before: Timestamp, limit: u32, answer: Answer<Compaction> },
    Prune { before: Timestamp, limit: u32, answer: Answer<Vec<JobId>> },
    ForgetUsage { before: Day, answer: Answer<u64> },
    AddToken { token: TokenRecord, answer: Answer<()> },
    RemoveToken { id: String, answer: Answer<bool> },
    Settle { answer: Answer<()> },
    Close { answer: Answer<()> },
}

/// What the store keeps of its writer.
pub(super) struct Started {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) head: Head,
    pub(super) counts: Arc<Mutex<StateCounts>>,
    pub(super) unsettled: Arc<AtomicBool>,
    pub(super) fenced: watch::Receiver<Option<Term>>,
}

/// Everything that the thread owns.
pub(super) struct Writer {
    address: Address,
    lease: Duration,
    db: Option<PgConnection>,
    holder: String,
    /// Number that this term began with; it may have been raised since.
    pub(super) begun: Term,
    pub(super) term: Term,
    /// What it is being raised to, until it is known whether it is.
    pub(super) raising: Option<Term>,
    commits: i64,
    pub(super) last_seq: Seq,
    pub(super) last_revision: Revision,
    pub(super) interned: Interned,
    pub(super) ledger: Ledger,
    counts: Arc<Mutex<StateCounts>>,
    /// Whether the counts were read with the latest transaction in them, because its outcome was looked up.
    counted: bool,
    /// False after a failure that left the memory above in doubt.
    in_step: bool,
    /// The term that has ended this one, once that is known.
    fenced: watch::Sender<Option<Term>>,
    /// True while it is not known whether a commit is in the table: readers that rebuild from it have to wait.
    unsettled: Arc<AtomicBool>,
}

/// Connects, takes the lease and begins a term, all on the new thread.
pub(super) async fn start(options: PostgresOptions, now: Timestamp) -> Result<Started, StoreError> {
    let (commands, inbox) = mpsc::channel(WAITING);
    let (ready, opened) = oneshot::channel();
    let subject = options.address.clone();
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || run(&options, now, ready, inbox))
        .map_err(|error| subject.at("start the writer").other(error.to_string()))?;
    let opened = opened.await.unwrap_or(Err(StoreError::Closed { op: "open" }))?;
    let Opened { head, counts, unsettled, fenced } = opened;
    Ok(Started { commands, head, counts, unsettled, fenced })
}

/// What a writer tells when it is open.
struct Opened {
    head: Head,
    counts: Arc<Mutex<StateCounts>>,
    unsettled: Arc<AtomicBool>,
    fenced: watch::Receiver<Option<Term>>,
}

fn run(options: &PostgresOptions, now: Timestamp, ready: Answer<Opened>, mut inbox: mpsc::Receiver<Command>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(options.address.at("start the writer").other(error.to_string())));
            return;
        }
    };
    runtime.block_on(async {
        let (mut writer, head) = match Writer::open(options, now).await {
            Ok(opened) => opened,
            Err(error) => {
                // Where nobody waits for it any more, nobody needs it.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let opened = Opened {
            head,
            counts: Arc::clone(&writer.counts),
            unsettled: Arc::clone(&writer.unsettled),
            fenced: writer.fenced.subscribe(),
        };
        let gone = ready.send(Ok(opened)).is_err();
        let closer = if gone { None } else { writer.serve(&mut inbox).await };
        writer.leave().await;
        if let Some(answer) = closer {
            let _ = answer.send(Ok(()));
        }
    });
}

impl Writer {
    async fn open(options: &PostgresOptions, now: Timestamp) -> Result<(Self, Head), StoreError> {
        let address = &options.address;
        let at = address.at("open");
        let mut db = address.writer().await.map_err(|fault| at.fault(fault))?;
        address.check_server(&mut db).await?;
        let mut version = schema::version(&mut db, address).await?;
        if version == 0 {
            schema::migrate(&mut db, address, version).await?;
            version = schema::version(&mut db, address).await?;
        }
        let term = lease::begin_term(&mut db, address, options, now).await?;
        schema::migrate(&mut db, address, version).await?;
        let mut writer = Self {
            address: address.clone(),
            lease: options.lease,
            db: None,
            holder: kept(&options.holder).into_owned(),
            begun: term,
            term,
            raising: None,
            fenced: watch::Sender::new(None),
            commits: 0,
            last_seq: Seq(0),
            last_revision: Revision(0),
            interned: Interned::default(),
            ledger: Ledger::default(),
            counts: Arc::default(),
            counted: false,
            in_step: false,
            unsettled: Arc::default(),
        };
        let standing = writer.restore(db, true).await.map_err(|fault| at.fault(fault))?;
        Ok((writer, standing.head))
    }

    /// Serves until it is told to close, and then returns who wants to know of it; or until no store is left to ask.
    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Answer<()>> {
        let pause = self.lease / 3;
        let mut renew_at = Instant::now() + pause;
        loop {
            let command = tokio::select! {
                biased;
                command = inbox.recv() => command?,
                () = tokio::time::sleep_until(renew_at) => {
                    self.renew().await;
                    renew_at = Instant::now() + pause;
                    continue;
                }
            };
            // A caller that has gone away does not undo what it asked for.
            match command {
                Command::Commit { batch, answer } => drop(answer.send(self.commit(&batch).await)),
                Command::RaiseTerm { least, answer } => drop(answer.send(self.raise_term(least).await)),
                Command::Compact { before, limit, answer } => drop(answer.send(self.compact(before, limit).await)),
                Command::Prune { before, limit, answer } => drop(answer.send(self.prune(before, limit).await)),
                Command::ForgetUsage { before, answer } => drop(answer.send(self.forget_usage(before).await)),
                Command::AddToken { token, answer } => drop(answer.send(self.add_token(&token).await)),
                Command::RemoveToken { id, answer } => drop(answer.send(self.remove_token(&id).await)),
                Command::Settle { answer } => drop(answer.send(self.ready("settle").await)),
                Command::Close { answer } => {
                    inbox.close();
                    return Some(answer);
                }
            }
        }
    }

    /// Renews the lease while there is nothing to write.
    async fn renew(&mut self) {
        if let Err(error) = self.try_ready().await {
            tracing::warn!(database = %self.address, %error, "the lease of the job table cannot be renewed");
            return;
        }
        let Some(mut db) = self.db.take() else { return };
        match timeout(TRANSACTION, lease::renew(&mut db, self.term, self.lease)).await {
            Ok(Ok(true)) => self.db = Some(db),
            Ok(Ok(false)) => {
                tracing::error!(database = %self.address, term = %self.term, "another daemon has taken the job table");
                self.db = Some(db);
                // By whom is read, and told to whoever waits for that.
                self.in_step = false;
                if let Err(error) = self.try_ready().await {
                    tracing::error!(database = %self.address, %error, "this daemon writes no more");
                }
            }
            Ok(Err(fault)) => {
                let error = self.address.at("renew the lease").fault(fault);
                tracing::warn!(%error, "the lease of the job table is not renewed");
                self.in_step = false;
            }
            Err(_) => self.in_step = false,
        }
    }

    /// Gives the lease back and ends the session.
    async fn leave(&mut self) {
        let Some(mut db) = self.db.take() else { return };
        let goodbye = async {
            lease::release(&mut db, self.term).await?;
            db.close().await.map_err(Fault::from)
        };
        // Nothing is lost by it: who comes next waits for the end of the lease.
        if !matches!(timeout(GOODBYE, goodbye).await, Ok(Ok(()))) {
            tracing::warn!(database = %self.address, "the lease of the job table was not given back");
        }
    }

    /// An operation on this database, for its errors.
    pub(super) fn at(&self, op: &'static str) -> At<'_> {
        self.address.at(op)
    }

    /// Connects where there is no session, and reads anew what is in doubt, for as long as a command may wait.
    pub(super) async fn ready(&mut self, op: &'static str) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut pause = BACKOFF.0;
        loop {
            match self.try_ready().await {
                Ok(()) => return Ok(()),
                Err(error @ (StoreError::Fenced { .. } | StoreError::Corrupt { .. })) => return Err(error),
                Err(error) if begun.elapsed() + pause > PATIENCE => {
                    tracing::warn!(%error, op, "the server of the job table is away");
                    return Err(error);
                }
                Err(error) => tracing::debug!(%error, op, "the server of the job table is away; trying again"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// As [`Self::ready`], with one attempt.
    async fn try_ready(&mut self) -> Result<(), StoreError> {
        if self.in_step && self.db.is_some() {
            return Ok(());
        }
        let db = match self.db.take() {
            Some(db) => db,
            None => self.address.writer().await.map_err(|fault| self.at("connect").fault(fault))?,
        };
        let restored = timeout(TRANSACTION, self.restore(db, false)).await;
        let restored = restored.unwrap_or_else(|_| Err(self.at("read the table anew").away("no answer").into()));
        restored.map(|_| ()).map_err(|fault| self.at("read the table anew").fault(fault))
    }

    /// Reads anew what the writer remembers of the table, after everything that was on its way in sessions of before.
    async fn restore(&mut self, mut db: PgConnection, sweep: bool) -> Result<Standing, Fault> {
        self.in_step = false;
        sqlx::raw_sql("BEGIN").execute(&mut db).await?;
        let row = sqlx::query(SETTLED_HEAD).fetch_one(&mut db).await?;
        let found = standing(&row)?;
        self.unsettled.store(false, Ordering::Release);
        if found.head.term != self.term {
            // Another daemon's next term may have the number that this one was to be raised to.
            let is_ours = self.raising == Some(found.head.term) && get::<Option<&str>>(&row, 5)? == Some(self.holder.as_str());
            if !is_ours {
                return Err(self.fence_off(found.head.term).into());
            }
            self.term = found.head.term;
        }
        self.raising = None;
        sqlx::raw_sql(WHOLE_TABLES).execute(&mut db).await?;
        if sweep {
            Interned::sweep(&mut db).await?;
        }
        self.interned = Interned::load(&mut db).await?;
        self.ledger.clear();
        let counts = read::counts(&mut db).await?;
        sqlx::raw_sql("COMMIT").execute(&mut db).await?;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        self.commits = found.commits;
        self.last_seq = found.head.last_seq;
        self.last_revision = found.head.last_revision;
        self.db = Some(db);
        self.in_step = true;
        Ok(found)
    }

    /// Where the table stands.
    pub(super) fn standing(&self) -> (Seq, Revision) {
        (self.last_seq, self.last_revision)
    }

    /// Adds the differences of a committed transaction to the numbers that readers see, unless they have them.
    pub(super) fn count(&self, differences: [i64; 6]) {
        if self.counted {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (count, difference) in counts.iter_mut().zip(differences) {
            *count = count.saturating_add_signed(difference);
        }
    }
}
