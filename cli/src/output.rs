//! What leaves the program: text and values to stdout, notes to stderr, in the format that was asked for.
//!
//! Invariants: stdout is written in whole pieces and flushed, its closing is an error of its own kind (see
//! [`Error::is_closed_stdout`]); a note never fails; JSON and YAML are the wire's own types, so that scripts read one language.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Error;
use crate::table::Look;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns, full ids.
    Wide,
    /// The API's own JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// Identifiers alone, one a line.
    Name,
}

/// `-o`, for commands that print what the API answers.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How to print the answer
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
}

impl Output {
    /// Prints `value` as JSON or YAML, its `names` one a line, or what `table` makes of it (told whether it may be wide).
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        names: impl FnOnce(&T) -> Vec<String>,
        table: impl FnOnce(&T, Look, bool) -> String,
    ) -> Result<(), Error> {
        let text = match self.format {
            Format::Json => json(value)?,
            Format::Yaml => yaml(value)?,
            Format::Name => names(value).into_iter().map(|name| name + "\n").collect(),
            Format::Table => table(value, Look::stdout(), false),
            Format::Wide => table(value, Look { width: None, ..Look::stdout() }, true),
        };
        print(&text)
    }

    /// Whether the answer is for people.
    pub(crate) const fn is_table(self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }
}

/// A value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    Ok(text + "\n")
}

/// A value as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, Error> {
    Ok(serde_saphyr::to_string(value).map_err(io::Error::other)?)
}

/// A value as JSON on one line.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    Ok(text + "\n")
}

/// Writes to stdout.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Tells a person something. If nobody can be told, that is no reason to fail.
pub(crate) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Whether a person sees the notes.
pub(crate) fn someone_reads() -> bool {
    io::stderr().is_terminal()
}

/// Asks a yes-or-no question on the terminal. `None` where there is no terminal to ask.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !someone_reads() {
        return None;
    }
    drop(write!(io::stderr().lock(), "{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn values_read_back_from_what_is_printed() {
        let value = api::Submitted { id: uuid::Uuid::from_u128(7) };
        assert_eq!(serde_json::from_str::<api::Submitted>(&json(&value).unwrap()).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<api::Submitted>(&yaml(&value).unwrap()).unwrap(), value);
        assert!(yaml(&value).unwrap().ends_with('\n'));
        assert_eq!(json_line(&value).unwrap().lines().count(), 1);
    }

    #[test]
    fn words_that_yaml_has_other_plans_for_stay_text() {
        let mut spec = api::JobSpec::default();
        for (key, value) in [("A", "no"), ("B", "1"), ("C", ""), ("D", "a: b"), ("E", "two\nlines"), ("F", "null"), ("G", "0x1f")]
        {
            spec.env.insert(key.into(), value.into());
        }
        assert_eq!(serde_saphyr::from_str::<api::JobSpec>(&yaml(&spec).unwrap()).unwrap(), spec);
    }
}
