//! What can go wrong with the job table, told apart by what its operator has to do.

use scheduler_core::ids::{JobId, Revision, Term};

/// A failed operation on the store. Nothing of a failed commit is in the table, unless it says that the server is away.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room on the device.
    #[error("{op}: no space left for the database {subject}; free some, nothing that was acknowledged is lost")]
    Full {
        /// What was being done.
        op: &'static str,
        /// Path or address of the database.
        subject: String,
    },
    /// File, folder or mount is read-only.
    #[error("{op}: {subject} cannot be written; make it and its folder writable for this user, or mount it read-write")]
    ReadOnly {
        /// What was being done.
        op: &'static str,
        /// Path or address of the database.
        subject: String,
    },
    /// Another daemon has the folder.
    #[error("{subject} is in use by another daemon{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        subject: String,
        /// The process that holds the lock, where it wrote that down.
        pid: Option<u32>,
    },
    /// Another daemon holds the lease of the table.
    #[error("the job table {subject} is held by {holder}, whose lease lasts {} s more if it is not heard of", left.as_millis().div_ceil(1_000))]
    Held {
        /// Address of the database.
        subject: String,
        /// What the holder calls itself.
        holder: String,
        /// How long its lease lasts if it is not renewed.
        left: std::time::Duration,
    },
    /// Its schema was made by a newer version.
    #[error("the database {subject} has schema version {found}, this binary knows versions up to {known}; use the newer flashd")]
    Newer {
        /// Path or address of the database.
        subject: String,
        /// Version found in it.
        found: i64,
        /// Newest version this binary has a migration for.
        known: i64,
    },
    /// Its schema is not the one that this binary reads, and whoever writes the table has it so.
    #[error(
        "the database {subject} is not read: it has schema version {found}, this binary reads version {known}; run the same flashd as the one that leads"
    )]
    OtherVersion {
        /// Path or address of the database.
        subject: String,
        /// Version found in it.
        found: i64,
        /// The version that this binary reads.
        known: i64,
    },
    /// It is read before anybody has made it.
    #[error("{subject}: there is no job table yet; the first start makes it")]
    NotMade {
        /// Path or address of the database.
        subject: String,
    },
    /// Not a database, or damaged.
    #[error("{op}: the database {subject} is damaged or not one of flashd: {detail}; it was left as it is")]
    Corrupt {
        /// What was being done.
        op: &'static str,
        /// Path or address of the database.
        subject: String,
        /// What the database said.
        detail: String,
    },
    /// A newer term has begun: this daemon leads no more.
    #[error("term {ours} has ended, term {current} has begun")]
    Fenced {
        /// Term of the batch.
        ours: Term,
        /// Term in the table.
        current: Term,
    },
    /// A compare-and-set found another state or attempt. The caller's memory is out of step and must be rebuilt.
    #[error("job {job} is {found}, not {expected} as was expected")]
    Stale {
        /// The job.
        job: JobId,
        /// State and attempt that the batch compared with.
        expected: String,
        /// State and attempt in the table.
        found: String,
    },
    /// A compare-and-set found no such job.
    #[error("job {job} is not in the table")]
    Missing {
        /// The job.
        job: JobId,
    },
    /// Events from this revision on were compacted away.
    #[error("events up to revision {floor} were compacted; list again and watch from there")]
    Compacted {
        /// Oldest revision from which a watch can be resumed.
        floor: Revision,
    },
    /// An idempotency key or another unique value is there already.
    #[error("{op}: {what} exists already")]
    Duplicate {
        /// What was being done.
        op: &'static str,
        /// Which one.
        what: String,
    },
    /// The store is closed, or its writer ended.
    #[error("{op}: the store is closed")]
    Closed {
        /// What was being done.
        op: &'static str,
    },
    /// The table was opened for reading: another daemon writes it.
    #[error("{op}: this daemon is a standby and only reads")]
    Standby {
        /// What was to be done.
        op: &'static str,
    },
    /// The server of the database cannot be reached, or has not answered. Of a commit: it is not known whether it is in the table.
    #[error("{op}: {subject} is away: {detail}")]
    Away {
        /// What was being done.
        op: &'static str,
        /// Address of the database.
        subject: String,
        /// What the network or the server said.
        detail: String,
    },
    /// Anything else.
    #[error("{op} on {subject}: {detail}")]
    Other {
        /// What was being done.
        op: &'static str,
        /// Path or address of the database.
        subject: String,
        /// What the system or the database said.
        detail: String,
    },
}

impl StoreError {
    /// True where the same call may go through later without anybody mending the caller (disk full, read-only).
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::ReadOnly { .. } | Self::Away { .. } | Self::Other { .. })
    }
}
