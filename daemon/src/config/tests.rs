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
fn labels_of_the_node_are_a_table_or_a_flag() {
    let text = "[node]\ncpus = 3\nlabels = { zone = \"a\", \"example.com/disk\" = \"ssd\" }\n";
    let config = read(text, flags(&["--data", "/tmp/x"])).unwrap();
    let labels: Vec<_> = config.node.labels.iter().collect();
    assert_eq!(labels, [("example.com/disk", "ssd"), ("zone", "a")]);
    let printed = config.to_toml().unwrap();
    assert_eq!(read(&printed, Settings::default()).unwrap(), config, "{printed}");
    let config = read(text, flags(&["--data", "/tmp/x", "--node-labels", "zone=b,rack="])).unwrap();
    assert_eq!(config.node.labels.iter().collect::<Vec<_>>(), [("rack", ""), ("zone", "b")]);
    for (text, line, said) in [
        ("[node]\nlabels = { \"a b\" = \"x\" }\n", 2, "`a b` is not a label's key"),
        ("[node]\nlabels = { a = \"x y\" }\n", 2, "`x y` is not a label's value"),
        ("[node]\nlabels = { a = 1 }\n", 2, "invalid type: integer `1`"),
        ("[node]\n[node.labels]\n\"flash-sched.io/os\" = \"x\"\n", 2, "are made by flashd"),
        ("[node]\nlabels = \"zone=a\"\n", 2, "invalid type: string"),
    ] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(&format!("{line}: ")) && found[0].contains(said), "{text}: {found:?}");
    }
    for bad in ["zone", "a b=c", "a=b,a=c"] {
        assert!(bad.parse::<NodeLabels>().is_err(), "{bad}");
    }
}

#[test]
fn executors_of_other_versions_are_refused_by_name() {
    assert!(
        faults("executors = [\"slurm\"]")[0]
            .contains("`slurm` is not an executor of this version: it has `local`, `job` and `flashjob`")
    );
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
    assert_eq!(names.len() + 3, keys.len(), "all but `config` have a key, and the four lists have no flag");
}

const EVERYTHING: &str = r#"
decision_log = "/tmp/decisions.jsonl"
decision_log_limit = "1Mi"
[scheduler]
discipline = "fifo"
[scheduler.preemption]
within_queue = true
reclaim = false

[[cohorts]]
name = "lab"
limit = { gpu = 8 }
fair_share = { half_life = "12h" }

[[cohorts]]
name = "vision"
parent = "lab"

[[queues]]
name = "a"
priority = 3
preemptible = true
age = "0s"
max_concurrent = 5
cohort = "vision"
weight = 2.5
guaranteed = { cpu = "500m", gpu = 4 }
limit = { cpu = 4, memory = "8Gi", gpu = 6 }
tenant_limits = { jobs = 2, gpu = 1 }
fair_share = { half_life = "7d", weights = { x = 1, y = 0.5 } }
short_first = { per_stay = 10, most = "1d" }

[[priority_classes]]
name = "urgent"
priority = 1000
"#;

#[test]
fn queues_cohorts_and_classes_are_read_and_printed() {
    let config = read(EVERYTHING, flags(&["--data", "/tmp/x", "--scheduler-preemption-across-queues"])).unwrap();
    let printed = config.to_toml().unwrap();
    assert_eq!(read(&printed, Settings::default()).unwrap(), config, "{printed}");
    assert_eq!(config.scheduler.discipline, Discipline::Fifo);
    assert_eq!((config.decision_log.as_deref(), config.decision_log_limit), (Some(Path::new("/tmp/decisions.jsonl")), 1 << 20));
    let rules = config.scheduler.preemption;
    assert!(rules.within_queue && !rules.reclaim && rules.across_queues);
    let spec = config.queues.iter().find(|queue| queue.name.as_str() == "a").unwrap().spec();
    let wire: api::QueueSpec = serde_json::from_str(
        r#"{"priority": 3, "preemptible": true, "agePerPoint": "0s", "maxConcurrent": 5, "cohort": "vision", "weight": 2.5,
            "guaranteed": {"cpu": "500m", "gpu": "4"}, "limit": {"cpu": "4", "memory": "8Gi", "gpu": "6"},
            "tenantLimits": {"jobs": 2, "gpu": "1"}, "fairShare": {"halfLife": "7d", "weights": {"x": 1, "y": 0.5}},
            "shortFirst": {"perStay": 10, "most": "1d"}}"#,
    )
    .unwrap();
    assert_eq!(spec, wire, "the file says what the API says");
    // Reclaim alone is on where nothing is said.
    let rules = read("", flags(&["--data", "/tmp/x"])).unwrap().scheduler.preemption;
    assert!(!rules.within_queue && rules.reclaim && !rules.across_queues);
}

#[test]
fn reservations_are_counted_under_the_conservative_discipline_alone() {
    let rules =
        |text: &str| read(&format!("data = \"/tmp/x\"\n[scheduler]\n{text}"), Settings::default()).map(|config| config.scheduler);
    let many = rules("discipline = \"conservative\"\nreservations = 3\n").unwrap();
    assert_eq!((many.discipline, many.reservations), (Discipline::Conservative, Some(3)));
    assert_eq!(rules("discipline = \"conservative\"\n").unwrap().reservations, Some(8));
    assert_eq!(rules("").unwrap().reservations, None);
    for text in ["reservations = 3\n", "discipline = \"fifo\"\nreservations = 3\n"] {
        let mut settings = Settings::default();
        file::read(Path::new("flashd.toml"), &format!("data = \"/tmp/x\"\n[scheduler]\n{text}"), &mut settings).unwrap();
        let error = Config::complete(settings).unwrap_err().to_string();
        assert!(error.starts_with("scheduler.reservations: needs scheduler.discipline = \"conservative\""), "{error}");
    }
    // What is printed is read again, and a flag may say the other half.
    let config =
        read("data = \"/tmp/x\"\n[scheduler]\nreservations = 2\n", flags(&["--scheduler-discipline", "conservative"])).unwrap();
    assert_eq!(read(&config.to_toml().unwrap(), Settings::default()).unwrap(), config);
}

#[test]
fn what_queues_and_cohorts_get_wrong_has_its_line_and_key() {
    for (text, line, said) in [
        ("[[queues]]\nname = \"a\"\nweight = 0\n", 3, "`0` is not a weight"),
        ("[[queues]]\nname = \"a\"\nweight = nan\n", 3, "`NaN` is not a weight"),
        ("[[queues]]\nname = \"a\"\nweight = -2.5\n", 3, "`-2.5` is not a weight"),
        ("[[queues]]\nname = \"a\"\n\ncohort = \"none\"\n", 4, "`cohort` of queue `a`"),
        ("[[queues]]\nname = \"a\"\nmax_concurrent = 0\n", 3, "`max_concurrent` of queue `a`: `0` would let nothing start"),
        ("[[queues]]\nname = \"a\"\nlimit = { gpu = 1 }\nguaranteed = { gpu = 2 }\n", 4, "2 GPUs guaranteed, its limit is 1"),
        ("[[queues]]\nname = \"a\"\n[queues.limit]\ncpus = 1\n", 4, "unknown field `cpus`"),
        ("[[queues]]\nname = \"a\"\nfair_share = { half_life = \"1ms\" }\n", 3, "`fair_share.half_life` of queue `a`"),
        ("[[queues]]\nname = \"a\"\ntenant_limits = { jobs = 0 }\n", 3, "`tenant_limits.jobs` of queue `a`"),
        ("[[cohorts]]\nname = \"a\"\nparent = \"a\"\n", 3, "`parent` of cohort `a`"),
        ("[[cohorts]]\nname = \"a\"\nparent = \"b\"\n[[cohorts]]\nname = \"b\"\nparent = \"a\"\n", 3, "lead back to it"),
        ("[[cohorts]]\nname = \"a\"\nparent = \"b\"\n", 3, "does not exist"),
        ("[[cohorts]]\nname = \"a\"\n[[cohorts]]\nname = \"a\"\n", 3, "cohort `a` is there twice"),
        (
            "[[cohorts]]\nname = \"a\"\nlimit = { gpu = 1 }\n[[queues]]\nname = \"q\"\ncohort = \"a\"\nguaranteed = { gpu = 2 }\n",
            3,
            "its limit is 1",
        ),
        ("[[priority_classes]]\nname = \"a\"\npriority = 1000001\n", 3, "`priority` of priority class `a`"),
        ("[scheduler]\ndiscipline = \"greedy\"\n", 2, "unknown variant `greedy`, expected one of `easy`, `fifo`, `conservative`"),
        ("[scheduler]\nreservations = 0\n", 2, "`0` is not a whole number from 1 to 64"),
        ("[scheduler]\nreservations = 65\n", 2, "`65` is not a whole number from 1 to 64"),
        ("[scheduler.preemption]\nall = true\n", 2, "known here: within_queue, reclaim, across_queues"),
        ("scheduler.preemption = true\n", 1, "`scheduler.preemption` is a table"),
        ("cohorts = 1\n", 1, "cohorts are written as [[cohorts]]"),
    ] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(&format!("{line}: ")) && found[0].contains(said), "{text}: {found:?}");
    }
}
