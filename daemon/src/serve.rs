//! `flashd serve`: builds every part, connects them, and decides what the end of each means.
//!
//! What must hold:
//! - Parts start in the order store, core, executor, engine, HTTP, and stop in the reverse order. Jobs run on.
//! - The first signal drains: HTTP takes no more, what is under way is answered, the engine settles what it has. The second ends at once.
//! - The end of any part that was not asked to end is the end of the daemon, with an error: half a daemon is worse than none.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use anyhow::{Context, anyhow};
use api::Origin;
use executors::Executor;
use executors::kubernetes::flashjob::{FlashJobExecutor, FlashJobOptions};
use executors::kubernetes::{JobExecutor, JobOptions, connect};
use executors::local::{LocalExecutor, LocalOptions};
use scheduler_core::ids::Name;
use scheduler_core::scheduler::{HEADS_LIMIT, NodeConfig, Preemption};
use scheduler_core::time::Span;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::boot::Boot;
use crate::cluster::Cluster;
use crate::config::values::{Discipline, ExecutorKind};
use crate::config::{Config, paths};
use crate::decision_log::DecisionLog;
use crate::dispatch::{self, Dispatcher};
use crate::engine::{Engine, EngineHandle, HandleParts, Observed, Parts, Told, rebuild};
use crate::flashjobs::{Compared, Importer, PodImporter, QueueImporter};
use crate::gpus::access::{Access, DeviceGuard};
use crate::gpus::{Keeper, KeeperParts, SharedBoard, Survey};
use crate::http::cluster_auth::ClusterAuth;
use crate::metrics::Metrics;
use crate::objects::{Seeds, SharedDirectory, convert};
use crate::orders::OrderContext;
use crate::reconcile::Reconciler;
use crate::retention::Retention;
use crate::systemd::{Notice, notify};
use crate::table::Table;
use crate::watch::Feed;
use crate::{clock, http, machine};

/// Ends of runs that wait for their GPUs, at most; more are believed at once.
const GATE: usize = 4_096;

/// What a task's end means: its name, and how it ended.
type Ended = (&'static str, anyhow::Result<()>);

/// What the configuration says of queues, cohorts and classes, and the rules.
fn seeds(config: &Config, nodes: Vec<NodeConfig>) -> anyhow::Result<Seeds> {
    let name = |label: &crate::config::values::Label| Name::from(label.as_str());
    let mut seeds = Seeds::default();
    for queue in &config.queues {
        let origin = if queue.is_built_in() { Origin::BuiltIn } else { Origin::File };
        seeds.queues.push((convert::queue_config(&name(&queue.name), &queue.spec())?, origin));
    }
    for cohort in &config.cohorts {
        seeds.cohorts.push(convert::cohort_config(&name(&cohort.name), &cohort.spec())?);
    }
    seeds.classes = config.priority_classes.iter().map(|class| (name(&class.name), class.priority)).collect();
    let preemption = config.scheduler.preemption;
    seeds.base = scheduler_core::Config {
        nodes,
        discipline: match config.scheduler.discipline {
            Discipline::Easy => scheduler_core::Discipline::Easy,
            Discipline::Fifo => scheduler_core::Discipline::Strict,
            Discipline::Conservative => scheduler_core::Discipline::Conservative {
                heads: u32::try_from(config.scheduler.reservations.unwrap_or(1)).unwrap_or(HEADS_LIMIT),
            },
        },
        preemption: Preemption {
            within_queue: preemption.within_queue,
            reclaim: preemption.reclaim,
            across_queues: preemption.across_queues,
        },
        ..scheduler_core::Config::default()
    };
    Ok(seeds)
}

/// Output of jobs is nobody's but theirs who ask through the daemon.
fn create_logs(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// This very program in its other mode. The path is that of the file, also where it has been replaced since this process began.
fn runner_command(config: &Config) -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("finding the own program")?;
    let mut command = vec![program.into_os_string(), "runner".into()];
    command.extend(["--spawn-threads".into(), config.local.spawn_threads.to_string().into()]);
    if let Some(root) = &config.local.cgroup_root {
        command.extend(["--cgroup-root".into(), root.clone().into_os_string()]);
    }
    if let Some(root) = &config.local.device_cgroup_root {
        command.extend(["--device-root".into(), root.clone().into_os_string()]);
    }
    Ok(command)
}

/// Who knows users of the cluster, if they are to be known here: the cluster in which jobs run, or the one of the configuration.
pub(crate) async fn cluster_auth(config: &Config, cluster: Option<&Cluster>) -> anyhow::Result<Option<ClusterAuth>> {
    if !config.auth.kubernetes {
        return Ok(None);
    }
    let client = match cluster {
        Some(cluster) => cluster.client.clone(),
        None => connect(config.kubernetes.kubeconfig.as_deref()).await.context("auth.kubernetes")?,
    };
    Ok(Some(ClusterAuth::new(client, &config.auth)))
}

/// Runs the daemon until it is told to stop.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    paths::create_data(&config.data).with_context(|| format!("data folder {}", config.data.display()))?;
    let logs = config.data.join("logs");
    create_logs(&logs).with_context(|| format!("log folder {}", logs.display()))?;
    let metrics = Arc::new(Metrics::new());
    let Some(Table { store, kept, lock }) = Table::open(&config, &mut signals).await? else { return Ok(()) };
    let head = store.head();

    let kind = config.executors.first().copied().unwrap_or(ExecutorKind::Local);
    let (cluster, lease) =
        if kind.is_cluster() { Some(Cluster::begin(&config, store.clone()).await?).unzip() } else { (None, None) };
    let (nodes, survey) = if let Some(cluster) = &cluster {
        (cluster.nodes(), None)
    } else {
        let survey = Survey::begin(&config).await?;
        (vec![machine::node(&config, survey.devices())], Some(survey))
    };
    let sum = |part: fn(&NodeConfig) -> u64| nodes.iter().map(part).sum::<u64>();
    tracing::info!(
        nodes = nodes.len(), first = nodes.first().map(|node| node.name.as_str()), cpu_millis = sum(|node| node.cpu.0),
        memory_bytes = sum(|node| node.memory.0), gpus = sum(|node| node.gpus.len() as u64),
        gpu_note = survey.as_ref().map(Survey::note).unwrap_or_default(), term = %head.term, revision = %head.last_revision, "starting"
    );
    let log = config.decision_log.as_deref().map(|path| DecisionLog::open(path, config.decision_log_limit)).transpose()?;
    let tapper = log.as_ref().map(DecisionLog::tapper);
    // Those of a cluster come and go: the engine enters them.
    let nodes = if cluster.is_some() { Vec::new() } else { nodes };
    let mut seeds = seeds(&config, nodes).context("configuration of queues")?;
    seeds.of_cluster = kind == ExecutorKind::FlashJob;
    let said_of_queues = seeds.queues.iter().map(|(queue, _)| (queue.name.clone(), convert::queue_spec(queue))).collect();
    let (first, names) = rebuild(&seeds, tapper.as_ref(), store.as_ref(), None, clock::now()).await?;
    let told = Told::load(store.as_ref()).await.context("notes of the daemon")?;
    let boot = Boot::find(store.as_ref(), &first).await.context("notes of the daemon")?;
    let core = Arc::new(Mutex::new(first));
    let directory = SharedDirectory::default();
    directory.set(names);

    let board = SharedBoard::default();
    let known_gpus = seeds.base.nodes.first().map(|node| node.gpus.clone()).unwrap_or_default();
    let sees = survey.as_ref().is_some_and(|survey| survey.sees);
    let (keeper, observed) = match survey {
        Some(Survey { watcher, first, sees }) => {
            let parts = KeeperParts {
                watcher,
                core: core.clone(),
                board: board.clone(),
                users: Arc::default(),
                store: store.clone(),
                sees,
            };
            let mut keeper = Keeper::new(parts, &config);
            let observed = keeper.begin(&first).await;
            (Some(keeper), observed)
        }
        None => (None, Observed::default()),
    };
    let (gate, gated) = mpsc::channel(GATE);
    let feed = Feed::new(head.last_revision);
    let nudge = Arc::new(Notify::new());
    let (orders, order_queue) = mpsc::channel(dispatch::QUEUE);
    let holding = Arc::new(AtomicBool::new(false));
    // A reboot here ends nothing of a cluster.
    let doubtful = if cluster.is_some() { BTreeSet::new() } else { boot.doubtful().clone() };
    // FlashJobs, and pods that have none.
    let compared = (kind == ExecutorKind::FlashJob).then(|| Compared::new(2, nudge.clone()));
    let (engine, channels) = Engine::new(Parts {
        core: core.clone(),
        seeds,
        tapper,
        directory: directory.clone(),
        store: store.clone(),
        feed: feed.clone(),
        orders: orders.clone(),
        nudge: nudge.clone(),
        metrics: metrics.clone(),
        holding: holding.clone(),
        boot,
        observed,
        told,
        known_gpus,
        cluster: cluster.as_ref().map(Cluster::state),
        gate: sees.then_some(gate),
        compared: compared.clone(),
        failures_in_a_row: u32::try_from(config.node.failures_in_a_row).unwrap_or(u32::MAX),
    });
    let pods = cluster.is_some();
    let mut flash_jobs = None;
    let mut device_access = None;
    let executor: Arc<dyn Executor> = if let Some(cluster) = &cluster {
        let (client, leadership) = (cluster.client.clone(), cluster.leadership.clone());
        let instance = config.kubernetes.instance.as_str().to_owned();
        let reports = channels.reports.clone();
        if kind == ExecutorKind::FlashJob {
            let (room, leads) = (cluster.room(), Some(leadership.clone()));
            let executor = FlashJobExecutor::new(FlashJobOptions { client, instance, reports, room, leadership: leads });
            cluster.follows(&executor.flash_jobs());
            flash_jobs = Some((executor.flash_jobs(), executor.lone_pods(), executor.cluster_queues(), leadership.clone()));
            Arc::new(executor)
        } else {
            Arc::new(
                JobExecutor::new(JobOptions { client, instance, reports })
                    .with_nodes(cluster.views())
                    .with_leadership(leadership),
            )
        }
    } else {
        let options = LocalOptions::new(&config.data, &logs, runner_command(&config)?, channels.reports.clone());
        let executor = LocalExecutor::new(options).context("local executor")?;
        device_access = Some(DeviceGuard { access: Access::new(board.clone(), &config.gpu), runner: executor.device_access() });
        Arc::new(executor)
    };
    let (adopted_sender, adopted) = watch::channel(false);
    let (trouble_sender, trouble) = watch::channel(None);
    let ready = adopted.clone();
    let stopping = CancellationToken::new();
    let handle = HandleParts {
        core: core.clone(),
        directory: directory.clone(),
        feed,
        store: store.clone(),
        adopted: adopted.clone(),
        trouble,
        board,
        devices: device_access.clone(),
        cluster: cluster.as_ref().map(Cluster::state),
        stopping: stopping.clone(),
    };
    let backend = Arc::new(EngineHandle::new(&channels, handle));
    let dispatcher = Dispatcher {
        core: core.clone(),
        store: store.clone(),
        executor: executor.clone(),
        reports: channels.reports.clone(),
        nudge: nudge.clone(),
        context: OrderContext {
            own_uid: rustix::process::geteuid().as_raw(),
            pods,
            binds: kind == ExecutorKind::FlashJob,
            mps_pipes: Some(config.gpu.mps_pipe_directory.clone()),
            access: device_access.as_ref().map(|guard| guard.access.clone()),
        },
    };
    let reconciler = Reconciler {
        executor,
        core,
        store: store.clone(),
        orders,
        reports: channels.reports.clone(),
        nudge,
        metrics: metrics.clone(),
        holding,
        doubtful,
        trouble: trouble_sender,
    };
    let retention = Retention {
        store: store.clone(),
        logs: logs.clone(),
        events: Span(config.retention.events.0),
        jobs: Span(config.retention.jobs.0),
        usage: Span(config.retention.usage.0),
    };

    // Two stages, so that HTTP is drained while the engine still answers.
    let engine_stop = CancellationToken::new();
    let cluster_auth = cluster_auth(&config, cluster.as_ref()).await?;
    let app = http::App::new(&config, logs, backend, directory, metrics, cluster_auth, stopping.clone());
    let listeners = http::Listeners::bind(&config, kept).await?;
    tracing::info!(socket = %config.socket.display(), tcp = listeners.address().map(tracing::field::display), "listening");
    let mut parts: JoinSet<Ended> = JoinSet::new();
    let stop = engine_stop.clone();
    parts.spawn(async move { ("engine", engine.run(stop).await.map_err(anyhow::Error::from)) });
    parts.spawn(async move {
        dispatcher.run(order_queue, adopted).await;
        ("dispatcher", Ok(()))
    });
    if let Some(keeper) = keeper {
        let (stop, commands) = (engine_stop.clone(), channels.gpus.clone());
        parts.spawn(async move {
            keeper.run(commands, gated, stop).await;
            ("keeper of the GPUs", Ok(()))
        });
    }
    if let Some(mut lease) = lease {
        let stop = engine_stop.clone();
        parts.spawn(async move {
            tokio::select! {
                why = lease.run() => return ("leadership", Err(anyhow!("{why}; this daemon gives no orders any more"))),
                () = stop.cancelled() => {}
            }
            lease.release().await;
            ("leadership", Ok(()))
        });
    }
    let (stop, table) = (engine_stop.clone(), store.clone());
    parts.spawn(async move {
        // Also where there is nothing to write: who has lost the table gives no orders, and lets the Lease go.
        tokio::select! {
            why = table.ended() => ("job table", Err(why.into())),
            () = stop.cancelled() => ("job table", Ok(())),
        }
    });
    let stop = engine_stop.clone();
    parts.spawn(async move {
        reconciler.run(adopted_sender, stop).await;
        ("reconciler", Ok(()))
    });
    let stop = stopping.clone();
    parts.spawn(async move {
        retention.run(stop).await;
        ("retention", Ok(()))
    });
    if let Some(((board, pods, queues, leadership), compared)) = flash_jobs.zip(compared) {
        let stop = || engine_stop.clone();
        let queues = QueueImporter::new(queues, board.clone(), app.clone(), leadership.clone(), said_of_queues).run(stop());
        let jobs = Importer::new(board, app.clone(), leadership.clone(), compared.clone()).run(stop());
        let pods = PodImporter::new(pods, app.clone(), leadership, compared).run(stop());
        parts.spawn(async move {
            tokio::select! { () = jobs => {}, () = pods => {}, () = queues => {} }
            ("importers of the cluster's objects", Ok(()))
        });
    }
    let mut edge: JoinSet<Ended> = JoinSet::new();
    edge.spawn(async move {
        let router = http::router(app.clone());
        listeners.serve(app, router).await;
        ("http", Ok(()))
    });
    tokio::spawn(tell_ready(ready));

    let outcome = supervise(&mut signals, &mut parts, &mut edge, &stopping, &engine_stop).await;
    store.close().await;
    drop(lock);
    if let Some(log) = log {
        log.finish();
    }
    outcome
}

/// Tells systemd once the executors are taken over; from then on `/readyz` says so too.
async fn tell_ready(mut adopted: watch::Receiver<bool>) {
    if adopted.wait_for(|adopted| *adopted).await.is_ok()
        && let Err(error) = notify(Notice::Ready)
    {
        tracing::warn!(%error, "telling systemd failed");
    }
}

/// Waits for the end, asked for or not, and brings the rest down in order.
async fn supervise(
    signals: &mut Signals,
    parts: &mut JoinSet<Ended>,
    edge: &mut JoinSet<Ended>,
    stopping: &CancellationToken,
    engine_stop: &CancellationToken,
) -> anyhow::Result<()> {
    let unexpected = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "draining; jobs run on, another signal ends at once");
            None
        }
        Some(ended) = parts.join_next() => Some(ended),
        Some(ended) = edge.join_next() => Some(ended),
    };
    stopping.cancel();
    if let Err(error) = notify(Notice::Stopping) {
        tracing::debug!(%error, "telling systemd failed");
    }
    let drain = async {
        while let Some(ended) = edge.join_next().await {
            report(ended);
        }
        engine_stop.cancel();
        while let Some(ended) = parts.join_next().await {
            report(ended);
        }
    };
    tokio::select! {
        name = signals.next() => {
            tracing::warn!(signal = name, "ending at once");
            std::process::exit(130);
        }
        () = drain => {}
    }
    match unexpected {
        None => Ok(()),
        Some(Ok((name, Ok(())))) => Err(anyhow!("the {name} ended by itself")),
        Some(Ok((name, Err(error)))) => Err(error.context(format!("the {name} failed"))),
        Some(Err(error)) => Err(anyhow!(error).context("a part panicked")),
    }
}

fn report(ended: Result<Ended, tokio::task::JoinError>) {
    match ended {
        Ok((name, Ok(()))) => tracing::debug!(part = name, "ended"),
        Ok((name, Err(error))) => tracing::error!(part = name, error = format!("{error:#}"), "ended with an error"),
        Err(error) => tracing::error!(%error, "a part panicked"),
    }
}

/// The signals that end the daemon.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("handling SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("handling SIGINT")?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
