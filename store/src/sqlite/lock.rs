//! One daemon a folder: an advisory lock that the kernel releases with the process, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::fault::At;
use crate::StoreError;

/// The held lock. The file stays behind when it is released: removing it would let two daemons lock two files of one name.
#[derive(Debug)]
pub(super) struct FolderLock {
    /// Children do not inherit it (close-on-exec).
    file: File,
}

impl Drop for FolderLock {
    /// Unlocks, and does not leave that to the closing: a child that is being started has the file too, until it runs its program.
    fn drop(&mut self) {
        // If it fails, the closing that follows is the other way.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl FolderLock {
    /// Takes `dir/flashd.lock` and writes this process's id into it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the id that the holder wrote, or what the file system says.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("flashd.lock");
        let at = At { op: "lock", path: &path };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| at.io(&error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who holds it is a courtesy: unreadable is as good as unknown.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(StoreError::Locked { subject: dir.display().to_string(), pid });
            }
            Err(errno) => return Err(at.io(&errno.into())),
        }
        let pid = format!("{}\n", std::process::id());
        // The new id is written over the old one before the rest is cut off: a reader never finds an empty file.
        file.rewind()
            .and_then(|()| file.write_all(pid.as_bytes()))
            .and_then(|()| file.set_len(pid.len() as u64))
            .map_err(|error| at.io(&error))?;
        Ok(Self { file })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_file_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path()).unwrap();
        // As a child has it between fork and exec.
        let copy = lock.file.try_clone().unwrap();
        assert!(matches!(FolderLock::take(dir.path()), Err(StoreError::Locked { .. })));
        drop(lock);
        FolderLock::take(dir.path()).unwrap();
        drop(copy);
    }
}
