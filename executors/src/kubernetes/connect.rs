//! Which cluster, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::chain;

/// How long the API server may take to answer a request; watches apart.
const ANSWER: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {detail}; `kubectl --kubeconfig {} get nodes` has to work", path.display(), path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Neither a kubeconfig nor a service account of a pod was found.
    #[error("no cluster: {detail}; say --kubeconfig FILE or set KUBECONFIG, or run inside a pod of the cluster")]
    NoCluster {
        /// What was looked for.
        detail: String,
    },
    /// The client could not be made.
    #[error("Kubernetes client: {detail}")]
    Client {
        /// Why.
        detail: String,
    },
}

/// A client of the cluster: that of the file; else that of `KUBECONFIG`, of the user, or of the pod that we are in. Asks nobody yet, and sends no
/// request twice: whoever gives orders asks before each time whether it still may, everybody else has pauses of his own.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |detail| ConnectError::Kubeconfig { path: path.to_owned(), detail };
            let read = Kubeconfig::read_from(path).map_err(|error| wrong(chain(&error)))?;
            let made = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            made.map_err(|error| wrong(chain(&error)))?
        }
        None => Config::infer().await.map_err(|error| ConnectError::NoCluster { detail: chain(&error) })?,
    };
    config.connect_timeout = Some(CONNECT);
    // A watch is silent for as long as nothing happens; the server ends it after some minutes by itself.
    config.read_timeout = Some(Duration::from_secs(295));
    config.write_timeout = Some(ANSWER);
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ConnectError::Client { detail: chain(&error) })
}
