//! The daemon with the executor `job`, on a real control plane.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod identity;
mod leader;
mod nodes;
mod outage;
mod pod;
mod rig;
mod runs;
