//! Named things beside jobs: queues, cohorts, priority classes, nodes, usage.
//!
//! They are few, read whole at a start, and each is one JSON document that means nothing to the store. A change of one goes into a
//! [`Batch`](crate::Batch) and becomes durable with everything else in it, so a decision that rests on a new queue can never be in
//! the table without the queue. Objects have no revision; what happened to them is told by [`notice`](crate::notice)s in the same batch.

use bytes::Bytes;
use scheduler_core::ids::Name;

/// What sort of thing it is. The numbers are kept in databases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ObjectKind {
    /// A queue.
    Queue = 0,
    /// A cohort of queues.
    Cohort = 1,
    /// A priority with a name.
    PriorityClass = 2,
    /// What an administrator said about a node.
    Node = 3,
    /// What tenants have used.
    Usage = 4,
    /// What the daemon notes for itself.
    Note = 5,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Queue, Self::Cohort, Self::PriorityClass, Self::Node, Self::Usage, Self::Note];

    /// For people: `queue`, `cohort`, `priority class`, `node`, `usage`, `note`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Cohort => "cohort",
            Self::PriorityClass => "priority class",
            Self::Node => "node",
            Self::Usage => "usage",
            Self::Note => "note",
        }
    }
}

/// An object that is to be as it says from the next commit on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectChange {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name, unique within its kind; 1 to 253 characters.
    pub name: Name,
    /// JSON that replaces what was there, if anything; `None` to remove it, which changes nothing where there is none.
    pub value: Option<Bytes>,
}

/// An object as it is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectRecord {
    /// Its name.
    pub name: Name,
    /// JSON, byte for byte as it was committed.
    pub value: Bytes,
}
