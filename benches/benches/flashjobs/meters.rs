//! What it costs: requests that the API server counted, and processor time of each process.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use http::Request;
use kube::Client;

/// Requests by verb and resource, and events that watchers were told by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    pub(crate) asked: BTreeMap<String, u64>,
    pub(crate) told: BTreeMap<String, u64>,
    /// Watches that are open, by resource.
    pub(crate) watches: BTreeMap<String, u64>,
}

/// The value of a label in a line of metrics.
fn label<'a>(line: &'a str, name: &str) -> &'a str {
    let from = |start: usize| line[start..].split('"').nth(1).unwrap_or_default();
    // Labels come one after the other: its name follows a brace or a comma.
    line.match_indices(&format!("{name}=\""))
        .find(|(at, _)| matches!(&line[at - 1..*at], "{" | ","))
        .map_or("", |(at, _)| from(at))
}

impl Requests {
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let request = Request::get("/metrics").body(Vec::new()).context("a path")?;
        let text = client.request_text(request).await.context("GET /metrics")?;
        let mut all = Self::default();
        for line in text.lines() {
            let Some(count) = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()) else { continue };
            if line.starts_with("apiserver_request_total{") {
                let resource = [label(line, "resource"), label(line, "subresource")];
                let resource = resource.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                // Without a resource it is a question of health or of versions.
                let ours = !resource.is_empty() && !matches!(label(line, "verb"), "WATCH" | "CONNECT");
                if ours {
                    let failed = if label(line, "code").starts_with('2') { "" } else { " (refused)" };
                    *all.asked.entry(format!("{} {resource}{failed}", label(line, "verb"))).or_default() += count as u64;
                }
            } else if line.starts_with("apiserver_longrunning_requests{") && label(line, "verb") == "WATCH" {
                *all.watches.entry(label(line, "resource").to_owned()).or_default() += count as u64;
            } else if line.starts_with("apiserver_watch_events_total{") {
                *all.told.entry(label(line, "resource").to_owned()).or_default() += count as u64;
            }
        }
        Ok(all)
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let minus = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let left = now.iter().map(|(key, count)| (key.clone(), count - before.get(key).copied().unwrap_or(0).min(*count)));
            left.filter(|(_, count)| *count > 0).collect()
        };
        let watches = self.watches.clone();
        Self { asked: minus(&self.asked, &before.asked), told: minus(&self.told, &before.told), watches }
    }

    pub(crate) fn total(&self) -> u64 {
        self.asked.values().sum()
    }
}

/// Processor seconds by the name of the process; that of the whole machine as `machine`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seconds(pub(crate) BTreeMap<String, f64>);

/// Ticks in a second.
const TICKS: f64 = 100.0;
/// What is known of the whole machine.
pub(crate) const MACHINE: &str = "machine";

impl Seconds {
    pub(crate) fn read(processes: &[(String, u32)]) -> Self {
        let mut all: BTreeMap<String, f64> =
            processes.iter().filter_map(|(name, pid)| Some((name.clone(), of_process(*pid)?))).collect();
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<f64> =
            stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, and, behind idle and iowait, irq and softirq.
        let busy: f64 = [0, 1, 2, 5, 6].into_iter().filter_map(|at: usize| fields.get(at)).sum();
        all.insert(MACHINE.to_owned(), busy / TICKS);
        Self(all)
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let minus = |(name, now): (&String, &f64)| (name.clone(), now - before.0.get(name).copied().unwrap_or(0.0));
        Self(self.0.iter().map(minus).collect())
    }
}

fn of_process(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime and stime are fields 14 and 15; the name in field 2 ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Some(ticks.sum::<f64>() / TICKS)
}
