//! Whose a process on a GPU is: its user, and the job that it belongs to.
//!
//! A driver knows numbers alone. A task's environment says which job it is of, and what it starts inherits that; a program that writes over
//! its own environment (many set their title there) is recognised by whoever started it. Where the kernel does not let us look, nothing is
//! known, and nothing is guessed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// How far up the line of parents is looked.
const GENERATIONS: usize = 64;
const JOB: &[u8] = b"FLASH_JOB_ID=";

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proc {
    /// Whose it is; `None` where it cannot be seen: it is gone, or in another PID namespace.
    pub uid: Option<u32>,
    /// Name of its program, cut by the kernel.
    pub command: String,
    /// `FLASH_JOB_ID` of it, or of whoever started it.
    pub job: Option<String>,
    /// When it was started, in clock ticks after boot: with the number, its identity.
    pub started: u64,
}

/// `/proc`, or a folder like it. Remembers what it has found, by number and start.
#[derive(Debug)]
pub struct Procfs {
    root: PathBuf,
    known: BTreeMap<u32, Proc>,
}

impl Default for Procfs {
    fn default() -> Self {
        Self::at("/proc".into())
    }
}

struct Stat {
    parent: u32,
    started: u64,
    command: String,
}

impl Procfs {
    /// A folder like `/proc`.
    pub const fn at(root: PathBuf) -> Self {
        Self { root, known: BTreeMap::new() }
    }

    /// Forgets all but these.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.known.retain(|pid, _| keep(*pid));
    }

    /// A process as it is now; one that has ended, as it was, for as long as it is not forgotten: a driver shows it until it has tidied up.
    pub fn look(&mut self, pid: u32) -> Proc {
        let Some(stat) = self.stat(pid) else {
            let unknown = || Proc { uid: None, command: String::new(), job: None, started: 0 };
            return self.known.get(&pid).cloned().unwrap_or_else(unknown);
        };
        if let Some(known) = self.known.get(&pid).filter(|known| known.started == stat.started) {
            return known.clone();
        }
        let uid = fs::metadata(self.root.join(pid.to_string())).ok().map(|meta| meta.uid());
        let found = Proc { uid, job: self.job(pid), command: stat.command, started: stat.started };
        self.known.insert(pid, found.clone());
        found
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        let text = fs::read(self.root.join(pid.to_string()).join("stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name may have blanks and brackets; nothing after the last bracket has.
        let (head, rest) = text.rsplit_once(')')?;
        let command = head.split_once('(')?.1.to_owned();
        let mut fields = rest.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Stat { parent, started, command })
    }

    fn job(&self, pid: u32) -> Option<String> {
        let mut at = pid;
        for _ in 0..GENERATIONS {
            if let Some(job) = self.own_job(at) {
                return Some(job);
            }
            at = self.stat(at)?.parent;
            if at <= 1 {
                return None;
            }
        }
        None
    }

    fn own_job(&self, pid: u32) -> Option<String> {
        let environment = fs::read(self.root.join(pid.to_string()).join("environ")).ok()?;
        let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(JOB))?;
        String::from_utf8(value.to_vec()).ok()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn process(root: &std::path::Path, pid: u32, parent: u32, started: u64, environment: &str) {
        let folder = root.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        let filler = ["0"; 17].join(" ");
        fs::write(folder.join("stat"), format!("{pid} (odd) name) S {parent} {filler} {started} 0\n")).unwrap();
        fs::write(folder.join("environ"), environment.replace(' ', "\0")).unwrap();
    }

    #[test]
    fn a_process_is_of_the_job_that_it_or_its_parents_say() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        process(root, 10, 1, 100, "PATH=/bin FLASH_JOB_ID=abc");
        process(root, 11, 10, 101, "title");
        process(root, 12, 1, 102, "PATH=/bin");
        let mut table = Procfs::at(root.to_owned());
        let own = table.look(10);
        assert_eq!((own.job.as_deref(), own.command.as_str(), own.started), (Some("abc"), "odd) name", 100));
        assert_eq!(own.uid, Some(rustix::process::geteuid().as_raw()));
        assert_eq!(table.look(11).job.as_deref(), Some("abc"));
        assert_eq!(table.look(12).job, None);
        assert_eq!(table.look(13).uid, None);
        // The number again, for another process.
        process(root, 10, 1, 200, "PATH=/bin");
        assert_eq!(table.look(10).job, None);
        // It has ended, and is still shown.
        fs::remove_dir_all(root.join("11")).unwrap();
        assert_eq!(table.look(11).job.as_deref(), Some("abc"));
        table.retain(|pid| pid == 12);
        assert_eq!((table.known.len(), table.look(11).job), (1, None));
    }

    #[test]
    fn the_own_process_is_found() {
        let own = Procfs::default().look(std::process::id());
        assert!(own.uid.is_some() && own.started > 0 && !own.command.is_empty(), "{own:?}");
    }
}
