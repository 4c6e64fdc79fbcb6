//! Memory for what is searched at random: whole pages, large ones where the system has them.

use memmap2::MmapMut;

pub(super) enum Arena {
    Pages(MmapMut),
    Heap(Vec<u8>),
}

impl Arena {
    /// Zeroed bytes.
    pub(super) fn zeroed(bytes: usize) -> Self {
        match MmapMut::map_anon(bytes.max(1)) {
            Ok(pages) => {
                // Large pages spare a walk through the page tables per row. A system without them says so here, and
                // nothing is lost.
                #[cfg(target_os = "linux")]
                if let Err(error) = pages.advise(memmap2::Advice::HugePage) {
                    tracing::debug!(%error, "the index does without large pages");
                }
                Self::Pages(pages)
            }
            Err(_) => Self::Heap(vec![0; bytes + 4]),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Pages(pages) => pages,
            Self::Heap(heap) => heap,
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Pages(pages) => pages,
            Self::Heap(heap) => heap,
        }
    }
}
