//! What a cache holds and did.

use std::collections::BTreeMap;

use super::super::super::api::caches::{BudgetField, StatsAnswer, TokensField};
use super::super::super::health::StoreHealth;
use super::super::pb;

impl From<StatsAnswer> for pb::StatsResponse {
    fn from(stats: StatsAnswer) -> Self {
        let StatsAnswer {
            cache,
            entries,
            bytes,
            inserts,
            hits,
            misses,
            tokens_saved: TokensField { input, output },
            store,
            estimated_error,
            estimated_error_upper,
            budget,
            money_saved,
        } = stats;
        Self {
            cache,
            entries,
            bytes,
            inserts,
            hits: counts(hits),
            misses: counts(misses),
            tokens_saved: Some(pb::Tokens { input, output }),
            store: Some(store.into()),
            estimated_error,
            estimated_error_upper,
            budget: Some(budget.into()),
            money_saved,
        }
    }
}

fn counts(counts: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect()
}

impl From<BudgetField> for pb::Budget {
    fn from(budget: BudgetField) -> Self {
        let BudgetField {
            max_error,
            max_error_per_hit,
            bound,
            estimated_error_per_hit,
            estimated_error_per_hit_upper,
            samples,
            is_over_budget,
            alarms,
            right,
            wrong,
            unknown,
            quarantined,
            shadow,
        } = budget;
        Self {
            max_error,
            max_error_per_hit,
            bound,
            estimated_error_per_hit,
            estimated_error_per_hit_upper,
            samples,
            is_over_budget,
            alarms,
            right,
            wrong,
            unknown,
            quarantined: quarantined as u64,
            shadow,
        }
    }
}

impl From<StoreHealth> for pb::Store {
    fn from(health: StoreHealth) -> Self {
        let StoreHealth {
            rewriting,
            failing,
            full,
            lost,
            restored,
            lost_vectors,
            restored_vectors,
            damaged,
            damaged_segments,
            unindexed,
            set_aside,
            expired,
            evicted,
        } = health;
        Self {
            rewriting,
            failing,
            full,
            lost,
            restored,
            lost_vectors,
            restored_vectors,
            damaged,
            damaged_segments,
            unindexed,
            set_aside,
            expired,
            evicted,
        }
    }
}
