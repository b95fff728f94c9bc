//! Our own client as a peer among peers: `flash submit`, one job a command, over the Unix socket.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::control::Endpoint;
use crate::peers::Peer;
use crate::peers::place::Place;
use crate::server::{Server, ServerOptions};

/// A daemon of our own.
pub(super) struct Ours {
    server: Server,
    flash: PathBuf,
    address: String,
}

fn flash() -> Result<PathBuf> {
    let path = std::env::current_exe().context("finding this program")?.with_file_name("flash");
    if path.is_file() { Ok(path) } else { bail!("no program `flash` beside this one") }
}

/// `flash --version`.
pub(super) fn version() -> Result<String> {
    let output = Command::new(flash()?).arg("--version").output().context("starting flash")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Ours {
    pub(super) fn start(place: &Place) -> Result<Self> {
        let server = Server::open(&ServerOptions::own(&place.folder))?;
        let Endpoint::Unix(socket) = &server.client.endpoint else { bail!("a server without a Unix socket") };
        let address = format!("unix://{}", socket.display());
        Ok(Self { server, flash: flash()?, address })
    }
}

impl Peer for Ours {
    fn hold(&mut self) -> Result<()> {
        self.server.hold_node()
    }

    fn submit(&self, number: u32) -> Result<Command> {
        let mut command = Command::new(&self.flash);
        command.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin").env("FLASH_SERVER", &self.address);
        command.args(["submit", "-n", &format!("job-{number}"), "--", "true"]);
        Ok(command)
    }

    fn fill(&mut self, _count: u32) -> Result<()> {
        bail!("true jobs of our own are measured by `loadgen true-jobs`")
    }

    fn drain(&mut self, _count: u32) -> Result<f64> {
        bail!("true jobs of our own are measured by `loadgen true-jobs`")
    }
}
