//! Requests to the server and their answers, typed.
//!
//! Invariants: one idle connection is kept and used again; a request is sent a second time only if the first cannot have reached the
//! server, or if it changes nothing. Every answer that is not a success becomes [`Error::Problem`], also where the server (or something
//! in between) did not send one. Bodies are bounded, apart from streams, which are handed on as they come.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::Problem;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connect::{Sender, Target};
use crate::credential::Credential;
use crate::error::Error;
use crate::query::Query;

/// Longest wait for the head of an answer.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// Largest answer that is read into memory, in bytes.
const LARGEST_ANSWER: usize = 256 << 20;
/// Largest problem that is read, in bytes.
const LARGEST_PROBLEM: usize = 1 << 20;

/// A server that is spoken to.
pub(crate) struct Client {
    target: Target,
    credential: Credential,
    idle: Mutex<Option<Sender>>,
}

/// A body as it comes.
pub(crate) struct Stream {
    body: Incoming,
}

/// What a request carries beside its path.
#[derive(Default)]
struct Extra<'a> {
    body: Option<Bytes>,
    headers: &'a [(HeaderName, HeaderValue)],
}

impl Client {
    /// For the server named, or the default one. Opens nothing yet; a Unix socket is sent no token.
    pub(crate) fn new(server: Option<&str>, token_file: Option<&Path>) -> Result<Self, Error> {
        let target = match server {
            Some(server) => Target::parse(server)?,
            None => Target::default_from(|name| std::env::var_os(name)),
        };
        let credential =
            if target.takes_token() { Credential::find(token_file, |name| std::env::var_os(name))? } else { Credential::None };
        Ok(Self { target, credential, idle: Mutex::new(None) })
    }

    /// Where the server is, for people.
    pub(crate) fn describe(&self) -> String {
        self.target.describe()
    }

    /// `GET`, answered with JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, query: &Query) -> Result<T, Error> {
        json(self.send(Method::GET, query, Extra::default()).await?).await
    }

    /// `POST` of JSON, answered with JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        query: &Query,
        body: &impl Serialize,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::usage(format!("the request is not JSON: {error}")))?;
        json(self.send(Method::POST, query, Extra { body: Some(body.into()), headers }).await?).await
    }

    /// `POST` without a body, answered with JSON.
    pub(crate) async fn post_empty<T: DeserializeOwned>(&self, query: &Query) -> Result<T, Error> {
        json(self.send(Method::POST, query, Extra::default()).await?).await
    }

    /// `PUT` of JSON, answered with JSON.
    pub(crate) async fn put<T: DeserializeOwned>(&self, query: &Query, body: &impl Serialize) -> Result<T, Error> {
        self.with_body(Method::PUT, query, body).await
    }

    /// `PATCH` by a JSON merge patch, answered with JSON.
    pub(crate) async fn patch<T: DeserializeOwned>(&self, query: &Query, body: &impl Serialize) -> Result<T, Error> {
        self.with_body(Method::PATCH, query, body).await
    }

    async fn with_body<T: DeserializeOwned>(&self, method: Method, query: &Query, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::usage(format!("the request is not JSON: {error}")))?;
        json(self.send(method, query, Extra { body: Some(body.into()), headers: &[] }).await?).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, query: &Query) -> Result<(), Error> {
        let answer = self.send(Method::DELETE, query, Extra::default()).await?;
        collect(answer.into_body(), LARGEST_ANSWER).await.map(drop)
    }

    /// `GET` of a body that is read as it comes, on a connection of its own.
    pub(crate) async fn stream(&self, query: &Query, headers: &[(HeaderName, HeaderValue)]) -> Result<Stream, Error> {
        let mut sender = self.target.connect().await?;
        let request = self.request(&Method::GET, query, &Extra { body: None, headers })?;
        let answer = self.answer(sender.send_request(request)).await?;
        Ok(Stream { body: checked(answer).await?.into_body() })
    }

    /// A request, answered with success.
    async fn send(&self, method: Method, query: &Query, extra: Extra<'_>) -> Result<Response<Incoming>, Error> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            let request = self.request(&method, query, &extra)?;
            match self.answer(sender.send_request(request)).await {
                Ok(answer) => return self.keep(sender, checked(answer).await),
                // The server may close a connection that idles just as a request is written to it. Reading again is safe.
                Err(Error::NoAnswer { .. }) if method == Method::GET => {}
                Err(error) => return Err(error),
            }
        }
        let mut sender = self.target.connect().await?;
        let request = self.request(&method, query, &extra)?;
        let answer = self.answer(sender.send_request(request)).await?;
        self.keep(sender, checked(answer).await)
    }

    /// Puts the connection by for the next request: that waits until this answer was read.
    fn keep(&self, sender: Sender, answer: Result<Response<Incoming>, Error>) -> Result<Response<Incoming>, Error> {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        answer
    }

    fn request(&self, method: &Method, query: &Query, extra: &Extra<'_>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{}", self.target.prefix(), query.as_str()))
            .header(HOST, self.target.authority())
            .header(USER_AGENT, concat!("flash/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = self.credential.header()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        if extra.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in extra.headers {
            request = request.header(name, value);
        }
        request
            .body(Full::new(extra.body.clone().unwrap_or_default()))
            .map_err(|error| Error::usage(format!("the request cannot be sent: {error}")))
    }

    /// Waits for the head of an answer.
    async fn answer(&self, sent: impl Future<Output = hyper::Result<Response<Incoming>>>) -> Result<Response<Incoming>, Error> {
        match tokio::time::timeout(ANSWER_WITHIN, sent).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::lost(format!("no answer from {}: {error}", self.describe()))),
            Err(_) => Err(Error::lost(format!("no answer from {} within {} s", self.describe(), ANSWER_WITHIN.as_secs()))),
        }
    }
}

impl Stream {
    /// The next piece; `None` at the end that the server meant. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(Error::lost(format!("the server's answer was cut off: {error}"))),
            }
        }
    }
}

/// The answer if it is a success, else its problem.
async fn checked(answer: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = collect(answer.into_body(), LARGEST_PROBLEM).await.unwrap_or_default();
    Err(Error::Problem(Box::new(problem(status, &body))))
}

/// What a failure's body says. Something between us and the server may have answered without a problem.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = crate::table::clean(String::from_utf8_lossy(body).trim());
        let title = format!("HTTP {status}");
        let detail = match text.char_indices().nth(300) {
            _ if text.is_empty() => None,
            Some((cut, _)) => Some(format!("{title}: {}...", &text[..cut])),
            None => Some(format!("{title}: {text}")),
        };
        Problem { kind: "about:blank".into(), title, status: status.as_u16(), code: String::new(), detail, field: None }
    })
}

async fn collect(body: Incoming, most: usize) -> Result<Bytes, Error> {
    let whole = Limited::new(body, most).collect().await;
    whole
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| Error::lost(format!("the server's answer was cut off: {error}")))
}

async fn json<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, Error> {
    let body = collect(answer.into_body(), LARGEST_ANSWER).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Error::lost(format!("the server's answer is not what this version of flash understands: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_without_a_problem_is_still_told() {
        let read = |body: &[u8]| Error::Problem(Box::new(problem(StatusCode::BAD_GATEWAY, body))).to_string();
        assert_eq!(read(b""), "HTTP 502 Bad Gateway");
        assert_eq!(read(b"<html>\x1b[31mproxy</html>\n"), "HTTP 502 Bad Gateway: <html>?[31mproxy</html>");
        assert!(read("ü".repeat(1_000).as_bytes()).ends_with("ü..."));
        let sent = br#"{"type":"about:blank","title":"T","status":502,"code":"busy","detail":"too much","more":1}"#;
        assert_eq!(read(sent), "too much");
    }
}
