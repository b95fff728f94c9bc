//! Times, sizes and counts, each with what is allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ValueError, error};

from_text!(After);

/// A time from 10 milliseconds to an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval(pub api::quantity::Duration);

impl FromStr for Interval {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<api::quantity::Duration>() {
            Ok(time) if (10_000..=3_600_000_000).contains(&time.0) => Ok(Self(time)),
            _ => Err(error(text, "a time from 10ms to 1h, such as 2s")),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> FromStr for Count<MIN, MAX> {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<u64>() {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(error(text, format!("a whole number from {MIN} to {MAX}"))),
        }
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.to_string().parse().map_err(de::Error::custom)
    }
}

/// A size in bytes from 1 KiB to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<api::quantity::Memory>() {
            Ok(size) if (1 << 10..=1 << 30).contains(&size.0) => Ok(Self(size.0)),
            _ => Err(error(text, "a size from 1Ki to 1Gi, such as 64Mi")),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A time, or never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Never.
    Off,
    /// After this time, 10 ms or more.
    Time(api::quantity::Duration),
}

impl After {
    /// The time, if there is one.
    pub const fn time(self) -> Option<api::quantity::Duration> {
        match self {
            Self::Off => None,
            Self::Time(time) => Some(time),
        }
    }
}

impl FromStr for After {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<api::quantity::Duration>() {
            _ if text == "off" => Ok(Self::Off),
            Ok(time) if time.0 >= 10_000 => Ok(Self::Time(time)),
            _ => Err(error(text, "a time of 10ms or more, such as 30m, or off")),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Time(time) => time.fmt(f),
        }
    }
}

/// A time of at least one second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause(pub api::quantity::Duration);

impl FromStr for Pause {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<api::quantity::Duration>() {
            Ok(time) if time.0 >= 1_000_000 => Ok(Self(time)),
            _ => Err(error(text, "a time from 1s to 3650d, such as 30s or 7d")),
        }
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
