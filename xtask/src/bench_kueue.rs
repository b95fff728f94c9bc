//! `cargo xtask bench --only kueue`: Kueue's baseline workload on a real control plane, as FlashJobs under our daemon and as Jobs under the
//! default scheduler, one after the other.
//!
//! The control plane has to be built (`cargo xtask cluster build`), and 15,000 jobs take minutes: so it is measured only where it is named.

use anyhow::{Context, Result};

use crate::cluster;
use crate::step::{cargo, root, run, step, target_dir};

/// Its name for `--only`.
pub(crate) const NAME: &str = "KUEUE";

/// Both, with a `scale`th of the jobs. The last line of each is a JSON object, which is also left in `target/bench/`.
pub(crate) fn measure(builds: bool, scale: &str) -> Result<()> {
    if builds {
        cluster::prepare();
        step("release build", || run(cargo(["build", "--release", "--locked", "-p", "daemon", "--bin", "flashd"])))?;
    }
    let out = target_dir().join("bench");
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    println!("    figures: {}", out.strip_prefix(root()).unwrap_or(&out).display());
    for what in ["flashjobs", "jobs"] {
        let mut command = cargo(["bench", "--locked", "-p", "benches", "--bench", "flashjobs", "--"]);
        command.args(["--what", what, "--scale", scale, "--out"]).arg(&out);
        step(what, || run(command))?;
    }
    Ok(())
}
