//! Where it happens: a control plane of its own with nodes, and our daemon with the queues, or the default scheduler.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use control_plane::{Cluster, NodeSpec, Part};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::load::{CLASSES, Load};
use crate::meters::Requests;
use crate::{Options, What};

/// How long the daemon may take until it is ready, and to end.
const PATIENCE: Duration = Duration::from_mins(2);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Nothing was asked for that long: it is quiet.
const QUIET: Duration = Duration::from_secs(2);
/// Requests within that time that say nothing: Leases, and our own.
const MURMUR: u64 = 20;
/// Processors of a node.
const NODE_CPUS: u64 = 120;
/// Requests a second that the controllers may make where nothing else is said: more than this machine can answer.
const RATE: u32 = 5_000;

/// See the module. Its processes end with it.
pub(crate) struct Site {
    daemon: Option<(Child, PathBuf)>,
    cluster: Cluster,
    folder: tempfile::TempDir,
}

fn part_args(options: &Options) -> Vec<(Part, String)> {
    if options.default_rates {
        return Vec::new();
    }
    let of = |part: Part| [("qps", RATE), ("burst", RATE)].map(|(what, rate)| (part, format!("--kube-api-{what}={rate}")));
    let mut args = [of(Part::ControllerManager), of(Part::Scheduler)].concat();
    args.push((Part::ControllerManager, "--concurrent-job-syncs=20".to_owned()));
    args
}

impl Site {
    pub(crate) fn start(options: &Options, load: &Load) -> Result<Self> {
        let flashd = match &options.flashd {
            Some(path) => path.clone(),
            // target/release/deps/flashjobs-..: programs are one folder above.
            None => {
                std::env::current_exe().context("finding this program")?.ancestors().nth(2).context("a folder")?.join("flashd")
            }
        };
        if options.what == What::Flashjobs && !flashd.is_file() {
            bail!("{} is not there: `cargo build --release -p daemon` makes it", flashd.display());
        }
        // Machines are not what is short under quotas; without, they are the quota.
        let cpus = if options.what == What::Flashjobs { 2 * load.cores() } else { load.cores() };
        let node = |number: u64| NodeSpec { cpus: NODE_CPUS, ..NodeSpec::plain(format!("node-{number}")) };
        let nodes = (0..cpus.div_ceil(NODE_CPUS)).map(node).collect();
        let cluster = Cluster::start(control_plane::Options { nodes, part_args: part_args(options), ..Default::default() })?;
        let folder = tempfile::tempdir().context("making a folder")?;
        let mut site = Self { daemon: None, cluster, folder };
        match options.what {
            What::Flashjobs => site.install(options, flashd, load)?,
            What::Jobs => {
                for (name, value) in CLASSES {
                    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                        "value": value, "preemptionPolicy": "Never"});
                    site.cluster.kubectl_with(&["create", "--filename", "-"], &class.to_string())?;
                }
            }
        }
        Ok(site)
    }

    fn install(&mut self, options: &Options, flashd: PathBuf, load: &Load) -> Result<()> {
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s");
        self.cluster.kubectl(&["apply", "--server-side", "--kustomize", manifests])?;
        let folder = self.folder.path();
        let log = options.out.as_deref().unwrap_or(folder).join("flashd.log");
        let (kubeconfig, config) = (folder.join("kubeconfig"), folder.join("flashd.toml"));
        std::fs::write(&kubeconfig, self.cluster.kubeconfig_of("flash-system", "flashd")?).context("writing a kubeconfig")?;
        std::fs::write(&config, daemon_config(load)).context("writing flashd.toml")?;
        let output = std::fs::File::create(&log).context("making a log")?;
        let mut command = Command::new(&flashd);
        command.arg("serve").arg("--data").arg(folder.join("data")).arg("--config").arg(&config);
        command.arg("--kubernetes-kubeconfig").arg(&kubeconfig);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {}", flashd.display()))?;
        self.daemon = Some((child, log));
        let begun = Instant::now();
        while !is_ready(&folder.join("data/flashd.sock")) {
            self.check()?;
            if begun.elapsed() > PATIENCE {
                bail!("flashd is not ready in time: {}", self.said());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The administrator.
    pub(crate) async fn client(&self) -> Result<Client> {
        let read = Kubeconfig::read_from(self.cluster.kubeconfig()).context("reading the kubeconfig")?;
        let mut config =
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.context("reading the kubeconfig")?;
        config.read_timeout = None;
        Client::try_from(config).context("making a client")
    }

    /// All that are measured, by name.
    pub(crate) fn processes(&self) -> Vec<(String, u32)> {
        let mut all: Vec<_> = self.cluster.pids().into_iter().map(|(part, pid)| (part.to_string(), pid)).collect();
        all.extend(self.daemon.iter().map(|(child, _)| ("flashd".to_owned(), child.id())));
        all.push(("generator and watcher".to_owned(), std::process::id()));
        all
    }

    /// # Errors
    /// The daemon has ended.
    pub(crate) fn check(&self) -> Result<()> {
        let Some((child, _)) = &self.daemon else { return Ok(()) };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        if matches!(state, None | Some('Z')) {
            bail!("flashd has ended: {}", self.said());
        }
        Ok(())
    }

    /// The last of what the daemon said.
    pub(crate) fn said(&self) -> String {
        let Some((_, log)) = &self.daemon else { return String::new() };
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Waits until the controllers have seen what was installed: until then the garbage collector asks for the owner of each pod by a
    /// request of its own.
    pub(crate) async fn known(&self, client: &Client) -> Result<()> {
        let begun = Instant::now();
        while self.daemon.is_some() && Requests::read(client).await?.watches.get("flashjobs").is_none_or(|count| *count < 2) {
            if begun.elapsed() > PATIENCE {
                bail!("the garbage collector does not follow FlashJobs: {}", self.said());
            }
            tokio::time::sleep(QUIET).await;
        }
        Ok(())
    }

    /// Requests, once next to none are made any more.
    pub(crate) async fn settled(&self, client: &Client) -> Result<Requests> {
        let begun = Instant::now();
        let mut before = Requests::read(client).await?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = Requests::read(client).await?;
            if now.total() <= before.total() + MURMUR || begun.elapsed() > PATIENCE {
                return Ok(now);
            }
            before = now;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Some((child, _)) = &mut self.daemon else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // An error means that it is gone already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(10) {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Queues as the workload has them. Nobody waits his way up: it has no ageing.
fn daemon_config(load: &Load) -> String {
    let mut text = "listen = \"off\"\nexecutors = [\"flashjob\"]\n\n[kubernetes]\nnamespace = \"flash-system\"\n".to_owned();
    let cohorts: BTreeMap<&str, u64> = load.cohorts();
    for (name, cores) in cohorts {
        // Writing to a String does not fail.
        let _ = write!(text, "\n[[cohorts]]\nname = \"{name}\"\nlimit = {{ cpu = {cores} }}\n");
    }
    for queue in &load.queues {
        let crate::load::Queue { name, cohort, nominal, most } = queue;
        let _ = write!(
            text,
            "\n[[queues]]\nname = \"{name}\"\ncohort = \"{cohort}\"\nage = \"0s\"\npreemptible = true\nguaranteed = {{ cpu = {nominal} }}\n\
             limit = {{ cpu = {most} }}\n"
        );
    }
    text
}

fn is_ready(socket: &std::path::Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: flashd\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
