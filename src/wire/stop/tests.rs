use serde_json::json;

use super::*;
use crate::wire::request::ProviderRequest;

const CHAT: &str = CHAT_PATH;

fn watch(path: &str, more: Value, rule: &StopRule) -> Option<StreamWatch> {
    let mut request = json!({"model": "m", "stream": true, "response_format": {"type": "json_object"}});
    let fields = request.as_object_mut().expect("fields");
    fields.extend(more.as_object().expect("fields").clone());
    StreamWatch::new(path, fields, true, rule)
}

fn json_rule() -> StopRule {
    StopRule { json: true, after: Vec::new() }
}

fn chunk(delta: Value, finish: Option<&str>) -> String {
    let choices = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    format!(
        "data: {}\n\n",
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices})
    )
}

fn said(text: &str) -> String {
    chunk(json!({"content": text}), None)
}

fn typed(event: Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type"))
}

/// What a client gets of these pieces, and whether it was stopped.
fn passed(mut watch: StreamWatch, pieces: &[&str]) -> (String, bool) {
    let mut out = Vec::new();
    for piece in pieces {
        let Passed { bytes, is_stopped } = watch.feed(piece.as_bytes());
        out.extend(bytes);
        if is_stopped {
            return (String::from_utf8(out).expect("text"), true);
        }
    }
    out.extend(watch.rest());
    (String::from_utf8(out).expect("text"), false)
}

/// The answer that a recorder makes of a stream; `None` where it is not whole.
fn recorded(path: &str, stream: &str) -> Option<Fields> {
    let request = ProviderRequest::new(path, json!({"model": "m", "stream": true})).expect("a request");
    let mut recorder = request.recorder();
    recorder.feed(stream.as_bytes());
    let recorded = recorder.finish();
    recorded.whole.then_some(recorded.object)
}

#[test]
fn a_stream_ends_whole_when_its_object_does() {
    let head = chunk(json!({"role": "assistant", "content": ""}), None);
    let (first, last, more) = (said("{\"a\":"), said("1}  \n and"), said(" more"));
    let usage = json!({"stream_options": {"include_usage": true}});
    for (more_asked, with_usage) in [(json!({}), false), (usage, true)] {
        let watch = watch(CHAT, more_asked, &json_rule()).expect("watched");
        let (got, is_stopped) = passed(watch, &[&head, &first, &last, &more]);
        assert!(is_stopped && got.starts_with(&format!("{head}{first}")) && got.ends_with("data: [DONE]\n\n"), "{got}");
        let whole = recorded(CHAT, &got).expect("whole");
        assert_eq!(whole["choices"][0]["message"]["content"], "{\"a\":1}");
        assert_eq!(
            (&whole["choices"][0]["finish_reason"], &whole["id"], &whole["model"]),
            (&json!("stop"), &json!("c"), &json!("m"))
        );
        assert_eq!(whole["nearhit"], json!({"stopped_early": true}));
        assert_eq!(whole.get("usage").is_some_and(|usage| usage["completion_tokens"] == 4), with_usage, "{got}");
    }
}

#[test]
fn a_message_ends_whole_when_its_object_does() {
    let start = typed(json!({"type": "message_start", "message": {
        "id": "msg", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1}
    }}));
    let block = |index: u64, kind: &str| {
        typed(json!({"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}}))
    };
    let delta = |index: u64, text: &str| {
        typed(json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}))
    };
    let thought = typed(
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "{}"}}),
    );
    let stop = typed(json!({"type": "content_block_stop", "index": 0}));
    let pieces = [
        start,
        block(0, "thinking"),
        thought,
        stop,
        block(1, "text"),
        delta(1, "{\"a\""),
        delta(1, ":1} and"),
        delta(1, "more"),
    ];
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let (got, is_stopped) = passed(watch(MESSAGES_PATH, json!({}), &json_rule()).expect("watched"), &pieces);
    assert!(is_stopped && got.contains("event: message_stop\n"), "{got}");
    let whole = recorded(MESSAGES_PATH, &got).expect("whole");
    assert_eq!((&whole["content"][1]["text"], &whole["stop_reason"]), (&json!("{\"a\":1}"), &json!("end_turn")));
    assert_eq!(whole["usage"]["output_tokens"], 3);
}

#[test]
fn an_older_completion_ends_with_what_it_must_say() {
    let chunk = |text: &str| {
        format!(
            "data: {}\n\n",
            json!({"id": "c", "model": "m", "choices": [{"index": 0, "text": text, "finish_reason": null}]})
        )
    };
    let rule = StopRule { json: false, after: vec!["END".into()] };
    let watch = watch("/v1/completions", json!({"prompt": "x"}), &rule).expect("watched");
    let (got, is_stopped) = passed(watch, &[&chunk("the E"), &chunk("ND."), &chunk("more")]);
    assert!(is_stopped);
    assert_eq!(recorded("/v1/completions", &got).expect("whole")["choices"][0]["text"], "the END");
}

/// However the bytes come in pieces, the client gets the same.
#[test]
fn pieces_make_no_difference() {
    let stream = format!(": hello\r\n\r\n{}{}{}", said("{\"é\":"), said("1}"), said(" more"))
        .replace("data: {\"ch", "data:{\"ch");
    let whole = passed(watch(CHAT, json!({}), &json_rule()).expect("watched"), &[&stream]);
    assert!(whole.1, "{whole:?}");
    for cut in (0..stream.len()).filter(|cut| stream.is_char_boundary(*cut)) {
        let (a, b) = stream.split_at(cut);
        assert_eq!(passed(watch(CHAT, json!({}), &json_rule()).expect("watched"), &[a, b]), whole, "cut at {cut}");
    }
}

#[test]
fn what_ends_by_itself_or_is_not_understood_goes_on_as_it_is() {
    let end = format!("{}data: [DONE]\n\n", chunk(json!({}), Some("stop")));
    let check = |pieces: &[&str]| {
        let watch = watch(CHAT, json!({}), &json_rule()).expect("watched");
        assert_eq!(passed(watch, pieces), (pieces.concat(), false), "{pieces:?}");
    };
    let object = said("{}");
    // The end is there with the last piece: the provider's own says more.
    check(&[&said("{\"a\":1"), &format!("{}{}{end}", said("}"), said("\n"))]);
    check(&[&said("no JSON {}"), &end]);
    check(&[&chunk(json!({"tool_calls": [{"index": 0}]}), None), &object]);
    check(&[&chunk(json!({"refusal": "no"}), None), &object]);
    check(&[&chunk(json!({"content": "{}"}), Some("length")), &object]);
    check(&["data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"{}\"}}]}\n\n", &object]);
    check(&["data: {\"choices\":[{},{}]}\n\n", &object]);
    check(&["data: {\"error\":{\"message\":\"x\"}}\n\n", &object]);
    check(&["data: garbage\n\n", &object]);
    check(&["no events at all", " {}"]);
    let start = typed(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}}));
    let delta =
        typed(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "{}"}}));
    let tool = watch(MESSAGES_PATH, json!({}), &json_rule()).expect("watched");
    assert_eq!(passed(tool, &[&start, &delta]), (format!("{start}{delta}"), false));
}

#[test]
fn only_streams_of_one_answer_are_watched() {
    let check = |path: &str, more: Value, expected: bool| {
        assert_eq!(watch(path, more.clone(), &json_rule()).is_some(), expected, "{path} {more}");
    };
    check(CHAT, json!({"n": 1}), true);
    check(CHAT, json!({"n": 2}), false);
    check(CHAT, json!({"stream": false}), false);
    check(CHAT, json!({"tools": []}), true);
    check(CHAT, json!({"tools": [{"type": "function"}]}), false);
    for one in [json!("x"), json!(["x"]), json!([1, 2]), json!([1]), json!([[1, 2]])] {
        check("/v1/completions", json!({"prompt": one}), true);
        check("/v1/completions", json!({"prompt": one, "n": 2}), false);
        check("/v1/completions", json!({"prompt": one, "echo": true}), false);
        check("/v1/completions", json!({"prompt": one, "echo": "true"}), false);
        check("/v1/completions", json!({"prompt": one, "echo": false}), true);
    }
    for several in [json!(["x", "y"]), json!([[1], [2]]), json!(["x", [1]]), json!([1, [2]]), json!([]), json!(null)] {
        check("/v1/completions", json!({"prompt": several}), false);
    }
    check("/v1/completions", json!({}), false);
    check("/v1/responses", json!({}), false);
    check("/v1/embeddings", json!({}), false);
    assert!(watch(CHAT, json!({}), &StopRule::default()).is_none());
}

#[test]
fn nothing_is_held_back_for_long() {
    let mut watch = watch(CHAT, json!({}), &json_rule()).expect("watched");
    assert_eq!(watch.feed(&vec![b'x'; HELD_BYTES_MAX]).bytes.len(), 0);
    assert_eq!(watch.feed(b"yz").bytes.len(), HELD_BYTES_MAX + 2);
    assert_eq!(watch.feed(b"more").bytes, b"more");
}

/// Lines may end in a way that no provider's do: then nothing is held back, and nothing is looked for.
#[test]
fn other_ends_of_lines_go_on_at_once() {
    let first = said("{").replace('\n', "\r");
    let mut watch = watch(CHAT, json!({}), &json_rule()).expect("watched");
    let Passed { bytes, is_stopped } = watch.feed(first.as_bytes());
    assert_eq!((String::from_utf8_lossy(&bytes).as_ref(), is_stopped), (first.as_str(), false));
    let more = said("}");
    assert_eq!(watch.feed(more.as_bytes()), Passed { bytes: more.into_bytes(), is_stopped: false });
}

/// Neither many events in one piece nor one event in many pieces is looked at more than once.
#[test]
fn any_pieces_are_read_once() {
    let mut many = watch(CHAT, json!({}), &json_rule()).expect("watched");
    let lines = "\n".repeat(400_000);
    assert_eq!(many.feed(lines.as_bytes()), Passed { bytes: lines.into_bytes(), is_stopped: false });
    let mut long = watch(CHAT, json!({}), &json_rule()).expect("watched");
    for _ in 0..400_000 {
        assert_eq!(long.feed(b":").bytes, b"");
    }
    assert_eq!(long.feed(b"\n\n").bytes.len(), 400_002);
}
