//! Vectors of texts that were embedded before, within a bound of bytes: what is asked for most stays.

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::queue::TextKey;
use crate::decision::Embedding;

/// `None`: nothing is kept.
pub(super) struct Memo(Option<Cache<TextKey, Embedding, ByBytes>>);

#[derive(Clone)]
struct ByBytes;

impl Weighter<TextKey, Embedding> for ByBytes {
    fn weight(&self, _: &TextKey, embedding: &Embedding) -> u64 {
        (size_of_val(embedding.as_slice()) + OVERHEAD_BYTES) as u64
    }
}

impl Memo {
    pub(super) fn new(bytes: usize, dimensions: usize) -> Self {
        let each = dimensions * size_of::<f32>() + OVERHEAD_BYTES;
        let entries = bytes / each;
        Self((entries > 0).then(|| Cache::with_weighter(entries, bytes as u64, ByBytes)))
    }

    pub(super) fn get(&self, key: &TextKey) -> Option<Embedding> {
        self.0.as_ref()?.get(key)
    }

    pub(super) fn keep(&self, key: TextKey, embedding: &Embedding) {
        if let Some(cache) = &self.0 {
            cache.insert(key, embedding.clone());
        }
    }
}

/// Of an entry beside its floats: key, counters, place in the tables.
const OVERHEAD_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds() {
        let embedding = Embedding::new(vec![1.0; 384]).expect("a vector");
        let key = |n: usize| *blake3::hash(&n.to_le_bytes()).as_bytes();
        for (bytes, most) in [(0, 0), (100, 0), (100_000, 60), (1_000_000, 601)] {
            let memo = Memo::new(bytes, 384);
            (0..2_000).for_each(|n| memo.keep(key(n), &embedding));
            let kept = (0..2_000).filter(|n| memo.get(&key(*n)).is_some()).count();
            assert!(kept <= most && kept >= most / 2, "{kept} vectors in {bytes} bytes");
        }
    }
}
