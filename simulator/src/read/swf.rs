//! Standard Workload Format, version 2: one job a line in 18 columns, comments behind `;`, -1 for what is not known.
//!
//! Processors are tasks of one core each, so that a job may spread over nodes as its processes would. A requested time is the job's
//! time limit. Waiting times, status, dependencies and think times of the recorded system are passed over: they belong to its
//! scheduler, not to the workload.

use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::time::Span;

use crate::error::{Fault, TraceError};
use crate::read::{LATEST_SECONDS, LONGEST_SECONDS, Order, Place, empty, jobs};
use crate::workload::{Builder, Job, Workload};

/// The names that the standard gives its columns.
const COLUMNS: [&str; 18] = [
    "job number",
    "submit time",
    "wait time",
    "run time",
    "number of allocated processors",
    "average CPU time used",
    "used memory",
    "requested number of processors",
    "requested time",
    "requested memory",
    "status",
    "user ID",
    "group ID",
    "executable (application) number",
    "queue number",
    "partition number",
    "preceding job number",
    "think time from preceding job",
];

const SUBMIT: usize = 1;
const RUN: usize = 3;
const ALLOCATED: usize = 4;
const REQUESTED: usize = 7;
const LIMIT: usize = 8;
const MEMORY: usize = 9;
const USER: usize = 11;
const QUEUE: usize = 14;

/// A line of a trace.
struct Line<'a> {
    place: Place<'a>,
    fields: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn split(place: Place<'a>, line: &'a str) -> Result<Self, TraceError> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() == COLUMNS.len() {
            return Ok(Self { place, fields });
        }
        let first_missing = COLUMNS.get(fields.len()).copied();
        Err(place.error(Fault::Width { got: fields.len(), expected: COLUMNS.len(), first_missing }))
    }

    /// A column where -1 says that nobody knows.
    fn known(&self, column: usize) -> Option<&'a str> {
        Some(self.fields[column]).filter(|text| *text != "-1")
    }

    fn number(&self, column: usize) -> Result<Option<u64>, TraceError> {
        self.known(column).map(|text| self.place.number(COLUMNS[column], text)).transpose()
    }

    fn seconds(&self, column: usize) -> Result<Option<Span>, TraceError> {
        self.known(column).map(|text| self.place.seconds(COLUMNS[column], text, LONGEST_SECONDS)).transpose()
    }
}

/// Reads a trace.
///
/// # Errors
/// The first line that is not as the standard says, has a negative time or is out of order; a trace without jobs.
pub fn swf(file: &str, text: &str) -> Result<Workload, TraceError> {
    let mut builder = Builder::new();
    let mut order = Order::of(COLUMNS[SUBMIT]);
    let mut unknown = 0;
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with(';') {
            continue;
        }
        let line = Line::split(Place { file, line: index + 1 }, line)?;
        // Without its arrival a job cannot be simulated at all, so here -1 is a negative time like any other.
        let at = line.place.seconds(COLUMNS[SUBMIT], line.fields[SUBMIT], LATEST_SECONDS)?;
        order.check(line.place, at, line.fields[SUBMIT])?;
        let duration = line.seconds(RUN)?;
        let processors = line.number(REQUESTED)?.filter(|&count| count > 0).or(line.number(ALLOCATED)?);
        let (Some(duration), Some(processors)) = (duration, processors.filter(|&count| count > 0)) else {
            unknown += 1;
            continue;
        };
        let kilobytes = line.number(MEMORY)?.unwrap_or(0);
        let user = line.number(USER)?.map_or("unknown".to_owned(), |user| format!("user-{user}"));
        let queue = line.number(QUEUE)?.map_or("default".to_owned(), |queue| format!("queue-{queue}"));
        let job = Job {
            at,
            duration,
            limit: line.seconds(LIMIT)?.filter(|limit| limit.0 > 0),
            priority: 0,
            queue: builder.queue(&queue),
            tenant: builder.tenant(&user),
            tasks: processors as u32,
            request: Request { cpu: CpuMillis(1_000), memory: MemoryBytes(kilobytes * 1_024), gpus: 0 },
        };
        builder.push(job);
    }
    if unknown > 0 {
        builder.note(format!("{} left out: the trace knows no run time or no number of processors for them.", jobs(unknown)));
    }
    builder.finish().ok_or_else(|| empty(file))
}
