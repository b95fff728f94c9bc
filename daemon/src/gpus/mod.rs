//! What becomes of what is known about GPUs: shown to people, judged, and told to the engine.
//!
//! What must hold: nothing here waits for a driver; what was seen is shown with what speaks against promising it; a sick GPU is drained
//! for good, until somebody resumes it, and one that is merely in use, hot or silent comes back by itself.

pub mod access;
pub mod idle;
pub mod judge;
pub mod keeper;
pub mod meter;
pub mod sample;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use executors::gpu::{Driver, Gpu, Reading, View, Watcher, Where};
use scheduler_core::amounts::MemoryBytes;
use scheduler_core::ids::{JobId, Name};
use scheduler_core::scheduler::{GpuDevice, GpuKind};

use crate::config::Config;

pub use keeper::{Keeper, KeeperParts, first_view};

/// How long the start waits for the first look at the GPUs.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// The GPUs of this machine, where jobs run on it.
pub(crate) struct Survey {
    /// Who looks.
    pub(crate) watcher: Watcher,
    /// What was seen first.
    pub(crate) first: Arc<View>,
    /// Whether a driver is asked.
    pub(crate) sees: bool,
}

impl Survey {
    /// The first look, or what has come of it by the end of our patience.
    pub(crate) async fn begin(config: &Config) -> anyhow::Result<Self> {
        let place = place(config);
        let sees = matches!(place, Where::Nvml(_));
        let rules = &config.gpu;
        let watcher = Watcher::start(place.source(), duration(rules.interval), duration(rules.patience))?;
        let first = first_view(&watcher, FIRST_LOOK).await;
        Ok(Self { watcher, first, sees })
    }

    /// The GPUs that were seen, as the core has them.
    pub(crate) fn devices(&self) -> Vec<GpuDevice> {
        self.first.survey.gpus.iter().map(|reading| device(&reading.gpu)).collect()
    }

    /// Why there are none, or why some are missing.
    pub(crate) fn note(&self) -> String {
        self.first.survey.problems.join("; ")
    }
}

/// A process on a GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenProcess {
    /// Its number.
    pub pid: u32,
    /// Whose it is; `None` where it cannot be seen.
    pub user: Option<Name>,
    /// Name of its program.
    pub command: String,
    /// What it holds, in bytes.
    pub memory_bytes: Option<u64>,
    /// The job that it is of.
    pub job: Option<JobId>,
    /// When it was started, in clock ticks after boot; with the number, its identity.
    pub started: u64,
    /// It draws and does not compute.
    pub graphics: bool,
    /// How busy it kept the GPU since the look before, in percent.
    pub busy_percent: Option<u32>,
}

/// A GPU as it was seen last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// What the driver said.
    pub reading: Reading,
    /// What uses it.
    pub processes: Vec<SeenProcess>,
}

/// All that was seen last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Board {
    /// The driver.
    pub driver: Option<Driver>,
    /// Why there are no GPUs, or why some are missing.
    pub note: Option<String>,
    /// By UUID.
    pub gpus: BTreeMap<Name, Seen>,
    /// Jobs that leave their GPUs idle, and what is to be said of that.
    pub idle: BTreeMap<JobId, String>,
}

/// A [`Board`] that readers share with the keeper, its only writer.
#[derive(Clone, Debug, Default)]
pub struct SharedBoard(Arc<RwLock<Arc<Board>>>);

impl SharedBoard {
    /// As it is now.
    pub fn get(&self) -> Arc<Board> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As it is from now on.
    pub fn set(&self, board: Board) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(board);
    }
}

/// Where the configuration says that GPUs are.
pub fn place(config: &Config) -> Where {
    if config.gpu.fixed.is_empty() {
        return Where::Nvml(config.gpu.nvml_library.clone());
    }
    let gpu = |(index, fixed): (usize, &crate::config::StaticGpu)| Gpu {
        uuid: fixed.uuid.to_string(),
        index: index as u32,
        model: fixed.model.clone(),
        memory_bytes: fixed.memory.0,
        mig: fixed.mig_profile.clone().map(|profile| executors::gpu::MigPart { profile, parent: String::new() }),
        link_group: fixed.link_group,
        numa: fixed.numa,
        ..Gpu::default()
    };
    Where::Fixed(config.gpu.fixed.iter().enumerate().map(gpu).collect())
}

/// A time of the configuration.
pub fn duration(time: api::quantity::Duration) -> Duration {
    Duration::from_micros(time.0)
}

/// A GPU as the core has it.
pub fn device(gpu: &Gpu) -> GpuDevice {
    let kind = match &gpu.mig {
        Some(part) => GpuKind::Mig { profile: part.profile.as_str().into() },
        None => GpuKind::Whole,
    };
    let whole = GpuDevice::whole(gpu.uuid.as_str().into(), gpu.model.as_str().into(), MemoryBytes(gpu.memory_bytes));
    GpuDevice { kind, link_group: gpu.link_group, numa: gpu.numa, ..whole }
}
