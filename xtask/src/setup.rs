//! What building and testing need: said in one list, with the command that mends each gap.
//!
//! Needed are Rust with rustfmt and clippy, a C compiler and linker (SQLite is compiled in), and cargo-deny for `lint` alone.
//! Everything else that the tests use they bring along. System packages are only named, never installed: that is for whoever owns
//! the machine (`.ci/run` does it where it is root).

use anyhow::{Result, bail};

use crate::step::{cargo, in_path, program, run, step};

/// The version of cargo-deny that `deny.toml` was written for.
const CARGO_DENY: &str = "0.20.2";

/// One thing that is needed.
struct Need {
    name: &'static str,
    what_for: &'static str,
    /// First line of its version, if it is there.
    found: Option<String>,
    /// The command that brings it.
    remedy: String,
    /// Building and testing are impossible without it.
    required: bool,
}

fn first_line(mut command: std::process::Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().unwrap_or("present").to_owned())
}

fn version(name: &str, args: &[&str]) -> Option<String> {
    let mut command = program(name);
    command.args(args);
    first_line(command)
}

/// The toolchain, as `rust-version` of the workspace asks for it.
fn rust_is_new_enough(found: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).filter_map(|part| part.parse().ok()).collect()
    };
    let found = found.split_whitespace().nth(1).unwrap_or_default();
    numbers(found) >= numbers(wanted)
}

/// Debian keeps the server's programs out of the path, in a folder for each version.
fn debians_initdb() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let found = versions.map(|version| version.path().join("bin/initdb")).find(|program| program.is_file())?;
    version(found.to_str()?, &["--version"])
}

fn needs() -> Vec<Need> {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    vec![
        Need {
            name: "rustc",
            what_for: "compiles the workspace",
            found: version("rustc", &["--version"]).filter(|line| rust_is_new_enough(line, wanted)),
            remedy: format!("rustup update stable   (Rust {wanted} or newer)"),
            required: true,
        },
        Need {
            name: "cc",
            what_for: "links programs and compiles SQLite into flashd",
            found: version("cc", &["--version"]),
            remedy: "apt-get install -y --no-install-recommends gcc libc6-dev".to_owned(),
            required: true,
        },
        Need {
            name: "rustfmt",
            what_for: "`lint` checks the format",
            found: first_line(cargo(["fmt", "--version"])),
            remedy: "rustup component add rustfmt".to_owned(),
            required: false,
        },
        Need {
            name: "clippy",
            what_for: "`lint` runs it",
            found: first_line(cargo(["clippy", "--version"])),
            remedy: "rustup component add clippy".to_owned(),
            required: false,
        },
        Need {
            name: "valgrind",
            what_for: "`instructions` counts with it; without it that is skipped",
            found: version("valgrind", &["--version"]),
            remedy: "apt-get install -y --no-install-recommends valgrind".to_owned(),
            required: false,
        },
        Need {
            name: "initdb",
            what_for: "tests of the store on PostgreSQL; without it they are skipped",
            found: version("initdb", &["--version"]).or_else(debians_initdb),
            remedy: "apt-get install -y --no-install-recommends postgresql".to_owned(),
            required: false,
        },
        Need {
            name: "cargo-deny",
            what_for: "`lint` checks licences, sources and advisories; it installs this by itself",
            found: first_line(cargo(["deny", "--version"])),
            remedy: format!("cargo install cargo-deny --locked --version {CARGO_DENY}"),
            required: false,
        },
    ]
}

/// Prints the list; an error if something is missing without which nothing can be built.
pub(crate) fn check() -> Result<()> {
    let mut missing = Vec::new();
    for need in needs() {
        if let Some(version) = &need.found {
            println!("    found    {:<11} {version}", need.name);
            continue;
        }
        println!("    MISSING  {:<11} {}", need.name, need.what_for);
        println!("             bring it with: {}", need.remedy);
        if need.required {
            missing.push(need.name);
        }
    }
    if missing.is_empty() { Ok(()) } else { bail!("missing: {}", missing.join(", ")) }
}

/// Installs cargo-deny if it is absent. It is compiled from source: some minutes on a small machine.
pub(crate) fn ensure_cargo_deny() -> Result<()> {
    if first_line(cargo(["deny", "--version"])).is_some() {
        return Ok(());
    }
    println!("    cargo-deny is not there; compiling it takes some minutes");
    run(cargo(["install", "cargo-deny", "--locked", "--version", CARGO_DENY]))
}

/// Gets every crate that the lock file names, so that a later step does not fail half way for want of a network.
fn fetch() -> Result<()> {
    run(cargo(["fetch", "--locked"]))
}

/// `cargo xtask setup [--install]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let install = match args {
        [] => false,
        [only] if only == "--install" => true,
        _ => bail!("setup takes `--install` or nothing, not `{}`", args.join(" ")),
    };
    step("what building and testing need", check)?;
    if install {
        step("cargo-deny", ensure_cargo_deny)?;
        if !in_path("rustup") {
            println!("    rustup is not there: rustfmt and clippy must come with your Rust");
        } else if first_line(cargo(["clippy", "--version"])).is_none() || first_line(cargo(["fmt", "--version"])).is_none() {
            let mut command = program("rustup");
            command.args(["component", "add", "rustfmt", "clippy"]);
            step("rustfmt and clippy", || run(command))?;
        }
    }
    step("crates", fetch)
}

#[cfg(test)]
mod tests {
    use super::rust_is_new_enough;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(rust_is_new_enough("rustc 1.95.0 (abc 2026-01-01)", "1.95"));
        assert!(rust_is_new_enough("rustc 1.100.0 (abc)", "1.95"));
        assert!(!rust_is_new_enough("rustc 1.94.1 (abc)", "1.95"));
        assert!(!rust_is_new_enough("", "1.95"));
    }
}
