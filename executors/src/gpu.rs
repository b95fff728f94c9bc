//! The GPUs of this machine, as NVML knows them.
//!
//! A machine without GPUs, without a driver or with a broken one is a machine without GPUs: that never keeps the daemon from starting.
//! The reason is told, for the log and for whoever asks why a GPU is missing.

use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// One GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gpu {
    /// What `CUDA_VISIBLE_DEVICES` takes: stable over reboots and driver updates.
    pub uuid: String,
    /// The product's name; empty if the driver does not tell it.
    pub model: String,
    /// Memory in bytes; 0 if the driver does not tell it.
    pub memory_bytes: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GpuInventory {
    /// In the driver's order.
    pub gpus: Vec<Gpu>,
    /// Why there are none, or why some are missing; empty if nothing is wrong.
    pub problems: Vec<String>,
}

/// Asks NVML. `library` is another library than the system's `libnvidia-ml.so.1`.
pub fn inventory(library: Option<&Path>) -> GpuInventory {
    let mut found = GpuInventory::default();
    let nvml = match open(library) {
        Ok(nvml) => nvml,
        Err(error) => {
            let which = library.map_or_else(|| "NVML".to_owned(), |path| format!("NVML ({})", path.display()));
            found.problems.push(format!("{which}: {}", describe(&error)));
            return found;
        }
    };
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => {
            found.problems.push(format!("NVML: counting the GPUs: {error}"));
            return found;
        }
    };
    if count == 0 {
        found.problems.push("NVML: this machine has no GPU".to_owned());
    }
    for index in 0..count {
        match gpu(&nvml, index) {
            Ok(gpu) => found.gpus.push(gpu),
            Err(error) => found.problems.push(format!("NVML: GPU {index} cannot be used: {error}")),
        }
    }
    found
}

fn open(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    match library {
        Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
        None => Nvml::init(),
    }
}

/// A GPU without an identity cannot be given to anybody; without a name or a size it can.
fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, NvmlError> {
    let device = nvml.device_by_index(index)?;
    Ok(Gpu {
        uuid: device.uuid()?,
        model: device.name().unwrap_or_default(),
        memory_bytes: device.memory_info().map_or(0, |memory| memory.total),
    })
}

fn describe(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(error) => format!("the library cannot be loaded: {error}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_a_reason_and_no_failure() {
        let found = inventory(Some(Path::new("/nowhere/libnvidia-ml.so.1")));
        assert!(found.gpus.is_empty());
        assert!(found.problems[0].contains("/nowhere/libnvidia-ml.so.1"), "{:?}", found.problems);
    }

    #[test]
    fn a_library_that_is_something_else_is_a_reason_and_no_failure() {
        let found = inventory(Some(Path::new("libc.so.6")));
        assert!(found.gpus.is_empty());
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    }
}
