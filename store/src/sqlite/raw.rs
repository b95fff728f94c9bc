//! The SQLite C interface, as little of it as the store needs: prepared statements on a handle that sqlx has opened.
//!
//! This is the only place of the crate with `unsafe`. What it keeps up: a [`Connection`] holds the lock on its handle from the day it
//! is made to the end, so sqlx's own thread sleeps and nobody else calls SQLite with it; every statement made on the handle stays in
//! it and is finalized before sqlx, which closes the handle, gets it back; a statement is reset and its bindings are cleared before a
//! call returns, so that no borrowed argument is remembered.
//!
//! Why not through sqlx: it hands each statement to a thread of its own, and those hops cost more than the fsync of a commit. Reading
//! goes this way too, so that a row is decoded in one place; whether sqlx would read slower was not measured.
#![expect(unsafe_code, reason = "the C interface of SQLite")]

use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};

use futures_executor::block_on;
// The very crate that sqlx links: the type of the handle says so.
use libsqlite3_sys as ffi;
use sqlx::Connection as _;
use sqlx::sqlite::{LockedSqliteHandle, SqliteConnection};

/// What SQLite said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RawError {
    /// Extended result code.
    pub(super) code: c_int,
    /// `errno` of the system call that failed, 0 if none did.
    pub(super) errno: c_int,
    /// Its message.
    pub(super) message: String,
}

impl RawError {
    /// A value in the database that this program cannot have written.
    pub(super) fn corrupt(message: impl Into<String>) -> Self {
        Self { code: ffi::SQLITE_CORRUPT, errno: 0, message: message.into() }
    }

    /// The result code without its extension.
    pub(super) const fn primary(&self) -> c_int {
        self.code & 0xff
    }

    /// True where a unique index or a primary key refused a row.
    pub(super) const fn is_duplicate(&self) -> bool {
        matches!(self.code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID)
    }
}

/// A value for a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl From<i64> for Arg<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Blob(value)
    }
}

impl<'a, T: Into<Arg<'a>>> From<Option<T>> for Arg<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A prepared statement, found again by the address of its text: comparing texts would cost more than binding them.
struct Cached {
    sql: &'static str,
    statement: NonNull<ffi::sqlite3_stmt>,
}

/// What the system said when SQLite last failed to open, read or write a file; 0 if it never did. sqlx's errors leave it out.
pub(super) fn system_errno(connection: &mut SqliteConnection) -> c_int {
    // SAFETY: the handle is open and locked over the call.
    let errno = |mut locked: LockedSqliteHandle<'_>| unsafe { ffi::sqlite3_system_errno(locked.as_raw_handle().as_ptr()) };
    block_on(connection.lock_handle()).map_or(0, errno)
}

/// An open database and its prepared statements.
pub(super) struct Connection {
    /// That of `opened`, which stays locked as long as `locked` is there: until this is dropped.
    handle: NonNull<ffi::sqlite3>,
    cache: Vec<Cached>,
    locked: Option<LockedSqliteHandle<'static>>,
    /// From a box. A pointer, because `locked` borrows from it, and a box that moves would claim to be its only user.
    opened: NonNull<SqliteConnection>,
}

const _: () = {
    const fn may_change_threads<T: Send>() {}
    may_change_threads::<SqliteConnection>();
    may_change_threads::<LockedSqliteHandle<'static>>();
};

// SAFETY: sqlx's connection and lock may change threads (see above). The handle and its statements are used only through `&mut self`
// (or by `&self` for plain getters), and SQLite's multi-thread mode allows a connection on any thread as long as it is on one at a
// time.
unsafe impl Send for Connection {}

impl Drop for Connection {
    /// Returns when the file is closed.
    fn drop(&mut self) {
        for cached in self.cache.drain(..) {
            // SAFETY: it was prepared on this handle, which is still open, and is finalized once: here.
            unsafe { ffi::sqlite3_finalize(cached.statement.as_ptr()) };
        }
        self.locked = None;
        // SAFETY: the pointer is that of a box (see `take`), its only borrower has ended a line above, and it is not used again.
        let opened = unsafe { Box::from_raw(self.opened.as_ptr()) };
        if let Err(error) = block_on(opened.close()) {
            tracing::warn!(%error, "a connection to the database was not closed in order");
        }
    }
}

impl Connection {
    /// Takes over what sqlx has opened, for good.
    pub(super) fn take(opened: SqliteConnection) -> Result<Self, sqlx::Error> {
        let opened = NonNull::from(Box::leak(Box::new(opened)));
        // SAFETY: nothing else has this pointer. What it points to stays where it is until `locked` is gone: until the box is made
        // anew, in `drop` or below.
        let locked = block_on(unsafe { &mut *opened.as_ptr() }.lock_handle());
        match locked {
            Ok(mut locked) => Ok(Self { handle: locked.as_raw_handle(), cache: Vec::new(), locked: Some(locked), opened }),
            Err(error) => {
                // SAFETY: as above; nothing has been lent.
                drop(unsafe { Box::from_raw(opened.as_ptr()) });
                Err(error)
            }
        }
    }

    /// Runs statements without parameters, whose rows nobody wants.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), RawError> {
        let text = CString::new(sql).map_err(|_| RawError::corrupt("NUL byte in SQL"))?;
        // SAFETY: the handle is open, the text is NUL-terminated and lives over the call; no callback, no message wanted.
        let code = unsafe { ffi::sqlite3_exec(self.handle.as_ptr(), text.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error(code)) }
    }

    /// Runs a statement to its end and returns how many rows it changed. Rows that it gives are passed over.
    pub(super) fn execute(&mut self, sql: &'static str, args: &[Arg<'_>]) -> Result<u64, RawError> {
        self.query(sql, args, |_| Ok(()))?;
        // SAFETY: the handle is open.
        Ok(unsafe { ffi::sqlite3_changes64(self.handle.as_ptr()) }.cast_unsigned())
    }

    /// Runs a statement and shows each row to `see`. The statement stays prepared for the next call with the same text.
    pub(super) fn query(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
        mut see: impl FnMut(&Row) -> Result<(), RawError>,
    ) -> Result<(), RawError> {
        let statement = self.prepared(sql)?;
        let done = self.bind(statement, args).and_then(|()| {
            loop {
                // SAFETY: the statement belongs to this open handle.
                match unsafe { ffi::sqlite3_step(statement.as_ptr()) } {
                    ffi::SQLITE_ROW => see(&Row { statement })?,
                    ffi::SQLITE_DONE => return Ok(()),
                    code => return Err(self.error(code)),
                }
            }
        });
        // SAFETY: as above. Clearing ends the borrow of `args` that SQLITE_STATIC stands for. The codes repeat that of the step.
        unsafe {
            ffi::sqlite3_reset(statement.as_ptr());
            ffi::sqlite3_clear_bindings(statement.as_ptr());
        }
        done
    }

    /// The first row's value, if there is a row.
    pub(super) fn first<T>(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
        mut read: impl FnMut(&Row) -> Result<T, RawError>,
    ) -> Result<Option<T>, RawError> {
        let mut first = None;
        self.query(sql, args, |row| {
            if first.is_none() {
                first = Some(read(row)?);
            }
            Ok(())
        })?;
        Ok(first)
    }

    /// True inside BEGIN .. COMMIT. SQLite itself rolls back on some errors.
    pub(super) fn in_transaction(&self) -> bool {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_get_autocommit(self.handle.as_ptr()) == 0 }
    }

    fn prepared(&mut self, sql: &'static str) -> Result<NonNull<ffi::sqlite3_stmt>, RawError> {
        if let Some(cached) = self.cache.iter().find(|cached| ptr::eq(cached.sql, sql)) {
            return Ok(cached.statement);
        }
        let mut statement = ptr::null_mut();
        let length = c_int::try_from(sql.len()).map_err(|_| RawError::corrupt("SQL is too long"))?;
        // SAFETY: the handle is open; pointer and length are those of `sql`; `statement` is a valid place for the result.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                self.handle.as_ptr(),
                sql.as_ptr().cast(),
                length,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &raw mut statement,
                ptr::null_mut(),
            )
        };
        match NonNull::new(statement) {
            Some(statement) if code == ffi::SQLITE_OK => {
                self.cache.push(Cached { sql, statement });
                Ok(statement)
            }
            _ => Err(self.error(code)),
        }
    }

    /// Binds all parameters. The statement must not be stepped after `args` are gone: [`Self::query`] clears them.
    fn bind(&self, statement: NonNull<ffi::sqlite3_stmt>, args: &[Arg<'_>]) -> Result<(), RawError> {
        let statement = statement.as_ptr();
        // SAFETY: the statement belongs to this open handle.
        let wanted = unsafe { ffi::sqlite3_bind_parameter_count(statement) };
        if usize::try_from(wanted) != Ok(args.len()) {
            let message = format!("{} values for {wanted} parameters", args.len());
            return Err(RawError { code: ffi::SQLITE_RANGE, errno: 0, message });
        }
        for (index, arg) in (1..).zip(args) {
            // SAFETY: the index is within the parameters. Pointers come with the length of what they point to, which outlives
            // the use (see above). An empty slice has a dangling but non-null pointer, so it stays an empty value, not NULL.
            let code = unsafe {
                match *arg {
                    Arg::Null => ffi::sqlite3_bind_null(statement, index),
                    Arg::Int(value) => ffi::sqlite3_bind_int64(statement, index, value),
                    Arg::Text(text) => {
                        let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
                        ffi::sqlite3_bind_text(statement, index, text.as_ptr().cast(), length, ffi::SQLITE_STATIC())
                    }
                    Arg::Blob(bytes) => {
                        let length = c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
                        ffi::sqlite3_bind_blob(statement, index, bytes.as_ptr().cast(), length, ffi::SQLITE_STATIC())
                    }
                }
            };
            if code != ffi::SQLITE_OK {
                return Err(self.error(code));
            }
        }
        Ok(())
    }

    fn error(&self, code: c_int) -> RawError {
        // SAFETY: the handle is open; the message is copied before the next call.
        unsafe {
            let handle = self.handle.as_ptr();
            let extended = ffi::sqlite3_extended_errcode(handle);
            // The handle keeps the code of its latest call; a code of another kind is the more exact one.
            let code = if extended & 0xff == code & 0xff { extended } else { code };
            let errno = ffi::sqlite3_system_errno(handle);
            let message = CStr::from_ptr(ffi::sqlite3_errmsg(handle)).to_string_lossy().into_owned();
            RawError { code, errno, message }
        }
    }
}

/// The present row of a running statement.
pub(super) struct Row {
    statement: NonNull<ffi::sqlite3_stmt>,
}

impl Row {
    /// An integer, or NULL.
    pub(super) fn opt_int(&self, column: c_int) -> Result<Option<i64>, RawError> {
        match self.kind(column) {
            ffi::SQLITE_NULL => Ok(None),
            // SAFETY: a row is present as long as `self` is: `query` lends it between two steps.
            ffi::SQLITE_INTEGER => Ok(Some(unsafe { ffi::sqlite3_column_int64(self.statement.as_ptr(), column) })),
            kind => Err(wrong(column, "an integer", kind)),
        }
    }

    /// An integer.
    pub(super) fn int(&self, column: c_int) -> Result<i64, RawError> {
        self.opt_int(column)?.ok_or_else(|| wrong(column, "an integer", ffi::SQLITE_NULL))
    }

    /// An integer of another type.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: c_int) -> Result<T, RawError> {
        let value = self.int(column)?;
        T::try_from(value).map_err(|_| RawError::corrupt(format!("column {column} is out of range: {value}")))
    }

    /// A text, or NULL.
    pub(super) fn opt_text(&self, column: c_int) -> Result<Option<&str>, RawError> {
        match self.kind(column) {
            ffi::SQLITE_NULL => Ok(None),
            ffi::SQLITE_TEXT => std::str::from_utf8(self.bytes(column))
                .map(Some)
                .map_err(|_| RawError::corrupt(format!("column {column} is not UTF-8"))),
            kind => Err(wrong(column, "a text", kind)),
        }
    }

    /// A text.
    pub(super) fn text(&self, column: c_int) -> Result<&str, RawError> {
        self.opt_text(column)?.ok_or_else(|| wrong(column, "a text", ffi::SQLITE_NULL))
    }

    /// Bytes.
    pub(super) fn blob(&self, column: c_int) -> Result<&[u8], RawError> {
        match self.kind(column) {
            ffi::SQLITE_BLOB => Ok(self.bytes(column)),
            kind => Err(wrong(column, "bytes", kind)),
        }
    }

    fn kind(&self, column: c_int) -> c_int {
        // SAFETY: a row is present; a column out of range reads as NULL.
        unsafe { ffi::sqlite3_column_type(self.statement.as_ptr(), column) }
    }

    /// Bytes of a text or blob column, whose kind was looked at just before: nothing is converted, so the pointer stays valid
    /// until the next step, which `&self` outlives nowhere.
    fn bytes(&self, column: c_int) -> &[u8] {
        // SAFETY: a row is present; pointer and length belong together (the pointer is asked for first, as SQLite demands).
        unsafe {
            let start = ffi::sqlite3_column_blob(self.statement.as_ptr(), column).cast::<u8>();
            let length = ffi::sqlite3_column_bytes(self.statement.as_ptr(), column);
            if start.is_null() { &[] } else { std::slice::from_raw_parts(start, usize::try_from(length).unwrap_or(0)) }
        }
    }
}

fn wrong(column: c_int, wanted: &str, kind: c_int) -> RawError {
    RawError::corrupt(format!("column {column} is not {wanted} but of SQLite's type {kind}"))
}
