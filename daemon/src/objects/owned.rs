//! Queues that are objects of a cluster: what is said of them there that the core does not know.
//!
//! Invariant: that a queue is one is stored beside it, so that nobody else changes it while the cluster is not heard of.

use scheduler_core::ids::Name;
use serde::{Deserialize, Serialize};

/// Under which names that is stored among queues, none of which has a `/` in its name.
const PREFIX: &str = "cluster/";

/// What only the cluster's object says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// Namespaces whose jobs may wait there; all, where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}

impl Owned {
    /// Whether jobs of a namespace may wait there.
    pub fn takes(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|own| own == namespace)
    }
}

/// The name under which that is stored.
pub fn object(queue: &Name) -> Name {
    format!("{PREFIX}{queue}").into()
}

/// The queue of which this is stored, if it is that.
pub fn queue_of(object: &Name) -> Option<Name> {
    object.as_str().strip_prefix(PREFIX).map(Name::from)
}
