//! Types of single values of the configuration. Each is parsed once, whether it comes from a flag, the environment or the file, and
//! says in its error what is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::names;

/// A value that is not allowed, with what is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ValueError {
    text: String,
    expected: String,
}

fn error(text: &str, expected: impl Into<String>) -> ValueError {
    ValueError { text: text.to_owned(), expected: expected.into() }
}

/// Text in the file, parsed like a flag.
macro_rules! from_text {
    ($($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

from_text!(Listen, StoreUrl, Label, ExecutorKind, GpuUuid, Member, Text);

mod numbers;

pub use numbers::{After, Count, Interval, Pause, Size};

/// Where TCP is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Nowhere: only the Unix socket.
    Off,
    /// There.
    Address(SocketAddr),
}

impl FromStr for Listen {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::Address).map_err(|_| error(text, "an address and port such as 127.0.0.1:7700, [::1]:7700, or off"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Where the job table is, if it is in a PostgreSQL. May hold a password, which is never shown; it is looked at only when the whole
/// configuration is, so that no error of a flag repeats it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The whole text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for StoreUrl {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("(not an address)") };
        let (place, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        match place.rsplit_once('@') {
            Some((who, host)) => write!(f, "{scheme}://{}@{host}{path}", who.split(':').next().unwrap_or_default()),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A DNS-1123 label: the name of a namespace, a queue or a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label(String);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if names::is_label(text) { Ok(Self(text.to_owned())) } else { Err(error(text, names::LABEL_RULE)) }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A word of somebody else's choice: printable, without spaces at its ends, 1 to 1,024 characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let fits = (1..=1_024).contains(&text.chars().count()) && text.trim() == text && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(error(text, "1 to 1024 characters of one line")) }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A group of a cluster, and the namespace that its members belong to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The group.
    pub group: String,
    /// The namespace.
    pub namespace: Label,
}

impl FromStr for Member {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        // Groups may have anything in their names, namespaces may not.
        let parts =
            text.rsplit_once('=').and_then(|(group, namespace)| Some((group.parse::<Text>().ok()?, namespace.parse().ok()?)));
        let wrong = || error(text, "a group and the namespace that its members belong to: write GROUP=NAMESPACE");
        parts.map(|(group, namespace)| Self { group: group.0, namespace }).ok_or_else(wrong)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.group, self.namespace)
    }
}

/// Labels of a node: keys and values as in Kubernetes, none of them the daemon's own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct NodeLabels(BTreeMap<String, String>);

/// Labels that a node may be given.
const NODE_LABELS: usize = 64;

impl NodeLabels {
    /// Keys and values, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(labels: BTreeMap<String, String>) -> Result<Self, ValueError> {
        if labels.len() > NODE_LABELS {
            return Err(error(
                &format!("{} labels", labels.len()),
                format!("a number of labels that a node may have: {NODE_LABELS}"),
            ));
        }
        for (key, value) in &labels {
            if !names::is_label_key(key) {
                return Err(error(key, format!("a label's key: {}", names::LABEL_KEY_RULE)));
            }
            if key.starts_with(names::OWN_PREFIX) {
                return Err(error(
                    key,
                    format!("a label to set: those that begin with {} are made by flashd", names::OWN_PREFIX),
                ));
            }
            if !names::is_label_value(value) {
                return Err(error(value, format!("a label's value: {}", names::LABEL_VALUE_RULE)));
            }
        }
        Ok(Self(labels))
    }
}

impl FromStr for NodeLabels {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut labels = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| error(part, "a label: write KEY=VALUE,KEY=VALUE"))?;
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(error(key, "there once: a node has one value of each label"));
            }
        }
        Self::of(labels)
    }
}

impl<'de> Deserialize<'de> for NodeLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(BTreeMap::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// An executor that this version has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecutorKind {
    /// Processes on this machine.
    Local,
    /// Jobs of a Kubernetes cluster.
    Job,
    /// FlashJobs of a Kubernetes cluster.
    FlashJob,
}

impl ExecutorKind {
    /// Whether what it runs are pods of a cluster.
    pub const fn is_cluster(self) -> bool {
        matches!(self, Self::Job | Self::FlashJob)
    }
}

impl FromStr for ExecutorKind {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "local" => Ok(Self::Local),
            "job" => Ok(Self::Job),
            "flashjob" => Ok(Self::FlashJob),
            _ => Err(error(text, "an executor of this version: it has `local`, `job` and `flashjob`")),
        }
    }
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Job => "job",
            Self::FlashJob => "flashjob",
        })
    }
}

/// What happens behind a job that finds no room.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Discipline {
    /// It gets a reservation, and others start beside it where that cannot delay it.
    #[default]
    Easy,
    /// Nobody starts before it does.
    Fifo,
    /// So do several jobs behind it, and others start beside them where that can delay none.
    Conservative,
}

/// What is done with a GPU that somebody uses past the scheduler.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Foreign {
    /// It is promised to nobody.
    #[default]
    Avoid,
    /// It is promised like any other.
    Ignore,
}

/// What is done with a process of a job that is still on a GPU when the job has ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Orphans {
    /// It is ended.
    #[default]
    End,
    /// The GPU is held back until it has ended by itself.
    Hold,
}

/// Whether a job is kept from device nodes of GPUs that are not its own.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceCgroup {
    /// Where that can be done.
    #[default]
    Auto,
    /// No.
    Off,
    /// Yes, or it does not begin.
    Required,
}

/// What `CUDA_VISIBLE_DEVICES` would call a GPU.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GpuUuid(String);

impl GpuUuid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GpuUuid {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=79).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(error(text, "the name of a GPU: 1 to 79 letters, digits, `-`, `_`, `.`"))
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
