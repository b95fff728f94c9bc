//! `cargo xtask curves` and `cargo xtask soak`: build in release mode, and have the load generator do it, with its pictures in `target/bench/`.
//!
//! Both measure one daemon of their own and take long; what they print and write is the load generator's. The status of a soak says whether
//! every promise was kept.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{cargo, program, root, run, step, target_dir};

fn build() -> Result<()> {
    step("release build", || run(cargo(["build", "--release", "--locked", "-p", "daemon", "-p", "cli", "-p", "benches"])))
}

fn loadgen(args: &[OsString]) -> Result<Command> {
    let generator = target_dir().join("release/loadgen");
    if !generator.is_file() {
        bail!("{} is not there; without --no-build it is built", generator.display());
    }
    let out = target_dir().join("bench");
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    println!("    pictures and figures: {}", out.strip_prefix(root()).unwrap_or(&out).display());
    let mut command = program(&generator);
    command.args(args).arg("--out").arg(&out);
    Ok(command)
}

/// Seconds in `90s`, `10m`, `1h`.
fn seconds(text: &str) -> Result<u64> {
    let unit = |end: char, factor: u64| text.strip_suffix(end).and_then(|number| number.parse::<u64>().ok()?.checked_mul(factor));
    unit('s', 1)
        .or_else(|| unit('m', 60))
        .or_else(|| unit('h', 3_600))
        .filter(|seconds| *seconds > 0)
        .with_context(|| format!("`{text}` is not a time: 90s, 10m or 1h"))
}

/// `cargo xtask curves [--quick] [--only queued,running,watchers,nodes] [--no-build]`
pub(crate) fn curves(args: &[String]) -> Result<()> {
    let mut passed: Vec<OsString> = vec!["curves".into(), "--limit".into(), "1200".into()];
    let (mut args, mut builds) = (args.iter(), true);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--no-build" => builds = false,
            "--quick" => passed.push(arg.into()),
            "--only" => passed.extend(["--only".into(), args.next().context("--only is followed by names")?.into()]),
            other => bail!("curves takes --quick, --only .. and --no-build, not `{other}`"),
        }
    }
    if builds {
        build()?;
    }
    let command = loadgen(&passed)?;
    step("curves", || run(command))
}

/// `cargo xtask soak [--for 1h] [--rate N] [--seed N] [--no-build]`
pub(crate) fn soak(args: &[String]) -> Result<()> {
    let (mut passed, mut time) = (Vec::<OsString>::new(), 3_600);
    let (mut args, mut builds) = (args.iter(), true);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--no-build" => builds = false,
            "--for" => time = seconds(args.next().map(String::as_str).unwrap_or_default())?,
            "--rate" | "--seed" => passed.extend([arg.into(), args.next().context("a number is missing")?.into()]),
            other => bail!("soak takes --for TIME, --rate N, --seed N and --no-build, not `{other}`"),
        }
    }
    if builds {
        build()?;
    }
    let mut all: Vec<OsString> = vec!["soak".into(), "--seconds".into(), time.to_string().into()];
    all.append(&mut passed);
    let command = loadgen(&all)?;
    step("soak", || run(command))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_units() {
        let read = |text: &str| seconds(text).ok();
        assert_eq!((read("90s"), read("10m"), read("1h")), (Some(90), Some(600), Some(3_600)));
        for wrong in ["", "90", "0s", "-1m", "1d", "99999999999999999999h"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
