//! Real questions in their order of arrival: what is served is an answer that was given, and mostly the right one.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, Home, variable};

/// The first questions are answered with their class, the others are asked.
const ANSWERED: usize = 300;
const ASKED: usize = 300;

struct Question {
    text: String,
    class: String,
}

fn questions(folder: &str) -> Vec<Question> {
    let path = Path::new(folder).join("streams/stream_support.jsonl.gz");
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines().take(ANSWERED + ASKED);
    let text = |row: &Value, field: &str| row[field].as_str().expect("a text").to_owned();
    let question = |line: String| {
        let row: Value = serde_json::from_str(&line).expect("a row");
        Question { text: text(&row, "text"), class: text(&row, "class") }
    };
    lines.map(|line| question(line.expect("a line"))).collect()
}

async fn batch(client: &Client, path: &str, field: &str, items: Vec<Value>) -> Vec<Value> {
    let path = format!("/v1/caches/default/entries/{path}");
    let answer = client.post(&path, &json!({ field: items })).await.check(200).json();
    answer["results"].as_array().expect("results").clone()
}

#[tokio::test]
async fn a_stream_of_questions_is_answered_by_its_own_past() {
    let Some(folder) = variable("NEARHIT_DATA") else { return };
    let questions = questions(&folder);
    let (answered, asked) = questions.split_at(ANSWERED);
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let entries = answered.iter().map(|q| json!({"prompt": q.text, "response": q.class})).collect();
    for result in batch(&client, "batch", "entries", entries).await {
        assert!(result["entryId"].is_string() && result.get("exactOnly").is_none(), "{result}");
    }

    let searches = asked.iter().map(|q| json!({"prompt": q.text})).collect();
    let results = batch(&client, "search/batch", "searches", searches).await;
    assert_eq!(results.len(), asked.len());
    let classes: HashSet<&str> = answered.iter().map(|question| question.class.as_str()).collect();
    let (mut hits, mut right) = (0, 0);
    for (question, result) in asked.iter().zip(&results) {
        match result["outcome"].as_str() {
            Some("hit") => {
                let served = result["data"][0]["response"].as_str().expect("a class");
                assert!(classes.contains(served), "{served} was never stored");
                hits += 1;
                right += usize::from(served == question.class);
            }
            Some("miss") => assert!(result["reason"].is_string(), "{result}"),
            _ => panic!("neither hit nor miss: {result}"),
        }
    }
    println!("{hits} hits in {ASKED}, {right} of them right");
    assert!(hits > 0 && right * 2 > hits, "{right} of {hits} hits were right");
    let stats = client.stats("default").await;
    let counted: u64 = stats["hits"].as_object().expect("hits").values().filter_map(Value::as_u64).sum();
    assert_eq!(counted, hits as u64);
}
