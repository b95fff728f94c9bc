//! Who is lined up: ordered before there is room, to begin in the line of a node as soon as a run there ends.
//!
//! A slot that becomes free waits for two commits before the next program begins, unless the order is there already. For short runs that is
//! most of the time, so they are ordered ahead ([`lines`](crate::scheduler::nodes::lines) says what is set aside for them).
//!
//! Who: after a pass, from the top of its order, those whom nothing keeps back but room, who ask for one task without a GPU on a node whose
//! line can take them, and whose kind is *short* there: of its last runs on the node, at least four, the mean is at most [`SHORT`]. The
//! first for whom one of these does not hold ends it. So nobody is lined up past a head that waits for more, and nobody at a gate.
//!
//! How many: as many as the line gets through in about [`SHORT`], because that is what somebody who comes later and ranks higher may have to
//! wait, and by how much shares are off.
//!
//! Taken back, by asking the executor, which alone knows who has begun: where the first of the order ranks above those who wait and waits for
//! room, where a line has made no progress for [`STALLED`], where the node takes no tasks any more, and before anybody's run is
//! ended to make room. Who is taken back is queued again as if he had not been placed.
//!
//! What must hold: [`Lineup::held`] has exactly those who start, are ahead, and have not been asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::amounts::{CpuMillis, MemoryBytes};
use crate::event::{Event, RunResult, Transition};
use crate::ids::{Name, RunId};
use crate::scheduler::Scheduler;
use crate::scheduler::nodes::lines::{Limits, LineBook, Pair};
use crate::scheduler::place::{Demand, Packing};
use crate::scheduler::runs::Active;
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::BucketIx;
use crate::state::{JobState, Line, Placement, Slot};
use crate::time::{Span, Timestamp};

/// Longest mean run of a kind that is lined up, and about how long a line takes to get through.
const SHORT: Span = Span::from_millis(50);
/// A line that waits for so long without an end is taken back.
const STALLED: Span = Span::from_millis(200);
/// Most runs that wait in a line.
const MOST: u64 = 256;
/// Runs that a mean is taken over, and how many it takes to have one.
const RECENT: usize = 8;
const ENOUGH: usize = 4;

/// How long the last runs of a kind on a node took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Pace {
    micros: [u32; RECENT],
    /// How many were noted; the next one goes to its remainder.
    noted: usize,
}

impl Pace {
    fn note(&mut self, took: Span) {
        self.micros[self.noted % RECENT] = u32::try_from(took.0).unwrap_or(u32::MAX);
        self.noted += 1;
        if self.noted == 2 * RECENT {
            self.noted = RECENT;
        }
    }

    /// The mean, if it is that of a short kind.
    fn short(&self) -> Option<Span> {
        let known = self.noted.min(RECENT);
        let sum: u64 = self.micros[..known].iter().map(|micros| u64::from(*micros)).sum();
        let mean = Span(sum.checked_div(known as u64)?.max(1));
        (known >= ENOUGH && mean <= SHORT).then_some(mean)
    }
}

/// Those lined up on a node who may not have begun.
#[derive(Clone, Debug)]
struct Waiting {
    /// By their order among all that hold resources.
    runs: BTreeSet<u64>,
    /// When a run of the line last ended, or somebody was first lined up.
    progress: Timestamp,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Lineup {
    /// The executor holds orders.
    pub(super) holding: bool,
    paces: BTreeMap<(BucketIx, u32), Pace>,
    held: BTreeMap<u32, Waiting>,
    /// Asked for, and not answered yet.
    asked: BTreeSet<u64>,
    /// To be asked for outside.
    withdrawn: Vec<RunId>,
}

impl Lineup {
    /// Nobody is lined up, and nobody can be.
    pub(super) fn is_idle(&self) -> bool {
        !self.holding && self.held.is_empty()
    }

    /// Somebody was lined up.
    pub(super) fn enter(&mut self, node: u32, order: u64, now: Timestamp) {
        let waiting = self.held.entry(node).or_insert_with(|| Waiting { runs: BTreeSet::new(), progress: now });
        waiting.runs.insert(order);
    }

    /// Somebody waits no more, whatever became of him.
    pub(super) fn leave(&mut self, node: u32, order: u64) {
        self.asked.remove(&order);
        if let Some(waiting) = self.held.get_mut(&node)
            && waiting.runs.remove(&order)
            && waiting.runs.is_empty()
        {
            self.held.remove(&node);
        }
    }

    /// A run of a node's line has ended.
    pub(super) fn progress(&mut self, node: u32, now: Timestamp) {
        if let Some(waiting) = self.held.get_mut(&node) {
            waiting.progress = waiting.progress.max(now);
        }
    }

    /// A kind has no jobs any more.
    pub(super) fn forget_kind(&mut self, bucket: BucketIx) {
        while let Some((&key, _)) = self.paces.range((bucket, 0)..=(bucket, u32::MAX)).next() {
            self.paces.remove(&key);
        }
    }

    /// How many are lined up on a node before somebody; `None` where he is not.
    pub(super) fn before(&self, node: u32, order: u64) -> Option<usize> {
        let runs = &self.held.get(&node)?.runs;
        runs.contains(&order).then(|| runs.range(..order).count())
    }

    /// Nodes have changed: what ran there says nothing of what runs there now.
    pub(super) fn forget_paces(&mut self) {
        self.paces.clear();
    }

    /// When a line has stalled, unless a run ends before.
    pub(super) fn next_wakeup(&self) -> Option<Timestamp> {
        self.held.values().map(|waiting| waiting.progress + STALLED).min()
    }

    /// Everybody who is lined up, by node, and whoever has been asked for.
    pub(super) fn all(&self) -> impl Iterator<Item = (Option<u32>, u64)> {
        let held = self.held.iter().flat_map(|(node, waiting)| waiting.runs.iter().map(|order| (Some(*node), *order)));
        held.chain(self.asked.iter().map(|order| (None, *order)))
    }

    /// The kinds of which paces are kept.
    pub(super) fn kinds(&self) -> impl Iterator<Item = BucketIx> {
        self.paces.keys().map(|(bucket, _)| *bucket)
    }
}

impl Scheduler {
    /// Says whether orders may be given that wait for others to end. Where they may not, nobody is lined up.
    pub fn set_holding(&mut self, holding: bool) {
        self.lineup.holding = holding;
    }

    /// What was said last; at first that they may not.
    pub const fn is_holding(&self) -> bool {
        self.lineup.holding
    }

    /// The runs that are to be taken back if they have not begun, since this was last asked.
    pub fn take_withdrawn(&mut self) -> Vec<RunId> {
        std::mem::take(&mut self.lineup.withdrawn)
    }

    /// The runs that were to be taken back and of which it is not known yet whether they have begun: to be asked for again where the
    /// first word may not have arrived.
    pub fn withdrawing(&self) -> impl Iterator<Item = RunId> {
        let active = self.lineup.asked.iter().filter_map(|order| self.active.get(*order));
        active.map(|active| &self.jobs[active.job]).map(|job| RunId { job: job.id, attempt: job.lifecycle.attempt })
    }

    /// Where a job that was lined up waits, behind how many, and about how long: `None` where it was not, or may have begun.
    pub(super) fn waits_in_line(&self, index: JobIx) -> Option<(Name, usize, Option<Span>)> {
        let job = &self.jobs[index];
        let node = self.active.get(job.order)?.held.parts.first()?.node;
        let before = self.lineup.before(node, job.order)?;
        let slots = self.slots(node as usize, &self.tree.bucket(job.bucket).demand).max(1);
        let pace = self.lineup.paces.get(&(job.bucket, node)).and_then(Pace::short);
        let wait = pace.map(|mean| Span(mean.0.saturating_mul(before as u64 + 1) / slots));
        Some((self.nodes.all()[node as usize].name.clone(), before, wait))
    }

    /// How many runs of a kind the line of a node may have in use at a time.
    fn slots(&self, node: usize, demand: &Demand) -> u64 {
        let largest = self.nodes.line(node).map_or([0; 2], LineBook::largest);
        let fits = |of: usize| largest[of].checked_div(demand.total[of]);
        let slots = [fits(0), fits(1)].into_iter().flatten().min().unwrap_or(MOST.into());
        u64::try_from(slots).unwrap_or(MOST)
    }

    /// The place in line of a job that starts now, with room for it: `None` where it begins outside of it.
    ///
    /// To be asked only where orders are held. Behind others in a line it would have to wait for them, so it goes there only if it is the next of those, and is no better.
    pub(super) fn place_in_line(&self, job: JobIx, packing: &Packing, now: Timestamp) -> Option<Line> {
        let JobState::Queued { since } = self.jobs[job].lifecycle.state else { return None };
        let demand = &self.tree.bucket(self.jobs[job].bucket).demand;
        let [share] = packing[..] else { return None };
        if demand.total[2] > 0 {
            return None;
        }
        let book = self.nodes.line(share.node);
        if book.is_some_and(LineBook::waits) {
            let last = self.last_in_line(share.node as u32)?;
            if self.jobs[last].bucket != self.jobs[job].bucket || self.goes_before(&self.jobs[job], &self.jobs[last], now) {
                return None;
            }
        }
        let set_aside = book.map_or([0; 2], LineBook::set_aside);
        let group = demand.groups.first()?;
        let count = u128::from(share.count);
        let limits = [set_aside[0] + u128::from(group.cpu) * count, set_aside[1] + u128::from(group.memory) * count];
        Some(line(limits, since, false))
    }

    /// Who was lined up last on a node, of those who may not have begun.
    fn last_in_line(&self, node: u32) -> Option<JobIx> {
        let order = self.lineup.held.get(&node)?.runs.last()?;
        self.active.get(*order).map(|active| active.job)
    }

    /// Lines jobs up until there are so many transitions; to be asked after a pass.
    pub(super) fn line_up(&mut self, now: Timestamp, limit: usize, made: &mut Vec<Transition>) {
        if self.lineup.held.is_empty() && !(self.lineup.holding && self.lineup.paces.values().any(|pace| pace.short().is_some()))
        {
            return;
        }
        let mut fronts = self.fronts(now);
        let mut without_room = None;
        let mut is_first = true;
        while made.len() < limit {
            let Some(mut front) = fronts.peek_mut() else { break };
            let unit = front.1;
            let Some((bucket, job)) = self.tree.first(unit) else {
                std::collections::binary_heap::PeekMut::pop(front);
                continue;
            };
            // Whoever is lined up changes what is left of limits, and leaves as little room as there was.
            if self.is_kept_back(bucket)
                || (without_room != Some(bucket) && self.nodes.find(&self.tree.bucket(bucket).demand).is_ok())
            {
                break;
            }
            without_room = Some(bucket);
            if std::mem::take(&mut is_first) {
                self.make_way(bucket, job, now);
            }
            let Some(placement) = self.place_ahead(bucket, job) else { break };
            made.extend(self.change(job, Event::Place { placement: Arc::new(placement) }, now));
            match self.tree.rank(unit, now) {
                Some(rank) => front.0 = rank,
                None => drop(std::collections::binary_heap::PeekMut::pop(front)),
            }
        }
    }

    /// Whether a limit keeps jobs of a kind from starting, or they would borrow.
    fn is_kept_back(&self, bucket: BucketIx) -> bool {
        let kind = self.tree.bucket(bucket);
        let total = &kind.demand.total;
        let limited = self.tree.is_limited(kind.queue);
        limited && (self.tree.would_borrow(bucket, total) || !self.tree.barriers(bucket, total).is_empty())
    }

    /// Takes back those who wait where the first of the order could go, and whom it ranks above. With whom it shares fairly it takes turns:
    /// that theirs came first was decided by what they had had, and that it is the first now says nothing of its rank.
    fn make_way(&mut self, bucket: BucketIx, first: JobIx, now: Timestamp) {
        let demand = &self.tree.bucket(bucket).demand;
        let is_compared = |active: &&Active| !self.tree.take_turns(bucket, self.jobs[active.job].bucket);
        let ranks_above = |active: &&Active| self.goes_before(&self.jobs[first], &self.jobs[active.job], now);
        let in_the_way = |active: &&Active| self.nodes.is_in_the_way(demand, &active.held);
        let mut found = Vec::new();
        for waiting in self.lineup.held.values() {
            let runs = || waiting.runs.iter().filter_map(|order| self.active.get(*order)).filter(is_compared);
            // Whoever was lined up last ranks lowest, so if the first is not above him he is above nobody.
            if runs().next_back().as_ref().is_some_and(ranks_above) {
                found.extend(runs().filter(in_the_way).filter(ranks_above).map(|active| active.job));
            }
        }
        self.withdraw(&found);
    }

    /// Where a job is lined up, if it may be.
    fn place_ahead(&self, bucket: BucketIx, job: JobIx) -> Option<Placement> {
        let JobState::Queued { since } = self.jobs[job].lifecycle.state else { return None };
        let demand = &self.tree.bucket(bucket).demand;
        let [group] = &demand.groups[..] else { return None };
        if !self.lineup.holding || demand.tasks != 1 || group.gpus > 0 {
            return None;
        }
        let mut paces = self.lineup.paces.range((bucket, 0)..=(bucket, u32::MAX));
        let (node, limits) = paces.find_map(|(&(_, node), pace)| self.takes_ahead(node as usize, demand, pace))?;
        let slot = Slot {
            group: group.index,
            replica: 0,
            node: self.nodes.all()[node].name.clone(),
            gpus: smallvec::SmallVec::new(),
            share: None,
        };
        Some(Placement { slots: vec![slot], line: Some(line(limits, since, true)) })
    }

    /// Whether the line of a node takes one job more of a kind, and the limits that it gets.
    fn takes_ahead(&self, node: usize, demand: &Demand, pace: &Pace) -> Option<(usize, Pair)> {
        let mean = pace.short()?;
        let book = self.nodes.line(node)?;
        let group = demand.groups.first()?;
        let room = self.nodes.rooms()[node];
        self.nodes.filters().get(group.filter).fit(node)?;
        let slots = self.slots(node, demand);
        let waiting = (slots.saturating_mul(SHORT.0)).div_ceil(mean.0).clamp(2, MOST);
        let (set_aside, joined) = (book.set_aside(), book.joined([group.cpu, group.memory])?);
        let grows_within = joined[0] - set_aside[0] <= room.cpu.into() && joined[1] - set_aside[1] <= room.memory.into();
        (room.open && grows_within && u64::from(book.runs()) < slots.saturating_add(waiting)).then_some((node, joined))
    }

    /// Takes back who is lined up where nothing moves, or nothing may begin any more.
    pub(super) fn review_lines(&mut self, now: Timestamp) {
        let mut found = Vec::new();
        let Self { lineup, nodes, active, .. } = self;
        for (&node, waiting) in &lineup.held {
            let stalled = waiting.progress + STALLED <= now;
            if stalled {
                // What ran so far says nothing of what runs now.
                lineup.paces.retain(|(_, of), _| *of != node);
            }
            if stalled || !nodes.idle()[node as usize].open {
                found.extend(waiting.runs.iter().filter_map(|order| active.get(*order)).map(|active| active.job));
            }
        }
        self.withdraw(&found);
    }

    /// Takes everybody back who is lined up; true where anybody is, or has been asked for and not answered.
    pub(super) fn withdraw_all(&mut self) -> bool {
        let orders = self.lineup.held.values().flat_map(|waiting| &waiting.runs);
        let found: Vec<JobIx> = orders.filter_map(|order| self.active.get(*order)).map(|active| active.job).collect();
        self.withdraw(&found);
        !self.lineup.asked.is_empty()
    }

    fn withdraw(&mut self, jobs: &[JobIx]) {
        for &index in jobs {
            let job = &self.jobs[index];
            let Some(node) = self.active.get(job.order).and_then(|active| active.held.parts.first()).map(|part| part.node) else {
                continue;
            };
            let run = RunId { job: job.id, attempt: job.lifecycle.attempt };
            self.lineup.leave(node, job.order);
            self.lineup.asked.insert(job.order);
            self.lineup.withdrawn.push(run);
        }
    }

    /// Somebody who was ordered into a line has begun, or will not: what he holds is used from then on.
    pub(super) fn end_wait(&mut self, index: JobIx, to: &JobState, now: Timestamp) {
        let job = &self.jobs[index];
        let (bucket, order, amounts) = (job.bucket, job.order, self.tree.bucket(job.bucket).demand.total);
        let Some(active) = self.active.get(order) else { return };
        let Some(node) = active.held.parts.first().map(|part| part.node) else { return };
        let begun =
            if let JobState::Running { since, .. } = to { (*since).clamp(active.since, now.max(active.since)) } else { now };
        self.lineup.leave(node, order);
        self.active.set_since(order, begun);
        self.tree.begin(bucket, &amounts, now.since(begun), now);
    }

    /// Remembers how long a run took that ended by itself.
    pub(super) fn note_pace(&mut self, index: JobIx, event: &Event) {
        let job = &self.jobs[index];
        let (Event::Ended { at, result, .. }, JobState::Running { since, .. }) = (event, &job.lifecycle.state) else { return };
        let Some(active) = self.active.get(job.order) else { return };
        if !matches!(result, RunResult::Lost { .. })
            && let [part] = active.held.parts[..]
        {
            self.lineup.paces.entry((job.bucket, part.node)).or_default().note(at.since(*since));
        }
    }
}

fn line(limits: Pair, since: Timestamp, ahead: bool) -> Line {
    let [cpu, memory]: Limits = limits.map(|limit| u64::try_from(limit).unwrap_or(u64::MAX));
    Line { cpu: CpuMillis(cpu), memory: MemoryBytes(memory), since, ahead }
}

/// Which line of an executor is that of a node: the same in every version, because runs outlive daemons.
pub fn line_of(node: &Name) -> u64 {
    xxhash_rust::xxh3::xxh3_64(node.as_str().as_bytes())
}
