//! What other machines reach is closed without keys.

use crate::support::{Client, Home};

const EVERYWHERE: &str = "0.0.0.0:0";

#[tokio::test]
async fn other_machines_need_keys() {
    let (data, admin) = (["--listen", EVERYWHERE], ["--admin-listen", EVERYWHERE]);
    let home = Home::new();
    home.serve_in_vain(&data).check(78, &["serve.listen", EVERYWHERE, "nearhit key create", "--insecure"]);
    home.serve_in_vain(&admin).check(78, &["serve.admin_listen", EVERYWHERE, "admin", "--insecure"]);

    let key = home.key("acme", "read,write");
    let server = home.serve(&data).await;
    server.client(&key).get("/v1/caches").await.check(200);
    server.client("sk-test").get("/v1/caches").await.refusal(401, "invalid_api_key");
    drop(server);
    home.serve_in_vain(&admin).check(78, &["serve.admin_listen", "admin"]);

    let admin_key = home.key("ops", "admin");
    let server = home.serve(&[data, admin].concat()).await;
    Client::new(&server.admin_url, &admin_key).get("/metrics").await.check(200);
    Client::new(&server.admin_url, &key).get("/metrics").await.refusal(403, "permission_denied");
    server.admin().get("/metrics").await.refusal(401, "invalid_api_key");
    server.admin().get("/healthz").await.check(200);
    server.admin().get("/readyz").await.check(200);
}

/// Nobody gets in, but the listener may be open: keys will come.
#[tokio::test]
async fn keys_that_are_required_are_enough_to_listen() {
    let home = Home::with_config("require_keys = true");
    let server = home.serve(&["--listen", EVERYWHERE]).await;
    for key in ["", "sk-test"] {
        server.client(key).get("/v1/caches").await.refusal(401, "invalid_api_key");
    }
}

#[tokio::test]
async fn an_operator_may_insist() {
    let home = Home::new();
    let server = home.serve(&["--listen", EVERYWHERE, "--admin-listen", EVERYWHERE, "--insecure"]).await;
    server.client("sk-test").get("/v1/caches").await.check(200);
    server.admin().get("/metrics").await.check(200);
}
