//! `flash top` on the real daemon: one page for scripts, and the live view on a real terminal, which gets back what it had.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use common::flash::{command, flash, told};
use common::{Daemon, shell};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

const CONFIG: &str = "listen = \"off\"\n[node]\nname = \"box\"\ncpus = 8\nmemory = \"1Gi\"\n\
                      [[gpu.static]]\nuuid = \"amd-0\"\nmodel = \"MI300X\"\nmemory = \"192Gi\"\n";

/// A daemon on which a job with a GPU runs and another one waits for it.
async fn busy(folder: &tempfile::TempDir) -> (Daemon, String) {
    let daemon = Daemon::start(&folder.path().join("data"), CONFIG);
    let gate = folder.path().join("gate");
    let mut job = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    job["name"] = json!("train");
    job["resources"] = json!({"gpu": 1, "cpu": "2"});
    let running = daemon.submit(job.clone()).await;
    daemon.until(&running, "running").await;
    daemon.submit(job).await;
    let number = daemon.job(&running).await["number"].to_string();
    (daemon, number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_page_says_what_runs_where() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, number) = busy(&folder).await;
    for args in [&["top", "--once"][..], &["top"]] {
        let page = told(&daemon, args);
        assert!(!page.contains('\x1b'), "it is no terminal: {page}");
        assert!(page.lines().next().unwrap().contains("1 running, 1 queued, 0 waiting"), "{page}");
        assert!(page.lines().any(|line| line.starts_with("box   ###.......  25%") && line.contains("1/1")), "{page}");
        assert!(page.lines().any(|line| line.contains(&format!("#{number}")) && line.ends_with("box MI300X")), "{page}");
        assert!(page.lines().any(|line| line.starts_with(&number) && line.ends_with("train")), "{page}");
        assert!(page.contains("default-batch  1       1        0"), "{page}");
    }
    let refused = flash(&daemon, &["top", "--interval", "1ms"]);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("100ms to 1h"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_view_gives_the_terminal_back() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, _) = busy(&folder).await;
    let main: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap();
    let side = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcsetwinsize(&side, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let end = || Stdio::from(side.try_clone().unwrap());
    let mut child =
        command(&daemon, &["top", "--interval", "100ms"]).env("NO_COLOR", "1").stdin(end()).stdout(end()).spawn().unwrap();
    let mut terminal = File::from(main);
    let mut screen = Vec::new();
    let mut pages = 0;
    // Two pages: it goes on by itself.
    while pages < 2 {
        let mut bytes = [0; 4_096];
        let length = terminal.read(&mut bytes).unwrap();
        screen.extend_from_slice(&bytes[..length]);
        pages = String::from_utf8_lossy(&screen).matches("flash top").count();
    }
    assert!(!tcgetattr(&side).unwrap().local_modes.contains(LocalModes::ECHO));
    terminal.write_all(b"q").unwrap();
    // Its output has to be taken, else it waits for room.
    let rest = std::thread::spawn(move || {
        let mut rest = Vec::new();
        let mut bytes = [0; 4_096];
        while let Ok(length @ 1..) = terminal.read(&mut bytes) {
            rest.extend_from_slice(&bytes[..length]);
            if rest.windows(8).any(|part| part == b"\x1b[?1049l") {
                break;
            }
        }
        (rest, terminal)
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (rest, _terminal) = rest.join().unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("\x1b[?25h\x1b[?1049l"), "the cursor and the first page are back");
    assert!(tcgetattr(&side).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON));
    let text = String::from_utf8(screen).unwrap();
    assert!(text.starts_with("\x1b[?1049h\x1b[?25l\x1b[H") && !text.contains("\x1b[1m"), "no colour is asked for: {text:?}");
    assert!(text.contains("every 100ms, q ends") && text.contains("MI300X"), "{text:?}");
}
