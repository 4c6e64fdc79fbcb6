//! What an entry can be deleted by, as 64 bits: a filter looks at these before it reads any entry.
//!
//! Each tag, source, attribute and writer sets three bits. An entry without the bits of a label does not have the
//! label; one with them probably does, and is read to be sure. With five labels 21 % of the bits are set, so a label
//! that an entry does not have is looked for in vain in under 1 % of the entries.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::decision::Entry;
use crate::store::Which;

pub(super) fn of(entry: &Entry) -> u64 {
    let tags = entry.tags.iter().map(|tag| bits_of_tag(tag));
    let sources = entry.sources.iter().map(|source| bits_of_source(&source.id, &source.version));
    let attributes = entry.attributes.iter().map(|(name, value)| bits_of_attribute(name, value));
    tags.chain(sources).chain(attributes).fold(bits(WRITER, &[&entry.writer]), |all, label| all | label)
}

/// Whether an entry with these labels may be meant.
pub(super) fn may_match(which: &Which, labels: u64) -> bool {
    let has = |bits: u64| labels & bits == bits;
    match which {
        Which::All | Which::Id(_) | Which::CreatedUntil(_) => true,
        Which::Tags(tags) => tags.iter().any(|tag| has(bits_of_tag(tag))),
        Which::Sources(wanted) => wanted.iter().any(|source| {
            // No bits say which documents an entry is from in whatever version: all are read.
            source.version.as_ref().is_none_or(|version| has(bits_of_source(&source.id, version)))
        }),
        Which::Attributes(wanted) => wanted.iter().all(|(name, value)| has(bits_of_attribute(name, value))),
        Which::Writer(writer) => has(bits(WRITER, &[writer])),
    }
}

fn bits_of_tag(tag: &str) -> u64 {
    bits(TAG, &[tag])
}

fn bits_of_source(id: &str, version: &str) -> u64 {
    bits(SOURCE, &[id, version])
}

fn bits_of_attribute(name: &str, value: &str) -> u64 {
    bits(ATTRIBUTE, &[name, value])
}

fn bits(kind: u64, texts: &[&str]) -> u64 {
    let hash = texts.iter().fold(kind, |seed, text| xxh3_64_with_seed(text.as_bytes(), seed));
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
}

const TAG: u64 = 1;
const SOURCE: u64 = 2;
const ATTRIBUTE: u64 = 3;
const WRITER: u64 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::WantedSource;

    proptest! {
        /// The other direction, that few match in vain, is a matter of speed only.
        #[test]
        fn whatever_has_a_label_may_match(texts in prop::collection::vec(".{0,8}", 1..20), others in any::<u64>()) {
            for text in &texts {
                let source = |version: Option<&str>| WantedSource { id: text.clone(), version: version.map(Into::into) };
                prop_assert!(may_match(&Which::Sources([source(None)].into()), others));
                for (which, label) in [
                    (Which::Tags([text.clone(), "x".into()].into()), bits_of_tag(text)),
                    (Which::Sources([source(Some("1"))].into()), bits_of_source(text, "1")),
                    (Which::Attributes([(text.clone(), "v".into())].into()), bits_of_attribute(text, "v")),
                    (Which::Writer(text.clone()), bits(WRITER, &[text])),
                ] {
                    prop_assert!(may_match(&which, others | label), "{which:?}");
                    prop_assert!(!may_match(&which, 0), "{which:?}");
                }
            }
        }
    }
}
