//! What a soak was promised and what it saw: acknowledged jobs, events, stamps of what really ran; and whether they agree.
//!
//! What must hold of a daemon, over any number of kills: an acknowledged job is there and ends once; a submit that was repeated with its key made
//! one job; every (job, attempt, task) began at most once; a job that nobody asked to start over ran in one attempt; it ended as it was
//! made to; the revisions have no gap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use api::cluster::JobEvent;
use api::job::{Outcome, OutcomeWord, State};
use uuid::Uuid;

use super::mix::{Asked, Ends, Wish};
use crate::stats::Latencies;

/// Faults that are told one by one.
const TOLD: usize = 20;

/// What the events said of a job.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    submitted: u32,
    finished: u32,
    attempt: u32,
    requeued: u32,
    outcome: Option<Outcome>,
}

/// Counts, for samples.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    /// Submits that were answered with an id.
    pub(crate) acknowledged: u64,
    /// Jobs that have ended.
    pub(crate) finished: u64,
    /// Submits that had to be repeated, because the daemon was away.
    pub(crate) repeated: u64,
    /// Actions that were answered.
    pub(crate) acted: u64,
    /// Lists, reasons, logs and the like.
    pub(crate) read: u64,
    /// Events, over all watchers.
    pub(crate) events: u64,
    /// Times that a watcher connected again.
    pub(crate) resumed: u64,
}

/// Everything that is remembered.
pub(crate) struct Book {
    acknowledged: BTreeMap<Uuid, Asked>,
    seen: BTreeMap<Uuid, Seen>,
    pub(crate) counts: Counts,
    /// Of submits since the last sample, from when they were due.
    pub(crate) window: Latencies,
    /// Of all submits that were answered at the first try.
    pub(crate) submits: Latencies,
    /// Of reads since the last sample.
    pub(crate) reads: Latencies,
    faults: Vec<String>,
    fault_count: u64,
}

/// The end of the check.
pub(crate) struct Verdict {
    /// What broke a promise, in words.
    pub(crate) faults: Vec<String>,
    /// How many there were.
    pub(crate) fault_count: u64,
    /// Runs that began, by the stamps.
    pub(crate) runs: u64,
    /// Jobs that were started over, as asked.
    pub(crate) started_over: u64,
    /// Attempts that infrastructure lost.
    pub(crate) lost: u64,
}

impl Book {
    /// Empty.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            counts: Counts::default(),
            window: Latencies::new()?,
            submits: Latencies::new()?,
            reads: Latencies::new()?,
            faults: Vec::new(),
            fault_count: 0,
        })
    }

    /// Something broke a promise.
    pub(crate) fn fault(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < TOLD {
            eprintln!("soak: {what}");
            self.faults.push(what);
        }
    }

    /// A submit was answered.
    pub(crate) fn acknowledge(&mut self, job: Uuid, asked: Asked) {
        self.counts.acknowledged += 1;
        if self.acknowledged.insert(job, asked).is_some() {
            self.fault(format!("two submits were answered with {job}"));
        }
    }

    /// The first watcher's events.
    pub(crate) fn enter(&mut self, event: &JobEvent) {
        let seen = self.seen.entry(event.job).or_default();
        seen.submitted += u32::from(event.event == "submitted");
        seen.requeued += u32::from(event.event == "requeued");
        seen.attempt = seen.attempt.max(event.attempt);
        if event.state == State::Finished {
            seen.finished += 1;
            seen.outcome.clone_from(&event.outcome);
            self.counts.finished += 1;
        }
    }

    /// Whether everything that was acknowledged has ended.
    pub(crate) fn is_settled(&self) -> bool {
        self.acknowledged.keys().all(|job| self.seen.get(job).is_some_and(|seen| seen.finished > 0))
    }

    /// Compares all that is known.
    pub(crate) fn check(mut self, stamps: &Path) -> Result<Verdict> {
        let text = std::fs::read_to_string(stamps).with_context(|| format!("reading {}", stamps.display()))?;
        let mut began: BTreeMap<(Uuid, u32), BTreeSet<String>> = BTreeMap::new();
        let mut ended: BTreeMap<(Uuid, u32), u32> = BTreeMap::new();
        let mut runs = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let ([word, _, attempt, task], Some(job)) = (words.as_slice(), words.get(1).and_then(|job| job.parse().ok())) else {
                self.fault(format!("a stamp that nobody made: {line:?}"));
                continue;
            };
            let run = (job, attempt.parse().unwrap_or(0));
            if *word == "e" {
                *ended.entry(run).or_default() += 1;
                continue;
            }
            runs += 1;
            if !began.entry(run).or_default().insert((*task).to_owned()) {
                self.fault(format!("job {} attempt {} ran {task} twice", run.0, run.1));
            }
        }
        let mut verdict = Verdict { faults: Vec::new(), fault_count: 0, runs, started_over: 0, lost: 0 };
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let seen = std::mem::take(&mut self.seen);
        for (job, asked) in &acknowledged {
            let Some(seen) = seen.get(job) else {
                self.fault(format!("job {job} was acknowledged and no event tells of it"));
                continue;
            };
            verdict.started_over += u64::from(seen.requeued > 0);
            let starts = (1..=seen.attempt).filter(|attempt| began.contains_key(&(*job, *attempt))).count() as u32;
            if starts > 1 + seen.requeued {
                verdict.lost += u64::from(starts - 1 - seen.requeued);
            }
            let last = (*job, seen.attempt);
            if let Some(wrong) = wrong(asked, seen, began.get(&last).map_or(0, BTreeSet::len), ended.get(&last).copied()) {
                self.fault(format!("job {job} ({asked:?}, {seen:?}): {wrong}"));
            }
        }
        for (job, seen) in seen.iter().filter(|(job, _)| !acknowledged.contains_key(job)) {
            self.fault(format!("nobody was told of job {job}: {seen:?}"));
        }
        for (job, attempt) in began.keys().filter(|(job, _)| !acknowledged.contains_key(job)) {
            self.fault(format!("job {job} attempt {attempt} ran and was never acknowledged"));
        }
        verdict.faults = self.faults;
        verdict.fault_count = self.fault_count;
        Ok(verdict)
    }
}

/// What is wrong with how a job ended, if anything. `began` and `ended` are tasks of its last attempt.
fn wrong(asked: &Asked, seen: &Seen, began: usize, ended: Option<u32>) -> Option<String> {
    if seen.submitted != 1 || seen.finished != 1 {
        return Some(format!("submitted {} times, finished {} times", seen.submitted, seen.finished));
    }
    let Some(outcome) = &seen.outcome else { return Some("finished without an outcome".to_owned()) };
    if outcome.result == OutcomeWord::Cancelled {
        return (!matches!(asked.wish, Wish::Cancel(_))).then(|| "cancelled, and nobody asked for it".to_owned());
    }
    if began != asked.tasks as usize {
        return Some(format!("{began} of its {} tasks began in the last attempt", asked.tasks));
    }
    let reason = outcome.reason.as_deref().unwrap_or_default();
    let as_asked = match asked.ends {
        Ends::Succeeds => outcome.result == OutcomeWord::Succeeded && ended == Some(asked.tasks),
        Ends::Fails(code) => reason == "exitCode" && outcome.exit_code == Some(code),
        Ends::Dies(signal) => reason == "signal" && outcome.signal == Some(signal),
        Ends::RunsOver => reason == "timeLimit",
    };
    (!as_asked).then(|| format!("ended otherwise than it was made to; {ended:?} tasks came to their end"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn event(job: Uuid, what: &str, attempt: u32, outcome: Option<OutcomeWord>) -> JobEvent {
        let state = if outcome.is_some() { State::Finished } else { State::Queued };
        let outcome = outcome.map(|result| Outcome {
            result,
            reason: None,
            message: None,
            task: None,
            exit_code: None,
            signal: None,
            by: None,
        });
        let (namespace, event) = ("default".to_owned(), what.to_owned());
        JobEvent { revision: 1, job, namespace, at: jiff::Timestamp::UNIX_EPOCH, event, state, attempt, outcome }
    }

    /// One job that was acknowledged, submitted and succeeded, and these stamps of it; and `more` of what else was seen.
    fn faults(stamps: &[&str], more: impl FnOnce(&mut Book, Uuid)) -> u64 {
        let job = Uuid::from_u128(7);
        let path = std::env::temp_dir().join(format!("soak-book-{}-{:?}", std::process::id(), std::thread::current().id()));
        let lines: String = stamps.iter().map(|stamp| stamp.replace("JOB", &job.to_string()) + "\n").collect();
        std::fs::write(&path, lines).unwrap();
        let mut book = Book::new().unwrap();
        book.acknowledge(job, Asked { ends: Ends::Succeeds, tasks: 1, wish: Wish::Leave });
        book.enter(&event(job, "submitted", 0, None));
        book.enter(&event(job, "ended", 1, Some(OutcomeWord::Succeeded)));
        more(&mut book, job);
        let count = book.check(&path).unwrap().fault_count;
        std::fs::remove_file(&path).unwrap();
        count
    }

    #[test]
    fn every_broken_promise_is_a_fault() {
        let good = ["b JOB 1 task", "e JOB 1 task"];
        let nothing = |_: &mut Book, _: Uuid| {};
        assert_eq!(faults(&good, nothing), 0);
        assert_eq!(faults(&[good[0], good[0], good[1]], nothing), 1, "ran twice");
        assert_eq!(faults(&[], nothing), 1, "succeeded without a run");
        assert_eq!(faults(&good[..1], nothing), 1, "succeeded without an end");
        assert_eq!(faults(&["b nonsense"], nothing), 2, "a torn stamp, and so no run");
        let asked = Asked { ends: Ends::Succeeds, tasks: 1, wish: Wish::Leave };
        assert_eq!(faults(&good, |book, _| book.acknowledge(Uuid::from_u128(8), asked)), 1, "lost");
        assert_eq!(faults(&good, |book, job| book.acknowledge(job, asked)), 1, "an id for two");
        assert_eq!(faults(&good, |book, _| book.enter(&event(Uuid::from_u128(9), "submitted", 0, None))), 1, "nobody's");
        assert_eq!(
            faults(&good, |book, job| book.enter(&event(job, "ended", 1, Some(OutcomeWord::Succeeded)))),
            1,
            "ended twice"
        );
        assert_eq!(
            faults(&good, |book, job| book.enter(&event(job, "cancelled", 1, Some(OutcomeWord::Cancelled)))),
            1,
            "cancelled"
        );
    }
}
