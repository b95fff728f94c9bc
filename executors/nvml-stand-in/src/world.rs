//! What the library knows while it is loaded: the file as it was read last, the handles it has given out, what event sets have heard.
//!
//! Invariant: a handle stands for one UUID for as long as the library is loaded, whatever becomes of the file.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::state::{Code, Device, Fault, Instance, Malformed, State};
use crate::symbols;

/// What a function answers where it does not succeed.
pub(crate) type Failure = u32;

/// How often a function that hangs looks whether it still has to.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What tells whether a file is another than before.
type Stamp = (u64, i64, i64, u64);

#[derive(Default)]
struct World {
    initialised: u32,
    read: Option<(Stamp, Arc<State>)>,
    /// Told on stderr already.
    complained: Option<Malformed>,
    handles: Vec<String>,
    sets: Vec<Set>,
}

/// An event set.
#[derive(Clone, Default)]
pub(crate) struct Set {
    /// UUIDs of which it wants to hear.
    pub(crate) devices: Vec<String>,
    /// How many events of the file it has heard, or was too late for.
    pub(crate) heard: usize,
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// Calls with the world, which is made by the first call.
fn with<T>(act: impl FnOnce(&mut World) -> T) -> T {
    let mut world: MutexGuard<'_, Option<World>> = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    act(world.get_or_insert_default())
}

impl World {
    fn state(&mut self) -> Result<Arc<State>, Failure> {
        match self.read() {
            Ok(state) => Ok(state),
            Err(wrong) => {
                if self.complained.as_ref() != Some(&wrong) {
                    eprintln!("nvml-stand-in: {wrong}");
                    self.complained = Some(wrong);
                }
                Err(Code::Unknown as Failure)
            }
        }
    }

    fn read(&mut self) -> Result<Arc<State>, Malformed> {
        let named = std::env::var_os("NVML_STAND_IN").map(PathBuf::from);
        let path = named.or_else(|| Some(crate::state_file(&symbols::own_path()?))).unwrap_or_default();
        let unreadable = |error: std::io::Error| Malformed {
            path: path.clone(),
            line: 0,
            key: String::new(),
            message: format!("cannot be read: {error}"),
        };
        let meta = std::fs::metadata(&path).map_err(unreadable)?;
        let stamp = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        if let Some((read, state)) = &self.read
            && *read == stamp
        {
            return Ok(Arc::clone(state));
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        let state = Arc::new(State::parse(&path, &text)?);
        self.read = Some((stamp, Arc::clone(&state)));
        self.complained = None;
        Ok(state)
    }
}

/// Begins a call: waits while the file says that it hangs, fails where the file says so. `device` is the UUID that it is about.
pub(crate) fn enter(function: &str, device: Option<&str>) -> Result<Arc<State>, Failure> {
    loop {
        let state = with(World::state)?;
        let concerns = |fault: &&Fault| {
            let of = fault.function.get_ref();
            let about = fault.device.as_ref().is_none_or(|named| Some(named.get_ref().as_str()) == device);
            (of == "*" || of == function) && about
        };
        match state.faults.iter().find(concerns) {
            Some(Fault { error: Some(code), .. }) => return Err(*code as Failure),
            // Without the lock: other calls go on.
            Some(_) => std::thread::sleep(LOOK_AGAIN),
            None => return Ok(state),
        }
    }
}

/// As [`enter`], for what only works between init and shutdown.
pub(crate) fn enter_initialised(function: &str, device: Option<&str>) -> Result<Arc<State>, Failure> {
    if with(|world| world.initialised) == 0 {
        return Err(Code::Uninitialized as Failure);
    }
    enter(function, device)
}

pub(crate) fn initialise() {
    with(|world| world.initialised += 1);
}

pub(crate) fn shut_down() -> Result<(), Failure> {
    with(|world| {
        world.initialised = world.initialised.checked_sub(1).ok_or(Code::Uninitialized as Failure)?;
        Ok(())
    })
}

/// The handle of a UUID, from 1.
pub(crate) fn handle(uuid: &str) -> usize {
    with(|world| {
        let at = world.handles.iter().position(|known| known == uuid).unwrap_or_else(|| {
            world.handles.push(uuid.to_owned());
            world.handles.len() - 1
        });
        at + 1
    })
}

/// What a handle stands for.
pub(crate) fn uuid(handle: usize) -> Option<String> {
    with(|world| world.handles.get(handle.checked_sub(1)?).cloned())
}

/// What a UUID is.
pub(crate) enum Thing<'a> {
    Whole(&'a Device),
    Part(&'a Device, &'a Instance),
}

/// Finds it; one that is not in the file any more, or is said to be, has fallen off the bus.
pub(crate) fn find<'a>(state: &'a State, uuid: &str) -> Result<Thing<'a>, Failure> {
    let found = state.devices.iter().find_map(|device| {
        if device.uuid.get_ref() == uuid {
            return Some(Thing::Whole(device));
        }
        device.mig.iter().find(|mig| mig.uuid.get_ref() == uuid).map(|mig| Thing::Part(device, mig))
    });
    match found {
        Some(Thing::Whole(device) | Thing::Part(device, _)) if device.lost => Err(Code::GpuIsLost as Failure),
        Some(thing) => Ok(thing),
        None => Err(Code::GpuIsLost as Failure),
    }
}

/// A new event set, from 1.
pub(crate) fn new_set() -> usize {
    with(|world| {
        world.sets.push(Set::default());
        world.sets.len()
    })
}

/// Changes an event set.
pub(crate) fn with_set<T>(set: usize, act: impl FnOnce(&mut Set) -> T) -> Result<T, Failure> {
    with(|world| {
        let set = set.checked_sub(1).and_then(|at| world.sets.get_mut(at));
        set.map(act).ok_or(Code::InvalidArgument as Failure)
    })
}
