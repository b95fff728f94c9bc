//! The formats: what a good row becomes, and which line a bad one is named by.
//!
//! The rows are made up for these tests; only their columns are those of the public traces.

#![expect(clippy::unwrap_used, reason = "tests")]

use simulator::scheduler::Span;
use simulator::{Job, TraceError, Workload, openb, openb_nodes, philly, swf};

const SWF: &str = "; Version: 2\n; made up for a test\n\n\
    1 100 -1  50  4 -1 -1 -1 120 -1 1  7 -1 -1 2 -1 -1 -1\n\
    2 100 -1   0 -1 -1 -1  3  -1 64 1 -1 -1 -1 -1 -1 -1 -1\n\
    3 160 -1  -1  4 -1 -1 -1  -1 -1 5 -1 -1 -1 0 -1 -1 -1\n";

fn tenant<'a>(workload: &'a Workload, job: &Job) -> &'a str {
    workload.tenants[job.tenant].as_str()
}

#[test]
fn swf_rows_become_jobs() {
    let workload = swf("t.swf", SWF).unwrap();
    let [first, second] = &workload.jobs[..] else { panic!("{workload:?}") };
    assert_eq!((first.at, first.duration, first.limit), (Span(0), Span::from_secs(50), Some(Span::from_secs(120))));
    assert_eq!((first.tasks, first.request.cpu.0, first.request.memory.0, first.request.gpus), (4, 1_000, 0, 0));
    assert_eq!((tenant(&workload, first), workload.queues[first.queue].config.name.as_str()), ("user-7", "queue-2"));
    assert_eq!((second.at, second.duration, second.limit, second.tasks), (Span(0), Span(0), None, 3));
    assert_eq!(second.request.memory.0, 64 << 10, "kilobytes for each processor");
    assert_eq!((tenant(&workload, second), workload.queues[second.queue].config.name.as_str()), ("unknown", "default"));
    assert_eq!(workload.notes, ["1 job left out: the trace knows no run time or no number of processors for them."]);
}

/// The error of a trace whose last row is this one.
fn fails<T: std::fmt::Debug>(read: fn(&str, &str) -> Result<T, TraceError>, head: &str, row: &str, expected: &str) {
    let error = read("t", &format!("{head}{row}\n")).unwrap_err();
    assert!(error.to_string().starts_with(expected), "{row}: {error}");
}

#[test]
fn bad_swf_rows_are_named_by_line() {
    for (row, expected) in [
        ("4 170 -1 50 4", "t:7: 5 columns, must be 18 (the first missing one is average CPU time used)"),
        ("4 170 -1 50 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1 9", "t:7: 19 columns, must be 18"),
        (
            "4 159 -1 50 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1",
            "t:7: not sorted: submit time 159 comes after 160 of the job before",
        ),
        ("4 -1 -1 50 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: submit time: -1 is negative"),
        ("4 170 -1 -50 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: run time: -50 is negative"),
        ("4 170 -1 50 -4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: number of allocated processors: -4 is negative"),
        ("4 170 -1 50 4 -1 -1 -1 -60 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: requested time: -60 is negative"),
        ("4 170 -1 soon 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: run time: `soon` is not a number of seconds"),
        ("4 170 -1 nan 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: run time: `nan` is not a number of seconds"),
        ("4 170 -1 1e30 4 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1", "t:7: run time: 1e30 is out of range"),
        (
            "4 170 -1 50 9999999999 -1 -1 -1 -1 -1 1 7 -1 -1 2 -1 -1 -1",
            "t:7: number of allocated processors: 9999999999 is out of",
        ),
    ] {
        fails(swf, SWF, row, expected);
    }
}

#[test]
fn a_trace_without_jobs_is_an_error() {
    for text in ["", "; only a comment\n", "\n\n"] {
        assert_eq!(swf("t", text).unwrap_err().to_string(), "t: there is no job in it");
    }
    assert_eq!(philly("t", PHILLY_HEAD).unwrap_err().to_string(), "t: there is no job in it");
    assert_eq!(openb("t", OPENB_HEAD).unwrap_err().to_string(), "t: there is no job in it");
    assert_eq!(openb_nodes("t", NODES_HEAD).unwrap_err().to_string(), "t: there is no node in it");
}

const PHILLY_HEAD: &str = "timestamp,duration,num_gpus,gpu_time,cluster\n";

#[test]
fn philly_rows_become_gangs_of_at_most_eight_gpus() {
    let rows = "2017-10-01 00:00:00,60.5,1,60.5,a\n2017-10-01 00:01:00,10,32,320,b\n2017-10-01 00:01:00,10,12,120,b\n2017-10-02 00:00:00,1,0,0,b\n";
    let workload = philly("t", &format!("{PHILLY_HEAD}{rows}")).unwrap();
    let gangs: Vec<_> =
        workload.jobs.iter().map(|job| (job.at.0 / 1_000_000, job.duration.0, job.tasks, job.request.gpus)).collect();
    assert_eq!(gangs, [(0, 60_500_000, 1, 1), (60, 10_000_000, 4, 8), (60, 10_000_000, 2, 6)]);
    assert_eq!((tenant(&workload, &workload.jobs[0]), tenant(&workload, &workload.jobs[1])), ("a", "b"));
    assert!(workload.notes[0].starts_with("1 job without GPUs left out"), "{:?}", workload.notes);
}

#[test]
fn bad_philly_rows_are_named_by_line() {
    let head = format!("{PHILLY_HEAD}2017-10-01 00:00:00,60.5,1,60.5,a\n");
    for (row, expected) in [
        ("2017-09-30 23:59:59,1,1,1,a", "t:3: not sorted: timestamp 2017-09-30 23:59:59 comes after 2017-10-01 00:00:00"),
        ("2017-10-02 00:00:00,-1,1,1,a", "t:3: duration: -1 is negative"),
        ("2017-10-02 00:00:00,1,-1,1,a", "t:3: num_gpus: -1 is negative"),
        ("2017-10-02 00:00:00,1,1.5,1,a", "t:3: num_gpus: `1.5` is not a whole number"),
        ("yesterday,1,1,1,a", "t:3: timestamp: `yesterday` is not a time from 1970 on"),
        ("1969-12-31 23:59:59,1,1,1,a", "t:3: timestamp: `1969-12-31 23:59:59` is not a time from 1970 on"),
        ("2017-10-02 00:00:00,1,1", "t:3: 3 columns, must be 5"),
    ] {
        fails(philly, &head, row, expected);
    }
    let error = philly("t", "timestamp,num_gpus\n2017-10-01 00:00:00,1\n").unwrap_err().to_string();
    assert_eq!(error, "t:1: column missing: duration, cluster; the header must have: timestamp, duration, num_gpus, cluster");
    assert!(philly("t", "").unwrap_err().to_string().starts_with("t:1: column missing: timestamp, "));
}

const OPENB_HEAD: &str =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n";

#[test]
fn openb_rows_become_jobs_with_whole_gpus() {
    let rows =
        "p0,12000,16384,1,460,V100,LS,Running,10,100,40\np1,500,0,0,0,,,Pending,20,50,\np2,1000,1,2,1000,,BE,Running,20,20,20\n";
    let workload = openb("t", &format!("{OPENB_HEAD}{rows}")).unwrap();
    let [first, second, third] = &workload.jobs[..] else { panic!("{workload:?}") };
    assert_eq!((first.at, first.duration), (Span(0), Span::from_secs(60)), "from its start, not from its creation");
    assert_eq!((first.request.cpu.0, first.request.memory.0, first.request.gpus), (12_000, 16 << 30, 1));
    assert_eq!((second.at, second.duration, second.request.gpus), (Span::from_secs(10), Span::from_secs(30), 0));
    assert_eq!((third.duration, third.request.gpus), (Span(0), 2));
    let tenants = [first, second, third].map(|job| tenant(&workload, job));
    assert_eq!(tenants, ["LS", "unknown", "BE"]);
    assert_eq!(
        workload.notes,
        [
            "1 job of the trace: ask for a share of a GPU and take a whole one.",
            "1 job of the trace: never started in the trace and run for as long as they existed there.",
            "1 job of the trace: name GPU models, which are passed over.",
        ]
    );
    // The columns that are not needed may be missing, and the others may stand anywhere.
    let bare = "deletion_time,creation_time,gpu_milli,num_gpu,memory_mib,cpu_milli\n70,10,1000,1,2,3\n";
    let workload = openb("t", bare).unwrap();
    assert_eq!((workload.jobs[0].duration, workload.jobs[0].request.cpu.0), (Span::from_secs(60), 3));
    assert_eq!(workload.notes, Vec::<String>::new());
}

#[test]
fn bad_openb_rows_are_named_by_line() {
    let head = format!("{OPENB_HEAD}p0,12000,16384,1,460,,LS,Running,10,100,40\n");
    for (row, expected) in [
        ("p1,500,0,0,0,,LS,Running,9,50,9", "t:3: not sorted: creation_time 9 comes after 10"),
        ("p1,500,0,0,0,,LS,Running,20,19,", "t:3: deletion_time 19 is before creation_time 20"),
        ("p1,500,0,0,0,,LS,Running,20,24,25", "t:3: deletion_time 24 is before scheduled_time 25"),
        ("p1,500,0,0,0,,LS,Running,-20,24,", "t:3: creation_time: -20 is negative"),
        ("p1,-5,0,0,0,,LS,Running,20,24,", "t:3: cpu_milli: -5 is negative"),
        ("p1,500,0,0,0,\"a,b\",LS,Running,20,24,", "t:3: 12 columns, must be 11"),
        ("p1,500,0,0,0,,LS,Running,20,,", "t:3: deletion_time: `` is not a number of seconds"),
    ] {
        fails(openb, &head, row, expected);
    }
    let error = openb("t", "name,cpu_milli\n").unwrap_err().to_string();
    assert!(error.starts_with("t:1: column missing: memory_mib, num_gpu, gpu_milli, creation_time, deletion_time;"), "{error}");
}

const NODES_HEAD: &str = "sn,cpu_milli,memory_mib,gpu,model\n";

#[test]
fn openb_nodes_become_machines() {
    let machines = openb_nodes("t", &format!("{NODES_HEAD}n0,64000,262144,2,P100\nn1,96000,1,0,\n")).unwrap();
    let [first, second] = &machines[..] else { panic!("{machines:?}") };
    assert_eq!((first.name.as_str(), first.cpu_millis, first.memory_bytes, first.gpus), ("n0", 64_000, 256 << 30, 2));
    assert_eq!((first.gpu_model.as_str(), second.gpu_model.as_str()), ("P100", "unknown"));
    fails(openb_nodes, NODES_HEAD, "n0,64000,262144,70000,P100", "t:2: gpu: 70000 is out of range");
    fails(openb_nodes, NODES_HEAD, "n0,64000,262144", "t:2: 3 columns, must be 5");
    fails(openb_nodes, "sn,cpu_milli\n", "n0,1", "t:1: column missing: memory_mib, gpu");
}
