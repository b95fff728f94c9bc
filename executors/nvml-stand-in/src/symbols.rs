//! NVML's C functions. The layouts of what is filled in come from the bindings that the real library is called with.
#![expect(unsafe_code, reason = "C functions that are called with C pointers")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_ulonglong};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nv;

use crate::state::{Code, Device, Process, State};
use crate::world::{self, Failure, Thing};

type Answer = Result<(), Failure>;

/// The bit of the events that are told.
const CRITICAL_XID: c_ulonglong = 8;

/// The file that this code was loaded from.
pub(crate) fn own_path() -> Option<PathBuf> {
    // SAFETY: the address is one of this library's functions, and the structure is filled in before it is read.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr((own_path as *const ()).cast(), &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname)
    };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

const fn code(answer: Answer) -> c_uint {
    match answer {
        Ok(()) => 0,
        Err(failure) => failure,
    }
}

/// # Safety
/// `to` is null or may be written.
unsafe fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Code::InvalidArgument as Failure);
    }
    // SAFETY: as above.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// `to` has room for `length` characters.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Answer {
    if to.is_null() || text.len() >= length as usize {
        return Err(if to.is_null() { Code::InvalidArgument as Failure } else { 7 });
    }
    // SAFETY: the text and its end fit.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// Begins a call about a device.
fn about(function: &str, device: nv::nvmlDevice_t) -> Result<(Arc<State>, String), Failure> {
    let uuid = world::uuid(device as usize).ok_or(Code::InvalidArgument as Failure)?;
    Ok((world::enter_initialised(function, Some(&uuid))?, uuid))
}

/// Makes the functions, and the list of their names. A body begins when the file says that the function works; it is handed the state and,
/// for functions of a device, what the device is.
macro_rules! functions {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $kind:ident |$($bound:pat_param),*| $body:block)*) => {
        /// All of them.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($arg: $type),*) -> c_uint {
                code((|| functions!(@$kind $name, ($($arg),*), |$($bound),*| $body))())
            }
        )*
    };
    (@library $name:ident, ($($arg:ident),*), |$state:pat_param| $body:block) => {{
        let $state = world::enter_initialised(stringify!($name), None)?;
        $body
    }};
    (@free $name:ident, ($($arg:ident),*), |$state:pat_param| $body:block) => {{
        let $state = world::enter(stringify!($name), None)?;
        $body
    }};
    (@thing $name:ident, ($device:ident $(, $arg:ident)*), |$state:pat_param, $thing:pat_param| $body:block) => {{
        let (state, uuid) = about(stringify!($name), $device)?;
        let $thing = world::find(&state, &uuid)?;
        let $state = &state;
        $body
    }};
    (@device $name:ident, ($device:ident $(, $arg:ident)*), |$state:pat_param, $found:pat_param| $body:block) => {{
        let (state, uuid) = about(stringify!($name), $device)?;
        let Thing::Whole($found) = world::find(&state, &uuid)? else { return Err(Code::NotSupported as Failure) };
        let $state = &state;
        $body
    }};
}

functions! {
    fn nvmlInit_v2() free |_| { world::initialise(); Ok(()) }
    fn nvmlInitWithFlags(_flags: c_uint) free |_| { world::initialise(); Ok(()) }
    fn nvmlShutdown() free |_| { world::shut_down() }
    fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) library |state| {
        unsafe { put_text(text, length, &state.driver.version) }
    }
    fn nvmlSystemGetNVMLVersion(text: *mut c_char, length: c_uint) library |state| {
        unsafe { put_text(text, length, &state.driver.nvml) }
    }
    fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) library |state| {
        unsafe { put(version, state.driver.cuda.major * 1_000 + state.driver.cuda.minor * 10) }
    }
    fn nvmlDeviceGetCount_v2(count: *mut c_uint) library |state| { unsafe { put(count, state.devices.len() as c_uint) } }
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut nv::nvmlDevice_t) library |state| {
        let device = state.devices.get(index as usize).ok_or(Code::InvalidArgument as Failure)?;
        world::enter(stringify!(nvmlDeviceGetHandleByIndex_v2), Some(device.uuid.get_ref()))?;
        if device.lost {
            return Err(Code::GpuIsLost as Failure);
        }
        unsafe { put(to, world::handle(device.uuid.get_ref()) as nv::nvmlDevice_t) }
    }
    fn nvmlDeviceGetUUID(device: nv::nvmlDevice_t, text: *mut c_char, length: c_uint) thing |_, thing| {
        let (Thing::Whole(Device { uuid, .. }) | Thing::Part(_, crate::state::Instance { uuid, .. })) = thing;
        unsafe { put_text(text, length, uuid.get_ref()) }
    }
    fn nvmlDeviceGetName(device: nv::nvmlDevice_t, text: *mut c_char, length: c_uint) thing |_, thing| {
        let name = match thing {
            Thing::Whole(device) => device.model.clone(),
            Thing::Part(device, part) => format!("{} MIG {}", device.model, part.profile),
        };
        unsafe { put_text(text, length, &name) }
    }
    fn nvmlDeviceGetMemoryInfo_v2(device: nv::nvmlDevice_t, to: *mut nv::nvmlMemory_v2_t) thing |_, thing| {
        let of = |processes: &[Process]| processes.iter().map(|process| process.memory.0).sum::<u64>();
        let (total, used) = match thing {
            Thing::Whole(device) => {
                let parts = device.mig.iter().map(|part| of(&part.processes)).sum::<u64>();
                (device.memory.0, device.used.0 + of(&device.processes) + parts)
            }
            Thing::Part(_, part) => (part.memory.0, of(&part.processes)),
        };
        let version = (size_of::<nv::nvmlMemory_v2_t>() | (2 << 24)) as c_uint;
        unsafe {
            if to.is_null() || (*to).version != version {
                return Err(25);
            }
            put(to, nv::nvmlMemory_v2_t { version, total, reserved: 0, free: total.saturating_sub(used), used })
        }
    }
    fn nvmlDeviceGetUtilizationRates(device: nv::nvmlDevice_t, to: *mut nv::nvmlUtilization_t) device |_, found| {
        let rates = nv::nvmlUtilization_t { gpu: found.busy.0, memory: found.busy.0 / 2 };
        unsafe { put(to, rates) }
    }
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: nv::nvmlDevice_t, count: *mut c_uint, to: *mut nv::nvmlProcessInfo_t) thing |_, thing| {
        unsafe { put_processes(&thing, false, count, to) }
    }
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: nv::nvmlDevice_t, count: *mut c_uint, to: *mut nv::nvmlProcessInfo_t) thing |_, thing| {
        unsafe { put_processes(&thing, true, count, to) }
    }
    fn nvmlDeviceGetProcessUtilization(device: nv::nvmlDevice_t, to: *mut nv::nvmlProcessUtilizationSample_t, count: *mut c_uint, seen: c_ulonglong) device |_, found| {
        unsafe { put_samples(found, to, count, seen) }
    }
    fn nvmlDeviceGetTemperature(device: nv::nvmlDevice_t, _sensor: c_uint, to: *mut c_uint) device |_, found| {
        unsafe { put(to, found.celsius) }
    }
    fn nvmlDeviceGetTemperatureThreshold(device: nv::nvmlDevice_t, _which: c_uint, to: *mut c_uint) device |_, found| {
        unsafe { put(to, found.slowdown_celsius) }
    }
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: nv::nvmlDevice_t, to: *mut c_ulonglong) device |_, found| {
        unsafe { put(to, found.throttle) }
    }
    fn nvmlDeviceGetPowerUsage(device: nv::nvmlDevice_t, milliwatts: *mut c_uint) device |_, found| {
        unsafe { put(milliwatts, found.watts * 1_000) }
    }
    fn nvmlDeviceGetTotalEnergyConsumption(device: nv::nvmlDevice_t, millijoules: *mut c_ulonglong) device |_, found| {
        unsafe { put(millijoules, found.joules * 1_000) }
    }
    fn nvmlDeviceGetCudaComputeCapability(device: nv::nvmlDevice_t, major: *mut c_int, minor: *mut c_int) device |_, found| {
        unsafe { put(major, found.compute.major)?; put(minor, found.compute.minor) }
    }
    fn nvmlDeviceGetNumaNodeId(device: nv::nvmlDevice_t, to: *mut c_uint) device |_, found| {
        let numa = found.numa.ok_or(Code::NotSupported as Failure)?;
        unsafe { put(to, numa) }
    }
    fn nvmlDeviceGetMinorNumber(device: nv::nvmlDevice_t, to: *mut c_uint) device |state, found| {
        unsafe { put(to, position(state, found) as c_uint) }
    }
    fn nvmlDeviceGetPciInfo_v3(device: nv::nvmlDevice_t, to: *mut nv::nvmlPciInfo_t) device |state, found| {
        unsafe { put(to, pci(state, found)) }
    }
    fn nvmlDeviceGetTopologyCommonAncestor(device: nv::nvmlDevice_t, other: nv::nvmlDevice_t, to: *mut nv::nvmlGpuTopologyLevel_t) device |state, found| {
        let uuid = world::uuid(other as usize).ok_or(Code::InvalidArgument as Failure)?;
        let Thing::Whole(other) = world::find(state, &uuid)? else { return Err(Code::NotSupported as Failure) };
        let level = match (found, other) {
            _ if found.uuid.get_ref() == other.uuid.get_ref() => 0,
            (Device { switch: Some(one), .. }, Device { switch: Some(two), .. }) if one == two => 10,
            _ if found.numa == other.numa => 40,
            _ => 50,
        };
        unsafe { put(to, level) }
    }
    fn nvmlDeviceGetNvLinkState(device: nv::nvmlDevice_t, link: c_uint, to: *mut nv::nvmlEnableState_t) device |_, found| {
        if found.links.is_empty() {
            return Err(Code::NotSupported as Failure);
        }
        unsafe { put(to, nv::nvmlEnableState_t::from((link as usize) < found.links.len())) }
    }
    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(device: nv::nvmlDevice_t, link: c_uint, to: *mut nv::nvmlPciInfo_t) device |state, found| {
        let uuid = found.links.get(link as usize).ok_or(Code::InvalidArgument as Failure)?.get_ref();
        let remote = state.devices.iter().find(|device| device.uuid.get_ref() == uuid).ok_or(Code::NotFound as Failure)?;
        unsafe { put(to, pci(state, remote)) }
    }
    fn nvmlDeviceGetMigMode(device: nv::nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) device |_, found| {
        let mode = c_uint::from(found.mig_mode || !found.mig.is_empty());
        unsafe { put(current, mode)?; put(pending, mode) }
    }
    fn nvmlDeviceGetMaxMigDeviceCount(device: nv::nvmlDevice_t, to: *mut c_uint) device |_, _| { unsafe { put(to, 7) } }
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: nv::nvmlDevice_t, index: c_uint, to: *mut nv::nvmlDevice_t) device |_, found| {
        let part = found.mig.get(index as usize).ok_or(Code::NotFound as Failure)?;
        unsafe { put(to, world::handle(part.uuid.get_ref()) as nv::nvmlDevice_t) }
    }
    fn nvmlDeviceGetEccMode(device: nv::nvmlDevice_t, current: *mut nv::nvmlEnableState_t, pending: *mut nv::nvmlEnableState_t) device |_, found| {
        let on = nv::nvmlEnableState_t::from(found.ecc_errors.is_some());
        unsafe { put(current, on)?; put(pending, on) }
    }
    fn nvmlDeviceGetTotalEccErrors(device: nv::nvmlDevice_t, kind: c_uint, _counter: c_uint, to: *mut c_ulonglong) device |_, found| {
        let errors = found.ecc_errors.ok_or(Code::NotSupported as Failure)?;
        unsafe { put(to, if kind == 1 { errors } else { 0 }) }
    }
    fn nvmlEventSetCreate(to: *mut nv::nvmlEventSet_t) library |_| { unsafe { put(to, world::new_set() as nv::nvmlEventSet_t) } }
    fn nvmlEventSetFree(set: nv::nvmlEventSet_t) library |_| { world::with_set(set as usize, |set| set.devices.clear()) }
    fn nvmlDeviceRegisterEvents(device: nv::nvmlDevice_t, _types: c_ulonglong, set: nv::nvmlEventSet_t) device |state, found| {
        world::with_set(set as usize, |set| {
            // Whoever comes later hears nothing of what was before.
            if set.devices.is_empty() {
                set.heard = state.events.len();
            }
            set.devices.push(found.uuid.get_ref().clone());
        })
    }
    fn nvmlEventSetWait_v2(set: nv::nvmlEventSet_t, to: *mut nv::nvmlEventData_t, timeout_ms: c_uint) library |state| {
        let begun = Instant::now();
        let mut state = state;
        loop {
            if let Some(event) = next(&state, set as usize)? {
                return unsafe { put(to, event) };
            }
            if begun.elapsed() >= Duration::from_millis(timeout_ms.into()) {
                return Err(Code::Timeout as Failure);
            }
            std::thread::sleep(Duration::from_millis(2));
            state = world::enter(stringify!(nvmlEventSetWait_v2), None)?;
        }
    }
}

/// The next event that a set has not heard.
fn next(state: &State, set: usize) -> Result<Option<nv::nvmlEventData_t>, Failure> {
    let found = world::with_set(set, |set| {
        // A file that was written anew with fewer events begins anew.
        set.heard = set.heard.min(state.events.len());
        while let Some(event) = state.events.get(set.heard) {
            set.heard += 1;
            if set.devices.contains(event.device.get_ref()) {
                return Some((event.device.get_ref().clone(), event.xid));
            }
        }
        None
    })?;
    Ok(found.map(|(uuid, xid)| nv::nvmlEventData_t {
        device: world::handle(&uuid) as nv::nvmlDevice_t,
        eventType: CRITICAL_XID,
        eventData: xid,
        gpuInstanceId: c_uint::MAX,
        computeInstanceId: c_uint::MAX,
    }))
}

/// # Safety
/// `count` says how many `to` has room for.
unsafe fn put_processes(thing: &Thing<'_>, graphics: bool, count: *mut c_uint, to: *mut nv::nvmlProcessInfo_t) -> Answer {
    let (Thing::Whole(Device { processes, .. }) | Thing::Part(_, crate::state::Instance { processes, .. })) = thing;
    let found: Vec<&Process> = processes.iter().filter(|process| process.graphics == graphics).collect();
    if count.is_null() {
        return Err(Code::InvalidArgument as Failure);
    }
    // SAFETY: as the caller says.
    unsafe {
        let room = count.read() as usize;
        count.write(found.len() as c_uint);
        if found.is_empty() {
            return Ok(());
        }
        if room < found.len() || to.is_null() {
            return Err(7);
        }
        for (at, process) in found.iter().enumerate() {
            let mut info: nv::nvmlProcessInfo_t = std::mem::zeroed();
            info.pid = process.pid;
            info.usedGpuMemory = process.memory.0;
            (info.gpuInstanceId, info.computeInstanceId) = (c_uint::MAX, c_uint::MAX);
            to.add(at).write(info);
        }
    }
    Ok(())
}

/// One sample of each process that says how busy it is, made now.
///
/// # Safety
/// `count` says how many `to` has room for.
unsafe fn put_samples(
    found: &Device,
    to: *mut nv::nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    seen: c_ulonglong,
) -> Answer {
    let busy: Vec<(c_uint, c_uint)> = found.processes.iter().filter_map(|process| Some((process.pid, process.busy?.0))).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros() as c_ulonglong;
    if busy.is_empty() {
        return Err(Code::NotSupported as Failure);
    }
    if now <= seen {
        return Err(Code::NotFound as Failure);
    }
    if count.is_null() {
        return Err(Code::InvalidArgument as Failure);
    }
    // SAFETY: as the caller says.
    unsafe {
        let room = count.read() as usize;
        count.write(busy.len() as c_uint);
        if to.is_null() || room < busy.len() {
            return Err(7);
        }
        for (at, (pid, percent)) in busy.into_iter().enumerate() {
            let mut sample: nv::nvmlProcessUtilizationSample_t = std::mem::zeroed();
            (sample.pid, sample.timeStamp, sample.smUtil) = (pid, now, percent);
            to.add(at).write(sample);
        }
    }
    Ok(())
}

fn position(state: &State, device: &Device) -> usize {
    state.devices.iter().position(|other| other.uuid.get_ref() == device.uuid.get_ref()).unwrap_or_default()
}

fn pci(state: &State, device: &Device) -> nv::nvmlPciInfo_t {
    let index = position(state, device);
    let address = device.pci.clone().unwrap_or_else(|| format!("0000:{:02x}:00.0", index + 1));
    let parts: Vec<c_uint> = address.split([':', '.']).map(|part| c_uint::from_str_radix(part, 16).unwrap_or_default()).collect();
    let number = |at: usize| parts.get(at).copied().unwrap_or_default();
    // SAFETY: numbers and characters, of which all zeros are valid.
    let mut info: nv::nvmlPciInfo_t = unsafe { std::mem::zeroed() };
    (info.domain, info.bus, info.device) = (number(0), number(1), number(2));
    (info.pciDeviceId, info.pciSubSystemId) = (0x2330_10de, 0x16c1_10de);
    let full = format!("{:08X}:{:02X}:{:02X}.{:X}", number(0), number(1), number(2), number(3));
    for (to, from) in info.busId.iter_mut().zip(full.bytes()) {
        *to = from as c_char;
    }
    for (to, from) in info.busIdLegacy.iter_mut().zip(full.get(4..).unwrap_or_default().bytes()) {
        *to = from as c_char;
    }
    info
}
