//! Readers of formats that others have fixed.
//!
//! What must hold: a row that is not understood stops the reading and is named by file and line, nothing is guessed; a job whose
//! size or run time a trace does not know is left out and counted in a note; arrivals must be sorted, because a trace that is
//! not has been damaged or cut together.

mod csv;
mod openb;
mod philly;
mod swf;

use scheduler_core::time::Span;

pub use openb::{openb, openb_nodes};
pub use philly::philly;
pub use swf::swf;

use crate::error::{Fault, TraceError};

/// Latest arrival, in seconds: 3,000 years, so that Unix times fit and microseconds stay within 64 bits.
const LATEST_SECONDS: u64 = 100_000_000_000;
/// Longest run time and limit, in seconds: ten years.
const LONGEST_SECONDS: u64 = 3_650 * 86_400;
/// Most millicores, MiB or GPUs of one job.
const MOST_AMOUNT: u64 = 1_000_000_000;

/// Where in a file something stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
}

impl Place<'_> {
    fn error(self, fault: Fault) -> TraceError {
        TraceError { file: self.file.to_owned(), line: Some(self.line), fault }
    }

    /// Seconds, whole or with a fraction, as microseconds.
    fn seconds(self, field: &'static str, text: &str, most: u64) -> Result<Span, TraceError> {
        const EXPECTED: &str = "a number of seconds";
        let wrong = || self.error(Fault::Field { field, got: text.to_owned(), expected: EXPECTED });
        let seconds: f64 = text.parse().map_err(|_| wrong())?;
        if !seconds.is_finite() {
            return Err(wrong());
        }
        if seconds < 0.0 {
            return Err(self.error(Fault::Negative { field, got: text.to_owned() }));
        }
        if seconds > most as f64 {
            return Err(self.error(Fault::Range { field, got: text.to_owned(), most }));
        }
        Ok(Span((seconds * 1e6).round() as u64))
    }

    /// A whole number.
    fn number(self, field: &'static str, text: &str) -> Result<u64, TraceError> {
        let signed: i64 =
            text.parse().map_err(|_| self.error(Fault::Field { field, got: text.to_owned(), expected: "a whole number" }))?;
        let number = u64::try_from(signed).map_err(|_| self.error(Fault::Negative { field, got: text.to_owned() }))?;
        if number > MOST_AMOUNT {
            return Err(self.error(Fault::Range { field, got: text.to_owned(), most: MOST_AMOUNT }));
        }
        Ok(number)
    }
}

/// Arrivals seen so far.
struct Order<'a> {
    field: &'static str,
    before: Option<(Span, &'a str)>,
}

impl<'a> Order<'a> {
    const fn of(field: &'static str) -> Self {
        Self { field, before: None }
    }

    /// An arrival must not come before the last one.
    fn check(&mut self, place: Place<'_>, at: Span, text: &'a str) -> Result<(), TraceError> {
        if let Some((before, was)) = self.before
            && at < before
        {
            return Err(place.error(Fault::Unsorted { field: self.field, got: text.to_owned(), before: was.to_owned() }));
        }
        self.before = Some((at, text));
        Ok(())
    }
}

/// Nothing in the whole file.
fn empty(file: &str) -> TraceError {
    TraceError { file: file.to_owned(), line: None, fault: Fault::Empty }
}

/// `1 job`, `2 jobs`.
fn jobs(count: usize) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}
