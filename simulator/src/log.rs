//! A decision log, written while a simulation runs: the same lines as `flashd` writes.
//!
//! Invariant: what is written is a whole number of lines, unless the disk says otherwise; then nothing more is written and
//! [`DecisionLog::finish`] says why.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use scheduler_core::Config;
use scheduler_core::record::{Begin, Entry, FORMAT, Line, Tap};

struct State<W> {
    out: W,
    fault: Option<io::Error>,
}

/// Writes lines to wherever it is told. Clones write to the same place.
pub struct DecisionLog<W> {
    state: Arc<Mutex<State<W>>>,
}

impl<W: Write + Send + 'static> DecisionLog<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> Self {
        Self { state: Arc::new(Mutex::new(State { out, fault: None })) }
    }

    /// What writes to it.
    pub fn tap(&self) -> Box<dyn Tap> {
        Box::new(Self { state: Arc::clone(&self.state) })
    }

    /// Hands on what is held back.
    ///
    /// # Errors
    /// The first error of any write.
    pub fn finish(self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.fault.take() {
            Some(fault) => Err(fault),
            None => state.out.flush(),
        }
    }

    fn write(&self, line: &Line) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.fault.is_none() {
            let State { out, fault } = &mut *state;
            *fault = write_line(out, line).err();
        }
    }
}

impl<W: Write + Send + 'static> Tap for DecisionLog<W> {
    fn begin(&mut self, config: &Config) {
        let begin = Begin { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), config: config.clone() };
        self.write(&Line::Begin(Box::new(begin)));
    }

    fn entry(&mut self, entry: Entry) {
        self.write(&Line::Did(entry));
    }
}

fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
