//! Nothing in a request decides where it goes, and some addresses are never called.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::Raw;
use super::{Setup, ask};
use crate::support::{Reply, Upstream};

#[tokio::test]
async fn nothing_in_a_request_decides_where_it_goes() {
    let canary = Raw::start(&[]).await;
    let upstream = Upstream::saying("Here.").await;
    let config = format!(
        "[upstream]\nopenai = {:?}\nanthropic = {:?}\n[aliases]\nx = \"y\"",
        upstream.base(),
        upstream.origin()
    );
    let Setup { server, client, home: _home } = Setup::start(&config).await;
    let (url, host) = (canary.base(), format!("127.0.0.1:{}", canary.port));
    let mut calls = 0;
    for field in
        ["api_base", "base_url", "apiBase", "endpoint", "url", "host", "proxy", "upstream", "x-portkey-custom-host"]
    {
        for path in ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"] {
            let mut body = ask(&format!("Where, by {field}?"));
            body[field] = json!(url);
            client.post(path, &body).await.check(200);
            calls += 1;
        }
    }
    let headers = [
        "x-forwarded-host",
        "x-forwarded-server",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-host",
        "x-base-url",
        "x-portkey-custom-host",
        "helicone-target-url",
        "x-nearhit-upstream",
        "x-upstream",
        "api-base",
        "referer",
        "via",
    ];
    for name in headers {
        client.with(name, &url).chat(&ask(&format!("Where, by header {name}?"))).await.check(200);
        calls += 1;
    }
    // As only a raw socket sends it: another host in the request line, and in Host.
    let address = server.url.trim_start_matches("http://").to_owned();
    for (line, host) in [
        (format!("{url}/chat/completions"), address.as_str()),
        (format!("http://{host}/v1/chat/completions"), host.as_str()),
        ("/v1/chat/completions".to_owned(), host.as_str()),
        (format!("//{host}/v1/chat/completions"), address.as_str()),
        (format!("/v1/chat/completions?url={url}"), address.as_str()),
        (format!("/v1/@{host}/models"), address.as_str()),
        (format!("/v1/\\{host}/models"), address.as_str()),
    ] {
        let body = ask(&format!("Where, {line}?")).to_string();
        let head = format!(
            "POST {line} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(&address).await.expect("the server");
        stream.write_all((head + &body).as_bytes()).await.expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 "), "{line}: {answer}");
    }
    // A redirect is the client's to follow.
    let location = url.clone();
    upstream.answer_with(move |_| Reply::new(302, "text/plain", "").header("location", &location));
    assert_eq!(client.chat(&ask("Elsewhere?")).await.check(302).header("location"), url);
    assert!(upstream.count() > calls, "the configured upstream got them");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn addresses_of_metadata_services_are_never_called() {
    for host in
        ["169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200"]
    {
        let Setup { server, client, home: _home } =
            Setup::start(&format!("[upstream]\nopenai = \"http://{host}/v1\"")).await;
        let refusal = client.chat(&ask("Who am I?")).await.refusal(502, "upstream_unreachable");
        assert!(!refusal.contains(host.trim_matches(['[', ']'])), "the client need not know where: {refusal}");
        assert!(server.log().contains("never called"), "{host}: {}", server.log());
    }
}
