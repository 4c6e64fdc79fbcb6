//! Rows 22 to 31: keys.

use serde_json::json;

use super::Then::{Closed, Passed, Refused};
use super::{CHAT, KeysOfTest, Row, Then, To, ask, post};

pub(super) fn rows(keys: &KeysOfTest) -> Vec<Row> {
    let KeysOfTest { valid, other, revoked } = keys;
    let mut rows = Vec::new();
    let mut add = |number: u8, what: &str, lines: String, then: Then| {
        let bytes = post(CHAT, &lines, ask(what, json!({})));
        rows.push(Row { number, what: what.to_owned(), to: To::Keyed, bytes, then });
    };
    let bearer = |key: &str| format!("authorization: Bearer {key}\r\n");
    let unknown = || Refused(401, "invalid_api_key", "");
    add(22, "a provider's key", bearer("sk-test"), unknown());
    add(22, "an empty header", "authorization:\r\n".into(), unknown());
    add(23, "another server's key", bearer(&format!("nh_{}", "x".repeat(60))), unknown());
    add(24, "the prefix", bearer("nh_"), unknown());
    add(24, "all but the last character", bearer(&valid[..valid.len() - 1]), unknown());
    add(25, "a space before it", bearer(&format!(" {valid}")), unknown());
    add(25, "a space within", bearer(&format!("{valid} x")), unknown());
    add(26, "SQL", bearer(&format!("{valid}' OR '1'='1")), unknown());
    add(26, "an escaped line break", bearer(&format!("{valid}%0d%0ax-a: b")), unknown());
    add(26, "a folded line", bearer(&format!("{valid}\r\n x")), Closed(400));
    add(26, "a NUL", bearer(&format!("{valid}\0")), Closed(400));
    add(27, "10 KiB", bearer(&valid.repeat(400)[..10 << 10]), unknown());
    add(28, "a revoked key", bearer(revoked), unknown());
    add(30, "two keys", bearer(valid) + &bearer(other), Refused(400, "invalid_value", "authorization"));
    add(30, "one key twice", bearer(valid) + &bearer(valid), Refused(400, "invalid_value", "authorization"));
    add(31, "somebody else's tenant in a header", bearer(valid) + "x-nearhit-tenant: other\r\n", Passed);
    let body = ask("Somebody else's tenant in the body", json!({"tenant": "other"}));
    let row = |number, what: &str, to, bytes, then| Row { number, what: what.to_owned(), to, bytes, then };
    rows.push(row(31, "the same in the body", To::Keyed, post(CHAT, &bearer(valid), body), Passed));
    let lines = format!("host: localhost\r\nconnection: close\r\n{}", bearer(valid));
    let metrics = format!("GET /metrics HTTP/1.1\r\n{lines}\r\n").into_bytes();
    rows.push(row(29, "a caller's key for administrators", To::Admin, metrics, Refused(403, "permission_denied", "")));
    let lines = format!("{}x-api-key: {other}\r\n", bearer(valid));
    let conflict = post("/v1/messages", &lines, ask("Two keys", json!({"max_tokens": 9})));
    rows.push(row(72, "two keys", To::Keyed, conflict, Then::RefusedAsAnthropic(400, "invalid_request_error")));
    rows
}
