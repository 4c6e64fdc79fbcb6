//! What does a row put to the cache? Rows to prompts.
//!
//! A pair is alone: its row number is part of its scope, so one store holds every pair and none meets another. The
//! rows of a stream share one scope, apart from their context. This file knows neither labels nor decisions.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::rows::{Content, Row};
use crate::decision::{
    Attributes, CHAT_PATH, CacheName, ContextRule, Conversation, Origin, Prompt, Reason, Scope, Surface, Template,
    Tenant, Turn, Vars,
};
use crate::wire::request::{ProviderRequest, Surroundings};

/// What one row does, in this order: store, ask, be stored.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// Stored before the row asks; absent on a stream, and where its answer could not be kept.
    pub(super) earlier: Option<Question>,
    /// What the row asks, or why the cache is bypassed.
    pub(super) asked: Result<Question, Reason>,
    /// Whether later rows may be answered with this row's answer.
    pub(super) is_shared: bool,
}

/// A prompt, and what would be kept of where it came from.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) prompt: Prompt,
    pub(super) origin: Origin,
}

impl Trial {
    pub(super) fn of_all(rows: &[Row]) -> Vec<Self> {
        rows.iter().enumerate().map(|(index, row)| Self::of(index, row)).collect()
    }

    fn of(index: usize, row: &Row) -> Self {
        let alone = Attributes::from([("row".to_owned(), index.to_string())]);
        match &row.content {
            Content::Pair { a, b, .. } => {
                let [earlier, asked] = [a, b].map(|text| Question::text(text, None, alone.clone()));
                Self { earlier: Some(earlier), asked: Ok(asked), is_shared: false }
            }
            Content::Conversations { a, b, .. } => {
                let [earlier, asked] = [a, b].map(|messages| Question::chat(messages, alone.clone()));
                Self { earlier: earlier.ok(), asked, is_shared: false }
            }
            Content::Arrival { text, context, .. } => {
                let asked = Question::text(text, context.clone(), Attributes::new());
                Self { earlier: None, asked: Ok(asked), is_shared: true }
            }
        }
    }
}

impl Question {
    fn text(text: &str, context: Option<String>, attributes: Attributes) -> Self {
        let scope = Scope {
            tenant: tenant(),
            cache: CacheName::default(),
            surface: Surface::Text,
            upstream: String::new(),
            model: String::new(),
            turns: context.iter().map(|context| Turn::context(context)).collect(),
            parameters: Default::default(),
            headers: Default::default(),
            attributes,
        };
        Self { prompt: Prompt::new(scope, text, Vars::new()), origin: Origin::Prompt { context } }
    }

    fn chat(messages: &[Value], attributes: Attributes) -> Result<Self, Reason> {
        let body = json!({"model": "eval", "messages": messages});
        let request = ProviderRequest::new(CHAT_PATH, body).map_err(|_| Reason::NotCacheable)?;
        let prompt = request.prompt(Surroundings {
            tenant: tenant(),
            cache: CacheName::default(),
            upstream: String::new(),
            headers: Attributes::new(),
            attributes,
            vars: Vars::new(),
            temperature_max: None,
            tool_calls: false,
        })?;
        Ok(Self { prompt, origin: request.to_origin(Attributes::new()) })
    }

    /// The pieces of earlier turns that get embedded.
    fn context_embedded(&self) -> Vec<String> {
        let conversation = Conversation { turns: &self.prompt.scope.turns, question: &self.prompt.text };
        conversation.pieces().iter().map(|piece| piece.text.to_owned()).collect()
    }

    /// The text that gets embedded.
    pub(super) fn text_embedded(&self) -> String {
        Template::split(&self.prompt).0.text()
    }
}

/// The distinct texts that get embedded, in order of first appearance; the turns before a question only where the rule
/// asks for them.
pub(super) fn texts(trials: &[Trial], context: ContextRule) -> Vec<String> {
    let mut seen = HashSet::new();
    let questions = trials.iter().flat_map(|trial| trial.earlier.iter().chain(trial.asked.as_ref().ok()));
    let texts = questions.flat_map(|question| {
        let before = if context == ContextRule::Semantic { question.context_embedded() } else { Vec::new() };
        before.into_iter().chain([question.text_embedded()])
    });
    texts.filter(|text| seen.insert(text.clone())).collect()
}

fn tenant() -> Tenant {
    Tenant::new("eval")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Fingerprint;

    fn trials(contents: Vec<Content>) -> Vec<Trial> {
        let rows: Vec<Row> = contents.into_iter().map(|content| Row { id: json!("r"), kind: None, content }).collect();
        Trial::of_all(&rows)
    }

    fn scope(question: &Question) -> [u8; 32] {
        Fingerprint::split(&question.prompt).0.scope
    }

    #[test]
    fn pairs_are_alone() {
        let pair = || Content::Pair { a: "x".into(), b: " y\r\n".into(), label: None };
        let trials = trials(vec![pair(), pair()]);
        let asked: Vec<_> = trials.iter().map(|trial| scope(trial.asked.as_ref().expect("a question"))).collect();
        let earlier: Vec<_> = trials.iter().map(|trial| scope(trial.earlier.as_ref().expect("a question"))).collect();
        assert_eq!(asked, earlier);
        assert_ne!(asked[0], asked[1]);
        assert_eq!(texts(&trials, ContextRule::Exact), ["x", "y"]);
    }

    #[test]
    fn a_stream_is_shared_unless_the_context_differs() {
        let arrival = |context: Option<&str>| Content::Arrival {
            text: "x".into(),
            context: context.map(Into::into),
            class: None,
        };
        let trials = trials(vec![arrival(None), arrival(None), arrival(Some("c")), arrival(Some("d"))]);
        let scopes: Vec<_> = trials.iter().map(|trial| scope(trial.asked.as_ref().expect("a question"))).collect();
        assert_eq!(scopes[0], scopes[1]);
        assert_eq!(scopes.iter().collect::<HashSet<_>>().len(), 3);
        assert!(trials.iter().all(|trial| trial.is_shared && trial.earlier.is_none()));
    }

    #[test]
    fn turns_are_embedded_where_they_are_compared() {
        let message = |role: &str, text: &str| json!({"role": role, "content": text});
        let a = vec![message("system", "s"), message("user", "u"), message("assistant", "v"), message("user", "x")];
        let trials = trials(vec![Content::Conversations { a: a.clone(), b: a, label: None }]);
        assert_eq!(texts(&trials, ContextRule::Exact), ["x"]);
        assert_eq!(texts(&trials, ContextRule::Semantic), ["u", "v", "x"]);
    }

    #[test]
    fn conversations_may_bypass() {
        let user = json!({"role": "user", "content": "x"});
        let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]});
        let trials = trials(vec![
            Content::Conversations { a: vec![user.clone()], b: vec![image], label: None },
            Content::Conversations { a: vec![], b: vec![user], label: None },
        ]);
        assert_eq!(trials[0].asked.as_ref().err(), Some(&Reason::Multimodal));
        assert!(trials[0].earlier.is_some());
        assert!(trials[1].earlier.is_none() && trials[1].asked.is_ok());
    }
}
