//! Live events: a bounded ring of the latest transitions, and the revision that watchers wait on.
//!
//! Invariants: only durable events are published, in revision order without a gap; the ring holds one contiguous stretch that ends
//! at the published revision; what is older is read from the store, so a slow watcher costs memory to nobody. Without watchers nothing
//! is kept, so that submitting costs nothing for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use scheduler_core::ids::Revision;
use store::{LogEntry, NoticeQuery, Store, StoreError};
use tokio::sync::watch;

/// Events that are kept at most.
const RING: usize = 16_384;

#[derive(Default)]
struct Ring {
    /// Contiguous in revision; the last one is the published revision, unless it is empty.
    events: VecDeque<Arc<LogEntry>>,
}

/// The engine's end.
#[derive(Clone)]
pub struct Feed {
    ring: Arc<Mutex<Ring>>,
    revision: Arc<watch::Sender<Revision>>,
}

impl Feed {
    /// A feed that begins after `revision`.
    pub fn new(revision: Revision) -> Self {
        Self { ring: Arc::default(), revision: Arc::new(watch::Sender::new(revision)) }
    }

    /// Latest published revision.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Whether anybody watches. Somebody who comes later reads what was missed from the store.
    pub fn is_watched(&self) -> bool {
        self.revision.receiver_count() > 0
    }

    /// Tells that everything up to `last` is durable. `events` is called only if somebody watches, and gives all events between
    /// the revision published before and `last`, in order.
    pub fn publish(&self, last: Revision, events: impl FnOnce() -> Vec<LogEntry>) {
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_watched() {
                for event in events() {
                    if ring.events.back().is_some_and(|newest| newest.revision().next() != event.revision()) {
                        ring.events.clear();
                    }
                    if ring.events.len() == RING {
                        ring.events.pop_front();
                    }
                    ring.events.push_back(Arc::new(event));
                }
            } else {
                ring.events.clear();
            }
        }
        self.revision.send_replace(last);
    }

    /// A watcher's end.
    pub fn watch(&self) -> Watch {
        Watch { ring: Arc::clone(&self.ring), revision: self.revision.subscribe() }
    }
}

/// A watcher's end.
#[derive(Clone)]
pub struct Watch {
    ring: Arc<Mutex<Ring>>,
    revision: watch::Receiver<Revision>,
}

impl Watch {
    /// Latest published revision.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until there is something after `after`. False when the daemon publishes no more.
    pub async fn beyond(&mut self, after: Revision) -> bool {
        self.revision.wait_for(|revision| *revision > after).await.is_ok()
    }

    /// Events after `after`, oldest first, at most `limit`; empty if there are none yet. Below the store's floor:
    /// [`StoreError::Compacted`].
    pub async fn read(&self, after: Revision, limit: u32, store: &dyn Store) -> Result<Vec<Arc<LogEntry>>, StoreError> {
        let published = self.revision();
        if published <= after {
            return Ok(Vec::new());
        }
        if let Some(events) = self.recent(after, limit) {
            return Ok(events);
        }
        let jobs = store.events(after, None, limit).await?.into_iter().map(LogEntry::Job);
        let query = NoticeQuery { after, kind: None, name: None, limit };
        let notices = store.notices(&query).await?.into_iter().map(LogEntry::Notice);
        // The two are read one after the other: what was written between them would be there with a gap before it.
        let mut found: Vec<LogEntry> = jobs.chain(notices).filter(|entry| entry.revision() <= published).collect();
        found.sort_by_key(LogEntry::revision);
        found.truncate(limit as usize);
        Ok(found.into_iter().map(Arc::new).collect())
    }

    /// From the ring, if it reaches back that far.
    fn recent(&self, after: Revision, limit: u32) -> Option<Vec<Arc<LogEntry>>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.events.front()?.revision();
        let skip = after.next().0.checked_sub(first.0)?;
        let events: Vec<_> = ring.events.iter().skip(usize::try_from(skip).ok()?).take(limit as usize).cloned().collect();
        // An empty answer would be wrong here: something newer is published, so the ring was cleared in between.
        (!events.is_empty()).then_some(events)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use scheduler_core::ids::{Attempt, JobId, Name};
    use scheduler_core::state::{JobState, Lifecycle};
    use scheduler_core::time::Timestamp;
    use store::EventRecord;

    use super::*;

    fn event(revision: u64) -> LogEntry {
        LogEntry::Job(EventRecord {
            revision: Revision(revision),
            job: JobId(uuid::Uuid::nil()),
            namespace: Name::from("default"),
            at: Timestamp(0),
            what: Name::from("submitted"),
            lifecycle: Lifecycle { state: JobState::Queued { since: Timestamp(0) }, attempt: Attempt(0), lost: 0 },
        })
    }

    fn publish(feed: &Feed, range: std::ops::RangeInclusive<u64>) {
        feed.publish(Revision(*range.end()), || range.map(event).collect());
    }

    #[test]
    fn recent_events_come_from_the_ring_in_order() {
        let feed = Feed::new(Revision(10));
        let watch = feed.watch();
        publish(&feed, 11..=15);
        let events = watch.recent(Revision(12), 2).unwrap();
        assert_eq!(events.iter().map(|event| event.revision().0).collect::<Vec<_>>(), [13, 14]);
        assert!(watch.recent(Revision(9), 10).is_none(), "older than the ring: the store has to answer");
    }

    #[test]
    fn unwatched_events_are_not_kept_and_the_gap_is_seen() {
        let feed = Feed::new(Revision(0));
        publish(&feed, 1..=3);
        let watch = feed.watch();
        assert_eq!(watch.revision(), Revision(3));
        assert!(watch.recent(Revision(1), 10).is_none());
        publish(&feed, 4..=4);
        assert!(watch.recent(Revision(2), 10).is_none(), "3 is missing in the ring");
        assert_eq!(watch.recent(Revision(3), 10).unwrap().len(), 1);
    }

    #[test]
    fn the_ring_is_bounded() {
        let feed = Feed::new(Revision(0));
        let watch = feed.watch();
        publish(&feed, 1..=(RING as u64 + 5));
        assert!(watch.recent(Revision(4), 1).is_none());
        assert_eq!(watch.recent(Revision(5), 1).unwrap()[0].revision(), Revision(6));
    }

    #[tokio::test]
    async fn a_watcher_wakes_on_what_is_published_and_on_the_end() {
        let feed = Feed::new(Revision(0));
        let mut watch = feed.watch();
        publish(&feed, 1..=1);
        assert!(watch.beyond(Revision(0)).await);
        drop(feed);
        assert!(!watch.beyond(Revision(1)).await);
    }
}
