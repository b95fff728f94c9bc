//! Steps: a named piece of work, announced before it begins, with its duration when it ends.
//!
//! Children inherit the terminal unless their output is the result, so that a long step is never silent. Nothing is read from
//! standard input.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The folder of the workspace: the parent of this package's. cargo says at run time where that is; a shared target folder may
/// have been compiled from another clone.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A program to be run in the workspace, with nothing on its standard input.
pub(crate) fn program<S: AsRef<OsStr>>(name: S) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs us, or the one in PATH.
pub(crate) fn cargo<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let mut line = program.into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// `73 ms`, `12.4 s`, `3 min 05 s`.
pub(crate) fn pretty(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{} ms", took.as_millis()),
        1..60 => format!("{:.1} s", took.as_secs_f64()),
        secs => format!("{} min {:02} s", secs / 60, secs % 60),
    }
}

/// Announces `name`, does the work, says how long it took and whether it went well.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {name}");
    let begun = Instant::now();
    let result = work();
    let took = pretty(begun.elapsed());
    match &result {
        Ok(_) => println!("    {name}: ok, {took}\n"),
        Err(error) => println!("    {name}: FAILED, {took}: {error:#}\n"),
    }
    result
}

/// Runs to the end with the output going to the terminal; an error unless it succeeded.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let line = shown(&command);
    println!("    $ {line}");
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs to the end and returns standard output; errors of the program go to the terminal.
pub(crate) fn output_of(mut command: Command) -> Result<String> {
    let line = shown(&command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{line}`"))
}

/// As [`output_of`], but killed and an error when it is not done by the deadline.
pub(crate) fn output_until(mut command: Command, limit: Duration) -> Result<String> {
    let line = shown(&command);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("starting `{line}`"))?;
    let out = child.stdout.take().map(|pipe| std::thread::spawn(move || read_all(pipe)));
    let err = child.stderr.take().map(|pipe| std::thread::spawn(move || read_all(pipe)));
    let Some(success) = wait_until(&mut child, limit)? else { bail!("`{line}` was not done within {}", pretty(limit)) };
    let [out, err] = [out, err].map(|reader| reader.and_then(|reader| reader.join().ok()).unwrap_or_default());
    if !success {
        bail!("`{line}` failed: {}", err.trim());
    }
    Ok(out)
}

/// Whether a program of that name is in PATH.
pub(crate) fn in_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// How a program with a deadline ended.
pub(crate) enum Ended {
    /// By itself; whether it succeeded, and everything that it wrote.
    InTime {
        /// Exit status 0.
        success: bool,
        /// Standard output and standard error.
        text: String,
    },
    /// It was killed at the deadline.
    TooLate,
}

/// Runs to the end, or to the deadline, and returns what it wrote.
pub(crate) fn run_until(mut command: Command, limit: Duration) -> Result<Ended> {
    let line = shown(&command);
    println!("    $ {line}   (at most {})", pretty(limit));
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("starting `{line}`"))?;
    let out = child.stdout.take().map(|pipe| std::thread::spawn(move || read_all(pipe)));
    let err = child.stderr.take().map(|pipe| std::thread::spawn(move || read_all(pipe)));
    let Some(success) = wait_until(&mut child, limit)? else { return Ok(Ended::TooLate) };
    let mut text = String::new();
    for reader in [out, err].into_iter().flatten() {
        text.push_str(&reader.join().unwrap_or_default());
    }
    Ok(Ended::InTime { success, text })
}

fn read_all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // A pipe that breaks ends the text; what came before it is still worth showing.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether it succeeded, or nothing if it had to be killed. std has no wait with a deadline, so this looks ten times a second.
fn wait_until(child: &mut Child, limit: Duration) -> Result<Option<bool>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for a child")? {
            return Ok(Some(status.success()));
        }
        if begun.elapsed() >= limit {
            // Its pipes may be held by what it started, so nobody waits for their end.
            child.kill().context("killing a child that took too long")?;
            child.wait().context("waiting for a killed child")?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
