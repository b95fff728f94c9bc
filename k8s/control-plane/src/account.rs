//! Who may log in, and the files that say how: kubeconfigs.

use std::path::Path;

use serde_json::json;

use crate::error::{ClusterError, file};

/// The token of the administrator. It opens a cluster that listens on loopback and lives for a test.
pub(crate) const ADMIN_TOKEN: &str = "admin-of-a-test-cluster";

/// Writes the API server's list of tokens.
pub(crate) fn write_tokens(folder: &Path) -> Result<(), ClusterError> {
    let path = folder.join("tokens.csv");
    let line = format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n");
    std::fs::write(&path, line).map_err(file("writing", path))
}

/// Writes a kubeconfig. JSON is YAML.
pub(crate) fn write_kubeconfig(path: &Path, server: &str, authority: &Path, token: &str) -> Result<(), ClusterError> {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user", "namespace": "default"}}],
        "current-context": "test",
    });
    std::fs::write(path, format!("{text:#}\n")).map_err(file("writing", path))
}
