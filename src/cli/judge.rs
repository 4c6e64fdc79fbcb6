//! The model that judges answers, with its key.

use std::sync::Arc;

use super::keys::read_key;
use crate::judge::{AnswerJudge, PacedJudge};
use crate::upstream::judge::{JudgeSettings, ModelJudge};

/// The error says what is missing, never the key.
pub(super) fn open_judge(settings: &JudgeSettings) -> Result<PacedJudge, String> {
    let key = settings.key.as_ref().map(|source| read_key("judge.", source)).transpose()?;
    let judge = ModelJudge::new(settings, key.as_ref()).map_err(|error| format!("judge: {error}"))?;
    Ok(PacedJudge::new(Arc::new(judge) as Arc<dyn AnswerJudge>, settings.limits))
}
