//! What goes in comes out: the same now, and the same after the store was opened again.

use bytes::Bytes;
use scheduler_core::ids::{Name, Revision, Seq};
use scheduler_core::job::{LiveJob, Shape};
use scheduler_core::state::{JobState, Outcome, StateKind};
use store::{Owner, Store};

use super::Fixture;
use super::build::*;

pub(crate) async fn every_lifecycle_comes_back(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let all = every_lifecycle();
    // Each one as a first state, and each one as what a queued job changed to.
    let count = all.len() as u64;
    let mut submits = Vec::new();
    for (seq, lifecycle) in (1..).zip(&all) {
        let mut submitted = submit(seq);
        submitted.lifecycle = lifecycle.clone();
        submits.push(submitted);
    }
    submits.extend((count + 1..=2 * count).map(submit));
    commit_submits(&*store, submits).await;
    let changes = (count + 1..).zip(&all).map(|(seq, lifecycle)| change(seq, &queued(seq), lifecycle.clone())).collect();
    commit_changes(&*store, changes).await;

    let check = async |store: &dyn Store| {
        for (seq, lifecycle) in (1..).zip(all.iter().chain(&all)) {
            let record = job(store, seq).await;
            assert_eq!(record.lifecycle, *lifecycle);
            if let Some(placement) = lifecycle.state.placement() {
                assert_eq!(record.last_placement.as_ref(), Some(placement));
            }
            let events = store.events(Revision(0), Some(id(seq)), 10).await.unwrap();
            assert_eq!(events.last().unwrap().lifecycle, *lifecycle);
        }
        let live = store.live(Seq(0), 1_000).await.unwrap();
        let expected: Vec<_> = (1..)
            .zip(all.iter().chain(&all))
            .filter(|(_, lifecycle)| lifecycle.state.kind() != StateKind::Finished)
            .map(|(seq, lifecycle)| (Seq(seq), lifecycle.clone()))
            .collect();
        assert_eq!(live.into_iter().map(|job| (job.seq, job.lifecycle)).collect::<Vec<_>>(), expected);
    };
    check(&*store).await;
    store.close().await;
    let store = fixture.open().await.unwrap();
    check(&*store).await;
    store.close().await;
}

pub(crate) async fn a_record_is_what_was_submitted(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let mut full = submit_to(1, "research", "gpu");
    full.job.start_after = Some(at(40));
    full.job.shape = std::sync::Arc::new(Shape { min_available: 1, ..(*full.job.shape).clone() });
    full.owner = Owner { user: "grace".into(), uid: u32::MAX };
    full.labels = vec![("app".to_owned(), "train".to_owned()), ("team/unit".to_owned(), String::new())];
    commit_submits(&*store, vec![full.clone(), submit(2), submit(3)]).await;

    let record = job(&*store, 1).await;
    assert_eq!((record.id, record.seq, record.revision), (id(1), Seq(1), Revision(1)));
    assert_eq!((record.namespace.as_str(), record.queue.as_str(), record.name.as_str()), ("research", "gpu", "job-1"));
    assert_eq!((record.owner, record.spec), (full.owner, full.spec));
    assert_eq!((record.submitted_at, record.start_after), (at(1), Some(at(40))));
    assert_eq!((record.started_at, record.last_placement), (None, None));

    let live: Vec<LiveJob> = store.live(Seq(0), 10).await.unwrap();
    assert_eq!((&*live[0].shape, &*live[0].policy), (&*full.job.shape, &*full.job.policy));
    assert_eq!((live[0].id, live[0].submitted_at, live[0].start_after), (id(1), at(1), Some(at(40))));
    assert!(std::sync::Arc::ptr_eq(&live[1].shape, &live[2].shape), "jobs of one shape share it");

    let some = store.jobs_by_id(&[id(3), unknown(), id(1), id(3)]).await.unwrap();
    assert_eq!(some.iter().map(|job| job.seq.0).collect::<Vec<_>>(), [3, 1, 3]);
    assert!(store.job(unknown()).await.unwrap().is_none());
    store.close().await;
}

pub(crate) async fn the_latest_run_is_remembered(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    let seen = async || {
        let record = job(&*store, 1).await;
        (record.started_at, record.last_placement.map(|placement| placement.slots[0].node.to_string()))
    };
    let step = async |from: &_, to| commit_changes(&*store, vec![change(1, from, to)]).await;

    step(&queued(1), starting(1)).await;
    assert_eq!(seen().await, (None, Some("a".to_owned())));
    step(&starting(1), running(1, 20)).await;
    let again = lifecycle(JobState::Queued { since: at(30) }, 1, 1);
    step(&running(1, 20), again.clone()).await;
    assert_eq!(seen().await, (Some(at(20)), Some("a".to_owned())), "the run ended, and what it was is still known");

    let second = lifecycle(JobState::Starting { placement: std::sync::Arc::new(placement("b")) }, 2, 1);
    step(&again, second.clone()).await;
    assert_eq!(seen().await, (None, Some("b".to_owned())), "another run has begun and not started");
    let ended = finished(Outcome::Succeeded, 2, 50);
    step(&second, ended).await;
    assert_eq!(seen().await, (None, Some("b".to_owned())));
    store.close().await;
}

pub(crate) async fn odd_text_and_large_specs_come_back(fixture: &dyn Fixture) {
    let texts = ["", "'; DROP TABLE jobs; --", "zażółć 作业 🚀", "line\nbreak\ttab\u{1}", "nul\0inside", "\u{feff}bom"];
    let store = fixture.open().await.unwrap();
    let large = Bytes::from((0..5_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect::<Vec<u8>>());
    for (seq, text) in (1..).zip(texts) {
        let mut odd = submit_to(seq, text, text);
        odd.name = Name::from(text);
        odd.owner.user = Name::from(text);
        odd.labels = vec![("k".to_owned(), text.to_owned())];
        odd.spec = if seq == 1 { large.clone() } else { Bytes::from(text) };
        let changes = vec![change(seq, &queued(seq), finished(Outcome::Cancelled { by: Name::from(text) }, 0, 5))];
        let keys = vec![key(text, text, 1, &[seq])];
        store.commit(store::Batch { submits: vec![odd], changes, keys, ..batch(&*store) }).await.unwrap();
    }
    store.close().await;
    let store = fixture.open().await.unwrap();
    for (seq, text) in (1..).zip(texts) {
        let record = job(&*store, seq).await;
        assert_eq!(
            (record.namespace.as_str(), record.queue.as_str(), record.name.as_str(), record.owner.user.as_str()),
            (text, text, text, text)
        );
        assert_eq!(record.spec, if seq == 1 { large.clone() } else { Bytes::from(text) });
        assert_eq!(record.lifecycle, finished(Outcome::Cancelled { by: Name::from(text) }, 0, 5));
        assert_eq!(store.key(text, text).await.unwrap().unwrap().jobs, [id(seq)]);
        let query = store::JobQuery {
            labels: vec![store::LabelMatch::Is("k".to_owned(), text.to_owned())],
            namespaces: vec![text.to_owned()],
            limit: 10,
            ..store::JobQuery::default()
        };
        let found = store.jobs(&query).await.unwrap().jobs;
        assert_eq!(found.iter().map(|job| job.seq.0).collect::<Vec<_>>(), [seq], "{text:?}");
    }
    store.close().await;
}

pub(crate) async fn ten_thousand_jobs_in_one_batch(fixture: &dyn Fixture) {
    const JOBS: u64 = 10_000;
    let store = fixture.open().await.unwrap();
    let submits = (1..=JOBS).map(|seq| submit_to(seq, &format!("team-{}", seq % 7), &format!("queue-{}", seq % 3))).collect();
    let committed = store.commit(store::Batch { submits, ..batch(&*store) }).await.unwrap();
    assert_eq!((committed.first, committed.last), (Revision(1), Revision(JOBS)));
    assert_eq!(store.counts().await.unwrap(), [0, JOBS, 0, 0, 0, 0]);
    store.close().await;
    let store = fixture.open().await.unwrap();
    let live = store.live(Seq(0), u32::MAX).await.unwrap();
    assert_eq!(live.len() as u64, JOBS);
    for (seq, live) in (1..).zip(&live) {
        assert_eq!((live.seq, live.id), (Seq(seq), id(seq)));
        assert_eq!(live.shape.namespace.as_str(), format!("team-{}", seq % 7));
    }
    Snapshot::of(&*store).await.assert_gapless();
    store.close().await;
}

pub(crate) async fn the_table_is_the_same_after_reopening(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, (1..=50).map(submit).collect()).await;
    commit_changes(&*store, (1..=20).map(|seq| change(seq, &queued(seq), starting(1))).collect()).await;
    commit_changes(&*store, (1..=10).map(|seq| change(seq, &starting(1), finished(Outcome::Succeeded, 1, seq))).collect()).await;
    let before = Snapshot::of(&*store).await;
    let head = store.head();
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(Snapshot::of(&*store).await, before);
    assert_eq!(store.head().term, head.term.next());
    assert_eq!((store.head().last_seq, store.head().last_revision), (Seq(50), Revision(80)));
    store.close().await;
}
