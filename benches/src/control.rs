//! Calls that are not measured: a full HTTP client, one connection a call.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    /// Path of a Unix socket.
    Unix(std::path::PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl std::str::FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        match text.strip_prefix("http://") {
            Some(address) => Ok(Self::Tcp(address.trim_end_matches('/').to_owned())),
            None => bail!("`{text}` is not a server: unix:///PATH or http://HOST:PORT"),
        }
    }
}

impl Endpoint {
    /// For the `Host` header.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp(address) => address,
        }
    }
}

/// A server, and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Where.
    pub(crate) endpoint: Endpoint,
    /// Bearer token.
    pub(crate) token: Option<String>,
}

impl Client {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, String)], body: Bytes) -> Result<Response<Incoming>> {
        let mut sender = match &self.endpoint {
            Endpoint::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.with_context(|| format!("connecting to {}", socket.display()))?;
                connected(TokioIo::new(stream)).await?
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
                connected(TokioIo::new(stream)).await?
            }
        };
        let mut request = Request::builder().method(method).uri(path).header("host", self.endpoint.host());
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).context("building a request")?;
        sender.send_request(request).await.with_context(|| format!("asking for {path}"))
    }

    /// Sends, and reads the whole answer: its status and its body. An error only where there was none.
    pub(crate) async fn ask(&self, method: Method, path: &str, headers: &[(&str, String)], body: Bytes) -> Result<(u16, Bytes)> {
        let response = self.send(method, path, headers, body).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.with_context(|| format!("reading {path}"))?.to_bytes();
        Ok((status, body))
    }

    /// The same as JSON; an error unless the status is a success.
    pub(crate) fn call(&self, method: Method, path: &str, body: &[u8]) -> Result<Value> {
        let (status, bytes) = runtime()?.block_on(self.ask(method, path, &[], Bytes::copy_from_slice(body)))?;
        if !(200..300).contains(&status) {
            bail!("{path} answered {status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Reads server-sent events after `revision`, gives the data of each to `take`, and ends when that returns false.
    pub(crate) fn events(&self, revision: u64, take: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        runtime()?.block_on(self.follow(revision, take))
    }

    /// The same, inside of a runtime.
    pub(crate) async fn follow(&self, revision: u64, mut take: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        let headers = [("last-event-id", revision.to_string()), ("accept", "text/event-stream".to_owned())];
        let response = self.send(Method::GET, "/api/v1/events", &headers, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("/api/v1/events answered {}", response.status());
        }
        let mut body = response.into_body();
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("reading events")?;
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            let mut rest = &buffer[..];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest[..end].trim_ascii_end();
                rest = &rest[end + 1..];
                if let Some(data) = line.strip_prefix(b"data:")
                    && !take(data)?
                {
                    return Ok(());
                }
            }
            buffer = rest.to_vec();
        }
        bail!("the event stream ended early")
    }
}

async fn connected<I>(io: I) -> Result<http1::SendRequest<Full<Bytes>>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.context("HTTP handshake")?;
    // Its error, if any, comes out of the request that it serves.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// One thread's.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().context("starting the runtime")
}
