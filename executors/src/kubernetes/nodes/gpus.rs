//! As what a cluster counts GPUs, and how many of each there are. Pure.
//!
//! What must hold: a count has no entry for what there is none of, so that two that are the same are equal.

use std::collections::BTreeMap;
use std::fmt;

/// Whole GPUs, and those that a device plugin gives out as if they were.
const GPU: &str = "nvidia.com/gpu";
/// MIG instances; the profile follows.
const MIG: &str = "nvidia.com/mig-";
/// Ends the name of what several pods get at the same time.
const SHARED: &str = ".shared";
/// Parts of GPUs: as many for each GPU as the label of the node says.
const REPLICAS: &str = "nvidia.com/gpu.shared";

/// What the device plugin of a node gives out by count. Who gets which is the plugin's to say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GpuResource {
    /// Whole GPUs.
    Whole,
    /// MIG instances of this profile, as the driver calls it: `1g.10gb`, `1g.10gb+me`.
    Mig(String),
    /// Parts of GPUs. Whether two of them are of the same GPU nobody says.
    Shared,
}

impl GpuResource {
    /// What a cluster calls so; `None` for what is neither a GPU nor a part of one. Instances that several pods have are none.
    pub fn called(name: &str) -> Option<Self> {
        match name {
            GPU => return Some(Self::Whole),
            REPLICAS => return Some(Self::Shared),
            _ => {}
        }
        let profile = name.strip_prefix(MIG).filter(|profile| !profile.is_empty() && !profile.ends_with(SHARED))?;
        // A name of a resource has no `+`: the plugin writes a dot.
        Some(Self::Mig(profile.replacen("gb.", "gb+", 1)))
    }

    /// What a cluster calls it.
    pub fn name(&self) -> String {
        match self {
            Self::Whole => GPU.to_owned(),
            Self::Mig(profile) => format!("{MIG}{}", profile.replace('+', ".")),
            Self::Shared => REPLICAS.to_owned(),
        }
    }
}

impl fmt::Display for GpuResource {
    /// Several of them, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("GPUs"),
            Self::Mig(profile) => write!(f, "MIG instances {profile}"),
            Self::Shared => f.write_str("parts of GPUs"),
        }
    }
}

/// How many there are of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GpuCounts(BTreeMap<GpuResource, u32>);

impl GpuCounts {
    /// So many whole ones.
    pub fn whole(count: u32) -> Self {
        [(GpuResource::Whole, count)].into_iter().collect()
    }

    /// None of any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of this one.
    pub fn of(&self, resource: &GpuResource) -> u32 {
        self.0.get(resource).copied().unwrap_or(0)
    }

    /// Each of which there are some.
    pub fn each(&self) -> impl Iterator<Item = (&GpuResource, u32)> {
        self.0.iter().map(|(resource, count)| (resource, *count))
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (resource, more) in &other.0 {
            let count = self.0.entry(resource.clone()).or_default();
            *count = count.saturating_add(*more);
        }
        self
    }

    /// What is left without the other; nothing where that is more.
    #[must_use]
    pub fn minus(mut self, other: &Self) -> Self {
        self.0.retain(|resource, count| {
            *count = count.saturating_sub(other.of(resource));
            *count > 0
        });
        self
    }
}

impl FromIterator<(GpuResource, u32)> for GpuCounts {
    fn from_iter<I: IntoIterator<Item = (GpuResource, u32)>>(all: I) -> Self {
        Self(all.into_iter().filter(|(_, count)| *count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_called_as_the_device_plugin_calls_them() {
        let mig = |profile: &str| Some(GpuResource::Mig(profile.to_owned()));
        for (name, resource) in [
            ("nvidia.com/gpu", Some(GpuResource::Whole)),
            ("nvidia.com/mig-1g.10gb", mig("1g.10gb")),
            ("nvidia.com/mig-1g.10gb.me", mig("1g.10gb+me")),
            ("nvidia.com/mig-1g.12gb.me.all", mig("1g.12gb+me.all")),
            ("nvidia.com/mig-1g.23gb-me", mig("1g.23gb-me")),
            ("nvidia.com/gpu.shared", Some(GpuResource::Shared)),
        ] {
            assert_eq!(GpuResource::called(name), resource);
            assert_eq!(resource.map(|resource| resource.name()).as_deref(), Some(name));
        }
        for other in ["cpu", "nvidia.com/mig-", "nvidia.com/mig-1g.10gb.shared", "amd.com/gpu"] {
            assert_eq!(GpuResource::called(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_is_not_counted() {
        let mig = || GpuResource::Mig("1g.10gb".to_owned());
        let some = |whole: u32, parts: u32| [(GpuResource::Whole, whole), (mig(), parts)].into_iter().collect::<GpuCounts>();
        assert_eq!(some(0, 0), GpuCounts::default());
        assert_eq!(some(1, 2).plus(&some(0, 3)), some(1, 5));
        assert_eq!(some(1, 2).minus(&some(1, 3)), GpuCounts::default());
        assert_eq!((some(4, 7).minus(&some(0, 2)).of(&mig()), some(4, 7).minus(&some(5, 0)).of(&GpuResource::Whole)), (5, 0));
    }
}
