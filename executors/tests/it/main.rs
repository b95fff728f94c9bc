//! The local executor with a real runner in a process of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod devices;
mod gpus;
mod lines;
mod lines_crash;
mod lines_output;
mod recovery;
mod rig;
mod site;
mod suite;
mod tasks;
