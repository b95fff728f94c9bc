//! What the status of a FlashJob is to be. Pure.
//!
//! What must hold: one that is finished stays as it is; a condition's time changes with its status alone; nothing is written that is there already.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff;
use k8s_types::{FlashJob, FlashJobStatus, Phase, TaskPlacement};
use scheduler_core::time::Timestamp;

/// Longest message that a status carries, in characters.
const MESSAGE: usize = 1_024;

/// How the job of a FlashJob stands, as whoever schedules it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stand {
    /// It cannot become a job; what to write instead.
    Invalid(String),
    /// It is held.
    Held,
    /// It waits; for what.
    Waiting(String),
    /// It is placed.
    Starting,
    /// Its pods run.
    Running,
    /// Its run is being ended; why.
    Stopping(String),
    /// All went well.
    Succeeded {
        /// When.
        at: Timestamp,
        /// Of how many tasks; 0: nobody knows. Their pods may be let go of, and not be counted any more, before this is written.
        tasks: usize,
    },
    /// It did not go well, or somebody cancelled it.
    Failed {
        /// In a word: `Failed`, `Cancelled`.
        reason: &'static str,
        /// What happened.
        message: String,
        /// When.
        at: Timestamp,
    },
}

impl Stand {
    /// Nothing comes after it.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. })
    }
}

/// What the pods of the latest run say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) active: i32,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    pub(super) placements: Vec<TaskPlacement>,
    pub(super) started_at: Option<Timestamp>,
}

/// Whether its status says that it is finished.
pub fn is_finished(job: &FlashJob) -> bool {
    let conditions = job.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.type_ == "Complete").any(|condition| condition.status == "True")
}

/// The status that there is to be; `None` where it is so already, or is not to change any more. `counts` are those of the run that `stand` speaks of,
/// if anybody has counted its pods since this daemon began.
pub(super) fn status_of(job: &FlashJob, stand: &Stand, counts: Option<&Counts>, now: Timestamp) -> Option<FlashJobStatus> {
    if is_finished(job) {
        return None;
    }
    let (is_counted, none) = (counts.is_some(), Counts::default());
    let counts = counts.unwrap_or(&none);
    // The pods are a little ahead of whoever schedules them.
    let begun =
        usize::try_from(counts.active.saturating_add(counts.succeeded)).is_ok_and(|begun| begun >= counts.placements.len());
    let stand = if *stand == Stand::Starting && counts.active > 0 && begun { &Stand::Running } else { stand };
    let old = job.status.clone().unwrap_or_default();
    let generation = job.metadata.generation;
    let desired = i32::try_from(job.spec.tasks.len()).unwrap_or(i32::MAX);
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let before = old.conditions.iter().find(|condition| condition.type_ == kind && condition.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MESSAGE).collect(),
            observed_generation: generation,
            last_transition_time: before.map_or_else(|| time(now), |before| before.last_transition_time.clone()),
        }
    };
    let (reason, message) = words(stand);
    let elsewhere = if matches!(stand, Stand::Invalid(_)) { "" } else { message.as_str() };
    let placed = !matches!(stand, Stand::Invalid(_) | Stand::Held | Stand::Waiting(_));
    let runs = matches!(stand, Stand::Running);
    let admitted = match stand {
        // Cancelled before it had a place.
        Stand::Failed { .. } => {
            counts.started_at.is_some() || old.conditions.iter().any(|one| one.type_ == "Admitted" && one.status == "True")
        }
        _ => placed,
    };
    let valid = match stand {
        Stand::Invalid(message) => condition("Valid", false, "Invalid", message),
        _ => condition("Valid", true, "Accepted", ""),
    };
    let conditions = vec![
        valid,
        condition("Admitted", admitted, if admitted { "Placed" } else { reason }, if admitted { "" } else { elsewhere }),
        condition("Ready", runs, reason, if runs { "" } else { elsewhere }),
        condition("Complete", stand.is_final(), reason, if stand.is_final() { &message } else { "" }),
    ];
    let (active, succeeded, failed) = match stand {
        Stand::Invalid(_) | Stand::Held | Stand::Waiting(_) => (0, 0, 0),
        Stand::Succeeded { tasks, .. } if *tasks > 0 => (0, i32::try_from(*tasks).unwrap_or(i32::MAX), 0),
        Stand::Succeeded { .. } => {
            let placed = i32::try_from(counts.placements.len().max(old.placements.len())).unwrap_or(0);
            let counted = counts.succeeded.max(placed).max(old.succeeded);
            (0, if counted == 0 { desired } else { counted }, 0)
        }
        Stand::Failed { .. } if is_counted => (0, counts.succeeded, counts.failed.max(old.failed)),
        Stand::Failed { .. } => (0, old.succeeded, old.failed),
        // As an earlier daemon has counted them.
        Stand::Running | Stand::Stopping(_) if !is_counted => (old.active, old.succeeded, old.failed),
        _ => (counts.active, counts.succeeded, counts.failed),
    };
    let at = match stand {
        Stand::Succeeded { at, .. } | Stand::Failed { at, .. } => Some(time(*at)),
        _ => None,
    };
    let made = FlashJobStatus {
        active,
        succeeded,
        failed,
        desired,
        phase: Some(match stand {
            Stand::Invalid(_) | Stand::Held | Stand::Waiting(_) | Stand::Starting => Phase::Pending,
            // It is ended before any of it ran.
            Stand::Stopping(_) if counts.active == 0 && old.phase != Some(Phase::Running) => Phase::Pending,
            Stand::Running | Stand::Stopping(_) => Phase::Running,
            Stand::Succeeded { .. } => Phase::Succeeded,
            Stand::Failed { .. } => Phase::Failed,
        }),
        conditions,
        observed_generation: generation,
        start_time: old.start_time.clone().or_else(|| counts.started_at.map(time)),
        completion_time: at,
        message: Some(message).filter(|message| !message.is_empty()),
        placements: match stand {
            Stand::Invalid(_) | Stand::Held | Stand::Waiting(_) => Vec::new(),
            // Those that are said are of an earlier run.
            Stand::Starting if !is_counted => Vec::new(),
            _ if counts.placements.is_empty() => old.placements.clone(),
            _ => counts.placements.clone(),
        },
    };
    (made != old).then_some(made)
}

/// A reason as conditions have it, and what people read.
fn words(stand: &Stand) -> (&'static str, String) {
    match stand {
        Stand::Invalid(message) => ("Invalid", message.clone()),
        Stand::Held => ("Suspended", "held: spec.suspend is true, or somebody holds the job".to_owned()),
        Stand::Waiting(message) => ("Queued", message.clone()),
        Stand::Starting => ("Starting", "placed; its pods are being started".to_owned()),
        Stand::Running => ("Running", String::new()),
        Stand::Stopping(message) => ("Stopping", message.clone()),
        Stand::Succeeded { .. } => ("Succeeded", String::new()),
        Stand::Failed { reason, message, .. } => (reason, message.clone()),
    }
}

/// The cluster's times are whole seconds.
fn time(at: Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(at.0.div_euclid(1_000_000)).unwrap_or_default())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use k8s_types::FlashJobSpec;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn job() -> FlashJob {
        let mut job = FlashJob::new("j", FlashJobSpec { tasks: vec![PodTemplateSpec::default(); 2], ..FlashJobSpec::default() });
        job.metadata.generation = Some(3);
        job
    }

    fn next(job: &mut FlashJob, stand: &Stand, counts: &Counts, at: i64) -> bool {
        told(job, stand, Some(counts), at)
    }

    fn told(job: &mut FlashJob, stand: &Stand, counts: Option<&Counts>, at: i64) -> bool {
        let status = status_of(job, stand, counts, Timestamp(at * SECOND));
        let written = status.is_some();
        job.status = status.or(job.status.take());
        written
    }

    fn holds(job: &FlashJob, kind: &str) -> (bool, String, i64) {
        let all = &job.status.as_ref().unwrap().conditions;
        let one = all.iter().find(|condition| condition.type_ == kind).unwrap();
        assert_eq!(one.observed_generation, Some(3));
        (one.status == "True", one.reason.clone(), one.last_transition_time.0.as_second())
    }

    #[test]
    fn a_status_goes_forward_and_is_written_only_where_it_changes() {
        let (mut job, none) = (job(), Counts::default());
        let waiting = Stand::Waiting("in queue q".to_owned());
        assert!(next(&mut job, &waiting, &none, 1));
        assert!(!next(&mut job, &waiting, &none, 2), "nothing new");
        assert_eq!(holds(&job, "Admitted"), (false, "Queued".to_owned(), 1));
        let placements = [0, 1].map(|task| TaskPlacement { task, ..TaskPlacement::default() }).to_vec();
        let counts = Counts { active: 2, placements, started_at: Some(Timestamp(4 * SECOND)), ..Counts::default() };
        let part = Counts { active: 1, ..counts.clone() };
        assert!(next(&mut job, &Stand::Starting, &part, 4));
        assert_eq!(job.status.as_ref().unwrap().phase, Some(Phase::Pending));
        assert!(next(&mut job, &Stand::Starting, &counts, 5), "all of its pods run, whoever knows");
        assert!(!next(&mut job, &Stand::Running, &counts, 6));
        assert_eq!(job.status.as_ref().unwrap().message, None);
        assert_eq!(holds(&job, "Ready"), (true, "Running".to_owned(), 5));
        let status = job.status.clone().unwrap();
        assert_eq!((status.active, status.desired, status.phase), (2, 2, Some(Phase::Running)));
        assert!(next(&mut job, &Stand::Succeeded { at: Timestamp(9 * SECOND), tasks: 0 }, &counts, 10));
        let status = job.status.clone().unwrap();
        assert_eq!((status.active, status.succeeded, status.phase), (0, 2, Some(Phase::Succeeded)));
        assert_eq!(holds(&job, "Valid").2, 1);
        for late in [Stand::Running, waiting, Stand::Failed { reason: "Cancelled", message: String::new(), at: Timestamp(0) }] {
            assert!(!next(&mut job, &late, &counts, 11), "finished is finished");
        }
    }

    #[test]
    fn what_succeeded_before_anybody_counted_it_is_counted() {
        let (mut fresh, none) = (job(), Counts::default());
        let done = Stand::Succeeded { at: Timestamp(9 * SECOND), tasks: 0 };
        assert!(next(&mut fresh, &done, &none, 10));
        assert_eq!(fresh.status.unwrap().succeeded, 2, "all of it");
        let mut seen = job();
        let placements = vec![TaskPlacement::default()];
        assert!(next(&mut seen, &Stand::Running, &Counts { active: 1, placements, ..Counts::default() }, 4));
        assert!(next(&mut seen, &done, &none, 10));
        assert_eq!(seen.status.unwrap().succeeded, 1, "as many as were placed");
        // The daemon was killed when it had let go of one of two pods, and the next one sees the other alone.
        let (mut left, placements) = (job(), vec![TaskPlacement::default()]);
        let counts = Counts { succeeded: 1, placements, ..Counts::default() };
        assert!(next(&mut left, &Stand::Succeeded { at: Timestamp(9 * SECOND), tasks: 2 }, &counts, 10));
        assert_eq!(left.status.unwrap().succeeded, 2, "as many as the job has placed");
    }

    #[test]
    fn what_an_earlier_daemon_counted_stands_until_somebody_counts_again() {
        let mut job = job();
        let placements = [0, 1].map(|task| TaskPlacement { task, ..TaskPlacement::default() }).to_vec();
        let counts = Counts { active: 1, succeeded: 1, placements, started_at: Some(Timestamp(2 * SECOND)), ..Counts::default() };
        assert!(next(&mut job, &Stand::Running, &counts, 3));
        assert!(!told(&mut job, &Stand::Running, None, 4), "a daemon that has just begun has nothing else to say");
        let mut failed = job.clone();
        let end = Stand::Failed { reason: "Failed", message: String::new(), at: Timestamp(5 * SECOND) };
        assert!(told(&mut failed, &end, None, 5));
        assert_eq!(failed.status.unwrap().succeeded, 1, "a count does not go back");
        // The next run has nothing of the one before.
        assert!(told(&mut job, &Stand::Starting, None, 6));
        let status = job.status.clone().unwrap();
        assert_eq!((status.active, status.phase, status.placements.len()), (0, Some(Phase::Pending), 0));
        assert!(!holds(&job, "Ready").0);
        assert!(told(&mut job, &Stand::Stopping("being cancelled by ann".to_owned()), None, 7));
        assert_eq!(job.status.unwrap().phase, Some(Phase::Pending), "nothing of it ran");
    }

    #[test]
    fn what_is_wrong_is_said_and_may_be_mended() {
        let (mut job, none) = (job(), Counts::default());
        next(&mut job, &Stand::Invalid("no queue x".to_owned()), &none, 1);
        assert_eq!(holds(&job, "Valid"), (false, "Invalid".to_owned(), 1));
        assert_eq!(job.status.as_ref().unwrap().message.as_deref(), Some("no queue x"));
        assert!(!is_finished(&job));
        next(&mut job, &Stand::Held, &none, 2);
        assert_eq!(holds(&job, "Valid"), (true, "Accepted".to_owned(), 2));
        next(&mut job, &Stand::Failed { reason: "Cancelled", message: "by ann".to_owned(), at: Timestamp(3 * SECOND) }, &none, 3);
        assert_eq!((holds(&job, "Admitted").0, holds(&job, "Complete").1), (false, "Cancelled".to_owned()));
    }
}
