//! The runner as a program of its own: what `flashd runner` is in a release, for tests and examples of this crate.
//!
//! `flash-test-runner --dir DIR [--boot-id ID] [--idle-ms N] [--cgroup-root DIR] [--leftover-grace-ms N] [--gather-held-ms N]
//! [--fresh-ms N] [--compact-bytes N] [--descriptors N]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use executors::local::runner::{RunnerOptions, runner_main};

fn options() -> Result<RunnerOptions, String> {
    let mut options = RunnerOptions::new("");
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name}: a value is missing"))?;
        let millis = || value.parse().map(Duration::from_millis).map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--dir" => options.dir = PathBuf::from(value),
            "--boot-id" => options.boot_id = Some(value),
            "--cgroup-root" => options.cgroup_root = Some(PathBuf::from(value)),
            "--device-root" => options.device_root = Some(PathBuf::from(value)),
            "--idle-ms" => options.idle_exit = millis()?,
            "--leftover-grace-ms" => options.leftover_grace = millis()?,
            "--gather-held-ms" => (options.gather_held, options.fresh) = (millis()?, millis()?),
            "--fresh-ms" => options.fresh = millis()?,
            "--descriptors" => options.descriptors = value.parse().map_err(|error| format!("{name} {value}: {error}"))?,
            "--compact-bytes" => options.compact_bytes = value.parse().map_err(|error| format!("{name} {value}: {error}"))?,
            _ => return Err(format!("{name}: not known")),
        }
    }
    if options.dir.as_os_str().is_empty() {
        return Err("--dir is missing".to_owned());
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options()
        .and_then(|options| runner_main(options).map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error))))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
