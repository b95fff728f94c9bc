//! The daemon with the executor `flashjob`, on a real control plane and with the rights of `k8s/`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod affinity;
#[path = "../common/mod.rs"]
mod common;
mod deleted;
mod depends;
mod going;
mod leader;
mod mig;
mod odd;
mod one_queue;
mod parts;
mod pods;
mod queues;
mod rig;
