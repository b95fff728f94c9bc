//! The job table in PostgreSQL: for a daemon whose table is not to lie on its own disk, and for several of which one leads.
//!
//! One thread with one session writes ([`writer`]); reads go through a few sessions of their own. Who may write is said by one row: it has the
//! term, and a lease that the holder renews ([`lease`]). SQL lives in `queries/` and in `migrations/postgres/`.

mod changes;
mod columns;
mod commit;
mod connect;
mod fault;
mod intern;
mod lease;
mod ledger;
mod live;
mod read;
mod retain;
mod row;
mod schema;
mod usage;
mod value;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::ids::{JobId, Revision, Seq, Term};
use scheduler_core::job::LiveJob;
use scheduler_core::time::Timestamp;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, oneshot, watch};

use crate::usage::Day;
use crate::{
    Batch, Committed, Compaction, EventRecord, Head, JobPage, JobQuery, JobRecord, JobUse, KeyRecord, NoticeQuery, NoticeRecord,
    ObjectKind, ObjectRecord, StateCounts, Store, StoreError, TokenRecord, UsageBy, UsagePage, UsageQuery, UsageRow,
};
pub use connect::{Address, AddressError};
use fault::Fault;
use live::Shared;
use writer::{Answer, Command};

/// What it takes to open a job table in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The server, the database and who we are to it.
    pub address: Address,
    /// Who holds the lease: the same after a restart, another one for every daemon. Of one holder there must never be two processes at a
    /// time, because the second takes the lease of the first.
    pub holder: String,
    /// What others are told of the holder.
    pub holder_name: String,
    /// How long others wait for a holder that is not heard of.
    pub lease: Duration,
}

/// A job table in a database of a PostgreSQL server. Opening it takes the lease and begins a term; for reading alone it does neither.
pub struct PostgresStore {
    address: Address,
    head: Head,
    commands: mpsc::Sender<Command>,
    counts: Arc<Mutex<StateCounts>>,
    unsettled: Arc<AtomicBool>,
    /// The term that has ended this one, once that is known.
    fenced: watch::Receiver<Option<Term>>,
    readers: PgPool,
    shared: tokio::sync::Mutex<Shared>,
    /// Another daemon writes the table.
    reading: bool,
}

impl PostgresStore {
    /// Opens the job table, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Held`] while another holder's lease lasts; [`StoreError::Newer`], [`StoreError::Corrupt`], [`StoreError::ReadOnly`] and
    /// [`StoreError::Full`] as they say, and [`StoreError::Other`] where the server cannot be reached or does not let us in.
    pub async fn open(options: PostgresOptions, now: Timestamp) -> Result<Self, StoreError> {
        let address = options.address.clone();
        let started = writer::start(options, now).await?;
        Ok(Self {
            head: started.head,
            commands: started.commands,
            counts: started.counts,
            unsettled: started.unsettled,
            fenced: started.fenced,
            readers: address.readers(),
            shared: tokio::sync::Mutex::default(),
            address,
            reading: false,
        })
    }

    /// A table that another daemon writes, for reading alone, in sessions that the server keeps from writing: whatever would change it is
    /// [`StoreError::Standby`]. What is read is what transactions have left that are durable there; none is seen in part. It may not be there
    /// yet, or be of another version: [`Store::standing`] says so, and is to be asked first. To be called in a runtime.
    pub fn reading(address: Address) -> Self {
        let (commands, _) = mpsc::channel(1);
        let readers = address.readers();
        Self {
            address,
            head: Head::default(),
            commands,
            counts: Arc::default(),
            unsettled: Arc::default(),
            fenced: watch::channel(None).1,
            readers,
            shared: tokio::sync::Mutex::default(),
            reading: true,
        }
    }

    async fn ask<T>(&self, op: &'static str, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, StoreError> {
        if self.reading {
            return Err(StoreError::Standby { op });
        }
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| StoreError::Closed { op })?;
        answered.await.unwrap_or(Err(StoreError::Closed { op }))
    }

    /// The outcome of a read.
    fn told<T>(&self, op: &'static str, read: Result<T, Fault>) -> Result<T, StoreError> {
        read.map_err(|fault| self.address.at(op).fault(fault))
    }

    /// Waits until every commit is either in the table or never will be: what a core is rebuilt from must not change behind it.
    async fn settled(&self) -> Result<(), StoreError> {
        if !self.unsettled.load(Ordering::Acquire) {
            return Ok(());
        }
        self.ask("settle", |answer| Command::Settle { answer }).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn head(&self) -> Head {
        self.head
    }

    async fn standing(&self) -> Result<Head, StoreError> {
        self.told("read where the table stands", read::head(&self.readers, &self.address).await)
    }

    async fn raise_term(&self, least: Term) -> Result<Term, StoreError> {
        self.ask("raise the term", |answer| Command::RaiseTerm { least, answer }).await
    }

    async fn ended(&self) -> StoreError {
        let mut fenced = self.fenced.clone();
        // An error says that the writer is gone.
        let said = fenced.wait_for(Option::is_some).await.ok().and_then(|fenced| *fenced);
        said.map_or(StoreError::Closed { op: "write" }, |current| StoreError::Fenced { ours: self.head.term, current })
    }

    async fn live(&self, after: Seq, limit: u32) -> Result<Vec<LiveJob>, StoreError> {
        self.settled().await?;
        // One caller at a time: the core is rebuilt by one.
        let mut shared = self.shared.lock().await;
        self.told("read unfinished jobs", live::live(&self.readers, &mut shared, after, limit).await)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.ask("commit", |answer| Command::Commit { batch, answer }).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.jobs_by_id(&[id]).await?.pop())
    }

    async fn jobs_by_id(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        self.told("read jobs", read::jobs_by_id(&self.readers, ids).await)
    }

    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.told("read ids", read::ids_between(&self.readers, first, last, limit).await)
    }

    async fn id_by_seq(&self, seq: Seq) -> Result<Option<JobId>, StoreError> {
        self.told("read id", read::id_by_seq(&self.readers, seq).await)
    }

    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        self.told("list jobs", read::jobs(&self.readers, query).await)
    }

    async fn counts(&self) -> Result<StateCounts, StoreError> {
        if self.reading {
            return self.told("count jobs", read::counts(&self.readers).await);
        }
        if self.commands.is_closed() {
            return Err(StoreError::Closed { op: "count jobs" });
        }
        Ok(*self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn events(&self, after: Revision, job: Option<JobId>, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        self.told("read events", read::events(&self.readers, after, job, limit).await)
    }

    async fn notices(&self, query: &NoticeQuery) -> Result<Vec<NoticeRecord>, StoreError> {
        self.told("read notices", read::notices(&self.readers, query).await)
    }

    async fn key(&self, scope: &str, key: &str) -> Result<Option<KeyRecord>, StoreError> {
        self.told("look up an idempotency key", read::key(&self.readers, scope, key).await)
    }

    async fn objects(&self, kind: ObjectKind) -> Result<Vec<ObjectRecord>, StoreError> {
        self.settled().await?;
        self.told("read objects", read::objects(&self.readers, kind).await)
    }

    async fn compact(&self, before: Timestamp, limit: u32) -> Result<Compaction, StoreError> {
        self.ask("compact", |answer| Command::Compact { before, limit, answer }).await
    }

    async fn prune(&self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.ask("prune", |answer| Command::Prune { before, limit, answer }).await
    }

    async fn usage(&self, query: &UsageQuery, by: UsageBy) -> Result<UsagePage<UsageRow>, StoreError> {
        self.told("read usage", usage::days(&self.readers, query, by).await)
    }

    async fn usage_by_job(&self, query: &UsageQuery) -> Result<UsagePage<JobUse>, StoreError> {
        self.told("read usage by job", usage::jobs(&self.readers, query).await)
    }

    async fn usage_of(&self, id: JobId, now: Timestamp) -> Result<Option<JobUse>, StoreError> {
        self.told("read a job's usage", usage::job(&self.readers, id, now).await)
    }

    async fn forget_usage(&self, before: Day) -> Result<u64, StoreError> {
        self.ask("forget usage", |answer| Command::ForgetUsage { before, answer }).await
    }

    async fn add_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.ask("add a token", |answer| Command::AddToken { token, answer }).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.told("list tokens", read::tokens(&self.readers).await)
    }

    async fn remove_token(&self, id: &str) -> Result<bool, StoreError> {
        self.ask("remove a token", |answer| Command::RemoveToken { id: id.to_owned(), answer }).await
    }

    async fn close(&self) {
        self.readers.close().await;
        // An error says that it is closed already.
        let _ = self.ask("close", |answer| Command::Close { answer }).await;
    }
}
