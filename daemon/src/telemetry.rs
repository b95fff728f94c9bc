//! Where the daemon's own log goes: standard error, as text or as JSON lines.
//!
//! Invariants: one subscriber a process; the level is checked when the configuration is read, so that a typing error there is named
//! with its line and never silences the log.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged: a level (`info`), or a level with exceptions by module (`info,daemon::http=debug`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct LogLevel(String);

/// Text that is no level.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is not a log level: write error, warn, info, debug or trace, optionally with exceptions as in `info,daemon::http=debug`"
)]
pub struct LogLevelError(String);

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogLevel {
    type Err = LogLevelError;
    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        // A bare word that is no level would be read as the name of a module, and so switch the rest of the log off.
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        let known = text.split(',').all(|part| part.contains('=') || levels.contains(&part.trim()));
        match EnvFilter::try_new(text) {
            Ok(_) if known && !text.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(LogLevelError(text.to_owned())),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The libraries that talk to a cluster complain at each of their tries, several times a second. What it meets is said once, by us, with what mends it;
/// whoever wants to hear the libraries as well says so, or `debug`.
fn filter(level: &LogLevel) -> String {
    match level.0.trim() {
        level @ ("info" | "warn") => format!("{level},kube_runtime=error,kube_client=off"),
        said => said.to_owned(),
    }
}

/// Starts logging to standard error. Fails if something else in this process logs already.
pub fn init(format: LogFormat, level: &LogLevel) -> Result<(), TryInitError> {
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter(level))).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_repeats_itself_is_heard_where_that_is_asked_for() {
        let of = |text: &str| filter(&text.parse().unwrap_or_default());
        assert_eq!((of("info"), of("debug")), ("info,kube_runtime=error,kube_client=off".to_owned(), "debug".to_owned()));
        assert_eq!(of("warn,kube_runtime=warn"), "warn,kube_runtime=warn");
    }

    #[test]
    fn a_typing_error_is_no_level() {
        for text in ["info", "warn,daemon::http=debug", "off"] {
            assert_eq!(text.parse(), Ok(LogLevel(text.to_owned())));
        }
        for text in ["", "inof", "info,daemon::http=deubg", "verbose"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text}");
        }
    }
}
