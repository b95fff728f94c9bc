//! Locks, limits, permissions, damage: what is told, and that acknowledged work stays.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use sqlx::{ConnectOptions, Connection as _};

use super::*;
use crate::sqlite::SqliteOptions;
use crate::sqlite::writer::Command;

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
    assert_eq!(open_files(dir.path()), 0, "the lock was given back before the database was closed");
    let second = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(second.head().last_seq, Seq(1));
    second.close().await;
}

/// How many files of the database in this folder the process has open.
fn open_files(dir: &Path) -> usize {
    let file = SqliteStore::file(dir).display().to_string();
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with(&file)).count()
}

#[tokio::test]
async fn closing_closes_everything() {
    let dir = tempdir().unwrap();
    for seq in 1..=20 {
        let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
        commit(&store, vec![submit(seq, 10)]).await.unwrap();
        let (a, b, c) = tokio::join!(store.live(Seq(0), 100), store.tokens(), store.id_by_seq(Seq(seq)));
        assert_eq!((a.unwrap().len() as u64, b.unwrap().len(), c.unwrap().is_some()), (seq, 0, true));
        assert!(open_files(dir.path()) > 0);
        store.close().await;
        assert_eq!(open_files(dir.path()), 0);
        // The last one to leave empties the log and removes it.
        assert!(!dir.path().join("flash.db-wal").exists());
    }
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
    let committed = store.commit(Batch { changes, ..batch(&store) }).await.unwrap();
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

/// A small file system of its own, for as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempdir().unwrap();
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The system itself refuses to write, in the log and not in a page of the database.
#[tokio::test]
async fn a_device_without_room_refuses_and_recovers() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a file system can only be mounted by root; the test with a bound of pages runs everywhere");
        return;
    };
    let dir = disk.0.path().join("data");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 700_000]).unwrap();
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match commit(&store, vec![submit(stored + 1, 20_000)]).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 200, "the device never filled up");
    };
    assert!(matches!(error, StoreError::Full { op: "commit", .. }), "{error}");
    assert!(stored > 10, "{stored}");
    assert!(matches!(commit(&store, vec![submit(stored + 1, 20_000)]).await, Err(StoreError::Full { .. })));
    assert_eq!(store.live(Seq(0), 1_000).await.unwrap().len() as u64, stored, "reading goes on");
    let Err(StoreError::Full { .. }) = store.commit(Batch { submits: vec![submit(stored + 1, 90_000)], ..batch(&store) }).await
    else {
        panic!("a larger one fitted")
    };
    fs::remove_file(&ballast).unwrap();
    commit(&store, vec![submit(stored + 1, 20_000)]).await.unwrap();
    store.close().await;
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    assert_eq!((store.head().last_seq, store.head().last_revision), (Seq(stored + 1), Revision(stored + 1)));
    assert_eq!(store.live(Seq(0), 1_000).await.unwrap().len() as u64, stored + 1);
    store.close().await;
    assert_eq!(ask(&dir, "PRAGMA integrity_check", 1), ["ok"]);
}

/// A daemon that is started again after the disk filled up.
#[tokio::test]
async fn a_device_without_room_refuses_to_open() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a file system can only be mounted by root");
        return;
    };
    let dir = disk.0.path().join("data");
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    commit(&store, vec![submit(1, 10)]).await.unwrap();
    store.close().await;
    let ballast = disk.0.path().join("ballast");
    let fill = || fs::write(&ballast, vec![1; 4_000_000]).unwrap_err();
    // No room for the log's index, which is the first thing that is made; and none for a new database.
    fill();
    for dir in [&dir, &disk.0.path().join("new")] {
        let error = SqliteStore::open(dir, NOW).await.err().unwrap();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(open_files(dir), 0);
    }
    fs::remove_file(&ballast).unwrap();
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    assert_eq!(store.head().last_seq, Seq(1));
    store.close().await;
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
async fn a_writer_that_ends_by_a_fault_leaves_nobody_waiting() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    commit(&store, vec![submit(1, 10)]).await.unwrap();
    // The one who is being served, the ones who wait behind it, and the ones who come later.
    let (fault, waiting) = tokio::join!(
        store.ask("break", |answer| Command::Panic { _answer: answer }),
        store.ask("wait", |answer| Command::Limit { max_pages: None, answer }),
    );
    assert!(matches!(fault, Err(StoreError::Closed { op: "break" })));
    assert!(matches!(waiting, Err(StoreError::Closed { op: "wait" })));
    assert!(matches!(commit(&store, vec![submit(2, 10)]).await, Err(StoreError::Closed { op: "commit" })));
    store.close().await;
    // The folder is free again, and what was acknowledged is there.
    let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
    assert_eq!(store.head().last_seq, Seq(1));
    store.close().await;
}

/// What opening this folder is refused with, which must leave the database as it is.
async fn refused(dir: &Path) -> StoreError {
    let before = fs::read(SqliteStore::file(dir)).unwrap();
    let error = SqliteStore::open(dir, NOW).await.err().unwrap();
    assert_eq!(fs::read(SqliteStore::file(dir)).unwrap(), before, "{error}");
    assert_eq!(open_files(dir), 0);
    error
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let dir = tempdir().unwrap();
    SqliteStore::open(dir.path(), NOW).await.unwrap().close().await;
    tamper(
        dir.path(),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (3999, 'later', TRUE, x'00', 0), (4000, 'latest', TRUE, x'00', 0)",
    );
    let error = refused(dir.path()).await;
    let ours = crate::sqlite::schema::latest();
    assert!(matches!(error, StoreError::Newer { found: 4000, known, .. } if known == ours), "{error}");
}

#[tokio::test]
async fn a_schema_of_another_history_is_left_alone() {
    for (change, told) in [
        ("UPDATE _sqlx_migrations SET checksum = x'00'", "migration 1 was previously applied but has been modified"),
        ("UPDATE _sqlx_migrations SET version = 0 WHERE version = 1", "migration 0 was previously applied but is missing"),
        ("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 1", "migration 1 is partially applied"),
    ] {
        let dir = tempdir().unwrap();
        SqliteStore::open(dir.path(), NOW).await.unwrap().close().await;
        tamper(dir.path(), change);
        let error = refused(dir.path()).await;
        assert!(matches!(&error, StoreError::Corrupt { op: "migrate", detail, .. } if detail.contains(told)), "{error}");
    }
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_is_done_again() {
    let steps: &[&str] = &["PRAGMA journal_mode = WAL", "PRAGMA application_id = 0x666c7368"];
    for done in 0..=steps.len() + 1 {
        let dir = tempdir().unwrap();
        fs::write(SqliteStore::file(dir.path()), []).unwrap();
        for step in steps.iter().take(done) {
            tamper(dir.path(), step);
        }
        if done > steps.len() {
            // The table of migrations, and none in it.
            let mut db = connect::options(&SqliteStore::file(dir.path())).connect().await.unwrap();
            sqlx::migrate::Migrator::with_migrations(Vec::new()).run(&mut db).await.unwrap();
            db.close().await.unwrap();
        }
        let store = SqliteStore::open(dir.path(), NOW).await.unwrap();
        commit(&store, vec![submit(1, 10)]).await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_path_that_sqlite_would_misread() {
    let parent = tempdir().unwrap();
    let dir = parent.path().join("file:a?mode=memory#%20");
    let store = SqliteStore::open(&dir, NOW).await.unwrap();
    commit(&store, vec![submit(1, 10)]).await.unwrap();
    store.close().await;
    assert!(fs::metadata(SqliteStore::file(&dir)).unwrap().len() > 0);
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    let error = SqliteStore::open(&parent.path().join(bytes), NOW).await.err().unwrap();
    assert!(matches!(&error, StoreError::Other { detail, .. } if detail.contains("UTF-8")), "{error}");
}

#[tokio::test]
async fn what_is_not_our_database_is_left_alone() {
    let dir = tempdir().unwrap();
    let file = SqliteStore::file(dir.path());
    fs::write(&file, "this is not a database, but somebody's notes\n".repeat(200)).unwrap();
    let error = refused(dir.path()).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    fs::write(&file, "").unwrap();
    tamper(dir.path(), "CREATE TABLE notes (text TEXT)");
    let error = refused(dir.path()).await;
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("another program")), "{error}");

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
    tamper(dir.path(), "UPDATE shapes SET shape = '{}' WHERE id = 2");
    let error = store.live(Seq(0), 10).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("shape")), "{error}");
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
