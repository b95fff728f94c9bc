//! A server: a fresh cluster in a temporary folder, reachable by a Unix socket in it and by nothing else.
//!
//! A guard, which is a shell that waits for the end of its input, stops the server and removes the folder. Its input ends with this
//! process, also where that is killed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::programs::Programs;
use crate::{Schema, ServerError};

/// How long a server may take to start, to recover included: it only runs out when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at what a server says of itself.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for the end of its input; then stops the server at once and removes everything.
const GUARD: &str = r#"read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then kill -QUIT "$pid" 2>/dev/null; while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done; fi
rm -rf "$1""#;

/// A running server. It ends when this is dropped, and with this process.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    folder: PathBuf,
    postgres: Option<Child>,
    guard: Child,
    /// The end of it is the guard's signal.
    alive: Option<ChildStdin>,
}

fn io(op: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServerError {
    move |source| ServerError::Io { op: op.into(), source }
}

impl Server {
    /// Makes a cluster and starts its server.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or refuses.
    pub fn start() -> Result<Self, ServerError> {
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("flash-postgres-").tempdir().map_err(io("making a folder"))?.keep();
        if let Some((user, group)) = programs.who() {
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).map_err(io("giving the folder away"))?;
        }
        let mut guard = programs.as_them("sh");
        guard.args(["-c", GUARD, "guard"]).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // An interrupt from the keyboard is for us: the guard does its work afterwards.
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        let mut guard = guard.spawn().map_err(io("starting the guard"))?;
        let alive = guard.stdin.take();
        let mut server = Self { programs, folder, postgres: None, guard, alive };
        server.make_cluster()?;
        server.restart()?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn make_cluster(&self) -> Result<(), ServerError> {
        let mut initdb = self.programs.command("initdb");
        initdb.arg("--pgdata").arg(self.data()).args([
            "--username=flash",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let output = initdb.stdin(Stdio::null()).output().map_err(io("running initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(ServerError::Refused { program: "initdb", said: String::from_utf8_lossy(&output.stderr).into_owned() })
    }

    /// Starts it again after [`Self::kill`]; returns when it takes connections.
    ///
    /// # Errors
    /// It ends, or does not become ready.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let begun = Instant::now();
        loop {
            let mut child = self.postgres_command().spawn().map_err(io("starting postgres"))?;
            match self.until_ready(&mut child, begun)? {
                None => {
                    self.postgres = Some(child);
                    return Ok(());
                }
                // What was killed may hold its memory for a moment longer.
                Some(said) if said.contains("still in use") && begun.elapsed() < PATIENCE => std::thread::sleep(LOOK),
                Some(said) => return Err(ServerError::Refused { program: "postgres", said }),
            }
        }
    }

    fn postgres_command(&self) -> Command {
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder);
        command.args(["-c", "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "max_connections=200"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    }

    /// Waits until the server says that it is ready; what it said where it ends instead.
    fn until_ready(&self, child: &mut Child, begun: Instant) -> Result<Option<String>, ServerError> {
        let mut stderr = child.stderr.take();
        // What it says is for its end, and must not fill the pipe meanwhile.
        let reader = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.as_mut().map(|stderr| stderr.read_to_end(&mut said));
            String::from_utf8_lossy(&said).into_owned()
        });
        loop {
            let status = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = status.lines();
            let is_its_own = lines.next().and_then(|pid| pid.trim().parse().ok()) == Some(child.id());
            if is_its_own && lines.any(|line| line.trim() == "ready") {
                return Ok(None);
            }
            if child.try_wait().map_err(io("waiting for postgres"))?.is_some() {
                return Ok(Some(reader.join().unwrap_or_default()));
            }
            if begun.elapsed() > PATIENCE {
                return Err(ServerError::Refused { program: "postgres", said: "it is not ready after a minute".to_owned() });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills it with all of its processes, as a crash would.
    pub fn kill(&mut self) {
        let Some(mut postgres) = self.postgres.take() else { return };
        let pid = Pid::from_child(&postgres);
        // Stopped first, so that it makes none while they are counted.
        let _gone = kill_process(pid, Signal::STOP);
        for child in children(pid) {
            let _gone = kill_process(child, Signal::KILL);
        }
        let _gone = kill_process(pid, Signal::KILL);
        let _reaped = postgres.wait();
    }

    /// Its address.
    pub fn url(&self) -> String {
        let folder: String = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://flash@{folder}/postgres")
    }

    /// An empty schema in it.
    pub fn schema(&self) -> Schema {
        Schema::create(&self.url(), false)
    }

    /// Processes of the server that serve sessions.
    pub fn sessions(&self) -> Vec<Pid> {
        let Some(postgres) = &self.postgres else { return Vec::new() };
        let serves = |pid: &Pid| {
            let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            line.starts_with("postgres: flash")
        };
        children(Pid::from_child(postgres)).into_iter().filter(serves).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard waits until it is gone, and what nobody has waited for is not.
        if let Some(mut postgres) = self.postgres.take() {
            let _gone = kill_process(Pid::from_child(&postgres), Signal::QUIT);
            let _reaped = postgres.wait();
        }
        self.alive = None;
        let _ended = self.guard.wait();
    }
}

/// Processes whose parent this is.
fn children(parent: Pid) -> Vec<Pid> {
    let of = format!("PPid:\t{}", parent.as_raw_nonzero());
    let is_child = |pid: &i32| {
        let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
        status.lines().any(|line| line == of)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}
