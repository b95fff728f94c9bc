//! Where the runner's socket is, for both sides.
//!
//! A socket's address holds at most 107 bytes of path, a data folder may have a longer one: then the folder is addressed through its
//! descriptor under `/proc/self/fd`. Both sides do so by themselves; the file on disk is the same.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Name of the socket in the runner's folder.
pub(crate) const SOCKET_FILE: &str = "runner.sock";

/// Longest path that every system takes as a socket address, in bytes.
const MAX_ADDRESS: usize = 100;

/// A path of at most [`MAX_ADDRESS`] bytes to the socket in `dir`, usable while the descriptor lives.
pub(crate) struct SocketPath {
    path: PathBuf,
    _dir: Option<OwnedFd>,
}

impl SocketPath {
    /// The socket in `dir`, which has to exist.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SOCKET_FILE);
        if path.as_os_str().len() <= MAX_ADDRESS {
            return Ok(Self { path, _dir: None });
        }
        let folder = OwnedFd::from(std::fs::File::open(dir)?);
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_FILE}", folder.as_raw_fd()));
        Ok(Self { path, _dir: Some(folder) })
    }

    /// The path.
    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }
}
