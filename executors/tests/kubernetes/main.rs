//! The `job` executor on a real control plane, with the rights that `k8s/` gives it and no more.
#![expect(clippy::unwrap_used, reason = "tests")]

mod outage;
mod rig;
mod runs;
