//! What looking at GPUs costs: processor time of the thread that asks the driver, over some looks at the stand-in's devices.
//!
//! `cargo run --release -p executors --example gpu_look_cost -- [LOOKS] [DEVICES]`. The stand-in answers from memory, but looks whether its file
//! has changed at each call; a driver's own time is not in it.
#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use executors::gpu::{Nvml, Watcher};

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

/// The default pause between two looks, in seconds.
const INTERVAL: f64 = 2.0;

/// Processor time of the thread that looks, in seconds.
fn spent() -> Answer<f64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim() == "gpus" {
            let stat = std::fs::read_to_string(path.join("schedstat"))?;
            let nanos: f64 = stat.split(' ').next().ok_or("schedstat is empty")?.parse()?;
            return Ok(nanos / 1e9);
        }
    }
    Err("there is no thread `gpus`".into())
}

/// Devices that are busy, each with two processes that say so, linked to their neighbour.
fn state(devices: usize) -> String {
    let mut text = String::new();
    for device in 0..devices {
        let _infallible = write!(
            text,
            "[[devices]]\nuuid = \"GPU-{device}\"\nmemory = \"80Gi\"\nbusy = 70\njoules = 100\necc_errors = 0\nlinks = [\"GPU-{}\"]\n\
             processes = [{{ pid = {}, memory = \"2Gi\", busy = 30 }}, {{ pid = {}, memory = \"1Gi\", busy = 20 }}]\n",
            device ^ 1,
            1_000_000 + device,
            2_000_000 + device,
        );
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Answer<()> {
    let mut args = std::env::args().skip(1);
    let looks: u64 = args.next().map_or(Ok(1_000), |text| text.parse())?;
    let devices: usize = args.next().map_or(Ok(64), |text| text.parse())?;
    if !devices.is_multiple_of(2) {
        return Err("DEVICES: an even number".into());
    }
    let folder = tempfile::tempdir()?;
    let library = nvml_stand_in::install(folder.path(), &state(devices))?;
    let patience = Duration::from_secs(600);
    let watcher = Watcher::start(Box::new(Nvml::new(Some(library))), patience, patience)?;
    let mut views = watcher.views();
    // The first look also finds out what they are.
    let first = views.wait_for(|view| view.round > 0).await?.clone();
    if first.survey.gpus.len() != devices {
        return Err(format!("found {}: {:?}", first.survey.gpus.len(), first.survey.problems).into());
    }
    let busy = first.survey.gpus.iter().flat_map(|gpu| gpu.processes.iter().flatten());
    if busy.filter_map(|process| process.busy_percent).count() != devices * 2 {
        return Err("not all is told".into());
    }
    let (before, begun) = (spent()?, Instant::now());
    for _ in 0..looks {
        let round = watcher.look();
        views.wait_for(|view| view.round >= round).await?;
    }
    let (used, passed) = (spent()? - before, begun.elapsed().as_secs_f64());
    let each = used / looks as f64;
    println!("{devices} GPUs with {} processes, {looks} looks in {passed:.2} s", devices * 2);
    println!("processor time of the thread that looks: {used:.3} s, {:.2} ms a look", each * 1e3);
    println!("at a look every {INTERVAL} s: {:.2} % of a core", each / INTERVAL * 100.0);
    Ok(())
}
