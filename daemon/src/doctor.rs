//! `flashd doctor`: whether there is what the daemon needs, one line for each thing that was looked at, as soon as it was. It starts nothing, and makes
//! nothing but the data folder.
//!
//! Each thing is looked at as the daemon would, and what is wrong is told in the same words.

use executors::kubernetes::nodes::{ClusterView, GpuCounts, Standing};
use executors::kubernetes::{checkup, connect};
use kube::Client;
use store::{PostgresStore, Store as _, StoreError};

use crate::cluster;
use crate::commands::{print, runtime};
use crate::config::values::ExecutorKind;
use crate::config::{Config, Settings, paths};
use crate::gpus;

/// Rights that are named where more are missing.
const NAMED: usize = 6;

/// What a look has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Good,
    /// The daemon goes on without.
    Note,
    Bad,
}

/// Tells what was found, line by line, and counts what is bad.
#[derive(Default)]
struct Report {
    failed: usize,
}

impl Report {
    /// At once: some things take their time.
    fn line(&mut self, found: Found, what: &str, detail: &str) -> anyhow::Result<()> {
        let word = match found {
            Found::Good => "ok  ",
            Found::Note => "note",
            Found::Bad => "FAIL",
        };
        self.failed += usize::from(found == Found::Bad);
        print(&format!("{word}  {what}: {detail}\n"))
    }

    /// An error is bad. Whether there is none.
    fn outcome(&mut self, what: &str, outcome: Result<String, String>) -> anyhow::Result<bool> {
        let (found, detail) = match &outcome {
            Ok(detail) => (Found::Good, detail),
            Err(why) => (Found::Bad, why),
        };
        self.line(found, what, detail)?;
        Ok(outcome.is_ok())
    }
}

/// Prints a line for each thing.
///
/// # Errors
/// Something that is needed is missing, or the configuration cannot be used.
pub fn doctor(settings: Settings) -> anyhow::Result<()> {
    let config = Config::load(settings)?;
    let mut report = Report::default();
    runtime()?.block_on(look(&config, &mut report))?;
    anyhow::ensure!(report.failed == 0, "{} check(s) failed", report.failed);
    Ok(())
}

async fn look(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let kind = config.executors.first().copied().unwrap_or(ExecutorKind::Local);
    report.outcome("data folder", look_at_folder(config))?;
    let machine = executors::node::inventory();
    let cpus = machine.cpu_millis as f64 / 1_000.0;
    let gib = (machine.memory_bytes >> 20) as f64 / 1_024.0;
    report.line(Found::Good, "machine", &format!("{}: {cpus} CPUs, {gib:.1}Gi of memory", machine.hostname))?;
    if !kind.is_cluster() {
        let (found, detail) = look_at_gpus(config).await?;
        report.line(found, "GPUs", &detail)?;
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let enough = files.is_none_or(|files| files >= 4_096);
    let detail = files.map_or_else(|| "no limit".to_owned(), |files| format!("{files} (4096 or more are good)"));
    report.line(if enough { Found::Good } else { Found::Note }, "open files", &detail)?;
    look_at_database(config, report).await?;
    if kind.is_cluster() {
        look_at_cluster(config, kind, report).await?;
    }
    Ok(())
}

fn look_at_folder(config: &Config) -> Result<String, String> {
    let folder = config.data.display();
    let probe = config.data.join(format!(".doctor-{}", std::process::id()));
    let made = paths::create_data(&config.data).map_err(|error| error.to_string());
    let written = made.and_then(|()| {
        std::fs::write(&probe, "x").and_then(|()| std::fs::remove_file(&probe)).map_err(|error| error.to_string())
    });
    written.map(|()| folder.to_string()).map_err(|why| format!("{folder}: {why}"))
}

/// Those of this machine.
async fn look_at_gpus(config: &Config) -> anyhow::Result<(Found, String)> {
    let patience = gpus::duration(config.gpu.patience);
    let watcher = executors::gpu::Watcher::start(gpus::place(config).source(), patience, patience)?;
    let view = gpus::first_view(&watcher, patience * 2).await;
    let mut problems = view.survey.problems.clone();
    problems.extend(view.stall.map(|stall| format!("the driver does not answer {}", stall.function)));
    let models: Vec<&str> = view.survey.gpus.iter().map(|reading| reading.gpu.model.as_str()).collect();
    let driver = view.survey.driver.as_ref().map(|driver| format!("driver {}, CUDA {}", driver.version, driver.cuda));
    let found = if problems.is_empty() { Found::Good } else { Found::Note };
    let parts: Vec<String> = driver.into_iter().chain((!models.is_empty()).then(|| models.join(", "))).chain(problems).collect();
    let count = models.len().to_string();
    Ok((found, [vec![count], parts].concat().join("; ")))
}

/// A PostgreSQL; SQLite is in the data folder.
async fn look_at_database(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let address = match config.store.address() {
        Ok(Some(address)) => address,
        Ok(None) => return Ok(()),
        Err(error) => return report.line(Found::Bad, "database", &error.to_string()),
    };
    let (found, detail) = match PostgresStore::reading(address.clone()).standing().await {
        Ok(head) => (Found::Good, format!("{address}: term {}, revision {}", head.term, head.last_revision)),
        Err(error @ StoreError::NotMade { .. }) => (Found::Note, error.to_string()),
        // The start brings an older one up to date.
        Err(StoreError::OtherVersion { found, known, .. }) => {
            (Found::Note, format!("{address}: it has schema version {found}; the next start makes {known} of it"))
        }
        Err(error) => (Found::Bad, error.to_string()),
    };
    report.line(found, "database", &detail)
}

async fn look_at_cluster(config: &Config, kind: ExecutorKind, report: &mut Report) -> anyhow::Result<()> {
    let client = match connect(config.kubernetes.kubeconfig.as_deref()).await {
        Ok(client) => client,
        Err(error) => return report.line(Found::Bad, "cluster", &error.to_string()),
    };
    // Without an answer there is nothing more to ask.
    if !report.outcome("cluster", checkup::version(&client).await.map(|version| format!("Kubernetes {version}")))? {
        return Ok(());
    }
    let (namespace, lease) = cluster::lease(config, &client);
    report.outcome("rights", look_at_rights(&client, &namespace).await)?;
    if kind == ExecutorKind::FlashJob {
        report.outcome("FlashJobs", checkup::kinds(&client).await.map(|version| format!("the cluster serves {version}")))?;
    }
    let leads = checkup::leads(&client, &namespace, &lease).await;
    let of = |holder: Option<String>| match holder {
        Some(holder) => format!("{namespace}/{lease} is held by {holder}; another daemon is a standby until it is free"),
        None => format!("{namespace}/{lease} is free"),
    };
    report.outcome("Lease", leads.map(of))?;
    let (found, detail) = nodes(&*cluster::first_view(&cluster::look(config, client)).await);
    report.line(found, "nodes", &detail)
}

async fn look_at_rights(client: &Client, namespace: &str) -> Result<String, String> {
    let (lacking, all) = checkup::lacking(client, namespace).await?;
    if lacking.is_empty() {
        return Ok(format!("all {all} that a daemon needs"));
    }
    let mut named: Vec<String> = lacking.iter().take(NAMED).map(ToString::to_string).collect();
    if lacking.len() > NAMED {
        named.push(format!("{} more", lacking.len() - NAMED));
    }
    let mend = checkup::INSTALL;
    Err(format!("{} of {all} are missing: {}; `{mend}` gives the rights", lacking.len(), named.join(", ")))
}

/// How many there are, how many take pods, and their GPUs.
fn nodes(view: &ClusterView) -> (Found, String) {
    if !view.listed {
        return (Found::Bad, view.away.clone().unwrap_or_else(|| "the cluster has not told them in time".to_owned()));
    }
    let open = view.nodes.values().filter(|node| node.standing == Standing::Open).count();
    let gpus = view.nodes.values().fold(GpuCounts::default(), |sum, node| sum.plus(&node.allocatable.gpus));
    let mut parts = vec![format!("{} of {} take pods", open, view.nodes.len())];
    parts.extend(gpus.each().filter(|(_, count)| *count > 0).map(|(resource, count)| format!("{count} {}", resource.name())));
    if parts.len() == 1 {
        parts.push("no GPUs: a node has those that a device plugin gives out, as nvidia.com/gpu".to_owned());
    }
    (if open == 0 { Found::Note } else { Found::Good }, parts.join("; "))
}
