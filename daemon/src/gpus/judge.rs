//! What speaks against promising a GPU: pure, from what was seen.

use scheduler_core::ids::{JobId, Name};

use store::{Notice, NoticeKind};

use super::keeper::OWN_NAME;
use super::{Seen, SeenProcess};
use crate::clock;
use crate::engine::{Aside, Cause};

/// Memory in use beyond what an unused GPU has in use that is still none: the driver's own comes and goes.
const SLACK_BYTES: u64 = 256 << 20;
/// A GPU that was too hot is fit again when it is so many degrees below that.
const COOL: u32 = 5;
/// Processes that are named in a reason.
const NAMED: usize = 3;

/// Processes that compute on a GPU past the scheduler: those of nobody's job, and those of other jobs than have it or parts of it.
pub fn foreign<'a>(seen: &'a Seen, holders: &'a [JobId]) -> impl Iterator<Item = &'a SeenProcess> {
    seen.processes.iter().filter(|process| is_foreign(process, holders))
}

/// Whether a process computes past the scheduler on a GPU that these jobs have.
pub fn is_foreign(process: &SeenProcess, holders: &[JobId]) -> bool {
    !process.graphics && process.job.is_none_or(|job| !holders.contains(&job))
}

/// What of a job that has ended is still on a GPU: processes, or memory that has not come back. `idle_bytes` is what this GPU has in use
/// while nobody uses it, if that was ever seen. Where others have parts of the GPU, only processes tell: the memory is theirs.
pub fn left_behind(seen: &Seen, job: JobId, idle_bytes: Option<u64>, holders: &[JobId]) -> Option<String> {
    let own = seen.processes.iter().filter(|process| process.job == Some(job));
    let own: Vec<String> = own.take(NAMED).map(describe).collect();
    if !own.is_empty() {
        return Some(format!("still used by {} of job {job}, which has ended", own.join(", ")));
    }
    // Whose memory it is cannot be told while others are there.
    if holders.iter().any(|holder| *holder != job) || foreign(seen, &[]).next().is_some() {
        return None;
    }
    let used = seen.reading.memory_used_bytes?;
    let over = used.checked_sub(idle_bytes?)?;
    (over > SLACK_BYTES).then(|| format!("{} MiB are still in use after job {job} has ended", over >> 20))
}

/// That processes which a job left on a GPU were told to end.
pub fn swept(uuid: &Name, processes: &[&SeenProcess], job: JobId) -> Notice {
    let named: Vec<String> = processes.iter().take(NAMED).map(|process| describe(process)).collect();
    let reason = format!("{} of job {job}, which has ended, told to end", named.join(", "));
    Notice {
        at: clock::now(),
        kind: NoticeKind::Gpu,
        name: uuid.clone(),
        what: "swept".into(),
        node: None,
        cause: Some(Cause::LeftBehind.as_str().into()),
        by: Some(OWN_NAME.into()),
        reason: Some(reason),
    }
}

/// Why it is not to be promised now, from what was seen of it: it is lost, too hot, or somebody uses it.
pub fn against(seen: &Seen, holders: &[JobId], avoid_foreign: bool, was_hot: bool) -> Option<Aside> {
    let reading = &seen.reading;
    if let Some(lost) = &reading.lost {
        return Some(Aside::new(Cause::Lost, format!("it does not answer: {lost}")));
    }
    if let Some(hot) = hot(seen, was_hot) {
        return Some(Aside::new(Cause::Hot, hot));
    }
    if !avoid_foreign {
        return None;
    }
    let others: Vec<&SeenProcess> = foreign(seen, holders).collect();
    let more = others.len().saturating_sub(NAMED);
    let named: Vec<String> = others.iter().take(NAMED).map(|process| describe(process)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let why = || format!("used past the scheduler by {}{more}", named.join(", "));
    (!named.is_empty()).then(|| Aside::new(Cause::Foreign, why()))
}

/// Whether it is too hot to be given to anybody.
pub fn hot(seen: &Seen, was_hot: bool) -> Option<String> {
    let (now, limit) = (seen.reading.celsius?, seen.reading.slowdown_celsius.filter(|limit| *limit > 0)?);
    let from = if was_hot { limit.saturating_sub(COOL) } else { limit };
    (now >= from).then(|| format!("it is too hot: {now} °C, and it slows down from {limit} °C on"))
}

/// Why it is sick, which it stays until somebody has looked: a critical error, or memory that cannot be trusted. `ecc_before` is the
/// number of uncorrectable errors that were there already.
pub fn sickness(seen: &Seen, ecc_before: Option<u64>, ignored_xids: &[u64]) -> Option<String> {
    if let Some(xid) = seen.reading.xids.iter().find(|xid| !ignored_xids.contains(xid)) {
        return Some(format!("critical error (Xid {xid})"));
    }
    let new = seen.reading.ecc_errors?.checked_sub(ecc_before?)?;
    (new > 0).then(|| format!("{new} uncorrectable memory errors"))
}

/// `pid 4711 of ann (python, 2048 MiB)`.
fn describe(process: &SeenProcess) -> String {
    let user = process.user.as_ref().map_or("an unknown user", Name::as_str);
    let memory = process.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20));
    let command = Some(process.command.clone()).filter(|command| !command.is_empty());
    let more: Vec<String> = command.into_iter().chain(memory).collect();
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    format!("pid {} of {user}{more}", process.pid)
}

#[cfg(test)]
mod tests {
    use executors::gpu::Reading;
    use uuid::Uuid;

    use super::*;

    fn process(pid: u32, job: Option<u128>) -> SeenProcess {
        SeenProcess {
            pid,
            user: Some("ann".into()),
            command: "python".to_owned(),
            memory_bytes: Some(2 << 30),
            job: job.map(|job| JobId(Uuid::from_u128(job))),
            started: 1,
            graphics: false,
            busy_percent: None,
        }
    }

    fn seen(processes: Vec<SeenProcess>) -> Seen {
        Seen { reading: Reading { memory_used_bytes: Some(3 << 30), ..Reading::default() }, processes }
    }

    const ONE: JobId = JobId(Uuid::from_u128(1));

    #[test]
    fn whoever_is_not_of_the_job_that_has_it_is_foreign() {
        let all = seen(vec![process(1, Some(1)), process(2, Some(2)), process(3, None)]);
        let pids = |holders: &[JobId]| foreign(&all, holders).map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!(pids(&[ONE]), [2, 3]);
        assert_eq!(pids(&[ONE, JobId(Uuid::from_u128(2))]), [3], "whoever shares it is no stranger");
        assert_eq!(pids(&[]), [1, 2, 3]);
        let desktop = seen(vec![SeenProcess { graphics: true, ..process(4, None) }]);
        assert_eq!(against(&desktop, &[], true, false), None);
        let why = against(&seen(vec![process(3, None)]), &[], true, false);
        assert_eq!(why, Some(Aside::new(Cause::Foreign, "used past the scheduler by pid 3 of ann (python, 2048 MiB)")));
        assert_eq!(against(&all, &[], false, false), None);
    }

    #[test]
    fn a_gpu_is_free_when_processes_and_memory_are_gone() {
        let job = JobId(Uuid::from_u128(1));
        let left = |seen: &Seen, idle| left_behind(seen, job, idle, &[job]);
        assert!(left(&seen(vec![process(1, Some(1))]), None).is_some_and(|why| why.contains("pid 1 of ann")));
        assert!(left(&seen(vec![]), Some(0)).is_some_and(|why| why.contains("3072 MiB")));
        assert_eq!(left(&seen(vec![]), Some(3 << 30)), None);
        assert_eq!(left(&seen(vec![]), None), None, "how it is without anybody was never seen");
        assert_eq!(left(&seen(vec![process(2, None)]), Some(0)), None, "it is somebody else's memory");
        assert_eq!(left(&Seen::default(), Some(0)), None, "the driver does not tell");
        let two = [job, JobId(Uuid::from_u128(2))];
        assert_eq!(left_behind(&seen(vec![]), job, Some(0), &two), None, "it is who shares it that has the memory");
        assert!(left_behind(&seen(vec![process(1, Some(1))]), job, Some(0), &two).is_some(), "its process tells all the same");
    }

    #[test]
    fn heat_passes_with_some_degrees_to_spare() {
        let at = |celsius| Seen {
            reading: Reading { celsius: Some(celsius), slowdown_celsius: Some(90), ..Reading::default() },
            processes: vec![],
        };
        assert!(hot(&at(90), false).is_some() && hot(&at(86), true).is_some());
        assert!(hot(&at(89), false).is_none() && hot(&at(84), true).is_none());
    }

    #[test]
    fn sick_is_what_no_program_did() {
        let with =
            |xids: Vec<u64>, ecc| Seen { reading: Reading { xids, ecc_errors: ecc, ..Reading::default() }, processes: vec![] };
        assert_eq!(sickness(&with(vec![31], None), None, &[13, 31]), None);
        assert!(sickness(&with(vec![31, 79], None), None, &[31]).is_some_and(|why| why.contains("Xid 79")));
        assert_eq!(sickness(&with(vec![], Some(4)), Some(4), &[]), None);
        assert_eq!(sickness(&with(vec![], Some(4)), None, &[]), None, "they were there before we were");
        assert!(sickness(&with(vec![], Some(5)), Some(4), &[]).is_some());
    }
}
