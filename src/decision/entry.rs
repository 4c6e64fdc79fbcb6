//! What the cache keeps, and the measured quantities that a decision is made from.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fingerprint::{Fingerprint, Partition};
use super::prompt::{Attributes, CacheName, Tenant, Vars};
use super::template::Slots;

/// An entry's id: the first 16 bytes of its exact key, so one question has one entry and a second insert of it
/// replaces the first. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId([u8; 16]);

impl EntryId {
    pub fn of(fingerprint: &Fingerprint) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&fingerprint.exact[..16]);
        Self(id)
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({self})")
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d)) {
            return Err(InvalidEntryId);
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |d: u8| if d.is_ascii_digit() { d - b'0' } else { d - b'a' + 10 };
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Self(id))
    }
}

/// A text that is not 32 lower-case hex digits.
#[derive(Debug, thiserror::Error)]
#[error("an entry id is 32 lower-case hex digits")]
pub struct InvalidEntryId;

/// One stored answer and what it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub id: EntryId,
    pub fingerprint: Fingerprint,
    pub tenant: Tenant,
    pub cache: CacheName,
    /// The last user text, normalised.
    pub text: String,
    pub slots: Slots,
    /// The variables that the caller named, so that the entry can be exported and inserted again.
    pub vars: Vars,
    pub origin: Origin,
    pub attributes: Attributes,
    pub tags: BTreeSet<String>,
    pub sources: BTreeSet<Source>,
    /// Who stored it, for deletion by writer.
    pub writer: String,
    pub answer: Answer,
    pub life: Life,
    /// Where the entry is found by meaning, and as what; absent for a text that no embedder could take in whole.
    pub place: Option<(Partition, Embedding)>,
}

/// From when to when an entry may be served; wall-clock milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    pub created_ms: u64,
    pub expires_ms: u64,
}

impl Life {
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }

    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.created_ms)
    }
}

/// The request that an entry answers, kept so that the entry can be exported and inserted again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredOrigin", into = "StoredOrigin")]
pub enum Origin {
    /// A bare prompt, with the context it was given.
    Prompt { context: Option<String> },
    /// A provider request: the path it was sent to, its JSON, and the headers that its answer depends on.
    Request { path: String, body: String, headers: Attributes },
}

/// As it is stored: requests without a path are the older ones, which all were chat completions.
#[derive(Serialize, Deserialize)]
enum StoredOrigin {
    Prompt { context: Option<String> },
    Chat { body: String, headers: Attributes },
    Request { path: String, body: String, headers: Attributes },
}

/// The path of a chat completion.
pub const CHAT_PATH: &str = "/v1/chat/completions";

impl From<StoredOrigin> for Origin {
    fn from(stored: StoredOrigin) -> Self {
        match stored {
            StoredOrigin::Prompt { context } => Self::Prompt { context },
            StoredOrigin::Chat { body, headers } => Self::Request { path: CHAT_PATH.to_owned(), body, headers },
            StoredOrigin::Request { path, body, headers } => Self::Request { path, body, headers },
        }
    }
}

impl From<Origin> for StoredOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Prompt { context } => Self::Prompt { context },
            Origin::Request { path, body, headers } if path == CHAT_PATH => Self::Chat { body, headers },
            Origin::Request { path, body, headers } => Self::Request { path, body, headers },
        }
    }
}

/// A document, in a version, that an answer was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub id: String,
    pub version: String,
}

/// An answer worth keeping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub kind: AnswerKind,
    /// Plain text, or a provider's JSON, as `kind` says.
    pub body: String,
    pub usage: Option<TokenUsage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerKind {
    Text,
    /// A `chat.completion` object as JSON.
    ChatCompletion,
    /// An Anthropic `message` object as JSON.
    Message,
    /// An OpenAI `response` object as JSON.
    Response,
    /// A `text_completion` object as JSON.
    TextCompletion,
    /// A list of embeddings as JSON, to the byte as the provider wrote it.
    Embeddings,
}

/// Tokens that the provider counted for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    pub input: u64,
    pub output: u64,
}

/// An entry near the prompt.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub entry: Arc<Entry>,
    pub similarity: Similarity,
}

/// Cosine similarity, in [-1, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Similarity(f32);

impl Similarity {
    /// Clamps to [-1, 1]; not a number counts as -1, the least similar.
    pub fn new(cosine: f32) -> Self {
        if cosine.is_nan() { Self(-1.0) } else { Self(cosine.clamp(-1.0, 1.0)) }
    }

    pub fn get(self) -> f32 {
        self.0
    }
}

/// A probability, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    pub const NONE: Probability = Probability(0.0);
    pub const CERTAIN: Probability = Probability(1.0);

    /// `None` outside [0, 1] and for not a number.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

/// A text's place in the embedding space: finite, of unit norm, `[dimensions]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding(Arc<[f32]>);

impl Embedding {
    /// Scales `values` to unit norm.
    ///
    /// # Errors
    /// A value is not finite, or all are zero: such a vector is equally near to everything.
    pub fn new(mut values: Vec<f32>) -> Result<Self, InvalidEmbedding> {
        if values.iter().any(|v| !v.is_finite()) {
            return Err(InvalidEmbedding::NotFinite);
        }
        let norm = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if norm < f64::from(f32::MIN_POSITIVE) {
            return Err(InvalidEmbedding::ZeroNorm);
        }
        values.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        Ok(Self(values.into()))
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    pub fn dimensions(&self) -> usize {
        self.0.len()
    }

    /// Cosine similarity; -1 between different dimensions.
    pub fn similarity(&self, other: &Embedding) -> Similarity {
        if self.dimensions() != other.dimensions() {
            return Similarity::new(-1.0);
        }
        Similarity::new(dot(&self.0, &other.0))
    }
}

/// Why a vector is no embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmbedding {
    #[error("a value of the vector is not finite")]
    NotFinite,
    #[error("the vector has zero norm")]
    ZeroNorm,
}

/// Dot product over the shorter length; of two unit vectors, their cosine. Sixteen running sums, so that the compiler
/// may use whole vector registers.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for i in 0..16 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn embeddings_are_finite_and_not_zero() {
        fn check(values: &[f32], expected: Result<(), InvalidEmbedding>) {
            assert_eq!(Embedding::new(values.to_vec()).map(|_| ()), expected, "{values:?}");
        }
        check(&[1.0, 2.0], Ok(()));
        check(&[f32::MAX, f32::MAX], Ok(()));
        check(&[1e-30, 0.0], Ok(()));
        check(&[0.0, -0.0], Err(InvalidEmbedding::ZeroNorm));
        check(&[], Err(InvalidEmbedding::ZeroNorm));
        check(&[f32::NAN, 1.0], Err(InvalidEmbedding::NotFinite));
        check(&[f32::INFINITY, 1.0], Err(InvalidEmbedding::NotFinite));
    }

    #[test]
    fn entry_ids() {
        let id = EntryId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<EntryId>().expect("its own spelling"), id);
        for bad in ["", "ab", "AB".repeat(16).as_str(), "g".repeat(32).as_str(), "é".repeat(16).as_str()] {
            assert!(bad.parse::<EntryId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn dot_agrees_with_the_plain_sum(pairs in prop::collection::vec((-1f32..1.0, -1f32..1.0), 0..100)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let plain: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            prop_assert!((f64::from(dot(&a, &b)) - plain).abs() < 1e-4);
        }

        #[test]
        fn similarity_is_symmetric_bounded_and_one_to_itself(values in prop::collection::vec(-1f32..1.0, 8), other in prop::collection::vec(-1f32..1.0, 8)) {
            if let (Ok(a), Ok(b)) = (Embedding::new(values), Embedding::new(other)) {
                prop_assert!((a.similarity(&a).get() - 1.0).abs() < 1e-6);
                prop_assert_eq!(a.similarity(&b), b.similarity(&a));
                prop_assert!(a.similarity(&b).get().abs() <= 1.0);
            }
        }
    }
}
