//! What NVML tells of one device or instance.

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;

use super::{Gpu, GpuProcess, MigPart, Reading, Rounds};

pub(super) fn lost(gpu: &Arc<Gpu>, error: &NvmlError) -> Reading {
    Reading { gpu: Arc::clone(gpu), lost: Some(error.to_string()), ..Reading::default() }
}

/// The instances of a divided device, by UUID.
pub(super) fn instances<'a>(device: &Device<'a>, rounds: &Rounds) -> Vec<(String, Device<'a>)> {
    rounds.calling("nvmlDeviceGetMigDeviceHandleByIndex");
    let most = device.mig_device_count().unwrap_or(0);
    let parts = (0..most).filter_map(|nr| device.mig_device_by_index(nr).ok());
    parts.filter_map(|part| Some((part.uuid().ok()?, part))).collect()
}

/// As the kernel writes it: the driver gives the domain eight digits, the kernel four.
pub(super) fn address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => format!("{}:{rest}", &domain[domain.len() - 4..]),
        _ => lower,
    }
}

/// A device without an identity cannot be given to anybody; without all the rest it can.
pub(super) fn describe(device: &Device<'_>, index: u32, uuid: String, rounds: &Rounds) -> Gpu {
    rounds.calling("nvmlDeviceGetPciInfo_v3");
    let pci = device.pci_info().ok().map(|pci| address(&pci.bus_id));
    rounds.calling("nvmlDeviceGetNumaNodeId");
    let numa = device.numa_node_id().ok().and_then(|node| u16::try_from(node).ok()).or_else(|| {
        let file = format!("/sys/bus/pci/devices/{}/numa_node", pci.as_ref()?);
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    rounds.calling("nvmlDeviceGetMinorNumber");
    let minor = device.minor_number().ok();
    rounds.calling("nvmlDeviceGetCudaComputeCapability");
    let compute = device.cuda_compute_capability().ok().map(|of| format!("{}.{}", of.major, of.minor));
    rounds.calling("nvmlDeviceGetName");
    let model = device.name().unwrap_or_default();
    rounds.calling("nvmlDeviceGetMemoryInfo_v2");
    let memory_bytes = device.memory_info().map_or(0, |memory| memory.total);
    Gpu { uuid, index, minor, model, memory_bytes, pci, compute, mig: None, link_group: None, pcie_group: None, numa }
}

/// The driver names an instance after its device and profile: `NVIDIA H100 MIG 1g.10gb`.
pub(super) fn describe_part(whole: &Gpu, uuid: &str, part: &Device<'_>, rounds: &Rounds) -> Gpu {
    rounds.calling("nvmlDeviceGetName");
    let name = part.name().unwrap_or_default();
    let profile = name.rsplit_once(" MIG ").map_or(name.as_str(), |(_, profile)| profile).to_owned();
    let memory_bytes = part.memory_info().map_or(0, |memory| memory.total);
    let mig = Some(MigPart { profile, parent: whole.uuid.clone() });
    Gpu { uuid: uuid.to_owned(), memory_bytes, mig, ..whole.clone() }
}

/// What is told of a whole device.
pub(super) fn vitals(device: &Device<'_>, rounds: &Rounds) -> Reading {
    rounds.calling("nvmlDeviceGetTemperature");
    let celsius = device.temperature(TemperatureSensor::Gpu).ok();
    rounds.calling("nvmlDeviceGetPowerUsage");
    let milliwatts = device.power_usage().ok();
    rounds.calling("nvmlDeviceGetTotalEnergyConsumption");
    let energy_millijoules = device.total_energy_consumption().ok();
    rounds.calling("nvmlDeviceGetTotalEccErrors");
    let ecc_errors = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok();
    rounds.calling("nvmlDeviceGetCurrentClocksThrottleReasons");
    let throttled = device.current_throttle_reasons().ok().and_then(throttle);
    Reading { celsius, milliwatts, energy_millijoules, ecc_errors, throttled, ..Reading::default() }
}

fn throttle(reasons: ThrottleReasons) -> Option<&'static str> {
    let words = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "too hot (hardware)"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "too hot (driver)"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    ];
    words.into_iter().find(|(reason, _)| reasons.contains(*reason)).map(|(_, word)| word)
}

/// What was asked before of what processes keep busy.
#[derive(Default)]
pub(super) struct Asked {
    /// Time of the latest sample that was given, in microseconds of the driver's clock.
    seen: u64,
    /// The driver does not tell it: it is not asked again.
    is_silent: bool,
}

impl Asked {
    /// Of what nobody is asked.
    pub(super) const fn silent() -> Self {
        Self { seen: 0, is_silent: true }
    }

    /// Adds to processes how busy they keep the device: the mean of the samples since it was asked before.
    fn busy(&mut self, device: &Device<'_>, processes: &mut [GpuProcess], rounds: &Rounds) {
        if self.is_silent || processes.is_empty() {
            return;
        }
        rounds.calling("nvmlDeviceGetProcessUtilization");
        let samples = match device.process_utilization_stats(self.seen) {
            Ok(samples) => samples,
            // Nothing is new.
            Err(NvmlError::NotFound) => return,
            Err(error) => {
                self.is_silent = super::nvml::is_silence(&error);
                return;
            }
        };
        for process in processes {
            let own = || samples.iter().filter(|sample| sample.pid == process.pid && sample.timestamp > self.seen);
            let count = own().count() as u32;
            process.busy_percent = own().map(|sample| sample.sm_util.min(100)).sum::<u32>().checked_div(count);
        }
        self.seen = samples.iter().map(|sample| sample.timestamp).fold(self.seen, u64::max);
    }
}

/// What uses a device or an instance.
pub(super) fn usage(gpu: &Arc<Gpu>, device: &Device<'_>, shared: &Reading, rounds: &Rounds, asked: &mut Asked) -> Reading {
    rounds.calling("nvmlDeviceGetMemoryInfo_v2");
    let memory = device.memory_info();
    // Of all that can go wrong this alone says that the device itself is gone.
    if let Err(error @ (NvmlError::GpuLost | NvmlError::ResetRequired)) = &memory {
        return Reading { xids: shared.xids.clone(), ..lost(gpu, error) };
    }
    rounds.calling("nvmlDeviceGetUtilizationRates");
    let busy_percent = device.utilization_rates().ok().map(|rates| rates.gpu);
    rounds.calling("nvmlDeviceGetComputeRunningProcesses_v3");
    let computing = device.running_compute_processes();
    rounds.calling("nvmlDeviceGetGraphicsRunningProcesses_v3");
    let drawing = device.running_graphics_processes().unwrap_or_default();
    let process = |info: ProcessInfo, graphics: bool| GpuProcess {
        pid: info.pid,
        memory_bytes: match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
        graphics,
        busy_percent: None,
    };
    let mut processes = computing.ok().map(|computing| {
        let computing = computing.into_iter().map(|info| process(info, false));
        let mut all: Vec<GpuProcess> = computing.chain(drawing.into_iter().map(|info| process(info, true))).collect();
        // Whoever does both computes.
        all.sort_by_key(|process| (process.pid, process.graphics));
        all.dedup_by_key(|process| process.pid);
        all
    });
    if let Some(processes) = &mut processes {
        asked.busy(device, processes, rounds);
    }
    let memory_used_bytes = memory.ok().map(|memory| memory.used);
    Reading { gpu: Arc::clone(gpu), memory_used_bytes, busy_percent, processes, ..shared.clone() }
}
