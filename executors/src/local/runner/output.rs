//! Where the tasks' output goes: files that get their names late, or never if nothing was written.
//!
//! Making a file in a folder and naming it costs as much as all else that this runner does for a short run, and removing the files of many
//! such runs slows the making of others down by an order of magnitude for seconds. So while orders are held, a run's streams
//! are files without a name (`O_TMPFILE`). Invariants:
//! - A file gets its name ([`log_file_name`]) as soon as its run has gone on for a moment
//!   ([`fresh`](super::RunnerOptions::fresh)), and before its run's end is told, if there is anything in it. A log file
//!   that does not exist is an empty one: that is the contract with whoever reads it.
//! - A file that has no name and is as it was made goes to the next run of the same user, and to nobody else's.
//! - A runner that is killed leaves no file behind; of a process that goes on the next runner finds the files and names them.
//!
//! Where the file system has no such files, and for runs without others behind them, the files are named from the beginning
//! ([`prepare::open_logs`](super::prepare::open_logs)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, OFlags, fcntl_setfl, linkat};
use scheduler_core::ids::{Name, RunId};

use super::launch::Credentials;
use super::note;
use super::table::Pid;
use crate::contract::log_file_name;

/// The streams of a task, by the number of their descriptor less one.
pub(super) const STREAMS: [&str; 2] = ["out", "err"];
/// Most files without a name that are kept for runs to come.
const MAX_SPARE: usize = 64;
/// Most folders that are remembered.
const MAX_FOLDERS: usize = 16;
/// What a log file may be to others.
const MODE: u32 = 0o600;

/// A file of one stream that has no name yet.
#[derive(Debug)]
pub(super) struct Unnamed {
    file: File,
    /// The folder that it is in.
    dir: Arc<str>,
    /// Whose it is, if not the runner's.
    uid: Option<u32>,
}

/// Files that the next runs can have.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Unnamed>);

/// Both streams of a run's only task.
pub(super) type Streams = [Unnamed; 2];

/// How the tasks of a run get their output files.
#[derive(Debug)]
pub(super) enum Output {
    /// Named from the beginning.
    Named,
    /// Named late: these, or new ones.
    Late(Option<Streams>),
}

/// What became of a file.
#[derive(PartialEq, Eq)]
enum Use {
    /// There is something in it.
    Written,
    /// It is as it was made.
    None,
    /// Somebody has opened it to others, or given it a name.
    Other,
}

impl Unnamed {
    /// A new one; `None` where the folder's file system has no files that can be named late.
    pub(super) fn make(late: &Late, dir: &Arc<str>, uid: Option<u32>, owner: Option<&Credentials>) -> io::Result<Option<Self>> {
        if !late.is_possible(dir)? {
            return Ok(None);
        }
        let Some(file) = unnamed(dir)? else { return Ok(None) };
        if let Some(owner) = owner {
            std::os::unix::fs::fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(Some(Self { file, dir: Arc::clone(dir), uid }))
    }

    /// To be written to.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The folder that it is in.
    pub(super) fn dir(&self) -> &str {
        &self.dir
    }

    fn used(&self) -> Use {
        match self.file.metadata() {
            Ok(data) if data.size() > 0 => Use::Written,
            Ok(data) if data.blocks() == 0 && data.nlink() == 0 && data.mode() & 0o7777 == MODE => Use::None,
            Ok(_) | Err(_) => Use::Other,
        }
    }

    fn name(&self, run: RunId, task: &Name, stream: &str) {
        name_log(&path_of(&self.file), &self.dir, run, task, stream);
    }
}

/// Folders that were tried: whether files in them can be named late.
#[derive(Default)]
pub(super) struct Late(Mutex<Vec<(Arc<str>, bool)>>);

impl Late {
    /// Tries it once for each folder, because what cannot be named in the end is lost.
    fn is_possible(&self, dir: &Arc<str>) -> io::Result<bool> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, possible)) = known.iter().find(|(tried, _)| tried == dir) {
            return Ok(*possible);
        }
        let name = Path::new(&**dir).join(format!(".runner-{}", std::process::id()));
        let possible = match unnamed(dir)? {
            Some(file) => link(&path_of(&file), &name).and_then(|()| std::fs::remove_file(&name)).is_ok(),
            None => false,
        };
        if known.len() == MAX_FOLDERS {
            known.remove(0);
        }
        known.push((Arc::clone(dir), possible));
        Ok(possible)
    }
}

/// A file without a name; `None` where there are none.
fn unnamed(dir: &str) -> io::Result<Option<File>> {
    let flags = libc::O_TMPFILE | libc::O_APPEND;
    match OpenOptions::new().write(true).mode(MODE).custom_flags(flags).open(dir) {
        Ok(file) => Ok(Some(file)),
        // EISDIR is what kernels say that do not know of it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Names a file. It does not follow or replace what may be in the way.
fn link(from: &str, to: &Path) -> io::Result<()> {
    Ok(linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

/// Gives a log file its name. Nobody reads it where that fails, so that is said.
fn name_log(from: &str, dir: &str, run: RunId, task: &Name, stream: &str) {
    let path = Path::new(dir).join(log_file_name(run, task.as_str(), stream));
    if let Err(error) = link(from, &path) {
        note(&format!("log file {}: {error}", path.display()));
    }
}

/// Names the files of a run's only task.
pub(super) fn name_all(run: RunId, task: &Name, streams: &Streams) {
    streams.iter().zip(STREAMS).for_each(|(stream, name)| stream.name(run, task, name));
}

/// As [`name_all`], but leaves out what was not written to: nobody misses an empty one once the run has ended.
pub(super) fn name_written(run: RunId, task: &Name, streams: &Streams) {
    let written = streams.iter().zip(STREAMS).filter(|(stream, _)| stream.used() == Use::Written);
    written.for_each(|(stream, name)| stream.name(run, task, name));
}

impl Spares {
    /// Two files, if there are so many for this user in this folder.
    pub(super) fn take(&mut self, dir: &Arc<str>, uid: Option<u32>) -> Option<Streams> {
        let fits = |spare: &Unnamed| spare.uid == uid && spare.dir == *dir;
        let second = self.0.iter().rposition(fits)?;
        let first = self.0[..second].iter().rposition(fits)?;
        let second = self.0.swap_remove(second);
        Some([self.0.swap_remove(first), second])
    }

    /// Takes back what a run leaves; gives it back if something was written.
    pub(super) fn give(&mut self, streams: Streams) -> Option<Streams> {
        let used = streams.each_ref().map(Unnamed::used);
        if used.contains(&Use::Written) {
            return Some(streams);
        }
        for (stream, used) in streams.into_iter().zip(used) {
            // Its last user may have changed how it is written to.
            if used == Use::None && fcntl_setfl(&stream.file, OFlags::APPEND).is_ok() {
                if self.0.len() == MAX_SPARE {
                    self.0.remove(0);
                }
                self.0.push(stream);
            }
        }
        None
    }
}

/// Names the files without a name that a process of an earlier runner's task writes to.
pub(super) fn rescue(pid: Pid, dir: &str, run: RunId, task: &Name) {
    for (number, stream) in STREAMS.iter().enumerate() {
        let from = format!("/proc/{pid}/fd/{}", number + 1);
        let Ok(shown) = std::fs::read_link(&from) else { continue };
        // What `O_TMPFILE` makes is shown as "/folder/#number (deleted)". Whatever else it writes to by now is its own business.
        let is_ours = shown.parent() == Some(Path::new(dir))
            && shown.file_name().is_some_and(|name| name.to_string_lossy().starts_with('#'))
            && std::fs::metadata(&from).is_ok_and(|data| data.nlink() == 0);
        if is_ours {
            name_log(&from, dir, run, task, stream);
        }
    }
}
