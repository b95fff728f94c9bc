//! What happened to things that are no jobs: GPUs, nodes, queues.
//!
//! What must hold: a notice has its place in the one gapless sequence of revisions, after the submits and changes of its batch; no event of a job
//! has the same; and the two are removed together, so that one floor counts for both.

use scheduler_core::ids::{Name, Revision};
use scheduler_core::time::Timestamp;

use crate::EventRecord;

/// What sort of thing it is. The numbers are kept in databases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum NoticeKind {
    /// A GPU, by its UUID.
    Gpu = 0,
    /// A node.
    Node = 1,
    /// A queue.
    Queue = 2,
    /// A cohort of queues.
    Cohort = 3,
    /// A priority with a name.
    PriorityClass = 4,
}

impl NoticeKind {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 5] = [Self::Gpu, Self::Node, Self::Queue, Self::Cohort, Self::PriorityClass];

    /// For programs: `gpu`, `node`, `queue`, `cohort`, `priorityClass`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Node => "node",
            Self::Queue => "queue",
            Self::Cohort => "cohort",
            Self::PriorityClass => "priorityClass",
        }
    }
}

/// Something that happened to a thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// When it was seen or decided.
    pub at: Timestamp,
    /// What sort of thing it is.
    pub kind: NoticeKind,
    /// Its name, 1 to 253 characters.
    pub name: Name,
    /// What happened, in a word.
    pub what: Name,
    /// The node that it is on.
    pub node: Option<Name>,
    /// Why, in a word of a closed set.
    pub cause: Option<Name>,
    /// Who did it, where somebody did.
    pub by: Option<Name>,
    /// Why, for people.
    pub reason: Option<String>,
}

/// A notice as it is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoticeRecord {
    /// Its place in the gapless sequence.
    pub revision: Revision,
    /// What happened.
    pub notice: Notice,
}

/// Which notices to read, oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoticeQuery {
    /// Only those with a larger revision. Below the floor: [`StoreError::Compacted`](crate::StoreError::Compacted).
    pub after: Revision,
    /// Only of things of this kind.
    pub kind: Option<NoticeKind>,
    /// Only of things of this name.
    pub name: Option<Name>,
    /// At most this many.
    pub limit: u32,
}

/// One entry of the sequence of revisions.
#[derive(Clone, PartialEq, Debug)]
pub enum LogEntry {
    /// Of a job.
    Job(EventRecord),
    /// Of another thing.
    Notice(NoticeRecord),
}

impl LogEntry {
    /// Its place in the sequence.
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Job(event) => event.revision,
            Self::Notice(notice) => notice.revision,
        }
    }

    /// The event, where it is one of a job.
    pub const fn job(&self) -> Option<&EventRecord> {
        match self {
            Self::Job(event) => Some(event),
            Self::Notice(_) => None,
        }
    }
}
