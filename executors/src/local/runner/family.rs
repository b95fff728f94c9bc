//! Which processes belong to a run, beside those that the runner started itself.
//!
//! The runner is a subreaper: a process whose parent ends becomes a child of its main thread, whatever group or session it is in. So
//! everything that descends from a task is found from two kinds of roots: the tasks that live, and these orphans.
//!
//! - The common case costs one system call: when the last task of a run has ended and the main thread has no children at all, nothing
//!   of it is left. (A process's children have another parent before its own parent can see that it has ended.)
//! - Otherwise the orphans are listed, and each new one is attributed once: by its session (every task has its own), by its group,
//!   by having been seen below a run that is being ended, by `FLASH_JOB_ID` and `FLASH_ATTEMPT` in the environment that it was executed with.
//!   One that is just executing a program shows no environment; it is waited for, because attributed to nobody it would not be missed.
//! - An orphan that left its session and had its environment cleared cannot be attributed while several runs are there that may have
//!   made it; it then counts as belonging to the last of them that ends. With cgroups it is attributed exactly.
//! - Processes of an earlier runner are not descendants of this one. They are looked up among all processes of the machine: by
//!   marker, by the session of a task that still lives, and by their parents.
//!
//! Not found is what was started on behalf of a task by somebody else: a container engine, `at`, a service manager.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::ids::RunId;

use super::procfs::{self, Orphans, Proc};
use super::shared::Shared;
use super::table::{Live, Orphan, Pid, Run, Table};

impl Table {
    /// All living processes of a run: its tasks, and what descends from them.
    pub(super) fn members(&mut self, shared: &Shared, run: RunId) -> Vec<Proc> {
        let Some(live) = self.live(run) else { return Vec::new() };
        if live.adopted.is_some() {
            return self.adopted_members(shared, run);
        }
        let tasks: Vec<Pid> = live.task_pids().collect();
        let grouped = shared.cgroups.as_ref().map(|cgroups| cgroups.pids(run)).unwrap_or_else(|| shared.gate.pids(run));
        let orphans = self.look_for_orphans(shared);
        if tasks.is_empty() && grouped.is_empty() && orphans.is_empty() {
            return Vec::new();
        }
        self.meet(orphans);
        let mut roots = tasks;
        roots.extend(grouped);
        roots.extend(self.orphans.iter().filter(|(_, orphan)| self.may_end(orphan, run)).map(|(pid, _)| *pid));
        procfs::families(&roots)
    }

    /// Whether an orphan ends with `run`.
    fn may_end(&self, orphan: &Orphan, run: RunId) -> bool {
        match orphan.run {
            Some(owner) => owner == run,
            None => !self.runs.iter().any(|(other, state)| *other != run && may_have_made(state, orphan)),
        }
    }

    /// Learns of orphans that have come since.
    fn meet(&mut self, orphans: Orphans) {
        for pid in orphans {
            if self.pids.contains_key(&pid) || self.orphans.contains_key(&pid) {
                continue;
            }
            let Some(process) = Proc::read(pid) else { continue };
            let orphan = Orphan { run: self.owner_of(&process), start: process.start };
            self.orphans.insert(pid, orphan);
        }
    }

    fn owner_of(&self, process: &Proc) -> Option<RunId> {
        let by_session = self.sessions.get(&process.session).or_else(|| self.sessions.get(&process.group));
        // What was seen below a run before its parent ended is known by number and start time.
        let told = || self.timers.iter().map(|(_, run)| run).find(|run| self.has_told(**run, process));
        by_session.or_else(told).copied().or_else(|| {
            let run = procfs::marker_after_exec(process.pid)?.run;
            match self.runs.get(&run) {
                Some(Run::Live(live)) if runs_as(live, process.pid) => Some(run),
                _ => None,
            }
        })
    }

    fn has_told(&self, run: RunId, process: &Proc) -> bool {
        matches!(self.runs.get(&run), Some(Run::Live(live)) if live.told.contains(&(process.pid, process.start)))
    }

    /// As [`Table::members`], for a run of an earlier runner; follows those that are new.
    fn adopted_members(&mut self, shared: &Shared, run: RunId) -> Vec<Proc> {
        let Some(live) = self.live(run) else { return Vec::new() };
        let known = live.adopted.clone().unwrap_or_default();
        let limited = shared.cgroups.iter().flat_map(|cgroups| cgroups.pids(run));
        let grouped: BTreeSet<Pid> = limited.chain(shared.gate.pids(run)).collect();
        let all = procfs::snapshot();
        let is_known = |process: &Proc| known.get(&process.pid) == Some(&process.start);
        // A session's number is taken as long as its leader lives; afterwards it may be somebody else's.
        let leaders: BTreeSet<Pid> = all
            .iter()
            .filter(|process| is_known(process) && live.task_pids().any(|pid| pid == process.pid))
            .map(|p| p.pid)
            .collect();
        let is_member = |process: &Proc| {
            is_known(process)
                || grouped.contains(&process.pid)
                || leaders.contains(&process.session)
                || (procfs::marker(process.pid).is_some_and(|marker| marker.run == run) && runs_as(live, process.pid))
        };
        let mut members: BTreeMap<Pid, Proc> =
            all.iter().filter(|process| is_member(process)).map(|process| (process.pid, *process)).collect();
        loop {
            let children = all.iter().filter(|process| members.contains_key(&process.parent));
            let new: Vec<Proc> = children.filter(|process| !members.contains_key(&process.pid)).copied().collect();
            if new.is_empty() {
                break;
            }
            members.extend(new.into_iter().map(|process| (process.pid, process)));
        }
        for process in members.values().filter(|process| !is_known(process)) {
            shared.watcher.follow(run, process.pid, process.start);
        }
        live.adopted = Some(members.values().map(|process| (process.pid, process.start)).collect());
        members.into_values().collect()
    }
}

/// Whether a run's processes were there when the orphan began, so that it may descend from one.
fn may_have_made(state: &Run, orphan: &Orphan) -> bool {
    match state {
        Run::Live(live) => live.adopted.is_none() && live.began.is_some_and(|began| began <= orphan.start),
        Run::Held(_) | Run::Settling(_) | Run::Ended(_) => false,
    }
}

/// Whether a process has the user of a run: a marker alone could be forged by another user's program.
fn runs_as(live: &Live, pid: Pid) -> bool {
    let uid = live.uid.unwrap_or_else(|| rustix::process::getuid().as_raw());
    procfs::uid_of(pid) == Some(uid)
}
