//! Lines against a model that remembers everything and looks through all of it.
#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use scheduler_core::ids::{Attempt, JobId};
use uuid::Uuid;

use super::*;

fn run(number: u128) -> RunId {
    RunId { job: JobId(Uuid::from_u128(number)), attempt: Attempt(1) }
}

const fn amounts(cpu_millis: u64, memory_bytes: u64) -> Amounts {
    Amounts { cpu_millis, memory_bytes }
}

#[test]
fn whoever_is_behind_one_that_does_not_fit_waits() {
    let mut lines = Lines::default();
    lines.wait(1, run(1), amounts(1, 0), amounts(2, 0));
    lines.wait(1, run(2), amounts(2, 0), amounts(2, 0));
    lines.wait(1, run(3), amounts(1, 0), amounts(2, 0));
    let (first, share) = lines.next().unwrap();
    assert_eq!((first, lines.next()), (run(1), None), "the third would fit beside the first, but it is not its turn");
    lines.leave(share);
    assert_eq!(lines.next().unwrap().0, run(2));
    assert_eq!(lines.next(), None);
}

#[test]
fn one_that_leaves_without_its_turn_makes_way() {
    let mut lines = Lines::default();
    lines.enter(Share { line: 1, has: amounts(1, 0) });
    let ticket = lines.wait(1, run(1), amounts(2, 0), amounts(2, 0));
    lines.wait(1, run(2), amounts(1, 0), amounts(2, 0));
    assert!(!lines.is_ready());
    lines.drop_out(ticket);
    lines.drop_out(ticket);
    assert_eq!((lines.held(), lines.next().unwrap().0), (1, run(2)));
}

#[test]
fn lines_take_turns() {
    let mut lines = Lines::default();
    for number in 0..3 {
        lines.wait(7, run(number), amounts(0, 0), amounts(0, 0));
        lines.wait(9, run(10 + number), amounts(0, 0), amounts(0, 0));
    }
    let order: Vec<_> = std::iter::from_fn(|| lines.next()).map(|(run, _)| run).collect();
    assert_eq!(order, [0, 10, 1, 11, 2, 12].map(run));
}

#[test]
fn the_largest_amounts_that_there_are_do_not_overflow() {
    let mut lines = Lines::default();
    let all = amounts(u64::MAX, u64::MAX);
    for number in 0..3 {
        lines.enter(Share { line: 1, has: all });
        lines.wait(1, run(number), all, all);
    }
    assert_eq!(lines.next(), None);
    (0..3).for_each(|_| lines.leave(Share { line: 1, has: all }));
    assert_eq!(lines.next().unwrap().0, run(0));
}

#[derive(Clone, Debug)]
enum Step {
    Wait {
        line: u64,
        wants: Amounts,
        limits: Amounts,
    },
    Next,
    /// Of those that began, the one at this place.
    Leave(prop::sample::Index),
    /// Of those that wait, the one at this place.
    DropOut(prop::sample::Index),
}

fn any_amounts(up_to: u64) -> impl Strategy<Value = Amounts> {
    (0..=up_to, 0..=up_to).prop_map(|(cpu_millis, memory_bytes)| Amounts { cpu_millis, memory_bytes })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u64, any_amounts(4), any_amounts(8)).prop_map(|(line, wants, limits)| Step::Wait { line, wants, limits }),
        4 => Just(Step::Next),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => any::<prop::sample::Index>().prop_map(Step::DropOut),
    ]
}

/// What the model knows of a run that waits.
struct Waits {
    line: u64,
    run: RunId,
    wants: Amounts,
    limits: Amounts,
    ticket: Ticket,
}

fn used(began: &[(Share, Amounts)], line: u64) -> Amounts {
    let of_line = || began.iter().filter(|(share, _)| share.line == line).map(|(share, _)| share.has);
    amounts(of_line().map(|has| has.cpu_millis).sum(), of_line().map(|has| has.memory_bytes).sum())
}

fn first_fits(waiting: &[Waits], began: &[(Share, Amounts)], line: u64) -> bool {
    waiting.iter().find(|waits| waits.line == line).is_some_and(|first| {
        let used = used(began, line);
        let with = amounts(used.cpu_millis + first.wants.cpu_millis, used.memory_bytes + first.wants.memory_bytes);
        with.within(first.limits)
    })
}

proptest! {
    #[test]
    fn nobody_begins_out_of_turn_or_beyond_the_limits(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut lines = Lines::default();
        let mut waiting: Vec<Waits> = Vec::new();
        // Shares in use, with the limits that each came with.
        let mut began: Vec<(Share, Amounts)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait { line, wants, limits } => {
                    let run = run(number as u128);
                    let ticket = lines.wait(line, run, wants, limits);
                    waiting.push(Waits { line, run, wants, limits, ticket });
                }
                Step::Next => {
                    let expected = (0..3).any(|line| first_fits(&waiting, &began, line));
                    let next = lines.next();
                    prop_assert_eq!(next.is_some(), expected);
                    if let Some((run, share)) = next {
                        let index = waiting.iter().position(|waits| waits.line == share.line).unwrap();
                        prop_assert!(first_fits(&waiting, &began, share.line));
                        let waits = waiting.remove(index);
                        prop_assert_eq!((waits.run, waits.wants), (run, share.has));
                        began.push((share, waits.limits));
                    }
                }
                Step::Leave(index) if !began.is_empty() => {
                    let (share, _) = began.remove(index.index(began.len()));
                    lines.leave(share);
                }
                Step::DropOut(index) if !waiting.is_empty() => {
                    let waits = waiting.remove(index.index(waiting.len()));
                    lines.drop_out(waits.ticket);
                }
                Step::Leave(_) | Step::DropOut(_) => {}
            }
            prop_assert_eq!(lines.held(), waiting.len());
            prop_assert_eq!(lines.is_ready(), (0..3).any(|line| first_fits(&waiting, &began, line)));
            // What whoever gives the orders counts on: the largest limits of runs that are there are never exceeded.
            for line in 0..3 {
                let limits: Vec<_> = began.iter().filter(|(share, _)| share.line == line).map(|(_, limits)| *limits).collect();
                let most = |of: fn(&Amounts) -> u64| limits.iter().map(of).max().unwrap_or(0);
                prop_assert!(used(&began, line).within(amounts(most(|l| l.cpu_millis), most(|l| l.memory_bytes))));
            }
            let kept: Vec<u64> = lines.by_id.keys().copied().collect();
            let in_use = |line: u64| waiting.iter().any(|w| w.line == line) || began.iter().any(|(s, _)| s.line == line);
            prop_assert_eq!(kept, (0..3).filter(|line| in_use(*line)).collect::<Vec<_>>());
        }
    }
}
