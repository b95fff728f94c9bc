//! From what stands on the command line to the job that is sent.
//!
//! Invariants: nothing is sent that the user did not write or that `--help` does not name (the working folder and a short list of
//! environment variables); the token is never sent as environment, whatever is asked; amounts and durations are checked here
//! by the wire's own types, everything else by the server, so that there is one set of rules.

use std::ffi::OsString;
use std::path::PathBuf;

use api::quantity::{Cpu, Duration, GpuMillis, Memory};
use api::{AnyOf, Arrangement, JobSpec, NodeSelector, Resources, Retry, Stop, TaskSpec};
use clap::Args;
use jiff::Timestamp;

use crate::error::Error;
use crate::place::{PlaceArgs, environment};

/// How a job is treated: what may be said of a command and of a file of jobs alike.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How the job is treated")]
pub(crate) struct PolicyArgs {
    /// Name, a DNS label [default: the program's name]
    #[arg(short = 'n', long)]
    pub(crate) name: Option<String>,
    /// Queue it waits in [default: default-batch]
    #[arg(short = 'q', long)]
    pub(crate) queue: Option<String>,
    /// Project it belongs to [default: default]
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Added to the queue's base priority; larger runs earlier [default: 0]
    #[arg(short = 'p', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// Priority by its name, as `flash priorities` shows them
    #[arg(long, value_name = "NAME", conflicts_with = "priority")]
    pub(crate) priority_class: Option<String>,
    /// Longest time that it may run (90s, 2h, 1h30m)
    #[arg(short = 't', long, value_name = "DURATION")]
    pub(crate) time_limit: Option<Duration>,
    /// Not before: a duration from now (2h) or a time (2026-12-24T18:00, local unless it has a zone)
    #[arg(long, value_name = "WHEN")]
    pub(crate) start_after: Option<String>,
    /// Label for selectors; may be given several times
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Tries in all when infrastructure loses it [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// Signal that asks it to end [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Time from that signal to SIGKILL [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) grace: Option<Duration>,
    /// Lay its tasks over as many nodes as there are, instead of packing them
    #[arg(long)]
    pub(crate) spread: bool,
    /// It saves its work when it is asked to end: it is stopped before others when room has to be made
    #[arg(long)]
    pub(crate) checkpointable: bool,
    /// Niceness added, 0 to 19 [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) nice: Option<i32>,
    /// The same key again is the same job, not a second one
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// What a command needs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What it needs")]
pub(crate) struct NeedArgs {
    /// CPUs of each task (4, 0.5, 500m) [default: 1]
    #[arg(short = 'c', long, value_name = "CPUS")]
    pub(crate) cpus: Option<Cpu>,
    /// Memory of each task (512Mi, 16Gi) [default: none is reserved]
    #[arg(short = 'm', long, value_name = "BYTES")]
    pub(crate) mem: Option<Memory>,
    /// GPUs of each task: whole ones (2), or a part of one that it shares with other jobs (0.5, 500m) [default: 0]
    #[arg(short = 'g', long, value_name = "N", group = "some_gpu")]
    pub(crate) gpus: Option<GpuMillis>,
    /// The same in tenths of a GPU, the units of MPS: 3 is 0.3
    #[arg(long, value_name = "N", group = "some_gpu", allow_negative_numbers = true)]
    pub(crate) gpu_mps_units: Option<i64>,
    /// Model of the GPUs, as `flash nodes` names it; may be given several times: any of them will do
    #[arg(long, value_name = "MODEL")]
    pub(crate) gpu_model: Vec<String>,
    /// Memory that each GPU has at least (40Gi)
    #[arg(long, value_name = "BYTES")]
    pub(crate) gpu_memory: Option<Memory>,
    /// UUID of a GPU that each task gets, as `flash gpus -o wide` shows it; may be given several times: all of them, and no others
    #[arg(long, value_name = "UUID")]
    pub(crate) gpu_uuid: Vec<String>,
    /// With a part of a GPU: how much of its memory it may use (20Gi) [default: as large a part of it]
    #[arg(long, value_name = "BYTES", requires = "some_gpu")]
    pub(crate) gpu_memory_share: Option<Memory>,
    /// Its GPUs are MIG instances of this profile (1g.10gb), one of them unless --gpus says how many
    #[arg(long, value_name = "PROFILE")]
    pub(crate) mig: Option<String>,
    /// Labels that the node has to have (zone=a,disk=ssd); may be given several times: of one label any of the values will do
    #[arg(long, value_name = "LABELS", value_parser = selector)]
    pub(crate) node_selector: Vec<Labels>,
    /// Tasks of this command, which start together [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<u32>,
}

/// What is around the command line: passed in, so that tests can pass their own.
pub(crate) struct Surroundings {
    /// The moment that durations count from.
    pub(crate) now: Timestamp,
    /// The current folder.
    pub(crate) folder: PathBuf,
    /// The environment.
    pub(crate) vars: Vec<(OsString, OsString)>,
}

impl Surroundings {
    /// Of this process.
    pub(crate) fn here() -> Result<Self, Error> {
        let folder = std::env::current_dir()
            .map_err(|error| Error::usage(format!("the current folder: {error}; name one with --workdir")))?;
        Ok(Self { now: Timestamp::now(), folder, vars: std::env::vars_os().collect() })
    }
}

/// `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Labels and values, as they were said at one place.
type Labels = Vec<(String, String)>;

/// `zone=a,disk=ssd`.
fn selector(text: &str) -> Result<Labels, String> {
    text.split(',').map(|part| pair(part).map_err(|_| format!("`{part}` is not LABEL=VALUE"))).collect()
}

impl NeedArgs {
    fn resources(&self) -> Option<Resources> {
        let gpu_model = (!self.gpu_model.is_empty()).then(|| AnyOf(self.gpu_model.clone()));
        let one =
            self.mig.as_ref().filter(|_| self.gpu_uuid.is_empty() && self.gpu_mps_units.is_none()).map(|_| GpuMillis::whole(1));
        let resources = Resources {
            cpu: self.cpus,
            memory: self.mem,
            gpu: self.gpus.or(one),
            gpu_mps_units: self.gpu_mps_units,
            gpu_model,
            gpu_memory: self.gpu_memory,
            gpu_uuids: (!self.gpu_uuid.is_empty()).then(|| self.gpu_uuid.clone()),
            gpu_memory_share: self.gpu_memory_share,
            mig_profile: self.mig.clone(),
        };
        (resources != Resources::default()).then_some(resources)
    }

    fn selector(&self) -> Option<NodeSelector> {
        let mut selector = NodeSelector::new();
        for (label, value) in self.node_selector.iter().flatten() {
            selector.entry(label.clone()).or_default().0.push(value.clone());
        }
        (!selector.is_empty()).then_some(selector)
    }
}

impl PolicyArgs {
    /// Puts what was said into `spec`; what was not said stays as it is.
    pub(crate) fn apply(&self, spec: &mut JobSpec, now: Timestamp) -> Result<(), Error> {
        fn set<T: Clone>(into: &mut Option<T>, said: Option<&T>) {
            if let Some(said) = said {
                *into = Some(said.clone());
            }
        }
        set(&mut spec.name, self.name.as_ref());
        set(&mut spec.queue, self.queue.as_ref());
        set(&mut spec.namespace, self.namespace.as_ref());
        set(&mut spec.priority, self.priority.as_ref());
        set(&mut spec.priority_class, self.priority_class.as_ref());
        spec.checkpointable |= self.checkpointable;
        if self.spread {
            spec.placement = Some(Arrangement::Spread);
        }
        // What the flag says stands instead of the other way to say it.
        if self.priority.is_some() {
            spec.priority_class = None;
        } else if self.priority_class.is_some() {
            spec.priority = None;
        }
        set(&mut spec.time_limit, self.time_limit.as_ref());
        set(&mut spec.nice, self.nice.as_ref());
        if let Some(text) = &self.start_after {
            let at = crate::when::parse(text, now).map_err(|why| Error::usage(format!("--start-after `{text}`: {why}")))?;
            spec.start_after = Some(at);
        }
        spec.labels.extend(self.labels.iter().cloned());
        if self.max_attempts.is_some() {
            spec.retry = Some(Retry { max_attempts: self.max_attempts });
        }
        if self.stop_signal.is_some() || self.grace.is_some() {
            let stop = spec.stop.get_or_insert_with(Stop::default);
            set(&mut stop.signal, self.stop_signal.as_ref());
            set(&mut stop.grace, self.grace.as_ref());
        }
        Ok(())
    }
}

/// The job that a command line asks for.
pub(crate) fn from_command(
    command: &[String],
    policy: &PolicyArgs,
    needs: &NeedArgs,
    place: &PlaceArgs,
    around: &Surroundings,
) -> Result<JobSpec, Error> {
    if command.is_empty() {
        return Err(Error::usage("nothing to run: give the command behind `--`, as in `flash submit -- python train.py`"));
    }
    // A folder of an image is not one of this machine, and an image knows where its programs start.
    let folder = match (&place.workdir, &place.image) {
        (Some(folder), None) => Some(around.folder.join(folder)),
        (Some(folder), Some(_)) => Some(folder.clone()),
        (None, None) => Some(around.folder.clone()),
        (None, Some(_)) => None,
    };
    let folder = folder.map(|folder| {
        folder.into_os_string().into_string().map_err(|folder| {
            let shown = crate::table::clean(&folder.to_string_lossy());
            Error::usage(format!("--workdir: `{shown}` is not UTF-8, and cannot be sent"))
        })
    });
    let mut spec = JobSpec {
        image: place.image.clone(),
        volumes: place.volumes.clone(),
        env: environment(place, &around.vars)?,
        working_dir: folder.transpose()?,
        ..JobSpec::default()
    };
    spec.resources = needs.resources();
    spec.node_selector = needs.selector();
    let command = Some(command.to_vec());
    if needs.replicas.is_some() {
        spec.tasks = vec![TaskSpec { replicas: needs.replicas, command, ..TaskSpec::default() }];
    } else {
        spec.command = command;
    }
    policy.apply(&mut spec, around.now)?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        needs: NeedArgs,
        #[command(flatten)]
        place: PlaceArgs,
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    }

    fn around() -> Surroundings {
        let vars = [
            ("PATH", "/bin"),
            ("HOME", "/h"),
            ("CONDA_PREFIX", "/c"),
            ("SECRET", "s"),
            ("FLASH_TOKEN", "t"),
            ("FLASH_JOB_ID", "j"),
        ];
        Surroundings {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            folder: "/here/dir".into(),
            vars: vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    fn spec(line: &[&str]) -> Result<JobSpec, Error> {
        let line =
            Line::try_parse_from(std::iter::once(&"flash").chain(line)).map_err(|error| Error::usage(error.to_string()))?;
        from_command(&line.command, &line.policy, &line.needs, &line.place, &around())
    }

    #[test]
    fn a_bare_command_goes_with_folder_and_usual_environment() {
        let sent = serde_json::to_value(spec(&["--", "python", "train.py", "--lr", "3"]).unwrap()).unwrap();
        let expected = serde_json::json!({
            "command": ["python", "train.py", "--lr", "3"],
            "workingDir": "/here/dir",
            "env": {"PATH": "/bin", "HOME": "/h", "CONDA_PREFIX": "/c"},
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn every_option_reaches_its_field() {
        let line = "-n train -q fast --namespace lab -c 500m -m 4Gi -g 2 -p -7 -t 1h30m --start-after 2h -e A=1=2 -e SECRET --env-none \
                    -w sub --replicas 4 --max-attempts 5 -l team=x -l run=7 --stop-signal SIGINT --grace 5s --nice 3 -- sh -c true";
        let sent = serde_json::to_value(spec(&line.split_whitespace().collect::<Vec<_>>()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "name": "train", "queue": "fast", "namespace": "lab", "priority": -7, "timeLimit": "1h30m",
            "startAfter": "2026-01-01T02:00:00Z", "env": {"A": "1=2", "SECRET": "s"}, "workingDir": "/here/dir/sub",
            "resources": {"cpu": "500m", "memory": "4Gi", "gpu": "2"},
            "tasks": [{"replicas": 4, "command": ["sh", "-c", "true"]}],
            "retry": {"maxAttempts": 5}, "stop": {"signal": "SIGINT", "grace": "5s"}, "nice": 3,
            "labels": {"team": "x", "run": "7"},
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn nodes_and_gpus_are_asked_for() {
        let line = [
            "--node-selector",
            "zone=a,disk=ssd",
            "--node-selector",
            "zone=b",
            "-g",
            "1",
            "--gpu-model",
            "NVIDIA H100 80GB HBM3",
            "--gpu-model",
            "NVIDIA A100",
            "--gpu-memory",
            "40Gi",
            "--gpu-uuid",
            "GPU-2",
            "--gpu-uuid",
            "GPU-1",
            "--spread",
            "--env-none",
            "--",
            "true",
        ];
        let sent = serde_json::to_value(spec(&line).unwrap()).unwrap();
        let expected = serde_json::json!({
            "command": ["true"], "workingDir": "/here/dir", "placement": "spread",
            "nodeSelector": {"zone": ["a", "b"], "disk": "ssd"},
            "resources": {"gpu": "1", "gpuModel": ["NVIDIA H100 80GB HBM3", "NVIDIA A100"], "gpuMemory": "40Gi", "gpuUuids": ["GPU-2", "GPU-1"]},
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_image_gets_its_volumes_and_nothing_of_this_machine() {
        let line = "--image train:1 --volume sets:/data:ro --volume memory:/dev/shm -e A=1 -w /work -- true";
        let sent = serde_json::to_value(spec(&line.split(' ').collect::<Vec<_>>()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "command": ["true"], "image": "train:1", "env": {"A": "1"}, "workingDir": "/work",
            "volumes": [{"mountPath": "/data", "claim": "sets", "readOnly": true},
                {"mountPath": "/dev/shm", "emptyDir": {"medium": "Memory"}}],
        });
        assert_eq!(sent, expected);
        assert_eq!(spec(&["--image", "a", "--", "true"]).unwrap().working_dir, None);
        for wrong in ["sets", "sets:data", ":/data"] {
            assert!(spec(&["--image", "a", "--volume", wrong, "--", "true"]).is_err(), "{wrong}");
        }
        assert!(spec(&["--volume", "sets:/data", "--", "true"]).is_err(), "processes mount nothing");
    }

    #[test]
    fn the_token_never_goes_along() {
        let all = spec(&["--env-all", "--", "true"]).unwrap().env;
        assert_eq!(all.keys().collect::<Vec<_>>(), ["CONDA_PREFIX", "HOME", "PATH", "SECRET"]);
        assert!(spec(&["-e", "FLASH_TOKEN", "--", "true"]).is_err());
        assert!(spec(&["--env-none", "--", "true"]).unwrap().env.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_sent() {
        for (line, said) in [
            (&["--"][..], "nothing to run"),
            (&["-c", "many", "--", "true"], "an amount of CPU"),
            (&["-m", "-4", "--", "true"], "'-4"),
            (&["-t", "soon", "--", "true"], "a duration"),
            (&["--start-after", "soon", "--", "true"], "neither a time"),
            (&["-e", "MISSING", "--", "true"], "is not set here"),
            (&["-e", "=x", "--", "true"], "the name is empty"),
            (&["-l", "x", "--", "true"], "KEY=VALUE"),
            (&["--node-selector", "zone=a,disk", "--", "true"], "`disk` is not LABEL=VALUE"),
            (&["--gpu-memory", "big", "--", "true"], "an amount of memory"),
        ] {
            let error = spec(line).unwrap_err();
            assert!(error.to_string().contains(said), "{line:?}: {error}");
        }
    }

    #[test]
    fn what_is_said_of_a_file_wins_and_the_rest_stays() {
        let mut spec: JobSpec =
            serde_json::from_str(r#"{"command":["x"],"queue":"a","labels":{"k":"1","m":"1"},"stop":{"grace":"9s"}}"#).unwrap();
        let line = Line::try_parse_from(["flash", "-q", "b", "-l", "k=2", "--stop-signal", "SIGINT"]).unwrap();
        line.policy.apply(&mut spec, around().now).unwrap();
        let expected = serde_json::json!({
            "command": ["x"], "queue": "b", "labels": {"k": "2", "m": "1"}, "stop": {"grace": "9s", "signal": "SIGINT"},
        });
        assert_eq!(serde_json::to_value(spec).unwrap(), expected);
    }
}
