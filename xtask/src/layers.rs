//! The layers: which crate may know which, and what the core may be made of.
//!
//! What must hold: `scheduler-core` builds on an allow-list of small pure crates and touches no clock, IO, thread or environment;
//! `store` and `executors` know the core alone; `api` knows nobody; nobody knows `daemon`. A new crate has to be given its place
//! here before it builds in the continuous integration.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::length;
use crate::step::{cargo, output_of, root};

/// Every crate of the workspace with those that it may depend on, in any way. `daemon` is on no list.
const LAYERS: [(&str, &[&str]); 14] = [
    ("scheduler-core", &[]),
    ("store", &["scheduler-core", "postgres-server"]),
    ("executors", &["scheduler-core", "k8s-types", "nvml-stand-in", "control-plane"]),
    // Tests alone load it, through the same door as NVIDIA's library; it knows nobody.
    ("nvml-stand-in", &[]),
    ("api", &[]),
    (
        "daemon",
        &["scheduler-core", "store", "executors", "api", "k8s-types", "nvml-stand-in", "control-plane", "postgres-server"],
    ),
    ("simulator", &["scheduler-core"]),
    ("cli", &["api", "simulator"]),
    ("benches", &["scheduler-core", "api", "store", "simulator", "control-plane"]),
    ("hotpaths", &["scheduler-core"]),
    ("xtask", &[]),
    ("control-plane", &[]),
    ("postgres-server", &[]),
    ("k8s-types", &["control-plane"]),
];

/// The test cluster and the database for tests: no product is built from them.
const TESTS_ONLY: [&str; 2] = ["control-plane", "postgres-server"];

/// All that `scheduler-core` may be built from, dependencies of dependencies included. Growing this list is a decision.
const CORE_ALLOWED: [&str; 19] = [
    "allocator-api2",
    "equivalent",
    "foldhash",
    "hashbrown",
    "indexmap",
    "priority-queue",
    "proc-macro2",
    "quote",
    "scheduler-core",
    "serde",
    "serde_core",
    "serde_derive",
    "smallvec",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
    "uuid",
    "xxhash-rust",
];

/// Ways out of purity, as they are written. Looked for in the core's code, tests and comments left out.
const CORE_FORBIDDEN: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime",
    "Uuid::new_v4",
    "Uuid::now_v7",
];

/// Edges inside the workspace that the table does not allow. `metadata` is what `cargo metadata --no-deps` prints.
fn forbidden_edges(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no `packages`")?;
    let members: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            faults.push(format!("crate `{name}` has no place in the table of xtask/src/layers.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if TESTS_ONLY.contains(&on) && dependency["kind"] != "dev" {
                faults.push(format!("`{name}` depends on `{on}`, which is for tests: make it a dev-dependency"));
            }
            if members.contains(on) && on != name && !allowed.contains(&on) {
                faults.push(format!("`{name}` depends on `{on}`; it may depend on: {}", list(allowed)));
            }
        }
    }
    Ok(faults)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "no crate of the workspace".to_owned() } else { names.join(", ") }
}

/// Crates in the output of `cargo tree` that the core may not be built from.
fn strangers(tree: &str) -> BTreeSet<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| !CORE_ALLOWED.contains(name)).collect()
}

/// Lines of the core that reach for the outside.
fn impurities(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in length::code_lines(text) {
        let code = line.split("//").next().unwrap_or_default();
        if let Some(word) = CORE_FORBIDDEN.iter().find(|word| code.contains(**word)) {
            faults.push(format!("{}:{number}: the core may not use `{word}`", path.display()));
        }
    }
    faults
}

/// Runs all three checks and lists everything that they found.
pub(crate) fn check() -> Result<()> {
    let metadata = output_of(cargo(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata = serde_json::from_str(&metadata).context("reading cargo metadata")?;
    let mut faults = forbidden_edges(&metadata)?;

    let tree = output_of(cargo([
        "tree",
        "--package",
        "scheduler-core",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--locked",
    ]))?;
    faults.extend(strangers(&tree).iter().map(|name| format!("scheduler-core is built from `{name}`, which is not allowed")));

    for path in length::rust_files(&root().join("scheduler-core/src"))? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        faults.extend(impurities(path.strip_prefix(root()).unwrap_or(&path), &text));
    }
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        println!("    {fault}");
    }
    bail!("{} breaches of the layers", faults.len())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::{forbidden_edges, impurities, strangers};

    fn package(name: &str, on: &[&str]) -> serde_json::Value {
        let dependencies: Vec<_> = on.iter().map(|name| json!({"name": name, "kind": null})).collect();
        json!({"name": name, "dependencies": dependencies})
    }

    #[test]
    fn allowed_edges_pass_and_forbidden_ones_are_named() {
        let good = json!({"packages": [package("scheduler-core", &["serde"]), package("store", &["scheduler-core", "tokio"]),
            package("daemon", &["store", "scheduler-core"])]});
        assert_eq!(forbidden_edges(&good).unwrap(), Vec::<String>::new());

        let bad = json!({"packages": [package("api", &["scheduler-core"]), package("scheduler-core", &[]),
            package("cli", &["daemon"]), package("daemon", &[]), package("extra", &[])]});
        let faults = forbidden_edges(&bad).unwrap();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("`api` depends on `scheduler-core`"), "{faults:?}");
        assert!(faults[1].starts_with("`cli` depends on `daemon`"), "{faults:?}");
        assert!(faults[2].contains("`extra`"), "{faults:?}");
    }

    #[test]
    fn a_runtime_in_the_core_is_seen() {
        let tree = "scheduler-core v0.1.0 (/src)\nserde v1.0.0 (*)\ntokio v1.54.1\n";
        assert_eq!(strangers(tree).into_iter().collect::<Vec<_>>(), ["tokio"]);
    }

    #[test]
    fn a_clock_in_the_core_is_seen_but_not_in_comments_or_tests() {
        let text = "// no std::fs here\nfn f() { std::time::Instant::now(); }\n#[cfg(test)]\nmod tests {\n    use std::env;\n}\n";
        let faults = impurities(Path::new("x.rs"), text);
        assert_eq!(faults, ["x.rs:2: the core may not use `Instant::now`"]);
    }
}
