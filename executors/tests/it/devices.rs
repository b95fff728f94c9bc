//! Device nodes that a run may not open: for real, in whichever cgroups this machine lets us make, with nodes of devices that do no harm.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use executors::{DeviceNode, DeviceRule, StartOrder};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use scheduler_core::event::RunResult;

use crate::rig::*;
use crate::site::Site;

const NOBODY: u32 = 65_534;
/// `/dev/full`, by the name of a GPU.
const OWN: DeviceNode = DeviceNode { major: 1, minor: 7 };
/// `/dev/zero`, by the name of another.
const OTHER: DeviceNode = DeviceNode { major: 1, minor: 5 };

/// A group of this test's own, removed at the end.
struct Group(PathBuf);

impl Group {
    /// In the devices controller of cgroup v1, or in cgroup v2; `None` where there is none or we may not.
    fn new(kind: &str, option: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields[2] == kind && (option.is_empty() || fields[3].split(',').any(|field| field == option))).then_some(fields[1])
        })?;
        let name = format!("flash-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(mount).join(name);
        std::fs::create_dir(&folder).ok()?;
        Some(Self(folder))
    }

    fn all() -> Vec<(&'static str, Self)> {
        let ways = [("cgroup v1", Self::new("cgroup", "devices")), ("cgroup v2", Self::new("cgroup2", ""))];
        ways.into_iter().filter_map(|(name, group)| Some((name, group?))).collect()
    }

    fn is_empty(&self) -> bool {
        !std::fs::read_dir(&self.0).unwrap().flatten().any(|entry| entry.file_type().unwrap().is_dir())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _stays = std::fs::remove_dir(&self.0);
    }
}

fn make(site: &Site) {
    for (name, node) in [("gpu0", OWN), ("gpu1", OTHER)] {
        let path = site.work().join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(node.major, node.minor)).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    }
}

/// Tells which of the two nodes it could open, and that what every program needs is there still.
fn looks(site: &Site) -> StartOrder {
    let work = site.work().display().to_string();
    let look = |name: &str| format!("head -c 1 {work}/{name} > /dev/null && echo {name}; ");
    script(&format!("{}{}head -c 1 /dev/urandom > /dev/null && echo random", look("gpu0"), look("gpu1")))
}

fn rule(denied: &[DeviceNode], required: bool) -> DeviceRule {
    DeviceRule { denied: denied.to_vec(), missing: Vec::new(), required }
}

#[tokio::test]
async fn a_run_opens_its_own_devices_and_no_others() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (way, group) in Group::all() {
        let mut site = Site::new();
        std::fs::set_permissions(site.work(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(site.work().parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        make(&site);
        site.runner_args.extend(["--device-root".into(), group.0.clone().into()]);
        let (mut rig, access) = site.guarded().await;
        assert!(access.enforced && access.detail == way, "{way}: {access:?}");
        for (denied, uid, expected) in [
            (vec![OTHER], None, "gpu0\nrandom\n"),
            (vec![OTHER], Some(NOBODY), "gpu0\nrandom\n"),
            (vec![OTHER, OWN], None, "random\n"),
            (vec![OWN], None, "gpu1\nrandom\n"),
            (Vec::new(), None, "gpu0\ngpu1\nrandom\n"),
        ] {
            let order = StartOrder { devices: Some(rule(&denied, true)), uid, ..looks(&site) };
            let run = order.run;
            assert_eq!(rig.result(order).await, RunResult::Succeeded, "{way}");
            assert_eq!(rig.log(run, "main", "out"), expected, "{way}, without {denied:?}");
            if denied.len() == 1 {
                let said = rig.log(run, "main", "err");
                assert!(said.contains("Operation not permitted"), "{way}: {said}");
            }
        }
        assert!(group.is_empty(), "{way}: groups of runs that have ended are gone");
        // Who gets no rule is in no group.
        let free = looks(&site);
        let run = free.run;
        rig.result(free).await;
        assert_eq!(rig.log(run, "main", "out"), "gpu0\ngpu1\nrandom\n");
    }
}

#[tokio::test]
async fn what_a_run_starts_beside_it_is_in_its_group_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (way, group) in Group::all() {
        let mut site = Site::new();
        make(&site);
        site.runner_args.extend(["--device-root".into(), group.0.clone().into()]);
        let mut rig = site.daemon().await;
        let (mut said, go) = (rig.signal("said"), rig.signal("go"));
        let node = site.work().join("gpu1").display().to_string();
        // A session of its own, no environment, another parent: nothing of it says whose it is but the group.
        let child = format!("(head -c 1 {node} > /dev/null || echo refused) > {}; exec sleep 1000", said.path());
        let order = script(&format!("setsid env -i /bin/sh -c '{child}' & read line < {}", go.path()));
        let order = StartOrder { devices: Some(rule(&[OTHER], true)), ..order };
        let run = rig.start(order).await;
        assert_eq!(said.line().await, "refused", "{way}");
        std::fs::write(go.path().to_string(), "go\n").unwrap();
        // The end of the run is the end of that process.
        assert_eq!(rig.inbox.ended(run).await, RunResult::Succeeded, "{way}");
        assert!(group.is_empty(), "{way}");
    }
}

#[tokio::test]
async fn where_it_cannot_be_done_it_is_left_or_the_run_is_lost() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut site = Site::new();
    make(&site);
    // No cgroup.
    site.runner_args.extend(["--device-root".into(), site.work().into()]);
    let (mut rig, access) = site.guarded().await;
    assert!(!access.enforced && access.detail.contains("it is no cgroup"), "{access:?}");
    let order = StartOrder { devices: Some(rule(&[OTHER], false)), ..looks(&site) };
    let run = order.run;
    assert_eq!(rig.result(order).await, RunResult::Succeeded);
    assert_eq!(rig.log(run, "main", "out"), "gpu0\ngpu1\nrandom\n");
    let order = StartOrder { devices: Some(rule(&[OTHER], true)), ..looks(&site) };
    let message = lost_message(&rig.result(order).await);
    assert!(message.contains("gpu.device_cgroup") && message.contains("it is no cgroup"), "{message}");
}
