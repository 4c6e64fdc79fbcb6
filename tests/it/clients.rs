//! OpenAI's own Python client, unchanged, in front of nearhit, and a stand-in for the provider behind it.

use std::process::{Command, Stdio};

use crate::support::{Home, Llmock, Server, variable};

/// Runs one phase of the script, and asserts that everything it checked held.
fn run(python: &str, phase: &str, server: &Server, llmock: &Llmock) {
    let mut command = Command::new(python);
    command.arg(Llmock::folder().join("openai_client.py")).args(["--phase", phase, "--api-key", "sk-test"]);
    command.args(["--base-url", &format!("{}/v1", server.url)]);
    command.args(["--upstream-metrics", &format!("{}/metrics", llmock.url)]);
    let output = command.stdin(Stdio::null()).output().expect("python starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "phase {phase}: {stderr}{stdout}");
    let passed: serde_json::Value = serde_json::from_str(&stdout).expect("the script's count");
    assert!(passed["passed"].as_u64() > Some(40), "phase {phase}: {stdout}");
}

/// A program that talks to OpenAI changes its base URL and nothing else; its answers outlive the server.
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
