//! Terms: one count for all who write, that only grows.

use scheduler_core::ids::{Revision, Term};
use store::{Batch, StoreError};

use super::Fixture;
use super::build::*;

/// A batch of this term with one new job.
fn of(term: Term, seq: u64) -> Batch {
    Batch { submits: vec![submit(seq)], ..batch_of_term(term) }
}

pub(crate) async fn a_term_is_raised_and_never_lowered(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let begun = store.head().term;
    assert_eq!(store.raise_term(begun).await.unwrap(), begun);
    assert_eq!(store.standing().await.unwrap().term, begun);
    assert_eq!(store.raise_term(Term(9)).await.unwrap(), Term(9));
    assert_eq!(store.raise_term(Term(4)).await.unwrap(), Term(9), "never lowered");
    assert_eq!(store.standing().await.unwrap().term, Term(9));
    assert_eq!(store.head().term, begun, "where it stood when it began");
    // What was begun before goes on, under each of its numbers; no other number is this term's.
    let numbers = [(begun, true), (Term(5), true), (Term(9), true), (Term(10), false), (Term(begun.0 - 1), false)];
    let mut seq = 1;
    for (term, good) in numbers {
        let committed = store.commit(of(term, seq)).await;
        assert_eq!(committed.is_ok(), good, "{term}: {committed:?}");
        seq += u64::from(good);
    }
    assert_eq!(store.raise_term(Term(10)).await.unwrap(), Term(10));
    assert_eq!(store.commit(of(begun, seq)).await.unwrap().first, Revision(seq));
    // A reader sees the number, and raises none.
    let reader = fixture.reading();
    assert_eq!(reader.standing().await.unwrap().term, Term(10));
    assert!(matches!(reader.raise_term(Term(99)).await, Err(StoreError::Standby { .. })));
    reader.close().await;
    store.close().await;

    // The next one begins above it, and fences it.
    let next = fixture.open().await.unwrap();
    assert_eq!(next.head().term, Term(11));
    for late in [begun, Term(9), Term(10)] {
        let refused = next.commit(of(late, seq + 1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { current: Term(11), .. }), "{late}: {refused}");
    }
    next.close().await;
}

pub(crate) async fn the_next_term_begins_above_a_raised_one(fixture: &dyn Fixture) {
    let mut last = Term(0);
    for round in 1..=4 {
        let store = fixture.open().await.unwrap();
        assert!(store.head().term > last);
        last = store.raise_term(Term(store.head().term.0 + round * 7)).await.unwrap();
        store.close().await;
    }
    let store = fixture.open().await.unwrap();
    assert_eq!(store.head().term, last.next());
    store.close().await;
}

pub(crate) async fn who_writes_no_more_is_told(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let mut ended = std::pin::pin!(store.ended());
    let early = tokio::select! {
        biased;
        why = &mut ended => Some(why),
        () = async { drop(store.commit(batch(&*store)).await) } => None,
    };
    assert!(early.is_none(), "it writes: {early:?}");
    let (why, ()) = tokio::join!(ended, store.close());
    assert!(matches!(why, StoreError::Closed { .. }), "{why}");
}
