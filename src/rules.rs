//! What a cache's rules make of a question, beside its policy: does its answer depend on now or here, and what may differ
//! before it?
//!
//! The operator's rules are here as values; what they mean is decided in `decision`.

use std::time::Duration;

use crate::cache::{Cache, Query, embedded};
use crate::decision::{
    ContextRule, Conversation, Embedding, Entry, Fingerprint, Freshness, Origin, Perishable, Piece, Prompt, Reason,
    Similarity, Slots, Template, Turn, similarity,
};
use crate::embed::{Asker, Embedder};

/// What an operator set for a cache beside its policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheRules {
    /// Questions whose answers depend on now or here.
    pub perishable: Perishable,
    /// Longest life of their answers, with [`Perishable::Ttl`].
    pub perishable_ttl: Duration,
    /// Earlier turns.
    pub context: ContextRule,
    /// Least similarity of two contexts, with [`ContextRule::Semantic`].
    pub context_threshold: Similarity,
}

/// Reads the earlier turns of a request that is kept with an entry: the cache knows no provider's format.
#[derive(Debug, Clone, Copy)]
pub struct TurnReader(pub fn(&Origin) -> Vec<Turn>);

impl Default for TurnReader {
    /// Reads none: no context is matched by meaning.
    fn default() -> Self {
        Self(|_| Vec::new())
    }
}

impl PartialEq for TurnReader {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Default for CacheRules {
    /// Five minutes: a burst of one question is served, and yesterday's forecast is not. 0.80: of conversations that pass
    /// the guards, those that lead up to one question are mostly above it, and others are not
    /// (`nearhit eval conversations --context semantic`).
    fn default() -> Self {
        Self {
            perishable: Perishable::Ttl,
            perishable_ttl: Duration::from_secs(300),
            context: ContextRule::Exact,
            context_threshold: Similarity::new(0.80),
        }
    }
}

impl Cache {
    /// Time to live of an answer to the prompt for which `asked` was asked for, if anything was.
    pub(crate) fn ttl(&self, prompt: &Prompt, asked: Option<Duration>) -> Duration {
        let ttl = asked.unwrap_or(self.settings().ttl);
        let CacheRules { perishable, perishable_ttl, .. } = self.rules(&prompt.scope.cache);
        let is_shorter = perishable == Perishable::Ttl && perishable_ttl < ttl;
        if is_shorter && self.is_perishable(&prompt.text) { perishable_ttl } else { ttl }
    }

    /// Why nothing is looked for by meaning, and nothing recorded, where the rules say so.
    pub(crate) fn refuses(&self, prompt: &Prompt) -> Option<Reason> {
        let refuses = self.rules(&prompt.scope.cache).perishable == Perishable::Miss;
        (refuses && self.is_perishable(&prompt.text)).then_some(Reason::Perishable)
    }

    /// What the rules have against an entry that the policy would reuse; else how near its context is, where that may
    /// differ.
    pub(crate) async fn objection(
        &self,
        query: &Query,
        entry: &Entry,
        now_ms: u64,
    ) -> Result<Option<Similarity>, Reason> {
        if self.is_stale(&query.prompt, &entry.text, entry.life.age_ms(now_ms)) {
            return Err(Reason::Perishable);
        }
        self.context(query, entry).await
    }

    /// Whether an answer of this age to `stored` is too old for the prompt. A question of now that was stored says by
    /// its own time to live how long its answer holds.
    fn is_stale(&self, prompt: &Prompt, stored: &str, age_ms: u64) -> bool {
        let CacheRules { perishable, perishable_ttl, .. } = self.rules(&prompt.scope.cache);
        let is_old = perishable == Perishable::Ttl && u128::from(age_ms) > perishable_ttl.as_millis();
        is_old && self.is_perishable(&prompt.text) && !self.is_perishable(stored)
    }

    /// The keys of a prompt, by the rules of its cache.
    pub(crate) fn split(&self, prompt: &Prompt) -> (Fingerprint, Template, Slots) {
        let (fingerprint, template, slots) = Fingerprint::split(prompt);
        match self.rules(&prompt.scope.cache).context {
            ContextRule::Exact => (fingerprint, template, slots),
            ContextRule::Semantic => (fingerprint.with_any_context(prompt), template, slots),
        }
    }

    /// How near the entry's context is to the query's, if that is not compared exactly; or why it is another context.
    async fn context(&self, query: &Query, entry: &Entry) -> Result<Option<Similarity>, Reason> {
        let prompt = &query.prompt;
        let rules = self.rules(&prompt.scope.cache);
        if rules.context == ContextRule::Exact || !prompt.scope.turns.iter().any(Turn::is_spoken) {
            return Ok(None);
        }
        let TurnReader(read) = self.settings().turn_reader;
        let turns = read(&entry.origin);
        if turns == prompt.scope.turns {
            return Ok(None);
        }
        let asked = Conversation { turns: &prompt.scope.turns, question: &prompt.text };
        let stored = Conversation { turns: &turns, question: &entry.text };
        if !asked.may_match(&stored, self.guards()) {
            return Err(Reason::ContextDiffers);
        }
        let embedder = self.embedder().ok_or(Reason::EmbedderDown)?.as_ref();
        let embedding = async {
            let asker = Asker::lookup(&prompt.scope.tenant);
            Ok((embed_pieces(embedder, asked, asker).await?, embed_pieces(embedder, stored, asker).await?))
        };
        let (asked, stored) = match query.patience {
            None => embedding.await?,
            Some(patience) => tokio::time::timeout(patience, embedding).await.map_err(|_| Reason::EmbedTimeout)??,
        };
        let near = similarity(&asked, &stored).filter(|near| *near >= rules.context_threshold);
        near.map(Some).ok_or(Reason::ContextDiffers)
    }

    fn is_perishable(&self, text: &str) -> bool {
        Freshness::may_tell(text) && self.freshness().is_perishable(&self.guards().read(text))
    }
}

async fn embed_pieces<'a>(
    embedder: &dyn Embedder,
    conversation: Conversation<'a>,
    asker: Asker<'_>,
) -> Result<Vec<(Piece<'a>, Embedding)>, Reason> {
    let pieces = conversation.pieces();
    let texts: Vec<&str> = pieces.iter().map(|piece| piece.text).collect();
    let vectors = embedder.embed(&texts, asker).await;
    pieces.into_iter().zip(vectors).map(|(piece, vector)| Ok((piece, embedded(vector)?))).collect()
}
