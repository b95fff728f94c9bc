//! Metrics of GPUs, under names that dashboards know: `flashsched_*` of the jobs that have them, and `flashd_gpu_*` of the GPUs
//! themselves with the labels of NVIDIA's DCGM exporter.
//!
//! Invariants: made from a snapshot when somebody asks, so a GPU that is gone leaves no series behind; a value that the driver does not
//! tell has no series; every label value is escaped.

use std::fmt::Write as _;

use api::quantity::GpuMillis;
use api::{Gpu, GpuProcess, Node};
use uuid::Uuid;

/// How a text in the OpenMetrics format ends.
const END: &str = "# EOF\n";

type Series = fn(&Node, &Gpu) -> Option<f64>;

/// A job that has a GPU, or parts of it.
struct Holder<'a> {
    job: Uuid,
    namespace: Option<&'a str>,
    /// All of it is its own.
    whole: bool,
}

type OfHolder = fn(&Gpu, &Holder<'_>) -> Option<f64>;

/// Of jobs that have GPUs, a series for each that has some of it. On one that others share too, what it does and holds is what its processes do and hold.
const OF_JOBS: [(&str, &str, OfHolder); 2] = [
    ("flashsched_pod_gpu_sm_utilization_ratio", "Part of the time in which something of a job ran on its GPU", |gpu, holder| {
        let all = gpu.busy_percent?;
        let own = own(gpu, holder).filter_map(|process| process.busy_percent).fold(0, u32::saturating_add);
        Some(f64::from(if holder.whole { all } else { own.min(100) }) / 100.0)
    }),
    ("flashsched_pod_gpu_mps_memory_bytes", "Memory that the processes of a job hold on its GPU", |gpu, holder| {
        let own = own(gpu, holder).filter_map(|process| process.memory).map(|memory| memory.0 as f64);
        gpu.memory_used.map(|_| own.sum())
    }),
];

/// The processes of a job on a GPU.
fn own<'a>(gpu: &'a Gpu, holder: &Holder<'_>) -> impl Iterator<Item = &'a GpuProcess> {
    let job = Some(holder.job);
    gpu.processes.iter().filter(move |process| process.job == job)
}

/// Who has a GPU, each job once.
fn holders(gpu: &Gpu) -> Vec<Holder<'_>> {
    let whole = gpu.job.map(|job| Holder { job, namespace: gpu.namespace.as_deref(), whole: true });
    let mut all: Vec<Holder<'_>> = whole.into_iter().collect();
    for sharer in &gpu.sharers {
        if all.iter().all(|holder| holder.job != sharer.job) {
            all.push(Holder { job: sharer.job, namespace: sharer.namespace.as_deref(), whole: false });
        }
    }
    all
}

/// Of all GPUs.
const OF_GPUS: [(&str, &str, Series); 6] = [
    ("flashd_gpu_utilization_ratio", "Part of the time in which something ran on the GPU", |_, gpu| {
        gpu.busy_percent.map(|percent| f64::from(percent) / 100.0)
    }),
    ("flashd_gpu_memory_used_bytes", "Memory in use", |_, gpu| gpu.memory_used.map(|memory| memory.0 as f64)),
    ("flashd_gpu_memory_bytes", "Memory of the GPU", |_, gpu| Some(gpu.memory.0 as f64)),
    ("flashd_gpu_temperature_celsius", "Temperature", |_, gpu| gpu.celsius.map(f64::from)),
    ("flashd_gpu_power_watts", "Draw", |_, gpu| gpu.watts.map(f64::from)),
    ("flashd_gpu_promised", "Part of it that jobs have", |_, gpu| Some(f64::from(gpu.promised().0) / 1_000.0)),
];

/// Puts them into a text, before its end.
pub fn insert(text: &mut String, nodes: &[Node]) {
    if nodes.iter().all(|node| node.gpus.is_empty()) {
        return;
    }
    if text.ends_with(END) {
        text.truncate(text.len() - END.len());
    }
    let gpus = || nodes.iter().flat_map(|node| node.gpus.iter().map(move |gpu| (node, gpu)));
    for (name, help, value) in OF_JOBS {
        let of = gpus().flat_map(|(node, gpu)| holders(gpu).into_iter().map(move |holder| (node, gpu, holder)));
        let line = |(node, gpu, holder): (&Node, &Gpu, Holder<'_>)| Some((job_labels(node, gpu, &holder), value(gpu, &holder)?));
        family(text, name, help, of.filter_map(line));
    }
    let used = nodes.iter().filter(|node| !node.gpus.is_empty()).map(|node| {
        let sum = |of: fn(&Gpu) -> GpuMillis| node.gpus.iter().map(|gpu| f64::from(of(gpu).0)).sum::<f64>();
        (format!("node=\"{}\"", escaped(&node.name)), sum(Gpu::promised) / sum(Gpu::size))
    });
    family(text, "flashsched_node_gpu_mps_utilization_ratio", "Part of the GPUs of a node that jobs have", used);
    for (name, help, value) in OF_GPUS {
        family(text, name, help, gpus().filter_map(|(node, gpu)| Some((gpu_labels(node, gpu), value(node, gpu)?))));
    }
    let states = ["ready", "aside", "drained", "gone"];
    let states = gpus().flat_map(|(node, gpu)| {
        states.map(|state| {
            (format!("{},state=\"{state}\"", gpu_labels(node, gpu)), f64::from(u8::from(gpu.state.as_str() == state)))
        })
    });
    family(text, "flashd_gpu_state", "1 for the state that the GPU is in", states);
    text.push_str(END);
}

fn family(text: &mut String, name: &str, help: &str, series: impl Iterator<Item = (String, f64)>) {
    let _infallible = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge");
    for (labels, value) in series {
        let _infallible = writeln!(text, "{name}{{{labels}}} {value:?}");
    }
}

fn job_labels(node: &Node, gpu: &Gpu, holder: &Holder<'_>) -> String {
    format!(
        "pod_namespace=\"{}\",pod_name=\"{}\",gpu_index=\"{}\",gpu_uuid=\"{}\",node=\"{}\"",
        escaped(holder.namespace.unwrap_or_default()),
        holder.job,
        gpu.index.map(|index| index.to_string()).unwrap_or_default(),
        escaped(&gpu.uuid),
        escaped(&node.name),
    )
}

fn gpu_labels(node: &Node, gpu: &Gpu) -> String {
    format!(
        "gpu=\"{}\",UUID=\"{}\",pci_bus_id=\"{}\",modelName=\"{}\",Hostname=\"{}\"",
        gpu.index.map(|index| index.to_string()).unwrap_or_default(),
        escaped(&gpu.uuid),
        escaped(gpu.pci.as_deref().unwrap_or_default()),
        escaped(&gpu.model),
        escaped(&node.name),
    )
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use api::GpuSharer;
    use api::quantity::Memory;

    use super::*;

    #[test]
    fn what_is_known_is_told_and_the_text_still_ends_as_it_must() {
        let job = Some(Uuid::from_u128(7));
        let process = |memory, job| GpuProcess {
            pid: 1,
            user: None,
            command: String::new(),
            memory: Some(Memory(memory)),
            busy_percent: Some(20),
            job,
            job_number: None,
            foreign: false,
        };
        let held = Gpu {
            uuid: "GPU-1".to_owned(),
            model: "an \"odd\" one".to_owned(),
            memory: Memory(100),
            job,
            namespace: Some("vision".to_owned()),
            index: Some(0),
            busy_percent: Some(93),
            memory_used: Some(Memory(60)),
            processes: vec![process(50, job), process(10, None)],
            ..Gpu::default()
        };
        let sharer = |number, namespace: &str| GpuSharer {
            job: Uuid::from_u128(number),
            job_number: None,
            namespace: Some(namespace.to_owned()),
            gpu: GpuMillis(250),
            memory: Memory(25),
        };
        let other = Some(Uuid::from_u128(8));
        let shared = Gpu {
            uuid: "GPU-3".to_owned(),
            memory: Memory(100),
            // Two tasks of one job, and one of another.
            sharers: vec![sharer(7, "vision"), sharer(7, "vision"), sharer(8, "text")],
            busy_percent: Some(70),
            memory_used: Some(Memory(60)),
            processes: vec![process(5, job), process(6, job), process(9, other), process(40, None)],
            ..Gpu::default()
        };
        let nodes = [Node {
            name: "box".to_owned(),
            gpus: vec![held, shared, Gpu { uuid: "GPU-2".to_owned(), ..Gpu::default() }],
            ..Node::default()
        }];
        let mut text = "a 1\n# EOF\n".to_owned();
        insert(&mut text, &nodes);
        let labels = "pod_namespace=\"vision\",pod_name=\"00000000-0000-0000-0000-000000000007\",gpu_index=\"0\",gpu_uuid=\"GPU-1\",node=\"box\"";
        let part = "pod_namespace=\"vision\",pod_name=\"00000000-0000-0000-0000-000000000007\",gpu_index=\"\",gpu_uuid=\"GPU-3\",node=\"box\"";
        let beside = "pod_namespace=\"text\",pod_name=\"00000000-0000-0000-0000-000000000008\",gpu_index=\"\",gpu_uuid=\"GPU-3\",node=\"box\"";
        assert_eq!(text.matches("flashsched_pod_gpu_sm_utilization_ratio{").count(), 3, "a job has one series of a GPU: {text}");
        for line in [
            format!("flashsched_pod_gpu_sm_utilization_ratio{{{labels}}} 0.93"),
            format!("flashsched_pod_gpu_mps_memory_bytes{{{labels}}} 50.0"),
            format!("flashsched_pod_gpu_sm_utilization_ratio{{{part}}} 0.4"),
            format!("flashsched_pod_gpu_mps_memory_bytes{{{part}}} 11.0"),
            format!("flashsched_pod_gpu_sm_utilization_ratio{{{beside}}} 0.2"),
            format!("flashsched_pod_gpu_mps_memory_bytes{{{beside}}} 9.0"),
            "flashsched_node_gpu_mps_utilization_ratio{node=\"box\"} 0.5833333333333334".to_owned(),
            "flashd_gpu_state{gpu=\"\",UUID=\"GPU-2\",pci_bus_id=\"\",modelName=\"\",Hostname=\"box\",state=\"ready\"} 1.0"
                .to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("modelName=\"an \\\"odd\\\" one\""), "{text}");
        assert!(!text.contains("flashd_gpu_temperature_celsius{"), "nobody knows it");
        assert!(text.starts_with("a 1\n# HELP") && text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
        let mut bare = "a 1\n# EOF\n".to_owned();
        insert(&mut bare, &[Node::default()]);
        assert_eq!(bare, "a 1\n# EOF\n");
    }
}
