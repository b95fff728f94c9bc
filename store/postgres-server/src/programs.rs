//! Where PostgreSQL's programs are, and as whom they run: they refuse to run as root.

use std::path::{Path, PathBuf};
use std::process::Command;

use std::os::unix::process::CommandExt as _;

/// PostgreSQL is not installed.
#[derive(Debug, thiserror::Error)]
#[error(
    "PostgreSQL's `initdb` and `postgres` are neither in PATH nor in /usr/lib/postgresql; install them with \
     `apt-get install -y --no-install-recommends postgresql`, or name a server in FLASH_TEST_POSTGRES_URL"
)]
pub struct Missing;

/// Where Debian has a folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    /// Who runs them, where we are root: user and group.
    who: Option<(u32, u32)>,
}

impl Programs {
    /// Those of the newest version.
    ///
    /// # Errors
    /// There are none.
    pub fn find() -> Result<Self, Missing> {
        let version = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        let mut versions: Vec<PathBuf> =
            std::fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        versions.sort_by_key(|path| std::cmp::Reverse(version(path)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = versions.into_iter().map(|folder| folder.join("bin")).chain(std::env::split_paths(&path));
        let folder = folders
            .into_iter()
            .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
            .ok_or(Missing)?;
        let who = rustix::process::geteuid().is_root().then(other_user);
        Ok(Self { folder, who })
    }

    /// As whom they run, where that is somebody else.
    pub(crate) fn who(&self) -> Option<(u32, u32)> {
        self.who
    }

    /// One of them.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.as_them(self.folder.join(program))
    }

    /// Any program, as the user who runs them. Messages are in English.
    pub(crate) fn as_them(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/");
        if let Some((user, group)) = self.who {
            command.uid(user).gid(group);
        }
        command
    }
}

/// User and group of `postgres`, or of `nobody`.
fn other_user() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).unwrap_or((65_534, 65_534))
}
