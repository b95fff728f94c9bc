//! The journal under torn tails, foreign bytes and rewriting.
#![expect(clippy::unwrap_used, reason = "a test")]

use scheduler_core::ids::{Attempt, JobId};
use uuid::Uuid;

use super::*;

fn run(number: u128) -> RunId {
    RunId { job: JobId(Uuid::from_u128(number)), attempt: Attempt(1) }
}

fn ended(number: u128) -> Record {
    Record::Ended { run: run(number), result: RunResult::Succeeded, started_at: Some(Timestamp(1)), at: Timestamp(2) }
}

fn read(path: &Path) -> (Vec<Record>, Replayed) {
    let mut records = Vec::new();
    let replayed = replay(path, |record| records.push(record)).unwrap();
    (records, replayed)
}

#[test]
fn a_tail_torn_at_any_byte_costs_the_last_record_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, 0).unwrap();
    journal.append(&[ended(1), ended(2)]).unwrap();
    let whole = journal.length();
    journal.append(&[ended(3)]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in whole..bytes.len() as u64 {
        std::fs::write(&path, &bytes[..length as usize]).unwrap();
        let (records, replayed) = read(&path);
        assert_eq!(records, [ended(1), ended(2)], "torn at {length}");
        assert_eq!(replayed.end, whole);
        let journal = Journal::open(&path, replayed.end).unwrap();
        journal.append(&[ended(4)]).unwrap();
        assert_eq!(read(&path).0, [ended(1), ended(2), ended(4)], "torn at {length}");
    }
}

#[test]
fn a_line_that_does_not_fit_its_checksum_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, 0).unwrap();
    journal.append(&[ended(1), ended(2), ended(3)]).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (records, replayed) = read(&path);
    assert_eq!(records, [ended(1), ended(3)]);
    assert_eq!((replayed.skipped, replayed.end), (1, bytes.len() as u64));
}

#[test]
fn rewriting_keeps_what_is_appended_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, 0).unwrap();
    for number in 0..100 {
        journal.append(&[ended(number)]).unwrap();
    }
    let before = journal.length();
    let mut pages = vec![vec![ended(7)]];
    journal
        .compact(|| {
            journal.append(&[ended(200)]).unwrap();
            pages.pop().unwrap_or_default()
        })
        .unwrap();
    journal.append(&[ended(300)]).unwrap();
    journal.sync().unwrap();
    let (records, replayed) = read(&path);
    assert_eq!(records, [ended(7), ended(200), ended(200), ended(300)]);
    assert_eq!(replayed.end, journal.length());
    assert!(journal.length() < before);
}
