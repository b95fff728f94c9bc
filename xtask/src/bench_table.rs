//! Tables that `cargo xtask bench` prints: median, least and greatest over the rounds, beside ours, the bound and the target.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bench_plan::{Line, Target};

/// One line over all rounds.
pub(crate) struct Row {
    program: String,
    bound_name: Option<&'static str>,
    target: Option<Target>,
    durability: String,
    is_peer: bool,
    values: Vec<f64>,
    bounds: Vec<f64>,
    raw: Vec<Value>,
    /// Why there is no figure.
    absent: Option<String>,
}

/// The value in the middle; of an even number, the mean of the two.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn number(result: &Value, pointer: &str) -> Result<f64> {
    let number = result.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("the load generator's result has no `{pointer}`: {result}"))
}

/// `12,345`
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits that count: `12,345`, `123`, `12.3`, `1.23`, `0.0123`.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => thousands(value),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        0.1..1.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

impl Row {
    /// A row without values.
    pub(crate) fn new(line: &Line) -> Self {
        Self {
            program: line.program.clone(),
            bound_name: line.bound.as_ref().map(|bound| bound.name),
            target: line.target,
            durability: line.durability.clone(),
            is_peer: line.is_peer,
            values: Vec::new(),
            bounds: Vec::new(),
            raw: Vec::new(),
            absent: line.figure.as_ref().err().cloned(),
        }
    }

    /// Adds a round's result, and returns the number in it that counts.
    pub(crate) fn add(&mut self, result: &Value, pointer: &str) -> Result<f64> {
        let value = number(result, pointer)?;
        self.values.push(value);
        self.raw.push(result.clone());
        Ok(value)
    }

    /// Adds a round's bound.
    pub(crate) fn add_bound(&mut self, result: &Value, pointer: &str) -> Result<()> {
        self.bounds.push(number(result, pointer)?);
        self.raw.push(result.clone());
        Ok(())
    }

    /// It could not be measured, and is not tried again.
    pub(crate) fn fail(&mut self, why: String) {
        self.absent.get_or_insert(why);
    }

    /// Whether it was given up, or was never there.
    pub(crate) fn is_absent(&self) -> bool {
        self.absent.is_some()
    }

    /// Which program, and how.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// Median over the rounds.
    pub(crate) fn median(&self) -> Option<f64> {
        median(&self.values)
    }

    fn bound(&self) -> Option<f64> {
        median(&self.bounds).filter(|bound| *bound > 0.0)
    }

    /// The target, and whether the median reaches it. `ours` is the median of the first line.
    fn target(&self, ours: Option<f64>) -> String {
        let (Some(value), Some(target)) = (self.median(), self.target) else { return String::new() };
        let (text, reached) = match target {
            Target::AtLeast(target) => (format!(">= {}", figure(target)), value >= target),
            Target::AtMost(target) => (format!("<= {}", figure(target)), value <= target),
            Target::OfOurs(share) => (format!("<= {share} of ours"), ours.is_some_and(|ours| value <= share * ours)),
            Target::OfBound(share) => {
                (format!(">= {share} of the bound"), self.bound().is_some_and(|bound| value >= share * bound))
            }
        };
        format!("{text} {}", if reached { "reached" } else { "MISSED" })
    }

    /// Cells of its line. A row without a bound of its own is compared with that of the first line.
    fn cells(&self, first: &Self) -> [String; COLUMNS.len()] {
        let text = |value: Option<f64>| value.map(figure).unwrap_or_default();
        let ratio = |other: Option<f64>| match (self.median(), other) {
            (Some(value), Some(other)) if other > 0.0 => figure(value / other),
            _ => String::new(),
        };
        let (least, greatest) = (self.values.iter().copied().reduce(f64::min), self.values.iter().copied().reduce(f64::max));
        let bound = self.bound_name.map(|name| format!("{} {name}", text(self.bound()))).unwrap_or_default();
        let ours = first.median();
        let said = |text: &str| text.replace('|', "/").replace('\n', " ");
        [
            self.program.clone(),
            text(self.median()),
            text(least),
            text(greatest),
            if self.is_peer { ratio(ours) } else { String::new() },
            bound,
            ratio(self.bound().or_else(|| first.bound().filter(|_| self.is_peer))),
            self.target(ours),
            said(self.absent.as_ref().unwrap_or(&self.durability)),
        ]
    }

    /// Everything, for the report.
    pub(crate) fn json(&self) -> Value {
        json!({"program": self.program, "median": self.median(), "values": self.values, "bound": self.bound_name,
            "bounds": self.bounds, "durability": self.durability, "absent": self.absent, "raw": self.raw})
    }
}

/// Columns: name, and whether it holds numbers, which stand to the right.
const COLUMNS: [(&str, bool); 9] = [
    ("program", false),
    ("median", true),
    ("min", true),
    ("max", true),
    ("to ours", true),
    ("bound (median)", false),
    ("to bound", true),
    ("target", false),
    ("what an accepted submit is worth", false),
];

/// The table in Markdown, without columns that have nothing in them.
pub(crate) fn table(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let lines: Vec<_> = rows.iter().map(|row| row.cells(first)).collect();
    let used = (0..COLUMNS.len()).filter(|column| lines.iter().any(|line| !line[*column].is_empty()));
    let used: Vec<(usize, usize)> = used
        .map(|column| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            (column, cells.max().unwrap_or(0).max(COLUMNS[column].0.len()))
        })
        .collect();
    let mut text = String::new();
    let mut put = |cell: &dyn Fn(usize, usize) -> String| {
        let cells: Vec<String> = used.iter().map(|(column, width)| cell(*column, *width)).collect();
        text.extend(["|", &cells.join("|"), "|\n"]);
    };
    let padded =
        |cell: &str, width: usize, right: bool| if right { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") };
    put(&|column, width| padded(COLUMNS[column].0, width, COLUMNS[column].1));
    put(&|column, width| "-".repeat(width + 1) + if COLUMNS[column].1 { ":" } else { "-" });
    for line in &lines {
        put(&|column, width| padded(&line[column], width, COLUMNS[column].1));
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::{Row, figure, median, table, thousands};
    use crate::bench_plan::{Figure, Line, Target};

    fn line(program: &str, target: Option<Target>, is_peer: bool) -> Line {
        let figure = |name| Figure { name, args: Vec::new(), pointer: "/per_s" };
        Line {
            program: program.into(),
            figure: Ok(figure("")),
            bound: (!is_peer).then(|| figure("bare")),
            target,
            is_peer,
            durability: "memory".into(),
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!(
            [thousands(0.4), thousands(999.0), thousands(1_000.0), thousands(1_234_567.0)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([figure(1_234.5), figure(12.345), figure(0.012_3), figure(0.0)], ["1,234", "12.3", "0.0123", "0"]);
    }

    #[test]
    fn a_row_says_what_share_of_ours_and_of_its_bound_it_reached() {
        let mut ours = Row::new(&line("flash", Some(Target::OfBound(0.6)), false));
        let mut other = Row::new(&line("other", Some(Target::OfOurs(0.5)), true));
        for value in [8.0, 30.0, 20.0] {
            ours.add(&json!({"per_s": value}), "/per_s").unwrap();
            ours.add_bound(&json!({"per_s": 40.0}), "/per_s").unwrap();
            other.add(&json!({"per_s": value / 2.0}), "/per_s").unwrap();
        }
        let text = table(&[ours, other]);
        assert!(text.contains("MISSED") && text.contains("40.0 bare"), "{text}");
        let last = text.lines().last().unwrap();
        // Half of ours, and a quarter of the bound of ours.
        assert!(["0.500", "0.250", "<= 0.5 of ours reached", "memory"].iter().all(|part| last.contains(part)), "{last}");
    }

    #[test]
    fn what_is_absent_says_why() {
        let mut row = Row::new(&line("nq", None, true));
        assert!(row.add(&json!({}), "/per_s").is_err());
        row.fail("not installed: no registry".into());
        assert!(table(&[row]).contains("not installed: no registry"));
    }
}
