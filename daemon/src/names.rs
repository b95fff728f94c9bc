//! The alphabet of names: DNS-1123 labels, and label keys and values as Kubernetes has them.
//!
//! Invariant: whatever passes here can be part of a file name, a URL, a Kubernetes object and a metric without being escaped.

/// Longest DNS-1123 label.
pub const LABEL_MAX: usize = 63;
/// Longest prefix of a label key.
const PREFIX_MAX: usize = 253;

/// What a DNS-1123 label is, for people.
pub const LABEL_RULE: &str =
    "1 to 63 characters of a-z, 0-9 and '-', with a letter or digit at both ends (a DNS-1123 label), as in `train-2`";

/// Labels of nodes that begin so are the daemon's own.
pub const OWN_PREFIX: &str = "flash-sched.io/";

/// What a label's key is, for people.
pub const LABEL_KEY_RULE: &str =
    "[prefix/]name: a DNS name, and 1 to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends";

/// What a label's value is, for people.
pub const LABEL_VALUE_RULE: &str = "at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends";

/// Whether `text` is a DNS-1123 label.
pub fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            bytes.len() <= LABEL_MAX && plain(*first) && plain(*last) && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        }
        _ => false,
    }
}

/// The nearest DNS-1123 label to any text; `fallback` if nothing of it is left.
pub fn to_label(text: &str, fallback: &str) -> String {
    let mut label = String::with_capacity(text.len().min(LABEL_MAX));
    for c in text.chars() {
        if label.len() == LABEL_MAX {
            break;
        }
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    if label.is_empty() { fallback.to_owned() } else { label }
}

/// At most 63 of letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            bytes.len() <= LABEL_MAX
                && first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// Whether `text` is a label key: `[prefix/]name`, the prefix a DNS subdomain.
pub fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => prefix.len() <= PREFIX_MAX && prefix.split('.').all(is_label) && is_qualified(name),
        None => is_qualified(text),
    }
}

/// Whether `text` is a label value: empty, or like the name of a key.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "train-2", "0", &"a".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a b", "é", "a\0", "../x", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn anything_becomes_a_label() {
        for (text, label) in [("train.py", "train-py"), ("__x__", "x"), ("Größe", "gr-e"), ("", "job"), ("///", "job")] {
            assert_eq!(to_label(text, "job"), label);
        }
        let long = to_label(&format!("{}-b", "a".repeat(62)), "job");
        assert!(is_label(&long), "{long}");
    }

    #[test]
    fn label_keys_and_values() {
        for good in ["app", "example.com/team", "a_b.c-D"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "Example.com/a", "a b", "a=b"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("v1.2_x") && !is_label_value("-") && !is_label_value("a,b"));
    }
}
