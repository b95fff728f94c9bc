//! NVIDIA's driver, asked through NVML.
//!
//! What must hold: an answer that one driver or device does not give (old driver, MIG instance, consumer card) leaves that one value out and
//! nothing else; a device that is known and does not answer any more is lost, not gone; what is the same for as long as a device is there
//! is asked once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{TemperatureThreshold, TopologyLevel};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::{Device, Nvml as Library, cuda_driver_version_major, cuda_driver_version_minor};

use super::device::{Asked, address, describe, describe_part, instances, lost, usage, vitals};
use super::groups::Groups;
use super::{Driver, Gpu, GpuSource, Reading, Rounds, Survey, Where};

/// NVLinks that a GPU has at most.
const LINKS: u32 = 18;
/// Events that are taken in one round at most.
const EVENTS: usize = 256;

/// NVML, from the system's library or another one.
#[derive(Debug)]
pub struct Nvml {
    library: Option<PathBuf>,
}

impl Nvml {
    /// From this library; from the system's where none is said.
    pub const fn new(library: Option<PathBuf>) -> Self {
        Self { library }
    }

    fn open(&self) -> Result<Library, NvmlError> {
        match &self.library {
            Some(path) => Library::builder().lib_path(path.as_os_str()).init(),
            None => Library::init(),
        }
    }

    fn problem(&self, error: &NvmlError) -> Survey {
        let why = match error {
            NvmlError::LibloadingError(error) => format!("the library cannot be loaded: {error}"),
            NvmlError::FailedToLoadSymbol(what) => format!("this is not NVML, or one that is too old: {what}"),
            other => other.to_string(),
        };
        let problems = vec![format!("{}: {why}", Where::Nvml(self.library.clone()))];
        Survey { problems, ..Survey::default() }
    }
}

impl GpuSource for Nvml {
    fn run(&mut self, rounds: &mut Rounds) {
        loop {
            rounds.calling("nvmlInit_v2");
            let go_on = match self.open() {
                Ok(library) => Session::new(&library).run(rounds),
                Err(error) => rounds.tell(self.problem(&error)),
            };
            if !go_on {
                return;
            }
        }
    }
}

/// What was known of the device at an index.
#[derive(Default)]
struct Known {
    /// Itself, or its instances.
    gpus: Vec<Arc<Gpu>>,
    is_divided: bool,
    slowdown_celsius: Option<u32>,
    asked: Asked,
}

/// From one init to the next.
struct Session<'a> {
    library: &'a Library,
    known: BTreeMap<u32, Known>,
    events: Option<EventSet<'a>>,
    /// UUIDs that are registered there, with the number of their event set's making.
    registered: Vec<String>,
}

/// The one who was asked does not know, and that is all: not a fault of the device.
pub(super) const fn is_silence(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::NoPermission
            | NvmlError::NotFound
            | NvmlError::InvalidArg
    )
}

impl<'a> Session<'a> {
    const fn new(library: &'a Library) -> Self {
        Self { library, known: BTreeMap::new(), events: None, registered: Vec::new() }
    }

    /// Surveys until the library has to be opened anew (true) or nobody wants to know any more.
    fn run(mut self, rounds: &mut Rounds) -> bool {
        loop {
            let survey = self.survey(rounds);
            let is_stale = survey.driver.is_none();
            if !rounds.tell(survey) {
                return false;
            }
            if is_stale {
                return true;
            }
        }
    }

    fn survey(&mut self, rounds: &Rounds) -> Survey {
        rounds.calling("nvmlDeviceGetCount_v2");
        let count = match self.library.device_count() {
            Ok(count) => count,
            Err(error) => {
                let problems = vec![format!("NVML: counting the GPUs: {error}")];
                let gpus = self.known.values().flat_map(|known| known.gpus.iter().map(|gpu| lost(gpu, &error))).collect();
                return Survey { driver: None, gpus, problems };
            }
        };
        let mut survey = Survey { driver: Some(self.driver(rounds)), ..Survey::default() };
        if count == 0 {
            survey.problems.push("NVML: this machine has no GPU".to_owned());
        }
        self.known.retain(|index, _| *index < count);
        let mut fresh = false;
        let mut devices = BTreeMap::new();
        for index in 0..count {
            match self.device(index, rounds, &mut fresh) {
                Ok(device) => drop(devices.insert(index, device)),
                Err(error) => match self.known.get(&index) {
                    Some(known) => survey.gpus.extend(known.gpus.iter().map(|gpu| lost(gpu, &error))),
                    None => survey.problems.push(format!("NVML: GPU {index} cannot be used: {error}")),
                },
            }
        }
        if fresh {
            self.relate(&devices, rounds);
        }
        self.listen(&devices, rounds);
        let mut xids = self.heard(rounds);
        for (index, device) in &devices {
            self.read(*index, device, rounds, &mut xids, &mut survey);
        }
        survey.gpus.sort_by_key(|reading| reading.gpu.index);
        survey
    }

    fn driver(&self, rounds: &Rounds) -> Driver {
        rounds.calling("nvmlSystemGetDriverVersion");
        let cuda = self.library.sys_cuda_driver_version();
        let cuda = cuda.map(|cuda| format!("{}.{}", cuda_driver_version_major(cuda), cuda_driver_version_minor(cuda)));
        Driver { version: self.library.sys_driver_version().unwrap_or_default(), cuda: cuda.unwrap_or_default() }
    }

    /// The device at an index; what it is, is known afterwards.
    fn device(&mut self, index: u32, rounds: &Rounds, fresh: &mut bool) -> Result<Device<'a>, NvmlError> {
        rounds.calling("nvmlDeviceGetHandleByIndex_v2");
        let device = self.library.device_by_index(index)?;
        rounds.calling("nvmlDeviceGetUUID");
        let uuid = device.uuid()?;
        rounds.calling("nvmlDeviceGetMigMode");
        let is_divided = device.mig_mode().is_ok_and(|mode| mode.current == 1);
        let parts = if is_divided { instances(&device, rounds) } else { Vec::new() };
        let is_same = self.known.get(&index).is_some_and(|known| {
            known.is_divided == is_divided
                && known.gpus.len() == if is_divided { parts.len() } else { 1 }
                && known.gpus.iter().all(|gpu| gpu.uuid == uuid || parts.iter().any(|(part, _)| *part == gpu.uuid))
        });
        if !is_same {
            let whole = describe(&device, index, uuid, rounds);
            let gpus = if is_divided {
                parts.iter().map(|(uuid, part)| Arc::new(describe_part(&whole, uuid, part, rounds))).collect()
            } else {
                vec![Arc::new(whole)]
            };
            rounds.calling("nvmlDeviceGetTemperatureThreshold");
            let slowdown_celsius = device.temperature_threshold(TemperatureThreshold::Slowdown).ok();
            self.known.insert(index, Known { gpus, is_divided, slowdown_celsius, asked: Asked::default() });
            *fresh = true;
        }
        Ok(device)
    }

    /// Who reaches whom by NVLink, and who is below the same PCI switches.
    fn relate(&mut self, devices: &BTreeMap<u32, Device<'a>>, rounds: &Rounds) {
        let (mut links, mut switches) = (Groups::default(), Groups::default());
        for (index, device) in devices {
            let Some(own) = self.known.get(index).and_then(|known| known.gpus.first()?.pci.clone()) else { continue };
            rounds.calling("nvmlDeviceGetNvLinkState");
            for link in (0..LINKS).map(|link| device.link_wrapper_for(link)) {
                match link.is_active() {
                    // Another GPU, or the switch that all of them are linked to.
                    Ok(true) => drop(link.remote_pci_info().map(|remote| links.join(&own, &address(&remote.bus_id)))),
                    Ok(false) => {}
                    Err(_) => break,
                }
            }
            rounds.calling("nvmlDeviceGetTopologyCommonAncestor");
            for (other_index, _) in devices.range(..index) {
                let level = self.library.device_by_index(*other_index).and_then(|other| device.topology_common_ancestor(other));
                let theirs = self.known.get(other_index).and_then(|known| known.gpus.first()?.pci.clone());
                if let (Ok(TopologyLevel::Internal | TopologyLevel::Single | TopologyLevel::Multiple), Some(theirs)) =
                    (level, theirs)
                {
                    switches.join(&own, &theirs);
                }
            }
        }
        let of: Vec<(u32, String)> =
            self.known.iter().filter_map(|(index, known)| Some((*index, known.gpus.first()?.pci.clone()?))).collect();
        let (links, switches) = (links.numbered(&of), switches.numbered(&of));
        for (index, known) in &mut self.known {
            for gpu in &mut known.gpus {
                let link_group = if known.is_divided { None } else { links.get(index).copied() };
                let pcie_group = switches.get(index).copied();
                *gpu = Arc::new(Gpu { link_group, pcie_group, ..Gpu::clone(gpu) });
            }
        }
    }

    /// Has critical errors of all devices told from now on.
    fn listen(&mut self, devices: &BTreeMap<u32, Device<'a>>, rounds: &Rounds) {
        for device in devices.values() {
            let Ok(uuid) = device.uuid() else { continue };
            if self.registered.contains(&uuid) {
                continue;
            }
            rounds.calling("nvmlDeviceRegisterEvents");
            let set = match self.events.take() {
                Some(set) => Ok(set),
                None => self.library.create_event_set(),
            };
            let Ok(set) = set else { return };
            match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                Ok(set) => {
                    self.events = Some(set);
                    self.registered.push(uuid);
                }
                // The set is gone with it: the others are registered again next time, and this one not, where it tells nothing.
                Err(error) => {
                    self.registered.clear();
                    if is_silence(&error.error) {
                        self.registered.push(uuid);
                    }
                    return;
                }
            }
        }
    }

    /// What was told since the last round, by UUID.
    fn heard(&self, rounds: &Rounds) -> BTreeMap<String, Vec<u64>> {
        let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let Some(set) = &self.events else { return heard };
        for _ in 0..EVENTS {
            rounds.calling("nvmlEventSetWait_v2");
            let Ok(event) = set.wait(0) else { break };
            if let (Ok(uuid), Some(XidError::Value(xid))) = (event.device.uuid(), event.event_data) {
                heard.entry(uuid).or_default().push(xid);
            }
        }
        heard
    }

    /// How a device is, or each of its instances.
    fn read(
        &mut self,
        index: u32,
        device: &Device<'a>,
        rounds: &Rounds,
        xids: &mut BTreeMap<String, Vec<u64>>,
        survey: &mut Survey,
    ) {
        let Some(known) = self.known.get_mut(&index) else { return };
        let uuid = known.gpus.first().map(|gpu| gpu.mig.as_ref().map_or(&gpu.uuid, |mig| &mig.parent));
        let shared = Reading {
            slowdown_celsius: known.slowdown_celsius,
            xids: uuid.and_then(|uuid| xids.remove(uuid)).unwrap_or_default(),
            ..vitals(device, rounds)
        };
        if !known.is_divided {
            survey.gpus.extend(known.gpus.iter().map(|gpu| usage(gpu, device, &shared, rounds, &mut known.asked)));
            return;
        }
        if known.gpus.is_empty() {
            survey.problems.push(format!("NVML: GPU {index} is in MIG mode and has no instances"));
        }
        let parts: BTreeMap<String, Device<'_>> = instances(device, rounds).into_iter().collect();
        for gpu in &known.gpus {
            match parts.get(&gpu.uuid) {
                // What an instance draws and does is not told of it alone.
                Some(part) => {
                    let shared = Reading { milliwatts: None, energy_millijoules: None, ..shared.clone() };
                    // Nor what its processes do.
                    let mut unasked = Asked::silent();
                    survey.gpus.push(usage(gpu, part, &shared, rounds, &mut unasked));
                }
                None => survey.gpus.push(lost(gpu, &NvmlError::NotFound)),
            }
        }
    }
}
