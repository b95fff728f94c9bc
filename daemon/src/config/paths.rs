//! Where things lie when nobody says, and how the data folder is made.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `$variable`, or `~/below`; for the user's own daemon.
fn user_folder(variable: &str, below: &str) -> Option<PathBuf> {
    // The base directory specification wants relative values ignored.
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    std::env::var_os(variable)
        .map(PathBuf::from)
        .and_then(absolute)
        .or_else(|| std::env::home_dir().and_then(absolute).map(|home| home.join(below)))
}

/// Folder of the job table, logs and socket.
pub fn default_data() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/var/lib/flash-sched"));
    }
    Some(user_folder("XDG_DATA_HOME", ".local/share")?.join("flash-sched"))
}

/// The configuration file that is read where it is there.
pub fn default_file() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/etc/flash-sched/flashd.toml"));
    }
    Some(user_folder("XDG_CONFIG_HOME", ".config")?.join("flash-sched/flashd.toml"))
}

/// Makes the data folder if it is not there: for root reachable by all (0711: its socket serves all users; what lies in it must not be
/// readable), else the user's own (0700). A folder that is there keeps its mode, unless others could write to it: then it is refused.
pub fn create_data(path: &Path) -> io::Result<()> {
    let mode = if is_root() { 0o711 } else { 0o700 };
    let mut builder = std::fs::DirBuilder::new();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(io::Error::other("it is there and is not a folder")),
        Ok(found) if found.permissions().mode() & 0o002 != 0 => {
            Err(io::Error::other("everybody may write to it; say chmod o-w, or use another folder"))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            builder.mode(mode).create(path)?;
            // The process's umask may have taken bits away.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        }
        Err(error) => Err(error),
    }
}
