//! The programs of the control plane: where they are, whether they are those that `go.mod` names, and how they are compiled.
//!
//! A cold build takes minutes and some gigabytes of Go's build cache; so only `cargo xtask cluster build`, which `cargo xtask test` and
//! the continuous integration call where Go is installed, makes one. It happens under a lock, once.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{ClusterError, file};
use crate::folder::target_dir;

const GO_MOD: &str = include_str!("../go.mod");
const GO_SUM: &str = include_str!("../go.sum");
/// The version of Kubernetes that `go.mod` names. The programs cannot find it out: they are told.
const VERSION: &str = "v1.36.3";

/// Pause between two looks at the compiler.
const LOOK: Duration = Duration::from_millis(100);

/// Why there are no programs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Missing {
    /// They were never compiled.
    #[error("the control plane is not built; `cargo xtask cluster build` builds it (some minutes, needs Go 1.26)")]
    NotBuilt,
    /// They are those of another `go.mod`.
    #[error("the control plane in {} is another version's; `cargo xtask cluster build` builds this one", at.display())]
    Stale {
        /// Where they are.
        at: PathBuf,
    },
    /// There is no Go to compile with.
    #[error(
        "the control plane is compiled from Go modules, and `go` is not in PATH: install Go 1.26 or newer (https://go.dev/dl)"
    )]
    NoGo,
    /// The compiler failed.
    #[error("building the control plane: {said}")]
    Build {
        /// What it said.
        said: String,
    },
}

/// Programs that can be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those that were built.
    pub fn find() -> Result<Self, Missing> {
        let home = target_dir().join("control-plane");
        let folder = home.join("bin");
        match std::fs::read_to_string(home.join("built-from")) {
            Err(_) => Err(Missing::NotBuilt),
            Ok(text) if text != built_from() => Err(Missing::Stale { at: folder }),
            Ok(_) => Ok(Self { folder }),
        }
    }

    /// Those that were built, after building them if need be, in `limit` at most. The compiler's output goes to the terminal.
    pub fn build(limit: Duration) -> Result<Self, ClusterError> {
        if let Ok(found) = Self::find() {
            return Ok(found);
        }
        let home = target_dir().join("control-plane");
        std::fs::create_dir_all(&home).map_err(file("making", &home))?;
        let lock_path = home.join("build.lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(file("opening", &lock_path))?;
        lock.lock().map_err(file("locking", &lock_path))?;
        // Somebody else may have built them while we waited.
        if let Ok(found) = Self::find() {
            return Ok(found);
        }
        compile(&home.join("bin"), limit)?;
        let stamp = home.join("built-from");
        std::fs::write(&stamp, built_from()).map_err(file("writing", &stamp))?;
        Ok(Self::find()?)
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What decides which programs these are.
fn built_from() -> String {
    format!("{VERSION}\n{GO_MOD}{GO_SUM}")
}

fn compile(into: &Path, limit: Duration) -> Result<(), ClusterError> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (major, minor) = VERSION.trim_start_matches('v').split_once('.').unwrap_or_default();
    let minor = minor.split('.').next().unwrap_or_default();
    let flags = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={VERSION} -X k8s.io/component-base/version.gitMajor={major} \
         -X k8s.io/component-base/version.gitMinor={minor} -X k8s.io/client-go/pkg/version.gitVersion={VERSION}"
    );
    let mut command = Command::new("go");
    // GOFLAGS of whoever calls could name another module file.
    command.current_dir(module).env("GOBIN", into).env("GOFLAGS", "-mod=readonly").stdin(Stdio::null());
    command.args(["install", "-v", "-ldflags", &flags, "tool"]);
    match until(command, limit) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(None) => {
            let said =
                format!("not done after {} s; what is done is kept, and the next build goes on from there", limit.as_secs());
            Err(Missing::Build { said }.into())
        }
        Ok(Some(status)) => {
            Err(Missing::Build { said: format!("`go install` ended with {status}; what it said is above") }.into())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Missing::NoGo.into()),
        Err(error) => Err(Missing::Build { said: format!("starting `go`: {error}") }.into()),
    }
}

/// `None` if it had to be killed, with all that it started.
fn until(mut command: Command, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let mut child = command.process_group(0).spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > limit {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process_group(group, Signal::KILL)?;
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::{GO_MOD, VERSION};

    #[test]
    fn the_version_that_programs_are_told_is_that_of_the_module() {
        let words: Vec<_> = GO_MOD.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert!(words.iter().any(|line| line.starts_with(&["k8s.io/kubernetes", VERSION])), "go.mod does not require {VERSION}");
    }
}
