//! The public table of Microsoft's Philly clusters: `timestamp,duration,num_gpus,gpu_time,cluster`.
//!
//! `duration` is in seconds; `gpu_time` is their product and passed over. The virtual cluster is the tenant: all share one pool of GPUs
//! here. The trace knows neither CPU nor memory, so neither is asked for. A job of more than 8 GPUs, which no machine of Philly had,
//! becomes a gang of equal tasks of at most 8.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use scheduler_core::amounts::Request;
use scheduler_core::time::Span;

use crate::error::{Fault, TraceError};
use crate::read::csv::Csv;
use crate::read::{LONGEST_SECONDS, Order, Place, empty, jobs};
use crate::workload::{Builder, Job, Workload};

/// GPUs of the largest machine.
const GPUS_A_NODE: u64 = 8;

/// Reads a trace.
///
/// # Errors
/// Missing columns, the first line that is not understood, has a negative time or is out of order; a trace without jobs.
pub fn philly(file: &str, text: &str) -> Result<Workload, TraceError> {
    let (mut csv, [timestamp, duration, gpus, cluster]) =
        Csv::open(file, text, ["timestamp", "duration", "num_gpus", "cluster"])?;
    let mut builder = Builder::new();
    let mut order = Order::of("timestamp");
    let queue = builder.queue("default");
    let mut without = 0;
    while let Some(row) = csv.next() {
        let row = row?;
        let at = moment(row.place, row.get(timestamp))?;
        order.check(row.place, at, row.get(timestamp))?;
        let duration = row.place.seconds("duration", row.get(duration), LONGEST_SECONDS)?;
        let gpus = row.place.number("num_gpus", row.get(gpus))?;
        if gpus == 0 {
            without += 1;
            continue;
        }
        let each = (1..=GPUS_A_NODE).rev().find(|each| gpus.is_multiple_of(*each)).unwrap_or(1);
        let tenant = builder.tenant(row.get(cluster));
        builder.push(Job {
            at,
            duration,
            limit: None,
            priority: 0,
            queue,
            tenant,
            tasks: (gpus / each) as u32,
            request: Request { gpus: each as u32, ..Request::default() },
        });
    }
    if without > 0 {
        builder.note(format!("{} without GPUs left out: the trace does not say what else they ask for.", jobs(without)));
    }
    builder.finish().ok_or_else(|| empty(file))
}

/// `2017-09-04 10:30:41`, taken as UTC: the trace names no time zone, and only differences count.
fn moment(place: Place<'_>, text: &str) -> Result<Span, TraceError> {
    const EXPECTED: &str = "a time from 1970 on, like 2017-09-04 10:30:41";
    let micros =
        text.parse::<DateTime>().and_then(|time| time.to_zoned(TimeZone::UTC)).map(|time| time.timestamp().as_microsecond());
    let micros = micros.ok().and_then(|micros| u64::try_from(micros).ok());
    micros.map(Span).ok_or_else(|| place.error(Fault::Field { field: "timestamp", got: text.to_owned(), expected: EXPECTED }))
}
