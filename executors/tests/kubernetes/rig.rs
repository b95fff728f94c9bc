//! An executor with the service account's token, and what it tells.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use control_plane::PATIENCE;
use control_plane::{Cluster, Gate, NodeSpec, Options, Watched, for_test};
use executors::kubernetes::flashjob::{FlashJobExecutor, FlashJobOptions};
use executors::kubernetes::nodes::{NodeWatch, WatchOptions};
use executors::kubernetes::{JobExecutor, JobOptions, connect};
use executors::{Executor, Observed, PodOrder, Report, RunPhase, StartOrder, TaskOrder};
use k8s_openapi::api::batch::v1::Job;
use scheduler_core::event::RunResult;
use scheduler_core::ids::{Attempt, JobId, RunId};
use scheduler_core::job::StopPolicy;
use scheduler_core::time::Span;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A cluster in which everything is installed, and a kubeconfig with the daemon's rights.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) kubeconfig: PathBuf,
}

impl Site {
    pub(crate) fn start(what: &str) -> Option<Self> {
        let divided = NodeSpec { devices: vec![("nvidia.com/mig-1g.10gb".to_owned(), 7)], ..NodeSpec::plain("mig-0") };
        Self::with(what, vec![NodeSpec::with_gpus("gpu-0"), NodeSpec::plain("node-0"), NodeSpec::plain("node-1"), divided])
    }

    pub(crate) fn with(what: &str, nodes: Vec<NodeSpec>) -> Option<Self> {
        Some(Self::on(for_test(what, Options { nodes, ..Options::default() })?, None))
    }

    /// One whose executors can be cut off; `None` also where the cluster is not ours to hurt.
    pub(crate) fn behind_gate(what: &str, options: Options) -> Option<(Self, Gate)> {
        let cluster = for_test(what, options).filter(Cluster::is_ours)?;
        let gate = cluster.gate().unwrap();
        Some((Self::on(cluster, Some(&gate)), gate))
    }

    fn on(cluster: Cluster, gate: Option<&Gate>) -> Self {
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s");
        cluster.kubectl(&["apply", "--server-side", "--kustomize", manifests]).unwrap();
        let mut text = cluster.kubeconfig_of("flash-system", "flashd").unwrap();
        if let Some(gate) = gate {
            text = cluster.through(gate, &text).unwrap();
        }
        let folder = cluster.folder().map_or_else(std::env::temp_dir, std::path::Path::to_owned);
        let kubeconfig = folder.join(format!("flashd-{}.kubeconfig", std::process::id()));
        std::fs::write(&kubeconfig, text).unwrap();
        Self { cluster, kubeconfig }
    }

    /// One for all tests that do it no harm; it goes with this process.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SITE: OnceLock<Option<Site>> = OnceLock::new();
        SITE.get_or_init(|| Self::start("the job executor")).as_ref()
    }

    /// An executor that has adopted.
    pub(crate) async fn daemon(&self, instance: &str) -> Rig {
        let (reports, inbox) = mpsc::channel(64);
        let client = connect(Some(&self.kubeconfig)).await.unwrap();
        let executor = JobExecutor::new(JobOptions { client, instance: instance.to_owned(), reports });
        executor.adopt().await.unwrap();
        Rig { executor: Box::new(executor), inbox, told: Vec::new(), kubeconfig: self.kubeconfig.clone(), _nodes: None }
    }

    /// The other executor, likewise.
    pub(crate) async fn gang_daemon(&self, instance: &str) -> Rig {
        self.try_gang_daemon(instance).await.unwrap()
    }

    /// `None` while the API server is away.
    pub(crate) async fn try_gang_daemon(&self, instance: &str) -> Option<Rig> {
        let (reports, inbox) = mpsc::channel(64);
        let client = connect(Some(&self.kubeconfig)).await.unwrap();
        let instance = instance.to_owned();
        let (grace, tolerated) = (PATIENCE, Vec::new());
        let nodes = NodeWatch::start(WatchOptions { client: client.clone(), instance: instance.clone(), grace, tolerated });
        let room = nodes.room();
        let executor = FlashJobExecutor::new(FlashJobOptions { client, instance, reports, room, leadership: None });
        executor.adopt().await.ok()?;
        Some(Rig {
            executor: Box::new(executor),
            inbox,
            told: Vec::new(),
            kubeconfig: self.kubeconfig.clone(),
            _nodes: Some(nodes),
        })
    }
}

/// A name that no other test has.
pub(crate) fn instance() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A run of one task that plays for `duration` and ends with `code`.
pub(crate) fn order(duration: &str, code: &str) -> StartOrder {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = u128::from(std::process::id()) << 32 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let env = [("SIM_DURATION", duration), ("SIM_EXIT", code)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let task = TaskOrder {
        name: "main".into(),
        command: vec!["train".to_owned()],
        env: BTreeMap::from(env),
        working_dir: String::new(),
        cpu_millis: 10,
        memory_bytes: 1 << 20,
    };
    let run = RunId { job: JobId(uuid::Uuid::from_u128(number)), attempt: Attempt(1) };
    let pod = PodOrder { image: "any".to_owned(), ..PodOrder::new("default") };
    StartOrder { run, tasks: vec![task], uid: None, nice: 0, rlimits: BTreeMap::new(), line: None, devices: None, pod: Some(pod) }
}

/// The same with so many replicas.
pub(crate) fn replicas(count: u32, mut order: StartOrder) -> StartOrder {
    let first = order.tasks.remove(0);
    order.tasks = (0..count)
        .map(|number| TaskOrder { name: format!("{}-{number}", first.name).as_str().into(), ..first.clone() })
        .collect();
    order
}

/// SIGTERM, and this long until SIGKILL.
pub(crate) fn stop_after(seconds: u64) -> StopPolicy {
    StopPolicy { signal: 15, grace: Span::from_secs(seconds) }
}

/// An executor and what it tells.
pub(crate) struct Rig {
    pub(crate) executor: Box<dyn Executor>,
    inbox: mpsc::Receiver<Report>,
    told: Vec<Report>,
    kubeconfig: PathBuf,
    _nodes: Option<NodeWatch>,
}

impl Rig {
    pub(crate) async fn start(&self, order: StartOrder) -> RunId {
        let run = order.run;
        self.executor.start(vec![order]).await.unwrap();
        run
    }

    /// Waits for a report that is so; earlier ones count.
    pub(crate) async fn told(&mut self, mut so: impl FnMut(&Report) -> bool) -> Report {
        if let Some(report) = self.told.iter().find(|report| so(report)) {
            return report.clone();
        }
        let wait = async {
            loop {
                let report = self.news().await;
                if so(&report) {
                    return report;
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("a report in time")
    }

    pub(crate) async fn started(&mut self, run: RunId) {
        self.told(|report| matches!(report, Report::Started { run: told, .. } if *told == run)).await;
    }

    pub(crate) async fn ended(&mut self, run: RunId) -> RunResult {
        let report = self.told(|report| matches!(report, Report::Ended { run: told, .. } if *told == run)).await;
        assert_eq!(self.ends(run), 1, "{:?}", self.told);
        match report {
            Report::Ended { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    /// The next report.
    pub(crate) async fn news(&mut self) -> Report {
        let report = self.inbox.recv().await.unwrap();
        self.told.push(report.clone());
        report
    }

    /// How often an end was told so far.
    pub(crate) fn ends(&self, run: RunId) -> usize {
        self.told.iter().filter(|report| matches!(report, Report::Ended { run: told, .. } if *told == run)).count()
    }

    pub(crate) async fn disturbed(&mut self, words: &str) {
        self.told(|report| matches!(report, Report::Disturbed { message } if message.contains(words))).await;
    }

    pub(crate) async fn phase(&self, run: RunId) -> Option<RunPhase> {
        let observed = self.executor.observe().await.unwrap();
        observed.into_iter().find(|observed| observed.run == run).map(|Observed { phase, .. }| phase)
    }

    /// Looks until it is so, whenever something changes in the cluster or is told.
    pub(crate) async fn until(&mut self, run: RunId, so: impl Fn(&Option<RunPhase>) -> bool) {
        let (pods, jobs) = (Watched::pods(&self.kubeconfig).await, Watched::all::<Job>(&self.kubeconfig).await);
        let (mut pods, mut jobs) = (pods.changes(), jobs.changes());
        let look = async {
            while !so(&self.phase(run).await) {
                tokio::select! {
                    changed = pods.changed() => changed.unwrap(),
                    changed = jobs.changed() => changed.unwrap(),
                    _ = self.news() => {}
                }
            }
        };
        timeout(PATIENCE, look).await.expect("so in time");
    }
}
