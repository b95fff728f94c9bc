//! The pure heart of flash-sched: it decides, and touches nothing.
//!
//! Sans-IO: the shell feeds events and the time, the core returns transitions with effects as data. Nothing here reads a clock,
//! starts a thread, does IO or asks for randomness; the same calls in the same order give the same answers on every machine.

pub mod amounts;
pub mod event;
pub mod ids;
pub mod job;
pub mod state;
pub mod time;
