//! LiteLLM's proxy, as a gateway between clients and nearhit: models by name, with keys and addresses of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::Client;

/// The gateway. Dropped, it is stopped.
pub(super) struct LiteLlm {
    child: Child,
    pub(super) url: String,
    _home: TempDir,
}

impl LiteLlm {
    /// Starts the one that is installed for `python`, in front of `url`.
    pub(super) async fn start(python: &str, url: &str) -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let config = home.path().join("config.yaml");
        let model = |name: &str, provider: &str, base: &str| {
            let params = json!({"model": format!("{provider}/{name}"), "api_base": base, "api_key": "sk-behind"});
            json!({"model_name": name, "litellm_params": params})
        };
        let models = [model("gpt-x", "openai", &format!("{url}/v1")), model("claude-x", "anthropic", url)];
        std::fs::write(&config, json!({"model_list": models}).to_string()).expect("a file");
        // It takes no port of its own choice; nobody else asks for this one so soon.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound listener").port();
        drop(listener);
        let mut command = Command::new(python);
        command.args(["-c", "from litellm.proxy.proxy_cli import run_server; run_server()", "--config"]).arg(&config);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--telemetry", "False"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home.path());
        // Its clients' key is that of the other rows. It would fetch prices and lists of headers.
        command.env("LITELLM_MASTER_KEY", "sk-test").env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        command.env("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True");
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().unwrap_or_else(|error| panic!("{python}: {error}"));
        let mut gateway = Self { child, url: format!("http://127.0.0.1:{port}"), _home: home };
        gateway.wait().await;
        gateway
    }

    /// Until it answers: it starts for half a minute, on an idle machine.
    async fn wait(&mut self) {
        let deadline = Instant::now() + START_MAX;
        while tokio::net::TcpStream::connect(self.url.trim_start_matches("http://")).await.is_err() {
            assert_eq!(self.child.try_wait().expect("a child of ours"), None, "LiteLLM ended");
            assert!(Instant::now() < deadline, "LiteLLM does not listen after {START_MAX:?}");
            tokio::time::sleep(POLL).await;
        }
        Client::new(&self.url, "").get("/health/liveliness").await.check(200);
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        self.child.kill().expect("a running gateway");
        self.child.wait().expect("a child of ours");
    }
}

const START_MAX: Duration = Duration::from_secs(600);

const POLL: Duration = Duration::from_millis(200);
