//! The chart that `cargo xtask bench` writes: one bar a program and measurement, on a logarithmic scale, as plain SVG.

use std::fmt::Write as _;

/// A measurement: its name and the programs with their figures.
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    pub(crate) bars: Vec<(&'a str, f64)>,
}

const LEFT: f64 = 190.0;
const WIDTH: f64 = 620.0;
const BAR: f64 = 15.0;
const GAP: f64 = 10.0;
const TOP: f64 = 64.0;
/// Distinguishable in print and for those who do not see red and green apart.
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The powers of ten between which all figures lie.
fn decades(series: &[Series<'_>]) -> (i32, i32) {
    let logs: Vec<f64> = series.iter().flat_map(|one| &one.bars).map(|(_, value)| value.max(1e-3).log10()).collect();
    let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if logs.is_empty() { (0, 1) } else { (low.floor() as i32, (high.floor() as i32 + 1).max(low.floor() as i32 + 1)) }
}

/// Draws all series, program by program in the order in which they first appear.
pub(crate) fn draw(title: &str, series: &[Series<'_>]) -> String {
    let mut programs: Vec<&str> = Vec::new();
    for (program, _) in series.iter().flat_map(|one| &one.bars) {
        if !programs.contains(program) {
            programs.push(program);
        }
    }
    let (low, high) = decades(series);
    let across = |value: f64| (value.max(1e-3).log10() - f64::from(low)) / f64::from(high - low) * WIDTH;
    let mut bars = String::new();
    let mut y = TOP;
    for program in programs {
        let begun = y;
        for (index, one) in series.iter().enumerate() {
            let Some((_, value)) = one.bars.iter().find(|(name, _)| *name == program) else { continue };
            // A bar at the very start of the scale is still to be seen.
            let (length, colour) = (across(*value).max(2.0), COLOURS[index % COLOURS.len()]);
            let label = if *value >= 100.0 { crate::bench_table::thousands(*value) } else { format!("{value:.1}") };
            let _ = writeln!(
                bars,
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{label}</text>",
                LEFT + length + 5.0,
                y + BAR - 3.0
            );
            y += BAR + 2.0;
        }
        let middle = f64::midpoint(begun, y) + 3.0;
        let _ = writeln!(bars, "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, escape(program));
        y += GAP;
    }
    let mut head = String::new();
    for decade in low..=high {
        let x = LEFT + across(10.0_f64.powi(decade));
        let label =
            if decade >= 0 { crate::bench_table::thousands(10.0_f64.powi(decade)) } else { format!("{}", 10.0_f64.powi(decade)) };
        let _ = writeln!(
            head,
            "<line x1=\"{x:.1}\" y1=\"{:.0}\" x2=\"{x:.1}\" y2=\"{y:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
            TOP - 4.0,
            y + 14.0
        );
    }
    let mut x = LEFT;
    for (index, one) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            head,
            "<rect x=\"{x:.0}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"45\">{}</text>",
            x + 17.0,
            escape(one.name)
        );
        x += 40.0 + 7.0 * one.name.len() as f64;
    }
    let (width, height) = (LEFT + WIDTH + 80.0, y + 28.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"22\" font-size=\"15\">{}</text>\n{head}{bars}</svg>\n",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::{Series, draw};

    #[test]
    fn a_program_has_its_bars_together_and_a_decade_is_as_long_everywhere() {
        let series = [
            Series { name: "submits", bars: vec![("flash", 10_000.0), ("a<b", 10.0)] },
            Series { name: "true jobs", bars: vec![("flash", 1_000.0)] },
        ];
        let text = draw("a second", &series);
        assert_eq!(text.matches(">flash<").count(), 1);
        assert!(text.contains("a&lt;b"));
        // From 10 to 100,000: four decades over 620.
        for width in ["465.0", "310.0", "\"2.0\""] {
            assert!(
                text.contains(&format!(
                    "width={}",
                    if width.starts_with('"') { width.to_owned() } else { format!("\"{width}\"") }
                )),
                "{text}"
            );
        }
    }
}
