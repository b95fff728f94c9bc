//! Tells the processor that something will be read soon.
//!
//! The first job of a bucket is read when its turn comes, long after it became the first. With a million jobs queued its record is in main
//! memory by then; asked for in time, it is in the cache (ADR 15). Nothing depends on it but time.
#![expect(unsafe_code, reason = "the processor's instruction is only reachable through an unsafe intrinsic")]

/// Starts to bring a value into the cache, where the processor has an instruction for that.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        const LINE: usize = 64;
        let at = std::ptr::from_ref(value).cast::<i8>();
        for offset in (0..size_of::<T>()).step_by(LINE) {
            // SAFETY: the instruction reads nothing into the program and never faults, whatever the address; this one is within `value`.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
