//! Whatever a client sends, it is told what is wrong with it, and nobody else notices.

mod bodies;
mod controls;
mod fields;
mod table;
mod vectors;

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::support::{Answer, Client, Home, Server};

const SEARCH: &str = "/v1/caches/default/entries/search";
const INSERT: &str = "/v1/caches/default/entries";
const CHAT: &str = "/v1/chat/completions";

/// What a refusal must say.
struct Refusal<'a> {
    status: u16,
    code: &'a str,
    /// The field or header at fault; empty where there is none to name.
    param: &'a str,
    /// What the message must contain beside it.
    words: &'a [&'a str],
}

impl Refusal<'_> {
    #[track_caller]
    fn check(&self, sent: &str, answer: &Answer) {
        let message = answer.refusal(self.status, self.code);
        let param = answer.json()["error"]["param"].clone();
        assert_eq!(param.as_str().unwrap_or_default(), self.param, "{sent}: {message}");
        for word in self.words.iter().chain([&self.param]) {
            assert!(message.contains(word), "{word:?} is not in {message:?} after {sent}");
        }
        assert!(message.len() < 600, "a message is for people to read: {message}");
    }
}

/// A server that holds an entry, and goes on holding it whatever it is sent.
struct Besieged {
    server: Server,
    client: Client,
    _home: Home,
}

impl Besieged {
    async fn start(config: &str) -> Self {
        let home = Home::with_config(config);
        // Whatever is let through that should not be finds nobody there, and is no refusal then.
        let server = home.serve(&["--upstream", "http://127.0.0.1:9/v1"]).await;
        let client = server.client("");
        client.insert(&serde_json::json!({"prompt": "before", "response": "still there"})).await;
        Self { server, client, _home: home }
    }

    async fn check_unharmed(mut self) {
        self.client.get("/healthz").await.check(200);
        assert_eq!(self.client.find("before").await, ("exact".to_owned(), "still there".to_owned()));
        assert_eq!(self.client.stats("default").await["entries"], 1, "something wrong was stored");
        self.server.check_alive();
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value"))).collect()
}

/// The object with one more field.
fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}
