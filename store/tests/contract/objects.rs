//! Objects: kept by kind and name, and with the batch that they are in.

use bytes::Bytes;
use store::{Batch, Committed, ObjectChange, ObjectKind, ObjectRecord, Store, StoreError};

use super::Fixture;
use super::build::*;

fn set(kind: ObjectKind, name: &str, value: &'static str) -> ObjectChange {
    ObjectChange { kind, name: name.into(), value: Some(Bytes::from_static(value.as_bytes())) }
}

fn unset(kind: ObjectKind, name: &str) -> ObjectChange {
    ObjectChange { kind, name: name.into(), value: None }
}

fn record(name: &str, value: &'static str) -> ObjectRecord {
    ObjectRecord { name: name.into(), value: Bytes::from_static(value.as_bytes()) }
}

async fn commit(store: &dyn Store, objects: Vec<ObjectChange>) -> Result<Committed, StoreError> {
    store.commit(Batch { objects, ..batch(store) }).await
}

pub(crate) async fn objects_are_kept_by_kind_and_name(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    for kind in ObjectKind::ALL {
        assert_eq!(store.objects(kind).await.unwrap(), [], "{kind:?}");
    }
    // One name in every kind; and names and values that are not tame.
    let mut objects: Vec<_> = ObjectKind::ALL.into_iter().map(|kind| set(kind, "same", r#"{"of":1}"#)).collect();
    objects.push(set(ObjectKind::Queue, "ä", "{ \"spaced\" :\n [1.50, \"\\u0041\"] }"));
    objects.push(set(ObjectKind::Queue, "a'; DROP TABLE objects", "null"));
    commit(&*store, objects).await.unwrap();
    store.close().await;

    let store = fixture.open().await.unwrap();
    let queues = store.objects(ObjectKind::Queue).await.unwrap();
    // By name, and the values byte for byte.
    let expected = [
        record("a'; DROP TABLE objects", "null"),
        record("same", r#"{"of":1}"#),
        record("ä", "{ \"spaced\" :\n [1.50, \"\\u0041\"] }"),
    ];
    assert_eq!(queues, expected);
    for kind in ObjectKind::ALL.into_iter().filter(|kind| *kind != ObjectKind::Queue) {
        assert_eq!(store.objects(kind).await.unwrap(), [record("same", r#"{"of":1}"#)], "{kind:?}");
    }
    store.close().await;
}

pub(crate) async fn an_object_is_replaced_and_removed(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit(&*store, vec![set(ObjectKind::Node, "n", "1"), set(ObjectKind::Usage, "n", "1")]).await.unwrap();
    commit(&*store, vec![set(ObjectKind::Node, "n", "2")]).await.unwrap();
    assert_eq!(store.objects(ObjectKind::Node).await.unwrap(), [record("n", "2")]);
    // The last word on a name in a batch is the one that counts.
    commit(&*store, vec![unset(ObjectKind::Node, "n"), set(ObjectKind::Node, "n", "3"), set(ObjectKind::Node, "n", "4")])
        .await
        .unwrap();
    assert_eq!(store.objects(ObjectKind::Node).await.unwrap(), [record("n", "4")]);
    commit(&*store, vec![set(ObjectKind::Node, "n", "5"), unset(ObjectKind::Node, "n")]).await.unwrap();
    assert_eq!(store.objects(ObjectKind::Node).await.unwrap(), []);
    // Another kind of the same name is another object; to remove what is not there is no error.
    assert_eq!(store.objects(ObjectKind::Usage).await.unwrap(), [record("n", "1")]);
    commit(&*store, vec![unset(ObjectKind::Node, "n")]).await.unwrap();
    store.close().await;
}

pub(crate) async fn objects_share_the_fate_of_their_batch(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit(1)]).await;
    commit(&*store, vec![set(ObjectKind::Queue, "old", "1")]).await.unwrap();
    let before = Snapshot::of(&*store).await;

    let objects = || vec![set(ObjectKind::Queue, "new", "1"), unset(ObjectKind::Queue, "old")];
    let stale = Batch { changes: vec![change(1, &starting(1), running(1, 5))], objects: objects(), ..batch(&*store) };
    assert!(matches!(store.commit(stale).await, Err(StoreError::Stale { .. })));
    assert_eq!(store.objects(ObjectKind::Queue).await.unwrap(), [record("old", "1")]);
    assert_eq!(Snapshot::of(&*store).await, before);

    let good = Batch {
        submits: vec![submit(2)],
        changes: vec![change(1, &queued(1), starting(1))],
        objects: objects(),
        ..batch(&*store)
    };
    // Objects have no revision: these are of the submit and the change.
    let committed = store.commit(good).await.unwrap();
    assert_eq!((committed.first.0, committed.last.0), (2, 3));
    assert_eq!(store.objects(ObjectKind::Queue).await.unwrap(), [record("new", "1")]);
    let alone = commit(&*store, vec![unset(ObjectKind::Queue, "new")]).await.unwrap();
    assert_eq!((alone.first.0, alone.last.0), (4, 3));
    Snapshot::of(&*store).await.assert_gapless();
    store.close().await;
}

pub(crate) async fn an_ended_term_sets_no_object(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let ended = store.head().term;
    store.close().await;
    let store = fixture.open().await.unwrap();
    let late = Batch { objects: vec![set(ObjectKind::Queue, "late", "1")], ..batch_of_term(ended) };
    assert!(matches!(store.commit(late).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.objects(ObjectKind::Queue).await.unwrap(), []);
    store.close().await;
}

pub(crate) async fn objects_that_cannot_be_are_refused(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let long: &'static str = Box::leak("n".repeat(254).into_boxed_str());
    let not_text = ObjectChange { value: Some(Bytes::from_static(b"\"\xff\"")), ..set(ObjectKind::Queue, "q", "1") };
    let wrong = [
        set(ObjectKind::Queue, "", "1"),
        set(ObjectKind::Queue, long, "1"),
        set(ObjectKind::Queue, "q", ""),
        set(ObjectKind::Queue, "q", "{\"half\":"),
        not_text,
    ];
    for wrong in wrong {
        let objects = vec![set(ObjectKind::Queue, "good", "1"), wrong.clone()];
        assert!(commit(&*store, objects).await.is_err(), "{wrong:?}");
        assert_eq!(store.objects(ObjectKind::Queue).await.unwrap(), [], "{wrong:?}");
    }
    commit(&*store, vec![set(ObjectKind::Queue, &long[1..], "1")]).await.unwrap();
    store.close().await;
}
