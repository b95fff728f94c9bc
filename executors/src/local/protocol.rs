//! What the daemon and its runner say to each other.
//!
//! A frame is a length (four bytes, little endian) and that many bytes of JSON. Each side first sends a [`Hello`]; then the daemon
//! sends `Order`s and the runner `Told`s.
//!
//! A runner lives longer than a daemon, so an old runner serves newer daemons. What must hold for that: fields and messages are only
//! added; fields that are not known are ignored; a message that is not known is skipped. What cannot be done that way raises
//! [`PROTOCOL`], and then the two do not talk.
//!
//! No `Told::Reports` is sent before the first `Order::Observe` of a connection is answered. After it, what the daemon may have
//! missed is told again: a start for every run that runs, an end for every run that has ended and is not forgotten.

use std::io::{self, Read};

use scheduler_core::ids::RunId;
use scheduler_core::job::StopPolicy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::contract::{DeviceAccess, Observed, Report, StartOrder};

/// Version of the protocol. Two sides talk only if theirs is the same.
pub const PROTOCOL: u32 = 1;

/// Longest frame that is accepted, in bytes.
pub(crate) const MAX_FRAME: usize = 16 << 20;

/// Longest first frame that is accepted, in bytes.
pub(crate) const MAX_HELLO: usize = 64 << 10;

/// A batch is closed when it has grown to this many bytes, so that a frame stays well below [`MAX_FRAME`].
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// Most runs in one [`Told::Runs`].
pub(crate) const PAGE_RUNS: usize = 1_000;

/// The first frame, both ways.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Version of the sender's program.
    #[serde(default)]
    pub version: String,
    /// Its process id.
    #[serde(default)]
    pub pid: u32,
    /// The boot of the machine that it knows of.
    #[serde(default)]
    pub boot_id: String,
    /// It knows of orders that wait in lines, and of what is told about them.
    #[serde(default)]
    pub lines: bool,
    /// Of a runner: whether it can keep runs from devices. One that does not say cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceAccess>,
}

/// What the daemon says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Order {
    /// Start these runs, except those that are known.
    Start {
        /// Folder of the log files, absolute.
        log_dir: String,
        /// The runs.
        orders: Vec<StartOrder>,
    },
    /// End a run.
    Stop {
        /// Which.
        run: RunId,
        /// How.
        policy: StopPolicy,
    },
    /// Drop those of these runs that wait in a line.
    Withdraw {
        /// Which.
        runs: Vec<RunId>,
    },
    /// The ends of these runs are on record elsewhere.
    Forget {
        /// Which.
        runs: Vec<RunId>,
    },
    /// Say what is there.
    Observe {
        /// Comes back with the answer.
        id: u64,
    },
}

/// What the runner says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Told {
    /// What happened, in order.
    Reports {
        /// At least one.
        reports: Vec<Report>,
    },
    /// Part of the answer to `Order::Observe`.
    Runs {
        /// That of the order.
        id: u64,
        /// At most [`PAGE_RUNS`].
        runs: Vec<Observed>,
        /// Nothing follows.
        last: bool,
    },
    /// Another daemon has connected. The last word of a connection: who gets it does not come back by itself.
    Replaced {},
}

/// Appends `message` as one frame.
pub(crate) fn encode<T: Serialize>(message: &T, into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *into, message)?;
    let length = into.len() - start - 4;
    if length > MAX_FRAME {
        into.truncate(start);
        let detail = format!("a frame of {length} bytes is longer than the {MAX_FRAME} that are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, detail));
    }
    into[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// The length that a frame's header announces, if it is within `max`.
pub(crate) fn frame_length(header: [u8; 4], max: usize) -> io::Result<usize> {
    let length = u32::from_le_bytes(header) as usize;
    if length > max {
        let detail = format!("a frame of {length} bytes was announced, at most {max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
    }
    Ok(length)
}

/// Reads one frame into `buffer`; false at the end of the stream.
pub(crate) fn read_frame(stream: &mut impl Read, buffer: &mut Vec<u8>, max: usize) -> io::Result<bool> {
    let mut header = [0; 4];
    match stream.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    buffer.clear();
    if buffer.capacity() > BATCH_BYTES {
        // One large frame must not make the runner large for good.
        buffer.shrink_to(BATCH_BYTES);
    }
    buffer.resize(frame_length(header, max)?, 0);
    stream.read_exact(buffer)?;
    Ok(true)
}

/// What a frame holds.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    serde_json::from_slice(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_known_is_ignored() {
        let hello: Hello = decode(br#"{"protocol":1,"version":"9.9","pid":7,"bootId":"b","colour":"blue"}"#).unwrap();
        assert_eq!((hello.protocol, hello.pid), (1, 7));
        let order: Order = decode(br#"{"observe":{"id":3,"since":9}}"#).unwrap();
        assert_eq!(order, Order::Observe { id: 3 });
    }

    #[test]
    fn a_frame_comes_back_as_it_was_sent_and_a_torn_one_is_an_error() {
        let mut bytes = Vec::new();
        encode(&Order::Observe { id: 1 }, &mut bytes).unwrap();
        encode(&Order::Observe { id: 2 }, &mut bytes).unwrap();
        let mut stream = bytes.as_slice();
        let mut frame = Vec::new();
        for id in [1, 2] {
            assert!(read_frame(&mut stream, &mut frame, MAX_FRAME).unwrap());
            assert_eq!(decode::<Order>(&frame).unwrap(), Order::Observe { id });
        }
        assert!(!read_frame(&mut stream, &mut frame, MAX_FRAME).unwrap());
        let mut torn = &bytes[..bytes.len() - 1];
        assert!(read_frame(&mut torn, &mut frame, MAX_FRAME).unwrap());
        assert!(read_frame(&mut torn, &mut frame, MAX_FRAME).is_err());
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
        let mut announced = &u32::MAX.to_le_bytes()[..];
        let error = read_frame(&mut announced, &mut Vec::new(), MAX_HELLO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
