//! The real binary, as far as it needs no daemon: usage, help, completion, and servers that do not answer.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `flash`, without anything of the tester's own surroundings.
fn flash(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flash"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// All commands, and the commands of commands, as the help lists them.
fn commands(path: &[String]) -> Vec<Vec<String>> {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let (code, help, _) = output(&mut flash(&args));
    assert_eq!(code, Some(0), "{path:?}");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    let mut all = Vec::new();
    for name in names {
        let deeper: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
        all.extend(commands(&deeper));
        all.push(deeper);
    }
    all
}

#[test]
fn the_help_of_every_command_has_an_example_of_it() {
    let commands = commands(&[]);
    assert!(commands.len() >= 19, "{commands:?}");
    for path in commands {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        let line = format!("flash {}", args.join(" "));
        args.push("--help");
        let (_, help, _) = output(&mut flash(&args));
        let examples = help.split("Examples:").nth(1).unwrap_or_else(|| panic!("{line}: no examples"));
        assert!(examples.contains(&line), "{line}: not in its examples");
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_bad_usage() {
    for args in [
        &[][..],
        &["nonsense"],
        &["submit"],
        &["submit", "--cpus", "many", "--", "true"],
        &["submit", "-f", "/nowhere.yaml"],
        &["submit", "-f", "x.yaml", "--", "true"],
        &["submit", "--env", "NOT_SET_HERE", "--", "true"],
        &["run"],
        &["show", "train"],
        &["cancel"],
        &["cancel", "0199c0de", "--all-mine"],
        &["ls", "-s", "asleep"],
        &["ls", "-o", "xml"],
        &["events"],
        &["token"],
        &["completion", "cmd"],
        &["--server", "localhost:7700", "info"],
        &["--server", "http://u:p@localhost", "info"],
    ] {
        let (code, stdout, stderr) = output(&mut flash(args));
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert_eq!(stdout, "", "{args:?}");
        assert_ne!(stderr, "", "{args:?}");
    }
}

#[test]
fn a_wrong_file_is_named_with_document_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.yaml");
    std::fs::write(&path, "command: [a]\n---\ncommand: [b]\nresources: {cpu: lots}\n").unwrap();
    let (code, _, stderr) = output(&mut flash(&["submit", "-f", path.to_str().unwrap()]));
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with(&format!("error: {}: document 2: resources.cpu: ", path.display())), "{stderr}");
}

/// Says what nobody answering looks like: exit code 5, the place that was tried, and how to start a server.
fn assert_no_server(command: &mut Command, tried: &str) {
    let (code, stdout, stderr) = output(command);
    assert_eq!(code, Some(5), "{stderr}");
    assert_eq!(stdout, "");
    assert!(stderr.contains(tried), "{stderr}");
    assert!(stderr.contains("flashd serve"), "{stderr}");
}

#[test]
fn no_socket_says_how_to_start_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let socket = format!("{data}/flashd.sock");
    for args in [
        &["ls"][..],
        &["submit", "--", "true"],
        &["run", "true"],
        &["wait", "0199c0de"],
        &["events", "-f"],
        &["logs", "-f", "0199c0de"],
    ] {
        assert_no_server(flash(args).env("FLASH_DATA", data), &socket);
        assert_no_server(flash(args).env("FLASH_SERVER", format!("unix://{socket}")), &socket);
    }
    // Without any of these, both places where a daemon may have put it are named.
    let (code, _, stderr) = output(flash(&["ls"]).env("HOME", data));
    assert_eq!(code, Some(5));
    assert!(stderr.contains(&format!("{data}/.local/share/flash-sched/flashd.sock")), "{stderr}");
    assert!(stderr.contains("/var/lib/flash-sched/flashd.sock"), "{stderr}");
}

#[test]
fn a_socket_that_nobody_listens_on_is_no_server() {
    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(folder.path().join("flashd.sock")).unwrap());
    assert_no_server(flash(&["ls"]).env("FLASH_DATA", folder.path()), "nobody listens");
}

#[test]
fn a_closed_port_is_no_server() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        assert_no_server(&mut flash(&["--server", &url, "info"]), &url);
    }
}

#[test]
fn a_server_that_hangs_up_or_speaks_something_else_is_no_answer() {
    for answer in [&b""[..], b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let (code, stdout, stderr) = output(flash(&["--server", &url, "info"]).env("FLASH_TOKEN", "secret"));
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /api/v1/info HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer secret\r\n"), "{request}");
        assert_eq!(code, Some(5), "{stderr}");
        assert_eq!(stdout, "");
        assert!(!stderr.contains("secret"), "{stderr}");
    }
}

#[test]
fn completion_is_made_for_every_shell_and_needs_no_server() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, stderr) = output(flash(&["completion", shell]).env("FLASH_SERVER", "nonsense"));
        assert_eq!(code, Some(0), "{shell}: {stderr}");
        for word in ["submit", "requeue", "idempotency-key"] {
            assert!(stdout.contains(word), "{shell}: {word}");
        }
    }
    if Path::new("/bin/bash").exists() {
        let (_, script, _) = output(&mut flash(&["completion", "bash"]));
        let status = Command::new("/bin/bash").args(["-n", "-c", &script]).status().unwrap();
        assert!(status.success(), "bash does not take its script");
    }
}

#[test]
fn a_closed_stdout_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = flash(&["completion", "bash"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
