//! A local executor with a real runner, in folders of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use executors::local::{LocalExecutor, LocalOptions};
use executors::{DeviceAccess, Executor};

use crate::rig::{Inbox, PATIENCE, Rig};

/// The folders of one runner, whoever is connected to it. The runner is killed at the end.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    /// Arguments for runners that are started from now on.
    pub(crate) runner_args: Vec<OsString>,
    /// What goes before the runner's program.
    pub(crate) wrapper: Vec<OsString>,
    /// The data folder's name.
    pub(crate) below: String,
    /// How long a runner may take to listen.
    pub(crate) connect_timeout: Duration,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        Self {
            folder,
            runner_args: ["--leftover-grace-ms", "300"].map(OsString::from).to_vec(),
            wrapper: Vec::new(),
            below: "data".to_owned(),
            connect_timeout: PATIENCE,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join(&self.below)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// An executor that has not adopted yet.
    pub(crate) fn executor(&self) -> (Arc<LocalExecutor>, Inbox) {
        let (reports, inbox) = Inbox::new();
        let mut command = self.wrapper.clone();
        command.push(OsString::from(env!("CARGO_BIN_EXE_flash-test-runner")));
        command.extend(self.runner_args.iter().cloned());
        let mut options = LocalOptions::new(self.dir(), self.logs(), command, reports);
        options.connect_timeout = self.connect_timeout;
        (Arc::new(LocalExecutor::new(options).unwrap()), inbox)
    }

    /// An executor that has adopted: a daemon that has come up.
    pub(crate) async fn daemon(&self) -> Rig {
        let (executor, inbox) = self.executor();
        executor.adopt().await.unwrap();
        Rig { executor, inbox, folder: self.work(), logs: self.logs() }
    }

    /// The same with what its runner says of keeping runs from devices.
    pub(crate) async fn guarded(&self) -> (Rig, DeviceAccess) {
        let (executor, inbox) = self.executor();
        executor.adopt().await.unwrap();
        let access = executor.device_access().borrow().clone().unwrap();
        (Rig { executor, inbox, folder: self.work(), logs: self.logs() }, access)
    }

    /// The runner's process.
    pub(crate) fn runner_pid(&self) -> i32 {
        std::fs::read_to_string(self.dir().join("runner.lock")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.dir().join("runner.lock")).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
