//! Bodies of requests: read with a bound, parsed with the path of what is wrong.
//!
//! Invariants: a body is never larger in memory than its route allows; nesting is bounded by the parser, so deep JSON is an error and no
//! stack overflow; a good body is parsed once, only a bad one twice, to find the field.

use api::codes;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::problem::{ApiError, ApiResult};

/// What is read and thrown away of a body that is too large: a client that is cut off while it sends never sees the answer.
const THROWN_AWAY: u64 = 16 << 20;

/// What a body says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `application/json`, or nothing said.
    Json,
    /// `application/x-ndjson`: one value a line.
    Lines,
}

impl Kind {
    /// From the headers of a request.
    pub fn of(headers: &HeaderMap) -> ApiResult<Self> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Json) };
        let value = value.to_str().unwrap_or("?");
        match value.split(';').next().unwrap_or(value).trim() {
            kind if kind.eq_ignore_ascii_case("application/json") => Ok(Self::Json),
            kind if kind.eq_ignore_ascii_case("application/x-ndjson") => Ok(Self::Lines),
            kind => {
                let detail =
                    format!("`{kind}` is not taken here: send application/json; jobs:batch takes application/x-ndjson too");
                Err(ApiError::new(codes::MEDIA_TYPE, detail))
            }
        }
    }
}

/// The whole body, if it has at most `limit` bytes.
pub async fn read(mut body: Body, limit: u64) -> ApiResult<Bytes> {
    let too_large =
        || ApiError::new(codes::BODY_TOO_LARGE, format!("the body has more than the {limit} bytes that are taken here"));
    if body.size_hint().lower() > limit {
        throw_away(body).await;
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::new(codes::MALFORMED, format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if (first.len() + rest.len() + data.len()) as u64 > limit {
            throw_away(body).await;
            return Err(too_large());
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

async fn throw_away(mut body: Body) {
    let mut thrown = 0;
    while thrown < THROWN_AWAY
        && let Some(Ok(frame)) = body.frame().await
    {
        thrown += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

/// A value from a JSON object; `at` is the path of the value itself within the request.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], at: &str) -> ApiResult<T> {
    // What is derived would take an array for an object too.
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => {
            let problem = ApiError::new(codes::MALFORMED, "an array, where a JSON object is expected");
            Err(if at.is_empty() { problem } else { problem.at(at) })
        }
        _ => serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error, at)),
    }
}

/// What is wrong, and in which field.
fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error, at: &str) -> ApiError {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return ApiError::new(codes::MALFORMED, "the body is empty; it has to be a JSON object");
    }
    let problem = ApiError::new(codes::MALFORMED, error.to_string());
    let mut path = at.to_owned();
    if error.classify() == Category::Data {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        if let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            let inner = error.path().to_string();
            if inner != "." {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&inner);
            }
        }
    }
    if path.is_empty() { problem } else { problem.at(path) }
}

/// One value a line; empty lines count for nothing. `what` is the name of the list that they make.
pub fn parse_lines<T: DeserializeOwned>(bytes: &[u8], what: &str, most: u64) -> ApiResult<Vec<T>> {
    let mut values = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)) {
        if values.len() as u64 == most {
            return Err(ApiError::invalid(what, format!("more than the {most} that are taken at once")));
        }
        values.push(parse(line, &format!("{what}[{}]", values.len()))?);
    }
    Ok(values)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use api::{JobBatch, JobSpec};

    use super::*;

    fn fault<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (Option<String>, String) {
        let error = parse::<T>(text.as_bytes(), "").unwrap_err();
        let problem = error.problem();
        assert_eq!((problem.status, problem.code.as_str()), (400, codes::MALFORMED));
        (problem.field.clone(), problem.detail.clone().unwrap())
    }

    #[test]
    fn the_field_is_named() {
        for (text, field, detail) in [
            (r#"{"comand": ["x"]}"#, "comand", "unknown field `comand`"),
            (r#"{"command": "x"}"#, "command", "invalid type"),
            (r#"{"command": [1]}"#, "command[0]", "invalid type"),
            (r#"{"tasks": [{"resources": {"cpu": "-1"}}]}"#, "tasks[0].resources.cpu", "`-1` is not an amount of CPU"),
            (r#"{"resources": {"memory": "9999999Pi"}}"#, "resources.memory", "is not an amount of memory"),
            (r#"{"resources": {"gpu": "-0.5"}}"#, "resources.gpu", "`-0.5` is not an amount of GPUs: write a whole number"),
            (r#"{"timeLimit": "soon"}"#, "timeLimit", "`soon` is not a duration"),
            (r#"{"startAfter": "tomorrow"}"#, "startAfter", ""),
        ] {
            let (found, said) = fault::<JobSpec>(text);
            assert_eq!(found.as_deref(), Some(field), "{text}");
            assert!(said.contains(detail), "{said}");
        }
        let (field, _) = fault::<JobBatch>(r#"{"jobs": [{"command": ["x"]}, {"tasks": [{"nam": "x"}]}]}"#);
        assert_eq!(field.as_deref(), Some("jobs[1].tasks[0].nam"));
    }

    #[test]
    fn what_is_no_json_is_said_with_its_place() {
        assert!(fault::<JobSpec>("{\"command\": ").1.contains("line 1"));
        assert!(fault::<JobSpec>(" ").1.contains("empty"));
        assert!(fault::<JobSpec>("{} {}").1.contains("trailing"));
        assert!(fault::<JobSpec>(" []").1.contains("object"));
    }

    #[test]
    fn deep_json_is_an_error() {
        let deep = format!("{{\"labels\": {}", "[".repeat(1_000_000));
        fault::<JobSpec>(&deep);
        let deep = "{\"tasks\":[".repeat(1_000_000);
        fault::<JobSpec>(&deep);
        let deep = "{\"a\":".repeat(1_000_000);
        let error = parse::<serde_json::Value>(deep.as_bytes(), "").unwrap_err();
        assert!(error.problem().detail.as_ref().unwrap().contains("recursion"));
    }

    #[test]
    fn lines_are_counted_as_jobs() {
        let jobs: Vec<JobSpec> = parse_lines(b"{\"command\":[\"a\"]}\n\n {\"command\":[\"b\"]}\r\n", "jobs", 2).unwrap();
        assert_eq!(jobs.len(), 2);
        let error = parse_lines::<JobSpec>(b"{}\n{\"x\":1}\n", "jobs", 9).unwrap_err();
        assert_eq!(error.problem().field.as_deref(), Some("jobs[1].x"));
        assert!(parse_lines::<JobSpec>(b"{}\n{}\n{}", "jobs", 2).is_err());
    }

    #[tokio::test]
    async fn a_body_is_bounded_however_it_comes() {
        assert_eq!(read(Body::from("12345"), 5).await.unwrap(), "12345");
        assert_eq!(read(Body::from("123456"), 5).await.unwrap_err().problem().status, 413);
        let pieces =
            |count: usize| Body::from_stream(futures::stream::iter((0..count).map(|_| Ok::<_, std::convert::Infallible>("12"))));
        assert_eq!(read(pieces(3), 6).await.unwrap(), "121212");
        assert_eq!(read(pieces(4), 6).await.unwrap_err().problem().code, codes::BODY_TOO_LARGE);
    }
}
