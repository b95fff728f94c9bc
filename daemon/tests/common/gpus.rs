//! A machine with GPUs that has none: the project's stand-in for the NVML library.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use super::{Daemon, PATIENCE};

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

    /// A file that a job waits for.
    pub fn gate(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until a GPU is so.
    pub async fn until(&self, uuid: &str, what: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                // One that has not been found yet is none.
                let (_, gpu) = self.daemon.get(&format!("/api/v1/gpus/{uuid}")).await;
                if what(&gpu) {
                    return gpu;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{uuid}\n{}", self.daemon.log()))
    }
}

/// A process of a job, or of nobody's, ended with the test.
pub struct Somebody(pub Child);

impl Somebody {
    pub fn new(job: Option<&str>) -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000").env_remove("FLASH_JOB_ID").envs(job.map(|job| ("FLASH_JOB_ID", job)));
        Self(command.spawn().unwrap())
    }

    /// As one of the processes of a device, with what else is said of it.
    pub fn entry(&self, memory: &str, more: &str) -> String {
        format!("{{ pid = {}, memory = \"{memory}\"{more} }}", self.0.id())
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
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
