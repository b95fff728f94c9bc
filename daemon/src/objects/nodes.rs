//! What administrators say of nodes: cordoned, draining, ready again.
//!
//! Invariant: only what keeps a node from taking tasks is written down. A node of which nothing is stored is ready; one that is stored and
//! not there any more is found as it was left when it comes back.

use scheduler_core::ids::Name;
use scheduler_core::scheduler::NodeState;
use scheduler_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Longest reason.
const REASON_CHARS: usize = 256;

/// How a node is kept from taking tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Closed {
    /// What runs goes on.
    Cordoned,
    /// The same, and somebody waits for the last run to end.
    Draining,
}

impl Closed {
    /// As the core has it.
    pub const fn state(self) -> NodeState {
        match self {
            Self::Cordoned => NodeState::Cordoned,
            Self::Draining => NodeState::Draining,
        }
    }
}

/// A node that takes no tasks, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// How.
    pub state: Closed,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who said so.
    pub by: Name,
    /// When that was said first.
    pub since: Timestamp,
}

/// An order about a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// How it is to be closed; `None`: it takes tasks again.
    pub close: Option<Closed>,
    /// Why, where somebody says so.
    pub reason: Option<String>,
    /// Who says it.
    pub by: Name,
}

impl Order {
    /// What is to be stored of a node of which `present` is.
    pub fn apply(self, present: Option<&Mark>, now: Timestamp) -> Option<Mark> {
        let Self { close, reason, by } = self;
        let state = close?;
        let Some(same) = present.filter(|mark| mark.state == state) else {
            return Some(Mark { state, reason, by, since: now });
        };
        // The same again says nothing new, unless it gives another reason.
        match reason {
            Some(reason) => Some(Mark { reason: Some(reason), by, ..same.clone() }),
            None => Some(same.clone()),
        }
    }
}

/// Under which names what is said of GPUs is stored among what is said of nodes, none of which has a `/` in its name.
const GPU_PREFIX: &str = "gpu/";

/// The name under which what is said of a GPU is stored.
pub fn gpu_object(uuid: &Name) -> Name {
    format!("{GPU_PREFIX}{uuid}").into()
}

/// The GPU of which this is stored, if it is one.
pub fn gpu_of(object: &Name) -> Option<Name> {
    object.as_str().strip_prefix(GPU_PREFIX).map(Name::from)
}

/// A reason that can be shown in a line.
///
/// # Errors
/// It is empty, too long, or has control characters.
pub fn reason(text: String) -> Result<String, Invalid> {
    if text.trim().is_empty() || text.chars().count() > REASON_CHARS || text.chars().any(char::is_control) {
        let detail = format!("say why in 1 to {REASON_CHARS} characters of one line, or leave it out");
        return Err(Invalid::new("reason", detail));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(close: Option<Closed>, reason: Option<&str>, by: &str) -> Order {
        Order { close, reason: reason.map(str::to_owned), by: by.into() }
    }

    #[test]
    fn an_order_again_keeps_when_it_began() {
        let first = order(Some(Closed::Cordoned), Some("fan"), "ada").apply(None, Timestamp(1));
        assert_eq!(order(Some(Closed::Cordoned), None, "bob").apply(first.as_ref(), Timestamp(2)), first);
        let other = order(Some(Closed::Cordoned), Some("disk"), "bob").apply(first.as_ref(), Timestamp(2));
        let other = other.map(|mark| (mark.reason, mark.by, mark.since));
        assert_eq!(other, Some((Some("disk".to_owned()), "bob".into(), Timestamp(1))));
        let drained = order(Some(Closed::Draining), None, "bob").apply(first.as_ref(), Timestamp(3));
        assert_eq!(drained.map(|mark| (mark.reason, mark.since)), Some((None, Timestamp(3))));
        assert_eq!(order(None, None, "bob").apply(first.as_ref(), Timestamp(4)), None);
    }

    #[test]
    fn a_reason_is_a_line() {
        for bad in ["", "  ", "a\nb", &"x".repeat(257)] {
            assert!(reason(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(reason("ü".repeat(256)).is_ok());
    }
}
