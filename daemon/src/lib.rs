//! `flashd`: wires core, store and executors together and gives them a face.

pub mod backend;
pub mod watch;
