//! The client of whoever gives orders: it changes the cluster only while its holder may, and waits where the API server asks it to.
//!
//! What must hold:
//! - Whether orders may be given is asked right before each request is sent, also one that is sent again: between the two lies what the API server
//!   asked for (`Retry-After`), and a process that was stopped meanwhile may have lost the Lease.
//! - So nothing below this sends a request again by itself ([`connect`](super::connect) turns that off).
//! - An order that is not taken for long is given back to whoever gave it, with what the server said last.

use std::time::Duration;

use kube::Client;
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

use super::lease::Leadership;

/// Pauses after an answer that says "not now" (429, 503, 504): doubled each time; what the server asks for counts where it is longer.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);
/// How often one request is sent again. After that the pauses of whoever gave the order count, who may have thought better of it.
const AGAIN: u32 = 5;
/// Until the answer begins, all pauses included.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that reads always, and changes something only while orders may be given.
pub(super) fn guarded(client: Client, leadership: Leadership) -> Client {
    let namespace = client.default_namespace().to_owned();
    let guard = tower::service_fn(move |request: http::Request<Body>| {
        let checked = if request.method().is_safe() { Ok(()) } else { leadership.check() };
        let client = client.clone();
        async move {
            checked.map_err(|why| kube::Error::Service(why.into()))?;
            client.send(request).await.map_err(BoxError::from)
        }
    });
    // Only numbers that contradict each other are refused, and then nothing is sent again.
    let again = RetryPolicy::new(SHORTEST, LONGEST, AGAIN, true).ok().map(RetryLayer::new);
    Client::new(ServiceBuilder::new().timeout(PATIENCE).option_layer(again).service(guard), namespace)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::{Response, StatusCode};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::PostParams;

    use super::*;
    use crate::kubernetes::lease::tests::Held;

    /// A client of a server that answers its first `busy` requests with 429 and then takes them; how many it got. At each, `then` is called first.
    fn busy_server(busy: u32, then: impl Fn() + Clone + Send + Sync + 'static) -> (Client, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let server = tower::service_fn(move |request: http::Request<Body>| {
            then();
            let is_busy = counted.fetch_add(1, Ordering::SeqCst) < busy;
            async move {
                if is_busy {
                    let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","code":429,"message":"busy"}"#;
                    let answer =
                        Response::builder().status(StatusCode::TOO_MANY_REQUESTS).body(Body::from(status.as_bytes().to_vec()));
                    return answer.map_err(BoxError::from);
                }
                Ok(Response::new(Body::from(request.into_body().collect_bytes().await?.to_vec())))
            }
        });
        (Client::new(server, "default"), asked)
    }

    async fn create(client: Client) -> kube::Result<ConfigMap> {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        api.create(&PostParams::default(), &ConfigMap::default()).await
    }

    #[tokio::test]
    async fn what_is_not_taken_at_once_is_sent_again() {
        let held = Held::new();
        let (client, asked) = busy_server(3, || {});
        create(guarded(client, held.leadership())).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn what_is_never_taken_is_given_back() {
        let held = Held::new();
        let (client, asked) = busy_server(u32::MAX, || {});
        let error = create(guarded(client, held.leadership())).await.unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), AGAIN + 1);
    }

    #[tokio::test]
    async fn nothing_is_sent_again_by_who_lost_the_lease_while_he_waited() {
        let held = Arc::new(Held::new());
        let losing = Arc::clone(&held);
        let (client, asked) = busy_server(1, move || losing.lose("another holds the Lease"));
        let error = create(guarded(client, held.leadership())).await.unwrap_err();
        assert!(error.to_string().contains("another holds the Lease"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
