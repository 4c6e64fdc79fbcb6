//! Envoy as a plain hop, as it stands in front of many services: whatever comes goes to one address.

use std::path::Path;
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
        let folder = TempDir::new().expect("a temporary folder");
        let told = folder.path().join("admin");
        let program = Path::new(python).with_file_name("envoy");
        let mut child = Command::new(&program)
            .args(["--config-yaml", &config(url).to_string(), "--admin-address-path"])
            .arg(&told)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let admin = until("Envoy says where it listens", async || {
            assert_eq!(child.try_wait().expect("a child of ours"), None, "Envoy ended");
            std::fs::read_to_string(&told).ok().filter(|address| !address.is_empty())
        })
        .await;
        let admin = Client::new(&format!("http://{admin}"), "");
        let address = until("Envoy listens", async || {
            let listeners = admin.get("/listeners").await.text();
            listeners.lines().find_map(|line| line.strip_prefix("hop::")).map(str::to_owned)
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

/// One listener, one route without an end to its patience, one cluster.
fn config(url: &str) -> serde_json::Value {
    let (host, port) = url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')).expect("a host and a port");
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
