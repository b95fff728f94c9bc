//! Lines over a common axis as SVG: panels below one another, each with its own unit. Text is plain, so that any viewer shows it.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 54.0;
const PANEL: f64 = 110.0;
const GAP: f64 = 42.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 5] = ["#2f6db3", "#b4532a", "#5a8f3c", "#7a4fa3", "#777"];

/// One line: its name and its points, ascending in x.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One panel.
pub(crate) struct Panel {
    /// What is shown, with its unit.
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
    /// A step upwards is a factor of ten, for values over decades.
    pub(crate) log_y: bool,
}

/// The common axis.
pub(crate) struct Axis<'a> {
    /// What it is, with its unit.
    pub(crate) title: &'a str,
    /// A step to the right is a factor of ten.
    pub(crate) log: bool,
    /// Where a vertical line is drawn, and what it means is said in the title.
    pub(crate) marks: &'a [f64],
}

/// Where values go on an axis.
struct Scale {
    least: f64,
    most: f64,
    log: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let (least, most) = values
            .filter(|value| value.is_finite() && (!log || *value > 0.0))
            .fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        if least > most {
            return Self { least: if log { 1.0 } else { 0.0 }, most: 10.0, log };
        }
        if log {
            let (low, high) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
            return Self { least: low, most: if high > low { high } else { low * 10.0 }, log };
        }
        let step = nice(most.max(1e-9) / 4.0);
        Self { least: 0.0, most: (most / step).ceil().max(1.0) * step, log }
    }

    /// From 0 to 1.
    fn at(&self, value: f64) -> f64 {
        if self.log {
            (value.max(self.least) / self.least).log10() / (self.most / self.least).log10()
        } else {
            (value - self.least) / (self.most - self.least)
        }
    }

    fn marks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.most / self.least).log10().round() as i32;
            return (0..=decades).map(|decade| self.least * 10_f64.powi(decade)).collect();
        }
        let step = nice((self.most - self.least) / 4.0);
        (0..=5).map(|mark| self.least + f64::from(mark) * step).filter(|mark| *mark <= self.most * 1.000_001).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least * 0.999_999).unwrap_or(10.0 * power)
}

/// A value in few characters.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = if value.fract().abs() < 1e-9 { 0 } else { usize::from(value.abs() < 10.0) + usize::from(value.abs() < 100.0) };
    format!("{value:.digits$}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The drawing.
pub(crate) fn svg(title: &str, axis: &Axis<'_>, panels: &[Panel]) -> String {
    let height = TOP + panels.len() as f64 * (PANEL + GAP) - GAP + BOTTOM;
    let x = Scale::of(panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points).map(|point| point.0), axis.log);
    let across = |value: f64| LEFT + x.at(value) * (WIDTH - LEFT - RIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"22\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    for (index, panel) in panels.iter().enumerate() {
        let (top, bottom) = (TOP + index as f64 * (PANEL + GAP), TOP + index as f64 * (PANEL + GAP) + PANEL);
        let y = Scale::of(panel.lines.iter().flat_map(|line| &line.points).map(|point| point.1), panel.log_y);
        let up = |value: f64| bottom - y.at(value) * PANEL;
        // Writing into a string cannot fail.
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", top - 8.0, escape(&panel.title));
        for mark in y.marks() {
            let at = up(mark);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(mark)
            );
        }
        for mark in x.marks() {
            let at = across(mark);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#eee\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
                bottom + 14.0,
                short(mark)
            );
        }
        for mark in axis.marks {
            let _ = writeln!(out, "<path d=\"M{:.1} {top}V{bottom}\" stroke=\"#c00\" stroke-width=\"0.6\"/>", across(*mark));
        }
        for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
            let points = line.points.iter().filter(|point| point.1.is_finite());
            let mut path = String::new();
            for (at, value) in points {
                let _ = write!(path, "L{:.1} {:.1}", across(*at), up(*value));
            }
            let _ = writeln!(
                out,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"/>",
                path.strip_prefix('L').unwrap_or("0 0")
            );
        }
        for (number, (line, colour)) in panel.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let _ = writeln!(
                out,
                "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{}</text>",
                WIDTH - RIGHT + 8.0,
                top + 12.0 + 14.0 * number as f64,
                escape(&line.name)
            );
        }
    }
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\" fill=\"#555\">{}</text>\n</svg>", height - 10.0, escape(axis.title));
    out
}

#[cfg(test)]
mod tests {
    use super::{Axis, Line, Panel, short, svg};

    #[test]
    fn values_are_short() {
        for (value, expected) in [(0.0, "0"), (0.25, "0.25"), (12.5, "12.5"), (1_000.0, "1k"), (2_500_000.0, "2.50M")] {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn a_decade_is_as_long_everywhere_and_text_stays_text() {
        let line = Line { name: "a<b".into(), points: vec![(1.0, 10.0), (10.0, 100.0), (100.0, 1_000.0)] };
        let panel = Panel { title: "rate".into(), lines: vec![line], log_y: true };
        let text = svg("t", &Axis { title: "n", log: true, marks: &[] }, &[panel]);
        assert!(text.contains("a&lt;b"));
        assert!(text.contains("d=\"M76.0 164.0L393.0 109.0L710.0 54.0\""), "{text}");
    }
}
