//! The executors `job` and `flashjob` on a real control plane, with the rights that `k8s/` gives them and no more.
#![expect(clippy::unwrap_used, reason = "tests")]

mod gang_faults;
mod gangs;
mod lone;
mod outage;
mod rig;
mod runs;
