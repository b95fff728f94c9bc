//! `[[queues]]`, `[[cohorts]]` and `[[priority_classes]]` of `flashd.toml`: seeds, which create what is absent at a start.
//!
//! Invariants: what is wrong is told with the line of its key, also where entries are wrong only together (a cohort that leads back to
//! itself, more guaranteed than a cohort may use); what passes here makes a core.

use std::collections::BTreeMap;
use std::ops::Range;

use api::quantity::{Duration, Weight};
use api::{Amounts, CohortShare, CohortSpec, FairShare, PriorityClassSpec, QueueSpec, ShortFirst, TenantLimits};
use scheduler_core::Scheduler;
use scheduler_core::ids::Name;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeValue;

use super::file::{Faults, Slot};
use super::settings::Settings;
use super::values::Label;
use crate::objects::convert::{self, Invalid};

/// `[[queues]]` in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSetting {
    /// Its name.
    pub name: Label,
    /// Base priority of its jobs, -10,000,000 to 10,000,000. Default: 0.
    #[serde(default, deserialize_with = "priority")]
    pub priority: i32,
    /// Whether its running jobs may be ended to make room. Default: false.
    #[serde(default)]
    pub preemptible: bool,
    /// Time in line that is worth one point of priority, at most `7d`; `0s` for no ageing. Default: `1m`.
    #[serde(default = "api::minute", deserialize_with = "age")]
    pub age: Duration,
    /// Jobs of it that hold resources at the same time, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// The cohort that it lends to and borrows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Label>,
    /// Its part among the queues of a cohort that shares fairly. Default: 1.
    #[serde(default)]
    pub weight: Weight,
    /// What it brings into its cohort and can have back at any time.
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub guaranteed: Amounts,
    /// What its jobs hold together at most, borrowed or not.
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub limit: Amounts,
    /// What each namespace may have in it.
    #[serde(default, skip_serializing_if = "TenantLimits::is_empty")]
    pub tenant_limits: TenantLimits,
    /// How its namespaces take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fair_share: Option<FairShareSetting>,
    /// Whether its short jobs pass long ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_first: Option<ShortFirstSetting>,
}

/// `short_first` of a queue in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShortFirstSetting {
    /// How many times its time limit and grace a job counts as later. Default: 200.
    #[serde(default = "api::two_hundred")]
    pub per_stay: u32,
    /// The most that a job counts as later. Default: five days.
    #[serde(default = "api::five_days")]
    pub most: Duration,
}

/// `fair_share` of a queue in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FairShareSetting {
    /// After this time use counts half. Default: a week.
    #[serde(default = "api::week")]
    pub half_life: Duration,
    /// Weights of namespaces; all others have 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<Label, Weight>,
}

/// `[[cohorts]]` in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortSetting {
    /// Its name.
    pub name: Label,
    /// The cohort that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Label>,
    /// What its queues hold together at most.
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub limit: Amounts,
    /// How its queues take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fair_share: Option<CohortShareSetting>,
}

/// `fair_share` of a cohort in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortShareSetting {
    /// After this time use counts half. Default: a week.
    #[serde(default = "api::week")]
    pub half_life: Duration,
}

/// `[[priority_classes]]` in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorityClassSetting {
    /// Its name.
    pub name: Label,
    /// The priority of jobs that name it, -1,000,000 to 1,000,000.
    pub priority: i32,
}

fn priority<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    i32::try_from(number)
        .ok()
        .filter(|number| number.unsigned_abs() <= 10_000_000)
        .ok_or_else(|| serde::de::Error::custom(format!("`{number}` is not a priority: -10000000 to 10000000")))
}

fn age<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let age = Duration::deserialize(deserializer)?;
    if age.0 <= 7 * 86_400_000_000 { Ok(age) } else { Err(serde::de::Error::custom(format!("`{age}` is more than 7d a point"))) }
}

impl QueueSetting {
    /// A queue of which nothing more is said.
    pub(super) fn named(name: Label, priority: i32, preemptible: bool) -> Self {
        Self {
            name,
            priority,
            preemptible,
            age: api::minute(),
            max_concurrent: None,
            cohort: None,
            weight: Weight::ONE,
            guaranteed: Amounts::default(),
            limit: Amounts::default(),
            tenant_limits: TenantLimits::default(),
            fair_share: None,
            short_first: None,
        }
    }

    /// Whether it is as it is without any configuration.
    pub fn is_built_in(&self) -> bool {
        let own = super::defaults::built_in_queues().into_iter().find(|(name, ..)| *name == self.name.as_str());
        own.is_some_and(|(_, priority, preemptible)| *self == Self::named(self.name.clone(), priority, preemptible))
    }

    /// As it would be sent to the API.
    pub fn spec(&self) -> QueueSpec {
        let weights =
            |weights: &BTreeMap<Label, Weight>| weights.iter().map(|(name, weight)| (name.to_string(), *weight)).collect();
        let fair = |fair: &FairShareSetting| FairShare { half_life: fair.half_life, weights: weights(&fair.weights) };
        QueueSpec {
            priority: self.priority,
            preemptible: self.preemptible,
            max_concurrent: self.max_concurrent,
            age_per_point: self.age,
            cohort: self.cohort.as_ref().map(Label::to_string),
            weight: self.weight,
            guaranteed: self.guaranteed,
            limit: self.limit,
            tenant_limits: self.tenant_limits,
            fair_share: self.fair_share.as_ref().map(fair),
            short_first: self.short_first.map(|rule| ShortFirst { per_stay: rule.per_stay, most: rule.most }),
        }
    }
}

impl CohortSetting {
    /// As it would be sent to the API.
    pub fn spec(&self) -> CohortSpec {
        CohortSpec {
            parent: self.parent.as_ref().map(Label::to_string),
            limit: self.limit,
            fair_share: self.fair_share.map(|fair| CohortShare { half_life: fair.half_life }),
        }
    }
}

/// Something that the file has a list of.
pub trait Entry: DeserializeOwned {
    /// Its key.
    const KEY: &'static str;
    /// What one of them is called.
    const WORD: &'static str;
    /// Unique among them.
    fn name(&self) -> &Label;
}

macro_rules! entry {
    ($type:ty, $key:literal, $word:literal) => {
        impl Entry for $type {
            const KEY: &'static str = $key;
            const WORD: &'static str = $word;
            fn name(&self) -> &Label {
                &self.name
            }
        }
    };
}

entry!(QueueSetting, "queues", "queue");
entry!(CohortSetting, "cohorts", "cohort");
entry!(PriorityClassSetting, "priority_classes", "priority class");

/// All entries of one kind, and where they stand in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entries<T> {
    /// In the order of the file.
    pub items: Vec<T>,
    places: Vec<Place>,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { items: Vec::new(), places: Vec::new() }
    }
}

/// Where an entry and its keys stand.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    entry: Range<usize>,
    keys: Vec<(String, Range<usize>)>,
}

impl Place {
    fn of(entry: &Spanned<DeValue<'_>>) -> Self {
        let keys = match entry.get_ref() {
            DeValue::Table(table) => table.iter().map(|(key, _)| (key.get_ref().to_string(), key.span())).collect(),
            _ => Vec::new(),
        };
        Self { entry: entry.span(), keys }
    }

    fn key(&self, key: &str) -> &Range<usize> {
        self.keys.iter().find(|(known, _)| known == key).map_or(&self.entry, |(_, span)| span)
    }
}

impl<T: Entry> Slot for Entries<T> {
    fn read(&mut self, value: Spanned<DeValue<'_>>, faults: &mut Faults<'_>) {
        let span = value.span();
        let DeValue::Array(entries) = value.into_inner() else {
            faults.add(&span, format!("{key} are written as [[{key}]]", key = T::KEY));
            return;
        };
        for entry in entries {
            let place = Place::of(&entry);
            let Some(item) = faults.value::<T>(entry) else { continue };
            if self.items.iter().any(|known| known.name() == item.name()) {
                faults.add(&place.entry, format!("{} `{}` is there twice", T::WORD, item.name()));
            } else {
                self.items.push(item);
                self.places.push(place);
            }
        }
    }
}

impl<T: Entry> Entries<T> {
    /// Adds what is wrong with an entry at a field of its spec.
    fn fault(&self, at: usize, field: &str, detail: &str, faults: &mut Faults<'_>) {
        let (Some(item), Some(place)) = (self.items.get(at), self.places.get(at)) else { return };
        let field = snake(field);
        let key = field.split('.').next().unwrap_or_default();
        faults.add(place.key(key), format!("`{field}` of {} `{}`: {detail}", T::WORD, item.name()));
    }

    /// Those that are right by themselves.
    fn sound<C>(&self, convert: impl Fn(&Name, &T) -> Result<C, Invalid>, faults: &mut Faults<'_>) -> Vec<C> {
        let mut sound = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            match convert(&Name::from(item.name().as_str()), item) {
                Ok(value) => sound.push(value),
                Err(invalid) => self.fault(at, &invalid.field, &invalid.detail, faults),
            }
        }
        sound
    }
}

/// A field of the wire as a key of the file.
fn snake(field: &str) -> String {
    if field == "agePerPoint" {
        return "age".to_owned();
    }
    let mut text = String::with_capacity(field.len() + 4);
    for c in field.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// Checks all entries, each by itself and then together.
pub(super) fn check(settings: &Settings, faults: &mut Faults<'_>) {
    let Settings { queues, cohorts, priority_classes, .. } = settings;
    let before = faults.count();
    let sound_queues = queues.sound(|name, queue| convert::queue_config(name, &queue.spec()), faults);
    let sound_cohorts = cohorts.sound(|name, cohort| convert::cohort_config(name, &cohort.spec()), faults);
    priority_classes.sound(|_, class| convert::class_priority(&PriorityClassSpec { priority: class.priority }), faults);
    if faults.count() > before {
        return;
    }
    let config = scheduler_core::Config { queues: sound_queues, cohorts: sound_cohorts, ..scheduler_core::Config::default() };
    let Err(error) = Scheduler::new(config) else { return };
    let place = |name: &Name, names: &[&Label]| names.iter().position(|known| known.as_str() == name.as_str());
    let names: Vec<_> = cohorts.items.iter().map(|cohort| &cohort.name).collect();
    let is_cohort = |name: &Name| place(name, &names).is_some();
    let Some(culprit) = convert::culprit(&error, is_cohort) else { return faults.add(&(0..0), error.to_string()) };
    if culprit.cohort {
        cohorts.fault(place(culprit.name, &names).unwrap_or(usize::MAX), culprit.field, &error.to_string(), faults);
    } else {
        let names: Vec<_> = queues.items.iter().map(|queue| &queue.name).collect();
        queues.fault(place(culprit.name, &names).unwrap_or(usize::MAX), culprit.field, &error.to_string(), faults);
    }
}
