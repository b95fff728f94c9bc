//! Watches processes that are no children of this runner: those of runs that an earlier runner started.
//!
//! Their end is seen through process descriptors; how they ended cannot be known.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};
use scheduler_core::ids::RunId;

use super::note;
use super::procfs::Proc;
use super::shared::Shared;
use super::table::Pid;

/// Hands processes to the thread that watches them.
pub(super) struct Follower {
    new: Mutex<Vec<(RunId, Pid, u64)>>,
    wake: OwnedFd,
}

impl Follower {
    /// Nobody is followed yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { new: Mutex::new(Vec::new()), wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Has a process of a run watched from now on: the one with this number that was started at that tick, if it is still there.
    pub(super) fn follow(&self, run: RunId, pid: Pid, start: u64) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push((run, pid, start));
        // It only fails when the counter is full, and then the thread is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread. It ends with the process.
pub(super) fn follow_all(shared: &Shared) {
    let follower = &shared.follower;
    let mut followed: BTreeMap<Pid, (RunId, OwnedFd)> = BTreeMap::new();
    loop {
        let new = std::mem::take(&mut *follower.new.lock().unwrap_or_else(PoisonError::into_inner));
        let mut gone: Vec<(RunId, Pid)> = Vec::new();
        for (run, pid, start) in new {
            match open(pid, start) {
                Some(descriptor) => {
                    followed.insert(pid, (run, descriptor));
                }
                None => gone.push((run, pid)),
            }
        }
        if gone.is_empty() {
            gone = wait_for_ends(follower, &followed);
        }
        for (run, pid) in gone {
            followed.remove(&pid);
            shared.lock().adopted_gone(shared, run, pid);
        }
    }
}

/// A descriptor of exactly this process.
fn open(pid: Pid, start: u64) -> Option<OwnedFd> {
    let descriptor = match pidfd_open(RawPid::from_raw(pid)?, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return None,
        Err(error) => {
            // Without a descriptor its end would never be seen. It is taken for lost, and ended with the rest of its run.
            note(&format!("process {pid} cannot be followed: {error}"));
            return None;
        }
    };
    Proc::read(pid).filter(|now| now.start == start).map(|_| descriptor)
}

/// Waits until a process has ended or there are new ones to follow.
fn wait_for_ends(follower: &Follower, followed: &BTreeMap<Pid, (RunId, OwnedFd)>) -> Vec<(RunId, Pid)> {
    let mut watched = vec![PollFd::new(&follower.wake, PollFlags::IN)];
    watched.extend(followed.values().map(|(_, descriptor)| PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)));
    if let Err(error) = poll(&mut watched, None) {
        if error != rustix::io::Errno::INTR {
            note(&format!("following processes: {error}"));
        }
        return Vec::new();
    }
    let mut counter = [0; 8];
    let _ = rustix::io::read(&follower.wake, &mut counter);
    let ended = followed.iter().zip(watched.iter().skip(1)).filter(|(_, polled)| !polled.revents().is_empty());
    ended.map(|((pid, (run, _)), _)| (*run, *pid)).collect()
}
