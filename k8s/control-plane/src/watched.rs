//! What a test waits for in a cluster: the objects of a kind, followed by a watch over a connection of its own.
//!
//! What must hold:
//! - Every change is shown to whoever looks on, in the order in which it was written; what happened while nobody could watch is shown by a list.
//! - Who waits is woken by changes alone, and finds the last one also if it came before.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, Resource};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// After this long what a test waits for will not come.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Pause before a server that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Objects by namespace and name.
pub type Objects = BTreeMap<(String, String), Arc<Value>>;

/// What a watch tells, in the order in which it was written.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// All that there are; what was there before and is not among them is gone.
    List(&'a Objects),
    /// One as it is now.
    Is(&'a Value),
    /// One that is gone, as it was last.
    Gone(&'a Value),
}

/// The objects of a kind. The watch ends when it is dropped.
#[derive(Debug)]
pub struct Watched {
    kind: String,
    objects: watch::Receiver<Objects>,
    task: JoinHandle<()>,
}

impl Watched {
    /// Follows all objects of a kind, with the rights of this kubeconfig.
    ///
    /// # Panics
    /// If the kubeconfig cannot be read.
    pub async fn all<K: Resource<DynamicType = ()>>(kubeconfig: &Path) -> Self {
        Self::each::<K>(kubeconfig, |_| {}).await
    }

    /// Follows all pods.
    ///
    /// # Panics
    /// If the kubeconfig cannot be read.
    pub async fn pods(kubeconfig: &Path) -> Self {
        Self::all::<Pod>(kubeconfig).await
    }

    /// As [`Self::all`]; `see` is shown all that is told.
    ///
    /// # Panics
    /// If the kubeconfig cannot be read.
    pub async fn each<K: Resource<DynamicType = ()>>(kubeconfig: &Path, see: impl FnMut(Told<'_>) + Send + 'static) -> Self {
        let client = client(kubeconfig).await;
        let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<K>(&()));
        let (sender, objects) = watch::channel(Objects::new());
        let task = tokio::spawn(follow(api, sender, see));
        Self { kind: K::plural(&()).into_owned(), objects, task }
    }

    /// Waits until what `so` looks for is there.
    ///
    /// # Panics
    /// If it does not come in time; then with the objects as they are.
    pub async fn find<T>(&self, what: impl Debug, so: impl FnMut(&Objects) -> Option<T>) -> T {
        self.try_find(what, so).await.unwrap_or_else(|late| panic!("{late}"))
    }

    /// As [`Self::find`], for who has more to say.
    ///
    /// # Errors
    /// It does not come in time.
    pub async fn try_find<T>(&self, what: impl Debug, mut so: impl FnMut(&Objects) -> Option<T>) -> Result<T, String> {
        let mut objects = self.objects.clone();
        let mut found = None;
        let look = objects.wait_for(|objects| {
            found = so(objects);
            found.is_some()
        });
        // What was found is kept: the watch goes on while nobody looks.
        let _ = tokio::time::timeout(PATIENCE, look).await.map(|found| found.is_ok());
        found.ok_or_else(|| format!("{what:?} did not come in time; {}:\n{}", self.kind, shown(&self.objects.borrow())))
    }

    /// Waits until the object of this name in namespace `default` is so.
    ///
    /// # Panics
    /// If it is not in time.
    pub async fn until(&self, name: &str, so: impl Fn(&Value) -> bool) -> Arc<Value> {
        let key = ("default".to_owned(), name.to_owned());
        self.find(name, |objects| objects.get(&key).filter(|object| so(object)).cloned()).await
    }

    /// The objects as they were told last.
    pub fn now(&self) -> Objects {
        self.objects.borrow().clone()
    }

    /// Wakes whoever waits for any change.
    pub fn changes(&self) -> watch::Receiver<Objects> {
        self.objects.clone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The latest of them, without what they ask for.
fn shown(objects: &Objects) -> String {
    let mut all: Vec<&Arc<Value>> = objects.values().collect();
    all.sort_by_key(|object| std::cmp::Reverse(object["metadata"]["creationTimestamp"].as_str()));
    let line = |object: &&Arc<Value>| format!("{} node {} {}", object["metadata"], object["spec"]["nodeName"], object["status"]);
    all.iter().take(20).map(line).collect::<Vec<_>>().join("\n")
}

async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()));
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let client =
        config.map_err(|error| error.to_string()).and_then(|config| Client::try_from(config).map_err(|error| error.to_string()));
    client.unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()))
}

async fn follow(api: Api<DynamicObject>, objects: watch::Sender<Objects>, mut see: impl FnMut(Told<'_>)) {
    let mut events = pin!(watcher(api, watcher::Config::default()));
    let mut listed = Objects::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let (key, value) = read(&object);
                listed.insert(key, value);
            }
            Ok(Event::InitDone) => {
                let new = std::mem::take(&mut listed);
                see(Told::List(&new));
                objects.send_replace(new);
            }
            Ok(Event::Apply(object)) => {
                let (key, value) = read(&object);
                see(Told::Is(&value));
                objects.send_modify(|objects| drop(objects.insert(key, value)));
            }
            Ok(Event::Delete(object)) => {
                let (key, value) = read(&object);
                see(Told::Gone(&value));
                objects.send_modify(|objects| drop(objects.remove(&key)));
            }
            // The next one asks again: a server that was killed for a list, one that has forgotten the version for a list too.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn read(object: &DynamicObject) -> ((String, String), Arc<Value>) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    ((text(&object.metadata.namespace), text(&object.metadata.name)), Arc::new(value))
}
