//! Job ids as people type and read them: a job's number, a full UUID, or the beginning of one.
//!
//! Invariants: what is sent is a full UUID or a prefix of at least eight hex digits, hyphens in their places; the server says whether a
//! prefix is unique. What is shown short is long enough to be told apart from everything shown with it.

use uuid::Uuid;

use crate::error::Error;

/// Hex digits of a prefix at least.
const SHORTEST: usize = 8;
/// Characters of an id that is shown short: the 48 bits that are its time, in milliseconds, and a hyphen.
const SHOWN: usize = 13;
/// Where the hyphens of a UUID stand, counted in hex digits.
const HYPHENS: [usize; 4] = [8, 12, 16, 20];

/// An id as typed, in the form that the server takes.
pub(crate) fn parse(text: &str) -> Result<String, Error> {
    // No id begins with another digit than zero for centuries, and no number begins with zero.
    if !text.is_empty() && !text.starts_with('0') && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    let digits: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    if digits.len() < SHORTEST || digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::usage(format!(
            "`{}` is not a job: give its number as `flash ls` shows it, the id that `flash submit` printed, or at least the id's first {SHORTEST} hex digits",
            crate::table::clean(text)
        )));
    }
    let mut id = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if HYPHENS.contains(&at) {
            id.push('-');
        }
        id.push(digit);
    }
    Ok(id)
}

/// The id, short.
pub(crate) fn short(id: Uuid) -> String {
    prefix(id, SHOWN)
}

/// The first `length` characters, without a hyphen at the end.
fn prefix(id: Uuid, length: usize) -> String {
    let text = id.hyphenated().to_string();
    text[..length].trim_end_matches('-').to_owned()
}

/// The ids, each cut to the shortest common length that tells all of them apart.
pub(crate) fn short_all(ids: &[Uuid]) -> Vec<String> {
    let mut sorted: Vec<Uuid> = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    // In sorted order, only neighbours can share the longest prefix.
    let length = sorted.windows(2).map(|pair| shared(pair[0], pair[1]) + 1).max().unwrap_or(0).clamp(SHOWN, 36);
    ids.iter().map(|id| prefix(*id, length)).collect()
}

/// How many characters two ids share at their beginning.
fn shared(left: Uuid, right: Uuid) -> usize {
    let (left, right) = (left.hyphenated().to_string(), right.hyphenated().to_string());
    left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ids_are_taken_with_and_without_hyphens() {
        let full = "0199c0de-aaaa-7bbb-8ccc-0123456789ab";
        assert_eq!(parse(full).unwrap(), full);
        assert_eq!(parse("0199C0DEAAAA7BBB8CCC0123456789AB").unwrap(), full);
        assert_eq!(parse("0199c0de").unwrap(), "0199c0de");
        assert_eq!(parse("1042").unwrap(), "1042");
        assert_eq!(parse("0199c0deaaaa7").unwrap(), "0199c0de-aaaa-7");
        for bad in ["", "0", "10x", "0199c0d", "train", "0199c0de-aaaa-7bbb-8ccc-0123456789abc", "../../x", "0199c0d\u{1b}e"] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn short_ids_are_told_apart() {
        let ids: Vec<Uuid> = [
            "0199c0de-aaaa-7bbb-8ccc-0123456789ab",
            "0199c0de-aaaa-7bbc-8ccc-0123456789ab",
            "0199c0de-ffff-7bbc-8ccc-0123456789ab",
        ]
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
        assert_eq!(short_all(&ids[1..]), ["0199c0de-aaaa", "0199c0de-ffff"]);
        assert_eq!(short_all(&ids), ["0199c0de-aaaa-7bbb", "0199c0de-aaaa-7bbc", "0199c0de-ffff-7bbc"]);
        assert_eq!(short_all(&[ids[0], ids[0]]), ["0199c0de-aaaa", "0199c0de-aaaa"]);
        assert!(short_all(&[]).is_empty());
        for id in &ids {
            assert_eq!(parse(&short(*id)).unwrap(), short(*id));
        }
    }
}
