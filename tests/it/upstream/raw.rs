//! A provider below HTTP: it takes a request, then writes what it is told to, to the byte, and watches its socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The provider. It serves as long as the test's runtime runs.
pub struct Raw {
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
    abandoned: AtomicUsize,
}

/// What it does once a request is there; after the last it closes the connection.
#[derive(Clone, Copy)]
pub enum Act {
    Send(&'static str),
    /// Says nothing until the other side is gone.
    Watch,
}

impl Raw {
    pub async fn start(acts: &'static [Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound listener").port();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream, acts, Arc::clone(&shared)));
            }
        });
        Self { port, counts }
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Connections that the other side left.
    pub fn abandoned(&self) -> usize {
        self.counts.abandoned.load(Ordering::SeqCst)
    }
}

async fn play(mut stream: TcpStream, acts: &'static [Act], counts: Arc<Counts>) {
    if read_request(&mut stream).await.is_none() {
        return;
    }
    counts.requests.fetch_add(1, Ordering::SeqCst);
    for act in acts {
        match act {
            Act::Send(bytes) => stream.write_all(bytes.as_bytes()).await.expect("a reader"),
            Act::Watch => {
                let mut byte = [0];
                // The end, or a reset.
                assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)), "a second request came");
                counts.abandoned.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// One request with its body, as far as `content-length` says; `None` where the other side leaves first.
pub(super) async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end].lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
            if bytes.len() >= end + 4 + length {
                return Some(bytes);
            }
        }
    }
}
