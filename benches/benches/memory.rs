//! P7, the core's part: bytes that a queued job takes. Not a time, so it is counted once and printed.
//!
//! Counted is what the allocator was asked for and has not got back. What it keeps besides, and what the daemon has of a job outside of the
//! core, is in the daemon's resident memory, not here.

mod counting;

use anyhow::Result;
use benches::is_test;
use benches::mixed::{Limits, Mixed};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() -> Result<()> {
    let sizes: &[u64] = if is_test() { &[1_000] } else { &[10_000, 100_000, 1_000_000] };
    for (limits, name) in [(Limits::One, "one time limit"), (Limits::Three, "three time limits"), (Limits::Own, "each its own")] {
        for &jobs in sizes {
            let mut mixed = Mixed::new(limits)?;
            let before = counting::live();
            mixed.submit(jobs)?;
            let bytes = (counting::live() - before) / jobs;
            println!("{:>9} queued, {name:<17}: {bytes:>4} bytes a job", mixed.len());
        }
    }
    Ok(())
}
