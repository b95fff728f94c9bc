//! How the figures of a simulation are printed: facts for people, one object for programs.

use api::quantity::{Cpu, Memory};
use serde_json::{Value, json};
use simulator::{Cluster, Estimate, Policy, Report, Spread};

use crate::error::Error;
use crate::table::{self, Look, cell};

/// What was simulated, and what came out.
pub(super) struct Run<'a> {
    pub(super) trace: String,
    pub(super) format: String,
    pub(super) estimate: Estimate,
    pub(super) cluster: &'a Cluster,
    pub(super) report: &'a Report,
}

impl Run<'_> {
    fn policy(&self) -> String {
        let name = match self.report.policy {
            Policy::Fifo => "fifo",
            Policy::Easy => "easy",
            Policy::Flash => "flash",
        };
        let many =
            if self.report.reservations > 1 { format!(" with {} reservations", self.report.reservations) } else { String::new() };
        format!("{name}{many}")
    }

    /// Cores, bytes and GPUs of all machines together.
    fn capacity(&self) -> (usize, u64, u64, u64) {
        let machines = &self.cluster.machines;
        let sum = |amount: fn(&simulator::Machine) -> u64| machines.iter().map(amount).sum::<u64>();
        let gpus = sum(|machine| u64::from(machine.gpus));
        (machines.len(), sum(|machine| machine.cpu_millis), sum(|machine| machine.memory_bytes), gpus)
    }

    /// One line for a chart.
    pub(super) fn title(&self) -> String {
        let name = self.trace.rsplit('/').next().unwrap_or(&self.trace);
        format!("{name}: {} jobs, policy {}, estimates {}", self.report.jobs, self.policy(), self.estimate)
    }

    /// The report, with what it was made from.
    pub(super) fn json(&self) -> Result<Value, Error> {
        let mut value = serde_json::to_value(self.report).map_err(std::io::Error::other)?;
        let (nodes, cpu, memory, gpus) = self.capacity();
        let capacity = json!({"nodes": nodes, "cpu": Cpu(cpu), "memory": Memory(memory), "gpu": gpus});
        if let Value::Object(object) = &mut value {
            object.insert("trace".to_owned(), json!(self.trace));
            object.insert("format".to_owned(), json!(self.format));
            object.insert("estimate".to_owned(), json!(self.estimate.to_string()));
            object.insert("capacity".to_owned(), capacity);
        }
        Ok(value)
    }

    /// For people.
    pub(super) fn table(&self, look: Look) -> String {
        let report = self.report;
        let (nodes, cpu, memory, gpus) = self.capacity();
        let percent = |has: bool, share: f64| if has { format!("{:.1} %", 100.0 * share) } else { "-".to_owned() };
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let mut facts = vec![
            ("trace", format!("{} ({})", self.trace, self.format)),
            ("machines", format!("{}: cpu {}, memory {}, gpu {gpus}", plural(nodes, "node"), Cpu(cpu), Memory(memory))),
            ("policy", format!("{}, estimates {}, seed {}", self.policy(), self.estimate, report.seed)),
            ("jobs", self.jobs()),
            ("makespan", format!("{} ({})", seconds(report.makespan_seconds), span(report.makespan_seconds))),
            (
                "bound",
                format!(
                    "{}; the makespan is {:.3} times that (work {}, longest job {}, last arrivals {})",
                    seconds(report.bound.makespan_seconds),
                    report.bound.ratio,
                    seconds(report.bound.area_seconds),
                    seconds(report.bound.longest_job_seconds),
                    seconds(report.bound.arrival_seconds)
                ),
            ),
            (
                "in use",
                format!(
                    "cpu {}, memory {}, gpu {}",
                    percent(cpu > 0, report.utilisation.cpu),
                    percent(memory > 0, report.utilisation.memory),
                    percent(gpus > 0, report.utilisation.gpu)
                ),
            ),
            ("longest queue", plural(report.longest_queue as usize, "job")),
            ("fairness", self.fairness()),
            ("preemptions", format!("{}, {} of work lost", report.preemptions, seconds(report.lost_work_seconds))),
            ("decisions", format!("{}, {:.0} a second of real time", report.decisions, report.decisions_per_second)),
        ];
        facts.extend(report.notes.iter().map(|note| ("note", note.clone())));
        facts.extend(report.refused.reasons.iter().map(|refusal| ("refused", format!("{}: {}", refusal.jobs, refusal.reason))));
        let row = |name: &str, spread: &Spread, digits: usize| {
            let values = [spread.mean, spread.p50, spread.p95, spread.p99];
            std::iter::once(cell(name)).chain(values.map(|value| cell(format!("{value:.digits$}")))).collect()
        };
        let rows = vec![row("wait (s)", &report.wait, 1), row("bounded slowdown", &report.bounded_slowdown, 2)];
        let spreads = table::table(look, &["", "MEAN", "P50", "P95", "P99"], rows);
        format!("{}\n{spreads}", table::facts(&facts))
    }

    fn jobs(&self) -> String {
        let report = self.report;
        let counts = [(report.timed_out, "ended by their time limit"), (report.refused.jobs, "refused")];
        let rest = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
        format!("{}, {} completed{}", report.jobs, report.completed, rest.collect::<String>())
    }

    fn fairness(&self) -> String {
        let contended = self.report.contended_jain_index.map(|index| format!(", {index:.3} while jobs wait"));
        format!("Jain {:.3} over all{}", self.report.jain_index, contended.unwrap_or_default())
    }
}

fn seconds(value: f64) -> String {
    let text = format!("{value:.3}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Days, hours, minutes.
fn span(value: f64) -> String {
    let whole = value.round() as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{rest}s"),
        (0, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}
