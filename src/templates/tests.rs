//! The tier over a store in memory and without an embedder: what it serves, what it refuses, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::report::{Bounds, Report};
use super::{Cut, TemplateSettings};

fn refilling() -> TemplateSettings {
    TemplateSettings { refill: true, ..TemplateSettings::default() }
}
use crate::cache::{Cache, CacheSettings, Lookup, NewEntry, Parts, Query, Tiers};
use crate::clock::ManualClock;
use crate::decision::{
    Answer, AnswerKind, CacheName, EntryId, Origin, Probability, Prompt, Role, Scope, Tenant, Terms, Tier, Vars,
};
use crate::store::memory::MemoryStore;
use crate::store::{Filter, Owner, Store, Which};

/// A cache of the settings, and the store behind it.
struct Bench {
    cache: Cache,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        Self::with(refilling())
    }

    fn with(settings: TemplateSettings) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self::over(settings, Arc::default(), Arc::new(ManualClock::at(1_000_000)), runtime)
    }

    fn with_role(name: &str, role: Role) -> Self {
        let mut settings = refilling();
        settings.roles.set(name, role).expect("a slot");
        Self::with(settings)
    }

    fn over(templates: TemplateSettings, store: Arc<MemoryStore>, clock: Arc<ManualClock>, runtime: Runtime) -> Self {
        let parts = Parts { store: Arc::clone(&store) as _, embedder: None, clock: Arc::clone(&clock) as _ };
        let settings = CacheSettings { templates, ..CacheSettings::default() };
        Self { cache: Cache::new(parts, settings, &mut Registry::default()), store, clock, runtime }
    }

    /// The same store in a process that was just started.
    fn restarted(self, templates: TemplateSettings) -> Self {
        let Self { store, clock, runtime, .. } = self;
        Self::over(templates, store, clock, runtime)
    }

    fn insert(&self, asked: &str, answer: &str) -> EntryId {
        self.insert_new(new(prompt(asked), answer))
    }

    fn insert_new(&self, new: NewEntry) -> EntryId {
        self.runtime.block_on(self.cache.insert(new)).expect("stored").id
    }

    /// Orders that are on their way.
    fn insert_orders(&self, ids: &[&str]) {
        for id in ids {
            self.insert(&order(id), &on_its_way(id));
        }
    }

    fn remove(&self, id: EntryId) {
        let filter = Filter { owner: owner(), which: Which::Id(id), dry_run: false };
        self.runtime.block_on(self.cache.remove(&filter)).expect("removed");
    }

    /// Tier and answer of a hit.
    fn find(&self, asked: &str) -> Option<(Tier, String)> {
        self.look(&Query::new(prompt(asked)))
    }

    fn look(&self, query: &Query) -> Option<(Tier, String)> {
        match self.runtime.block_on(self.cache.lookup(query)) {
            Lookup::Hit(matches) => Some((matches[0].tier, matches[0].entry.answer.body.clone())),
            Lookup::Miss(_) => None,
        }
    }

    #[track_caller]
    fn check(&self, asked: &str, answer: Option<&str>) {
        assert_eq!(self.find(asked), answer.map(|answer| (Tier::Template, answer.to_owned())), "{asked}");
    }
}

fn owner() -> Owner {
    Owner { tenant: Tenant::new("t"), cache: CacheName::default() }
}

fn scope() -> Scope {
    Scope::bare(Tenant::new("t"), CacheName::default())
}

fn prompt(text: &str) -> Prompt {
    Prompt::new(scope(), text, Vars::new())
}

fn new(prompt: Prompt, answer: &str) -> NewEntry {
    NewEntry {
        prompt,
        origin: Origin::Prompt { context: None },
        answer: Answer { kind: AnswerKind::Text, body: answer.to_owned(), usage: None },
        tags: [].into(),
        sources: [].into(),
        writer: String::new(),
        created_ms: None,
        ttl: None,
        vector: None,
    }
}

fn order(id: &str) -> String {
    format!("Where is order {id} now?")
}

fn on_its_way(id: &str) -> String {
    format!("Order {id} is on its way. Keep {id} at hand.")
}

#[test]
fn values_that_say_nothing_make_no_difference() {
    let bench = Bench::new();
    bench.insert("Hi Ada, how do I reset my password?", "In the settings.");
    bench.insert("How far is 1,000 km on foot?", "Far.");
    bench.insert("Hi Ada, who am I?", "You are Ada, of course.");
    bench.check("Hi Bob, how do I reset my password?", Some("In the settings."));
    bench.check("Hi Bob, how do I lose my password?", None);
    bench.check("Hello Bob, how do I reset my password?", None);
    bench.check("How far is 1000 km on foot?", Some("Far."));
    bench.check("How far is 1001 km on foot?", None);
    bench.check("How far is 1000 miles on foot?", None);
    // Said to Ada only.
    bench.check("Hi Bob, who am I?", None);
    assert_eq!(bench.find("Hi Ada, who am I?").map(|(tier, _)| tier), Some(Tier::Exact));
}

#[test]
fn an_operator_says_what_says_nothing() {
    let bench = Bench::with_role("time", Role::Volatile);
    bench.insert("It is 5pm. What is a quine?", "A program that prints itself.");
    bench.insert("It is 5pm. Am I late?", "At 5pm, no.");
    bench.check("It is 17:31. What is a quine?", Some("A program that prints itself."));
    bench.check("It is 17:31. Am I late?", None);
    Bench::new().check("It is 17:31. What is a quine?", None);
    let bench = Bench::with_role("name", Role::Significant);
    bench.insert("Hi Ada, how do I reset my password?", "In the settings.");
    bench.check("Hi Bob, how do I reset my password?", None);
}

#[test]
fn what_the_request_asks_for_is_kept() {
    let bench = Bench::new();
    bench.insert("Hi Ada, how do I reset my password?", "In the settings.");
    let query = Query::new(prompt("Hi Bob, how do I reset my password?"));
    let found = |query: &Query| bench.look(query).is_some();
    assert!(found(&query));
    let without = Query { tiers: Tiers { template: false, ..Tiers::ALL }, ..query.clone() };
    assert!(!found(&without));
    let only = Query { tiers: Tiers { exact: false, template: true, semantic: false }, ..query.clone() };
    assert!(found(&only));
    let terms = |terms: Terms| Query { terms, ..query.clone() };
    // How probable it is that the reuse is right is not known.
    assert!(!found(&terms(Terms { error_max: Probability::new(0.01), ..Terms::default() })));
    assert!(found(&terms(Terms { error_max: Probability::new(1.0), ..Terms::default() })));
    bench.clock.advance_ms(500);
    assert!(!found(&terms(Terms { age_max_ms: Some(499), ..Terms::default() })));
    assert!(found(&terms(Terms { age_max_ms: Some(500), ..Terms::default() })));
    bench.clock.advance_ms(86_400_000);
    assert!(!found(&query), "expired");
}

/// Nobody is served what was stored for another purpose, and a variable that the caller names must be equal.
#[test]
fn scopes_and_variables_are_kept_apart() {
    let bench = Bench::new();
    let vars = |name: &str| Vars::from([("who".to_owned(), name.to_owned())]);
    let asked = |scope, name: &str, vars| Prompt::new(scope, &format!("Hi {name}, how do I pay order #K-20418?"), vars);
    bench.insert_new(new(asked(scope(), "Ada", Vars::new()), "By card."));
    let found = |prompt: Prompt| bench.look(&Query::new(prompt)).is_some();
    assert!(found(asked(scope(), "Bob", Vars::new())));
    for other in [
        Scope { tenant: Tenant::new("u"), ..scope() },
        Scope { cache: CacheName::parse("other").expect("a name"), ..scope() },
        Scope { model: "m".into(), ..scope() },
        Scope { turns: vec![crate::decision::Turn::context("a context")], ..scope() },
        Scope { attributes: vars("x"), ..scope() },
    ] {
        // The other cache is there too.
        bench.insert_new(new(Prompt::new(other.clone(), "Hello Ada, 5 km", Vars::new()), "x"));
        assert!(!found(asked(other, "Bob", Vars::new())));
    }
    assert!(!found(asked(scope(), "Bob", vars("Bob"))));
    bench.insert_new(new(asked(scope(), "Ada", vars("Ada")), "By card."));
    assert!(!found(asked(scope(), "Bob", vars("Bob"))));
    let spelt = Prompt::new(scope(), "Hi Ada, how do I pay order #k20418?", vars("Ada"));
    assert!(!found(spelt), "another spelling may be another identifier");
}

#[test]
fn answers_are_refilled_once_enough_agree() {
    let bench = Bench::new();
    bench.insert(&order("#K-20418"), &on_its_way("#K-20418"));
    bench.check(&order("#K-20420"), None);
    bench.insert(&order("#K-20419"), &on_its_way("#K-20419"));
    bench.check(&order("#K-20420"), Some(&on_its_way("#K-20420")));
    bench.check(&order("#Q-7"), None);
    bench.check("Where was order #K-20420 now?", None);
    bench.check("Where is order #K-20420 and #K-20421 now?", None);
    assert_eq!(bench.cache.stats(&owner()).0.entries, 2, "nothing is stored for it");

    let off = Bench::with(TemplateSettings { refill: false, ..refilling() });
    let three = Bench::with(TemplateSettings { refill_after: 3, ..refilling() });
    let significant = Bench::with_role("id", Role::Significant);
    for bench in [&off, &three, &significant] {
        bench.insert_orders(&["#K-20418", "#K-20419"]);
        bench.check(&order("#K-20420"), None);
        bench.insert(&order("#K-20421"), &on_its_way("#K-20421"));
    }
    off.check(&order("#K-20420"), None);
    significant.check(&order("#K-20420"), None);
    three.check(&order("#K-20420"), Some(&on_its_way("#K-20420")));
}

#[test]
fn what_an_answer_could_be_computed_from_is_not_refilled() {
    let year = |year: u32| (format!("Is {year} a leap year?"), format!("No, {year} is none."));
    let bench = Bench::new();
    let echoed = Bench::with_role("date", Role::Echoed);
    for bench in [&bench, &echoed] {
        for (asked, answer) in [2022, 2023].map(year) {
            bench.insert(&asked, &answer);
        }
    }
    bench.check("Is 2024 a leap year?", None);
    // An operator who knows better may say so.
    echoed.check("Is 2025 a leap year?", Some("No, 2025 is none."));
}

/// Each row is stored after two that agree; none may be refilled after it.
#[test]
fn an_answer_that_contradicts_ends_it() {
    for (asked, answer) in [
        (order("#K-20421"), "Order #K-20421 is lost.".to_owned()),
        (order("#K-20421"), "It is on its way.".to_owned()),
        (order("#K-20418"), "Order #K-20418 is lost.".to_owned()),
        (order("#7"), "Order #7 is lost.".to_owned()),
    ] {
        for late in [true, false] {
            let bench = Bench::new();
            let mut rows = vec![
                (order("#K-20418"), on_its_way("#K-20418")),
                (order("#K-20419"), on_its_way("#K-20419")),
                (order("#K-20422"), on_its_way("#K-20422")),
            ];
            rows.insert(if late { 3 } else { 0 }, (asked.clone(), answer.clone()));
            // What is inserted later replaces what was there.
            let replaced = !late && asked == order("#K-20418");
            for (asked, answer) in &rows {
                bench.insert(asked, answer);
            }
            let expected = replaced.then(|| on_its_way("#K-20420"));
            bench.check(&order("#K-20420"), expected.as_deref());
            bench.insert(&order("#K-20423"), &on_its_way("#K-20423"));
            bench.check(&order("#K-20420"), expected.as_deref());
            let bench = bench.restarted(refilling());
            bench.insert_orders(&["#K-20422", "#K-20423"]);
            bench.check(&order("#K-20420"), None);
            let entries = 4 + u64::from(asked != order("#K-20418"));
            assert_eq!(bench.runtime.block_on(bench.cache.mine_templates()).expect("read"), entries);
            bench.check(&order("#K-20420"), expected.as_deref());
        }
    }
}

#[test]
fn one_slot_may_be_another_and_no_more() {
    let bench = Bench::new();
    let asked = |id: &str, email: &str| format!("Hi, send {id} to {email}.");
    let answer = |id: &str| format!("{id} is sent.");
    bench.insert(&asked("#K-20418", "ada@a.com"), &answer("#K-20418"));
    bench.insert(&asked("#K-20419", "bob@a.com"), &answer("#K-20419"));
    bench.check(&asked("#K-20420", "bob@a.com"), None);
    bench.insert(&asked("#K-20419", "ada@a.com"), &answer("#K-20419"));
    bench.check(&asked("#K-20420", "ada@a.com"), Some(&answer("#K-20420")));
    bench.check(&asked("#K-20420", "bob@a.com"), None);
    bench.check(&asked("#K-20420", "eve@a.com"), None);
}

#[test]
fn only_what_is_stored_bears_witness() {
    let bench = Bench::new();
    let first = bench.insert(&order("#K-20418"), &on_its_way("#K-20418"));
    bench.clock.advance_ms(1000);
    let second = bench.insert(&order("#K-20419"), &on_its_way("#K-20419"));
    let third = order("#K-20420");
    bench.check(&third, Some(&on_its_way("#K-20420")));
    let Lookup::Hit(matches) = bench.runtime.block_on(bench.cache.lookup(&Query::new(prompt(&third)))) else {
        panic!("a miss")
    };
    assert_eq!((matches[0].entry.id, matches[0].age_ms, matches[0].probability), (second, 0, None));
    bench.remove(first);
    bench.check(&third, None);
    bench.insert(&order("#K-20418"), &on_its_way("#K-20418"));
    bench.check(&third, Some(&on_its_way("#K-20420")));
    // An equal value in other writing is no second one.
    bench.remove(second);
    bench.insert(&order("#K20418"), &on_its_way("#K20418"));
    bench.check(&third, None);
}

#[test]
fn completions_are_refilled_in_their_content_only() {
    let bench = Bench::new();
    let completion = |id: &str, said: &str| {
        let message = json!({"role": "assistant", "content": said, "refusal": null});
        let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
        json!({"id": id, "created": id.len(), "model": "m", "choices": choices, "usage": {"total_tokens": id.len()}})
            .to_string()
    };
    let insert = |asked: &str, body: String| {
        let mut new = new(prompt(asked), "");
        new.answer = Answer { kind: AnswerKind::ChatCompletion, body, usage: None };
        bench.insert_new(new);
    };
    insert(&order("#K-20418"), completion("one", &on_its_way("#K-20418")));
    insert(&order("#K-20419"), completion("another", &on_its_way("#K-20419")));
    bench.check(&order("#K-20420"), Some(&completion("another", &on_its_way("#K-20420"))));
    let mail = |address: &str| format!("Mail {address} for me");
    insert(&mail("ada@a.com"), completion("one", "Mailed \"ada@a.com\"."));
    insert(&mail("bob@a.com"), completion("one", "Mailed \"bob@a.com\"."));
    bench.check(&mail("eve@a.com"), Some(&completion("one", "Mailed \"eve@a.com\".")));
}

#[test]
fn a_restart_finds_what_was_found() {
    let bench = Bench::new();
    bench.insert("Hi Ada, how do I reset my password?", "In the settings.");
    bench.insert_orders(&["#K-20418", "#K-20419"]);
    let bench = bench.restarted(refilling());
    bench.check("Hi Bob, how do I reset my password?", None);
    assert_eq!(bench.runtime.block_on(bench.cache.mine_templates()).expect("read"), 3);
    bench.check("Hi Bob, how do I reset my password?", Some("In the settings."));
    bench.check(&order("#K-20420"), Some(&on_its_way("#K-20420")));
}

/// Of many entries the older are forgotten, and the newest of a template is the one that is found.
#[test]
fn the_index_is_bounded() {
    let bench = Bench::with(TemplateSettings { keys_max: 8, ..refilling() });
    let asked = |name: &str, n: usize| format!("Hi {name}, what is {n} times {n}?");
    for n in 0..40 {
        bench.clock.advance_ms(1);
        bench.insert(&asked("Ada", n), "Much.");
        bench.check(&asked("Bob", n), Some("Much."));
    }
    let found = (0..40).filter(|n| bench.find(&asked("Bob", *n)).is_some()).count();
    assert!((4..=8).contains(&found), "{found}");
    bench.check(&asked("Bob", 0), None);
    let old = NewEntry { created_ms: Some(1), ..new(prompt(&asked("Eve", 39)), "Old.") };
    bench.insert_new(old);
    bench.check(&asked("Bob", 39), Some("Much."));
    bench.clock.advance_ms(1);
    bench.insert(&asked("Eve", 39), "New.");
    bench.check(&asked("Bob", 39), Some("New."));
}

/// One tenant's stream of new templates neither pushes out another's, nor takes all the room.
#[test]
fn a_tenant_leaves_room_for_others() {
    let bench = Bench::with(TemplateSettings { keys_max: 40, ..refilling() });
    let word = |n: usize| {
        ["a", "b", "c", "d", "e", "f", "g"].iter().cycle().skip(n % 7).take(3 + n / 7).copied().collect::<String>()
    };
    let flood = |n: usize, name: &str| {
        let scope = Scope::bare(Tenant::new("flood"), CacheName::default());
        Prompt::new(scope, &format!("Hi {name}, where in {} is order #K-20418?", word(n)), Vars::new())
    };
    bench.insert("Hi Ada, how do I reset my password?", "In the settings.");
    for n in 0..60 {
        bench.insert_new(new(flood(n, "Eve"), &on_its_way("#K-20418")));
    }
    bench.check("Hi Bob, how do I reset my password?", Some("In the settings."));
    bench.insert_orders(&["#K-20418", "#K-20419"]);
    bench.check(&order("#K-20420"), Some(&on_its_way("#K-20420")));
    let found = |n: usize| bench.look(&Query::new(flood(n, "Bob"))).is_some();
    assert!(!found(0) && found(59), "the newest of its own");
}

#[test]
fn what_answers_say_of_a_slot() {
    fn check(
        text: impl Fn(usize) -> String,
        answer: impl Fn(usize) -> String,
        values: usize,
        expected: Option<(usize, Option<Role>)>,
    ) {
        let bench = Bench::new();
        for n in 0..values {
            bench.insert(&text(n), &answer(n));
        }
        let report = bench.runtime.block_on(bench.cache.mined_templates(&owner(), 10)).expect("read");
        let observed = report.templates[0].slots.last().expect("a slot").observed;
        assert_eq!(observed.map(|seen| (seen.values, seen.looks)), expected, "{}", text(0));
    }
    let shelf = |n: usize| format!("In session {}, what is a quine?", 100 + n);
    let same = |n: usize| ["A program.", "a  program"][n % 2].to_owned();
    check(shelf, same, 8, Some((8, Some(Role::Volatile))));
    check(shelf, same, 7, Some((7, None)));
    check(shelf, same, 1, None);
    check(shelf, |n| if n == 6 { "A poem.".into() } else { same(n) }, 9, Some((9, Some(Role::Significant))));
    let id = |n: usize| format!("#K-2041{n}");
    check(|n| order(&id(n)), |n| on_its_way(&id(n)), 8, Some((8, Some(Role::Echoed))));
    check(|n| order(&id(n)), |n| format!("{} {}", n % 3, on_its_way(&id(n))), 8, Some((8, Some(Role::Significant))));
    // Everything else has to be equal, or it could be its doing.
    check(|n| format!("Add {n} to {n}."), |_| "Done.".into(), 9, None);
}

/// Whatever the texts are, a report ends soon, keeps little, and says what it left out.
#[test]
fn a_report_is_bounded() {
    fn check(texts: impl Iterator<Item = String>, bounds: Bounds, cut: &[Cut]) {
        let bench = Bench::with(TemplateSettings::default());
        for (n, text) in texts.enumerate() {
            bench.insert(&text, &format!("answer {n}"));
        }
        let entries = bench.runtime.block_on(bench.store.scan(&owner(), None, 1000)).expect("read");
        let (templates, guards) = bench.cache.templates();
        let (most, mut report) = (bounds.templates, Report::new(bounds));
        entries.iter().for_each(|entry| report.add(entry, templates, guards));
        let report = report.finish(1000);
        assert_eq!(report.cut.into_iter().collect::<Vec<_>>(), cut);
        assert_eq!(report.entries < entries.len() as u64, cut.contains(&Cut::Entries));
        assert!(report.templates.len() <= most);
        assert!(report.templates.iter().all(|template| template.slots.len() <= 32));
        assert!(report.templates.iter().all(|template| template.slots.iter().all(|slot| slot.shapes.len() <= 5)));
    }
    let word = |n: usize| "abcdefghij".chars().cycle().skip(n).take(4 + n / 10).collect::<String>();
    let texts = || (0..30).map(|n| format!("{} 5", word(n)));
    let marks: Vec<char> = "!#$%&'()*+,-./:;".chars().collect();
    let shapes = |n: usize| format!("say \"a{}a{}a\"", marks[n % 16], marks[n / 16]);
    check(texts(), Bounds::default(), &[]);
    check(texts(), Bounds { work: 2_000, ..Bounds::default() }, &[Cut::Entries]);
    check(texts(), Bounds { templates: 29, ..Bounds::default() }, &[Cut::Templates]);
    check(texts(), Bounds { bytes: 300, ..Bounds::default() }, &[Cut::Templates]);
    check(texts(), Bounds { shapes: 59, ..Bounds::default() }, &[Cut::Values]);
    check((0..70).map(shapes), Bounds::default(), &[Cut::Values]);
    check((0..3).map(|n| format!("{n} ").repeat(5_000)), Bounds::default(), &[Cut::Slots]);
}

#[test]
fn a_report_counts_templates_and_shows_no_value() {
    let bench = Bench::new();
    bench.insert_orders(&["#K-20418", "#K-20419", "#Q7"]);
    let vars = Vars::from([("order".to_owned(), "blue shoes".to_owned())]);
    bench.insert_new(new(Prompt::new(scope(), "Hi Ada, are blue shoes in?", vars), "Yes."));
    bench.insert("No slot at all", "x");
    bench.insert_new(NewEntry { ttl: Some(Duration::from_millis(1)), ..new(prompt("Is 5 over?"), "x") });
    bench.clock.advance_ms(1);
    let report = |limit| bench.runtime.block_on(bench.cache.mined_templates(&owner(), limit)).expect("read");
    let all = report(10);
    assert_eq!((all.entries, all.cut.len()), (5, 0));
    let shown: Vec<_> = all
        .templates
        .iter()
        .map(|template| {
            let slots = template.slots.iter().map(|slot| (slot.name.as_str(), slot.role, slot.shapes.clone()));
            (template.text.as_str(), template.count, template.refilled, slots.collect::<Vec<_>>())
        })
        .collect();
    let shapes = |shapes: &[(&str, u64)]| shapes.iter().map(|(shape, n)| (shape.to_string(), *n)).collect::<Vec<_>>();
    assert_eq!(
        shown,
        [
            ("Where is order {id} now?", 3, true, vec![("id", Some(Role::Echoed), shapes(&[("#A-9", 2), ("#A9", 1)]))]),
            (
                "Hi {name}, are {order} in?",
                1,
                false,
                vec![("name", Some(Role::Volatile), shapes(&[("Aa", 1)])), ("order", None, shapes(&[("a a", 1)]))]
            ),
        ]
    );
    assert_eq!(report(1).templates.len(), 1);
    let stranger = Owner { tenant: Tenant::new("u"), cache: CacheName::default() };
    let none = bench.runtime.block_on(bench.cache.mined_templates(&stranger, 10)).expect("read");
    assert_eq!((none.entries, none.templates), (0, vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is stored in whatever order: a refilled answer is the one that every stored one gives.
    #[test]
    fn a_refilled_answer_is_what_all_stored_answers_say(rows in prop::collection::vec((0usize..6, 0usize..8), 1..10)) {
        let bench = Bench::new();
        let answer = |id: &str, kind: usize| match kind {
            0 => format!("{id} is lost."),
            1 => "No idea.".to_owned(),
            _ => on_its_way(id),
        };
        let id = |n: usize| format!("#K-2041{n}");
        let mut stored = std::collections::BTreeMap::new();
        for (n, kind) in rows {
            bench.insert(&order(&id(n)), &answer(&id(n), kind));
            stored.insert(n, kind);
        }
        let agree = |expected: &str| stored.iter().all(|(n, kind)| answer(&id(*n), *kind).replace(&id(*n), "#K-20419") == expected);
        if let Some((tier, answer)) = bench.find(&order("#K-20419")) {
            prop_assert_eq!(tier, Tier::Template);
            prop_assert!(stored.len() >= 2 && agree(&answer), "{stored:?} and {answer}");
        }
    }
}
