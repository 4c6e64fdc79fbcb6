//! Vectors that callers bring themselves. No embedder is needed for that, in any build.

use serde_json::{Value, json};

use super::{INSERT, Refusal, SEARCH};
use crate::support::{Home, summary};

const EXTERNAL: &str = "[embed]\nmodel = \"external\"\ndimensions = 4\n";

#[tokio::test]
async fn vectors_must_be_unit_vectors_of_the_right_length() {
    let home = Home::with_config(EXTERNAL);
    let mut server = home.serve(&["--strict"]).await;
    let client = server.client("");
    for (vector, code, words) in [
        ("[]", "dimension_mismatch", ["4", "0"]),
        ("[1,0,0]", "dimension_mismatch", ["4", "3"]),
        ("[1,0,0,0,0]", "dimension_mismatch", ["4", "5"]),
        ("[1,0,0,null]", "not_finite", ["finite", ""]),
        ("[1e39,0,0,0]", "not_finite", ["finite", ""]),
        ("[0,0,-1e308,0]", "not_finite", ["finite", ""]),
        ("[0,0,0,0]", "zero_norm", ["zero", ""]),
        ("[0,-0.0,0,1e-60]", "zero_norm", ["zero", ""]),
        ("[7,0,0,0]", "not_normalised", ["norm 1", "7"]),
        ("[0.5,0,0,0]", "not_normalised", ["norm 1", "0.5"]),
        ("[1e30,0,0,0]", "not_normalised", ["norm 1", ""]),
    ] {
        for (path, rest) in [(SEARCH, ""), (INSERT, ",\"response\":\"r\"")] {
            let body = format!("{{\"prompt\":\"p\",\"vector\":{vector}{rest}}}");
            let answer = client.post_bytes(path, body.clone()).await;
            Refusal { status: 400, code, param: "vector", words: &words }.check(&body, &answer);
        }
    }
    for (vector, param) in [("7", "vector"), ("[\"1\",0,0,0]", "vector[0]"), ("{}", "vector")] {
        let body = format!("{{\"prompt\":\"p\",\"vector\":{vector}}}");
        let answer = client.post_bytes(SEARCH, body.clone()).await;
        Refusal { status: 400, code: "invalid_value", param, words: &[] }.check(&body, &answer);
    }
    assert_eq!(client.stats("default").await["entries"], 0);
    server.check_alive();
}

#[tokio::test]
async fn the_callers_vectors_are_compared() {
    let home = Home::with_config(EXTERNAL);
    let server = home.serve(&[]).await;
    let client = server.client("");
    assert_eq!(client.get("/readyz").await.json()["degraded"], json!([]));
    let inserted =
        client.post(INSERT, &json!({"prompt": "up", "vector": [0, 0.6, 0.8, 0], "response": "r"})).await.check(201);
    assert_eq!(inserted.json()["exactOnly"], Value::Null);
    for (body, expected) in [
        (json!({"prompt": "upwards", "vector": [0, 0.61, 0.79, 0]}), ("semantic", "r")),
        (json!({"prompt": "upwards", "vector": [0, 0.61, 0.79, 0], "context": "c"}), ("miss", "empty")),
        (json!({"prompt": "sideways", "vector": [1, 0, 0, 0]}), ("miss", "low_probability")),
        (json!({"prompt": "down", "vector": [0, -0.6, -0.8, 0]}), ("miss", "below_threshold")),
        (json!({"prompt": "in", "vector": [1, 0, 0, 0], "similarityThreshold": 0.5}), ("miss", "below_threshold")),
        (json!({"prompt": "up"}), ("exact", "r")),
        (json!({"prompt": "upwards"}), ("miss", "embedder_down")),
    ] {
        let (tier, response) = summary(&client.search(&body).await);
        assert_eq!((tier.as_str(), response.as_str()), expected, "{body}");
    }
}
