//! The model that judges answers, with its key.

use std::sync::Arc;

use super::keys::read_key;
use crate::judge::{AnswerJudge, PacedJudge};
use crate::upstream::ProviderKey;
use crate::upstream::judge::{JudgeSettings, ModelJudge};

/// Its key, if it needs one. The error says what is missing, never the key.
pub(super) fn judge_key(settings: &JudgeSettings) -> Option<Result<ProviderKey, String>> {
    settings.key.as_ref().map(|source| read_key("judge.", source))
}

/// The model with its key.
pub(super) fn open_judge(settings: &JudgeSettings, key: Option<&ProviderKey>) -> Result<PacedJudge, String> {
    let judge = ModelJudge::new(settings, key).map_err(|error| format!("judge: {error}"))?;
    Ok(PacedJudge::new(Arc::new(judge) as Arc<dyn AnswerJudge>, settings.limits))
}
