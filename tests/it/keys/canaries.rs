//! Keys are seen by whom they are for and by nobody else, however much is logged.

use std::path::Path;

use axum::body::Body;
use http::{Method, Request};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use super::{CHAT, ENTRIES, MESSAGES, SEARCH, ask, upstreams};
use crate::support::{Client, Home, Reply, Upstream, until};

/// Planted where secrets are; none is a word of anything else.
const PLANTED: &[&str] = &[
    "canary-provider-bearer",
    "canary-provider-basic",
    "canary-provider-x-api-key",
    "canary-operator-openai",
    "canary-operator-anthropic",
    "nh_canary-wrong-key",
    "canary-cookie",
    "canary-proxy-authorization",
    "canary-prompt",
    "canary-answer",
];

/// What may lie in the data folder: prompts and answers are kept there on purpose, sealed.
const KEPT: &[&str] = &["canary-prompt", "canary-answer"];

#[tokio::test]
async fn no_key_or_prompt_is_seen_anywhere_else() {
    let upstream = Upstream::saying("canary-answer").await;
    let files = Home::new();
    let operators = files.write("anthropic", "canary-operator-anthropic");
    let config = format!("[upstream]\nopenai_key_env = \"OPERATORS\"\nanthropic_key_file = {operators:?}\n");
    let home = Home::with_config(&config);
    let key = home.key("acme", "read,write,admin");
    let revoked = home.key("acme", "write");
    home.revoke(&revoked);
    let args = upstreams(&upstream);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--log", "trace"]);
    let server = home.serve_with(&args, &[("OPERATORS", "canary-operator-openai")]).await;

    let cookie = |client: Client| {
        client.with("cookie", "canary-cookie").with("proxy-authorization", "canary-proxy-authorization")
    };
    let callers = [
        server.client(&key),
        server.client("").with("x-nearhit-key", &key),
        server.client("canary-provider-bearer").with("x-nearhit-key", &key),
        server.client("").with("authorization", "Basic canary-provider-basic").with("x-nearhit-key", &key),
        server.client("").with("x-api-key", "canary-provider-x-api-key").with("x-nearhit-key", &key),
        server.client(&revoked),
        server.client("nh_canary-wrong-key"),
        server.client("").with("x-nearhit-key", "nh_canary-wrong-key"),
        server.client("canary-provider-bearer"),
        server.client("canary-provider-bearer").with("authorization", "Basic canary-provider-basic"),
        server.client("canary-provider-bearer").with("x-api-key", "canary-provider-x-api-key"),
    ]
    .map(cookie);
    // Misses, hits, refusals, passes, bad bodies, and what a provider may do.
    for client in &callers {
        every_call(client).await;
    }
    let replies: &[fn() -> Reply] = &[
        || Reply::json(401, &json!({"error": {"message": "Incorrect key"}})),
        || Reply::json(500, &json!({"error": {"message": "out of order"}})),
        || Reply::new(200, "text/event-stream", "data: {broken\n\n"),
        || Reply::new(200, "application/json", "{"),
    ];
    for reply in replies {
        upstream.answer_with(move |_| reply());
        for client in &callers {
            client.chat(&ask("canary-prompt refused")).await;
        }
    }
    over_http2(&server.url, &key).await;
    let metrics = Client::new(&server.admin_url, &key).get("/metrics").await.check(200).text();
    let ready = server.client("").get("/readyz").await.check(200).text();
    // Nobody listens there.
    let home_without = Home::with_config("");
    let key_without = home_without.key("acme", "write");
    let down = ["--upstream", "http://127.0.0.1:9/v1", "--log", "trace"];
    let without = home_without.serve(&down).await;
    let client = without.client("canary-provider-bearer").with("x-nearhit-key", &key_without);
    client.chat(&ask("canary-prompt")).await.refusal(502, "upstream_unreachable");
    without.terminate();
    server.terminate();
    for server in [&server, &without] {
        until("the server stops", async || server.log().contains("stopped").then_some(())).await;
    }

    let log = format!("{}{}{}{}", server.stdout(), server.log(), without.stdout(), without.log());
    assert!(log.contains("TRACE") && log.contains("took up other keys") | log.contains("listening"), "it logs");
    let mut secrets: Vec<String> = PLANTED.iter().map(ToString::to_string).collect();
    for key in [&key, &revoked, &key_without] {
        // The secret alone, and in whatever other letters.
        secrets.extend([key.clone(), key[12..76].to_owned(), base64(key), format!("Bearer {}", &key[..11])]);
    }
    secrets.extend(PLANTED.iter().map(|text| base64(text)));
    let mut found = Vec::new();
    for (place, text) in [("log", log.as_bytes()), ("metrics", metrics.as_bytes()), ("readyz", ready.as_bytes())] {
        found.extend(secrets.iter().filter(|secret| holds(text, secret)).map(|secret| format!("{secret} in {place}")));
    }
    let (mut files, mut bytes) = (0, 0);
    for home in [&home, &home_without] {
        each_file(&home.data(), &mut |path, content| {
            let secrets = secrets.iter().filter(|secret| !KEPT.contains(&secret.as_str()) && holds(content, secret));
            found.extend(secrets.map(|secret| format!("{secret} in {}", path.display())));
            (files, bytes) = (files + 1, bytes + content.len());
        });
    }
    println!(
        "{} secrets looked for in {} bytes of log and {files} files with {bytes} bytes: {} found",
        secrets.len(),
        log.len(),
        found.len()
    );
    assert!(files > 5 && log.len() > 10_000);
    assert_eq!(found, [""; 0]);
    // What is kept says nothing of keys either.
    let server = home.serve_with(&[], &[("OPERATORS", "canary-operator-openai")]).await;
    let kept = server.client(&key).get(ENTRIES).await.check(200).text();
    assert!(
        kept.contains("canary-prompt") && !PLANTED.iter().any(|secret| !KEPT.contains(secret) && kept.contains(secret)),
        "{kept}"
    );
}

async fn every_call(client: &Client) {
    for text in ["canary-prompt one", "canary-prompt one", "canary-prompt two"] {
        client.chat(&ask(text)).await;
        let mut streamed = ask(text);
        streamed["stream"] = json!(true);
        client.chat(&streamed).await;
        client.post(MESSAGES, &ask(text)).await;
        client.post(ENTRIES, &json!({"prompt": text, "response": "canary-answer", "tags": ["t"]})).await;
        client.post(SEARCH, &json!({"prompt": text})).await;
    }
    client.post(SEARCH, &json!({"prompt": "canary-prompt", "limit": 0})).await;
    client.post_bytes(CHAT, "{\"messages\": [\"canary-prompt\"").await;
    client.get("/v1/models").await;
    client.get("/unheard-of").await;
    client.get(ENTRIES).await;
    client.send(Method::PATCH, SEARCH, Body::empty()).await;
    client.delete(&format!("{ENTRIES}/0")).await;
}

/// The same headers, packed as HTTP/2 packs them.
async fn over_http2(url: &str, key: &str) {
    let http = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Body>();
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("x-nearhit-key", key.to_owned()),
        ("authorization", "Bearer canary-provider-bearer".to_owned()),
        ("x-api-key", "canary-provider-x-api-key".to_owned()),
    ] {
        let request =
            Request::post(format!("{url}{CHAT}")).header("content-type", "application/json").header(name, value);
        let request = request.body(Body::from(ask("canary-prompt one").to_string())).expect("a request");
        let response = http.request(request).await.expect("an answer");
        assert_eq!(response.version(), http::Version::HTTP_2);
    }
}

fn each_file(folder: &Path, take: &mut impl FnMut(&Path, &[u8])) {
    for item in std::fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an item").path();
        if path.is_dir() {
            each_file(&path, take);
        } else {
            take(&path, &std::fs::read(&path).expect("a file"));
        }
    }
}

fn holds(content: &[u8], secret: &str) -> bool {
    content.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// As `Basic` credentials carry it, without the padding that depends on what comes after.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.as_bytes().chunks_exact(3).flat_map(|three| {
        let bits = three.iter().fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    });
    digits.collect()
}
