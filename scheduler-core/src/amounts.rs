//! Typed amounts of what nodes have and tasks ask for.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// The sum, or nothing on overflow.
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// What is left after `other` is taken, or nothing if there is less.
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).map(Self)
            }

            /// `count` times this, or nothing on overflow.
            pub fn checked_mul(self, count: u64) -> Option<Self> {
                self.0.checked_mul(count).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

amount! {
    /// Processor time in thousandths of a core.
    CpuMillis
}
amount! {
    /// Memory in bytes.
    MemoryBytes
}

/// What one task (one replica of a task group) asks for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Thousandths of a core.
    pub cpu: CpuMillis,
    /// Bytes; 0 asks for no reservation.
    pub memory: MemoryBytes,
    /// Whole GPU devices, all of them for this task alone.
    pub gpus: u32,
}
