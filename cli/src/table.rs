//! Tables and facts for people: plain columns, no lines, cut to the terminal, coloured only where colour is wanted.
//!
//! Invariants: text that came from elsewhere (names, commands, messages) cannot control the terminal; without a terminal nothing is cut
//! and nothing is coloured, so that `grep` and `awk` see everything.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use api::{Job, OutcomeWord, State};
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width};

/// Columns that the last one keeps on the narrowest terminal.
const LAST_COLUMN: u16 = 12;

/// What the output may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of the terminal; `None` where there is none.
    pub(crate) width: Option<u16>,
    /// Whether colour is wanted.
    pub(crate) colour: bool,
}

impl Look {
    /// Of stdout.
    pub(crate) fn stdout() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let width = terminal.then(|| rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col)).flatten();
        Self { width: width.filter(|columns| *columns > 0), colour: terminal && wants_colour() }
    }
}

/// Colour is wanted unless NO_COLOR says otherwise, or the terminal has none.
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `text` with everything that could control a terminal replaced by `?`.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A cell of plain text.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(clean(text.as_ref()))
}

/// A cell for something that may be absent.
pub(crate) fn maybe(text: Option<impl AsRef<str>>) -> Cell {
    text.map_or_else(|| Cell::new("-"), cell)
}

/// A job's state, or how it ended, in its colour.
pub(crate) fn state(job: &Job) -> Cell {
    let (text, colour) = match (&job.outcome, job.state) {
        (Some(outcome), _) => match outcome.result {
            OutcomeWord::Succeeded => ("succeeded", Color::Green),
            OutcomeWord::Failed => ("failed", Color::Red),
            OutcomeWord::Cancelled => ("cancelled", Color::DarkGrey),
        },
        (None, State::Running) => ("running", Color::Cyan),
        (None, State::Waiting | State::Queued) => (job.state.as_str(), Color::Yellow),
        (None, State::Starting | State::Stopping | State::Finished) => (job.state.as_str(), Color::Blue),
    };
    Cell::new(text).fg(colour)
}

/// Columns under their headers.
pub(crate) fn table(look: Look, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if look.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(Cell::new).collect::<Vec<_>>());
    for cells in rows {
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    // Cells are padded on their right only, so that the first column begins where the line does.
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(width) = look.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        // Only the last column, which explains, is cut: half an id is of no use.
        let last = header.len().saturating_sub(1);
        let wanted: Vec<u16> = table.column_max_content_widths().iter().map(|width| width + 2).collect();
        let left = width.saturating_sub(wanted.iter().take(last).sum()).max(LAST_COLUMN);
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_constraint(if at == last {
                ColumnConstraint::UpperBoundary(Width::Fixed(left))
            } else {
                ColumnConstraint::Absolute(Width::Fixed(wanted[at]))
            });
        }
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values below each other, aligned. Values of several lines stay aligned.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (name, value) in facts {
        for (at, line) in value.lines().enumerate() {
            let name = if at == 0 { format!("{name}:") } else { String::new() };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<width$}{}", clean(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { width: None, colour: false };

    #[test]
    fn columns_are_aligned_and_plain() {
        let rows = vec![vec![cell("a"), cell("one\x1b[31m\nline")], vec![cell("longer"), maybe(None::<&str>)]];
        assert_eq!(table(PLAIN, &["NAME", "WHAT"], rows), "NAME    WHAT\na       one?[31m?line\nlonger  -\n");
    }

    #[test]
    fn a_header_stands_alone() {
        assert_eq!(table(PLAIN, &["NAME", "WHAT"], Vec::new()), "NAME  WHAT\n");
    }

    #[test]
    fn a_terminal_cuts_the_last_column_alone() {
        let look = Look { width: Some(30), colour: false };
        let text = table(
            look,
            &["ID", "REASON"],
            vec![vec![cell("0199c0de-aaaa"), cell("needs four GPUs, the machine has two of them")]],
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[1].starts_with("0199c0de-aaaa  needs") && lines[1].ends_with('…'), "{text}");
        assert!(lines[1].chars().count() <= 30, "{text}");
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        let row = || vec![vec![Cell::new("failed").fg(Color::Red)]];
        assert!(!table(PLAIN, &["STATE"], row()).contains('\x1b'));
        assert!(table(Look { width: None, colour: true }, &["STATE"], row()).contains('\x1b'));
    }

    #[test]
    fn facts_are_aligned() {
        let text = facts(&[("id", "7".into()), ("command", "a\nb".into())]);
        assert_eq!(text, "id:      7\ncommand: a\n         b\n");
    }
}
