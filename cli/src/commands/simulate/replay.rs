//! `flash simulate --replay`: whether a decision log still leads to the decisions that it records.

use std::path::Path;

use serde_json::Value;
use simulator::{Difference, End, Part, Replay};

use super::Shape;
use crate::error::Error;
use crate::output;
use crate::table::{self, Look, cell};

/// The exit code where an answer differs.
const DIFFERENT: u8 = 1;

/// Replays, prints what was found, and says so in the exit code.
pub(super) fn run(path: &Path, shape: Shape) -> Result<u8, Error> {
    let wrong = |what: &dyn std::fmt::Display| Error::usage(format!("--replay {}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    let found = simulator::replay(std::io::BufReader::new(file)).map_err(|error| wrong(&error))?;
    let text = match shape {
        Shape::Json => output::json(&found)?,
        Shape::Table => text(&path.display().to_string(), &found, Look::stdout()),
    };
    output::print(&text)?;
    Ok(if found.difference.is_some() { DIFFERENT } else { 0 })
}

fn text(name: &str, found: &Replay, look: Look) -> String {
    let rows = found.parts.iter().map(|part| {
        let mut row: Vec<_> =
            [part.line as u64, part.inputs, part.placed].iter().map(|number| cell(number.to_string())).collect();
        row.extend([cell(&part.version), cell(end(part))]);
        row
    });
    let parts = table::table(look, &["LINE", "CALLS", "PLACED", "VERSION", "END"], rows.collect());
    let calls: u64 = found.parts.iter().map(|part| part.inputs).sum();
    match &found.difference {
        None => format!("{parts}\n{name}: {calls} calls, every answer as recorded\n"),
        Some(difference) => format!("{parts}\n{}", told(name, difference)),
    }
}

fn end(part: &Part) -> String {
    match &part.end {
        End::Whole => "-".to_owned(),
        End::Cut(why) => format!("cut: {why}"),
        End::Torn(line) => format!("line {line} is cut off"),
    }
}

fn told(name: &str, difference: &Difference) -> String {
    let json = |value: &Value| value.to_string();
    let word = difference.input.as_object().and_then(|input| input.keys().next()).map_or("", String::as_str);
    let facts = [
        ("differs", format!("{name}:{}, at {} microseconds, {word}", difference.line, difference.at_micros)),
        ("called", json(&difference.input)),
        ("recorded", json(&difference.recorded)),
        ("now", json(&difference.replayed)),
    ];
    table::facts(&facts)
}
