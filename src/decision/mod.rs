//! May a past answer be reused for this prompt?
//!
//! The pure core: no IO, no clock, no async, no log. Everything it needs comes in as a value (the time too), so
//! every rule here can be stated as a property and tested as one. It does not know where entries are kept, how
//! text becomes a vector, or which provider spoke.

pub mod budget;
mod canonical;
mod conversation;
mod entry;
mod equivalence;
mod fingerprint;
mod freshness;
mod guards;
mod outcome;
mod policy;
mod prompt;
mod refill;
mod score;
mod slots;
mod template;
mod text;
mod turn;

pub use conversation::{ContextRule, Conversation, Piece, similarity};
pub use entry::{
    Answer, AnswerKind, CHAT_PATH, Candidate, Embedding, Entry, EntryId, InvalidEmbedding, Life, Origin, Probability,
    Similarity, Source, TokenUsage, dot,
};
pub use equivalence::{same_words, words_digest};
pub use fingerprint::{Fingerprint, Partition};
pub use freshness::{Freshness, Perishable};
pub use guards::Guards;
pub use outcome::{Outcome, Reason, Tier};
pub use policy::{Admission, Appraisal, Finish, Judge, Policy, Question, Recording, Terms};
pub use prompt::{Attributes, CacheName, InvalidCacheName, Prompt, Scope, Surface, Tenant, Vars, normalise};
pub use refill::{AnswerTemplate, repeats};
pub use score::{EMBEDDER, plain_score};
pub use slots::{Key, Role, Roles, Slot, Slotted, UnknownSlot, shape};
pub use template::{Slots, Template};
pub use turn::{Speaker, Turn};
