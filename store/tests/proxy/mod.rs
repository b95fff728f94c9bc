//! A proxy before a server's Unix socket, which can lose what it carries.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The message that says `COMMIT`, as sqlx sends it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// What happens to what is carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Everything goes through.
    Pass,
    /// The next COMMIT goes through; its answer does not, and the session ends. Then [`Mode::Pass`].
    CutAfterCommit,
    /// The next COMMIT does not go through, and the session ends. Then [`Mode::Pass`].
    CutBeforeCommit,
    /// Nothing that clients say goes through.
    Hold,
    /// No COMMIT goes through before [`Mode::Pass`]; what comes before it does.
    HoldCommit,
}

/// A running proxy. Its sessions end with the runtime of the test.
pub(crate) struct Proxy {
    folder: TempDir,
    server: String,
    mode: watch::Sender<Mode>,
    cuts: Arc<AtomicU32>,
    held: watch::Sender<u32>,
}

impl Proxy {
    /// Before the server of this address.
    pub(crate) fn start(server: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let socket = Path::new(&socket_folder(server)).join(".s.PGSQL.5432");
        let (mode, _) = watch::channel(Mode::Pass);
        let (held, _) = watch::channel(0);
        let proxy = Self { folder, server: server.to_owned(), mode, cuts: Arc::default(), held };
        let (mode, cuts, held) = (proxy.mode.clone(), Arc::clone(&proxy.cuts), proxy.held.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let back = tokio::spawn(backward(from_server, to_client));
                let (mode, cuts, held) = (mode.clone(), Arc::clone(&cuts), held.clone());
                tokio::spawn(async move {
                    forward(from_client, to_server, &mode, (&cuts, &held), &back).await;
                    back.abort();
                });
            }
        });
        proxy
    }

    /// The same address through the proxy.
    pub(crate) fn url(&self) -> String {
        let here = self.folder.path().to_string_lossy().replace('/', "%2F");
        self.server.replace(&encoded(&socket_folder(&self.server)), &here)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits until the first COMMIT is held.
    pub(crate) async fn holds_a_commit(&self) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| *held > 0).await.unwrap();
    }

    /// Sessions that were cut.
    pub(crate) fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn encoded(folder: &Path) -> String {
    folder.to_string_lossy().replace('/', "%2F")
}

/// Folder of the socket that an address names: `postgres://USER@FOLDER/DATABASE`.
fn socket_folder(url: &str) -> PathBuf {
    let host = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    PathBuf::from(host.replace("%2F", "/"))
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: &watch::Sender<Mode>,
    (cuts, held): (&AtomicU32, &watch::Sender<u32>),
    back: &tokio::task::JoinHandle<()>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let said = &buffer[..length];
        let passes = mode.subscribe().wait_for(|mode| *mode != Mode::Hold).await.map(|mode| *mode);
        let Ok(present) = passes else { return };
        if said == COMMIT && present == Mode::HoldCommit {
            held.send_modify(|held| *held += 1);
            if mode.subscribe().wait_for(|mode| *mode == Mode::Pass).await.is_err() {
                return;
            }
        } else if said == COMMIT && present != Mode::Pass {
            mode.send_replace(Mode::Pass);
            if present == Mode::CutAfterCommit {
                // The answer is not carried; that the server closes the session says that it has done all that it was told.
                back.abort();
                let _ = to.write_all(said).await;
            }
            cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(said).await.is_err() {
            return;
        }
    }
}

async fn backward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
