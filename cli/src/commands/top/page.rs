//! One page of `flash top`, as text: pure, so that it can be looked at.
//!
//! Invariant: no line is longer than the terminal is wide, and the page has no more lines than it is high; what is left out is counted.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use api::quantity::GpuMillis;
use api::{GpuList, Job, JobList, Node, PlacedGpu, PlacedTask, Queue, UsageItem};
use comfy_table::Cell;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::commands::{
    ls,
    nodes::{bytes, taken_gpus},
};
use crate::table::{self, Look, cell, maybe};

/// Characters of a bar.
const BAR: usize = 10;
/// Longest names that are shown whole.
const NAME: usize = 14;
const SHORT: usize = 10;

/// All that a page shows.
pub(super) struct Frame {
    pub(super) at: Timestamp,
    pub(super) nodes: Vec<Node>,
    pub(super) gpus: GpuList,
    pub(super) queues: Vec<Queue>,
    pub(super) jobs: JobList,
    pub(super) usage: Vec<UsageItem>,
}

/// The page: as high as the terminal, where one is live (its rows and the pause between pages), else whole.
pub(super) fn text(frame: &Frame, look: Look, live: Option<(u16, Duration)>) -> String {
    let mut page = heading(frame, live.map(|(_, pause)| pause));
    // Headings of tables and the lines between them are counted with their rows.
    let mut left = live.map_or(usize::MAX, |(rows, _)| usize::from(rows).saturating_sub(page.lines().count() + 1));
    let third = (left / 3).max(4);
    let mut part = |table: (Vec<&'static str>, Vec<Vec<Cell>>), most: usize| {
        let (header, mut rows) = table;
        let most = most.min(left);
        if rows.is_empty() || most < 4 {
            return;
        }
        let all = rows.len();
        if all > most - 2 {
            rows.truncate(most - 3);
        }
        let shown = rows.len();
        page.push('\n');
        // As wide as it is: lines are cut at the end of the page.
        page.push_str(&table::table(Look { width: None, ..look }, &header, rows));
        if shown < all {
            let _ = writeln!(page, "... {} more", all - shown);
        }
        left -= (shown + 2 + usize::from(shown < all)).min(left);
    };
    part(machines(frame), third);
    part(gpus(frame), third.max(10));
    part(queues(frame), 8.max(third / 2));
    part(jobs(frame), usize::MAX);
    clipped(&page, look.width)
}

fn heading(frame: &Frame, pause: Option<Duration>) -> String {
    let sum = |count: fn(&Queue) -> u64| frame.queues.iter().map(count).sum::<u64>();
    let time = frame.at.to_zoned(TimeZone::system()).strftime("%H:%M:%S");
    let mut text = format!(
        "flash top {time}  {} running, {} queued, {} waiting",
        sum(|queue| queue.active),
        sum(|queue| queue.queued),
        sum(|queue| queue.waiting)
    );
    if let Some(pause) = pause {
        // Writing to a String cannot fail.
        let _ = write!(text, "  (every {}, q ends)", api::quantity::Duration(pause.as_micros() as u64));
    }
    text.push('\n');
    if let Some(note) = frame.gpus.note.as_ref().filter(|_| !frame.gpus.items.is_empty()) {
        text.push_str(&table::clean(note));
        text.push('\n');
    }
    text
}

/// `######....  60%`
fn bar(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0 } else { (u128::from(part) * 100 / u128::from(whole)).min(100) as usize };
    let filled = (percent * BAR).div_ceil(100);
    format!("{}{} {percent:>3}%", "#".repeat(filled), ".".repeat(BAR - filled))
}

/// The beginning of a text, and a sign that it goes on.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(most.saturating_sub(1)).collect();
    head + "~"
}

fn machines(frame: &Frame) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    let row = |node: &Node| {
        let gpus = (!node.gpus.is_empty()).then(|| taken_gpus(node));
        vec![
            cell(short(&node.name, NAME)),
            cell(bar(node.cpu_used.0, node.cpu.0)),
            cell(bar(node.memory_used.0, node.memory.0)),
            maybe(gpus),
            cell(node.tasks.to_string()),
            cell(node.state.as_str()),
        ]
    };
    (vec!["NODE", "CPU", "MEMORY", "GPUS", "TASKS", "STATE"], frame.nodes.iter().map(row).collect())
}

fn gpus(frame: &Frame) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    let known: HashMap<Uuid, &Job> = frame.jobs.items.iter().map(|job| (job.id, job)).collect();
    let row = |placed: &PlacedGpu| {
        let gpu = &placed.gpu;
        let sharers = gpu.sharers.iter().map(|sharer| (sharer.job, sharer.job_number));
        let holders: Vec<(Uuid, Option<u64>)> = gpu.job.map(|job| (job, gpu.job_number)).into_iter().chain(sharers).collect();
        let name = |(id, number): &(Uuid, Option<u64>)| {
            let number = number.or_else(|| known.get(id).map(|job| job.number));
            number.map_or_else(|| short(&id.to_string(), 8), |number| format!("#{number}"))
        };
        let job = (!holders.is_empty()).then(|| short(&holders.iter().map(name).collect::<Vec<_>>().join(","), NAME));
        let foreign = gpu.processes.iter().find(|process| process.foreign);
        let users: BTreeSet<&str> = holders.iter().filter_map(|(id, _)| known.get(id)).map(|job| job.owner.as_str()).collect();
        let user = (!users.is_empty()).then(|| users.into_iter().collect::<Vec<_>>().join(","));
        let user = user.or_else(|| foreign.map(|process| format!("({})", process.user.as_deref().unwrap_or("?"))));
        let used = gpu.memory_used.map_or_else(|| "-".to_owned(), |memory| bytes(memory.0));
        vec![
            maybe(gpu.index.map(|index| index.to_string())),
            maybe(gpu.busy_percent.map(|busy| format!("{busy}%"))),
            cell(format!("{used}/{}", bytes(gpu.memory.0))),
            maybe(gpu.celsius.map(|celsius| format!("{celsius}C"))),
            maybe(gpu.watts.map(|watts| format!("{watts}W"))),
            cell(gpu.state.as_str()),
            maybe(job),
            maybe(user.map(|user| short(&user, SHORT))),
            cell(format!("{} {}", placed.node, gpu.model)),
        ]
    };
    let header = vec!["GPU", "USE", "MEMORY", "TEMP", "POWER", "STATE", "JOB", "USER", "WHERE"];
    (header, frame.gpus.items.iter().map(row).collect())
}

fn queues(frame: &Frame) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    let mut busy: Vec<&Queue> = frame.queues.iter().filter(|queue| queue.queued + queue.active + queue.waiting > 0).collect();
    busy.sort_by_key(|queue| std::cmp::Reverse((queue.queued, queue.active, queue.waiting)));
    let row = |queue: &&Queue| {
        let number = |number: u64| cell(number.to_string());
        vec![cell(short(&queue.name, 30)), number(queue.queued), number(queue.active), number(queue.waiting)]
    };
    (vec!["QUEUE", "QUEUED", "RUNNING", "WAITING"], busy.iter().map(row).collect())
}

fn jobs(frame: &Frame) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    let used: HashMap<Uuid, &UsageItem> = frame.usage.iter().filter_map(|item| Some((item.job?, item))).collect();
    let row = |job: &Job| {
        let mut millis = 0_u64;
        for task in &job.spec.tasks {
            let asks = task.resources.as_ref().or(job.spec.resources.as_ref());
            let cpu = asks.and_then(|asks| asks.cpu).map_or(0, |cpu| cpu.0);
            millis = millis.saturating_add(cpu.saturating_mul(task.replicas.unwrap_or(1).into()));
        }
        let part = |placed: &PlacedTask| match &placed.gpu_share {
            Some(share) => share.gpu,
            None => GpuMillis::whole(u32::try_from(placed.gpus.len()).unwrap_or(u32::MAX)),
        };
        let gpus = GpuMillis(job.placement.iter().map(part).fold(0, |sum, part| sum.saturating_add(part.0)));
        let usage = used.get(&job.id).map(|item| item.usage);
        let mean = usage.and_then(|usage| usage.gpu_busy_percent).map(|percent| format!("{percent:.0}%"));
        let peak = usage.and_then(|usage| usage.gpu_peak_memory).map(|memory| bytes(memory.0));
        vec![
            cell(job.number.to_string()),
            cell(short(&job.owner, SHORT)),
            cell(short(job.spec.queue.as_deref().unwrap_or("-"), NAME)),
            maybe(ls::runtime(job, frame.at)),
            cell(api::quantity::Cpu(millis).to_string()),
            cell(gpus.to_string()),
            maybe(mean),
            maybe(peak),
            maybe(job.spec.name.as_deref()),
        ]
    };
    let header = vec!["JOB", "USER", "QUEUE", "RUNTIME", "CPU", "GPUS", "USE", "GPU MEM", "NAME"];
    (header, frame.jobs.items.iter().map(row).collect())
}

/// Lines cut to the width of the terminal. What colours a text takes no room.
pub(super) fn clipped(text: &str, width: Option<u16>) -> String {
    let Some(width) = width.map(usize::from) else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let (mut column, mut in_escape) = (0, false);
        for c in line.chars() {
            in_escape |= c == '\x1b';
            if in_escape || column < width {
                out.push(c);
            }
            column += usize::from(!in_escape);
            in_escape &= !c.is_ascii_alphabetic();
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use api::quantity::{Cpu, Memory};
    use api::{Gpu, Usage};

    use super::*;

    fn frame(gpus: usize, jobs: usize) -> Frame {
        let id = |number: usize| Uuid::from_u128(number as u128 + 1);
        let gpu = |number: usize| Gpu {
            uuid: format!("GPU-{number}"),
            model: "NVIDIA H100 80GB HBM3".to_owned(),
            memory: Memory(80 << 30),
            memory_used: Some(Memory(60 << 30)),
            index: Some(number as u32),
            busy_percent: Some(93),
            celsius: Some(61),
            watts: Some(650),
            job: Some(id(number)),
            ..Gpu::default()
        };
        let job = |number: usize| -> Job {
            serde_json::from_value(serde_json::json!({
                "id": id(number), "number": number + 1, "owner": "somebody-with-a-long-name", "state": "running", "attempt": 1,
                "spec": {"name": "train-it-all-night-long-with-a-long-name", "queue": "default-batch",
                         "tasks": [{"replicas": 2, "resources": {"cpu": "1500m"}}]},
                "placement": [{"task": "task", "node": "box", "gpus": [format!("GPU-{number}")]}],
                "submittedAt": "2026-11-21T10:00:00Z", "startedAt": "2026-11-21T10:00:00Z", "revision": 7
            }))
            .unwrap()
        };
        let usage = |number: usize| UsageItem {
            job: Some(id(number)),
            usage: Usage { gpu_busy_percent: Some(71.4), gpu_peak_memory: Some(Memory(61 << 30)), ..Usage::default() },
            ..UsageItem::default()
        };
        let node = Node {
            name: "box".to_owned(),
            cpu: Cpu(8_000),
            cpu_used: Cpu(6_000),
            memory: Memory(100),
            memory_used: Memory(1),
            gpus: (0..gpus).map(gpu).collect(),
            ..Node::default()
        };
        let items = node.gpus.iter().map(|gpu| PlacedGpu { node: "box".to_owned(), gpu: gpu.clone() }).collect();
        Frame {
            at: "2026-11-21T10:03:12Z".parse().unwrap(),
            nodes: vec![node],
            gpus: GpuList { items, driver: None, cuda: None, note: None },
            queues: Vec::new(),
            jobs: JobList { items: (0..jobs).map(job).collect(), next_cursor: None, revision: 7 },
            usage: (0..jobs).map(usage).collect(),
        }
    }

    #[test]
    fn whoever_shares_a_gpu_is_named() {
        let mut frame = frame(2, 2);
        let share = serde_json::json!({"gpu": "500m", "memory": "40Gi"});
        for job in &mut frame.jobs.items {
            job.placement[0].gpu_share = Some(serde_json::from_value(share.clone()).unwrap());
        }
        let sharer = |job: &Job| api::GpuSharer {
            job: job.id,
            job_number: None,
            namespace: None,
            gpu: GpuMillis(500),
            memory: Memory(40 << 30),
        };
        let sharers: Vec<_> = frame.jobs.items.iter().map(sharer).collect();
        for gpu in [&mut frame.nodes[0].gpus[0], &mut frame.gpus.items[0].gpu] {
            (gpu.job, gpu.sharers) = (None, sharers.clone());
        }
        let text = text(&frame, Look { width: Some(100), colour: false }, None);
        assert!(text.contains("2/2") && text.contains("#1,#2") && text.contains("500m"), "{text}");
    }

    #[test]
    fn a_page_says_who_has_what_and_what_is_made_of_it() {
        let text = text(&frame(1, 1), Look { width: None, colour: false }, None);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().contains("0 running, 0 queued, 0 waiting"), "{text}");
        for line in [
            "box   ########..  75%  #.........   1%  1/1   0      ready",
            "0    93%  60Gi/80Gi  61C   650W   ready  #1   somebody-~  box NVIDIA H100 80GB HBM3",
            "1    somebody-~  default-batch  3m12s    3    1     71%  61Gi     train-it-all-night-long-with-a-long-name",
        ] {
            assert!(lines.any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_page_fits_the_terminal() {
        let frame = frame(64, 150);
        for (width, rows) in [(80, 24), (80, 50), (200, 60), (40, 10), (20, 3)] {
            let look = Look { width: Some(width), colour: true };
            let text = text(&frame, look, Some((rows, Duration::from_secs(1))));
            assert!(text.lines().count() <= usize::from(rows), "{width}x{rows}\n{text}");
            let visible = |line: &str| {
                let mut escape = false;
                line.chars()
                    .filter(|c| {
                        escape |= *c == '\x1b';
                        let seen = !escape;
                        escape &= !c.is_ascii_alphabetic();
                        seen
                    })
                    .count()
            };
            assert!(text.lines().all(|line| visible(line) <= usize::from(width)), "{width}x{rows}\n{text}");
        }
        let text = text(&frame, Look { width: Some(80), colour: false }, Some((50, Duration::from_secs(1))));
        assert!(text.contains(" more\n") && !text.contains('\x1b'), "{text}");
        assert!(text.contains("every 1s, q ends") && text.contains("train-it"), "{text}");
    }

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        assert_eq!(clipped("abcdef\n\x1b[1mabcdef\x1b[0m\n", Some(3)), "abc\n\x1b[1mabc\x1b[0m\n");
        assert_eq!(clipped("äöü\n", Some(2)), "äö\n");
    }
}
