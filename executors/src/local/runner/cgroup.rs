//! Limits and a sure end by cgroup v2, where a part of the tree was given to us.
//!
//! A folder per run below the root: `cpu.max` and `memory.max` hold what its tasks ask for together; whatever was started in it can
//! be listed and killed there, whoever its parent is. Where there is no such root all this is off, and the runner finds processes by
//! their parents ([`family`](super::family)).
//!
//! The root is a plain path, so what is written can be looked at in any folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use scheduler_core::ids::RunId;

use super::table::Pid;

/// Length of the period of `cpu.max`, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// The folder below which each run has its own.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
}

/// The delegated part of the cgroup v2 tree that this process is in: controllers for CPU and memory can be switched on below it.
/// `None` where there is no such tree, or it is not ours to change.
pub fn detect_cgroup_root() -> Option<PathBuf> {
    let tree = Path::new("/sys/fs/cgroup");
    if !tree.join("cgroup.controllers").exists() {
        return None;
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = tree.join(own);
    std::fs::write(root.join("cgroup.subtree_control"), "+cpu +memory").ok()?;
    Some(root)
}

impl Cgroups {
    /// Uses `root`; an error if no controllers can be switched on in it.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        std::fs::write(root.join("cgroup.subtree_control"), "+cpu +memory")?;
        Ok(Self { root: root.to_owned() })
    }

    /// Groups below `root` that limit nothing.
    pub(super) fn without_limits(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder of a run.
    pub(super) fn folder(&self, run: RunId) -> PathBuf {
        self.root.join(format!("flash-{run}"))
    }

    /// Makes a run's group with its limits (0 for none); gives its `cgroup.procs` for writing.
    pub(super) fn make(&self, run: RunId, cpu_millis: u64, memory_bytes: u64) -> io::Result<File> {
        let folder = self.folder(run);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if cpu_millis > 0 {
            let quota = cpu_millis.saturating_mul(CPU_PERIOD_US) / 1_000;
            std::fs::write(folder.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?;
        }
        if memory_bytes > 0 {
            std::fs::write(folder.join("memory.max"), memory_bytes.to_string())?;
        }
        OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("cgroup.procs"))
    }

    /// All processes of a run's group, those of groups below it included.
    pub(super) fn pids(&self, run: RunId) -> Vec<Pid> {
        let mut pids = Vec::new();
        let mut folders = vec![self.folder(run)];
        while let Some(folder) = folders.pop() {
            let list = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(list.lines().filter_map(|line| line.parse::<Pid>().ok()).filter(|pid| *pid > 0));
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            folders.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        pids
    }

    /// Kills everything in a run's group at once.
    pub(super) fn kill(&self, run: RunId) {
        let folder = self.folder(run);
        if folder.exists() {
            // Older kernels do not have it; then the processes are killed one by one, as without cgroups.
            let _ = std::fs::write(folder.join("cgroup.kill"), "1");
        }
    }

    /// Removes a run's group, which is empty, and the groups that its processes made below it.
    pub(super) fn remove(&self, run: RunId) {
        let mut folders = vec![self.folder(run)];
        let mut index = 0;
        while let Some(folder) = folders.get(index) {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let below: Vec<_> = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect();
            folders.extend(below);
            index += 1;
        }
        for folder in folders.iter().rev() {
            // What cannot be removed is an empty group, which holds nothing and limits nobody.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use scheduler_core::ids::{Attempt, JobId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn limits_are_written_in_the_units_of_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::new(root.path()).unwrap();
        let run = RunId { job: JobId(Uuid::from_u128(1)), attempt: Attempt(2) };
        cgroups.make(run, 1_500, 1 << 30).unwrap();
        let folder = root.path().join(format!("flash-{run}"));
        assert_eq!(std::fs::read_to_string(folder.join("cpu.max")).unwrap(), "150000 100000");
        assert_eq!(std::fs::read_to_string(folder.join("memory.max")).unwrap(), "1073741824");
        assert_eq!(std::fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "+cpu +memory");
        std::fs::write(folder.join("cgroup.procs"), "0\n17\n").unwrap();
        std::fs::create_dir(folder.join("below")).unwrap();
        std::fs::write(folder.join("below/cgroup.procs"), "18\n").unwrap();
        assert_eq!(cgroups.pids(run), [17, 18]);
        cgroups.kill(run);
        assert_eq!(std::fs::read_to_string(folder.join("cgroup.kill")).unwrap(), "1");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_root() {
        assert!(Cgroups::new(Path::new("/nowhere")).is_err());
    }
}
