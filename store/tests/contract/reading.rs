//! A table that somebody else writes: what a standby reads of it.

use scheduler_core::ids::{Revision, Seq};
use store::usage::Day;
use store::{Batch, NoticeQuery, ObjectKind, Store, StoreError};

use super::Fixture;
use super::build::*;

/// Jobs of a batch: as many are submitted as were by the batch before, whose jobs begin.
const STEP: u64 = 3;
/// Batches that are read beside.
const BATCHES: u64 = 60;

pub(crate) async fn a_table_that_another_writes_is_read_and_not_changed(fixture: &dyn Fixture) {
    let reader = fixture.reading();
    assert!(reader.standing().await.is_err(), "there is none yet");
    let writer = fixture.open().await.unwrap();
    commit_submits(&*writer, vec![submit(1)]).await;
    let standing = reader.standing().await.unwrap();
    assert_eq!((standing.term, standing.last_seq, standing.last_revision), (writer.head().term, Seq(1), Revision(1)));

    // All that can be read is the same, also of what came later.
    let token = store::TokenRecord {
        id: "t".to_owned(),
        name: "laptop".to_owned(),
        hash: [3; 32],
        owner: store::Owner { user: "ada".into(), uid: 1_000 },
        created_at: at(1),
        expires_at: None,
    };
    writer.add_token(token.clone()).await.unwrap();
    let note = store::ObjectChange { kind: ObjectKind::Note, name: "n".into(), value: Some("{}".into()) };
    let batch = Batch {
        submits: vec![submit(2), submit(3)],
        changes: vec![change(1, &queued(1), starting(1))],
        keys: vec![key("ada", "k", 2, &[2, 3])],
        objects: vec![note],
        ..batch(&*writer)
    };
    writer.commit(batch).await.unwrap();
    assert_eq!(Snapshot::of(&*reader).await, Snapshot::of(&*writer).await);
    assert_eq!(reader.standing().await.unwrap(), writer.standing().await.unwrap());
    assert_eq!(reader.standing().await.unwrap().last_revision, Revision(4));
    assert_eq!(reader.live(Seq(0), 9).await.unwrap().len(), 3);
    assert_eq!(reader.tokens().await.unwrap(), [token]);
    assert_eq!(reader.key("ada", "k").await.unwrap(), writer.key("ada", "k").await.unwrap());
    assert_eq!(reader.objects(ObjectKind::Note).await.unwrap().len(), 1);
    assert_eq!(reader.id_by_seq(Seq(3)).await.unwrap(), Some(id(3)));

    for refused in [
        reader.commit(Batch::default()).await.map(drop),
        reader.commit(batch_of_term(writer.head().term)).await.map(drop),
        reader.compact(at(9_999), 10).await.map(drop),
        reader.prune(at(9_999), 10).await.map(drop),
        reader.forget_usage(Day(99_999)).await.map(drop),
        reader.remove_token("t").await.map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Standby { .. })), "{refused:?}");
    }
    assert_eq!(reader.tokens().await.unwrap().len(), 1);

    // What was compacted away is refused as by the writer.
    let floor = writer.compact(at(9_999), 100).await.unwrap().floor;
    assert_eq!(reader.standing().await.unwrap().floor, floor);
    let gone = reader.events(Revision(0), None, 9).await.unwrap_err();
    assert!(matches!(gone, StoreError::Compacted { floor: said } if said == floor), "{gone}");
    reader.close().await;
    assert!(matches!(reader.standing().await, Err(StoreError::Closed { .. })));
    writer.close().await;
}

/// One batch: new jobs, and those of the batch before begin.
fn step(writer: &dyn Store, number: u64) -> Batch {
    let first = number * STEP + 1;
    let before = (first.saturating_sub(STEP)).max(1)..first;
    Batch {
        submits: (first..first + STEP).map(submit).collect(),
        changes: before.map(|seq| change(seq, &queued(seq), starting(1))).collect(),
        ..batch(writer)
    }
}

/// The latest revision after so many batches.
fn revision(batches: u64) -> u64 {
    (batches * STEP + batches.saturating_sub(1) * STEP) * u64::from(batches > 0)
}

pub(crate) async fn a_reader_sees_no_part_of_a_batch(fixture: &dyn Fixture) {
    let writer = fixture.open().await.unwrap();
    let reader = fixture.reading();
    let write = async {
        for number in 0..BATCHES {
            writer.commit(step(&*writer, number)).await.unwrap();
        }
    };
    let query = store::JobQuery { limit: 1_000, ..store::JobQuery::default() };
    let read = async {
        let mut last = 0;
        while last < revision(BATCHES) {
            let standing = reader.standing().await.unwrap();
            let page = reader.jobs(&query).await.unwrap();
            let events = reader.events(Revision(0), None, 10_000).await.unwrap();
            let notices = reader.notices(&NoticeQuery { after: Revision(0), kind: None, name: None, limit: 9 }).await.unwrap();
            let counts = reader.counts().await.unwrap();

            let jobs = page.jobs.len() as u64;
            assert_eq!(jobs % STEP, 0, "a part of a batch");
            assert_eq!(page.revision.0, revision(jobs / STEP), "the page is of one moment");
            let begun = page.jobs.iter().filter(|job| job.lifecycle.attempt.0 == 1).count() as u64;
            assert_eq!(begun, jobs.saturating_sub(STEP), "a part of a batch");
            let told = events.last().map_or(0, |event| event.revision.0);
            assert!((0..=BATCHES).any(|batches| revision(batches) == told), "events up to {told}");
            assert_eq!((events.len() as u64, notices.len()), (told, 0));
            let [_, queued, starting, ..] = counts;
            assert!(queued + starting == 0 || queued == STEP && starting % STEP == 0, "{counts:?}");
            // What is read later is never older.
            let seen = [standing.last_revision.0, page.revision.0, told, revision((queued + starting) / STEP)];
            assert!(last <= seen[0] && seen.is_sorted(), "{last}, then {seen:?}");
            last = seen[3];
        }
    };
    tokio::join!(write, read);
    reader.close().await;
    writer.close().await;
}

pub(crate) async fn a_reader_outlives_the_writer(fixture: &dyn Fixture) {
    let first = fixture.open().await.unwrap();
    let reader = fixture.reading();
    commit_submits(&*first, vec![submit(1)]).await;
    assert_eq!(reader.standing().await.unwrap().last_revision, Revision(1));
    first.close().await;
    assert!(reader.job(id(1)).await.unwrap().is_some());
    // It keeps nobody from beginning the next term, and sees what that one writes.
    let second = fixture.open().await.unwrap();
    commit_submits(&*second, vec![submit(2)]).await;
    let standing = reader.standing().await.unwrap();
    assert_eq!((standing.term, standing.last_revision), (second.head().term, Revision(2)));
    assert!(standing.term > first.head().term);
    reader.close().await;
    second.close().await;
}
