//! What can be wrong with a trace and with a simulation, told so that the line or the part can be found.

use std::fmt;

use scheduler_core::{ConfigError, Violation};

/// A trace or a list of machines that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct TraceError {
    /// As the caller named it.
    pub file: String,
    /// Counted from 1; `None` where it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.fault),
            None => write!(f, "{}: {}", self.file, self.fault),
        }
    }
}

/// What is wrong with a trace.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing to simulate.
    #[error("there is no job in it")]
    Empty,
    /// A list of machines without any.
    #[error("there is no node in it")]
    NoNodes,
    /// The header lacks columns.
    #[error("column missing: {}; the header must have: {}", .missing.join(", "), .needed.join(", "))]
    MissingColumns {
        /// Those that are not there.
        missing: Vec<&'static str>,
        /// All that are read.
        needed: Vec<&'static str>,
    },
    /// A row of another width than the format or the header says.
    #[error("{got} columns, must be {expected}{}", .first_missing.map(|name| format!(" (the first missing one is {name})")).unwrap_or_default())]
    Width {
        /// In this row.
        got: usize,
        /// In the format.
        expected: usize,
        /// The first column that is not there.
        first_missing: Option<&'static str>,
    },
    /// A field that is not what it must be.
    #[error("{field}: `{got}` is not {expected}")]
    Field {
        /// The column.
        field: &'static str,
        /// What stands there.
        got: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Below zero.
    #[error("{field}: {got} is negative, must be 0 or more")]
    Negative {
        /// The column.
        field: &'static str,
        /// What stands there.
        got: String,
    },
    /// Too large to be true.
    #[error("{field}: {got} is out of range, at most {most} is possible")]
    Range {
        /// The column.
        field: &'static str,
        /// What stands there.
        got: String,
        /// The largest value.
        most: u64,
    },
    /// A job that ends before it begins.
    #[error("{end} {got} is before {begin} {before}")]
    EndsFirst {
        /// The column of its end.
        end: &'static str,
        /// What stands there.
        got: String,
        /// The column of its begin.
        begin: &'static str,
        /// What stands there.
        before: String,
    },
    /// Jobs out of order.
    #[error("not sorted: {field} {got} comes after {before} of the job before; sort the trace by {field}")]
    Unsorted {
        /// The column.
        field: &'static str,
        /// In this row.
        got: String,
        /// In the row before.
        before: String,
    },
}

/// Why a simulation could not be finished.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SimulateError {
    /// The core does not take the machines or queues.
    #[error("setting up the scheduler: {0}")]
    Config(#[from] ConfigError),
    /// The core broke a promise of its own: a fault of the scheduler, found by [`Options::check`](crate::Options::check).
    #[error("at {micros} microseconds the scheduler broke its invariants: {violation}")]
    Invariant {
        /// Virtual time.
        micros: i64,
        /// What it found.
        violation: Violation,
    },
    /// The core refused a report that is true: a fault of the scheduler or of the simulator.
    #[error("job {job} at {micros} microseconds: the scheduler refused a true report: {detail}")]
    Report {
        /// Position in the workload, from 0.
        job: usize,
        /// Virtual time.
        micros: i64,
        /// What it said.
        detail: String,
    },
    /// Passes of one instant do not come to an end: a fault of the scheduler.
    #[error("at {micros} microseconds the scheduler has not come to rest after {passes} passes")]
    Livelock {
        /// Virtual time.
        micros: i64,
        /// How many there were.
        passes: usize,
    },
    /// Jobs are left that nothing will ever start.
    #[error("{jobs} jobs wait and nothing is left that could let them start; the first is number {first}")]
    Stuck {
        /// How many.
        jobs: usize,
        /// Position in the workload of the first of them, from 0.
        first: usize,
    },
}
