//! The reservation of the blocked head, and who may start beside it (EASY backfill).
//!
//! The rule. Runs end, for this purpose, when their time limit and grace allow at the latest; runs without a limit come after all others,
//! in the order in which they started, at a time that nobody knows. Let T be the first such end after which the head fits. The head is
//! placed on what is free then; what is left besides is the *extra*. Another job may start now if it fits now and either
//! - it ends by T by its own limit and grace, T being known; or
//! - it fits into the extra as well. What it takes is taken from the extra.
//!
//! Why the head cannot starve. A start by the first way is over by T. A start by the second leaves room for the head at T. So in both
//! cases the head still fits once the runs that T was worked out from have ended: T never moves away, and there are only finitely many
//! such runs. Where T is unknown the set of runs without a limit that the head waits for can only shrink, because later runs come later
//! in the order and must fit the extra; when it is empty T is known. (T does shift by the time between placing a run and its
//! tasks' start, and jobs of several groups inherit the roughness of their packing.)
//!
//! T is found by letting runs end one after the other ([`Forecast`]) while counting for how many tasks of each group there is room
//! ([`Tally`]): a step touches the nodes of one run. For a job of one group the count decides; for others it says where to begin to try.

use smallvec::SmallVec;

use crate::scheduler::misfits::Misfits;
use crate::scheduler::nodes::lines::{Pair, least};
use crate::scheduler::nodes::{Nodes, Part};
use crate::scheduler::place::field::{Field, Search};
use crate::scheduler::place::shared::{SharedGpu, SharedGpus, holds, less_part, meet};
use crate::scheduler::place::{Demand, Group, Lanes, Mask, Packing, Room, Rooms, pack, take};
use crate::scheduler::runs::Back;
use crate::time::{Span, Timestamp};

/// When the head can start, and what is left beside it.
pub(super) struct Shadow {
    /// `None`: when runs without a time limit end.
    pub(super) at: Option<Timestamp>,
    /// Per node, what is left at that time beside the head.
    extra: Rooms,
    /// Per node, what is free now and stays free beside the head.
    lasting: Field,
    /// Of what is lasting; that only gets less.
    misfits: Misfits,
}

/// A run as the reservation sees it: its latest end and what it has.
pub(super) type Run<'a> = (Option<Timestamp>, Back<'a>);

/// What is left of a node; less than nothing where it is overcommitted.
#[derive(Clone, Copy)]
struct Left {
    cpu: i128,
    memory: i128,
    gpus: Lanes,
}

/// All nodes as they will be when some runs have ended.
#[derive(Clone)]
pub(super) struct Forecast<'a> {
    nodes: &'a Nodes,
    left: Vec<Left>,
    /// What the runs of a line that have not ended ask for, of those nodes where one has.
    lines: SmallVec<[(usize, Pair); 1]>,
    /// What is taken of GPUs that are shared, also on nodes that offer nothing now.
    shared: SharedGpus,
}

impl<'a> Forecast<'a> {
    /// Now.
    pub(super) fn new(nodes: &'a Nodes) -> Self {
        let left = |has: u64, used: u128| i128::from(has) - i128::try_from(used).unwrap_or(i128::MAX);
        let all = nodes.all().iter().map(|node| Left {
            cpu: left(node.cpu.0, node.cpu_used),
            memory: left(node.memory.0, node.memory_used),
            gpus: node.free,
        });
        let mut shared = SharedGpus::default();
        if nodes.has_sharers() {
            (0..nodes.all().len()).for_each(|node| shared.set(node, nodes.shared_gpus(node)));
        }
        Self { nodes, left: all.collect(), lines: SmallVec::new(), shared }
    }

    /// A run of the line of a node has ended. While those that are left ask for more than the line may have in use, that leaves no room.
    /// The largest limits are taken to stay: whatever they really are, there is no less room.
    fn end_in_line(&mut self, part: &Part) {
        let node = part.node as usize;
        let Some(line) = self.nodes.line(node) else { return };
        let at = self.lines.iter().position(|(of, _)| *of == node).unwrap_or_else(|| {
            self.lines.push((node, line.asked()));
            self.lines.len() - 1
        });
        let (largest, asked) = (line.largest(), self.lines[at].1);
        let rest = [asked[0].saturating_sub(part.cpu.into()), asked[1].saturating_sub(part.memory.into())];
        let (before, after) = (least(largest, asked), least(largest, rest));
        self.lines[at].1 = rest;
        let left = &mut self.left[node];
        left.cpu += i128::try_from(before[0] - after[0]).unwrap_or(i128::MAX);
        left.memory += i128::try_from(before[1] - after[1]).unwrap_or(i128::MAX);
    }

    /// A run has ended: GPUs go back to the node that lists them now. Says which nodes have more because of that.
    pub(super) fn end(&mut self, back: &Back<'_>, mut touched: impl FnMut(&Self, usize)) {
        let in_line = matches!(back, Back::All(held) if held.line.is_some());
        for part in back.parts() {
            if in_line {
                self.end_in_line(part);
                continue;
            }
            let left = &mut self.left[part.node as usize];
            left.cpu += i128::from(part.cpu);
            left.memory += i128::from(part.memory);
        }
        for device in back.devices().iter().map(|&device| self.nodes.device(device)).filter(|device| device.is_offered()) {
            self.left[device.node].gpus.put(device.lane);
        }
        let of_devices = back.devices().iter().map(|&device| self.nodes.device(device).node);
        let mut last = None;
        for node in back.parts().iter().map(|part| part.node as usize).chain(of_devices) {
            if last.replace(node) != Some(node) {
                touched(self, node);
            }
        }
        for &(index, share) in back.shares() {
            let device = self.nodes.device(index);
            let is_whole = device.config.kind.replica().is_some();
            if device.is_offered() && (is_whole || self.shared.give_back(device.node, index, share)) {
                self.left[device.node].gpus.put(device.lane);
            }
            touched(self, device.node);
        }
    }

    fn room(&self, node: usize) -> Room {
        let Left { cpu, memory, gpus } = self.left[node];
        self.nodes.room(node, cpu, memory, gpus)
    }

    /// What all nodes offer then.
    pub(super) fn rooms(&self) -> Rooms {
        let mut rooms = Rooms::new((0..self.left.len()).map(|node| self.room(node)).collect());
        for (node, gpus) in self.shared.iter().filter(|(node, _)| self.is_usable(*node)) {
            rooms.shared.set(node, gpus.to_vec());
        }
        rooms
    }

    fn is_usable(&self, node: usize) -> bool {
        let Left { cpu, memory, .. } = self.left[node];
        cpu >= 0 && memory >= 0 && self.nodes.idle()[node].open
    }

    fn shared(&self, node: usize) -> &[SharedGpu] {
        if self.is_usable(node) { self.shared.of(node) } else { &[] }
    }

    /// How many tasks of a group a node has room for then.
    pub(super) fn holds(&self, node: usize, group: &Group, mask: Mask) -> u32 {
        holds(&self.room(node), self.shared(node), self.nodes.filters(), node, group, mask)
    }
}

/// How many tasks of a group there is room for, kept while runs end.
struct Tally<'a> {
    group: &'a Group,
    fits: &'a [Option<Mask>],
    counts: Vec<u32>,
    sum: u64,
}

impl<'a> Tally<'a> {
    fn new(group: &'a Group, forecast: &Forecast<'a>) -> Self {
        let fits = forecast.nodes.filters().get(group.filter).fits();
        let mut tally = Self { group, fits, counts: vec![0; forecast.left.len()], sum: 0 };
        (0..forecast.left.len()).for_each(|node| tally.count(forecast, node));
        tally
    }

    fn count(&mut self, forecast: &Forecast<'_>, node: usize) {
        let Some(mask) = self.fits[node] else { return };
        let count = if self.group.part.is_none() {
            forecast.room(node).holds(self.group, mask)
        } else {
            forecast.holds(node, self.group, mask)
        };
        self.sum = self.sum + u64::from(count) - u64::from(std::mem::replace(&mut self.counts[node], count));
    }

    /// Tasks of the group that could start if it were alone.
    fn possible(&self) -> u64 {
        self.sum.min(self.group.replicas.into())
    }
}

/// The state at which a job fits: after how long, what all nodes offer then, and where it goes.
type Fit = (Option<Timestamp>, Rooms, Packing);

/// After which of the runs, in the order of their ends, a job fits. Whoever ends at the same instant leaves room beside it as well.
fn first_fit<'a, I: Iterator<Item = Run<'a>>>(demand: &'a Demand, nodes: &'a Nodes, all: impl Fn() -> I) -> Option<Fit> {
    let mut runs = all();
    let mut forecast = Forecast::new(nodes);
    let mut tallies: SmallVec<[Tally<'_>; 1]> = demand.groups.iter().map(|group| Tally::new(group, &forecast)).collect();
    let mut at = None;
    // Below this each group alone has too little: no packing need be tried. For one group that is all there is to know.
    while tallies.iter().map(Tally::possible).sum::<u64>() < demand.least {
        let (end, back) = runs.next()?;
        at = end;
        forecast.end(&back, |forecast, node| tallies.iter_mut().for_each(|tally| tally.count(forecast, node)));
    }
    let rooms = forecast.rooms();
    if let Ok(packing) = nodes.pack(demand, &rooms) {
        let together = at.map(|at| runs.take_while(move |(end, _)| *end == Some(at)));
        together.into_iter().flatten().for_each(|(_, back)| forecast.end(&back, |_, _| ()));
        return Some((at, forecast.rooms(), packing));
    }
    let (at, rooms, packing) = search(demand, forecast, runs)?;
    let Some(until) = at else { return Some((at, rooms, packing)) };
    let mut forecast = Forecast::new(nodes);
    let over = all().take_while(|(end, _)| end.is_some_and(|end| end <= until));
    over.for_each(|(_, back)| forecast.end(&back, |_, _| ()));
    Some((at, forecast.rooms(), packing))
}

/// Ever larger steps, then halving: what fits after some runs fits after more of them.
fn search<'a>(demand: &Demand, mut forecast: Forecast<'_>, mut runs: impl Iterator<Item = Run<'a>>) -> Option<Fit> {
    let nodes = forecast.nodes;
    let fits = |forecast: &Forecast<'_>| {
        let rooms = forecast.rooms();
        nodes.pack(demand, &rooms).ok().map(|packing| (rooms, packing))
    };
    let mut step = 1;
    loop {
        let mut ahead: Vec<Run<'_>> = runs.by_ref().take(step).collect();
        let mut after = forecast.clone();
        for (_, back) in &ahead {
            after.end(back, |_, _| ());
        }
        let Some((mut rooms, mut packing)) = fits(&after) else {
            if ahead.len() < step {
                return None;
            }
            (forecast, step) = (after, step * 2);
            continue;
        };
        while ahead.len() > 1 {
            let second = ahead.split_off(ahead.len() / 2);
            let mut middle = forecast.clone();
            for (_, back) in &ahead {
                middle.end(back, |_, _| ());
            }
            if let Some(found) = fits(&middle) {
                (rooms, packing) = found;
            } else {
                (forecast, ahead) = (middle, second);
            }
        }
        return Some((ahead.first().and_then(|(end, _)| *end), rooms, packing));
    }
}

impl Shadow {
    /// Works out T from runs in the order of their ends. `None` if the job would not fit even after all of them.
    pub(super) fn new<'a, I: Iterator<Item = Run<'a>>>(
        demand: &'a Demand,
        nodes: &'a Nodes,
        runs: impl Fn() -> I,
    ) -> Option<Self> {
        let (at, mut extra, packing) = first_fit(demand, nodes, runs)?;
        take(&mut extra, demand, &packing);
        let mut lasting = Rooms::new(extra.iter().zip(nodes.rooms().iter()).map(|(extra, room)| extra.min(*room)).collect());
        for (node, gpus) in extra.shared.iter() {
            let now = nodes.rooms();
            lasting.shared.set(node, meet((extra[node], gpus), (now[node], now.shared.of(node))));
        }
        Some(Self { at, extra, lasting: Field::new(lasting), misfits: Misfits::new() })
    }

    /// Per node, what is left beside the head when it can start.
    pub(super) const fn extra(&self) -> &Rooms {
        &self.extra
    }

    /// Where a job that fits into `packing` may start without delaying the head, if it may; what it takes is then taken.
    pub(super) fn admit(
        &mut self,
        demand: &Demand,
        stay: Option<Span>,
        packing: Packing,
        nodes: &Nodes,
        now: Timestamp,
    ) -> Option<Packing> {
        let over_in_time = self.at.zip(stay).is_some_and(|(at, stay)| now + stay <= at);
        let packing = if over_in_time {
            packing
        } else {
            let lasting = &mut self.lasting;
            let find = || pack(demand, &mut Search { field: lasting, filters: nodes.filters() }).ok();
            let mut packing = self.misfits.unless_known(demand, find)?;
            if demand.has_parts {
                nodes.settle_parts(&mut packing);
            }
            take(&mut self.extra, demand, &packing);
            packing
        };
        for (node, left) in left_beside(demand, &packing, nodes) {
            let extra = self.extra[node];
            self.lasting.set(node, extra.min(left));
            if demand.has_parts || nodes.has_sharers() {
                let gpus = shared_beside(demand, &packing, nodes, node);
                self.lasting.set_shared(node, meet((extra, self.extra.shared.of(node)), (left, &gpus)));
            }
        }
        Some(packing)
    }
}

/// What the nodes of a packing offer now beside it.
pub(super) fn left_beside(demand: &Demand, packing: &Packing, nodes: &Nodes) -> SmallVec<[(usize, Room); 2]> {
    let mut all: SmallVec<[(usize, Room); 2]> = SmallVec::new();
    for share in packing {
        let at = all.iter().position(|(node, _)| *node == share.node).unwrap_or_else(|| {
            all.push((share.node, nodes.rooms()[share.node]));
            all.len() - 1
        });
        let left = &mut all[at].1;
        *left = left.less(&demand.groups[share.group], share.count, share.gpus);
    }
    all
}

/// What is taken of the shared GPUs of a node with a packing that starts now.
pub(super) fn shared_beside(demand: &Demand, packing: &Packing, nodes: &Nodes, node: usize) -> Vec<SharedGpu> {
    let rooms = nodes.rooms();
    let mut gpus = rooms.shared.of(node).to_vec();
    for share in packing.iter().filter(|share| share.node == node) {
        less_part(rooms[node], &mut gpus, &demand.groups[share.group], share);
    }
    gpus
}
