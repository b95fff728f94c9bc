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
    /// GPU devices; all of them for this task alone, unless it asks for a [`GpuShare`] of one.
    pub gpus: u32,
}

/// What all of a GPU's processors are in `gpu_millis`.
pub const GPU_MILLIS: u32 = 1000;

/// A part of one GPU. Tasks with parts of the same GPU use it at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct GpuShare {
    /// Thousandths of the GPU, 1 to 999.
    pub millis: u32,
    /// Bytes of its memory. Where a share is asked for, 0 stands for as large a part of the memory as of the GPU.
    pub memory: MemoryBytes,
}

impl GpuShare {
    /// What it takes of the memory of a GPU that has so much.
    pub fn memory_of(&self, total: MemoryBytes) -> MemoryBytes {
        if self.memory.0 > 0 { self.memory } else { Self::even(self.millis, total).memory }
    }

    /// A part of a GPU that has so much memory, with as large a part of that.
    pub fn even(millis: u32, total: MemoryBytes) -> Self {
        let memory = u128::from(total.0) * u128::from(millis) / u128::from(GPU_MILLIS);
        Self { millis, memory: MemoryBytes(memory as u64) }
    }
}
