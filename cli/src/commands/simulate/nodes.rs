//! Machines on the command line: `32*cpu=64,memory=512Gi,gpu=8;4*cpu=128`.
//!
//! Invariant: an error names the part of the specification that is wrong. What is not named, the machine has none of.

use api::quantity::{Cpu, Gpus, Memory};
use simulator::Machine;

use crate::error::Error;

/// Most machines of one specification.
const MOST: usize = 100_000;

/// The machines of a specification, named `node-1`, `node-2`, ...; errors name the option.
pub(super) fn parse(flag: &str, spec: &str) -> Result<Vec<Machine>, Error> {
    let mut machines = Vec::new();
    for part in spec.split(';').map(str::trim) {
        let wrong = |what: String| Error::usage(format!("{flag}: `{part}`: {what}"));
        let (count, amounts) = part.split_once('*').map_or(("1", part), |(count, amounts)| (count.trim(), amounts));
        let count: usize = count
            .parse()
            .ok()
            .filter(|count| (1..=MOST).contains(count))
            .ok_or_else(|| wrong(format!("`{count}` is not a number of nodes: write 1 to {MOST} before the *")))?;
        let machine = machine(amounts).map_err(wrong)?;
        if machines.len() + count > MOST {
            return Err(wrong(format!("more than {MOST} nodes")));
        }
        for _ in 0..count {
            machines.push(Machine { name: format!("node-{}", machines.len() + 1), ..machine.clone() });
        }
    }
    Ok(machines)
}

fn machine(amounts: &str) -> Result<Machine, String> {
    let mut machine = Machine { name: String::new(), cpu_millis: 0, memory_bytes: 0, gpus: 0, gpu_model: "unknown".to_owned() };
    let mut seen = Vec::new();
    for amount in amounts.split(',').map(str::trim) {
        let Some((resource, value)) = amount.split_once('=').map(|(resource, value)| (resource.trim(), value.trim())) else {
            return Err(format!("`{amount}` is not RESOURCE=AMOUNT"));
        };
        if seen.contains(&resource) {
            return Err(format!("{resource} is there twice"));
        }
        seen.push(resource);
        let text = |error: api::quantity::QuantityError| format!("{resource}: {error}");
        match resource {
            "cpu" => machine.cpu_millis = value.parse::<Cpu>().map_err(text)?.0,
            "memory" => machine.memory_bytes = value.parse::<Memory>().map_err(text)?.0,
            "gpu" => machine.gpus = value.parse::<Gpus>().map_err(text)?.0,
            other => return Err(format!("`{other}` is not a resource: write cpu, memory or gpu")),
        }
    }
    Ok(machine)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_specification_becomes_machines() {
        let machines = parse("--nodes", "2*cpu=64,memory=512Gi,gpu=8; cpu=500m").unwrap();
        let amounts =
            machines.iter().map(|machine| (machine.name.as_str(), machine.cpu_millis, machine.memory_bytes, machine.gpus));
        assert_eq!(
            amounts.collect::<Vec<_>>(),
            [("node-1", 64_000, 512 << 30, 8), ("node-2", 64_000, 512 << 30, 8), ("node-3", 500, 0, 0)]
        );
    }

    #[test]
    fn the_part_that_is_wrong_is_named() {
        for (spec, part, what) in [
            ("4*cpu=64;x*gpu=8", "`x*gpu=8`", "`x` is not a number of nodes"),
            ("0*cpu=1", "`0*cpu=1`", "1 to 100000"),
            ("99999999999*cpu=1", "`99999999999*cpu=1`", "1 to 100000"),
            ("60000*cpu=1;60000*cpu=2", "`60000*cpu=2`", "more than 100000 nodes"),
            ("4*cpu=64,memory=512Q", "`4*cpu=64,memory=512Q`", "memory: `512Q` is not an amount of memory"),
            ("4*cpu=-1", "`4*cpu=-1`", "cpu: `-1` is not an amount of CPU"),
            ("4*gpu=0.5", "`4*gpu=0.5`", "gpu: `0.5` is not a number of GPUs"),
            ("4*cores=64", "`4*cores=64`", "`cores` is not a resource: write cpu, memory or gpu"),
            ("4*cpu=64,cpu=32", "`4*cpu=64,cpu=32`", "cpu is there twice"),
            ("4*cpu=64,gpu", "`4*cpu=64,gpu`", "`gpu` is not RESOURCE=AMOUNT"),
            ("cpu=1;", "``", "`` is not RESOURCE=AMOUNT"),
        ] {
            let error = parse("--nodes", spec).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.starts_with(&format!("--nodes: {part}: ")) && text.contains(what), "{spec}: {text}");
        }
    }
}
