//! Notices: their places between the events of jobs, and their end with them.

use scheduler_core::ids::Revision;
use store::{Batch, Notice, NoticeKind, NoticeQuery, Store, StoreError};

use super::Fixture;
use super::build::*;

fn notice(kind: NoticeKind, name: &str, what: &str, second: u64) -> Notice {
    Notice {
        at: at(second),
        kind,
        name: name.into(),
        what: what.into(),
        node: Some("box".into()),
        cause: None,
        by: Some("ada".into()),
        reason: Some("fan\u{fc}".to_owned()),
    }
}

const ALL: NoticeQuery = NoticeQuery { after: Revision(0), kind: None, name: None, limit: 1_000 };

async fn told(store: &dyn Store, query: NoticeQuery) -> Vec<(u64, String)> {
    let found = store.notices(&query).await.unwrap();
    found.into_iter().map(|found| (found.revision.0, found.notice.what.to_string())).collect()
}

fn words(told: &[(u64, &str)]) -> Vec<(u64, String)> {
    told.iter().map(|(revision, what)| (*revision, (*what).to_owned())).collect()
}

pub(crate) async fn notices_have_their_places_in_the_sequence(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let sick = notice(NoticeKind::Gpu, "GPU-1", "sick", 5);
    let mixed = Batch {
        submits: vec![submit(1), submit(2)],
        changes: vec![change(1, &queued(1), starting(1))],
        notices: vec![sick.clone(), notice(NoticeKind::Node, "box", "draining", 5)],
        ..batch(&*store)
    };
    let committed = store.commit(mixed).await.unwrap();
    assert_eq!((committed.first, committed.last), (Revision(1), Revision(5)));
    let bare = Notice {
        node: None,
        cause: Some("foreign".into()),
        by: None,
        reason: None,
        ..notice(NoticeKind::Gpu, "GPU-2", "free", 6)
    };
    let alone = Batch { notices: vec![bare.clone()], ..batch(&*store) };
    assert_eq!(store.commit(alone).await.unwrap().last, Revision(6));
    commit_submits(&*store, vec![submit(3)]).await;
    let found = store.notices(&ALL).await.unwrap();
    assert_eq!((&found[0].notice, &found[2].notice), (&sick, &bare));
    assert_eq!(told(&*store, ALL).await, words(&[(4, "sick"), (5, "draining"), (6, "free")]));
    assert_eq!(told(&*store, NoticeQuery { limit: 1, after: Revision(4), ..ALL }).await, words(&[(5, "draining")]));
    let gpus = NoticeQuery { kind: Some(NoticeKind::Gpu), ..ALL };
    assert_eq!(told(&*store, gpus.clone()).await, words(&[(4, "sick"), (6, "free")]));
    assert_eq!(told(&*store, NoticeQuery { name: Some("GPU-2".into()), ..gpus }).await, words(&[(6, "free")]));
    assert_eq!(told(&*store, NoticeQuery { name: Some("GPU-1".into()), kind: Some(NoticeKind::Queue), ..ALL }).await, []);
    let events = store.events(Revision(0), None, 100).await.unwrap();
    assert_eq!(events.iter().map(|event| event.revision.0).collect::<Vec<_>>(), [1, 2, 3, 7]);
    // What fails leaves none, and no gap.
    let failing = Batch {
        changes: vec![change(99, &queued(99), starting(1))],
        notices: vec![notice(NoticeKind::Gpu, "GPU-1", "never", 9)],
        ..batch(&*store)
    };
    store.commit(failing).await.unwrap_err();
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(store.head().last_revision, Revision(7));
    assert_eq!(told(&*store, ALL).await.len(), 3);
    store.close().await;
}

pub(crate) async fn notices_go_with_the_events_around_them(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    for second in 1..=4 {
        let submits = vec![submit(second)];
        let notices = vec![notice(NoticeKind::Gpu, "GPU-1", "free", second)];
        store.commit(Batch { submits, notices, ..batch(&*store) }).await.unwrap();
    }
    let gone = store.compact(at(4), 3).await.unwrap();
    assert_eq!((gone.floor, gone.events, gone.more), (Revision(3), 3, true));
    let gone = store.compact(at(4), 100).await.unwrap();
    assert_eq!((gone.floor, gone.events, gone.more), (Revision(6), 3, false));
    let refused = store.notices(&ALL).await.unwrap_err();
    assert!(matches!(refused, StoreError::Compacted { floor } if floor == Revision(6)), "{refused}");
    assert_eq!(told(&*store, NoticeQuery { after: Revision(6), ..ALL }).await, words(&[(8, "free")]));
    // The last revision survives a last notice.
    store.compact(at(99), 100).await.unwrap();
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(store.head().last_revision, Revision(8));
    store.close().await;
}
