//! Files of jobs, and of other things: YAML or JSON, one document or many, NDJSON, a list, `{"jobs": [..]}`, or FlashJobs.
//!
//! Invariants: an error names the file, the document (from 1) and the field; a file without a job is an error, not an empty success;
//! a job that is understood here is sent as it was written, completed only by the server.

use std::io::Read as _;
use std::path::Path;

use api::JobSpec;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::flash_job;

/// Largest file that is read, in bytes. The server takes far less in one request, and says so.
const LARGEST: u64 = 256 << 20;

/// What a file holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Jobs {
    /// Its jobs, in order.
    pub(crate) jobs: Vec<JobSpec>,
    /// Which of them were written as FlashJobs, by their places.
    pub(crate) flash_jobs: Vec<usize>,
}

/// The jobs in a file; `-` is stdin.
pub(crate) fn read(path: &Path) -> Result<Jobs, Error> {
    let (name, text, kind) = open(path)?;
    parse(&name, &text, kind)
}

/// A file's name for people, and its documents; `-` is stdin.
pub(crate) fn documents(path: &Path) -> Result<(String, Vec<Value>), Error> {
    let (name, text, kind) = open(path)?;
    let documents = match kind {
        Kind::Json => json_documents(&name, &text)?,
        Kind::Yaml => yaml_documents(&name, &text)?,
    };
    Ok((name, documents))
}

fn open(path: &Path) -> Result<(String, String, Kind), Error> {
    let (name, text) = if path == Path::new("-") {
        ("stdin".to_owned(), load(std::io::stdin().lock()))
    } else {
        (path.display().to_string(), std::fs::File::open(path).and_then(load))
    };
    let text = text.map_err(|error| Error::usage(format!("{name}: {error}")))?;
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "ndjson" | "jsonl") => Kind::Json,
        Some("yaml" | "yml") => Kind::Yaml,
        // YAML begins so only in its flow style, which nobody writes by hand.
        _ if text.trim_start().starts_with(['{', '[']) => Kind::Json,
        _ => Kind::Yaml,
    };
    Ok((name, text, kind))
}

fn load(source: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(std::io::Error::other(format!("larger than {} MiB", LARGEST >> 20)));
    }
    Ok(text)
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Json,
    Yaml,
}

fn parse(name: &str, text: &str, kind: Kind) -> Result<Jobs, Error> {
    let documents = match kind {
        Kind::Json => json_documents(name, text)?,
        Kind::Yaml => yaml_documents(name, text)?,
    };
    let many = documents.len() > 1;
    let (mut jobs, mut flash_jobs) = (Vec::new(), Vec::new());
    for (at, document) in documents.into_iter().enumerate() {
        let place = if many { format!("{name}: document {}", at + 1) } else { name.to_owned() };
        match document {
            // What stands before the first and behind the last `---` of a YAML file.
            Value::Null => {}
            Value::Array(items) => specs(&place, "", items, &mut jobs)?,
            Value::Object(mut object) if object.len() == 1 && object.contains_key("jobs") => match object.remove("jobs") {
                Some(Value::Array(items)) => specs(&place, "jobs", items, &mut jobs)?,
                _ => return Err(Error::usage(format!("{place}: jobs: must be a list of jobs"))),
            },
            document if flash_job::is_one(&document) => {
                flash_jobs.push(jobs.len());
                jobs.push(flash_job::job(&place, document)?);
            }
            document => jobs.push(spec(&place, "", document)?),
        }
    }
    if jobs.is_empty() {
        return Err(Error::usage(format!("{name}: there is no job in it")));
    }
    Ok(Jobs { jobs, flash_jobs })
}

fn json_documents(name: &str, text: &str) -> Result<Vec<Value>, Error> {
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter() {
        let at = documents.len() + 1;
        documents.push(document.map_err(|error| Error::usage(format!("{name}: document {at}: {error}")))?);
    }
    Ok(documents)
}

fn yaml_documents(name: &str, text: &str) -> Result<Vec<Value>, Error> {
    serde_saphyr::from_multiple(text).map_err(|error| {
        let text = error.to_string();
        let said = text.lines().next().unwrap_or_default();
        let at = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column())).unwrap_or_default();
        // Some of its messages begin with the place already.
        let at = if said.contains("line ") { String::new() } else { at };
        Error::usage(format!("{name}: {at}{}", crate::table::clean(said)))
    })
}

fn specs(place: &str, list: &str, items: Vec<Value>, into: &mut Vec<JobSpec>) -> Result<(), Error> {
    for (at, item) in items.into_iter().enumerate() {
        into.push(spec(place, &format!("{list}[{at}]"), item)?);
    }
    Ok(())
}

/// One job; `path` is where it stands in its document.
fn spec(place: &str, path: &str, value: Value) -> Result<JobSpec, Error> {
    checked(place, path, value)
}

/// An error of usage about a field of a document.
pub(crate) fn at(place: &str, field: &str, detail: &str) -> Error {
    Error::usage(format!("{place}: {field}: {}", crate::table::clean(detail)))
}

/// A value as its type; what is wrong with it is named by its field.
pub(crate) fn checked<T: DeserializeOwned>(place: &str, path: &str, value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match (path, error.path().to_string()) {
            ("", field) if field == "." => String::new(),
            (path, field) if field == "." => format!("{path}: "),
            ("", field) => format!("{field}: "),
            (path, field) => format!("{path}.{field}: "),
        };
        Error::usage(format!("{place}: {field}{}", crate::table::clean(&error.inner().to_string())))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names(text: &str, kind: Kind) -> Vec<String> {
        parse("f", text, kind).unwrap().jobs.into_iter().map(|job| job.name.unwrap_or_default()).collect()
    }

    #[test]
    fn all_ways_to_write_jobs_are_read() {
        for text in [
            "{\"name\":\"a\"}\n{\"name\":\"b\"}\n",
            "[{\"name\":\"a\"},\n{\"name\":\"b\"}]",
            "{\"jobs\":[{\"name\":\"a\"},{\"name\":\"b\"}]}",
            "[{\"name\":\"a\"}] {\"name\":\"b\"}",
        ] {
            assert_eq!(names(text, Kind::Json), ["a", "b"], "{text}");
        }
        for text in [
            "---\nname: a\n---\nname: b\n",
            "name: a\n---\nname: b",
            "- name: a\n- name: b\n",
            "jobs:\n  - {name: a}\n  - {name: b}",
        ] {
            assert_eq!(names(text, Kind::Yaml), ["a", "b"], "{text}");
        }
    }

    #[test]
    fn a_yaml_job_is_the_job_that_json_says() {
        let yaml = "name: train\ncommand: [python, train.py]\nenv:\n  SEED: '1'\nresources:\n  cpu: 4\n  memory: 16Gi\n  gpu: 2\n\
                    startAfter: 2026-01-01T00:00:00Z\ntimeLimit: 2h\nhold: true\ntasks:\n";
        let json = r#"{"name":"train","command":["python","train.py"],"env":{"SEED":"1"},
            "resources":{"cpu":"4","memory":"16Gi","gpu":"2"},"startAfter":"2026-01-01T00:00:00Z","timeLimit":"2h","hold":true}"#;
        let yaml = yaml.replace("tasks:\n", "");
        assert_eq!(parse("f", &yaml, Kind::Yaml).unwrap(), parse("f", json, Kind::Json).unwrap());
    }

    #[test]
    fn errors_name_file_document_and_field() {
        for (text, kind, said) in [
            ("{\"name\":1}", Kind::Json, &["f: name: ", "string"][..]),
            ("{\"name\":\"a\"}\n{\"cmd\":[]}", Kind::Json, &["f: document 2: ", "cmd", "command"]),
            ("{\"name\":\"a\"}\n{\"name\"", Kind::Json, &["f: document 2: ", "line 2"]),
            ("{\"jobs\":[{},{\"resources\":{\"cpu\":\"x\"}}]}", Kind::Json, &["f: jobs[1].resources.cpu: ", "amount of CPU"]),
            ("{\"jobs\":{}}", Kind::Json, &["f: jobs: must be a list"]),
            ("name: a\n---\ntasks:\n- replicas: -1\n", Kind::Yaml, &["f: document 2: tasks[0].replicas: ", "u32"]),
            ("- timeLimit: soon\n", Kind::Yaml, &["f: [0].timeLimit: ", "a duration"]),
            ("name: [a\n", Kind::Yaml, &["f: ", "line "]),
            ("just words", Kind::Yaml, &["f: ", "JobSpec"]),
            ("", Kind::Yaml, &["f: there is no job in it"]),
            ("# only a comment\n---\n", Kind::Yaml, &["f: there is no job in it"]),
            ("[]", Kind::Json, &["f: there is no job in it"]),
        ] {
            let error = parse("f", text, kind).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            for said in said {
                assert!(error.to_string().contains(said), "{text:?}: `{error}` does not say `{said}`");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/jobs.yaml")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("/nowhere/jobs.yaml: "), "{error}");
    }
}
