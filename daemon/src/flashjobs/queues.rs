//! ClusterResourceQueues as queues of the daemon: what they say is done, and how they stand is written back.
//!
//! What must hold:
//! - What was said of a queue over the API of the daemon is not overruled: its object says so.
//! - An object that is deleted stays until its queue is gone, which it is not while it has jobs.
//! - How queues stand is written together, every few seconds, and only where it differs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::quantity::{Cpu, GpuMillis, Memory, Weight};
use api::{Amounts, QueueSpec};
use executors::kubernetes::flashjob::{ClusterQueues, FlashJobs, QueueStand};
use executors::kubernetes::lease::Leadership;
use executors::kubernetes::{News, thousandths};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_types::ClusterResourceQueue;
use scheduler_core::ids::Name;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::link::{AGAIN, NEWS, leads};
use crate::backend::BackendError;
use crate::http::App;
use crate::names;
use crate::objects::edit::Change;
use crate::objects::owned::Owned;

/// Statuses that are written at a time.
const WRITTEN: usize = 64;

/// What became of an object.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Why its queue is not as it says.
    wrong: Option<String>,
    /// Why its queue is still there.
    stays: Option<String>,
    /// It is to be tried again.
    again: bool,
}

/// See the module.
pub struct QueueImporter {
    queues: Arc<ClusterQueues>,
    jobs: Arc<FlashJobs>,
    app: Arc<App>,
    leadership: Leadership,
    /// What `flashd.toml` says of queues: an object says only a part of what can be said.
    base: BTreeMap<Name, QueueSpec>,
    known: HashMap<String, Known>,
}

impl QueueImporter {
    /// Over the objects of the cluster and the edge of the daemon.
    pub fn new(
        queues: Arc<ClusterQueues>,
        jobs: Arc<FlashJobs>,
        app: Arc<App>,
        leadership: Leadership,
        base: BTreeMap<Name, QueueSpec>,
    ) -> Self {
        Self { queues, jobs, app, leadership, base, known: HashMap::new() }
    }

    /// Until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        if !leads(&self.leadership, &stop).await {
            return;
        }
        let (sender, mut inbox) = mpsc::channel(NEWS);
        let mut source = tokio::spawn(self.queues.clone().run(sender));
        let mut tick = tokio::time::interval(AGAIN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = &mut source => return tracing::error!("ClusterResourceQueues are not followed any more"),
                Some(news) = inbox.recv() => match news {
                    News::Applied(queue) => self.applied(&queue).await,
                    News::Gone(queue) => self.gone(&queue).await,
                    News::Listed => self.listed().await,
                },
                _ = tick.tick() => {
                    for queue in self.queues.all() {
                        if self.known.get(&uid(&queue)).is_some_and(|known| known.again) {
                            self.applied(&queue).await;
                        }
                    }
                    self.write().await;
                }
            }
            self.jobs.keep_for(self.queues.all().iter().filter_map(|queue| lifetime(queue)).collect());
        }
        source.abort();
    }

    async fn applied(&mut self, queue: &ClusterResourceQueue) {
        if queue.metadata.deletion_timestamp.is_some() {
            return self.deleted(queue).await;
        }
        let name = name_of(queue);
        let base = self.base.get(&name).cloned().unwrap_or_default();
        let mut known = Known::default();
        match queue_spec(queue, base) {
            Err(why) => known.wrong = Some(why),
            Ok(says) => match self.queues.keep(queue, true).await {
                Err(why) => {
                    tracing::debug!(why, queue = %name, "a queue is not taken over yet");
                    known.again = true;
                }
                Ok(()) => self.change(&name, Some(says), &mut known).await,
            },
        }
        self.known.insert(uid(queue), known);
    }

    /// Its object waits for its end.
    async fn deleted(&mut self, queue: &ClusterResourceQueue) {
        let name = name_of(queue);
        let mut known = Known::default();
        self.change(&name, None, &mut known).await;
        if known.wrong.is_none() && !known.again {
            if let Err(why) = self.queues.keep(queue, false).await {
                tracing::debug!(why, queue = %name, "the object of a queue is not let go yet");
                known.again = true;
            }
        } else {
            (known.stays, known.again) = (known.wrong.take(), true);
        }
        self.known.insert(uid(queue), known);
    }

    async fn gone(&mut self, queue: &ClusterResourceQueue) {
        self.known.remove(&uid(queue));
        // Somebody took our finalizer away.
        self.change(&name_of(queue), None, &mut Known::default()).await;
    }

    /// Queues whose objects went while nobody looked.
    async fn listed(&mut self) {
        let there: Vec<Name> = self.queues.all().iter().map(|queue| name_of(queue)).collect();
        let orphans: Vec<Name> =
            self.app.backend.directory().owned.keys().filter(|name| !there.contains(name)).cloned().collect();
        for name in orphans {
            let mut known = Known::default();
            self.change(&name, None, &mut known).await;
            if let Some(why) = known.wrong {
                tracing::warn!(queue = %name, why, "the ClusterResourceQueue of a queue is gone, and the queue is still there");
            }
        }
    }

    async fn change(&self, name: &Name, says: Option<(QueueSpec, Owned)>, known: &mut Known) {
        if let Err(why) = self.leadership.check() {
            tracing::debug!(why, queue = %name, "a queue is not changed now");
            known.again = true;
            return;
        }
        let change = Change::ClusterQueue(name.clone(), says);
        match self.app.backend.change(change).await {
            Ok(_) => {}
            // What stands in the way may go.
            Err(BackendError::Conflict(why)) => (known.wrong, known.again) = (Some(why), true),
            Err(BackendError::Invalid(invalid)) => {
                (known.wrong, known.again) = (Some(format!("{}: {}", path(&invalid.field), invalid.detail)), true);
            }
            Err(error) => {
                tracing::debug!(%error, queue = %name, "a queue is to be changed later");
                known.again = true;
            }
        }
    }

    async fn write(&self) {
        let snapshot = match self.app.backend.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => return tracing::debug!(%error, "how queues stand is not known now"),
        };
        let mut written = 0;
        for object in self.queues.all() {
            let Some(known) = self.known.get(&uid(&object)) else { continue };
            let name = name_of(&object);
            let ours = self.app.backend.directory().queues.get(&name) == Some(&api::Origin::Cluster);
            let queue = snapshot.queues.iter().find(|queue| queue.name == name.as_str()).filter(|_| ours);
            let mut stand = QueueStand { wrong: known.wrong.clone(), stays: known.stays.clone(), ..QueueStand::default() };
            if let Some(queue) = queue {
                (stand.pending, stand.running) = (queue.waiting.saturating_add(queue.queued), queue.active);
                stand.used = used(&queue.used);
            }
            match self.queues.say(&object, &stand).await {
                Ok(false) => continue,
                Ok(true) => {}
                Err(why) => tracing::debug!(why, queue = %name, "how a queue stands is not written yet"),
            }
            written += 1;
            if written >= WRITTEN {
                return;
            }
        }
    }
}

fn uid(queue: &ClusterResourceQueue) -> String {
    queue.metadata.uid.clone().unwrap_or_default()
}

fn name_of(queue: &ClusterResourceQueue) -> Name {
    queue.metadata.name.as_deref().unwrap_or_default().into()
}

/// How long FlashJobs of this queue are kept that do not say so themselves, in seconds.
fn lifetime(queue: &ClusterResourceQueue) -> Option<(String, i64)> {
    Some((queue.metadata.name.clone()?, queue.spec.ttl_seconds)).filter(|(_, ttl)| *ttl > 0)
}

/// As the object calls what a queue of the daemon calls otherwise.
fn path(field: &str) -> String {
    match field {
        "guaranteed" | "limit" => format!("spec.quota.{field}"),
        "" => "spec".to_owned(),
        other => format!("spec.{other}"),
    }
}

/// What it says, or what is wrong with it.
fn queue_spec(queue: &ClusterResourceQueue, base: QueueSpec) -> Result<(QueueSpec, Owned), String> {
    let name = name_of(queue);
    if !names::is_label(name.as_str()) {
        return Err(format!("metadata.name `{name}` is not the name of a queue: {}", names::LABEL_RULE));
    }
    let spec = &queue.spec;
    let number = |field: &str, value: i64| i32::try_from(value).map_err(|_| format!("spec.{field} is {value}: too large"));
    let count = |value: i64| u32::try_from(value).ok().filter(|count| *count > 0);
    let weight = spec.weight.map(|weight| u32::try_from(weight.saturating_mul(1_000)).map(Weight));
    let quota = spec.quota.clone().unwrap_or_default();
    let says = QueueSpec {
        priority: number("priority", spec.priority)?,
        preemptible: spec.is_preemptible,
        max_concurrent: count(spec.max_concurrent),
        cohort: spec.cohort.clone(),
        weight: weight.transpose().map_err(|_| "spec.weight is not 1 to 1000000".to_owned())?.unwrap_or(Weight::ONE),
        guaranteed: amounts("guaranteed", &quota.guaranteed)?,
        limit: amounts("limit", &quota.limit)?,
        ..base
    };
    Ok((says, Owned { namespaces: spec.namespaces.clone() }))
}

fn amounts(field: &str, quota: &BTreeMap<String, Quantity>) -> Result<Amounts, String> {
    let mut made = Amounts::default();
    for (resource, quantity) in quota {
        let at = format!("spec.quota.{field}.{resource}");
        let wrong = |what: &str| format!("{at} is `{}`: write {what}", quantity.0.escape_debug());
        let amount = thousandths(quantity).ok_or_else(|| wrong("an amount that is not below zero"))?;
        let whole = amount.div_ceil(1_000);
        match resource.as_str() {
            "cpu" => made.cpu = Some(Cpu(u64::try_from(amount).map_err(|_| wrong("a smaller one"))?)),
            "memory" => made.memory = Some(Memory(u64::try_from(whole).map_err(|_| wrong("a smaller one"))?)),
            "nvidia.com/gpu" if !amount.is_multiple_of(1_000) => return Err(wrong("a whole number of GPUs")),
            "nvidia.com/gpu" => {
                let gpus = u32::try_from(whole).ok().filter(|gpus| *gpus <= u32::MAX / 1_000);
                made.gpu = Some(GpuMillis::whole(gpus.ok_or_else(|| wrong("a smaller one"))?));
            }
            _ => return Err(format!("{at} is not counted by queues; they count cpu, memory and nvidia.com/gpu: leave it out")),
        }
    }
    Ok(made)
}

fn used(amounts: &Amounts) -> BTreeMap<String, String> {
    let parts = [
        ("cpu", amounts.cpu.filter(|cpu| cpu.0 > 0).map(|cpu| cpu.to_string())),
        ("memory", amounts.memory.filter(|memory| memory.0 > 0).map(|memory| memory.to_string())),
        ("nvidia.com/gpu", amounts.gpu.filter(|gpu| gpu.0 > 0).map(|gpu| gpu.to_string())),
    ];
    parts.into_iter().filter_map(|(resource, amount)| Some((resource.to_owned(), amount?))).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(name: &str, spec: Value) -> Result<(QueueSpec, Owned), String> {
        let queue = json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "ClusterResourceQueue",
            "metadata": {"name": name}, "spec": spec});
        let base =
            QueueSpec { priority: 9, preemptible: true, age_per_point: api::quantity::Duration(5), ..QueueSpec::default() };
        queue_spec(&serde_json::from_value(queue).unwrap(), base)
    }

    #[test]
    fn what_an_object_says_is_what_the_queue_is() {
        let quota = json!({"guaranteed": {"nvidia.com/gpu": "4", "cpu": "1500m"}, "limit": {"memory": "1Gi"}});
        let (spec, owned) = read(
            "train",
            json!({"priority": 100, "maxConcurrent": 2, "cohort": "lab", "weight": 3, "quota": quota, "namespaces": ["a"]}),
        )
        .unwrap();
        assert_eq!((spec.priority, spec.preemptible, spec.max_concurrent), (100, false, Some(2)));
        assert_eq!((spec.cohort.as_deref(), spec.weight), (Some("lab"), Weight(3_000)));
        assert_eq!((spec.guaranteed.gpu, spec.guaranteed.cpu), (Some(GpuMillis::whole(4)), Some(Cpu(1_500))));
        assert_eq!((spec.limit.memory, spec.age_per_point.0), (Some(Memory(1 << 30)), 5), "the file says what an object cannot");
        assert!(owned.takes("a") && !owned.takes("b") && Owned::default().takes("b"));
        let (plain, _) = read("plain", json!({})).unwrap();
        assert_eq!((plain.priority, plain.max_concurrent, plain.weight), (0, None, Weight::ONE));
    }

    #[test]
    fn what_cannot_be_is_said_with_what_to_write() {
        let quota = |quota: Value| json!({"quota": quota});
        for (name, spec, words) in [
            ("a.b", json!({}), "metadata.name `a.b` is not the name of a queue"),
            (
                "q",
                quota(json!({"limit": {"nvidia.com/gpu": "1500m"}})),
                "spec.quota.limit.nvidia.com/gpu is `1500m`: write a whole",
            ),
            ("q", quota(json!({"guaranteed": {"cpu": "-1"}})), "spec.quota.guaranteed.cpu is `-1`: write an amount"),
            ("q", quota(json!({"limit": {"pods": "3"}})), "they count cpu, memory and nvidia.com/gpu"),
            ("q", json!({"priority": 9_000_000_000_i64}), "too large"),
        ] {
            let error = read(name, spec).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
