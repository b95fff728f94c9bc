//! What goes into the job table and comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::event::Transition;
use scheduler_core::ids::{JobId, Name, Revision, Seq, Term};
use scheduler_core::job::{NewJob, Policy, Shape};
use scheduler_core::state::{Lifecycle, Outcome, StateKind};
use scheduler_core::time::Timestamp;

use crate::notice::Notice;
use crate::object::ObjectChange;
use crate::usage::RunSample;

/// Who a job belongs to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    /// User name.
    pub user: Name,
    /// The uid that its tasks run as when the daemon is root.
    pub uid: u32,
}

/// A job that enters the table.
#[derive(Clone, Debug)]
pub struct Submit {
    /// The core's part.
    pub job: NewJob,
    /// Its first state, as the core decided.
    pub lifecycle: Lifecycle,
    /// Whose it is.
    pub owner: Owner,
    /// Its name; not unique.
    pub name: Name,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// The whole spec as JSON, completed with defaults: what readers and executors get back, byte for byte.
    pub spec: Bytes,
}

/// What a user has changed of a job that waits. Its revision is that of the transition beside it.
#[derive(Clone, Debug)]
pub struct JobUpdate {
    /// The job.
    pub job: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// What it asks for from now on.
    pub shape: Arc<Shape>,
    /// How it is treated from now on.
    pub policy: Arc<Policy>,
    /// The whole spec as JSON from now on.
    pub spec: Bytes,
}

/// The remembered answer to a request that carried an idempotency key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRecord {
    /// Who sent it: keys of two callers never meet.
    pub scope: String,
    /// The key as sent, at most 255 bytes.
    pub key: String,
    /// Hash of the request body.
    pub fingerprint: [u8; 32],
    /// The jobs that it made, in order.
    pub jobs: Vec<JobId>,
    /// When.
    pub at: Timestamp,
}

/// Everything that one transaction makes durable: all of it or nothing.
///
/// Revisions are given out in this order: submits, then changes, then notices. A job that is submitted and changed in one batch, or changed more
/// than once, gets its changes in the order of the vector.
#[derive(Debug, Default)]
pub struct Batch {
    /// The writer's term; a larger one in the table refuses the batch.
    pub term: Term,
    /// New jobs, in ascending `seq`.
    pub submits: Vec<Submit>,
    /// Compare-and-sets, in the order in which they were decided.
    pub changes: Vec<Transition>,
    /// What jobs are from now on, where a user changed it: after the changes, in this order.
    pub updates: Vec<JobUpdate>,
    /// Idempotency keys of the submits.
    pub keys: Vec<KeyRecord>,
    /// Objects, in the order in which they were decided: the last word on a name counts.
    pub objects: Vec<ObjectChange>,
    /// What happened to things that are no jobs, in this order.
    pub notices: Vec<Notice>,
    /// What was seen of runs since the batch before.
    pub samples: Vec<RunSample>,
}

/// What a commit gave out: submit `i` has revision `first + i`, change `j` has `first + submits + j`, notice `k` has
/// `first + submits + changes + k`. A batch of none of these has used none, and then `first` is the one after `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// First revision of the batch.
    pub first: Revision,
    /// Last revision of the table after it.
    pub last: Revision,
}

/// Where the table stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The latest term.
    pub term: Term,
    /// Largest submission sequence ever given out.
    pub last_seq: Seq,
    /// Latest revision.
    pub last_revision: Revision,
    /// Watches can resume from here on: events with a revision up to this are gone.
    pub floor: Revision,
}

/// A job as it is read: row and spec.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its identity.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// The tenant.
    pub namespace: Name,
    /// Its queue.
    pub queue: Name,
    /// Whose it is.
    pub owner: Owner,
    /// Its name.
    pub name: Name,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// Revision of its latest change.
    pub revision: Revision,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// `startAfter`.
    pub start_after: Option<Timestamp>,
    /// When its latest run's tasks started, also after it ended.
    pub started_at: Option<Timestamp>,
    /// Where its latest run was placed, also after it ended.
    pub last_placement: Option<scheduler_core::state::Placement>,
    /// The whole spec as JSON, as submitted to the store.
    pub spec: Bytes,
}

/// One entry of a label selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelMatch {
    /// `key=value`
    Is(String, String),
    /// `key!=value`, true also where the key is absent
    IsNot(String, String),
    /// `key`
    Exists(String),
    /// `!key`
    Absent(String),
}

/// Which jobs to list. Empty vectors and `None` restrict nothing. Newest first.
#[derive(Clone, Debug, Default)]
pub struct JobQuery {
    /// One of these namespaces.
    pub namespaces: Vec<String>,
    /// One of these queues.
    pub queues: Vec<String>,
    /// One of these owners.
    pub owners: Vec<String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// One of these states.
    pub states: Vec<StateKind>,
    /// Finished so; only with `states` empty or containing finished.
    pub outcomes: Vec<OutcomeKind>,
    /// All of these hold.
    pub labels: Vec<LabelMatch>,
    /// Only jobs with a smaller sequence: where the page before ended.
    pub before: Option<Seq>,
    /// At most this many, 1 to 1,000.
    pub limit: u32,
}

/// [`Outcome`] without its data. The numbers are kept in databases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum OutcomeKind {
    /// See [`Outcome::Succeeded`].
    Succeeded = 0,
    /// See [`Outcome::Failed`].
    Failed = 1,
    /// See [`Outcome::Cancelled`].
    Cancelled = 2,
}

impl From<&Outcome> for OutcomeKind {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Cancelled { .. } => Self::Cancelled,
        }
    }
}

/// A page of jobs.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobRecord>,
    /// Where the next page begins ([`JobQuery::before`]), if there may be one.
    pub next: Option<Seq>,
    /// The table's revision when the page was read.
    pub revision: Revision,
}

/// One entry of the log of transitions.
#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    /// Its place in the gapless sequence.
    pub revision: Revision,
    /// The job.
    pub job: JobId,
    /// The job's namespace.
    pub namespace: Name,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened: `submitted`, or [`Event::word`](scheduler_core::event::Event::word).
    pub what: Name,
    /// What the job was afterwards.
    pub lifecycle: Lifecycle,
}

/// What a round of retention removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compaction {
    /// The floor afterwards.
    pub floor: Revision,
    /// Number of events removed.
    pub events: u64,
    /// True when the bound of the round was reached and there is more to remove.
    pub more: bool,
}

/// A bearer token, without the secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// Public identity, shown in lists.
    pub id: String,
    /// What its maker called it.
    pub name: String,
    /// SHA-256 of the secret, which is 256 random bits.
    pub hash: [u8; 32],
    /// Who its bearer is.
    pub owner: Owner,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if ever.
    pub expires_at: Option<Timestamp>,
}

/// Number of jobs in each state, by [`StateKind`] number.
pub type StateCounts = [u64; 6];
