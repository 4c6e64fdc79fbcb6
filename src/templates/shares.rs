//! Which entry does a key lead to? Bounded for all tenants together, and fair: whoever holds the most makes room.
//!
//! So a tenant that holds less than an equal share loses nothing to others. Of its keys the one that was learnt longest
//! ago goes first, unless it was learnt again meanwhile.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::decision::{EntryId, Key, Tenant};

#[derive(Debug)]
pub(super) struct Shares {
    keys_max: usize,
    keys: HashMap<Key, Held>,
    /// Each tenant's keys, in the order in which they may go.
    tenants: HashMap<Tenant, VecDeque<Key>>,
    sizes: BTreeSet<(usize, Tenant)>,
}

/// An entry, by age, so that the newest is found whatever order they come in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instance {
    pub(super) created_ms: u64,
    pub(super) id: EntryId,
}

/// What a key leads to. It keeps its place when its entry is gone.
#[derive(Debug)]
struct Held {
    instance: Instance,
    is_gone: bool,
    is_renewed: bool,
}

impl Shares {
    /// `keys_max`: at least one.
    pub(super) fn new(keys_max: usize) -> Self {
        let (keys, tenants, sizes) = Default::default();
        Self { keys_max, keys, tenants, sizes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The newest entry of the key.
    pub(super) fn get(&self, key: &Key) -> Option<EntryId> {
        self.keys.get(key).filter(|held| !held.is_gone).map(|held| held.instance.id)
    }

    /// A key belongs to one tenant.
    pub(super) fn put(&mut self, tenant: &Tenant, key: Key, instance: Instance) {
        if let Some(held) = self.keys.get_mut(&key) {
            if held.is_gone || held.instance.created_ms <= instance.created_ms {
                *held = Held { instance, is_gone: false, is_renewed: true };
            }
            return;
        }
        if self.keys.len() >= self.keys_max {
            self.make_room(tenant);
        }
        self.keys.insert(key, Held { instance, is_gone: false, is_renewed: false });
        let mut order = self.take(tenant).unwrap_or_default();
        order.push_back(key);
        self.give(tenant, order);
    }

    /// Forgets the entry unless the key leads to another one by now.
    pub(super) fn forget(&mut self, key: &Key, id: EntryId) {
        if let Some(held) = self.keys.get_mut(key).filter(|held| held.instance.id == id) {
            held.is_gone = true;
        }
    }

    /// Takes a key from whoever holds the most; from the tenant itself, if nobody holds more.
    fn make_room(&mut self, tenant: &Tenant) {
        let own = self.tenants.get(tenant).map_or(0, VecDeque::len);
        let Some((_, largest)) = self.sizes.last().filter(|(most, _)| *most > own) else {
            return self.drop_one(tenant);
        };
        self.drop_one(&largest.clone());
    }

    fn drop_one(&mut self, tenant: &Tenant) {
        let Some(mut order) = self.take(tenant) else { return };
        while let Some(key) = order.pop_front() {
            match self.keys.get_mut(&key) {
                Some(held) if held.is_renewed && !held.is_gone => {
                    held.is_renewed = false;
                    order.push_back(key);
                }
                _ => {
                    self.keys.remove(&key);
                    break;
                }
            }
        }
        self.give(tenant, order);
    }

    fn take(&mut self, tenant: &Tenant) -> Option<VecDeque<Key>> {
        let order = self.tenants.remove(tenant)?;
        self.sizes.remove(&(order.len(), tenant.clone()));
        Some(order)
    }

    fn give(&mut self, tenant: &Tenant, order: VecDeque<Key>) {
        if !order.is_empty() {
            self.sizes.insert((order.len(), tenant.clone()));
            self.tenants.insert(tenant.clone(), order);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decision::{CacheName, Fingerprint, Prompt, Scope, Slotted};

    fn tenant(number: usize) -> Tenant {
        Tenant::new(format!("t{number}"))
    }

    /// Tenants have keys of their own, because their scopes are others.
    fn key(owner: usize, number: usize) -> Key {
        let scope = Scope { model: number.to_string(), ..Scope::bare(tenant(owner), CacheName::default()) };
        let scope = Fingerprint::split(&Prompt::new(scope, "", Default::default())).0.scope;
        Slotted::default().skeleton_key(&scope)
    }

    fn put(shares: &mut Shares, owner: usize, number: usize) {
        let id = "0".repeat(32).parse().expect("an id");
        shares.put(&tenant(owner), key(owner, number), Instance { created_ms: 1, id });
    }

    fn held(shares: &Shares, owner: usize) -> usize {
        (0..64).filter(|number| shares.get(&key(owner, *number)).is_some()).count()
    }

    #[test]
    fn what_was_learnt_again_stays_longest() {
        let mut shares = Shares::new(3);
        for number in [0, 1, 2, 0, 3] {
            put(&mut shares, 0, number);
        }
        let has = |shares: &Shares, number| shares.get(&key(0, number)).is_some();
        assert_eq!([0, 1, 2, 3].map(|number| has(&shares, number)), [true, false, true, true]);
        let id = shares.get(&key(0, 2)).expect("held");
        shares.forget(&key(0, 2), id);
        assert!(!has(&shares, 2));
        put(&mut shares, 0, 2);
        assert!(has(&shares, 2), "learnt again");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes in whatever order: whoever holds less than an equal share keeps every key that it has.
        #[test]
        fn nobody_below_its_share_loses_a_key_to_another(
            keys_max in 1usize..24, rows in prop::collection::vec((0usize..5, 0usize..64), 0..120),
        ) {
            let mut shares = Shares::new(keys_max);
            for (owner, number) in rows {
                let before: Vec<usize> = (0..5).map(|other| held(&shares, other)).collect();
                let known = shares.get(&key(owner, number)).is_some();
                put(&mut shares, owner, number);
                let after: Vec<usize> = (0..5).map(|other| held(&shares, other)).collect();
                let tenants = before.iter().enumerate().filter(|(other, held)| **held > 0 || *other == owner).count();
                for other in 0..5 {
                    let is_below = before[other] * tenants < keys_max;
                    prop_assert!(other == owner || !is_below || after[other] == before[other], "{before:?} {after:?}");
                    prop_assert!(other == owner || after[other] + 1 >= before[other]);
                }
                prop_assert!(after.iter().sum::<usize>() <= keys_max);
                prop_assert!(shares.get(&key(owner, number)).is_some());
                prop_assert!(!known || before == after);
                prop_assert_eq!(shares.sizes.iter().map(|(size, _)| size).sum::<usize>(), shares.keys.len());
            }
        }
    }
}
