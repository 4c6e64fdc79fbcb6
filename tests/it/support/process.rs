//! The program as a process of its own, in a home folder of its own and with nothing of this process's environment.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tempfile::TempDir;

use super::http::Client;
use super::{PATIENCE, POLL, until};

/// A folder with a configuration file and a data folder in it. It outlives the processes that use it.
pub struct Home {
    folder: TempDir,
    files: AtomicUsize,
}

/// A process that came to its end.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A server that is serving. Dropped, it is killed.
pub struct Server {
    child: Child,
    pub url: String,
    pub admin_url: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// `config` is TOML beside what every test needs: sections other than `embed`, or a whole `embed`.
    pub fn with_config(config: &str) -> Self {
        let home = Self { folder: TempDir::new().expect("a temporary folder"), files: AtomicUsize::new(0) };
        home.configure(config);
        home
    }

    /// Writes another configuration in place of the one before; the path of its file.
    pub fn configure(&self, config: &str) -> String {
        let embed = if config.contains("[embed]") { "" } else { PATIENT };
        self.write("nearhit.toml", format!("{config}\n{embed}"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and gives its path as text for a command line.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file");
        text(&path)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// `nearhit` with these arguments, and an environment of these variables only.
    pub fn command(&self, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearhit"));
        command.args(args).env_clear().env("HOME", self.folder.path()).stdin(Stdio::null());
        command.env("XDG_DATA_HOME", self.data()).envs(variables.iter().copied());
        command
    }

    /// Runs `nearhit` to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Finished {
        let (stdout, stderr) = (self.next_file("stdout"), self.next_file("stderr"));
        let mut command = self.command(args, variables);
        command.stdout(create(&stdout)).stderr(create(&stderr));
        let mut child = command.spawn().expect("nearhit starts");
        let code = wait(&mut child, &format!("nearhit {args:?} ends"));
        Finished { code, stdout: read(&stdout), stderr: read(&stderr) }
    }

    /// The arguments that `serve` takes here, `more` last.
    pub fn serve_args(&self, more: &[&str]) -> Vec<String> {
        let (config, data) = (text(&self.path("nearhit.toml")), text(&self.data()));
        let fixed = ["serve", "--config", &config];
        let defaults = ["--data-dir", &data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        // A flag may be given once.
        let defaults = defaults.chunks(2).filter(|default| !more.contains(&default[0])).flatten();
        fixed.iter().chain(defaults).chain(more).map(ToString::to_string).collect()
    }

    /// Runs a `serve` that is expected not to start.
    pub fn serve_in_vain(&self, more: &[&str]) -> Finished {
        let args = self.serve_args(more);
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Makes a key with these scopes; the key.
    pub fn key(&self, tenant: &str, scopes: &str) -> String {
        self.key_with(&["--tenant", tenant, "--scopes", scopes])
    }

    /// Makes a key; the key.
    pub fn key_with(&self, more: &[&str]) -> String {
        let made = self.run(&[&["key", "create", "--data-dir", &text(&self.data())], more].concat());
        made.check(0, &[]);
        made.stdout.trim().to_owned()
    }

    /// Revokes a key.
    pub fn revoke(&self, key: &str) {
        self.run(&["key", "revoke", key, "--data-dir", &text(&self.data())]).check(0, &[]);
    }

    /// Starts a server, and waits until it serves.
    pub async fn serve(&self, more: &[&str]) -> Server {
        self.serve_with(more, &[]).await
    }

    /// The same with these variables in its environment.
    pub async fn serve_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Server {
        let args = self.serve_args(more);
        self.started(self.command(&args.iter().map(String::as_str).collect::<Vec<_>>(), variables)).await
    }

    /// The same through a shell that sets limits first, on whatever follows.
    pub async fn serve_limited(&self, limits: &str, more: &[&str]) -> Server {
        let args = self.serve_args(more);
        let inner = self.command(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path()).stdin(Stdio::null());
        self.started(command).await
    }

    async fn started(&self, mut command: Command) -> Server {
        let (stdout, stderr) = (self.next_file("stdout"), self.next_file("log"));
        command.stdout(create(&stdout)).stderr(create(&stderr));
        let mut child = command.spawn().expect("nearhit starts");
        let (url, admin_url) = until("the server serves", async || {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                panic!("the server ended with {status}:\n{}", read(&stderr));
            }
            addresses(&read(&stderr))
        })
        .await;
        Server { child, url, admin_url, stdout, stderr }
    }

    fn next_file(&self, kind: &str) -> PathBuf {
        self.path(&format!("{}.{kind}", self.files.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Finished {
    /// Asserts how it ended, and that stderr names all of `words`.
    pub fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }
}

impl Server {
    /// A client that calls with this key; without one where it is empty.
    pub fn client(&self, key: &str) -> Client {
        Client::new(&self.url, key)
    }

    pub fn admin(&self) -> Client {
        Client::new(&self.admin_url, "")
    }

    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub fn log(&self) -> String {
        read(&self.stderr)
    }

    /// Its resident memory in bytes, as far as this machine tells.
    pub fn rss_bytes(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().expect("a number") << 10)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Asserts that it still runs and never panicked.
    pub fn check_alive(&mut self) {
        assert!(self.is_running(), "the server is gone:\n{}", self.log());
        assert!(!self.log().contains("panicked"), "the server panicked:\n{}", self.log());
    }

    /// Kills it as a power cut would: nothing is flushed, nobody is told.
    pub fn kill(mut self) {
        self.child.kill().expect("a running server");
        self.child.wait().expect("a child of ours");
    }

    /// Asks it to stop, and goes on at once.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Asks it to read its configuration again, and goes on at once.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill(1)").success());
    }

    /// Its exit code, once it has ended.
    pub async fn ended(mut self) -> Option<i32> {
        let child = &mut self.child;
        until("the server ends", async || child.try_wait().expect("a child of ours")).await.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.is_running() {
            self.child.kill().expect("a running server");
            self.child.wait().expect("a child of ours");
        }
        if std::thread::panicking() {
            // Its home may be gone already, and a second panic would hide the first.
            let log = std::fs::read(&self.stderr).unwrap_or_default();
            eprintln!("--- the server's log\n{}", String::from_utf8_lossy(&log));
        }
    }
}

/// The child's exit code; past the deadline it is killed, and the test fails.
fn wait(child: &mut Child, what: &str) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().expect("a running child");
            panic!("waited {PATIENCE:?} in vain: {what}");
        }
        std::thread::sleep(POLL);
    }
}

/// The two URLs in what a server prints once it serves.
fn addresses(log: &str) -> Option<(String, String)> {
    let line = log.lines().find_map(|line| line.strip_prefix("nearhit serves on "))?;
    let (data, rest) = line.split_once(" (admin: ")?;
    let (admin, _) = rest.split_once(", data: ")?;
    Some((data.to_owned(), admin.to_owned()))
}

fn create(path: &Path) -> File {
    File::create(path).expect("a file in the home folder")
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("a file in the home folder");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(path: &Path) -> String {
    path.to_str().expect("a temporary path is UTF-8").to_owned()
}

/// A busy machine must not turn a hit into a miss: what happens at the deadline is tested where it is decided.
const PATIENT: &str = "[embed]\nproxy_patience_ms = 60000\napi_patience_ms = 60000\n";
