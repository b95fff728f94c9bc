//! Reading a log file that another process may still be writing.
//!
//! Invariants: a file is read in bounded pieces, wherever one begins; only regular files in the log folder are opened, never through a
//! link; nothing here blocks the runtime's threads.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// How far back the begin of the last lines is looked for.
const LOOK_BACK: u64 = 64 << 20;

/// A log file, at the place that is read next.
pub(super) struct Tail(tokio::fs::File);

impl Tail {
    /// Opens it; at its begin, or where its last `lines` lines begin. `None` if it is not there.
    pub(super) async fn open(path: &Path, lines: Option<u64>) -> io::Result<Option<Self>> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path, lines)).await.map_err(io::Error::other)?;
        match opened {
            Ok(file) => Ok(Some(Self(tokio::fs::File::from_std(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What follows; empty at the present end.
    pub(super) async fn read(&mut self) -> io::Result<Bytes> {
        let mut piece = BytesMut::with_capacity(PIECE);
        self.0.read_buf(&mut piece).await?;
        Ok(piece.freeze())
    }
}

fn open(path: &Path, lines: Option<u64>) -> io::Result<std::fs::File> {
    let mut file = std::fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if let Some(lines) = lines {
        let begin = last_lines(&mut file, lines)?;
        file.seek(SeekFrom::Start(begin))?;
    }
    Ok(file)
}

/// Where the last lines begin. A last line without an end counts.
fn last_lines(file: &mut std::fs::File, lines: u64) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(length);
    }
    let floor = length.saturating_sub(LOOK_BACK);
    let mut buffer = vec![0; PIECE];
    let mut end = length;
    let mut seen = 0;
    while end > floor {
        let begin = end.saturating_sub(PIECE as u64).max(floor);
        let piece = &mut buffer[..usize::try_from(end - begin).unwrap_or(PIECE)];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(piece)?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + index as u64 + 1;
            // The end of the last line begins no line.
            if after < length {
                seen += 1;
                if seen == lines {
                    return Ok(after);
                }
            }
        }
        end = begin;
    }
    Ok(floor)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    async fn tail(path: &Path, lines: Option<u64>) -> String {
        let mut tail = Tail::open(path, lines).await.unwrap().unwrap();
        let mut whole = Vec::new();
        loop {
            let piece = tail.read().await.unwrap();
            if piece.is_empty() {
                return String::from_utf8(whole).unwrap();
            }
            whole.extend_from_slice(&piece);
        }
    }

    #[tokio::test]
    async fn the_last_lines_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 2, "\n\n"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(tail(&path, Some(lines)).await, expected, "{text:?} {lines}");
        }
        let long = (0..100_000).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n") + "\n";
        std::fs::write(&path, &long).unwrap();
        assert_eq!(tail(&path, None).await, long);
        let end = tail(&path, Some(20_000)).await;
        assert!(end.starts_with("line 80000\n") && end.ends_with("line 99999\n"));
    }

    #[tokio::test]
    async fn what_is_written_later_is_read_later() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(Tail::open(&path, None).await.unwrap().is_none());
        let mut file = std::fs::File::create(&path).unwrap();
        let mut tail = Tail::open(&path, None).await.unwrap().unwrap();
        assert!(tail.read().await.unwrap().is_empty());
        file.write_all(b"late").unwrap();
        assert_eq!(tail.read().await.unwrap(), "late");
    }

    #[tokio::test]
    async fn links_and_folders_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(Tail::open(&link, None).await.is_err());
        assert!(Tail::open(folder.path(), None).await.is_err());
    }
}
