//! What rules for savings make of requests and streams: what the provider gets, what the client is told, and what is kept.

use std::process::{Command, Stdio};

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Setup, and, ask, events, said};
use crate::support::{Answer, Call, Client, Home, Live, Llmock, Reply, chunks, event_stream, until, variable};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const SAVED: &str = "x-nearhit-saved";

async fn start(rules: &str) -> Setup {
    Setup::with_config("Yes.", rules).await
}

/// How many requests this was done to.
async fn count(setup: &Setup, kind: &str) -> u64 {
    let metrics = setup.server.admin().get("/metrics").await.check(200).text();
    let name = format!("nearhit_saved_total{{kind=\"{kind}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a count"))
}

/// The tier of a hit, the outcome of anything else: which reason a miss has depends on whether there is an embedder.
fn became(answer: &Answer) -> &str {
    match answer.outcome() {
        ("hit", tier) => tier,
        (outcome, _) => outcome,
    }
}

fn text(call: &Call) -> String {
    String::from_utf8_lossy(&call.body).into_owned()
}

/// A chat of these turns, the user's first.
fn chat(model: &str, turns: &[&str]) -> Value {
    let role = |place: usize| if place.is_multiple_of(2) { "user" } else { "assistant" };
    let said = turns.iter().enumerate().map(|(place, text)| json!({"role": role(place), "content": text}));
    let system = json!({"role": "system", "content": "Be kind."});
    let messages: Vec<Value> = std::iter::once(system).chain(said).collect();
    json!({"model": model, "messages": messages})
}

#[tokio::test]
async fn answers_get_a_limit() {
    let setup = start("[[savings]]\nmodels = [\"m*\"]\nmax_tokens = 100\nmax_tokens_ceiling = 500").await;
    let open = r#"{ "messages":[ {"role":"user","content":"caf\u00e9"} ], "seed":1.50 ,"model" : "m"#;
    for (path, tail, expected, says) in [
        (CHAT, "\"}\r\n", "\",\"max_completion_tokens\":100}\r\n", "max_tokens=100"),
        (CHAT, "\",\"max_tokens\": 501}", "\",\"max_tokens\": 500}", "max_tokens=500"),
        (CHAT, "\",\"max_tokens\": 499}", "\",\"max_tokens\": 499}", ""),
        (MESSAGES, "\",\"max_tokens\": 1e4 }", "\",\"max_tokens\": 500 }", "max_tokens=500"),
        ("/v1/responses", "\",\"input\":\"x\"}", "\",\"input\":\"x\",\"max_output_tokens\":100}", "max_tokens=100"),
        ("/v1/completions", "\",\"prompt\":\"x\"}", "\",\"prompt\":\"x\"}", ""),
        ("/v1/embeddings", "\",\"input\":\"x\"}", "\",\"input\":\"x\"}", ""),
    ] {
        let answer = setup.client.post_bytes(path, format!("{open}{tail}")).await.check(200);
        let call = setup.upstream.last();
        assert_eq!(text(&call), format!("{open}{expected}"), "{path}");
        assert_eq!(call.header("content-length"), call.body.len().to_string(), "{path}");
        assert_eq!(answer.header(SAVED), says, "{path} {tail}");
    }
    assert_eq!(count(&setup, "max_tokens").await, 4);
    // A server may decode what is escaped in a path: the rules do, too.
    let escaped = "/v1/chat/%63ompletions";
    let answer = setup.client.post_bytes(escaped, format!("{open}\",\"max_tokens\": 501}}")).await.check(200);
    let call = setup.upstream.last();
    assert_eq!((text(&call), call.target.as_str()), (format!("{open}\",\"max_tokens\": 500}}"), escaped));
    assert_eq!((answer.header(SAVED), count(&setup, "max_tokens").await), ("max_tokens=500", 5));
    // Another model's requests go as they came.
    let other = setup.client.chat(&json!({"model": "other", "messages": ask("Hi")["messages"]})).await.check(200);
    assert_eq!((other.header(SAVED), setup.upstream.last().json().get("max_completion_tokens")), ("", None));
}

/// Who names the limit that everybody is given asks the same as who names none; who asks for less asks something else.
#[tokio::test]
async fn a_request_is_kept_as_what_it_became() {
    let setup = start("[[savings]]\nmax_tokens = 100\nmax_tokens_ceiling = 500").await;
    setup.learn(&setup.client, &ask("Hi")).await;
    let limit = |most: u64| and(ask("Hi"), json!({"max_completion_tokens": most}));
    for (asked, expected, says) in [
        (ask("Hi"), "exact", "max_tokens=100"),
        (limit(100), "exact", ""),
        (limit(99), "miss", ""),
        (limit(600), "miss", "max_tokens=500"),
    ] {
        let answer = setup.client.chat(&asked).await.check(200);
        assert_eq!((became(&answer), answer.header(SAVED)), (expected, says), "{asked}");
    }
}

#[tokio::test]
async fn a_class_of_requests_goes_to_another_model() {
    let rules = "[[savings]]\nmodels = [\"large*\"]\ntag = \"bulk\"\nmodel = \"small\"\n\
        [[savings]]\nmodels = [\"large*\"]\ninput_tokens_max = 50\nwithout = [\"tools\", \"media\"]\nmodel = \"tiny\"\n\
        [[savings]]\nmodels = [\"*\"]\ntag = \"bulk\"\nmodel = \"never\"\n[aliases]\nsmall = \"small-2\"\n";
    let setup = start(rules).await;
    let asked = |model: &str, text: &str| and(ask(text), json!({"model": model}));
    let long = "long ".repeat(100);
    let bulk = setup.client.with("x-nearhit-route", "bulk");
    let other = setup.client.with("x-nearhit-route", "other");
    let tools = and(asked("large", "With tools?"), json!({"tools": [{"type": "function"}]}));
    for (client, asked, model, says) in [
        (&bulk, asked("large-1", &long), "small-2", "routed=small"),
        (&setup.client, asked("large-1", &long), "large-1", ""),
        (&other, asked("large", &long), "large", ""),
        (&setup.client, asked("large", "Short?"), "tiny", "routed=tiny"),
        (&setup.client, tools, "large", ""),
        (&setup.client, asked("else", "Short?"), "else", ""),
        (&bulk, asked("never", "Short?"), "never", ""),
    ] {
        let answer = client.chat(&asked).await.check(200);
        let call = setup.upstream.last();
        assert_eq!((call.json()["model"].as_str(), answer.header(SAVED)), (Some(model), says), "{asked}");
        assert_eq!(call.header("x-nearhit-route"), "");
    }
    assert_eq!((count(&setup, "routed").await, setup.upstream.count()), (2, 7));
    setup.client.wait_for_entries(6).await;
    // Kept under the model that answered: whoever asks that gets it, and whoever asked for the larger one does not.
    for (client, asked, expected) in [
        (&bulk, asked("large-1", &long), "exact"),
        (&setup.client, asked("small-2", &long), "exact"),
        (&setup.client, asked("large-2", &long), "miss"),
        (&setup.client, asked("tiny", "Short?"), "exact"),
    ] {
        assert_eq!(became(&client.chat(&asked).await.check(200)), expected, "{asked}");
    }
}

#[tokio::test]
async fn the_oldest_turns_stay_behind() {
    let setup = start("[[savings]]\nmodels = [\"m\"]\nturns_max = 2").await;
    let long = chat("m", &["One?", "1.", "Two?", "2.", "Three?"]);
    let first = setup.learn(&setup.client, &long).await;
    assert_eq!(first.header(SAVED), "trimmed=2");
    assert_eq!(setup.upstream.last().json(), chat("m", &["Two?", "2.", "Three?"]));
    for (asked, expected, says) in [
        (chat("m", &["Two?", "2.", "Three?"]), "exact", ""),
        (chat("m", &["Other?", "0.", "Two?", "2.", "Three?"]), "exact", "trimmed=2"),
        (chat("m", &["Two?", "Other.", "Three?"]), "miss", ""),
        // Not trimmed: another question, whatever of it was asked before.
        (chat("n", &["One?", "1.", "Two?", "2.", "Three?"]), "miss", ""),
        (chat("n", &["Two?", "2.", "Three?"]), "miss", ""),
    ] {
        let answer = setup.client.chat(&asked).await.check(200);
        assert_eq!((became(&answer), answer.header(SAVED)), (expected, says), "{asked}");
    }
    assert_eq!((count(&setup, "trimmed").await, setup.upstream.count()), (2, 4));
}

/// A provider takes a tool's result with its call only.
#[tokio::test]
async fn tools_and_their_results_are_not_parted() {
    let setup = start("[[savings]]\nturns_max = 1").await;
    let user = |content: Value| json!({"role": "user", "content": content});
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]});
    let result = user(json!([{"type": "tool_result", "tool_use_id": "t", "content": "x"}]));
    let asked =
        |messages: Value| json!({"model": "m", "max_tokens": 5, "tools": [{"name": "f"}], "messages": messages});
    let answer = json!({"role": "assistant", "content": "y"});
    let messages = json!([user("1".into()), answer, user("2".into()), call, result, call, result]);
    let got = setup.client.post(MESSAGES, &asked(messages)).await.check(200);
    assert_eq!((got.outcome(), got.header(SAVED)), (("bypass", "tools_in_use"), "trimmed=2"));
    let kept = json!([user("2".into()), call, result, call, result]);
    assert_eq!(setup.upstream.last().json()["messages"], kept);
    // One turn, however many calls it has.
    let got = setup.client.post(MESSAGES, &asked(kept.clone())).await.check(200);
    assert_eq!((got.header(SAVED), &setup.upstream.last().json()["messages"]), ("", &kept));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_as_ever() {
    let setup = start("[[savings]]\nturns_max = 1\nmax_tokens = 100").await;
    setup.client.post_bytes(CHAT, "{").await.refusal(400, "invalid_json");
    setup.client.post_bytes(CHAT, "[]").await.refusal(400, "invalid_json");
    setup.client.post_bytes(CHAT, r#"{"model":"a","model":"b"}"#).await.refusal(400, "invalid_json");
    let text = setup.client.with("content-type", "text/plain");
    text.post_bytes(CHAT, "{}").await.refusal(415, "unsupported_media_type");
    let refused = setup.client.post_bytes(MESSAGES, "{").await.check(400).json();
    assert_eq!(
        (refused["type"].as_str(), refused["error"]["type"].as_str()),
        (Some("error"), Some("invalid_request_error"))
    );
    assert_eq!(setup.upstream.count(), 0);
    // Anything else passes through.
    setup.client.post_bytes("/v1/moderations", "no JSON").await.check(200);
    assert_eq!(text_of_last(&setup), "no JSON");
}

fn text_of_last(setup: &Setup) -> String {
    text(&setup.upstream.last())
}

/// A call of Anthropic's with a system prompt of about 1,250 tokens.
fn with_system(system: &str) -> Value {
    let system = format!("{system}{}", "rule ".repeat(1000));
    json!({"model": "claude", "max_tokens": 5, "system": system, "messages": [{"role": "user", "content": "Hi"}]})
}

#[tokio::test]
async fn a_prefix_that_comes_again_is_kept_by_the_provider() {
    let setup = start("[[savings]]\nmodels = [\"claude*\"]\ncache_control = true").await;
    let client = setup.client.with("cache-control", "no-store");
    let hint = json!({"type": "ephemeral"});
    let asked = with_system("A. ");
    for expected in [Value::Null, hint.clone(), hint.clone()] {
        let answer = client.post(MESSAGES, &asked).await.check(200);
        let sent = setup.upstream.last().json();
        assert_eq!(sent["system"][0]["cache_control"], expected);
        assert_eq!(answer.header(SAVED), if expected.is_null() { "" } else { "cache_control" });
        let said = if expected.is_null() { &sent["system"] } else { &sent["system"][0]["text"] };
        assert_eq!((said, &sent["messages"]), (&asked["system"], &asked["messages"]));
    }
    // Tools before the prompt are kept with it, and by themselves where the prompt changes.
    let tool = json!({"name": "f", "description": "long ".repeat(1000), "input_schema": {}});
    for (place, system) in ["One. ", "Other. "].iter().enumerate() {
        let asked = and(with_system(system), json!({"tools": [tool]}));
        client.post(MESSAGES, &asked).await.check(200);
        let sent = setup.upstream.last().json();
        assert_eq!(sent["tools"][0].get("cache_control").is_some(), place == 1, "{system}");
        assert_eq!(sent["system"], asked["system"]);
    }
    // Who sets it knows better; short ones, other callers and other models have nothing to keep.
    let own = and(
        asked.clone(),
        json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "Hi", "cache_control": hint}]}]}),
    );
    let short = and(asked.clone(), json!({"system": "Be kind."}));
    let other = and(asked.clone(), json!({"model": "other"}));
    let somebody = setup.server.client("sk-other").with("cache-control", "no-store");
    for (client, asked, calls) in [(&client, own, 3), (&client, short, 3), (&client, other, 3), (&somebody, asked, 1)] {
        for _ in 0..calls {
            let answer = client.post(MESSAGES, &asked).await.check(200);
            assert_eq!((setup.upstream.last().json(), answer.header(SAVED)), (asked.clone(), ""));
        }
    }
    assert_eq!(count(&setup, "cache_control").await, 3);
}

/// A hint is no part of the question: what was answered without one answers with one, and the other way round.
#[tokio::test]
async fn a_hint_makes_no_other_question() {
    let setup = start("[[savings]]\ncache_control = true\ncache_control_uses_min = 1").await;
    let asked = with_system("A. ");
    let first = setup.client.post(MESSAGES, &asked).await.check(200);
    assert_eq!((first.outcome().0, first.header(SAVED)), ("miss", "cache_control"));
    setup.client.wait_for_entries(1).await;
    let again = setup.client.post(MESSAGES, &asked).await.check(200);
    assert_eq!((became(&again), again.header(SAVED)), ("exact", ""));
    assert_eq!(setup.upstream.count(), 1);
}

#[tokio::test]
async fn prompts_that_change_by_a_date_are_counted() {
    let setup = start("[[savings]]\ncache_control = true").await;
    let client = setup.client.with("cache-control", "no-store");
    for (system, unstable) in [
        ("Today is Monday, 2 March 2026. ", 0),
        ("Today is Monday, 2 March 2026. ", 0),
        ("Today is Tuesday, 3 March 2026. ", 1),
        ("Never mind the day. ", 1),
        ("Today is Friday, 13 March 2026. ", 2),
    ] {
        client.post(MESSAGES, &with_system(system)).await.check(200);
        assert_eq!(count(&setup, "unstable_prompt").await, unstable, "{system}");
    }
    assert!(!setup.server.log().contains("March"), "no text of a prompt is logged");
}

/// A provider whose next answer is written by the test.
fn live(setup: &Setup) -> Live {
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    setup.upstream.answer_with(move |_| reply.take().expect("one call upstream"));
    live
}

async fn open(client: &Client, asked: &Value) -> http::Response<axum::body::Body> {
    client.with("content-type", "application/json").open(Method::POST, CHAT, asked.to_string()).await
}

fn wants_json(text: &str) -> Value {
    and(ask(text), json!({"stream": true, "response_format": {"type": "json_object"}}))
}

/// What a provider says before it would go on.
fn begun(text: &str) -> String {
    let chunks = chunks(text, "m");
    event_stream(&chunks[..chunks.len() - 1]).replace("data: [DONE]\n\n", "")
}

#[tokio::test]
async fn a_stream_ends_when_its_object_is_complete() {
    let setup = start("[[savings]]\nstop_json = true").await;
    let upstream = live(&setup);
    let (parts, body) = open(&setup.client, &wants_json("Hi")).await.into_parts();
    assert_eq!(parts.headers[SAVED], "watched");
    upstream.send(&begun("{\"a\": [1, {}], \"b\": \"}\"} and so on")).await;
    let body = body.collect().await.expect("a whole body").to_bytes();
    tokio::time::timeout(crate::support::PATIENCE, upstream.abandoned()).await.expect("the provider need not go on");
    let answer = Answer { status: parts.status, headers: parts.headers, body };
    assert_eq!(said(&answer), "{\"a\": [1, {}], \"b\": \"}\"}");
    let last = events(&answer).pop().expect("events");
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["nearhit"]),
        (&json!("stop"), &json!({"stopped_early": true}))
    );
    assert_eq!((count(&setup, "stopped_early").await, count(&setup, "watched").await), (1, 1));
    // Nobody knows what else the provider would have said: the next one asks it.
    setup.upstream.answer_with(|call| Reply::saying("{}", call));
    let again = setup.client.chat(&and(wants_json("Hi"), json!({"stream": false}))).await.check(200);
    assert_eq!((again.outcome().0, again.header(SAVED), setup.upstream.count()), ("miss", "", 2));
    // That came to its end, and is kept; what the cache has is sent whole and costs nothing.
    setup.client.wait_for_entries(1).await;
    let hit = setup.client.chat(&wants_json("Hi")).await.check(200);
    assert_eq!((became(&hit), hit.header(SAVED), said(&hit).as_str()), ("exact", "", "{}"));
    assert_eq!((count(&setup, "stopped_early").await, count(&setup, "watched").await), (1, 1));
}

#[tokio::test]
async fn a_stream_ends_with_what_it_must_say() {
    let setup = start("[[savings]]\nstop_after = [\"</answer>\"]").await;
    let upstream = live(&setup);
    let (parts, body) = open(&setup.client, &and(ask("Hi"), json!({"stream": true}))).await.into_parts();
    upstream.send(&begun("<answer>Yes, it is.</answer> I hope")).await;
    let body = body.collect().await.expect("a whole body").to_bytes();
    upstream.abandoned().await;
    assert_eq!(said(&Answer { status: parts.status, headers: parts.headers, body }), "<answer>Yes, it is.</answer>");
    assert_eq!(setup.entries().await, 0);
}

/// Two that share a call are both served, and the call ends with the last of them.
#[tokio::test]
async fn whoever_joined_is_stopped_too() {
    let setup = start("[[savings]]\nstop_json = true").await;
    let upstream = live(&setup);
    let [first, second] = [open(&setup.client, &wants_json("Hi")).await, open(&setup.client, &wants_json("Hi")).await];
    assert_eq!(second.headers()["x-nearhit-tier"], "joined");
    upstream.send(&begun("{\"a\": 1} and so on")).await;
    for response in [first, second] {
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        assert!(body.ends_with(b"data: [DONE]\n\n"), "{body:?}");
    }
    upstream.abandoned().await;
    until("both are counted", async || (count(&setup, "stopped_early").await == 2).then_some(())).await;
    assert_eq!((setup.upstream.count(), setup.entries().await), (1, json!(0)));
}

#[tokio::test]
async fn what_is_not_json_or_breaks_off_goes_on_as_it_is() {
    let setup = start("[[savings]]\nstop_json = true").await;
    for (asked, text) in
        [(wants_json("One"), "Sorry: {} is all."), (and(ask("Two"), json!({"stream": true})), "{} and more.")]
    {
        setup.upstream.answer_with(move |call| Reply::saying(text, call));
        let answer = setup.client.chat(&asked).await.check(200);
        assert_eq!(said(&answer), text);
        assert_eq!(answer.text(), event_stream(&chunks(text, "m")));
    }
    let upstream = live(&setup);
    let body = open(&setup.client, &wants_json("Three")).await.into_body();
    upstream.send("data: {\"choi").await;
    upstream.cut().await;
    assert!(body.collect().await.is_err(), "a cut stream must not look like a whole one");
    assert_eq!(count(&setup, "stopped_early").await, 0);
}

/// OpenAI's and Anthropic's own clients take a stream that was stopped for one that came to its end.
#[tokio::test]
async fn clients_read_a_stopped_stream_as_a_whole_one() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let setup = start("[[savings]]\nstop_json = true\nstop_after = [\"}\"]").await;
    let message = |events: &[Value]| -> String {
        events
            .iter()
            .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type")))
            .collect()
    };
    let start = json!({"type": "message_start", "message": {"id": "msg", "type": "message", "role": "assistant", "model": "m",
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1}}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let delta =
        |text: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    let stream = message(&[start, block, delta("{\"a\""), delta(": 1} and so"), delta(" on")]);
    for (script, begun) in [(OPENAI_SCRIPT, begun("{\"a\": 1} and so on")), (ANTHROPIC_SCRIPT, stream)] {
        let upstream = live(&setup);
        let mut command = Command::new(&python);
        command.args(["-c", script, &setup.server.url]).env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
        let client = tokio::task::spawn_blocking(move || command.output());
        upstream.send(&begun).await;
        let output = client.await.expect("no panic").expect("python starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "{\"a\": 1} stop", "{output:?}");
        upstream.abandoned().await;
    }
    assert_eq!((count(&setup, "stopped_early").await, setup.entries().await), (2, json!(0)));
}

const OPENAI_SCRIPT: &str = r#"
import sys
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="sk-test", max_retries=0)
asked = dict(model="m", messages=[{"role": "user", "content": "Hi"}], response_format={"type": "json_object"})
said, finish, usage = "", None, None
for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
    for choice in chunk.choices:
        said += choice.delta.content or ""
        finish = choice.finish_reason or finish
    usage = chunk.usage or usage
assert usage.completion_tokens > 0, usage
print(said, finish)
"#;

const ANTHROPIC_SCRIPT: &str = r#"
import sys
from anthropic import Anthropic

client = Anthropic(base_url=sys.argv[1], api_key="sk-test", max_retries=0)
with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as stream:
    whole = stream.get_final_message()
assert whole.stop_reason == "end_turn", whole
print(whole.content[0].text, "stop")
"#;

/// Against a provider's stand-in that others made, which takes nothing that the provider would not.
#[tokio::test]
async fn a_provider_takes_what_became_of_a_request() {
    let Some(llmock) = variable("NEARHIT_LLMOCK") else { return };
    let llmock = Llmock::start(&llmock, "fixtures.json");
    let rules = "[[savings]]\nmodels = [\"gpt-4o\"]\nmodel = \"gpt-4o-mini\"\nmax_tokens = 100\nturns_max = 1";
    let home = Home::with_config(rules);
    let server = home.serve(&["--upstream", &format!("{}/v1", llmock.url)]).await;
    let client = server.client("sk-test");
    let question = "How do I reset my password?";
    let asked = |turns: &[&str]| {
        let mut asked = chat("gpt-4o", turns);
        asked["messages"][0]["content"] = json!("You answer in French.");
        asked
    };
    let answer = client.chat(&asked(&["Hi", "Hello.", question])).await.check(200);
    assert_eq!(answer.header(SAVED), "trimmed=2, max_tokens=100, routed=gpt-4o-mini");
    assert!(said(&answer).starts_with("Ouvrez"), "{}", answer.text());
    client.wait_for_entries(1).await;
    let again = client.chat(&and(asked(&[question]), json!({"stream": true}))).await.check(200);
    assert_eq!((became(&again), said(&again)), ("exact", said(&answer)));
}
