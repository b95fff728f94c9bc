//! Length of source files, tests left out: a file that does not fit into a head is split before it becomes a hub.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::root;

/// Lines of code from which on a file is reported.
const WARN: usize = 400;
/// Lines of code from which on the check fails.
const FAIL: usize = 600;

/// All `.rs` files below a folder, in a stable order; none if there is no such folder.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
        };
        for entry in entries {
            let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The lines outside `#[cfg(test)] mod .. { }`, with their numbers from 1. rustfmt closes such a module with a brace in the first
/// column, which is what ends it here.
pub(crate) fn code_lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut pending = Vec::new();
    let mut in_tests = false;
    for (index, line) in text.lines().enumerate() {
        if in_tests {
            in_tests = line != "}";
        } else if line == "#[cfg(test)]" || (!pending.is_empty() && line.starts_with("#[")) {
            pending.push((index + 1, line));
        } else if !pending.is_empty() && line.starts_with("mod ") {
            pending.clear();
            in_tests = line.ends_with('{');
        } else {
            lines.append(&mut pending);
            lines.push((index + 1, line));
        }
    }
    lines.append(&mut pending);
    lines
}

/// Reports long files of all crates; integration tests are not counted.
pub(crate) fn check() -> Result<()> {
    let mut lengths = Vec::new();
    for entry in std::fs::read_dir(root()).context("reading the workspace's folder")? {
        let source = entry.context("reading the workspace's folder")?.path().join("src");
        for path in rust_files(&source)? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let length = code_lines(&text).len();
            if length > WARN {
                lengths.push((length, path));
            }
        }
    }
    lengths.sort();
    for (length, path) in &lengths {
        let word = if *length > FAIL { "FAILED" } else { "warning" };
        println!("    {word}: {} has {length} lines of code", path.strip_prefix(root()).unwrap_or(path).display());
    }
    let too_long = lengths.iter().filter(|(length, _)| *length > FAIL).count();
    if too_long > 0 {
        bail!("{too_long} files have more than {FAIL} lines of code");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::code_lines;

    #[test]
    fn test_modules_are_not_code() {
        let text =
            "a\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod more;\n#[cfg(test)]\nfn helper() {}\n";
        let lines: Vec<usize> = code_lines(text).iter().map(|(number, _)| *number).collect();
        assert_eq!(lines, [1, 7, 10, 11]);
    }
}
