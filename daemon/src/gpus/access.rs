//! Which device nodes a run may not open: those of the GPUs that it was not promised.
//!
//! What must hold: a node is denied only if it is the node of a GPU that the driver has told us of, and of none that the run has; control nodes, which
//! all GPUs share, are left alone. What is denied is worked out for each order, from what was seen last.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use executors::{DeviceAccess, DeviceNode, DeviceRule};
use scheduler_core::ids::Name;
use scheduler_core::state::Placement;
use tokio::sync::watch;

use super::SharedBoard;
use crate::config::Gpu as GpuConfig;
use crate::config::values::DeviceCgroup;

/// Works out what runs may not open.
#[derive(Clone, Debug)]
pub struct Access {
    board: SharedBoard,
    folder: PathBuf,
    policy: DeviceCgroup,
}

/// The same with what is known of who enforces it.
#[derive(Clone, Debug)]
pub struct DeviceGuard {
    /// What is to be enforced.
    pub access: Access,
    /// Whether it can be.
    pub runner: watch::Receiver<Option<DeviceAccess>>,
}

impl DeviceGuard {
    /// See [`Access::says`].
    pub fn says(&self) -> Option<String> {
        self.access.says(self.runner.borrow().as_ref())
    }
}

/// Nodes of GPUs: those that are there, by the number in their names, and what is not.
struct Nodes {
    there: BTreeMap<u32, DeviceNode>,
    missing: Vec<String>,
}

impl Access {
    /// By this configuration.
    pub fn new(board: SharedBoard, config: &GpuConfig) -> Self {
        Self { board, folder: config.device_directory.clone(), policy: config.device_cgroup }
    }

    /// What a run may not open; `None` where there is nothing to keep it from.
    pub fn rule(&self, placement: &Placement) -> Option<DeviceRule> {
        if self.policy == DeviceCgroup::Off {
            return None;
        }
        let own: BTreeSet<&Name> = placement.slots.iter().flat_map(|slot| &slot.gpus).collect();
        let Nodes { there, missing } = self.nodes(&own);
        let mut denied: Vec<DeviceNode> = there.into_values().collect();
        denied.sort_unstable();
        let required = self.policy == DeviceCgroup::Required;
        let matters = !denied.is_empty() || (required && !missing.is_empty());
        matters.then_some(DeviceRule { denied, missing, required })
    }

    /// Nodes of GPUs that none of these is or is a part of.
    fn nodes(&self, own: &BTreeSet<&Name>) -> Nodes {
        let board = self.board.get();
        let numbers = |own_ones: bool| {
            let gpus = board.gpus.iter().filter(move |(uuid, _)| own.contains(uuid) == own_ones);
            gpus.map(|(uuid, seen)| (uuid, seen.reading.gpu.minor))
        };
        let kept: BTreeSet<u32> = numbers(true).filter_map(|(_, minor)| minor).collect();
        let mut nodes = Nodes { there: BTreeMap::new(), missing: Vec::new() };
        for (uuid, minor) in numbers(false) {
            match minor {
                Some(minor) if kept.contains(&minor) || nodes.there.contains_key(&minor) => {}
                Some(minor) => {
                    let path = self.folder.join(format!("nvidia{minor}"));
                    match node(&path) {
                        Some(node) => drop(nodes.there.insert(minor, node)),
                        None => nodes.missing.push(path.display().to_string()),
                    }
                }
                None => nodes.missing.push(format!("the device node of {uuid}")),
            }
        }
        // Instances of one device share its node.
        nodes.missing.dedup();
        nodes
    }

    /// For people: whether runs are kept from GPUs of others, or why not. `None` where there are no GPUs.
    pub fn says(&self, runner: Option<&DeviceAccess>) -> Option<String> {
        if self.board.get().gpus.is_empty() {
            return None;
        }
        let nodes = self.nodes(&BTreeSet::new());
        let why = match (self.policy, nodes.missing.first(), runner) {
            (DeviceCgroup::Off, ..) => "gpu.device_cgroup is off".to_owned(),
            (_, Some(missing), _) => format!("{missing} is not there"),
            (_, _, None) => "the runner has not said yet".to_owned(),
            (_, _, Some(DeviceAccess { enforced: false, detail })) => detail.clone(),
            (_, _, Some(DeviceAccess { enforced: true, detail })) => return Some(format!("enforced ({detail})")),
        };
        Some(format!("by environment only: {why}"))
    }
}

/// The numbers of a character device.
fn node(path: &Path) -> Option<DeviceNode> {
    let found = std::fs::metadata(path).ok().filter(|found| found.file_type().is_char_device())?;
    Some(DeviceNode { major: rustix::fs::major(found.rdev()), minor: rustix::fs::minor(found.rdev()) })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::Arc;

    use executors::gpu::{Gpu, Reading};
    use scheduler_core::state::Slot;

    use super::*;
    use crate::gpus::{Board, Seen};

    fn access(gpus: &[(&str, Option<u32>)], folder: &Path, policy: DeviceCgroup) -> Access {
        let seen = |(uuid, minor): &(&str, Option<u32>)| {
            let gpu = Arc::new(Gpu { uuid: (*uuid).to_owned(), minor: *minor, ..Gpu::default() });
            (Name::from(*uuid), Seen { reading: Reading { gpu, ..Reading::default() }, processes: Vec::new() })
        };
        let board = SharedBoard::default();
        board.set(Board { gpus: gpus.iter().map(seen).collect(), ..Board::default() });
        Access { board, folder: folder.to_owned(), policy }
    }

    fn placement(gpus: &[&str]) -> Placement {
        let gpus = gpus.iter().map(|uuid| Name::from(*uuid)).collect();
        Placement::new(vec![Slot { group: 0, replica: 0, node: "box".into(), gpus, share: None }])
    }

    #[test]
    fn nodes_of_other_gpus_are_denied_and_no_others() {
        // Nodes that every machine has, under the names that GPUs would have.
        let folder = tempfile::tempdir().unwrap();
        for (number, device) in [(0, "null"), (1, "zero"), (2, "full")] {
            std::os::unix::fs::symlink(format!("/dev/{device}"), folder.path().join(format!("nvidia{number}"))).unwrap();
        }
        let three = [("a", Some(0)), ("b", Some(1)), ("c", Some(2))];
        let auto = access(&three, folder.path(), DeviceCgroup::Auto);
        let denied = |access: &Access, own: &[&str]| {
            let rule = access.rule(&placement(own));
            rule.map(|rule| rule.denied.iter().map(|node| (node.major, node.minor)).collect::<Vec<_>>())
        };
        assert_eq!(denied(&auto, &["b"]), Some(vec![(1, 3), (1, 7)]));
        assert_eq!(denied(&auto, &[]), Some(vec![(1, 3), (1, 5), (1, 7)]), "who has none opens none");
        assert_eq!(denied(&auto, &["a", "b", "c"]), None);
        assert_eq!(denied(&access(&three, folder.path(), DeviceCgroup::Off), &["b"]), None);
        // Instances of one device have its node together.
        let parts = [("m1", Some(0)), ("m2", Some(0)), ("b", Some(1))];
        assert_eq!(denied(&access(&parts, folder.path(), DeviceCgroup::Auto), &["m1"]), Some(vec![(1, 5)]));
        let here = DeviceAccess { enforced: true, detail: "cgroup v2".to_owned() };
        assert_eq!(auto.says(Some(&here)).as_deref(), Some("enforced (cgroup v2)"));
        assert_eq!(access(&[], folder.path(), DeviceCgroup::Auto).says(Some(&here)), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nvidia0"), "no device").unwrap();
        for (gpus, missing) in [
            ([("a", Some(0))], folder.path().join("nvidia0").display().to_string()),
            ([("a", None)], "the device node of a".to_owned()),
        ] {
            let auto = access(&gpus, folder.path(), DeviceCgroup::Auto);
            assert_eq!(auto.rule(&placement(&[])), None);
            let said = auto.says(None).unwrap();
            assert_eq!(said, format!("by environment only: {missing} is not there"));
            let rule = access(&gpus, folder.path(), DeviceCgroup::Required).rule(&placement(&[])).unwrap();
            assert_eq!((rule.missing, rule.required), (vec![missing], true));
        }
    }
}
