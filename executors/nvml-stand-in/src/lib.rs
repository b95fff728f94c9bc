//! A stand-in for NVIDIA's management library: GPUs that are not there, said to be there by a file.
//!
//! Built as a shared library it exports NVML's C symbols, so that a program which loads it by path (`gpu.nvml_library` of `flashd`) runs the very
//! code that talks to a driver. What it answers stands in a TOML file ([`state`]): the one that `NVML_STAND_IN` names, or the one beside the
//! library with the same name and the extension `toml`. The file is read again when it has changed, so a test changes GPUs by writing it.
//!
//! What must hold: a file that cannot be understood never looks like a machine without GPUs: every function then answers `UNKNOWN`, and
//! what is wrong is said once on stderr with file, line and key. Nothing here is part of a release: only tests link it.

pub mod state;
mod symbols;
mod world;

use std::io;
use std::path::{Path, PathBuf};

/// The shared library that was built together with the running test. Cargo puts it beside the test's own program.
///
/// # Errors
/// It is not there, or the own program is not known.
pub fn built() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let name = format!("{}nvml_stand_in{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let beside = program.with_file_name(&name);
    // Examples have a folder of their own, next to that one.
    let next = program.parent().and_then(std::path::Path::parent).map(|folder| folder.join("deps").join(&name));
    let found = [Some(beside.clone()), next].into_iter().flatten().find(|library| library.is_file());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, beside.display().to_string()))
}

/// Puts a copy of the library into a folder with this state beside it, so that nobody else's test shares it. Returns its path.
///
/// # Errors
/// What the system says.
pub fn install(folder: &Path, state: &str) -> io::Result<PathBuf> {
    let library = folder.join("libnvidia-ml.so.1");
    std::fs::copy(built()?, &library)?;
    set(&library, state)?;
    Ok(library)
}

/// Changes what an installed library answers, at once and whole.
///
/// # Errors
/// What the system says.
pub fn set(library: &Path, state: &str) -> io::Result<()> {
    let file = state_file(library);
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, state)?;
    std::fs::rename(fresh, file)
}

/// Where the state of a library stands unless `NVML_STAND_IN` says otherwise.
fn state_file(library: &Path) -> PathBuf {
    library.with_extension("toml")
}
