//! Plays a decision log into fresh cores and compares every answer with the one that was recorded.
//!
//! What must hold: each part of a log (a daemon writes one for each of its cores) is played into a core made from the configuration that
//! the part begins with, and nothing else; the first answer that differs ends the replay, because everything after it may differ for that
//! reason alone. A line that is cut off where a part ends is what a killed daemon leaves, and is told, not held against the log.

use std::io::{self, BufRead, Read as _};

use scheduler_core::Scheduler;
use scheduler_core::record::{Answer, Entry, FORMAT, Input, Line, replay as call};
use scheduler_core::state::JobState;
use serde::Serialize;
use serde_json::Value;

/// Longest line that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// A log that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("line {line}: {source}")]
    Read {
        /// Counted from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not one of a decision log.
    #[error("line {line}: not a line of a decision log: {detail}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// It was written by a version whose logs this one does not know.
    #[error("line {line}: format {got}, this version reads {FORMAT}")]
    Format {
        /// Counted from 1.
        line: usize,
        /// What the line says.
        got: u32,
    },
    /// There is nothing in it.
    #[error("there is no line in it")]
    Empty,
}

/// How a part of a log ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// After a whole line.
    Whole,
    /// Its core went on, but no more was written, for this reason.
    Cut(String),
    /// In the middle of this line, which counts from 1: whoever wrote it was killed.
    Torn(usize),
}

/// One core's part of a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// Of the program that wrote it.
    pub version: String,
    /// Calls that were played.
    pub inputs: u64,
    /// Jobs that were placed in them.
    pub placed: u64,
    /// How it ends.
    pub end: End,
}

/// The first answer that differs.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Where it is recorded, counted from 1.
    pub line: usize,
    /// The time that the core was given, in microseconds since the epoch.
    pub at_micros: i64,
    /// The call.
    pub input: Value,
    /// What the log says was answered.
    pub recorded: Value,
    /// What is answered now.
    pub replayed: Value,
}

/// What came out.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// In the order of the log; the last one is not whole where there is a difference.
    pub parts: Vec<Part>,
    /// `None`: every answer is the one that was recorded.
    pub difference: Option<Difference>,
}

/// A core and where its part stands.
struct Playing {
    core: Scheduler,
    part: Part,
}

/// Replays a log.
///
/// # Errors
/// See [`ReplayError`]; a difference is none.
pub fn replay(mut log: impl BufRead) -> Result<Replay, ReplayError> {
    let mut parts = Vec::new();
    let mut playing: Option<Playing> = None;
    // A line that is none, which is right only where a part ends.
    let mut broken: Option<(usize, String)> = None;
    let mut number = 0;
    let mut text = Vec::new();
    loop {
        text.clear();
        number += 1;
        let read = log.by_ref().take(LONGEST).read_until(b'\n', &mut text);
        if read.map_err(|source| ReplayError::Read { line: number, source })? == 0 {
            break;
        }
        match (serde_json::from_slice::<Line>(&text), broken.take()) {
            (Ok(Line::Begin(begin)), torn) => {
                if begin.format != FORMAT {
                    return Err(ReplayError::Format { line: number, got: begin.format });
                }
                parts.extend(ended(playing.take(), torn)?);
                let core = Scheduler::new(begin.config);
                let core = core.map_err(|error| ReplayError::Line { line: number, detail: error.to_string() })?;
                let part = Part { line: number, version: begin.version, inputs: 0, placed: 0, end: End::Whole };
                playing = Some(Playing { core, part });
            }
            (_, Some((line, detail))) => return Err(ReplayError::Line { line, detail }),
            (Ok(Line::Cut { why }), None) => playing_at(&mut playing, number)?.part.end = End::Cut(why),
            (Ok(Line::Did(entry)), None) => {
                let playing = playing_at(&mut playing, number)?;
                if playing.part.end != End::Whole {
                    return Err(ReplayError::Line { line: number, detail: "the part was cut before it".to_owned() });
                }
                if let Some(difference) = playing.play(entry, number)? {
                    parts.push(playing.part.clone());
                    return Ok(Replay { parts, difference: Some(difference) });
                }
            }
            (Err(error), None) => broken = Some((number, error.to_string())),
        }
    }
    parts.extend(ended(playing, broken)?);
    if parts.is_empty() { Err(ReplayError::Empty) } else { Ok(Replay { parts, difference: None }) }
}

fn playing_at(playing: &mut Option<Playing>, line: usize) -> Result<&mut Playing, ReplayError> {
    let early = || ReplayError::Line { line, detail: "a log begins with a line `begin`".to_owned() };
    playing.as_mut().ok_or_else(early)
}

fn ended(playing: Option<Playing>, torn: Option<(usize, String)>) -> Result<Option<Part>, ReplayError> {
    match (playing, torn) {
        (None, Some((line, detail))) => Err(ReplayError::Line { line, detail }),
        (playing, torn) => Ok(playing.map(|playing| match torn {
            Some((line, _)) => Part { end: End::Torn(line), ..playing.part },
            None => playing.part,
        })),
    }
}

impl Playing {
    fn play(&mut self, Entry { at, input, answer }: Entry, line: usize) -> Result<Option<Difference>, ReplayError> {
        let called = input.clone();
        let replayed = call(&mut self.core, input, at);
        self.part.inputs += 1;
        if replayed == answer {
            self.part.placed += placed(&called, &answer);
            return Ok(None);
        }
        let wrong = |error: serde_json::Error| ReplayError::Line { line, detail: error.to_string() };
        Ok(Some(Difference {
            line,
            at_micros: at.0,
            input: serde_json::to_value(&called).map_err(wrong)?,
            recorded: serde_json::to_value(&answer).map_err(wrong)?,
            replayed: serde_json::to_value(&replayed).map_err(wrong)?,
        }))
    }
}

/// Jobs that a pass placed.
fn placed(input: &Input, answer: &Answer) -> u64 {
    match (input, answer) {
        (Input::Plan { .. }, Answer::Changed(made)) => {
            made.iter().filter(|change| matches!(change.to.state, JobState::Starting { .. })).count() as u64
        }
        _ => 0,
    }
}
