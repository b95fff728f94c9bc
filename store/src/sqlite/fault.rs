//! What SQLite and the file system say, told as what the operator has to do.

use std::io;
use std::path::Path;

use libsqlite3_sys as ffi;
use rustix::io::Errno;

use super::raw::RawError;
use crate::StoreError;

/// Which operation on which database an error belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) op: &'static str,
    pub(super) path: &'a Path,
}

impl At<'_> {
    fn subject(self) -> String {
        self.path.display().to_string()
    }

    /// An error of SQLite.
    pub(super) fn sqlite(self, error: RawError) -> StoreError {
        let subject = self.subject();
        let op = self.op;
        match (error.primary(), cause(error.errno)) {
            (ffi::SQLITE_FULL, _) | (ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN, Some(Cause::Full)) => {
                StoreError::Full { op, subject }
            }
            (ffi::SQLITE_READONLY | ffi::SQLITE_PERM, _) | (ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN, Some(Cause::ReadOnly)) => {
                StoreError::ReadOnly { op, subject }
            }
            (ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB, _) => StoreError::Corrupt { op, subject, detail: error.message },
            _ if error.is_duplicate() => StoreError::Duplicate { op, what: error.message },
            _ => StoreError::Other { op, subject, detail: format!("{} (SQLite code {})", error.message, error.code) },
        }
    }

    /// An error that sqlx passes on; `errno` is what it leaves out (see [`super::raw::system_errno`]), 0 where nobody knows.
    pub(super) fn sqlx(self, error: &sqlx::Error, errno: i32) -> StoreError {
        match error {
            sqlx::Error::Database(said) => match said.code().and_then(|code| code.parse().ok()) {
                Some(code) => self.sqlite(RawError { code, errno, message: said.message().to_owned() }),
                None => self.other(said.message()),
            },
            sqlx::Error::Io(error) => self.io(error),
            error => self.other(error.to_string()),
        }
    }

    /// Something in the database that this program cannot have left there.
    pub(super) fn corrupt(self, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt { op: self.op, subject: self.subject(), detail: detail.into() }
    }

    /// An error of the file system.
    pub(super) fn io(self, error: &io::Error) -> StoreError {
        let subject = self.subject();
        let op = self.op;
        match cause(error.raw_os_error().unwrap_or(0)) {
            Some(Cause::Full) => StoreError::Full { op, subject },
            Some(Cause::ReadOnly) => StoreError::ReadOnly { op, subject },
            None => StoreError::Other { op, subject, detail: error.to_string() },
        }
    }

    /// Anything else.
    pub(super) fn other(self, detail: impl Into<String>) -> StoreError {
        StoreError::Other { op: self.op, subject: self.subject(), detail: detail.into() }
    }
}

enum Cause {
    Full,
    ReadOnly,
}

/// What an `errno` means for the operator. 0 stands for none, which [`Errno`] has no value for.
fn cause(errno: i32) -> Option<Cause> {
    let is = |known: Errno| errno == known.raw_os_error();
    if is(Errno::NOSPC) || is(Errno::DQUOT) {
        Some(Cause::Full)
    } else if is(Errno::ROFS) || is(Errno::ACCESS) || is(Errno::PERM) {
        Some(Cause::ReadOnly)
    } else {
        None
    }
}
