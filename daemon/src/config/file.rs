//! Reading `flashd.toml`: every wrong or unknown key in one go, each with its line.
//!
//! Invariants: a key that is not in [`Settings::slots`] is an error that names what is known at that place; a value is checked also where
//! a flag overrides it, so that a file does not turn out broken on the day the flag goes away.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::queues;
use super::settings::Settings;

/// One thing that is wrong in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there, and what is allowed.
    pub message: String,
}

/// All that is wrong in a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// In the order of lines.
    pub faults: Vec<Fault>,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{}: {}", self.path.display(), fault.line, fault.message)?;
        }
        Ok(())
    }
}

/// Where a value of the file goes.
pub(super) trait Slot {
    /// Checks the value, and takes it unless there is one already.
    fn read(&mut self, value: Spanned<DeValue<'_>>, faults: &mut Faults<'_>);
}

impl<T: DeserializeOwned> Slot for Option<T> {
    fn read(&mut self, value: Spanned<DeValue<'_>>, faults: &mut Faults<'_>) {
        if let Some(value) = faults.value(value)
            && self.is_none()
        {
            *self = Some(value);
        }
    }
}

/// Collects what is wrong.
pub(super) struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl Faults<'_> {
    pub(super) fn add(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.found.push(Fault { line, message: message.into() });
    }

    /// How many there are so far.
    pub(super) const fn count(&self) -> usize {
        self.found.len()
    }

    /// A value, or a fault.
    pub(super) fn value<T: DeserializeOwned>(&mut self, value: Spanned<DeValue<'_>>) -> Option<T> {
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(&error.span().unwrap_or(span), error.message());
                None
            }
        }
    }

    /// The same for an entry of a list, which is told by its key.
    pub(super) fn entry<T: DeserializeOwned>(&mut self, key: &str, value: Spanned<DeValue<'_>>) -> Option<T> {
        let span = value.span();
        match serde_path_to_error::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                let path = error.path().to_string();
                let dot = if path == "." { String::new() } else { format!(".{path}") };
                let error = error.into_inner();
                self.add(&error.span().unwrap_or(span), format!("`{key}{dot}`: {}", error.message()));
                None
            }
        }
    }

    /// Reads a table whose keys begin with `prefix`.
    fn table(&mut self, prefix: &str, table: DeTable<'_>, slots: &mut [(&'static str, &mut dyn Slot)]) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            let inner = format!("{path}.");
            let span = key.span();
            if let Some((_, slot)) = slots.iter_mut().find(|(known, _)| *known == path) {
                slot.read(value, self);
            } else if slots.iter().any(|(known, _)| known.starts_with(&inner)) {
                match value.into_inner() {
                    DeValue::Table(table) => self.table(&inner, table, slots),
                    other => self.add(&span, format!("`{path}` is a table: write [{path}], not a {}", other.type_str())),
                }
            } else {
                let mut known: Vec<_> = slots
                    .iter()
                    .filter_map(|(known, _)| known.strip_prefix(prefix))
                    .map(|rest| rest.split('.').next().unwrap_or(rest))
                    .collect();
                known.dedup();
                self.add(&span, format!("unknown key `{path}`; known here: {}", known.join(", ")));
            }
        }
    }
}

/// Fills what is empty in `settings` from the text of a file.
pub(super) fn read(path: &Path, text: &str, settings: &mut Settings) -> Result<(), FileError> {
    let mut faults = Faults { text, found: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        faults.add(&error.span().unwrap_or(0..0), error.message());
    }
    // What follows a syntax error would be misread; the rest is reported once the file can be parsed.
    if faults.found.is_empty() {
        faults.table("", table.into_inner(), &mut settings.slots());
        queues::check(settings, &mut faults);
    }
    let Faults { mut found, .. } = faults;
    if found.is_empty() {
        return Ok(());
    }
    found.sort_by_key(|fault| fault.line);
    Err(FileError { path: path.to_owned(), faults: found })
}
