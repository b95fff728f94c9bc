//! Records in chunks, found by a 4-byte index: a million of them neither move when more come nor leave half of a doubled buffer unused.

use std::marker::PhantomData;
use std::ops;

use crate::prefetch::prefetch;

const CHUNK: usize = 1024;

/// A typed 4-byte index into one [`Slab`].
pub(crate) trait Index: Copy {
    fn new(position: usize) -> Self;
    fn position(self) -> usize;
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub(crate) struct $name(u32);

        impl $crate::slab::Index for $name {
            fn new(position: usize) -> Self {
                Self(position as u32)
            }
            fn position(self) -> usize {
                self.0 as usize
            }
        }
    };
}
pub(crate) use index;

#[derive(Clone)]
enum Entry<T> {
    /// Free; the next free entry, if there is one.
    Free(Option<u32>),
    Used(T),
}

/// Records with stable indexes; freed ones are used again, latest first.
#[derive(Clone)]
pub(crate) struct Slab<I, T> {
    chunks: Vec<Vec<Entry<T>>>,
    free: Option<u32>,
    len: usize,
    index: PhantomData<I>,
}

impl<I: Index, T> Slab<I, T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: None, len: 0, index: PhantomData }
    }

    pub(crate) fn insert(&mut self, value: T) -> I {
        self.len += 1;
        if let Some(free) = self.free {
            let entry = &mut self.chunks[free as usize / CHUNK][free as usize % CHUNK];
            if let Entry::Free(next) = *entry {
                self.free = next;
                *entry = Entry::Used(value);
                return I::new(free as usize);
            }
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it is needed: most slabs stay small.
            self.chunks.push(if self.chunks.is_empty() { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        chunk.push(Entry::Used(value));
        I::new(last * CHUNK + chunk.len() - 1)
    }

    pub(crate) fn remove(&mut self, index: I) -> Option<T> {
        let at = index.position();
        let entry = self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)?;
        if matches!(entry, Entry::Free(_)) {
            return None;
        }
        let Entry::Used(value) = std::mem::replace(entry, Entry::Free(self.free)) else { return None };
        self.free = Some(at as u32);
        self.len -= 1;
        Some(value)
    }

    /// The record, if it is there.
    pub(crate) fn get(&self, index: I) -> Option<&T> {
        match self.chunks.get(index.position() / CHUNK)?.get(index.position() % CHUNK)? {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    /// Has a record brought into the cache.
    pub(crate) fn prefetch(&self, index: I) {
        // Not through `Index`, which reads it.
        if let Some(entry) = self.chunks.get(index.position() / CHUNK).and_then(|chunk| chunk.get(index.position() % CHUNK)) {
            prefetch(entry);
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().filter_map(|entry| match entry {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        })
    }

    /// In the order of the indexes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(at, entry)| match entry {
            Entry::Used(value) => Some((I::new(at), value)),
            Entry::Free(_) => None,
        })
    }
}

impl<I: Index, T> ops::Index<I> for Slab<I, T> {
    type Output = T;
    fn index(&self, index: I) -> &T {
        let at = index.position();
        match &self.chunks[at / CHUNK][at % CHUNK] {
            Entry::Used(value) => value,
            Entry::Free(_) => unreachable!("index {at} of a freed record"),
        }
    }
}

impl<I: Index, T> ops::IndexMut<I> for Slab<I, T> {
    fn index_mut(&mut self, index: I) -> &mut T {
        let at = index.position();
        match &mut self.chunks[at / CHUNK][at % CHUNK] {
            Entry::Used(value) => value,
            Entry::Free(_) => unreachable!("index {at} of a freed record"),
        }
    }
}
