//! Retention: bounded steps, and what must outlive the rows that go.

use scheduler_core::ids::{Revision, Seq};
use scheduler_core::state::Outcome;
use store::{Batch, Compaction, Store, StoreError};

use super::Fixture;
use super::build::*;

/// Jobs 1..=count, of which job `n` finished at second `when(n)`.
async fn finished_jobs(store: &dyn Store, count: u64, when: impl Fn(u64) -> u64) {
    commit_submits(store, (1..=count).map(submit).collect()).await;
    let done = |seq| change(seq, &queued(seq), finished(Outcome::Cancelled { by: "ada".into() }, 0, when(seq)));
    commit_changes(store, (1..=count).map(done).collect()).await;
}

pub(crate) async fn prune_removes_the_jobs_that_finished_first(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    finished_jobs(&*store, 10, |seq| 100 - seq).await;
    commit_submits(&*store, vec![submit(11)]).await;

    assert_eq!(store.prune(at(90), 100).await.unwrap(), [], "before means before");
    assert_eq!(store.prune(at(95), 3).await.unwrap(), [id(10), id(9), id(8)], "those that finished first, at most 3");
    assert_eq!(store.prune(at(95), 100).await.unwrap(), [id(7), id(6)]);
    assert_eq!(store.prune(at(95), 100).await.unwrap(), []);
    assert_eq!(store.prune(at(100_000), 0).await.unwrap(), []);
    assert!(store.job(id(8)).await.unwrap().is_none());
    assert_eq!(store.counts().await.unwrap(), [0, 1, 0, 0, 0, 5]);
    // The log of what happened is another matter: watchers may still be behind.
    let table = Snapshot::of(&*store).await;
    table.assert_gapless();
    assert_eq!(table.events.len(), 21);
    assert_eq!(table.events[9].job, id(10));
    assert_eq!(table.jobs.into_keys().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 11]);
    store.close().await;
}

pub(crate) async fn a_pruned_sequence_is_not_given_out_again(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    finished_jobs(&*store, 3, |seq| seq).await;
    assert_eq!(store.prune(at(50), 100).await.unwrap().len(), 3);
    let reused = store.commit(Batch { submits: vec![submit(3)], ..batch(&*store) }).await.unwrap_err();
    assert!(matches!(reused, StoreError::Duplicate { .. }), "{reused}");
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(store.head().last_seq, Seq(3));
    commit_submits(&*store, vec![submit(4)]).await;
    store.close().await;
}

pub(crate) async fn compact_removes_events_in_bounds_and_remembers_the_floor(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, (1..=10).map(submit).collect()).await;
    let nothing = Compaction { floor: Revision(0), events: 0, more: false };
    assert_eq!(store.compact(at(1), 100).await.unwrap(), nothing, "before means before");
    assert_eq!(store.compact(at(8), 4).await.unwrap(), Compaction { floor: Revision(4), events: 4, more: true });
    assert_eq!(store.compact(at(8), 3).await.unwrap(), Compaction { floor: Revision(7), events: 3, more: false });

    let gone = store.events(Revision(6), None, 100).await.unwrap_err();
    assert!(matches!(gone, StoreError::Compacted { floor } if floor == Revision(7)), "{gone}");
    let rest = async |store: &dyn Store| {
        let events = store.events(Revision(7), None, 100).await.unwrap();
        assert_eq!(events.iter().map(|event| event.revision.0).collect::<Vec<_>>(), [8, 9, 10]);
    };
    rest(&*store).await;
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(store.head().floor, Revision(7));
    assert!(matches!(store.events(Revision(0), None, 1).await, Err(StoreError::Compacted { .. })));
    rest(&*store).await;
    // Jobs are another matter.
    assert_eq!(store.counts().await.unwrap(), [0, 10, 0, 0, 0, 0]);
    store.close().await;
}

pub(crate) async fn compact_removes_old_keys(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let keys = (1..=6).map(|second| key("ada", &format!("k{second}"), second, &[])).collect();
    store.commit(Batch { keys, ..batch(&*store) }).await.unwrap();
    assert!(store.compact(at(5), 3).await.unwrap().more);
    let there = async |name: &str| store.key("ada", name).await.unwrap().is_some();
    assert!(!there("k3").await);
    assert!(there("k4").await);
    assert!(!store.compact(at(5), 3).await.unwrap().more);
    assert!(!there("k4").await);
    assert!(there("k5").await);
    // A key that is gone can be used again.
    store.commit(Batch { keys: vec![key("ada", "k1", 9, &[])], ..batch(&*store) }).await.unwrap();
    store.close().await;
}

pub(crate) async fn the_last_revision_survives_the_last_event(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    finished_jobs(&*store, 2, |seq| seq).await;
    assert_eq!(store.compact(at(10_000), 100).await.unwrap().floor, Revision(4));
    assert_eq!(store.prune(at(10_000), 100).await.unwrap().len(), 2);
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!((store.head().last_revision, store.head().floor), (Revision(4), Revision(4)));
    assert_eq!(store.events(Revision(4), None, 10).await.unwrap(), []);
    let committed = store.commit(Batch { submits: vec![submit(3)], ..batch(&*store) }).await.unwrap();
    assert_eq!(committed.first, Revision(5));
    assert_eq!(store.events(Revision(4), None, 10).await.unwrap().len(), 1);
    store.close().await;
}
