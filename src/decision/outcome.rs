//! The words that say what happened to a request.
//!
//! One enum an idea, each with one spelling (`as_str`), and that spelling is what the header, the JSON body, the
//! metric label, the log field and the dashboard show. The mapping is one-to-one (tested).

use serde::{Serialize, Serializer};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every word, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The one spelling of this word, on every surface.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// What became of a request.
    Outcome {
        /// Served from the cache.
        Hit = "hit",
        /// Looked up and not served; the reason says why.
        Miss = "miss",
        /// Never looked up; the reason says why.
        Bypass = "bypass",
        /// Decided, but not served, because the cache only watches.
        Shadow = "shadow",
    }
}

words! {
    /// What made the prompt and the stored one count as the same.
    Tier {
        /// Every byte that matters is equal.
        Exact = "exact",
        /// Equal template and compatible slots.
        Template = "template",
        /// The last user text is near in meaning; everything else is equal.
        Semantic = "semantic",
        /// Waited for the same question already on its way upstream.
        Joined = "joined",
    }
}

words! {
    /// Why a request was not served from the cache.
    Reason {
        // Of a miss.
        /// The cache, or the part of it that this prompt may be served from, holds nothing.
        Empty = "empty",
        /// Nothing near.
        NoCandidate = "no_candidate",
        /// The nearest entry is not similar enough.
        BelowThreshold = "below_threshold",
        /// The chance that the nearest entry is right is too low, or not known.
        LowProbability = "low_probability",
        NumberDiffers = "number_differs",
        DateDiffers = "date_differs",
        IdDiffers = "id_differs",
        NegationDiffers = "negation_differs",
        EntityDiffers = "entity_differs",
        OrderDiffers = "order_differs",
        QuantifierDiffers = "quantifier_differs",
        LanguageDiffers = "language_differs",
        /// Earlier turns differ in meaning, or this is another place of the same conversation.
        ContextDiffers = "context_differs",
        /// Template variables differ.
        SlotsDiffer = "slots_differ",
        /// Asked upstream on purpose, to learn.
        Explore = "explore",
        /// Asked upstream on purpose, to check a hit.
        Audit = "audit",
        /// The entry is barred for errors.
        Quarantined = "quarantined",
        /// The cache is barred for errors.
        OverBudget = "over_budget",
        /// The entry is past its time to live, or older than the request allows.
        Expired = "expired",
        /// The client asked for a fresh answer.
        Refresh = "refresh",
        /// The text is longer than the embedding model's window: only an exact match may serve it.
        TooLong = "too_long",
        /// The embedding model cannot see all of the text: only an exact match may serve it.
        LossyText = "lossy_text",
        EmbedTimeout = "embed_timeout",
        EmbedderDown = "embedder_down",
        StoreDown = "store_down",
        /// The embedder's queue is full.
        Overloaded = "overloaded",
        /// The answer depends on now or here.
        Perishable = "perishable",
        // Of a bypass.
        /// The client forbade storing.
        NoStore = "no_store",
        /// Not a request whose answer can be kept.
        NotCacheable = "not_cacheable",
        ToolsInUse = "tools_in_use",
        /// The temperature is above the operator's limit.
        Sampling = "sampling",
        Multimodal = "multimodal",
        NOverOne = "n_over_one",
        /// Nobody to keep the entry for.
        NoTenant = "no_tenant",
        /// The provider keeps state that a replay would not have.
        Stateful = "stateful",
        Disabled = "disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_word_has_its_own_spelling() {
        fn check(words: Vec<&'static str>) {
            let distinct: HashSet<_> = words.iter().collect();
            assert_eq!(distinct.len(), words.len(), "two words share a spelling in {words:?}");
            assert!(words.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        }
        check(Outcome::ALL.iter().map(|w| w.as_str()).collect());
        check(Tier::ALL.iter().map(|w| w.as_str()).collect());
        check(Reason::ALL.iter().map(|w| w.as_str()).collect());
    }
}
