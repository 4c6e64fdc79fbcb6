//! A text with its values in slots, and what each slot is for.
//!
//! The caller names some slots; in the text between them values are found by what they look like. What a slot's value
//! does to the answer is its [`Role`]: by default a name in a greeting does nothing, an identifier or an address is at
//! most repeated, and everything else makes another question of it. Splitting loses nothing: filling a text's slots with
//! its own values gives the text back, to the byte.
//!
//! Keys are for memory only: they may change with every release.

use std::collections::{BTreeMap, HashMap};

use super::canonical::FieldHasher;
use super::template::{Slots, Template};
use super::text::Text;
use super::text::lexicon::Lexicon;
use super::text::values::{Kind, Value};

/// What a slot's value does to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nothing: who greets, which session.
    Volatile,
    /// Another value is another question.
    Significant,
    /// It may be repeated in the answer, and changes nothing else there.
    Echoed,
}

/// The roles of slots, by kind of value or by name of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeMap<String, Role>);

/// A text with slots in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slotted {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A variable that the caller named.
    Named {
        name: String,
        value: String,
    },
    Slot(Slot),
}

/// A slot that was found, and what stood in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The kind, numbered from the second on: `number`, `number_2`.
    pub name: String,
    /// As it was written.
    pub written: String,
    /// Equal for two spellings of one value.
    pub canonical: String,
    kind: Kind,
}

/// What a text with slots is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

/// A name that no slot can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a kind of value (id, number, name) nor a slot (id_2)")]
pub struct UnknownSlot(String);

impl Role {
    pub const ALL: [Role; 3] = [Role::Volatile, Role::Significant, Role::Echoed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Volatile => "volatile",
            Role::Significant => "significant",
            Role::Echoed => "echoed",
        }
    }
}

impl Default for Roles {
    /// An answer can be computed from a number or a date, and a quotation, a URL or a path is what is asked about. An
    /// identifier or an address says nothing by itself.
    fn default() -> Self {
        let role = |kind| match kind {
            Kind::Name => Role::Volatile,
            Kind::Id | Kind::Email => Role::Echoed,
            _ => Role::Significant,
        };
        Self(Kind::ALL.iter().map(|kind| (kind.as_str().to_owned(), role(*kind))).collect())
    }
}

impl Roles {
    /// From now on slots of that kind, or the slot of that name, have this role.
    ///
    /// # Errors
    /// There is no such kind, and no slot is ever called that.
    pub fn set(&mut self, name: &str, role: Role) -> Result<(), UnknownSlot> {
        let (kind, number) = name.split_once('_').unwrap_or((name, "2"));
        let is_kind = Kind::ALL.iter().any(|known| known.as_str() == kind);
        let is_number = !number.starts_with('0') && number.parse::<u32>().is_ok_and(|number| number >= 2);
        if !is_kind || !is_number {
            return Err(UnknownSlot(name.chars().take(80).collect()));
        }
        self.0.insert(name.to_owned(), role);
        Ok(())
    }

    pub fn of(&self, slot: &Slot) -> Role {
        let role = self.0.get(&slot.name).or_else(|| self.0.get(slot.kind.as_str()));
        role.copied().unwrap_or(Role::Significant)
    }
}

impl Slotted {
    /// `template` and `named` are the text's own, as the caller's variables split it. A value that encloses others is
    /// one slot; one that holds a part of a variable is none.
    pub(crate) fn split(text: &Text, template: &Template, named: &Slots, lexicon: &Lexicon) -> Self {
        let mut values = text.values.iter().filter(|value| !value.is_soft).peekable();
        let mut counts: HashMap<Kind, usize> = HashMap::new();
        let mut parts = Vec::new();
        let mut at = 0;
        for part in template.parts() {
            let segment = match part {
                Ok(segment) => segment,
                Err(name) => {
                    let value = named.get(name).cloned().unwrap_or_default();
                    at += value.len();
                    parts.push(Part::Named { name: name.to_owned(), value });
                    continue;
                }
            };
            let end = at + segment.len();
            let written = |from: usize, to: usize| text.source.get(from..to).unwrap_or_default().to_owned();
            while let Some(value) = values.next_if(|value| value.start < end) {
                if value.start < at || value.end > end {
                    continue;
                }
                if value.start > at {
                    parts.push(Part::Text(written(at, value.start)));
                }
                let count = counts.entry(value.kind).or_default();
                *count += 1;
                parts.push(Part::Slot(Slot::new(value, *count, written(value.start, value.end), lexicon)));
                at = value.end;
            }
            if at < end {
                parts.push(Part::Text(written(at, end)));
            }
            at = end;
        }
        Self { parts }
    }

    /// The text with each slot as its name in braces.
    pub fn template(&self) -> String {
        self.render(|slot| format!("{{{}}}", slot.name), |name, _| format!("{{{name}}}"))
    }

    /// The text that was split.
    pub fn filled(&self) -> String {
        self.render(|slot| slot.written.clone(), |_, value| value.to_owned())
    }

    /// The slots that were found, in order.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.parts.iter().filter_map(|part| match part {
            Part::Slot(slot) => Some(slot),
            _ => None,
        })
    }

    /// Every slot in order, the caller's too: its name, what stands in it, and the slot if it was found.
    pub fn all_slots(&self) -> impl Iterator<Item = (&str, &str, Option<&Slot>)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Named { name, value } => Some((name.as_str(), value.as_str(), None)),
            Part::Slot(slot) => Some((slot.name.as_str(), slot.written.as_str(), Some(slot))),
        })
    }

    /// Finds what asks the same: equal but for the values of volatile slots, and for how others are spelt.
    pub fn template_key(&self, scope: &[u8; 32], roles: &Roles) -> Key {
        let is_compared = |slot: &Slot| roles.of(slot) != Role::Volatile;
        self.key("nearhit 2026-11-22 slotted template v1", scope, |_, slot| {
            is_compared(slot).then_some(slot.compared())
        })
    }

    /// Finds what is equal but for the values.
    pub fn skeleton_key(&self, scope: &[u8; 32]) -> Key {
        self.key("nearhit 2026-11-22 skeleton v1", scope, |_, _| None)
    }

    /// Finds what is equal, to the byte, but for the value of the slot at this place among [`Slotted::slots`].
    pub fn frame_key(&self, scope: &[u8; 32], open: usize) -> Key {
        self.key("nearhit 2026-11-22 frame v1", scope, |at, slot| (at != open).then_some(slot.written.as_str()))
    }

    /// Whether both have the same text around the same slots, and no value differs but those of volatile slots.
    pub fn fits(&self, other: &Self, roles: &Roles) -> bool {
        let fits = |(a, b): (&Part, &Part)| match (a, b) {
            (Part::Slot(a), Part::Slot(b)) => {
                a.name == b.name && (roles.of(a) == Role::Volatile || a.compared() == b.compared())
            }
            (a, b) => a == b,
        };
        self.parts.len() == other.parts.len() && self.parts.iter().zip(&other.parts).all(fits)
    }

    /// The text with the other's values in its volatile slots. Both fit.
    pub fn filled_with_volatile(&self, other: &Self, roles: &Roles) -> String {
        let mut others = other.slots();
        self.render(
            |slot| {
                let theirs = others.next().filter(|_| roles.of(slot) == Role::Volatile);
                theirs.unwrap_or(slot).written.clone()
            },
            |_, value| value.to_owned(),
        )
    }

    fn key(&self, context: &'static str, scope: &[u8; 32], value: impl Fn(usize, &Slot) -> Option<&str>) -> Key {
        let mut hasher = FieldHasher::new(context);
        hasher.bytes(scope);
        hasher.parts(self.parts.len());
        let mut slots = 0;
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    hasher.text("text");
                    hasher.text(text);
                }
                Part::Named { name, value } => {
                    hasher.text("named");
                    hasher.text(name);
                    hasher.text(value);
                }
                Part::Slot(slot) => {
                    let value = value(slots, slot);
                    hasher.text(if value.is_some() { "slot" } else { "open" });
                    hasher.text(&slot.name);
                    hasher.text(value.unwrap_or_default());
                    slots += 1;
                }
            }
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finish()[..16]);
        Key(short)
    }

    fn render(&self, mut slot: impl FnMut(&Slot) -> String, named: impl Fn(&str, &str) -> String) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(between) => text.push_str(between),
                Part::Named { name, value } => text.push_str(&named(name, value)),
                Part::Slot(found) => text.push_str(&slot(found)),
            }
        }
        text
    }
}

impl Slot {
    fn new(value: &Value, count: usize, written: String, lexicon: &Lexicon) -> Self {
        let kind = value.kind;
        let name = if count == 1 { kind.as_str().to_owned() } else { format!("{}_{count}", kind.as_str()) };
        // In a quotation and in a URL's path every letter counts.
        let canonical = match (kind, value.unit) {
            (Kind::Quoted | Kind::Url, _) => written.clone(),
            (_, Some(unit)) => format!("{} {}", value.canonical, lexicon.unit_name(unit)),
            (_, None) => value.canonical.clone(),
        };
        Self { name, written, canonical, kind }
    }

    /// What two slots are compared by: two spellings of one identifier may be two identifiers.
    fn compared(&self) -> &str {
        if self.kind == Kind::Id { &self.written } else { &self.canonical }
    }

    /// Long enough not to stand in an answer by chance.
    pub fn is_telling(&self) -> bool {
        self.written.chars().filter(|letter| letter.is_alphanumeric()).take(TELLING).count() == TELLING
    }
}

/// What a value looks like, without saying it: runs of letters as one `a` or `A`, of digits as one `9`, of what is
/// neither nor ASCII as one `?`. At most 32 characters.
pub fn shape(value: &str) -> String {
    let mut shape = String::new();
    for letter in value.chars() {
        let class = match letter {
            _ if letter.is_uppercase() => 'A',
            _ if letter.is_alphabetic() => 'a',
            _ if letter.is_numeric() => '9',
            _ if letter.is_whitespace() => ' ',
            _ if letter.is_ascii_punctuation() => letter,
            _ => '?',
        };
        if !shape.ends_with(class) {
            shape.push(class);
        }
        if shape.len() >= SHAPE_LONGEST {
            break;
        }
    }
    shape
}

/// Letters and digits of a value that tells.
const TELLING: usize = 4;

const SHAPE_LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::fingerprint::Fingerprint;
    use super::super::guards::Guards;
    use super::super::prompt::{CacheName, Prompt, Scope, Surface, Tenant};
    use super::*;

    thread_local! {
        // Reading the word lists takes longer than a case.
        static GUARDS: Guards = Guards::default();
    }

    fn split_with(text: &str, vars: &[(&str, &str)]) -> Slotted {
        let scope = Scope::bare(Tenant::new("t"), CacheName::default());
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let prompt = Prompt { scope, text: text.to_owned(), vars };
        let (template, named) = Template::split(&prompt);
        GUARDS.with(|guards| guards.split(&guards.read(&prompt.text), &template, &named))
    }

    fn split(text: &str) -> Slotted {
        split_with(text, &[])
    }

    fn key(text: &str) -> Key {
        split(text).template_key(&[0; 32], &Roles::default())
    }

    #[test]
    fn templates() {
        fn check(text: &str, vars: &[(&str, &str)], template: &str) {
            assert_eq!(split_with(text, vars).template(), template);
            assert_eq!(split_with(text, vars).filled(), text);
        }
        check("Where is order #K-20418?", &[], "Where is order {id}?");
        check("Convert 10 miles and 3 feet", &[], "Convert {quantity} and {quantity_2}");
        check("Hi Ada, mail bob@example.com at 5pm", &[], "Hi {name}, mail {email} at {time}");
        check("nothing here, not even the first one", &[], "nothing here, not even the first one");
        check("say \"12 times\" twice", &[], "say {quoted} twice");
        check("", &[], "");
        // What the caller names is not looked into.
        check("Where is order #K-20418 of 2024?", &[("order", "K-20418")], "Where is order #{order} of {date}?");
        check("say \"12 times\" twice", &[("count", "12")], "say \"{count} times\" twice");
        check("Hi Ada, it is 5 km", &[("who", "Ada"), ("far", "km")], "Hi {who}, it is 5 {far}");
    }

    #[test]
    fn equal_keys_are_for_equal_questions() {
        fn check(a: &str, b: &str, equal: bool) {
            assert_eq!(key(a) == key(b), equal, "{a} and {b}");
            assert_eq!(split(a).fits(&split(b), &Roles::default()), equal, "{a} and {b}");
        }
        check("Hi Ada, how do I reset my password?", "Hi Bob, how do I reset my password?", true);
        check("Hi Ada, how do I reset my password?", "Hello Ada, how do I reset my password?", false);
        check("It took 1,000 days", "It took 1000 days", true);
        check("It took 1,000 days", "It took 1000 weeks", false);
        check("Where is order #K-20418?", "Where is order #K-20419?", false);
        check("Pay $5 now", "Pay 5 dollars now", true);
        check("Pay $5 now", "Pay €5 now", false);
        check("Is it {number}?", "Is it 5?", false);
        check("Write \"US\" out", "Write \"us\" out", false);
        check("Read https://a.b/C now", "Read https://a.b/c now", false);
    }

    #[test]
    fn roles_decide() {
        fn check(roles: &Roles, text: &str, expected: &[Role]) {
            assert_eq!(split(text).slots().map(|slot| roles.of(slot)).collect::<Vec<_>>(), expected, "{text}");
        }
        let text = "Hi Ada, where are #K-20418 and #K-20419 since 2024?";
        let (volatile, significant, echoed) = (Role::Volatile, Role::Significant, Role::Echoed);
        let mut roles = Roles::default();
        check(&roles, text, &[volatile, echoed, echoed, significant]);
        roles.set("id", significant).expect("a kind");
        check(&roles, text, &[volatile, significant, significant, significant]);
        roles.set("id_2", volatile).expect("a slot");
        roles.set("date", volatile).expect("a kind");
        check(&roles, text, &[volatile, significant, volatile, volatile]);
        let (a, b) = (split(text), split("Hi Bob, where are #K-20418 and #K-1 since May 2024?"));
        assert!(a.fits(&b, &roles));
        assert_eq!(a.filled_with_volatile(&b, &roles), b.filled());
        for bad in ["", "ids", "id_", "id_0", "id_1", "id_02", "id_x", "_2", "id_2_3"] {
            assert!(roles.set(bad, echoed).is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_say_nothing() {
        fn check(value: &str, expected: &str) {
            assert_eq!(shape(value), expected);
        }
        check("#K-20418", "#A-9");
        check("ada@example.com", "a@a.a");
        check("Ada Lovelace", "Aa Aa");
        check("\"→→ \u{1f600}\"", "\"? ?\"");
        check("12.5 %", "9.9 %");
        check("東京", "a");
        assert_eq!(shape(&"a1".repeat(100)).len(), SHAPE_LONGEST);
    }

    #[test]
    fn no_scope_finds_what_another_holds() {
        type Change = fn(&mut Scope);
        let scope = || Scope {
            surface: Surface::Chat,
            upstream: "openai".into(),
            model: "m".into(),
            turns: vec![crate::decision::Turn::context("be brief")],
            parameters: [("temperature".to_owned(), json!(0))].into(),
            headers: [("openai-beta".to_owned(), "x".to_owned())].into(),
            attributes: [("locale".to_owned(), "en".to_owned())].into(),
            ..Scope::bare(Tenant::new("t"), CacheName::default())
        };
        let changes: &[Change] = &[
            |s| s.tenant = Tenant::new("u"),
            |s| s.cache = CacheName::parse("other").expect("a valid name"),
            |s| s.surface = Surface::Text,
            |s| s.upstream.clear(),
            |s| s.model.clear(),
            |s| s.turns.clear(),
            |s| s.parameters.clear(),
            |s| s.headers.clear(),
            |s| s.attributes.clear(),
        ];
        let text = "Hi Ada, where is order #K-20418?";
        let keys = |scope: Scope| {
            let scope = Fingerprint::split(&Prompt::new(scope, text, Default::default())).0.scope;
            let slotted = split(text);
            let template = slotted.template_key(&scope, &Roles::default());
            [template, slotted.skeleton_key(&scope), slotted.frame_key(&scope, 0), slotted.frame_key(&scope, 1)]
        };
        let mut seen = keys(scope()).to_vec();
        for change in changes {
            let mut changed = scope();
            change(&mut changed);
            seen.extend(keys(changed));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "two scopes, or two sorts of key, share one");
    }

    proptest! {
        #[test]
        fn splitting_into_slots_loses_nothing(
            text in ".{0,80}", dense in "[0-9 .,:/#$€%apm\"`@k-]{0,40}",
            words in "([a-zäéñ年月日不안 0-9]|two |may |5pm |http://a.b/c |Hi Ada,){0,14}", a in "[0-9a-c#]{0,3}", b in ".{0,2}",
        ) {
            for text in [text, dense, words] {
                prop_assert_eq!(split(&text).filled(), text.clone());
                prop_assert_eq!(split_with(&text, &[("a", &a), ("b", &b)]).filled(), text);
            }
        }

        #[test]
        fn equal_keys_imply_equal_significant_values(
            a in "(Hi [AB][a-b], )?is ([0-9]{1,2}|1,0{3}|1000|#[ab][0-9]{3}|5 km|5km) (or [0-9])?", b in "(Hi [AB][a-b], )?is ([0-9]{1,2}|1,0{3}|1000|#[ab][0-9]{3}|5 km|5km) (or [0-9])?",
        ) {
            let (x, y) = (split(&a), split(&b));
            let roles = Roles::default();
            let values = |of: &Slotted| -> Vec<String> {
                of.slots().filter(|slot| roles.of(slot) != Role::Volatile).map(|slot| slot.canonical.clone()).collect()
            };
            if key(&a) == key(&b) {
                prop_assert_eq!(values(&x), values(&y));
                prop_assert!(x.fits(&y, &roles));
            } else {
                prop_assert!(!x.fits(&y, &roles));
            }
            prop_assert_eq!(x.frame_key(&[0; 32], 99) == y.frame_key(&[0; 32], 99), a == b);
        }
    }
}
