//! What a new runner makes of the journal of the one before it.
//!
//! - What had ended and was not forgotten is told again, with its true result.
//! - Of an earlier boot of the machine nothing runs any more: lost, with that reason.
//! - What waited in a line and has no intent has never begun: the intent was written before anything could be made, and what was
//!   written outlives the runner. It does not outlive a crash of the machine, so after a reboot such a run counts as lost.
//! - A process is ours if its number and start time fit the record. What was about to be started is looked for by its environment.
//! - What is found is followed, though it is no child of this runner: so how it ends cannot be known, and it is never a success. A
//!   run that cannot succeed any more, because one of its tasks ended unseen or was never started, is ended.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use scheduler_core::ids::RunId;
use scheduler_core::time::Timestamp;

use super::clock;
use super::journal::{Record, Replayed, replay};
use super::output::rescue;
use super::procfs::{Marker, Proc, marked};
use super::table::{End, Ending, Exit, Live, Made, Run, Table, TaskState, failure, lost};

/// What a run's records say.
enum Past {
    Held { boot: Arc<str> },
    Live { boot: Arc<str>, live: Box<Live>, unnamed: Option<String> },
    Ended(End),
}

/// What was found.
pub(super) struct Recovered {
    /// With all runs that are not forgotten.
    pub table: Table,
    /// Runs that may have processes, to be resumed.
    pub adopted: Vec<RunId>,
    /// About the journal.
    pub replayed: Replayed,
}

/// Reads the journal and looks for what runs.
pub(super) fn recover(journal: &Path, boot_id: &str) -> io::Result<Recovered> {
    let mut past = BTreeMap::new();
    let mut boot: Arc<str> = Arc::from("");
    let replayed = replay(journal, |record| apply(&mut past, &mut boot, record))?;

    let mut table = Table::default();
    let mut adopted = Vec::new();
    let mut strangers = None;
    for (run, past) in past {
        let state = match past {
            Past::Ended(end) => Run::Ended(end),
            Past::Held { boot } if *boot == *boot_id => {
                table.to_commit.push(run);
                let message = "the runner was killed before its turn came".to_owned();
                Run::Settling(End::NotBegun { message, at: clock::now() })
            }
            Past::Held { .. } => {
                table.to_commit.push(run);
                let result = lost("the machine was rebooted; whether the run had begun is not known");
                Run::Settling(End::Over { result, started_at: None, at: clock::now() })
            }
            Past::Live { boot, live, .. } if &*boot != boot_id => {
                table.to_commit.push(run);
                let result = lost("the machine was rebooted while the run was on it");
                Run::Settling(End::Over { result, started_at: live.started_at, at: clock::now() })
            }
            Past::Live { mut live, unnamed, .. } => {
                adopt(run, &mut live, &mut strangers);
                if let (Some(dir), Some(task)) = (unnamed, live.tasks.first()) {
                    live.task_pids().for_each(|pid| rescue(pid, &dir, run, &task.name));
                }
                adopted.push(run);
                live.share.into_iter().for_each(|share| table.lines.enter(share));
                Run::Live(live)
            }
        };
        table.runs.insert(run, state);
    }
    Ok(Recovered { table, adopted, replayed })
}

fn apply(past: &mut BTreeMap<RunId, Past>, boot: &mut Arc<str>, record: Record) {
    match record {
        Record::Boot { boot_id, .. } => *boot = Arc::from(boot_id),
        Record::Held { runs } => {
            for run in runs {
                past.entry(run).or_insert_with(|| Past::Held { boot: Arc::clone(boot) });
            }
        }
        Record::Intent { run, uid, tasks, share, unnamed } => {
            if !matches!(past.get(&run), None | Some(Past::Held { .. })) {
                return;
            }
            let live = Live { spawning: false, adopted: Some(BTreeMap::new()), share, ..Live::new(tasks, uid) };
            past.insert(run, Past::Live { boot: Arc::clone(boot), live: Box::new(live), unnamed });
        }
        Record::Spawned { run, task, pid, ticks, at } => {
            let Some(Past::Live { live, .. }) = past.get_mut(&run) else { return };
            if let Some(task) = live.tasks.get_mut(task) {
                task.made = Some(Made { pid, ticks, at });
            }
            live.started_at = live.tasks.iter().map(|task| task.made.map(|made| made.at)).max().flatten();
            if live.tasks.iter().any(|task| task.made.is_none()) {
                live.started_at = None;
            }
        }
        Record::Exited { run, task, exit } => {
            let Some(Past::Live { live, .. }) = past.get_mut(&run) else { return };
            let Some(task) = live.tasks.get_mut(task) else { return };
            task.state = TaskState::Exited(exit);
            if let Some(failure) = failure(&task.name, exit) {
                live.verdict.get_or_insert(failure);
            }
        }
        Record::Ending { run, asked, signal, deadline_us } => {
            if let Some(Past::Live { live, .. }) = past.get_mut(&run) {
                live.ending = Some(Ending { asked, signal, deadline_us, kills: 0 });
            }
        }
        Record::Ended { run, result, started_at, at } => {
            past.insert(run, Past::Ended(End::Over { result, started_at, at }));
        }
        Record::NotBegun { run, message, at } => {
            past.insert(run, Past::Ended(End::NotBegun { message, at }));
        }
        Record::Forgotten { runs } => {
            for run in runs {
                past.remove(&run);
            }
        }
    }
}

/// Finds the processes of a run's tasks. `strangers` are all processes with a marker, once somebody had to look.
fn adopt(run: RunId, live: &mut Live, strangers: &mut Option<Vec<(Proc, Marker)>>) {
    for index in 0..live.tasks.len() {
        if matches!(live.tasks[index].state, TaskState::Exited(_)) {
            continue;
        }
        let task = &live.tasks[index];
        let found = match task.made {
            Some(made) => by_record(made),
            None => by_marker(run, task.name.as_str(), strangers),
        };
        let name = task.name.clone();
        match found {
            Some(process) => {
                live.tasks[index].state = TaskState::Running(process.pid);
                live.adopted.get_or_insert_default().insert(process.pid, process.start);
            }
            None if task.made.is_some() => {
                live.tasks[index].state = TaskState::Exited(Exit::Unseen);
                live.verdict = live.verdict.take().or_else(|| failure(&name, Exit::Unseen));
            }
            None => {
                let message = format!("the runner was killed while it started the run; task {name} was not found running");
                live.verdict.get_or_insert(lost(&message));
            }
        }
    }
    if live.started_at.is_none() && live.tasks.iter().all(|task| matches!(task.state, TaskState::Running(_))) {
        live.started_at = Some(found_at(live));
    }
}

/// When a run whose start nobody recorded is said to have started: not before its last process that is on record.
fn found_at(live: &Live) -> Timestamp {
    live.tasks.iter().filter_map(|task| Some(task.made?.at)).max().unwrap_or_else(clock::now)
}

fn by_record(made: Made) -> Option<Proc> {
    let (earliest, latest) = made.ticks;
    Proc::read(made.pid).filter(|process| (earliest..=latest).contains(&process.start))
}

fn by_marker(run: RunId, task: &str, strangers: &mut Option<Vec<(Proc, Marker)>>) -> Option<Proc> {
    let all = strangers.get_or_insert_with(marked);
    let leads = |process: &Proc| process.session == process.pid;
    all.iter()
        .find(|(process, marker)| marker.run == run && marker.task.as_deref() == Some(task) && leads(process))
        .map(|(process, _): &(Proc, Marker)| *process)
}
