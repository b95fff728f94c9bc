//! The tables and the plans of the queries on them.

use std::fs;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _};

use super::*;
use crate::sqlite::raw::Arg;
use crate::sqlite::schema;

#[tokio::test]
async fn rows_refer_to_rows_that_are_there() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, (1..=50).map(|seq| submit(seq, 10)).collect()).await.unwrap();
    let changes = (1..=20).map(finish).collect();
    store.commit(Batch { changes, ..batch(&store) }).await.unwrap();
    store.prune(Timestamp(2), 10).await.unwrap();
    store.close().await;
    assert_eq!(ask(dir.path(), "PRAGMA foreign_key_check", 3), [""; 0]);
    assert_eq!(ask(dir.path(), "PRAGMA integrity_check", 1), ["ok"]);
    // Shared values are kept once, also over a reopening.
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, vec![submit(51, 10)]).await.unwrap();
    store.close().await;
    assert_eq!(ask(dir.path(), "SELECT CAST(count(*) AS TEXT) FROM shapes", 1), ["5"]);
    assert_eq!(ask(dir.path(), "SELECT CAST(count(*) AS TEXT) FROM owners", 1), ["1"]);
}

#[tokio::test]
async fn shapes_beyond_what_is_remembered_are_swept_when_unused() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, vec![submit(1, 10)]).await.unwrap();
    store.close().await;
    tamper(
        dir.path(),
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO shapes (id, namespace, queue, shape) SELECT i, 'gone', 'gone', '[]' FROM n",
    );
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(store.live(Seq(0), 10).await.unwrap().len(), 1);
    store.close().await;
    assert_eq!(ask(dir.path(), "SELECT CAST(count(*) AS TEXT) FROM shapes", 1), ["1"]);
}

/// A list that looks at more rows than one page may goes on from where it stopped.
#[tokio::test]
async fn a_long_search_is_cut_into_pages() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    let mut rare = submit(7, 10);
    rare.labels = vec![("rare".to_owned(), "yes".to_owned())];
    commit(&store, vec![rare]).await.unwrap();
    commit(&store, vec![submit(200_000, 10)]).await.unwrap();
    let labels = vec![crate::LabelMatch::Exists("rare".to_owned())];
    let mut query = crate::JobQuery { labels, limit: 10, ..crate::JobQuery::default() };
    let first = store.jobs(&query).await.unwrap();
    assert!(first.jobs.is_empty());
    assert_eq!(first.next, Some(Seq(150_001)));
    query.before = first.next;
    // The stretch without any rows is not walked through: the next page begins at the next row there is.
    let second = store.jobs(&query).await.unwrap();
    assert_eq!((second.jobs.len(), second.next), (1, None));

    // Rows of other states are not looked at, so they do not count.
    store.commit(Batch { changes: vec![finish(7)], ..batch(&store) }).await.unwrap();
    query.before = None;
    query.states = vec![StateKind::Finished, StateKind::Running];
    let found = store.jobs(&query).await.unwrap();
    assert_eq!((found.jobs.len(), found.next), (1, None));
    store.close().await;
}

#[tokio::test]
async fn a_long_search_in_one_state_is_cut_by_rows() {
    const JOBS: u64 = 50_010;
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, (1..=JOBS).map(|seq| submit(seq * 100, 1)).collect()).await.unwrap();
    let labels = vec![crate::LabelMatch::Absent("k".to_owned())];
    let mut query = crate::JobQuery { labels, states: vec![StateKind::Queued], limit: 10, ..crate::JobQuery::default() };
    let first = store.jobs(&query).await.unwrap();
    assert_eq!((first.jobs.len(), first.next), (0, Some(Seq(11 * 100))));
    query.before = first.next;
    let second = store.jobs(&query).await.unwrap();
    assert_eq!((second.jobs.len(), second.next), (0, None));
    store.close().await;
}

#[test]
fn every_migration_is_in_the_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), schema::MIGRATIONS.len());
    assert!(schema::MIGRATIONS.is_sorted_by(|one, next| one.0 < next.0));
    for (file, (number, description, sql)) in files.into_iter().zip(schema::MIGRATIONS) {
        let name = format!("{number:04}_{}.sql", description.replace(' ', "_"));
        assert_eq!(file.file_name().unwrap().to_str(), Some(name.as_str()));
        assert_eq!(fs::read_to_string(&file).unwrap(), *sql);
    }
}

/// The queries on the way of a restart and of a list must not walk through the whole table, nor sort it.
#[tokio::test]
async fn queries_use_their_indexes() {
    let dir = tempdir().unwrap();
    SqliteStore::open(dir.path(), NOW).await.unwrap().close().await;
    let mut db = connection(dir.path());
    let mut plan = |name: &str, sql: &str, parameters: usize| {
        let explain: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {sql}").into_boxed_str());
        let mut lines = Vec::new();
        db.query(explain, &vec![Arg::Null; parameters], |row| {
            lines.push(row.text(3)?.to_owned());
            Ok(())
        })
        .unwrap();
        println!("{name}:\n  {}", lines.join("\n  "));
        lines.join("\n")
    };
    let live = plan("live", include_str!("../queries/live.sql"), 2);
    assert!(!live.contains("SCAN jobs") && !live.contains("SCAN j"), "{live}");
    assert!(live.contains("MERGE (UNION ALL)"), "{live}");
    let by_state = plan("list_state", include_str!("../queries/list_state.sql"), 10);
    assert!(by_state.contains("USING INDEX jobs_state (state=? AND rowid>? AND rowid<?)"), "{by_state}");
    assert!(!by_state.contains("TEMP B-TREE FOR ORDER BY"), "{by_state}");
    let all = plan("list_all", include_str!("../queries/list_all.sql"), 9);
    assert!(all.contains("SEARCH j USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"), "{all}");
    assert!(!all.contains("TEMP B-TREE FOR ORDER BY"), "{all}");
    let of_job = plan("events_of_job", include_str!("../queries/events_of_job.sql"), 3);
    assert!(!of_job.contains("SCAN e"), "{of_job}");
    let finished = plan("oldest_finished", include_str!("../queries/oldest_finished.sql"), 2);
    assert!(!finished.contains("TEMP B-TREE"), "{finished}");
    let head = plan("head", include_str!("../queries/head.sql"), 0);
    assert!(!head.contains("SCAN jobs") && !head.contains("SCAN events") && !head.contains("SCAN notices"), "{head}");
    let oldest = plan("oldest_events", include_str!("../queries/oldest_events.sql"), 1);
    assert!(oldest.contains("MERGE (UNION ALL)") && !oldest.contains("TEMP B-TREE"), "{oldest}");
}

/// What a commit is worth, and what it costs, hangs on these.
#[tokio::test]
async fn commits_are_synced() {
    let dir = tempdir().unwrap();
    let options = crate::SqliteOptions { cache_kib: 1_234, max_pages: Some(4_321) };
    let mut db = schema::open(&SqliteStore::file(dir.path()), &options).unwrap();
    let mut number = |sql| db.first(sql, &[], |row| row.int(0)).unwrap();
    assert_eq!(number("PRAGMA synchronous"), Some(2));
    assert_eq!(number("PRAGMA foreign_keys"), Some(0));
    assert_eq!(number("PRAGMA temp_store"), Some(2));
    assert_eq!(number("PRAGMA cache_size"), Some(-1_234));
    assert_eq!(number("PRAGMA max_page_count"), Some(4_321));
    assert_eq!(number("PRAGMA wal_autocheckpoint"), Some(10_000));
    assert_eq!(number("PRAGMA journal_size_limit"), Some(67_108_864));
    assert_eq!(number("PRAGMA busy_timeout"), Some(5_000));
    assert_eq!(db.first("PRAGMA journal_mode", &[], |row| Ok(row.text(0)?.to_owned())).unwrap().as_deref(), Some("wal"));
}

#[tokio::test]
async fn readers_cannot_write() {
    let dir = tempdir().unwrap();
    SqliteStore::open(dir.path(), NOW).await.unwrap().close().await;
    let mut db = connect::open(&connect::read_options(&SqliteStore::file(dir.path()))).unwrap();
    assert_eq!(db.first("PRAGMA query_only", &[], |row| row.int(0)).unwrap(), Some(1));
    assert!(db.batch("DELETE FROM meta").is_err());
}

/// A database that was made before the newest migration has all its rows after it.
#[tokio::test]
async fn a_database_of_an_older_schema_is_upgraded_with_its_data() {
    // What an older binary had written: its schema, filled with the rows that this one writes into the same tables.
    let source = tempdir().unwrap();
    let store = SqliteStore::open(source.path(), NOW).await.unwrap();
    commit(&store, (1..=20).map(|seq| submit(seq, 10)).collect()).await.unwrap();
    store.commit(Batch { changes: (1..=5).map(finish).collect(), ..batch(&store) }).await.unwrap();
    let term = store.head().term;
    let before = (store.live(Seq(0), 100).await.unwrap(), store.events(Revision(0), None, 100).await.unwrap());
    store.close().await;

    let dir = tempdir().unwrap();
    let (_, description, sql) = schema::MIGRATIONS[0];
    let first = Migration::new(1, description.into(), MigrationType::Simple, sql.into_sql_str(), false);
    fs::write(SqliteStore::file(dir.path()), []).unwrap();
    let mut db = connect::options(&SqliteStore::file(dir.path())).connect().await.unwrap();
    Migrator::with_migrations(vec![first]).run(&mut db).await.unwrap();
    db.close().await.unwrap();
    let mut copy = format!(
        "PRAGMA application_id = {}; ATTACH '{}' AS source; DELETE FROM main.meta;",
        0x666c_7368,
        SqliteStore::file(source.path()).display()
    );
    let tables = ["meta", "shapes", "policies", "owners", "jobs", "specs", "events", "idempotency_keys", "tokens"];
    copy.extend(tables.map(|table| format!("INSERT INTO main.{table} SELECT * FROM source.{table};")));
    tamper(dir.path(), &copy);
    assert_eq!(ask(dir.path(), "SELECT name FROM sqlite_schema WHERE name = 'objects'", 1), [""; 0]);

    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(store.head().term, term.next());
    let after = (store.live(Seq(0), 100).await.unwrap(), store.events(Revision(0), None, 100).await.unwrap());
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    // And what is new can be used.
    let object = crate::ObjectChange { kind: crate::ObjectKind::Queue, name: "q".into(), value: Some(Bytes::from_static(b"{}")) };
    store.commit(Batch { objects: vec![object], ..batch(&store) }).await.unwrap();
    assert_eq!(store.objects(crate::ObjectKind::Queue).await.unwrap().len(), 1);
    store.close().await;
    assert_eq!(ask(dir.path(), "PRAGMA integrity_check", 1), ["ok"]);
}
