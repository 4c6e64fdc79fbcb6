//! OpenAI's own Python client, unchanged, in front of nearhit, and a stand-in for the provider behind it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Home, Server, variable};

/// The stand-in. Dropped, it is stopped.
struct Llmock {
    child: Child,
    url: String,
}

impl Llmock {
    fn start(program: &str) -> Self {
        let mut command = Command::new(program);
        command.args(["--strict", "--metrics", "--port", "0", "--fixtures"]).arg(folder().join("fixtures.json"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the stand-in starts");
        let stdout = child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("text"));
        let url = lines.find_map(|line| line.split_once("server listening on ").map(|(_, url)| url.trim().to_owned()));
        let url = url.expect("the stand-in says where it listens");
        // Its log must go somewhere, or it waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        self.child.kill().expect("a running stand-in");
        self.child.wait().expect("a child of ours");
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients")
}

/// Runs one phase of the script, and asserts that everything it checked held.
fn run(python: &str, phase: &str, server: &Server, llmock: &Llmock) {
    let mut command = Command::new(python);
    command.arg(folder().join("openai_client.py")).args(["--phase", phase, "--api-key", "sk-test"]);
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
    let llmock = Llmock::start(&llmock);
    let home = Home::new();
    let upstream = format!("{}/v1", llmock.url);
    let server = home.serve(&["--upstream", &upstream]).await;
    run(&python, "first", &server, &llmock);
    server.kill();
    let mut server = home.serve(&["--upstream", &upstream]).await;
    run(&python, "again", &server, &llmock);
    server.check_alive();
}
