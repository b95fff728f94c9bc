//! The job table in one SQLite file: the embedded default.
//!
//! `DIR/flash.db` is written by one thread with one connection ([`writer`]) and read by a few others ([`readers`]); the kernel's
//! lock on `DIR/flashd.lock` keeps a second daemon out. sqlx opens every connection and migrates the schema; what runs all the time
//! goes to the locked handle of such a connection ([`raw`]), past sqlx's thread. SQL lives in `queries/` and in `migrations/sqlite/`.

mod chunk;
mod codec;
mod commit;
mod connect;
mod fault;
mod intern;
mod ledger;
mod live;
mod lock;
mod raw;
mod read;
mod readers;
mod retain;
mod schema;
mod standby;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
mod usage;
mod writer;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use scheduler_core::ids::{JobId, Revision, Seq, Term};
use scheduler_core::job::LiveJob;
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::usage::Day;
use crate::{
    Batch, Committed, Compaction, EventRecord, Head, JobPage, JobQuery, JobRecord, JobUse, KeyRecord, NoticeQuery, NoticeRecord,
    ObjectKind, ObjectRecord, StateCounts, Store, StoreError, TokenRecord, UsageBy, UsagePage, UsageQuery, UsageRow,
};
use fault::At;
use live::Shared;
pub use lock::{FolderLock, Holder};
use readers::Readers;
pub use standby::{free, holder};
use writer::{Answer, Command};

/// Settings that have good defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteOptions {
    /// The writer's page cache, in KiB.
    pub cache_kib: u32,
    /// Upper bound of the database's size in pages of 4 KiB; beyond it a commit fails with [`StoreError::Full`].
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        // Jobs and events are appended, so few pages are hot: twice as much gains nothing (ADR 21).
        Self { cache_kib: 32_768, max_pages: None }
    }
}

/// A job table in `DIR/flash.db`. Opening it takes the folder and begins a term.
pub struct SqliteStore {
    head: Head,
    commands: mpsc::Sender<Command>,
    counts: Arc<Mutex<StateCounts>>,
    readers: Readers,
    shared: Arc<Mutex<Shared>>,
    /// Another daemon writes the table.
    reading: bool,
}

impl SqliteStore {
    /// Opens the job table in this folder, which is made if it is not there (for its owner alone). Its path has to be UTF-8.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another daemon has it; [`StoreError::Newer`], [`StoreError::Corrupt`], [`StoreError::ReadOnly`]
    /// and [`StoreError::Full`] as they say.
    pub async fn open(dir: &Path, now: Timestamp) -> Result<Self, StoreError> {
        Self::open_with(dir, now, SqliteOptions::default()).await
    }

    /// As [`Self::open`], with settings.
    pub async fn open_with(dir: &Path, now: Timestamp, options: SqliteOptions) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| At { op: "make the data folder", path: dir }.io(&error))?;
        let path = Self::file(dir);
        let started = writer::start(dir.to_owned(), path.clone(), options, now).await?;
        Ok(Self {
            head: started.head,
            commands: started.commands,
            counts: started.counts,
            readers: Readers::new(path),
            shared: Arc::default(),
            reading: false,
        })
    }

    /// Changes [`SqliteOptions::max_pages`] of the open store.
    pub async fn set_max_pages(&self, max_pages: Option<u32>) -> Result<(), StoreError> {
        self.ask("limit the size", |answer| Command::Limit { max_pages, answer }).await
    }

    /// The database file in a data folder.
    pub fn file(dir: &Path) -> PathBuf {
        dir.join("flash.db")
    }

    async fn ask<T>(&self, op: &'static str, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, StoreError> {
        if self.reading {
            return Err(StoreError::Standby { op });
        }
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| StoreError::Closed { op })?;
        answered.await.unwrap_or(Err(StoreError::Closed { op }))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn head(&self) -> Head {
        self.head
    }

    async fn standing(&self) -> Result<Head, StoreError> {
        let path = self.readers.path();
        self.readers.read("read where the table stands", move |db| schema::readable(db, &path)).await
    }

    async fn raise_term(&self, least: Term) -> Result<Term, StoreError> {
        self.ask("raise the term", |answer| Command::RaiseTerm { least, answer }).await
    }

    async fn ended(&self) -> StoreError {
        // Of a folder there is one daemon: nobody else begins a term.
        self.commands.closed().await;
        StoreError::Closed { op: "write" }
    }

    async fn live(&self, after: Seq, limit: u32) -> Result<Vec<LiveJob>, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.readers
            .read("read unfinished jobs", move |db| {
                // One caller at a time: the core is rebuilt by one.
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                live::live(db, &mut shared, after, limit)
            })
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.ask("commit", |answer| Command::Commit { batch, answer }).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.jobs_by_id(&[id]).await?.pop())
    }

    async fn jobs_by_id(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        let ids = ids.to_vec();
        self.readers.read("read jobs", move |db| read::jobs_by_id(db, &ids)).await
    }

    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.readers.read("read ids", move |db| read::ids_between(db, first, last, limit)).await
    }

    async fn id_by_seq(&self, seq: Seq) -> Result<Option<JobId>, StoreError> {
        self.readers.read("read id", move |db| read::id_by_seq(db, seq)).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        let query = query.clone();
        self.readers.read("list jobs", move |db| read::jobs(db, &query)).await
    }

    async fn counts(&self) -> Result<StateCounts, StoreError> {
        if self.reading {
            return self.readers.read("count jobs", |db| Ok(writer::count(db)?)).await;
        }
        if self.commands.is_closed() {
            return Err(StoreError::Closed { op: "count jobs" });
        }
        Ok(*self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn events(&self, after: Revision, job: Option<JobId>, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        self.readers.read("read events", move |db| read::events(db, after, job, limit)).await
    }

    async fn notices(&self, query: &NoticeQuery) -> Result<Vec<NoticeRecord>, StoreError> {
        let query = query.clone();
        self.readers.read("read notices", move |db| read::notices(db, &query)).await
    }

    async fn key(&self, scope: &str, key: &str) -> Result<Option<KeyRecord>, StoreError> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        self.readers.read("look up an idempotency key", move |db| read::key(db, &scope, &key)).await
    }

    async fn objects(&self, kind: ObjectKind) -> Result<Vec<ObjectRecord>, StoreError> {
        self.readers.read("read objects", move |db| read::objects(db, kind)).await
    }

    async fn compact(&self, before: Timestamp, limit: u32) -> Result<Compaction, StoreError> {
        self.ask("compact", |answer| Command::Compact { before, limit, answer }).await
    }

    async fn prune(&self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.ask("prune", |answer| Command::Prune { before, limit, answer }).await
    }

    async fn usage(&self, query: &UsageQuery, by: UsageBy) -> Result<UsagePage<UsageRow>, StoreError> {
        let query = query.clone();
        self.readers.read("read usage", move |db| usage::days(db, &query, by)).await
    }

    async fn usage_by_job(&self, query: &UsageQuery) -> Result<UsagePage<JobUse>, StoreError> {
        let query = query.clone();
        self.readers.read("read usage by job", move |db| usage::jobs(db, &query)).await
    }

    async fn usage_of(&self, id: JobId, now: Timestamp) -> Result<Option<JobUse>, StoreError> {
        self.readers.read("read a job's usage", move |db| usage::job(db, id, now)).await
    }

    async fn forget_usage(&self, before: Day) -> Result<u64, StoreError> {
        self.ask("forget usage", |answer| Command::ForgetUsage { before, answer }).await
    }

    async fn add_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.ask("add a token", |answer| Command::AddToken { token, answer }).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.readers.read("list tokens", read::tokens).await
    }

    async fn remove_token(&self, id: &str) -> Result<bool, StoreError> {
        self.ask("remove a token", |answer| Command::RemoveToken { id: id.to_owned(), answer }).await
    }

    async fn close(&self) {
        // Readers first: the last checkpoint can then empty the log.
        self.readers.close().await;
        // An error says that it is closed already.
        let _ = self.ask("close", |answer| Command::Close { answer }).await;
    }
}
