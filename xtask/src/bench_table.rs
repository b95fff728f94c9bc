//! Rows of the table that `cargo xtask bench` prints: median, least and greatest over the rounds, beside the bound.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One measured thing over all rounds.
pub(crate) struct Row {
    what: &'static str,
    bound_name: Option<&'static str>,
    floor: Option<f64>,
    values: Vec<f64>,
    bounds: Vec<f64>,
    raw: Vec<Value>,
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

fn number(result: &Value, key: &str) -> Result<f64> {
    result[key].as_f64().with_context(|| format!("the load generator's result has no `{key}`: {result}"))
}

/// `12,345`
fn thousands(value: f64) -> String {
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

impl Row {
    /// A row without values.
    pub(crate) fn new(what: &'static str, bound_name: Option<&'static str>, floor: Option<f64>) -> Self {
        Self { what, bound_name, floor, values: Vec::new(), bounds: Vec::new(), raw: Vec::new() }
    }

    /// Adds a round's result, and returns the number in it that counts.
    pub(crate) fn add(&mut self, result: Value, key: &str) -> Result<f64> {
        let value = number(&result, key)?;
        self.values.push(value);
        self.raw.push(result);
        Ok(value)
    }

    /// Adds a round's bound.
    pub(crate) fn add_bound(&mut self, result: Value, key: &str) -> Result<()> {
        self.bounds.push(number(&result, key)?);
        self.raw.push(result);
        Ok(())
    }

    fn median(&self) -> f64 {
        median(&self.values).unwrap_or_default()
    }

    /// Median over the median of the bound.
    fn ratio(&self) -> Option<f64> {
        median(&self.bounds).filter(|bound| *bound > 0.0).map(|bound| self.median() / bound)
    }

    fn line(&self) -> String {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.values.iter().copied().fold(0.0, f64::max);
        let bound = median(&self.bounds).map(thousands).unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let floor = self.floor.map_or(String::new(), |floor| {
            let word = if self.median() >= floor { "reached" } else { "BELOW" };
            format!("{} {word}", thousands(floor))
        });
        format!(
            "| {:<36} | {:>9} | {:>9} | {:>9} | {:>9} {:<22} | {:>5} | {:>15} |",
            self.what,
            thousands(self.median()),
            thousands(least),
            thousands(greatest),
            bound,
            self.bound_name.unwrap_or_default(),
            ratio,
            floor
        )
    }

    /// Everything, for the report.
    pub(crate) fn json(&self) -> Value {
        json!({"what": self.what, "median_per_s": self.median(), "per_s": self.values, "bound": self.bound_name,
            "bound_per_s": self.bounds, "ratio": self.ratio(), "floor_per_s": self.floor, "raw": self.raw})
    }
}

/// Prints the table, in Markdown.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "| {:<36} | {:>9} | {:>9} | {:>9} | {:<32} | {:>5} | {:>15} |",
        "a second", "median", "min", "max", "bound (median)", "ratio", "floor"
    );
    println!("|{:-<38}|{:-<10}:|{:-<10}:|{:-<10}:|{:-<34}|{:-<6}:|{:-<16}:|", "", "", "", "", "", "", "");
    for row in rows {
        println!("{}", row.line());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::{Row, median, thousands};

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [thousands(0.4), thousands(999.0), thousands(1_000.0), thousands(1_234_567.0)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn a_row_says_what_share_of_its_bound_it_reached() {
        let mut row = Row::new("submits", Some("bare"), Some(10.0));
        for value in [8.0, 30.0, 20.0] {
            row.add(json!({"per_s": value}), "per_s").unwrap();
            row.add_bound(json!({"per_s": 40.0}), "per_s").unwrap();
        }
        assert!(row.line().contains("0.50") && row.line().contains("10 reached"), "{}", row.line());
        assert!(row.add(json!({}), "per_s").is_err());
    }
}
