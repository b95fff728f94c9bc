//! The bound for submits: the HTTP framework of the daemon, the same sockets, one thread, and nothing behind them.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use tokio::net::{TcpListener, UnixListener};

/// Batches of a million short jobs would fit; axum's own limit would not let one of a thousand through.
const BODY_MAX: usize = 512 * 1024 * 1024;
/// As long as a real answer.
const ANSWER: &str = r#"{"id":"01890000-0000-7000-8000-000000000000"}"#;
/// The answer to a batch; batches of one measurement are of one size, so the first that comes decides.
static BATCH_ANSWER: OnceLock<Bytes> = OnceLock::new();

const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

fn batch_answer(body: &[u8]) -> Bytes {
    let jobs = body.windows(9).filter(|window| *window == br#""command""#).count();
    Bytes::from(format!(r#"{{"jobs":[{}]}}"#, vec![ANSWER; jobs].join(",")))
}

/// Reads the body, and answers.
async fn one(body: Bytes) -> impl IntoResponse {
    drop(body);
    (StatusCode::CREATED, JSON, Bytes::from_static(ANSWER.as_bytes()))
}

async fn batch(body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, JSON, BATCH_ANSWER.get_or_init(|| batch_answer(&body)).clone())
}

/// Serves both sockets until the process is ended.
pub(crate) fn serve(socket: &Path, listen: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.context("starting the runtime")?.block_on(async {
        let tcp = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
        // A socket that cannot do without delay is only slower.
        let tcp = tcp.tap_io(|stream| stream.set_nodelay(true).unwrap_or_default());
        let unix = UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let routes = Router::new()
            .route("/readyz", get(|| async { "{}" }))
            .route("/api/v1/jobs", post(one))
            .route("/api/v1/jobs:batch", post(batch))
            .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX));
        let (over_tcp, over_unix) = (axum::serve(tcp, routes.clone()), axum::serve(unix, routes));
        tokio::try_join!(over_tcp.into_future(), over_unix.into_future()).map(drop).context("serving")
    })
}
