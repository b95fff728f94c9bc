//! `cargo xtask test`: set-up, one build, every test, a summary.
//!
//! Lines of cargo and of the test programs pass through as they come; they are read on the way to count. A suite that fails does
//! not keep the others from running. The last line is `N passed, N failed` over all suites, and the status agrees with it: a test
//! program that dies without a result line fails the command too.

use std::io::{BufRead, BufReader, PipeReader};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster;
use crate::setup;
use crate::step::{cargo, pretty, run, shown, step};

/// Points of the crash suites under `--quick`; without it the suites take their own, full number.
const QUICK_CRASH_POINTS: &str = "10";

/// How often it is looked whether cargo has ended, while no line comes.
const LOOK: Duration = Duration::from_millis(200);

/// How long the tests' output may stay open after cargo has ended.
const LINGER: Duration = Duration::from_secs(10);

/// What one test program said in its closing line.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Suite {
    name: String,
    passed: u64,
    failed: u64,
    ignored: u64,
    /// As the program prints it: `1.23s`.
    took: String,
}

/// Counts over the output of `cargo test`, fed line by line.
#[derive(Default)]
struct Tally {
    current: String,
    suites: Vec<Suite>,
    failures: Vec<String>,
}

impl Tally {
    fn line(&mut self, line: &str) {
        let text = line.trim();
        if let Some(name) = suite_name(text) {
            self.current = name;
        } else if let Some(result) = text.strip_prefix("test result: ") {
            self.suites.push(Suite { name: self.current.clone(), ..closing(result) });
        } else if let Some(name) = text.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("{}: {name}", self.current));
        }
    }

    fn passed(&self) -> u64 {
        self.suites.iter().map(|suite| suite.passed).sum()
    }

    fn failed(&self) -> u64 {
        self.suites.iter().map(|suite| suite.failed).sum()
    }

    fn print(&self) {
        println!("\n{:<58} {:>7} {:>7} {:>8} {:>9}", "suite", "passed", "failed", "ignored", "time");
        for suite in self.suites.iter().filter(|suite| suite.passed + suite.failed + suite.ignored > 0) {
            println!("{:<58} {:>7} {:>7} {:>8} {:>9}", suite.name, suite.passed, suite.failed, suite.ignored, suite.took);
        }
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
    }
}

/// `Running unittests src/lib.rs (target/debug/deps/api-0123)` gives `api src/lib.rs`; `Doc-tests api` gives `api doc-tests`.
fn suite_name(line: &str) -> Option<String> {
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{package} doc-tests"));
    }
    let rest = line.strip_prefix("Running ")?;
    let (source, program) = rest.split_once(" (")?;
    let program = program.trim_end_matches(')').rsplit('/').next()?;
    let program = program.rsplit_once('-').map_or(program, |(name, _)| name);
    let source = source.trim_start_matches("unittests ");
    Some(format!("{program} {source}"))
}

/// `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn closing(result: &str) -> Suite {
    let mut suite = Suite::default();
    for part in result.split(['.', ';']).map(str::trim) {
        if let Some((number, word)) = part.split_once(' ')
            && let Ok(number) = number.parse::<u64>()
        {
            match word {
                "passed" => suite.passed = number,
                "failed" => suite.failed = number,
                "ignored" => suite.ignored = number,
                _ => {}
            }
        }
    }
    suite.took = result.rsplit_once("finished in ").map(|(_, took)| took.to_owned()).unwrap_or_default();
    suite
}

/// Runs the tests; true if cargo says that all went well.
fn run_tests(quick: bool, filter: &[String], tally: &mut Tally) -> Result<bool> {
    let mut command = cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
    if !filter.is_empty() {
        command.arg("--").args(filter);
    }
    if quick && std::env::var_os("FLASH_CRASH_POINTS").is_none() {
        command.env("FLASH_CRASH_POINTS", QUICK_CRASH_POINTS);
    }
    // Cargo says which program runs on stderr, the program's lines come on stdout: one pipe keeps them in order.
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdout(Stdio::from(writer.try_clone().context("making a pipe")?)).stderr(Stdio::from(writer));
    let line = shown(&command);
    println!("    $ {line}");
    let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
    // The command keeps our copies of the writing end; while they are open the pipe has no end.
    drop(command);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || read_lines(reader, &sender));
    // The pipe ends when everything that the tests started has ended. Something that outlives them must not keep us waiting for ever.
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(text) => {
                print!("{text}");
                tally.line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => match &ended {
                None => {
                    let status = child.try_wait().with_context(|| format!("waiting for `{line}`"))?;
                    ended = status.map(|status| (status, Instant::now()));
                }
                Some((_, at)) if at.elapsed() > LINGER => bail!("a process that a test started outlived it and holds its output"),
                Some(_) => {}
            },
        }
    }
    let status = match ended {
        Some((status, _)) => status,
        None => child.wait().with_context(|| format!("waiting for `{line}`"))?,
    };
    Ok(status.success())
}

/// Sends lines on until the pipe ends or nobody listens.
fn read_lines(reader: PipeReader, sender: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
            return;
        }
        bytes.clear();
    }
}

/// `cargo xtask test [--quick] [-- FILTER..]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let (own, filter) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[][..]),
    };
    if let Some(wrong) = own.iter().find(|arg| *arg != "--quick") {
        bail!("test takes `--quick` and `-- FILTER`, not `{wrong}`");
    }
    let begun = Instant::now();
    step("what building and testing need", setup::check)?;
    step("build", || run(cargo(["test", "--workspace", "--locked", "--no-run"])))?;
    cluster::prepare();
    let mut tally = Tally::default();
    let went_well = step("tests", || run_tests(!own.is_empty(), filter, &mut tally));
    tally.print();
    println!("\nall tests: {}", pretty(begun.elapsed()));
    println!("{} passed, {} failed", tally.passed(), tally.failed());
    if tally.failed() > 0 {
        bail!("{} tests failed", tally.failed());
    }
    if !went_well? {
        bail!("a test program ended without a result; its last lines are above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Suite, Tally};

    #[test]
    fn suites_and_failures_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/scheduler_core-0123abcd)\n",
            "test queue::fifo ... ok\n",
            "test queue::ageing ... FAILED\n",
            "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.02s\n",
            "     Running tests/crash.rs (/elsewhere/debug/deps/crash-99)\n",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 61.00s\n",
            "   Doc-tests api\n",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        ] {
            tally.line(line);
        }
        assert_eq!((tally.passed(), tally.failed()), (4, 1));
        assert_eq!(tally.failures, ["scheduler_core src/lib.rs: queue::ageing"]);
        assert_eq!(
            tally.suites[1],
            Suite { name: "crash tests/crash.rs".into(), passed: 3, failed: 0, ignored: 0, took: "61.00s".into() }
        );
        assert_eq!(tally.suites[2].name, "api doc-tests");
    }
}
