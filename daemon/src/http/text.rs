//! Small conversions of the edge: base64url, clocks.

use scheduler_core::time::Timestamp;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 with the URL alphabet, unpadded.
pub fn base64url(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for position in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * position)) & 63;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}

/// Back from [`base64url`]; `None` for what it never makes.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut bits = 0_u32;
        for (position, byte) in chunk.iter().enumerate() {
            let value = ALPHABET.iter().position(|known| known == byte)?;
            bits |= (value as u32) << (18 - 6 * position);
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    // Bits that fall off the end would give two spellings of one value.
    (base64url(&out) == text).then_some(out)
}

/// The time, as the core counts it.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// A time of the core on the wire. What the calendar cannot hold becomes its end.
pub fn wire_time(at: Timestamp) -> jiff::Timestamp {
    let end = if at.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_microsecond(at.0).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_as_others_write_it() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"\xff\xef\xbe", "_---"), (b"foob", "Zm9vYg")]
        {
            assert_eq!(base64url(bytes), text);
            assert_eq!(from_base64url(text).as_deref(), Some(bytes));
        }
        for text in ["Z", "Zh", "Zm9v!", "Zg=="] {
            assert_eq!(from_base64url(text), None, "{text}");
        }
    }
}
