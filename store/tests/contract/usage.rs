//! What was used: counted once, cut at midnight, kept when the jobs are gone.

use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{Attempt, Seq};
use scheduler_core::state::{JobState, Lifecycle, Outcome};
use scheduler_core::time::Timestamp;
use store::usage::{Day, Promised, Sampled, Used, by_days};
use store::{Batch, RunSample, Store, UsageBy, UsageQuery, UsageRow};

use super::Fixture;
use super::build::*;

const ALL: UsageBy = UsageBy { day: true, namespace: true, user: true, queue: true };

pub(crate) fn query(now: Timestamp) -> UsageQuery {
    let (namespaces, users, queues) = (Vec::new(), Vec::new(), Vec::new());
    UsageQuery { since: Day(0), until: Day(40_000), namespaces, users, queues, now, limit: 1_000 }
}

/// What the jobs of the builders are promised, two tasks with a core, a GiB and a GPU each, in so many seconds.
fn promised(seconds: u64) -> Promised {
    let micros = seconds * 2_000_000;
    Promised { cpu_micros: micros, memory_mib_millis: seconds * 2_000 * 1_024, gpu_micros: micros }
}

/// From the queue to the end of a run that lasts from one second to another.
fn whole_run(seq: u64, attempt: u32, from: &Lifecycle, began: u64, to: Lifecycle, ended: u64) -> Vec<Transition> {
    let at_end = Event::Ended { attempt: Attempt(attempt), result: RunResult::Succeeded, at: at(ended), retry_at: at(ended) };
    vec![
        change(seq, from, starting(attempt)),
        change(seq, &starting(attempt), running(attempt, began)),
        Transition { event: at_end, at: at(ended), ..change(seq, &running(attempt, began), to) },
    ]
}

async fn rows(store: &dyn Store, by: UsageBy, now: u64) -> Vec<UsageRow> {
    store.usage(&query(at(now)), by).await.unwrap().rows
}

async fn total(store: &dyn Store, now: u64) -> (u64, Used) {
    rows(store, UsageBy::default(), now).await.first().map_or((0, Used::default()), |row| (row.runs, row.used))
}

/// Seconds from the tests' epoch to the next midnight.
fn to_midnight() -> u64 {
    let next = Day::of(at(0)).next().begin();
    next.since(at(0)).0 / 1_000_000
}

pub(crate) async fn runs_are_counted_once_by_whom_and_where(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let mut other = submit_to(3, "vision", "fast");
    other.owner.user = "grace".into();
    commit_submits(&*store, vec![submit(1), submit(2), other, submit(4)]).await;
    let done = |seq, began, ended| whole_run(seq, 1, &queued(seq), began, finished(Outcome::Succeeded, 1, ended), ended);
    // Of one batch, some of one row; then one whose start was written before.
    commit_changes(&*store, [done(1, 10, 17), done(3, 20, 25)].concat()).await;
    let [place, start, end] = <[Transition; 3]>::try_from(done(2, 30, 31)).unwrap();
    commit_changes(&*store, vec![place, start]).await;
    assert_eq!(total(&*store, 30).await, (2, Used { promised: promised(12), ..Used::default() }));
    assert_eq!(total(&*store, 130).await.1.promised, promised(112), "what runs counts up to now");
    commit_changes(&*store, vec![end]).await;
    let stale = whole_run(2, 1, &queued(2), 30, finished(Outcome::Succeeded, 1, 31), 31);
    store.commit(Batch { changes: stale, ..batch(&*store) }).await.unwrap_err();
    // One that never ran.
    let end = finished(Outcome::Cancelled { by: "ada".into() }, 0, 99);
    commit_changes(&*store, vec![change(4, &queued(4), end)]).await;

    let by_user = UsageBy { user: true, ..UsageBy::default() };
    let users = rows(&*store, by_user, 500).await;
    let said: Vec<_> = users.iter().map(|row| (row.user.as_ref().unwrap().as_str(), row.runs, row.used.promised)).collect();
    assert_eq!(said, [("ada", 2, promised(8)), ("grace", 1, promised(5))]);
    assert!(users.iter().all(|row| row.day.is_none() && row.namespace.is_none() && row.queue.is_none()));
    let narrow = UsageQuery { namespaces: vec!["vision".to_owned()], ..query(at(500)) };
    let vision = store.usage(&narrow, ALL).await.unwrap().rows;
    assert_eq!((vision.len(), vision[0].queue.clone(), vision[0].runs), (1, Some("fast".into()), 1));
    let few = store.usage(&UsageQuery { limit: 1, ..query(at(500)) }, by_user).await.unwrap();
    assert_eq!((few.rows.len(), few.more), (1, true));
    let jobs = store.usage_by_job(&query(at(500))).await.unwrap();
    let said: Vec<_> = jobs.rows.iter().map(|job| (job.seq.0, job.runs, job.used.promised)).collect();
    assert_eq!(said, [(2, 1, promised(1)), (3, 1, promised(5)), (1, 1, promised(7))]);
    let before = rows(&*store, ALL, 500).await;
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(rows(&*store, ALL, 500).await, before);
    store.close().await;
}

pub(crate) async fn a_run_over_midnight_is_cut(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let midnight = to_midnight();
    commit_submits(&*store, vec![submit(1), submit(2)]).await;
    let run = |seq: u64, ended| whole_run(seq, 1, &queued(seq), midnight - 10, finished(Outcome::Succeeded, 1, ended), ended);
    let [place, start, end] = <[Transition; 3]>::try_from(run(1, midnight + 86_405)).unwrap();
    commit_changes(&*store, vec![place, start]).await;
    let by_day = UsageBy { day: true, ..UsageBy::default() };
    let today = Day::of(at(0));
    let said = |rows: Vec<UsageRow>| {
        rows.into_iter().map(|row| (row.day.unwrap().0 - today.0, row.runs, row.used.promised)).collect::<Vec<_>>()
    };
    assert_eq!(said(rows(&*store, by_day, midnight + 7).await), [(0, 0, promised(10)), (1, 0, promised(7))]);
    commit_changes(&*store, vec![end]).await;
    let three = [(0, 0, promised(10)), (1, 0, promised(86_400)), (2, 1, promised(5))];
    assert_eq!(said(rows(&*store, by_day, 1_000_000).await), three);
    let middle = UsageQuery { since: today.next(), until: today.next(), ..query(at(1_000_000)) };
    assert_eq!(said(store.usage(&middle, by_day).await.unwrap().rows), three[1..2]);
    assert_eq!(store.usage_by_job(&middle).await.unwrap().rows[0].used.promised, promised(86_400), "of that day alone");
    // The last moment of a day is its end.
    commit_changes(&*store, run(2, midnight)).await;
    let first = said(rows(&*store, by_day, 1_000_000).await)[0];
    assert_eq!(first.2, promised(20));
    store.close().await;
}

pub(crate) async fn every_try_of_a_job_counts(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let again = |attempt, second| lifecycle(JobState::Queued { since: at(second) }, attempt, 1);
    commit_changes(&*store, whole_run(1, 1, &queued(1), 10, again(1, 14), 14)).await;
    let used = async |now| {
        let job = store.usage_of(id(1), at(now)).await.unwrap().unwrap();
        (job.runs, job.used.promised)
    };
    assert_eq!(used(1_000).await, (1, promised(4)), "it waits, and what it waits for is not used");
    // A try that never began is none.
    commit_changes(&*store, vec![change(1, &again(1, 14), starting(2)), change(1, &starting(2), again(2, 20))]).await;
    assert_eq!(used(1_000).await, (1, promised(4)));
    let [place, start, end] = <[Transition; 3]>::try_from(whole_run(1, 3, &again(2, 20), 30, again(3, 32), 32)).unwrap();
    commit_changes(&*store, vec![place, start]).await;
    assert_eq!(used(31).await, (2, promised(5)));
    commit_changes(&*store, vec![end]).await;
    // Cancelled while it waits: its row says when, and that is no end of a run.
    let cancelled = finished(Outcome::Cancelled { by: "ada".into() }, 3, 500);
    commit_changes(&*store, vec![change(1, &again(3, 32), cancelled)]).await;
    assert_eq!(used(1_000).await, (2, promised(6)));
    assert_eq!(total(&*store, 1_000).await, (2, Used { promised: promised(6), ..Used::default() }));
    assert!(store.usage_of(unknown(), at(0)).await.unwrap().is_none());
    store.close().await;
}

pub(crate) async fn samples_are_added_to_the_run_and_its_day(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    commit_changes(&*store, vec![change(1, &queued(1), starting(1)), change(1, &starting(1), running(1, 10))]).await;
    let seen = |busy: u64, peak| Sampled {
        known_micros: 100,
        busy_micros: busy,
        peak_busy_percent: peak,
        peak_memory_bytes: busy << 20,
        energy_millijoules: 7,
    };
    let sample = |job, second, sampled| RunSample { job, seq: Seq(1), attempt: Attempt(1), at: at(second), sampled };
    let day = to_midnight();
    let samples = vec![sample(id(1), 12, seen(50, 60)), sample(id(1), day + 1, seen(20, 20)), sample(unknown(), 12, seen(9, 9))];
    store.commit(Batch { samples: samples.clone(), ..batch(&*store) }).await.unwrap();
    // What comes with a batch that fails is not there.
    let wrong = vec![change(1, &starting(1), running(1, 10))];
    store.commit(Batch { samples, changes: wrong, ..batch(&*store) }).await.unwrap_err();
    let both = Sampled {
        known_micros: 200,
        busy_micros: 70,
        peak_busy_percent: 60,
        peak_memory_bytes: 50 << 20,
        energy_millijoules: 14,
    };
    let end = finished(Outcome::Succeeded, 1, 20);
    commit_changes(&*store, vec![change(1, &running(1, 10), end)]).await;
    assert_eq!(store.usage_of(id(1), at(100)).await.unwrap().unwrap().used, Used { promised: promised(10), sampled: both });
    assert_eq!(total(&*store, 100).await, (1, Used { promised: promised(10), sampled: both }));
    let days = rows(&*store, UsageBy { day: true, ..UsageBy::default() }, 100).await;
    let said: Vec<_> = days.iter().map(|row| row.used.sampled.busy_micros).collect();
    assert_eq!(said, [50, 20], "by the day of the look");
    store.close().await;
}

pub(crate) async fn sums_outlive_their_jobs_until_they_are_forgotten(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let again = lifecycle(JobState::Queued { since: at(14) }, 1, 1);
    commit_changes(&*store, whole_run(1, 1, &queued(1), 10, again.clone(), 14)).await;
    commit_changes(&*store, whole_run(1, 2, &again, 20, finished(Outcome::Succeeded, 2, 21), 21)).await;
    let before = total(&*store, 100).await;
    assert_eq!(before.1.promised, promised(5));
    assert_eq!(store.prune(at(1_000), 10).await.unwrap(), [id(1)]);
    assert_eq!(total(&*store, 100).await, before);
    assert!(store.usage_by_job(&query(at(100))).await.unwrap().rows.is_empty());
    let today = Day::of(at(0));
    assert_eq!(store.forget_usage(today).await.unwrap(), 0);
    assert_eq!(store.forget_usage(today.next()).await.unwrap(), 1);
    assert_eq!(total(&*store, 100).await, (0, Used::default()));
    store.close().await;
}

/// The ledger is what the table of jobs says, to the last microsecond.
pub(crate) async fn check_against_jobs(store: &dyn Store) {
    let mut sum = (0, Promised::default());
    let mut before = None;
    loop {
        let page = store.jobs(&store::JobQuery { limit: 1_000, before, ..store::JobQuery::default() }).await.unwrap();
        for job in &page.jobs {
            if let (Some(began), JobState::Finished { at: ended, .. }) = (job.started_at, &job.lifecycle.state) {
                let promise = store::usage::Promise::of(&submit(job.seq.0).job.shape, None);
                by_days(began, *ended).for_each(|(_, span)| sum.1.add(&promise.over(span)));
                sum.0 += 1;
            }
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    // Before anything that still runs began: what the ledger has, and nothing else.
    let found = rows(store, UsageBy::default(), 0).await;
    assert_eq!(found.first().map_or((0, Promised::default()), |row| (row.runs, row.used.promised)), sum);
}
