//! Which cluster, and as whom.
//!
//! What must hold:
//! - What a kubeconfig says is believed until the cluster takes no request any more; then its files are read anew, once in a while, where they have
//!   changed. So whoever replaces a file that was wrong needs no restart. Requests are not repeated here: whoever sent one asks again.
//! - Which files these are is found out once, from the configuration or from the environment.
//! - What goes wrong on the way to the cluster is told with the command that has to work.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
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
    #[error("kubeconfig {files}: {detail}; {}", files.have_to_work())]
    Kubeconfig {
        /// Its files.
        files: Files,
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

/// The files that make up a kubeconfig, at least one; what an earlier one says holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// Those of `KUBECONFIG`, else that of the user, where there is a home.
    fn of_environment() -> Option<Self> {
        let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let mut paths: Vec<PathBuf> = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
        if paths.is_empty() {
            paths.push(std::env::home_dir()?.join(".kube/config"));
        }
        Some(Self(paths))
    }

    /// What they say together. Of several one may be absent, as for kubectl.
    fn merged(&self) -> Result<Kubeconfig, KubeconfigError> {
        let mut merged = None;
        let mut absent = None;
        for path in &self.0 {
            match (Kubeconfig::read_from(path), merged.take()) {
                (Ok(found), None) => merged = Some(found),
                (Ok(found), Some(before)) => merged = Some(Kubeconfig::merge(before, found)?),
                (Err(KubeconfigError::ReadConfig(error, path)), before) if error.kind() == ErrorKind::NotFound => {
                    absent = Some(KubeconfigError::ReadConfig(error, path));
                    merged = before;
                }
                (Err(error), _) => return Err(error),
            }
        }
        merged.ok_or_else(|| absent.unwrap_or(KubeconfigError::FindPath))
    }

    /// By what it is known that they say something else: of the files, and of the keys and certificates that they name, which are replaced
    /// without them. Tokens in files are read anew by the client.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in &self.0 {
            std::fs::read(path).ok().hash(&mut hasher);
            let Ok(found) = Kubeconfig::read_from(path) else { continue };
            let clusters = found.clusters.iter().filter_map(|named| named.cluster.as_ref()?.certificate_authority.as_ref());
            let users = found.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
            let named = users.flat_map(|user| [&user.client_certificate, &user.client_key]).flatten();
            clusters.chain(named).for_each(|file| std::fs::read(file).ok().hash(&mut hasher));
        }
        hasher.finish()
    }

    /// A client of what they say now, and their fingerprint.
    async fn client(&self) -> Result<(Client, u64), ConnectError> {
        let wrong = |detail: String| {
            // A picture of the place in the file may follow.
            let detail = detail.lines().next().unwrap_or_default().to_owned();
            ConnectError::Kubeconfig { files: self.clone(), detail }
        };
        let print = self.fingerprint();
        let found = self.merged().map_err(|error| wrong(chain(&error)))?;
        let made = Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await;
        let client = client_of(made.map_err(|error| wrong(chain(&error)))?).map_err(|error| wrong(error.to_string()))?;
        Ok((client, print))
    }

    fn have_to_work(&self) -> String {
        match self.0.as_slice() {
            [path] => format!("`kubectl --kubeconfig {} get nodes` has to work", path.display()),
            _ => format!("`KUBECONFIG={self} kubectl get nodes` has to work"),
        }
    }
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ":" }, path.display())?;
        }
        Ok(())
    }
}

/// A client of the cluster: that of the file; else that of `KUBECONFIG`, of the user, or of the pod that we are in. Asks nobody yet, and sends no
/// request twice: whoever gives orders asks before each time whether it still may, everybody else has pauses of his own. Files are read anew
/// where the cluster takes no requests; the namespace of the client stays the one of the first reading.
///
/// # Errors
/// There is no file that can be used, or no cluster is known.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    if let Some(path) = kubeconfig {
        return following(Files(vec![path.to_owned()])).await;
    }
    let wrong = match Files::of_environment() {
        Some(files) => match following(files).await {
            Ok(client) => return Ok(client),
            Err(error) => error.to_string(),
        },
        None => "there is no kubeconfig".to_owned(),
    };
    match Config::incluster() {
        Ok(config) => client_of(config),
        Err(error) => Err(ConnectError::NoCluster { detail: format!("{wrong}; in a pod: {}", chain(&error)) }),
    }
}

/// A client of what these files say, now and later.
async fn following(files: Files) -> Result<Client, ConnectError> {
    let (client, read) = files.client().await?;
    let namespace = client.default_namespace().to_owned();
    let present = Present { client, read, looked: Instant::now(), wrong: None };
    let access = Arc::new(Access { files, present: Mutex::new(present) });
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

/// The way to a cluster that a kubeconfig describes.
struct Access {
    files: Files,
    present: Mutex<Present>,
}

struct Present {
    client: Client,
    /// Of what the client is made of.
    read: u64,
    looked: Instant,
    /// Why what its files say now is not used.
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
            None => format!("{why}; {}", self.files.have_to_work()),
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
        let print = self.files.fingerprint();
        {
            let mut present = self.present();
            if print == present.read {
                present.wrong = None;
                return;
            }
        }
        let files = &self.files;
        match files.client().await {
            Ok((client, read)) => {
                tracing::info!(%files, "the kubeconfig has changed: it is used from now on");
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
    fn files_say_something_else_when_one_or_what_it_names_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["first", "second"].map(|name| folder.path().join(name));
        let files = Files(paths.to_vec());
        for path in &paths {
            let absent = files.fingerprint();
            std::fs::write(path, kubeconfig("https://one")).unwrap();
            let one = files.fingerprint();
            std::fs::write(folder.path().join("ca.pem"), path.to_str().unwrap()).unwrap();
            let with_ca = files.fingerprint();
            assert_eq!(files.fingerprint(), with_ca);
            std::fs::write(path, kubeconfig("https://two")).unwrap();
            assert!(absent != one && one != with_ca && with_ca != files.fingerprint());
        }
    }

    #[test]
    fn of_several_files_the_first_holds_and_one_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files(["first", "second", "third"].map(|name| folder.path().join(name)).to_vec());
        let server = || files.merged().unwrap().clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
        assert!(files.merged().unwrap_err().to_string().contains("third"));
        std::fs::write(&files.0[2], kubeconfig("https://three")).unwrap();
        assert_eq!(server(), "https://three");
        std::fs::write(&files.0[0], kubeconfig("https://one")).unwrap();
        assert_eq!(server(), "https://one");
        std::fs::write(&files.0[1], "no: [yaml").unwrap();
        assert!(files.merged().is_err(), "what is there has to be one");
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
        let two = Files(vec![folder.path().join("other"), path.clone()]);
        let wrong = following(two).await.err().unwrap().to_string();
        let names = format!("{}/other:{}", folder.path().display(), path.display());
        assert!(wrong.ends_with(&format!("`KUBECONFIG={names} kubectl get nodes` has to work")), "{wrong}");
    }
}
