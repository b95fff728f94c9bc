//! The daemon on a real control plane, with the executor `job` and, under faults, with `flashjob`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod amiss;
#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod gang_faults;
mod identity;
mod leader;
mod leader_postgres;
mod mig;
mod nodes;
mod outage;
mod parts;
mod pod;
mod rig;
mod runs;
