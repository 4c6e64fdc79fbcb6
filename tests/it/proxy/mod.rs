//! The proxy as a client sees it that changed nothing but its base URL, and as a provider sees it.

mod admission;
mod bypass;
mod coalesce;
mod context;
mod controls;
mod forwarding;
mod hits;
mod messages;
#[cfg(feature = "candle")]
mod near;
mod responses;
mod savings;
mod scope;
mod streaming;
mod tools;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Home, Server, Upstream, chunks, event_stream, until};

/// A path, what is asked there, and the stream that answers it.
pub(crate) type Recording = (&'static str, Value, String);

/// One of each API.
pub(crate) fn recordings() -> [Recording; 3] {
    let chat = event_stream(&chunks("It is fine.", "m"));
    let asked = and(ask("Hi"), json!({"stream": true}));
    [("/v1/chat/completions", asked, chat), messages::recording(), responses::recording()]
}

/// A provider, and nearhit in front of it.
struct Setup {
    upstream: Upstream,
    server: Server,
    client: Client,
    _home: Home,
}

impl Setup {
    async fn start(answer: &str) -> Self {
        Self::with_config(answer, "").await
    }

    async fn with_config(answer: &str, config: &str) -> Self {
        let upstream = Upstream::saying(answer).await;
        let home = Home::with_config(config);
        let (base, origin) = (upstream.base(), upstream.origin());
        let server = home.serve(&["--upstream", &base, "--anthropic-upstream", &origin]).await;
        let client = server.client("sk-test");
        Self { upstream, server, client, _home: home }
    }

    /// How many fresh answers this became of: `kept`, or the rule that dropped them.
    async fn answers(&self, result: &str) -> u64 {
        let metrics = self.server.admin().get("/metrics").await.check(200).text();
        let name = format!("nearhit_answers_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a count"))
    }

    /// Asks what nobody asked before, and waits until the answer is kept: it is stored after it was sent.
    async fn learn(&self, client: &Client, asked: &Value) -> Answer {
        let kept = self.answers("kept").await;
        let answer = client.chat(asked).await.check(200);
        assert_eq!(answer.outcome().0, "miss", "{asked}");
        until("the answer is kept", async || (self.answers("kept").await > kept).then_some(())).await;
        answer
    }

    /// How many requests shared somebody else's call.
    async fn joined(&self) -> u64 {
        let metrics = self.server.admin().get("/metrics").await.check(200).text();
        let name = "nearhit_lookups_total{outcome=\"hit\",tier=\"joined\",reason=\"\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().expect("a count"))
    }

    /// Calls that are shared, who reads their answers, and bytes of these in memory.
    async fn shared(&self) -> [u64; 3] {
        let metrics = self.server.admin().get("/metrics").await.check(200).text();
        ["calls", "readers", "held_bytes"].map(|name| {
            let name = format!("nearhit_shared_{name} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
            value.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
        })
    }

    async fn entries(&self) -> Value {
        self.client.stats("default").await["entries"].clone()
    }
}

/// A chat request that asks `text`.
fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

/// The object with more fields; those of `more` win.
fn and(mut object: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (object.as_object_mut(), more) {
        fields.extend(more);
    }
    object
}

/// What the answer says, whether it came whole or as a stream.
#[track_caller]
fn said(answer: &Answer) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    if answer.header("content-type").starts_with("text/event-stream") {
        let events = events(answer);
        events.iter().map(|event| text(event.pointer("/choices/0/delta/content"))).collect()
    } else {
        text(answer.json().pointer("/choices/0/message/content"))
    }
}

/// The chunks of a streamed answer that ended as it must.
#[track_caller]
fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let mut events: Vec<_> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some(Some("[DONE]")), "{text}");
    events.into_iter().map(|event| serde_json::from_str(event.expect("data")).expect("JSON")).collect()
}
