//! Watches processes, through descriptors of them, until they end: tasks whose spawn thread does not wait for them itself, and the
//! processes of runs that an earlier runner had started. How the latter ended cannot be known: they are no children of this one.
//!
//! Every process has one that waits for it: this thread, a spawn thread for a while ([`spawn`](super::spawn)), or the main thread for
//! orphans ([`reap`](super::reap)). So an exit wakes nobody who has nothing to do with it, as long as there are no more tasks than
//! descriptors are kept for ([`crowd`](super::crowd)).

use std::collections::HashMap;
use std::io;
use std::mem::take;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};
use scheduler_core::ids::RunId;

use super::note;
use super::procfs::Proc;
use super::shared::Shared;
use super::sys;
use super::table::Pid;

/// Ends that are taken at a time.
const MAX_EVENTS: usize = 64;
/// The event that wakes the thread.
const WAKE: u64 = 0;

#[derive(Clone, Copy)]
enum Whose {
    /// A task of this runner.
    Task,
    /// A process of a run of an earlier one.
    Adopted(RunId),
}

struct Watched {
    pid: Pid,
    whose: Whose,
    descriptor: OwnedFd,
}

#[derive(Default)]
struct List {
    last: u64,
    watched: HashMap<u64, Watched>,
    /// How many of these are tasks of this runner.
    tasks: usize,
    /// Adopted processes that were gone already.
    gone: Vec<(RunId, Pid)>,
}

/// Hands processes to the thread that watches them.
pub(super) struct Watcher {
    most: usize,
    epoll: OwnedFd,
    wake: OwnedFd,
    list: Mutex<List>,
}

impl Watcher {
    /// Nobody is watched yet, and at most so many tasks ever are.
    pub(super) fn new(most: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { most, epoll, wake, list: Mutex::default() })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a task watched from now on; false if there are too many, or it cannot be.
    fn watch(&self, pid: Pid, descriptor: OwnedFd) -> bool {
        self.list().tasks < self.most && self.add(pid, Whose::Task, descriptor)
    }

    /// Has a process of an earlier runner's run watched: the one with this number that was started at that tick, if it is still there.
    pub(super) fn follow(&self, run: RunId, pid: Pid, start: u64) {
        // Without a descriptor its end would never be seen. It is taken for lost then, and ended with the rest of its run.
        if open(pid, start).is_none_or(|descriptor| !self.add(pid, Whose::Adopted(run), descriptor)) {
            self.list().gone.push((run, pid));
            self.wake();
        }
    }

    fn add(&self, pid: Pid, whose: Whose, descriptor: OwnedFd) -> bool {
        let mut list = self.list();
        list.last += 1;
        let token = list.last;
        if let Err(error) = epoll::add(&self.epoll, &descriptor, epoll::EventData::new_u64(token), epoll::EventFlags::IN) {
            note(&format!("process {pid} cannot be watched: {error}"));
            return false;
        }
        list.tasks += usize::from(matches!(whose, Whose::Task));
        list.watched.insert(token, Watched { pid, whose, descriptor });
        true
    }

    fn wake(&self) {
        // It only fails when the counter is full, and then the thread is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits for the next ends.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> Vec<(Pid, Whose)> {
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => note(&format!("watching processes: {error}")),
        }
        let mut ended = Vec::with_capacity(events.len());
        let mut list = self.list();
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == WAKE {
                let mut counter = [0; 8];
                let _ = rustix::io::read(&self.wake, &mut counter);
            } else if let Some(Watched { pid, whose, descriptor }) = list.watched.remove(&token) {
                // Closing would not do while a task that is being made still has its copy.
                let _ = epoll::delete(&self.epoll, &descriptor);
                list.tasks -= usize::from(matches!(whose, Whose::Task));
                ended.push((pid, whose));
            }
        }
        ended
    }
}

/// A descriptor of exactly this process.
fn open(pid: Pid, start: u64) -> Option<OwnedFd> {
    let descriptor = match pidfd_open(RawPid::from_raw(pid)?, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return None,
        Err(error) => {
            note(&format!("process {pid} cannot be followed: {error}"));
            return None;
        }
    };
    Proc::read(pid).filter(|now| now.start == start).map(|_| descriptor)
}

/// Has a task waited for from now on. Nobody else may reap it.
pub(super) fn watch(shared: &Shared, pid: Pid, descriptor: Option<OwnedFd>) {
    if descriptor.is_none_or(|descriptor| !shared.watcher.watch(pid, descriptor)) {
        shared.crowd.join(pid);
    }
}

/// The thread. It ends with the process.
pub(super) fn watch_all(shared: &Shared) {
    let watcher = &shared.watcher;
    let mut events = Vec::with_capacity(MAX_EVENTS);
    loop {
        let gone = take(&mut watcher.list().gone);
        for (run, pid) in gone {
            shared.lock().adopted_gone(shared, run, pid);
        }
        for (pid, whose) in watcher.wait(&mut events) {
            match whose {
                Whose::Adopted(run) => shared.lock().adopted_gone(shared, run, pid),
                Whose::Task => take_exit(shared, pid),
            }
        }
    }
}

/// Takes the exit of a task that has ended and that nobody else waits for.
pub(super) fn take_exit(shared: &Shared, pid: Pid) {
    // Under the lock, and not before: whoever holds it may signal, by number, what was not reaped.
    let mut table = shared.lock();
    match sys::reap(pid) {
        Ok(Some(exit)) => table.reaped(shared, pid, exit),
        // Not possible; but its end must not be missed.
        Ok(None) => shared.crowd.join(pid),
        Err(error) => note(&format!("process {pid} was reaped by somebody else: {error}")),
    }
}
