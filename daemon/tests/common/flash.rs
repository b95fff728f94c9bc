//! The real `flash` against a daemon of a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Daemon;

/// The client that was built beside the daemon: its own package's tests build it, so `cargo test --workspace` does.
pub fn binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_flashd")).with_file_name("flash");
    assert!(path.is_file(), "{} is not there: build the whole workspace first (cargo build --workspace)", path.display());
    path
}

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// `flash` on a daemon's socket, without anything of the tester's own surroundings.
pub fn command(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("FLASH_SERVER", format!("unix://{}", daemon.socket().display()));
    command.current_dir("/tmp").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub fn flash(daemon: &Daemon, args: &[&str]) -> Ended {
    ended(&mut command(daemon, args))
}

/// The answer of a command that has to succeed.
pub fn told(daemon: &Daemon, args: &[&str]) -> String {
    let Ended { code, out, err } = flash(daemon, args);
    assert_eq!(code, Some(0), "{args:?}: {err}");
    out.trim_end().to_owned()
}
