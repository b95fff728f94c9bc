//! Queues, cohorts, priority classes and what is said of nodes, as they are at a start and while the daemon runs.
//!
//! What must hold:
//! - What was said over the API is in the store and wins over `flashd.toml`, which wins over what is built in. The last two create what
//!   is absent and are not written down, so a change of the file counts after a restart unless the API has spoken of that thing.
//! - The core is always made from all three together, at a start and after a failed commit.
//! - The [`Directory`] that admission reads is published after the commit of what it says, never before.

pub mod convert;
pub mod edit;
pub mod nodes;
pub mod owned;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use api::Origin;
use scheduler_core::ids::Name;
use scheduler_core::scheduler::{CohortConfig, Config, QueueConfig, UsageRecord};
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{ObjectKind, Store, StoreError};

pub use convert::Invalid;
use owned::Owned;

/// Objects of one kind that there may be.
pub const MOST: usize = 2_000;
/// The one object of kind usage.
pub const USAGE: &str = "shares";

/// What the configuration says, and what of the core does not change while it runs.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    /// Machines and rules; its queues and cohorts are empty.
    pub base: Config,
    /// Queues, and who said so.
    pub queues: Vec<(QueueConfig, Origin)>,
    /// Queues can be objects of a cluster.
    pub of_cluster: bool,
    /// Cohorts.
    pub cohorts: Vec<CohortConfig>,
    /// Priority classes.
    pub classes: BTreeMap<Name, i32>,
}

/// What the store has.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    queues: Vec<QueueConfig>,
    owned: BTreeMap<Name, Owned>,
    cohorts: Vec<CohortConfig>,
    classes: BTreeMap<Name, i32>,
    nodes: BTreeMap<Name, nodes::Mark>,
    gpus: BTreeMap<Name, nodes::Mark>,
    /// What was used, to be put back.
    pub usage: Vec<UsageRecord>,
}

/// Which names there are, and what the core does not know of them. It knows the rest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directory {
    /// Queues that take jobs.
    pub queues: BTreeMap<Name, Origin>,
    /// Of those that are objects of a cluster what the core does not know.
    pub owned: BTreeMap<Name, Owned>,
    /// Cohorts.
    pub cohorts: BTreeMap<Name, Origin>,
    /// Priority classes.
    pub classes: BTreeMap<Name, (i32, Origin)>,
    /// Nodes that take no tasks because somebody said so.
    pub nodes: BTreeMap<Name, nodes::Mark>,
    /// GPUs that are promised to nobody because somebody said so, or because they were found to be sick.
    pub gpus: BTreeMap<Name, nodes::Mark>,
}

/// A [`Directory`] that readers share with the engine, its only writer.
#[derive(Clone, Debug, Default)]
pub struct SharedDirectory(Arc<RwLock<Arc<Directory>>>);

impl SharedDirectory {
    /// As it is now.
    pub fn get(&self) -> Arc<Directory> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As it is from now on.
    pub fn set(&self, directory: Directory) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }
}

/// Why stored objects cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// They could not be read.
    #[error("reading stored objects")]
    Read(#[source] StoreError),
    /// One of them is not what this version writes.
    #[error("stored {kind} \"{name}\": {detail}")]
    Object {
        /// Of which kind.
        kind: &'static str,
        /// Its name.
        name: Name,
        /// What is wrong with it.
        detail: String,
    },
}

async fn load<T: DeserializeOwned>(store: &dyn Store, kind: ObjectKind) -> Result<Vec<(Name, T)>, LoadError> {
    let mut loaded = Vec::new();
    for record in store.objects(kind).await.map_err(LoadError::Read)? {
        match serde_json::from_slice(&record.value) {
            Ok(value) => loaded.push((record.name, value)),
            Err(error) => {
                return Err(LoadError::Object { kind: kind.as_str(), name: record.name, detail: error.to_string() });
            }
        }
    }
    Ok(loaded)
}

impl Stored {
    /// Reads it.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(store: &dyn Store) -> Result<Self, LoadError> {
        let bad = |kind: ObjectKind, name: &Name| {
            let (kind, name) = (kind.as_str(), name.clone());
            move |invalid: Invalid| LoadError::Object { kind, name, detail: invalid.to_string() }
        };
        let mut stored = Self::default();
        for (name, value) in load::<Value>(store, ObjectKind::Queue).await? {
            let damaged = |error: serde_json::Error| bad(ObjectKind::Queue, &name)(Invalid::new("", error.to_string()));
            if let Some(queue) = owned::queue_of(&name) {
                stored.owned.insert(queue, serde_json::from_value(value).map_err(damaged)?);
            } else {
                let spec = serde_json::from_value(value).map_err(damaged)?;
                stored.queues.push(convert::queue_config(&name, &spec).map_err(bad(ObjectKind::Queue, &name))?);
            }
        }
        for (name, spec) in load(store, ObjectKind::Cohort).await? {
            stored.cohorts.push(convert::cohort_config(&name, &spec).map_err(bad(ObjectKind::Cohort, &name))?);
        }
        for (name, spec) in load::<api::PriorityClassSpec>(store, ObjectKind::PriorityClass).await? {
            stored.classes.insert(name, spec.priority);
        }
        for (name, mark) in load::<nodes::Mark>(store, ObjectKind::Node).await? {
            match nodes::gpu_of(&name) {
                Some(uuid) => stored.gpus.insert(uuid, mark),
                None => stored.nodes.insert(name, mark),
            };
        }
        for (_, records) in load::<Vec<UsageRecord>>(store, ObjectKind::Usage).await? {
            stored.usage.extend(records);
        }
        Ok(stored)
    }
}

impl Seeds {
    /// What the core is told, and which names there are.
    pub fn with(&self, stored: &Stored) -> (Config, Directory) {
        let mut config = self.base.clone();
        let mut directory = Directory::default();
        for (queue, origin) in with_origin(&stored.queues).chain(self.queues.iter().map(|(queue, origin)| (queue, *origin))) {
            if !directory.queues.contains_key(&queue.name) {
                directory.queues.insert(queue.name.clone(), origin);
                config.queues.push(queue.clone());
            }
        }
        for (cohort, origin) in with_origin(&stored.cohorts).chain(self.cohorts.iter().map(|cohort| (cohort, Origin::File))) {
            if !directory.cohorts.contains_key(&cohort.name) {
                directory.cohorts.insert(cohort.name.clone(), origin);
                config.cohorts.push(cohort.clone());
            }
        }
        if self.of_cluster {
            for (name, owned) in &stored.owned {
                if let Some(origin) = directory.queues.get_mut(name) {
                    *origin = Origin::Cluster;
                    directory.owned.insert(name.clone(), owned.clone());
                }
            }
        }
        // Places in the core follow the order here; it must be the same at every start.
        config.queues.sort_by(|one, other| one.name.cmp(&other.name));
        config.cohorts.sort_by(|one, other| one.name.cmp(&other.name));
        let seeds = self.classes.iter().map(|(name, priority)| (name.clone(), (*priority, Origin::File)));
        directory.classes = seeds.collect();
        directory.classes.extend(stored.classes.iter().map(|(name, priority)| (name.clone(), (*priority, Origin::Api))));
        directory.nodes.clone_from(&stored.nodes);
        directory.gpus.clone_from(&stored.gpus);
        (config, directory)
    }
}

fn with_origin<T>(stored: &[T]) -> impl Iterator<Item = (&T, Origin)> {
    stored.iter().map(|thing| (thing, Origin::Api))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str, priority: i32) -> QueueConfig {
        QueueConfig { priority, ..QueueConfig::named(name.into()) }
    }

    #[test]
    fn what_is_stored_wins_and_seeds_create_what_is_absent() {
        let seeds = Seeds {
            queues: vec![(queue("b", 1), Origin::File), (queue("a", 1), Origin::BuiltIn)],
            cohorts: vec![CohortConfig::named("lab".into())],
            classes: BTreeMap::from([("low".into(), -1), ("high".into(), 1)]),
            ..Seeds::default()
        };
        let stored = Stored {
            queues: vec![queue("b", 2), queue("c", 2), queue("d", 2)],
            owned: BTreeMap::from([("d".into(), Owned::default()), ("gone".into(), Owned::default())]),
            classes: BTreeMap::from([("high".into(), 9)]),
            ..Stored::default()
        };
        let (config, directory) = seeds.with(&stored);
        let found: Vec<_> = config.queues.iter().map(|queue| (queue.name.as_str(), queue.priority)).collect();
        assert_eq!(found, [("a", 1), ("b", 2), ("c", 2), ("d", 2)]);
        let origins: Vec<_> = directory.queues.values().copied().collect();
        assert_eq!(origins, [Origin::BuiltIn, Origin::Api, Origin::Api, Origin::Api], "there is no cluster here");
        let (_, on_cluster) = Seeds { of_cluster: true, ..seeds.clone() }.with(&stored);
        assert_eq!((on_cluster.queues[&Name::from("d")], on_cluster.owned.len()), (Origin::Cluster, 1));
        assert_eq!(directory.cohorts.get(&Name::from("lab")), Some(&Origin::File));
        let classes: Vec<_> = directory.classes.iter().map(|(name, class)| (name.as_str(), *class)).collect();
        assert_eq!(classes, [("high", (9, Origin::Api)), ("low", (-1, Origin::File))]);
    }
}
