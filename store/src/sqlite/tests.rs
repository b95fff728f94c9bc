//! What only SQLite can show: its file, its lock, its limits, and the plans of its queries.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::amounts::Request;
use scheduler_core::event::{Event, Transition};
use scheduler_core::ids::{Attempt, JobId, Name, Revision, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::state::{JobState, Lifecycle, Outcome, StateKind};
use scheduler_core::time::Timestamp;
use tempfile::tempdir;
use uuid::Uuid;

use super::raw::{Connection, Mode};
use super::{SqliteOptions, SqliteStore, schema};
use crate::{Batch, Owner, Store, StoreError, Submit};

const NOW: Timestamp = Timestamp(1);

fn submit(seq: u64, spec_bytes: usize) -> Submit {
    let tasks = vec![TaskGroup { name: "main".into(), replicas: 1, request: Request::default() }];
    let shape = Shape { namespace: "default".into(), queue: Name::from(format!("q{}", seq % 5)), tasks };
    Submit {
        job: NewJob {
            id: JobId(Uuid::from_u128(u128::from(seq) << 64)),
            seq: Seq(seq),
            shape: Arc::new(shape),
            policy: Arc::new(Policy::default()),
            submitted_at: NOW,
            start_after: None,
            hold: false,
        },
        lifecycle: Lifecycle { state: JobState::Queued { since: NOW }, attempt: Attempt(0), lost: 0 },
        owner: Owner { user: "ada".into(), uid: 1 },
        name: "job".into(),
        labels: vec![("k".to_owned(), "v".to_owned())],
        spec: Bytes::from(vec![b'x'; spec_bytes]),
    }
}

fn finish(seq: u64) -> Transition {
    let outcome = Box::new(Outcome::Cancelled { by: "ada".into() });
    Transition {
        job: JobId(Uuid::from_u128(u128::from(seq) << 64)),
        seq: Seq(seq),
        from: (StateKind::Queued, Attempt(0)),
        to: Lifecycle { state: JobState::Finished { outcome, at: NOW }, attempt: Attempt(0), lost: 0 },
        event: Event::Cancel { by: "ada".into() },
        at: NOW,
        effects: smallvec::smallvec![],
    }
}

async fn commit(store: &SqliteStore, submits: Vec<Submit>) -> Result<(), StoreError> {
    store.commit(Batch { term: store.head().term, submits, ..Batch::default() }).await.map(|_| ())
}

/// Runs SQL on the file as another program would.
fn tamper(dir: &Path, sql: &str) {
    Connection::open(&SqliteStore::file(dir), Mode::Write).unwrap().batch(sql).unwrap();
}

/// Rows of a statement, each as its texts joined by a space.
fn ask(dir: &Path, sql: &'static str, columns: i32) -> Vec<String> {
    let mut rows = Vec::new();
    let mut db = Connection::open(&SqliteStore::file(dir), Mode::Write).unwrap();
    db.query(sql, &[], |row| {
        let texts: Result<Vec<_>, _> = (0..columns).map(|column| row.opt_text(column).map(Option::unwrap_or_default)).collect();
        rows.push(texts?.join(" "));
        Ok(())
    })
    .unwrap();
    rows
}

#[tokio::test]
async fn one_daemon_a_folder() {
    let dir = tempdir().unwrap();
    let first = SqliteStore::open(dir.path(), NOW).await.unwrap();
    let Err(error) = SqliteStore::open(dir.path(), NOW).await else { panic!("two daemons on one folder") };
    let StoreError::Locked { subject, pid } = &error else { panic!("{error}") };
    assert_eq!((subject.as_str(), *pid), (dir.path().to_str().unwrap(), Some(std::process::id())));
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())));
    // The refused one has not begun a term, nor disturbed the first.
    commit(&first, vec![submit(1, 10)]).await.unwrap();
    first.close().await;
    let second = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(second.head().term, first.head().term.next());
    second.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_gives_the_folder_back() {
    let dir = tempdir().unwrap();
    let first = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&first, vec![submit(1, 10)]).await.unwrap();
    drop(first);
    // The writer ends on its own thread, some time after the drop: waiting for its lock is waiting for that.
    let lock = fs::File::open(dir.path().join("flashd.lock")).unwrap();
    tokio::task::spawn_blocking(move || rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap())
        .await
        .unwrap();
    let second = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(second.head().last_seq, Seq(1));
    second.close().await;
}

#[tokio::test]
async fn nobody_else_reads_the_data() {
    let parent = tempdir().unwrap();
    let dir = parent.path().join("made/here");
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    commit(&store, vec![submit(1, 10)]).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let dir = tempdir().unwrap();
    let options = SqliteOptions { max_pages: Some(200), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(dir.path(), NOW, options).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match commit(&store, vec![submit(stored + 1, 20_000), submit(stored + 2, 20_000)]).await {
            Ok(()) => stored += 2,
            Err(error) => break error,
        }
        assert!(stored < 100, "the limit was never reached");
    };
    let StoreError::Full { op: "commit", subject } = &error else { panic!("{error}") };
    assert!(subject.ends_with("flash.db"));
    assert!(error.is_environment());
    assert!(stored >= 10, "{stored}");
    let check = async |store: &SqliteStore, jobs: u64| {
        assert_eq!(store.counts().await.unwrap().iter().sum::<u64>(), jobs);
        assert_eq!(store.live(Seq(0), 1_000).await.unwrap().len() as u64, jobs);
        assert_eq!(store.events(Revision(0), None, 1_000).await.unwrap().len() as u64, stored);
    };
    check(&store, stored).await;

    // It stays full for what is large and says so each time; a change that needs no room goes through.
    commit(&store, vec![submit(stored + 1, 200_000)]).await.unwrap_err();
    let changes = vec![finish(1), finish(2)];
    let committed = store.commit(Batch { term: store.head().term, changes, ..Batch::default() }).await.unwrap();
    assert_eq!(committed.first, Revision(stored + 1), "the failed batches used up no revision");
    // Removing old jobs makes room, as more disk would.
    assert_eq!(store.prune(Timestamp(2), 10).await.unwrap().len(), 2);
    commit(&store, vec![submit(stored + 1, 20_000)]).await.unwrap();
    commit(&store, vec![submit(stored + 2, 200_000)]).await.unwrap_err();
    store.set_max_pages(None).await.unwrap();
    commit(&store, vec![submit(stored + 2, 200_000)]).await.unwrap();
    store.close().await;

    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(store.counts().await.unwrap(), [0, stored, 0, 0, 0, 0]);
    assert_eq!(store.head().last_revision, Revision(stored + 4));
    store.close().await;
    assert_eq!(ask(dir.path(), "PRAGMA integrity_check", 1), ["ok"]);
}

/// What a plain user is told when the store in this folder cannot be opened. (Root may write whatever the modes say.)
fn refused_to_a_plain_user(dir: &Path) -> StoreError {
    let open = || {
        if rustix::process::geteuid().is_root() {
            // Of this thread alone, and so of the writer that it starts.
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        }
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(SqliteStore::open(dir, NOW)).err().unwrap()
    };
    std::thread::scope(|scope| scope.spawn(open).join().unwrap())
}

#[tokio::test]
async fn a_read_only_folder_is_told() {
    let parent = tempdir().unwrap();
    let dir = parent.path().join("data");
    SqliteStore::open(&dir, NOW).await.unwrap().close().await;
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let told = |expected: &str| {
        let error = refused_to_a_plain_user(&dir);
        let StoreError::ReadOnly { op, subject } = &error else { panic!("{error}") };
        assert_eq!(*op, expected);
        assert!(subject.starts_with(dir.to_str().unwrap()), "{subject}");
        assert!(error.is_environment());
    };
    allow(parent.path(), 0o755);
    allow(&dir, 0o555);
    // The lock's file, then the database's file, then the folder that the log has to be made in.
    allow(&dir.join("flashd.lock"), 0o444);
    told("lock");
    allow(&dir.join("flashd.lock"), 0o666);
    allow(&SqliteStore::file(&dir), 0o444);
    told("open");
    allow(&SqliteStore::file(&dir), 0o666);
    told("open");
    // Nothing of it is an end: once it is writable, it opens.
    allow(&dir, 0o755);
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    commit(&store, vec![submit(1, 10)]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let dir = tempdir().unwrap();
    SqliteStore::open(dir.path(), NOW).await.unwrap().close().await;
    tamper(dir.path(), "PRAGMA user_version = 4000");
    let before = fs::read(SqliteStore::file(dir.path())).unwrap();
    let Err(error) = SqliteStore::open(dir.path(), NOW).await else { panic!("opened") };
    assert!(matches!(error, StoreError::Newer { found: 4000, known: 1, .. }), "{error}");
    assert_eq!(fs::read(SqliteStore::file(dir.path())).unwrap(), before);
}

#[tokio::test]
async fn what_is_not_our_database_is_left_alone() {
    let dir = tempdir().unwrap();
    let file = SqliteStore::file(dir.path());
    let text = "this is not a database, but somebody's notes\n".repeat(200);
    fs::write(&file, &text).unwrap();
    let Err(error) = SqliteStore::open(dir.path(), NOW).await else { panic!("opened") };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    fs::write(&file, "").unwrap();
    tamper(dir.path(), "CREATE TABLE notes (text TEXT)");
    let Err(error) = SqliteStore::open(dir.path(), NOW).await else { panic!("opened") };
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("another program")), "{error}");
    assert_eq!(ask(dir.path(), "SELECT name FROM sqlite_schema", 1), ["notes"]);

    // A folder in the place of the file.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(SqliteStore::open(dir.path(), NOW).await.is_err());
}

#[tokio::test]
async fn damage_is_told() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, vec![submit(1, 10), submit(2, 10)]).await.unwrap();
    tamper(dir.path(), "UPDATE shapes SET tasks = '{}' WHERE id = 2");
    let error = store.live(Seq(0), 10).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("tasks")), "{error}");
    // What is sound can still be read.
    assert_eq!(store.live(Seq(0), 1).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_statement_from_outside_fences_the_writer() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    let ours = store.head().term;
    tamper(dir.path(), "UPDATE meta SET term = term + 1");
    let error = commit(&store, vec![submit(1, 10)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { ours: o, current } if o == ours && current == ours.next()), "{error}");
    store.close().await;
}

#[tokio::test]
async fn rows_refer_to_rows_that_are_there() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, (1..=50).map(|seq| submit(seq, 10)).collect()).await.unwrap();
    let changes = (1..=20).map(finish).collect();
    store.commit(Batch { term: store.head().term, changes, ..Batch::default() }).await.unwrap();
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
         INSERT INTO shapes (id, namespace, queue, tasks) SELECT i, 'gone', 'gone', '[]' FROM n",
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
    store.close().await;
}

#[test]
fn every_migration_is_in_the_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), schema::MIGRATIONS.len());
    for ((number, file), embedded) in (1..).zip(files).zip(schema::MIGRATIONS) {
        assert!(file.file_name().unwrap().to_str().unwrap().starts_with(&format!("{number:04}_")), "{}", file.display());
        assert_eq!(fs::read_to_string(&file).unwrap(), *embedded);
    }
}

/// The queries on the way of a restart and of a list must not walk through the whole table, nor sort it.
#[tokio::test]
async fn queries_use_their_indexes() {
    let dir = tempdir().unwrap();
    SqliteStore::open(dir.path(), NOW).await.unwrap().close().await;
    let mut db = Connection::open(&SqliteStore::file(dir.path()), Mode::Write).unwrap();
    let mut plan = |name: &str, sql: &str, parameters: usize| {
        let explain: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {sql}").into_boxed_str());
        let mut lines = Vec::new();
        db.query(explain, &vec![super::raw::Arg::Null; parameters], |row| {
            lines.push(row.text(3)?.to_owned());
            Ok(())
        })
        .unwrap();
        println!("{name}:\n  {}", lines.join("\n  "));
        lines.join("\n")
    };
    let live = plan("live", include_str!("queries/live.sql"), 2);
    assert!(!live.contains("SCAN jobs") && !live.contains("SCAN j"), "{live}");
    assert!(live.contains("MERGE (UNION ALL)"), "{live}");
    let by_state = plan("list_state", include_str!("queries/list_state.sql"), 10);
    assert!(by_state.contains("USING INDEX jobs_state (state=? AND rowid>? AND rowid<?)"), "{by_state}");
    assert!(!by_state.contains("TEMP B-TREE FOR ORDER BY"), "{by_state}");
    let all = plan("list_all", include_str!("queries/list_all.sql"), 9);
    assert!(all.contains("SEARCH j USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"), "{all}");
    assert!(!all.contains("TEMP B-TREE FOR ORDER BY"), "{all}");
    let of_job = plan("events_of_job", include_str!("queries/events_of_job.sql"), 3);
    assert!(!of_job.contains("SCAN e"), "{of_job}");
    let finished = plan("oldest_finished", include_str!("queries/oldest_finished.sql"), 2);
    assert!(!finished.contains("TEMP B-TREE"), "{finished}");
    let head = plan("head", include_str!("queries/head.sql"), 0);
    assert!(!head.contains("SCAN jobs") && !head.contains("SCAN events"), "{head}");
}
