//! Following events of jobs, and of other things where they are asked for: one stream of `GET /events`, taken up again where it broke.
//!
//! Invariants: every event after the starting revision is given once, in order, or [`Item::Compacted`] says that some are gone, and then
//! the caller reads the jobs anew and follows from there. A server that restarts is waited for, but not for ever; one that refuses is not.

use std::time::Duration;

use api::{JobEvent, Notice};
use hyper::header::{HeaderName, HeaderValue};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Client, Stream};
use crate::error::Error;
use crate::output;
use crate::query::Query;
use crate::sse::{Event, Parser};

/// How long a server that went away is waited for: a restart or an upgrade, with a large table.
const RECONNECT_FOR: Duration = Duration::from_mins(5);
/// First pause between tries; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// A stream that is silent for so long, keep-alive comments included, is given up and opened anew.
const SILENCE: Duration = Duration::from_mins(1);

/// What a watch gives.
pub(crate) enum Item {
    /// The next event.
    Event(Box<JobEvent>),
    /// The next event of something that is no job.
    Notice(Box<Notice>),
    /// Events between the last one and now are gone.
    Compacted,
}

/// Tries again, less and less often, until [`RECONNECT_FOR`] is over.
pub(crate) struct Patience {
    since: Option<Instant>,
    pause: Duration,
    told: bool,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self { since: None, pause: FIRST_PAUSE, told: false }
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        if self.told {
            output::note("flash: the server is back");
        }
        *self = Self::new();
    }

    /// Pauses before the next try, or gives `error` back if it is not one that passes, or if it lasted too long.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !error.is_passing() || since.elapsed() > RECONNECT_FOR {
            return Err(error);
        }
        // The first try again comes at once, and most succeed: nothing worth telling.
        if self.pause > FIRST_PAUSE && !std::mem::replace(&mut self.told, true) {
            output::note(&format!("flash: {error}; trying again for {} minutes", RECONNECT_FOR.as_secs() / 60));
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Follows the events of one job, of a namespace, or of all.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    job: Option<Uuid>,
    namespace: Option<String>,
    /// Whether other things than jobs are told, too.
    with_others: bool,
    /// The kinds that are told; all, where none are named.
    kinds: Option<String>,
    /// Revision of the last event that was given.
    last: u64,
    open: Option<(Stream, Parser)>,
    /// Parsed, not given yet.
    ready: std::collections::VecDeque<Event>,
    connected_once: bool,
    patience: Patience,
}

impl<'a> Watch<'a> {
    /// Events after `revision`.
    pub(crate) fn new(client: &'a Client, job: Option<Uuid>, namespace: Option<String>, revision: u64) -> Self {
        Self {
            client,
            job,
            namespace,
            with_others: false,
            kinds: None,
            last: revision,
            open: None,
            ready: std::collections::VecDeque::new(),
            connected_once: false,
            patience: Patience::new(),
        }
    }

    /// Other things, too; of these kinds alone if any are named.
    pub(crate) fn with_notices(mut self, kinds: Option<String>) -> Self {
        self.with_others = true;
        self.kinds = kinds;
        self
    }

    /// The next event, when it comes. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Item, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                match self.take(&event)? {
                    Some(item) => return Ok(item),
                    None => continue,
                }
            }
            let failed = match &mut self.open {
                None => match self.connect().await {
                    Ok(()) => continue,
                    Err(error) if error.status() == Some(410) => return Ok(Item::Compacted),
                    Err(error) if !self.connected_once => return Err(error),
                    Err(error) => error,
                },
                Some((stream, parser)) => match tokio::time::timeout(SILENCE, stream.next()).await {
                    Ok(Ok(Some(piece))) => {
                        self.patience.reset();
                        match parser.push(&piece) {
                            Ok(events) => {
                                self.ready.extend(events);
                                continue;
                            }
                            Err(crate::sse::TooLarge) => return Err(Error::lost("the server sends an event without end")),
                        }
                    }
                    Ok(Ok(None)) => Error::lost("the server ended the stream of events"),
                    Ok(Err(error)) => error,
                    Err(_) => Error::lost("the stream of events fell silent"),
                },
            };
            self.open = None;
            self.patience.pause(failed).await?;
        }
    }

    /// Goes on after `revision`: the caller has read everything up to it.
    pub(crate) fn skip_to(&mut self, revision: u64) {
        self.open = None;
        self.ready.clear();
        self.last = revision;
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let last = self.last.to_string();
        let job = self.job.map(|job| job.to_string());
        let query =
            Query::new("/events").with("after", &last).maybe("job", job.as_deref()).maybe("namespace", self.namespace.as_deref());
        // Not said where it need not be: a server that is older does not know it.
        let query = query.maybe("kind", self.kinds.as_deref());
        let mut headers = vec![(hyper::header::ACCEPT, HeaderValue::from_static("text/event-stream"))];
        if self.connected_once
            && let Ok(value) = HeaderValue::try_from(last)
        {
            headers.push((HeaderName::from_static("last-event-id"), value));
        }
        let stream = self.client.stream(&query, &headers).await?;
        self.open = Some((stream, Parser::default()));
        self.connected_once = true;
        Ok(())
    }

    /// What an event of the stream means; `None` for one that was given before, or that is not asked for.
    fn take(&mut self, event: &Event) -> Result<Option<Item>, Error> {
        match event.kind.as_str() {
            // `message` is what an event without a type is.
            "job" | "message" => {
                let event: JobEvent = serde_json::from_str(&event.data)
                    .map_err(|error| Error::lost(format!("an event is not what this version of flash understands: {error}")))?;
                if event.revision <= self.last {
                    return Ok(None);
                }
                self.last = event.revision;
                Ok(Some(Item::Event(Box::new(event))))
            }
            // A stream that fell behind learns in its middle that what it lacks is gone.
            "gone" => {
                self.open = None;
                self.ready.clear();
                Ok(Some(Item::Compacted))
            }
            kind if self.with_others && api::NoticeKind::of(kind).is_some() => {
                let notice: Notice = serde_json::from_str(&event.data)
                    .map_err(|error| Error::lost(format!("an event is not what this version of flash understands: {error}")))?;
                if notice.revision <= self.last {
                    return Ok(None);
                }
                self.last = notice.revision;
                Ok(Some(Item::Notice(Box::new(notice))))
            }
            _ => Ok(None),
        }
    }
}
