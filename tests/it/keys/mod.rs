//! Keys of nearhit's own: who is let in, as whom, and for what.

mod canaries;
mod clients;
mod limits;
mod listeners;
mod lives;
mod providers;
mod refusals;
mod scopes;

use serde_json::{Value, json};

use crate::support::{Client, Home, Server, Upstream};

const ENTRIES: &str = "/v1/caches/default/entries";
const SEARCH: &str = "/v1/caches/default/entries/search";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// A provider, and a server in front of it whose callers need keys.
struct Setup {
    upstream: Upstream,
    // Before its home: what it logged is shown when a test fails.
    server: Server,
    home: Home,
    /// Of the tenant `acme`, for everything.
    key: String,
}

impl Setup {
    async fn start(config: &str) -> Self {
        let home = Home::with_config(config);
        let key = home.key("acme", "read,write,admin");
        let upstream = Upstream::saying("Hello.").await;
        let server = home.serve(&upstreams(&upstream).each_ref().map(String::as_str)).await;
        Self { home, upstream, server, key }
    }

    fn client(&self, key: &str) -> Client {
        self.server.client(key)
    }

    fn admin(&self, key: &str) -> Client {
        Client::new(&self.server.admin_url, key)
    }
}

fn upstreams(upstream: &Upstream) -> [String; 4] {
    ["--upstream".into(), upstream.base(), "--anthropic-upstream".into(), upstream.origin()]
}

/// A chat request that asks `text`.
fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}
