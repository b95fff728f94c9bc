//! Figures of small workloads that can be worked out by hand, and what tells the policies apart.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::float_cmp, reason = "times are whole microseconds; fractions are compared within a tolerance")]

use simulator::scheduler::{CohortConfig, CpuMillis, Limits, MemoryBytes, Preemption, QueueConfig, Request, Span};
use simulator::{Builder, Cluster, Estimate, Job, Machine, Options, Policy, Report, Scale, Spread, Workload, kueue, simulate};

/// Seconds of arrival, run time, tenant, tasks of one core each.
type Row = (u64, u64, &'static str, u32);

fn job(builder: &mut Builder, (at, duration, tenant, tasks): Row) -> Job {
    Job {
        at: Span::from_secs(at),
        duration: Span::from_secs(duration),
        limit: None,
        priority: 0,
        queue: builder.queue("q"),
        tenant: builder.tenant(tenant),
        tasks,
        request: Request { cpu: CpuMillis(1_000), memory: MemoryBytes(0), gpus: 0 },
    }
}

fn workload(rows: &[Row], estimate: Estimate) -> Workload {
    let mut builder = Builder::new();
    for &row in rows {
        let job = job(&mut builder, row);
        builder.push(job);
    }
    let mut workload = builder.finish().unwrap();
    estimate.apply(&mut workload, 0);
    workload
}

fn machine(name: &str, cores: u64, gpus: u32) -> Machine {
    Machine { name: name.into(), cpu_millis: cores * 1_000, memory_bytes: cores << 30, gpus, gpu_model: "any".into() }
}

/// With every instant checked by the core.
fn report(workload: &Workload, machines: Vec<Machine>, policy: Policy) -> Report {
    let options = Options { check: true, ..Options::new(policy) };
    simulate(workload, &Cluster::new(machines), options).unwrap().report
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got}, not {expected}");
}

/// On four cores: the second needs all of them, the third would fit beside the first and end with it.
const CLASSIC: [Row; 3] = [(0, 10, "a", 2), (0, 20, "b", 4), (5, 5, "a", 2)];

#[test]
fn strict_order_by_hand() {
    let report = report(&workload(&CLASSIC, Estimate::Exact), vec![machine("n", 4, 0)], Policy::Fifo);
    // 0-10, 10-30, 30-35.
    assert_eq!((report.jobs, report.completed, report.makespan_seconds), (3, 3, 35.0));
    close(report.utilisation.cpu, 110.0 / 140.0);
    assert_eq!((report.utilisation.memory, report.utilisation.gpu), (0.0, 0.0));
    close(report.wait.mean, 35.0 / 3.0);
    assert_eq!((report.wait.p50, report.wait.p95, report.wait.p99), (10.0, 25.0, 25.0));
    // 10/10, 30/20, and 30 s in the system for 5 s of running, which count as 10.
    close(report.bounded_slowdown.mean, 5.5 / 3.0);
    assert_eq!((report.bounded_slowdown.p50, report.bounded_slowdown.p99), (1.5, 3.0));
    // Core-seconds 30 against 80.
    close(report.jain_index, 110.0 * 110.0 / (2.0 * (900.0 + 6_400.0)));
    // Until 30 s somebody waits, and one of two tenants has everything.
    close(report.contended_jain_index.unwrap(), 0.5);
    close(report.bound.area_seconds, 27.5);
    assert_eq!((report.bound.longest_job_seconds, report.bound.arrival_seconds), (20.0, 20.0));
    assert_eq!(report.bound.makespan_seconds, 27.5);
    close(report.bound.ratio, 35.0 / 27.5);
    assert_eq!((report.preemptions, report.lost_work_seconds, report.decisions, report.longest_queue), (0, 0.0, 3, 2));
}

#[test]
fn backfill_by_hand() {
    let report = report(&workload(&CLASSIC, Estimate::Exact), vec![machine("n", 4, 0)], Policy::Easy);
    // 0-10, 5-10, 10-30: the third passes and delays nobody.
    assert_eq!(report.makespan_seconds, 30.0);
    assert_eq!(report.wait, Spread { mean: 10.0 / 3.0, p50: 0.0, p95: 10.0, p99: 10.0 });
    close(report.utilisation.cpu, 110.0 / 120.0);
    close(report.jain_index, 110.0 * 110.0 / (2.0 * (900.0 + 6_400.0)));
}

#[test]
fn flash_lets_short_jobs_pass_and_tenants_take_turns() {
    // Two cores, taken until 10 s.
    let waits = |rows: &[Row], policy| {
        let report = report(&workload(rows, Estimate::Exact), vec![machine("n", 2, 0)], policy);
        (report.wait.mean, report.makespan_seconds)
    };
    let lengths = [(0, 10, "a", 2), (1, 100, "a", 2), (2, 10, "a", 1), (2, 10, "a", 1)];
    assert_eq!(waits(&lengths, Policy::Easy), ((9.0 + 108.0 + 108.0) / 4.0, 120.0));
    assert_eq!(
        waits(&lengths, Policy::Flash),
        ((9.0 + 108.0 + 108.0) / 4.0, 120.0),
        "a job as wide as the machine is not passed"
    );
    let lengths = lengths.map(|(at, duration, tenant, tasks)| (at, duration, tenant, tasks.min(1)));
    let both = [lengths[0], lengths[0], lengths[1], lengths[1], lengths[2], lengths[2]];
    assert_eq!(waits(&both, Policy::Easy), ((9.0 + 9.0 + 108.0 + 108.0) / 6.0, 120.0));
    assert_eq!(waits(&both, Policy::Flash), ((19.0 + 19.0 + 8.0 + 8.0) / 6.0, 120.0));
    let tenants = [(0, 10, "a", 2), (1, 10, "a", 2), (2, 10, "b", 2)];
    assert_eq!(waits(&tenants, Policy::Easy), ((9.0 + 18.0) / 3.0, 30.0));
    assert_eq!(waits(&tenants, Policy::Flash), ((8.0 + 19.0) / 3.0, 30.0));
}

#[test]
fn without_time_limits_nobody_may_pass() {
    let report = report(&workload(&CLASSIC, Estimate::None), vec![machine("n", 4, 0)], Policy::Easy);
    assert_eq!(report.makespan_seconds, 35.0);
}

#[test]
fn a_limit_ends_a_job_and_a_job_as_long_as_its_limit_succeeds() {
    let mut workload = workload(&[(0, 100, "a", 1), (0, 40, "a", 1)], Estimate::None);
    workload.jobs[0].limit = Some(Span::from_secs(50));
    workload.jobs[1].limit = Some(Span::from_secs(40));
    let report = report(&workload, vec![machine("n", 2, 0)], Policy::Easy);
    assert_eq!((report.completed, report.timed_out, report.makespan_seconds), (1, 1, 50.0));
    assert_eq!(report.bound.ratio, 1.0, "the bound knows the limit");
    assert_eq!(report.bounded_slowdown.p99, 1.0);
}

#[test]
fn what_ends_makes_room_for_what_arrives_at_that_instant() {
    let report = report(
        &workload(&[(0, 10, "a", 2), (10, 10, "a", 2), (10, 0, "a", 2)], Estimate::Exact),
        vec![machine("n", 2, 0)],
        Policy::Fifo,
    );
    // A job of no length has its place at its instant and gives it back.
    assert_eq!((report.makespan_seconds, report.wait.p50, report.wait.p99), (20.0, 0.0, 10.0));
}

#[test]
fn time_counts_from_the_first_arrival() {
    let shifted = CLASSIC.map(|(at, duration, tenant, tasks)| (at + 1_000_000, duration, tenant, tasks));
    let on = |rows: &[Row]| Report {
        decisions_per_second: 0.0,
        ..report(&workload(rows, Estimate::Exact), vec![machine("n", 4, 0)], Policy::Easy)
    };
    assert_eq!(on(&shifted), on(&CLASSIC));
}

#[test]
fn a_gang_larger_than_the_cluster_is_refused_and_the_rest_runs() {
    let mut workload = workload(&[(0, 10, "a", 9), (1, 10, "a", 8), (2, 10, "b", 9), (3, 10, "b", 1)], Estimate::Exact);
    workload.jobs[3].request.gpus = 3;
    let report = report(&workload, vec![machine("n", 4, 2), machine("m", 4, 2)], Policy::Easy);
    assert_eq!((report.jobs, report.completed, report.refused.jobs), (4, 1, 3));
    let reasons: Vec<_> = report.refused.reasons.iter().map(|refusal| (refusal.jobs, refusal.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (
                2,
                "the job's tasks ask for 9000 cpu (millicores) together, all nodes have 8000: at most 8 of the tasks \"main\" can run at once"
            ),
            (1, "task \"main\" asks for 3 GPUs, the largest node has 2"),
        ]
    );
    // The makespan begins with the first job that was accepted.
    assert_eq!((report.makespan_seconds, report.bound.ratio), (10.0, 1.0));
}

#[test]
fn a_workload_of_refused_jobs_has_empty_figures() {
    let report = report(&workload(&[(0, 10, "a", 9)], Estimate::Exact), vec![machine("n", 4, 0)], Policy::Easy);
    assert_eq!((report.completed, report.refused.jobs, report.makespan_seconds), (0, 1, 0.0));
    assert_eq!(
        (report.utilisation.cpu, report.wait, report.bound.ratio),
        (0.0, Spread { mean: 0.0, p50: 0.0, p95: 0.0, p99: 0.0 }, 1.0)
    );
    assert_eq!(report.contended_jain_index, None);
}

#[test]
fn the_area_bound_starts_where_the_work_does() {
    // Four cores; nothing to do until 100 s, then 40 s of work.
    let report = report(
        &workload(&[(0, 1, "a", 1), (100, 40, "a", 2), (100, 40, "a", 2)], Estimate::Exact),
        vec![machine("n", 4, 0)],
        Policy::Fifo,
    );
    assert_eq!((report.bound.area_seconds, report.bound.makespan_seconds, report.bound.ratio), (140.0, 140.0, 1.0));
}

/// Four queues in two cohorts of two cores each, on a node of four.
fn cohorts(jobs: &[(usize, u64, u64)]) -> Workload {
    let cores = |cores: u64| Limits { cpu: Some(CpuMillis(cores * 1_000)), ..Limits::NONE };
    let mut builder = Builder::new();
    for cohort in ["left", "right"] {
        builder.cohort(CohortConfig::named(cohort.into()));
        for queue in 0..2 {
            let named = QueueConfig::named(format!("{cohort}-{queue}").into());
            let config = QueueConfig { preemptible: true, cohort: Some(cohort.into()), guaranteed: cores(1), ..named };
            builder.described(config);
        }
    }
    for &(queue, at, duration) in jobs {
        let mut job = job(&mut builder, (at, duration, "a", 1));
        job.queue = queue;
        builder.push(job);
    }
    builder.finish().unwrap()
}

#[test]
fn cohorts_lend_within_themselves_and_the_bound_knows_it() {
    // Three jobs on the left, one on the right: the left has two cores, however idle the right is.
    let workload = cohorts(&[(0, 0, 10), (0, 0, 10), (0, 0, 10), (2, 0, 10)]);
    let report = report(&workload, vec![machine("n", 4, 0)], Policy::Easy);
    assert_eq!((report.makespan_seconds, report.bound.area_seconds, report.bound.ratio), (20.0, 15.0, 20.0 / 15.0));
    close(report.utilisation.cpu, 40.0 / 80.0);
}

#[test]
fn what_was_lent_is_taken_back_under_flash_alone() {
    let workload = cohorts(&[(0, 0, 10), (0, 0, 10), (1, 5, 5)]);
    let run = |policy| {
        let report = report(&workload, vec![machine("n", 4, 0)], policy);
        (report.makespan_seconds, report.preemptions, report.lost_work_seconds)
    };
    assert_eq!(run(Policy::Easy), (15.0, 0, 0.0));
    assert_eq!(run(Policy::Flash), (20.0, 1, 5.0));
    let asked = Options { preemption: Some(Preemption::default()), ..Options::new(Policy::Flash) };
    let report = simulate(&workload, &Cluster::new(vec![machine("n", 4, 0)]), asked).unwrap().report;
    assert_eq!((report.makespan_seconds, report.preemptions), (15.0, 0), "nobody's, if that is asked for");
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    let mut workload = cohorts(&[(0, 0, 10)]);
    let double = workload.queues[0].config.clone();
    workload.describe(vec![double], vec![]);
    let error = simulate(&workload, &Cluster::new(vec![machine("n", 4, 0)]), Options::new(Policy::Flash)).unwrap_err();
    assert_eq!(error.to_string(), "setting up the scheduler: queue \"left-0\" is configured twice");
}

#[test]
fn the_same_call_gives_the_same_figures() {
    let mut workload = kueue(Scale::Baseline, 3);
    workload.jobs.truncate(4_000);
    Estimate::Factor(4.0).apply(&mut workload, 3);
    let cluster = Cluster::new(Scale::Baseline.machines());
    let json = |seed| {
        let options = Options { seed, series: true, ..Options::new(Policy::Easy) };
        let outcome = simulate(&workload, &cluster, options).unwrap();
        let mut json = serde_json::to_value(outcome.report).unwrap();
        assert!(json.as_object_mut().unwrap().remove("decisionsPerSecond").unwrap().as_f64().unwrap() > 0.0);
        (json, outcome.series)
    };
    assert_eq!(json(3), json(3));
}

#[test]
fn the_figures_have_their_names() {
    let report = report(&workload(&CLASSIC, Estimate::Exact), vec![machine("n", 4, 0)], Policy::Easy);
    let json = serde_json::to_value(report).unwrap();
    for pointer in [
        "/makespanSeconds",
        "/utilisation/cpu",
        "/utilisation/memory",
        "/utilisation/gpu",
        "/wait/mean",
        "/wait/p50",
        "/wait/p95",
        "/wait/p99",
        "/boundedSlowdown/mean",
        "/boundedSlowdown/p50",
        "/boundedSlowdown/p95",
        "/boundedSlowdown/p99",
        "/jainIndex",
        "/preemptions",
        "/lostWorkSeconds",
        "/decisionsPerSecond",
        "/bound/makespanSeconds",
        "/bound/ratio",
        "/refused/jobs",
    ] {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer}: {json:#}");
    }
}

#[test]
fn kueues_workloads_stay_near_their_bounds() {
    for (scale, bound) in [(Scale::Baseline, 66.0), (Scale::Large, 4.025)] {
        let workload = kueue(scale, 0);
        let cluster = Cluster::new(scale.machines());
        let report = simulate(&workload, &cluster, Options::new(Policy::Flash)).unwrap().report;
        close(report.bound.makespan_seconds, bound);
        assert_eq!(report.completed, workload.jobs.len());
        assert!((1.0..1.03).contains(&report.bound.ratio), "{scale:?}: {}", report.bound.ratio);
    }
}
