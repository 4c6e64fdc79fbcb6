//! What the kernel saw: before the bytes of an acknowledgement are written, a sync of the disk has returned.
//!
//! A kill cannot tell a synced write from one in the page cache, so this is read from strace.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use super::ledger::Key;
use super::program::Program;
use super::traffic::Writer;
use super::{Counts, Ran};

/// Inserts one by one under strace, with each durability that promises a sync.
pub async fn run(seed: u64) -> Ran {
    if !is_there() {
        return Ran::Skipped(ABSENT.into());
    }
    let mut counts = Counts::default();
    for durability in ["group", "each"] {
        let program = Program::with_durability(durability);
        let trace = program.path("trace").to_str().expect("UTF-8").to_owned();
        // -D: the server is our child, as without strace.
        let strace = ["strace", "-D", "-f", "-qq", "-s", "64", "-o", &trace, "-e", CALLS];
        let program = program.wrapped(&strace);
        let server = match program.start().await {
            Ok(server) => server,
            Err(why) => {
                counts.failed_start(&why);
                continue;
            }
        };
        let mut writer = Writer::new("traced", seed);
        for number in 0..INSERTS {
            let answered = writer.insert(&server.data_plane, &Key::new("traced", number)).await.is_ok();
            counts.promise(answered, format!("insert {number} got no answer"));
        }
        let process = server.id();
        server.kill();
        let trace = whole(&program.path("trace"), process).await;
        let (acknowledged, unsynced) = read(&trace);
        counts.faults += acknowledged;
        counts.broken += unsynced;
        if unsynced > 0 {
            counts.note(format!(
                "broken promise: {unsynced} of {acknowledged} were acknowledged before a sync ({durability})"
            ));
        }
        // A write that is cut off and made again stands there twice.
        let seen = acknowledged >= u64::from(INSERTS);
        counts.promise(seen, format!("only {acknowledged} acknowledgements in the trace ({durability})"));
        counts.add(writer.counts);
    }
    Ran::Counted(counts)
}

/// Whether strace can be used here.
pub(super) fn is_there() -> bool {
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    traced.is_ok_and(|output| output.status.success())
}

pub(super) const ABSENT: &str = "there is no strace here, or it may not trace";

/// The trace, once strace has written that the process is gone.
async fn whole(path: &std::path::Path, process: u32) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let end = format!("{process} +++ killed by SIGKILL");
        let ended = text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(&end));
        if ended || Instant::now() > deadline {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Acknowledged inserts in the trace, and how many of them no sync preceded that began after the request was read.
fn read(trace: &str) -> (u64, u64) {
    let (mut acknowledged, mut unsynced) = (0, 0);
    let mut requested = 0;
    let mut synced_since: Option<usize> = None;
    let mut begun: HashMap<&str, usize> = HashMap::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((process, call)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        let resumed = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let name = resumed.map_or_else(|| call.split('(').next().unwrap_or_default(), |(name, _)| name);
        let is_sync = match name {
            "fsync" | "fdatasync" => true,
            "msync" => call.contains("MS_SYNC") || resumed.is_some(),
            _ => false,
        };
        if is_sync && call.ends_with("<unfinished ...>") {
            begun.insert(process, at);
        } else if is_sync && call.ends_with("= 0") {
            let began = if resumed.is_some() { begun.remove(process).unwrap_or(0) } else { at };
            synced_since = synced_since.max(Some(began));
        } else if call.contains("\"POST /v1/caches/") {
            requested = at;
        } else if resumed.is_none() && call.contains("\"HTTP/1.1 201") {
            acknowledged += 1;
            unsynced += u64::from(synced_since.is_none_or(|began| began < requested));
        }
    }
    (acknowledged, unsynced)
}

const INSERTS: u32 = 20;

const CALLS: &str = "trace=fsync,fdatasync,msync,sync_file_range,read,recvfrom,recvmsg,write,writev,sendto,sendmsg";

#[test]
fn syncs_are_told_from_what_only_looks_like_one() {
    let check = |lines: &[&str], expected: (u64, u64)| assert_eq!(read(&lines.join("\n")), expected, "{lines:#?}");
    let post = "7 recvfrom(9, \"POST /v1/caches/c/entries HTTP/1.1\"..., 8192, 0, NULL, NULL) = 900";
    let created = "7 writev(9, [{iov_base=\"HTTP/1.1 201 Created\\r\\n\"..., iov_len=99}], 1) = 99";
    check(&[post, "8   fdatasync(5) = 0", created], (1, 0));
    check(&[post, "8 fsync(5 <unfinished ...>", "7 read(1) = 1", "8 <... fsync resumed>) = 0", created], (1, 0));
    check(&[post, created, "8 fdatasync(5) = 0"], (1, 1));
    check(&["8 fdatasync(5) = 0", post, created], (1, 1));
    check(&[post, "8 fdatasync(5) = -1 EIO (Input/output error)", created], (1, 1));
    check(&[post, "8 sync_file_range(5, 0, 0, 7) = 0", created], (1, 1));
    check(&[post, "8 fdatasync(5 <unfinished ...>", created, "8 <... fdatasync resumed>) = 0"], (1, 1));
    check(&["8 fdatasync(5 <unfinished ...>", post, "8 <... fdatasync resumed>) = 0", created], (1, 1));
}
