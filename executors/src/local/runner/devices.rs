//! Keeping a run from device nodes that it was not promised, by its cgroup.
//!
//! Two ways, as the machine has them: the devices controller of cgroup v1, which takes rules as text; and in cgroup v2 a program ([`bpf`]) on a
//! folder of the run's own, which may be the one that its limits are in. What must hold:
//! - Everything but the denied nodes stays as it is.
//! - Whether it can be done is tried at the start, on a group of its own, and told with the reason: a task is never the first to find out.
//! - Where it cannot be done for a run all the same, the run goes without, unless its order says that it must not.
//! - A task that runs as root can leave its group, in cgroup v1 as in v2. Against other users this is a wall.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scheduler_core::ids::RunId;

use super::bpf;
use super::cgroup::Cgroups;
use super::table::Pid;
use crate::contract::{DeviceAccess, DeviceNode, DeviceRule};

/// Types of file systems, as `statfs` tells them.
const CGROUP_V1: u64 = 0x0027_e0eb;
const CGROUP_V2: u64 = 0x6367_7270;
/// Programs that are kept, one for each set of denied nodes. There are as many as there are sets of GPUs in use.
const PROGRAMS: usize = 256;
/// No device has these numbers.
const NOBODY: DeviceNode = DeviceNode { major: 4_095, minor: 1_048_575 };

/// Which way there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V1,
    V2,
}

/// What keeps runs from devices, if anything does.
#[derive(Debug)]
pub(super) enum Gate {
    /// This does.
    Open(Groups),
    /// Nothing does, for this reason.
    Absent(String),
}

/// Groups, one for each run.
#[derive(Debug)]
pub(super) struct Groups {
    version: Version,
    groups: Cgroups,
    /// Runs have a group there already, which their tasks join for its limits.
    are_shared: bool,
    programs: Mutex<BTreeMap<Vec<DeviceNode>, Arc<OwnedFd>>>,
    /// Runs with a group: most have none, and nothing is to be looked for when they end.
    runs: Mutex<BTreeSet<RunId>>,
    /// Groups of an earlier runner are there, whichever they are.
    inherited: bool,
}

impl Gate {
    /// Finds a way: in this folder, where one is said; else in the devices controller, or where the limits of runs are (`limits`).
    pub(super) fn find(said: Option<&Path>, limits: Option<&Path>) -> Self {
        match Groups::find(said, limits) {
            Ok(groups) => Self::Open(groups),
            Err(why) => Self::Absent(why),
        }
    }

    /// For who asks.
    pub(super) fn access(&self) -> DeviceAccess {
        match self {
            Self::Open(Groups { version: Version::V1, .. }) => DeviceAccess { enforced: true, detail: "cgroup v1".to_owned() },
            Self::Open(Groups { version: Version::V2, .. }) => DeviceAccess { enforced: true, detail: "cgroup v2".to_owned() },
            Self::Absent(why) => DeviceAccess { enforced: false, detail: why.clone() },
        }
    }

    /// Keeps a run from what it may not open, before it begins. Gives what its tasks have to join for that, if there is anything.
    ///
    /// # Errors
    /// Why this cannot be done.
    pub(super) fn close(&self, run: RunId, rule: &DeviceRule) -> Result<Option<File>, String> {
        // Nobody can open what is not there; but it may come to be.
        if let Some(missing) = rule.missing.first().filter(|_| rule.required) {
            return Err(format!("{missing} is not there"));
        }
        match self {
            Self::Open(groups) => groups.close(run, &rule.denied).map_err(|error| error.to_string()),
            Self::Absent(why) => Err(why.clone()),
        }
    }

    /// The groups, if this run has one that is there for nothing else.
    fn own(&self, run: RunId) -> Option<&Groups> {
        match self {
            Self::Open(groups) if !groups.are_shared && groups.has(run) => Some(groups),
            Self::Open(_) | Self::Absent(_) => None,
        }
    }

    /// Processes in the group of a run.
    pub(super) fn pids(&self, run: RunId) -> Vec<Pid> {
        self.own(run).map(|groups| groups.groups.pids(run)).unwrap_or_default()
    }

    /// Kills everything in the group of a run at once.
    pub(super) fn kill(&self, run: RunId) {
        if let Some(groups) = self.own(run) {
            groups.groups.kill(run);
        }
    }

    /// Removes the group of a run, which is empty.
    pub(super) fn remove(&self, run: RunId) {
        if let Some(groups) = self.own(run) {
            groups.groups.remove(run);
            groups.runs().remove(&run);
        }
    }
}

impl Groups {
    fn find(said: Option<&Path>, limits: Option<&Path>) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("flashd is not root".to_owned());
        }
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let root = match (said, v1_root(&read("/proc/self/mounts"), &read("/proc/self/cgroup")), limits) {
            (Some(said), _, _) => said.to_owned(),
            (None, Some(found), _) if found.is_dir() => found,
            (None, _, Some(limits)) => limits.to_owned(),
            (None, _, None) => {
                return Err("there is neither a devices controller (cgroup v1) nor a delegated folder (cgroup v2)".to_owned());
            }
        };
        let version = version(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        let groups = Self {
            version,
            are_shared: limits == Some(root.as_path()),
            groups: Cgroups::without_limits(&root),
            programs: Mutex::default(),
            runs: Mutex::default(),
            inherited: has_groups(&root),
        };
        groups.try_out(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(groups)
    }

    fn runs(&self) -> MutexGuard<'_, BTreeSet<RunId>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, run: RunId) -> bool {
        self.inherited || self.runs().contains(&run)
    }

    /// Does once what is done for runs, on a group that nobody is in.
    fn try_out(&self, root: &Path) -> io::Result<()> {
        let folder = root.join(format!("flash-probe-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let done = self.deny(&folder, &[NOBODY]);
        // An empty group that stays does nothing.
        let _ = std::fs::remove_dir(&folder);
        done
    }

    fn close(&self, run: RunId, denied: &[DeviceNode]) -> io::Result<Option<File>> {
        if denied.is_empty() {
            return Ok(None);
        }
        self.runs().insert(run);
        let folder = self.groups.folder(run);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.deny(&folder, denied)?;
        if self.are_shared {
            return Ok(None);
        }
        OpenOptions::new().write(true).open(folder.join("cgroup.procs")).map(Some)
    }

    fn deny(&self, folder: &Path, denied: &[DeviceNode]) -> io::Result<()> {
        if denied.len() > bpf::MOST_DEVICES {
            return Err(io::Error::other(format!("{} devices are more than can be denied", denied.len())));
        }
        match self.version {
            Version::V1 => denied.iter().try_for_each(|DeviceNode { major, minor }| {
                std::fs::write(folder.join("devices.deny"), format!("c {major}:{minor} rwm"))
            }),
            Version::V2 => bpf::attach(&*self.program(denied)?, folder),
        }
    }

    fn program(&self, denied: &[DeviceNode]) -> io::Result<Arc<OwnedFd>> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.get(denied) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(bpf::load_program(denied)?);
        if programs.len() >= PROGRAMS {
            programs.clear();
        }
        programs.insert(denied.to_vec(), Arc::clone(&made));
        Ok(made)
    }
}

/// Whether there are groups of runs already.
fn has_groups(root: &Path) -> bool {
    let mut entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"flash-"))
}

fn version(root: &Path) -> io::Result<Version> {
    match rustix::fs::statfs(root)?.f_type as u64 {
        CGROUP_V1 => Ok(Version::V1),
        CGROUP_V2 => Ok(Version::V2),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no cgroup")),
    }
}

/// The group of this process in the devices controller of cgroup v1, from what `/proc` says of mounts and groups.
fn v1_root(mounts: &str, groups: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == "devices")).then_some(path)
    })?;
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|controller| controller == "devices").then_some(path)
    })?;
    Some(Path::new(mount).join(own.trim_start_matches('/')))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn the_devices_controller_is_found_where_there_is_one() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/devices cgroup rw,relatime,devices 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let groups = "5:devices:/system.slice/flash.service\n4:memory:/x\n0::/\n";
        let found = v1_root(mounts, groups).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/devices/system.slice/flash.service"));
        assert_eq!(v1_root(mounts, "5:devices:/\n").unwrap(), Path::new("/sys/fs/cgroup/devices/"));
        assert_eq!(v1_root("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n", "0::/a\n"), None);
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let gate = Gate::find(Some(folder.path()), None);
        assert!(!gate.access().enforced, "{gate:?}");
        let run = RunId { job: scheduler_core::ids::JobId(uuid::Uuid::from_u128(1)), attempt: scheduler_core::ids::Attempt(1) };
        gate.close(run, &DeviceRule { denied: vec![NOBODY], missing: Vec::new(), required: false }).unwrap_err();
    }
}
