//! What a test does that needs a cluster where there is none: it says that it was skipped, or fails where clusters are required.

use std::io::Write as _;

use crate::cluster::{Cluster, Options};
use crate::error::ClusterError;

/// A cluster for a test: that of `FLASH_TEST_KUBECONFIG`, or a new one. `None`, and a line on standard error, where the programs are not
/// built and `FLASH_REQUIRE_CLUSTER=1` does not say that this is a failure.
///
/// # Panics
/// If a cluster is required and is not to be had, or if one could not be started.
pub fn for_test(what: &str, options: Options) -> Option<Cluster> {
    let required = std::env::var_os("FLASH_REQUIRE_CLUSTER").is_some_and(|value| value == "1");
    match Cluster::start(options) {
        Ok(cluster) => Some(cluster),
        Err(ClusterError::Missing(missing)) if !required => {
            // Not by a macro: the test harness hides what those print when a test passes. Where nobody reads, nobody is told.
            let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {missing}");
            None
        }
        Err(error) => panic!("{what}: no cluster: {}", told(&error)),
    }
}

/// An error with its sources.
fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", told(source)),
        None => error.to_string(),
    }
}
