//! Curves of scale: the same figures at sizes that grow tenfold and more. A line that stays level is what is wanted; one that bends is
//! explained in the README of this crate, or mended.

mod nodes;
mod queued;
mod running;
mod watchers;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::plot::{Axis, Line, Panel, short, svg};
use crate::server::{Server, ServerOptions, Transport};
use crate::stats::Latencies;

/// Which, and how far.
#[derive(Args, Clone)]
pub(crate) struct CurveOptions {
    /// queued, running, watchers, nodes. Default: all of them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A tenth of the sizes: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Folder for `curve-NAME.svg` and `curves.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerOptions,
}

const NAMES: [&str; 4] = ["queued", "running", "watchers", "nodes"];

/// Figures at one size.
struct Point {
    size: f64,
    figures: Vec<(&'static str, f64)>,
}

impl Point {
    fn new<const N: usize>(size: f64, figures: [(&'static str, f64); N]) -> Self {
        eprintln!("  {}: {}", short(size), figures.map(|(name, value)| format!("{name} {}", short(value))).join(", "));
        Self { size, figures: figures.to_vec() }
    }
}

/// Figures over sizes.
struct Curve {
    name: &'static str,
    title: &'static str,
    points: Vec<Point>,
}

/// The median of `count` calls, in ms.
fn timed_calls(server: &Server, count: u32, path: &str) -> Result<f64> {
    let mut latencies = Latencies::new()?;
    for _ in 0..count {
        let begun = std::time::Instant::now();
        server.client.call(Method::GET, path, b"")?;
        latencies.add(begun.elapsed());
    }
    Ok(latencies.summary()["p50"].as_f64().unwrap_or_default())
}

impl Curve {
    fn columns(&self) -> Vec<&'static str> {
        self.points.first().map(|point| point.figures.iter().map(|(name, _)| *name).collect()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        let point = |point: &Point| {
            let mut object: Map<String, Value> =
                point.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            object.insert("size".into(), json!(point.size));
            Value::Object(object)
        };
        json!({"name": self.name, "title": self.title, "points": self.points.iter().map(point).collect::<Vec<_>>()})
    }

    fn table(&self) -> String {
        let columns = self.columns();
        let mut text = format!("| {} | {} |\n|{}\n", self.title, columns.join(" | "), "---:|".repeat(columns.len() + 1));
        for point in &self.points {
            let values: Vec<String> = point.figures.iter().map(|(_, value)| short(*value)).collect();
            // Writing into a string cannot fail.
            let _ = writeln!(text, "| {} | {} |", short(point.size), values.join(" | "));
        }
        text
    }

    /// A panel for each unit, which is the end of a figure's name.
    fn chart(&self) -> String {
        let units = [
            ("_per_s", "a second"),
            ("_ms", "ms"),
            ("_mib", "MiB"),
            ("_percent", "% of a processor while nothing happens"),
            ("_fds", "descriptors"),
        ];
        let panels = units.iter().filter_map(|(end, unit)| {
            let lines = self.columns().into_iter().filter_map(|name| Some((name, name.strip_suffix(end)?)));
            let lines: Vec<Line> = lines
                .map(|(name, word)| {
                    let value = |point: &Point| {
                        point.figures.iter().find(|(other, _)| *other == name).map(|(_, value)| (point.size, *value))
                    };
                    Line { name: word.replace('_', " "), points: self.points.iter().filter_map(value).collect() }
                })
                .collect();
            (!lines.is_empty()).then(|| Panel { title: (*unit).to_owned(), lines, log_y: *end != "_percent" })
        });
        svg(
            &format!("{}: a level line is what is wanted", self.title),
            &Axis { title: self.title, log: true, marks: &[] },
            &panels.collect::<Vec<_>>(),
        )
    }
}

/// Measures them one after the other.
pub(crate) fn run(options: &CurveOptions) -> Result<Value> {
    if let Some(wrong) = options.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no curve `{wrong}`: {}", NAMES.join(", "));
    }
    let mut server = options.server.clone();
    server.transport = Transport::Unix;
    let share = if options.quick { 10 } else { 1 };
    let mut curves = Vec::new();
    for name in NAMES.into_iter().filter(|name| options.only.is_empty() || options.only.iter().any(|only| only == name)) {
        eprintln!("{name}");
        let curve = match name {
            "queued" => queued::measure(&server, 1_000_000 / share),
            "running" => running::measure(&server, 10_000 / share),
            "watchers" => watchers::measure(&server, 1_000 / share),
            _ => nodes::measure(4_000 / share),
        };
        curves.push(curve.with_context(|| format!("the curve of {name}"))?);
    }
    let errors: f64 = curves
        .iter()
        .flat_map(|curve| &curve.points)
        .flat_map(|point| &point.figures)
        .filter(|(name, _)| *name == "errors")
        .map(|(_, count)| count)
        .sum();
    let result = json!({"mode": "curves", "errors": errors as u64, "curves": curves.iter().map(Curve::json).collect::<Vec<_>>()});
    for curve in &curves {
        eprintln!("\n{}", curve.table());
    }
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
        let write = |name: String, text: &str| std::fs::write(out.join(&name), text).with_context(|| format!("writing {name}"));
        for curve in &curves {
            write(format!("curve-{}.svg", curve.name), &curve.chart())?;
        }
        write("curves.json".into(), &serde_json::to_string_pretty(&result).context("writing the curves")?)?;
    }
    Ok(result)
}
