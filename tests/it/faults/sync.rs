//! A disk whose sync fails: nothing is acknowledged from then on, and what was is there.
//!
//! strace makes the kernel's answer up; the program cannot tell it from a disk that is dying.

use super::ledger::Key;
use super::program::Program;
use super::trace::{ABSENT, is_there};
use super::traffic::Writer;
use super::{Counts, Ran};

/// Lets every sync from a certain one on fail, restarts on a disk that is well, and writes again.
pub async fn run(seed: u64) -> Ran {
    if !is_there() {
        return Ran::Skipped(ABSENT.into());
    }
    let mut counts = Counts::default();
    for first in FIRST_FAILURES {
        let mut writer = Writer::new(&format!("sync-{first}"), seed);
        fail(first, &mut writer, &mut counts).await;
        counts.faults += 1;
        counts.add(writer.counts);
    }
    Ran::Counted(counts)
}

async fn fail(first: u32, writer: &mut Writer, counts: &mut Counts) {
    let inject = format!("inject=fdatasync:error=EIO:when={first}+");
    // -D: the server is our child, as without strace.
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    let mut program = Program::new().wrapped(&strace);
    let key = |number| Key::new("sync", number);
    match program.start().await {
        Ok(server) => {
            // Some of them again: a write that fails must not cost what it was to replace.
            for number in (0..INSERTS).map(|number| number % REPLACED) {
                let answered = writer.insert(&server.data_plane, &key(number)).await.is_ok();
                counts.promise(answered, format!("insert {number} got no answer"));
            }
            counts.promise(
                writer.refused > 0,
                format!("no insert was refused although sync {first} and all later failed"),
            );
            // Reading goes on.
            writer.check_all(&server.data_plane).await;
            server.kill();
        }
        Err(why) => counts.failed_start(&why),
    }
    program.unwrapped();
    match program.start().await {
        Ok(server) => {
            writer.check_all(&server.data_plane).await;
            let refused = writer.refused;
            let answered = writer.insert(&server.data_plane, &key(INSERTS)).await.is_ok();
            counts
                .promise(answered && writer.refused == refused, "an insert is refused although the disk is well again");
            writer.check_all(&server.data_plane).await;
        }
        Err(why) => counts.failed_start(&why),
    }
}

/// More than there are syncs before the first failure.
const INSERTS: u32 = 40;

/// Different entries among the inserts.
const REPLACED: u32 = 6;

/// Past those of the start; of an insert's own syncs it is the one of either copy that fails first.
const FIRST_FAILURES: [u32; 8] = [20, 21, 60, 61, 62, 63, 64, 65];
