//! Other people's clients and a gateway: each asks the same through nearhit, whole, streamed, cancelled and refused.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use super::asker::Asker;
use super::envoy::Envoy;
use super::litellm::LiteLlm;
use crate::support::{Client, Home, Llmock, Server, until, variable};

/// Questions, asked one after the other.
struct Case {
    name: &'static str,
    steps: Vec<Step>,
}

/// What is asked, and what must become of it.
struct Step {
    asked: Value,
    reply: Reply,
    /// What nearhit says of each request of the client's, in order: a tier or reason only where it matters.
    outcomes: &'static [&'static str],
    /// How many calls reach the provider.
    calls: u64,
    /// How many answers are stored.
    kept: u64,
}

/// What the client makes of the answer.
enum Reply {
    Text(&'static str),
    Json(Value),
    Tool(&'static str, Value),
    /// The provider's error: its status, and words of its message.
    Error(u16, &'static str),
    /// It did not wait for the end.
    Left,
}

#[tokio::test]
async fn every_client_gets_the_same() {
    let [Some(python), Some(llmock)] = ["NEARHIT_PYTHON", "NEARHIT_LLMOCK"].map(variable) else { return };
    let (mut counts, mut failures) = (Vec::new(), Vec::new());
    for (client, cases, gateway) in [
        ("openai (npm)", cases(), ""),
        ("anthropic (npm)", cases(), ""),
        ("ai chat (npm)", cases(), ""),
        ("ai responses (npm)", cases(), ""),
        ("ai default (npm)", vec![stateful()], ""),
        ("openai (Python)", cases(), ""),
        ("anthropic (Python)", cases(), ""),
        ("langchain (Python)", cases(), ""),
        ("litellm openai (Python)", cases(), ""),
        ("litellm anthropic (Python)", cases(), ""),
        ("openai (npm)", cases(), " behind Envoy"),
        #[cfg(feature = "grpc")]
        ("openai (npm)", cases(), " with a filter in Envoy"),
        #[cfg(feature = "grpc")]
        ("anthropic (npm)", cases(), " with a filter in Envoy"),
    ] {
        let setup = Setup::start(&llmock).await;
        let envoy = match gateway {
            "" => None,
            " behind Envoy" => Some(Envoy::start(&python, &setup.server.url).await),
            _ => Some(Envoy::filtering(&python, &setup.server.url, &setup.llmock.url, &setup.llmock.url).await),
        };
        let url = envoy.as_ref().map_or(&setup.server.url, |envoy| &envoy.url);
        let name = format!("{client}{gateway}");
        let mut asker = Asker::start(client, &python, &llmock, url);
        let mut counted = setup.count().await;
        let mut passed = 0;
        for case in &cases {
            match setup.check(&mut asker, case, &mut counted).await {
                Ok(()) => passed += 1,
                Err(wrong) => {
                    failures.push(format!("{name}, {}: {wrong}", case.name));
                    counted = setup.count().await;
                }
            }
        }
        counts.push(format!("{name} {passed} of {}", cases.len()));
    }
    // Not by `println`, which the test harness keeps to itself when a test passes.
    writeln!(std::io::stderr(), "clients: {}", counts.join(", ")).expect("stderr");
    assert!(failures.is_empty(), "{failures:#?}");
}

/// LiteLLM's proxy tries again by itself, and puts errors in words of its own: asked for is what it leaves as it is.
#[tokio::test]
async fn clients_behind_litellm_get_the_same() {
    let [Some(python), Some(llmock)] = ["NEARHIT_PYTHON", "NEARHIT_LLMOCK"].map(variable) else { return };
    let setup = Setup::start(&llmock).await;
    let gateway = LiteLlm::start(&python, &setup.server.url).await;
    for client in ["openai (npm)", "anthropic (npm)"] {
        let mut asker = Asker::start(client, &python, &llmock, &gateway.url);
        let mut counted = setup.count().await;
        for case in &cases()[..2] {
            let checked = setup.check(&mut asker, case, &mut counted).await;
            assert_eq!(checked, Ok(()), "{client} behind LiteLLM, {}", case.name);
        }
    }
}

/// A provider's stand-in, and nearhit in front of it.
struct Setup {
    llmock: Llmock,
    server: Server,
    _home: Home,
}

/// What both have counted since they started.
#[derive(Debug)]
struct Counted {
    /// Calls that the provider answered, or was left alone with.
    calls: u64,
    /// Answers that were stored.
    kept: u64,
    /// Requests by outcome, with its tier or reason.
    outcomes: BTreeMap<String, u64>,
}

impl Setup {
    async fn start(program: &str) -> Self {
        let llmock = Llmock::start(program, "matrix.json");
        let home = Home::new();
        let server =
            home.serve(&["--upstream", &format!("{}/v1", llmock.url), "--anthropic-upstream", &llmock.url]).await;
        Self { llmock, server, _home: home }
    }

    /// `counted` is what was counted before, and afterwards what is counted then.
    async fn check(&self, asker: &mut Asker, case: &Case, counted: &mut Counted) -> Result<(), String> {
        for Step { asked, reply, outcomes, calls, kept } in &case.steps {
            let replied = asker.ask(asked);
            if !reply.is(&replied) {
                return Err(format!("{asked} became {replied}"));
            }
            let found = difference(&counted.outcomes, &self.count().await.outcomes);
            if !(found.len() == outcomes.len() && found.iter().zip(*outcomes).all(|(f, o)| f.starts_with(o))) {
                return Err(format!("{asked} is {found:?}, expected {outcomes:?}"));
            }
            let expected = (counted.calls + calls, counted.kept + kept);
            // A call is counted when its answer is out, and an answer is stored after it was sent.
            *counted = until(&format!("{expected:?} calls and stored answers after {asked}"), async || {
                let now = self.count().await;
                (now.calls >= expected.0 && now.kept >= expected.1).then_some(now)
            })
            .await;
            if (counted.calls, counted.kept) != expected {
                return Err(format!("{asked}: {counted:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }

    async fn count(&self) -> Counted {
        let provider = Client::new(&self.llmock.url, "").get("/metrics").await.check(200).text();
        let nearhit = self.server.admin().get("/metrics").await.check(200).text();
        let sum = |metrics, name, label: &str| {
            counters(metrics, name).filter(|(labels, _)| labels.contains(label)).map(|(_, count)| count).sum()
        };
        let words = |labels: &str| {
            let words = labels.split('"').skip(1).step_by(2).filter(|word| !word.is_empty());
            words.collect::<Vec<_>>().join(" ")
        };
        Counted {
            calls: sum(&provider, "aimock_requests_total", "method=\"POST\""),
            kept: sum(&nearhit, "nearhit_answers_total", "result=\"kept\""),
            outcomes: counters(&nearhit, "nearhit_lookups_total").map(|(labels, n)| (words(labels), n)).collect(),
        }
    }
}

/// The samples of one counter: labels and value.
fn counters<'a>(metrics: &'a str, name: &str) -> impl Iterator<Item = (&'a str, u64)> {
    let samples = metrics.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    samples.map(|(labels, value)| (labels, value.parse().expect("a count")))
}

/// What came to it, each as often as it came.
fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    let more =
        |(words, count): (&String, &u64)| vec![words.clone(); (count - before.get(words).unwrap_or(&0)) as usize];
    after.iter().flat_map(more).collect()
}

impl Reply {
    fn is(&self, reply: &Value) -> bool {
        match self {
            Self::Text(text) => reply["text"] == *text,
            Self::Json(object) => {
                serde_json::from_str(reply["text"].as_str().unwrap_or_default()).is_ok_and(|v: Value| v == *object)
            }
            Self::Tool(name, arguments) => reply["tool"] == *name && reply["arguments"] == *arguments,
            Self::Error(status, words) => {
                reply["status"] == *status && reply["message"].as_str().is_some_and(|message| message.contains(words))
            }
            Self::Left => reply["left"] == true,
        }
    }
}

/// What every client must pass.
fn cases() -> Vec<Case> {
    let miss = |asked, text| step(asked, Reply::Text(text), &["miss"], 1, 1);
    let hit = |asked, text| step(asked, Reply::Text(text), &["hit exact"], 0, 0);
    let tool = |asked| {
        let reply = Reply::Tool("weather", json!({"city": "Lisbon"}));
        step(with(asked, "tools", true), reply, &["bypass tools_in_use"], 1, 0)
    };
    let json = |asked, outcomes, calls| step(asked, Reply::Json(json!({"capital": "Paris"})), outcomes, calls, calls);
    let in_json = |asked| with(asked, "json", true);
    let leave = |asked| step(with(asked, "leave", true), Reply::Left, &["miss"], 1, 0);
    let fail = |asked, status, words| step(asked, Reply::Error(status, words), &["miss"], 1, 0);
    let retry = |asked, text| step(with(asked, "retries", 2), Reply::Text(text), &["miss", "miss"], 2, 1);
    let rows = [
        ("plain, then stored", vec![miss(plain(CLOSE), CLOSED), hit(plain(CLOSE), CLOSED), hit(stream(CLOSE), CLOSED)]),
        ("streamed, then stored", vec![miss(stream(RINGS), RING), hit(stream(RINGS), RING), hit(plain(RINGS), RING)]),
        ("tools", vec![tool(plain(WEATHER)), tool(plain(WEATHER)), tool(stream(WEATHER))]),
        (
            "JSON",
            vec![
                json(in_json(plain(CAPITAL)), &["miss"], 1),
                json(in_json(plain(CAPITAL)), &["hit exact"], 0),
                json(in_json(stream(CAPITAL)), &["hit exact"], 0),
                json(plain(CAPITAL), &["miss"], 1),
            ],
        ),
        ("cancelled", vec![leave(stream(BREAD)), miss(plain(BREAD), RECITED), hit(stream(BREAD), RECITED)]),
        ("429", vec![fail(plain(GOLDBERG), 429, SLOW), fail(stream(GOLDBERG), 429, SLOW)]),
        ("500", vec![fail(plain(PURR), 500, FELL), fail(stream(PURR), 500, FELL)]),
        ("429, tried again", vec![retry(plain(KEEPER), LENS), hit(plain(KEEPER), LENS)]),
        ("500, tried again", vec![retry(stream(VIOLINS), COATS), hit(stream(VIOLINS), COATS)]),
    ];
    rows.map(|(name, steps)| Case { name, steps }).into()
}

/// What the provider is to keep for later is the provider's to answer.
fn stateful() -> Case {
    let step = |asked| step(asked, Reply::Text(CLOSED), &["bypass stateful"], 1, 0);
    Case { name: "stateful", steps: vec![step(plain(CLOSE)), step(plain(CLOSE)), step(stream(CLOSE))] }
}

fn step(asked: Value, reply: Reply, outcomes: &'static [&'static str], calls: u64, kept: u64) -> Step {
    Step { asked, reply, outcomes, calls, kept }
}

fn plain(question: &str) -> Value {
    json!({"question": question, "stream": false, "tools": false, "json": false, "leave": false, "retries": 0})
}

fn stream(question: &str) -> Value {
    with(plain(question), "stream", true)
}

fn with(mut asked: Value, field: &str, value: impl Into<Value>) -> Value {
    asked[field] = value.into();
    asked
}

// As in matrix.json.
const CLOSE: &str = "How do I close my account?";
const CLOSED: &str = "Open Settings, then Account, then \"Close account\". ☀️";
const RINGS: &str = "Which planets have rings?";
const RING: &str = "Jupiter, Saturn, Uranus and Neptune.";
const WEATHER: &str = "Please look up the weather over Lisbon.";
const CAPITAL: &str = "Give me the capital of France as JSON.";
const BREAD: &str = "Recite something endless about bread.";
const RECITED: &str = "Flour and water, salt and yeast: knead it long and let it rest, shape it round and bake it dark. \
    Flour and water, salt and yeast: knead it long and let it rest, shape it round and bake it dark.";
const GOLDBERG: &str = "Who composed the Goldberg variations?";
const SLOW: &str = "Slow down, says the provider.";
const PURR: &str = "Why do cats purr at night?";
const FELL: &str = "The provider fell over.";
const KEEPER: &str = "What does a lighthouse keeper do?";
const LENS: &str = "Mostly, polish the lens.";
const VIOLINS: &str = "How are violins varnished?";
const COATS: &str = "In thin coats, each dried in the sun.";
