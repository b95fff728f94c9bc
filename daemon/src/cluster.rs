//! A Kubernetes cluster as the place where jobs run: how it is reached, and how its machines become nodes of the core.
//!
//! GPUs of a cluster have no identity that could be chosen: the core counts them under names of ours, and the cluster gives a pod whichever
//! are free on its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use executors::kubernetes::connect;
use executors::kubernetes::flashjob::FlashJobs;
use executors::kubernetes::lease::{Leadership, LeaseKeeper, LeaseOptions, LeaseState, Terms};
use executors::kubernetes::nodes::{ClusterNode, ClusterView, GpuResource, NodeAmounts, NodeRoom, NodeWatch, WatchOptions};
use kube::Client;
use scheduler_core::amounts::{CpuMillis, GPU_MILLIS, MemoryBytes};
use scheduler_core::ids::{Name, Term};
use scheduler_core::scheduler::{GpuDevice, GpuKind, NodeConfig};
use store::Store;
use tokio::sync::watch;

use crate::config::Config;
use crate::config::values::Label;
use crate::gpus::duration;

/// How long the start waits for the first view of the cluster.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Keys of taints that keep none of our pods away: the one that GPU machines usually have. Who goes there is decided by us.
pub(crate) const TOLERATED: [&str; 1] = ["nvidia.com/gpu"];

/// The least part of a GPU, in thousandths. Who asks for that gets any part that a device plugin gives out, as large as its node makes it.
pub(crate) const ANY_PART: u32 = 1;

/// Name of an installation that has been given none.
pub(crate) const OWN_INSTANCE: &str = "flash-sched";
/// The Lease of such an installation; those of others are called after them.
const LEASE: &str = "flashd";

/// What ends the daemon is read like the rest of its configuration: when it starts. What was good then and is not any more is read anew.
const UNUSABLE: &str = "it cannot start before this is mended";

/// What is known of a cluster, from now on.
pub type ClusterViews = watch::Receiver<Arc<ClusterView>>;

/// What is known of a cluster, and whether orders may be given there.
#[derive(Clone)]
pub struct ClusterState {
    views: ClusterViews,
    leadership: Leadership,
    /// Why FlashJobs cannot be seen, if they cannot and are to be.
    flash_jobs: watch::Receiver<Option<String>>,
}

impl ClusterState {
    /// The last view.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.views.borrow())
    }

    /// Why nothing new is known of it, if that is so.
    pub fn unseen(&self) -> Option<String> {
        let view = self.views.borrow();
        match &view.away {
            Some(why) => Some(format!("the cluster does not answer: {why}")),
            None if !view.listed => Some("the cluster's nodes are being read".to_owned()),
            None => None,
        }
    }

    /// Why nothing can be started there now, if nothing can.
    pub fn silence(&self) -> Option<String> {
        self.unseen().or_else(|| self.flash_jobs.borrow().clone()).or_else(|| self.leadership.check().err())
    }

    /// Waits for news. False when there will be none.
    pub(crate) async fn changed(&mut self, lease: &mut watch::Receiver<LeaseState>) -> bool {
        tokio::select! {
            changed = self.views.changed() => changed.is_ok(),
            changed = lease.changed() => changed.is_ok(),
            changed = self.flash_jobs.changed() => changed.is_ok(),
        }
    }

    pub(crate) fn leases(&self) -> watch::Receiver<LeaseState> {
        self.leadership.states()
    }
}

/// The Lease and the job table count terms together, wherever the table is: what fences writes to the table is no less than what fences orders to
/// the cluster, and neither begins anew when the other does. So whoever leads by the Lease in term N writes to the table under N or more, and
/// under no less than anybody before: the Lease is asked for in a term that is begun, in one no smaller than that, and no order is given
/// before the table has its number. A daemon whose term of the table has ended raises nothing.
struct TableTerms {
    latest: AtomicU64,
    store: Arc<dyn Store>,
}

#[async_trait]
impl Terms for TableTerms {
    fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    async fn begin(&self, term: u64) -> Result<(), String> {
        let raised = self.store.raise_term(Term(term)).await.map_err(|error| error.to_string())?;
        self.latest.fetch_max(raised.0, Ordering::AcqRel);
        Ok(())
    }
}

/// A cluster that is watched until this is dropped.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    watch: NodeWatch,
    pub(crate) leadership: Leadership,
    flash_jobs: watch::Sender<Option<String>>,
}

impl Cluster {
    /// Connects to the cluster that the configuration speaks of, and looks at its nodes. One that does not answer is asked on and on.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(crate) async fn begin(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<(Self, LeaseKeeper)> {
        let client = connect(config.kubernetes.kubeconfig.as_deref()).await.context(UNUSABLE)?;
        let watch = look(config, client.clone());
        if !first_view(&watch).await.listed {
            tracing::warn!("starting without nodes: the cluster has not told them yet");
        }
        let (namespace, name) = lease(config, &client);
        let (keeper, leadership) = LeaseKeeper::new(LeaseOptions {
            namespace,
            name,
            holder: holder(),
            duration: duration(config.kubernetes.lease_duration),
            client: client.clone(),
            terms: Arc::new(TableTerms { latest: AtomicU64::new(store.head().term.0), store }),
        });
        Ok((Self { client, watch, leadership, flash_jobs: watch::Sender::new(None) }, keeper))
    }

    pub(crate) fn views(&self) -> ClusterViews {
        self.watch.views()
    }

    pub(crate) fn room(&self) -> NodeRoom {
        self.watch.room()
    }

    pub(crate) fn state(&self) -> ClusterState {
        ClusterState { views: self.views(), leadership: self.leadership.clone(), flash_jobs: self.flash_jobs.subscribe() }
    }

    /// FlashJobs are followed too, from now on.
    pub(crate) fn follows(&self, flash_jobs: &FlashJobs) {
        flash_jobs.tell_unseen(self.flash_jobs.clone());
    }

    /// Its machines as they are now.
    pub(crate) fn nodes(&self) -> Vec<NodeConfig> {
        let view = self.watch.views().borrow().clone();
        view.nodes.values().map(|node| offer(node, &node.others)).collect()
    }
}

/// Begins to follow the machines.
pub(crate) fn look(config: &Config, client: Client) -> NodeWatch {
    NodeWatch::start(WatchOptions {
        client,
        instance: config.kubernetes.instance.as_str().to_owned(),
        grace: duration(config.kubernetes.node_grace),
        tolerated: TOLERATED.map(str::to_owned).to_vec(),
    })
}

/// What the cluster says of its machines, or why it does not; what is known after a while where it says neither.
pub(crate) async fn first_view(watch: &NodeWatch) -> Arc<ClusterView> {
    let mut views = watch.views();
    // Whatever it came to stands in the last view.
    let _ = tokio::time::timeout(FIRST_LOOK, views.wait_for(|view| view.listed || view.away.is_some())).await;
    let view = views.borrow();
    Arc::clone(&view)
}

/// Namespace and name of the Lease that an installation has.
pub(crate) fn lease(config: &Config, client: &Client) -> (String, String) {
    let settings = &config.kubernetes;
    let instance = settings.instance.as_str();
    let namespace = settings.namespace.as_ref().map_or_else(|| client.default_namespace(), Label::as_str);
    (namespace.to_owned(), if instance == OWN_INSTANCE { LEASE.to_owned() } else { format!("{LEASE}-{instance}") })
}

/// What this process is called as a holder: people see the machine, and no later process is called so.
fn holder() -> String {
    let machine = executors::node::inventory().hostname;
    format!("{machine}_{}_{}", std::process::id(), uuid::Uuid::now_v7().simple())
}

/// A node of the core: all its GPUs, and of the rest what is not `taken`.
pub(crate) fn offer(node: &ClusterNode, taken: &NodeAmounts) -> NodeConfig {
    let left = node.allocatable.clone().minus(taken);
    let gpus = node.allocatable.gpus.clone().plus(&node.sick_gpus);
    let gpus = gpus.each().flat_map(|(resource, count)| (0..count).map(|number| device(node, resource, number))).collect();
    let name = Name::from(node.name.as_str());
    let mut made = NodeConfig::new(name, CpuMillis(left.cpu_millis), MemoryBytes(left.memory_bytes), gpus);
    made.labels = node.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
    made
}

/// One of a node's GPUs or instances, under a name of ours.
fn device(node: &ClusterNode, resource: &GpuResource, number: u32) -> GpuDevice {
    let model = Name::from(node.gpu_model.as_str());
    match resource {
        GpuResource::Whole => {
            GpuDevice::whole(format!("{}/gpu-{number}", node.name).into(), model, MemoryBytes(node.gpu_memory_bytes))
        }
        GpuResource::Mig(profile) => {
            let memory = node.mig_memory_bytes.get(profile).copied().unwrap_or(0);
            let name = format!("{}/mig-{profile}-{number}", node.name);
            let kind = GpuKind::Mig { profile: profile.as_str().into() };
            GpuDevice { kind, ..GpuDevice::whole(name.into(), model, MemoryBytes(memory)) }
        }
        GpuResource::Shared => {
            let name = format!("{}/part-{number}", node.name);
            let kind = GpuKind::Replica { millis: part_millis(node.gpu_replicas) };
            GpuDevice { kind, ..GpuDevice::whole(name.into(), model, MemoryBytes(node.gpu_memory_bytes)) }
        }
    }
}

/// How much of a GPU one of so many parts is. Where nobody says how many there are, it is as little as can be asked for: who asks for any part may
/// have it, and nobody is promised more.
fn part_millis(replicas: u32) -> u32 {
    if replicas < 2 { ANY_PART } else { (GPU_MILLIS / replicas).max(ANY_PART) }
}

/// As what the cluster counts a GPU.
pub(crate) fn counted_as(kind: &GpuKind) -> GpuResource {
    match kind {
        GpuKind::Whole => GpuResource::Whole,
        GpuKind::Mig { profile } => GpuResource::Mig(profile.to_string()),
        GpuKind::Replica { .. } => GpuResource::Shared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_as_large_as_its_node_says() {
        assert_eq!([2, 3, 4, 10, 1_000, 5_000].map(part_millis), [500, 333, 250, 100, 1, 1]);
        assert_eq!([0, 1].map(part_millis), [1, 1], "nobody says how large");
    }
}
