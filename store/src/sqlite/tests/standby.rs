//! A table that somebody else writes: read, waited for, never changed.

use super::*;
use crate::sqlite::{free, holder};

#[tokio::test]
async fn a_table_of_another_daemon_is_read_and_not_written() {
    let dir = tempdir().unwrap();
    let reader = SqliteStore::reading(dir.path());
    assert!(reader.standing().await.is_err(), "there is none yet");
    assert!(!SqliteStore::file(dir.path()).exists(), "nor is one made");
    let writer = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&writer, vec![submit(1, 10)]).await.unwrap();

    let standing = reader.standing().await.unwrap();
    assert_eq!((standing.term, standing.last_seq), (writer.head().term, Seq(1)));
    commit(&writer, vec![submit(2, 10)]).await.unwrap();
    assert_eq!((reader.standing().await.unwrap().last_revision, reader.counts().await.unwrap()[1]), (Revision(2), 2));
    assert!(reader.job(submit(2, 10).job.id).await.unwrap().is_some());
    assert_eq!(reader.events(Revision(1), None, 9).await.unwrap().len(), 1);
    for refused in [
        reader.commit(Batch::default()).await.map(drop),
        reader.raise_term(Term(9)).await.map(drop),
        reader.prune(NOW, 1).await.map(drop),
        reader.remove_token("x").await.map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Standby { .. })), "{refused:?}");
    }

    // Whoever waits is woken by the end of the holder, and what was read meanwhile keeps nobody from writing.
    let held = holder(dir.path());
    assert_eq!((held.pid, held.is_here), (Some(std::process::id()), true));
    let path = dir.path().to_owned();
    let waits = tokio::spawn(async move { free(&path).await });
    writer.close().await;
    waits.await.unwrap().unwrap();
    let next = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&next, vec![submit(3, 10)]).await.unwrap();
    assert_eq!(reader.standing().await.unwrap().last_revision, Revision(3));
    reader.close().await;
    next.close().await;
}

#[tokio::test]
async fn a_table_of_another_version_is_not_read() {
    let dir = tempdir().unwrap();
    let writer = SqliteStore::open(dir.path(), NOW).await.unwrap();
    tamper(
        dir.path(),
        "UPDATE _sqlx_migrations SET version = version + 1 WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
    );
    let error = SqliteStore::reading(dir.path()).standing().await.unwrap_err();
    assert!(error.to_string().contains("this binary reads version"), "{error}");
    writer.close().await;
}
