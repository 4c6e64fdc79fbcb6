//! Which upstream a model's calls go to, and what they carry there.

use serde_json::json;

use super::{Setup, ask, section};
use crate::support::{Home, Upstream, summary};

fn with_model(model: &str, text: &str) -> serde_json::Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn a_model_goes_to_the_upstream_that_has_it() {
    let (local, rest) = (Upstream::saying("local").await, Upstream::saying("rest").await);
    let config = format!(
        "[upstream]\nopenai = {:?}\n[[upstreams]]\nname = \"local\"\nurl = {:?}\nmodels = [\"llama*\", \"qwen\"]\n",
        rest.base(),
        local.base()
    );
    let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
    for (model, upstream) in [("llama3.1:8b", "local"), ("qwen", "local"), ("qwen2", "openai"), ("gpt-4o", "openai")] {
        let answer = client.chat(&with_model(model, &format!("Who is {model}?"))).await.check(200);
        assert_eq!((answer.header("x-nearhit-upstream"), answer.header("x-nearhit-tries")), (upstream, "1"), "{model}");
        assert_eq!(answer.outcome().0, "miss", "{model}");
    }
    assert_eq!((local.count(), rest.count()), (2, 2));
    // Calls that are not cached are calls for a model too; everything else goes where its path says.
    for path in ["/v1/embeddings", "/v1/completions", "/v1/responses"] {
        let answer = client.post(path, &json!({"model": "qwen", "input": "x"})).await.check(200);
        assert_eq!((answer.header("x-nearhit-upstream"), local.last().target.as_str()), ("local", path));
    }
    assert_eq!(client.get("/v1/models").await.check(200).header("x-nearhit-upstream"), "openai");
    // A body that no two parsers read alike goes nowhere.
    client.post_bytes("/v1/embeddings", r#"{"model":"qwen","model":"qwen"}"#).await.refusal(400, "invalid_json");
    assert_eq!((local.count(), rest.count()), (5, 3));
    // "identity" is no encoding; what has one is refused.
    for encoding in ["identity", "Identity"] {
        let client = client.with("content-encoding", encoding).with("cache-control", "no-store");
        let answer = client.post("/v1/embeddings", &json!({"model": "qwen", "input": "y"})).await.check(200);
        assert_eq!(answer.header("x-nearhit-upstream"), "local", "{encoding}");
    }
    let encoded = client.with("content-encoding", "x-other");
    let answer = encoded.post("/v1/embeddings", &json!({"model": "qwen", "input": "y"})).await;
    answer.refusal(415, "unsupported_media_type");
}

#[tokio::test]
async fn an_alias_changes_the_models_bytes_only_and_shares_its_answers() {
    let upstream = Upstream::saying("Forty-two.").await;
    let config = format!("[upstream]\nopenai = {:?}\n[aliases]\nfast = \"gpt-4.1-mini\"\n", upstream.base());
    let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
    let body = "{ \"seed\" : 1.50,\n\"model\" :\t\"fast\" , \"messages\":[ {\"role\":\"user\",\"content\":\"caf\\u00e9 fast\"} ],\"x\":{\"model\":\"fast\"}}\r\n";
    let answer = client.post_bytes("/v1/chat/completions", body).await.check(200);
    assert_eq!(answer.outcome(), ("miss", "empty"));
    let sent = upstream.last();
    assert_eq!(String::from_utf8_lossy(&sent.body), body.replacen("\"fast\"", "\"gpt-4.1-mini\"", 1));
    assert_eq!(sent.header("content-length"), sent.body.len().to_string());
    client.wait_for_entries(1).await;
    // Kept under the model that answered it: whoever asks for that gets it, by either name, here and by search.
    for name in ["fast", "gpt-4.1-mini"] {
        let again = client.post_bytes("/v1/chat/completions", body.replacen("\"fast\"", &format!("{name:?}"), 1)).await;
        assert_eq!(again.check(200).outcome(), ("hit", "exact"), "{name}");
        let asked = body.replacen("\"fast\"", &format!("{name:?}"), 1);
        let asked: serde_json::Value = serde_json::from_str(&asked).expect("JSON");
        assert_eq!(summary(&client.search(&json!({"request": asked})).await).0, "exact", "{name}");
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn answers_of_one_upstream_are_not_anothers() {
    let (one, two) = (Upstream::saying("one").await, Upstream::saying("two").await);
    let home = Home::with_config(&section("a", &one.base(), ""));
    let Setup { server, client, home } = Setup::with_home(home).await;
    client.chat(&ask("Who?")).await.check(200);
    client.wait_for_entries(1).await;
    assert_eq!(client.chat(&ask("Who?")).await.check(200).outcome(), ("hit", "exact"));
    server.kill();
    // The same name at another place is another upstream.
    home.write("nearhit.toml", section("a", &two.base(), ""));
    let Setup { client, server: _server, home: _home } = Setup::with_home(home).await;
    let answer = client.chat(&ask("Who?")).await.check(200);
    assert_eq!((answer.outcome().0, two.count()), ("miss", 1));
}

#[tokio::test]
async fn a_key_goes_to_its_upstream_and_nowhere_else() {
    let (own, spare, claude) =
        (Upstream::saying("own").await, Upstream::saying("spare").await, Upstream::saying("claude").await);
    let home = Home::new();
    let (openai_key, claude_key) = (home.write("openai.key", "sk-own\n"), home.write("claude.key", "sk-ant-own"));
    let config = format!(
        "[upstream]\nopenai = {:?}\n{}[[upstreams]]\nname = \"claude\"\nprotocol = \"anthropic\"\nurl = {:?}\nmodels = [\"*\"]\nkey_file = {claude_key:?}\n",
        spare.base(),
        section("own", &own.base(), &format!("key_file = {openai_key:?}")).replace("\"*\"", "\"m\""),
        claude.origin(),
    );
    home.write("nearhit.toml", config);
    let Setup { server, client, home: _home } = Setup::with_home(home).await;
    let client = client.with("x-api-key", "sk-test-too").with("api-key", "sk-test-three");
    client.chat(&ask("One?")).await.check(200);
    client.post("/v1/messages", &ask("Two?")).await.check(200);
    client.post("/v1/embeddings", &json!({"model": "other"})).await.check(200);
    for (upstream, keys) in [
        (&own, ["Bearer sk-own", "", ""]),
        (&claude, ["", "sk-ant-own", ""]),
        (&spare, ["Bearer sk-test", "sk-test-too", "sk-test-three"]),
    ] {
        let call = upstream.last();
        assert_eq!(["authorization", "x-api-key", "api-key"].map(|name| call.header(name)), keys);
    }
    for key in ["sk-own", "sk-ant-own", "sk-test"] {
        assert!(!server.log().contains(key), "{}", server.log());
    }
}

#[test]
fn a_key_that_is_not_there_is_named() {
    let home = Home::new();
    let missing = home.path("none.key");
    let empty = home.write("empty.key", " \n");
    for (key, words) in [
        (format!("key_file = {missing:?}"), ["key_file", "none.key"]),
        (format!("key_file = {empty:?}"), ["key_file", "visible ASCII"]),
        ("key_env = \"NOBODY_SET_THIS\"".to_owned(), ["key_env", "NOBODY_SET_THIS"]),
    ] {
        let config = home.write("nearhit.toml", section("a", "http://127.0.0.1:9/v1", &key));
        home.serve_in_vain(&[]).check(78, &words);
        home.run(&["check", &config]).check(78, &words);
    }
}
