//! What a cache's prompts have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::App;
use super::super::error::ApiError;
use super::fields::CallersCache;
use crate::decision::Role;
use crate::templates::{Cut, MinedSlot, MinedTemplate, MinedTemplates, Observed};
use crate::wire::problem::Problem;

/// The templates of a cache's entries.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct TemplatesAnswer {
    cache: String,
    /// Entries that were looked at, at most some 20,000.
    entries: u64,
    /// False if there is more than one answer counts.
    complete: bool,
    /// What there is more of: `entries`, `templates`, `slots` (in one text) or `values`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut: Vec<&'static str>,
    /// Most frequent first.
    data: Vec<TemplateField>,
}

/// Prompts that are equal but for their values.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct TemplateField {
    /// Each slot as its name in braces.
    #[schema(example = "Where is order {id}?")]
    template: String,
    count: u64,
    /// Whether an answer that repeats a value is served around another one.
    refilled: bool,
    slots: Vec<SlotField>,
}

/// A slot, and what its values look like: letters are `a` or `A`, digits `9`, runs are one.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct SlotField {
    name: String,
    /// `volatile`, `significant` or `echoed`; `named` for a variable of the callers.
    role: &'static str,
    /// The most frequent ones first.
    shapes: Vec<ShapeField>,
    /// Absent where no two entries are equal but for its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<ObservedField>,
}

/// What the stored answers say of a slot: advice for `[templates.roles]`.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ObservedField {
    /// Different values whose answers were compared.
    values: usize,
    /// From 8 values on. `volatile`: the answers are the same. `echoed`: they differ in the value that they repeat.
    /// `significant`: they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    looks: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ShapeField {
    #[schema(example = "#A-9")]
    shape: String,
    count: u64,
}

/// Which templates the cache's prompts have. No value is shown.
#[utoipa::path(
    get, path = "/v1/caches/{cache}/templates", params(("cache" = String, Path), ("limit" = Option<usize>, Query)),
    responses((status = 200, description = "Most frequent first", body = TemplatesAnswer), (status = 400, description = "A parameter is wrong"))
)]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    Query(mut query): Query<BTreeMap<String, String>>,
) -> Result<Json<TemplatesAnswer>, ApiError> {
    let limit =
        match query.remove("limit") {
            None => LIMIT,
            Some(text) => text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
                Problem::invalid("limit", format!("limit: must be from 1 to {LIMIT_MAX}, got {text:?}"))
            })?,
        };
    if let Some(name) = query.keys().next() {
        return Err(Problem::invalid(name, format!("{name}: unknown parameter")).into());
    }
    let MinedTemplates { entries, cut, templates } = app.cache.mined_templates(&owner, limit).await?;
    let data = templates.into_iter().map(TemplateField::from).collect();
    let cut: Vec<&str> = cut.into_iter().map(Cut::as_str).collect();
    Ok(Json(TemplatesAnswer { cache: owner.cache.to_string(), entries, complete: cut.is_empty(), cut, data }))
}

impl From<MinedTemplate> for TemplateField {
    fn from(MinedTemplate { text, count, refilled, slots }: MinedTemplate) -> Self {
        Self { template: text, count, refilled, slots: slots.into_iter().map(SlotField::from).collect() }
    }
}

impl From<MinedSlot> for SlotField {
    fn from(MinedSlot { name, role, shapes, observed }: MinedSlot) -> Self {
        let shapes = shapes.into_iter().map(|(shape, count)| ShapeField { shape, count }).collect();
        let observed =
            observed.map(|Observed { values, looks }| ObservedField { values, looks: looks.map(Role::as_str) });
        Self { name, role: role.map_or("named", Role::as_str), shapes, observed }
    }
}

/// Templates in an answer that asks for no number.
const LIMIT: usize = 50;

const LIMIT_MAX: usize = 1000;
