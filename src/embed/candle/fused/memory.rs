//! Memory that begins at a cache line, so that no register of a panel straddles two.

use std::ops::{Deref, DerefMut};

/// A slice whose first element is aligned to 64 bytes, or to a huge page.
pub(super) struct Aligned<T> {
    memory: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Copy + Default> Aligned<T> {
    pub(super) fn new(length: usize) -> Self {
        Self::at_multiple_of(length, LINE_BYTES)
    }

    /// For memory that is read from end to end: on a huge page where the system has some to give, since a walk through
    /// the page table for every 4 KiB is felt at the speed of the caches.
    pub(super) fn huge(length: usize) -> Self {
        let aligned = Self::at_multiple_of(length, HUGE_PAGE_BYTES);
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        super::system::prefer_huge_pages(&aligned);
        aligned
    }

    pub(super) fn copy(from: &[T]) -> Self {
        let mut aligned = Self::new(from.len());
        aligned.copy_from_slice(from);
        aligned
    }

    fn at_multiple_of(length: usize, bytes: usize) -> Self {
        let memory = vec![T::default(); length + bytes / size_of::<T>()];
        // A vector that is never pushed to stays where it is.
        let start = memory.as_ptr().align_offset(bytes);
        Self { memory, start, length }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

const LINE_BYTES: usize = 64;
const HUGE_PAGE_BYTES: usize = 2 << 20;
