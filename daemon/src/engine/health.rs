//! Nodes on which run after run fails, so that they would eat a whole queue: each job that is tried there ends at once, which makes room
//! for the next one (a *black hole*).
//!
//! What must hold:
//! - What counts is a row of ends on one node, with nothing between them that says that the node is well: a run that succeeded, or a program
//!   that failed after it had run for a while.
//! - A run that infrastructure lost counts, once for each incident: what is lost within a second of another loss, or had begun before the
//!   incident was noticed, belongs to it. A runner that is killed leaves runs behind that end one by one over hours, each as lost; the node
//!   is well all the while.
//! - A program that fails at once counts once for each namespace: one user's faulty sweep is no fault of the node, the same of several users is.
//! - The end of a run that was told to end, and of one on several nodes, says nothing of a node.
//! - Nothing of this is written down but the order that follows: after a restart the row begins anew.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::event::RunResult;
use scheduler_core::ids::Name;
use scheduler_core::record::Recorded;
use scheduler_core::state::{FailReason, JobState};
use scheduler_core::time::{Span, Timestamp};

use super::turn::Turn;
use super::{Engine, change};
use crate::gpus::keeper::OWN_NAME;
use crate::objects::edit::Change;
use crate::objects::nodes::{Closed, Order};

/// A program that fails within this time has not done anything yet.
const AT_ONCE: Span = Span(10_000_000);
/// Losses that are no further apart are one incident.
const ONE_INCIDENT: Span = Span(1_000_000);
/// Characters of the last fault that a reason repeats.
const LAST_CHARS: usize = 180;

/// How one run ended, as far as it says something of its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) namespace: &'a Name,
    pub(super) started: Option<Timestamp>,
    pub(super) at: Timestamp,
    pub(super) result: &'a RunResult,
}

/// What has failed in a row on one node.
#[derive(Default, Debug)]
struct Row {
    failures: u32,
    /// When the latest incident was noticed, and when its latest loss was.
    incident: Option<(Timestamp, Timestamp)>,
    namespaces: BTreeSet<Name>,
}

/// The rows of all nodes that have one.
#[derive(Debug)]
pub(super) struct Rows {
    limit: u32,
    nodes: BTreeMap<Name, Row>,
}

impl Rows {
    /// A node with `limit` failures in a row is closed; none is where that is 0.
    pub(super) const fn new(limit: u32) -> Self {
        Self { limit, nodes: BTreeMap::new() }
    }

    /// What has been is forgotten.
    pub(super) fn forget(&mut self, node: &Name) {
        self.nodes.remove(node);
    }

    /// Takes an end; gives back why the node is to be closed, if it is.
    pub(super) fn ended(&mut self, node: &Name, end: End<'_>) -> Option<String> {
        if self.limit == 0 {
            return None;
        }
        let last = match end.result {
            RunResult::Lost { message } => {
                let row = self.nodes.entry(node.clone()).or_default();
                let same = row.incident.filter(|(noticed, latest)| {
                    end.at.since(*latest) < ONE_INCIDENT || end.started.is_some_and(|started| started < *noticed)
                });
                row.incident = Some((same.map_or(end.at, |(noticed, _)| noticed), end.at));
                row.failures += u32::from(same.is_none());
                format!("a run was lost: {message}")
            }
            RunResult::Failed { reason } if end.started.is_none_or(|started| end.at.since(started) < AT_ONCE) => {
                let row = self.nodes.entry(node.clone()).or_default();
                row.failures += u32::from(row.namespaces.insert(end.namespace.clone()));
                format!("a program failed at once: {}", fault(reason))
            }
            RunResult::Succeeded | RunResult::Failed { .. } => {
                if !self.nodes.is_empty() {
                    self.nodes.remove(node);
                }
                return None;
            }
        };
        let failures = self.nodes.get(node).map_or(0, |row| row.failures);
        (failures >= self.limit).then(|| {
            let short: String = last.chars().filter(|char| !char.is_control()).take(LAST_CHARS).collect();
            format!("{failures} runs in a row failed here; last, {short}")
        })
    }
}

/// Short for a reason.
fn fault(reason: &FailReason) -> String {
    match reason {
        FailReason::ExitCode { code, .. } => format!("exit code {code}"),
        FailReason::Signal { signal, .. } => format!("signal {signal}"),
        FailReason::Start { message } | FailReason::Idle { message } | FailReason::Infrastructure { message } => {
            message.to_string()
        }
        FailReason::TimeLimit => "its time limit".to_owned(),
    }
}

/// The node of a run whose end will say something of it.
pub(super) fn node_of(state: &JobState) -> Option<&Name> {
    let (JobState::Starting { placement } | JobState::Running { placement, .. }) = state else { return None };
    let (first, others) = placement.slots.split_first()?;
    others.iter().all(|slot| slot.node == first.node).then_some(&first.node)
}

impl Engine {
    /// Closes a node that is a black hole, in the daemon's own name, unless it is closed already.
    pub(super) fn close(&mut self, core: &mut Recorded, turn: &mut Turn, node: &Name, why: String, now: Timestamp) {
        if self.directory.nodes.contains_key(node) {
            return;
        }
        tracing::error!(%node, why, "node is set aside; `flash nodes resume` when it is well");
        if let Some(fleet) = &mut self.fleet {
            fleet.forget_state(node);
        }
        let order = Order { close: Some(Closed::Draining), reason: Some(why), by: OWN_NAME.into() };
        if let Err(error) =
            change::change(core, &self.parts.seeds, &mut self.directory, turn, Change::Node(node.clone(), order), now)
        {
            tracing::error!(%node, %error, "setting a node aside");
        }
        self.teller.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    struct Node(Rows, i64);

    impl Node {
        fn new(limit: u32) -> Self {
            Self(Rows::new(limit), 0)
        }

        /// The end of a run that began `took` seconds before it, two seconds after the last.
        fn end(&mut self, namespace: &str, result: &RunResult, took: i64) -> Option<String> {
            self.1 += 2 * SECOND;
            let at = Timestamp(1_000 * SECOND + self.1);
            let end = End { namespace: &namespace.into(), started: Some(Timestamp(at.0 - took * SECOND)), at, result };
            self.0.ended(&"box".into(), end)
        }
    }

    fn lost() -> RunResult {
        RunResult::Lost { message: "no log folder".into() }
    }

    fn failed() -> RunResult {
        RunResult::Failed { reason: FailReason::ExitCode { task: "main-0".into(), code: 1 } }
    }

    #[test]
    fn losses_in_a_row_close_a_node() {
        let mut node = Node::new(3);
        assert_eq!((node.end("a", &lost(), 0), node.end("a", &lost(), 0)), (None, None));
        let why = node.end("a", &lost(), 0).unwrap_or_default();
        assert!(why.starts_with("3 runs in a row failed here") && why.ends_with("no log folder"), "{why}");
        assert!(node.end("a", &lost(), 0).is_some(), "said again until the node is closed");
        node.0.forget(&"box".into());
        assert_eq!(node.end("a", &lost(), 0), None);
    }

    #[test]
    fn what_went_well_ends_a_row() {
        for (well, took) in [(RunResult::Succeeded, 0), (failed(), 11)] {
            let mut node = Node::new(2);
            assert_eq!(node.end("a", &lost(), 0), None);
            assert_eq!(node.end("a", &well, took), None);
            assert_eq!(node.end("a", &lost(), 0), None, "{well:?}");
        }
    }

    #[test]
    fn one_users_programs_are_no_fault_of_the_node() {
        let mut node = Node::new(2);
        for _ in 0..50 {
            assert_eq!(node.end("a", &failed(), 0), None);
        }
        let why = node.end("b", &failed(), 0).unwrap_or_default();
        assert!(why.contains("a program failed at once"), "{why}");
    }

    #[test]
    fn what_is_lost_together_is_one_loss() {
        let mut rows = Rows::new(2);
        let (namespace, result) = ("a".into(), lost());
        let end = |at| End { namespace: &namespace, started: None, at: Timestamp(at), result: &result };
        for at in 0..20 {
            assert_eq!(rows.ended(&"box".into(), end(at * SECOND / 40)), None, "{at}");
        }
        assert!(rows.ended(&"box".into(), end(9 * SECOND)).is_some());
    }

    #[test]
    fn what_had_begun_before_an_incident_belongs_to_it() {
        let mut node = Node::new(2);
        for took in [60, 3_600, 86_400, 70] {
            assert_eq!(node.end("a", &lost(), took), None, "begun before the first of them was lost");
        }
        assert!(node.end("a", &lost(), 1).is_some(), "begun after it");
    }

    #[test]
    fn it_can_be_off() {
        let mut node = Node::new(0);
        assert!((0..99).all(|_| node.end("a", &lost(), 0).is_none()));
        assert!(node.0.nodes.is_empty());
    }
}
