//! What HTTP asks of the rest of the daemon: the one seam between the edge and the engine.
//!
//! Invariants: everything that crosses here is validated and typed; nothing of HTTP (status, header, body text) crosses it. A submit
//! that returned is durable. Reads never wait for the engine's commits, apart from [`Backend::why`], which asks the core itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::event::Rejected;
use scheduler_core::ids::{JobId, Name, Revision};
use scheduler_core::job::{Policy, Shape};
use scheduler_core::time::Timestamp;
use store::{Owner, Store, StoreError};

use crate::objects::edit::{Change, Changed};
use crate::objects::{Directory, Invalid};
use crate::watch::Watch;

pub use scheduler_core::{Explanation, Refused, Resource};

/// How a caller was recognised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Via {
    /// Peer of the Unix socket.
    Socket,
    /// Bearer of the token with this public id.
    Token(Name),
    /// Bearer of a token of the cluster.
    Cluster(Arc<Membership>),
}

/// What is known of a user of the cluster beside the name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// Groups, as the cluster says.
    pub groups: Vec<Name>,
    /// Namespaces whose jobs are the user's to act on; the first one is where jobs go that name none.
    pub namespaces: Vec<Name>,
}

/// Stands for a user that the cluster knows and this machine does not: no user has this number.
pub const NO_UID: u32 = u32::MAX;

/// Who asks. Roles per namespace and OIDC will fill the same type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// User name; the uid in digits where it has none.
    pub user: Name,
    /// The uid that the caller's jobs run as; [`NO_UID`] for users of a cluster.
    pub uid: u32,
    /// The caller's first group.
    pub gid: u32,
    /// Home folder, where the system knows one: the default `workingDir`.
    pub home: Option<Name>,
    /// May act on jobs of others and see their logs.
    pub admin: bool,
    /// How it was recognised.
    pub via: Via,
}

impl Caller {
    /// Whether this caller may change and read all of what belongs to the user of this machine with this `uid`.
    pub fn may_act_for(&self, uid: u32) -> bool {
        self.admin || (self.membership().is_none() && self.uid == uid)
    }

    /// Whether this caller may change and read all of a job: of a user of the machine its owner may, of users of the cluster those whose
    /// namespace it is in.
    pub fn may_act_on(&self, namespace: &Name, owner: &Owner) -> bool {
        match self.membership() {
            Some(member) => self.admin || member.namespaces.contains(namespace),
            None => self.may_act_for(owner.uid),
        }
    }

    /// What the cluster says of this caller, if it was recognised there.
    pub fn membership(&self) -> Option<&Membership> {
        match &self.via {
            Via::Cluster(member) => Some(member),
            Via::Socket | Via::Token(_) => None,
        }
    }

    /// Whose idempotency keys this caller's are: keys of two callers never meet.
    pub fn key_scope(&self) -> String {
        match self.membership() {
            Some(_) => format!("cluster:{}", self.user),
            None => format!("uid:{}", self.uid),
        }
    }

    /// As the owner of what it makes.
    pub fn owner(&self) -> Owner {
        Owner { user: self.user.clone(), uid: self.uid }
    }
}

/// A job, checked and completed, that is to be accepted. Identity, sequence and time are given to it behind the seam.
#[derive(Clone, Debug)]
pub struct NewSubmit {
    /// What it asks for.
    pub shape: Arc<Shape>,
    /// How it is treated.
    pub policy: Arc<Policy>,
    /// Not to be queued before this time.
    pub start_after: Option<Timestamp>,
    /// Held until released.
    pub hold: bool,
    /// Whose it is.
    pub owner: Owner,
    /// Its name.
    pub name: Name,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// The whole spec as JSON ([`api::JobSpec`]), completed with defaults.
    pub spec: Bytes,
}

/// An idempotency key as a caller sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyKey {
    /// Whose it is: keys of two callers never meet.
    pub scope: String,
    /// The key, 1 to 255 bytes.
    pub key: String,
    /// SHA-256 over the route and the body.
    pub fingerprint: [u8; 32],
}

/// Jobs that are accepted together or not at all.
#[derive(Clone, Debug)]
pub struct SubmitRequest {
    /// At least one.
    pub jobs: Vec<NewSubmit>,
    /// The same key and fingerprint again is answered with the same ids, another fingerprint with [`BackendError::KeyReused`].
    pub key: Option<IdempotencyKey>,
}

/// What a user does to a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// End it for good.
    Cancel,
    /// Keep it from being queued.
    Hold,
    /// Let it be queued.
    Release,
    /// Start its run over.
    Requeue,
}

/// How a job that waits is to be from now on.
#[derive(Clone, Debug)]
pub struct Update {
    /// The queue and policy that this was made from: where the job has others by now, nothing changes.
    pub from: (Name, Policy),
    /// Its queue.
    pub queue: Name,
    /// Its whole policy.
    pub policy: Arc<Policy>,
    /// Its whole spec as JSON.
    pub spec: Bytes,
    /// Who asks.
    pub by: Name,
}

/// Queues and nodes as the engine last saw them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// By name.
    pub queues: Vec<api::Queue>,
    /// By name.
    pub cohorts: Vec<api::Cohort>,
    /// Configured ones first.
    pub nodes: Vec<api::Node>,
    /// How their free GPUs lie.
    pub fragmentation: api::Fragmentation,
    /// What drives the GPUs, where something does.
    pub driver: Option<executors::gpu::Driver>,
    /// Why there are no GPUs, or why some are missing.
    pub gpu_note: Option<String>,
    /// Latest revision then.
    pub revision: Revision,
}

/// Whether requests can be served now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet, or not now; why.
    NotReady(String),
    /// No more: the daemon is going down.
    Draining,
}

/// Why the engine did not do what was asked. Nothing of a failed submit is there.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No such job.
    #[error("no such job")]
    NotFound,
    /// The state machine refused it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The core does not take the job: it could never run here.
    #[error("job {index}: {refused}")]
    Refused {
        /// Which job of the request, from 0.
        index: usize,
        /// Why.
        refused: Refused,
    },
    /// No queue, cohort, priority class or node of this name.
    #[error("no {kind} `{name}`")]
    NoObject {
        /// What was asked for.
        kind: &'static str,
        /// Its name.
        name: Name,
    },
    /// A queue, cohort or priority class cannot be so.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Not possible as things stand.
    #[error("{0}")]
    Conflict(String),
    /// Somebody else has changed it since it was read.
    #[error("it has been changed meanwhile; try again")]
    Overtaken,
    /// The key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The queue to the engine is full.
    #[error("too many requests are waiting for the engine")]
    Busy,
    /// Going down, or not there yet.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The job table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A daemon that waits while another one leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standby {
    /// Who leads, in words.
    pub leader: String,
    /// Whether the table can be read. Where it cannot, nobody is known either.
    pub reads: bool,
}

/// The daemon behind the edge.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Accepts all jobs or none; durable when it returns. Ids are in the order of the request.
    async fn submit(&self, request: SubmitRequest) -> Result<Vec<JobId>, BackendError>;

    /// Changes a job; durable when it returns. What is so already ([`Rejected::AlreadySo`]) is an error here and no fault at the edge.
    async fn act(&self, job: JobId, action: Action, by: Name) -> Result<(), BackendError>;

    /// Changes what a job that waits asks for and how it is treated; durable when it returns.
    async fn update(&self, job: JobId, update: Update) -> Result<(), BackendError>;

    /// The core's answer; `None` where the core does not have the job (finished, or unknown).
    async fn why(&self, job: JobId) -> Result<Option<Explanation>, BackendError>;

    /// Ids from `first` to `last`, both included, ascending, at most `limit`: how a prefix becomes a job.
    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, BackendError>;

    /// Changes a queue, a cohort, a priority class or the state of a node; durable when it returns.
    async fn change(&self, change: Change) -> Result<Changed, BackendError>;

    /// One queue with its tenants; `None` where there is no such queue.
    async fn queue(&self, name: &Name) -> Result<Option<api::Queue>, BackendError>;

    /// Which queues, cohorts and priority classes there are.
    fn directory(&self) -> Arc<Directory>;

    /// Queues, cohorts and nodes.
    async fn snapshot(&self) -> Result<Arc<Snapshot>, BackendError>;

    /// Why nothing is started anywhere for now, if that is so.
    fn silence(&self) -> Option<String>;

    /// Live events. Cheap; every watcher has its own.
    fn watch(&self) -> Watch;

    /// The job table, for reads and tokens.
    fn store(&self) -> &dyn Store;

    /// What the user of a job should know of its run.
    fn warnings(&self, job: JobId) -> Vec<String>;

    /// Whether requests can be served.
    fn ready(&self) -> Readiness;

    /// Who leads instead, where this daemon only reads.
    fn standby(&self) -> Option<Standby>;
}
