//! `flash why` on many causes, each made to happen with the real `flashd` and real jobs. The answers are kept in `docs/why.md`, which this
//! test writes when FLASH_WRITE_DOCS is set, and otherwise compares, times apart, with what is said today.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Daemon, PATIENCE};

/// NVML with four GPUs.
const STAND_IN: &str = r#"
#include <stdio.h>
#include <string.h>
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 4; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(unsigned long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { snprintf(text, size, "GPU-%lu", (unsigned long)device); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { (void)device; strncpy(text, "Stand-in 80GB", size); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory *out) {
    (void)device; out->total = 80ULL << 30; out->free = out->total; out->used = 0; return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *out) {
    (void)device; out->total = 80ULL << 30; out->reserved = 0; out->free = out->total; out->used = 0; return 0;
}
"#;

fn stand_in(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("nvml.c"), folder.join("libstandin.so"));
    std::fs::write(&source, STAND_IN).unwrap();
    // The compiler driver that Rust links with.
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(status.success());
    library
}

/// A daemon, and what was said so far.
struct Scene {
    daemon: Daemon,
    transcript: String,
}

impl Scene {
    fn flash(&self, args: &[&str]) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_flashd")).with_file_name("flash");
        assert!(program.is_file(), "{} is not there: build the whole workspace first", program.display());
        let server = format!("unix://{}", self.daemon.socket().display());
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("TZ", "UTC").env("FLASH_SERVER", server);
        let output = command.current_dir("/tmp").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Submits, and writes that down.
    fn submit(&mut self, args: &str) -> String {
        writeln!(self.transcript, "$ flash submit {args}").unwrap();
        // What stands between quotes is one word.
        let parts = args.split('\'').enumerate();
        let words = parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
        let words: Vec<&str> = ["submit"].into_iter().chain(words).collect();
        self.flash(&words).trim().to_owned()
    }

    fn chapter(&mut self, title: &str, text: &str) {
        let text = if text.is_empty() { String::new() } else { format!("{text}\n\n") };
        write!(self.transcript, "\n### {title}\n\n{text}```\n").unwrap();
    }

    /// Asks why, writes the answer down, and looks for what it has to say.
    async fn why(&mut self, id: &str, says: &[&str]) {
        let number = self.daemon.job(id).await["number"].as_u64().unwrap();
        let answer = self.flash(&["why", &number.to_string()]);
        write!(self.transcript, "$ flash why {number}\n{answer}```\n").unwrap();
        for said in says {
            assert!(answer.contains(said), "{said:?} is not in:\n{answer}");
        }
    }

    fn cancel(&self, ids: &[&str]) {
        self.flash(&[&["cancel", "-y"], ids].concat());
    }
}

const CONFIG: &str = "listen = \"off\"\n[node]\nname = \"box\"\ncpus = 8\nmemory = \"16Gi\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flash_why_answers_like_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut daemon = Daemon::prepare(&data, CONFIG);
    daemon.extra = vec!["--gpu-nvml-library".to_owned(), stand_in(folder.path()).to_str().unwrap().to_owned()];
    daemon.restart();
    let mut scene = Scene { daemon, transcript: String::new() };
    waiting_for_room(&mut scene).await;
    waiting_for_other_things(&mut scene).await;
    ended(&mut scene).await;
    lost(&mut scene, &data).await;
    never(&mut scene).await;
    keep(&scene.transcript);
}

async fn waiting_for_room(scene: &mut Scene) {
    scene.chapter("It runs", "Since when, where, with what, and how long it may.");
    let train = scene.submit("-g 3 -c 4 -t 1h -- sleep 100000");
    scene.daemon.until(&train, "running").await;
    scene
        .why(
            &train,
            &["is running. It has been running since", "on node box with GPU-1, GPU-2, GPU-3", "Its time limit ends it at"],
        )
        .await;

    scene.chapter("Too few GPUs are free", "What is lacking, when that changes at the latest, and what would start now.");
    let large = scene.submit("-g 4 -c 4 -t 30m -- ./train-large");
    let said = [
        "it needs 4 GPUs, and 1 of 4 is free",
        "it is the only one",
        "(in 1h) at the latest",
        "With `--gpus 1` it would start at once on node box.",
    ];
    scene.why(&large, &said).await;

    let typed: serde_json::Value = serde_json::from_str(&scene.flash(&["why", "2", "-o", "json"])).unwrap();
    assert_eq!((&typed["reason"], &typed["number"], &typed["position"]), (&"resources".into(), &2.into(), &1.into()));
    assert_eq!(typed["suggestions"][0]["option"], "--gpus 1", "{typed}");
    assert!(scene.flash(&["why", "2", "-o", "yaml"]).lines().any(|line| line == "reason: resources"));

    scene.chapter(
        "It would fit, and would delay another one",
        "Room is kept for the job before. This one would hold a GPU for too long; with a shorter time limit it could go ahead.",
    );
    let small = scene.submit("-g 1 -t 2h -- ./evaluate");
    let said = [
        "It would fit now, but could delay job #2 of namespace \"default\" (it came first)",
        "2h30s, which is too long",
        "With `--time-limit 5",
    ];
    scene.why(&small, &said).await;

    scene.chapter("Others are ahead of it", "Who, and by what rule; and what it would lack besides.");
    let humble = scene.submit("-g 2 -p -10 -t 10m -- ./sweep");
    let said = [
        "Job #2 of namespace \"default\" (higher priority: 100 against 90) waits for room",
        "number 3 of 3, behind #2 of \"default\" (higher priority: 100 against 90), #3",
    ];
    scene.why(&humble, &said).await;
    // From the last, so that nobody gets room meanwhile.
    scene.cancel(&[&humble, &small, &large]);

    scene.chapter("Nobody knows when", "It waits for a run that has no time limit.");
    let endless = scene.submit("-c 3 -- sleep 100000");
    scene.daemon.until(&endless, "running").await;
    let wide = scene.submit("-c 6 -- ./simulate");
    scene
        .why(&wide, &["it needs 6 CPUs, and 1 of 8 is free", "it waits for job #5, which has no time limit", "With `--cpus 1`"])
        .await;
    scene.cancel(&[&wide]);

    scene.chapter("Tasks that start together", "A gang starts whole or not at all.");
    let gang = scene.submit("--replicas 4 -c 1 -- ./worker");
    scene.why(&gang, &["4 tasks \"task\" have to start together, and there is room for 1", "With `--replicas 1`"]).await;
    scene.cancel(&[&gang]);
}

async fn waiting_for_other_things(scene: &mut Scene) {
    scene.chapter("Somebody holds it", "");
    let held = scene.submit("--hold -- ./later");
    scene.why(&held, &["is waiting. It is held: it waits until somebody releases it (`flash release 8`)"]).await;

    scene.chapter("Its time has not come", "");
    let later = scene.submit("--start-after 2h -- ./nightly");
    scene.why(&later, &["It waits for its time: it joins queue \"default-batch\" at"]).await;

    scene.chapter("It has to be a certain GPU", "Which of those that it names it cannot have, and who has them.");
    let probe = scene.submit("--gpu-uuid GPU-2 --gpu-uuid GPU-4 -- ./probe-links");
    let said = ["it needs GPU GPU-2 of node box, which job #1 has", "node box has room from", "(in 1h) at the latest"];
    scene.why(&probe, &said).await;
    scene.cancel(&[&probe]);
}

async fn ended(scene: &mut Scene) {
    scene.chapter("It failed", "How it ended, how long it waited, how long it ran.");
    let failed = scene.submit("-- sh -c 'exit 3'");
    scene.daemon.finished(&failed).await;
    scene.why(&failed, &["is finished. It failed: task \"task\" ended with exit code 3. It waited"]).await;

    scene.chapter("It was killed", "What is known, and what that usually means.");
    let killed = scene.submit("-- sh -c 'kill -9 $$'");
    scene.daemon.finished(&killed).await;
    scene.why(&killed, &["was ended by SIGKILL (signal 9), which the scheduler did not send", "memory ran out"]).await;
}

async fn lost(scene: &mut Scene, data: &Path) {
    scene.chapter(
        "Its run was lost, and it is tried again",
        "Here the disk of the logs was away. The pause doubles with each loss; this is the third.",
    );
    let (logs, aside) = (data.join("logs"), data.join("aside"));
    std::fs::rename(&logs, &aside).unwrap();
    std::fs::write(&logs, "in the way").unwrap();
    let job = scene.submit("--max-attempts 5 -- ./analyse");
    let third = async {
        let mut events = scene.daemon.events(&format!("/api/v1/events?job={job}&after=0")).await;
        loop {
            let event = events.next().await.expect("the stream ended early");
            if event["attempt"] == 3 && event["state"] == "waiting" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, third).await.unwrap();
    let said =
        ["Run 3 was lost, which was no fault of the job: run 4 does not start before", "(3 of 5 losses)", "Run 1 was lost at"];
    scene.why(&job, &said).await;
    scene.cancel(&[&job]);
    std::fs::remove_file(&logs).unwrap();
    std::fs::rename(&aside, &logs).unwrap();
}

async fn never(scene: &mut Scene) {
    scene.chapter("It can never start", "It was accepted when the machine was larger.");
    let large = scene.submit("-c 8 -- ./everything");
    scene.daemon.terminate();
    let config = scene.daemon.dir.join("flashd.toml");
    std::fs::write(&config, CONFIG.replace("cpus = 8", "cpus = 6")).unwrap();
    writeln!(scene.transcript, "# flashd is started again with 6 CPUs instead of 8").unwrap();
    scene.daemon.restart();
    let said = [
        "It cannot start even if nothing else runs: task \"task\" asks for 8 CPUs, and the largest node has 6 CPUs",
        "only if nodes or limits change",
    ];
    scene.why(&large, &said).await;
}

const BEGIN: &str = "<!-- from here on written by the test daemon/tests/why.rs -->\n";

/// Writes the transcript into the documentation, or compares it.
fn keep(transcript: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/why.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (text, kept) = page.split_once(BEGIN).unwrap();
    if std::env::var_os("FLASH_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{text}{BEGIN}{transcript}")).unwrap();
        return;
    }
    for (kept, said) in timeless(kept).lines().zip(timeless(transcript).lines()) {
        assert_eq!(kept, said, "docs/why.md is not what is said: FLASH_WRITE_DOCS=1 cargo test -p daemon --test why writes it");
    }
    assert_eq!(kept.lines().count(), transcript.lines().count());
}

/// The text without times and lengths of time. A time of another day is told as a day and a clock, so near
/// midnight one word becomes two.
fn timeless(text: &str) -> String {
    let is_time = |word: &str| {
        let bare = word.trim_matches(|c: char| "().,:;`".contains(c));
        let clock = bare.len() >= 8 && bare.bytes().all(|byte| byte.is_ascii_digit() || b":-".contains(&byte));
        let units = ["d", "h", "m", "s", "ms"];
        let length = bare.starts_with(|c: char| c.is_ascii_digit()) && units.iter().any(|unit| bare.ends_with(unit));
        clock || length
    };
    let line = |line: &str| {
        let mut words: Vec<_> = line.split(' ').map(|word| if is_time(word) { "T" } else { word }).collect();
        words.dedup_by(|word, before| (*word, *before) == ("T", "T"));
        words.join(" ")
    };
    text.lines().map(|each| line(each) + "\n").collect()
}
