//! task-spooler: a server in memory behind a Unix socket, and for each job a client that waits beside it and becomes its parent.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::peers::Peer;
use crate::peers::place::{Gates, PATIENCE, Place, in_parallel, said, until_it_works};
use crate::server::poll_until;

/// Commands at once while the line is filled.
const AT_ONCE: u32 = 4;
/// Slots.
const SLOTS: u32 = 2;

pub(super) struct TaskSpooler {
    place: Place,
    gates: Gates,
}

impl TaskSpooler {
    pub(super) fn start(place: Place) -> Result<Self> {
        let gates = Gates::new(&place.folder, SLOTS)?;
        let peer = Self { place, gates };
        // The first command would start the server itself, with its own output for the server's: nobody could read that to its end.
        let mut server = peer.client(&["-S", "2"])?;
        server.env("TS_SLOTS", SLOTS.to_string());
        peer.place.daemon("tsp", server)?;
        until_it_works("the task spooler's first answer", || peer.client(&["-S"]))?;
        Ok(peer)
    }

    fn client(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.place.program("tsp")?;
        command.env("TS_SOCKET", self.place.folder.join("socket")).env("TS_MAXCONN", "100000").env("TS_MAXFINISHED", "1000000");
        command.args(args);
        Ok(command)
    }

    /// Jobs in the list, each as its state and its exit code.
    fn list(&self) -> Result<Vec<(String, String)>> {
        let list = said(self.client(&[])?)?;
        let word = |line: &str, number: usize| line.split_whitespace().nth(number).unwrap_or_default().to_owned();
        Ok(list.lines().skip(1).map(|line| (word(line, 1), word(line, 3))).collect())
    }
}

impl Peer for TaskSpooler {
    fn hold(&mut self) -> Result<()> {
        for gate in self.gates.paths() {
            // The client of a job stays with it, and so does what it was given for its output.
            self.place.daemon("gate", self.client(&["-n", "cat", &gate.to_string_lossy()])?)?;
        }
        self.gates.hold()
    }

    fn submit(&self, _number: u32) -> Result<Command> {
        self.client(&["-n", "true"])
    }

    fn fill(&mut self, count: u32) -> Result<()> {
        in_parallel(count, AT_ONCE, |number| self.submit(number)).map(drop)
    }

    fn drain(&mut self, count: u32) -> Result<f64> {
        let begun = Instant::now();
        self.gates.release();
        // Jobs start in the order of their numbers: when the last has ended, at most one other has not.
        said(self.client(&["-w", &(SLOTS + count - 1).to_string()])?)?;
        let jobs = poll_until("the end of all jobs", PATIENCE, || {
            let jobs = self.list()?;
            Ok(jobs.iter().all(|(state, _)| state == "finished").then_some(jobs))
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let good = jobs.iter().filter(|(_, code)| code == "0").count();
        if good != (SLOTS + count) as usize {
            bail!("{good} of {} jobs succeeded", SLOTS + count);
        }
        Ok(seconds)
    }
}
