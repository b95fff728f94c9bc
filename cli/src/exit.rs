//! From how a job ended to the exit code that stands for it, as a shell would give it.
//!
//! Invariants: 0 exactly for success; a signal is 128 + its number; an exit code that does not fit a byte keeps its lowest eight bits, as
//! the kernel does, but never becomes 0.

use api::{Outcome, OutcomeWord};

/// What `timeout(1)` gives, too.
const TIME_LIMIT: u8 = 124;
/// What a shell gives for a program that cannot be started.
const NOT_STARTED: u8 = 127;
/// 128 + SIGINT: somebody ended it.
const CANCELLED: u8 = 130;

/// Failures keep out of 0.
fn failing(code: i32) -> u8 {
    match (code & 0xff) as u8 {
        0 => 1,
        code => code,
    }
}

/// The exit code for an outcome.
pub(crate) fn code(outcome: &Outcome) -> u8 {
    let signal = outcome.signal.map(|signal| failing(128 + signal));
    match outcome.result {
        OutcomeWord::Succeeded => 0,
        OutcomeWord::Cancelled => signal.unwrap_or(CANCELLED),
        OutcomeWord::Failed => match outcome.reason.as_deref() {
            Some("timeLimit") => TIME_LIMIT,
            Some("start") => NOT_STARTED,
            _ => signal.or_else(|| outcome.exit_code.map(failing)).unwrap_or(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(result: OutcomeWord, reason: Option<&str>, exit_code: Option<i32>, signal: Option<i32>) -> Outcome {
        Outcome { result, reason: reason.map(str::to_owned), message: None, task: None, exit_code, signal, by: None }
    }

    #[test]
    fn outcomes_map_as_a_shell_would() {
        use OutcomeWord::{Cancelled, Failed, Succeeded};
        for (result, reason, exit_code, signal, expected) in [
            (Succeeded, None, Some(0), None, 0),
            (Succeeded, None, None, None, 0),
            (Failed, Some("exitCode"), Some(3), None, 3),
            (Failed, Some("exitCode"), Some(255), None, 255),
            (Failed, Some("exitCode"), Some(256), None, 1),
            (Failed, Some("exitCode"), Some(0), None, 1),
            (Failed, Some("exitCode"), Some(-1), None, 255),
            (Failed, Some("signal"), None, Some(9), 137),
            (Failed, Some("signal"), None, Some(15), 143),
            (Failed, Some("timeLimit"), None, Some(15), 124),
            (Failed, Some("start"), None, None, 127),
            (Failed, Some("infrastructure"), None, None, 1),
            (Cancelled, None, None, None, 130),
            (Cancelled, None, None, Some(15), 143),
        ] {
            assert_eq!(
                code(&outcome(result, reason, exit_code, signal)),
                expected,
                "{result:?} {reason:?} {exit_code:?} {signal:?}"
            );
        }
    }
}
