//! What happens to a run, from its first process to its end.
//!
//! One way through: tasks get processes ([`Table::task_started`]), processes end ([`Table::reaped`], [`Table::adopted_gone`]), and
//! after every such step [`Table::try_finish`] asks whether anything is left. If all tasks have ended and something else is left, or
//! one task has failed and others run, the run is being ended: a signal, a grace, SIGKILL again and again until nothing is there.
//! Only then it settles, and only when that is durable it has ended ([`commit`](super::commit)).
//!
//! Deadlines are on the runner's own clock, so they hold when the daemon is gone.

use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use scheduler_core::job::StopPolicy;

use super::clock;
use super::journal::Record;
use super::note;
use super::output::Streams;
use super::procfs::Proc;
use super::shared::Shared;
use super::sys;
use super::table::{End, Ending, Exit, Made, Pid, Run, Table, TaskState, failure};

/// Pause before SIGKILL is sent again, in microseconds; it doubles each time.
const REPEAT_KILL_US: u64 = 100_000;
/// How often that pause doubles at most: to 6.4 s. What withstands SIGKILL hangs in the kernel, or may not be signalled by us.
const REPEAT_KILL_DOUBLINGS: u32 = 6;

impl Table {
    /// A task has its process, which nobody has waited for yet.
    pub(super) fn task_started(&mut self, shared: &Shared, run: RunId, task: usize, made: Made) {
        let pid = made.pid;
        if !std::mem::replace(&mut self.orphans_may_come, true) {
            shared.timer.notify_one();
        }
        self.sessions.insert(pid, run);
        let Some(live) = self.live(run) else { return };
        live.tasks[task].made = Some(made);
        live.tasks[task].state = TaskState::Running(pid);
        let ending = live.ending;
        self.pids.insert(pid, (run, task));
        // It was made while the run was told to end: it has to hear of it, too.
        if let Some(ending) = ending {
            self.send(shared, run, if ending.kills > 0 { libc::SIGKILL } else { ending.signal });
        }
    }

    /// Goes on with a run of an earlier runner: looks for what is left of it and ends it if its tasks cannot all succeed any more.
    pub(super) fn resume(&mut self, shared: &Shared, run: RunId) {
        let Some(live) = self.live(run) else { return };
        let (failed, ending) = (live.verdict.is_some(), live.ending);
        for (pid, start) in live.adopted.iter().flatten() {
            shared.watcher.follow(run, *pid, *start);
        }
        // Has the others followed, too.
        let members = self.members(shared, run);
        match ending {
            Some(ending) => self.set_ending(shared, run, ending),
            None if failed && !members.is_empty() => self.end_others(shared, run),
            None => {}
        }
        self.try_finish(shared, run);
    }

    /// No more processes will be made for a run: all its tasks have theirs, or `problem` kept one from it, or it is being ended.
    /// `streams` is its output, if that has no name yet.
    pub(super) fn spawning_done(&mut self, shared: &Shared, run: RunId, problem: Option<RunResult>, streams: Option<Streams>) {
        let Some(live) = self.live(run) else { return };
        live.spawning = false;
        live.streams = streams;
        let complete = live.tasks.iter().all(|task| task.state != TaskState::Waiting);
        if let Some(problem) = problem {
            live.verdict.get_or_insert(problem);
            if live.task_pids().next().is_some() {
                self.end_others(shared, run);
            }
        } else if complete {
            let at = clock::now();
            live.started_at = Some(at);
            self.started(shared, run, at);
        }
        self.try_finish(shared, run);
    }

    /// A child of the runner was reaped.
    pub(super) fn reaped(&mut self, shared: &Shared, pid: Pid, exit: Exit) {
        if self.crowd_waits {
            shared.reaped.notify_one();
        }
        if let Some((run, task)) = self.pids.remove(&pid) {
            self.task_exited(shared, run, task, exit);
            return;
        }
        if let Some(run) = self.orphans.remove(&pid).and_then(|orphan| orphan.run) {
            self.try_finish(shared, run);
            return;
        }
        for run in self.sweeping.clone() {
            self.try_finish(shared, run);
        }
    }

    /// A process of an earlier runner has ended.
    pub(super) fn adopted_gone(&mut self, shared: &Shared, run: RunId, pid: Pid) {
        let Some(live) = self.live(run) else { return };
        if let Some(adopted) = &mut live.adopted {
            adopted.remove(&pid);
        }
        match live.tasks.iter().position(|task| task.state == TaskState::Running(pid)) {
            Some(task) => self.task_exited(shared, run, task, Exit::Unseen),
            None => self.try_finish(shared, run),
        }
    }

    fn task_exited(&mut self, shared: &Shared, run: RunId, task: usize, exit: Exit) {
        let Some(live) = self.live(run) else { return };
        live.tasks[task].state = TaskState::Exited(exit);
        if let Some(failure) = failure(&live.tasks[task].name, exit) {
            live.verdict.get_or_insert(failure);
            if live.spawning || live.task_pids().next().is_some() {
                self.end_others(shared, run);
            }
        }
        self.try_finish(shared, run);
        // A run that has settled needs no word about its tasks.
        if self.live(run).is_some() && exit != Exit::Unseen {
            write_down(shared, &Record::Exited { run, task, exit });
        }
    }

    /// Settles a run if nothing of it is left; if only its tasks have ended, ends what is left.
    pub(super) fn try_finish(&mut self, shared: &Shared, run: RunId) {
        let Some(live) = self.live(run) else { return };
        if live.spawning || live.task_pids().next().is_some() {
            return;
        }
        let left = self.members(shared, run);
        if left.is_empty() {
            self.settle(shared, run);
            return;
        }
        self.sweeping.insert(run);
        match self.live(run).and_then(|live| live.ending) {
            None => self.end_others(shared, run),
            Some(ending) => {
                let signal = if ending.kills > 0 { libc::SIGKILL } else { ending.signal };
                self.tell(run, &left, signal);
            }
        }
    }

    fn settle(&mut self, shared: &Shared, run: RunId) {
        let Some(live) = self.live(run) else { return };
        let leaders: Vec<Pid> = live.tasks.iter().filter_map(|task| Some(task.made?.pid)).collect();
        let (ending, share) = (live.ending, live.share);
        let end = live.end(clock::now());
        if let (Some(streams), Some(task)) = (live.streams.take(), live.tasks.first().map(|task| task.name.clone()))
            && let Some(streams) = self.spares.give(streams)
        {
            self.to_name.push((run, task, streams));
        }
        if let Some(ending) = ending {
            self.timers.remove(&(ending.deadline_us, run));
        }
        for leader in leaders {
            // The number may be another run's by now.
            if self.sessions.get(&leader) == Some(&run) {
                self.sessions.remove(&leader);
            }
        }
        self.sweeping.remove(&run);
        self.settle_as(shared, run, end);
        if let Some(cgroups) = &shared.cgroups {
            cgroups.remove(run);
        }
        shared.gate.remove(run);
        if let Some(share) = share {
            self.leave_line(shared, share);
        }
    }

    /// Notes how a run ended, to be made durable and told.
    pub(super) fn settle_as(&mut self, shared: &Shared, run: RunId, end: End) {
        self.runs.insert(run, Run::Settling(end));
        self.to_commit.push(run);
        self.wake_committer(shared);
    }

    /// Ends a run by order.
    pub(super) fn stop(&mut self, shared: &Shared, run: RunId, policy: StopPolicy) {
        if self.drop_held(shared, run, "it was stopped before its turn came") {
            return;
        }
        let signal = sys::signal(policy.signal).map_or(libc::SIGTERM, |_| policy.signal);
        let deadline_us = clock::boot_us().saturating_add(policy.grace.0);
        let Some(live) = self.live(run) else { return };
        let Some(before) = live.ending else {
            self.end(shared, run, Ending { asked: true, signal, deadline_us, kills: 0 });
            return;
        };
        let deadline_us = deadline_us.min(before.deadline_us);
        if before.kills == 0 && before.signal != signal {
            self.end(shared, run, Ending { asked: true, signal, deadline_us, kills: 0 });
        } else {
            // Programs take a second signal of the same kind as "now, without tidying up": it is not sent again.
            self.set_ending(shared, run, Ending { asked: true, deadline_us, ..before });
            write_down(shared, &Record::Ending { run, asked: true, signal: before.signal, deadline_us });
        }
    }

    /// Ends what is left of a run because one of its tasks has ended, unless it is being ended already.
    fn end_others(&mut self, shared: &Shared, run: RunId) {
        if self.live(run).is_some_and(|live| live.ending.is_none()) {
            let deadline_us = clock::boot_us() + shared.options.leftover_grace.as_micros() as u64;
            self.end(shared, run, Ending { asked: false, signal: libc::SIGTERM, deadline_us, kills: 0 });
        }
    }

    fn end(&mut self, shared: &Shared, run: RunId, ending: Ending) {
        let Ending { asked, signal, deadline_us, .. } = ending;
        self.set_ending(shared, run, ending);
        if let Some(live) = self.live(run) {
            live.told.clear();
        }
        self.send(shared, run, signal);
        // After it was sent: a next runner counts on that, and does not send it again.
        write_down(shared, &Record::Ending { run, asked, signal, deadline_us });
    }

    /// Notes how a run is being ended, and when to look after it.
    pub(super) fn set_ending(&mut self, shared: &Shared, run: RunId, ending: Ending) {
        let Some(live) = self.live(run) else { return };
        if let Some(before) = live.ending.replace(ending) {
            self.timers.remove(&(before.deadline_us, run));
        }
        self.timers.insert((ending.deadline_us, run));
        shared.timer.notify_one();
    }

    /// The grace of a run that is being ended is over, or SIGKILL was not enough yet.
    pub(super) fn grace_is_over(&mut self, shared: &Shared, run: RunId) {
        let Some(Ending { asked, signal, kills, .. }) = self.live(run).and_then(|live| live.ending) else { return };
        let pause = REPEAT_KILL_US << kills.min(REPEAT_KILL_DOUBLINGS);
        let deadline_us = clock::boot_us() + pause;
        self.set_ending(shared, run, Ending { asked, signal, deadline_us, kills: kills.saturating_add(1) });
        if let Some(cgroups) = &shared.cgroups {
            cgroups.kill(run);
        }
        shared.gate.kill(run);
        self.send(shared, run, libc::SIGKILL);
        self.try_finish(shared, run);
    }

    /// Sends a signal to everything of a run.
    fn send(&mut self, shared: &Shared, run: RunId, signal: i32) {
        let members = self.members(shared, run);
        self.tell(run, &members, signal);
    }

    /// Sends a signal to the groups of tasks and to these members of a run; once to each process, but SIGKILL every time.
    fn tell(&mut self, run: RunId, members: &[Proc], number: i32) {
        let Some(signal) = sys::signal(number) else { return };
        let Some(live) = self.live(run) else { return };
        // A task that was not reaped keeps the number of its group, so whole groups can be signalled, new processes included.
        let groups: Vec<Pid> = if live.adopted.is_some() { Vec::new() } else { live.task_pids().collect() };
        let again = number == libc::SIGKILL;
        // Whoever is stopped would only hear of it when continued.
        let signals = if again { vec![signal] } else { vec![signal, rustix::process::Signal::CONT] };
        for group in groups.iter().filter(|group| again || live.told.insert((**group, 0))) {
            let Some(group) = rustix::process::Pid::from_raw(*group) else { continue };
            for signal in &signals {
                // It fails if somebody else's processes are in it, or none: what counts is what is left, and that is looked up.
                let _ = rustix::process::kill_process_group(group, *signal);
            }
        }
        for member in members.iter().filter(|member| !groups.contains(&member.group)) {
            if again || live.told.insert((member.pid, member.start)) {
                for signal in &signals {
                    member.signal(*signal);
                }
            }
        }
    }
}

/// Writes down what helps the next runner but is not worth stopping for: without it a run's end is found out the slow way.
fn write_down(shared: &Shared, record: &Record) {
    if let Err(error) = shared.journal.append([record]) {
        note(&format!("journal: {error}"));
    }
}
