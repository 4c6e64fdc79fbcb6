//! One message before the last user text: an earlier turn, or an operator's prompt.

use serde_json::{Map, Value};

use super::prompt::normalise;

/// Who spoke, and what.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub role: Speaker,
    /// What was said, part by part, [`normalise`]d.
    pub texts: Vec<String>,
    /// Whatever else the message holds, such as a name.
    pub rest: Map<String, Value>,
}

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Nobody in particular: system prompt and earlier turns in one text.
    Context,
    System,
    Developer,
    User,
    Assistant,
}

impl Turn {
    pub fn new<'a>(role: Speaker, texts: impl IntoIterator<Item = &'a str>, rest: Map<String, Value>) -> Self {
        Self { role, texts: texts.into_iter().map(normalise).collect(), rest }
    }

    /// Of a bare prompt's context.
    pub fn context(text: &str) -> Self {
        Self::new(Speaker::Context, [text], Map::new())
    }

    /// Whether a party to the conversation said it, not the operator.
    pub fn is_spoken(&self) -> bool {
        matches!(self.role, Speaker::User | Speaker::Assistant)
    }
}

impl Speaker {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Speaker::Context => "context",
            Speaker::System => "system",
            Speaker::Developer => "developer",
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_normalised() {
        let turn = Turn::new(Speaker::User, [" hi\r\n", "cafe\u{301}"], Map::new());
        assert_eq!(turn.texts, ["hi", "café"]);
        assert!(turn.is_spoken() && !Turn::context("x").is_spoken());
    }
}
