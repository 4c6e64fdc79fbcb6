//! A provider that answers every call with the bytes that the test last gave it, then closes the connection: at once, or
//! when the client has what came before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::raw::read_request;
use crate::support::{Client, Home, Server, completion};

/// The provider, and nearhit in front of it.
pub struct Scripted {
    script: Arc<Script>,
    pub server: Server,
    pub client: Client,
    _home: Home,
}

#[derive(Default)]
struct Script {
    answer: Mutex<Vec<u8>>,
    /// What comes once the client has the answer so far, if anything waits for that.
    rest: Mutex<Option<Vec<u8>>>,
    release: Notify,
    /// Whether the connection ends with a reset.
    resets: AtomicBool,
    calls: AtomicUsize,
}

/// What a client got, as far as it came.
pub struct Got {
    pub status: u16,
    headers: http::HeaderMap,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Scripted {
    pub async fn start(config: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("a bound listener"));
        let script = Arc::new(Script::default());
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        let home = Home::with_config(config);
        let base = format!("{origin}/v1");
        let server = home.serve(&["--upstream", &base, "--anthropic-upstream", &origin]).await;
        let client = server.client("sk-test").with("content-type", "application/json");
        Self { script, server, client, _home: home }
    }

    /// From now on these bytes are the answer.
    pub fn say(&self, bytes: impl Into<Vec<u8>>) {
        *self.script.answer.lock() = bytes.into();
        *self.script.rest.lock() = None;
    }

    /// From now on these bytes are the answer; `rest` comes when [`Self::call_until`] has read enough.
    pub fn say_in_two(&self, bytes: impl Into<Vec<u8>>, rest: impl Into<Vec<u8>>) {
        *self.script.answer.lock() = bytes.into();
        *self.script.rest.lock() = Some(rest.into());
    }

    /// From now on connections end with a reset, or without one.
    pub fn reset(&self, resets: bool) {
        self.script.resets.store(resets, Ordering::SeqCst);
    }

    /// Lets the upstream go on.
    pub fn release(&self) {
        self.script.release.notify_one();
    }

    /// How many calls came.
    pub fn calls(&self) -> usize {
        self.script.calls.load(Ordering::SeqCst)
    }

    /// Calls, and reads what comes, whether it ends well or not.
    pub async fn call(&self, path: &str, asked: &Value) -> Got {
        self.call_until(path, asked, usize::MAX).await
    }

    /// The same; lets the upstream go on when so many bytes of the body are there.
    pub async fn call_until(&self, path: &str, asked: &Value, enough: usize) -> Got {
        let response = self.client.open(Method::POST, path, asked.to_string()).await;
        self.read(response, enough).await
    }

    /// Opens so many calls at a time, and lets the upstream go on when each has its head.
    pub async fn call_together(&self, path: &str, asked: &Value, calls: usize) -> Vec<Got> {
        let opened = join_all((0..calls).map(|_| self.client.open(Method::POST, path, asked.to_string()))).await;
        self.release();
        join_all(opened.into_iter().map(|response| self.read(response, usize::MAX))).await
    }

    async fn read(&self, response: http::Response<axum::body::Body>, enough: usize) -> Got {
        let (parts, mut body) = response.into_parts();
        let (mut bytes, mut whole, mut waits) = (Vec::new(), true, true);
        loop {
            if waits && bytes.len() >= enough {
                self.release();
                waits = false;
            }
            match body.frame().await {
                Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) => {
                    whole = false;
                    break;
                }
                None => break,
            }
        }
        Got { status: parts.status.as_u16(), headers: parts.headers, body: bytes, whole }
    }

    /// How many entries the default cache holds, once every call so far is dealt with.
    pub async fn entries(&self) -> Value {
        self.client.stats("default").await["entries"].clone()
    }

    /// Ends a test: a good answer still gets through and is kept, beside `kept` others, and nothing panicked.
    pub async fn check_unharmed(mut self, kept: u64) {
        self.say(framed("application/json", completion("Good again.").to_string().as_bytes()));
        let asked = super::ask("Is all well?");
        let got = self.call("/v1/chat/completions", &asked).await;
        assert_eq!((got.status, got.whole), (200, true));
        self.client.wait_for_entries(kept + 1).await;
        self.server.check_alive();
    }
}

/// A 200 whose body has its length.
pub fn framed(media: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

async fn answer(mut stream: TcpStream, script: Arc<Script>) {
    if read_request(&mut stream).await.is_none() {
        return;
    }
    script.calls.fetch_add(1, Ordering::SeqCst);
    let bytes = script.answer.lock().clone();
    let rest = script.rest.lock().clone();
    // Whoever does not like the beginning need not read the rest.
    if stream.write_all(&bytes).await.is_err() {
        return;
    }
    if let Some(rest) = rest {
        script.release.notified().await;
        if stream.write_all(&rest).await.is_err() {
            return;
        }
    }
    if script.resets.load(Ordering::SeqCst) {
        // Nothing is lost by it here: what was written is at the other end.
        stream.set_zero_linger().expect("a socket");
        return;
    }
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut after = [0; 64];
    while stream.read(&mut after).await.is_ok_and(|read| read > 0) {}
}
