//! The cache API over gRPC, with gRPC's own Python client, and with bytes that it would not send.

mod raw;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Home, Server, say_skipped, until, variable};

/// Why a search finds nothing where nothing is comparable: without an embedder nobody looks any further.
const NOTHING: &str = if cfg!(feature = "candle") { "empty" } else { "embedder_down" };

/// The script's command line for one phase.
fn script(python: &str, phase: &str, address: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/grpc_client.py"));
    command.args([phase, "--nothing", NOTHING, "--address", address]);
    command
}

fn address(server: &Server) -> String {
    server.url.trim_start_matches("http://").to_owned()
}

/// Runs a phase of the script, and asserts that everything it checked held; its report.
#[track_caller]
fn run(python: &str, phase: &str, address: &str, least: u64) -> serde_json::Value {
    let output = script(python, phase, address).stdin(Stdio::null()).output().expect("python starts");
    report(phase, output.status.success(), &output.stdout, &output.stderr, least)
}

#[track_caller]
fn report(phase: &str, held: bool, stdout: &[u8], stderr: &[u8], least: u64) -> serde_json::Value {
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    assert!(held, "phase {phase}: {stderr}{stdout}");
    let line = stdout.lines().last().unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(line).expect("the script's count");
    assert!(report["passed"].as_u64() >= Some(least), "phase {phase}: {report}");
    report
}

#[tokio::test]
async fn every_call_is_there() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    run(&python, "calls", &address(&server), 50);
    server.check_alive();
}

#[tokio::test]
async fn batches_are_streams() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    run(&python, "batches", &address(&server), 400);
    server.check_alive();
}

#[tokio::test]
async fn http_and_grpc_are_one_cache() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    run(&python, "both", &address(&server), 20);
    server.check_alive();
}

#[tokio::test]
async fn another_key_is_another_tenant() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    run(&python, "tenants", &address(&server), 20);
    server.check_alive();
}

#[tokio::test]
async fn whatever_is_wrong_has_its_code() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let home = Home::new();
    let mut server = home.serve(&["--upstream", "http://127.0.0.1:9/v1"]).await;
    let report = run(&python, "refusals", &address(&server), 300);
    println!("{} checks of refusals; calls by status: {}", report["passed"], report["codes"]);
    assert_eq!(server.client("").stats("default").await["entries"], 1, "something wrong was stored");
    server.check_alive();
}

#[tokio::test]
async fn from_another_machine_a_key_is_needed() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let Some(ip) = own_address() else {
        return say_skipped("this machine has no address but loopback");
    };
    let home = Home::new();
    let mut server = home.serve(&["--listen", "0.0.0.0:0", "--insecure"]).await;
    let port = address(&server).rsplit_once(':').expect("a port").1.to_owned();
    run(&python, "anonymous", &format!("{ip}:{port}"), 8);
    server.check_alive();
}

/// A server that is told to stop answers what comes on open streams, and ends when they end.
#[tokio::test]
async fn a_stopping_server_finishes_its_streams() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let home = Home::new();
    let server = home.serve(&[]).await;
    let mut command = script(&python, "stop", &address(&server));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().expect("python starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("text");
    if line.trim() == "open" {
        server.terminate();
        until("the server begins to stop", async || server.log().contains("stopping:").then_some(())).await;
        child.stdin.take().expect("a pipe").write_all(b"go on\n").expect("somebody reads");
    }
    let (mut printed, mut failed) = (Vec::new(), Vec::new());
    stdout.read_to_end(&mut printed).expect("what it prints");
    child.stderr.take().expect("a pipe").read_to_end(&mut failed).expect("what it says");
    let held = child.wait().expect("a child of ours").success();
    report("stop", held, &printed, &failed, 5);
    assert_eq!(server.ended().await, Some(0));

    let again = home.serve(&[]).await;
    for i in 0..3 {
        let found = again.client("").find(&format!("question {i}")).await;
        assert_eq!(found, ("exact".to_owned(), format!("answer {i}")));
    }
}

/// The address by which others would reach this machine. Nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
