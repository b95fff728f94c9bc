//! Files that are generated from the code and kept in the repository for readers: they must say what the code says.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::step::{cargo, output_of, root};

/// Where the OpenAPI document lies.
const OPENAPI: &str = "docs/openapi.json";
/// Where the definitions of the Kubernetes resources lie.
const DEFINITIONS: &str = "k8s/crds/definitions.yaml";

/// What the daemon's program prints.
fn printed(command: &str) -> Result<String> {
    output_of(cargo(["run", "--quiet", "--locked", "--package", "daemon", "--bin", "flashd", "--", command]))
}

/// First line at which two texts part, from 1, with both lines.
fn first_difference<'a>(kept: &'a str, made: &'a str) -> Option<(usize, &'a str, &'a str)> {
    let (mut kept, mut made) = (kept.lines(), made.lines());
    (1..).find_map(|number| match (kept.next(), made.next()) {
        (None, None) => Some(None),
        (old, new) if old != new => Some(Some((number, old.unwrap_or("(end of file)"), new.unwrap_or("(end of file)")))),
        _ => None,
    })?
}

fn compare(path: &Path, made: &str, fix: bool) -> Result<()> {
    let kept = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let Some((line, old, new)) = first_difference(&kept, made) else { return Ok(()) };
    if fix {
        println!("    writing {}", path.display());
        return std::fs::write(path, made).with_context(|| format!("writing {}", path.display()));
    }
    println!("    {}:{line}\n    - {old}\n    + {new}", path.display());
    bail!("{} is not what the code says; `cargo xtask lint --fix --only generated` writes it", path.display())
}

/// Compares, or writes with `fix`.
pub(crate) fn check(fix: bool) -> Result<()> {
    let made = printed("openapi")?;
    serde_json::from_str::<serde_json::Value>(&made).context("`flashd openapi` does not print JSON")?;
    let made = format!("{}\n", made.trim_end());
    // Both are looked at, also where the first is wrong.
    let openapi = compare(&root().join(OPENAPI), &made, fix);
    let definitions = format!("{}\n", printed("crds")?.trim_end());
    compare(&root().join(DEFINITIONS), &definitions, fix).and(openapi)
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, "b", "c")));
        assert_eq!(first_difference("", "a\n"), Some((1, "(end of file)", "a")));
        assert_eq!(first_difference("a\nb", "a"), Some((2, "b", "(end of file)")));
    }
}
