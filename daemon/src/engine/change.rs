//! What an administrator changes: queues, cohorts, priority classes, states of nodes. The core first, the object in the batch, then the commit.
//!
//! Invariants: what the core refuses is not written; what is written is the whole spec that the core took; the directory that admission
//! reads follows the commit.

use api::Origin;
use scheduler_core::Scheduler;
use scheduler_core::ids::Name;
use scheduler_core::record::Recorded;
use scheduler_core::scheduler::{ChangeError, ConfigError, NodeState};
use scheduler_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{NoticeKind, ObjectChange, ObjectKind};

use super::fleet::lose;
use super::turn::Turn;
use crate::backend::BackendError;
use crate::objects::convert;
use crate::objects::edit::{Change, Changed, Edit, EditError};
use crate::objects::nodes::{Mark, Order, gpu_object};
use crate::objects::owned::{self, Owned};
use crate::objects::{Directory, Invalid, MOST, Seeds};

type Answer = Result<Changed, BackendError>;

/// What a change is about, for the log of events.
pub(super) enum Subject {
    /// It is told.
    Told { kind: NoticeKind, name: Name },
    /// What follows from it is told.
    Ordered { kind: NoticeKind, name: Name, by: Name },
}

/// What this change is about.
pub(super) fn subject(change: &Change) -> Subject {
    let told = |kind, name: &Name| Subject::Told { kind, name: name.clone() };
    let ordered = |kind, name: &Name, order: &Order| Subject::Ordered { kind, name: name.clone(), by: order.by.clone() };
    match change {
        Change::Queue(name, _) | Change::ClusterQueue(name, _) => told(NoticeKind::Queue, name),
        Change::Cohort(name, _) => told(NoticeKind::Cohort, name),
        Change::Class(name, _) => told(NoticeKind::PriorityClass, name),
        Change::Node(name, order) => ordered(NoticeKind::Node, name, order),
        Change::Gpu(name, order) => ordered(NoticeKind::Gpu, name, order),
    }
}

/// Decides one change.
pub(super) fn change(
    core: &mut Recorded,
    seeds: &Seeds,
    directory: &mut Directory,
    turn: &mut Turn,
    change: Change,
    now: Timestamp,
) -> Answer {
    match change {
        Change::Queue(name, _) if directory.queues.get(&name) == Some(&Origin::Cluster) => {
            let detail = "is a ClusterResourceQueue of the cluster, and is changed and deleted there";
            Err(BackendError::Conflict(format!("queue `{name}` {detail}: `kubectl edit clusterresourcequeue {name}`")))
        }
        Change::ClusterQueue(name, Some(says)) => cluster_queue(core, directory, turn, name, says, now),
        Change::ClusterQueue(name, None) => no_cluster_queue(core, seeds, directory, turn, name, now),
        Change::Queue(name, edit) => queue(core, directory, turn, name, edit, now),
        Change::Cohort(name, edit) => cohort(core, directory, turn, name, edit, now),
        Change::Class(name, edit) => class(directory, turn, name, edit),
        Change::Node(name, order) => node(core, directory, turn, name, order, now),
        Change::Gpu(uuid, order) => gpu(core, directory, turn, uuid, order, now),
    }
}

/// The spec after an edit of a thing that is there as `present`, if it is there.
fn edited<S: Serialize + DeserializeOwned>(
    kind: ObjectKind,
    name: &Name,
    edit: Edit<S>,
    present: Option<&S>,
    count: usize,
) -> Result<Option<S>, BackendError> {
    if present.is_none() && count >= MOST {
        return Err(Invalid::new("name", format!("there are {MOST} already")).into());
    }
    edit.apply(present).map_err(|error| match error {
        EditError::Absent => absent(kind, name),
        EditError::Invalid(invalid) => invalid.into(),
    })
}

fn absent(kind: ObjectKind, name: &Name) -> BackendError {
    BackendError::NoObject { kind: kind.as_str(), name: name.clone() }
}

/// What the core refused, in words that name the field.
fn refused(kind: ObjectKind, error: ChangeError, core: &Scheduler) -> BackendError {
    match error {
        ChangeError::Invalid(error) => {
            let is_cohort = |name: &Name| core.cohort_configs().any(|cohort| cohort.name == *name);
            // Where the other side of a relation is at fault, the field is the one through which the two are related.
            let field = match (convert::culprit(&error, is_cohort), &error) {
                (_, ConfigError::GuaranteeOverLimit { .. }) if kind == ObjectKind::Queue => "guaranteed",
                (_, ConfigError::GuaranteeOverLimit { .. }) => "limit",
                (_, ConfigError::UnknownCohort { .. }) if kind == ObjectKind::Queue => "cohort",
                (_, ConfigError::UnknownCohort { .. }) => "parent",
                (Some(culprit), _) => culprit.field,
                (None, _) => "",
            };
            Invalid::new(field, error.to_string()).into()
        }
        ChangeError::Unknown { name } => absent(kind, &name),
        ChangeError::HasJobs { name, jobs } => {
            let word = if jobs == 1 { "job" } else { "jobs" };
            let detail = format!("queue `{name}` has {jobs} unfinished {word}; cancel them, or wait until they have ended");
            BackendError::Conflict(detail)
        }
    }
}

fn write<S: Serialize>(turn: &mut Turn, kind: ObjectKind, name: Name, spec: Option<&S>) -> Result<(), BackendError> {
    let bytes = spec.map(serde_json::to_vec).transpose();
    let value = bytes.map_err(|error| Invalid::new("", error.to_string()))?.map(Into::into);
    turn.batch.objects.push(ObjectChange { kind, name, value });
    Ok(())
}

const fn word(was_there: bool) -> Changed {
    if was_there { Changed::Replaced } else { Changed::Created }
}

fn queue(
    core: &mut Recorded,
    directory: &mut Directory,
    turn: &mut Turn,
    name: Name,
    edit: Edit<api::QueueSpec>,
    now: Timestamp,
) -> Answer {
    let kind = ObjectKind::Queue;
    let present = core.queue_configs().find(|queue| queue.name == name).map(convert::queue_spec);
    let Some(spec) = edited(kind, &name, edit, present.as_ref(), directory.queues.len())? else {
        core.remove_queue(&name, now).map_err(|error| refused(kind, error, core))?;
        directory.queues.remove(&name);
        write::<()>(turn, kind, name, None)?;
        return Ok(Changed::Removed);
    };
    core.set_queue(convert::queue_config(&name, &spec)?, now).map_err(|error| refused(kind, error, core))?;
    let there = directory.queues.insert(name.clone(), Origin::Api).is_some();
    write(turn, kind, name, Some(&spec))?;
    Ok(word(there))
}

/// What the cluster says of a queue. What is built in or comes from the file is its to say; what was said over the API is not.
fn cluster_queue(
    core: &mut Recorded,
    directory: &mut Directory,
    turn: &mut Turn,
    name: Name,
    (spec, owned): (api::QueueSpec, Owned),
    now: Timestamp,
) -> Answer {
    let kind = ObjectKind::Queue;
    let origin = directory.queues.get(&name).copied();
    if origin == Some(Origin::Api) {
        let detail = "was set over the API of flashd and is changed there";
        return Err(BackendError::Conflict(format!(
            "queue `{name}` {detail}; `flash queues delete {name}` leaves it to the cluster"
        )));
    }
    if origin.is_none() && directory.queues.len() >= MOST {
        return Err(Invalid::new("name", format!("there are {MOST} queues already")).into());
    }
    let config = convert::queue_config(&name, &spec)?;
    if origin == Some(Origin::Cluster)
        && directory.owned.get(&name) == Some(&owned)
        && core.queue_configs().any(|present| *present == config)
    {
        return Ok(Changed::Nothing);
    }
    if let Some(new) = config.cohort.clone().filter(|new| !directory.cohorts.contains_key(new)) {
        // A cluster has no objects for them: a cohort is there as soon as a queue is in it.
        cohort(core, directory, turn, new, Edit::Put(api::CohortSpec::default()), now)?;
    }
    core.set_queue(config, now).map_err(|error| refused(kind, error, core))?;
    directory.queues.insert(name.clone(), Origin::Cluster);
    write(turn, kind, owned::object(&name), Some(&owned))?;
    write(turn, kind, name.clone(), Some(&spec))?;
    directory.owned.insert(name, owned);
    Ok(word(origin.is_some()))
}

/// Its object is deleted: it is as it was before, or gone.
fn no_cluster_queue(
    core: &mut Recorded,
    seeds: &Seeds,
    directory: &mut Directory,
    turn: &mut Turn,
    name: Name,
    now: Timestamp,
) -> Answer {
    let kind = ObjectKind::Queue;
    if directory.queues.get(&name) != Some(&Origin::Cluster) {
        return Ok(Changed::Nothing);
    }
    if let Some((config, origin)) = seeds.queues.iter().find(|(config, _)| config.name == name) {
        core.set_queue(config.clone(), now).map_err(|error| refused(kind, error, core))?;
        directory.queues.insert(name.clone(), *origin);
    } else {
        core.remove_queue(&name, now).map_err(|error| refused(kind, error, core))?;
        directory.queues.remove(&name);
    }
    directory.owned.remove(&name);
    write::<()>(turn, kind, owned::object(&name), None)?;
    write::<()>(turn, kind, name, None)?;
    Ok(Changed::Removed)
}

fn cohort(
    core: &mut Recorded,
    directory: &mut Directory,
    turn: &mut Turn,
    name: Name,
    edit: Edit<api::CohortSpec>,
    now: Timestamp,
) -> Answer {
    let kind = ObjectKind::Cohort;
    let present = core.cohort_configs().find(|cohort| cohort.name == name).map(convert::cohort_spec);
    let Some(spec) = edited(kind, &name, edit, present.as_ref(), directory.cohorts.len())? else {
        core.remove_cohort(&name, now).map_err(|error| match error {
            // Nothing but what names it can be wrong without it.
            ChangeError::Invalid(ConfigError::UnknownCohort { of, .. }) => {
                BackendError::Conflict(format!("`{of}` is in cohort `{name}`; take it out first"))
            }
            error => refused(kind, error, core),
        })?;
        directory.cohorts.remove(&name);
        write::<()>(turn, kind, name, None)?;
        return Ok(Changed::Removed);
    };
    core.set_cohort(convert::cohort_config(&name, &spec)?, now).map_err(|error| refused(kind, error, core))?;
    let there = directory.cohorts.insert(name.clone(), Origin::Api).is_some();
    write(turn, kind, name, Some(&spec))?;
    Ok(word(there))
}

/// The core knows nothing of classes: jobs have numbers.
fn class(directory: &mut Directory, turn: &mut Turn, name: Name, edit: Edit<api::PriorityClassSpec>) -> Answer {
    let kind = ObjectKind::PriorityClass;
    let present = directory.classes.get(&name).map(|(priority, _)| api::PriorityClassSpec { priority: *priority });
    let Some(spec) = edited(kind, &name, edit, present.as_ref(), directory.classes.len())? else {
        directory.classes.remove(&name).ok_or_else(|| absent(kind, &name))?;
        write::<()>(turn, kind, name, None)?;
        return Ok(Changed::Removed);
    };
    let priority = convert::class_priority(&spec)?;
    let there = directory.classes.insert(name.clone(), (priority, Origin::Api)).is_some();
    write(turn, kind, name, Some(&spec))?;
    Ok(word(there))
}

/// What runs on the node goes on, so there is nothing to tell executors.
fn node(core: &mut Recorded, directory: &mut Directory, turn: &mut Turn, name: Name, order: Order, now: Timestamp) -> Answer {
    let kind = ObjectKind::Node;
    let present = directory.nodes.get(&name);
    let mark = order.apply(present, now);
    let changed = mark.as_ref() != present;
    let state = mark.as_ref().map_or(NodeState::Ready, |mark| mark.state.state());
    lose(core, turn, &name, state, now).map_err(|error| refused(kind, error, core))?;
    if changed {
        write::<Mark>(turn, kind, name.clone(), mark.as_ref())?;
        match mark {
            Some(mark) => drop(directory.nodes.insert(name, mark)),
            None => drop(directory.nodes.remove(&name)),
        }
    }
    Ok(Changed::Replaced)
}

/// The caller tells the core, which knows nothing of who said why.
fn gpu(core: &Recorded, directory: &mut Directory, turn: &mut Turn, uuid: Name, order: Order, now: Timestamp) -> Answer {
    let is_known = core.nodes().flat_map(|node| node.gpus).any(|gpu| gpu.configured && *gpu.uuid == uuid);
    let present = directory.gpus.get(&uuid);
    // One that is gone can be resumed still: it is to be as new when it comes back.
    if !is_known && (present.is_none() || order.close.is_some()) {
        return Err(BackendError::NoObject { kind: "GPU", name: uuid });
    }
    let mark = order.apply(present, now);
    if mark.as_ref() != present {
        write::<Mark>(turn, ObjectKind::Node, gpu_object(&uuid), mark.as_ref())?;
        match mark {
            Some(mark) => drop(directory.gpus.insert(uuid, mark)),
            None => drop(directory.gpus.remove(&uuid)),
        }
    }
    Ok(Changed::Replaced)
}
