//! What was learned, by tenant and cache, within bounds.
//!
//! Where there is no room, what holds nothing worth keeping goes first, then something of the tenant that has most: no
//! tenant below an equal share loses anything to another.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::learned::Learned;
use crate::decision::{CacheName, Tenant};
use crate::store::Owner;

/// What caches learned, each under a lock of its own.
#[derive(Debug)]
pub(super) struct Caches {
    of: HashMap<Tenant, HashMap<CacheName, Arc<Mutex<Learned>>>>,
    count: usize,
    most: usize,
}

impl Default for Caches {
    fn default() -> Self {
        Self::with_room_for(CACHES_MAX)
    }
}

impl Caches {
    fn with_room_for(most: usize) -> Self {
        Self { of: HashMap::new(), count: 0, most }
    }

    pub(super) fn of(&self, owner: &Owner) -> Option<Arc<Mutex<Learned>>> {
        self.of.get(&owner.tenant)?.get(&owner.cache).cloned()
    }

    /// What the cache learned; what is `new` is kept if there is room or can be made.
    pub(super) fn create(&mut self, owner: &Owner, new: impl FnOnce() -> Learned) -> Arc<Mutex<Learned>> {
        if let Some(learned) = self.of(owner) {
            return learned;
        }
        let learned = Arc::new(Mutex::new(new()));
        if self.make_room(&owner.tenant) {
            let caches = self.of.entry(owner.tenant.clone()).or_default();
            caches.insert(owner.cache.clone(), Arc::clone(&learned));
            self.count += 1;
        }
        learned
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, owner: &Owner) -> bool {
        let Some(caches) = self.of.get_mut(&owner.tenant) else { return false };
        let is_removed = caches.remove(&owner.cache).is_some();
        if caches.is_empty() {
            self.of.remove(&owner.tenant);
        }
        self.count -= usize::from(is_removed);
        is_removed
    }

    pub(super) fn owners(&self) -> Vec<Owner> {
        let owner = |tenant: &Tenant, cache: &CacheName| Owner { tenant: tenant.clone(), cache: cache.clone() };
        self.of.iter().flat_map(|(tenant, caches)| caches.keys().map(move |cache| owner(tenant, cache))).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Mutex<Learned>>> {
        self.of.values().flat_map(HashMap::values).cloned().collect()
    }

    fn make_room(&mut self, tenant: &Tenant) -> bool {
        if self.count < self.most {
            return true;
        }
        for caches in self.of.values_mut() {
            // One that is in use now is worth keeping.
            caches.retain(|_, learned| learned.try_lock().is_none_or(|learned| learned.is_worth_keeping()));
        }
        self.of.retain(|_, caches| !caches.is_empty());
        self.count = self.of.values().map(HashMap::len).sum();
        if self.count < self.most {
            return true;
        }
        let own = self.of.get(tenant).map_or(0, HashMap::len);
        let Some((largest, caches)) = self.of.iter().max_by_key(|(_, caches)| caches.len()) else { return false };
        let weight = |learned: &Mutex<Learned>| learned.try_lock().map_or(usize::MAX, |learned| learned.weight());
        let lightest = caches.iter().min_by_key(|(_, learned)| weight(learned));
        match lightest.filter(|_| caches.len() > own + 1) {
            Some((cache, _)) => {
                let owner = Owner { tenant: largest.clone(), cache: cache.clone() };
                self.remove(&owner)
            }
            None => false,
        }
    }
}

/// Caches that learn: some 15 KB each. One more decides as shipped.
const CACHES_MAX: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{EntryId, Policy};

    fn owner(tenant: &str, number: usize) -> Owner {
        Owner { tenant: Tenant::new(tenant), cache: CacheName::parse(&format!("c{number}")).expect("a name") }
    }

    fn new() -> Learned {
        let mut learned = Learned::new(&Policy::default());
        learned.hear_of_itself(EntryId::from_bytes([1; 16]), false);
        learned
    }

    fn held(caches: &Caches, tenant: &str) -> usize {
        caches.owners().iter().filter(|owner| owner.tenant == Tenant::new(tenant)).count()
    }

    #[test]
    fn no_tenant_takes_the_room_of_others() {
        let mut caches = Caches::with_room_for(8);
        for number in 0..20 {
            caches.create(&owner("greedy", number), new);
        }
        assert_eq!(held(&caches, "greedy"), 8);
        for (tenant, wanted) in [("a", 10), ("b", 1)] {
            for number in 0..wanted {
                caches.create(&owner(tenant, number), new);
            }
        }
        let all = ["greedy", "a", "b"].map(|tenant| held(&caches, tenant));
        assert_eq!((all[2], all.iter().sum::<usize>()), (1, 8));
        assert!(all[0] >= 3 && all[1] >= 3, "{all:?}");
        for number in 20..40 {
            caches.create(&owner("greedy", number), new);
        }
        assert_eq!(held(&caches, "b"), 1);
    }

    #[test]
    fn what_holds_nothing_goes_first() {
        let mut caches = Caches::with_room_for(4);
        for number in 0..3 {
            caches.create(&owner("a", number), new);
        }
        caches.create(&owner("b", 0), || Learned::new(&Policy::default()));
        caches.create(&owner("a", 3), new);
        assert_eq!((held(&caches, "a"), held(&caches, "b")), (4, 0));
        assert!(caches.remove(&owner("a", 0)) && !caches.remove(&owner("a", 0)));
        caches.create(&owner("b", 0), new);
        assert_eq!((held(&caches, "a"), held(&caches, "b")), (3, 1));
    }
}
