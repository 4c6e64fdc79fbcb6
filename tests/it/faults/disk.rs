//! A disk that is full, and one that cannot be written to.
//!
//! Reading goes on, writing is refused in so many words, and what was acknowledged stays. Filling a disk takes a small
//! one of its own (`mount`, as root); elsewhere a limit on the size of files has to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ledger::Key;
use super::program::{Caller, Program, Server};
use super::traffic::Writer;
use super::{Counts, Ran};

/// A mounted folder. Dropped, it is unmounted.
struct Mount(PathBuf);

impl Mount {
    fn new(args: &[&str], at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        quiet(Command::new("mount").args(args).arg(at)).then(|| Self(at.to_owned()))
    }

    fn again(&self, options: &str) -> bool {
        quiet(Command::new("mount").args(["-o", options]).arg(&self.0))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A server that is not quite gone still holds it: then it goes a moment later.
        quiet(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// What limits the space, and how to lift it.
enum Space {
    Disk(Mount),
    FileSize,
}

impl Space {
    /// Makes room; whether a server that is running has it at once.
    fn lift(&self, server: Option<&Server>) -> bool {
        match (self, server) {
            (Self::Disk(mount), _) => mount.again("remount,size=64m"),
            (Self::FileSize, Some(server)) => {
                quiet(Command::new("prlimit").args([&format!("--pid={}", server.id()), "--fsize=unlimited"]))
            }
            (Self::FileSize, None) => false,
        }
    }
}

/// Fills the disk, reads, restarts on the full disk, and writes again once there is space.
pub async fn full(seed: u64) -> Ran {
    let mut program = Program::new();
    let mount = Mount::new(&["-t", "tmpfs", "-o", &format!("size={DISK_KIB}k"), "none"], &program.data);
    let space = match mount {
        Some(mount) => Space::Disk(mount),
        None => {
            // Without the trap the first write over the limit would end the process.
            let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", FILE_KIB * 2);
            program = program.wrapped(&["sh", "-c", &script]);
            Space::FileSize
        }
    };
    let mut counts = Counts { faults: 1, ..Counts::default() };
    let mut writer = Writer::new("disk", seed);
    writer.ledger.bytes_least = ANSWER_BYTES;

    let mut server = start(&program, &mut counts).await;
    if let Some(server) = &server {
        fill(server, &mut writer, &mut counts).await;
    }
    if matches!(space, Space::FileSize) && counts.failed_starts == 0 && counts.broken == 0 && writer.refused == 0 {
        return Ran::Skipped("a small disk can be made by root only (mount), and no file grew to the limit".into());
    }
    counts.promise(writer.refused > 0, "no insert was refused while the disk filled up");
    check(&mut server, &mut writer, &mut counts).await;
    drop(server);

    // The disk is as full as it was.
    let mut server = start(&program, &mut counts).await;
    check(&mut server, &mut writer, &mut counts).await;

    let live = space.lift(server.as_ref());
    program.unwrapped();
    let mut accepted = false;
    if let (Some(server), true) = (&server, live) {
        accepted = insert(&mut writer, &server.data_plane, NUMBER_AFTER, &mut counts).await;
    }
    if !accepted {
        drop(server);
        server = start(&program, &mut counts).await;
        if let Some(server) = &server {
            accepted = insert(&mut writer, &server.data_plane, NUMBER_AFTER, &mut counts).await;
        }
    }
    counts.promise(accepted, "inserts are refused although there is space again, and after a restart");
    check(&mut server, &mut writer, &mut counts).await;
    drop(server);
    let mut server = start(&program, &mut counts).await;
    check(&mut server, &mut writer, &mut counts).await;
    drop(server);
    counts.add(writer.counts);
    // Before the folder that it is mounted on.
    drop(space);
    Ran::Counted(counts)
}

/// Inserts until it is refused, and some more.
async fn fill(server: &Server, writer: &mut Writer, counts: &mut Counts) {
    for number in 0..INSERTS_MAX {
        if !insert(writer, &server.data_plane, number, counts).await {
            break;
        }
    }
    for number in INSERTS_MAX..INSERTS_MAX + 20 {
        if counts.broken == 0 {
            insert(writer, &server.data_plane, number, counts).await;
        }
    }
}

/// Starts over a folder that cannot be written to, first an empty one, then one with entries.
pub async fn read_only(seed: u64) -> Ran {
    let program = Program::new();
    let mut writer = Writer::new("disk", seed);
    let mut counts = Counts::default();
    for with_entries in [false, true] {
        if with_entries {
            let Ok(server) = program.start().await else { return Ran::Skipped("no server at all".into()) };
            for number in 0..20 {
                insert(&mut writer, &server.data_plane, number, &mut counts).await;
            }
            server.stop().await;
        }
        let data = program.data.to_str().expect("UTF-8").to_owned();
        let Some(mount) = Mount::new(&["--bind", &data], &program.data) else {
            return Ran::Skipped("a folder can be made read-only by root only (mount --bind)".into());
        };
        if !mount.again("remount,ro,bind") {
            return Ran::Skipped("a mounted folder cannot be made read-only here".into());
        }
        counts.faults += 1;
        let mut server = start(&program, &mut counts).await;
        if let Some(server) = &server {
            let ready = server.data_plane.get("/readyz").await.map(|(_, body)| body).unwrap_or_default();
            let says_so = ready["degraded"].as_array().is_some_and(|parts| !parts.is_empty());
            counts.promise(says_so, format!("/readyz does not say that it is degraded: {ready}"));
            // Into memory, or refused; either is an answer, and neither outlives the server.
            let ledger = writer.ledger.clone();
            for number in 100..110 {
                insert(&mut writer, &server.data_plane, number, &mut counts).await;
            }
            writer.ledger = ledger;
        }
        check(&mut server, &mut writer, &mut counts).await;
    }
    counts.add(writer.counts);
    Ran::Counted(counts)
}

async fn start(program: &Program, counts: &mut Counts) -> Option<Server> {
    program.start().await.map_err(|why| counts.failed_start(&why)).ok()
}

/// Whether it was accepted.
async fn insert(writer: &mut Writer, caller: &Caller, number: u32, counts: &mut Counts) -> bool {
    let before = (writer.refused, writer.counts.broken);
    let answered = writer.insert(caller, &Key::new("disk", number)).await.is_ok();
    counts.promise(answered, format!("insert {number} got no answer"));
    answered && (writer.refused, writer.counts.broken) == before
}

/// Asks for everything; a server that is gone is a crash.
async fn check(server: &mut Option<Server>, writer: &mut Writer, counts: &mut Counts) {
    let Some(running) = server else { return };
    writer.check_all(&running.data_plane).await;
    if let Some(why) = running.crash() {
        counts.crashes += 1;
        counts.note(format!("crash: {why}"));
        *server = None;
    }
}

/// Whether the command succeeds; what it says is nobody's business.
fn quiet(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

const DISK_KIB: usize = 6 * 1024;

/// Of the largest file, where that is all that can be limited.
const FILE_KIB: usize = 768;

const ANSWER_BYTES: usize = 40_000;

/// Several times what fits.
const INSERTS_MAX: u32 = 600;

/// The entry that is inserted once there is space again.
const NUMBER_AFTER: u32 = 1000;
