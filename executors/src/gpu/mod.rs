//! The GPUs of this machine: what they are, how they are, and what uses them.
//!
//! What must hold:
//! - A machine without GPUs, without a driver or with a broken one is a machine without GPUs: that never fails, and the reason is told.
//! - Whoever asks a driver does so on one thread of its own ([`Watcher`]). A call that does not come back holds up nothing else: what was known
//!   is told on, with the name of that call.
//! - A GPU is known by its UUID. Its index, and all else of it, may be another after a restart.

mod device;
mod fixed;
mod groups;
mod nvml;
mod process;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use fixed::Fixed;
pub use nvml::Nvml;
pub use process::{Proc, Procfs};
pub use watch::{Rounds, Stall, View, Watcher, WatcherError};

/// Where GPUs are found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Where {
    /// Asked of NVIDIA's driver, through its library or another one.
    Nvml(Option<PathBuf>),
    /// These, of which nothing more will be known.
    Fixed(Vec<Gpu>),
}

/// Finds GPUs and says how they are, for as long as it is let.
pub trait GpuSource: Send + 'static {
    /// Looks again and again; what it finds goes to [`Rounds::tell`], which returns when it is time to look again, or says that it is over.
    fn run(&mut self, rounds: &mut Rounds);
}

/// Versions of a driver.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Driver {
    /// Its own.
    pub version: String,
    /// Of the newest CUDA that it can run; empty if it does not say.
    pub cuda: String,
}

/// A part of a GPU that is given away as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MigPart {
    /// Its profile, as `1g.10gb`.
    pub profile: String,
    /// UUID of the GPU that it is a part of.
    pub parent: String,
}

/// What a GPU, or an instance of one, is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gpu {
    /// What `CUDA_VISIBLE_DEVICES` takes: stable over reboots and driver updates.
    pub uuid: String,
    /// Its place in the driver's order; that of its GPU for a MIG instance.
    pub index: u32,
    /// The number in the name of its device node (`/dev/nvidia0`), where the driver tells it; that of its GPU for a MIG instance.
    pub minor: Option<u32>,
    /// The product's name; empty if the driver does not tell it.
    pub model: String,
    /// Memory in bytes; 0 if the driver does not tell it.
    pub memory_bytes: u64,
    /// `domain:bus:device.function`.
    pub pci: Option<String>,
    /// Compute capability, `major.minor`.
    pub compute: Option<String>,
    /// What it is a part of, if it is one.
    pub mig: Option<MigPart>,
    /// Those with the same number reach each other by NVLink.
    pub link_group: Option<u16>,
    /// Those with the same number are below the same PCI switches.
    pub pcie_group: Option<u16>,
    /// The NUMA node that it is attached to.
    pub numa: Option<u16>,
}

/// A process that uses a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuProcess {
    /// Its number, as the driver sees it.
    pub pid: u32,
    /// What it holds, in bytes; `None` where the driver does not tell it.
    pub memory_bytes: Option<u64>,
    /// It draws and does not compute: a desktop.
    pub graphics: bool,
    /// How much of the GPU it kept busy since the look before, in percent; `None` where the driver does not tell it.
    pub busy_percent: Option<u32>,
}

/// How a GPU was when it was looked at. `None` is whatever this one, or its driver, does not tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// What it is.
    pub gpu: Arc<Gpu>,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Part of the time in which something ran on it, in percent.
    pub busy_percent: Option<u32>,
    /// Degrees Celsius.
    pub celsius: Option<u32>,
    /// Degrees Celsius from which on it slows down.
    pub slowdown_celsius: Option<u32>,
    /// Draw in milliwatts.
    pub milliwatts: Option<u32>,
    /// Since the driver was loaded, in millijoules.
    pub energy_millijoules: Option<u64>,
    /// Uncorrectable memory errors since the driver was loaded.
    pub ecc_errors: Option<u64>,
    /// It runs slower than it could, and why.
    pub throttled: Option<&'static str>,
    /// Critical errors since it was looked at before, by their numbers (Xid).
    pub xids: Vec<u64>,
    /// What uses it; `None` where that is not known.
    pub processes: Option<Vec<GpuProcess>>,
    /// It was there, and nothing can be asked of it any more: what the driver says.
    pub lost: Option<String>,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// The driver, where one answered.
    pub driver: Option<Driver>,
    /// In the driver's order.
    pub gpus: Vec<Reading>,
    /// Why there are none, or why some are missing; empty if nothing is wrong.
    pub problems: Vec<String>,
}

impl Where {
    /// What looks there.
    pub fn source(self) -> Box<dyn GpuSource> {
        match self {
            Self::Nvml(library) => Box::new(Nvml::new(library)),
            Self::Fixed(gpus) => Box::new(Fixed::new(gpus)),
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nvml(None) => f.write_str("NVML"),
            Self::Nvml(Some(path)) => write!(f, "NVML ({})", path.display()),
            Self::Fixed(_) => f.write_str("flashd.toml"),
        }
    }
}
