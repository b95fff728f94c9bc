//! Job bodies that differ as those of real users do.
//!
//! A constant body hides what an index in random order costs, and lets a server that interns what repeats look better than it is.
//! Should a measured job ever run, it does nothing: every command ends at once.

use std::io::Write;

/// splitmix64: small, seeded, good enough to vary bodies.
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same bodies.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

const NAMES: [&str; 8] = ["train", "eval", "sweep", "render", "align", "solve", "fit", "export"];
const QUEUES: [&str; 4] = ["default-batch", "default-batch", "configfile-job", "configfile-interactive"];
const CPUS: [&str; 4] = ["1", "1", "500m", "2"];
const LIMITS: [&str; 4] = ["90s", "30m", "2h", "1d"];
const TEAMS: [&str; 5] = ["vision", "speech", "physics", "genomics", "infra"];

/// Appends one job as JSON.
pub(crate) fn job(random: &mut Random, out: &mut Vec<u8>) {
    // Writing into a vector cannot fail.
    let _ = write_job(random, out);
}

fn write_job(random: &mut Random, out: &mut Vec<u8>) -> std::io::Result<()> {
    let name = random.pick(&NAMES);
    write!(out, r#"{{"name":"{name}-{:x}","priority":{}"#, random.below(1 << 32), random.below(201) as i64 - 100)?;
    match random.below(3) {
        0 => write!(out, r#","command":["true","--seed","{}"]"#, random.below(1_000_000))?,
        1 => write!(out, r#","command":["true","--lr","0.{:06}","--case","{}"]"#, random.below(1_000_000), random.below(5_000))?,
        _ => write!(out, r#","command":["sh","-c","exit 0 # {name} run {}"]"#, random.below(100_000))?,
    }
    write!(out, r#","env":{{"SEED":"{}""#, random.below(1 << 40))?;
    for index in 0..random.below(4) {
        write!(out, r#","OPTION_{index}":"value-{}""#, random.below(10_000))?;
    }
    out.write_all(b"}")?;
    if random.below(2) == 0 {
        write!(out, r#","queue":"{}""#, random.pick(&QUEUES))?;
    }
    if random.below(2) == 0 {
        write!(out, r#","resources":{{"cpu":"{}","memory":"{}Mi"}}"#, random.pick(&CPUS), 16 * (1 + random.below(16)))?;
    }
    if random.below(3) == 0 {
        write!(out, r#","labels":{{"team":"{}","run":"r{}"}}"#, random.pick(&TEAMS), random.below(1_000))?;
    }
    if random.below(4) == 0 {
        write!(out, r#","timeLimit":"{}""#, random.pick(&LIMITS))?;
    }
    out.write_all(b"}")
}

/// Appends `{"jobs":[..]}` with `count` jobs.
pub(crate) fn batch(random: &mut Random, count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"jobs":["#);
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        job(random, out);
    }
    out.extend_from_slice(b"]}");
}

/// Appends a `true` job for gflow's daemon that waits for its job 1.
pub(crate) fn gflow(random: &mut Random, out: &mut Vec<u8>) {
    // Writing into a vector cannot fail.
    let _ = write!(out, r#"{{"command":"true # {}","depends_on":1}}"#, random.below(1_000_000));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::{Random, batch, job};

    #[test]
    fn bodies_are_jobs_that_differ() {
        let mut random = Random::new(7);
        let mut seen = BTreeSet::new();
        for _ in 0..1_000 {
            let mut body = Vec::new();
            job(&mut random, &mut body);
            let spec: api::job::JobSpec = serde_json::from_slice(&body).unwrap();
            assert!(spec.name.unwrap().len() <= 63);
            seen.insert(body);
        }
        assert_eq!(seen.len(), 1_000);
    }

    #[test]
    fn a_batch_is_a_batch_and_a_seed_repeats_it() {
        let made: Vec<Vec<u8>> = (0..2)
            .map(|_| {
                let mut body = Vec::new();
                batch(&mut Random::new(3), 100, &mut body);
                body
            })
            .collect();
        let parsed: api::job::JobBatch = serde_json::from_slice(&made[0]).unwrap();
        assert_eq!(parsed.jobs.len(), 100);
        assert_eq!(made[0], made[1]);
    }
}
