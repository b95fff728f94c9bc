//! Folders of clusters: one each, below `target/control-plane/run`, held by a lock as long as its cluster lives.
//!
//! A test program that is killed cleans up nothing; whoever makes the next folder removes those that nobody holds.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{ClusterError, file};

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().unwrap_or(root);
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// A folder that is ours.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// A new one.
    pub(crate) fn make() -> Result<Self, ClusterError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let above = target_dir().join("control-plane/run");
        std::fs::create_dir_all(&above).map_err(file("making", &above))?;
        sweep(&above);
        let path = above.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        Self::take(path)
    }

    /// One of that name, emptied. An error if somebody holds it.
    pub(crate) fn take(path: PathBuf) -> Result<Self, ClusterError> {
        let lock_path = path.with_extension("lock");
        let above = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(above).map_err(file("making", above))?;
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(file("opening", &lock_path))?;
        lock.try_lock().map_err(|error| ClusterError::File { op: "locking", path: lock_path, source: error.into() })?;
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(file("emptying", &path))?;
        }
        std::fs::create_dir(&path).map_err(file("making", &path))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("FLASH_KEEP_CLUSTER").is_none() {
            // What stays is swept by the next cluster.
            let _ = std::fs::remove_dir_all(&self.path);
            let _ = std::fs::remove_file(self.path.with_extension("lock"));
        }
    }
}

/// Removes folders whose lock nobody holds. What cannot be removed stays.
fn sweep(above: &Path) {
    if std::env::var_os("FLASH_KEEP_CLUSTER").is_some() {
        return;
    }
    for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
        let lock_path = entry.path();
        if lock_path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(lock) = File::open(&lock_path) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(lock_path.with_extension(""));
            let _ = std::fs::remove_file(&lock_path);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_holds_is_not_taken_or_swept() {
        let above = target_dir().join(format!("control-plane/test-{}", std::process::id()));
        let held = Folder::take(above.join("held")).unwrap();
        std::fs::create_dir_all(above.join("left")).unwrap();
        std::fs::write(above.join("left.lock"), "").unwrap();
        sweep(&above);
        assert!(held.path.is_dir() && !above.join("left").exists() && !above.join("left.lock").exists());
        assert!(matches!(Folder::take(above.join("held")), Err(ClusterError::File { op: "locking", .. })));
        drop(held);
        assert!(!above.join("held").exists());
        std::fs::remove_dir(&above).unwrap();
    }
}
