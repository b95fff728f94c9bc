//! The bound for submits: the same HTTP library, the same sockets, one thread, and nothing behind them.

use std::convert::Infallible;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// As long as a real answer.
const ANSWER: &str = r#"{"id":"01890000-0000-7000-8000-000000000000"}"#;
/// The answer to a batch; batches of one measurement are of one size, so the first that comes decides.
static BATCH_ANSWER: OnceLock<Bytes> = OnceLock::new();

fn batch_answer(body: &[u8]) -> Bytes {
    let jobs = body.windows(9).filter(|window| *window == br#""command""#).count();
    Bytes::from(format!(r#"{{"jobs":[{}]}}"#, vec![ANSWER; jobs].join(",")))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let status = if request.method() == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
    let is_batch = request.uri().path().ends_with(":batch");
    let body = request.into_body().collect().await?.to_bytes();
    let answer =
        if is_batch { BATCH_ANSWER.get_or_init(|| batch_answer(&body)).clone() } else { Bytes::from_static(ANSWER.as_bytes()) };
    let mut response = Response::new(Full::new(answer));
    *response.status_mut() = status;
    Ok(response)
}

fn handle(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    tokio::spawn(async move {
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        if let Err(error) = served {
            // A client that hangs up is how every measurement ends.
            if !error.is_incomplete_message() {
                eprintln!("bare server: {error}");
            }
        }
    });
}

/// Serves both sockets until the process is ended.
pub(crate) fn serve(socket: &Path, listen: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("starting the runtime")?;
    runtime.block_on(async {
        let tcp = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
        let unix = UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let over_tcp = async {
            loop {
                if let Ok((stream, _)) = tcp.accept().await
                    && stream.set_nodelay(true).is_ok()
                {
                    handle(stream);
                }
            }
        };
        let over_unix = async {
            loop {
                if let Ok((stream, _)) = unix.accept().await {
                    handle(stream);
                }
            }
        };
        let _: (Infallible, Infallible) = tokio::join!(over_tcp, over_unix);
        Ok(())
    })
}
