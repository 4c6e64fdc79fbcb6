use std::io::Write;

use serde_json::json;

use super::*;

fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a written file");
    (folder, path)
}

#[test]
fn lines() {
    fn check(shape: Shape, line: &str, expected: Result<Content, &str>) {
        let content = Row::parse(line, shape).map(|row| row.content);
        assert_eq!(content, expected.map_err(str::to_owned), "{line}");
    }
    let pair = |label| Content::Pair { a: "x".into(), b: "y".into(), label };
    check(Shape::Pairs, r#"{"id":"1","a":"x","b":"y","label":1}"#, Ok(pair(Some(true))));
    check(Shape::Pairs, r#"{"id":"1","a":"x","b":"y","label":0}"#, Ok(pair(Some(false))));
    check(Shape::Pairs, r#"{"id":1,"a":"x","b":"y","label":null,"other":[]}"#, Ok(pair(None)));
    check(Shape::Pairs, r#"{"id":"1","a":"x","b":"y","label":2}"#, Err("field \"label\": expected 0 or 1, found 2"));
    check(
        Shape::Pairs,
        r#"{"id":"1","a":"x","b":"y","label":"yes"}"#,
        Err("field \"label\": expected 0 or 1, found \"yes\""),
    );
    check(
        Shape::Pairs,
        r#"{"id":"1","a":"x","b":"y","label":true}"#,
        Err("field \"label\": expected 0 or 1, found true"),
    );
    check(Shape::Pairs, r#"{"id":"1","a":"x"}"#, Err("field \"b\" is missing"));
    check(Shape::Pairs, r#"{"a":"x","b":"y"}"#, Err("field \"id\" is missing"));
    check(Shape::Pairs, r#"{"id":[],"a":"x","b":"y"}"#, Err("field \"id\": expected a string or a number, found []"));
    check(Shape::Pairs, r#"{"id":"1","a":["x"],"b":"y"}"#, Err("field \"a\": expected a string, found a list"));
    check(Shape::Pairs, "[1]", Err("expected an object, found a list"));
    check(Shape::Pairs, r#"{"id":}"#, Err("no JSON: expected value (column 7)"));
    let arrival = |context: Option<&str>, class: Option<&str>| Content::Arrival {
        text: "x".into(),
        context: context.map(Into::into),
        class: class.map(Into::into),
    };
    check(Shape::Stream, r#"{"id":"1","text":"x","class":"c","context":"d"}"#, Ok(arrival(Some("d"), Some("\"c\""))));
    check(Shape::Stream, r#"{"id":"1","text":"x","class":7}"#, Ok(arrival(None, Some("7"))));
    check(Shape::Stream, r#"{"id":"1","text":"x"}"#, Ok(arrival(None, None)));
    check(Shape::Stream, r#"{"id":"1","text":5}"#, Err("field \"text\": expected a string, found a number"));
    let said = json!({"role": "user", "content": "x"});
    let conversations = Content::Conversations { a: vec![said.clone()], b: vec![], label: None };
    check(Shape::Conversations, &json!({"id": "1", "a": [said], "b": []}).to_string(), Ok(conversations));
    check(
        Shape::Conversations,
        r#"{"id":"1","a":"x","b":[]}"#,
        Err("field \"a\": expected a list of messages, found a string"),
    );
}

#[test]
fn errors_do_not_repeat_prompts() {
    for line in [r#"{"id":"1","a":{"secret":1},"b":"y"}"#, r#""secret""#, r#"{"id":"1","a":"secret" "b"}"#, "secret"] {
        let error = Row::parse(line, Shape::Pairs).expect_err("a malformed line");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn files() {
    let lines = b"{\"id\":\"1\",\"text\":\"x\"}\n\n  \n{\"id\":\"2\",\"text\":\"y\"}\r\n{\"id\":\"3\",\"text\":\"z\"}";
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(lines).expect("memory takes it");
    let gz = gz.finish().expect("memory takes it");
    let zst = zstd::encode_all(&lines[..], 1).expect("memory takes it");
    for (name, bytes) in [("rows.jsonl", &lines[..]), ("rows.jsonl.gz", &gz), ("rows.jsonl.zst", &zst)] {
        let (_folder, path) = write(name, bytes);
        let ids = |limit| -> Vec<Value> {
            read(&path, Shape::Stream, limit).expect("a dataset").into_iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(None), ["1", "2", "3"], "{name}");
        assert_eq!(ids(Some(2)), ["1", "2"], "{name}");
    }
}

#[test]
fn files_that_are_no_dataset() {
    fn check(name: &str, bytes: &[u8], expected: &str) {
        let (_folder, path) = write(name, bytes);
        let error = read(&path, Shape::Stream, None).expect_err("no dataset").to_string();
        let said = error.strip_prefix(&path.display().to_string()).expect("names the file");
        assert!(said.starts_with(expected), "{error}");
    }
    check("a.jsonl", b"\n{\"id\":\"1\",\"text\":\"x\"}\n{\"id\":\"2\"}\n", ": line 3: field \"text\" is missing");
    check("a.jsonl", b"{\"id\":\"1\",\"text\":\"\xff\"}", ": line 1: cannot be read");
    check("a.jsonl.gz", b"{\"id\":\"1\",\"text\":\"x\"}", ": line 1: cannot be read");
    check("a.jsonl", b" \n\n", ": there are no rows");
    let missing = read(Path::new("/nowhere/a.jsonl"), Shape::Stream, None).expect_err("no file");
    assert!(missing.to_string().starts_with("/nowhere/a.jsonl: "), "{missing}");
}

fn arrival(class: Option<&str>) -> Row {
    let content = Content::Arrival { text: String::new(), context: None, class: class.map(Into::into) };
    Row { id: json!(0), kind: None, content }
}

fn pair(label: Option<bool>) -> Row {
    Row { id: json!(0), kind: None, content: Content::Pair { a: String::new(), b: String::new(), label } }
}

#[test]
fn truth() {
    let (c, d, unknown) = (arrival(Some("c")), arrival(Some("d")), arrival(None));
    assert_eq!(c.is_right(Some(&c)), Some(true));
    assert_eq!(c.is_right(Some(&d)), Some(false));
    assert_eq!(c.is_right(Some(&unknown)), None);
    assert_eq!(unknown.is_right(Some(&c)), None);
    assert_eq!(c.is_right(None), None);
    assert_eq!(pair(Some(true)).is_right(None), Some(true));
    assert_eq!(pair(None).is_right(Some(&pair(None))), None);
}

#[test]
fn balances() {
    fn check(rows: &[Row], positives: usize, negatives: usize) {
        assert_eq!(Balance::of(rows), Balance { positives, negatives });
    }
    check(&[arrival(Some("c")), arrival(None), arrival(Some("c")), arrival(Some("d")), arrival(Some("c"))], 2, 2);
    check(&[pair(Some(true)), pair(Some(false)), pair(None)], 1, 1);
    check(&[pair(None), arrival(None)], 0, 0);
    assert!(!Balance::of(&[pair(None)]).is_known());
}
