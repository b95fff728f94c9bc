//! Workloads of the core's benches: made once here, measured in `benches/`.
//!
//! What must hold: a workload is the same in every run (scrambled numbers, no seed from outside); jobs bring their own copy of what they
//! ask for, as a server makes them; what is measured is real, and a measurement that found nothing to do fails instead of being fast.

pub mod blocked;
pub mod clock;
pub mod cluster;
pub mod make;
pub mod mixed;

/// True where a bench is only to be run once, to see that it does (`cargo test --benches`, or `--test`): then it need not be a large one.
pub fn is_test() -> bool {
    let given = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    given("--test") || !given("--bench")
}
