//! Whether a user can work in a folder, as far as the daemon can tell.
//!
//! Invariants: a folder is refused only when it is sure that the task could not start there; what cannot be told (a network file system
//! that keeps root out, an access list) is left to the executor, which fails the job with the reason. Answers are kept for a moment,
//! bounded, so that a burst of submits does not ask the disk for each.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD};

use crate::users::Users;

/// How long a folder that was good is taken for good.
const GOOD: Duration = Duration::from_secs(5);
/// How long a folder that was not is taken for bad: no longer than one request needs, for it may be made at once.
const BAD: Duration = Duration::from_millis(50);
/// Answers that are kept at most.
const KEPT: usize = 4_096;

#[derive(Clone)]
struct Answer {
    until: Instant,
    /// What is wrong with it.
    fault: Option<Arc<str>>,
}

/// Answers about folders.
pub struct Dirs {
    users: Arc<Users>,
    own_uid: u32,
    kept: Mutex<HashMap<u32, HashMap<Box<str>, Answer>>>,
}

impl Dirs {
    /// Asked by the daemon that runs as `own_uid`.
    pub fn new(users: Arc<Users>, own_uid: u32) -> Self {
        Self { users, own_uid, kept: Mutex::default() }
    }

    /// Whether the answer is at hand, so that [`Self::fault`] does not block.
    pub fn is_known(&self, path: &str, uid: u32) -> bool {
        self.recall(path, uid).is_some()
    }

    fn recall(&self, path: &str, uid: u32) -> Option<Answer> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&uid)?.get(path).filter(|answer| answer.until > Instant::now()).cloned()
    }

    /// What keeps `uid` from working in the folder, if it is sure. May ask the disk, and so block.
    pub fn fault(&self, path: &str, uid: u32) -> Option<Arc<str>> {
        if let Some(answer) = self.recall(path, uid) {
            return answer.fault;
        }
        let fault = self.look(Path::new(path), uid).map(Arc::from);
        let until = Instant::now() + if fault.is_none() { GOOD } else { BAD };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.values().map(HashMap::len).sum::<usize>() >= KEPT {
            kept.clear();
        }
        kept.entry(uid).or_default().insert(path.into(), Answer { until, fault: fault.clone() });
        fault
    }

    fn look(&self, path: &Path, uid: u32) -> Option<String> {
        let shown = path.display();
        // Root may be kept out by a network file system that lets the user in.
        let unsure = |error: &io::Error| self.own_uid == 0 && error.kind() == io::ErrorKind::PermissionDenied;
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if unsure(&error) => return None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(format!("the folder {shown} does not exist")),
            Err(error) => return Some(format!("the folder {shown}: {error}")),
        };
        match std::fs::metadata(&real) {
            Ok(found) if !found.is_dir() => return Some(format!("{shown} is not a folder")),
            Ok(_) => {}
            Err(error) if unsure(&error) => return None,
            Err(error) => return Some(format!("the folder {shown}: {error}")),
        }
        if self.own_uid != 0 {
            // Tasks run as the daemon's own user.
            let access = rustix::fs::accessat(CWD, &real, Access::EXEC_OK, AtFlags::EACCESS);
            return access.err().map(|error| format!("the folder {shown} cannot be entered: {error}"));
        }
        if uid == 0 {
            return None;
        }
        let user = self.users.get_blocking(uid).ok()?;
        let closed = real.ancestors().find(|folder| !may_enter(folder, uid, &user.groups))?;
        Some(if closed == real {
            format!("the folder {shown} may not be entered by {}", user.name)
        } else {
            format!("the folder {shown} may not be reached by {}: {} is closed", user.name, closed.display())
        })
    }
}

/// By the mode bits; true where there is an access list, or where it cannot be told.
fn may_enter(folder: &Path, uid: u32, groups: &[u32]) -> bool {
    let Ok(found) = std::fs::metadata(folder) else { return true };
    let bit = if found.uid() == uid {
        0o100
    } else if groups.contains(&found.gid()) {
        0o010
    } else {
        0o001
    };
    found.mode() & bit != 0 || has_access_list(folder)
}

fn has_access_list(folder: &Path) -> bool {
    let mut value = [0_u8; 0];
    rustix::fs::getxattr(folder, "system.posix_acl_access", &mut value).is_ok_and(|length| length > 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn dirs() -> Dirs {
        Dirs::new(Arc::default(), rustix::process::geteuid().as_raw())
    }

    #[test]
    fn what_is_not_there_or_no_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let dirs = dirs();
        let fault = |path: &Path| dirs.fault(path.to_str().unwrap(), dirs.own_uid);
        assert_eq!(fault(folder.path()), None);
        assert!(dirs.is_known(folder.path().to_str().unwrap(), dirs.own_uid));
        assert!(fault(&file).unwrap().contains("is not a folder"));
        assert!(fault(&folder.path().join("none")).unwrap().contains("does not exist"));
        assert!(fault(&file.join("below")).is_some());
    }

    #[test]
    fn mode_bits_decide_for_owner_group_and_others() {
        let folder = tempfile::tempdir().unwrap();
        let found = std::fs::metadata(folder.path()).unwrap();
        let (owner, group) = (found.uid(), found.gid());
        for (mode, as_owner, as_group, as_other) in
            [(0o700, true, false, false), (0o050, false, true, false), (0o771, true, true, true)]
        {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_enter(folder.path(), owner, &[]), as_owner, "{mode:o}");
            assert_eq!(may_enter(folder.path(), owner + 1, &[group]), as_group, "{mode:o}");
            assert_eq!(may_enter(folder.path(), owner + 1, &[group + 1]), as_other, "{mode:o}");
        }
    }
}
