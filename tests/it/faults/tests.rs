//! Every fault at the size that every commit can afford.

use super::damage::{Damage, run as damage};
use super::ledger::Key;
use super::program::{Program, copy_folder};
use super::traffic::Writer;
use super::{Counts, DAMAGE, Loss, Ran, disk, kill, sync, trace};

#[track_caller]
fn check(ran: Ran, may_lose: Loss) {
    let counts = match ran {
        Ran::Counted(counts) => counts,
        // Mounting and tracing are not everybody's to do.
        Ran::Skipped(reason) => return crate::support::say_skipped(&reason),
    };
    let violations = counts.violations(may_lose);
    assert!(counts.faults > 0 && violations.is_empty(), "{violations:#?}\n{counts:#?}");
}

#[tokio::test]
async fn kills_lose_nothing() {
    check(kill::run(100, 1).await, Loss::None);
}

#[tokio::test]
async fn more_kills_lose_nothing() {
    check(kill::run(100, 2).await, Loss::None);
}

#[tokio::test]
async fn flipped_bits_are_survived() {
    check(damage(Damage::Flip, 200, 3).await, DAMAGE);
}

#[tokio::test]
async fn cut_files_are_survived() {
    check(damage(Damage::Truncation, 200, 4).await, DAMAGE);
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    check(disk::full(5).await, Loss::None);
}

#[tokio::test]
async fn a_read_only_folder_is_survived() {
    check(disk::read_only(6).await, Loss::None);
}

#[tokio::test]
async fn an_insert_is_acknowledged_after_a_sync() {
    check(trace::run(7).await, Loss::None);
}

#[tokio::test]
async fn a_sync_that_fails_is_no_acknowledgement() {
    check(sync::run(9).await, Loss::None);
}

/// A data folder that is secretly set back forgets what was acknowledged since: the harness must see all of it.
#[tokio::test]
async fn a_store_that_forgets_is_caught() {
    let program = Program::new();
    let server = program.start().await.expect("a new folder is no trouble");
    let mut writer = Writer::new("set-back", 8);
    let key = |number| Key::new("set-back", number);
    let keys: Vec<Key> = (0..4).map(key).collect();
    writer.insert_all(&server.data_plane, &keys).await.expect("an answer");
    server.stop().await;
    let earlier = program.path("earlier");
    copy_folder(&program.data, &earlier);

    let server = program.start().await.expect("a whole folder is no trouble");
    writer.insert(&server.data_plane, &key(0)).await.expect("an answer");
    writer.delete(&server.data_plane, &key(1)).await.expect("an answer");
    writer.insert(&server.data_plane, &key(7)).await.expect("an answer");
    writer.check_all(&server.data_plane).await;
    server.stop().await;
    assert_eq!(writer.counts.violations(Loss::None), [""; 0], "{:?}", writer.counts.notes);

    std::fs::remove_dir_all(&program.data).expect("a folder");
    copy_folder(&earlier, &program.data);
    let server = program.start().await.expect("a whole folder is no trouble");
    let keys = [key(0), key(1), key(2), key(3), key(7)];
    writer.ledger.check(&server.data_plane, &keys, &[], &mut writer.counts).await;
    assert_eq!((writer.counts.lost, writer.counts.wrong), (1, 2), "{:?}", writer.counts.notes);
}

#[test]
fn every_count_is_held_to_its_limit() {
    let check = |counts: Counts, may_lose: Loss, expected: usize| {
        assert_eq!(counts.violations(may_lose).len(), expected, "{counts:?}");
    };
    check(Counts { checked: 1000, lost: 1, ..Counts::default() }, DAMAGE, 0);
    check(Counts { checked: 1000, lost: 2, ..Counts::default() }, DAMAGE, 1);
    check(Counts { checked: 1000, lost: 1, ..Counts::default() }, Loss::None, 1);
    check(Counts { unreported: 1, wrong: 1, failed_starts: 1, ..Counts::default() }, DAMAGE, 3);
    check(Counts { crashes: 1, broken: 1, ..Counts::default() }, DAMAGE, 2);
}
