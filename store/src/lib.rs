//! The job table: the truth that the core's memory is rebuilt from.
//!
//! What must hold for every implementation (the contract suite checks it):
//! - [`Store::commit`] is one transaction. When it returns, the batch is on disk (fsynced); when it fails, nothing of it is there.
//! - Every transition is a compare-and-set on (state, attempt) under the writer's term; updated, stale and missing are told apart.
//! - Terms only grow, whoever begins or raises them, and nothing is written under one that is smaller than the table's.
//! - Revisions have no gap, are never reused, and grow in commit order.
//! - A submit touches no index in random order: keys grow with the submission sequence.
//! - Reads never wait for the writer.
//! - What a run was promised is counted once, in the transaction that writes its end; it stays when the job is removed.

mod codec;
pub mod error;
mod intern;
mod ledger;
pub mod model;
pub mod notice;
pub mod object;
pub mod postgres;
mod reckon;
pub mod sqlite;
pub mod usage;

use async_trait::async_trait;
use scheduler_core::ids::{JobId, Revision, Seq, Term};
use scheduler_core::job::LiveJob;
use scheduler_core::time::Timestamp;

pub use error::StoreError;
pub use model::{
    Batch, Committed, Compaction, EventRecord, Head, JobPage, JobQuery, JobRecord, JobUpdate, KeyRecord, LabelMatch, OutcomeKind,
    Owner, StateCounts, Submit, TokenRecord,
};
pub use notice::{LogEntry, Notice, NoticeKind, NoticeQuery, NoticeRecord};
pub use object::{ObjectChange, ObjectKind, ObjectRecord};
pub use postgres::{Address, AddressError, PostgresOptions, PostgresStore};
pub use sqlite::{FolderLock, SqliteOptions, SqliteStore};
pub use usage::{JobUse, RunSample, UsageBy, UsagePage, UsageQuery, UsageRow};

/// A job table. Opening one begins a term.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where the table stood when this term began; nothing of it where it is opened for reading alone.
    fn head(&self) -> Head;

    /// Where the table stands now, whoever wrote it, if it is a table of this version.
    async fn standing(&self) -> Result<Head, StoreError>;

    /// From now on this term is told by a number that is `least` or more: where the table's is smaller, the table takes `least`, durably. What
    /// was begun under its number before goes on. Gives the number that it is. [`StoreError::Fenced`] where another term has begun meanwhile.
    async fn raise_term(&self, least: Term) -> Result<Term, StoreError>;

    /// Waits until this store is known to write no more, and says why: another term has begun, or the writer ended. Known is what it was told
    /// when it wrote, or renewed a lease.
    async fn ended(&self) -> StoreError;

    /// Unfinished jobs in ascending sequence, those after `after`, at most `limit`. Reads the hot table only.
    async fn live(&self, after: Seq, limit: u32) -> Result<Vec<LiveJob>, StoreError>;

    /// Makes a batch durable, all or nothing. Calls are served in order, one at a time. An empty batch changes nothing and is written
    /// all the same: it tells whether the table can be written.
    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError>;

    /// One job with its spec.
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// Several jobs with their specs, in the order asked; unknown ones are left out.
    async fn jobs_by_id(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError>;

    /// Ids from `first` to `last`, both included, ascending, at most `limit`: how a prefix becomes a job.
    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, StoreError>;

    /// The job with this submission sequence: the number that people type.
    async fn id_by_seq(&self, seq: Seq) -> Result<Option<JobId>, StoreError>;

    /// A page of jobs, newest first.
    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, StoreError>;

    /// Number of jobs in each state.
    async fn counts(&self) -> Result<StateCounts, StoreError>;

    /// Events after a revision, oldest first, at most `limit`; of one job if named. Below the floor: [`StoreError::Compacted`].
    async fn events(&self, after: Revision, job: Option<JobId>, limit: u32) -> Result<Vec<EventRecord>, StoreError>;

    /// Notices, oldest first.
    async fn notices(&self, query: &NoticeQuery) -> Result<Vec<NoticeRecord>, StoreError>;

    /// The remembered answer for a key.
    async fn key(&self, scope: &str, key: &str) -> Result<Option<KeyRecord>, StoreError>;

    /// All objects of a kind, by name.
    async fn objects(&self, kind: ObjectKind) -> Result<Vec<ObjectRecord>, StoreError>;

    /// Removes events, notices and idempotency keys decided before `before`, oldest first, at most `limit` rows, and raises the floor with them.
    async fn compact(&self, before: Timestamp, limit: u32) -> Result<Compaction, StoreError>;

    /// Removes jobs that finished before `before`, at most `limit`; returns them, so that their logs can be removed.
    async fn prune(&self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError>;

    /// What was used on some days, summed up. Runs that go on count up to the query's `now`.
    async fn usage(&self, query: &UsageQuery, by: UsageBy) -> Result<UsagePage<UsageRow>, StoreError>;

    /// What each job used on some days: those that run, then those that ended last.
    async fn usage_by_job(&self, query: &UsageQuery) -> Result<UsagePage<JobUse>, StoreError>;

    /// What a job has used in all its runs, up to now.
    async fn usage_of(&self, id: JobId, now: Timestamp) -> Result<Option<JobUse>, StoreError>;

    /// Removes what was used before this day; tells how many sums those were.
    async fn forget_usage(&self, before: usage::Day) -> Result<u64, StoreError>;

    /// Remembers a token.
    async fn add_token(&self, token: TokenRecord) -> Result<(), StoreError>;

    /// All tokens, oldest first.
    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError>;

    /// Forgets a token; false if there was none.
    async fn remove_token(&self, id: &str) -> Result<bool, StoreError>;

    /// Ends the writer after what is under way, and releases the folder.
    async fn close(&self);
}
