//! The few best of many scored things, sorted as they come.

pub(super) struct Best {
    most: usize,
    found: Vec<(f32, u32)>,
}

impl Best {
    pub(super) fn new(most: usize) -> Self {
        Self { most, found: Vec::with_capacity(most.min(4096) + 1) }
    }

    #[inline(always)]
    pub(super) fn admits(&self, score: f32) -> bool {
        self.found.len() < self.most || self.found.last().is_some_and(|(least, _)| score > *least)
    }

    pub(super) fn add(&mut self, score: f32, what: u32) {
        let at = self.found.partition_point(|(other, _)| *other >= score);
        self.found.insert(at, (score, what));
        self.found.truncate(self.most);
    }

    /// Best first.
    pub(super) fn into_sorted(self) -> Vec<(f32, u32)> {
        self.found
    }
}
