//! What a standby answers while another daemon holds the job table: that it lives, that it is not ready, and why.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use store::StoreError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::values::Listen;
use crate::http::problem::ApiError;

/// A waiting daemon's server on the TCP address of the configuration, if it has one.
pub(crate) struct Waiting {
    why: watch::Sender<Arc<str>>,
    stop: CancellationToken,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

fn told(why: &StoreError) -> Arc<str> {
    let said = match why {
        StoreError::Held { holder, .. } => format!("this is a standby: {holder} holds the job table"),
        _ => "this is a standby, and the database is away".to_owned(),
    };
    said.into()
}

impl Waiting {
    /// Begins to answer.
    pub(crate) async fn begin(config: &Config, why: &StoreError) -> std::io::Result<Self> {
        let (sender, _) = watch::channel(told(why));
        let stop = CancellationToken::new();
        let server = match config.listen {
            Listen::Off => None,
            Listen::Address(address) => {
                let listener = TcpListener::bind(address).await?;
                let stopped = stop.clone().cancelled_owned();
                Some(tokio::spawn(
                    axum::serve(listener, router(sender.subscribe())).with_graceful_shutdown(stopped).into_future(),
                ))
            }
        };
        Ok(Self { why: sender, stop, server })
    }

    /// Why it is one now.
    pub(crate) fn says(&self, why: &StoreError) {
        self.why.send_replace(told(why));
    }

    /// Frees the address for what comes.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if let Some(server) = self.server {
            // Clients that do not let go are let go of.
            let abort = server.abort_handle();
            if tokio::time::timeout(std::time::Duration::from_secs(1), server).await.is_err() {
                abort.abort();
            }
        }
    }
}

fn router(why: watch::Receiver<Arc<str>>) -> Router {
    let not_ready = move || {
        let why = why.borrow().to_string();
        async move { ApiError::new(api::codes::UNAVAILABLE, why) }
    };
    Router::new().route("/healthz", get(async || (StatusCode::OK, "ok\n"))).fallback(not_ready)
}
