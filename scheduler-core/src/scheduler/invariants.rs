//! The books, audited: everything that is kept beside the lifecycles is worked out from them again and compared.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::amounts::{GPU_MILLIS, GpuShare, Request};
use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::nodes::lines::LineBook;
use crate::scheduler::nodes::{Device, DeviceIx, Held, Sharer};
use crate::scheduler::place::filter::FilterIx;
use crate::scheduler::plan::latest_end;
use crate::scheduler::runs::Active;
use crate::scheduler::table::{JobIx, PolicyIx, ShapeIx};
use crate::scheduler::tree::BucketIx;
use crate::scheduler::{Scheduler, is_ahead};
use crate::state::{JobState, Placement, StateKind, WaitFor};

/// A broken invariant: a fault of the core.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct Violation {
    /// Which books are wrong.
    pub what: &'static str,
    /// What was found.
    pub detail: String,
}

fn ensure(holds: bool, what: &'static str, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { what, detail: detail() }) }
}

/// Those who share a GPU are booked, ask together for no more than it has, and nobody has all of it besides.
fn check_sharers(device: &Device, mut sharers: Vec<Sharer>) -> Result<(), Violation> {
    let mut booked = device.sharers.clone();
    sharers.sort_unstable();
    booked.sort_unstable();
    let uuid = &device.config.uuid;
    ensure(booked == sharers, "sharers of a GPU", || format!("{uuid}: {booked:?}, not {sharers:?}"))?;
    ensure(booked.is_empty() || device.owner.is_none(), "GPU whole and shared", || uuid.to_string())?;
    let alone = booked.len() <= 1 || device.config.kind.replica().is_none();
    ensure(alone, "part of a GPU promised twice", || format!("{uuid}: {booked:?}"))?;
    let (millis, memory) = device.shared();
    ensure(millis <= GPU_MILLIS, "GPU promised beyond 1000 thousandths", || format!("{uuid}: {millis}"))?;
    let fits = memory <= device.config.memory.0;
    ensure(fits || device.over || !device.configured, "GPU memory promised beyond capacity", || format!("{uuid}: {memory}"))
}

impl Scheduler {
    /// Compares all books with the lifecycles of the jobs. Takes time and memory in proportion to the jobs: for tests and simulators.
    ///
    /// # Errors
    /// The first difference found.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        self.check_jobs()?;
        self.check_queues()?;
        self.check_resources()?;
        self.check_lineup()?;
        self.check_interned()
    }

    /// Index, counts, timers and the list of active jobs.
    fn check_jobs(&self) -> Result<(), Violation> {
        let mut counts = [0; 5];
        let mut timers = 0;
        let mut active = 0;
        for (index, job) in self.jobs.iter() {
            let state = &job.lifecycle.state;
            ensure(self.jobs.find(job.id) == Some(index), "index by id", || format!("{} is not found", job.id))?;
            ensure(state.kind() != StateKind::Finished, "finished job kept", || job.id.to_string())?;
            if let Some(count) = counts.get_mut(state.kind() as usize) {
                *count += 1;
            }
            let policy = self.policies.get(job.policy);
            let due = match state {
                JobState::Waiting { on: WaitFor::NotBefore(at) } => Some(*at),
                JobState::Running { since, .. } => policy.time_limit.map(|limit| *since + limit),
                _ => None,
            };
            timers += usize::from(due.is_some());
            let timer = self.timers.get_priority(&index).copied();
            ensure(timer == due.map(|due| Reverse((due, job.seq))), "timers", || format!("{}: {timer:?}, not {due:?}", job.id))?;
            let holds = state.placement().is_some();
            active += usize::from(holds);
            let listed = self.active.get(job.order).is_some_and(|active| active.job == index);
            ensure(holds == listed, "active jobs", || format!("{}: holds {holds}, listed {listed}", job.id))?;
        }
        ensure(self.jobs.indexed() == self.jobs.len(), "index by id", || format!("{} entries", self.jobs.indexed()))?;
        ensure(self.counts[..5] == counts, "counts", || format!("{:?}, not {counts:?}", self.counts))?;
        ensure(self.timers.len() == timers, "timers", || format!("{}, not {timers}", self.timers.len()))?;
        ensure(self.active.len() == active, "active jobs", || format!("{}, not {active}", self.active.len()))?;
        let end = |active: &Active| latest_end(&self.jobs[active.job], &self.policies);
        ensure(self.active.is_consistent(end), "order of ends", || "a run stands under another end than its own".to_owned())
    }

    /// Heaps hold exactly the queued jobs, under the right keys.
    fn check_queues(&self) -> Result<(), Violation> {
        ensure(self.tree.is_consistent(), "queue tree", || "a heap differs from the level below it".to_owned())?;
        let mut queued = 0;
        for (index, job) in self.jobs.iter() {
            let Some(key) = self.key_of(index) else { continue };
            queued += 1;
            let there = self.tree.has(job.bucket, key, index, self.stay_of(index));
            ensure(there, "queue", || format!("{} is not there under {key:?}", job.id))?;
        }
        let held: usize = self.tree.buckets().map(|(_, bucket)| bucket.len()).sum();
        ensure(held == queued, "queue", || format!("{held} entries for {queued} queued jobs"))?;
        let rooms = self.nodes.rooms();
        let mut kinds = self.tree.buckets().map(|(_, bucket)| bucket).filter(|bucket| bucket.len() > 0);
        let unlimited = |queue| !self.tree.is_limited(queue);
        let overlooked =
            self.exhausted && kinds.any(|bucket| unlimited(bucket.queue) && self.nodes.pack(&bucket.demand, rooms).is_ok());
        ensure(!overlooked, "exhausted", || "there is room for a queued job".to_owned())?;
        let mut counts = vec![[0; 5]; self.tree.queues().len()];
        for (_, job) in self.jobs.iter() {
            let queue = crate::slab::Index::position(self.tree.bucket(job.bucket).queue);
            if let Some(count) = counts[queue].get_mut(job.lifecycle.state.kind() as usize) {
                *count += 1;
            }
        }
        let same = self.tree.queues().iter().zip(&counts).all(|(queue, counts)| queue.counts == *counts);
        ensure(same, "counts of queues", || format!("not {counts:?}"))
    }

    /// What is taken on each node is what the jobs on it asked for, no more than there is, and each GPU has the owner that says so.
    fn check_resources(&self) -> Result<(), Violation> {
        let mut used: HashMap<&Name, (u128, u128, u32), Build> = HashMap::default();
        let mut lines: HashMap<&Name, LineBook, Build> = HashMap::default();
        let mut owners: HashMap<&Name, JobIx, Build> = HashMap::default();
        let mut sharers: HashMap<&Name, Vec<Sharer>, Build> = HashMap::default();
        for (index, job) in self.jobs.iter() {
            let Some(placement) = job.lifecycle.state.placement() else { continue };
            let shape = self.shape_of(job);
            let tasks = placement.slots.len() as u64;
            ensure((shape.least_tasks()..=shape.task_count()).contains(&tasks), "gang", || {
                format!("{}: {tasks} of {} tasks", job.id, shape.task_count())
            })?;
            let line = placement.line.filter(|_| self.active.get(job.order).is_some_and(|active| active.held.line.is_some()));
            for slot in &placement.slots {
                let request = &shape.tasks[usize::from(slot.group)].request;
                let sums = used.entry(&slot.node).or_default();
                sums.2 += 1;
                if line.is_none() {
                    sums.0 += u128::from(request.cpu.0);
                    sums.1 += u128::from(request.memory.0);
                }
                let gpus = slot.gpus.len();
                ensure(gpus == request.gpus as usize, "GPUs of a task", || format!("{}: {gpus} of {}", job.id, request.gpus))?;
                for uuid in &slot.gpus {
                    if let Some(GpuShare { millis, memory }) = slot.share {
                        sharers.entry(uuid).or_default().push(Sharer { job: index, millis, memory: memory.0 });
                        continue;
                    }
                    let other = owners.insert(uuid, index);
                    ensure(other.is_none(), "GPU promised twice", || format!("{uuid}, one is {}", job.id))?;
                }
            }
            if let (Some(line), Some(slot)) = (line, placement.slots.first()) {
                let asks = |of: fn(&Request) -> u64| {
                    placement.slots.iter().map(|slot| of(&shape.tasks[usize::from(slot.group)].request)).sum::<u64>()
                };
                let (cpu, memory) = (asks(|request| request.cpu.0), asks(|request| request.memory.0));
                ensure(cpu <= line.cpu.0 && memory <= line.memory.0, "limits of a line", || format!("{}: {line:?}", job.id))?;
                lines.entry(&slot.node).or_default().enter([cpu, memory], [line.cpu.0, line.memory.0]);
            }
            let held = self.active.get(job.order).map(|active| &active.held);
            let same = held.is_some_and(|held| self.is_held(held, placement));
            ensure(same, "what a job holds", || format!("{}: {held:?}", job.id))?;
        }
        let there = || self.nodes.all().iter().enumerate().filter(|(at, _)| !self.nodes.is_vacant(*at)).map(|(_, node)| node);
        for node in there() {
            let mut sums = used.remove(&node.name).unwrap_or_default();
            let line = lines.remove(&node.name);
            ensure(node.line.as_deref() == line.as_ref(), "line of a node", || {
                format!("{}: {:?}, not {line:?}", node.name, node.line)
            })?;
            let [cpu, memory] = line.map_or([0; 2], |line| line.set_aside());
            sums = (sums.0 + cpu, sums.1 + memory, sums.2);
            let booked = (node.cpu_used, node.memory_used, node.tasks);
            ensure(booked == sums, "node", || format!("{}: {booked:?} booked, {sums:?} asked", node.name))?;
            let fits = sums.0 <= u128::from(node.cpu.0) && sums.1 <= u128::from(node.memory.0);
            ensure(fits != node.over, "node beyond capacity", || format!("{}: {sums:?}", node.name))?;
        }
        ensure(used.is_empty(), "node", || format!("{:?} has tasks and is not there", used.keys()))?;
        for device in self.nodes.devices() {
            let owner = owners.remove(&device.config.uuid);
            ensure(device.owner == owner, "owner of a GPU", || device.config.uuid.to_string())?;
            check_sharers(device, sharers.remove(&device.config.uuid).unwrap_or_default())?;
        }
        ensure(sharers.is_empty(), "sharers of a GPU", || format!("{:?} are not there", sharers.keys()))?;
        ensure(owners.is_empty(), "owner of a GPU", || format!("{:?} are not there", owners.keys()))?;
        ensure(self.nodes.is_current(), "offers of nodes", || "an offer, an order or a filter differs from the books".to_owned())
    }

    /// Exactly those are listed as lined up who are ordered ahead and have not been heard of, each on his node; and paces are kept of kinds that
    /// there are.
    fn check_lineup(&self) -> Result<(), Violation> {
        let listed: Vec<_> = self.lineup.all().collect();
        for &(node, order) in &listed {
            let active = self.active.get(order).filter(|active| is_ahead(&self.jobs[active.job].lifecycle.state));
            let at = active.and_then(|active| active.held.parts.first()).map(|part| part.node);
            let right = at.is_some() && node.is_none_or(|node| at == Some(node));
            ensure(right, "lined up", || format!("run {order} is listed on node {node:?} and is on {at:?}"))?;
        }
        let ahead = self.jobs.iter().filter(|(_, job)| is_ahead(&job.lifecycle.state)).count();
        ensure(ahead == listed.len(), "lined up", || format!("{} are listed of {ahead}", listed.len()))?;
        let kinds = self.lineup.kinds().all(|bucket| self.tree.buckets().any(|(index, _)| index == bucket));
        ensure(kinds, "paces", || "one is kept of a kind that is gone".to_owned())
    }

    /// Whether what a job is said to hold is its placement.
    fn is_held(&self, held: &Held, placement: &Placement) -> bool {
        let parts = held.parts.iter().flat_map(|part| (0..part.tasks).map(|_| &self.nodes.all()[part.node as usize].name));
        let uuid = |device: DeviceIx| &self.nodes.device(device).config.uuid;
        let devices = held.devices.iter().map(|&device| uuid(device));
        let shares = held.shares().iter().map(|(device, share)| (uuid(*device), *share));
        let whole = placement.slots.iter().filter(|slot| slot.share.is_none());
        let shared = placement.slots.iter().filter_map(|slot| Some((slot.gpus.first()?, slot.share?)));
        parts.eq(placement.slots.iter().map(|slot| &slot.node))
            && devices.eq(whole.flat_map(|slot| &slot.gpus))
            && shares.eq(shared)
    }

    /// References to shapes and policies are counted right, and the last one frees.
    fn check_interned(&self) -> Result<(), Violation> {
        let mut buckets: HashMap<BucketIx, u32, Build> = HashMap::default();
        let mut policies: HashMap<PolicyIx, u32, Build> = HashMap::default();
        for (_, job) in self.jobs.iter() {
            *buckets.entry(job.bucket).or_default() += 1;
            *policies.entry(job.policy).or_default() += 1;
        }
        let mut shapes: HashMap<ShapeIx, u32, Build> = HashMap::default();
        for (index, bucket) in self.tree.buckets() {
            let jobs = buckets.get(&index).copied().unwrap_or_default();
            ensure(bucket.refs() == jobs && jobs > 0, "references to a bucket", || format!("{}, {jobs} jobs", bucket.refs()))?;
            *shapes.entry(bucket.shape).or_default() += 1;
        }
        for (index, refs) in self.shapes.refs() {
            let buckets = shapes.get(&index).copied().unwrap_or_default();
            ensure(refs == buckets && refs > 0, "references to a shape", || format!("{refs}, {buckets} buckets"))?;
        }
        let mut filters: HashMap<FilterIx, u32, Build> = HashMap::default();
        for group in self.tree.buckets().flat_map(|(_, bucket)| &bucket.demand.groups) {
            *filters.entry(group.filter).or_default() += 1;
        }
        for (index, refs) in self.nodes.filters().refs() {
            let groups = filters.remove(&index).unwrap_or_default();
            ensure(refs == groups, "references to a filter", || format!("{refs}, {groups} groups"))?;
        }
        ensure(filters.is_empty(), "references to a filter", || "a group has one that is gone".to_owned())?;
        for (index, refs) in self.policies.refs() {
            let jobs = policies.get(&index).copied().unwrap_or_default();
            ensure(refs == jobs && refs > 0, "references to a policy", || format!("{refs}, {jobs} jobs"))?;
        }
        let consistent = self.shapes.is_consistent() && self.policies.is_consistent();
        ensure(consistent, "tables of shared values", || "table and values differ".to_owned())
    }
}
