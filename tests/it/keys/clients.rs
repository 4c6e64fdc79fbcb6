//! What the providers' own libraries make of a refusal.

use std::process::Command;

use super::upstreams;
use crate::support::{Home, Upstream, variable};

#[tokio::test]
async fn libraries_understand_the_refusals() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let upstream = Upstream::saying("Hello.").await;
    let home = Home::with_config("[tenants.spent]\nrequests_per_second = 0.001\n");
    let [writing, reading] = ["write", "read"].map(|scope| home.key("acme", scope));
    let spent = home.key("spent", "write");
    let server = home.serve(&upstreams(&upstream).each_ref().map(String::as_str)).await;
    server.client(&spent).get("/v1/caches").await.check(200);
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/keys_client.py"));
    command.args([&server.url, &writing, &reading, &spent]).env("NO_PROXY", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("python runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.trim(), "as expected", "{}", String::from_utf8_lossy(&output.stderr));
}
