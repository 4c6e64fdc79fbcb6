//! Many at once: connections that do nothing or hardly anything, streams that go on and on, bodies larger than the memory
//! that they may take. Whoever does nothing wrong is answered rightly all the while.

mod bodies;
mod connections;
mod streams;

use serde_json::{Value, json};

use crate::support::{Home, Server, Upstream};

/// nearhit with this configuration, in front of a provider.
async fn start(upstream: &Upstream, config: &str) -> (Home, Server) {
    let home = Home::with_config(config);
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    (home, server)
}

fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

/// Lets this process have as many sockets as it may.
#[cfg(target_os = "linux")]
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit below the hard one");
}

#[cfg(not(target_os = "linux"))]
fn raise_file_limit() {}

/// Bytes that each of `count` costs, as far as this machine tells.
fn each(before: Option<u64>, after: Option<u64>, count: usize) -> Option<u64> {
    Some(after?.saturating_sub(before?) / count as u64)
}
