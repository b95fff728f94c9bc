//! Slurm: munged, slurmctld and slurmd on one machine, tuned for short jobs: no delay between passes, no accounting, no cgroups.
//!
//! The epilog that does nothing is part of the tuning: without one, a job that was over before its node was told to end it wakes no
//! pass of the scheduler, and the next job waits for the pass that comes once a second.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::peers::Peer;
use crate::peers::place::{Place, said};
use crate::server::poll_until;

/// Longest that all the jobs may take, and the daemons to find each other.
const LIMIT: Duration = Duration::from_mins(5);
/// Bytes of munge's key.
const KEY: usize = 1_024;
/// Jobs that one array may have, as configured.
const ARRAY_MAX: u32 = 100_000;

pub(super) struct Slurm {
    place: Place,
    config: PathBuf,
}

/// Debian lets several versions be there, and names the programs accordingly.
fn either(place: &Place, name: &str) -> Result<PathBuf> {
    place.need(name).or_else(|_| place.need(&format!("{name}-wlm"))).with_context(|| format!("no program `{name}`"))
}

/// Version, if all daemons are there.
pub(super) fn version(place: &Place) -> Result<String> {
    for name in ["munged", "sbatch", "scontrol", "squeue", "sinfo"] {
        place.need(name)?;
    }
    either(place, "slurmd")?;
    either(place, "slurmstepd")?;
    place.version("Slurm", &either(place, "slurmctld")?, &["-V"])
}

fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host's name")?;
    Ok(name.trim().split('.').next().unwrap_or_default().to_owned())
}

impl Slurm {
    pub(super) fn start(place: Place) -> Result<Self> {
        start_munge(&place)?;
        let config = write_config(&place)?;
        let peer = Self { place, config };
        let mut controller = peer.command_at(&either(&peer.place, "slurmctld")?)?;
        controller.args(["-D", "-c"]);
        peer.place.daemon("slurmctld", controller)?;
        let mut node = peer.command_at(&either(&peer.place, "slurmd")?)?;
        node.args(["-D", "-N", &host_name()?, "-d"]).arg(either(&peer.place, "slurmstepd")?);
        peer.place.daemon("slurmd", node)?;
        poll_until("an idle node of slurm", LIMIT, || {
            std::thread::sleep(Duration::from_millis(200));
            let states = said(peer.command("sinfo", &["-h", "-o", "%t"])?).unwrap_or_default();
            Ok((states.trim() == "idle").then_some(()))
        })?;
        Ok(peer)
    }

    fn command_at(&self, program: &std::path::Path) -> Result<Command> {
        let mut command = self.place.command(program)?;
        command.env("SLURM_CONF", &self.config);
        Ok(command)
    }

    fn command(&self, name: &str, args: &[&str]) -> Result<Command> {
        let mut command = self.command_at(&self.place.need(name)?)?;
        command.args(args);
        Ok(command)
    }

    fn partition(&self, state: &str) -> Result<()> {
        said(self.command("scontrol", &["update", "PartitionName=main", &format!("State={state}")])?).map(drop)
    }
}

fn start_munge(place: &Place) -> Result<()> {
    let folder = place.folder("munge")?;
    let key = folder.join("key");
    let mut bytes = vec![0_u8; KEY];
    let mut random = std::fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    std::io::Read::read_exact(&mut random, &mut bytes).context("reading random bytes")?;
    std::fs::write(&key, bytes).with_context(|| format!("writing {}", key.display()))?;
    // It refuses a key that others may read.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).context("protecting munge's key")?;
    let mut munged = place.program("munged")?;
    // --force: folders of other owners above the key are only warned of.
    munged.args(["--foreground", "--force"]);
    for (option, name) in
        [("--key-file", "key"), ("--socket", "socket"), ("--pid-file", "pid"), ("--log-file", "log"), ("--seed-file", "seed")]
    {
        munged.arg(option).arg(folder.join(name));
    }
    place.daemon("munged", munged)
}

fn write_config(place: &Place) -> Result<PathBuf> {
    let (folder, host) = (place.folder.display(), host_name()?);
    let plugins = place.debian.as_ref().map(|root| root.join("usr/lib")).and_then(|lib| {
        let found = std::fs::read_dir(lib)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path().join("slurm-wlm")))
            .find(|path| path.is_dir());
        found.map(|path| format!("PluginDir={}\n", path.display()))
    });
    for name in ["slurm-state", "slurm-spool"] {
        place.folder(name)?;
    }
    let text = format!(
        "ClusterName=bench\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort=16817\nSlurmdPort=16818\n\
         AuthType=auth/munge\nAuthInfo=socket={folder}/munge/socket\nCredType=cred/munge\nSlurmUser=root\nSlurmdUser=root\n\
         StateSaveLocation={folder}/slurm-state\nSlurmdSpoolDir={folder}/slurm-spool\n\
         SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n\
         JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none\n\
         SchedulerType=sched/builtin\nSchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=1\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nMinJobAge=3600\nMaxJobCount=200000\nMaxArraySize={ARRAY_MAX}\n\
         Epilog=/bin/true\nReturnToService=2\nMailProg=/bin/true\n{plugins}\
         NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN\nPartitionName=main Nodes=ALL Default=YES State=UP\n",
        plugins = plugins.unwrap_or_default(),
    );
    place.write("slurm.conf", &text)
}

impl Peer for Slurm {
    fn hold(&mut self) -> Result<()> {
        self.partition("DOWN")
    }

    fn submit(&self, _number: u32) -> Result<Command> {
        self.command("sbatch", &["-Q", "-o", "/dev/null", "--wrap", "true"])
    }

    fn fill(&mut self, count: u32) -> Result<()> {
        let array = format!("1-{count}");
        said(self.command("sbatch", &["-Q", "-o", "/dev/null", "--array", &array, "--wrap", "true"])?).map(drop)
    }

    fn drain(&mut self, count: u32) -> Result<f64> {
        let begun = Instant::now();
        self.partition("UP")?;
        // Its own times are whole seconds, so the end is looked for.
        poll_until("the end of all jobs", LIMIT, || {
            std::thread::sleep(Duration::from_millis(50));
            let left = said(self.command("squeue", &["-h", "-t", "PD,R,CF,CG"])?)?;
            Ok(left.trim().is_empty().then_some(()))
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let good = said(self.command("squeue", &["-h", "-r", "-t", "CD"])?)?.lines().count();
        if good != count as usize {
            bail!("{good} of {count} jobs were completed");
        }
        Ok(seconds)
    }
}
