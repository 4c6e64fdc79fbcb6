//! Rows 32 to 74 but for 72: bodies, questions, controls, and Anthropic's API.

use serde_json::{Value, json};

use super::Then::{BrokenStream, Bypass, Closed, Miss, Refused, RefusedAsAnthropic};
use super::{CHAT, Row, Then, To, ask, post, unframed};

const MESSAGES: &str = "/v1/messages";

pub(super) fn rows(canary_url: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |number: u8, what: &str, bytes: Vec<u8>, then: Then| {
        rows.push(Row { number, what: what.to_owned(), to: To::Open, bytes, then });
    };
    let sent = |body: &[u8]| post(CHAT, "", body);
    let no_json = || Refused(400, "invalid_json", "");
    let question = r#""messages":[{"role":"user","content":"p"}]"#;
    for (number, what, body) in [
        (32, "empty", Vec::new()),
        (33, "an open brace", b"{".to_vec()),
        (34, "an array", b"[]".to_vec()),
        (35, "more after the end", format!("{{\"model\":\"m\",{question}}} x").into_bytes()),
        (36, "129 deep", format!("{}1{}", "{\"a\":".repeat(129), "}".repeat(129)).into_bytes()),
        (37, "a field twice", format!("{{\"model\":\"m\",\"model\":\"n\",{question}}}").into_bytes()),
        (
            37,
            "a field twice, once escaped",
            format!("{{\"model\":\"m\",\"mod\\u0065l\":\"n\",{question}}}").into_bytes(),
        ),
        (38, "not UTF-8", b"{\"model\":\"\xff\"}".to_vec()),
        (39, "a byte order mark", format!("\u{feff}{{\"model\":\"m\",{question}}}").into_bytes()),
        (40, "half a character", b"{\"model\":\"\\ud800\"}".to_vec()),
        (41, "NaN", b"{\"seed\":NaN}".to_vec()),
        (41, "beyond a double", b"{\"seed\":1e999}".to_vec()),
    ] {
        add(number, what, sent(&body), no_json());
    }
    let too_large = || Refused(413, "body_too_large", "");
    let padded = |bytes: usize| {
        let body = ask("Large?", json!({}));
        " ".repeat(bytes - body.len()) + &body
    };
    add(42, "32 MiB and a byte", sent(padded((32 << 20) + 1).as_bytes()), too_large());
    add(43, "a length over the cap, and no body", unframed(CHAT, "content-length: 40000000\r\n", ""), too_large());
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    add(
        44,
        "chunks over the cap",
        unframed(CHAT, "transfer-encoding: chunked\r\n", chunk.repeat(33) + "0\r\n\r\n"),
        too_large(),
    );
    let media = || Refused(415, "unsupported_media_type", "");
    let plain = ask("Of another kind?", json!({}));
    add(45, "text", post(CHAT, "content-type: text/plain\r\n", &plain), media());
    // A thousand times as much, were anybody to unpack it.
    add(46, "compressed", post(CHAT, "content-encoding: gzip\r\n", vec![0_u8; 10_000]), media());
    let boundary = |dashes: usize| format!("content-type: multipart/form-data; boundary={}\r\n", "-".repeat(dashes));
    add(47, "a boundary of 60,000 dashes", post(CHAT, &boundary(60_000), &plain), media());
    add(47, "a boundary of a million dashes", post(CHAT, &boundary(1_000_000), &plain), Closed(431));

    let mut asked = |number: u8, text: &str, more: Value, then: Then| {
        add(number, &format!("{text:.60} {:.60}", more.to_string()), post(CHAT, "", ask(text, more)), then);
    };
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let not_cacheable = || Bypass("not_cacheable");
    asked(48, "", json!({"messages": null}), not_cacheable());
    asked(49, "", json!({"messages": []}), not_cacheable());
    asked(50, "", user(Value::Null), not_cacheable());
    asked(51, "", user(json!(" \n")), not_cacheable());
    asked(51, "", user(json!("\u{200b}\u{feff}")), not_cacheable());
    asked(52, &"long ".repeat(20 << 10), json!({}), Miss);
    asked(53, &"word ".repeat(600), json!({}), Miss);
    let roles = ["user", "assistant"].into_iter().cycle().take(10_000);
    let mut turns: Vec<Value> = roles.map(|role| json!({"role": role, "content": "So."})).collect();
    turns.push(json!({"role": "user", "content": "After 10,000 messages?"}));
    asked(54, "", json!({"messages": turns}), Miss);
    for part in ["image_url", "input_audio", "file"] {
        let part = json!({"type": part, part: {"url": "https://x.example/y", "data": "", "file_id": "f"}});
        asked(55, "", user(json!([part, {"type": "text", "text": "What is this?"}])), Bypass("multimodal"));
    }
    asked(56, "Tools?", json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), Bypass("tools_in_use"));
    asked(56, "Functions?", json!({"functions": [{"name": "f"}]}), Bypass("tools_in_use"));
    asked(57, "Two?", json!({"n": 2}), Bypass("n_over_one"));
    asked(58, "How likely?", json!({"logprobs": true}), not_cacheable());
    asked(59, "An unknown field?", json!({"unheard_of": {"a": 1}}), Miss);
    asked(59, "", json!({"messages": [{"role": "narrator", "content": "Once"}]}), not_cacheable());
    asked(
        60,
        "",
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        not_cacheable(),
    );
    asked(61, "How hot?", json!({"temperature": "hot"}), not_cacheable());
    asked(62, "A stream?", json!({"stream": "yes"}), not_cacheable());
    for text in [
        "May the US army march?",
        "May the us army march?",
        "May the US army march?\u{e0041}\u{e0042}",
        "May the US\u{200b} army march?",
        "May the U\u{301}S army march?",
        "\u{202e}May the US army march?",
    ] {
        asked(63, text, json!({"seed": 63}), Miss);
    }

    let mut controlled = |number: u8, line: &str, then: Then| {
        add(number, line, post(CHAT, &format!("{line}\r\n"), ask(&format!("With {line}?"), json!({}))), then);
    };
    controlled(64, "x-nearhit-threshold: 0.1", Miss);
    for value in ["NaN", "-1", "1.1"] {
        controlled(65, &format!("x-nearhit-threshold: {value}"), Refused(400, "invalid_value", "x-nearhit-threshold"));
    }
    for value in ["-1", "1e12", "1h"] {
        controlled(66, &format!("x-nearhit-ttl: {value}"), Refused(400, "invalid_value", "x-nearhit-ttl"));
    }
    for value in ["../x", &"a".repeat(300)] {
        controlled(67, &format!("x-nearhit-cache: {value}"), Refused(400, "invalid_value", "x-nearhit-cache"));
    }
    controlled(67, "x-nearhit-cache: a\0b", Closed(400));
    controlled(69, "cache-control: no-store", Bypass("no_store"));
    for field in ["api_base", "base_url"] {
        let body = ask(&format!("Where is {field}?"), json!({field: canary_url}));
        add(68, field, post(CHAT, "", body), Miss);
    }

    let version = "anthropic-version: 2023-06-01\r\n";
    add(70, "no max_tokens", post(MESSAGES, version, ask("How long?", json!({}))), Miss);
    add(71, "no version", post(MESSAGES, "", ask("Which version?", json!({"max_tokens": 9}))), Miss);
    let large = padded(33 << 20);
    add(73, "33 MiB", post(MESSAGES, version, large), RefusedAsAnthropic(413, "request_too_large"));
    let streamed = json!({"max_tokens": 9, "stream": true});
    add(74, "an error in the stream", post(MESSAGES, version, ask("Break off.", streamed)), BrokenStream);
    rows
}
