//! Metrics of GPUs, under names that dashboards know: `flashsched_*` of the jobs that have them, and `flashd_gpu_*` of the GPUs
//! themselves with the labels of NVIDIA's DCGM exporter.
//!
//! Invariants: made from a snapshot when somebody asks, so a GPU that is gone leaves no series behind; a value that the driver does not
//! tell has no series; every label value is escaped.

use std::fmt::Write as _;

use api::{Gpu, Node};

/// How a text in the OpenMetrics format ends.
const END: &str = "# EOF\n";

type Series = fn(&Node, &Gpu) -> Option<f64>;

/// Of GPUs that jobs have. The memory is that of the job's own processes.
const OF_JOBS: [(&str, &str, Series); 2] = [
    ("flashsched_pod_gpu_sm_utilization_ratio", "Part of the time in which something ran on the GPU of a job", |_, gpu| {
        gpu.busy_percent.map(|percent| f64::from(percent) / 100.0)
    }),
    ("flashsched_pod_gpu_mps_memory_bytes", "Memory that the processes of a job hold on its GPU", |_, gpu| {
        let own = gpu.processes.iter().filter(|process| process.job.is_some() && process.job == gpu.job);
        gpu.memory_used.map(|_| own.filter_map(|process| process.memory).map(|memory| memory.0 as f64).sum())
    }),
];

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
        let of = gpus().filter(|(_, gpu)| gpu.job.is_some());
        family(text, name, help, of.filter_map(|(node, gpu)| Some((job_labels(node, gpu), value(node, gpu)?))));
    }
    let used = nodes.iter().filter(|node| !node.gpus.is_empty()).map(|node| {
        let promised: f64 = node.gpus.iter().map(|gpu| f64::from(gpu.promised().0) / 1_000.0).sum();
        (format!("node=\"{}\"", escaped(&node.name)), promised / node.gpus.len() as f64)
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

fn job_labels(node: &Node, gpu: &Gpu) -> String {
    format!(
        "pod_namespace=\"{}\",pod_name=\"{}\",gpu_index=\"{}\",gpu_uuid=\"{}\",node=\"{}\"",
        escaped(gpu.namespace.as_deref().unwrap_or_default()),
        gpu.job.map(|job| job.to_string()).unwrap_or_default(),
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
    use api::GpuProcess;
    use api::quantity::Memory;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_known_is_told_and_the_text_still_ends_as_it_must() {
        let job = Some(Uuid::from_u128(7));
        let process = |memory, job| GpuProcess {
            pid: 1,
            user: None,
            command: String::new(),
            memory: Some(Memory(memory)),
            job,
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
        let nodes = [Node {
            name: "box".to_owned(),
            gpus: vec![held, Gpu { uuid: "GPU-2".to_owned(), ..Gpu::default() }],
            ..Node::default()
        }];
        let mut text = "a 1\n# EOF\n".to_owned();
        insert(&mut text, &nodes);
        let labels = "pod_namespace=\"vision\",pod_name=\"00000000-0000-0000-0000-000000000007\",gpu_index=\"0\",gpu_uuid=\"GPU-1\",node=\"box\"";
        for line in [
            format!("flashsched_pod_gpu_sm_utilization_ratio{{{labels}}} 0.93"),
            format!("flashsched_pod_gpu_mps_memory_bytes{{{labels}}} 50.0"),
            "flashsched_node_gpu_mps_utilization_ratio{node=\"box\"} 0.5".to_owned(),
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
