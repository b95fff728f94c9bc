//! A real Kubernetes control plane for tests and for trying things out: etcd, kube-apiserver, kube-controller-manager, kube-scheduler,
//! and kwok, which plays the nodes and their pods.
//!
//! What must hold:
//! - Nothing is mocked but the kubelet. What a test asks is answered by the programs that a cluster runs.
//! - Every cluster has a folder and ports of its own; any number of them run beside each other.
//! - No process outlives the one that started the cluster, however that one ends ([`death`]).
//! - The programs are compiled from the Go modules that `go.mod` beside this package names, once, into `target/control-plane/bin`
//!   ([`Programs`]). Tests never compile them: it takes minutes.

mod account;
mod certs;
mod cluster;
mod death;
mod error;
mod faults;
mod folder;
mod gate;
mod node;
mod part;
mod programs;
mod referee;
mod required;
mod watched;

pub use cluster::{Cluster, Options};
pub use error::ClusterError;
pub use faults::{Fault, Injector, Seeded};
pub use folder::target_dir;
pub use gate::Gate;
pub use node::NodeSpec;
pub use part::Part;
pub use programs::{Missing, Programs};
pub use referee::Referee;
pub use required::for_test;
pub use watched::{Objects, PATIENCE, Told, Watched};
