//! A machine with GPUs that has none: the project's stand-in for the NVML library.

use std::path::{Path, PathBuf};

use super::Daemon;

pub const CONFIG: &str = "listen = \"off\"\n[node]\nname = \"box\"\ncpus = 8\nmemory = \"1Gi\"\n[gpu]\ninterval = \"20ms\"\n";

/// A daemon, its driver, and a folder for gates.
pub struct Machine {
    pub daemon: Daemon,
    pub library: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Machine {
    /// With lines for the `[gpu]` table of its configuration.
    pub fn new(state: &str, gpu: &str) -> Self {
        Self::within(tempfile::tempdir().unwrap(), state, gpu)
    }

    /// The same in a folder that is there already.
    pub fn within(folder: tempfile::TempDir, state: &str, gpu: &str) -> Self {
        let library = nvml_stand_in::install(folder.path(), state).unwrap();
        let mut daemon = Daemon::prepare(&folder.path().join("data"), &format!("{CONFIG}{gpu}\n"));
        daemon.extra = vec!["--gpu-nvml-library".to_owned(), library.to_str().unwrap().to_owned()];
        daemon.restart();
        Self { daemon, library, folder }
    }

    /// What the driver says from now on.
    pub fn set(&self, state: &str) {
        nvml_stand_in::set(&self.library, state).unwrap();
    }
}

/// The library, in this folder, with two devices: `GPU-1` with 1 GiB and `GPU-2` with 2 GiB.
pub fn stand_in(folder: &Path) -> PathBuf {
    nvml_stand_in::install(folder, &[device(1, ""), device(2, "")].concat()).unwrap()
}

/// A device of the stand-in: as many GiB as its number.
pub fn device(number: u32, more: &str) -> String {
    format!("[[devices]]\nuuid = \"GPU-{number}\"\nmemory = \"{number}Gi\"\n{more}\n")
}
