//! One cluster: started, waited for, asked, hurt, and stopped.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::account::{ADMIN_TOKEN, write_kubeconfig, write_tokens};
use crate::certs;
use crate::death::Maker;
use crate::error::{ClusterError, file};
use crate::folder::Folder;
use crate::gate::Gate;
use crate::node::NodeSpec;
use crate::part::{Part, Setup};
use crate::programs::Programs;

/// After this long something that should be ready will not be.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Pause between two questions to the system.
const LOOK: Duration = Duration::from_millis(20);
/// Where ports are taken from: below those that the kernel gives away by itself, so that a server that is killed finds its port free.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;
/// Bytes of a log that an error shows.
const TAIL: usize = 2_000;

/// What a cluster is to be like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Nodes to begin with.
    pub nodes: Vec<NodeSpec>,
    /// More arguments for the API server.
    pub api_server_args: Vec<String>,
    /// More arguments for other parts.
    pub part_args: Vec<(Part, String)>,
    /// Where it lives, if its folder is to have a name. Otherwise it has one of its own.
    pub folder: Option<PathBuf>,
}

/// Programs that are ours.
#[derive(Debug)]
struct Owned {
    setup: Setup,
    running: Mutex<BTreeMap<Part, Child>>,
    maker: Maker,
    /// Last: its folder is removed when the programs have ended.
    folder: Folder,
}

/// A cluster. Its programs end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    owned: Option<Owned>,
}

impl Cluster {
    /// The cluster of `FLASH_TEST_KUBECONFIG`, as it is; where that is not set, a new one with all parts ready and its nodes there.
    pub fn start(options: Options) -> Result<Self, ClusterError> {
        let programs = Programs::find();
        if let Some(kubeconfig) = std::env::var_os("FLASH_TEST_KUBECONFIG") {
            let kubectl = programs.map_or_else(|_| "kubectl".into(), |programs| programs.path("kubectl"));
            return Ok(Self { kubeconfig: kubeconfig.into(), kubectl, owned: None });
        }
        let programs = programs?;
        let folder = options.folder.map_or_else(Folder::make, Folder::take)?;
        let [etcd_port, etcd_peer_port, api_port] = free_ports()?;
        let path = folder.path.clone();
        let kubeconfig = path.join("admin.kubeconfig");
        let kubectl = programs.path("kubectl");
        let mut part_args = options.part_args;
        part_args.extend(options.api_server_args.into_iter().map(|arg| (Part::ApiServer, arg)));
        let setup = Setup { programs, folder: path.clone(), etcd_port, etcd_peer_port, api_port, part_args };
        certs::write(&path)?;
        write_tokens(&path)?;
        write_kubeconfig(&kubeconfig, &setup.server(), &path.join("ca.crt"), ADMIN_TOKEN)?;
        let stages = path.join("stages.yaml");
        std::fs::write(&stages, include_str!("stages.yaml")).map_err(file("writing", stages))?;
        let maker = Maker::new().map_err(file("starting a thread for", &path))?;
        let owned = Owned { setup, running: Mutex::default(), maker, folder };
        let cluster = Self { kubeconfig, kubectl, owned: Some(owned) };
        for part in [Part::Etcd, Part::ApiServer] {
            cluster.start_part(part)?;
        }
        cluster.wait_ready()?;
        cluster.add_nodes(&options.nodes)?;
        for part in [Part::ControllerManager, Part::Scheduler, Part::Kwok] {
            cluster.start_part(part)?;
        }
        for node in &options.nodes {
            cluster.wait_node(&node.name)?;
        }
        Ok(cluster)
    }

    /// Kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where its files are, if it is ours.
    pub fn folder(&self) -> Option<&Path> {
        self.owned.as_ref().map(|owned| owned.folder.path.as_path())
    }

    /// The processes of its parts that were started and not killed, where they are ours.
    pub fn pids(&self) -> BTreeMap<Part, u32> {
        let Some(owned) = &self.owned else { return BTreeMap::new() };
        running(owned).iter().map(|(part, child)| (*part, child.id())).collect()
    }

    /// Whether its parts can be killed and started.
    pub fn is_ours(&self) -> bool {
        self.owned.is_some()
    }

    /// Runs kubectl as the administrator; gives what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, ClusterError> {
        self.kubectl_with(args, "")
    }

    /// As [`Self::kubectl`], with something on its standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String, ClusterError> {
        let said = |said: String| ClusterError::Kubectl { args: args.join(" "), said };
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        // Its cache of what the server offers would outlive the server.
        command.env("KUBECACHEDIR", self.folder().map_or_else(std::env::temp_dir, |path| path.join("cache")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| said(format!("cannot be started: {error}")))?;
        let pipe = child.stdin.take();
        let text = input.to_owned();
        // On a thread: kubectl may answer before it has read all.
        let writer = std::thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(text.as_bytes())));
        let output = child.wait_with_output().map_err(|error| said(error.to_string()))?;
        // A program that does not read its input to the end says by its status whether that was wrong.
        let _ = writer.join();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(said(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
    }

    /// A kubeconfig with a token of a service account, which has to be there: what runs with it has the rights of that account alone.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<String, ClusterError> {
        let token = self.kubectl(&["create", "token", account, "--namespace", namespace, "--duration", "2h"])?;
        let view = self.kubectl(&["config", "view", "--raw", "--minify", "--flatten", "--output", "json"])?;
        let unreadable =
            |error: serde_json::Error| ClusterError::Kubectl { args: "config view".to_owned(), said: error.to_string() };
        let mut config: serde_json::Value = serde_json::from_str(&view).map_err(unreadable)?;
        if let Some(user) = config.pointer_mut("/users/0/user") {
            *user = serde_json::json!({"token": token.trim()});
        }
        Ok(format!("{config:#}\n"))
    }

    /// Makes nodes.
    pub fn add_nodes(&self, nodes: &[NodeSpec]) -> Result<(), ClusterError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let objects: Vec<_> = nodes.iter().map(NodeSpec::object).collect();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl_with(&["create", "--filename", "-"], &list.to_string()).map(drop)
    }

    /// Waits until a node is ready.
    pub fn wait_node(&self, name: &str) -> Result<(), ClusterError> {
        let node = format!("node/{name}");
        let patience = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["wait", "--for=condition=Ready", &node, &patience]).map(drop)
    }

    /// Waits until the API server says that it is ready.
    pub fn wait_ready(&self) -> Result<(), ClusterError> {
        let begun = Instant::now();
        loop {
            let answer = match self.kubectl(&["get", "--raw", "/readyz"]) {
                Ok(_) => return Ok(()),
                Err(ClusterError::Kubectl { said, .. }) => said,
                Err(other) => return Err(other),
            };
            for part in [Part::Etcd, Part::ApiServer] {
                self.must_run(part)?;
            }
            if begun.elapsed() > PATIENCE {
                return Err(ClusterError::NotReady { seconds: PATIENCE.as_secs(), answer });
            }
            std::thread::sleep(LOOK);
        }
    }

    fn owned(&self, part: Part) -> Result<&Owned, ClusterError> {
        self.owned.as_ref().ok_or(ClusterError::NotOurs { part })
    }

    fn must_run(&self, part: Part) -> Result<(), ClusterError> {
        let Some(owned) = &self.owned else { return Ok(()) };
        let ended = running(owned).get_mut(&part).and_then(|child| child.try_wait().ok().flatten());
        let Some(status) = ended else { return Ok(()) };
        let log = owned.setup.log(part);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let tail = text.get(text.floor_char_boundary(text.len().saturating_sub(TAIL))..).unwrap_or_default().to_owned();
        Err(ClusterError::Died { part, status, log, tail })
    }

    /// Starts a part that does not run. Whether the API server is ready then is asked with [`Self::wait_ready`].
    pub fn start_part(&self, part: Part) -> Result<(), ClusterError> {
        let owned = self.owned(part)?;
        let started = owned.setup.command(part).and_then(|command| owned.maker.spawn(command));
        let child = started.map_err(|source| ClusterError::Start { part, source })?;
        running(owned).insert(part, child);
        Ok(())
    }

    /// Ends a part at once, with SIGKILL.
    pub fn kill_part(&self, part: Part) -> Result<(), ClusterError> {
        let owned = self.owned(part)?;
        let child = running(owned).remove(&part);
        child.map_or(Ok(()), |mut child| end(&mut child)).map_err(|source| ClusterError::Start { part, source })
    }

    /// A gate before the API server. A client whose kubeconfig says [`Gate::port`] instead of the server's own can be cut off.
    pub fn gate(&self) -> Result<Gate, ClusterError> {
        let part = Part::ApiServer;
        Gate::open(self.owned(part)?.setup.api_port).map_err(|source| ClusterError::Start { part, source })
    }

    /// A kubeconfig as another one, for a client that comes through this gate.
    pub fn through(&self, gate: &Gate, kubeconfig: &str) -> Result<String, ClusterError> {
        let own = self.owned(Part::ApiServer)?.setup.api_port;
        Ok(kubeconfig.replace(&format!(":{own}"), &format!(":{}", gate.port())))
    }

    /// Makes the database forget all versions before the last one: watches that ask for one of those are told `410 Expired`, where the API
    /// server does not remember them itself (`--watch-cache=false`).
    pub fn compact(&self) -> Result<(), ClusterError> {
        let part = Part::Etcd;
        let port = self.owned(part)?.setup.etcd_port;
        let failed = |source: std::io::Error| ClusterError::Start { part, source };
        let range = post(port, "/v3/kv/range", r#"{"key":"AA=="}"#).map_err(failed)?;
        let revision =
            range.split("\"revision\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned();
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        let answer = post(port, "/v3/kv/compaction", &body).map_err(failed)?;
        if answer.starts_with("HTTP/1.1 200") || answer.contains("has been compacted") {
            return Ok(());
        }
        Err(failed(std::io::Error::other(answer)))
    }

    /// Stops or continues a part, with SIGSTOP and SIGCONT.
    pub fn freeze_part(&self, part: Part, frozen: bool) -> Result<(), ClusterError> {
        let owned = self.owned(part)?;
        if let Some(child) = running(owned).get(&part) {
            signal(child, if frozen { Signal::STOP } else { Signal::CONT });
        }
        Ok(())
    }
}

/// The answer of a small HTTP server on loopback, with its head.
fn post(port: u16, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A panic elsewhere leaves the list as it is: whole.
fn running(owned: &Owned) -> MutexGuard<'_, BTreeMap<Part, Child>> {
    owned.running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It has not been waited for, so the pid is still its own; and one that has ended needs no signal.
        let _ = kill_process(pid, signal);
    }
}

fn end(child: &mut Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

impl Drop for Cluster {
    /// In reverse order: an API server whose database went first takes a minute to end.
    fn drop(&mut self) {
        let Some(owned) = &self.owned else { return };
        let mut children = std::mem::take(&mut *running(owned));
        for part in Part::ALL.iter().rev() {
            let Some(child) = children.get_mut(part) else { continue };
            signal(child, Signal::TERM);
            let begun = Instant::now();
            while matches!(child.try_wait(), Ok(None)) {
                if begun.elapsed() > GRACE {
                    // The thread that made it ends next, and with it what would not end by itself.
                    let _ = end(child);
                    break;
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// Ports that nobody listens on. Others may take them before we do: each process begins elsewhere.
fn free_ports<const N: usize>() -> Result<[u16; N], ClusterError> {
    let (first, last) = PORTS.into_inner();
    let count = u32::from(last - first) + 1;
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let begin = std::process::id().wrapping_mul(131).wrapping_add(clock / 1_000);
    // Held until all are found, so that none is found twice.
    let mut found = Vec::with_capacity(N);
    for step in 0..count {
        let port = first + u16::try_from(begin.wrapping_add(step) % count).unwrap_or_default();
        if found.len() == N {
            break;
        }
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            found.push((port, listener));
        }
    }
    let ports: Vec<u16> = found.iter().map(|(port, _)| *port).collect();
    ports.try_into().map_err(|_| ClusterError::Ports { first, last })
}
