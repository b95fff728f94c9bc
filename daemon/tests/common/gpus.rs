//! A machine with GPUs that has none: the project's stand-in for the NVML library.

use std::path::{Path, PathBuf};

/// The library, in this folder, with two devices: `GPU-1` with 1 GiB and `GPU-2` with 2 GiB.
pub fn stand_in(folder: &Path) -> PathBuf {
    nvml_stand_in::install(folder, &[device(1, ""), device(2, "")].concat()).unwrap()
}

/// A device of the stand-in: as many GiB as its number.
pub fn device(number: u32, more: &str) -> String {
    format!("[[devices]]\nuuid = \"GPU-{number}\"\nmemory = \"{number}Gi\"\n{more}\n")
}
