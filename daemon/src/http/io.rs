//! A connection that is given up when its other end does not take what it is sent.
//!
//! Invariant: a write that makes no progress for the limit fails. So a stuck client holds a connection, a stream or a place among the
//! watchers for a bounded time, however it is written to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream with a bound on how long a write may stand still.
pub struct Unstuck<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write stands still.
    stuck: Option<Pin<Box<Sleep>>>,
    is_stuck: bool,
}

impl<S> Unstuck<S> {
    /// Writes to `stream` may stand still for `limit`.
    pub const fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, stuck: None, is_stuck: false }
    }

    /// Keeps the clock of what a write answered.
    fn watch<T>(&mut self, cx: &mut Context<'_>, answer: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if answer.is_ready() {
            self.is_stuck = false;
            return answer;
        }
        let limit = self.limit;
        let sleep = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.is_stuck {
            self.is_stuck = true;
            sleep.as_mut().reset(Instant::now() + limit);
        }
        ready!(sleep.as_mut().poll(cx));
        self.is_stuck = false;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take what it is sent")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstuck<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstuck<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, answer)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, answer)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_reading_is_given_up() {
        let (mut client, server) = tokio::io::duplex(8);
        let mut server = Unstuck::new(server, Duration::from_secs(30));
        server.write_all(b"12345678").await.unwrap();
        let error = server.write_all(b"9").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut buffer = [0; 8];
        client.read_exact(&mut buffer).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_served() {
        let (mut client, server) = tokio::io::duplex(1);
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 1];
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                client.read_exact(&mut buffer).await.unwrap();
            }
        });
        Unstuck::new(server, Duration::from_secs(30)).write_all(b"12345").await.unwrap();
        reader.await.unwrap();
    }
}
