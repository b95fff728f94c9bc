//! Paths and queries of requests, percent-encoded.
//!
//! Invariant: whatever text is given, it stays one segment, or one value, of the URL.

use std::fmt::Write as _;

/// A path under `/api/v1` with its query.
pub(crate) struct Query {
    text: String,
    separator: char,
}

/// Appends `text`, all but unreserved characters (RFC 3986) as `%XX`.
fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

impl Query {
    /// Begins with a path as it is, such as `/jobs`.
    pub(crate) fn new(path: &str) -> Self {
        Self { text: path.to_owned(), separator: '?' }
    }

    /// Adds a path segment. Before any parameter.
    pub(crate) fn segment(mut self, text: &str) -> Self {
        self.text.push('/');
        encode(&mut self.text, text);
        self
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.text.push(self.separator);
        self.separator = '&';
        self.text.push_str(key);
        self.text.push('=');
        encode(&mut self.text, value);
        self
    }

    /// Adds a parameter if there is a value.
    pub(crate) fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place() {
        let query = Query::new("/jobs")
            .segment("a/../b?")
            .with("labelSelector", "a=b,c!=d&x")
            .maybe("name", None)
            .maybe("owner", Some("zoë"));
        assert_eq!(query.as_str(), "/jobs/a%2F..%2Fb%3F?labelSelector=a%3Db%2Cc%21%3Dd%26x&owner=zo%C3%AB");
    }
}
