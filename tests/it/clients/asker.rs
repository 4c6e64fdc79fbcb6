//! A client library in a process of its own, asked line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Llmock, PATIENCE};

/// The process. Dropped, it is stopped.
pub(super) struct Asker {
    name: String,
    child: Child,
    stdin: ChildStdin,
    replies: Receiver<String>,
    _home: TempDir,
}

impl Asker {
    /// Starts a client of `matrix_node.mjs` or `matrix_python.py`, named as there, with `(npm)` or `(Python)` behind it.
    pub(super) fn start(client: &str, python: &str, llmock: &str, url: &str) -> Self {
        let (name, language) = client.rsplit_once(' ').expect("a name and a language");
        let mut command = match language {
            "(npm)" => {
                let mut node = Command::new("node");
                // The program lies in node_modules/.bin.
                let modules = Path::new(llmock).ancestors().nth(2).expect("a folder of packages");
                node.arg(Llmock::folder().join("matrix_node.mjs")).arg(modules);
                node
            }
            "(Python)" => {
                let mut command = Command::new(python);
                command.arg(Llmock::folder().join("matrix_python.py"));
                command
            }
            other => panic!("no clients in {other}"),
        };
        let home = TempDir::new().expect("a temporary folder");
        // Proxies, keys and tracing of the environment are not for these.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home.path());
        // It would fetch prices and lists of headers.
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True");
        let mut child = command
            .args([name, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{client}: {error}"));
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { name: client.to_owned(), child, stdin, replies, _home: home }
    }

    /// Asks, and waits for what the library makes of the answer.
    pub(super) fn ask(&mut self, asked: &Value) -> Value {
        writeln!(self.stdin, "{asked}").unwrap_or_else(|error| panic!("{} is gone: {error}", self.name));
        let reply = self.replies.recv_timeout(PATIENCE);
        let reply = reply.unwrap_or_else(|error| panic!("{}, {asked}: {error}", self.name));
        serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{} said {reply:?}: {error}", self.name))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.try_wait().expect("a child of ours").is_none() {
            self.child.kill().expect("a running client");
            self.child.wait().expect("a child of ours");
        }
    }
}
