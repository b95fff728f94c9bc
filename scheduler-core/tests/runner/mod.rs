//! An executor by its contract: lines as they are promised, and a memory of what ever began.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scheduler_core::JobView;
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use scheduler_core::state::{JobState, Slot};
use scheduler_core::time::Timestamp;

/// What a run asks for.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) run: RunId,
    pub(crate) node: String,
    pub(crate) asks: (u64, u64),
    /// Of its line.
    pub(crate) limits: Option<(u64, u64)>,
}

impl Order {
    /// As a dispatcher makes it: while the run is to be started.
    pub(crate) fn of(view: &JobView<'_>, run: RunId) -> Option<Self> {
        let JobState::Starting { placement } = &view.lifecycle.state else { return None };
        if view.lifecycle.attempt != run.attempt {
            return None;
        }
        let ask = |slot: &Slot| view.shape.tasks[usize::from(slot.group)].request;
        let asks = placement.slots.iter().map(ask).fold((0, 0), |sum, ask| (sum.0 + ask.cpu.0, sum.1 + ask.memory.0));
        let limits = placement.line.map(|line| (line.cpu.0, line.memory.0));
        // Several nodes stand as several names; such a run is in no line.
        let node = placement.slots.iter().map(|slot| slot.node.as_str()).collect::<BTreeSet<_>>();
        Some(Self { run, node: node.into_iter().collect::<Vec<_>>().join("+"), asks, limits })
    }
}

pub(crate) enum Report {
    Started(RunId, Timestamp),
    Ended(RunId, Option<Timestamp>, RunResult, Timestamp),
    NotBegun(RunId, Timestamp),
}

/// An executor by its contract.
#[derive(Default)]
pub(crate) struct Runner {
    pub(crate) lines: BTreeMap<String, VecDeque<Order>>,
    pub(crate) running: BTreeMap<RunId, (Order, Timestamp)>,
    /// Known, and not to be begun any more.
    pub(crate) over: BTreeSet<RunId>,
    /// Every run that ever began.
    pub(crate) begun: BTreeSet<RunId>,
    pub(crate) reports: VecDeque<Report>,
}

impl Runner {
    pub(crate) fn knows(&self, run: RunId) -> bool {
        self.over.contains(&run) || self.running.contains_key(&run) || self.lines.values().flatten().any(|order| order.run == run)
    }

    pub(crate) fn start(&mut self, order: Order, now: Timestamp) {
        if self.knows(order.run) {
            return;
        }
        if order.limits.is_some() {
            self.lines.entry(order.node.clone()).or_default().push_back(order);
            self.advance(now);
        } else {
            self.begin(order, now);
        }
    }

    pub(crate) fn begin(&mut self, order: Order, now: Timestamp) {
        assert!(self.begun.insert(order.run), "{} began twice", order.run);
        self.reports.push_back(Report::Started(order.run, now));
        self.running.insert(order.run, (order, now));
    }

    /// Begins whoever is first in a line and fits.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let nodes: Vec<String> = self.lines.keys().cloned().collect();
        for node in nodes {
            while let Some(first) = self.lines[&node].front() {
                let limits = first.limits.unwrap();
                let lined = self.running.values().filter(|(order, _)| order.limits.is_some() && order.node == node);
                let used = lined.fold((0, 0), |used, (order, _)| (used.0 + order.asks.0, used.1 + order.asks.1));
                if used.0 + first.asks.0 > limits.0 || used.1 + first.asks.1 > limits.1 {
                    break;
                }
                let order = self.lines.get_mut(&node).unwrap().pop_front().unwrap();
                self.begin(order, now);
            }
        }
    }

    pub(crate) fn drop_waiting(&mut self, run: RunId, now: Timestamp) {
        for line in self.lines.values_mut() {
            if let Some(at) = line.iter().position(|order| order.run == run) {
                line.remove(at);
                self.over.insert(run);
                self.reports.push_back(Report::NotBegun(run, now));
            }
        }
        self.advance(now);
    }

    pub(crate) fn end(&mut self, run: RunId, result: RunResult, now: Timestamp) {
        if let Some((_, since)) = self.running.remove(&run) {
            self.over.insert(run);
            self.reports.push_back(Report::Ended(run, Some(since), result, now));
            self.advance(now);
        }
    }
}
