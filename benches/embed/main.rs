//! The embedder by itself. `engine` makes it a peer in `benches/embed/run`; without arguments, and under `cargo test`, a
//! text or two go through every engine of this machine.
//!
//! The engine reads commands from its input, a line each, and answers a line each:
//! `load PRECISION FAMILY` (or `load f32 candle`; answers milliseconds and kilobytes), `embed LENGTH TIMES` (median
//! milliseconds of this thread), `batch LENGTH COUNT TIMES` (the same, for one text), `head LENGTH` (the first numbers of the
//! vector), `peak` (GFLOP/s of f32), `stream BYTES` (GB/s), `rss` (kilobytes), `quit`.

#[expect(unsafe_code, reason = "instructions counted by hand, behind a question to the processor")]
mod machine;

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_transformers::models::bert::Config;
use nearhit::embed::candle::fused::{Engine, Scratch, Weights};
use nearhit::embed::candle::stock::Stock;
use nearhit::embed::candle::tensors::pack;
use nearhit::embed::candle::{Hardware, Wanted, WantedEngine};
use nearhit::embed::model::ModelFiles;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("engine") => engine(std::io::stdin().lock(), &mut std::io::stdout()),
        _ => small(),
    }
}

/// What the last `load` made.
enum Loaded {
    Fused(Box<Weights>, Box<Scratch>),
    Stock(Box<Stock>),
}

fn engine(commands: impl BufRead, out: &mut impl Write) -> Result<(), Failure> {
    let mut loaded: Option<Loaded> = None;
    for line in commands.lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match (words.as_slice(), &mut loaded) {
            (["load", precision, family], _) => {
                loaded = None;
                let before = resident()?;
                let started = Instant::now();
                load(precision, family).map(|made| {
                    loaded = Some(made);
                    let took = started.elapsed().as_secs_f64() * 1e3;
                    format!("{took} {}", resident().unwrap_or(before).saturating_sub(before))
                })
            }
            (["embed", length, times], Some(loaded)) => {
                let (ids, times) = (ids(length.parse()?), times.parse()?);
                median(times, || loaded.embed(&ids).map(drop)).map(|ms| ms.to_string())
            }
            (["batch", length, count, times], Some(Loaded::Fused(weights, scratch))) => {
                let (ids, count, times) = (ids(length.parse()?), count.parse::<usize>()?, times.parse()?);
                let texts = vec![ids.as_slice(); count];
                let all = || {
                    black_box(weights.embed_batch(scratch, &texts));
                    Ok(())
                };
                median(times, all).map(|ms| (ms / count as f64).to_string())
            }
            (["head", length], Some(loaded)) => {
                let vector = loaded.embed(&ids(length.parse()?))?;
                let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
                Ok(vector.iter().map(|value| (value / norm).to_string()).collect::<Vec<_>>().join(" "))
            }
            (["peak"], _) => Ok(machine::peak().to_string()),
            (["stream", bytes], _) => Ok(machine::stream(&vec![1; bytes.parse::<usize>()? / 4]).to_string()),
            (["rss"], _) => resident().map(|kilobytes| kilobytes.to_string()),
            (["quit"], _) => break,
            _ => Err("no such command, or nothing is loaded yet".into()),
        };
        match answer {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(error) => writeln!(out, "error {error}")?,
        }
        out.flush()?;
    }
    Ok(())
}

impl Loaded {
    fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>, Failure> {
        match self {
            Self::Fused(weights, scratch) => Ok(weights.embed(scratch, ids)?),
            Self::Stock(stock) => Ok(stock.forward(ids)?),
        }
    }
}

fn load(precision: &str, family: &str) -> Result<Loaded, Failure> {
    let files = ModelFiles::bundled()?;
    let config: Config = serde_json::from_slice(&files.config)?;
    let wanted = Wanted::named(precision, family).ok_or("no such engine")?;
    match (wanted.engine, wanted.precision) {
        (Some(WantedEngine::Fused(family)), Some(precision)) => {
            let engine = Engine::of(family, precision).filter(|engine| engine.is_available());
            let weights = pack(&files.weights, &config, files.pooling, engine.ok_or("not on this machine")?)?;
            let scratch = Box::new(Scratch::new(&weights));
            Ok(Loaded::Fused(Box::new(weights), scratch))
        }
        _ => Ok(Loaded::Stock(Box::new(Stock::load(&files.weights, &config, files.pooling, Hardware::Cpu)?))),
    }
}

/// Milliseconds that this thread ran: what other work took of the core is not in them.
fn median(times: usize, mut once: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut all = Vec::with_capacity(times);
    for _ in 0..times.max(1) {
        let started = machine::thread_ns();
        once()?;
        all.push((machine::thread_ns() - started) as f64 / 1e6);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// The same ones in every engine: words of the vocabulary, far apart.
fn ids(length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| 1000 + 37 * i).collect()
}

/// Kilobytes in memory that are this process's own: the file of the program is not among them.
fn resident() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no such line")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

fn small() -> Result<(), Failure> {
    for engine in Engine::ALL.into_iter().filter(|engine| engine.is_available()) {
        let mut loaded = load(engine.precision().as_str(), engine.family().as_str())?;
        let vector = loaded.embed(&ids(8))?;
        println!("{}: {} numbers, {:.4} first", engine.as_str(), vector.len(), vector[0]);
    }
    println!("{:.0} GFLOP/s, {:.1} GB/s", machine::peak(), machine::stream(&vec![1; 1 << 20]));
    Ok(())
}
