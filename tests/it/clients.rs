//! The providers' own Python clients, unchanged, in front of nearhit, and a stand-in for the providers behind it.

mod asker;
mod envoy;
#[cfg(feature = "grpc")]
mod extproc;
mod litellm;
mod matrix;

use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::support::{Home, Llmock, Reply, Upstream, event_stream, variable};

/// Runs one phase of the script, and asserts that everything it checked held.
#[cfg(feature = "candle")]
fn run(python: &str, phase: &str, server: &crate::support::Server, llmock: &Llmock) {
    let mut command = Command::new(python);
    command.arg(Llmock::folder().join("openai_client.py")).args(["--phase", phase, "--api-key", "sk-test"]);
    command.args(["--base-url", &format!("{}/v1", server.url)]);
    command.args(["--upstream-metrics", &format!("{}/metrics", llmock.url)]);
    check(&command.stdin(Stdio::null()).output().expect("python starts"), phase);
}

/// Asserts that a script came to its end, and that it checked something.
fn check(output: &Output, what: &str) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {stderr}{stdout}");
    let passed: serde_json::Value = serde_json::from_str(&stdout).expect("the script's count");
    assert!(passed["passed"].as_u64() > Some(40), "{what}: {stdout}");
}

/// A program that talks to OpenAI changes its base URL and nothing else; its answers outlive the server.
#[cfg(feature = "candle")]
#[tokio::test]
async fn openais_python_client() {
    let (Some(python), Some(llmock)) = (variable("NEARHIT_PYTHON"), variable("NEARHIT_LLMOCK")) else { return };
    let llmock = Llmock::start(&llmock, "fixtures.json");
    let home = Home::new();
    let upstream = format!("{}/v1", llmock.url);
    let server = home.serve(&["--upstream", &upstream]).await;
    run(&python, "first", &server, &llmock);
    server.kill();
    let mut server = home.serve(&["--upstream", &upstream]).await;
    run(&python, "again", &server, &llmock);
    server.check_alive();
}

/// Every other API whose answers are cached, over the clients of both providers.
#[tokio::test]
async fn clients_of_every_api() {
    let (Some(python), Some(llmock)) = (variable("NEARHIT_PYTHON"), variable("NEARHIT_LLMOCK")) else { return };
    let llmock = Llmock::start(&llmock, "api_fixtures.json");
    let home = Home::new();
    let server = home.serve(&["--upstream", &format!("{}/v1", llmock.url), "--anthropic-upstream", &llmock.url]).await;
    // The stand-in does not know the older completions.
    let older = Upstream::start(|call| {
        let choice = json!({"index": 0, "text": COMPLETION, "logprobs": null, "finish_reason": "stop"});
        let usage = json!({"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11});
        let model = call.json()["model"].clone();
        let body =
            json!({"id": "cmpl-1", "object": "text_completion", "model": model, "choices": [choice], "usage": usage});
        if call.json()["stream"] == true { Reply::events(event_stream(&[body])) } else { Reply::json(200, &body) }
    })
    .await;
    let second_home = Home::new();
    let second = second_home.serve(&["--upstream", &older.base()]).await;
    let mut command = Command::new(python);
    command.arg(Llmock::folder().join("api_clients.py")).args(["--url", &server.url, "--completions-url", &second.url]);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    check(&output.await.expect("no panic").expect("python starts"), "every API");
    assert_eq!(older.count(), 2, "one miss and one bypass");
}

/// What the older completions answer; the script knows it too.
const COMPLETION: &str = "and they lived happily ever after.";
