//! Bearer tokens: made, listed, removed.
//!
//! Invariants: a secret is told once, to who made it, and never again; a token is made over the Unix socket only, so that one that leaked
//! cannot make others that outlive it; everybody sees and removes their own, admins all.

use std::sync::Arc;

use api::quantity::Duration;
use api::{CreatedToken, NewToken, Token, TokenList, codes};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use scheduler_core::time::Span;
use store::TokenRecord;

use super::params::Id;
use crate::backend::Via;
use crate::http::App;
use crate::http::auth::{Asker, new_secret};
use crate::http::body::{self, Kind};
use crate::http::problem::{ApiError, ApiResult};
use crate::http::text::{now, wire_time};

/// Tokens of one user.
const PER_USER: usize = 100;
/// Longest name in characters.
const NAME_CHARS: usize = 100;
/// How long a token is good where nobody says: 90 days.
const TTL: Duration = Duration(90 * 86_400_000_000);
/// Shortest time that a token is good: a second.
const TTL_MIN: Duration = Duration(1_000_000);

fn shown(record: &TokenRecord) -> Token {
    Token {
        id: record.id.clone(),
        name: record.name.clone(),
        user: record.owner.user.to_string(),
        created_at: wire_time(record.created_at),
        expires_at: record.expires_at.map(wire_time),
    }
}

/// Make a token
///
/// Only over the Unix socket. The secret is shown this once.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    request_body = NewToken,
    responses(
        (status = 201, description = "The token, with its secret", body = CreatedToken),
        (status = "default", description = "No token was made", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<impl IntoResponse> {
    if caller.via != Via::Socket {
        return Err(ApiError::new(codes::FORBIDDEN, "tokens are made over the Unix socket, on the daemon's machine"));
    }
    if Kind::of(&headers)? != Kind::Json {
        return Err(ApiError::new(codes::MEDIA_TYPE, "a token is asked for with application/json"));
    }
    let asked: NewToken = body::parse(&body::read(body, app.limits.body).await?, "")?;
    if asked.name.trim().is_empty() || asked.name.chars().count() > NAME_CHARS || asked.name.chars().any(char::is_control) {
        return Err(ApiError::invalid("name", format!("say what it is for, in 1 to {NAME_CHARS} characters of one line")));
    }
    let ttl = asked.ttl.unwrap_or(TTL);
    if ttl < TTL_MIN {
        return Err(ApiError::invalid("ttl", format!("`{ttl}` is less than {TTL_MIN}")));
    }
    let store = app.backend.store();
    let own = store.tokens().await?.iter().filter(|token| token.owner.uid == caller.uid).count();
    if own >= PER_USER {
        return Err(ApiError::new(codes::CONFLICT, format!("{own} tokens are there; a user may have {PER_USER}: remove some")));
    }
    let (secret, hash) = new_secret().map_err(|error| ApiError::internal(&error))?;
    let created_at = now();
    // Of the hash, which says nothing about the secret.
    let [a, b, c, d, ..] = hash;
    let id = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
    let expires_at = Some(created_at + Span(ttl.0));
    let record = TokenRecord { id, name: asked.name, hash, owner: caller.owner(), created_at, expires_at };
    let token = shown(&record);
    store.add_token(record).await?;
    app.auth.tokens_changed().await;
    tracing::info!(user = %caller.user, token = token.id, "token made");
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, no_store, Json(CreatedToken { token, secret })))
}

/// List tokens
///
/// One's own; admins see all.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    responses(
        (status = 200, description = "Tokens without secrets", body = TokenList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, Asker(caller): Asker) -> ApiResult<Json<TokenList>> {
    let tokens = app.backend.store().tokens().await?;
    let items = tokens.iter().filter(|token| caller.may_act_for(token.owner.uid)).map(shown).collect();
    Ok(Json(TokenList { items }))
}

/// Remove a token
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = String, Path, description = "The token's public id")),
    responses(
        (status = 204, description = "It is good no more"),
        (status = "default", description = "Nothing was removed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, Asker(caller): Asker, Id(id): Id) -> ApiResult<StatusCode> {
    let store = app.backend.store();
    // Of somebody else's token not even the existence is told.
    let own = store.tokens().await?.into_iter().any(|token| token.id == id && caller.may_act_for(token.owner.uid));
    if !own || !store.remove_token(&id).await? {
        return Err(ApiError::new(codes::NOT_FOUND, format!("no token `{}`", id.escape_debug())));
    }
    app.auth.tokens_changed().await;
    tracing::info!(user = %caller.user, token = id, "token removed");
    Ok(StatusCode::NO_CONTENT)
}
