//! The thread that asks, and the one that watches it.
//!
//! What must hold: nobody but the first of them ever calls into a driver; nobody waits for it; when a call has not come back for as long as
//! [`Watcher::start`] was told, a view says so with the call's name, and the next survey takes that back. Threads that hang are left behind at
//! the end of the process, because nothing can end them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{GpuSource, Survey};

/// Where nothing was found, it is looked so many times less often.
const SELDOM: u32 = 10;
/// How often within its patience the second thread looks.
const LOOKS: u32 = 8;

/// A call that does not come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Its name.
    pub function: &'static str,
    /// When it was made.
    pub since: Instant,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The last survey that ended; empty before the first.
    pub survey: Survey,
    /// Which round it was, from 1.
    pub round: u64,
    /// What keeps the next one from ending.
    pub stall: Option<Stall>,
}

/// Why nobody looks.
#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    /// A thread could not be started.
    #[error("starting the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

#[derive(Debug)]
struct Shared {
    views: watch::Sender<Arc<View>>,
    call: Mutex<Option<Stall>>,
    /// Rounds that have begun.
    begun: AtomicU64,
}

/// A handle on the threads; they end some time after the last one is gone.
#[derive(Clone, Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    nudge: SyncSender<()>,
}

/// The looking thread's side.
#[derive(Debug)]
pub struct Rounds {
    shared: Weak<Shared>,
    nudges: Receiver<()>,
    interval: Duration,
}

impl Watcher {
    /// Starts looking, each time `interval` after the last survey ended. `patience` is how long a call may take.
    ///
    /// # Errors
    /// [`WatcherError`].
    pub fn start(mut source: Box<dyn GpuSource>, interval: Duration, patience: Duration) -> Result<Self, WatcherError> {
        let (nudge, nudges) = sync_channel(1);
        let shared =
            Arc::new(Shared { views: watch::Sender::new(Arc::default()), call: Mutex::new(None), begun: AtomicU64::new(1) });
        let mut rounds = Rounds { shared: Arc::downgrade(&shared), nudges, interval };
        spawn("gpus", move || source.run(&mut rounds))?;
        let watched = Arc::downgrade(&shared);
        spawn("gpu-watchdog", move || guard(&watched, patience))?;
        Ok(Self { shared, nudge })
    }

    /// What is known, now and whenever it changes.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.shared.views.subscribe()
    }

    /// Asks for a look soon. Gives the number of the first round that begins after this call.
    pub fn look(&self) -> u64 {
        let next = self.shared.begun.load(Ordering::SeqCst) + 1;
        // One that is waiting already serves.
        let _full = self.nudge.try_send(());
        next
    }
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), WatcherError> {
    let made = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    made.map(drop).map_err(|source| WatcherError::Thread { name, source })
}

impl Rounds {
    /// Says which call is about to be made.
    pub fn calling(&self, function: &'static str) {
        self.set(Some(Stall { function, since: Instant::now() }));
    }

    fn set(&self, call: Option<Stall>) {
        if let Some(shared) = self.shared.upgrade() {
            *shared.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
        }
    }

    /// Tells what was found and waits until it is time to look again; false when nobody wants to know any more.
    pub fn tell(&mut self, survey: Survey) -> bool {
        self.set(None);
        let Some(shared) = self.shared.upgrade() else { return false };
        let wait = if survey.gpus.is_empty() { self.interval * SELDOM } else { self.interval };
        let round = shared.begun.load(Ordering::SeqCst);
        shared.views.send_replace(Arc::new(View { survey, round, stall: None }));
        drop(shared);
        let waited = self.nudges.recv_timeout(wait);
        let Some(shared) = self.shared.upgrade() else { return false };
        shared.begun.fetch_add(1, Ordering::SeqCst);
        !matches!(waited, Err(RecvTimeoutError::Disconnected))
    }
}

/// Says so when a call does not come back.
fn guard(shared: &Weak<Shared>, patience: Duration) {
    loop {
        std::thread::sleep(patience / LOOKS);
        let Some(shared) = shared.upgrade() else { return };
        // Held over the publication, so that it cannot come after the end of the call.
        let call = shared.call.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stall) = call.filter(|call| call.since.elapsed() >= patience) else { continue };
        shared.views.send_if_modified(|view| {
            let news = view.stall != Some(stall);
            if news {
                *view = Arc::new(View { stall: Some(stall), ..View::clone(view) });
            }
            news
        });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::gpu::{Fixed, Gpu};

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn until(watcher: &Watcher, what: impl FnMut(&Arc<View>) -> bool) -> Arc<View> {
        let mut views = watcher.views();
        tokio::time::timeout(PATIENCE, views.wait_for(what)).await.unwrap().unwrap().clone()
    }

    #[tokio::test]
    async fn what_is_fixed_is_told_and_a_look_is_a_later_round() {
        let gpus = vec![Gpu { uuid: "GPU-1".to_owned(), ..Gpu::default() }];
        let watcher = Watcher::start(Box::new(Fixed::new(gpus)), PATIENCE, PATIENCE).unwrap();
        let first = until(&watcher, |view| view.round > 0).await;
        assert_eq!((first.survey.gpus[0].gpu.uuid.as_str(), first.stall), ("GPU-1", None));
        let round = watcher.look();
        assert!(round > first.round);
        until(&watcher, |view| view.round >= round).await;
    }

    /// Hangs in its second round until it is let go.
    struct Hanging(Receiver<()>);

    impl GpuSource for Hanging {
        fn run(&mut self, rounds: &mut Rounds) {
            let mut first = true;
            loop {
                rounds.calling("ask");
                if !std::mem::take(&mut first) {
                    let _gone = self.0.recv();
                }
                if !rounds.tell(Survey { problems: vec!["told".to_owned()], ..Survey::default() }) {
                    return;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_does_not_come_back_is_named_until_it_does() {
        let (free, held) = sync_channel(1);
        let short = Duration::from_millis(8);
        let watcher = Watcher::start(Box::new(Hanging(held)), short, short).unwrap();
        let stalled = until(&watcher, |view| view.stall.is_some()).await;
        assert_eq!(stalled.stall.map(|stall| stall.function), Some("ask"));
        assert_eq!(stalled.survey.problems, ["told"], "what was known is still told");
        free.send(()).unwrap();
        until(&watcher, |view| view.stall.is_none() && view.round > stalled.round).await;
    }
}
