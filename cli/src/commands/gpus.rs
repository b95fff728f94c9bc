//! `flash gpus`: who has which GPU, how they are, and how an administrator takes one out of service.

use api::{Gpu, GpuList, GpuState, NodeOrder, PlacedGpu};
use comfy_table::{Cell, Color};
use uuid::Uuid;

use super::nodes::bytes;
use crate::client::Client;
use crate::error::Error;
use crate::output::Output;
use crate::query::Query;
use crate::table::{self, Look, cell};

pub(crate) const EXAMPLES: &str = "Examples:
  flash gpus                                       all GPUs: who has them, use, memory, temperature
  flash gpus -o wide                               the same with PCI address, links, and every process
  flash gpus show GPU-1                            one of them
  flash gpus drain GPU-1 --reason 'ECC errors'     no new jobs on it; who has it keeps it
  flash gpus resume GPU-1                          jobs again, also after it was found to be sick

Everybody may look; only root and the user that flashd runs as may drain and resume.";
const SHOW_EXAMPLES: &str = "Examples:
  flash gpus show GPU-1 -o json";
const DRAIN_EXAMPLES: &str = "Examples:
  flash gpus drain GPU-1 --reason 'fan is loud'

Nothing is ended. It stays drained over restarts of the daemon, until `flash gpus resume`.";
const RESUME_EXAMPLES: &str = "Examples:
  flash gpus resume GPU-1";

/// Arguments of `flash gpus`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What to do; without one, they are listed
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: Output,
}

/// What to do with GPUs.
#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Show all about a GPU
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its UUID
        uuid: String,
        #[command(flatten)]
        output: Output,
    },
    /// Keep a GPU from being given to jobs
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain {
        /// Its UUID
        uuid: String,
        /// Why, for those who ask
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Give a GPU to jobs again
    #[command(after_help = RESUME_EXAMPLES)]
    Resume {
        /// Its UUID
        uuid: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    match &args.command {
        None => {
            let gpus: GpuList = client.get(&Query::new("/gpus")).await?;
            args.output.print(&gpus, |gpus| gpus.items.iter().map(|placed| placed.gpu.uuid.clone()).collect(), list)?;
        }
        Some(Command::Show { uuid, output }) => print(*output, &client.get(&path(uuid)).await?)?,
        Some(Command::Drain { uuid, reason, output }) => {
            let order = NodeOrder { reason: reason.clone() };
            print(*output, &client.post(&path(uuid).segment("drain"), &order, &[]).await?)?;
        }
        Some(Command::Resume { uuid, output }) => {
            print(*output, &client.post(&path(uuid).segment("resume"), &NodeOrder::default(), &[]).await?)?;
        }
    }
    Ok(0)
}

fn path(uuid: &str) -> Query {
    Query::new("/gpus").segment(uuid)
}

fn print(output: Output, placed: &PlacedGpu) -> Result<(), Error> {
    output.print(placed, |placed| vec![placed.gpu.uuid.clone()], |placed, look, _| page(placed, look))
}

fn state(gpu: &Gpu) -> Cell {
    let colour = match gpu.state {
        GpuState::Ready => Color::Green,
        GpuState::Aside | GpuState::Drained => Color::Yellow,
        GpuState::Gone => Color::Red,
    };
    Cell::new(gpu.state.as_str()).fg(colour)
}

fn memory(gpu: &Gpu) -> String {
    match gpu.memory_used {
        Some(used) => format!("{}/{}", bytes(used.0), bytes(gpu.memory.0)),
        None => format!("-/{}", bytes(gpu.memory.0)),
    }
}

/// A job as people know it; by its id where it has ended, or the daemon does not say its number.
pub(super) fn job(id: Uuid, number: Option<u64>) -> String {
    number.map_or_else(|| id.to_string(), |number| format!("#{number}"))
}

/// Who has it: a job, or whoever uses it without one.
fn holder(gpu: &Gpu) -> Option<String> {
    let foreign = gpu.processes.iter().filter(|process| process.foreign);
    let users: std::collections::BTreeSet<&str> = foreign.map(|process| process.user.as_deref().unwrap_or("?")).collect();
    let users = (!users.is_empty()).then(|| format!("({})", users.into_iter().collect::<Vec<_>>().join(", ")));
    let shared = gpu.sharers.iter().map(|sharer| format!("{} {}", sharer.gpu, job(sharer.job, sharer.job_number)));
    let shared = (!gpu.sharers.is_empty()).then(|| shared.collect::<Vec<_>>().join(", "));
    let parts: Vec<String> = gpu.job.map(|id| job(id, gpu.job_number)).into_iter().chain(shared).chain(users).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn list(gpus: &GpuList, look: Look, wide: bool) -> String {
    let row = |placed: &PlacedGpu| -> Vec<Cell> {
        let gpu = &placed.gpu;
        let of = gpu.mig_profile.clone().or_else(|| gpu.part.map(|part| part.to_string()));
        let kind = of.map_or_else(|| gpu.model.clone(), |of| format!("{} {of}", gpu.model));
        let mut cells = vec![
            cell(&placed.node),
            table::maybe(gpu.index.map(|index| index.to_string())),
            cell(&gpu.uuid),
            cell(kind),
            state(gpu),
            table::maybe(gpu.busy_percent.map(|busy| format!("{busy}%"))),
            cell(memory(gpu)),
            table::maybe(gpu.celsius.map(|celsius| format!("{celsius}C"))),
            table::maybe(gpu.watts.map(|watts| format!("{watts}W"))),
            table::maybe(holder(gpu)),
            table::maybe(gpu.reason.clone().or_else(|| gpu.throttled.clone())),
        ];
        if wide {
            cells.push(table::maybe(gpu.pci.clone()));
            cells.push(table::maybe(gpu.link_group.map(|group| group.to_string())));
            cells.push(table::maybe(gpu.numa.map(|numa| numa.to_string())));
        }
        cells
    };
    let mut head = vec!["NODE", "#", "GPU", "MODEL", "STATE", "USE", "MEMORY", "TEMP", "POWER", "JOB", "REASON"];
    if wide {
        head.extend(["PCI", "LINKS", "NUMA"]);
    }
    let mut text = String::new();
    if !gpus.items.is_empty() {
        text.push_str(&table::table(look, &head, gpus.items.iter().map(row).collect()));
    }
    if wide && gpus.items.iter().any(|placed| !placed.gpu.processes.is_empty()) {
        text.push('\n');
        text.push_str(&processes(gpus.items.iter(), look));
    }
    if let Some(note) = &gpus.note {
        text.push_str(&table::clean(note));
        text.push('\n');
    }
    text
}

/// What uses GPUs, each process in a line.
fn processes<'a>(gpus: impl Iterator<Item = &'a PlacedGpu>, look: Look) -> String {
    let of = gpus.flat_map(|placed| placed.gpu.processes.iter().map(move |process| (&placed.gpu, process)));
    let row = |(gpu, process): (&Gpu, &api::GpuProcess)| {
        vec![
            cell(&gpu.uuid),
            cell(process.pid.to_string()),
            table::maybe(process.user.clone()),
            cell(&process.command),
            table::maybe(process.memory.map(|memory| bytes(memory.0))),
            match process.job {
                _ if process.foreign && process.job.is_none() => cell("none"),
                id => table::maybe(id.map(|id| job(id, process.job_number))),
            },
        ]
    };
    table::table(look, &["GPU", "PID", "USER", "COMMAND", "MEMORY", "JOB"], of.map(row).collect())
}

/// A GPU as facts, one a line, and what uses it.
fn page(placed: &PlacedGpu, look: Look) -> String {
    let gpu = &placed.gpu;
    let mut facts: Vec<(&str, String)> = vec![
        ("gpu", gpu.uuid.clone()),
        ("node", placed.node.clone()),
        ("model", gpu.model.clone()),
        ("state", gpu.state.as_str().to_owned()),
    ];
    let mut add = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("reason", gpu.reason.clone());
    add("job", gpu.job.map(|id| gpu.job_number.map_or_else(|| id.to_string(), |number| format!("#{number} ({id})"))));
    let shared = gpu
        .sharers
        .iter()
        .map(|sharer| format!("{} and {} by {}", sharer.gpu, bytes(sharer.memory.0), job(sharer.job, sharer.job_number)));
    add("shared", (!gpu.sharers.is_empty()).then(|| shared.collect::<Vec<_>>().join("\n")));
    add("profile", gpu.mig_profile.clone());
    add("part", gpu.part.map(|part| part.to_string()));
    add("part of", gpu.parent.clone());
    add("memory", Some(memory(gpu)));
    add("use", gpu.busy_percent.map(|busy| format!("{busy}%")));
    add("temperature", gpu.celsius.map(|celsius| format!("{celsius}C")));
    add("power", gpu.watts.map(|watts| format!("{watts}W")));
    add("throttled", gpu.throttled.clone());
    add("index", gpu.index.map(|index| index.to_string()));
    add("pci", gpu.pci.clone());
    add("compute", gpu.compute.clone());
    add("links", gpu.link_group.map(|group| group.to_string()));
    add("pcie", gpu.pcie_group.map(|group| group.to_string()));
    add("numa", gpu.numa.map(|numa| numa.to_string()));
    let mut text = table::facts(&facts);
    if !gpu.processes.is_empty() {
        text.push('\n');
        text.push_str(&processes(std::iter::once(placed), look));
    }
    text
}

#[cfg(test)]
mod tests {
    use api::GpuProcess;
    use api::quantity::{GpuMillis, Memory};

    use super::*;

    const PLAIN: Look = Look { width: None, colour: false };

    fn gpu(uuid: &str) -> PlacedGpu {
        let gpu = Gpu { uuid: uuid.to_owned(), model: "H100".to_owned(), memory: Memory(80 << 30), ..Gpu::default() };
        PlacedGpu { node: "box".to_owned(), gpu }
    }

    #[test]
    fn a_map_says_who_has_what_and_why_one_is_not_given() {
        let mut used = gpu("GPU-1");
        used.gpu = Gpu {
            index: Some(0),
            job: Some(Uuid::from_u128(7)),
            job_number: Some(12),
            busy_percent: Some(93),
            memory_used: Some(Memory(60 << 30)),
            celsius: Some(61),
            watts: Some(650),
            ..used.gpu
        };
        let mut taken = gpu("GPU-2");
        let process = GpuProcess {
            pid: 4711,
            user: Some("bob".to_owned()),
            command: "python".to_owned(),
            memory: Some(Memory(2 << 30)),
            busy_percent: None,
            job: None,
            job_number: None,
            foreign: true,
        };
        taken.gpu = Gpu {
            state: GpuState::Aside,
            reason: Some("used past the scheduler".to_owned()),
            processes: vec![process],
            ..taken.gpu
        };
        let gpus = GpuList { items: vec![used, taken], driver: None, cuda: None, note: Some("GPU 2 cannot be used".to_owned()) };
        assert_eq!(
            list(&gpus, PLAIN, false),
            "NODE  #  GPU    MODEL  STATE  USE  MEMORY     TEMP  POWER  JOB    REASON\n\
             box   0  GPU-1  H100   ready  93%  60Gi/80Gi  61C   650W   #12    -\n\
             box   -  GPU-2  H100   aside  -    -/80Gi     -     -      (bob)  used past the scheduler\n\
             GPU 2 cannot be used\n"
        );
        let wide = list(&gpus, PLAIN, true);
        assert!(wide.contains("GPU-2  4711  bob   python   2Gi     none"), "{wide}");
        assert!(page(&gpus.items[1], PLAIN).contains("reason: used past the scheduler"));
        let mut part = gpu("box/part-0");
        part.gpu.part = Some(GpuMillis(250));
        let parts = GpuList { items: vec![part], driver: None, cuda: None, note: None };
        assert!(list(&parts, PLAIN, false).contains("box/part-0  H100 250m  ready"), "{}", list(&parts, PLAIN, false));
    }
}
