//! The keys of a prompt: which part of the cache it may be served from, and which entry answers it exactly.
//!
//! Every field of the scope goes in, by destructuring: a field added to [`Scope`] does not compile until somebody
//! has decided what it means here. BLAKE3 in derive-key mode with fixed contexts: the keys are equal on every
//! machine and in every release that keeps the version in the context.

use serde::{Deserialize, Serialize};

use super::canonical::FieldHasher;
use super::prompt::{Prompt, Scope};
use super::template::{Slots, Template};
use super::turn::Turn;

/// The three keys of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Everything but the last user text; where earlier turns are matched by meaning, without their texts.
    pub scope: [u8; 32],
    /// The scope and the whole text.
    pub exact: [u8; 32],
    /// The scope and the template of the text, slot values left out.
    pub template: [u8; 32],
}

impl Fingerprint {
    pub fn of(prompt: &Prompt, template: &Template) -> Self {
        // The variables' values are in the text already; their names are in the template.
        let Prompt { scope, text, vars: _ } = prompt;
        let scope = hash_scope(scope);
        Self { scope, exact: hash_text(&scope, text), template: hash_template(&scope, template) }
    }

    /// The same where earlier turns are matched by meaning: one partition holds them all. What else is among them keeps
    /// its place: a speaker's name stands behind as many turns, and an operator's turn that does not come first stands
    /// behind and before as many. Questions without earlier turns stay among themselves.
    pub fn with_any_context(self, prompt: &Prompt) -> Self {
        let scope = &prompt.scope;
        if !scope.turns.iter().any(Turn::is_spoken) {
            return self;
        }
        let mut hasher = FieldHasher::new("nearhit 2026-11-22 scope of any context v2");
        let operators = scope.turns.iter().filter(|turn| !turn.is_spoken()).cloned().collect();
        hasher.bytes(&hash_scope(&Scope { turns: operators, ..scope.clone() }));
        // What an operator says between two turns, and who it was that spoke, is about what comes before or behind it.
        let (mut spoken, mut is_late) = (0, false);
        for turn in &scope.turns {
            if !turn.is_spoken() {
                hasher.parts(spoken);
                is_late |= spoken > 0;
                continue;
            }
            if !turn.rest.is_empty() {
                hasher.text("rest");
                hasher.parts(spoken);
                hasher.object(&turn.rest);
            }
            spoken += 1;
        }
        if is_late {
            hasher.text("all");
            hasher.parts(spoken);
        }
        Self { scope: hasher.finish(), ..self }
    }

    /// The fingerprint, template text and slots of a prompt in one step.
    pub fn split(prompt: &Prompt) -> (Self, Template, Slots) {
        let (template, slots) = Template::split(prompt);
        (Self::of(prompt, &template), template, slots)
    }
}

/// The set of entries that a semantic lookup may search: one scope, embedded by one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition([u8; 16]);

impl Partition {
    /// `model` is the embedder's fingerprint: vectors of two models never meet in one partition.
    pub fn new(fingerprint: &Fingerprint, model: &str) -> Self {
        let mut hasher = FieldHasher::new("nearhit 2026-11-21 partition v1");
        hasher.bytes(&fingerprint.scope);
        hasher.text(model);
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finish()[..16]);
        Self(short)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn hash_scope(scope: &Scope) -> [u8; 32] {
    let Scope { tenant, cache, surface, upstream, model, turns, parameters, headers, attributes } = scope;
    let mut hasher = FieldHasher::new("nearhit 2026-11-22 scope v2");
    hasher.text(tenant.as_str());
    hasher.text(cache.as_str());
    hasher.text(surface.as_str());
    hasher.text(upstream);
    hasher.text(model);
    hasher.parts(turns.len());
    for Turn { role, texts, rest } in turns {
        hasher.text(role.as_str());
        hasher.parts(texts.len());
        texts.iter().for_each(|text| hasher.text(text));
        hasher.object(rest);
    }
    hasher.parts(parameters.len());
    for (name, value) in parameters {
        hasher.text(name);
        hasher.json(value);
    }
    for map in [headers, attributes] {
        hasher.parts(map.len());
        for (name, value) in map {
            hasher.text(name);
            hasher.text(value);
        }
    }
    hasher.finish()
}

fn hash_text(scope: &[u8; 32], text: &str) -> [u8; 32] {
    let mut hasher = FieldHasher::new("nearhit 2026-11-21 exact v1");
    hasher.bytes(scope);
    hasher.text(text);
    hasher.finish()
}

fn hash_template(scope: &[u8; 32], template: &Template) -> [u8; 32] {
    let mut hasher = FieldHasher::new("nearhit 2026-11-21 template v1");
    hasher.bytes(scope);
    let parts = template.parts();
    hasher.parts(parts.len());
    for part in parts {
        match part {
            Ok(text) => {
                hasher.text("text");
                hasher.text(text);
            }
            Err(slot) => {
                hasher.text("slot");
                hasher.text(slot);
            }
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::prompt::{CacheName, Surface, Tenant};
    use super::super::turn::Speaker;
    use super::*;

    fn turn(role: Speaker, texts: &[&str]) -> Turn {
        Turn::new(role, texts.iter().copied(), Default::default())
    }

    fn scope() -> Scope {
        Scope {
            tenant: Tenant::new("t"),
            cache: CacheName::default(),
            surface: Surface::Chat,
            upstream: "openai".into(),
            model: "m".into(),
            turns: vec![turn(Speaker::System, &["be brief"])],
            parameters: [("temperature".to_owned(), json!(0))].into(),
            headers: [("openai-beta".to_owned(), "x".to_owned())].into(),
            attributes: [("locale".to_owned(), "en".to_owned())].into(),
        }
    }

    fn fingerprint(scope: Scope, text: &str) -> Fingerprint {
        Fingerprint::split(&Prompt::new(scope, text, Default::default())).0
    }

    /// The value is fixed for good: entries on disk and on other machines are found by it.
    #[test]
    fn is_stable() {
        let hex: String = fingerprint(scope(), "hi").exact[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "8e096cf5f23f9520");
    }

    #[test]
    fn every_field_counts() {
        type Change = fn(&mut Scope);
        let changes: &[(&str, Change)] = &[
            ("tenant", |s| s.tenant = Tenant::new("u")),
            ("cache", |s| s.cache = CacheName::parse("other").expect("a valid name")),
            ("surface", |s| s.surface = Surface::Text),
            ("upstream", |s| s.upstream = "azure".into()),
            ("model", |s| s.model = "m2".into()),
            ("turns", |s| s.turns.push(turn(Speaker::User, &["hello"]))),
            ("turn order", |s| s.turns.insert(0, turn(Speaker::User, &["hello"]))),
            ("no turns", |s| s.turns.clear()),
            ("turn content", |s| s.turns[0] = turn(Speaker::System, &["be long"])),
            ("turn role", |s| s.turns[0] = turn(Speaker::Developer, &["be brief"])),
            ("turn parts", |s| s.turns[0] = turn(Speaker::System, &["be", "brief"])),
            ("turn rest", |s| drop(s.turns[0].rest.insert("name".into(), json!("ada")))),
            ("parameter", |s| drop(s.parameters.insert("temperature".into(), json!(1)))),
            ("parameter type", |s| drop(s.parameters.insert("temperature".into(), json!("0")))),
            ("parameter absent", |s| s.parameters.clear()),
            ("unknown parameter", |s| drop(s.parameters.insert("new_thing".into(), Value::Null))),
            ("header", |s| drop(s.headers.insert("openai-beta".into(), "y".into()))),
            ("header absent", |s| s.headers.clear()),
            ("attribute", |s| drop(s.attributes.insert("locale".into(), "de".into()))),
            ("attribute moved to headers", |s| s.headers.append(&mut s.attributes)),
        ];
        let mut seen = vec![("unchanged", fingerprint(scope(), "hi"))];
        for (name, change) in changes {
            let mut changed = scope();
            change(&mut changed);
            let new = fingerprint(changed, "hi");
            for (other, old) in &seen {
                assert_ne!(old.scope, new.scope, "{name} and {other} share a scope");
                assert_ne!(old.exact, new.exact, "{name} and {other} share an exact key");
                assert_ne!(old.template, new.template, "{name} and {other} share a template key");
            }
            seen.push((name, new));
        }
    }

    /// Whatever the parties said, it is one partition; whatever else differs, it is another.
    #[test]
    fn contexts_share_a_partition() {
        let partition = |turns: &[Turn]| {
            let prompt = Prompt::new(Scope { turns: turns.to_vec(), ..scope() }, "hi", Default::default());
            Fingerprint::split(&prompt).0.with_any_context(&prompt)
        };
        let user = |text: &str| turn(Speaker::User, &[text]);
        let named = |name: &str, text: &str| Turn {
            rest: [("name".to_owned(), json!(name))].into_iter().collect(),
            ..turn(Speaker::User, &[text])
        };
        let system = || turn(Speaker::System, &["be brief"]);
        let a = partition(&[system(), user("one")]);
        let b = partition(&[system(), user("two"), turn(Speaker::Assistant, &["yes"]), user("three")]);
        assert_eq!(a.scope, b.scope);
        assert_ne!(a.exact, b.exact);
        assert_ne!(a.template, b.template);
        for other in [
            &[user("one")][..],
            &[system()],
            &[],
            &[system(), named("ada", "x")],
            &[turn(Speaker::System, &["?"]), user("one")],
        ] {
            assert_ne!(a.scope, partition(other).scope, "{other:?}");
        }
        // What an operator says is about what comes before or behind it; so is a name.
        let late = [user("one"), turn(Speaker::Assistant, &["yes"]), system(), user("two")];
        let same = [user("three"), turn(Speaker::Assistant, &["no"]), system(), user("four")];
        assert_eq!(partition(&late).scope, partition(&same).scope);
        for (these, others) in [
            (&late[..], &[system(), user("one"), turn(Speaker::Assistant, &["yes"]), user("two")][..]),
            (&late, &[user("one"), turn(Speaker::Assistant, &["yes"]), user("two"), system()]),
            (&late, &[user("one"), system(), turn(Speaker::Assistant, &["yes"]), user("two")]),
            (&late, &[user("one"), turn(Speaker::Assistant, &["yes"]), system(), user("two"), user("and")]),
            (&[system(), named("ada", "one"), user("two")], &[system(), user("one"), named("ada", "two")]),
            (&[named("ada", "one"), system(), user("two")], &[user("one"), system(), named("ada", "two")]),
        ] {
            assert_ne!(partition(these).scope, partition(others).scope, "{these:?} {others:?}");
        }
        // Without earlier turns there is nothing to match by meaning.
        assert_eq!(partition(&[system()]), fingerprint(Scope { turns: vec![system()], ..scope() }, "hi"));
    }

    proptest! {
        #[test]
        fn texts_that_differ_have_different_exact_keys(a in ".{0,40}", b in ".{0,40}") {
            let (a, b) = (super::super::normalise(&a), super::super::normalise(&b));
            let (fa, fb) = (fingerprint(scope(), &a), fingerprint(scope(), &b));
            prop_assert_eq!(fa.scope, fb.scope);
            prop_assert_eq!(a == b, fa.exact == fb.exact);
        }

        #[test]
        fn turns_cannot_be_shifted_into_each_other(a in "[a-b]{0,3}", b in "[a-b]{0,3}", c in "[a-b]{0,3}") {
            let turns = |texts: &[&String]| {
                let mut s = scope();
                s.turns = texts.iter().map(|t| turn(Speaker::User, &[t])).collect();
                fingerprint(s, "hi").scope
            };
            let joined = format!("{a}{b}");
            prop_assert_ne!(turns(&[&a, &b, &c]), turns(&[&joined, &c]));
        }
    }
}
