//! The server under load: a daemon of our own in a fresh folder, the bare handler, or one that runs already.
//!
//! What must hold: whatever was started is ended when its guard goes, on every way out. A daemon's runner outlives it by design, so it
//! is looked for by the data folder, which is this measurement's alone; the one job that may still run then, the one that holds the
//! node, ends with the load generator. What else was left behind falls to the [guard](crate::guard).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::control::{Client, Endpoint};

/// How long a server may take until it answers, and to end when it is asked to.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at something that nothing announces.
const POLL: Duration = Duration::from_millis(5);
/// Length that a Unix socket's path may have on Linux.
const SOCKET_PATH_MAX: usize = 107;
/// A machine of two processors, whatever there is.
const DEFAULT_CONFIG: &str = "[node]\ncpus = 2\n";

/// Which socket carries the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// Loopback, with a bearer token.
    Tcp,
    /// The Unix socket in the data folder.
    Unix,
}

/// What to measure against.
#[derive(Args, Clone)]
pub(crate) struct ServerOptions {
    /// A server that runs already (unix:///PATH or http://HOST:PORT) instead of one of our own.
    #[arg(long)]
    server: Option<Endpoint>,
    /// Bearer token for --server.
    #[arg(long, env = "FLASH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The bare handler instead of the daemon.
    #[arg(long)]
    bare: bool,
    /// Which socket.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) transport: Transport,
    /// The daemon's program. Default: `flashd` beside this program.
    #[arg(long)]
    flashd: Option<PathBuf>,
    /// Folder in which a fresh data folder is made. Default: the system's folder for temporary files.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Leave the data folder there.
    #[arg(long)]
    keep: bool,
    /// What flashd.toml says.
    #[arg(skip = DEFAULT_CONFIG.to_owned())]
    pub(crate) config: String,
}

impl ServerOptions {
    /// A daemon of our own over its Unix socket, with its files in `dir`, where they stay.
    pub(crate) fn own(dir: &Path) -> Self {
        Self {
            server: None,
            token: None,
            bare: false,
            transport: Transport::Unix,
            flashd: None,
            dir: Some(dir.to_owned()),
            keep: true,
            config: DEFAULT_CONFIG.to_owned(),
        }
    }
}

/// How our own server is started.
struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    /// This measurement's alone. Holds everything of it.
    folder: PathBuf,
    log: PathBuf,
}

impl Launch {
    fn new(options: &ServerOptions, address: &str) -> Result<Self> {
        let folder = fresh_folder(&options.dir.clone().unwrap_or_else(std::env::temp_dir))?;
        let data = folder.join("data");
        std::fs::create_dir(&data).with_context(|| format!("creating {}", data.display()))?;
        let this = std::env::current_exe().context("finding this program")?;
        let log = folder.join("server.log");
        if options.bare {
            let socket = data.join("flashd.sock");
            let args = vec!["bare-server".into(), "--listen".into(), address.into(), "--socket".into(), socket.into()];
            return Ok(Self { program: this, args, folder, log });
        }
        let program = options.flashd.clone().unwrap_or_else(|| this.with_file_name("flashd"));
        let config = folder.join("flashd.toml");
        std::fs::write(&config, &options.config).with_context(|| format!("writing {}", config.display()))?;
        let args =
            ["serve".into(), "--data".into(), data.into(), "--listen".into(), address.into(), "--config".into(), config.into()];
        Ok(Self { program, args: args.into(), folder, log })
    }

    fn spawn(&self) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("opening {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().with_context(|| format!("starting {}", self.program.display()))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

/// A server that answers.
pub(crate) struct Server {
    /// `flashd`, `bare`, or the address given.
    pub(crate) name: String,
    /// How to talk to it.
    pub(crate) client: Client,
    /// Word for the socket in use.
    pub(crate) transport: &'static str,
    child: Option<Child>,
    launch: Option<Launch>,
    keep: bool,
    /// The job that holds the node.
    blocker: Option<String>,
}

pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

pub(crate) fn fresh_folder(parent: &Path) -> Result<PathBuf> {
    let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let folder = parent.join(format!("loadgen-{}-{:x}", std::process::id(), nanos & 0xffff_ffff));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let length = folder.join("data/flashd.sock").as_os_str().len();
    if length > SOCKET_PATH_MAX {
        bail!("{} is too long for a Unix socket in it; choose a shorter folder with --dir", folder.display());
    }
    Ok(folder)
}

/// Looks until `done` gives something, or fails with `what` when patience ends.
pub(crate) fn poll_until<T>(what: &str, limit: Duration, done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    look_until(what, limit, POLL, done)
}

/// The same with a pause of one's own between two looks: each takes processor time from what is measured.
pub(crate) fn look_until<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut done: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = done()? {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(pause);
    }
}

impl Server {
    /// Starts what the options say, or finds what runs, and waits until it answers.
    pub(crate) fn open(options: &ServerOptions) -> Result<Self> {
        if let Some(endpoint) = &options.server {
            let transport = if matches!(endpoint, Endpoint::Unix(_)) { "unix" } else { "tcp" };
            let client = Client { endpoint: endpoint.clone(), token: options.token.clone() };
            return Ok(Self {
                name: format!("{endpoint:?}"),
                client,
                transport,
                child: None,
                launch: None,
                keep: true,
                blocker: None,
            });
        }
        let address = format!("127.0.0.1:{}", free_port()?);
        let launch = Launch::new(options, &address)?;
        let socket = launch.data().join("flashd.sock");
        let mut server = Self {
            name: if options.bare { "bare" } else { "flashd" }.to_owned(),
            client: Client { endpoint: Endpoint::Unix(socket), token: None },
            transport: if options.transport == Transport::Tcp { "tcp" } else { "unix" },
            child: Some(launch.spawn()?),
            launch: Some(launch),
            keep: options.keep,
            blocker: None,
        };
        server.wait_ready()?;
        if options.transport == Transport::Tcp {
            if !options.bare {
                let token = server.client.call(Method::POST, "/api/v1/tokens", br#"{"name":"loadgen"}"#)?;
                server.client.token = token["secret"].as_str().map(str::to_owned);
            }
            server.client.endpoint = Endpoint::Tcp(address);
        }
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let client = self.client.clone();
        let log = self.launch.as_ref().map(|launch| launch.log.clone()).unwrap_or_default();
        poll_until("the server's first answer", PATIENCE, || {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().context("looking after the server")?
            {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("the server ended with {status} before it answered:\n{said}");
            }
            Ok(client.call(Method::GET, "/readyz", b"").ok().map(drop))
        })
    }

    /// Our own server's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its runner's process.
    pub(crate) fn runner(&self) -> Option<u32> {
        let runner = runners(&self.launch.as_ref()?.data()).into_iter().next()?;
        u32::try_from(runner.as_raw_nonzero().get()).ok()
    }

    /// Our own server's folder.
    pub(crate) fn folder(&self) -> Result<&Path> {
        self.launch.as_ref().map(|launch| launch.folder.as_path()).context("this needs a server of our own: without --server")
    }

    /// Our own server's data folder.
    pub(crate) fn data(&self) -> Result<PathBuf> {
        Ok(self.folder()?.join("data"))
    }

    /// Kills our own server as if power had failed for it alone: jobs run on.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("killing the server")?;
            child.wait().context("waiting for the killed server")?;
        }
        Ok(())
    }

    /// Starts it again in the same folder, and waits until it answers.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let launch = self.launch.as_ref().context("this needs a server of our own: without --server")?;
        self.child = Some(launch.spawn()?);
        self.wait_ready()
    }

    /// Asks our own server to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    /// Lets the job that holds the node end by itself, while the server may be down, and waits until it has.
    pub(crate) fn let_blocker_end(&mut self) -> Result<()> {
        let folder = self.folder()?.to_owned();
        std::fs::write(folder.join("go"), b"").context("telling the job that holds the node")?;
        poll_until("the end of the job that holds the node", PATIENCE, || Ok(folder.join("gone").exists().then_some(())))?;
        self.blocker = None;
        Ok(())
    }

    /// Occupies the whole node, so that what is submitted now is queued and does not run. It ends with this process.
    pub(crate) fn hold_node(&mut self) -> Result<()> {
        self.hold("2")
    }

    /// Occupies so many processors.
    pub(crate) fn hold(&mut self, cpu: &str) -> Result<()> {
        if self.name != "flashd" {
            return Ok(());
        }
        let script = r#"while [ ! -e "$1/go" ] && kill -0 "$2" 2>/dev/null; do sleep 0.2; done; : >"$1/gone""#;
        let (folder, pid) = (self.folder()?, std::process::id().to_string());
        let body = json!({"name": "holds-the-node", "queue": "configfile-interactive", "priority": 1_000_000,
            "command": ["sh", "-c", script, "hold", folder, pid], "resources": {"cpu": cpu}});
        let id = self.client.call(Method::POST, "/api/v1/jobs", body.to_string().as_bytes())?["id"]
            .as_str()
            .context("a submit that answers no id")?
            .to_owned();
        let path = format!("/api/v1/jobs/{id}");
        poll_until("the job that holds the node, to run", PATIENCE, || {
            let job = self.client.call(Method::GET, &path, b"")?;
            match job["state"].as_str() {
                Some("running") => Ok(Some(())),
                Some("finished") => bail!("the job that holds the node ended: {}", job["outcome"]),
                _ => Ok(None),
            }
        })?;
        self.blocker = Some(id);
        Ok(())
    }

    /// Lets the node go: what is queued begins to run.
    pub(crate) fn release_node(&mut self) -> Result<()> {
        match self.blocker.take() {
            Some(id) => self.client.call(Method::POST, &format!("/api/v1/jobs/{id}/cancel"), b"").map(drop),
            None => Ok(()),
        }
    }

    /// Resident memory in MiB and processor seconds of the server, where it is ours.
    pub(crate) fn usage(&self) -> Value {
        let Some(child) = &self.child else { return Value::Null };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        // utime and stime, in ticks of 10 ms, are fields 14 and 15; the name in field 2 ends with the last `)`.
        let ticks = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>());
        json!({"rss_mib": kib.map(|kib| (kib / 1024.0).round()), "cpu_s": ticks.map(|ticks| ticks / 100.0)})
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
        let Some(launch) = self.launch.take() else { return };
        for runner in runners(&launch.data()) {
            // An error means that it is gone already.
            kill_process(runner, Signal::KILL).ok();
        }
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&launch.folder)
        {
            eprintln!("removing {}: {error}", launch.folder.display());
        }
    }
}

/// Processes whose command line is `PROGRAM runner ..` with this data folder in it.
fn runners(data: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_runner = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"runner".as_slice()) && words.contains(&data.as_os_str().as_encoded_bytes())
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(is_runner)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Asks the server to end, and kills it if it does not.
fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Errors here mean that it is gone already.
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM).ok();
    }
    let ended = poll_until("the server's end", PATIENCE, || child.try_wait().context("waiting for the server"));
    if ended.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
}
