//! `flash nodes`: what jobs run on.

use api::NodeList;
use comfy_table::Cell;

use crate::client::Client;
use crate::error::Error;
use crate::output::Output;
use crate::query::Query;
use crate::table::{self, Look, cell};

pub(crate) const NODES_EXAMPLES: &str = "Examples:
  flash nodes
  flash nodes -o wide     each GPU, and the job that has it
  flash nodes -o yaml";

/// Arguments of `flash nodes`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn nodes(client: &Client, args: &Args) -> Result<u8, Error> {
    let nodes: NodeList = client.get(&Query::new("/nodes")).await?;
    args.output.print(&nodes, |nodes| nodes.items.iter().map(|node| node.name.clone()).collect(), nodes_table)?;
    Ok(0)
}

fn nodes_table(nodes: &NodeList, look: Look, wide: bool) -> String {
    let rows = nodes.items.iter().map(|node| -> Vec<Cell> {
        let taken = node.gpus.iter().filter(|gpu| gpu.job.is_some()).count();
        let gpus = match &node.gpu_note {
            Some(note) if node.gpus.is_empty() => note.clone(),
            _ => models(node),
        };
        vec![
            cell(&node.name),
            cell(format!("{}/{}", node.cpu_used, node.cpu)),
            cell(format!("{}/{}", bytes(node.memory_used.0), bytes(node.memory.0))),
            cell(format!("{taken}/{}", node.gpus.len())),
            cell(gpus),
        ]
    });
    let mut text = table::table(look, &["NAME", "CPU", "MEMORY", "GPU", "GPUS"], rows.collect());
    let gpus = nodes.items.iter().flat_map(|node| node.gpus.iter().map(move |gpu| (node, gpu)));
    let rows: Vec<Vec<Cell>> = gpus
        .map(|(node, gpu)| {
            let job = table::maybe(gpu.job.map(|job| job.to_string()));
            vec![cell(&node.name), cell(&gpu.uuid), cell(&gpu.model), cell(bytes(gpu.memory.0)), job]
        })
        .collect();
    if wide && !rows.is_empty() {
        text.push('\n');
        text.push_str(&table::table(look, &["NODE", "GPU", "MODEL", "MEMORY", "JOB"], rows));
    }
    text
}

/// `4 x NVIDIA H100, 1 x NVIDIA T4`.
fn models(node: &api::Node) -> String {
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
fn bytes(bytes: u64) -> String {
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
    use api::{Gpu, Node};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_node_shows_what_is_taken_of_what_there_is() {
        let gpu = |job: Option<u128>| Gpu {
            uuid: "GPU-1".into(),
            model: "H100".into(),
            memory: Memory(80 << 30),
            job: job.map(Uuid::from_u128),
        };
        let node = Node {
            name: "box".into(),
            cpu: Cpu(8_000),
            cpu_used: Cpu(1_500),
            memory: Memory(33_000_000_000),
            memory_used: Memory(0),
            gpus: vec![gpu(Some(7)), gpu(None)],
            gpu_note: None,
        };
        let bare = Node { name: "bare".into(), gpus: vec![], gpu_note: Some("no NVIDIA driver".into()), ..node.clone() };
        let list = NodeList { items: vec![node, bare] };
        let look = Look { width: None, colour: false };
        let text = nodes_table(&list, look, false);
        assert_eq!(
            text,
            "NAME  CPU      MEMORY    GPU  GPUS\nbox   1500m/8  0/30.7Gi  1/2  2 x H100\nbare  1500m/8  0/30.7Gi  0/0  no NVIDIA driver\n"
        );
        assert!(nodes_table(&list, look, true).contains("GPU-1  H100   80Gi    00000000-0000-0000-0000-000000000007"));
    }
}
