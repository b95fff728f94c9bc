//! Logs as they come: one stream of one task, copied to stdout or stderr.
//!
//! Invariants: every byte is written once and in order, also over a reconnect, where what was written before is skipped; bytes are
//! passed on as they are, unless lines get their task's name in front; a follow ends when the run has ended and its log was read whole.

use std::io::{self, Write as _};
use std::time::Duration;

use api::{Job, State};
use hyper::body::Bytes;
use uuid::Uuid;

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::watch::Patience;

/// A line that is longer goes out in parts, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// Shortest and longest pause before a follow that ended is taken up again because its run has not.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Which of a task's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Its stdout, which goes to ours.
    Out,
    /// Its stderr, which goes to ours.
    Err,
}

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The job.
    pub(crate) job: Uuid,
    /// Which try; the latest if it is not said.
    pub(crate) attempt: Option<u32>,
    /// Which task; may be left out where there is only one.
    pub(crate) task: Option<String>,
    /// Which stream.
    pub(crate) channel: Channel,
    /// Only the last lines.
    pub(crate) tail: Option<u64>,
    /// Go on until the run has ended.
    pub(crate) follow: bool,
    /// Write the task's name in front of each line.
    pub(crate) prefix: bool,
}

/// The names of a job's tasks: as they were placed, else as they will be.
pub(crate) fn tasks(job: &Job) -> Vec<String> {
    if !job.placement.is_empty() {
        return job.placement.iter().map(|placed| placed.task.clone()).collect();
    }
    let mut names = Vec::new();
    for task in &job.spec.tasks {
        let name = task.name.as_deref().unwrap_or("task");
        match task.replicas.unwrap_or(1) {
            1 => names.push(name.to_owned()),
            replicas => names.extend((0..replicas).map(|replica| format!("{name}-{replica}"))),
        }
    }
    names
}

impl Source {
    fn query(&self, tail: Option<u64>) -> Query {
        let mut query = Query::new("/jobs").segment(&self.job.to_string()).segment("logs").with(
            "stream",
            match self.channel {
                Channel::Out => "out",
                Channel::Err => "err",
            },
        );
        query = query.maybe("task", self.task.as_deref());
        if let Some(attempt) = self.attempt {
            query = query.with("attempt", &attempt.to_string());
        }
        if let Some(tail) = tail {
            query = query.with("tail", &tail.to_string());
        }
        if self.follow { query.with("follow", "true") } else { query }
    }

    /// Whether the run that is followed still goes on.
    async fn goes_on(&self, client: &Client) -> Result<bool, Error> {
        let job: Job = client.get(&Query::new("/jobs").segment(&self.job.to_string())).await?;
        let runs = matches!(job.state, State::Starting | State::Running | State::Stopping);
        Ok(runs && self.attempt.is_none_or(|attempt| attempt == job.attempt))
    }

    /// Copies the log to its end. While it follows, a server that goes away is waited for.
    pub(crate) async fn copy(&self, client: &Client) -> Result<(), Error> {
        let mut sink = Sink::new(self.channel, if self.prefix { self.task.clone() } else { None });
        let mut written: u64 = 0;
        let mut patience = Patience::new();
        let mut again_after = AGAIN_AFTER.0;
        let mut connected = false;
        loop {
            // Where lines were counted from the end, there is no place to go on from.
            let tail = self.tail.filter(|_| written == 0);
            let ended = match self.pass(client, tail, &mut sink, &mut written, &mut connected, &mut patience).await {
                Ok(()) if !self.follow => break,
                Ok(()) => match self.goes_on(client).await {
                    Ok(false) => break,
                    Ok(true) if self.tail.is_some() => break,
                    Ok(true) => {
                        tokio::time::sleep(again_after).await;
                        again_after = (again_after * 2).min(AGAIN_AFTER.1);
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !self.follow || !connected || (self.tail.is_some() && written > 0) {
                return Err(ended);
            }
            patience.pause(ended).await?;
        }
        sink.finish()
    }

    /// One request, from the beginning of the log; what was `written` before is skipped.
    async fn pass(
        &self,
        client: &Client,
        tail: Option<u64>,
        sink: &mut Sink,
        written: &mut u64,
        connected: &mut bool,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        let mut stream = client.stream(&self.query(tail), &[]).await?;
        *connected = true;
        let mut skip = *written;
        while let Some(piece) = stream.next().await? {
            patience.reset();
            let piece = unseen(piece, &mut skip);
            if !piece.is_empty() {
                sink.write(&piece)?;
                *written += piece.len() as u64;
            }
        }
        Ok(())
    }
}

/// What of `piece` is left behind the next `skip` bytes.
fn unseen(mut piece: Bytes, skip: &mut u64) -> Bytes {
    let seen = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
    *skip -= seen as u64;
    piece.split_off(seen)
}

/// Where a stream goes.
struct Sink {
    channel: Channel,
    prefix: Option<String>,
    line: Vec<u8>,
}

impl Sink {
    fn new(channel: Channel, task: Option<String>) -> Self {
        Self { channel, prefix: task.map(|task| format!("[{}] ", crate::table::clean(&task))), line: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.lines(bytes) {
            Some(text) => self.send(&text),
            None => self.send(bytes),
        }
    }

    /// The whole lines that `bytes` complete, prefixed; `None` where bytes go out as they are.
    fn lines(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let prefix = self.prefix.as_ref()?;
        let mut text = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST_LINE {
                text.extend_from_slice(prefix.as_bytes());
                text.append(&mut self.line);
                if !text.ends_with(b"\n") {
                    text.push(b'\n');
                }
            }
        }
        Some(text)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.channel {
            Channel::Out => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()?;
            }
            // A closed stderr is no reason to stop: notes go there, too.
            Channel::Err => drop(io::stderr().lock().write_all(bytes)),
        }
        Ok(())
    }

    /// The end: a last line without its end goes out, too.
    fn finish(&mut self) -> Result<(), Error> {
        if self.line.is_empty() {
            return Ok(());
        }
        self.write(b"\n")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_written_is_skipped_once() {
        let mut skip = 5;
        let left: Vec<Bytes> =
            ["abc", "defg", "hi"].iter().map(|piece| unseen(Bytes::from_static(piece.as_bytes()), &mut skip)).collect();
        assert_eq!(left, ["", "fg", "hi"]);
        assert_eq!(skip, 0);
    }

    #[test]
    fn lines_get_their_task_however_they_are_cut() {
        let text = b"one\ntwo\n\nthree";
        for size in 1..=text.len() {
            let mut sink = Sink::new(Channel::Out, Some("w-0".into()));
            let mut out: Vec<u8> = text.chunks(size).flat_map(|piece| sink.lines(piece).unwrap()).collect();
            out.extend(sink.lines(b"\n").unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), "[w-0] one\n[w-0] two\n[w-0] \n[w-0] three\n", "pieces of {size}");
        }
        assert!(Sink::new(Channel::Out, None).lines(b"x\n").is_none());
    }

    #[test]
    fn a_line_without_end_does_not_grow() {
        let mut sink = Sink::new(Channel::Out, Some("w".into()));
        let out = sink.lines(&vec![b'x'; LONGEST_LINE]).unwrap();
        assert!(out.starts_with(b"[w] x") && out.ends_with(b"\n") && sink.line.is_empty());
    }

    #[test]
    fn a_request_says_all_that_was_asked() {
        let source = Source {
            job: Uuid::from_u128(1),
            attempt: Some(2),
            task: Some("w-1".into()),
            channel: Channel::Err,
            tail: Some(10),
            follow: true,
            prefix: false,
        };
        let path = "/jobs/00000000-0000-0000-0000-000000000001/logs?stream=err&task=w-1&attempt=2";
        assert_eq!(source.query(source.tail).as_str(), format!("{path}&tail=10&follow=true"));
        assert_eq!(Source { follow: false, ..source }.query(None).as_str(), path);
    }
}
