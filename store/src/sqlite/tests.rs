//! What only SQLite can show: its file, its lock, its limits, and the plans of its queries.

mod faults;
mod standby;
mod tables;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::amounts::Request;
use scheduler_core::event::{Event, Transition};
use scheduler_core::ids::{Attempt, JobId, Name, Revision, Seq, Term};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::state::{JobState, Lifecycle, Outcome, StateKind};
use scheduler_core::time::Timestamp;
use tempfile::tempdir;
use uuid::Uuid;

use super::raw::Connection;
use super::{SqliteStore, connect};
use crate::{Batch, Owner, Store, StoreError, Submit};

const NOW: Timestamp = Timestamp(1);

fn submit(seq: u64, spec_bytes: usize) -> Submit {
    let tasks = vec![TaskGroup::new("main".into(), 1, Request::default())];
    let shape = Shape::new("default".into(), Name::from(format!("q{}", seq % 5)), tasks);
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

fn batch(store: &SqliteStore) -> Batch {
    Batch { term: store.head().term, ..Batch::default() }
}

async fn commit(store: &SqliteStore, submits: Vec<Submit>) -> Result<(), StoreError> {
    store.commit(Batch { submits, ..batch(store) }).await.map(|_| ())
}

/// A connection as another program would have it.
fn connection(dir: &Path) -> Connection {
    connect::open(&connect::options(&SqliteStore::file(dir))).unwrap()
}

/// Runs SQL on the file.
fn tamper(dir: &Path, sql: &str) {
    connection(dir).batch(sql).unwrap();
}

/// Rows of a statement, each as its texts joined by a space.
fn ask(dir: &Path, sql: &'static str, columns: i32) -> Vec<String> {
    let mut rows = Vec::new();
    let mut db = connection(dir);
    db.query(sql, &[], |row| {
        let texts: Result<Vec<_>, _> = (0..columns).map(|column| row.opt_text(column).map(Option::unwrap_or_default)).collect();
        rows.push(texts?.join(" "));
        Ok(())
    })
    .unwrap();
    rows
}
