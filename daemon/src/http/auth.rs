//! Who asks: the peer of the Unix socket, or the bearer of a token, ours or the cluster's.
//!
//! Invariants: a request without a caller reaches only what is in [`is_public`]: a route that is added later is closed until somebody
//! opens it there. A daemon that is not root serves its own user and root. Secrets are neither stored nor logged; hashes of them are
//! compared in constant time. A removed token is refused from the moment that its removal was answered.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use api::codes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use scheduler_core::ids::Name;
use sha2::{Digest as _, Sha256};
use store::{Store, TokenRecord};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Mutex, OnceCell};

use super::App;
use super::cluster_auth::ClusterAuth;
use super::problem::{ApiError, ApiResult};
use crate::backend::{Caller, Via};
use crate::users::Users;

/// How long tokens that were read from the store are taken for current. Changes over this daemon count at once.
const FRESH: Duration = Duration::from_secs(5);
/// What every secret begins with, so that scanners for leaked secrets find them.
const PREFIX: &str = "flash_";
/// 256 bits in base64url.
const SECRET_CHARS: usize = 43;

/// What a connection says of who is at its other end.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A user of this machine.
    Socket(Arc<Caller>),
    /// A user of this machine that this daemon does not serve.
    Stranger(u32),
    /// Anybody.
    Tcp,
}

/// What can be asked without saying who asks.
fn is_public(path: &str, metrics_public: bool) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/api/v1/openapi.json" | "/docs")
        || path.starts_with("/docs/")
        || (path == "/metrics" && metrics_public)
}

/// Recognises callers.
pub struct Auth {
    users: Arc<Users>,
    own_uid: u32,
    metrics_public: bool,
    cluster: Option<ClusterAuth>,
    tokens: RwLock<Arc<Tokens>>,
    /// Held while tokens are read from the store, and while they are marked as out of date: so what was read before a removal is
    /// never put in place after it.
    reading: Mutex<()>,
}

#[derive(Default)]
struct Tokens {
    read_at: Option<Instant>,
    /// By the first bytes of the hash.
    by_hash: HashMap<[u8; 8], Vec<Known>>,
}

struct Known {
    record: TokenRecord,
    caller: OnceCell<Arc<Caller>>,
}

impl Tokens {
    fn is_fresh(&self) -> bool {
        self.read_at.is_some_and(|at| at.elapsed() < FRESH)
    }

    fn find(&self, hash: &[u8; 32]) -> Option<&Known> {
        self.by_hash.get(&head(hash))?.iter().find(|known| bool::from(known.record.hash.ct_eq(hash)))
    }
}

fn head(hash: &[u8; 32]) -> [u8; 8] {
    hash.first_chunk().copied().unwrap_or_default()
}

/// A new secret and its hash.
pub fn new_secret() -> std::io::Result<(String, [u8; 32])> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let secret = format!("{PREFIX}{}", super::text::base64url(&bytes));
    let hash = Sha256::digest(secret.as_bytes()).into();
    Ok((secret, hash))
}

impl Auth {
    /// For the daemon that runs as `own_uid`. Tokens that are none of ours are asked about in the cluster, if there is one to ask.
    pub fn new(users: Arc<Users>, own_uid: u32, metrics_public: bool, cluster: Option<ClusterAuth>) -> Self {
        Self { users, own_uid, metrics_public, cluster, tokens: RwLock::default(), reading: Mutex::default() }
    }

    fn serves(&self, uid: u32) -> bool {
        self.own_uid == 0 || uid == 0 || uid == self.own_uid
    }

    async fn caller(&self, uid: u32, via: Via) -> std::io::Result<Arc<Caller>> {
        let user = self.users.get(uid).await?;
        let admin = uid == 0 || uid == self.own_uid;
        Ok(Arc::new(Caller { user: user.name.clone(), uid, gid: user.gid, home: user.home.clone(), admin, via }))
    }

    /// The peer of a connection on the Unix socket.
    pub async fn peer(&self, uid: u32) -> std::io::Result<Peer> {
        if !self.serves(uid) {
            return Ok(Peer::Stranger(uid));
        }
        Ok(Peer::Socket(self.caller(uid, Via::Socket).await?))
    }

    /// Whether nobody has to say who asks for this.
    pub fn is_public(&self, path: &str) -> bool {
        is_public(path, self.metrics_public)
    }

    /// Who sends this request; nobody only where that is enough.
    pub async fn identify(
        &self,
        peer: &Peer,
        path: &str,
        headers: &HeaderMap,
        store: &dyn Store,
    ) -> ApiResult<Option<Arc<Caller>>> {
        match peer {
            Peer::Socket(caller) => Ok(Some(Arc::clone(caller))),
            _ if self.is_public(path) => Ok(None),
            Peer::Stranger(uid) => {
                let detail = format!("this daemon serves the user with uid {} and root, not uid {uid}", self.own_uid);
                Err(ApiError::new(codes::FORBIDDEN, detail))
            }
            Peer::Tcp => self.bearer(headers, store).await.map(Some),
        }
    }

    async fn bearer(&self, headers: &HeaderMap, store: &dyn Store) -> ApiResult<Arc<Caller>> {
        let refused = |detail: &str| ApiError::new(codes::UNAUTHENTICATED, detail);
        let value = headers
            .get(header::AUTHORIZATION)
            .ok_or_else(|| refused("over TCP every request carries `Authorization: Bearer <token>`; `flash token` makes one"))?;
        let secret = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim())
            .ok_or_else(|| refused("the Authorization header is not `Bearer <token>`"))?;
        if secret.len() != PREFIX.len() + SECRET_CHARS || !secret.starts_with(PREFIX) {
            return match &self.cluster {
                Some(cluster) => cluster.caller(secret).await,
                None => Err(refused("this is not a token of flashd")),
            };
        }
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let tokens = self.current(store).await?;
        let known = tokens.find(&hash).ok_or_else(|| refused("this token is not known here, or it was removed"))?;
        let now = super::text::now();
        if known.record.expires_at.is_some_and(|end| end <= now) {
            return Err(refused("this token has ended; `flash token` makes a new one"));
        }
        let uid = known.record.owner.uid;
        if !self.serves(uid) {
            return Err(ApiError::new(codes::FORBIDDEN, "this daemon does not serve the token's user any more"));
        }
        let via = || Via::Token(Name::from(known.record.id.as_str()));
        let caller = known.caller.get_or_try_init(|| self.caller(uid, via())).await;
        caller.map(Arc::clone).map_err(|error| ApiError::internal(&error))
    }

    /// The tokens there are, at most [`FRESH`] old.
    async fn current(&self, store: &dyn Store) -> ApiResult<Arc<Tokens>> {
        let present = || Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner));
        let tokens = present();
        if tokens.is_fresh() {
            return Ok(tokens);
        }
        let reading = self.reading.lock().await;
        let tokens = present();
        if tokens.is_fresh() {
            return Ok(tokens);
        }
        let mut fresh = Tokens { read_at: Some(Instant::now()), by_hash: HashMap::new() };
        for record in store.tokens().await? {
            fresh.by_hash.entry(head(&record.hash)).or_default().push(Known { record, caller: OnceCell::new() });
        }
        let fresh = Arc::new(fresh);
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        drop(reading);
        Ok(fresh)
    }

    /// Tokens were added or removed.
    pub async fn tokens_changed(&self) {
        let _reading = self.reading.lock().await;
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}

/// Who asks, in a handler. A handler that takes none serves everybody that gets that far: the listed public routes, nothing else.
pub struct Asker(pub Arc<Caller>);

impl FromRequestParts<Arc<App>> for Asker {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Arc<Caller>>().map(Arc::clone);
        caller.map(Self).ok_or_else(|| ApiError::new(codes::UNAUTHENTICATED, "this route needs to know who asks"))
    }
}

/// Who asks, where that may be nobody.
pub struct MaybeAsker(pub Option<Arc<Caller>>);

impl FromRequestParts<Arc<App>> for MaybeAsker {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Caller>>().map(Arc::clone)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, hash) = new_secret().unwrap();
        let (other, _) = new_secret().unwrap();
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + SECRET_CHARS);
        assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(one.as_bytes())));
    }

    #[test]
    fn only_the_listed_paths_are_public() {
        for path in ["/healthz", "/readyz", "/docs", "/docs/index.html", "/api/v1/openapi.json"] {
            assert!(is_public(path, false), "{path}");
        }
        for path in ["/", "/metrics", "/api/v1/jobs", "/api/v1/tokens", "/healthz/", "/docsx", "//healthz"] {
            assert!(!is_public(path, false), "{path}");
        }
        assert!(is_public("/metrics", true));
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_root_serves_its_user_and_root() {
        let auth = Auth::new(Arc::default(), 1_234, false, None);
        assert!(matches!(auth.peer(1_235).await.unwrap(), Peer::Stranger(1_235)));
        for uid in [0, 1_234] {
            let Peer::Socket(caller) = auth.peer(uid).await.unwrap() else { panic!("{uid}") };
            assert!(caller.admin);
        }
        let root = Auth::new(Arc::default(), 0, false, None);
        let Peer::Socket(caller) = root.peer(1_235).await.unwrap() else { panic!("root serves everybody") };
        assert!(!caller.admin && caller.may_act_for(1_235) && !caller.may_act_for(1_236));
    }
}
