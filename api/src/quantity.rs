//! Amounts and durations as people write them: `"500m"`, `"4Gi"`, `"90s"`. Parsed once, at the edge; printed in one canonical form.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Text that is not an amount, with what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

const CPU: &str = "an amount of CPU: write cores (\"4\", \"0.5\") or thousandths (\"500m\"), 0 to 1,000,000 cores";
const MEMORY: &str = "an amount of memory: write bytes or a number with K, M, G, T, P, Ki, Mi, Gi, Ti, Pi (\"4Gi\"), below 1 EiB";
const GPU: &str = "a number of GPUs: write a whole number from 0 to 65,535 (\"2\")";
const GPU_PART: &str = "an amount of GPUs: write a whole number from 0 to 65,535 (\"2\"), or a part of one (\"0.5\", \"500m\")";
const WEIGHT: &str = "a weight: write a number from 0.001 to 1000000 (\"2\", \"0.5\")";
const DURATION: &str = "a duration: write numbers with d, h, m, s, ms (\"90s\", \"2h\", \"1h30m\"), at most 3,650 days";

/// Thousandths of a core.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cpu(pub u64);

/// Bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Memory(pub u64);

/// Whole GPUs.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gpus(pub u32);

/// Thousandths of GPUs: whole ones, or a part of one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GpuMillis(pub u32);

impl GpuMillis {
    /// So many whole GPUs.
    pub const fn whole(gpus: u32) -> Self {
        Self(gpus.saturating_mul(1_000))
    }

    /// How many whole GPUs it is; nothing where some part of one is left over.
    pub const fn gpus(self) -> Option<u32> {
        if self.0.is_multiple_of(1_000) { Some(self.0 / 1_000) } else { None }
    }
}

/// Thousandths of a weight: how much somebody gets in relation to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Weight(pub u32);

impl Weight {
    /// Of whoever has none.
    pub const ONE: Self = Self(1_000);
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// Microseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Duration(pub u64);

/// `whole[.fraction]` as an integer number of `1/scale`, exactly; `None` if it does not fit or is not that.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|part| !digits(part) || part.len() > 12) {
        return None;
    }
    let mut value = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale);
    if let Some(fraction) = fraction {
        let parts = fraction.parse::<u128>().ok()? * u128::from(scale);
        value += parts.div_ceil(10u128.pow(u32::try_from(fraction.len()).ok()?));
    }
    u64::try_from(value).ok()
}

impl FromStr for Cpu {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let millis = match text.strip_suffix('m') {
            Some(millis) if !millis.contains('.') => decimal(millis, 1),
            Some(_) => None,
            None => decimal(text, 1_000),
        };
        millis
            .filter(|millis| *millis <= 1_000_000_000)
            .map(Self)
            .ok_or_else(|| QuantityError { text: text.to_owned(), expected: CPU })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) { write!(f, "{}", self.0 / 1_000) } else { write!(f, "{}m", self.0) }
    }
}

const MEMORY_UNITS: [(&str, u64); 10] = [
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
];

impl FromStr for Memory {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unit = MEMORY_UNITS.iter().find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, *scale)));
        let bytes = match unit {
            Some((number, scale)) => decimal(number, scale),
            None => text.strip_suffix('k').map_or_else(|| decimal(text, 1), |number| decimal(number, 1_000)),
        };
        bytes.filter(|bytes| *bytes < 1 << 60).map(Self).ok_or_else(|| QuantityError { text: text.to_owned(), expected: MEMORY })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = MEMORY_UNITS[..5].iter().find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale));
        match binary {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Gpus {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        decimal(text, 1)
            .filter(|_| !text.contains('.'))
            .and_then(|count| u16::try_from(count).ok())
            .map(|count| Self(u32::from(count)))
            .ok_or_else(|| QuantityError { text: text.to_owned(), expected: GPU })
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for GpuMillis {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let millis = match text.strip_suffix('m') {
            Some(millis) if !millis.contains('.') => decimal(millis, 1),
            Some(_) => None,
            None => decimal(text, 1_000),
        };
        let millis = millis.filter(|millis| *millis <= 65_535_000).and_then(|millis| u32::try_from(millis).ok());
        millis.map(Self).ok_or_else(|| QuantityError { text: text.to_owned(), expected: GPU_PART })
    }
}

impl fmt::Display for GpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gpus() {
            Some(gpus) => gpus.fmt(f),
            None => write!(f, "{}m", self.0),
        }
    }
}

impl FromStr for Weight {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), expected: WEIGHT };
        let thousandths = (text.parse::<f64>().map_err(|_| error())? * 1_000.0).round();
        // Not a number is in no range.
        if (1.0..=1e9).contains(&thousandths) { Ok(Self(thousandths as u32)) } else { Err(error()) }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000, self.0 % 1_000);
        match rest {
            0 => write!(f, "{whole}"),
            _ => f.write_str(format!("{whole}.{rest:03}").trim_end_matches('0')),
        }
    }
}

/// A number out, because it is one.
impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            serializer.serialize_u32(self.0 / 1_000)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1_000.0)
        }
    }
}

impl utoipa::PartialSchema for Weight {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::Number)
            .description(Some(WEIGHT))
            .minimum(Some(0.001))
            .maximum(Some(1_000_000.0))
            .examples([serde_json::json!(2)])
            .into()
    }
}

impl utoipa::ToSchema for Weight {}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("ms", 1_000), ("m", 60_000_000), ("s", 1_000_000)];

impl Duration {
    /// Ten years: what is said to be longer is no duration of ours.
    pub const LONGEST: Self = Self(3_650 * 86_400_000_000);
}

impl FromStr for Duration {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), expected: DURATION };
        let mut rest = text;
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
            let (unit, scale) = DURATION_UNITS.iter().find(|(unit, _)| rest[number..].starts_with(unit)).ok_or_else(error)?;
            let part = decimal(&rest[..number], *scale).ok_or_else(error)?;
            total = total.checked_add(part).ok_or_else(error)?;
            rest = &rest[number + unit.len()..];
        }
        if total > Self::LONGEST.0 { Err(error()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, scale) in [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        if rest > 0 && self.0 < 1_000 {
            f.write_str("1ms")?;
        }
        Ok(())
    }
}

/// Text or number on the wire.
macro_rules! read {
    ($name:ident, $expected:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

/// The same, and text out.
macro_rules! wire {
    ($name:ident, $expected:expr, $example:literal, $pattern:literal) => {
        read!($name, $expected);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some($expected))
                    .pattern(Some($pattern))
                    .examples([serde_json::json!($example)])
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

read!(Weight, WEIGHT);
wire!(Cpu, CPU, "500m", r"^[0-9]+(\.[0-9]+)?$|^[0-9]+m$");
wire!(Memory, MEMORY, "4Gi", r"^[0-9]+(\.[0-9]+)?([KMGTPk]|[KMGTP]i)?$");
wire!(Gpus, GPU, "2", r"^[0-9]+$");
wire!(GpuMillis, GPU_PART, "2", r"^[0-9]+(\.[0-9]+)?$|^[0-9]+m$");
wire!(Duration, DURATION, "1h30m", r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, millis) in [("4", 4_000), ("0.5", 500), ("500m", 500), ("1.0001", 1_001), ("0", 0)] {
            assert_eq!(text.parse(), Ok(Cpu(millis)), "{text}");
        }
        for (text, millis, printed) in [
            ("2", 2_000, "2"),
            ("0.5", 500, "500m"),
            ("500m", 500, "500m"),
            ("1000m", 1_000, "1"),
            ("0", 0, "0"),
            ("1.5", 1_500, "1500m"),
        ] {
            assert_eq!(text.parse(), Ok(GpuMillis(millis)), "{text}");
            assert_eq!(GpuMillis(millis).to_string(), printed);
        }
        for (text, bytes) in
            [("4Gi", 4 << 30), ("1.5Ki", 1_536), ("10k", 10_000), ("10K", 10_000), ("7", 7), ("2P", 2_000_000_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Memory(bytes)), "{text}");
        }
        for (text, micros) in [("90s", 90_000_000), ("1h30m", 5_400_000_000), ("250ms", 250_000), ("0s", 0), ("1.5s", 1_500_000)]
        {
            assert_eq!(text.parse(), Ok(Duration(micros)), "{text}");
        }
    }

    #[test]
    fn weights_are_thousandths() {
        for (text, thousandths, printed) in [
            ("2", 2_000, "2"),
            ("0.5", 500, "0.5"),
            ("0.001", 1, "0.001"),
            ("1e6", 1_000_000_000, "1000000"),
            ("1.0004", 1_000, "1"),
        ] {
            assert_eq!(text.parse(), Ok(Weight(thousandths)), "{text}");
            assert_eq!(Weight(thousandths).to_string(), printed);
        }
        for text in ["0", "-1", "NaN", "inf", "-inf", "", "x", "0.0001", "1000001", "1e400"] {
            assert!(text.parse::<Weight>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "-1", "1.5m", "m", "4 ", "1e3", "99999999999999999999", "+1", "1..2", ".5", "5.", "∞"] {
            assert!(text.parse::<Cpu>().is_err(), "{text}");
            assert!(text.parse::<Memory>().is_err() || text == "1.5m", "{text}");
            assert!(text.parse::<Duration>().is_err() || text == "1.5m", "{text}");
        }
        for text in ["", "-1", "-0.5", "65536", "m", "1.5m", "half", "1e3", "65535.1", ".5"] {
            assert!(text.parse::<GpuMillis>().is_err(), "{text}");
        }
        for text in ["1.5", "-1", "65536", "1m", ""] {
            assert!(text.parse::<Gpus>().is_err(), "{text}");
        }
        assert!("2000Pi".parse::<Memory>().is_err());
        assert!("4000d".parse::<Duration>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(cpu in 0u64..1_000_000_000, memory in 0u64..(1 << 60), millis in 0u64..3_650 * 86_400_000) {
            proptest::prop_assert_eq!(Cpu(cpu).to_string().parse(), Ok(Cpu(cpu)));
            proptest::prop_assert_eq!(Memory(memory).to_string().parse(), Ok(Memory(memory)));
            let span = Duration(millis * 1_000);
            proptest::prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
