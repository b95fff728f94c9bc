//! Where a peer lives while it is measured: its programs, its folder, its environment, the jobs that hold its slots.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::server::poll_until;

/// How long a peer may take until it answers, and to start the jobs that hold its slots.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Folders below a prefix that have programs.
const BIN: [&str; 4] = ["venv/bin", "bin", "debian/usr/bin", "debian/usr/sbin"];
/// Where a system has them.
const SYSTEM_BIN: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A folder and an environment.
pub(crate) struct Place {
    /// For all files of the peer, and this measurement's alone.
    pub(crate) folder: PathBuf,
    /// Where unpacked Debian packages are, if anywhere.
    pub(crate) debian: Option<PathBuf>,
    path: Vec<PathBuf>,
    libraries: Vec<PathBuf>,
}

/// Folders for shared libraries below `root`, on Debian's layout.
fn library_folders(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("usr/lib")) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    let slurm: Vec<PathBuf> = folders.iter().map(|path| path.join("slurm-wlm")).filter(|path| path.is_dir()).collect();
    folders.extend(slurm);
    folders
}

impl Place {
    /// Programs are looked for below `prefix`, then in PATH.
    pub(crate) fn new(prefix: Option<&Path>, folder: &Path) -> Result<Self> {
        let prefix = prefix.map(std::path::absolute).transpose().context("the folder of the installed peers")?;
        let own = prefix.iter().flat_map(|prefix| BIN.map(|bin| prefix.join(bin)));
        let inherited: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let path = own.chain(inherited).chain(SYSTEM_BIN.map(PathBuf::from)).filter(|path| path.is_dir()).collect();
        let debian = prefix.map(|prefix| prefix.join("debian")).filter(|path| path.is_dir());
        let libraries = debian.as_deref().map(library_folders).unwrap_or_default();
        Ok(Self { folder: folder.to_owned(), debian, path, libraries })
    }

    /// The program of that name, or an error that says so.
    pub(crate) fn need(&self, name: &str) -> Result<PathBuf> {
        let found = self.path.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.with_context(|| format!("no program `{name}`"))
    }

    /// PATH of the peer.
    pub(crate) fn path(&self) -> Result<OsString> {
        std::env::join_paths(&self.path).context("putting PATH together")
    }

    /// A command in the peer's environment, which has nothing of the caller's but PATH.
    pub(crate) fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", self.path()?).env("HOME", &self.folder).env("TMPDIR", &self.folder);
        command.env("LANG", "C").env("SHELL", "/bin/sh").env("USER", "bench").env("LOGNAME", "bench");
        for (name, folder) in
            [("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data"), ("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "run")]
        {
            command.env(name, self.folder.join(folder));
        }
        if !self.libraries.is_empty() {
            let libraries = std::env::join_paths(&self.libraries).context("putting LD_LIBRARY_PATH together")?;
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.current_dir(&self.folder).stdin(Stdio::null());
        Ok(command)
    }

    /// The program of that name as a command.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        self.command(&self.need(name)?)
    }

    /// `TITLE` and the first number with a point in what the program says of its version.
    pub(crate) fn version(&self, title: &str, program: &Path, args: &[&str]) -> Result<String> {
        let mut command = self.command(program)?;
        let output = command.args(args).output().with_context(|| format!("starting {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("`{}` does not work here: {}", program.display(), text.trim());
        }
        Ok(format!("{title} {}", number(&text)).trim().to_owned())
    }

    /// Writes one of the peer's files.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Makes a folder.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Starts a daemon. It ends with this process; what it says goes to `NAME.log`.
    pub(crate) fn daemon(&self, name: &str, mut command: Command) -> Result<()> {
        let log = self.folder.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().context("a second handle for a log")?;
        command.stdout(out).stderr(err).spawn().map(drop).with_context(|| format!("starting {name}"))
    }
}

/// The first word like `1.2` or `v1.2.3`, without the letter.
fn number(text: &str) -> &str {
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.')).unwrap_or_default()
}

/// Runs to the end; what it wrote, unless it failed.
pub(crate) fn said(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("starting {name}"))?;
    if !status.success() {
        bail!(
            "{name} ended with {status}: {} {}",
            String::from_utf8_lossy(&stdout).trim(),
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Waits until the command succeeds.
pub(crate) fn until_it_works(what: &str, command: impl Fn() -> Result<Command>) -> Result<()> {
    poll_until(what, PATIENCE, || Ok(said(command()?).is_ok().then_some(())))
}

/// Runs `count` commands, `threads` at once; seconds from the first to the end of the last. Each has to succeed.
pub(crate) fn in_parallel(count: u32, threads: u32, command: impl Fn(u32) -> Result<Command> + Sync) -> Result<f64> {
    let next = AtomicU32::new(0);
    let begun = Instant::now();
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let mut command = command(number)?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
            if !output.status.success() {
                bail!("submit {number} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
            }
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a submitting thread panicked"))?)
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Pipes that jobs wait at, each of them `cat PIPE`: it ends when the pipe is closed here.
pub(crate) struct Gates {
    paths: Vec<PathBuf>,
    held: Vec<File>,
}

impl Gates {
    /// Makes `count` of them.
    pub(crate) fn new(folder: &Path, count: u32) -> Result<Self> {
        let gates = (0..count).map(|number| {
            let path = folder.join(format!("gate-{number}"));
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .with_context(|| format!("creating {}", path.display()))?;
            Ok(path)
        });
        Ok(Self { paths: gates.collect::<Result<_>>()?, held: Vec::new() })
    }

    /// Their paths.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Waits until a job stands at each of them, and keeps it there.
    pub(crate) fn hold(&mut self) -> Result<()> {
        for path in &self.paths {
            let file = poll_until("a job that holds a slot, to start", PATIENCE, || {
                // While nobody reads, the error is ENXIO.
                let flags = OFlags::NONBLOCK.bits().cast_signed();
                Ok(OpenOptions::new().write(true).custom_flags(flags).open(path).ok())
            })?;
            self.held.push(file);
        }
        Ok(())
    }

    /// Lets them go.
    pub(crate) fn release(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn version_numbers_are_found() {
        assert_eq!(number("Task Spooler v1.0.1 - a task queue"), "1.0.1");
        assert_eq!(number("slurm-wlm 22.05.8"), "22.05.8");
        assert_eq!(number("unknown"), "");
    }
}
