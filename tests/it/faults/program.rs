//! `nearhit serve` as a process that may fail: no call panics here, whatever becomes of the server is a value.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How to start a server over one data folder.
pub(super) struct Program {
    home: TempDir,
    pub(super) data: PathBuf,
    starts: AtomicUsize,
    /// A command and its arguments, in front of the program's own.
    wrapper: Vec<String>,
}

/// A process that was started. Dropped, it is killed.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

/// A server that said it is ready.
pub(super) struct Server {
    process: Process,
    pub(super) data_plane: Caller,
    pub(super) admin_plane: Caller,
}

/// Calls one listener.
#[derive(Clone)]
pub(super) struct Caller {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    url: String,
}

/// The call got no answer: the server is gone, or hangs.
#[derive(Debug)]
pub(super) struct Unanswered;

/// Status, and the body where it is JSON or text.
pub(super) type Answer = Result<(u16, Value), Unanswered>;

impl Program {
    pub(super) fn new() -> Self {
        Self::with_durability("group")
    }

    pub(super) fn with_durability(durability: &str) -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let config = format!(
            "[embed]\nmodel = \"external\"\ndimensions = {DIMENSIONS}\napi_patience_ms = 60000\n\
             [store]\ndurability = \"{durability}\"\n[serve]\ndrain_s = 1\n"
        );
        std::fs::write(home.path().join("nearhit.toml"), config).expect("a file");
        let data = home.path().join("data");
        Self { home, data, starts: AtomicUsize::new(0), wrapper: Vec::new() }
    }

    /// The same, started by another command.
    pub(super) fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    pub(super) fn unwrapped(&mut self) {
        self.wrapper.clear();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Starts the process, and goes on at once.
    pub(super) fn spawn(&self) -> Process {
        // In a test the program was built beside it; the example is the program itself when asked to serve.
        let program = match option_env!("CARGO_BIN_EXE_nearhit") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe().expect("the path of this program"),
        };
        let log = self.path(&format!("{}.log", self.starts.fetch_add(1, Ordering::Relaxed)));
        let mut words = self.wrapper.iter().map(PathBuf::from).chain([program]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).args(["--log", "warn", "serve", "--config"]).arg(self.path("nearhit.toml"));
        command.arg("--data-dir").arg(&self.data).args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.env_clear().env("HOME", self.home.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a file"));
        Process { child: command.spawn().expect("the program starts"), log }
    }

    /// Starts a server, and waits until it says that it is ready.
    pub(super) async fn start(&self) -> Result<Server, String> {
        let mut process = self.spawn();
        let deadline = Instant::now() + START_TIME;
        let mut callers = None;
        while Instant::now() < deadline {
            if callers.is_none() {
                callers = addresses(&process.log()).map(|(data, admin)| (Caller::new(&data), Caller::new(&admin)));
            }
            if let Some((data_plane, _)) = &callers
                && let Ok((200, _)) = data_plane.get("/readyz").await
                && let Some((data_plane, admin_plane)) = callers.take()
            {
                return Ok(Server { process, data_plane, admin_plane });
            }
            if let Some(status) = process.ended() {
                return Err(format!("{status}: {}", tail(&process.log())));
            }
            sleep(POLL).await;
        }
        Err(format!("not ready after {START_TIME:?}: {}", tail(&process.log())))
    }
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// SIGKILL. It may have ended by itself.
    pub(super) fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("a running process");
            self.child.wait().expect("a child of ours");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Why it is gone, if it is.
    pub(super) fn crash(&mut self) -> Option<String> {
        let status = self.process.ended()?;
        Some(format!("{status}: {}", tail(&self.process.log())))
    }

    pub(super) fn kill(mut self) {
        self.process.kill();
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(mut self) {
        let status = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        assert!(status.expect("kill(1)").success(), "a running server takes a signal");
        let deadline = Instant::now() + START_TIME;
        while self.process.ended().is_none() {
            assert!(Instant::now() < deadline, "a server that was asked to stop does");
            sleep(POLL).await;
        }
    }
}

impl Caller {
    fn new(url: &str) -> Self {
        Self { http: legacy::Client::builder(TokioExecutor::new()).build_http(), url: url.to_owned() }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, "", &Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, key, body).await
    }

    /// One call with this provider key; without one where it is empty.
    pub(super) async fn call(&self, method: Method, path: &str, key: &str, body: &Value) -> Answer {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = Request::new(Full::from(sent));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.url).parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert("content-type", "application/json".parse().expect("a value"));
        if !key.is_empty() {
            headers.insert("authorization", format!("Bearer {key}").parse().expect("a value"));
        }
        let answered = timeout(CALL_TIME, async {
            let (head, body) = self.http.request(request).await.map_err(|_| Unanswered)?.into_parts();
            let body = body.collect().await.map_err(|_| Unanswered)?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            Ok((head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|_| text())))
        });
        answered.await.unwrap_or(Err(Unanswered))
    }
}

/// The folder and everything in it, again.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for item in std::fs::read_dir(from).expect("a folder") {
        let path = item.expect("an item").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file to copy");
        }
    }
}

/// Every file below the folder, by path.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(folder).expect("a folder").map(|item| item.expect("an item").path());
    let mut found: Vec<PathBuf> =
        items.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

/// The two URLs in what a server prints once it serves.
fn addresses(log: &str) -> Option<(String, String)> {
    let line = log.lines().find_map(|line| line.strip_prefix("nearhit serves on "))?;
    let (data, rest) = line.split_once(" (admin: ")?;
    let (admin, _) = rest.split_once(", data: ")?;
    Some((data.to_owned(), admin.to_owned()))
}

/// The end of a log, on one line.
fn tail(log: &str) -> String {
    let text = log.trim_end().replace('\n', " | ");
    let skipped = text.chars().count().saturating_sub(300);
    text.chars().skip(skipped).collect()
}

/// Length of every vector. Of thousands of random ones this long, no two are near.
pub(super) const DIMENSIONS: usize = 32;

/// Longest wait for a server to be ready, or to end.
const START_TIME: Duration = Duration::from_secs(60);

/// Longest wait for an answer; past it the server hangs.
const CALL_TIME: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);
