//! A provider on a real port: it records every call to the byte, and answers as it is told.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// The provider. It serves as long as the test's runtime runs.
#[derive(Clone)]
pub struct Upstream {
    address: SocketAddr,
    desk: Arc<Desk>,
}

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }
}

type Script = Box<dyn FnMut(&Call) -> Reply + Send>;

struct Desk {
    calls: Mutex<Vec<Call>>,
    script: Mutex<Script>,
}

impl Upstream {
    /// Answers every chat completion with the text `answer`, and streams it to whom asks for a stream.
    pub async fn saying(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::start(move |call| Reply::saying(&answer, call)).await
    }

    pub async fn start(script: impl FnMut(&Call) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let desk = Arc::new(Desk { calls: Mutex::default(), script: Mutex::new(Box::new(script)) });
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, desk }
    }

    /// From now on it answers like this.
    pub fn answer_with(&self, script: impl FnMut(&Call) -> Reply + Send + 'static) {
        *self.desk.script.lock() = Box::new(script);
    }

    /// From now on it never says the same twice: `answer 1`, `answer 2`, …
    pub fn count_up(&self) {
        let mut count = 0;
        self.answer_with(move |call| {
            count += 1;
            Reply::saying(&format!("answer {count}"), call)
        });
    }

    /// What an Anthropic client would be given.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What an OpenAI client would be given.
    pub fn base(&self) -> String {
        format!("{}/v1", self.origin())
    }

    /// How many calls came so far.
    pub fn count(&self) -> usize {
        self.desk.calls.lock().len()
    }

    pub fn last(&self) -> Call {
        self.desk.calls.lock().last().cloned().expect("a call upstream")
    }
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call { method: parts.method.to_string(), target: parts.uri.to_string(), headers: parts.headers, body };
    let Reply { response, wait } = (desk.script.lock())(&call);
    desk.calls.lock().push(call);
    if let Some(wait) = wait {
        wait.await;
    }
    response
}

/// What the provider answers.
pub struct Reply {
    response: Response<Body>,
    wait: Option<BoxFuture<'static, ()>>,
}

impl Reply {
    pub fn new(status: u16, media: &str, body: impl Into<Body>) -> Self {
        let response = Response::builder().status(status).header("content-type", media).body(body.into());
        Self { response: response.expect("a status and a media type"), wait: None }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// A completion with this text, as a stream where the call asks for one; a whole message to a call of Anthropic's.
    pub fn saying(text: &str, call: &Call) -> Self {
        let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let model = request["model"].as_str().unwrap_or("m");
        if call.target == "/v1/messages" {
            return Self::json(200, &message_with(text, model));
        }
        if request["stream"] == true {
            Self::events(event_stream(&chunks(text, model)))
        } else {
            Self::json(200, &completion_with(text, model))
        }
    }

    /// A whole event stream.
    pub fn events(stream: impl Into<Body>) -> Self {
        Self::new(200, "text/event-stream", stream)
    }

    /// An event stream that the test writes piece by piece.
    pub fn live() -> (Self, Live) {
        let (sender, receiver) = mpsc::channel(16);
        let pieces = stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        (Self::events(Body::from_stream(pieces)), Live(sender))
    }

    /// Not even its head is sent before `wait` is over.
    pub fn after(self, wait: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { wait: Some(Box::pin(wait)), ..self }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.response.headers_mut().append(name, value.parse().expect("a header value"));
        self
    }
}

/// The writing end of a stream. Dropped, the stream ends.
pub struct Live(mpsc::Sender<Result<Bytes, &'static str>>);

impl Live {
    pub async fn send(&self, piece: &str) {
        self.0.send(Ok(Bytes::from(piece.to_owned()))).await.expect("a reader");
    }

    /// Breaks the connection off in the middle of the body.
    pub async fn cut(self) {
        self.0.send(Err("cut off on purpose")).await.expect("a reader");
    }

    /// Returns when nobody reads any more.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }
}

/// A chat completion of the model `m`.
pub fn completion(text: &str) -> Value {
    completion_with(text, "m")
}

pub fn completion_with(text: &str, model: &str) -> Value {
    json!({
        "id": "chatcmpl-upstream", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    })
}

/// A message of Anthropic's.
fn message_with(text: &str, model: &str) -> Value {
    json!({
        "id": "msg_upstream", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 5, "output_tokens": 7},
    })
}

/// The chunks of a streamed completion, a word each.
pub fn chunks(text: &str, model: &str) -> Vec<Value> {
    let chunk = |delta: Value, finish: Option<&str>| {
        json!({
            "id": "chatcmpl-upstream", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    chunks.extend(text.split_inclusive(' ').map(|word| chunk(json!({"content": word}), None)));
    chunks.push(chunk(json!({}), Some("stop")));
    chunks
}

/// The chunks as the bytes of a stream, `[DONE]` last.
pub fn event_stream(chunks: &[Value]) -> String {
    let events = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    events.chain(["data: [DONE]\n\n".to_owned()]).collect()
}
