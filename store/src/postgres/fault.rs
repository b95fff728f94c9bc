//! What PostgreSQL and the network say, told as what the operator has to do. No password is in any of it: errors of sqlx have none, and
//! the subject is made of the other parts of the address.

use scheduler_core::ids::Term;
use sqlx::error::ErrorKind;
use sqlx::postgres::PgDatabaseError;

use crate::StoreError;
use crate::codec::Damage;

/// Why something did not go through.
#[derive(Debug)]
pub(super) enum Fault {
    /// What sqlx or the server said.
    Sqlx(sqlx::Error),
    /// What is stored cannot be.
    Damage(Damage),
    /// Found by ourselves.
    Store(StoreError),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// The server's own error, where it is one.
    pub(super) fn database(&self) -> Option<&PgDatabaseError> {
        match self {
            Self::Sqlx(sqlx::Error::Database(error)) => error.try_downcast_ref(),
            _ => None,
        }
    }

    /// Which unique constraint refused a row, if one did, and of which values.
    pub(super) fn duplicate(&self) -> Option<(&str, &str)> {
        let error = self.database().filter(|error| error.code() == "23505")?;
        Some((error.constraint().unwrap_or_default(), error.detail().unwrap_or_default()))
    }
}

/// Which operation on which database an error belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) op: &'static str,
    pub(super) subject: &'a str,
}

impl At<'_> {
    pub(super) fn fault(self, fault: Fault) -> StoreError {
        match fault {
            Fault::Sqlx(error) => self.sqlx(error),
            Fault::Damage(damage) => self.corrupt(damage.0),
            Fault::Store(error) => error,
        }
    }

    pub(super) fn sqlx(self, error: sqlx::Error) -> StoreError {
        let (op, subject) = (self.op, self.subject.to_owned());
        match error {
            sqlx::Error::Database(said) => {
                let code = said.code().unwrap_or_default().into_owned();
                let detail = format!("{} (SQLSTATE {code})", said.message());
                match (&*code, said.kind()) {
                    ("53100", _) => StoreError::Full { op, subject },
                    ("25006", _) => StoreError::ReadOnly { op, subject },
                    // Shutting down, starting, ended by an administrator; connections that break; too many of them.
                    ("57P01" | "57P02" | "57P03" | "57P05" | "53300", _) => StoreError::Away { op, subject, detail },
                    (code, _) if code.starts_with("08") => StoreError::Away { op, subject, detail },
                    (_, ErrorKind::UniqueViolation) => StoreError::Duplicate { op, what: said.message().to_owned() },
                    (code, _) if code.starts_with("XX") => StoreError::Corrupt { op, subject, detail },
                    _ => StoreError::Other { op, subject, detail },
                }
            }
            error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => self.corrupt(error.to_string()),
            sqlx::Error::PoolClosed => StoreError::Closed { op },
            sqlx::Error::PoolTimedOut => self.away("no connection within the time that a request may wait for one"),
            error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) => self.away(error.to_string()),
            error => self.other(error.to_string()),
        }
    }

    /// Something in the database that this program cannot have left there.
    pub(super) fn corrupt(self, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt { op: self.op, subject: self.subject.to_owned(), detail: detail.into() }
    }

    /// The server is away.
    pub(super) fn away(self, detail: impl Into<String>) -> StoreError {
        StoreError::Away { op: self.op, subject: self.subject.to_owned(), detail: detail.into() }
    }

    /// Anything else.
    pub(super) fn other(self, detail: impl Into<String>) -> StoreError {
        StoreError::Other { op: self.op, subject: self.subject.to_owned(), detail: detail.into() }
    }

    /// A batch of a term that is not this writer's.
    pub(super) fn wrong_term(self, ours: Term, current: Term) -> StoreError {
        if current > ours {
            return StoreError::Fenced { ours, current };
        }
        self.other(format!("term {ours} has not begun"))
    }
}
