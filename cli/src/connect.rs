//! Where the server is, and one connection to it: Unix socket, TCP, or TLS over TCP.
//!
//! Invariants: an address is checked before anything is opened; nobody answering, for whichever reason, is [`Error::NoAnswer`] and names
//! every place that was tried. The token never goes to a Unix socket, where the peer's uid says who asks.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::Full;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::error::Error;

/// Longest wait for a connection, name lookup and TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Where a daemon of root keeps its data.
const SYSTEM_DATA: &str = "/var/lib/flash-sched";
/// The socket in the data folder.
const SOCKET: &str = "flashd.sock";

/// What requests are sent over.
pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The first of these sockets that answers.
    Unix(Vec<PathBuf>),
    /// A host.
    Tcp {
        /// Name or address, IPv6 without its brackets.
        host: String,
        /// Port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
        /// `host:port` as it goes into the Host header.
        authority: String,
        /// Path in front of `/api/v1`, without a slash at its end.
        prefix: String,
    },
}

impl Target {
    /// From `--server` or `FLASH_SERVER`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::usage(format!(
                "server `{}`: {why}; write unix:///path/flashd.sock, http://host:port or https://host:port",
                crate::table::clean(text)
            ))
        };
        if let Some(path) =
            text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).or(text.starts_with('/').then_some(text))
        {
            if !path.starts_with('/') {
                return Err(wrong("the path of a socket must be absolute"));
            }
            return Ok(Self::Unix(vec![path.into()]));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("not an address"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(wrong("another scheme")),
            None => return Err(wrong("the scheme is missing")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("user and password do not belong here; a token goes into FLASH_TOKEN"));
        }
        if uri.query().is_some() {
            return Err(wrong("a query does not belong here"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() > authority.host().len() => return Err(wrong("not a port")),
            None if tls => 443,
            None => 80,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self::Tcp { host, port, tls, authority: authority.to_string(), prefix })
    }

    /// Where a daemon listens that was started without saying where: the data folder of this user, else that of root.
    pub(crate) fn default_from(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(data) = set("FLASH_DATA").or_else(|| set("FLASHD_DATA")) {
            return Self::Unix(vec![data.join(SOCKET)]);
        }
        let own = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
        let own = own.map(|data| data.join("flash-sched").join(SOCKET));
        Self::Unix(own.into_iter().chain([PathBuf::from(SYSTEM_DATA).join(SOCKET)]).collect())
    }

    /// Whether a token says who asks.
    pub(crate) fn takes_token(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }

    /// What goes into the Host header.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp { authority, .. } => authority,
        }
    }

    /// Path in front of `/api/v1`.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::Unix(_) => "",
            Self::Tcp { prefix, .. } => prefix,
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Unix(paths) => paths.iter().map(|path| format!("unix://{}", path.display())).collect::<Vec<_>>().join(" or "),
            Self::Tcp { authority, tls, prefix, .. } => format!("{}://{authority}{prefix}", if *tls { "https" } else { "http" }),
        }
    }

    /// Opens a connection. Its driver runs as a task of the current runtime until the connection ends.
    pub(crate) async fn connect(&self) -> Result<Sender, Error> {
        match tokio::time::timeout(CONNECT_WITHIN, self.open()).await {
            Ok(result) => result,
            Err(_) => Err(Error::no_server(format!("no answer from {} within {} s", self.describe(), CONNECT_WITHIN.as_secs()))),
        }
    }

    async fn open(&self) -> Result<Sender, Error> {
        match self {
            Self::Unix(paths) => {
                let mut tried = Vec::new();
                for path in paths {
                    match UnixStream::connect(path).await {
                        Ok(stream) => return drive(stream).await,
                        Err(error) => tried.push(format!("{}: {}", path.display(), socket_error(&error))),
                    }
                }
                Err(Error::no_server(format!("no server answers at {}", tried.join("; "))))
            }
            Self::Tcp { host, port, tls, .. } => {
                let failed = |error: io::Error| Error::no_server(format!("no server answers at {}: {error}", self.describe()));
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                // Requests are small and wait for their answers; without this a delayed ACK can hold one back for 40 ms.
                stream.set_nodelay(true).map_err(failed)?;
                if *tls { drive(crate::tls::wrap(stream, host).await?).await } else { drive(stream).await }
            }
        }
    }
}

/// Why a socket did not answer, in words.
fn socket_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "the socket is there, but nobody listens".to_owned(),
        io::ErrorKind::PermissionDenied => "the socket is there, but this user may not open it".to_owned(),
        _ => error.to_string(),
    }
}

/// Speaks HTTP/1.1 over `stream`.
async fn drive<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Sender, Error> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| Error::lost(format!("speaking HTTP: {error}")))?;
    // Its errors reach the request that waits on the connection.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_are_read() {
        for text in ["unix:///run/f.sock", "unix:/run/f.sock", "/run/f.sock"] {
            assert_eq!(Target::parse(text).unwrap(), Target::Unix(vec!["/run/f.sock".into()]), "{text}");
        }
        for (text, wanted) in [
            ("http://localhost:7700", ("localhost", 7700, false, "")),
            ("http://[::1]:7700/", ("::1", 7700, false, "")),
            ("https://flash.example/lab/", ("flash.example", 443, true, "/lab")),
            ("http://10.0.0.1", ("10.0.0.1", 80, false, "")),
        ] {
            match Target::parse(text).unwrap() {
                Target::Tcp { host, port, tls, prefix, .. } => {
                    assert_eq!((host.as_str(), port, tls, prefix.as_str()), wanted, "{text}");
                }
                other @ Target::Unix(_) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_address_is_bad_usage() {
        for text in
            ["", "localhost:7700", "ftp://x", "unix://run/f.sock", "http://", "http://u:p@h", "http://h:port", "http://h?x=1"]
        {
            let error = Target::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().contains("unix:///"), "{error}");
        }
    }

    #[test]
    fn the_default_is_the_data_folder() {
        let target = |vars: &[(&str, &str)]| {
            let vars: Vec<(String, OsString)> = vars.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
            Target::default_from(|name| vars.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())).describe()
        };
        assert_eq!(target(&[("FLASH_DATA", "/d"), ("HOME", "/h")]), "unix:///d/flashd.sock");
        assert_eq!(target(&[("FLASHD_DATA", "/e"), ("HOME", "/h")]), "unix:///e/flashd.sock");
        let system = "unix:///var/lib/flash-sched/flashd.sock";
        assert_eq!(target(&[("HOME", "/h")]), format!("unix:///h/.local/share/flash-sched/flashd.sock or {system}"));
        assert_eq!(
            target(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x"), ("FLASH_DATA", "")]),
            format!("unix:///x/flash-sched/flashd.sock or {system}")
        );
        assert_eq!(target(&[]), system);
    }
}
