//! A stream of server-sent events, taken apart.
//!
//! Invariants: how the bytes are cut into pieces does not matter; what is kept between pieces is bounded; comments and fields that are
//! not known are skipped, as the format asks.

/// Longest line and largest event, in bytes.
const LARGEST: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// The last `id` that the stream gave.
    pub(crate) id: Option<String>,
    /// Its type; `message` where the stream gives none.
    pub(crate) kind: String,
    /// Its lines, joined.
    pub(crate) data: String,
}

/// The stream sends a line or an event larger than any that is meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// What is known between pieces.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The last byte was CR: an LF right behind it belongs to it.
    after_cr: bool,
    begun: bool,
    id: Option<String>,
    kind: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Takes a piece and gives the events that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in piece {
            let follows_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    events.extend(self.end_line()?);
                }
                _ if self.line.len() < LARGEST => self.line.push(byte),
                _ => return Err(TooLarge),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, TooLarge> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line: &str = &text;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.data.len() + value.len() >= LARGEST {
                    return Err(TooLarge);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment has an empty field name. `retry` is ours to choose.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Event> {
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then(|| Event {
            id: self.id.clone(),
            kind: if kind.is_empty() { "message".to_owned() } else { kind },
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn event(id: Option<&str>, kind: &str, data: &str) -> Event {
        Event { id: id.map(str::to_owned), kind: kind.into(), data: data.into() }
    }

    const STREAM: &str = "\u{feff}: keep-alive\n\nid: 7\nevent: job\ndata: {\"a\":\ndata: 1}\n\n:\r\n\r\nid: 8\r\nevent: job\r\n\
                          data:two\r\nretry: 10\r\nunknown\r\n\r\ndata: ü\r\revent: empty\n\nid:9\ndata\n\ndata: cut off";

    fn expected() -> Vec<Event> {
        vec![
            event(Some("7"), "job", "{\"a\":\n1}"),
            event(Some("8"), "job", "two"),
            event(Some("8"), "message", "ü"),
            event(Some("9"), "message", ""),
        ]
    }

    #[test]
    fn every_cut_of_the_stream_gives_the_same_events() {
        let bytes = STREAM.as_bytes();
        for size in 1..=bytes.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> = bytes.chunks(size).flat_map(|piece| parser.push(piece).unwrap()).collect();
            assert_eq!(events, expected(), "pieces of {size}");
        }
        for cut in 0..bytes.len() {
            let mut parser = Parser::default();
            let mut events = parser.push(&bytes[..cut]).unwrap();
            events.extend(parser.push(&bytes[cut..]).unwrap());
            assert_eq!(events, expected(), "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..5).find(|_| parser.push(&piece).is_err());
        assert_eq!(refused, Some(4));
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = format!("data: {}\n", "x".repeat(1 << 20));
        let refused = (0..5).find(|_| parser.push(piece.as_bytes()).is_err());
        assert_eq!(refused, Some(3));
    }
}
