//! `flash top`: what runs on which machine and GPU now, again and again.
//!
//! Invariants: the terminal is given back as it was, however this ends; what cannot be read for a moment is said, and what was read before is
//! still shown; without a terminal there is one page of plain text.

mod page;
mod terminal;

use std::time::Duration;

use api::{GpuList, JobList, NodeList, QueueList, UsageList};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::query::Query;
use crate::table::Look;
use page::Frame;
use terminal::Terminal;

pub(crate) const EXAMPLES: &str = "Examples:
  flash top                      live, every second; q or Ctrl-C ends it
  flash top --interval 5s
  flash top --once               one page of text, for scripts
  NO_COLOR=1 flash top

What is said of a machine is what jobs were promised of it. USE of a GPU is how busy it was at the last look, USE of a job the mean
over its GPUs since it began.";

/// Jobs that are shown at most.
const JOBS: usize = 200;

/// Arguments of `flash top`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Pause between two pages, 100ms or more
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// One page, and no more
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time: api::quantity::Duration = text.parse().map_err(|error: api::quantity::QuantityError| error.to_string())?;
    let time = Duration::from_micros(time.0);
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3_600);
    if allowed.contains(&time) { Ok(time) } else { Err("allowed are 100ms to 1h".to_owned()) }
}

/// Asks for all that a page shows.
async fn look(client: &Client) -> Result<Frame, Error> {
    let nodes: NodeList = client.get(&Query::new("/nodes")).await?;
    let gpus: GpuList = client.get(&Query::new("/gpus")).await?;
    let queues: QueueList = client.get(&Query::new("/queues")).await?;
    let limit = JOBS.to_string();
    let jobs: JobList = client.get(&Query::new("/jobs").with("state", "running,stopping").with("limit", &limit)).await?;
    let usage = Query::new("/usage").with("by", "job").with("limit", &limit);
    let usage: UsageList = client.get(&usage).await?;
    Ok(Frame { at: Timestamp::now(), nodes: nodes.items, gpus, queues: queues.items, jobs, usage: usage.items })
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let look_of = Look::stdout();
    if args.once || look_of.width.is_none() {
        output::print(&page::text(&look(client).await?, look_of, None))?;
        return Ok(0);
    }
    // The first answer comes before the screen is taken: whoever cannot be reached is told so in the ordinary way.
    let mut frame = look(client).await?;
    let mut trouble = None;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::system("handling SIGTERM"))?;
    let mut resized = signal(SignalKind::window_change()).map_err(Error::system("handling SIGWINCH"))?;
    let mut terminal = Terminal::take()?;
    loop {
        let (look_now, rows) = (Look::stdout(), terminal::rows());
        let mut text = page::text(&frame, look_now, Some((rows, args.interval)));
        if let Some(trouble) = &trouble {
            text.push_str(&page::clipped(&format!("{trouble}\n"), look_now.width));
        }
        Terminal::show(&text)?;
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = resized.recv() => continue,
            _ = tokio::signal::ctrl_c() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
            // Any other key is in a hurry.
            key = terminal.key() => if matches!(key, Some(b'q' | b'Q' | 3 | 4)) {
                return Ok(0);
            },
        }
        let next = tokio::select! {
            next = look(client) => next,
            _ = tokio::signal::ctrl_c() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
        };
        match next {
            Ok(next) => (frame, trouble) = (next, None),
            Err(error) => trouble = Some(error.to_string()),
        }
    }
}
