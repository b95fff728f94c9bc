//! The configuration as a user meets it: precedence, and every fault with its line.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

fn flags(arguments: &[&str]) -> Settings {
    Command::parse_from(std::iter::once(&"flashd").chain(arguments)).settings
}

fn read(text: &str, settings: Settings) -> Result<Config, FileError> {
    let mut settings = settings;
    file::read(Path::new("flashd.toml"), text, &mut settings)?;
    Ok(Config::complete(settings).unwrap())
}

fn faults(text: &str) -> Vec<String> {
    read(text, Settings::default()).unwrap_err().faults.iter().map(|fault| format!("{}: {}", fault.line, fault.message)).collect()
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let text = "listen = \"off\"\nnode.cpus = 3\n[limits]\nbody = \"2Mi\"\n";
    let config = read(text, flags(&["--listen", "127.0.0.1:1", "--data", "/tmp/x"])).unwrap();
    assert_eq!(config.listen, Listen::Address(([127, 0, 0, 1], 1).into()));
    assert_eq!(config.node.cpus, Some(Cpu(3_000)));
    assert_eq!(config.limits.body, 2 << 20);
    assert_eq!(config.limits.batch_body, 64 << 20);
    assert_eq!(config.socket, Path::new("/tmp/x/flashd.sock"));
}

#[test]
fn every_fault_is_named_with_its_line() {
    let found = faults(
        "# comment\nlisten = \"everywhere\"\ncolour = 1\n[log]\nlevel = \"loud\"\nfromat = \"json\"\n\n[limits]\nbody = 3\nwatchers = 0\n\
         [[queues]]\nname = \"Bad Name\"\n[[queues]]\nname = \"a\"\nprioritty = 3\n[[queues]]\nname = \"a\"\n[[queues]]\nname = \"a\"\n",
    );
    let expected = [
        (2, "`everywhere` is not an address"),
        (3, "unknown key `colour`; known here: data, listen"),
        (5, "`loud` is not a log level"),
        (6, "unknown key `log.fromat`; known here: format, level"),
        (9, "invalid type: integer `3`"),
        (10, "`0` is not a whole number from 1 to 100000"),
        (12, "`Bad Name` is not 1 to 63 characters"),
        (15, "unknown field `prioritty`"),
        (18, "queue `a` is there twice"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, (line, text)) in found.iter().zip(expected) {
        assert!(found.starts_with(&format!("{line}: ")) && found.contains(text), "{found} should be line {line}: {text}");
    }
}

#[test]
fn a_value_in_the_file_is_checked_also_under_a_flag() {
    let error = read("listen = \"x\"", flags(&["--listen", "off"])).unwrap_err();
    assert_eq!(error.faults[0].line, 1);
}

#[test]
fn a_syntax_error_has_a_line() {
    let found = faults("data = \"/x\"\nlisten = \n");
    assert!(found[0].starts_with("2: "), "{found:?}");
    assert!(!faults("queues = 3").is_empty());
    assert!(faults("log = 3")[0].contains("`log` is a table"));
}

#[test]
fn what_is_printed_gives_the_same_again() {
    let text = "namespaces = [\"ml\"]\n[[queues]]\nname = \"fast\"\npriority = 7\nage = \"0s\"\n[node]\nname = \"box\"\nmemory = \"4Gi\"\n";
    let config = read(text, flags(&["--data", "/tmp/x"])).unwrap();
    let printed = config.to_toml().unwrap();
    assert_eq!(read(&printed, Settings::default()).unwrap(), config, "{printed}");
    assert_eq!(config.queues.len(), 4, "the built-in queues are there too");
}

#[test]
fn executors_of_other_versions_are_refused_by_name() {
    assert!(faults("executors = [\"local\", \"job\"]")[0].contains("`job` is not an executor of this version: it has `local`"));
}

#[test]
fn every_setting_has_a_key_and_a_variable() {
    use clap::CommandFactory as _;
    let command = Command::command();
    let names: Vec<_> = command.get_arguments().filter(|arg| arg.get_id() != "help").collect();
    let mut settings = Settings::default();
    let keys: Vec<_> = settings.slots().into_iter().map(|(key, _)| key).collect();
    for argument in &names {
        let long = argument.get_long().unwrap();
        let variable = argument.get_env().unwrap().to_str().unwrap();
        assert_eq!(variable, format!("FLASHD_{}", long.to_uppercase().replace('-', "_")));
        let key = keys.iter().any(|key| key.replace(['.', '_'], "-") == long);
        assert!(key || long == "config", "--{long} has no key");
    }
    assert_eq!(names.len(), keys.len(), "all but `config` have a key, and `queues` has no flag");
}
