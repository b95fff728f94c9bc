//! Addresses, sessions, and what of a server has to be as it is.
//!
//! What must hold: a commit that was answered is on the server's disk, whatever the server's settings say of `synchronous_commit`; a session
//! whose client is gone without a word gives its locks back soon; passwords are in no text that is made here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};

use super::fault::{At, Fault};
use crate::StoreError;

/// How long one attempt to connect may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Connections for reading.
const READERS: u32 = 8;
/// How long a read waits for a connection, where all are busy or the server is away.
const ACQUIRE: Duration = Duration::from_secs(5);

/// The writer looks rows up by their keys alone. What the planner believes of a table that has just grown must not make it read the whole of it.
const WRITER: &str = "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'; \
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
    SET statement_timeout = '60s'; SET lock_timeout = '20s'; SET idle_in_transaction_session_timeout = '20s'; \
    SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 15000";

/// Most parameters of a list are null: what they restrict is better planned than looked up.
const READER: &str = "SET default_transaction_read_only = on; SET plan_cache_mode = force_custom_plan; SET jit = off; \
    SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s'";

const SERVER: &str =
    "SELECT current_setting('server_encoding'), current_setting('fsync'), current_setting('server_version_num')::bigint";

/// The oldest server that is taken: 13.
const OLDEST: i64 = 130_000;

/// Where the server is and who we are to it. Shown without the password.
#[derive(Clone)]
pub struct Address {
    options: PgConnectOptions,
    shown: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Not the address of a PostgreSQL. The address is not repeated: it may hold a password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the address of a PostgreSQL such as postgres://USER@HOST:5432/DATABASE: {detail}")]
pub struct AddressError {
    detail: String,
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(AddressError { detail: "it begins with neither postgres:// nor postgresql://".to_owned() });
        }
        let options = match PgConnectOptions::from_str(text) {
            Ok(options) => options,
            // Of what else sqlx says nothing is sure to hold no part of the address.
            Err(sqlx::Error::Configuration(_)) => {
                return Err(AddressError {
                    detail: "a part of it cannot be read (a password has to be percent-encoded)".to_owned(),
                });
            }
            Err(_) => return Err(AddressError { detail: "it cannot be read".to_owned() }),
        };
        Ok(Self::of(options.application_name("flashd")))
    }
}

impl Address {
    fn of(options: PgConnectOptions) -> Self {
        let place = match options.get_socket() {
            Some(socket) => format!("{}:{}", socket.display(), options.get_port()),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let shown = format!("postgres://{}@{place}/{database}", options.get_username());
        Self { options, shown }
    }

    /// With this password instead of what the address, `PGPASSWORD` or a password file says.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        Self::of(self.options.password(password))
    }

    /// A session for writing.
    pub(super) async fn writer(&self) -> Result<PgConnection, Fault> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            connection.execute(WRITER).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Fault::Store(self.at("connect").away(format!("no answer within {} s", CONNECT.as_secs())))),
        }
    }

    /// Connections for reading, made when they are needed.
    pub(super) fn readers(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(READER).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    pub(super) fn at(&self, op: &'static str) -> At<'_> {
        At { op, subject: &self.shown }
    }

    /// Refuses a server that cannot keep what it is given.
    pub(super) async fn check_server(&self, db: &mut PgConnection) -> Result<(), StoreError> {
        let at = self.at("open");
        let (encoding, fsync, version): (String, String, i64) =
            sqlx::query_as(SERVER).fetch_one(db).await.map_err(|error| at.sqlx(error))?;
        if version < OLDEST {
            return Err(at.other(format!("its version is {}, 13 or newer is needed", version / 10_000)));
        }
        if encoding != "UTF8" {
            return Err(at.other(format!("the encoding of the database is {encoding}; make it with ENCODING 'UTF8'")));
        }
        if fsync != "on" {
            tracing::warn!(database = %self, "fsync is off in this server: what is acknowledged can be lost when its machine fails");
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let address: Address = "postgres://ada:s3cret@db.example:5433/jobs?sslmode=verify-full".parse().unwrap();
        assert_eq!(address.to_string(), "postgres://ada@db.example:5433/jobs");
        let address = address.with_password("an0ther");
        for shown in [format!("{address} {address:?}"), address.at("open").other("x").to_string()] {
            assert!(!shown.contains("s3cret") && !shown.contains("an0ther"), "{shown}");
        }
        let socket: Address = "postgres:///jobs?host=/run/postgresql&user=ada".parse().unwrap();
        assert_eq!(socket.to_string(), "postgres://ada@/run/postgresql:5432/jobs");
        for wrong in
            ["mysql://ada:s3cret@h/d", "postgres://ada:s3cret@h:port/d", "s3cret", "postgres://ada:s3c#ret@h/d?sslmode=s3cret"]
        {
            let said = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(!said.contains("s3c"), "{said}");
        }
    }
}
