//! A prompt's text as a template and the values in its slots.
//!
//! Slots come from the variables that the caller names: each occurrence of a variable's value in the text becomes a
//! slot. The template, not the text, is what gets embedded; slot values are compared, never embedded. Splitting
//! loses nothing: filling a template with its own slots gives the text back, to the byte.

use std::collections::BTreeMap;

use super::prompt::{Prompt, Vars};

/// Slot values by slot name.
pub type Slots = BTreeMap<String, String>;

/// Text with slots in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Text(String),
    Slot(String),
}

impl Template {
    /// The prompt's template, and the values that stood in its slots.
    pub fn split(prompt: &Prompt) -> (Self, Slots) {
        let mut segments = vec![Segment::Text(prompt.text.clone())];
        for (name, value) in longest_first(&prompt.vars) {
            segments = segments.into_iter().flat_map(|segment| cut(segment, name, value)).collect();
        }
        let slots = segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Slot(name) => Some((name.clone(), prompt.vars.get(name)?.clone())),
                Segment::Text(_) => None,
            })
            .collect();
        (Self { segments }, slots)
    }

    /// The template as text, each slot as its name in braces: what gets embedded.
    pub fn text(&self) -> String {
        self.render(|name| format!("{{{name}}}"))
    }

    /// The template with values in its slots; a slot without a value keeps its name in braces.
    pub fn fill(&self, slots: &Slots) -> String {
        self.render(|name| slots.get(name).cloned().unwrap_or_else(|| format!("{{{name}}}")))
    }

    /// The template's parts in order: text, or the name of a slot.
    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = Result<&str, &str>> {
        self.segments.iter().map(|segment| match segment {
            Segment::Text(text) => Ok(text.as_str()),
            Segment::Slot(name) => Err(name.as_str()),
        })
    }

    fn render(&self, slot: impl Fn(&str) -> String) -> String {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => text.clone(),
                Segment::Slot(name) => slot(name),
            })
            .collect()
    }
}

/// Longer values first, so that a short value inside a long one does not break it; then by name, to be deterministic.
fn longest_first(vars: &Vars) -> Vec<(&str, &str)> {
    let mut sorted: Vec<_> = vars
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    sorted.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(b.0)));
    sorted
}

fn cut(segment: Segment, name: &str, value: &str) -> Vec<Segment> {
    let Segment::Text(text) = segment else { return vec![segment] };
    let mut parts = Vec::new();
    let mut rest = 0;
    for (at, _) in text.match_indices(value).filter(|(at, _)| stands_alone(&text, *at, value)) {
        if at > rest {
            parts.push(Segment::Text(text[rest..at].to_owned()));
        }
        parts.push(Segment::Slot(name.to_owned()));
        rest = at + value.len();
    }
    if rest < text.len() {
        parts.push(Segment::Text(text[rest..].to_owned()));
    }
    parts
}

/// Whether the value at `at` is not part of a longer word: "Ana" is no slot in "banana" or "Anatole".
pub(crate) fn stands_alone(text: &str, at: usize, value: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let joined_before = word(value.chars().next()) && word(text[..at].chars().next_back());
    let joined_after = word(value.chars().next_back()) && word(text[at + value.len()..].chars().next());
    !joined_before && !joined_after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prompt::{CacheName, Scope, Tenant};
    use super::*;

    fn prompt(text: &str, vars: &[(&str, &str)]) -> Prompt {
        let scope = Scope::bare(Tenant::new("t"), CacheName::default());
        Prompt::new(scope, text, vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn splitting() {
        fn check(text: &str, vars: &[(&str, &str)], template: &str, slots: usize) {
            let (split, found) = Template::split(&prompt(text, vars));
            assert_eq!(split.text(), template);
            assert_eq!(found.len(), slots);
        }
        check("Hello Ada, how is Ada?", &[("name", "Ada")], "Hello {name}, how is {name}?", 1);
        check("Hello Bob", &[("name", "Ada")], "Hello Bob", 0);
        check("banana by Ana", &[("name", "Ana")], "banana by {name}", 1);
        check("Anatole", &[("name", "Ana")], "Anatole", 0);
        check("order 12 of 123", &[("a", "12"), ("b", "123")], "order {a} of {b}", 2);
        check("x", &[("empty", "")], "x", 0);
        check("Ada", &[("name", "Ada")], "{name}", 1);
        check("$5 and $5.", &[("price", "$5")], "{price} and {price}.", 1);
    }

    proptest! {
        #[test]
        fn split_then_fill_is_identity(text in ".{0,60}", a in ".{0,6}", b in "[a-c ]{0,3}", braces in "[{}ab ]{0,12}") {
            for text in [text, braces] {
                let prompt = prompt(&text, &[("a", &a), ("b", &b)]);
                let (template, slots) = Template::split(&prompt);
                prop_assert_eq!(template.fill(&slots), prompt.text);
            }
        }
    }
}
