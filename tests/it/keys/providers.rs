//! Which key the provider sees.

use serde_json::json;

use super::{CHAT, MESSAGES, upstreams};
use crate::support::{Call, Home, Upstream};

fn keys_seen(call: &Call) -> [String; 3] {
    ["authorization", "x-api-key", "x-nearhit-key"].map(|name| call.header(name).to_owned())
}

/// nearhit's own key is seen by nobody else. The operator's are seen by their own provider, for callers that have none.
#[tokio::test]
async fn providers_see_their_own_keys_only() {
    let (openai, anthropic) = (Upstream::saying("Hello.").await, Upstream::saying("Hello.").await);
    let home = Home::new();
    let file = home.write("anthropic-key", "sk-operators-anthropic\n");
    let config = format!("[upstream]\nopenai_key_env = \"OPERATORS_KEY\"\nanthropic_key_file = {file:?}\n");
    let home = Home::with_config(&config);
    let key = home.key("acme", "write");
    let args = ["--upstream", &openai.base(), "--anthropic-upstream", &anthropic.origin()];
    let server = home.serve_with(&args, &[("OPERATORS_KEY", "sk-operators-openai")]).await;
    let call = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});

    let client = server.client("");
    let own = "Bearer sk-own";
    let operators = ["Bearer sk-operators-openai", "", ""];
    let operators_anthropic = ["", "sk-operators-anthropic", ""];
    for (name, client, at_openai, at_anthropic) in [
        ("bearer", server.client(&key), operators, operators_anthropic),
        ("x-api-key", client.with("x-api-key", &key), operators, operators_anthropic),
        ("own header", client.with("x-nearhit-key", &key), operators, operators_anthropic),
        ("both", server.client(&key).with("x-nearhit-key", &key), operators, operators_anthropic),
        ("with a key of one's own", server.client("sk-own").with("x-nearhit-key", &key), [own, "", ""], [own, "", ""]),
        (
            "the same, as Anthropic's clients do",
            client.with("x-api-key", "sk-own").with("x-nearhit-key", &key),
            ["", "sk-own", ""],
            ["", "sk-own", ""],
        ),
        (
            "each in the other's place",
            client.with("x-api-key", &key).with("authorization", own),
            [own, "", ""],
            [own, "", ""],
        ),
    ] {
        let client = client.with("cache-control", "no-store");
        client.post(CHAT, &call).await.check(200);
        assert_eq!(keys_seen(&openai.last()), at_openai, "{name}");
        client.get("/v1/models").await.check(200);
        assert_eq!(keys_seen(&openai.last()), at_openai, "{name}");
        client.post(MESSAGES, &call).await.check(200);
        assert_eq!(keys_seen(&anthropic.last()), at_anthropic, "{name}");
        client.with("anthropic-version", "2023-06-01").get("/v1/models").await.check(200);
        assert_eq!(keys_seen(&anthropic.last()), at_anthropic, "{name}");
    }
    assert_eq!((openai.count(), anthropic.count()), (14, 14));
}

/// Tenants that share the operator's key do not reach each other's data at the provider.
#[tokio::test]
async fn the_operators_key_is_lent_for_models_only() {
    let upstream = Upstream::saying("Hello.").await;
    let config = "[upstream]\nopenai_key_env = \"OPENAI_KEY\"\nanthropic_key_env = \"ANTHROPIC_KEY\"\n";
    let home = Home::with_config(config);
    let key = home.key("acme", "write");
    let args = upstreams(&upstream);
    let args = args.each_ref().map(String::as_str);
    let variables = [("OPENAI_KEY", "sk-openai"), ("ANTHROPIC_KEY", "sk-anthropic")];
    let server = home.serve_with(&args, &variables).await;
    let (client, none) = (server.client(&key), ["", "", ""]);
    for path in ["/v1/files", "/v1/files/file-1/content", CHAT, "/v1/responses/resp_1", "/v1/messages/batches"] {
        client.get(path).await.check(200);
        assert_eq!(keys_seen(&upstream.last()), none, "GET {path}");
    }
    for path in ["/v1/batches", "/v1/responses/resp_1/cancel", "/v1/messages/batches"] {
        client.post(path, &json!({})).await.check(200);
        assert_eq!(keys_seen(&upstream.last()), none, "POST {path}");
    }
    client.get("/v1/models/gpt-4o").await.check(200);
    assert_eq!(keys_seen(&upstream.last()), ["Bearer sk-openai", "", ""]);
    client.post("/v1/messages/count_tokens", &super::ask("Hi")).await.check(200);
    assert_eq!(keys_seen(&upstream.last()), ["", "sk-anthropic", ""]);
    // A key of one's own goes wherever its owner sends it.
    server.client("sk-own").with("x-nearhit-key", &key).get("/v1/files").await.check(200);
    assert_eq!(keys_seen(&upstream.last()), ["Bearer sk-own", "", ""]);
}

/// Without nearhit's own keys the operator's are nobody's.
#[tokio::test]
async fn callers_without_a_key_do_not_get_the_operators() {
    let upstream = Upstream::saying("Hello.").await;
    let home = Home::with_config("[upstream]\nopenai_key_env = \"OPERATORS_KEY\"\n");
    let args = upstreams(&upstream);
    let args = args.each_ref().map(String::as_str);
    let server = home.serve_with(&args, &[("OPERATORS_KEY", "sk-operators")]).await;
    server.client("").post(CHAT, &super::ask("Hi")).await.check(200);
    assert_eq!(keys_seen(&upstream.last()), ["", "", ""]);

    let folder = home.data().display().to_string();
    let config = home.write(
        "checked.toml",
        format!(
            "data_dir = {folder:?}\n[upstream]\nopenai_key_env = \"OPERATORS_KEY\"\n\
             [embed]\nmodel = \"external\"\ndimensions = 4\n"
        ),
    );
    let check = || home.run_with(&["check", &config], &[("OPERATORS_KEY", "sk-operators")]);
    check().check(0, &["upstream.openai_key_env", "sent for nobody"]);
    home.key("acme", "write");
    let checked = check();
    checked.check(0, &[]);
    assert!(!checked.stderr.contains("sent for nobody"), "{checked:?}");
}

#[tokio::test]
async fn an_operators_key_that_is_not_there_is_named() {
    let home = Home::with_config("[upstream]\nopenai_key_env = \"OPERATORS_KEY\"\n");
    home.serve_in_vain(&[]).check(78, &["upstream.openai_key_env", "OPERATORS_KEY"]);
    let home = Home::with_config("[upstream]\nanthropic_key_file = \"/nowhere/key\"\n");
    home.serve_in_vain(&[]).check(78, &["upstream.anthropic_key_file", "/nowhere/key"]);
    let broken = home.write("key", "sk-one\nsk-two");
    let home = Home::with_config(&format!("[upstream]\nopenai_key_file = {broken:?}\n"));
    let finished = home.serve_in_vain(&[]);
    finished.check(78, &["upstream.openai_key_file"]);
    assert!(!finished.stderr.contains("sk-one"), "{finished:?}");
}
