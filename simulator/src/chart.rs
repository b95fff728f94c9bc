//! A chart of a simulation as SVG: how many jobs wait, and how much of each resource is in use, over time.
//!
//! Each pixel column is a stretch of time. Where a value changes within it, the filled area shows its mean and the thin line its peak, so
//! that a short burst is neither lost nor made to look long. Text is plain, so that any viewer shows it.

use std::fmt::Write as _;

use crate::cluster::Cluster;
use crate::series::{Column, Series};

const WIDTH: usize = 960;
const LEFT: usize = 64;
const RIGHT: usize = 24;
const TOP: usize = 56;
const PANEL: usize = 130;
const GAP: usize = 44;
const BOTTOM: usize = 40;
/// Pixel columns of a panel.
const COLUMNS: usize = WIDTH - LEFT - RIGHT;

const QUEUE_COLOUR: &str = "#b4532a";
const COLOURS: [(&str, &str); 3] = [("CPU in use", "#2f6db3"), ("Memory in use", "#5a8f3c"), ("GPUs in use", "#7a4fa3")];

/// A value over time.
struct Panel {
    title: &'static str,
    colour: &'static str,
    columns: Vec<Column>,
    /// Largest value of the axis, and the step between its marks.
    top: f64,
    step: f64,
    unit: &'static str,
}

/// The chart. Resources that the machines have none of are left out.
pub fn svg(series: &Series, cluster: &Cluster, title: &str) -> String {
    let panels = panels(series, cluster);
    let height = TOP + panels.len() * (PANEL + GAP) - GAP + BOTTOM;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        escape(title)
    );
    let seconds = series.end().0 as f64 / 1e6;
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, TOP + index * (PANEL + GAP), seconds, index + 1 == panels.len());
    }
    out.push_str("</svg>\n");
    out
}

fn panels(series: &Series, cluster: &Cluster) -> Vec<Panel> {
    let columns = series.columns(COLUMNS, |point| point.queued as f64);
    let most = columns.iter().map(|column| column.most).fold(1.0, f64::max);
    let step = nice(most / 4.0).max(1.0);
    let top = (most / step).ceil() * step;
    let mut panels = vec![Panel { title: "Jobs waiting", colour: QUEUE_COLOUR, columns, top, step, unit: "" }];
    for (index, amount) in cluster.amounts().into_iter().enumerate() {
        if amount > 0 {
            let columns = series.columns(COLUMNS, |point| 100.0 * point.used[index]);
            let (title, colour) = COLOURS[index];
            panels.push(Panel { title, colour, columns, top: 100.0, step: 25.0, unit: " %" });
        }
    }
    panels
}

/// One panel, its upper edge at `y`; the last one has the times below it.
fn draw(out: &mut String, panel: &Panel, y: usize, seconds: f64, last: bool) {
    let bottom = y + PANEL;
    let height = |value: f64| bottom as f64 - value / panel.top * PANEL as f64;
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>", y - 8, panel.title);
    for mark in 0..=(panel.top / panel.step).round() as usize {
        let value = mark as f64 * panel.step;
        let at = height(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{value}{}</text>",
            WIDTH - RIGHT,
            LEFT - 8,
            at + 4.0,
            panel.unit
        );
    }
    let (step, unit, label) = time_step(seconds);
    let marks = if seconds > 0.0 { (seconds / step).floor() as usize } else { 0 };
    for mark in 0..=marks {
        let x = LEFT as f64 + if seconds > 0.0 { mark as f64 * step / seconds * COLUMNS as f64 } else { 0.0 };
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{bottom}\" stroke=\"#eee\"/>");
        if last {
            let value = mark as f64 * step / unit;
            let text = if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.1}") };
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{text} {label}</text>",
                bottom + 18
            );
        }
    }
    let steps = |value: fn(&Column) -> f64| {
        let mut path = String::new();
        for (index, column) in panel.columns.iter().enumerate() {
            let at = height(value(column));
            let _ = write!(path, "L{} {at:.1}H{}", LEFT + index, LEFT + index + 1);
        }
        path
    };
    let (mean, most) = (steps(|column| column.mean), steps(|column| column.most));
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {bottom}{mean}V{bottom}Z\" fill=\"{0}\" fill-opacity=\"0.55\"/>\n\
         <path d=\"M{LEFT} {bottom}{most}\" fill=\"none\" stroke=\"{0}\" stroke-width=\"0.8\"/>\n\
         <line x1=\"{LEFT}\" x2=\"{1}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#222\"/>",
        panel.colour,
        WIDTH - RIGHT
    );
}

/// 1, 2 or 5 times a power of ten, at least this.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// Seconds between marks, seconds of the unit that they are written in, and its sign.
fn time_step(seconds: f64) -> (f64, f64, &'static str) {
    let least = seconds / 10.0;
    let units = [(1.0, 30.0, "s"), (60.0, 30.0, "min"), (3_600.0, 12.0, "h")];
    let fits = units.into_iter().find(|(unit, most, _)| least <= unit * most);
    let (unit, _, label) = fits.unwrap_or((86_400.0, f64::INFINITY, "d"));
    let clock: &[f64] = if label == "h" { &[1.0, 2.0, 3.0, 6.0, 12.0] } else { &[1.0, 2.0, 5.0, 10.0, 15.0, 30.0] };
    let step = clock.iter().copied().find(|step| *step >= least / unit && least / unit > 0.5);
    (step.unwrap_or_else(|| nice(least / unit)) * unit, unit, label)
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escape, nice, time_step};

    #[test]
    fn marks_are_round() {
        for (least, expected) in [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (23.0, 50.0), (700.0, 1000.0)] {
            assert!((nice(least) - expected).abs() < 1e-9, "{least}: {}", nice(least));
        }
        let steps = [
            (5.0, 0.5),
            (66.0, 10.0),
            (280.0, 30.0),
            (3_600.0, 600.0),
            (20_000.0, 3_600.0),
            (90_000.0, 10_800.0),
            (1e6, 172_800.0),
        ];
        for (seconds, expected) in steps {
            let (step, ..) = time_step(seconds);
            assert!((step - expected).abs() < 1e-6, "{seconds}: {step}");
            assert!((2.0..=11.0).contains(&(seconds / step)), "{seconds}: {step}");
        }
    }

    #[test]
    fn titles_cannot_leave_their_place() {
        assert_eq!(escape("a<b>&\n\"c\""), "a&lt;b&gt;&amp; \"c\"");
    }
}
