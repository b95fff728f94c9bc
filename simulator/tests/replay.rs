//! Decision logs: what a simulation writes replays to the same decisions, and whatever is changed in it is found by its line.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use simulator::{
    Cluster, DecisionLog, End, Estimate, Options, Policy, ReplayError, Scale, kueue, replay, simulate, simulate_recorded,
};

/// Memory that is written to and can be looked at.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log of a part of Kueue's workload: quotas, borrowing, time limits that end jobs, runs that are ended to make room.
fn logged(policy: Policy) -> Vec<String> {
    let mut workload = kueue(Scale::Baseline, 5);
    workload.jobs.truncate(1_500);
    Estimate::Factor(3.0).apply(&mut workload, 5);
    for job in workload.jobs.iter_mut().step_by(7) {
        job.limit = Some(simulator::scheduler::Span(job.duration.0 / 2));
    }
    let cluster = Cluster::new(Scale::Baseline.machines());
    let options = Options {
        preemption: Some(simulator::scheduler::Preemption { within_queue: true, reclaim: true, across_queues: false }),
        ..Options::new(policy)
    };
    let memory = Memory::default();
    let log = DecisionLog::new(memory.clone());
    let outcome = simulate_recorded(&workload, &cluster, options, Some(log.tap())).unwrap();
    log.finish().unwrap();
    let report = simulator::Report { decisions_per_second: 0.0, ..outcome.report };
    let plain = simulate(&workload, &cluster, options).unwrap().report;
    assert_eq!(report, simulator::Report { decisions_per_second: 0.0, ..plain }, "being watched changes nothing");
    assert!(report.timed_out > 0 && report.preemptions > 0);
    let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn join(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

#[test]
fn what_was_logged_replays_to_the_same_decisions() {
    for policy in [Policy::Fifo, Policy::Easy, Policy::Flash] {
        let lines = logged(policy);
        let found = replay(&join(&lines)[..]).unwrap();
        assert_eq!(found.difference, None, "{policy:?}");
        let [part] = &found.parts[..] else { panic!("{:?}", found.parts) };
        assert_eq!((part.line, part.inputs as usize, &part.end), (1, lines.len() - 1, &End::Whole));
        assert!(part.placed > 1_500, "{}: preempted jobs are placed again", part.placed);
    }
}

/// The first line with such a call whose answer is not empty.
fn find(lines: &[String], call: &str) -> usize {
    let is = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["did"]["input"].get(call).is_some() && line["did"]["answer"]["changed"] != json!([])
    };
    lines.iter().position(is).unwrap()
}

#[test]
fn a_changed_log_differs_at_its_line() {
    let lines = logged(Policy::Flash);
    let tampered = |at: usize, change: &dyn Fn(&mut Value)| {
        let mut lines = lines.clone();
        let mut value = serde_json::from_str(&lines[at]).unwrap();
        change(&mut value);
        lines[at] = value.to_string();
        let found = replay(&join(&lines)[..]).unwrap();
        found.difference.unwrap_or_else(|| panic!("line {} is not found different", at + 1))
    };
    let plan = find(&lines, "plan");
    let difference = tampered(plan, &|line| {
        let state = &mut line["did"]["answer"]["changed"][0]["to"]["state"]["starting"];
        state["placement"][0]["node"] = json!("elsewhere");
    });
    assert_eq!(difference.line, plan + 1);
    assert_eq!(difference.recorded["changed"][0]["to"]["state"]["starting"]["placement"][0]["node"], "elsewhere");
    assert_eq!(difference.replayed["changed"][0]["to"]["state"]["starting"]["placement"][0]["node"], "quota");
    let difference = tampered(plan, &|line| drop(line["did"]["answer"]["changed"].as_array_mut().unwrap().pop()));
    assert_eq!(difference.line, plan + 1);
    // A changed input is found where its consequence is.
    let submit = find(&lines, "submit");
    let difference = tampered(submit, &|line| line["did"]["input"]["submit"]["shape"]["tasks"][0]["request"]["cpu"] = json!(1));
    assert!(difference.line > submit + 1);
    // And a changed configuration.
    let difference = tampered(0, &|line| line["begin"]["config"]["nodes"][0]["cpu"] = json!(20_000));
    assert!(difference.line > 1);
}

#[test]
fn parts_follow_each_other_and_may_be_torn_where_they_end() {
    let lines = logged(Policy::Easy);
    let torn = &lines[30][..lines[30].len() / 2];
    let cut = r#"{"cut":{"why":"the disk is full"}}"#;
    let text = [&join(&lines[..30])[..], torn.as_bytes(), b"\n", &join(&lines[..20]), cut.as_bytes(), b"\n", &join(&lines), b"{"];
    let found = replay(&text.concat()[..]).unwrap();
    assert_eq!(found.difference, None);
    let ends: Vec<_> = found.parts.iter().map(|part| (part.line, part.inputs, part.end.clone())).collect();
    let last = lines.len();
    assert_eq!(
        ends,
        [(1, 29, End::Torn(31)), (32, 19, End::Cut("the disk is full".to_owned())), (53, last as u64 - 1, End::Torn(53 + last)),]
    );
}

#[test]
fn what_is_no_log_is_named_by_line() {
    let lines = logged(Policy::Easy);
    let fails = |lines: &[String], expected: &str| {
        let error = replay(&join(lines)[..]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    fails(&[], "there is no line in it");
    fails(&["nonsense".to_owned()], "line 1: not a line of a decision log: expected");
    fails(&lines[1..], "line 1: not a line of a decision log: a log begins with a line `begin`");
    let mut broken = lines.clone();
    broken[5] = "{}".to_owned();
    fails(&broken, "line 6: not a line of a decision log: ");
    let mut other = lines.clone();
    other[0] = other[0].replacen("\"format\":1", "\"format\":99", 1);
    fails(&other, "line 1: format 99, this version reads 1");
    let mut late = lines[..3].to_vec();
    late.extend([r#"{"cut":{"why":"x"}}"#.to_owned(), lines[3].clone()]);
    fails(&late, "line 5: not a line of a decision log: the part was cut before it");
    assert!(matches!(replay(&b""[..]), Err(ReplayError::Empty)));
}
