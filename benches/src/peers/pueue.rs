//! pueue: a daemon and its command line over a Unix socket; what it knows of its tasks, it says with times.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::peers::Peer;
use crate::peers::place::{Place, in_parallel, said, until_it_works};

/// Commands at once while the line is filled.
const AT_ONCE: u32 = 4;

pub(super) struct Pueue {
    place: Place,
    config: PathBuf,
}

impl Pueue {
    pub(super) fn start(place: Place) -> Result<Self> {
        let data = place.folder("pueue")?;
        let text = format!(
            "shared:\n  pueue_directory: {0}\n  runtime_directory: {0}\n  use_unix_socket: true\n  unix_socket_path: {0}/socket\n\
             client: {{}}\ndaemon: {{}}\n",
            data.display()
        );
        let config = place.write("pueue.yml", &text)?;
        let mut daemon = place.program("pueued")?;
        daemon.arg("-c").arg(&config);
        place.daemon("pueued", daemon)?;
        let peer = Self { place, config };
        until_it_works("pueued's first answer", || peer.client(&["parallel", "2"]))?;
        Ok(peer)
    }

    fn client(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.place.program("pueue")?;
        command.arg("-c").arg(&self.config).args(args);
        Ok(command)
    }
}

impl Peer for Pueue {
    fn hold(&mut self) -> Result<()> {
        said(self.client(&["pause"])?).map(drop)
    }

    fn submit(&self, _number: u32) -> Result<Command> {
        self.client(&["add", "--", "true"])
    }

    fn fill(&mut self, count: u32) -> Result<()> {
        in_parallel(count, AT_ONCE, |number| self.submit(number)).map(drop)
    }

    fn drain(&mut self, count: u32) -> Result<f64> {
        said(self.client(&["start"])?)?;
        said(self.client(&["wait", "--all", "--quiet"])?)?;
        let status: Value =
            serde_json::from_str(&said(self.client(&["status", "--json"])?)?).context("reading pueue's status")?;
        let tasks: BTreeMap<String, Value> =
            serde_json::from_value(status["tasks"].clone()).context("tasks of pueue's status")?;
        let (mut first, mut last, mut good) = (None, None, 0);
        for task in tasks.values() {
            let done = &task["status"]["Done"];
            let time = |key: &str| -> Result<jiff::Timestamp> {
                let text = done[key].as_str().with_context(|| format!("a task of pueue without `{key}`: {}", task["status"]))?;
                text.parse().with_context(|| format!("`{text}` is not a time"))
            };
            let (start, end) = (time("start")?, time("end")?);
            first = Some(first.map_or(start, |first: jiff::Timestamp| first.min(start)));
            last = Some(last.map_or(end, |last: jiff::Timestamp| last.max(end)));
            good += u32::from(done["result"] == "Success");
        }
        let (Some(first), Some(last)) = (first, last) else { bail!("pueue has no tasks") };
        if good != count {
            bail!("{good} of {count} tasks succeeded");
        }
        Ok(last.duration_since(first).as_secs_f64())
    }
}
