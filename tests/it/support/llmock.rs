//! A stand-in for a provider that others made, answering from a file of fixtures.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The stand-in. Dropped, it is stopped.
pub struct Llmock {
    child: Child,
    pub url: String,
}

impl Llmock {
    /// Starts the program, with this file of `tests/it/clients`.
    pub fn start(program: &str, fixtures: &str) -> Self {
        let mut command = Command::new(program);
        command.args(["--strict", "--metrics", "--port", "0", "--fixtures"]).arg(Self::folder().join(fixtures));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the stand-in starts");
        let stdout = child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("text"));
        let url = lines.find_map(|line| line.split_once("server listening on ").map(|(_, url)| url.trim().to_owned()));
        let url = url.expect("the stand-in says where it listens");
        // Its log must go somewhere, or it waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients")
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        self.child.kill().expect("a running stand-in");
        self.child.wait().expect("a child of ours");
    }
}
