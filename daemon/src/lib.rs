//! `flashd`: wires core, store and executors together and gives them a face.

pub mod backend;
pub mod config;
pub mod http;
pub mod metrics;
pub mod names;
pub mod systemd;
pub mod telemetry;
pub mod users;
pub mod watch;
