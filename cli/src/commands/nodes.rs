//! `flash nodes`: what jobs run on, and how an administrator takes a machine out of service.

use std::time::Duration;

use api::{JobEvent, Node, NodeList, NodeOrder, NodeState, ServerInfo, State};
use comfy_table::{Cell, Color};
use jiff::Timestamp;

use super::gpus::job;
use crate::client::Client;
use crate::error::Error;
use crate::output::{self, Output};
use crate::query::Query;
use crate::table::{self, Look, cell};
use crate::watch::{Item, Watch};
use crate::when;

pub(crate) const EXAMPLES: &str = "Examples:
  flash nodes                                  all machines, what is taken of them, and why one takes no jobs
  flash nodes -o wide                          each GPU with the job that has it, and what fits beside them
  flash nodes show box                         one machine with its labels and GPUs
  flash nodes cordon box --reason 'new disk'   no new jobs there; what runs goes on
  flash nodes drain box --wait                 the same, and wait until the last job there has ended
  flash nodes resume box                       jobs again

Everybody may look; only root and the user that flashd runs as may cordon, drain and resume.";
const SHOW_EXAMPLES: &str = "Examples:
  flash nodes show box
  flash nodes show box -o json";
const CORDON_EXAMPLES: &str = "Examples:
  flash nodes cordon box
  flash nodes cordon box --reason 'fan is loud'

What runs there goes on, and what waits waits, over restarts of the daemon too, until `flash nodes resume`.";
const DRAIN_EXAMPLES: &str = "Examples:
  flash nodes drain box --reason 'kernel update'
  flash nodes drain box --wait && ssh box sudo reboot

Nothing is ended: to be quicker, `flash requeue` or `flash cancel` what runs there.";
const RESUME_EXAMPLES: &str = "Examples:
  flash nodes resume box";

/// What the server would have meant if it could have said so.
const REFUSED: u8 = 4;
/// How often it is looked whether somebody else has resumed a node that is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Arguments of `flash nodes`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What to do; without one, they are listed
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: Output,
}

/// What to do with nodes.
#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Show all about a node
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Keep a node from taking jobs
    #[command(after_help = CORDON_EXAMPLES)]
    Cordon(OrderArgs),
    /// Empty a node: it takes no jobs, and what runs there ends by itself
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain {
        #[command(flatten)]
        order: OrderArgs,
        /// Wait until nothing runs there any more
        #[arg(long)]
        wait: bool,
    },
    /// Let a node take jobs again
    #[command(after_help = RESUME_EXAMPLES)]
    Resume {
        /// Its name
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// Arguments of `flash nodes cordon`, and most of those of `drain`.
#[derive(clap::Args, Debug)]
struct OrderArgs {
    /// Its name
    name: String,
    /// Why, for those who ask
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    match &args.command {
        None => {
            let nodes: NodeList = client.get(&Query::new("/nodes")).await?;
            args.output.print(&nodes, |nodes| nodes.items.iter().map(|node| node.name.clone()).collect(), list)?;
        }
        Some(Command::Show { name, output }) => print(*output, &client.get(&path(name)).await?)?,
        Some(Command::Cordon(args)) => print(args.output, &order(client, "cordon", args).await?)?,
        Some(Command::Drain { order: args, wait }) => {
            // From before the order, so that no end is missed.
            let revision = client.get::<ServerInfo>(&Query::new("/info")).await?.revision;
            let mut node = order(client, "drain", args).await?;
            if *wait {
                node = drained(client, node, revision).await?;
            }
            print(args.output, &node)?;
            if *wait && node.state != NodeState::Drained {
                output::note("flash: somebody took the drain back");
                return Ok(REFUSED);
            }
        }
        Some(Command::Resume { name, output }) => {
            let node: Node = client.post(&path(name).segment("resume"), &NodeOrder::default(), &[]).await?;
            print(*output, &node)?;
        }
    }
    Ok(0)
}

fn path(name: &str) -> Query {
    Query::new("/nodes").segment(name)
}

async fn order(client: &Client, word: &str, args: &OrderArgs) -> Result<Node, Error> {
    let order = NodeOrder { reason: args.reason.clone() };
    client.post(&path(&args.name).segment(word), &order, &[]).await
}

/// Whether a run may have left its node with this.
fn is_end(event: &JobEvent) -> bool {
    matches!(event.state, State::Finished | State::Queued | State::Waiting)
}

/// Waits until nothing runs on a node. Driven by the ends of jobs; a node that somebody resumes has no event.
async fn drained(client: &Client, mut node: Node, revision: u64) -> Result<Node, Error> {
    let mut watch = Watch::new(client, None, None, revision);
    if node.state == NodeState::Draining && output::someone_reads() {
        output::note(&format!("flash: {} tasks are left on {}", node.tasks, table::clean(&node.name)));
    }
    while node.state == NodeState::Draining {
        match tokio::time::timeout(LOOK_AGAIN, watch.next()).await {
            Ok(Ok(Item::Event(event))) if !is_end(&event) => continue,
            Ok(Ok(Item::Notice(_))) => continue,
            Ok(Ok(Item::Event(_))) | Err(_) => {}
            Ok(Ok(Item::Compacted)) => {
                watch.skip_to(client.get::<ServerInfo>(&Query::new("/info")).await?.revision);
            }
            Ok(Err(error)) => return Err(error),
        }
        match client.get(&path(&node.name)).await {
            Ok(found) => node = found,
            // The watch waits for a server that went away, and gives up when it is time.
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(node)
}

fn print(output: Output, node: &Node) -> Result<(), Error> {
    output.print(node, |node| vec![node.name.clone()], |node, look, _| page(node, look, Timestamp::now()))
}

fn state(node: &Node) -> Cell {
    let colour = match node.state {
        NodeState::Ready => Color::Green,
        NodeState::Cordoned | NodeState::Draining => Color::Yellow,
        NodeState::Drained => Color::Blue,
        NodeState::Lost | NodeState::Removed => Color::Red,
    };
    Cell::new(node.state.as_str()).fg(colour)
}

/// `3/8`: how many GPUs are taken, of how many.
pub(super) fn taken_gpus(node: &Node) -> String {
    format!("{}/{}", node.gpus.iter().filter(|gpu| gpu.promised().0 > 0).count(), node.gpus.len())
}

fn list(nodes: &NodeList, look: Look, wide: bool) -> String {
    let rows = nodes.items.iter().map(|node| -> Vec<Cell> {
        let reason = match (&node.reason, &node.by) {
            (Some(reason), _) => Some(reason.clone()),
            (None, Some(by)) => Some(format!("by {by}")),
            (None, None) => node.gpu_note.clone(),
        };
        vec![
            cell(&node.name),
            state(node),
            cell(format!("{}/{}", node.cpu_used, node.cpu)),
            cell(format!("{}/{}", bytes(node.memory_used.0), bytes(node.memory.0))),
            cell(taken_gpus(node)),
            cell(models(node)),
            table::maybe(reason),
        ]
    });
    let mut text = table::table(look, &["NAME", "STATE", "CPU", "MEMORY", "GPU", "GPUS", "REASON"], rows.collect());
    // Each node says it; where nothing was ever seen of a cluster there is none that could.
    if let Some(message) = nodes.message.as_ref().filter(|_| nodes.items.is_empty()) {
        text.push_str(&table::clean(message));
        text.push('\n');
    }
    if wide && nodes.items.iter().any(|node| !node.gpus.is_empty()) {
        text.push('\n');
        text.push_str(&devices(nodes.items.iter(), look));
        text.push('\n');
        text.push_str(&fragmentation(&nodes.fragmentation));
    }
    text
}

/// Each GPU in a line.
fn devices<'a>(nodes: impl Iterator<Item = &'a Node>, look: Look) -> String {
    let gpus = nodes.flat_map(|node| node.gpus.iter().map(move |gpu| (node, gpu)));
    let rows = gpus.map(|(node, gpu)| {
        let part = gpu.part.map(|part| format!("part {part}"));
        let kind = gpu.mig_profile.as_deref().or(part.as_deref()).unwrap_or("whole");
        let shared = gpu
            .sharers
            .iter()
            .map(|sharer| format!("{} {}", sharer.gpu, job(sharer.job, sharer.job_number)))
            .collect::<Vec<_>>()
            .join(", ");
        let job =
            table::maybe(gpu.job.map(|id| job(id, gpu.job_number)).or_else(|| Some(shared).filter(|shared| !shared.is_empty())));
        vec![cell(&node.name), cell(&gpu.uuid), cell(&gpu.model), cell(bytes(gpu.memory.0)), cell(kind), job]
    });
    table::table(look, &["NODE", "GPU", "MODEL", "MEMORY", "KIND", "JOB"], rows.collect())
}

/// Where jobs with GPUs fit now.
fn fragmentation(found: &api::Fragmentation) -> String {
    let most = match &found.largest_node {
        Some(node) => format!(", {} of them on one node ({})", found.largest, table::clean(node)),
        None => String::new(),
    };
    let closed = if found.closed > 0 { format!("; {} more on nodes that take no jobs", found.closed) } else { String::new() };
    let fit = found.holes.iter().map(|hole| format!("{} of {}", hole.fit, hole.gpus)).collect::<Vec<_>>().join(", ");
    format!("{} GPUs are free{most}{closed}. Jobs with GPUs on one node that fit now: {fit}.\n", found.free)
}

/// A node as facts, one a line, and its GPUs.
fn page(node: &Node, look: Look, now: Timestamp) -> String {
    let mut facts: Vec<(&str, String)> = vec![("name", node.name.clone()), ("state", node.state.as_str().to_owned())];
    let mut add = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("reason", node.reason.clone());
    add("by", node.by.clone());
    add("since", node.since.map(|at| when::moment(at, now)));
    add("tasks", Some(node.tasks.to_string()));
    add("cpu", Some(format!("{} of {} taken", node.cpu_used, node.cpu)));
    add("memory", Some(format!("{} of {} taken", bytes(node.memory_used.0), bytes(node.memory.0))));
    let taken =
        (!node.gpus.is_empty() || node.gpu_note.is_none()).then(|| format!("{} taken", taken_gpus(node).replace('/', " of ")));
    add("gpus", Some(taken.into_iter().chain(node.gpu_note.clone()).collect::<Vec<_>>().join("\n")));
    add("gpu access", node.gpu_access.clone());
    let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    add("labels", (!labels.is_empty()).then(|| labels.join("\n")));
    let mut text = table::facts(&facts);
    if !node.gpus.is_empty() {
        text.push('\n');
        text.push_str(&devices(std::iter::once(node), look));
    }
    text
}

/// `4 x NVIDIA H100, 1 x NVIDIA T4`.
fn models(node: &Node) -> String {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for gpu in &node.gpus {
        *counts.entry(&gpu.model).or_default() += 1;
    }
    if counts.is_empty() {
        return "-".to_owned();
    }
    counts.iter().map(|(model, count)| format!("{count} x {model}")).collect::<Vec<_>>().join(", ")
}

/// Bytes for people: `15.5Gi`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) if bytes.is_multiple_of(*size) => format!("{}{unit}", bytes / size),
        Some((unit, size)) => format!("{:.1}{unit}", bytes as f64 / *size as f64),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use api::quantity::{Cpu, Memory};
    use api::{Fragmentation, Gpu, GpuKind, Hole};
    use uuid::Uuid;

    use super::*;

    const PLAIN: Look = Look { width: None, colour: false };

    fn node() -> Node {
        let gpu = |job: Option<u128>| Gpu {
            uuid: "GPU-1".into(),
            model: "H100".into(),
            memory: Memory(80 << 30),
            kind: GpuKind::Whole,
            mig_profile: None,
            link_group: None,
            job: job.map(Uuid::from_u128),
            ..Gpu::default()
        };
        Node {
            name: "box".into(),
            cpu: Cpu(8_000),
            cpu_used: Cpu(1_500),
            memory: Memory(33_000_000_000),
            tasks: 1,
            gpus: vec![gpu(Some(7)), gpu(None)],
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            ..Node::default()
        }
    }

    #[test]
    fn a_node_shows_what_is_taken_of_what_there_is() {
        let bare = Node { name: "bare".into(), gpus: vec![], gpu_note: Some("no NVIDIA driver".into()), ..node() };
        let closed = Node {
            name: "old".into(),
            state: NodeState::Draining,
            reason: Some("new disk".into()),
            by: Some("root".into()),
            gpus: vec![],
            ..node()
        };
        let hole = |gpus| Hole { gpus, fit: 1 / u64::from(gpus), unusable: u64::from(gpus > 1) };
        let fragmentation =
            Fragmentation { free: 1, closed: 0, largest: 1, largest_node: Some("box".into()), holes: [1, 2].map(hole).into() };
        let message = Some("Nothing is started now, because the cluster does not answer.".to_owned());
        let nodes = NodeList { items: vec![node(), bare, closed], fragmentation, message };
        assert_eq!(
            list(&nodes, PLAIN, false),
            "NAME  STATE     CPU      MEMORY    GPU  GPUS      REASON\n\
             box   ready     1500m/8  0/30.7Gi  1/2  2 x H100  -\n\
             bare  ready     1500m/8  0/30.7Gi  0/0  -         no NVIDIA driver\n\
             old   draining  1500m/8  0/30.7Gi  0/0  -         new disk\n"
        );
        let wide = list(&nodes, PLAIN, true);
        assert!(wide.contains("GPU-1  H100   80Gi    whole  00000000-0000-0000-0000-000000000007"), "{wide}");
        assert!(wide.ends_with(
            "1 GPUs are free, 1 of them on one node (box). Jobs with GPUs on one node that fit now: 1 of 1, 0 of 2.\n"
        ));
        let unseen = NodeList { items: vec![], ..nodes };
        assert!(list(&unseen, PLAIN, false).ends_with("\nNothing is started now, because the cluster does not answer.\n"));
    }

    #[test]
    fn a_page_says_all_of_a_node() {
        let text = page(&node(), PLAIN, Timestamp::UNIX_EPOCH);
        for said in ["state:  ready\n", "gpus:   1 of 2 taken\n", "labels: zone=a\n", "memory: 0 of 30.7Gi taken\n", "GPU-1"] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }
}
