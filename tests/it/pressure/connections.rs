//! F21: idle and slow connections.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ask, each, raise_file_limit, start};
use crate::support::{Client, Reply, Server, Upstream, until};

/// What a client sends and then leaves it at.
const BEGINNINGS: [&str; 5] = [
    "",
    "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "POST /v1/chat/completions HTTP/1.1\r\nhost: local",
    "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{\"model\": ",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("a connection")
}

async fn begin(server: &Server, beginning: &str) -> TcpStream {
    let mut stream = connect(server).await;
    stream.write_all(beginning.as_bytes()).await.expect("a reader");
    stream
}

/// Asks what nobody asked before, over connections of its own.
async fn is_served(server: &Server, question: &str) {
    let answer = Client::new(&server.url, "sk-test").chat(&ask(question)).await.check(200);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "Served.", "{question}");
}

/// Everything that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        // A reset is an end as well.
        Ok(_) | Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[tokio::test]
async fn thousands_that_do_nothing_harm_nobody() {
    const CONNECTIONS: usize = 2_000;
    raise_file_limit();
    let upstream = Upstream::saying("Served.").await;
    let (_home, mut server) = start(&upstream, "").await;
    is_served(&server, "Is anybody there?").await;
    let before = server.rss_bytes();
    let mut idle = Vec::new();
    for number in 0..CONNECTIONS {
        idle.push(begin(&server, BEGINNINGS[number % BEGINNINGS.len()]).await);
        if number % 20 == 0 {
            is_served(&server, &format!("Question {number}?")).await;
        }
    }
    let each = each(before, server.rss_bytes(), CONNECTIONS);
    println!("{CONNECTIONS} idle connections: {each:?} bytes each (goal: 20480)");
    assert!(each.is_none_or(|bytes| bytes <= 64 << 10), "{each:?}");
    for number in 0..50 {
        is_served(&server, &format!("And question {number}?")).await;
    }
    drop(idle);
    server.check_alive();
}

#[tokio::test]
async fn whoever_is_too_slow_has_to_go() {
    const EACH: usize = 40;
    raise_file_limit();
    let upstream = Upstream::saying("Served.").await;
    let (_home, mut server) = start(&upstream, "[serve]\nidle_timeout_s = 1.5\nbody_timeout_s = 1.5").await;
    let mut waiting = Vec::new();
    for beginning in BEGINNINGS {
        for _ in 0..EACH {
            let stream = begin(&server, beginning).await;
            waiting.push(tokio::spawn(async move { (beginning, rest(stream).await) }));
        }
    }
    // A byte now and then is no way to stay.
    for (beginning, more) in [(BEGINNINGS[2], "a"), (BEGINNINGS[3], " ")] {
        for _ in 0..EACH {
            let (mut reading, mut writing) = begin(&server, beginning).await.into_split();
            tokio::spawn(async move {
                while writing.write_all(more.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            waiting.push(tokio::spawn(async move {
                let mut bytes = Vec::new();
                match reading.read_to_end(&mut bytes).await {
                    Ok(_) | Err(_) => (beginning, String::from_utf8_lossy(&bytes).into_owned()),
                }
            }));
        }
    }
    let mut number = 0;
    let gone = until("all of them are sent away", async || {
        number += 1;
        is_served(&server, &format!("Question {number}?")).await;
        waiting.iter().all(tokio::task::JoinHandle::is_finished).then_some(waiting.len())
    })
    .await;
    let (mut told, mut served) = (0, 0);
    for ended in waiting {
        let (beginning, said) = ended.await.expect("no panic");
        told += usize::from(beginning == BEGINNINGS[3] && said.contains("408") && said.contains("body_timeout"));
        served += usize::from(beginning == BEGINNINGS[1] && said.contains("200 OK"));
    }
    assert_eq!(served, EACH);
    // One that goes on sending may be reset before it reads why.
    assert!(told >= EACH, "{told} were told why");
    println!("slow connections: {gone} sent away, {told} with 408; {number} calls meanwhile, all right");
    server.check_alive();
}

#[tokio::test]
async fn beyond_the_limit_the_idle_give_way() {
    const FLOOD: usize = 300;
    let upstream = Upstream::saying("Served.").await;
    let (_home, mut server) = start(&upstream, "[serve]\nconnections_max = 40").await;
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |call| reply.take().unwrap_or_else(|| Reply::saying("Served.", call)));
    let client = Client::new(&server.url, "sk-test").with("content-type", "application/json");
    let streaming = client.open(http::Method::POST, "/v1/chat/completions", ask("A stream?").to_string()).await;
    live.send("data: {}\n\n").await;
    let mut flood = Vec::new();
    for number in 0..FLOOD {
        let stream = begin(&server, BEGINNINGS[[0, 1, 2, 4][number % 4]]).await;
        flood.push(tokio::spawn(rest(stream)));
        if number % 10 == 0 {
            is_served(&server, &format!("Question {number}?")).await;
        }
    }
    let gone = until("those beyond the limit are gone", async || {
        let gone = flood.iter().filter(|task| task.is_finished()).count();
        (gone >= FLOOD - 40).then_some(gone)
    })
    .await;
    // Whoever has a call under way stays.
    live.send("data: [DONE]\n\n").await;
    drop(live);
    let body = http_body_util::BodyExt::collect(streaming.into_body()).await.expect("a whole stream").to_bytes();
    assert_eq!(body, "data: {}\n\ndata: [DONE]\n\n");
    println!("limit of 40 connections: {FLOOD} idle ones came, {gone} gave way, every call answered");
    server.check_alive();
}
