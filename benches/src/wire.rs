//! As much HTTP/1.1 as a closed loop over kept-alive connections needs: heads that are written once, responses with a length.
//!
//! A response without `Content-Length` is an error here: the daemon's answers to a submit have one.

use anyhow::{Context, Result, bail};

/// The part of a response that was found at the start of a buffer.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Response<'a> {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: &'a [u8],
    /// Bytes of head and body together.
    pub(crate) length: usize,
}

/// Where `needle` begins.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        if !name.eq_ignore_ascii_case(b"content-length") {
            return None;
        }
        std::str::from_utf8(&value[1..]).ok()?.trim().parse().ok()
    })
}

/// The response at the start of `buffer`, or nothing if it is not there as a whole yet.
pub(crate) fn response(buffer: &[u8]) -> Result<Option<Response<'_>>> {
    let Some(end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
    let head = &buffer[..end];
    if !head.starts_with(b"HTTP/1.1 ") || head.len() < 12 {
        bail!("not an HTTP/1.1 response: {:?}", String::from_utf8_lossy(&head[..head.len().min(40)]));
    }
    let status =
        std::str::from_utf8(&head[9..12]).ok().and_then(|text| text.parse().ok()).context("no status in the response")?;
    let length = content_length(head).context("a response without Content-Length")?;
    let start = end + 4;
    Ok(buffer.get(start..start + length).map(|body| Response { status, body, length: start + length }))
}

/// Number of ids in the answer to a submit; each must be 36 characters long.
pub(crate) fn count_ids(body: &[u8]) -> usize {
    const KEY: &[u8] = br#""id":""#;
    let (mut rest, mut count) = (body, 0);
    while let Some(at) = find(rest, KEY) {
        let value = &rest[at + KEY.len()..];
        if value.get(36) == Some(&b'"') {
            count += 1;
        }
        rest = value;
    }
    count
}

/// The lines of a request head up to the length, which differs from request to request.
pub(crate) fn head(path: &str, host: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{authorization}content-length: ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{Response, count_ids, response};

    #[test]
    fn a_response_is_taken_when_it_is_whole() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\ndate: x\r\n\r\nhelloHTTP/1.1";
        for end in 0..whole.len() - 8 {
            assert_eq!(response(&whole[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(response(whole).unwrap(), Some(Response { status: 201, body: b"hello", length: whole.len() - 8 }));
        assert!(response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(response(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn ids_are_counted() {
        let id = "01890000-0000-7000-8000-000000000000";
        assert_eq!(count_ids(format!(r#"{{"id":"{id}"}}"#).as_bytes()), 1);
        assert_eq!(count_ids(format!(r#"{{"jobs":[{{"id":"{id}"}},{{"id":"{id}"}}]}}"#).as_bytes()), 2);
        assert_eq!(count_ids(br#"{"id":"short"}"#), 0);
    }
}
