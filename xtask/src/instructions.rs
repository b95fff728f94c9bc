//! `cargo xtask instructions`: what the core's hot paths cost in instructions, compared with a kept file.
//!
//! Times are noise on a shared machine; the number of instructions that a fixed workload takes is not. It is counted by callgrind, one
//! run a path, switched on in the path's function alone. The counts are those of one compiler: with another they are shown, and
//! nothing is held against them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::step::{cargo, in_path, output_of, output_until, program, root, run, step, target_dir};

/// Where the counts are kept.
const KEPT: &str = "benches/instructions.json";
/// Growth that is let pass, in percent, unless the file says otherwise.
const TOLERANCE: f64 = 3.0;
/// Longest that one run may take.
const LIMIT: Duration = Duration::from_mins(3);

/// The paths, and what their counts are divided by.
const PATHS: [(&str, &str); 6] = [
    ("submit", "a job"),
    ("decision", "a job placed, up to 192 kinds"),
    ("uniform", "a job placed, one kind"),
    ("start", "a job"),
    ("end", "a job"),
    ("blocked", "a pass behind a gang that waits"),
];

/// What counts of one machine can be compared with: the compiler, and what it compiles for.
fn compiler() -> Result<String> {
    let mut rustc = program(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg("-vV");
    let text = output_of(rustc)?;
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("unknown").trim().to_owned();
    Ok(format!("rustc {}, {}", line("release:"), line("host:")))
}

/// How often the workload takes each path.
fn operations(hotpaths: &Path) -> Result<BTreeMap<String, f64>> {
    let text = output_until(program(hotpaths), LIMIT)?;
    text.lines()
        .map(|line| {
            let (path, count) = line.split_once(' ').with_context(|| format!("`{line}` is not a path and a count"))?;
            Ok((path.to_owned(), count.parse().with_context(|| format!("`{line}` is not a path and a count"))?))
        })
        .collect()
}

/// The sum over a profile of callgrind.
fn total(profile: &str) -> Result<f64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.context("a profile of callgrind without totals")
}

/// Instructions inside one path's function.
fn count(hotpaths: &Path, path: &str, folder: &Path) -> Result<f64> {
    let out = folder.join(format!("{path}.callgrind"));
    let mut valgrind = program("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect=*measured_{path}*"));
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(hotpaths);
    output_until(valgrind, LIMIT)?;
    let profile = std::fs::read_to_string(&out).with_context(|| format!("reading {}", out.display()))?;
    total(&profile).with_context(|| out.display().to_string())
}

/// Instructions of each path, by what its counts are divided by.
fn measure() -> Result<BTreeMap<String, f64>> {
    let hotpaths = target_dir().join("release/hotpaths");
    let folder = target_dir().join("instructions");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let operations = operations(&hotpaths)?;
    let mut counts = BTreeMap::new();
    for (path, _) in PATHS {
        let times = operations.get(path).copied().filter(|times| *times > 0.0);
        let times = times.with_context(|| format!("the workload does not take the path `{path}`"))?;
        let instructions = count(&hotpaths, path, &folder)?;
        if instructions < times {
            bail!("{instructions} instructions in {times} times `{path}`: its function was not found");
        }
        counts.insert(path.to_owned(), (instructions / times).round());
    }
    Ok(counts)
}

/// What is kept, if anything is.
fn kept() -> Result<Value> {
    let path = root().join(KEPT);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Prints the comparison; those that grew beyond the tolerance.
fn compare(counts: &BTreeMap<String, f64>, kept: &Value) -> Vec<String> {
    let tolerance = kept["tolerance_percent"].as_f64().unwrap_or(TOLERANCE);
    let mut grown = Vec::new();
    println!("    {:<10} {:>12} {:>12} {:>9}", "path", "kept", "now", "change");
    for (path, unit) in PATHS {
        let (now, before) = (counts.get(path).copied().unwrap_or_default(), kept["instructions"][path].as_f64());
        let Some(before) = before.filter(|before| *before > 0.0) else {
            println!("    {path:<10} {:>12} {now:>12} {:>9}  {unit}", "-", "");
            grown.push(format!("{path}: not kept yet"));
            continue;
        };
        let change = (now / before - 1.0) * 100.0;
        println!("    {path:<10} {before:>12} {now:>12} {change:>+8.1}%  {unit}");
        if change > tolerance {
            grown.push(format!("{path}: {before} to {now} instructions {unit}, {change:+.1} %, {tolerance} % is let pass"));
        } else if change < -tolerance {
            println!("    {path} has become cheaper; `cargo xtask instructions --update` keeps that");
        }
    }
    grown
}

fn write(counts: &BTreeMap<String, f64>, compiler: &str, kept: &Value) -> Result<()> {
    let tolerance = kept["tolerance_percent"].as_f64().unwrap_or(TOLERANCE);
    let instructions: BTreeMap<&String, u64> = counts.iter().map(|(path, count)| (path, *count as u64)).collect();
    let file = json!({"compiler": compiler, "tolerance_percent": tolerance, "instructions": instructions});
    let text = serde_json::to_string_pretty(&file).context("writing the counts")?;
    let path = root().join(KEPT);
    std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    println!("    wrote {KEPT}");
    Ok(())
}

/// `cargo xtask instructions [--update]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let update = match args {
        [] => false,
        [only] if only == "--update" => true,
        _ => bail!("instructions takes `--update` or nothing, not `{}`", args.join(" ")),
    };
    if !in_path("valgrind") {
        println!("==> instructions: SKIPPED, valgrind is not there (apt-get install -y --no-install-recommends valgrind)");
        return Ok(());
    }
    step("the workload, compiled", || run(cargo(["build", "--release", "--locked", "-p", "hotpaths"])))?;
    step("instructions of the core's hot paths", || {
        let (compiler, counts, kept) = (compiler()?, measure()?, kept()?);
        let grown = compare(&counts, &kept);
        if update {
            return write(&counts, &compiler, &kept);
        }
        if grown.is_empty() {
            return Ok(());
        }
        let of = kept["compiler"].as_str().unwrap_or("no compiler");
        if of != compiler && !kept.is_null() {
            println!("    kept are the counts of {of}, this is {compiler}: nothing is held against these");
            return Ok(());
        }
        bail!("{}; if it is meant to be: cargo xtask instructions --update", grown.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{PATHS, compare, total};

    #[test]
    fn totals_are_read() {
        assert_eq!(total("version: 1\nsummary: 12\n\ntotals: 345 \n").ok(), Some(12.0));
        assert!(total("version: 1\n").is_err());
    }

    #[test]
    fn growth_beyond_the_tolerance_is_found_and_less_is_not() {
        let counts =
            |factor: f64| PATHS.map(|(path, _)| (path.to_owned(), 1_000.0 * factor)).into_iter().collect::<BTreeMap<_, _>>();
        let kept = json!({"tolerance_percent": 3.0, "instructions": counts(1.0)});
        assert!(compare(&counts(1.02), &kept).is_empty() && compare(&counts(0.5), &kept).is_empty());
        assert_eq!(compare(&counts(1.04), &kept).len(), PATHS.len());
        assert_eq!(compare(&counts(1.0), &json!(null)).len(), PATHS.len(), "what is not kept is said");
    }
}
