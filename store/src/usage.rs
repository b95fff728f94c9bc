//! What was used, in numbers: what runs were promised and for how long, and what was seen of it.
//!
//! What must hold: a promise counts from the start of a run's tasks to the end of the last of them; a day is a day of UTC; sums end at the
//! largest number there is and never wrap. How much of a GPU a run is promised is said in one place: [`Promise::of`].

use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::ids::{Attempt, JobId, Name, Seq};
use scheduler_core::job::Shape;
use scheduler_core::state::{Placement, Slot, StateKind};
use scheduler_core::time::{Span, Timestamp};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// Longest run that is told apart by days; of one that a wrong clock makes longer, what is before counts for its first day.
const MOST_DAYS: i64 = 4_000;
/// Numbers in databases are signed.
const MOST: u64 = i64::MAX as u64;

/// A day of UTC, in days since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(pub i64);

impl Day {
    /// The day of a moment.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.0.div_euclid(DAY))
    }

    /// Its first moment.
    pub const fn begin(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(DAY))
    }

    /// The day after.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The days from one moment to another, and how much of each; nothing where the second is not later.
pub fn by_days(from: Timestamp, to: Timestamp) -> impl Iterator<Item = (Day, Span)> {
    let last = Day::of(Timestamp(to.0.saturating_sub(1)));
    let first = Day::of(from).max(Day(last.0.saturating_sub(MOST_DAYS)));
    let most = if from < to { usize::MAX } else { 0 };
    (first.0..=last.0).take(most).map(move |day| {
        let begin = if Day(day) == first { from } else { Day(day).begin() };
        (Day(day), Day(day).next().begin().min(to).since(begin))
    })
}

/// What a run has to itself for as long as it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promise {
    /// Processors.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: MemoryBytes,
    /// Thousandths of a GPU.
    pub gpu_millis: u64,
}

impl Promise {
    /// Of a run of this shape: of the tasks that were placed, or of all of them where nothing is said of that.
    pub fn of<'a>(shape: &Shape, placement: Option<&'a Placement>) -> Self {
        let mut promise = Self::default();
        let groups = shape.tasks.iter().zip(0_usize..).map(|(group, index)| {
            let slots = |placed: &'a Placement| placed.slots.iter().filter(move |slot| usize::from(slot.group) == index);
            let count = placement.map_or(u64::from(group.replicas), |placed| slots(placed).count() as u64);
            let asked = group.constraints.gpu_share.map_or(u64::from(group.request.gpus) * 1_000, |share| share.millis.into());
            // Of parts that device plugins give out the node says how large they are.
            let had = |slot: &Slot| slot.share.map_or(asked, |share| share.millis.into());
            let placed = placement.filter(|_| group.constraints.gpu_replica);
            let gpus = placed.map_or(asked.saturating_mul(count), |placed| slots(placed).map(had).fold(0, u64::saturating_add));
            (group.request, gpus, count)
        });
        for (request, gpus, count) in groups {
            let add = |sum: &mut u64, each: u64| *sum = sum.saturating_add(each.saturating_mul(count));
            add(&mut promise.cpu.0, request.cpu.0);
            add(&mut promise.memory.0, request.memory.0);
            promise.gpu_millis = promise.gpu_millis.saturating_add(gpus);
        }
        promise
    }

    /// What that makes in so much time.
    pub fn over(self, span: Span) -> Promised {
        let times = |amount: u64, unit: u128| {
            // To the nearest: what is rounded off many short runs does not add up.
            let product = u128::from(amount) * u128::from(span.0) + unit / 2;
            u64::try_from(product / unit).unwrap_or(MOST).min(MOST)
        };
        Promised {
            cpu_micros: times(self.cpu.0, 1_000),
            memory_mib_millis: times(self.memory.0, 1_000 << 20),
            gpu_micros: times(self.gpu_millis, 1_000),
        }
    }
}

/// What was promised over a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promised {
    /// Cores times microseconds.
    pub cpu_micros: u64,
    /// MiB times milliseconds.
    pub memory_mib_millis: u64,
    /// GPUs times microseconds.
    pub gpu_micros: u64,
}

/// What was seen of GPUs while runs had them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sampled {
    /// GPUs times microseconds over which it is known how busy they were.
    pub known_micros: u64,
    /// Of these, those in which something ran.
    pub busy_micros: u64,
    /// Most that one GPU was busy, in percent.
    pub peak_busy_percent: u32,
    /// Most memory of one GPU that the run's processes held, in bytes.
    pub peak_memory_bytes: u64,
    /// Energy in millijoules.
    pub energy_millijoules: u64,
}

/// Both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// What was promised.
    pub promised: Promised,
    /// What was seen of it.
    pub sampled: Sampled,
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more).min(MOST);
}

impl Promised {
    /// With what comes to it.
    pub fn add(&mut self, more: &Self) {
        add(&mut self.cpu_micros, more.cpu_micros);
        add(&mut self.memory_mib_millis, more.memory_mib_millis);
        add(&mut self.gpu_micros, more.gpu_micros);
    }
}

impl Sampled {
    /// With what comes to it.
    pub fn add(&mut self, more: &Self) {
        add(&mut self.known_micros, more.known_micros);
        add(&mut self.busy_micros, more.busy_micros);
        add(&mut self.energy_millijoules, more.energy_millijoules);
        self.peak_busy_percent = self.peak_busy_percent.max(more.peak_busy_percent);
        self.peak_memory_bytes = self.peak_memory_bytes.max(more.peak_memory_bytes);
    }
}

impl Used {
    /// With what comes to it.
    pub fn add(&mut self, more: &Self) {
        self.promised.add(&more.promised);
        self.sampled.add(&more.sampled);
    }
}

/// What a look at GPUs adds to a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunSample {
    /// The job.
    pub job: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// Which try.
    pub attempt: Attempt,
    /// When it was looked: for which day it counts.
    pub at: Timestamp,
    /// What was seen.
    pub sampled: Sampled,
}

/// Of whom and when. Empty lists restrict nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageQuery {
    /// The first day.
    pub since: Day,
    /// The last day, which counts.
    pub until: Day,
    /// One of these namespaces.
    pub namespaces: Vec<String>,
    /// One of these users.
    pub users: Vec<String>,
    /// One of these queues.
    pub queues: Vec<String>,
    /// Up to when what still runs counts.
    pub now: Timestamp,
    /// Most rows of the answer.
    pub limit: u32,
}

/// What rows are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UsageBy {
    /// The day.
    pub day: bool,
    /// The namespace.
    pub namespace: bool,
    /// The user.
    pub user: bool,
    /// The queue.
    pub queue: bool,
}

/// A sum. What rows are not told apart by is not said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageRow {
    /// On this day.
    pub day: Option<Day>,
    /// In this namespace.
    pub namespace: Option<Name>,
    /// By this user.
    pub user: Option<Name>,
    /// In this queue.
    pub queue: Option<Name>,
    /// Runs that ended.
    pub runs: u64,
    /// What was used, also by what still runs.
    pub used: Used,
}

/// What a job used in all its runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobUse {
    /// The job.
    pub job: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// Its name.
    pub name: Name,
    /// Its namespace.
    pub namespace: Name,
    /// Its queue.
    pub queue: Name,
    /// Its owner.
    pub user: Name,
    /// Where it stands.
    pub state: StateKind,
    /// Runs whose tasks started.
    pub runs: u64,
    /// What was used.
    pub used: Used,
}

/// Rows, and whether there are more than were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsagePage<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// There are more.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use scheduler_core::amounts::Request;
    use scheduler_core::job::TaskGroup;
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn time_is_cut_at_midnight() {
        let at = |day: i64, seconds: i64| Timestamp(day * DAY + seconds * 1_000_000);
        let days = |from, to| by_days(from, to).map(|(day, span)| (day.0, span.0 / 1_000_000)).collect::<Vec<_>>();
        assert_eq!(days(at(3, 86_390), at(5, 7)), [(3, 10), (4, 86_400), (5, 7)]);
        assert_eq!(days(at(3, 0), at(4, 0)), [(3, 86_400)], "the end does not count");
        assert_eq!(days(at(3, 5), at(3, 9)), [(3, 4)]);
        assert_eq!(days(at(-1, 86_399), at(0, 1)), [(-1, 1), (0, 1)]);
        assert_eq!(days(at(3, 5), at(3, 5)), []);
        assert_eq!(days(at(9, 5), at(3, 5)), [], "clocks are set back");
        let long: Vec<_> = by_days(at(0, 0), at(20_000, 0)).collect();
        assert_eq!((long.len() as i64, long.iter().map(|(_, span)| span.0 as i64).sum::<i64>()), (MOST_DAYS + 1, 20_000 * DAY));
    }

    #[test]
    fn a_promise_is_that_of_the_tasks_that_were_placed() {
        let request = |cpu, gpus| Request { cpu: CpuMillis(cpu), memory: MemoryBytes(1 << 30), gpus };
        let tasks = vec![TaskGroup::new("a".into(), 2, request(500, 1)), TaskGroup::new("b".into(), 3, request(2_000, 0))];
        let shape = Shape::new("default".into(), "q".into(), tasks);
        let all = Promise::of(&shape, None);
        assert_eq!(all, Promise { cpu: CpuMillis(7_000), memory: MemoryBytes(5 << 30), gpu_millis: 2_000 });
        let slot = |group| Slot { group, replica: 0, node: "n".into(), gpus: smallvec![], share: None };
        let some = Promise::of(&shape, Some(&Placement::new(vec![slot(0), slot(1)])));
        assert_eq!(some, Promise { cpu: CpuMillis(2_500), memory: MemoryBytes(2 << 30), gpu_millis: 1_000 });
        let mut shared = shape.clone();
        shared.tasks[0].constraints.gpu_share = Some(scheduler_core::amounts::GpuShare { millis: 250, memory: MemoryBytes(0) });
        assert_eq!(Promise::of(&shared, None).gpu_millis, 500, "a part counts as a part");
        shared.tasks[0].constraints.gpu_replica = true;
        let had = |millis| Some(scheduler_core::amounts::GpuShare { millis, memory: MemoryBytes(0) });
        let parts = Placement::new(vec![Slot { share: had(333), ..slot(0) }, Slot { share: had(500), ..slot(0) }, slot(1)]);
        assert_eq!(Promise::of(&shared, Some(&parts)).gpu_millis, 833, "what a node gives out counts as that");
        let used = some.over(Span::from_secs(10));
        assert_eq!(used, Promised { cpu_micros: 25_000_000, memory_mib_millis: 20_480_000, gpu_micros: 10_000_000 });
        assert_eq!(Promise { cpu: CpuMillis(u64::MAX), ..some }.over(Span(u64::MAX)).cpu_micros, MOST);
    }
}
