//! Reading: filters, pages, counts, events, tokens.

use std::collections::BTreeSet;

use scheduler_core::ids::{Revision, Seq};
use scheduler_core::state::{FailReason, JobState, Outcome, StateKind, WaitFor};
use store::{JobQuery, LabelMatch, OutcomeKind, Owner, Store, StoreError, TokenRecord};

use super::Fixture;
use super::build::*;

fn query() -> JobQuery {
    JobQuery { limit: 1_000, ..JobQuery::default() }
}

async fn found(store: &dyn Store, query: JobQuery) -> Vec<u64> {
    let page = store.jobs(&query).await.unwrap();
    assert_eq!(page.next, None, "everything fits one page here");
    page.jobs.iter().map(|job| job.seq.0).collect()
}

fn owned<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

pub(crate) async fn filters_restrict(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let mut held = submit_to(4, "b", "q2");
    held.lifecycle = lifecycle(JobState::Waiting { on: WaitFor::Hold }, 0, 0);
    held.owner = Owner { user: "bob".into(), uid: 1 };
    let mut named = submit_to(5, "c", "q2");
    named.name = "special".into();
    commit_submits(&*store, vec![submit_to(1, "a", "q1"), submit_to(2, "a", "q2"), submit_to(3, "b", "q1"), held, named]).await;
    let failed = Outcome::Failed { reason: FailReason::TimeLimit };
    commit_changes(
        &*store,
        vec![
            change(1, &queued(1), starting(1)),
            change(1, &starting(1), finished(Outcome::Succeeded, 1, 9)),
            change(2, &queued(2), starting(1)),
            change(2, &starting(1), finished(failed, 1, 9)),
            change(3, &queued(3), starting(1)),
        ],
    )
    .await;
    let expect = async |query, expected: &[u64]| assert_eq!(found(&*store, query).await, expected);

    expect(query(), &[5, 4, 3, 2, 1]).await;
    expect(JobQuery { namespaces: owned(["a", "c"]), ..query() }, &[5, 2, 1]).await;
    expect(JobQuery { queues: owned(["q2"]), ..query() }, &[5, 4, 2]).await;
    expect(JobQuery { namespaces: owned(["a"]), queues: owned(["q2"]), ..query() }, &[2]).await;
    expect(JobQuery { owners: owned(["bob", "nobody"]), ..query() }, &[4]).await;
    expect(JobQuery { name: Some("special".to_owned()), ..query() }, &[5]).await;
    expect(JobQuery { states: vec![StateKind::Starting, StateKind::Waiting], ..query() }, &[4, 3]).await;
    expect(JobQuery { states: vec![StateKind::Finished], ..query() }, &[2, 1]).await;
    expect(JobQuery { states: vec![StateKind::Finished, StateKind::Queued], ..query() }, &[5, 2, 1]).await;
    expect(JobQuery { states: StateKind::ALL.to_vec(), ..query() }, &[5, 4, 3, 2, 1]).await;
    expect(JobQuery { outcomes: vec![OutcomeKind::Failed], ..query() }, &[2]).await;
    expect(
        JobQuery { outcomes: vec![OutcomeKind::Failed, OutcomeKind::Succeeded], states: vec![StateKind::Finished], ..query() },
        &[2, 1],
    )
    .await;
    expect(JobQuery { outcomes: vec![OutcomeKind::Cancelled], ..query() }, &[]).await;
    expect(JobQuery { namespaces: owned(["unknown"]), ..query() }, &[]).await;
    expect(JobQuery { before: Some(Seq(3)), ..query() }, &[2, 1]).await;
    expect(JobQuery { before: Some(Seq(1)), ..query() }, &[]).await;
    let page = store.jobs(&query()).await.unwrap();
    assert_eq!(page.revision, Revision(10));
    store.close().await;
}

pub(crate) async fn labels_select(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let labelled = |seq, labels: &[(&str, &str)]| {
        let mut submitted = submit(seq);
        submitted.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        submitted
    };
    commit_submits(
        &*store,
        vec![
            labelled(1, &[("app", "train"), ("x.io/tier", "gold")]),
            labelled(2, &[("app", "serve")]),
            labelled(3, &[]),
            labelled(4, &[("app", "train"), ("x.io/tier", "\"quoted\"")]),
        ],
    )
    .await;
    let is = |key: &str, value: &str| LabelMatch::Is(key.to_owned(), value.to_owned());
    let is_not = |key: &str, value: &str| LabelMatch::IsNot(key.to_owned(), value.to_owned());
    let expect = async |labels: Vec<LabelMatch>, expected: &[u64]| {
        assert_eq!(found(&*store, JobQuery { labels, ..query() }).await, expected);
    };

    expect(vec![is("app", "train")], &[4, 1]).await;
    expect(vec![is_not("app", "train")], &[3, 2]).await;
    expect(vec![LabelMatch::Exists("x.io/tier".to_owned())], &[4, 1]).await;
    expect(vec![LabelMatch::Absent("x.io/tier".to_owned())], &[3, 2]).await;
    expect(vec![is("app", "train"), is_not("x.io/tier", "gold")], &[4]).await;
    expect(vec![is("x.io/tier", "\"quoted\"")], &[4]).await;
    expect(vec![is("app", "train"), LabelMatch::Absent("app".to_owned())], &[]).await;
    expect(vec![is("$.app", "train")], &[]).await;
    store.close().await;
}

pub(crate) async fn pages_join_without_gap_or_repeat(fixture: &dyn Fixture) {
    const JOBS: u64 = 137;
    let store = fixture.open().await.unwrap();
    // Sequences need not be dense.
    commit_submits(&*store, (1..=JOBS).map(|n| submit_to(n * 3, if n % 2 == 0 { "even" } else { "odd" }, "q")).collect()).await;
    let walk = async |query: JobQuery| {
        let mut seen = Vec::new();
        let mut query = query;
        loop {
            let page = store.jobs(&query).await.unwrap();
            assert!(page.jobs.len() <= query.limit as usize);
            seen.extend(page.jobs.iter().map(|job| job.seq.0));
            // A job that comes in between does not disturb the walk.
            let newest = store.jobs(&JobQuery { limit: 1, ..JobQuery::default() }).await.unwrap().jobs[0].seq.0;
            commit_submits(&*store, vec![submit_to(newest + 1, "odd", "late")]).await;
            query.before = page.next;
            if page.next.is_none() {
                return seen;
            }
        }
    };
    let all: Vec<u64> = (1..=JOBS).rev().map(|n| n * 3).collect();
    assert_eq!(walk(JobQuery { limit: 10, ..query() }).await, all);
    assert_eq!(walk(JobQuery { limit: 1, queues: owned(["q"]), ..query() }).await, all);
    let even: Vec<u64> = (1..=JOBS).rev().filter(|n| n % 2 == 0).map(|n| n * 3).collect();
    assert_eq!(walk(JobQuery { limit: 7, namespaces: owned(["even"]), states: vec![StateKind::Queued], ..query() }).await, even);
    store.close().await;
}

pub(crate) async fn unfinished_jobs_come_in_pages_by_sequence(fixture: &dyn Fixture) {
    const JOBS: u64 = 2_500;
    let store = fixture.open().await.unwrap();
    let all = every_lifecycle();
    let mut expected = Vec::new();
    let mut submits = Vec::new();
    for seq in 1..=JOBS {
        let mut submitted = submit(seq);
        submitted.lifecycle = all[(seq * 7 % 16) as usize].clone();
        if submitted.lifecycle.state.kind() != StateKind::Finished {
            expected.push(seq);
        }
        submits.push(submitted);
    }
    commit_submits(&*store, submits).await;
    for limit in [1, 999, 1_000, 1_001, 5_000] {
        let mut seen = Vec::new();
        // The smallest pages are checked at the end of the table only: enough to see where they end.
        let mut after = if limit == 1 { Seq(JOBS - 40) } else { Seq(0) };
        let first = after;
        loop {
            let page = store.live(after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = last.seq;
            seen.extend(page.iter().map(|job| job.seq.0));
        }
        assert!(seen.iter().eq(expected.iter().filter(|seq| **seq > first.0)), "pages of {limit}");
    }
    store.close().await;
}

pub(crate) async fn counts_follow_every_change(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let counts = async || store.counts().await.unwrap();
    assert_eq!(counts().await, [0; 6]);
    commit_submits(&*store, (1..=5).map(submit).collect()).await;
    commit_changes(&*store, (1..=4).map(|seq| change(seq, &queued(seq), starting(1))).collect()).await;
    commit_changes(&*store, (1..=3).map(|seq| change(seq, &starting(1), running(1, 2))).collect()).await;
    commit_changes(&*store, vec![change(1, &running(1, 2), finished(Outcome::Succeeded, 1, 3))]).await;
    assert_eq!(counts().await, [0, 1, 1, 2, 0, 1]);
    store.close().await;
    let store = fixture.open().await.unwrap();
    assert_eq!(store.counts().await.unwrap(), [0, 1, 1, 2, 0, 1]);
    assert_eq!(store.prune(at(100), 10).await.unwrap(), [id(1)]);
    assert_eq!(store.counts().await.unwrap(), [0, 1, 1, 2, 0, 0]);
    store.close().await;
}

pub(crate) async fn events_resume_from_a_revision(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, vec![submit_to(1, "a", "q"), submit_to(2, "b", "q")]).await;
    commit_changes(&*store, vec![change(2, &queued(2), starting(1)), change(1, &queued(1), starting(1))]).await;
    let all = store.events(Revision(0), None, 100).await.unwrap();
    let seen: Vec<_> = all.iter().map(|e| (e.revision.0, e.job, e.namespace.as_str(), e.what.as_str(), e.at)).collect();
    assert_eq!(
        seen,
        [
            (1, id(1), "a", "submitted", at(1)),
            (2, id(2), "b", "submitted", at(2)),
            (3, id(2), "b", "placed", at(1_002)),
            (4, id(1), "a", "placed", at(1_001)),
        ]
    );
    assert_eq!(all[0].lifecycle, queued(1));
    assert_eq!(all[2].lifecycle, starting(1));
    assert_eq!(store.events(Revision(0), None, 3).await.unwrap(), all[..3]);
    assert_eq!(store.events(Revision(2), None, 1).await.unwrap(), all[2..3]);
    assert_eq!(store.events(Revision(4), None, 100).await.unwrap(), []);
    assert_eq!(store.events(Revision(400), None, 100).await.unwrap(), []);
    store.close().await;
}

pub(crate) async fn events_of_one_job(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    commit_submits(&*store, (1..=3).map(submit).collect()).await;
    let held = lifecycle(JobState::Waiting { on: WaitFor::Hold }, 0, 0);
    let mut expected = vec![2];
    for round in 0..20 {
        let (from, to) = if round % 2 == 0 { (queued(2), held.clone()) } else { (held.clone(), queued(2)) };
        let other = if round % 2 == 0 { (queued(1), held.clone()) } else { (held.clone(), queued(1)) };
        commit_changes(&*store, vec![change(1, &other.0, other.1), change(2, &from, to)]).await;
        expected.push(3 + (round + 1) * 2);
    }
    let of = async |after, limit| {
        let events = store.events(Revision(after), Some(id(2)), limit).await.unwrap();
        assert!(events.iter().all(|event| event.job == id(2)));
        events.iter().map(|event| event.revision.0).collect::<Vec<_>>()
    };
    assert_eq!(of(0, 100).await, expected);
    assert_eq!(of(0, 5).await, expected[..5]);
    assert_eq!(of(expected[4], 100).await, expected[5..]);
    assert_eq!(of(expected[4] + 1, 2).await, expected[5..7]);
    assert_eq!(of(expected[20], 100).await, [0_u64; 0]);
    assert_eq!(store.events(Revision(0), Some(unknown()), 10).await.unwrap(), []);

    // With the older ones gone, what is left is still listed.
    let floor = store.compact(at(9_999), 30).await.unwrap().floor;
    assert_eq!(floor, Revision(30));
    let gone = store.events(Revision(0), Some(id(2)), 10).await.unwrap_err();
    assert!(matches!(gone, StoreError::Compacted { floor } if floor == Revision(30)), "{gone}");
    assert_eq!(of(30, 100).await, expected.iter().copied().filter(|revision| *revision > 30).collect::<Vec<_>>());
    store.close().await;
}

pub(crate) async fn tokens_are_kept(fixture: &dyn Fixture) {
    let store = fixture.open().await.unwrap();
    let token = |id: &str, number: u8, expires_at| TokenRecord {
        id: id.to_owned(),
        name: format!("laptop {id}"),
        hash: [number; 32],
        owner: Owner { user: "ada".into(), uid: 1_000 },
        created_at: at(number.into()),
        expires_at,
    };
    let (old, new) = (token("z", 1, None), token("a", 2, Some(at(9))));
    store.add_token(old.clone()).await.unwrap();
    store.add_token(new.clone()).await.unwrap();
    let again = store.add_token(token("z", 3, None)).await.unwrap_err();
    assert!(matches!(&again, StoreError::Duplicate { what, .. } if what.contains('z')), "{again}");
    assert_eq!(store.tokens().await.unwrap(), [old.clone(), new.clone()]);
    store.close().await;

    let store = fixture.open().await.unwrap();
    assert_eq!(store.tokens().await.unwrap(), [old, new.clone()]);
    assert!(store.remove_token("z").await.unwrap());
    assert!(!store.remove_token("z").await.unwrap());
    assert_eq!(store.tokens().await.unwrap(), [new]);
    let ids: BTreeSet<_> = store.tokens().await.unwrap().into_iter().map(|token| token.id).collect();
    assert_eq!(ids.len(), 1);
    store.close().await;
}
