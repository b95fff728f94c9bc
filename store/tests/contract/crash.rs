//! A process that commits and is killed: what it was told is durable must be there.
//!
//! [`commit_forever`] runs in a child process and prints a line for each acknowledgement; [`kill_again_and_again`] kills it, and [`check`]
//! compares the lines with the table.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use scheduler_core::ids::{Revision, Seq};
use scheduler_core::state::Outcome;
use store::{Batch, Store};

use super::Fixture;
use super::build::*;

/// Commits batches of mixed sizes until the process is killed. A line holds the last sequence and the last revision.
pub(crate) async fn commit_forever(store: &dyn Store) {
    let mut next = store.head().last_seq.0 + 1;
    let mut out = std::io::stdout();
    loop {
        // Sizes from 1 to 300; every job goes through its whole life, some of it in later batches.
        let size = (next * 31) % 300 + 1;
        let last = next + size - 1;
        let mut changes = Vec::new();
        for seq in next..=last {
            changes.push(change(seq, &queued(seq), starting(1)));
            changes.push(change(seq, &starting(1), running(1, seq)));
            if seq % 2 == 0 {
                changes.push(change(seq, &running(1, seq), finished(Outcome::Succeeded, 1, seq + seq % 7)));
            }
        }
        let submits = (next..=last).map(submit).collect();
        let keys = vec![key("crash", &last.to_string(), last, &[last])];
        let committed = store.commit(Batch { submits, changes, keys, ..batch(store) }).await.unwrap();
        writeln!(out, "{last} {}", committed.last).and_then(|()| out.flush()).unwrap();
        next = last + 1;
    }
}

/// The last line's numbers: what the killed process knew to be durable.
fn acknowledged(output: &str) -> (u64, u64) {
    // The kill may have cut the last line; the ones before are whole.
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    let last = whole.lines().last().unwrap_or("0 0");
    let (seq, revision) = last.split_once(' ').unwrap();
    (seq.parse().unwrap(), revision.parse().unwrap())
}

/// Everything acknowledged is there, nothing is half there, and no revision is missing.
async fn check(store: &dyn Store, (seq, revision): (u64, u64)) {
    let head = store.head();
    assert!(head.last_seq >= Seq(seq), "acknowledged jobs up to {seq}, found {}", head.last_seq);
    assert!(head.last_revision >= Revision(revision));
    let table = Snapshot::of(store).await;
    table.assert_gapless();
    assert_eq!(table.last_revision(), head.last_revision);
    assert!(table.jobs.keys().copied().eq(1..=head.last_seq.0), "a job is missing");
    super::usage::check_against_jobs(store).await;
    // Batches are whole: of every job all its transitions are there, and the last one's key.
    let odd = head.last_seq.0.div_ceil(2);
    let even = head.last_seq.0 / 2;
    assert_eq!(table.counts, [0, 0, 0, odd, 0, even]);
    assert_eq!(table.events.len() as u64, odd * 3 + even * 4);
    if head.last_seq.0 > 0 {
        let last = head.last_seq.0;
        assert_eq!(store.key("crash", &last.to_string()).await.unwrap().unwrap().jobs, [id(last)]);
    }
}

/// Kills the test `crash_child` of this program, whose environment says where the table of `fixture` is, after another number of
/// acknowledgements each time; each life goes on where the one before was cut off.
pub(crate) async fn kill_again_and_again((variable, place): (&str, &OsStr), fixture: &dyn Fixture) {
    let mut known = (0, 0);
    for lines in [1, 2, 3, 5, 8, 13, 21, 34] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_child", "--nocapture", "--test-threads=1"])
            .env(variable, place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut seen = String::new();
        let mut counted = 0;
        while counted < lines {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended by itself");
            // The test harness prints lines of its own first.
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                counted += 1;
                seen.push_str(&line);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        output.read_to_string(&mut seen).unwrap();
        let acknowledged = acknowledged(&seen);
        assert!(acknowledged > known, "it went on where it was cut off");
        known = acknowledged;
        let store = fixture.open().await.unwrap();
        check(&*store, known).await;
        store.close().await;
    }
}
