//! What a server, a network and other daemons can do to a job table in PostgreSQL.
//!
//! Sessions go through a proxy where an answer is to be lost at a chosen moment; servers are killed for real.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the suites, each of which uses a part of it")]
#[path = "contract/build.rs"]
mod build;
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use build::*;
use postgres_server::{schema_for_test, server_for_test};
use proxy::{Mode, Proxy};
use scheduler_core::ids::{Revision, Seq, Term};
use store::{Batch, Committed, ObjectChange, ObjectKind, PostgresOptions, PostgresStore, Store, StoreError};

/// How long a test waits for what must come: it only runs out when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(url: &str, holder: &str, lease: Duration) -> PostgresOptions {
    let (holder, holder_name) = (holder.to_owned(), format!("the daemon {holder}"));
    PostgresOptions { address: url.parse().unwrap(), holder, holder_name, lease }
}

async fn open_as(url: &str, holder: &str, lease: Duration) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(options(url, holder, lease), at(0)).await
}

async fn open(url: &str) -> PostgresStore {
    open_as(url, "a", Duration::from_secs(15)).await.unwrap()
}

/// The table, once the lease of whoever has it has run out.
async fn taken_by_the_second(url: &str) -> PostgresStore {
    let take = async {
        loop {
            match open_as(url, "second", PATIENCE).await {
                Ok(second) => return second,
                Err(StoreError::Held { left, .. }) => tokio::time::sleep(left).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, take).await.unwrap()
}

fn submits(store: &dyn Store, seq: u64) -> Batch {
    Batch { submits: vec![submit(seq)], ..batch(store) }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let Some(server) = server_for_test("a lost answer") else { return };
    let schema = server.schema();
    let proxy = Proxy::start(&schema.url());
    let store = open(&proxy.url()).await;
    store.commit(submits(&store, 1)).await.unwrap();

    // The server had committed: the caller hears of that, with the numbers that were given out.
    proxy.set(Mode::CutAfterCommit);
    let committed = store.commit(submits(&store, 2)).await.unwrap();
    assert_eq!(committed, Committed { first: Revision(2), last: Revision(2) });
    assert_eq!(proxy.cuts(), 1);
    assert_eq!(store.counts().await.unwrap(), [0, 2, 0, 0, 0, 0], "counted once");

    // The server had not: nothing of it is there, and its numbers are not used up.
    proxy.set(Mode::CutBeforeCommit);
    let lost = store.commit(submits(&store, 3)).await.unwrap_err();
    assert!(matches!(lost, StoreError::Away { .. }), "{lost}");
    assert_eq!(proxy.cuts(), 2);
    let live = store.live(Seq(0), 10).await.unwrap();
    assert_eq!(live.iter().map(|job| job.seq.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.counts().await.unwrap(), [0, 2, 0, 0, 0, 0]);
    assert_eq!(store.commit(submits(&store, 3)).await.unwrap().first, Revision(3));

    // Also of a batch that gives out no number.
    let object = |value: &'static str| ObjectChange { kind: ObjectKind::Note, name: "n".into(), value: Some(value.into()) };
    for (mode, value, is_there) in [(Mode::CutAfterCommit, "1", true), (Mode::CutBeforeCommit, "2", false)] {
        proxy.set(mode);
        let done = store.commit(Batch { objects: vec![object(value)], ..batch(&store) }).await;
        assert_eq!(done.is_ok(), is_there, "{done:?}");
        assert_eq!(&*store.objects(ObjectKind::Note).await.unwrap()[0].value, b"1");
    }
    Snapshot::of(&store).await.assert_gapless();
    store.close().await;
}

#[tokio::test]
async fn a_reader_sees_nothing_of_a_transaction_before_its_end() {
    let Some(server) = server_for_test("a commit that is held") else { return };
    let schema = server.schema();
    let proxy = Proxy::start(&schema.url());
    let store = Arc::new(open(&proxy.url()).await);
    store.commit(submits(&*store, 1)).await.unwrap();
    let reader = PostgresStore::reading(schema.url().parse().unwrap());
    let (before, stood) = (Snapshot::of(&reader).await, reader.standing().await.unwrap());
    assert_eq!(before, Snapshot::of(&*store).await);

    // All of it is with the server, but for its end.
    proxy.set(Mode::HoldCommit);
    let object = ObjectChange { kind: ObjectKind::Note, name: "n".into(), value: Some("1".into()) };
    let mixed = Batch {
        changes: vec![change(1, &queued(1), starting(1))],
        keys: vec![key("ada", "k", 2, &[2])],
        objects: vec![object],
        ..submits(&*store, 2)
    };
    let late = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(mixed).await }
    });
    tokio::time::timeout(PATIENCE, proxy.holds_a_commit()).await.unwrap();
    // Neither is it seen, nor does it keep anybody from reading.
    assert_eq!(Snapshot::of(&reader).await, before);
    assert_eq!(reader.standing().await.unwrap(), stood);
    assert_eq!(reader.key("ada", "k").await.unwrap(), None);
    assert_eq!(reader.objects(ObjectKind::Note).await.unwrap(), []);
    assert!(reader.job(id(2)).await.unwrap().is_none());
    proxy.set(Mode::Pass);
    let committed = late.await.unwrap().unwrap();
    assert_eq!(reader.standing().await.unwrap().last_revision, committed.last);
    assert_eq!(Snapshot::of(&reader).await, Snapshot::of(&*store).await);
    assert_eq!(reader.objects(ObjectKind::Note).await.unwrap().len(), 1);

    reader.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_reader_finds_a_server_again_that_was_away() {
    let Some(mut server) = server_for_test("a reader whose server is killed") else { return };
    let schema = server.schema();
    let reader = PostgresStore::reading(schema.url().parse().unwrap());
    let store = open(&schema.url()).await;
    store.commit(submits(&store, 1)).await.unwrap();
    assert_eq!(reader.standing().await.unwrap().last_revision, Revision(1));
    server.kill();
    let away = reader.standing().await.unwrap_err();
    assert!(matches!(away, StoreError::Away { .. }), "{away}");
    server.restart().unwrap();
    assert_eq!(reader.standing().await.unwrap().last_revision, Revision(1));
    reader.close().await;
    store.close().await;
}

#[tokio::test]
async fn sessions_that_die_between_two_commits_are_replaced() {
    let Some(server) = server_for_test("sessions that die") else { return };
    let schema = server.schema();
    let store = open(&schema.url()).await;
    for seq in 1..=3 {
        store.commit(submits(&store, seq)).await.unwrap();
        assert_eq!(job(&store, seq).await.seq, Seq(seq));
        let sessions = server.sessions();
        assert!(sessions.len() >= 2, "one to write, one to read");
        // As an administrator does who restarts it: each session is told to end.
        schema.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flashd'");
    }
    store.commit(submits(&store, 4)).await.unwrap();
    assert_eq!(Snapshot::of(&store).await.last_revision(), Revision(4));
    store.close().await;
}

#[tokio::test]
async fn a_killed_server_loses_nothing_and_repeats_nothing() {
    let Some(mut server) = server_for_test("a killed server") else { return };
    let schema = server.schema();
    let store = Arc::new(open(&schema.url()).await);
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = Arc::clone(&store);
    let client = tokio::spawn(async move {
        let (mut next, mut failures) = (1, 0);
        while !*stopped.borrow() {
            let changes = if next > 1 && next % 3 == 0 { vec![change(next, &queued(next), starting(1))] } else { Vec::new() };
            match writer.commit(Batch { changes, ..submits(&*writer, next) }).await {
                Ok(_) => {
                    let _ = told.send(next);
                    next += 1;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Away { .. }), "{error}");
                    failures += 1;
                    // The engine's rule: read the table anew, as soon as it can be read.
                    let found = loop {
                        match writer.live(Seq(next - 1), 10).await {
                            Ok(found) => break found,
                            Err(error) => assert!(matches!(error, StoreError::Away { .. }), "{error}"),
                        }
                    };
                    assert!(found.len() <= 1);
                    next += found.len() as u64;
                }
            }
        }
        (next, failures)
    });
    let mut acknowledged = 0;
    for wait in [1, 7, 2, 30, 5, 13] {
        for _ in 0..wait {
            acknowledged = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        }
        server.kill();
        server.restart().unwrap();
    }
    acknowledged = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap_or(acknowledged);
    stop.send_replace(true);
    let (next, failures) = client.await.unwrap();
    assert!(next > acknowledged, "{failures} commits failed");
    let table = Snapshot::of(&*store).await;
    table.assert_gapless();
    assert!(table.jobs.keys().copied().eq(1..next), "a job is missing");
    assert_eq!(table.counts, [0, next - 1 - (next - 1) / 3, (next - 1) / 3, 0, 0, 0]);
    store.close().await;
}

#[tokio::test]
async fn a_table_that_is_held_is_left_alone_until_it_is_given_back() {
    let Some(schema) = schema_for_test("a held table") else { return };
    let first = open_as(&schema.url(), "first", PATIENCE).await.unwrap();
    first.commit(submits(&first, 1)).await.unwrap();
    let held = open_as(&schema.url(), "second", PATIENCE).await.err().unwrap();
    assert!(matches!(&held, StoreError::Held { holder, .. } if holder == "the daemon first"), "{held}");
    first.commit(submits(&first, 2)).await.unwrap();
    let term = first.head().term;
    first.close().await;
    let second = open_as(&schema.url(), "second", PATIENCE).await.unwrap();
    assert_eq!((second.head().term, second.head().last_seq), (term.next(), Seq(2)));
    second.close().await;
}

#[tokio::test]
async fn a_holder_that_was_away_beyond_its_lease_writes_nothing() {
    let Some(server) = server_for_test("a lease that ends") else { return };
    let schema = server.schema();
    let proxy = Proxy::start(&schema.url());
    let first = Arc::new(open_as(&proxy.url(), "first", Duration::from_secs(1)).await.unwrap());
    first.commit(submits(&*first, 1)).await.unwrap();
    // Renewed in idle time, it lasts: the second asks at three times of its length.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await; // what is waited for is that nothing happens
        let held = open_as(&schema.url(), "second", PATIENCE).await.err().unwrap();
        assert!(matches!(held, StoreError::Held { .. }), "{held}");
    }

    // Nothing that it says gets through any more. A commit is on its way.
    proxy.set(Mode::Hold);
    let late = tokio::spawn({
        let first = Arc::clone(&first);
        async move { first.commit(submits(&*first, 2)).await }
    });
    let second = taken_by_the_second(&schema.url()).await;
    second.commit(submits(&second, 2)).await.unwrap();
    let before = Snapshot::of(&second).await;

    proxy.set(Mode::Pass);
    let fenced = tokio::time::timeout(PATIENCE, late).await.unwrap().unwrap().unwrap_err();
    let current = second.head().term;
    assert!(matches!(fenced, StoreError::Fenced { current: now, .. } if now == current), "{fenced}");
    let fenced = first.commit(batch(&*first)).await.unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { .. }), "{fenced}");
    assert_eq!(Snapshot::of(&second).await, before);
    // It gives back nothing that is not its own.
    first.close().await;
    second.commit(submits(&second, 3)).await.unwrap();
    second.close().await;
}

#[tokio::test]
async fn a_holder_in_the_midst_of_a_long_transaction_still_holds() {
    let Some(server) = server_for_test("a long transaction") else { return };
    let held = Arc::new(server.schema());
    let proxy = Proxy::start(&held.url());
    let first = open_as(&proxy.url(), "first", Duration::from_secs(1)).await.unwrap();
    // As one whose server is slow: its row is locked for longer than anybody waits for a lock, and its lease runs out meanwhile.
    proxy.set(Mode::Hold);
    let slow = std::thread::spawn({
        let schema = Arc::clone(&held);
        move || schema.execute("BEGIN; SELECT term FROM meta FOR UPDATE; SELECT pg_sleep(25); COMMIT")
    });
    let wait = async {
        loop {
            match open_as(&held.url(), "second", PATIENCE).await {
                Err(StoreError::Held { holder, left, .. }) if left.is_zero() => return holder,
                Err(StoreError::Held { left, .. }) => tokio::time::sleep(left).await,
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("it was taken"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, wait).await.unwrap(), "the daemon first");
    slow.join().unwrap();
    proxy.set(Mode::Pass);
    first.commit(submits(&first, 1)).await.unwrap();
    first.close().await;
}

#[tokio::test]
async fn a_term_that_is_being_raised_when_the_answer_is_lost_is_looked_up() {
    let Some(server) = server_for_test("a lost answer to a raise") else { return };
    let schema = server.schema();
    let proxy = Proxy::start(&schema.url());
    let store = open(&proxy.url()).await;
    let begun = store.head().term;
    let term = async || store.standing().await.unwrap().term;

    // To the very number that another daemon's term would have next: it is there, and ours.
    proxy.set(Mode::CutAfterCommit);
    assert_eq!(store.raise_term(begun.next()).await.unwrap(), begun.next());
    assert_eq!((proxy.cuts(), term().await), (1, begun.next()));
    assert_eq!(store.commit(submits(&store, 1)).await.unwrap().first, Revision(1));

    // It is not there: nothing has changed, and it can be tried again.
    proxy.set(Mode::CutBeforeCommit);
    let lost = store.raise_term(Term(9)).await.unwrap_err();
    assert!(matches!(lost, StoreError::Away { .. }), "{lost}");
    assert_eq!((proxy.cuts(), term().await), (2, begun.next()));
    store.commit(submits(&store, 2)).await.unwrap();
    assert_eq!(store.raise_term(Term(9)).await.unwrap(), Term(9));
    store.commit(submits(&store, 3)).await.unwrap();
    assert_eq!(term().await, Term(9));
    store.close().await;
}

/// The number is the same, and it is another's: whoever was raising it writes nothing under it.
#[tokio::test]
async fn a_raise_that_was_lost_takes_no_term_of_another_daemon() {
    let Some(server) = server_for_test("a raise that is overtaken") else { return };
    let schema = server.schema();
    let proxy = Proxy::start(&schema.url());
    let first = Arc::new(open_as(&proxy.url(), "first", Duration::from_secs(1)).await.unwrap());
    let begun = first.head().term;
    proxy.set(Mode::HoldCommit);
    let late = tokio::spawn({
        let first = Arc::clone(&first);
        async move { first.raise_term(begun.next()).await }
    });
    tokio::time::timeout(PATIENCE, proxy.holds_a_commit()).await.unwrap();
    // Its session is ended, and nothing that it says gets through: all it knows is that it has asked.
    proxy.set(Mode::Hold);
    schema.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flashd'");
    let second = taken_by_the_second(&schema.url()).await;
    assert_eq!(second.head().term, begun.next(), "the number that the first wanted");

    proxy.set(Mode::Pass);
    let fenced = tokio::time::timeout(PATIENCE, late).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { current, .. } if current == begun.next()), "{fenced}");
    for term in [begun, begun.next()] {
        let refused = first.commit(Batch { term, ..submits(&*first, 1) }).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    }
    assert_eq!(Snapshot::of(&second).await.last_revision(), Revision(0));
    second.commit(submits(&second, 1)).await.unwrap();
    second.close().await;
    first.close().await;
}

#[tokio::test]
async fn who_has_lost_the_lease_learns_it_without_writing() {
    let Some(server) = server_for_test("a lease that is lost in idle time") else { return };
    let schema = server.schema();
    let proxy = Proxy::start(&schema.url());
    let first = open_as(&proxy.url(), "first", Duration::from_secs(1)).await.unwrap();
    proxy.set(Mode::Hold);
    let second = taken_by_the_second(&schema.url()).await;
    proxy.set(Mode::Pass);
    let why = tokio::time::timeout(PATIENCE, first.ended()).await.unwrap();
    let (ours, theirs) = (first.head().term, second.head().term);
    assert!(matches!(why, StoreError::Fenced { ours: one, current } if (one, current) == (ours, theirs)), "{why}");
    // And is told at any time.
    assert!(matches!(first.ended().await, StoreError::Fenced { .. }));
    first.close().await;
    second.commit(submits(&second, 1)).await.unwrap();
    second.close().await;
}

#[tokio::test]
async fn a_second_process_of_a_holder_ends_the_term_of_the_first() {
    let Some(schema) = schema_for_test("two of one holder") else { return };
    let first = open(&schema.url()).await;
    let second = open(&schema.url()).await;
    let (late, good) = tokio::join!(first.commit(submits(&first, 1)), second.commit(submits(&second, 1)));
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    assert_eq!(good.unwrap().first, Revision(1));
    second.close().await;
    first.close().await;
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_no_password() {
    let nowhere = "postgres://ada:s3cret@127.0.0.1:1/jobs";
    let error = open_as(nowhere, "a", PATIENCE).await.err().unwrap();
    let said = format!("{error} {error:?}");
    assert!(said.contains("postgres://ada@127.0.0.1:1/jobs") && !said.contains("s3cret"), "{said}");

    let Some(schema) = schema_for_test("tables that are not ours") else { return };
    open(&schema.url()).await.close().await;
    let reader = PostgresStore::reading(schema.url().parse().unwrap());
    assert!(reader.standing().await.is_ok());
    schema.execute("UPDATE _sqlx_migrations SET version = 1000 WHERE version = 2");
    let newer = open_as(&schema.url(), "a", PATIENCE).await.err().unwrap();
    assert!(matches!(newer, StoreError::Newer { found: 1_000, .. }), "{newer}");
    // Nor is it read any more; one of an older version is not read either.
    let newer = reader.standing().await.unwrap_err();
    assert!(matches!(newer, StoreError::Newer { found: 1_000, .. }), "{newer}");
    schema.execute("CREATE TABLE aside AS SELECT * FROM _sqlx_migrations WHERE version = 1000; DELETE FROM _sqlx_migrations WHERE version = 1000");
    let older = reader.standing().await.unwrap_err();
    assert!(older.to_string().contains("it has schema version 1, this binary reads version 2"), "{older}");
    schema.execute("INSERT INTO _sqlx_migrations SELECT * FROM aside");
    reader.close().await;
    schema.execute("UPDATE _sqlx_migrations SET version = 2, checksum = '\\x00' WHERE version = 1000");
    let other = open_as(&schema.url(), "a", PATIENCE).await.err().unwrap();
    assert!(matches!(other, StoreError::Corrupt { .. }), "{other}");
}
