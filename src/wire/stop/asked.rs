//! Is a text what was asked for, as a whole, though its provider has not said so?

use serde::de::IgnoredAny;

use crate::wire::request::{Fields, is_true};

/// When an answer is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRule {
    /// Once it is a JSON object, where the request asks for JSON.
    pub json: bool,
    /// Once it has said one of these texts, none of them empty.
    pub after: Vec<String>,
}

/// What an answer is checked for while it comes.
#[derive(Debug)]
pub(super) struct Asked {
    json: Option<Json>,
    after: Vec<String>,
    /// The end of what was said, as far as one of the texts may have begun in it.
    tail: String,
}

/// A JSON object that grows.
#[derive(Debug, Default)]
struct Json {
    said: String,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// It is none, or too long to look at.
    is_lost: bool,
}

pub(super) fn is_stream(request: &Fields) -> bool {
    is_true(request, "stream")
}

impl Asked {
    /// `None` where there is nothing to check.
    pub(super) fn new(rule: &StopRule, wants_json: bool) -> Option<Self> {
        let StopRule { json, after } = rule;
        let json = (*json && wants_json).then(Json::default);
        (json.is_some() || !after.is_empty()).then(|| Self { json, after: after.clone(), tail: String::new() })
    }

    /// Another text begins.
    pub(super) fn begin(&mut self) {
        self.tail.clear();
        if let Some(json) = &mut self.json {
            *json = Json::default();
        }
    }

    /// How many bytes of the next piece belong to the answer, if it completes it.
    pub(super) fn end_in(&mut self, piece: &str) -> Option<usize> {
        let json = self.json.as_mut().and_then(|json| json.end_in(piece));
        let before = self.tail.len();
        self.tail.push_str(piece);
        let tail = &self.tail;
        let ends =
            self.after.iter().filter_map(|text| Some((tail.find(text.as_str())? + text.len()).saturating_sub(before)));
        let said = ends.min();
        let longest = self.after.iter().map(String::len).max().unwrap_or_default();
        let mut from = self.tail.len().saturating_sub(longest.saturating_sub(1));
        while !self.tail.is_char_boundary(from) {
            from -= 1;
        }
        self.tail.drain(..from);
        json.into_iter().chain(said).min()
    }

    /// Whether nothing can complete it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.after.is_empty() && self.json.as_ref().is_none_or(|json| json.is_lost)
    }
}

impl Json {
    fn end_in(&mut self, piece: &str) -> Option<usize> {
        if self.is_lost {
            return None;
        }
        let before = self.said.len();
        self.said.push_str(piece);
        for (at, byte) in piece.bytes().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' if self.depth > 0 => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' => self.depth += 1,
                b'[' if self.depth > 0 => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' if self.depth == 1 => return self.whole(before + at + 1).then_some(at + 1),
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth > 0 => {}
                _ => self.is_lost = true,
            }
        }
        self.is_lost |= self.said.len() > SAID_BYTES_MAX;
        None
    }

    /// Whether that much of it is JSON for a parser, too.
    fn whole(&mut self, bytes: usize) -> bool {
        let is_whole = serde_json::from_str::<IgnoredAny>(&self.said[..bytes]).is_ok();
        self.is_lost = !is_whole;
        is_whole
    }
}

/// An answer that is longer is not looked at.
const SAID_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What is left of a text in pieces, where it is complete before its end.
    fn ended(rule: &StopRule, pieces: &[&str]) -> Option<String> {
        let mut asked = Asked::new(rule, true).expect("something to check");
        let mut said = String::new();
        for piece in pieces {
            if let Some(end) = asked.end_in(piece) {
                return Some(said + &piece[..end]);
            }
            said.push_str(piece);
        }
        None
    }

    #[test]
    fn objects_end_where_they_end() {
        let rule = StopRule { json: true, after: Vec::new() };
        let check = |pieces: &[&str], expected: Option<&str>| {
            assert_eq!(ended(&rule, pieces).as_deref(), expected, "{pieces:?}");
        };
        check(&["{}"], Some("{}"));
        check(&[" \n", "{\"a\"", ":[{}", "]}  \n"], Some(" \n{\"a\":[{}]}"));
        check(&["{\"a\":\"}\\", "\"}\"", "} and more"], Some("{\"a\":\"}\\\"}\"}"));
        check(&["{\"a\":\"{"], None);
        check(&["Here: {}"], None);
        check(&["[{}]"], None);
        check(&["```json\n{}\n```"], None);
        check(&["{]}"], None);
        check(&["{a}"], None);
        check(&["{} {}"], Some("{}"));
    }

    #[test]
    fn texts_end_with_what_they_must_say() {
        let rule = StopRule { json: false, after: vec!["</a>".into(), "é.".into()] };
        let check = |pieces: &[&str], expected: Option<&str>| {
            assert_eq!(ended(&rule, pieces).as_deref(), expected, "{pieces:?}");
        };
        check(&["x</a>y"], Some("x</a>"));
        check(&["x<", "/", "a", "> more"], Some("x</a>"));
        check(&["x<", "/a", " >"], None);
        check(&["é", ". é. </a>"], Some("é."));
        check(&["ééé", "é"], None);
    }

    #[test]
    fn nothing_to_check() {
        let rule = StopRule { json: true, after: Vec::new() };
        assert!(Asked::new(&rule, false).is_none());
        assert!(Asked::new(&StopRule::default(), true).is_none());
        let mut asked = Asked::new(&rule, true).expect("JSON");
        assert!(asked.end_in("no").is_none() && asked.is_lost());
        asked.begin();
        assert!(!asked.is_lost());
    }

    proptest! {
        /// However it comes in pieces, an object ends at its last byte and never before.
        #[test]
        fn an_object_is_whole_at_its_last_byte(
            text in "[\\\\\"{}\\[\\]a: é]{0,12}", more in ".{0,6}", cuts in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let object = json!({"k": text, "l": [{}, text.clone()]}).to_string();
            let all = format!("{object}{more}");
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < all.len() && all.is_char_boundary(*cut)).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|pair| &all[pair[0]..pair[1]]).collect();
            prop_assert_eq!(ended(&StopRule { json: true, after: Vec::new() }, &pieces), Some(object));
        }
    }
}
