//! The stand-in that people test their clients with, told to misbehave, and a well one as its fallback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::{Setup, section};
use crate::support::variable;

struct Llmock {
    child: Child,
    base: String,
}

impl Llmock {
    fn start(program: &str, chaos: &[&str]) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/fixtures.json");
        let mut command = Command::new(program);
        command.args(["--strict", "--port", "0", "--fixtures"]).arg(fixtures).args(chaos);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the stand-in starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
        let url = lines.find_map(|line| line.split_once("server listening on ").map(|(_, url)| url.trim().to_owned()));
        let base = format!("{}/v1", url.expect("the stand-in says where it listens"));
        // Its log must go somewhere, or it waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, base }
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        self.child.kill().expect("a running stand-in");
        self.child.wait().expect("a child of ours");
    }
}

#[tokio::test]
async fn whatever_one_upstream_does_its_fallback_answers() {
    let Some(program) = variable("NEARHIT_LLMOCK") else { return };
    let well = Llmock::start(&program, &[]);
    let messages = json!([{"role": "user", "content": "How do I reset my password?"}]);
    for chaos in [
        ["--chaos-drop", "1"],
        ["--chaos-malformed", "1"],
        ["--chaos-disconnect", "1"],
        ["--chaos-ratelimit", "1"],
        ["--chaos-latency", "30000"],
    ] {
        let ill = Llmock::start(&program, &chaos);
        let config = "[upstream]\nhead_timeout_s = 5\n".to_owned()
            + &section("ill", &ill.base, "fallback = [\"well\"]")
            + &format!("[[upstreams]]\nname = \"well\"\nurl = {:?}\n", well.base);
        let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
        for stream in [false, true] {
            let asked = json!({"model": "gpt-4o-mini", "stream": stream, "messages": messages});
            let client = client.with("cache-control", "no-store");
            let answer = client.chat(&asked).await.check(200);
            assert_eq!(answer.header("x-nearhit-upstream"), "well", "{chaos:?} {stream}");
            assert_eq!(answer.header("x-nearhit-tries"), "2", "{chaos:?} {stream}");
        }
    }
}
