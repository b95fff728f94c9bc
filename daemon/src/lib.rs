//! `flashd`: wires core, store and executors together and gives them a face.

pub mod backend;
pub mod boot;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod decision_log;
pub mod dispatch;
pub mod engine;
pub mod flashjobs;
pub mod gpus;
pub mod http;
mod ids;
mod machine;
pub mod metrics;
pub mod names;
pub mod objects;
pub mod orders;
pub mod reconcile;
pub mod retention;
pub mod serve;
pub mod standby;
pub mod systemd;
mod table;
pub mod telemetry;
pub mod users;
pub mod watch;
