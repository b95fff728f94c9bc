//! Makes ends durable, then tells them; keeps the journal small.
//!
//! Ends that come close together share one sync. How long to wait for more is decided by whether anybody gains: while runs wait for a
//! spawn thread the machine has something else to do, so ends are gathered for a few milliseconds; when none waits, whoever waits
//! for this end is not kept waiting.

use std::ops::Bound;
use std::sync::MutexGuard;

use scheduler_core::ids::RunId;

use super::clock;
use super::journal::Record;
use super::note;
use super::shared::{Shared, wait, wait_for};
use super::table::{Run, Table, TaskState};

/// Most ends that are made durable together.
const MAX_BATCH: usize = 256;
/// Pause before a journal that could not be written is tried again, in microseconds.
const RETRY_US: u64 = 1_000_000;
/// What a run that is not forgotten takes in the journal, at most, by and large, in bytes.
const RUN_BYTES: u64 = 1_024;
/// Runs that are written at a time when the journal is rewritten.
const PAGE: usize = 256;

/// The thread. It ends with the process.
pub(super) fn commit_all(shared: &Shared) {
    loop {
        let runs = gather(shared, shared.lock());
        commit(shared, &runs);
        compact_if_due(shared);
    }
}

fn gather(shared: &Shared, mut table: MutexGuard<'_, Table>) -> Vec<RunId> {
    while table.to_commit.is_empty() {
        table = wait(&shared.settled, table);
    }
    let until = clock::boot_us() + shared.options.gather.as_micros() as u64;
    loop {
        let now = clock::boot_us();
        if table.queue.is_empty() || table.to_commit.len() >= MAX_BATCH || now >= until {
            return std::mem::take(&mut table.to_commit);
        }
        table = wait_for(&shared.settled, table, until - now);
    }
}

fn commit(shared: &Shared, runs: &[RunId]) {
    let table = shared.lock();
    let records: Vec<Record> = runs.iter().filter_map(|run| ended_record(*run, table.runs.get(run)?)).collect();
    drop(table);
    // Nothing is told that is not durable. While the disk is full, ends wait.
    while let Err(error) = shared.journal.append(&records).and_then(|()| shared.journal.sync()) {
        note(&format!("journal: {error}; {} ends wait for it", records.len()));
        drop(wait_for(&shared.settled, shared.lock(), RETRY_US));
    }
    let mut table = shared.lock();
    for run in runs {
        if let Some(Run::Settling(end)) = table.runs.get(run) {
            let end = end.clone();
            let report = end.report(*run);
            table.runs.insert(*run, Run::Ended(end));
            table.report(report);
        }
    }
    drop(table);
    shared.out.notify_one();
}

fn ended_record(run: RunId, state: &Run) -> Option<Record> {
    match state {
        Run::Settling(end) | Run::Ended(end) => {
            Some(Record::Ended { run, result: end.result.clone(), started_at: end.started_at, at: end.at })
        }
        Run::Live(_) => None,
    }
}

fn compact_if_due(shared: &Shared) {
    let length = shared.journal.length();
    if length < shared.options.compact_bytes || shared.lock().runs.len() as u64 * RUN_BYTES > length / 2 {
        return;
    }
    let mut last = None;
    let mut begun = false;
    let compacted = shared.journal.compact(|| {
        if !std::mem::replace(&mut begun, true) {
            return vec![boot_record(shared)];
        }
        page(&shared.lock(), &mut last)
    });
    if let Err(error) = compacted {
        note(&format!("journal: rewriting it: {error}"));
    }
}

/// What stands at the head of a journal, and wherever a new runner begins.
pub(super) fn boot_record(shared: &Shared) -> Record {
    Record::Boot { boot_id: shared.boot_id.clone(), pid: std::process::id() }
}

/// Records of the runs after `last`, of which there are a few more each time.
fn page(table: &Table, last: &mut Option<RunId>) -> Vec<Record> {
    let from = last.map_or(Bound::Unbounded, Bound::Excluded);
    let mut records = Vec::new();
    for (run, state) in table.runs.range((from, Bound::Unbounded)).take(PAGE) {
        *last = Some(*run);
        records.extend(ended_record(*run, state));
        let Run::Live(live) = state else { continue };
        let run = *run;
        let tasks = live.tasks.iter().map(|task| task.name.clone()).collect();
        records.push(Record::Intent { run, uid: live.uid, tasks });
        for (index, task) in live.tasks.iter().enumerate() {
            records.extend(task.made.map(|m| Record::Spawned { run, task: index, pid: m.pid, ticks: m.ticks, at: m.at }));
            if let TaskState::Exited(exit) = task.state {
                records.push(Record::Exited { run, task: index, exit });
            }
        }
        records.extend(live.ending.map(|ending| Record::Ending {
            run,
            asked: ending.asked,
            signal: ending.signal,
            deadline_us: ending.deadline_us,
        }));
    }
    records
}
