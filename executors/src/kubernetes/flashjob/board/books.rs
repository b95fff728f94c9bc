//! What is known of FlashJobs and of their jobs, and which statuses follow from that. Asks nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_types::{FlashJob, FlashJobStatus};
use kube::ResourceExt as _;
use scheduler_core::ids::RunId;
use tokio::time::Instant;

use super::super::gang::made_for;
use super::super::hub::now;
use super::super::keep::goes;
use super::super::pace::Pace;
use super::super::status::{Counts, Stand, status_of};
use super::FlashJobKey;

/// Statuses a second over all FlashJobs, those at once, and the time in which one that is no end is written in any case.
const STATUSES: (f64, f64, Duration) = (20.0, 50.0, Duration::from_millis(200));
/// Events, likewise. Those that are too many are left out: the conditions say the same.
const EVENTS: (f64, f64, Duration) = (5.0, 50.0, Duration::from_secs(1));

/// What is to be told of one FlashJob.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Of which job and its latest run, the uid of the FlashJob where it was not made for that, and how it stands.
    pub(super) said: Option<(RunId, Option<String>, Stand)>,
    /// What the pods of a run say, the latest that is known.
    counted: Option<(RunId, Counts)>,
    /// Not to be written before.
    pub(super) not_before: Option<Instant>,
    /// It is in line among those that are no end.
    is_later: bool,
}

/// What is known of all FlashJobs, and what is to be said of them.
pub(super) struct Books {
    instance: String,
    pub(super) jobs: BTreeMap<FlashJobKey, Arc<FlashJob>>,
    /// Being deleted, and the table has no job that they were made for.
    pub(super) nobodys: BTreeSet<FlashJobKey>,
    pub(super) entries: BTreeMap<FlashJobKey, Entry>,
    /// The last write was refused, and whoever runs this was told so.
    pub(super) refused: bool,
    /// To be looked at.
    pub(super) dirty: BTreeSet<FlashJobKey>,
    /// Looked at: no end, and too many for now. The first comes first.
    later: VecDeque<FlashJobKey>,
    pace: Pace,
    pub(super) events: Pace,
}

/// What is to be written now.
#[derive(Default)]
pub(super) struct Round {
    pub(super) statuses: Vec<Due>,
    /// To be let go of.
    pub(super) going: Vec<(FlashJobKey, Arc<FlashJob>)>,
    /// Something waits for its time.
    pub(super) wait: bool,
}

/// A status that is to be written.
pub(super) struct Due {
    pub(super) key: FlashJobKey,
    /// What it is based on.
    pub(super) job: Arc<FlashJob>,
    pub(super) status: FlashJobStatus,
    is_final: bool,
}

impl Books {
    /// What is to be written of a FlashJob, if anything.
    pub(super) fn due(&self, key: &FlashJobKey) -> Option<Due> {
        let (job, entry) = (self.jobs.get(key)?, self.entries.get(key)?);
        let (of, uid, stand) = entry.said.as_ref()?;
        let own = if uid.is_some() { job.uid() == *uid } else { made_for(job) == Some(of.job) };
        let counts = entry.counted.as_ref().filter(|(run, _)| run == of).map(|(_, counts)| counts);
        let status = status_of(job, stand, counts, now()).filter(|_| own)?;
        Some(Due { key: key.clone(), job: job.clone(), status, is_final: stand.is_final() })
    }

    /// The one of this key, if it is to be let go of.
    fn going(&self, key: &FlashJobKey) -> Option<Arc<FlashJob>> {
        self.jobs.get(key).filter(|job| goes(job, &self.instance, self.nobodys.contains(key))).cloned()
    }

    pub(super) fn gone(&mut self, key: &FlashJobKey) {
        self.jobs.remove(key);
        self.entries.remove(key);
        self.nobodys.remove(key);
        self.dirty.remove(key);
    }

    fn not_later(&mut self, key: &FlashJobKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.is_later = false;
        }
    }

    pub(super) fn new(instance: String, now: Instant) -> Self {
        let pace = |(rate, burst, least): (f64, f64, Duration)| Pace::new(rate, burst, least, now);
        Self {
            instance,
            jobs: BTreeMap::new(),
            nobodys: BTreeSet::new(),
            entries: BTreeMap::new(),
            refused: false,
            dirty: BTreeSet::new(),
            later: VecDeque::new(),
            pace: pace(STATUSES),
            events: pace(EVENTS),
        }
    }

    /// How the job of a FlashJob stands, in which run; whether that is news. `uid` is that of the FlashJob where it was there before the job.
    pub(super) fn say(&mut self, key: &FlashJobKey, run: RunId, uid: Option<String>, stand: Stand) -> bool {
        // It is gone, and whoever says this has not heard of that yet.
        if !self.jobs.contains_key(key) {
            return false;
        }
        let entry = self.entries.entry(key.clone()).or_default();
        let said = Some((run, uid, stand));
        // What is read from two sides may come out of step: the end of a job is the last word on it.
        let over = entry.said.as_ref().is_some_and(|(before, _, stand)| before.job == run.job && stand.is_final());
        if entry.said == said || over {
            return false;
        }
        if said.as_ref().is_some_and(|(_, _, stand)| stand.is_final()) {
            entry.not_before = None;
        }
        entry.said = said;
        self.dirty.insert(key.clone());
        true
    }

    /// What the pods of a run say; whether that is news.
    pub(super) fn count(&mut self, key: &FlashJobKey, run: RunId, counts: Counts) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        // Pods outlive a FlashJob that was deleted, and another one may have its name by now.
        let of_another = entry.said.as_ref().is_some_and(|(of, _, _)| !of.job.0.is_nil() && of.job != run.job);
        let is_old = entry.counted.as_ref().is_some_and(|(before, known)| {
            before.job == run.job && (run.attempt < before.attempt || (run.attempt == before.attempt && *known == counts))
        });
        if of_another || is_old {
            return false;
        }
        entry.counted = Some((run, counts));
        self.dirty.insert(key.clone());
        true
    }

    /// The last pod of a run is gone: nothing is remembered of a FlashJob that went before it.
    pub(super) fn uncount(&mut self, key: &FlashJobKey) {
        if !self.jobs.contains_key(key) && self.entries.get(key).is_some_and(|entry| entry.said.is_none()) {
            self.entries.remove(key);
        }
    }

    /// What is to be written now.
    pub(super) fn round(&mut self, now: Instant) -> Round {
        let mut round = Round::default();
        for key in std::mem::take(&mut self.dirty) {
            let (going, one) = (self.going(&key), self.due(&key));
            if going.is_none() && one.is_none() {
                continue;
            }
            if self.entries.get(&key).is_some_and(|entry| entry.not_before.is_some_and(|at| at > now)) {
                round.wait = true;
                self.dirty.insert(key);
            } else if let Some(job) = going {
                round.going.push((key, job));
            } else if let Some(one) = one.filter(|one| one.is_final) {
                self.pace.spend(now);
                round.statuses.push(one);
            } else if let Some(entry) = self.entries.get_mut(&key)
                && !std::mem::replace(&mut entry.is_later, true)
            {
                self.later.push_back(key);
            }
        }
        while let Some(key) = self.later.pop_front() {
            // What has changed meanwhile is said as it is now, and what is over was said.
            let Some(one) = self.due(&key).filter(|one| !one.is_final) else {
                self.not_later(&key);
                continue;
            };
            if !self.pace.take(now) {
                self.later.push_front(key);
                round.wait = true;
                break;
            }
            self.not_later(&key);
            round.statuses.push(one);
        }
        round
    }
}
