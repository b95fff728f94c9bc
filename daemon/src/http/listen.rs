//! Accept loops of our own: what a connection may cost is decided here, before a byte of it is parsed.
//!
//! Invariants: TCP and the Unix socket have separate bounds on connections, so that neither locks out the other; what is over the bound
//! waits in the kernel. The head of a request has a time and a size. At shutdown nothing is accepted any more, what was asked is
//! answered, and what does not end in time is cut.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::auth::Peer;
use super::io::Unstuck;
use super::service;
use crate::config::Config;
use crate::config::values::Listen;
use crate::metrics::{InUse, Listener};

/// Head of a request in bytes: request line and all headers.
const HEAD_BYTES: usize = 32 << 10;
/// Headers of a request.
const HEADERS: usize = 64;
/// Pause after an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// TCP.
    #[error("listening on {address} (--listen names another address, or `off`)")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket.
    #[error("listening on {path}: {detail}", path = path.display())]
    Unix {
        /// Where.
        path: PathBuf,
        /// What was wrong.
        detail: String,
    },
}

/// The doors, open; nobody is served yet.
pub struct Listeners {
    /// With its path. A standby may have none.
    unix: Option<(UnixListener, PathBuf)>,
    tcp: Option<TcpListener>,
    /// Somebody else goes on with the socket: it is not removed at the end.
    handed_on: bool,
}

/// Doors that stay open, and are served by somebody else until they are taken over: who comes between the two waits there.
#[derive(Debug, Default)]
pub struct Kept {
    unix: Option<(std::os::unix::net::UnixListener, PathBuf)>,
    tcp: Option<std::net::TcpListener>,
}

impl Kept {
    /// Nobody takes them over.
    pub fn remove(self) {
        if let Some((_, socket)) = self.unix {
            remove(&socket);
        }
    }
}

fn remove(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::debug!(%error, "removing the socket");
    }
}

/// Makes the socket under another name, so that nobody meets it before its mode is right, and puts it in the place of a stale one.
fn bind_unix(path: &Path, everybody: bool) -> Result<UnixListener, BindError> {
    let fail = |detail: String| BindError::Unix { path: path.to_owned(), detail };
    let io_fail = |error: io::Error| fail(error.to_string());
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(fail("something that is no socket is there".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_fail(error)),
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    if fresh.as_os_str().len() > 107 {
        return Err(fail("the path is longer than the 103 bytes that a socket may have; --socket names another".to_owned()));
    }
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(io_fail)?;
    let mode = if everybody { 0o666 } else { 0o600 };
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode)).map_err(io_fail)?;
    std::fs::rename(&fresh, path).map_err(io_fail)?;
    Ok(listener)
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })
}

impl Listeners {
    /// Opens the socket and, unless it is off, the TCP port, or takes those that were `kept` open. The caller holds the data folder's lock,
    /// so another socket that is there is stale.
    pub async fn bind(config: &Config, kept: Kept) -> Result<Self, BindError> {
        let tcp = match (config.listen, kept.tcp) {
            (Listen::Off, _) => None,
            (Listen::Address(address), Some(open)) => {
                Some(TcpListener::from_std(open).map_err(|source| BindError::Tcp { address, source })?)
            }
            (Listen::Address(address), None) => Some(bind_tcp(address).await?),
        };
        let unix = match kept.unix {
            Some((open, path)) => {
                let open = UnixListener::from_std(open);
                (open.map_err(|error| BindError::Unix { path: path.clone(), detail: error.to_string() })?, path)
            }
            None => (bind_unix(&config.socket, rustix::process::geteuid().is_root())?, config.socket.clone()),
        };
        Ok(Self { unix: Some(unix), tcp, handed_on: false })
    }

    /// The doors of a standby: those that whoever leads may have are left alone. The socket in the data folder is among them, unless the caller
    /// has that folder.
    pub async fn bind_standby(config: &Config, has_folder: bool) -> Result<Self, BindError> {
        let tcp = match config.listen {
            Listen::Off => None,
            Listen::Address(address) => match bind_tcp(address).await {
                Err(BindError::Tcp { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => None,
                bound => Some(bound?),
            },
        };
        let in_folder = config.socket.parent() == Some(&config.data);
        let is_leaders = if in_folder { !has_folder } else { UnixStream::connect(&config.socket).await.is_ok() };
        let unix = if is_leaders {
            None
        } else {
            Some((bind_unix(&config.socket, rustix::process::geteuid().is_root())?, config.socket.clone()))
        };
        Ok(Self { unix, tcp, handed_on: false })
    }

    /// The doors once more, for who serves them afterwards. From now on whoever has them sees to the socket.
    pub fn hand_on(&mut self) -> io::Result<Kept> {
        let unix = match &self.unix {
            Some((unix, path)) => Some((unix.as_fd().try_clone_to_owned()?.into(), path.clone())),
            None => None,
        };
        let tcp = match &self.tcp {
            Some(tcp) => Some(tcp.as_fd().try_clone_to_owned()?.into()),
            None => None,
        };
        self.handed_on = true;
        Ok(Kept { unix, tcp })
    }

    /// The TCP address that is listened on, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until the app's shutdown, then answers what was asked, and cuts what does not end in the drain time.
    pub async fn serve(self, app: Arc<App>, router: Router) {
        let open = TaskTracker::new();
        let cut = CancellationToken::new();
        let permits = |count: u64| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(1).min(Semaphore::MAX_PERMITS)));
        let door = |listener, count| Door {
            app: Arc::clone(&app),
            router: router.clone(),
            permits: permits(count),
            open: open.clone(),
            cut: cut.clone(),
            listener,
        };
        let unix = door("unix", app.limits.unix_connections);
        let tcp = door("tcp", app.limits.tcp_connections);
        let serve_unix = async {
            if let Some((listener, _)) = &self.unix {
                unix.run(listener).await;
            }
        };
        let serve_tcp = async {
            if let Some(listener) = &self.tcp {
                tcp.run(listener).await;
            }
        };
        futures::future::join(serve_unix, serve_tcp).await;
        // Also where there is no door, it ends when it is told to.
        app.shutdown.cancelled().await;
        drop(self.tcp);
        open.close();
        let drain = Duration::from_micros(app.limits.drain_timeout.0);
        if tokio::time::timeout(drain, open.wait()).await.is_err() {
            tracing::warn!(connections = open.len(), "cutting connections that did not end in time");
            cut.cancel();
            open.wait().await;
        }
        if let Some((_, socket)) = &self.unix
            && !self.handed_on
        {
            remove(socket);
        }
    }
}

/// A connection of either kind.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    fn peer(stream: &Self::Stream, app: &App) -> impl Future<Output = io::Result<Peer>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
    async fn peer(stream: &UnixStream, app: &App) -> io::Result<Peer> {
        app.auth.peer(stream.peer_cred()?.uid()).await
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
    async fn peer(_: &TcpStream, _: &App) -> io::Result<Peer> {
        Ok(Peer::Tcp)
    }
}

struct Door {
    app: Arc<App>,
    router: Router,
    permits: Arc<Semaphore>,
    open: TaskTracker,
    cut: CancellationToken,
    listener: &'static str,
}

impl Door {
    async fn run<L: Accept>(&self, listener: &L) {
        let gauge = self.app.metrics.connections.get_or_create_owned(&Listener { listener: self.listener });
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
                (permit, listener.next().await)
            };
            let (permit, stream) = tokio::select! {
                () = self.app.shutdown.cancelled() => return,
                accepted = accepted => accepted,
            };
            match stream {
                Ok(stream) => {
                    let (app, router, cut) = (Arc::clone(&self.app), self.router.clone(), self.cut.clone());
                    let in_use = (permit, InUse::new(&gauge));
                    self.open.spawn(async move {
                        let _in_use = in_use;
                        match L::peer(&stream, &app).await {
                            Ok(peer) => tokio::select! {
                                () = cut.cancelled() => {}
                                () = connection(stream, peer, app, router) => {}
                            },
                            Err(error) => tracing::warn!(%error, "a peer was not recognised"),
                        }
                    });
                }
                // The one connection is gone, the listener is well.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, listener = self.listener, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected)
}

async fn connection<S>(stream: S, peer: Peer, app: Arc<App>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle = Duration::from_micros(app.limits.idle_timeout.0);
    let shutdown = app.shutdown.clone();
    let service = hyper::service::service_fn(|request| service::answer(&app, &router, &peer, request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_headers(HEADERS).max_header_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Unstuck::new(stream, idle)), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Clients that leave, time out or do not speak HTTP: of interest only to who looks for it.
        tracing::debug!(%error, "connection ended");
    }
}
