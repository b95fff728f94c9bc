//! Where a command runs and what of this machine it finds there: folder, variables, what a container mounts.
//!
//! Invariants: nothing goes along that the user did not name or that `--help` does not name (a short list of variables); the token never
//! does, whatever is asked; with an image nothing goes along by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use api::{EmptyDir, Medium, Volume};
use clap::{Args, ValueHint};

use crate::error::Error;

/// Variables that go with a job unless told otherwise.
const USUAL: [&str; 5] = ["PATH", "HOME", "LANG", "USER", "VIRTUAL_ENV"];
/// And all that begin so.
const USUAL_PREFIX: &str = "CONDA_";
/// Never sent: a secret, where the server is, and what names the run that this very command may be part of.
const NEVER: [&str; 8] = [
    "FLASH_TOKEN",
    "FLASH_SERVER",
    "FLASH_JOB_ID",
    "FLASH_ATTEMPT",
    "FLASH_TASK",
    "FLASH_NAMESPACE",
    "FLASH_QUEUE",
    "CUDA_VISIBLE_DEVICES",
];

/// Where a command runs and what it finds there.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where it runs")]
pub(crate) struct PlaceArgs {
    /// Container image to run it in, on a cluster: then no folder and no variables go along but those that are named
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// What the container mounts: CLAIM:/path, CLAIM:/path:ro, or memory:/dev/shm; may be given several times
    #[arg(long = "volume", value_name = "VOLUME", value_parser = volume, requires = "image")]
    pub(crate) volumes: Vec<Volume>,
    /// Folder to start in [default: the current one]
    #[arg(short = 'w', long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) workdir: Option<PathBuf>,
    /// Variable: with a value, or as it is here; may be given several times. PATH, HOME, LANG, USER, VIRTUAL_ENV and
    /// CONDA_* go along by themselves
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Send the whole environment (without FLASH_TOKEN)
    #[arg(long, conflicts_with = "env_none")]
    pub(crate) env_all: bool,
    /// Send no variables but those of --env
    #[arg(long)]
    pub(crate) env_none: bool,
}

/// `CLAIM:/path`, `CLAIM:/path:ro`, `memory:/path`.
fn volume(text: &str) -> Result<Volume, String> {
    let (path_and_mode, read_only) = text.strip_suffix(":ro").map_or((text, false), |rest| (rest, true));
    let (source, path) = path_and_mode
        .split_once(':')
        .filter(|(source, path)| !source.is_empty() && path.starts_with('/'))
        .ok_or("write CLAIM:/path, CLAIM:/path:ro or memory:/path")?;
    let mount = Volume { mount_path: path.to_owned(), read_only, ..Volume::default() };
    Ok(if source == "memory" {
        Volume { empty_dir: Some(EmptyDir { medium: Some(Medium::Memory), size_limit: None }), ..mount }
    } else {
        Volume { claim: Some(source.to_owned()), ..mount }
    })
}

/// The variables that go with a command.
pub(crate) fn environment(place: &PlaceArgs, vars: &[(OsString, OsString)]) -> Result<BTreeMap<String, String>, Error> {
    let mut env = BTreeMap::new();
    if !place.env_none {
        for (name, value) in vars {
            // What is not UTF-8 cannot be sent; only what was asked for by name is worth an error.
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            let usual = place.image.is_none() && (USUAL.contains(&name) || name.starts_with(USUAL_PREFIX));
            let wanted = place.env_all || usual;
            if wanted && !NEVER.contains(&name) {
                env.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    for asked in &place.env {
        let wrong = |why: &str| Error::usage(format!("--env `{}`: {why}", crate::table::clean(asked)));
        let (name, value) = if let Some(said) = asked.split_once('=') {
            said
        } else {
            let found = vars.iter().find(|(name, _)| name.to_str() == Some(asked));
            let (_, value) = found.ok_or_else(|| wrong("is not set here; give it a value with NAME=VALUE"))?;
            (asked.as_str(), value.to_str().ok_or_else(|| wrong("its value is not UTF-8, and cannot be sent"))?)
        };
        if name.is_empty() {
            return Err(wrong("the name is empty"));
        }
        if name == "FLASH_TOKEN" {
            return Err(wrong("a token is not sent with a job: everybody who may see the job would see it"));
        }
        env.insert(name.to_owned(), value.to_owned());
    }
    Ok(env)
}
