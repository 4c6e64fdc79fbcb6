use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const RESPONSES: &str = "/v1/responses";

fn turns(max: usize) -> Turns {
    Turns { max, step: 1 }
}

/// The contents that are kept of a conversation, where something is dropped.
fn kept(path: &str, messages: &Value, turns: Turns) -> Option<Value> {
    let name = if path == RESPONSES { "input" } else { "messages" };
    let body = json!({"model": "m", name: messages});
    let bytes = body.to_string();
    let Trimmed { body, dropped } = trimmed(path, body.as_object().expect("fields"), bytes.as_bytes(), turns)?;
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    let kept = body[name].take();
    let count = |messages: &Value| messages.as_array().expect("a list").len();
    assert_eq!(count(messages), count(&kept) + dropped);
    Some(kept)
}

#[test]
fn the_oldest_turns_go() {
    let check = |path: &str, roles: &str, max: usize, expected: Option<&str>| {
        let message = |(place, role): (usize, char)| {
            let role = match role {
                's' => "system",
                'd' => "developer",
                'u' => "user",
                _ => "assistant",
            };
            json!({"role": role, "content": place.to_string()})
        };
        let messages = Value::Array(roles.chars().enumerate().map(message).collect());
        let kept = kept(path, &messages, turns(max)).map(|kept| {
            let places =
                kept.as_array().expect("a list").iter().map(|m| m["content"].as_str().expect("a text").to_owned());
            places.collect::<String>()
        });
        assert_eq!(kept.as_deref(), expected, "{path} {roles} {max}");
    };
    for path in [CHAT_PATH, RESPONSES] {
        check(path, "suauau", 3, None);
        check(path, "suauau", 2, Some("0345"));
        check(path, "suauau", 1, Some("05"));
        // Whoever asks for nothing to be kept gets the question answered at least.
        check(path, "suauau", 0, Some("05"));
        check(path, "suaduau", 1, Some("036"));
        check(path, "suuauua", 1, Some("0456"));
        check(path, "auau", 1, Some("3"));
        check(path, "usu", 1, None);
        check(path, "", 1, None);
        check(path, "sa", 1, None);
    }
    check(MESSAGES_PATH, "uauau", 2, Some("234"));
    check(MESSAGES_PATH, "uauau", 1, Some("4"));
    check(MESSAGES_PATH, "uaua", 1, Some("23"));
    // No API of these has such a role: nobody knows what it is.
    check(MESSAGES_PATH, "suauau", 1, None);
    check("/v1/completions", "uauau", 1, None);
}

#[test]
fn what_is_kept_is_kept_to_the_byte() {
    let body = "{ \"model\" : \"m\",\n\"messages\":[ {\"role\":\"system\", \"content\":\"caf\\u00e9\"} ,{\"role\":\"user\",\"content\":\"1\"},{\"role\":\"user\",\"content\":\"2\"},{\"role\":\"assistant\",\"content\":\"3\"},\n{\"content\" : \"4\",\"role\":\"user\",\"n\":1.50} ],\"seed\":1.0 }\r\n";
    let fields = serde_json::from_str(body).expect("JSON");
    let Trimmed { body, dropped } = trimmed(CHAT_PATH, &fields, body.as_bytes(), turns(1)).expect("too long");
    let expected = "{ \"model\" : \"m\",\n\"messages\":[{\"role\":\"system\", \"content\":\"caf\\u00e9\"},{\"content\" : \"4\",\"role\":\"user\",\"n\":1.50}],\"seed\":1.0 }\r\n";
    assert_eq!((String::from_utf8_lossy(&body).as_ref(), dropped), (expected, 3));
}

#[test]
fn turns_go_in_steps() {
    let check = |count: usize, max: usize, step: usize, expected: Option<usize>| {
        let messages = (0..count)
            .flat_map(|n| [json!({"role": "user", "content": n}), json!({"role": "assistant", "content": n})]);
        let first = kept(CHAT_PATH, &messages.collect(), Turns { max, step }).map(|kept| kept[0]["content"].as_u64());
        assert_eq!(first.flatten(), expected.map(|first| first as u64), "{count} {max} {step}");
    };
    check(10, 10, 4, None);
    for count in 11..=14 {
        check(count, 10, 4, Some(4));
    }
    check(15, 10, 4, Some(8));
    check(11, 10, 0, Some(1));
    // One is kept whatever the step.
    check(3, 2, 9, Some(2));
}

#[test]
fn what_is_not_understood_stays_whole() {
    let check = |path: &str, odd: Value| {
        let user = json!({"role": "user", "content": "x"});
        let answer = json!({"role": "assistant", "content": "y"});
        let messages = json!([user, answer, odd, answer, user]);
        assert_eq!(kept(path, &messages, turns(1)), None, "{path} {odd}");
    };
    check(CHAT_PATH, json!({"role": "robot"}));
    check(CHAT_PATH, json!({"content": "x"}));
    check(CHAT_PATH, json!("x"));
    check(MESSAGES_PATH, json!({"role": "system", "content": "x"}));
    check(RESPONSES, json!({"type": "item_reference", "id": "msg_1"}));
    check(RESPONSES, json!({"type": "function_call_output"}));
    let body =
        json!({"previous_response_id": "r", "input": [{"role": "user"}, {"role": "assistant"}, {"role": "user"}]});
    let bytes = body.to_string();
    assert_eq!(trimmed(RESPONSES, body.as_object().expect("fields"), bytes.as_bytes(), turns(1)), None);
    let text = json!({"input": "one text"});
    assert_eq!(trimmed(RESPONSES, text.as_object().expect("fields"), text.to_string().as_bytes(), turns(1)), None);
}

/// A result far from its call, as no provider has it: the cut goes back to before the call.
#[test]
fn a_call_is_kept_with_its_result() {
    let user = |n: u8| json!({"role": "user", "content": n});
    let call = json!({"role": "assistant", "tool_calls": [{"id": "c1"}]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "x"});
    let messages =
        json!([user(0), {"role": "assistant", "content": "y"}, user(1), call, user(2), result, user(3), call, result]);
    let kept = kept(CHAT_PATH, &messages, turns(2)).expect("too long");
    assert_eq!(kept[0], user(1));
}

/// Results of the provider's own tools are in the model's message, or in the one in which it goes on.
#[test]
fn a_provider_s_own_tools_are_the_models() {
    let user = |n: u8| json!({"role": "user", "content": n});
    let answer = |content: Value| json!({"role": "assistant", "content": content});
    let own = |name: &str, kind: &str| {
        let call = json!({"type": format!("{name}_tool_use"), "id": "t1"});
        (call, json!({"type": format!("{kind}_tool_result"), "tool_use_id": "t1", "content": []}))
    };
    for (call, result) in [own("server", "web_search"), own("mcp", "mcp")] {
        let said = json!({"type": "text", "text": "y"});
        for before in
            [vec![answer(json!([call, result, said]))], vec![answer(json!([call])), answer(json!([result, said]))]]
        {
            let messages: Vec<Value> =
                [vec![user(0)], before, vec![user(1), answer(json!("z")), user(2)]].into_iter().flatten().collect();
            let kept = |max: usize| kept(MESSAGES_PATH, &json!(messages), turns(max));
            assert_eq!(kept(3), None, "{messages:?}");
            assert_eq!(kept(2), Some(json!([user(1), answer(json!("z")), user(2)])), "{messages:?}");
            assert_eq!(kept(1), Some(json!([user(2)])), "{messages:?}");
        }
    }
}

/// A call whose result comes last keeps all of it, however many turns are between.
#[test]
fn long_conversations_are_read_once() {
    let user = json!({"role": "user"});
    let mut messages = vec![user.clone(), json!({"role": "assistant", "tool_calls": [{"id": "x"}]})];
    for _ in 0..20_000 {
        messages.extend([user.clone(), json!({"role": "assistant"})]);
    }
    messages.push(json!({"role": "tool", "tool_call_id": "x"}));
    assert_eq!(kept(CHAT_PATH, &Value::Array(messages), turns(1)), None);
}

/// One turn of a conversation that a provider takes.
#[derive(Debug, Clone)]
struct Spoken {
    system: bool,
    said: u8,
    calls: Vec<u8>,
}

fn spoken() -> impl Strategy<Value = Vec<Spoken>> {
    let turn = (any::<bool>(), 1_u8..3, prop::collection::vec(1_u8..3, 0..3));
    prop::collection::vec(turn.prop_map(|(system, said, calls)| Spoken { system, said, calls }), 0..8)
}

/// The conversation as an API writes it. Names of calls may come again, as they do where a function has one name only.
fn written(path: &str, turns: &[Spoken]) -> Vec<Value> {
    let mut messages = Vec::new();
    for Spoken { system, said, calls } in turns {
        if *system && path != MESSAGES_PATH {
            messages.push(json!({"role": "system", "content": "s"}));
        }
        let said = if path == MESSAGES_PATH { 1 } else { *said };
        messages.extend((0..said).map(|_| json!({"role": "user", "content": "u"})));
        for count in calls {
            let ids = || (0..*count).map(|n| format!("call_{n}"));
            match path {
                CHAT_PATH => {
                    let calls: Vec<Value> = ids().map(|id| json!({"id": id, "type": "function"})).collect();
                    messages.push(json!({"role": "assistant", "content": null, "tool_calls": calls}));
                    messages.extend(ids().map(|id| json!({"role": "tool", "tool_call_id": id, "content": "r"})));
                }
                MESSAGES_PATH => {
                    let calls: Vec<Value> = ids().map(|id| json!({"type": "tool_use", "id": id})).collect();
                    let results: Vec<Value> =
                        ids().map(|id| json!({"type": "tool_result", "tool_use_id": id})).collect();
                    messages.push(json!({"role": "assistant", "content": calls}));
                    messages.push(json!({"role": "user", "content": results}));
                }
                _ => {
                    messages.push(json!({"type": "reasoning", "id": "rs"}));
                    messages.extend(ids().map(|id| json!({"type": "function_call", "call_id": id})));
                    messages.extend(ids().map(|id| json!({"type": "function_call_output", "call_id": id})));
                }
            }
        }
        messages.push(json!({"role": "assistant", "content": "a"}));
    }
    messages.push(json!({"role": "user", "content": "last"}));
    messages
}

/// Says what a provider would have against the conversation.
fn objection(path: &str, messages: &[Value]) -> Option<String> {
    let first = messages.iter().find(|message| message["role"] != "system")?;
    if first["role"] != "user" || first["content"][0]["type"] == "tool_result" {
        return Some(format!("begins with {first}"));
    }
    let mut open: HashSet<String> = HashSet::new();
    for (place, message) in messages.iter().enumerate() {
        let read = Message::read(path, message)?;
        for result in read.results {
            if !open.remove(result) {
                return Some(format!("{place}: the result of nothing, {message}"));
            }
        }
        if read.speaker == Speaker::User && !open.is_empty() {
            return Some(format!("{place}: calls without a result, {open:?}"));
        }
        open.extend(read.calls.into_iter().map(str::to_owned));
    }
    None
}

/// Whether a result would be kept whose call would not, read off the conversation as it would be cut.
fn is_orphaning(messages: &[Message<'_>], start: usize) -> bool {
    let (before, after) = messages.split_at(start);
    let gone: HashSet<&str> = before.iter().flat_map(|message| message.calls.iter().copied()).collect();
    let mut kept = HashSet::new();
    after.iter().any(|message| {
        let is_orphan = message.results.iter().any(|call| gone.contains(call) && !kept.contains(call));
        kept.extend(message.calls.iter().copied());
        is_orphan
    })
}

/// Messages with any calls and results, in any order.
fn any_messages() -> impl Strategy<Value = Vec<Message<'static>>> {
    let names = || prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d"]), 0..3);
    let message = (names(), names()).prop_map(|(calls, results)| Message { speaker: Speaker::Model, calls, results });
    prop::collection::vec(message, 0..12)
}

proptest! {
    #[test]
    fn what_parts_results_from_calls_is_found_in_one_pass(messages in any_messages()) {
        let expected: Vec<bool> = (0..messages.len()).map(|start| is_orphaning(&messages, start)).collect();
        prop_assert_eq!(orphaning(&messages), expected);
    }

    #[test]
    fn trimming_never_leaves_an_invalid_conversation(
        spoken in spoken(), max in 0_usize..6, step in 0_usize..4, path in 0_usize..3,
    ) {
        let path = [CHAT_PATH, MESSAGES_PATH, RESPONSES][path];
        let messages = written(path, &spoken);
        prop_assert_eq!(objection(path, &messages), None, "the test's own conversation");
        let asked = Turns { max, step };
        let all = Value::Array(messages.clone());
        let is_too_long = spoken.len() + 1 > max.max(1);
        let Some(kept) = kept(path, &all, asked) else {
            prop_assert!(!is_too_long, "{all}");
            return Ok(());
        };
        prop_assert!(is_too_long);
        let kept = kept.as_array().expect("a list").clone();
        prop_assert_eq!(objection(path, &kept), None, "{:?}", kept);
        // Nothing but whole turns went: what is kept is all system messages, and an unbroken end.
        let is_system = |message: &&Value| message["role"] == "system";
        let count = |messages: &[Value]| messages.iter().filter(is_system).count();
        prop_assert_eq!(count(&kept), count(&messages));
        let rest: Vec<_> = kept.iter().filter(|m| !is_system(m)).collect();
        let whole: Vec<_> = messages.iter().filter(|m| !is_system(m)).collect();
        prop_assert!(whole.ends_with(&rest));
        let read: Vec<_> = kept.iter().map(|m| Message::read(path, m).expect("understood")).collect();
        let turns = starts(&read).len();
        prop_assert!(turns >= 1 && turns <= max.max(1) && turns + step.max(1) > max.min(spoken.len()));
        // And once is enough.
        prop_assert_eq!(super::tests::kept(path, &Value::Array(kept), asked), None);
    }
}
