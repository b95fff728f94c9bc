//! The file that says what there is, and its reader.
//!
//! ```toml
//! [driver]
//! version = "550.54.15"
//! cuda = "12.4"
//!
//! [[devices]]
//! uuid = "GPU-1"
//! model = "NVIDIA H100"
//! memory = "80Gi"
//! links = ["GPU-2"]              # over NVLink
//! processes = [{ pid = 4711, memory = "2Gi", busy = 40 }]
//!
//! [[devices.mig]]                # a device with instances is in MIG mode
//! uuid = "MIG-1"
//! profile = "1g.10gb"
//! memory = "10Gi"
//!
//! [[events]]                     # told once each, in this order, to whoever was there when they were added
//! device = "GPU-1"
//! xid = 79
//!
//! [[faults]]                     # the first that fits counts; `*` is every function
//! function = "nvmlDeviceGetUtilizationRates"
//! device = "GPU-1"
//! error = "gpu_is_lost"          # or `hang = true`: until the file says otherwise
//! ```
//!
//! Invariant: what [`State::parse`] gives can be answered from: UUIDs are unique, and whatever names a device names one that is there.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};
use toml::Spanned;

/// What there is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The driver.
    pub driver: Driver,
    /// The GPUs, in the order of their indexes.
    pub devices: Vec<Device>,
    /// What has happened.
    pub events: Vec<Event>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// The driver.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Driver {
    /// Its version.
    pub version: String,
    /// The library's version.
    pub nvml: String,
    /// The CUDA version that it can run, `major.minor`.
    pub cuda: Version,
}

impl Default for Driver {
    fn default() -> Self {
        Self { version: "550.54.15".to_owned(), nvml: "12.550.54.15".to_owned(), cuda: Version { major: 12, minor: 4 } }
    }
}

/// A GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its identity.
    pub uuid: Spanned<String>,
    /// Product name.
    #[serde(default = "model")]
    pub model: String,
    /// Its memory in bytes.
    pub memory: Bytes,
    /// Memory in use beside that of the listed processes, in bytes.
    #[serde(default)]
    pub used: Bytes,
    /// PCI address, `domain:bus:device.function`. By default the index is the bus.
    #[serde(default)]
    pub pci: Option<String>,
    /// GPUs with the same number are below the same PCI switch.
    #[serde(default)]
    pub switch: Option<u32>,
    /// Compute capability.
    #[serde(default = "compute")]
    pub compute: Version,
    /// NUMA node.
    #[serde(default)]
    pub numa: Option<u32>,
    /// How busy it is, 0 to 100.
    #[serde(default)]
    pub busy: Percent,
    /// Temperature in degrees Celsius.
    #[serde(default = "celsius")]
    pub celsius: u32,
    /// From which temperature on it slows down, in degrees Celsius.
    #[serde(default = "slowdown")]
    pub slowdown_celsius: u32,
    /// Why it runs slower than it could: NVML's bits.
    #[serde(default)]
    pub throttle: u64,
    /// Power draw in watts.
    #[serde(default = "watts")]
    pub watts: u32,
    /// Energy since the driver was loaded, in joules.
    #[serde(default)]
    pub joules: u64,
    /// Uncorrectable memory errors; absent: its memory does not check.
    #[serde(default)]
    pub ecc_errors: Option<u64>,
    /// UUIDs of those that it reaches by NVLink.
    #[serde(default)]
    pub links: Vec<Spanned<String>>,
    /// What uses it.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Its MIG instances; where there are any it is in MIG mode.
    #[serde(default)]
    pub mig: Vec<Instance>,
    /// It is in MIG mode though it has no instances.
    #[serde(default)]
    pub mig_mode: bool,
    /// It has fallen off the bus: whatever is asked of it is answered so.
    #[serde(default)]
    pub lost: bool,
}

fn model() -> String {
    "Stand-in".to_owned()
}

const fn compute() -> Version {
    Version { major: 9, minor: 0 }
}

const fn celsius() -> u32 {
    35
}

const fn slowdown() -> u32 {
    90
}

const fn watts() -> u32 {
    70
}

/// A MIG instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its identity.
    pub uuid: Spanned<String>,
    /// Its profile, as `1g.10gb`.
    pub profile: String,
    /// Its memory in bytes.
    pub memory: Bytes,
    /// What uses it.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// A process on a GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What it holds, in bytes.
    #[serde(default)]
    pub memory: Bytes,
    /// It draws, and does not compute.
    #[serde(default)]
    pub graphics: bool,
    /// How busy it keeps its GPU, 0 to 100; where no process of a GPU says so, it is not told.
    #[serde(default)]
    pub busy: Option<Percent>,
}

/// A critical error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// UUID of the GPU.
    pub device: Spanned<String>,
    /// Its number.
    pub xid: u64,
}

/// What goes wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The C name of the function, or `*`.
    pub function: Spanned<String>,
    /// Only for this GPU or instance.
    #[serde(default)]
    pub device: Option<Spanned<String>>,
    /// What it answers.
    #[serde(default)]
    pub error: Option<Code>,
    /// It does not come back.
    #[serde(default)]
    pub hang: bool,
}

/// An amount of memory: a number of bytes, or text with `Ki`, `Mi`, `Gi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or text like \"80Gi\"")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number).map(Bytes).map_err(|_| E::custom("less than no memory"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                let units = [("Ki", 1_u64 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("", 1)];
                let parsed = units.iter().find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, size)));
                let bytes = parsed.and_then(|(number, size)| number.parse::<u64>().ok()?.checked_mul(*size));
                bytes.map(Bytes).ok_or_else(|| E::custom(format!("\"{text}\" is not an amount of memory like \"80Gi\"")))
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

/// A number from 0 to 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Percent(pub u32);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            part @ 0..=100 => Ok(Self(part)),
            other => Err(D::Error::custom(format!("{other} is more than 100 percent"))),
        }
    }
}

/// `major.minor`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Before the point.
    pub major: i32,
    /// Behind it.
    pub minor: i32,
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = parts.ok_or_else(|| D::Error::custom(format!("\"{text}\" is not a version like \"12.4\"")))?;
        Ok(Self { major, minor })
    }
}

/// What a function of NVML answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "NVML's own words")]
#[repr(u32)]
pub enum Code {
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NoPermission = 4,
    NotFound = 6,
    InsufficientPower = 8,
    DriverNotLoaded = 9,
    Timeout = 10,
    LibraryNotFound = 12,
    FunctionNotFound = 13,
    GpuIsLost = 15,
    ResetRequired = 16,
    LibRmVersionMismatch = 18,
    Memory = 20,
    NoData = 21,
    Unknown = 999,
}

/// Why a file says nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}:{line}: {key}{message}", path = path.display(), key = if key.is_empty() { String::new() } else { format!("`{key}`: ") })]
pub struct Malformed {
    /// The file.
    pub path: PathBuf,
    /// From 1; 0 where the file cannot be read at all.
    pub line: usize,
    /// Path of the key; empty where it is not one.
    pub key: String,
    /// What is wrong there.
    pub message: String,
}

impl State {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Malformed> {
        let line = |at: usize| text.get(..at).unwrap_or(text).bytes().filter(|byte| *byte == b'\n').count() + 1;
        let malformed = |at, key: String, message: String| Malformed { path: path.to_owned(), line: line(at), key, message };
        let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        let reader = toml::Deserializer::parse(text)
            .map_err(|error| malformed(start(&error), String::new(), error.message().to_owned()))?;
        let state: Self = serde_path_to_error::deserialize(reader).map_err(|error| {
            let key = error.path().to_string();
            let key = if key == "." { String::new() } else { key };
            malformed(start(error.inner()), key, error.inner().message().to_owned())
        })?;
        state.check().map_err(|(at, key, message)| malformed(at, key, message))?;
        Ok(state)
    }

    /// What is wrong between the parts: where in the text, in which key, and what.
    fn check(&self) -> Result<(), (usize, String, String)> {
        let mut known = BTreeSet::new();
        for (at, device) in self.devices.iter().enumerate() {
            let instances = device.mig.iter().enumerate().map(|(nr, mig)| (format!("devices[{at}].mig[{nr}].uuid"), &mig.uuid));
            for (key, uuid) in std::iter::once((format!("devices[{at}].uuid"), &device.uuid)).chain(instances) {
                let text = uuid.get_ref();
                if text.is_empty() || text.len() >= 80 || !text.is_ascii() {
                    return Err((uuid.span().start, key, "1 to 79 characters of ASCII".to_owned()));
                }
                if !known.insert(text.as_str()) {
                    return Err((uuid.span().start, key, format!("\"{text}\" is there twice")));
                }
            }
        }
        let devices: BTreeSet<&str> = self.devices.iter().map(|device| device.uuid.get_ref().as_str()).collect();
        let links = self.devices.iter().enumerate().flat_map(|(at, device)| {
            device.links.iter().enumerate().map(move |(nr, link)| (format!("devices[{at}].links[{nr}]"), link, true))
        });
        let events = self.events.iter().enumerate().map(|(nr, event)| (format!("events[{nr}].device"), &event.device, true));
        let named = self.faults.iter().enumerate().filter_map(|(nr, fault)| Some((nr, fault.device.as_ref()?)));
        let faults = named.map(|(nr, device)| (format!("faults[{nr}].device"), device, false));
        for (key, uuid, whole) in links.chain(events).chain(faults) {
            let among = if whole { &devices } else { &known };
            if !among.contains(uuid.get_ref().as_str()) {
                return Err((uuid.span().start, key, format!("there is no \"{}\"", uuid.get_ref())));
            }
        }
        for (nr, fault) in self.faults.iter().enumerate() {
            if fault.hang == fault.error.is_some() {
                let message = "say either `error` or `hang = true`".to_owned();
                return Err((fault.function.span().start, format!("faults[{nr}]"), message));
            }
            let function = fault.function.get_ref();
            if function != "*" && !crate::symbols::NAMES.contains(&function.as_str()) {
                let message = format!("\"{function}\" is no function of this library");
                return Err((fault.function.span().start, format!("faults[{nr}].function"), message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let state = State::parse(Path::new("s"), "[[devices]]\nuuid = \"GPU-1\"\nmemory = \"2Gi\"\n").unwrap();
        let device = &state.devices[0];
        assert_eq!((device.memory, device.used, device.busy), (Bytes(2 << 30), Bytes(0), Percent(0)));
        assert_eq!((device.model.as_str(), device.compute, state.driver.cuda.major), ("Stand-in", compute(), 12));
        assert!(State::parse(Path::new("s"), "").unwrap().devices.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        let device = "[[devices]]\nuuid = \"GPU-1\"\nmemory = \"2Gi\"\n";
        for (text, line, key, said) in [
            ("[driver\n".to_owned(), 1, "", "unclosed"),
            ("[driver]\ncuda = \"twelve\"\n".to_owned(), 2, "driver.cuda", "not a version"),
            ("[[devices]]\nuuid = \"a\"\n".to_owned(), 1, "devices[0]", "memory"),
            ("[[devices]]\nuuid = \"a\"\nmemory = \"lots\"\n".to_owned(), 3, "devices[0].memory", "\"lots\" is not an amount"),
            (format!("{device}memori = 1\n"), 4, "devices[0].memori", "unknown field"),
            (format!("{device}busy = 101\n"), 4, "devices[0].busy", "more than 100"),
            (format!("{device}{device}"), 5, "devices[1].uuid", "twice"),
            (format!("{device}links = [\"GPU-9\"]\n"), 4, "devices[0].links[0]", "no \"GPU-9\""),
            (format!("{device}[[events]]\ndevice = \"x\"\nxid = 1\n"), 5, "events[0].device", "no \"x\""),
            (format!("{device}[[faults]]\nfunction = \"*\"\nerror = \"odd\"\n"), 6, "faults[0].error", "unknown variant"),
            (format!("{device}[[faults]]\nfunction = \"*\"\n"), 5, "faults[0]", "either"),
            (format!("{device}[[faults]]\nfunction = \"nvmlFoo\"\nhang = true\n"), 5, "faults[0].function", "no function"),
        ] {
            let wrong = State::parse(Path::new("state.toml"), &text).unwrap_err();
            assert_eq!((wrong.line, wrong.key.as_str()), (line, key), "{text}: {wrong}");
            assert!(wrong.message.contains(said), "{text}: {wrong}");
            assert!(wrong.to_string().starts_with(&format!("state.toml:{line}: ")), "{wrong}");
        }
    }
}
