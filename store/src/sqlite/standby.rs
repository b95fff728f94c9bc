//! A folder that another daemon has: who that is, when it is free, and what can be read of it meanwhile.
//!
//! What must hold: whoever waits changes nothing in the folder; it is read only on the machine whose daemon has it, because SQLite's readers and
//! writers share memory; what was made by another version is not read.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::{mpsc, oneshot};

use super::SqliteStore;
use super::fault::At;
use super::live::Shared;
use super::lock::{FILE, Holder};
use super::readers::Readers;
use crate::{Head, StateCounts, StoreError};

/// Who has this folder, as it wrote; nothing where nobody ever had it.
pub fn holder(dir: &Path) -> Holder {
    std::fs::File::open(dir.join(FILE)).map(|mut file| Holder::read(&mut file)).unwrap_or_default()
}

/// Waits until nobody has this folder. Others may wait for the same, so it may be taken again at once.
///
/// # Errors
/// The folder cannot be looked at.
pub async fn free(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(FILE);
    let (sender, receiver) = oneshot::channel();
    // A thread of its own, that the end of the process does not wait for: the kernel wakes it when the holder is gone, however that ends.
    std::thread::Builder::new()
        .name("store-standby".to_owned())
        .spawn(move || {
            let at = At { op: "wait for the lock", path: &path };
            let waited = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| at.io(&error)).and_then(|file| {
                loop {
                    match flock(&file, FlockOperation::LockExclusive) {
                        Err(rustix::io::Errno::INTR) => {}
                        other => return other.map_err(|errno| at.io(&errno.into())),
                    }
                }
            });
            // Nobody waits any more where that fails; the lock goes with the file.
            let _ = sender.send(waited);
        })
        .map_err(|error| At { op: "start a thread", path: dir }.io(&error))?;
    receiver.await.unwrap_or(Err(StoreError::Closed { op: "wait for the lock" }))
}

impl SqliteStore {
    /// A table that another daemon of this machine writes, for reading alone: whatever would change it is [`StoreError::Standby`]. It may not
    /// be there yet, or be of another version: [`crate::Store::standing`] says so, and is to be asked first.
    pub fn reading(dir: &Path) -> Self {
        let (commands, _) = mpsc::channel(1);
        let counts = Arc::new(Mutex::new(StateCounts::default()));
        let readers = Readers::new(Self::file(dir));
        Self { head: Head::default(), commands, counts, readers, shared: Arc::<Mutex<Shared>>::default(), reading: true }
    }
}
