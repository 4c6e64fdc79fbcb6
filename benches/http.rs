//! A real server under one client: what a search costs over HTTP, and what it finds.
//!
//! `cargo bench --bench http -- FILE [LIMIT]` reads a stream of `{"text","class"}` lines (`.gz` too), stores the first
//! half with the class as the answer, searches for the other half, then searches again for what was stored. It prints
//! hits, right and wrong ones, and the latencies. Without a file, and under `cargo test`, a made-up stream is used.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::BodyExt;
use nearhit::body::Body;
use nearhit::upstream::{HttpClient, http_client};
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows = match arguments.first() {
        Some(file) => read(Path::new(file), arguments.get(1).and_then(|limit| limit.parse().ok())),
        None => made_up(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(&rows));
}

type Row = (String, String);

async fn measure(rows: &[Row]) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let (stored, asked) = rows.split_at(rows.len() / 2);

    let started = Instant::now();
    for batch in stored.chunks(200) {
        let entries: Vec<Value> =
            batch.iter().map(|(text, class)| json!({"prompt": text, "response": class})).collect();
        let answer = server.post("entries/batch", &json!({ "entries": entries })).await;
        assert!(answer["results"].as_array().is_some_and(|results| results.iter().all(|r| r["entryId"].is_string())));
    }
    println!("stored   {} entries in {:.1} s", stored.len(), started.elapsed().as_secs_f64());

    let (mut right, mut wrong, mut took) = (0, 0, Vec::new());
    for (text, class) in asked {
        let started = Instant::now();
        let answer = server.post("entries/search", &json!({ "prompt": text })).await;
        took.push(started.elapsed());
        match answer["data"][0]["response"].as_str() {
            Some(served) if served == class => right += 1,
            Some(_) => wrong += 1,
            None => {}
        }
    }
    println!(
        "semantic {} searches: {} hits, {right} right, {wrong} wrong; {}",
        asked.len(),
        right + wrong,
        quantiles(&mut took)
    );

    let mut took = Vec::new();
    for (text, _) in stored {
        let started = Instant::now();
        let answer = server.post("entries/search", &json!({ "prompt": text })).await;
        took.push(started.elapsed());
        assert_eq!(answer["tier"], "exact", "what was stored is found exactly");
    }
    println!("exact    {} searches: {}; server {}", stored.len(), quantiles(&mut took), server.memory());
}

fn quantiles(took: &mut [Duration]) -> String {
    took.sort();
    let at =
        |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default().as_secs_f64() * 1e3;
    format!("p50 {:.3} ms, p99 {:.3} ms", at(0.50), at(0.99))
}

struct Server {
    process: Child,
    client: HttpClient,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_nearhit"))
            .args(["--log", "warn", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let line = lines.next().expect("a line").expect("text");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("an address").to_owned();
        let client = http_client(Duration::from_secs(5)).expect("a client");
        Self { process, client, url: format!("{url}/v1/caches/bench") }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = Request::builder().method(Method::POST).uri(format!("{}/{path}", self.url));
        let request =
            request.header("content-type", "application/json").body(Body::from(body.to_string())).expect("a request");
        let response = self.client.request(request).await.expect("an answer");
        assert!(response.status().is_success(), "{}", response.status());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// The server's resident memory.
    fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap_or("VmRSS: unknown")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("the server is still there");
        self.process.wait().expect("the server ends");
    }
}

fn read(file: &Path, limit: Option<usize>) -> Vec<Row> {
    let bytes = std::fs::File::open(file).expect("the file");
    let reader: Box<dyn Read> = match file.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::GzDecoder::new(bytes)),
        _ => Box::new(bytes),
    };
    let rows = BufReader::new(reader).lines().map(|line| {
        let row: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let field = |name: &str| row[name].as_str().expect("a string").to_owned();
        (field("text"), field("class"))
    });
    rows.take(limit.unwrap_or(usize::MAX)).collect()
}

/// Few questions, each in two wordings.
fn made_up() -> Vec<Row> {
    let things = ["password", "invoice", "delivery address", "subscription", "phone number", "refund"];
    let ask =
        |how: &str| things.iter().map(|thing| (format!("{how} my {thing}?"), thing.to_string())).collect::<Vec<_>>();
    [ask("How do I change"), ask("How can I change")].concat()
}
