//! What is where: health, metrics, the API's description, and what is not there at all.

use axum::body::Body;
use http::Method;
use serde_json::json;

use crate::support::Home;

#[tokio::test]
async fn health_is_told_on_both_listeners() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    for client in [server.client(""), server.admin()] {
        assert_eq!(client.get("/healthz").await.check(200).text(), "ok\n");
        let head = client.send(Method::HEAD, "/healthz", Body::empty()).await.check(200);
        assert!(head.body.is_empty());
        let ready = client.get("/readyz").await.check(200).json();
        assert_eq!(ready["state"], "ready");
        let degraded = if cfg!(feature = "candle") { json!([]) } else { json!(["embedder"]) };
        assert_eq!(ready["degraded"], degraded);
        let embedder = ready["embedder"].as_str().expect("a text");
        assert!(if cfg!(feature = "candle") { embedder.starts_with("all-MiniLM-L6-v2") } else { embedder == "none" });
        let engine = ready["engine"].as_str().expect("a text");
        assert!(if cfg!(feature = "candle") { engine.starts_with("candle") } else { engine == "none" });
    }
}

#[tokio::test]
async fn metrics_are_for_the_admin_listener() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    client.insert(&json!({"prompt": "p", "response": "r"})).await;
    client.find("p").await;
    client.search(&json!({"prompt": "p", "context": "c"})).await;
    client.get("/metrics").await.refusal(404, "unknown_path");
    client.get("/openapi.json").await.refusal(404, "unknown_path");

    let metrics = server.admin().get("/metrics").await.check(200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let reason = super::NOTHING;
    for line in [
        r#"nearhit_lookups_total{outcome="hit",tier="exact",reason=""} 1"#.to_owned(),
        format!(r#"nearhit_lookups_total{{outcome="miss",tier="",reason="{reason}"}} 1"#),
        "nearhit_lookup_seconds_count 2".to_owned(),
        "nearhit_entries 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

/// Every path of the API is described, and whatever is described is there.
#[tokio::test]
async fn the_description_lists_every_path() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let described = server.admin().get("/openapi.json").await.check(200).json();
    let paths = described["paths"].as_object().expect("paths");
    let schemes = described.pointer("/components/securitySchemes").and_then(|schemes| schemes.as_object());
    assert_eq!(schemes.expect("schemes").keys().collect::<Vec<_>>(), ["bearer", "nearhitKey"]);
    let entries = "/v1/caches/{cache}/entries";
    let expected = [
        ("/healthz", vec!["get"]),
        ("/readyz", vec!["get"]),
        ("/admin/reload", vec!["post"]),
        ("/v1/caches", vec!["get"]),
        ("/v1/caches/{cache}/stats", vec!["get"]),
        ("/v1/caches/{cache}/templates", vec!["get"]),
        ("/v1/caches/{cache}/flush", vec!["post"]),
        ("/v1/caches/{cache}/tune", vec!["get"]),
        (&format!("{entries}/{{id}}/feedback"), vec!["post"]),
        (entries, vec!["get", "post"]),
        (&format!("{entries}/batch"), vec!["post"]),
        (&format!("{entries}/delete"), vec!["post"]),
        (&format!("{entries}/search"), vec!["post"]),
        (&format!("{entries}/search/batch"), vec!["post"]),
        (&format!("{entries}/{{id}}"), vec!["delete", "get"]),
    ];
    let mut found: Vec<_> = paths
        .iter()
        .map(|(path, methods)| {
            let mut methods: Vec<_> = methods.as_object().expect("methods").keys().map(String::as_str).collect();
            methods.sort_unstable();
            (path.as_str(), methods)
        })
        .collect();
    found.sort();
    let mut wanted: Vec<_> = expected.into_iter().collect();
    wanted.sort();
    assert_eq!(found, wanted);

    for (path, methods) in found {
        let client = if path.starts_with("/admin/") { server.admin() } else { server.client("") };
        let path = path.replace("{cache}", "c").replace("{id}", "0");
        for method in methods {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = client.send(method.clone(), &path, "{}").await;
            let code = answer.json_or_null()["error"]["code"].clone();
            assert!(code != "unknown_path" && answer.status != 405, "{method} {path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_error_shape() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let (data, admin) = (server.client(""), server.admin());
    for (client, method, path, status, code) in [
        (&data, "GET", "/", 404, "unknown_path"),
        (&data, "GET", "/v2/models", 404, "unknown_path"),
        (&data, "GET", "/v1/../metrics", 404, "unknown_path"),
        (&data, "POST", "/v1/caches/default", 404, "unknown_path"),
        (&data, "POST", "/v1/caches/default/entries/search/all", 404, "unknown_path"),
        (&data, "POST", "/v1/chat/completions/", 404, "unknown_path"),
        (&data, "POST", "/healthz", 405, "method_not_allowed"),
        (&data, "POST", "/v1/caches", 405, "method_not_allowed"),
        (&data, "GET", "/v1/caches/default/entries/search", 405, "method_not_allowed"),
        (&data, "PUT", "/v1/caches/default/entries", 405, "method_not_allowed"),
        (&data, "GET", "/v1/caches/default/flush", 405, "method_not_allowed"),
        (&data, "POST", "/v1/caches/default/templates", 405, "method_not_allowed"),
        (&data, "GET", "/v1/caches/default/entries/xyz", 404, "unknown_entry"),
        (&data, "DELETE", "/v1/caches/default/entries/00000000000000000000000000000000", 404, "unknown_entry"),
        (&admin, "GET", "/v1/caches", 404, "unknown_path"),
        (&admin, "POST", "/metrics", 405, "method_not_allowed"),
    ] {
        let answer = client.send(method.parse().expect("a method"), path, Body::empty()).await;
        let message = answer.refusal(status, code);
        let named = path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or("/");
        assert!(message.contains(named), "{method} {path}: {message}");
    }
}
