//! The model that judges answers, with its key.

use std::sync::Arc;

use crate::judge::{AnswerJudge, PacedJudge};
use crate::upstream::judge::{JudgeSettings, KeySource, ModelJudge};

/// The error says what is missing, never the key.
pub(super) fn open_judge(settings: &JudgeSettings) -> Result<PacedJudge, String> {
    let key = match &settings.key {
        KeySource::None => None,
        KeySource::Environment(name) => {
            Some(std::env::var(name).map_err(|_| format!("judge.key_from: the environment has no variable {name}"))?)
        }
        KeySource::File(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("judge.key_from: {}: {error}", path.display()))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
    };
    let judge = ModelJudge::new(settings, key.as_deref()).map_err(|error| format!("judge: {error}"))?;
    Ok(PacedJudge::new(Arc::new(judge) as Arc<dyn AnswerJudge>, settings.limits))
}
