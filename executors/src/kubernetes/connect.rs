//! Which cluster, and as whom.
//!
//! What must hold:
//! - What a kubeconfig says is believed until the cluster takes no request any more; then the file is read anew, once in a while, where it has
//!   changed. So whoever replaces a file that was wrong needs no restart. Requests are not repeated here: whoever sent one asks again.
//! - What goes wrong on the way to the cluster is told with the command that has to work.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use tokio::time::Instant;

use super::error::{chain, said};

/// How long the API server may take to answer a request; watches apart.
const ANSWER: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a kubeconfig is looked at while the cluster takes no requests.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {detail}; {}", path.display(), has_to_work(path))]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Neither a kubeconfig nor a service account of a pod was found.
    #[error("no cluster: {detail}; say --kubernetes-kubeconfig FILE or set KUBECONFIG, or run inside a pod of the cluster")]
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

fn has_to_work(path: &Path) -> String {
    format!("`kubectl --kubeconfig {} get nodes` has to work", path.display())
}

/// A client of the cluster: that of the file; else that of `KUBECONFIG`, of the user, or of the pod that we are in. Asks nobody yet, and sends no
/// request twice: whoever gives orders asks before each time whether it still may, everybody else has pauses of his own. The file is read anew
/// where the cluster takes no requests; the namespace of the client stays the one of the first reading.
///
/// # Errors
/// There is no file that can be used, or no cluster is known.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let Some(path) = kubeconfig else {
        let config = Config::infer().await.map_err(|error| ConnectError::NoCluster { detail: chain(&error) })?;
        return client_of(config);
    };
    let (client, read) = read(path).await?;
    let namespace = client.default_namespace().to_owned();
    let present = Present { client, read, looked: Instant::now(), wrong: None };
    let access = Arc::new(Access { path: path.to_owned(), present: Mutex::new(present) });
    let service = tower::service_fn(move |request: Request<Body>| {
        let access = Arc::clone(&access);
        async move { access.send(request).await }
    });
    Ok(Client::new(service, namespace))
}

fn client_of(mut config: Config) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(CONNECT);
    // A watch is silent for as long as nothing happens; the server ends it after some minutes by itself.
    config.read_timeout = Some(Duration::from_secs(295));
    config.write_timeout = Some(ANSWER);
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ConnectError::Client { detail: chain(&error) })
}

/// What a file says, and by what it is known that it says something else.
async fn read(path: &Path) -> Result<(Client, u64), ConnectError> {
    let wrong = |detail: String| {
        // A picture of the place in the file may follow.
        let detail = detail.lines().next().unwrap_or_default().to_owned();
        ConnectError::Kubeconfig { path: path.to_owned(), detail }
    };
    let print = fingerprint(path);
    let found = Kubeconfig::read_from(path).map_err(|error| wrong(chain(&error)))?;
    let made = Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await;
    let client = client_of(made.map_err(|error| wrong(chain(&error)))?).map_err(|error| wrong(error.to_string()))?;
    Ok((client, print))
}

/// Of the file, and of the keys and certificates that it names: those are replaced without it. Tokens in files are read anew by the client.
fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::fs::read(path).ok().hash(&mut hasher);
    if let Ok(found) = Kubeconfig::read_from(path) {
        let clusters = found.clusters.iter().filter_map(|named| named.cluster.as_ref()?.certificate_authority.as_ref());
        let users = found.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
        let named = users.flat_map(|user| [&user.client_certificate, &user.client_key]).flatten();
        clusters.chain(named).for_each(|file| std::fs::read(file).ok().hash(&mut hasher));
    }
    hasher.finish()
}

/// The way to a cluster that a file describes.
struct Access {
    path: PathBuf,
    present: Mutex<Present>,
}

struct Present {
    client: Client,
    /// Of what the client is made of.
    read: u64,
    looked: Instant,
    /// Why what the file says now is not used.
    wrong: Option<String>,
}

impl Access {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let client = self.present().client.clone();
        let why = match client.send(request).await {
            Ok(response) if response.status() != StatusCode::UNAUTHORIZED => return Ok(response),
            Ok(_) => "the credentials are not taken".to_owned(),
            Err(error) => said(&error),
        };
        self.read_anew().await;
        let why = match &self.present().wrong {
            Some(wrong) => wrong.clone(),
            None => format!("{why}; {}", has_to_work(&self.path)),
        };
        Err(Error::Service(why.into()))
    }

    async fn read_anew(&self) {
        {
            let mut present = self.present();
            if present.looked.elapsed() < LOOK {
                return;
            }
            present.looked = Instant::now();
        }
        let print = fingerprint(&self.path);
        {
            let mut present = self.present();
            if print == present.read {
                present.wrong = None;
                return;
            }
        }
        let path = self.path.display();
        match read(&self.path).await {
            Ok((client, read)) => {
                tracing::info!(%path, "the kubeconfig has changed: it is used from now on");
                *self.present() = Present { client, read, looked: Instant::now(), wrong: None };
            }
            Err(error) => {
                let why = error.to_string();
                let mut present = self.present();
                if present.wrong.as_ref() != Some(&why) {
                    tracing::warn!(why, "the kubeconfig has changed and cannot be used; looking again");
                }
                present.wrong = Some(why);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn kubeconfig(server: &str) -> String {
        let (cluster, user) = (format!("{{server: \"{server}\", certificate-authority: ca.pem}}"), "{token: t}");
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {cluster}}}], \
             users: [{{name: u, user: {user}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}]}}"
        )
    }

    #[test]
    fn a_file_says_something_else_when_it_or_what_it_names_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let absent = fingerprint(&path);
        std::fs::write(&path, kubeconfig("https://one")).unwrap();
        let one = fingerprint(&path);
        std::fs::write(folder.path().join("ca.pem"), "one").unwrap();
        let with_ca = fingerprint(&path);
        assert_eq!(fingerprint(&path), with_ca);
        std::fs::write(&path, kubeconfig("https://two")).unwrap();
        assert!(absent != one && one != with_ca && with_ca != fingerprint(&path));
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_what_has_to_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let wrong = connect(Some(&path)).await.err().unwrap().to_string();
        assert!(wrong.contains("No such file") && wrong.contains("config get nodes` has to work"), "{wrong}");
        std::fs::write(&path, "no: [yaml").unwrap();
        let wrong = connect(Some(&path)).await.err().unwrap().to_string();
        assert!(wrong.lines().count() == 1 && wrong.contains("config get nodes` has to work"), "{wrong}");
    }
}
