//! Alibaba's public cluster trace of GPU pods, 2023: a list of pods and a list of nodes.
//!
//! A pod runs from `scheduled_time`, or from `creation_time` where it was never scheduled, to `deletion_time`. The core promises whole
//! GPUs: a share of one (`gpu_milli` below 1000) takes the whole device, so the packing of shares, which this trace was
//! made for, is not what is measured. Models that a pod asks for are passed over; its class of service is its tenant.

use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::time::Span;

use crate::cluster::Machine;
use crate::error::{Fault, TraceError};
use crate::read::csv::Csv;
use crate::read::{LATEST_SECONDS, LONGEST_SECONDS, Order, empty, jobs};
use crate::workload::{Builder, Job, Workload};

const MIB: u64 = 1 << 20;
/// Thousandths of a whole GPU.
const WHOLE: u64 = 1_000;

/// Reads a list of pods.
///
/// # Errors
/// Missing columns, the first line that is not understood, has a negative time or is out of order; a trace without pods.
pub fn openb(file: &str, text: &str) -> Result<Workload, TraceError> {
    let needed = ["cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "creation_time", "deletion_time"];
    let (mut csv, [cpu, memory, gpus, share, created, deleted]) = Csv::open(file, text, needed)?;
    let (scheduled, qos, spec) = (csv.optional("scheduled_time"), csv.optional("qos"), csv.optional("gpu_spec"));
    let mut builder = Builder::new();
    let mut order = Order::of("creation_time");
    let queue = builder.queue("default");
    let (mut rounded, mut unscheduled, mut models) = (0, 0, 0);
    while let Some(row) = csv.next() {
        let row = row?;
        let place = row.place;
        let at = place.seconds("creation_time", row.get(created), LATEST_SECONDS)?;
        order.check(place, at, row.get(created))?;
        let end = place.seconds("deletion_time", row.get(deleted), LATEST_SECONDS)?;
        let begin = scheduled.map(|column| row.get(column)).filter(|text| !text.is_empty());
        let (begin_field, begin_text) = begin.map_or(("creation_time", row.get(created)), |text| ("scheduled_time", text));
        let begin = place.seconds(begin_field, begin_text, LATEST_SECONDS)?;
        if end < begin {
            let got = row.get(deleted).to_owned();
            let before = begin_text.to_owned();
            return Err(place.error(Fault::EndsFirst { end: "deletion_time", got, begin: begin_field, before }));
        }
        let gpus = place.number("num_gpu", row.get(gpus))?;
        let share = place.number("gpu_milli", row.get(share))?;
        rounded += usize::from(gpus > 0 && share < WHOLE);
        unscheduled += usize::from(scheduled.is_some() && begin_field == "creation_time");
        models += usize::from(spec.is_some_and(|column| !row.get(column).is_empty()));
        let duration = Span(end.0 - begin.0);
        if duration > Span::from_secs(LONGEST_SECONDS) {
            let got = row.get(deleted).to_owned();
            return Err(place.error(Fault::Range { field: "deletion_time", got, most: LONGEST_SECONDS }));
        }
        let class = qos.map(|column| row.get(column)).filter(|text| !text.is_empty());
        let tenant = builder.tenant(class.unwrap_or("unknown"));
        builder.push(Job {
            at,
            duration,
            limit: None,
            priority: 0,
            queue,
            tenant,
            tasks: 1,
            request: Request {
                cpu: CpuMillis(place.number("cpu_milli", row.get(cpu))?),
                memory: MemoryBytes(place.number("memory_mib", row.get(memory))? * MIB),
                gpus: gpus as u32,
            },
        });
    }
    for (count, what) in [
        (rounded, "ask for a share of a GPU and take a whole one"),
        (unscheduled, "never started in the trace and run for as long as they existed there"),
        (models, "name GPU models, which are passed over"),
    ] {
        if count > 0 {
            builder.note(format!("{} of the trace: {what}.", jobs(count)));
        }
    }
    builder.finish().ok_or_else(|| empty(file))
}

/// Reads a list of nodes: `sn,cpu_milli,memory_mib,gpu,model`.
///
/// # Errors
/// Missing columns, the first line that is not understood; a list without nodes.
pub fn openb_nodes(file: &str, text: &str) -> Result<Vec<Machine>, TraceError> {
    let (mut csv, [name, cpu, memory, gpus]) = Csv::open(file, text, ["sn", "cpu_milli", "memory_mib", "gpu"])?;
    let model = csv.optional("model");
    let mut machines = Vec::new();
    while let Some(row) = csv.next() {
        let row = row?;
        let model = model.map_or("", |column| row.get(column));
        machines.push(Machine {
            name: row.get(name).to_owned(),
            cpu_millis: row.place.number("cpu_milli", row.get(cpu))?,
            memory_bytes: row.place.number("memory_mib", row.get(memory))? * MIB,
            gpus: row.place.number("gpu", row.get(gpus)).and_then(|gpus| {
                let most = u64::from(u16::MAX);
                let within = u16::try_from(gpus).map(u32::from);
                within.map_err(|_| row.place.error(Fault::Range { field: "gpu", got: gpus.to_string(), most }))
            })?,
            gpu_model: if model.is_empty() { "unknown" } else { model }.to_owned(),
        });
    }
    if machines.is_empty() {
        return Err(TraceError { file: file.to_owned(), line: None, fault: Fault::NoNodes });
    }
    Ok(machines)
}
