//! What is told of GPUs, nodes and queues in the log of events: a notice for each change that somebody should know of.
//!
//! What must hold:
//! - A notice goes into the transaction of what it tells, or if that was only seen, into the next one; with it goes a note of what was told, so
//!   that nothing is told twice over restarts and failed commits, and what changed meanwhile is told.
//! - Told is how a thing stands (as its `state` says) and the cause, not each wording of a reason: numbers in it change with every look.
//! - Nothing is told of GPUs before the first look at them, nor of a cluster's GPUs: pods of others come and go there, which is no trouble.

use std::collections::BTreeMap;

use scheduler_core::Scheduler;
use scheduler_core::ids::Name;
use scheduler_core::scheduler::NodeState;
use scheduler_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Notice, NoticeKind, ObjectChange, ObjectKind, Store, StoreError};

use super::fleet::Fleet;
use super::gpus::{Cause, Observed};
use super::turn::Turn;
use crate::gpus::keeper::OWN_NAME;
use crate::objects::Directory;
use crate::objects::nodes::Closed;

/// The name of the note.
const NAME: &str = "told";

/// How a thing stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// As it should.
    Ready,
    /// A GPU that is not promised for now.
    Aside,
    /// A GPU that is not promised until somebody resumes it; it was found to be sick.
    Sick,
    /// The same; somebody said so.
    Drained,
    /// A node that takes no tasks.
    Cordoned,
    /// A node that is emptied.
    Draining,
    /// A node that was found to fail whatever runs there.
    SetAside,
    /// A node of which nobody hears.
    Lost,
}

/// What was told of a thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Standing {
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Name>,
}

/// A thing as it is now.
struct Now {
    standing: Standing,
    node: Option<Name>,
    by: Option<Name>,
    reason: Option<String>,
}

/// All that was told, as it is stored: every GPU of this machine, once they were looked at, and nodes that are not ready.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpus: Option<BTreeMap<Name, Standing>>,
    #[serde(default)]
    nodes: BTreeMap<Name, Standing>,
}

impl Told {
    /// What was told before this start; `None` at the first.
    ///
    /// # Errors
    /// The store cannot be read. A note that is not understood is none: what is not as it should be is then told again.
    pub async fn load(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let notes = store.objects(ObjectKind::Note).await?;
        let Some(note) = notes.iter().find(|note| note.name.as_str() == NAME) else { return Ok(None) };
        let told = serde_json::from_slice(&note.value);
        Ok(told.inspect_err(|error| tracing::warn!(%error, "what was told of GPUs and nodes is not known any more")).ok())
    }
}

/// Tells what has changed.
pub(super) struct Teller {
    told: Option<Told>,
    /// What will have been told once this turn is durable.
    pending: Option<Told>,
    stale: bool,
}

/// What there is to compare with what was told.
pub(super) struct World<'a> {
    pub(super) core: &'a Scheduler,
    pub(super) directory: &'a Directory,
    pub(super) observed: &'a Observed,
    pub(super) fleet: Option<&'a Fleet>,
}

impl Teller {
    pub(super) const fn new(told: Option<Told>) -> Self {
        Self { told, pending: None, stale: true }
    }

    /// Something may have changed.
    pub(super) const fn touch(&mut self) {
        self.stale = true;
    }

    /// What was decided is durable.
    pub(super) fn committed(&mut self) {
        if let Some(told) = self.pending.take() {
            self.told = Some(told);
        }
    }

    /// It is not.
    pub(super) fn failed(&mut self) {
        self.pending = None;
        self.stale = true;
    }

    /// Puts into the turn what has changed since it was told last.
    pub(super) fn settle(&mut self, world: &World<'_>, turn: &mut Turn, now: Timestamp) {
        if !std::mem::take(&mut self.stale) || world.fleet.is_some_and(|fleet| !fleet.is_settled()) {
            return;
        }
        let before = self.told.clone().unwrap_or_default();
        let mut after = Told::default();
        if world.fleet.is_none() && !world.observed.looked {
            after.gpus.clone_from(&before.gpus);
        } else if world.fleet.is_none() {
            // At the very first look there is nothing to be told of those that are well.
            let fresh = if before.gpus.is_some() { None } else { Some(State::Ready) };
            let told = before.gpus.clone().unwrap_or_default();
            let gpus = gpus(world, &told);
            tell(turn, NoticeKind::Gpu, &told, &gpus, now, |old, new| gpu_words(old.or(fresh), new));
            after.gpus = Some(gpus.into_iter().map(|(uuid, is)| (uuid, is.standing)).collect());
        }
        let nodes = nodes(world);
        tell(turn, NoticeKind::Node, &before.nodes, &nodes, now, |old, new| node_words(old.unwrap_or(State::Ready), new));
        after.nodes = nodes.into_iter().map(|(name, is)| (name, is.standing)).collect();
        after.nodes.retain(|_, standing| standing.state != State::Ready);
        if before == after {
            return;
        }
        match serde_json::to_vec(&after) {
            Ok(value) => {
                let value = Some(value.into());
                turn.batch.objects.push(ObjectChange { kind: ObjectKind::Note, name: NAME.into(), value });
                self.pending = Some(after);
            }
            Err(error) => tracing::error!(%error, "noting what was told"),
        }
    }
}

/// Compares, and has what is different told.
fn tell(
    turn: &mut Turn,
    kind: NoticeKind,
    before: &BTreeMap<Name, Standing>,
    after: &BTreeMap<Name, Now>,
    at: Timestamp,
    words: impl Fn(Option<State>, Option<State>) -> [Option<&'static str>; 2],
) {
    let mut names: Vec<&Name> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old == new.map(|new| &new.standing) {
            continue;
        }
        for what in words(old.map(|old| old.state), new.map(|new| new.standing.state)).into_iter().flatten() {
            // Who let it back is not in what is known of it, and why it was kept is over.
            let is_over = ["resumed", "free", "back", "found", "gone"].contains(&what);
            let ordered = turn.orders.iter().find(|order| (order.0, &order.1) == (kind, name)).map(|order| order.2.clone());
            let kept = new.filter(|_| !is_over);
            turn.batch.notices.push(Notice {
                at,
                kind,
                name: name.clone(),
                what: what.into(),
                node: new.and_then(|new| new.node.clone()),
                cause: kept.and_then(|new| new.standing.cause.clone()),
                by: if what == "resumed" { ordered } else { kept.and_then(|new| new.by.clone()) },
                reason: kept.and_then(|new| new.reason.clone()),
            });
        }
    }
}

fn gpu_words(old: Option<State>, new: Option<State>) -> [Option<&'static str>; 2] {
    let Some(new) = new else { return [None, old.map(|_| "gone")] };
    let left = match old {
        None => Some("found"),
        Some(State::Sick | State::Drained) if matches!(new, State::Ready | State::Aside) => Some("resumed"),
        Some(State::Aside) if new == State::Ready => Some("free"),
        Some(_) => None,
    };
    let entered = match new {
        State::Aside => Some("heldBack"),
        State::Sick => Some("sick"),
        State::Drained => Some("drained"),
        _ => None,
    };
    [left, entered]
}

fn node_words(old: State, new: Option<State>) -> [Option<&'static str>; 2] {
    let Some(new) = new else { return [None, Some("gone")] };
    let left = match old {
        State::Lost if new != State::Lost => Some("back"),
        State::Ready | State::Lost => None,
        _ if new == State::Ready => Some("resumed"),
        _ => None,
    };
    let entered = match new {
        State::Cordoned => Some("cordoned"),
        State::Draining => Some("draining"),
        State::SetAside => Some("setAside"),
        State::Lost => Some("lost"),
        _ => None,
    };
    [left, entered]
}

/// The GPUs of this machine.
fn gpus(world: &World<'_>, told: &BTreeMap<Name, Standing>) -> BTreeMap<Name, Now> {
    let mut found = BTreeMap::new();
    for node in world.core.nodes() {
        for gpu in node.gpus.iter().filter(|gpu| gpu.configured) {
            let (state, cause, by, reason) = match (world.directory.gpus.get(gpu.uuid), world.observed.aside.get(gpu.uuid)) {
                (Some(mark), _) => {
                    let is_own = mark.by.as_str() == OWN_NAME;
                    let state = if is_own { State::Sick } else { State::Drained };
                    (state, is_own.then(|| Cause::Sick.as_str().into()), Some(mark.by.clone()), mark.reason.clone())
                }
                // It is about to be drained: that is what will be told.
                (None, Some(aside)) if aside.cause == Cause::Sick => {
                    let before = told.get(gpu.uuid).map_or(State::Ready, |standing| standing.state);
                    (before, told.get(gpu.uuid).and_then(|standing| standing.cause.clone()), None, None)
                }
                (None, Some(aside)) => (State::Aside, Some(aside.cause.as_str().into()), None, Some(aside.why.to_string())),
                (None, None) => (State::Ready, None, None, None),
            };
            let now = Now { standing: Standing { state, cause }, node: Some(node.name.clone()), by, reason };
            found.insert(gpu.uuid.clone(), now);
        }
    }
    found
}

/// The nodes, each of which may be closed by order or by its cluster.
fn nodes(world: &World<'_>) -> BTreeMap<Name, Now> {
    let mut found = BTreeMap::new();
    for node in world.core.nodes().filter(|node| node.configured) {
        let mark = world.directory.nodes.get(node.name).filter(|mark| mark.state.state() == node.state);
        let is_own = mark.is_some_and(|mark| mark.by.as_str() == OWN_NAME && mark.state == Closed::Draining);
        let state = match node.state {
            _ if is_own => State::SetAside,
            NodeState::Ready => State::Ready,
            NodeState::Cordoned => State::Cordoned,
            NodeState::Draining => State::Draining,
            NodeState::Lost => State::Lost,
        };
        let cluster = world.fleet.and_then(|fleet| fleet.reason_of(node.name));
        let (by, reason) = match mark {
            Some(mark) => (Some(mark.by.clone()), mark.reason.clone()),
            None => (cluster.map(|_| super::nodes::CLUSTER.into()), cluster.map(str::to_owned)),
        };
        found.insert(node.name.clone(), Now { standing: Standing { state, cause: None }, node: None, by, reason });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_was_left_and_what_was_entered() {
        use State::{Aside, Drained, Ready, Sick};
        for (old, new, left, entered) in [
            (Some(Ready), Some(Aside), None, Some("heldBack")),
            (Some(Aside), Some(Aside), None, Some("heldBack")),
            (Some(Aside), Some(Ready), Some("free"), None),
            (Some(Aside), Some(Sick), None, Some("sick")),
            (Some(Sick), Some(Drained), None, Some("drained")),
            (Some(Drained), Some(Ready), Some("resumed"), None),
            (Some(Drained), Some(Aside), Some("resumed"), Some("heldBack")),
            (Some(Ready), None, None, Some("gone")),
            (None, Some(Ready), Some("found"), None),
            (None, Some(Drained), Some("found"), Some("drained")),
        ] {
            assert_eq!(gpu_words(old, new), [left, entered], "{old:?} {new:?}");
        }
    }

    #[test]
    fn words_of_nodes() {
        use State::{Cordoned, Draining, Lost, Ready, SetAside};
        for (old, new, left, entered) in [
            (Ready, Some(SetAside), None, Some("setAside")),
            (SetAside, Some(Ready), Some("resumed"), None),
            (Cordoned, Some(Draining), None, Some("draining")),
            (Ready, Some(Lost), None, Some("lost")),
            (Lost, Some(Ready), Some("back"), None),
            (Lost, Some(Cordoned), Some("back"), Some("cordoned")),
            (Cordoned, Some(Lost), None, Some("lost")),
            (Lost, None, None, Some("gone")),
        ] {
            assert_eq!(node_words(old, new), [left, entered], "{old:?} {new:?}");
        }
    }

    #[test]
    fn what_was_told_comes_back_from_its_note() {
        let standing = |state, cause: Option<&str>| Standing { state, cause: cause.map(Name::from) };
        let told = Told {
            gpus: Some(BTreeMap::from([("GPU-1".into(), standing(State::Aside, Some("foreign")))])),
            nodes: BTreeMap::from([("box".into(), standing(State::SetAside, None))]),
        };
        let text = serde_json::to_string(&told).unwrap_or_default();
        assert_eq!(text, r#"{"gpus":{"GPU-1":{"state":"aside","cause":"foreign"}},"nodes":{"box":{"state":"setAside"}}}"#);
        assert_eq!(serde_json::from_str::<Told>(&text).ok(), Some(told));
    }
}
