//! The template tier: what is equal but for values that say nothing, and whether the budget lets it through.

use std::sync::Arc;

use super::learned::ChoiceTerms;
use super::{Cache, Exact, Held, Lookup, Match, Miss, Nearest, Query, matched, owner};
use crate::decision::{Fingerprint, Reason, Similarity, Slots, Template, Tier};
use crate::templates::{Asked, Found};

impl Cache {
    pub(super) async fn find_template(
        &self,
        query: &Query,
        fingerprint: &Fingerprint,
        template: &Template,
        named: &Slots,
    ) -> Result<Exact, Miss> {
        let Query { prompt, terms, .. } = query;
        let now_ms = self.now_ms();
        let asked = Asked { prompt, fingerprint, template, named, terms, now_ms };
        let found = self.templates.find(&asked, self.store().as_ref(), &self.guards).await;
        match found.map_err(|error| {
            tracing::warn!(%error, "could not read the store");
            Miss::because(Reason::StoreDown)
        })? {
            Found::Entry(entry) => Ok(match self.objection(query, &entry, now_ms).await {
                Ok(context) => {
                    Exact::Found(Match { context, ..matched(Tier::Template, entry, Similarity::new(1.0), now_ms) })
                }
                Err(_) => Exact::Absent,
            }),
            Found::Stale => Ok(Exact::Stale),
            Found::Absent => Ok(Exact::Absent),
        }
    }

    /// Lets the budget decide on what was found by its template. Nothing is nearer, so what is refused is a miss.
    pub(super) fn weigh(&self, query: &Query, found: Match) -> Lookup {
        let owner = owner(&query.prompt);
        let policy = self.policy(&owner.cache);
        let learned = self.learning.create(&owner, &policy);
        let draws = [fastrand::f64(), fastrand::f64()];
        let terms = ChoiceTerms { error_max: None, is_shadow: policy.shadow, is_comparable: query.is_comparable };
        let (judged, refused) = learned.lock().choose_template(found.entry.id, terms, draws);
        let Some(reason) = refused else { return Lookup::Hit(vec![Match { judged: Some(judged), ..found }]) };
        let Match { entry, similarity, .. } = found;
        let nearest = Some(Nearest { id: entry.id, similarity, reason });
        Lookup::Miss(Miss {
            nearest,
            judged: Some(Held { judged, entry: Arc::clone(&entry) }),
            ..Miss::because(reason)
        })
    }
}
