//! Reservations for the first few blocked jobs, and who may start beside them (conservative backfill).
//!
//! The rule. Each of the first `heads` jobs of the order that cannot start now gets a reservation: the earliest time, and a place, at which
//! it would run to its longest stay without touching the reservations before it, if runs end when their limits allow at the latest. A
//! later job starts now only if it fits now and, as long as it may stay, leaves every reservation its place.
//!
//! That is asked at the *points*: the moments at which a reservation begins. Between two of them what runs only ends, so whoever fits at
//! its start and at every point that its stay covers fits all the time. Each point knows what is left of every node then, beside all
//! that runs and all that is reserved.
//!
//! Runs without a limit come after all others, in the order of their starts, at a time that nobody knows, as in
//! [`backfill`](crate::scheduler::backfill). A reservation that waits for one of them may begin at any moment: its point is covered by every
//! stay, and it is taken to come after every time that is known.
//!
//! What must hold: no point is ever left less than nothing, so no start moves a reservation that was made before it in the same pass. The next
//! pass makes all of them anew, in the order of the jobs: what ends early may bring a reservation forward into the place of a later one.
//! The first can never move back, by the argument of EASY; so the first starts, and then the second is the first.

use crate::ids::JobId;
use crate::scheduler::Scheduler;
use crate::scheduler::backfill::{Forecast, Run, left_beside, shared_beside};
use crate::scheduler::nodes::Nodes;
use crate::scheduler::pass::{Pass, Verdict};
use crate::scheduler::place::shared::meet;
use crate::scheduler::place::{Demand, Packing, Rooms, take};
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::BucketIx;
use crate::time::{Span, Timestamp};

/// What a pass keeps for a job that cannot start, under [`Discipline::Conservative`](crate::Discipline::Conservative).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The job.
    pub job: JobId,
    /// When it starts at the latest, if limits say so and nothing else comes before it.
    pub at: Option<Timestamp>,
}

/// All nodes as they will be when so many runs have ended, in the order of their ends.
pub(super) struct Future<'a> {
    nodes: &'a Nodes,
    now: Forecast<'a>,
    /// Those without an end come last.
    runs: Vec<Run<'a>>,
}

impl<'a> Future<'a> {
    /// Of runs in the order of their ends.
    pub(super) fn new(nodes: &'a Nodes, runs: impl Iterator<Item = Run<'a>>) -> Self {
        Self { nodes, now: Forecast::new(nodes), runs: runs.collect() }
    }

    /// How many runs have ended by a time.
    fn ended_by(&self, time: Timestamp) -> usize {
        self.runs.partition_point(|(end, _)| end.is_some_and(|end| end <= time))
    }

    /// How many runs have a known end.
    fn known(&self) -> usize {
        self.runs.partition_point(|(end, _)| end.is_some())
    }

    fn rooms(&self, ended: usize) -> Rooms {
        let mut forecast = self.now.clone();
        for (_, back) in &self.runs[..ended] {
            forecast.end(back, |_, _| ());
        }
        forecast.rooms()
    }
}

/// What is kept for a blocked job.
struct Reserved {
    /// `None`: at a time that nobody knows.
    at: Option<Timestamp>,
    /// `None`: for good.
    until: Option<Timestamp>,
    demand: Demand,
    packing: Packing,
}

impl Reserved {
    /// Whether it is there at a point.
    fn covers(&self, point: Option<Timestamp>) -> bool {
        match (self.at, point) {
            (Some(at), Some(point)) => at <= point && self.until.is_none_or(|until| point < until),
            (Some(_), None) => self.until.is_none(),
            (None, point) => point.is_none(),
        }
    }
}

/// A moment at which a reservation begins.
struct Point {
    at: Option<Timestamp>,
    /// Per node, what is left then.
    left: Rooms,
    /// Per node, the least of what is left now, at this point and at those before it.
    lasting: Rooms,
}

/// Nothing can be kept for a job.
pub(super) struct Never;

/// Where and when a job could start.
struct Found {
    at: Option<Timestamp>,
    packing: Packing,
    /// Per node, what is left then beside it.
    left: Rooms,
}

/// See the module.
pub(super) struct Agenda {
    heads: usize,
    reserved: Vec<Reserved>,
    /// Unknown times first, then by time.
    points: Vec<Point>,
}

impl Agenda {
    /// For so many blocked jobs.
    pub(super) const fn new(heads: usize) -> Self {
        Self { heads, reserved: Vec::new(), points: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.reserved.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.reserved.len() >= self.heads
    }

    /// Per node, what is left beside all reservations at the worst of their beginnings.
    pub(super) fn extra(&self) -> Option<Rooms> {
        let (first, others) = self.points.split_first()?;
        let mut extra = first.left.clone();
        for point in others {
            extra.lower(&point.left);
        }
        Some(extra)
    }

    /// Points that a stay from `from` on covers; they are the first ones.
    fn covered(&self, from: Timestamp, stay: Option<Span>) -> usize {
        self.points.partition_point(|point| match (point.at, stay) {
            (Some(at), Some(stay)) => at < from + stay,
            _ => true,
        })
    }

    /// The longest stay from now on that covers one point less than this one does, if there is one.
    fn longest(&self, now: Timestamp, stay: Option<Span>) -> Option<Span> {
        self.points[..self.covered(now, stay)].last()?.at.map(|at| at.since(now))
    }

    /// Where a job that fits into `packing` may start now, if it may; what it takes is then taken. Else how long it could stay at most to be
    /// asked again, if that would help.
    pub(super) fn admit(
        &mut self,
        demand: &Demand,
        stay: Option<Span>,
        packing: Packing,
        nodes: &Nodes,
        now: Timestamp,
    ) -> Result<Packing, Option<Span>> {
        let covered = self.covered(now, stay);
        let packing = match self.points[..covered].last() {
            None => packing,
            Some(last) => {
                let mut packing = nodes.pack(demand, &last.lasting).map_err(|_| last.at.map(|at| at.since(now)))?;
                if demand.has_parts {
                    nodes.settle_parts(&mut packing);
                }
                packing
            }
        };
        for point in &mut self.points[..covered] {
            take(&mut point.left, demand, &packing);
        }
        for (node, mut least) in left_beside(demand, &packing, nodes) {
            let mut gpus = shared_beside(demand, &packing, nodes, node);
            for point in &mut self.points {
                gpus = meet((least, &gpus), (point.left[node], point.left.shared.of(node)));
                least = least.min(point.left[node]);
                point.lasting.list[node] = least;
                point.lasting.shared.set(node, gpus.clone());
            }
        }
        Ok(packing)
    }

    /// Keeps room for a job at the earliest time; when that is, if it is known. `Err` if it could not start even after everything that runs
    /// has ended.
    pub(super) fn reserve(
        &mut self,
        demand: &Demand,
        stay: Option<Span>,
        future: &Future<'_>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Never> {
        let found = self.earliest(demand, stay, future, now).or_else(|| self.some_day(demand, future));
        let Found { at, packing, left } = found.ok_or(Never)?;
        let until = at.zip(stay).map(|(at, stay)| at + stay);
        let reserved = Reserved { at, until, demand: demand.clone(), packing };
        for point in self.points.iter_mut().filter(|point| reserved.covers(point.at)) {
            take(&mut point.left, demand, &reserved.packing);
        }
        let place = self.points.partition_point(|point| point.at <= at);
        self.points.insert(place, Point { at, left, lasting: Rooms::default() });
        self.reserved.push(reserved);
        let mut least = future.nodes.rooms().clone();
        for point in &mut self.points {
            least.lower(&point.left);
            point.lasting.clone_from(&least);
        }
        Ok(at)
    }

    /// The earliest known time at which a job fits, and goes on to fit as long as it may stay.
    ///
    /// Time is cut where reservations begin and end, and where a stay begins to cover a point: in between nothing but ends of runs
    /// changes what is left, so what fits after some of them fits after more, and the first is found by halving.
    fn earliest(&self, demand: &Demand, stay: Option<Span>, future: &Future<'_>, now: Timestamp) -> Option<Found> {
        let covering = |at: &Timestamp| stay.map(|stay| *at - stay + Span(1));
        let begins = || self.reserved.iter().filter_map(|reserved| reserved.at);
        let ends = self.reserved.iter().filter(|reserved| reserved.at.is_some()).filter_map(|reserved| reserved.until);
        let mut cuts: Vec<Timestamp> = begins().chain(ends).chain(begins().filter_map(|at| covering(&at))).collect();
        cuts.retain(|cut| *cut > now);
        cuts.push(now);
        cuts.sort_unstable();
        cuts.dedup();
        for (number, &from) in cuts.iter().enumerate() {
            let before = cuts.get(number + 1).map(|next| *next - Span(1));
            let floor = self.floor(from, stay);
            let rooms = |ended: usize| {
                let mut rooms = future.rooms(ended);
                for reserved in self.reserved.iter().filter(|reserved| reserved.covers(Some(from))) {
                    take(&mut rooms, &reserved.demand, &reserved.packing);
                }
                if let Some(floor) = &floor {
                    rooms.lower(floor);
                }
                rooms
            };
            // What should have ended by now is taken to end now.
            let first = if number == 0 { 0 } else { future.ended_by(from) };
            let last = before.map_or(future.known(), |before| future.ended_by(before));
            let Some((ended, packing)) = least(first, last, |ended| future.nodes.pack(demand, &rooms(ended)).ok()) else {
                continue;
            };
            let at = if ended > first { future.runs[ended - 1].0 } else { Some(from) };
            // Whoever ends at the same instant leaves room beside it as well. The floor is what others need later, not what is left now.
            let mut left = future.rooms(at.map_or(ended, |at| future.ended_by(at)));
            for reserved in self.reserved.iter().filter(|reserved| reserved.covers(at)) {
                take(&mut left, &reserved.demand, &reserved.packing);
            }
            take(&mut left, demand, &packing);
            return Some(Found { at, packing, left });
        }
        None
    }

    /// When runs without a limit have ended, as few as it takes.
    fn some_day(&self, demand: &Demand, future: &Future<'_>) -> Option<Found> {
        let unknown = self.points.partition_point(|point| point.at.is_none());
        let beside = |ended: usize| {
            let mut rooms = future.rooms(ended);
            for reserved in self.reserved.iter().filter(|reserved| reserved.at.is_some() && reserved.covers(None)) {
                take(&mut rooms, &reserved.demand, &reserved.packing);
            }
            rooms
        };
        let rooms = |ended: usize| {
            let mut rooms = beside(ended);
            self.points[..unknown].iter().for_each(|point| rooms.lower(&point.left));
            rooms
        };
        let (ended, packing) = least(future.known(), future.runs.len(), |ended| future.nodes.pack(demand, &rooms(ended)).ok())?;
        let mut left = beside(ended);
        for reserved in self.reserved.iter().filter(|reserved| reserved.at.is_none()) {
            take(&mut left, &reserved.demand, &reserved.packing);
        }
        take(&mut left, demand, &packing);
        Some(Found { at: None, packing, left })
    }

    /// What has to be left at later points, for a job that starts at a time; nothing if it covers none.
    fn floor(&self, from: Timestamp, stay: Option<Span>) -> Option<Rooms> {
        let covered = self.points[..self.covered(from, stay)].iter();
        let mut later = covered.filter(|point| point.at.is_none_or(|at| at > from)).map(|point| &point.left);
        let mut floor = later.next()?.clone();
        later.for_each(|left| floor.lower(left));
        Some(floor)
    }
}

/// The first number for which something is found, where it is found for all that follow as well.
fn least<T>(first: usize, last: usize, find: impl Fn(usize) -> Option<T>) -> Option<(usize, T)> {
    let mut found = (last, find(last)?);
    let mut from = first;
    while from < found.0 {
        let middle = from.midpoint(found.0);
        match find(middle) {
            Some(value) => found = (middle, value),
            None => from = middle + 1,
        }
    }
    Some(found)
}

impl Scheduler {
    /// What the last pass that was not left out kept for jobs that could not start, in the order of the jobs. Empty but under
    /// [`Discipline::Conservative`](crate::Discipline::Conservative).
    pub fn reservations(&self) -> &[Reservation] {
        &self.reservations
    }

    /// Whether, and where, a job can start now beside all reservations; if not, it gets one, if there may be more. `fits` is where it could
    /// start if there were none.
    pub(super) fn find_beside(
        &mut self,
        bucket: BucketIx,
        job: JobIx,
        fits: Option<Packing>,
        now: Timestamp,
        pass: &mut Pass,
    ) -> Verdict {
        let demand = &self.tree.bucket(bucket).demand;
        let stay = self.stay_of(job).span();
        let Some(agenda) = &mut pass.agenda else { return Verdict::NoRoom };
        let there_is_room = fits.is_some();
        let refused = match fits {
            Some(packing) => match agenda.admit(demand, stay, packing, &self.nodes, now) {
                Ok(packing) => return Verdict::Start(packing),
                Err(upto) => {
                    // Time alone may let it go.
                    pass.undecided = true;
                    Verdict::WouldDelay(upto)
                }
            },
            None => Verdict::NoRoom,
        };
        if agenda.is_full() || self.nodes.pack(demand, self.nodes.idle()).is_err() {
            return refused;
        }
        self.know_ends();
        let demand = &self.tree.bucket(bucket).demand;
        let future = Future::new(&self.nodes, self.runs(now));
        let Ok(at) = agenda.reserve(demand, stay, &future, now) else {
            // Those behind it in its bucket may be over in time. Where it fits now they are looked at, too: what is kept for one of them must not
            // hang on that.
            return if there_is_room { refused } else { Verdict::TooLong(agenda.longest(now, stay)) };
        };
        let total = demand.total;
        pass.kept.push((bucket, total));
        self.tree.reserve(bucket, &total);
        Verdict::Reserved { at, fits: there_is_room }
    }
}
