//! SIGKILL in the middle of mixed traffic, and in the middle of starting, over one data folder that grows old.

use std::time::Duration;

use tokio::time::sleep;

use super::program::{Program, Server};
use super::traffic::Writer;
use super::{Counts, Ran};

/// Kills a server `kills` times, and asks it for what it had acknowledged after each.
pub async fn run(kills: u64, seed: u64) -> Ran {
    let mut random = fastrand::Rng::with_seed(seed);
    let program = Program::new();
    let mut writers: Vec<Writer> =
        (0..WRITERS).map(|n| Writer::new(&format!("writer-{n}"), seed.wrapping_add(n))).collect();
    let mut counts = Counts::default();
    let mut running = start(&program, &mut counts).await;
    while counts.faults < kills {
        let Some(mut server) = running.take() else { break };
        let until_kill = Duration::from_micros(random.u64(0..TRAFFIC_US));
        let work = std::mem::take(&mut writers).into_iter().map(|mut writer| {
            let caller = server.data_plane.clone();
            tokio::spawn(async move {
                writer.work(&caller).await;
                writer
            })
        });
        let work: Vec<_> = work.collect();
        sleep(until_kill).await;
        if let Some(why) = server.crash() {
            counts.crashes += 1;
            counts.note(format!("crash: {why}"));
        }
        server.kill();
        counts.faults += 1;
        for writer in work {
            writers.push(writer.await.expect("a writer takes whatever comes"));
        }
        while counts.faults < kills && random.u32(0..100) < STARTUP_KILLS_PERCENT {
            let mut process = program.spawn();
            sleep(Duration::from_micros(random.u64(0..STARTUP_US))).await;
            process.kill();
            counts.faults += 1;
        }
        running = start(&program, &mut counts).await;
        if let Some(server) = &running {
            for writer in &mut writers {
                writer.check_touched(&server.data_plane).await;
            }
        }
    }
    if let Some(server) = running {
        check_all(&server, &mut writers).await;
        server.stop().await;
        if let Some(server) = start(&program, &mut counts).await {
            check_all(&server, &mut writers).await;
        }
    }
    for writer in writers {
        counts.promise(writer.refused == 0, format!("{} writes were refused", writer.refused));
        counts.add(writer.counts);
    }
    Ran::Counted(counts)
}

async fn check_all(server: &Server, writers: &mut [Writer]) {
    for writer in writers {
        writer.check_all(&server.data_plane).await;
    }
}

/// A server, at the third attempt at the latest.
async fn start(program: &Program, counts: &mut Counts) -> Option<Server> {
    for _ in 0..3 {
        match program.start().await {
            Ok(server) => return Some(server),
            Err(why) => counts.failed_start(&why),
        }
    }
    None
}

const WRITERS: u64 = 4;

/// Longest traffic before a kill.
const TRAFFIC_US: u64 = 600_000;

/// A start takes less than this, so some of these kills hit a server that has just begun to serve.
const STARTUP_US: u64 = 80_000;

const STARTUP_KILLS_PERCENT: u32 = 15;
