//! Batches: atomic, compared, fenced, numbered.

use std::sync::Arc;

use scheduler_core::ids::{Attempt, Revision, Seq, Term};
use scheduler_core::state::{JobState, Outcome, StateKind};
use scheduler_core::time::Timestamp;
use store::{Batch, Committed, JobQuery, StoreError};

use super::Fixture;
use super::build::*;

pub(crate) async fn a_batch_is_all_or_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let before = Snapshot::of(&*store).await;

    // Good rows first, in a namespace that only this batch names; the last change is the one that cannot be.
    let bad = Batch {
        submits: vec![submit_to(2, "fresh", "fresh"), submit_to(3, "fresh", "fresh")],
        changes: vec![change(1, &queued(1), starting(1)), change(1, &queued(1), starting(1))],
        keys: vec![key("ada", "k", 1, &[2, 3])],
        ..batch(&*store)
    };
    assert!(matches!(store.commit(bad).await, Err(StoreError::Stale { .. })));
    assert_eq!(Snapshot::of(&*store).await, before);
    assert_eq!(store.key("ada", "k").await.unwrap(), None);

    // The same good rows go through afterwards, and get the numbers that the failed batch did not use up.
    let good = Batch {
        submits: vec![submit_to(2, "fresh", "fresh"), submit_to(3, "fresh", "fresh")],
        changes: vec![change(1, &queued(1), starting(1))],
        keys: vec![key("ada", "k", 1, &[2, 3])],
        ..batch(&*store)
    };
    assert_eq!(store.commit(good).await.unwrap(), Committed { first: Revision(2), last: Revision(4) });
    assert_eq!(job(&*store, 3).await.namespace.as_str(), "fresh");
    assert_eq!(job(&*store, 1).await.revision, Revision(4));
    assert_eq!(store.key("ada", "k").await.unwrap().unwrap().jobs, [id(2), id(3)]);
    store.close().await;
}

pub(crate) async fn compare_and_set_tells_updated_stale_and_missing_apart(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1), submit(2)]).await;
    let attempt = |change| async { store.commit(Batch { changes: vec![change], ..batch(&*store) }).await };

    let updated = attempt(change(1, &queued(1), starting(1))).await.unwrap();
    assert_eq!(updated, Committed { first: Revision(3), last: Revision(3) });
    assert_eq!(kind(&job(&*store, 1).await), StateKind::Starting);
    assert_eq!(job(&*store, 2).await.lifecycle, queued(2));

    // Another state than compared with.
    let stale = attempt(change(1, &queued(1), starting(1))).await.unwrap_err();
    let StoreError::Stale { job: stale_job, expected, found } = stale else { panic!("{stale}") };
    assert_eq!(stale_job, id(1));
    assert_eq!((expected.as_str(), found.as_str()), ("queued in attempt 0", "starting in attempt 1"));

    // The same state, another attempt.
    let stale = attempt(change(1, &starting(2), running(2, 5))).await.unwrap_err();
    assert!(matches!(stale, StoreError::Stale { .. }), "{stale}");

    // No such sequence; and a sequence that is another job's.
    let missing = attempt(change(9, &queued(9), starting(1))).await.unwrap_err();
    assert!(matches!(missing, StoreError::Missing { job } if job == id(9)), "{missing}");
    let mut other = change(2, &queued(2), starting(1));
    other.job = unknown();
    let missing = attempt(other).await.unwrap_err();
    assert!(matches!(missing, StoreError::Missing { job } if job == unknown()), "{missing}");
    assert_eq!(Snapshot::of(&*store).await.last_revision(), Revision(3));
    store.close().await;
}

pub(crate) async fn a_job_changes_more_than_once_in_a_batch(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let done = finished(Outcome::Succeeded, 1, 9);
    let committed = store
        .commit(Batch {
            submits: vec![submit(2)],
            changes: vec![
                change(2, &queued(2), starting(1)),
                change(1, &queued(1), starting(1)),
                change(2, &starting(1), running(1, 8)),
                change(2, &running(1, 8), done.clone()),
            ],
            ..batch(&*store)
        })
        .await
        .unwrap();
    assert_eq!(committed, Committed { first: Revision(2), last: Revision(6) });
    let record = job(&*store, 2).await;
    assert_eq!((record.lifecycle, record.revision, record.started_at), (done, Revision(6), Some(at(8))));
    let events = store.events(Revision(0), Some(id(2)), 100).await.unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.revision.0, event.what.as_str())).collect();
    assert_eq!(seen, [(2, "submitted"), (3, "placed"), (5, "started"), (6, "ended")]);
    assert_eq!(store.counts().await.unwrap(), [0, 0, 1, 0, 0, 1]);

    // A start and an end at once are compared as each alone: with the state before both, and with the attempt.
    let before = Snapshot::of(&*store).await;
    for (job, attempt) in [(1, 2), (2, 1), (3, 1)] {
        let ends = finished(Outcome::Succeeded, attempt, 9);
        let changes = vec![change(job, &starting(attempt), running(attempt, 8)), change(job, &running(attempt, 8), ends)];
        let refused = store.commit(Batch { changes, ..batch(&*store) }).await.unwrap_err();
        assert_eq!(matches!(refused, StoreError::Missing { .. }), job == 3, "{refused}");
        if let StoreError::Stale { expected, .. } = &refused {
            assert_eq!(*expected, format!("starting in attempt {attempt}"));
        }
        assert_eq!(Snapshot::of(&*store).await, before);
    }
    store.close().await;
}

pub(crate) async fn an_ended_term_writes_nothing(fixture: &dyn Fixture) {
    let first = fixture.open().await.unwrap();
    let ended = first.head().term;
    commit_submits(&*first, vec![submit(1)]).await;
    first.close().await;

    let second = fixture.open().await.unwrap();
    let current = second.head().term;
    assert_eq!(current, ended.next());
    let late = Batch { submits: vec![submit(2)], changes: vec![change(1, &queued(1), starting(1))], ..batch_of_term(ended) };
    let fenced = second.commit(late).await.unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { ours, current: now } if ours == ended && now == current), "{fenced}");
    assert!(second.job(id(2)).await.unwrap().is_none());
    assert_eq!(job(&*second, 1).await.lifecycle, queued(1));
    commit_submits(&*second, vec![submit(2)]).await;
    second.close().await;
}

pub(crate) async fn a_term_that_has_not_begun_writes_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let early = Batch { submits: vec![submit(1)], ..batch_of_term(Term(store.head().term.0 + 1)) };
    assert!(store.commit(early).await.is_err());
    assert!(store.job(id(1)).await.unwrap().is_none());
    store.close().await;
}

pub(crate) async fn revisions_have_no_gap_over_failures_and_reopening(fixture: &dyn Fixture) {
    let mut next = 1;
    for round in 0..3 {
        let store = fixture.open().await.unwrap();
        assert_eq!(store.head().last_seq, Seq(next - 1));
        assert_eq!(store.head().last_revision.0, (next - 1) * 2);
        assert_eq!(store.head().term, Term(round + 1));
        for _ in 0..4 {
            commit_submits(&*store, vec![submit(next)]).await;
            let stale = Batch {
                submits: vec![submit(next + 1)],
                changes: vec![change(next, &running(1, 1), starting(2))],
                ..batch(&*store)
            };
            store.commit(stale).await.unwrap_err();
            commit_changes(&*store, vec![change(next, &queued(next), starting(1))]).await;
            next += 1;
        }
        store.close().await;
    }
    let store = fixture.open().await.unwrap();
    let table = Snapshot::of(&*store).await;
    table.assert_gapless();
    assert_eq!((table.events[0].revision, table.last_revision()), (Revision(1), Revision(24)));
    store.close().await;
}

pub(crate) async fn a_sequence_is_never_given_out_twice(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(5)]).await;
    for submits in [vec![submit(5)], vec![submit(4)], vec![submit(7), submit(6)], vec![submit(6), submit(6)]] {
        let refused = store.commit(Batch { submits, ..batch(&*store) }).await.unwrap_err();
        assert!(matches!(refused, StoreError::Duplicate { .. }), "{refused}");
    }
    assert_eq!(store.counts().await.unwrap(), [0, 1, 0, 0, 0, 0]);
    store.close().await;
}

pub(crate) async fn an_id_is_unique(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let mut twin = submit(2);
    twin.job.id = id(1);
    let refused = store.commit(Batch { submits: vec![twin], ..batch(&*store) }).await.unwrap_err();
    let StoreError::Duplicate { what, .. } = refused else { panic!("{refused}") };
    assert!(what.contains(&id(1).to_string()), "{what}");
    assert_eq!(job(&*store, 1).await.seq, Seq(1));
    store.close().await;
}

pub(crate) async fn keys_are_scoped_and_unique(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let with_key = |seq, key| Batch { submits: vec![submit(seq)], keys: vec![key], ..batch(&*store) };
    let ada = key("ada", "same ключ", 1, &[1]);
    store.commit(with_key(1, ada.clone())).await.unwrap();
    let bob = key("bob", "same ключ", 2, &[2]);
    store.commit(with_key(2, bob.clone())).await.unwrap();

    let again = store.commit(with_key(3, key("ada", "same ключ", 3, &[3]))).await.unwrap_err();
    assert!(matches!(&again, StoreError::Duplicate { what, .. } if what.contains("same ключ")), "{again}");
    assert!(store.job(id(3)).await.unwrap().is_none(), "the job of a refused key is not there");
    assert_eq!(store.key("ada", "same ключ").await.unwrap(), Some(ada));
    assert_eq!(store.key("bob", "same ключ").await.unwrap(), Some(bob));
    assert_eq!(store.key("eve", "same ключ").await.unwrap(), None);
    assert_eq!(store.key("ada", "another").await.unwrap(), None);

    let none = key("ada", "no jobs", 4, &[]);
    store.commit(Batch { keys: vec![none.clone()], ..batch(&*store) }).await.unwrap();
    assert_eq!(store.key("ada", "no jobs").await.unwrap(), Some(none));
    store.close().await;
}

pub(crate) async fn rows_that_no_state_machine_makes_are_refused(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let never_tried = running(0, 1);
    let mut lost_more_than_tried = queued(2);
    lost_more_than_tried.lost = 1;
    for wrong in [never_tried, lost_more_than_tried] {
        let mut submitted = submit(2);
        submitted.lifecycle = wrong.clone();
        assert!(store.commit(Batch { submits: vec![submitted], ..batch(&*store) }).await.is_err(), "{wrong:?}");
        let changed = Batch { changes: vec![change(1, &queued(1), wrong.clone())], ..batch(&*store) };
        assert!(store.commit(changed).await.is_err(), "{wrong:?}");
    }
    assert_eq!(job(&*store, 1).await.lifecycle, queued(1));
    assert_eq!(store.counts().await.unwrap(), [0, 1, 0, 0, 0, 0]);
    store.close().await;
}

pub(crate) async fn an_empty_batch_changes_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let nothing = store.commit(batch(&*store)).await.unwrap();
    assert_eq!(nothing, Committed { first: Revision(2), last: Revision(1) });
    store.close().await;
}

pub(crate) async fn commits_from_many_tasks_are_served_one_by_one(fixture: &dyn Fixture) {
    const JOBS: u64 = 200;
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, (1..=JOBS).map(submit).collect()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for seq in 1..=JOBS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let changes = vec![change(seq, &queued(seq), starting(1)), change(seq, &starting(1), running(1, seq))];
            let committed = store.commit(Batch { changes, ..batch(&*store) }).await.unwrap();
            // It is readable as soon as it is acknowledged, also while others are being written.
            let record = job(&*store, seq).await;
            assert_eq!((kind(&record), record.lifecycle.attempt), (StateKind::Running, Attempt(1)));
            assert_eq!(record.revision, committed.last);
            committed
        });
    }
    let mut given: Vec<Committed> = tasks.join_all().await;
    given.sort_by_key(|committed| committed.first);
    for (committed, first) in given.iter().zip((JOBS + 1..).step_by(2)) {
        assert_eq!(*committed, Committed { first: Revision(first), last: Revision(first + 1) });
    }
    Snapshot::of(&*store).await.assert_gapless();
    store.close().await;
}

pub(crate) async fn a_closed_store_says_so(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    store.close().await;
    store.close().await;
    let closed = |error: StoreError| assert!(matches!(error, StoreError::Closed { .. }), "{error}");
    closed(store.commit(Batch { submits: vec![submit(2)], ..batch(&*store) }).await.unwrap_err());
    closed(store.job(id(1)).await.unwrap_err());
    closed(store.jobs(&JobQuery { limit: 1, ..JobQuery::default() }).await.unwrap_err());
    closed(store.live(Seq(0), 1).await.unwrap_err());
    closed(store.counts().await.unwrap_err());
    closed(store.events(Revision(0), None, 1).await.unwrap_err());
    closed(store.prune(Timestamp(0), 1).await.unwrap_err());
    closed(store.compact(Timestamp(0), 1).await.unwrap_err());
    closed(store.tokens().await.unwrap_err());
    closed(store.remove_token("t").await.unwrap_err());

    let again = fixture.open().await.unwrap();
    assert!(matches!(job(&*again, 1).await.lifecycle.state, JobState::Queued { .. }));
    again.close().await;
}
