//! `cargo xtask lint`: everything that is checked without running the product.
//!
//! All checks run, also after one has failed, so that one round shows everything; the command fails if any did.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::step::{Ended, cargo, run, run_until, step};
use crate::{generated, layers, length, setup};

/// How long the advisory database may take to arrive. Where only package registries are reached it never does.
const ADVISORIES_LIMIT: Duration = Duration::from_mins(2);

/// The names for `--only`, in the order in which the checks run.
const CHECKS: [&str; 6] = ["fmt", "layers", "length", "deny", "clippy", "generated"];

fn fmt(fix: bool) -> Result<()> {
    if fix { run(cargo(["fmt", "--all"])) } else { run(cargo(["fmt", "--all", "--check"])) }
}

fn clippy() -> Result<()> {
    run(cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

/// What cargo-deny said about advisories.
#[derive(PartialEq, Eq, Debug)]
enum Advisories {
    Clean,
    Found,
    Unreachable,
}

/// Only a database that could not be fetched is no finding; every other failure is one.
fn judge_advisories(success: bool, text: &str) -> Advisories {
    if success {
        Advisories::Clean
    } else if text.contains("failed to fetch advisory database") {
        Advisories::Unreachable
    } else {
        Advisories::Found
    }
}

fn advisories() -> Result<()> {
    let mut command = cargo(["deny", "--locked", "check", "advisories"]);
    command.env("GIT_TERMINAL_PROMPT", "0");
    let (verdict, text) = match run_until(command, ADVISORIES_LIMIT)? {
        Ended::InTime { success, text } => (judge_advisories(success, &text), text),
        Ended::TooLate => (Advisories::Unreachable, "no answer in time".to_owned()),
    };
    match verdict {
        Advisories::Clean => println!("    advisories: none"),
        Advisories::Found => bail!("advisories:\n{text}"),
        Advisories::Unreachable => {
            let why = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            println!("    advisories: SKIPPED, the advisory database cannot be reached from here ({})", why.trim());
        }
    }
    Ok(())
}

fn deny() -> Result<()> {
    setup::ensure_cargo_deny()?;
    run(cargo(["deny", "--locked", "check", "bans", "licenses", "sources"]))?;
    advisories()
}

/// The options of the command.
struct Options {
    fix: bool,
    only: Vec<String>,
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options { fix: false, only: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--fix" => options.fix = true,
            "--only" => {
                let names = args.next().map(String::as_str).unwrap_or_default();
                options.only = names.split(',').map(str::to_owned).collect();
            }
            other => bail!("lint takes `--fix` and `--only {}`, not `{other}`", CHECKS.join(",")),
        }
    }
    match options.only.iter().find(|name| !CHECKS.contains(&name.as_str())) {
        Some(wrong) => bail!("there is no check `{wrong}`: {}", CHECKS.join(", ")),
        None => Ok(options),
    }
}

/// `cargo xtask lint [--fix] [--only NAME,..]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let options = options(args)?;
    let mut failed = Vec::new();
    for name in CHECKS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let result = match name {
            "fmt" => step("format", || fmt(options.fix)),
            "layers" => step("layers", layers::check),
            "length" => step("file length", length::check),
            "deny" => step("cargo-deny", deny),
            "clippy" => step("clippy", clippy),
            _ => step("generated files", || generated::check(options.fix)),
        };
        if result.is_err() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("lint: ok");
        Ok(())
    } else {
        bail!("lint: {} failed", failed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Advisories, judge_advisories};

    #[test]
    fn a_database_out_of_reach_is_not_a_finding() {
        assert_eq!(judge_advisories(true, "advisories ok"), Advisories::Clean);
        assert_eq!(judge_advisories(false, "error[vulnerability]: ...\nadvisories FAILED"), Advisories::Found);
        assert_eq!(judge_advisories(false, "error: deny.toml: unknown key"), Advisories::Found);
        assert_eq!(judge_advisories(false, "[ERROR] failed to fetch advisory database"), Advisories::Unreachable);
    }
}
