//! What `/proc` says about processes.
//!
//! Nothing here is exact on its own: a process may end, and its number be given to another, between two reads. So a process is always
//! named by number and start time, and signalled through a descriptor that was opened before the start time was compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::{Pid as RawPid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use scheduler_core::ids::RunId;

use super::table::Pid;

/// One process, as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Proc {
    /// Its id.
    pub pid: Pid,
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its session.
    pub session: Pid,
    /// Start, in ticks since boot.
    pub start: u64,
}

impl Proc {
    /// Reads a process that lives. One that has ended and waits to be reaped counts as gone.
    pub(super) fn read(pid: Pid) -> Option<Self> {
        Self::parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: Pid, stat: &[u8]) -> Option<Self> {
        // The name in parentheses may hold anything, also parentheses: what counts comes after the last one.
        let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let text = std::str::from_utf8(stat.get(after..)?).ok()?;
        let mut fields = text.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // Field 22; the session was field 6.
        let start = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, parent, group, session, start })
    }

    /// Sends a signal to this process and to no other that may have got its number since.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(raw) = RawPid::from_raw(self.pid) else { return };
        let descriptor = pidfd_open(raw, PidfdFlags::empty());
        if Self::read(self.pid).is_none_or(|now| now.start != self.start) {
            return;
        }
        // It may be gone by now, or be somebody's whom we may not signal; whether it is gone is looked up again later.
        let _ = match descriptor {
            Ok(descriptor) => pidfd_send_signal(&descriptor, signal),
            // Before Linux 5.3 the number has to do.
            Err(rustix::io::Errno::NOSYS) => kill_process(raw, signal),
            Err(error) => Err(error),
        };
    }
}

/// How often a process without an environment is looked at, and the time between: a program is loaded sooner.
const LOOKS: u32 = 25;
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// The same for one process that is executing a program: it does so in microseconds, unless others keep the processor.
const EXEC_LOOKS: u32 = 200;
const EXEC_PAUSE: Duration = Duration::from_micros(200);

/// Ids of all processes.
fn all_pids() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// All processes that live.
pub(super) fn snapshot() -> Vec<Proc> {
    all_pids().into_iter().filter_map(Proc::read).collect()
}

/// Children of a process's threads. An error where the kernel was built without these lists.
fn children_of(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(children) };
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(|text| text.parse::<Pid>().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(children)
}

/// Children of a process's main thread: where orphans arrive that a subreaper adopts. Empty in the common case, which costs one system call.
pub(super) type Orphans = Vec<Pid>;

/// Where this process's orphans are listed.
pub(super) struct OrphanList(Option<File>);

impl OrphanList {
    /// That of the calling process. Where the kernel was built without such lists, all processes are looked through.
    pub(super) fn new() -> Self {
        Self(File::open(format!("/proc/self/task/{}/children", std::process::id())).ok())
    }

    /// Who is there now, zombies included.
    pub(super) fn list(&self) -> Orphans {
        if let Some(Ok(list)) = self.0.as_ref().map(read_again) {
            return list.split_ascii_whitespace().filter_map(|text| text.parse().ok()).collect();
        }
        let me = std::process::id().cast_signed();
        snapshot().into_iter().filter(|process| process.parent == me).map(|process| process.pid).collect()
    }
}

/// All that a file of the kernel says now, which is open already.
fn read_again(file: &File) -> io::Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    loop {
        match file.read_at(&mut buffer, text.len() as u64)? {
            0 => return Ok(text),
            length => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
}

/// The living among `roots` and all their descendants.
pub(super) fn families(roots: &[Pid]) -> Vec<Proc> {
    if roots.is_empty() {
        return Vec::new();
    }
    let mut by_parent: Option<BTreeMap<Pid, Vec<Pid>>> = None;
    let mut found: BTreeMap<Pid, Proc> = BTreeMap::new();
    let mut to_visit = roots.to_vec();
    while let Some(pid) = to_visit.pop() {
        if found.contains_key(&pid) {
            continue;
        }
        let Some(process) = Proc::read(pid) else { continue };
        found.insert(pid, process);
        let children = match &by_parent {
            Some(map) => map.get(&pid).cloned().unwrap_or_default(),
            None => children_of(pid).unwrap_or_else(|_| {
                let mut map: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
                for process in snapshot() {
                    map.entry(process.parent).or_default().push(process.pid);
                }
                by_parent.insert(map).get(&pid).cloned().unwrap_or_default()
            }),
        };
        to_visit.extend(children);
    }
    found.into_values().collect()
}

/// What a process's environment, as it was when its program was executed, says about where it belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Marker {
    /// `FLASH_JOB_ID` and `FLASH_ATTEMPT`.
    pub run: RunId,
    /// `FLASH_TASK`.
    pub task: Option<String>,
}

/// All processes with a marker, for a runner that has just got the lock.
///
/// The kernel takes the lock from a process that executes its program before it shows the new environment. Whoever leads a session and
/// has none is therefore looked at again for a moment: else a task that is just beginning would be taken for one that never began.
pub(super) fn marked() -> Vec<(Proc, Marker)> {
    let mut found = Vec::new();
    let mut unsure = snapshot();
    for _ in 0..LOOKS {
        unsure.retain(|process| match std::fs::read(format!("/proc/{}/environ", process.pid)) {
            Ok(environ) if environ.is_empty() => process.session == process.pid,
            Ok(environ) => {
                found.extend(parse_marker(&environ).map(|marker| (*process, marker)));
                false
            }
            Err(_) => false,
        });
        if unsure.is_empty() {
            break;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    found
}

/// The marker of a process; `None` if it has none, or may not be read.
pub(super) fn marker(pid: Pid) -> Option<Marker> {
    parse_marker(&std::fs::read(format!("/proc/{pid}/environ")).ok()?)
}

/// As [`marker`], of a process that may be executing a program at this moment: then neither its environment nor its arguments are
/// shown, and it is looked at again.
pub(super) fn marker_after_exec(pid: Pid) -> Option<Marker> {
    let is_empty = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).is_ok_and(|bytes| bytes.is_empty());
    for _ in 0..EXEC_LOOKS {
        let found = marker(pid);
        if found.is_some() || !is_empty("environ") || !is_empty("cmdline") || Proc::read(pid).is_none() {
            // It may have been shown between the two.
            return found.or_else(|| marker(pid));
        }
        std::thread::sleep(EXEC_PAUSE);
    }
    None
}

fn parse_marker(environ: &[u8]) -> Option<Marker> {
    let (mut job, mut attempt, mut task) = (None, None, None);
    for entry in environ.split(|byte| *byte == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        match entry.split_once('=') {
            Some(("FLASH_JOB_ID", value)) => job = Some(value),
            Some(("FLASH_ATTEMPT", value)) => attempt = Some(value),
            Some(("FLASH_TASK", value)) => task = Some(value.to_owned()),
            _ => {}
        }
    }
    let job = serde_json::from_value(serde_json::Value::String(job?.to_owned())).ok()?;
    let attempt = scheduler_core::ids::Attempt(attempt?.parse().ok()?);
    Some(Marker { run: RunId { job, attempt }, task })
}

/// The user a process runs as.
pub(super) fn uid_of(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = b"42 (a) R 1 (b) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        let process = Proc::parse(42, stat).unwrap();
        assert_eq!(process, Proc { pid: 42, parent: 7, group: 42, session: 40, start: 987_654 });
        let zombie = b"42 (sh) Z 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(Proc::parse(42, zombie), None);
    }

    #[test]
    fn a_marker_needs_job_and_attempt() {
        let job = "018f3b1e-0000-7000-8000-000000000001";
        let environ = format!("PATH=/bin\0FLASH_JOB_ID={job}\0FLASH_ATTEMPT=2\0FLASH_TASK=worker-1\0");
        let marker = parse_marker(environ.as_bytes()).unwrap();
        assert_eq!(marker.run.to_string(), format!("{job}.2"));
        assert_eq!(marker.task.as_deref(), Some("worker-1"));
        assert_eq!(parse_marker(format!("FLASH_JOB_ID={job}\0").as_bytes()), None);
        assert_eq!(parse_marker(b"FLASH_JOB_ID=x\0FLASH_ATTEMPT=1\0"), None);
    }

    #[test]
    fn this_process_is_found_with_its_start_time() {
        let me = Proc::read(std::process::id().cast_signed()).unwrap();
        let now = super::super::clock::ticks(super::super::clock::boot_us());
        assert!(me.start > 0 && me.start <= now, "{me:?}, now {now}");
        assert!(families(&[me.pid]).contains(&me));
    }
}
