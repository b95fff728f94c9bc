//! One daemon a folder: an advisory lock that the kernel releases with the process, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::fault::At;
use crate::StoreError;

/// The held lock. The file stays behind when it is released: removing it would let two daemons lock two files of one name.
#[derive(Debug)]
pub struct FolderLock {
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

/// How long to wait for a lock whose owner is dead. A process that was killed while it started another one leaves the lock to that child
/// for the moment between its fork and its exec.
const ORPHAN_WAIT: Duration = Duration::from_secs(5);
const ORPHAN_PAUSE: Duration = Duration::from_millis(5);

/// The file of the lock, in the data folder.
pub(super) const FILE: &str = "flashd.lock";
/// Where the kernel says which boot of which machine it is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Who holds it, as it wrote: a courtesy, unreadable is as good as unknown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holder {
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it is a process of this machine, since its last start.
    pub is_here: bool,
}

fn boot() -> Option<String> {
    std::fs::read_to_string(BOOT_ID).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl Holder {
    pub(super) fn read(file: &mut File) -> Self {
        let mut text = String::new();
        if file.rewind().and_then(|()| file.read_to_string(&mut text)).is_err() {
            return Self::default();
        }
        let mut lines = text.lines();
        let pid = lines.next().and_then(|line| line.trim().parse().ok());
        let is_here = lines.next().is_some_and(|line| boot().as_deref() == Some(line.trim()));
        Self { pid, is_here }
    }
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    test_kill_process(pid) != Err(Errno::SRCH)
}

impl FolderLock {
    /// Takes `dir/flashd.lock` and writes this process's id into it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the id that the holder wrote, or what the file system says.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let at = At { op: "lock", path: &path };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| at.io(&error))?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {
                    let Holder { pid, is_here } = Holder::read(&mut file);
                    // Of another machine nobody knows here who lives there.
                    if begun.elapsed() >= ORPHAN_WAIT || !is_here || pid.is_none_or(is_alive) {
                        return Err(StoreError::Locked { subject: dir.display().to_string(), pid });
                    }
                    std::thread::sleep(ORPHAN_PAUSE);
                }
                Err(errno) => return Err(at.io(&errno.into())),
            }
        }
        let own = format!("{}\n{}\n", std::process::id(), boot().unwrap_or_default());
        // It is written over the old one before the rest is cut off: a reader never finds an empty file.
        file.rewind()
            .and_then(|()| file.write_all(own.as_bytes()))
            .and_then(|()| file.set_len(own.len() as u64))
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
