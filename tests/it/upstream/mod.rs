//! Several upstreams, and what becomes of a call when one of them fails, is slow or takes no more.

mod breaker;
mod chaos;
mod cuts;
mod faults;
mod limits;
mod raw;
mod retries;
mod routing;
mod safety;
mod scripted;
mod silence;

use serde_json::{Value, json};

use crate::support::{Client, Home, Server, Upstream};

/// nearhit with this configuration.
struct Setup {
    server: Server,
    client: Client,
    home: Home,
}

impl Setup {
    async fn start(config: &str) -> Self {
        Self::with_home(Home::with_config(config)).await
    }

    async fn with_home(home: Home) -> Self {
        let server = home.serve(&[]).await;
        let client = server.client("sk-test");
        Self { server, client, home }
    }

    /// The value of a metric, 0 where there is none.
    async fn metric(&self, name: &str) -> u64 {
        let metrics = self.server.admin().get("/metrics").await.check(200).text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |count| count.parse().expect("a count"))
    }
}

/// A section of `[[upstreams]]` that has every model, and `more` keys.
fn section(name: &str, url: &str, more: &str) -> String {
    format!("[[upstreams]]\nname = {name:?}\nurl = {url:?}\nmodels = [\"*\"]\n{more}\n")
}

/// One that is only a fallback.
fn spare(name: &str, upstream: &Upstream, more: &str) -> String {
    format!("[[upstreams]]\nname = {name:?}\nurl = {:?}\n{more}\n", upstream.base())
}

/// A chat request that asks `text`.
fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}
