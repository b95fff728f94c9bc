//! The answers, as data: the words are the client's.

use crate::amounts::{CpuMillis, GpuShare, MemoryBytes};
use crate::ids::{Attempt, JobId, Name, Seq};
use crate::scheduler::config::Resource;
use crate::scheduler::errors::Whose;
use crate::scheduler::refused::Refused;
use crate::scheduler::tree::ledger::Counted;
use crate::state::StopReason;
use crate::time::{Span, Timestamp};

/// A job by both of its names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobRef {
    /// Its identity.
    pub id: JobId,
    /// Its number.
    pub seq: Seq,
}

/// All that there is to say about an unfinished job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The job.
    pub job: JobRef,
    /// The latest try.
    pub attempt: Attempt,
    /// Why it is where it is.
    pub why: Why,
    /// Where it stands in its queue, while it is queued.
    pub position: Option<Position>,
    /// When it starts, while it does not run.
    pub estimate: Option<Estimate>,
    /// What would let it start at once, the smallest change of each kind.
    pub suggestions: Vec<Suggestion>,
}

/// A GPU that is not promised to anybody now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AsideGpu {
    /// Its identity.
    pub uuid: Name,
    /// Its node.
    pub node: Name,
    /// Why it is not.
    pub why: Name,
}

/// Why a job does not run, or that it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Somebody has to release it.
    Held,
    /// It waits for this time.
    NotBefore(Timestamp),
    /// Infrastructure lost its run, and it is tried again at this time.
    Backoff {
        /// Not before.
        at: Timestamp,
        /// How many runs were lost so far.
        lost: u32,
        /// How many may be lost; the last of them is final.
        max_attempts: u32,
    },
    /// It could not start even if nothing else ran: nodes, or limits, are not what they were when it was accepted.
    Never(Refused),
    /// There are no nodes.
    NoNodes,
    /// It would have room only if nodes that take no tasks now took some.
    NodesClosed {
        /// The first of them that would have room for one of its most demanding tasks, in the order of the nodes.
        nodes: Vec<Name>,
        /// How many more there are.
        more: usize,
    },
    /// It would have room only with GPUs that are set aside now.
    GpusAside {
        /// The first of them, in the order of the nodes.
        gpus: Vec<AsideGpu>,
        /// How many more there are.
        more: usize,
    },
    /// Others are ahead of it in the order, and it does not fit beside them.
    Behind {
        /// The job for which room is kept first, or the first of its own kind.
        first: Ahead,
        /// What it would lack itself at present.
        shortfall: Shortfall,
        /// When it starts at the latest, if it has a reservation itself and the time limits of what runs allow to say so.
        expected: Option<Timestamp>,
    },
    /// It would fit now, and could delay one who is ahead and has a reservation.
    Reserved {
        /// Who that is.
        head: Ahead,
        /// How many others have a reservation behind that one; it may be one of them that would be delayed.
        more: usize,
        /// When that job starts at the latest; `None` where no time limits tell.
        at: Option<Timestamp>,
        /// The longest time that this job may hold its resources: time limit and grace.
        stay: Option<Span>,
    },
    /// It is the first of the order that does not fit. Room is kept for it.
    Resources {
        /// What it lacks.
        shortfall: Shortfall,
        /// When it starts at the latest, if the time limits of what runs allow to say so.
        expected: Option<Timestamp>,
    },
    /// A limit keeps it back, whatever is free.
    Limit {
        /// Whose limit it is.
        whose: Whose,
        /// The name of the namespace, queue or cohort.
        of: Name,
        /// What it counts.
        counted: Counted,
        /// What is held already.
        held: u128,
        /// What the job asks for besides.
        asked: u128,
        /// What may be held.
        limit: u128,
    },
    /// It keeps all limits, and somebody ahead of it waits for what is left of one.
    KeptBack {
        /// Who that is.
        first: Ahead,
        /// Whose limit it is.
        whose: Whose,
        /// The name of the namespace, queue or cohort.
        of: Name,
        /// What it counts.
        counted: Counted,
    },
    /// Runs are being ended so that it can start.
    MakingRoom {
        /// These.
        victims: Vec<JobRef>,
        /// When the last of them is killed, unless it ends before. `None` where the next pass asks them to end.
        until: Option<Timestamp>,
    },
    /// The next pass starts it.
    Scheduling,
    /// It is placed and its start is on the way.
    Starting,
    /// It is ordered, and begins as soon as those before it have left room on its node.
    LinedUp {
        /// Where.
        node: Name,
        /// How many were lined up before it and have not been heard of yet.
        behind: usize,
        /// About how long that takes, where that is known.
        wait: Option<Span>,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// When its time limit ends it.
        until: Option<Timestamp>,
        /// What may end it before.
        exposure: Exposure,
    },
    /// It is being ended.
    Stopping {
        /// Why.
        reason: StopReason,
        /// The job that it makes room for, while that is unfinished.
        for_job: Option<JobRef>,
        /// When what is left of it is killed.
        deadline: Timestamp,
    },
}

/// What may end a run to make room for another job.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Exposure {
    /// Jobs of higher priority in its queue.
    pub within_queue: bool,
    /// Jobs of its cohort that claim what it borrowed.
    pub reclaim: bool,
    /// Jobs of queues of higher base priority.
    pub across_queues: bool,
}

/// Where a job stands in its queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// Its place, from 1.
    pub place: u64,
    /// How many jobs are queued there.
    pub queued: u64,
    /// Its queue.
    pub queue: Name,
    /// The first of those ahead of it, in order.
    pub ahead: Vec<Ahead>,
}

/// A job that is ahead of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ahead {
    /// Which.
    pub job: JobRef,
    /// Its tenant.
    pub namespace: Name,
    /// Its queue.
    pub queue: Name,
    /// Why it is ahead.
    pub rule: Rule,
}

/// By what rule one job is ahead of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Its priority, with that of its queue, is higher.
    Priority {
        /// Its own.
        theirs: i64,
        /// That of the job in question.
        own: i64,
    },
    /// It has waited so long that this outweighs its priority.
    Age,
    /// It came first.
    Fifo,
    /// Its namespace has had less than its share, in ten-thousandths of all nodes, divided by the weight.
    TenantShare {
        /// Of its namespace.
        theirs: u32,
        /// Of the namespace of the job in question.
        own: u32,
    },
    /// Its queue has had less than its share, likewise.
    QueueShare {
        /// Of its queue.
        theirs: u32,
        /// Of the queue of the job in question.
        own: u32,
    },
    /// It stays within what its queue is guaranteed, and the job in question would borrow.
    Guarantee,
}

/// A GPU that a job asks for by UUID and cannot have now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenGpu {
    /// Its identity.
    pub uuid: Name,
    /// Its node.
    pub node: Name,
    /// Who has it: one job, or the first of those that have parts of it.
    pub by: Vec<JobRef>,
    /// How many more have parts of it.
    pub more: usize,
    /// Why it is set aside, where it is.
    pub aside: Option<Name>,
}

/// What a job lacks.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Shortfall {
    /// The first of the GPUs that it asks for by UUID and cannot have now.
    pub taken: Vec<TakenGpu>,
    /// How many more there are.
    pub more_taken: usize,
    /// Where a part of a GPU is asked for: what shared GPUs have left, if none has enough and none is whole.
    pub part: Option<NoPart>,
    /// Resources of which there is too little. None if each amount is there, but not on the same nodes.
    pub shortages: Vec<Shortage>,
    /// Where each amount is free on some node, but all of them on none: the node that comes closest.
    pub closest: Option<Closest>,
    /// For how many tasks there is room, where several have to start together.
    pub gang: Option<Gang>,
    /// Where a single task finds no node: the node that has room for one first, and when, by the time limits of what runs there.
    pub room_at: Option<(Name, Timestamp)>,
}

/// A resource of which there is too little free for a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Which.
    pub resource: Resource,
    /// What all tasks of the job ask for together.
    pub asked: u128,
    /// What is free over all nodes.
    pub free: u128,
    /// What all nodes have.
    pub total: u128,
    /// The most that one task asks for.
    pub largest_task: u64,
    /// The most that is free on one node.
    pub largest_free: u64,
    /// That node; `None` if nothing is free anywhere.
    pub node: Option<Name>,
}

/// No GPU has the part that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoPart {
    /// What is asked of one GPU.
    pub asked: GpuShare,
    /// How many shared GPUs that the task may have are not used up.
    pub gpus: usize,
    /// What the one with most left has left, and its node; of thousandths first.
    pub largest: Option<(GpuShare, Name)>,
}

/// A node that nearly has room for a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closest {
    /// Which.
    pub node: Name,
    /// What it has least of, in proportion.
    pub resource: Resource,
    /// What one task asks for.
    pub asked: u64,
    /// What is free there.
    pub free: u64,
}

/// Tasks that have to start together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gang {
    /// The group.
    pub task: Name,
    /// How many of its tasks have to start.
    pub needed: u64,
    /// For how many there is room.
    pub possible: u32,
}

/// When a job starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Estimate {
    /// With the next pass.
    Now,
    /// It joins its queue at this time, and may wait there.
    NotBefore(Timestamp),
    /// By the time limits of what runs and of what starts before it, if nothing that goes before it is submitted.
    Latest(Timestamp),
    /// Nobody knows.
    Unknown(Unknown),
}

/// Why nobody knows when a job starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// It waits for the end of this job, which has no time limit.
    NoTimeLimit(JobRef),
    /// Too much has to happen before: so far ahead was looked.
    TooFar {
        /// Jobs that start before it, as far as was looked.
        starts: u64,
        /// The time that was reached.
        until: Timestamp,
    },
    /// Somebody has to release it.
    Held,
    /// It waits for a change of nodes or limits.
    Change,
}

/// A change that would let a job start at once, everything else being equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suggestion {
    /// What to ask for instead.
    pub change: Change,
    /// The nodes that it would start on.
    pub nodes: Vec<Name>,
}

/// Something to ask for instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// GPUs of each task of a group.
    Gpus {
        /// The group.
        task: Name,
        /// So many.
        gpus: u32,
    },
    /// Processor time of each task of a group.
    Cpu {
        /// The group.
        task: Name,
        /// So much.
        cpu: CpuMillis,
    },
    /// Memory of each task of a group.
    Memory {
        /// The group.
        task: Name,
        /// So much.
        memory: MemoryBytes,
    },
    /// The only group has so many tasks.
    Replicas(u32),
    /// So many tasks have to start together.
    MinAvailable(u32),
    /// It runs no longer than this.
    TimeLimit(Span),
    /// It waits in this queue.
    Queue(Name),
}
