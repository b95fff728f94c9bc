//! Follows nodes and pods, and makes views of them.
//!
//! What must hold:
//! - A watch resumes with bookmarks for as long as it lasts. Whatever ends it (an error, a version that is too old, an API server that does
//!   not answer) is followed by complete lists: so nothing that was missed stays missed.
//! - The cluster is away when a list cannot be had, or when it does not answer a small question in time; it is back when lists are complete.
//! - It is tried again at once, then with pauses that double up to a bound.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::error::{said, watch_error};
use super::ClusterView;
use super::books::{Books, Bound, Rules};
use super::room::{NodeRoom, Room};

/// Bound pods that are not over: those alone take something of a node.
const PODS: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
/// Pause before the cluster is asked whether it still answers.
const PROBE: Duration = Duration::from_secs(5);
/// How long it may take for that.
const ANSWER: Duration = Duration::from_secs(5);
/// How long complete lists may take.
const LISTS: Duration = Duration::from_mins(2);
/// Pause between two tries: doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// News that come within this time make one view.
const GATHER: Duration = Duration::from_millis(50);

/// What is to be followed, and how.
pub struct WatchOptions {
    /// The cluster, and who we are there.
    pub client: Client,
    /// Name of this installation: pods of others ask of nodes what is not ours.
    pub instance: String,
    /// How long a node may be silent until it is lost.
    pub grace: Duration,
    /// Keys of taints that keep none of our pods away.
    pub tolerated: Vec<String>,
}

/// Follows until it is dropped.
pub struct NodeWatch {
    views: watch::Receiver<Arc<ClusterView>>,
    room: NodeRoom,
    task: JoinHandle<()>,
}

impl NodeWatch {
    /// Begins. Needs a runtime.
    pub fn start(options: WatchOptions) -> Self {
        let (sender, views) = watch::channel(Arc::default());
        let rules = Rules { instance: options.instance, grace: options.grace, tolerated: options.tolerated };
        let room = NodeRoom(Arc::new(watch::Sender::new(Room::new(Books::new(rules)))));
        let follower = Follower { client: options.client, room: room.clone(), sender };
        Self { views, room, task: tokio::spawn(follower.run()) }
    }

    /// What is known, now and from now on.
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.views.clone()
    }

    /// For those that bind pods to these nodes.
    pub fn room(&self) -> NodeRoom {
        self.room.clone()
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One of the two streams.
#[expect(clippy::large_enum_variant, reason = "the large ones are the common ones, and each is moved once")]
enum News {
    Node(Event<Node>),
    Pod(Event<Pod>),
    Over(String),
}

struct Follower {
    client: Client,
    room: NodeRoom,
    sender: watch::Sender<Arc<ClusterView>>,
}

/// From one pair of lists on.
#[derive(Default)]
struct Session {
    nodes: Vec<Node>,
    pods: Vec<Bound>,
    /// Of nodes and of pods, a list is complete.
    listed: (bool, bool),
    /// When what is known is to be shown.
    due: Option<Instant>,
}

impl Session {
    const fn is_whole(&self) -> bool {
        self.listed.0 && self.listed.1
    }
}

impl Follower {
    async fn run(mut self) {
        let mut pause = PAUSE.0;
        let mut tries = 0_u32;
        loop {
            let mut session = Session::default();
            let why = self.follow(&mut session).await;
            if session.is_whole() {
                // A watch may end at any time. Whether the cluster is there the next lists show.
                tracing::debug!(why, "listing the cluster's nodes and pods anew");
                (pause, tries) = (PAUSE.0, 0);
            } else {
                self.away(&why);
            }
            if tries > 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            tries = tries.saturating_add(1);
        }
    }

    /// Follows for as long as that goes well; why it does not any more.
    async fn follow(&mut self, session: &mut Session) -> String {
        let nodes = watcher(Api::<Node>::all(self.client.clone()), watcher::Config::default());
        let pods = watcher(Api::<Pod>::all(self.client.clone()), watcher::Config::default().fields(PODS));
        let mut news = pin!(futures::stream::select(
            nodes.map(|event| event.map_or_else(|error| News::Over(watch_error("nodes", &error)), News::Node)),
            pods.map(|event| event.map_or_else(|error| News::Over(watch_error("pods", &error)), News::Pod)),
        ));
        let begun = Instant::now();
        let mut probe = begun + PROBE;
        loop {
            let far = begun + Duration::from_hours(24 * 365);
            let due =
                [session.due, self.room.0.borrow().books.deadline().filter(|_| session.is_whole())].into_iter().flatten().min();
            tokio::select! {
                event = news.next() => match event {
                    Some(News::Over(why)) => return why,
                    Some(News::Node(event)) => self.node(session, event),
                    Some(News::Pod(event)) => self.pod(session, event),
                    None => return "the watch ended".to_owned(),
                },
                () = sleep_until(due.unwrap_or(far)) => self.show(session),
                () = sleep_until(probe) => {
                    if !session.is_whole() && begun.elapsed() > LISTS {
                        return format!("no list of its nodes and pods within {} s", LISTS.as_secs());
                    }
                    if let Err(why) = ask(&self.client).await {
                        self.away(&why);
                        return why;
                    }
                    probe = Instant::now() + PROBE;
                }
            }
        }
    }

    fn node(&self, session: &mut Session, event: Event<Node>) {
        let now = Instant::now();
        let room = &self.room.0;
        match event {
            Event::Init => session.nodes.clear(),
            Event::InitApply(node) => session.nodes.push(node),
            Event::InitDone => {
                let nodes = std::mem::take(&mut session.nodes);
                session.listed.0 = true;
                room.send_modify(|room| room.books.set_nodes(nodes, now));
            }
            Event::Apply(node) => room.send_modify(|room| room.books.put_node(node, now)),
            Event::Delete(node) => {
                room.send_modify(|room| room.books.drop_node(node.metadata.name.as_deref().unwrap_or_default()));
            }
        }
        self.soon(session, now);
    }

    fn pod(&self, session: &mut Session, event: Event<Pod>) {
        let room = &self.room.0;
        match event {
            Event::Init => {
                session.pods.clear();
                room.send_modify(|room| room.lists_begun += 1);
            }
            Event::InitApply(pod) => session.pods.extend(room.borrow().books.bound(&pod)),
            Event::InitDone => {
                let pods = std::mem::take(&mut session.pods);
                session.listed.1 = true;
                room.send_modify(|room| room.set_pods(pods));
            }
            Event::Apply(pod) => room.send_modify(|room| room.put_pod(&pod)),
            Event::Delete(pod) => room.send_modify(|room| room.books.drop_pod(&pod)),
        }
        self.soon(session, Instant::now());
    }

    fn soon(&self, session: &mut Session, now: Instant) {
        if session.is_whole() {
            session.due.get_or_insert(now + GATHER);
            self.room.0.send_if_modified(|room| !std::mem::replace(&mut room.listed, true));
        }
    }

    fn show(&mut self, session: &mut Session) {
        session.due = None;
        let mut changed = None;
        self.room.0.send_if_modified(|room| {
            changed = room.books.view(Instant::now());
            false
        });
        self.sender.send_if_modified(|view| {
            let is_news = changed.is_some() || view.away.is_some() || !view.listed;
            if is_news {
                let nodes = changed.unwrap_or_else(|| view.nodes.clone());
                if let Some(why) = &view.away {
                    tracing::info!(nodes = nodes.len(), why, "the cluster answers again");
                }
                *view = Arc::new(ClusterView { listed: true, away: None, nodes });
            }
            is_news
        });
    }

    fn away(&self, why: &str) {
        self.sender.send_if_modified(|view| {
            let is_first = view.away.is_none();
            let is_news = view.away.as_deref() != Some(why);
            if is_first {
                tracing::warn!(why, "the cluster does not answer; nothing is started there until it does");
            }
            if is_news {
                *view = Arc::new(ClusterView { away: Some(why.to_owned()), ..ClusterView::clone(view) });
            }
            is_news
        });
    }
}

/// Whether it answers at all.
async fn ask(client: &Client) -> Result<(), String> {
    match timeout(ANSWER, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}
