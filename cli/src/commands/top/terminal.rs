//! The screen while `flash top` has it: a second page, no cursor, keys without Enter. Given back when this is dropped, also by a panic.

use std::io::{self, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use crate::error::Error;

/// The second page, cleared; no cursor.
const TAKE: &str = "\x1b[?1049h\x1b[?25l";
const GIVE_BACK: &str = "\x1b[?25h\x1b[?1049l";
/// Rows where the terminal does not say.
const ROWS: u16 = 24;
/// Keys that wait.
const KEYS: usize = 16;

/// The screen.
pub(super) struct Terminal {
    /// How the keyboard was, where there is one.
    before: Option<Termios>,
    keys: mpsc::Receiver<u8>,
}

/// Rows of the terminal.
pub(super) fn rows() -> u16 {
    tcgetwinsize(io::stdout()).ok().map(|size| size.ws_row).filter(|rows| *rows > 0).unwrap_or(ROWS)
}

impl Terminal {
    /// Takes the screen.
    pub(super) fn take() -> Result<Self, Error> {
        let (sender, keys) = mpsc::channel(KEYS);
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            // Ctrl-C stays a signal.
            quiet.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            tcsetattr(io::stdin(), OptionalActions::Now, &quiet).map_err(|error| Error::Output(error.into()))?;
            // Nothing can end a read of the terminal but a key, so it is left behind at the end.
            std::thread::spawn(move || {
                let mut byte = [0];
                while matches!(io::stdin().read(&mut byte), Ok(1)) && sender.blocking_send(byte[0]).is_ok() {}
            });
        }
        let terminal = Self { before, keys };
        write(TAKE)?;
        Ok(terminal)
    }

    /// Shows a page in place of the one before, without a flicker: each line is written over and its rest cleared.
    pub(super) fn show(text: &str) -> Result<(), Error> {
        let mut screen = String::with_capacity(text.len() + 512);
        screen.push_str("\x1b[H");
        for line in text.lines() {
            screen.push_str(line);
            screen.push_str("\x1b[K\r\n");
        }
        screen.push_str("\x1b[J");
        write(&screen)
    }

    /// The next key; never, where there are none.
    pub(super) async fn key(&mut self) -> Option<u8> {
        match self.keys.recv().await {
            Some(key) => Some(key),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _gone = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
        drop(write(GIVE_BACK));
    }
}

fn write(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
