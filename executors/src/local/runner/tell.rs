//! What the daemon is told of runs: as they are observed, and as reports. Nothing is told that is not durable.

use scheduler_core::ids::RunId;

use super::table::{End, Outgoing, Run, Table};
use crate::contract::{Observed, Report, RunPhase};
use crate::local::protocol::{PAGE_RUNS, Told};

impl Table {
    /// Puts a report out, if somebody listens. Who comes later is told by [`Table::answer`].
    pub(super) fn report(&mut self, report: Report) {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.subscribed) {
            let report = if connection.lines { report } else { older::report(report) };
            self.outbox.push_back(Outgoing::Report(report));
        }
    }

    /// Answers an observation. On a connection's first, all that the daemon may have missed is reported again behind the answer.
    pub(super) fn answer(&mut self, id: u64) {
        let lines = self.connection.as_ref().is_some_and(|connection| connection.lines);
        let mut pages: Vec<Vec<Observed>> = vec![Vec::new()];
        for (run, state) in &self.runs {
            if pages.last().is_some_and(|page| page.len() == PAGE_RUNS) {
                pages.push(Vec::new());
            }
            if let Some(page) = pages.last_mut() {
                let phase = if lines { state.phase() } else { older::phase(state.phase()) };
                page.push(Observed { run: *run, phase });
            }
        }
        let count = pages.len();
        for (index, runs) in pages.into_iter().enumerate() {
            self.outbox.push_back(Outgoing::Told(Told::Runs { id, runs, last: index + 1 == count }));
        }
        let Some(connection) = &mut self.connection else { return };
        if !std::mem::replace(&mut connection.subscribed, true) {
            let again = self.runs.iter().filter_map(|(run, state)| state.report(*run));
            let again = again.map(|report| if lines { report } else { older::report(report) });
            self.outbox.extend(again.map(Outgoing::Report));
        }
    }
}

impl Run {
    /// As it is observed.
    fn phase(&self) -> RunPhase {
        match self {
            Self::Ended(End::Over { result, started_at, at }) => {
                RunPhase::Ended { result: result.clone(), started_at: *started_at, at: *at }
            }
            Self::Ended(End::NotBegun { message, at }) => RunPhase::NotBegun { message: message.clone(), at: *at },
            // Not before it is durable.
            Self::Settling(End::Over { started_at: Some(since), .. }) => RunPhase::Running { since: *since },
            Self::Settling(End::Over { started_at: None, .. }) => RunPhase::Starting,
            Self::Held(_) | Self::Settling(End::NotBegun { .. }) => RunPhase::Held,
            Self::Live(live) if live.ending.is_some() => RunPhase::Stopping,
            Self::Live(live) => live.started_at.map_or(RunPhase::Starting, |since| RunPhase::Running { since }),
        }
    }

    /// What a daemon that comes anew is told of it.
    fn report(&self, run: RunId) -> Option<Report> {
        match self {
            Self::Held(_) | Self::Settling(End::NotBegun { .. }) => None,
            Self::Ended(end) => Some(end.report(run)),
            Self::Settling(End::Over { started_at, .. }) => started_at.map(|at| Report::Started { run, at }),
            Self::Live(live) => live.started_at.map(|at| Report::Started { run, at }),
        }
    }
}

impl End {
    /// As it is told.
    pub(super) fn report(&self, run: RunId) -> Report {
        match self.clone() {
            Self::Over { result, started_at, at } => Report::Ended { run, result, started_at, at },
            Self::NotBegun { message, at } => Report::NotBegun { run, message, at },
        }
    }
}

/// How a daemon is told of lines that does not know them: one that is older than what it finds here.
mod older {
    use super::super::table::lost;
    use super::{Report, RunPhase};

    pub(super) fn report(report: Report) -> Report {
        match report {
            Report::NotBegun { run, message, at } => Report::Ended { run, result: lost(&message), started_at: None, at },
            other => other,
        }
    }

    pub(super) fn phase(phase: RunPhase) -> RunPhase {
        match phase {
            RunPhase::Held => RunPhase::Starting,
            RunPhase::NotBegun { message, at } => RunPhase::Ended { result: lost(&message), started_at: None, at },
            other => other,
        }
    }
}
