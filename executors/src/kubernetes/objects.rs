//! Objects of one kind, followed for whoever keeps something in step with them.
//!
//! What must hold: whoever listens hears of every object that is there and of every one that is gone, in that order where one has taken the name of
//! another; what happened while nobody watched is found by the next complete list.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::error::watch_error;
use super::pauses::Pauses;

/// Namespace (empty for what has none) and name of an object.
pub type ObjectKey = (String, String);

/// What happens to objects of a kind.
#[derive(Clone, Debug)]
pub enum News<K> {
    /// It is there, or is so now.
    Applied(Arc<K>),
    /// It is no more; as it was last.
    Gone(Arc<K>),
    /// All that there are were told.
    Listed,
}

pub(super) fn key_of<K: Resource>(object: &K) -> ObjectKey {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Follows until nobody wants news any more. `what` they are called for people; `seen` hears why they cannot be seen, and when they can be again.
/// `take` sees all news first, and says what is to be told.
pub(super) async fn follow<K>(
    (api, config): (Api<K>, watcher::Config),
    news: &mpsc::Sender<News<K>>,
    what: &str,
    seen: impl Fn(Option<&str>),
    mut take: impl FnMut(&News<K>) -> bool,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config.page_size(500)).backoff(Pauses::default()));
    let mut there: BTreeMap<ObjectKey, Arc<K>> = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let mut away = false;
    while let Some(event) = events.next().await {
        let told = match event {
            Err(error) => {
                // A watch may end at any time; only what is found when it is begun anew says something.
                if !matches!(error, watcher::Error::WatchFailed(_) | watcher::Error::WatchError(_)) {
                    let why = watch_error(what, &error);
                    seen(Some(&why));
                    // Once for each time that it goes away: it is tried again and again.
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(why, "{what} are not seen; trying again");
                    }
                }
                continue;
            }
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(key_of(&object), slim(object));
                continue;
            }
            Ok(Event::InitDone) => all(&mut there, std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => {
                let object = slim(object);
                let before = there.insert(key_of(&*object), object.clone());
                let replaced = before.filter(|before| before.uid() != object.uid());
                replaced.map(News::Gone).into_iter().chain([News::Applied(object)]).collect()
            }
            Ok(Event::Delete(object)) => {
                there.remove(&key_of(&object));
                vec![News::Gone(slim(object))]
            }
        };
        seen(None);
        if std::mem::take(&mut away) {
            tracing::info!("{what} are seen again");
        }
        for one in told {
            if take(&one) && news.send(one).await.is_err() {
                return;
            }
        }
    }
}

/// All that there are. One that was deleted and made anew while nobody looked is gone first.
fn all<K: Resource>(there: &mut BTreeMap<ObjectKey, Arc<K>>, listed: BTreeMap<ObjectKey, Arc<K>>) -> Vec<News<K>> {
    let before = std::mem::replace(there, listed);
    let is_there = |key: &ObjectKey, object: &K| there.get(key).is_some_and(|now| now.uid() == object.uid());
    let gone = before.into_iter().filter(|(key, object)| !is_there(key, object)).map(|(_, object)| News::Gone(object));
    gone.chain(there.values().cloned().map(News::Applied)).chain([News::Listed]).collect()
}

/// What nobody reads is half of it.
pub(super) fn slim<K: Resource>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}
