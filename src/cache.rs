//! The path of one request through the seams.
//!
//! Trouble with a part is a miss with a reason, never an error: whoever asks can always ask upstream instead. The
//! exact tier needs no embedder, so it answers while the embedder is down. This file names no adapter.

mod alike;
mod caches;
mod learn;
mod learned;
mod near;
mod records;
mod settings;
mod underway;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::decision::{
    Answer, CacheName, Embedding, Entry, EntryId, Fingerprint, Freshness, Guards, Life, Origin, Outcome, Partition,
    Policy, Probability, Prompt, Reason, Similarity, Source, Tenant, Terms, Tier,
};
use crate::embed::{Asker, EmbedError, Embedder};
use crate::metrics::Metrics;
use crate::rules::{CacheRules, TurnReader};
use crate::store::{Filter, Health, Owner, Removed, Store, StoreError, Usage};
use crate::tally::{Counts, Tallies};
use crate::templates::{TemplateSettings, Templates};

pub use self::learn::Held;
use self::learned::Learning;
pub use self::learned::{Compared, Judged, Learnt};
use self::near::Asked;
use self::underway::Underway;
pub use self::underway::{Asking, Company};

/// The cache: what it is made of, and how it decides.
pub struct Cache {
    parts: Parts,
    /// Those in force: whoever reads them goes on with what it read.
    settings: RwLock<Arc<CacheSettings>>,
    metrics: Metrics,
    tallies: Tallies,
    guards: Guards,
    learning: Learning,
    templates: Templates,
    freshness: Freshness,
    underway: Arc<Underway>,
}

/// The parts behind the seams.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    /// Without one, only exact matches are found.
    pub embedder: Option<Arc<dyn Embedder>>,
    pub clock: Arc<dyn Clock>,
}

/// What the operator set.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    pub policy: Policy,
    /// Where a cache has a policy of its own.
    pub policies: HashMap<CacheName, Policy>,
    pub rules: CacheRules,
    /// Where a cache has rules of its own.
    pub own_rules: HashMap<CacheName, CacheRules>,
    /// Needed where contexts are matched by meaning: `TurnReader(wire::request::earlier_turns)`.
    pub turn_reader: TurnReader,
    /// Time to live of an entry that names none.
    pub ttl: Duration,
    /// Length of vectors that callers bring themselves; the embedder is not used then.
    pub external_dimensions: Option<usize>,
    pub templates: TemplateSettings,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            policies: HashMap::new(),
            rules: CacheRules::default(),
            own_rules: HashMap::new(),
            turn_reader: TurnReader::default(),
            ttl: Duration::from_secs(86_400),
            external_dimensions: None,
            templates: TemplateSettings::default(),
        }
    }
}

/// A question to the cache.
#[derive(Debug, Clone)]
pub struct Query {
    pub prompt: Prompt,
    pub terms: Terms,
    pub tiers: Tiers,
    /// Most matches wanted, at least one.
    pub limit: usize,
    /// Longest wait for the embedding; unlimited if absent.
    pub patience: Option<Duration>,
    /// The prompt's vector, where the caller brings it.
    pub vector: Option<Embedding>,
    /// Whether a miss goes upstream, and its fresh answer is compared with what the cache has.
    pub is_comparable: bool,
    /// With whom it may wait for an answer that is on its way, if it may.
    pub company: Option<Company>,
}

impl Query {
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            terms: Terms::default(),
            tiers: Tiers::ALL,
            limit: 1,
            patience: None,
            vector: None,
            is_comparable: false,
            company: None,
        }
    }
}

/// Which tiers may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    pub exact: bool,
    pub template: bool,
    pub semantic: bool,
}

impl Tiers {
    pub const ALL: Tiers = Tiers { exact: true, template: true, semantic: true };
    pub const EXACT: Tiers = Tiers { exact: true, template: false, semantic: false };
}

/// What the cache has to say.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// At least one match, best first.
    Hit(Vec<Match>),
    Miss(Miss),
}

/// An entry that answers the prompt.
#[derive(Debug, Clone)]
pub struct Match {
    pub tier: Tier,
    pub entry: Arc<Entry>,
    pub similarity: Similarity,
    /// Of the turns before, where they are matched by meaning and are not equal.
    pub context: Option<Similarity>,
    /// Chance that the reuse is right, where it is known.
    pub probability: Option<Probability>,
    /// By what it was accepted, in `[0, 1]`; 1 where the question is the same.
    pub score: f64,
    /// What was decided, where there was something to decide.
    pub judged: Option<Judged>,
    pub age_ms: u64,
    pub expires_in_ms: u64,
}

/// Why nothing answers the prompt.
#[derive(Debug, Clone)]
pub struct Miss {
    pub reason: Reason,
    /// The candidate that came nearest, and what was against it.
    pub nearest: Option<Nearest>,
    /// The prompt's vector where it was made, so that an insert need not make it again.
    pub vector: Option<Embedding>,
    /// The best candidate, if it was not good enough: a fresh answer shows whether it would have been right.
    pub judged: Option<Held>,
    /// What would have been served, if the cache did not only watch.
    pub shadow: Option<Box<Match>>,
    /// Where others may wait for its answer: to be held until that is stored.
    pub asking: Option<Arc<Asking>>,
}

impl Miss {
    pub fn because(reason: Reason) -> Self {
        Self { reason, nearest: None, vector: None, judged: None, shadow: None, asking: None }
    }

    /// The word for what became of the request.
    pub fn outcome(&self) -> Outcome {
        if self.shadow.is_some() { Outcome::Shadow } else { Outcome::Miss }
    }

    /// A hit of a cache that only watches.
    fn shadow(found: Match, vector: Option<Embedding>) -> Self {
        let judged = found.judged.map(|judged| Held { judged, entry: Arc::clone(&found.entry) });
        Self { vector, judged, shadow: Some(Box::new(found)), ..Self::because(Reason::Audit) }
    }
}

/// A refused candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    pub id: EntryId,
    pub similarity: Similarity,
    pub reason: Reason,
}

/// An answer to store.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub prompt: Prompt,
    pub origin: Origin,
    pub answer: Answer,
    pub tags: BTreeSet<String>,
    pub sources: BTreeSet<Source>,
    pub writer: String,
    /// When the answer was made, wall-clock milliseconds; now if absent.
    pub created_ms: Option<u64>,
    /// Time to live from now; if absent the operator's, which is shorter where the answer depends on now or here.
    pub ttl: Option<Duration>,
    /// The prompt's vector, where it is known already.
    pub vector: Option<Embedding>,
}

/// A stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    pub id: EntryId,
    /// Why only an exact match will find it, where that is so.
    pub exact_only: Option<Reason>,
}

impl Cache {
    /// Its metrics go into `registry`.
    pub fn new(parts: Parts, settings: CacheSettings, registry: &mut Registry) -> Self {
        let parts = parts.contained();
        let (metrics, tallies, guards) = (Metrics::register(registry), Tallies::default(), Guards::default());
        let is_fresh = parts.store.usage().is_empty() && !parts.store.health().loading;
        let templates = Templates::new(&settings.templates, is_fresh);
        let (learning, freshness, underway) = (Learning::default(), Freshness::default(), Arc::default());
        let settings = RwLock::new(Arc::new(settings));
        let cache = Self { parts, settings, metrics, tallies, guards, learning, templates, freshness, underway };
        for (owner, _) in cache.parts.store.usage() {
            cache.tallies.create(&owner);
        }
        cache
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether meaning can be matched: there is an embedder, or callers bring vectors.
    pub fn matches_by_meaning(&self) -> bool {
        self.parts.embedder.is_some() || self.settings().external_dimensions.is_some()
    }

    /// Looks the prompt up, and counts what came of it.
    pub async fn lookup(&self, query: &Query) -> Lookup {
        let mut started = Instant::now();
        let lookup = match self.find(query, &mut started).await {
            Lookup::Hit(matches) if self.policy(&query.prompt.scope.cache).shadow => match matches.into_iter().next() {
                Some(found) => Lookup::Miss(Miss::shadow(found, None)),
                None => Lookup::Miss(Miss::because(Reason::NoCandidate)),
            },
            other => other,
        };
        let tally = self.tallies.of(&owner(&query.prompt));
        match &lookup {
            Lookup::Hit(matches) => {
                let Some(first) = matches.first() else { return Lookup::Miss(Miss::because(Reason::NoCandidate)) };
                self.parts.store.used(first.entry.id, self.parts.clock.now_ms());
                let usage = first.entry.answer.usage.unwrap_or_default();
                self.metrics.hit(first.tier, started.elapsed(), usage.input + usage.output);
                tally.inspect(|tally| tally.hit(first.tier, usage));
            }
            Lookup::Miss(miss) => {
                match &miss.shadow {
                    Some(found) => self.metrics.shadow(found.tier, started.elapsed()),
                    None => self.metrics.miss(miss.reason, started.elapsed()),
                }
                tally.inspect(|tally| tally.miss(miss.reason));
            }
        }
        lookup
    }

    /// Counts a miss that was decided without a lookup.
    pub fn missed(&self, prompt: &Prompt, reason: Reason) {
        self.metrics.miss(reason, Duration::ZERO);
        self.tallies.of(&owner(prompt)).inspect(|tally| tally.miss(reason));
    }

    /// The entry that answers just this prompt, if there is one by now.
    pub(crate) async fn stored(&self, prompt: &Prompt) -> Option<Match> {
        let (fingerprint, _, _) = self.split(prompt);
        match self.find_exact(&fingerprint, &Terms::default()).await {
            Ok(Exact::Found(found)) if !self.is_barred(&found.entry) => Some(found),
            _ => None,
        }
    }

    /// Counts a request that was answered together with another.
    pub(crate) fn joined(&self, owner: &Owner) {
        self.metrics.hit(Tier::Joined, Duration::ZERO, 0);
        self.tallies.of(owner).inspect(|tally| tally.hit(Tier::Joined, Default::default()));
    }

    /// Stores an answer. Its exact key finds it on return; its meaning does too, unless the result says why not.
    ///
    /// # Errors
    /// The store could not keep it.
    pub async fn insert(&self, new: NewEntry) -> Result<Inserted, StoreError> {
        let (entry, inserted) = self.entry(new).await;
        self.put(vec![entry]).await?;
        Ok(inserted)
    }

    /// Stores many answers in one go.
    ///
    /// # Errors
    /// The store could not keep them; none is kept then.
    pub async fn insert_all(&self, new: Vec<NewEntry>) -> Result<Vec<Inserted>, StoreError> {
        use futures_util::stream::{StreamExt, iter};

        // More in flight than there are workers, so that none waits for the next text; fewer than would fill the queue.
        let made: Vec<(Entry, Inserted)> = iter(new).map(|new| self.entry(new)).buffered(16).collect().await;
        let (entries, inserted): (Vec<Entry>, Vec<Inserted>) = made.into_iter().unzip();
        self.put(entries).await?;
        Ok(inserted)
    }

    /// The entry with this id, unless it is another tenant's or cache's, or expired.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn get(&self, owner: &Owner, id: EntryId) -> Result<Option<Match>, StoreError> {
        let now_ms = self.parts.clock.now_ms();
        let entry = self.parts.store.get(id).await?;
        Ok(entry
            .filter(|entry| Owner::of(entry) == *owner && !entry.life.is_over(now_ms))
            .map(|entry| matched(Tier::Exact, entry, Similarity::new(1.0), now_ms)))
    }

    /// # Errors
    /// The store could not be changed.
    pub async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError> {
        let removed = self.parts.store.remove(filter).await?;
        self.forget_removed(filter);
        Ok(removed)
    }

    /// Up to `limit` live entries in the order of their ids, after `cursor`; the id to go on from, if there are more.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn page(
        &self,
        owner: &Owner,
        cursor: Option<EntryId>,
        limit: usize,
    ) -> Result<(Vec<Match>, Option<EntryId>), StoreError> {
        let now_ms = self.parts.clock.now_ms();
        let entries = self.parts.store.scan(owner, cursor, limit).await?;
        let next = if entries.len() == limit { entries.last().map(|entry| entry.id) } else { None };
        let live = entries.into_iter().filter(|entry| !entry.life.is_over(now_ms));
        Ok((live.map(|entry| matched(Tier::Exact, entry, Similarity::new(1.0), now_ms)).collect(), next))
    }

    /// The tenant's caches that hold anything, by name.
    pub fn caches(&self, tenant: &Tenant) -> Vec<(CacheName, Usage)> {
        let usage = self.parts.store.usage().into_iter();
        let mut caches: Vec<_> =
            usage.filter(|(owner, _)| owner.tenant == *tenant).map(|(owner, usage)| (owner.cache, usage)).collect();
        caches.sort_by(|a, b| a.0.cmp(&b.0));
        caches
    }

    /// What a cache holds, and what it did since the start.
    pub fn stats(&self, owner: &Owner) -> (Usage, Counts) {
        let usage = self.parts.store.usage().into_iter().find(|(of, _)| of == owner).map(|(_, usage)| usage);
        let counts = self.tallies.of(owner).map(|tally| tally.read());
        (usage.unwrap_or_default(), counts.unwrap_or_default())
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    pub(crate) fn templates(&self) -> (&Templates, &Guards) {
        (&self.templates, &self.guards)
    }

    pub(crate) fn embedder(&self) -> Option<&Arc<dyn Embedder>> {
        self.parts.embedder.as_ref()
    }

    pub(crate) fn guards(&self) -> &Guards {
        &self.guards
    }

    pub(crate) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// How the store is.
    pub fn health(&self) -> Health {
        self.parts.store.health()
    }

    /// The wall-clock time that entries live by, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.parts.clock.now_ms()
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn refresh_gauges(&self) {
        self.metrics.store_is(&self.parts.store.health().figures());
        self.metrics.budgets_are(&self.learning.figures());
        let usage = self.parts.store.usage();
        self.metrics.holds(usage.iter().map(|(_, u)| u.entries).sum(), usage.iter().map(|(_, u)| u.bytes).sum());
    }

    /// Moves `started` by the time that it waited for others.
    async fn find(&self, query: &Query, started: &mut Instant) -> Lookup {
        // With company, even where nothing is stored yet something may be on its way.
        if query.company.is_none() && self.tallies.of(&owner(&query.prompt)).is_none() {
            return Lookup::Miss(Miss::because(self.refuses(&query.prompt).unwrap_or(Reason::Empty)));
        }
        let (fingerprint, template, slots) = self.split(&query.prompt);
        let mut stale = None;
        if query.tiers.exact {
            match self.find_exact(&fingerprint, &query.terms).await {
                Ok(Exact::Found(found)) if self.is_barred(&found.entry) => {
                    return Lookup::Miss(Miss::because(Reason::Quarantined));
                }
                Ok(Exact::Found(found)) => return Lookup::Hit(vec![found]),
                Ok(Exact::Stale) => stale = Some(Reason::Expired),
                Ok(Exact::Absent) => {}
                Err(miss) => return Lookup::Miss(miss),
            }
        }
        if let Some(reason) = self.refuses(&query.prompt) {
            return Lookup::Miss(Miss::because(stale.unwrap_or(reason)));
        }
        let tiers = if query.prompt.has_meaning() { query.tiers } else { Tiers::EXACT };
        if tiers.template {
            match self.find_template(query, &fingerprint, &template, &slots).await {
                // Of an answer that was wrong once nobody knows for which values it is right.
                Ok(Exact::Found(found)) if self.is_doubted(&found.entry) => {}
                Ok(Exact::Found(found)) => return self.weigh(query, found),
                Ok(Exact::Stale) => stale = Some(Reason::Expired),
                Ok(Exact::Absent) => {}
                Err(miss) => return Lookup::Miss(miss),
            }
        }
        if !tiers.semantic {
            return Lookup::Miss(Miss::because(stale.unwrap_or(Reason::NoCandidate)));
        }
        let vector = match self.vector(query, &template.text()).await {
            Ok(vector) => vector,
            Err(reason) => return Lookup::Miss(Miss::because(stale.unwrap_or(reason))),
        };
        let asked = Asked { query, fingerprint: &fingerprint, template: &template, slots: &slots };
        self.find_near(asked, vector, stale, started).await
    }

    async fn find_exact(&self, fingerprint: &Fingerprint, terms: &Terms) -> Result<Exact, Miss> {
        let entry = self.parts.store.get(EntryId::of(fingerprint)).await.map_err(|error| {
            tracing::warn!(%error, "could not read the store");
            Miss::because(Reason::StoreDown)
        })?;
        // The id is half of the exact key; the entry holds the whole.
        let Some(entry) = entry.filter(|entry| entry.fingerprint.exact == fingerprint.exact) else {
            return Ok(Exact::Absent);
        };
        let now_ms = self.parts.clock.now_ms();
        if Policy::is_too_old(&entry.life, terms, now_ms) {
            return Ok(Exact::Stale);
        }
        Ok(Exact::Found(matched(Tier::Exact, entry, Similarity::new(1.0), now_ms)))
    }

    async fn entry(&self, new: NewEntry) -> (Entry, Inserted) {
        let NewEntry { prompt, origin, answer, tags, sources, writer, created_ms, ttl, vector } = new;
        let (fingerprint, template, slots) = self.split(&prompt);
        let vector = match (vector, &self.parts.embedder) {
            (Some(vector), _) => Ok(vector),
            (None, _) if !prompt.has_meaning() => Err(Reason::NoCandidate),
            (None, Some(embedder)) => {
                embed(embedder.as_ref(), &template.text(), Asker::background(&prompt.scope.tenant)).await
            }
            (None, None) => Err(Reason::EmbedderDown),
        };
        let exact_only = vector.as_ref().err().copied();
        let now_ms = self.parts.clock.now_ms();
        let ttl = ttl.unwrap_or_else(|| self.ttl(&prompt, None));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let id = EntryId::of(&fingerprint);
        // What has none is embedded and put into templates at no later time either.
        let text = if prompt.has_meaning() { prompt.text } else { String::new() };
        let entry = Entry {
            id,
            fingerprint,
            tenant: prompt.scope.tenant,
            cache: prompt.scope.cache,
            text,
            slots,
            vars: prompt.vars,
            origin,
            attributes: prompt.scope.attributes,
            tags,
            sources,
            writer,
            answer,
            life: Life { created_ms: created_ms.unwrap_or(now_ms), expires_ms: now_ms.saturating_add(ttl_ms) },
            place: vector.ok().map(|vector| (Partition::new(&fingerprint, &self.space(&vector)), vector)),
        };
        (entry, Inserted { id, exact_only })
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let owners: Vec<Owner> = entries.iter().map(Owner::of).collect();
        // A cache exists from its first write on: before anybody can look for what is written.
        let tallies: Vec<_> = owners.iter().map(|owner| self.tallies.create(owner)).collect();
        let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
        let seen = self.templates.see(&entries, &self.guards);
        self.parts.store.put(entries).await?;
        self.templates.learn(&seen);
        for (owner, id) in owners.iter().zip(ids) {
            self.learning.of(owner).inspect(|learned| learned.lock().forget(id));
        }
        tallies.iter().for_each(|tally| tally.insert());
        Ok(())
    }

    /// What keeps vectors of different origin apart.
    fn space(&self, vector: &Embedding) -> String {
        match (&self.parts.embedder, self.settings().external_dimensions) {
            (Some(embedder), None) => embedder.model().to_owned(),
            _ => format!("external/{}", vector.dimensions()),
        }
    }
}

enum Exact {
    Found(Match),
    /// There, but expired or older than the request allows.
    Stale,
    Absent,
}

async fn embed(embedder: &dyn Embedder, text: &str, asker: Asker<'_>) -> Result<Embedding, Reason> {
    let result = embedder.embed(&[text], asker).await.pop();
    embedded(result.unwrap_or_else(|| Err(EmbedError::Failed("no result".into()))))
}

/// The vector, or why there is none.
pub(crate) fn embedded(result: Result<Embedding, EmbedError>) -> Result<Embedding, Reason> {
    match result {
        Ok(vector) => Ok(vector),
        Err(EmbedError::TooLong { .. }) => Err(Reason::TooLong),
        Err(EmbedError::Overloaded) => Err(Reason::Overloaded),
        Err(EmbedError::Failed(error)) => {
            tracing::warn!(error, "could not embed a text");
            Err(Reason::EmbedderDown)
        }
    }
}

fn owner(prompt: &Prompt) -> Owner {
    Owner { tenant: prompt.scope.tenant.clone(), cache: prompt.scope.cache.clone() }
}

fn matched(tier: Tier, entry: Arc<Entry>, similarity: Similarity, now_ms: u64) -> Match {
    let probability = (tier == Tier::Exact).then_some(Probability::CERTAIN);
    let (age_ms, expires_in_ms) = (entry.life.age_ms(now_ms), entry.life.expires_ms.saturating_sub(now_ms));
    Match { tier, entry, similarity, context: None, probability, score: 1.0, judged: None, age_ms, expires_in_ms }
}
