//! From the command line to a report, in passes over the same rows.
//!
//! Read, embed once, replay for the curve, replay as the service in each order. It does not know how a decision is
//! made or a figure computed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::args::{EvalArgs, Insert, Labels, Shape};
use super::curve::Sweep;
use super::memo::MemoEmbedder;
use super::progress;
use super::questions::{Trial, texts};
use super::replay::{Decision, Mode, Replay};
use super::replayed::{Replayed, thresholds};
use super::report::{Chosen, Config, OrderReport, Report, RowReport, scored};
use super::rows::{self, Balance, DatasetError, Row};
use crate::cli::Failure;
use crate::cli::settings::read_config;
use crate::decision::budget::Budget;
use crate::decision::{Judge, Policy, Similarity};
use crate::embed::candle::{Hardware, Wanted};
use crate::embed::{EmbedSettings, open};
use crate::rules::CacheRules;

/// Measures as asked; writes the rows file if one is asked for.
pub(super) async fn measure(args: &EvalArgs) -> anyhow::Result<Report> {
    if let Some(share) = args.tune_share.filter(|_| args.shape != Shape::Stream) {
        return Err(Failure::usage(format!("--tune-share {share}: only a stream has an earlier part")).into());
    }
    let rows = rows::read(&args.file, args.shape, args.limit).map_err(failure)?;
    // Opened before the long part, so that a bad path fails at once.
    let rows_file = args.rows.as_deref().map(create).transpose()?;
    let trials = Trial::of_all(&rows);
    let workers = workers(args);
    let embedder = Arc::new(embed(args, &trials, workers).await?);
    let context_threshold = Similarity::new(args.context_threshold);
    let rules = CacheRules { context: args.context.into(), context_threshold, ..CacheRules::default() };
    let replay = Replay { rows: &rows, trials: &trials, embedder: Arc::clone(&embedder), rules };

    let bar = progress::bar("curve", rows.len())?;
    let nearest = replay.run(Mode::Nearest, &Order::of_file(rows.len()).rows, args.seed, &bar).await?;
    let replayed = match (args.insert, args.shape) {
        (Insert::Representatives, Shape::Stream) => Some(representatives(&replay, &nearest, args.seed).await?),
        // Pairs are alone: what one of them stores is of no use to another.
        _ => None,
    };
    let mut orders = Vec::new();
    // What the service did with each row in the file's order, by budget.
    let mut service: Vec<Vec<Decision>> = Vec::new();
    for number in 0..args.orders {
        let order =
            if number == 0 { Order::of_file(rows.len()) } else { Order::shuffled(rows.len(), args.seed, number) };
        let mut chosen = Vec::new();
        for max_error in &args.max_error {
            let bar = progress::bar("service", rows.len())?;
            let seed = args.seed.wrapping_add(u64::from(number));
            let decisions = replay.run(Mode::Service(policy(args, *max_error)), &order.rows, seed, &bar).await?;
            chosen.push(Chosen::of(*max_error, &rows, &decisions));
            if number == 0 {
                service.push(decisions);
            }
        }
        orders.push(OrderReport { order: number, seed: order.seed, chosen });
    }

    if let Some(file) = rows_file {
        write_rows(file, args, &rows, &nearest, &service).context("could not write the rows file")?;
    }
    let config = Config::of(args, workers, &embedder);
    let first = service.first().context("no budget was run")?;
    Ok(Report::of(config, &rows, &nearest, replayed.as_ref(), first, orders))
}

/// A replay for each of some thresholds of the curve, where only what missed is stored.
async fn representatives(replay: &Replay<'_>, nearest: &[Decision], seed: u64) -> anyhow::Result<Replayed> {
    let rows = replay.rows;
    let curve = Sweep::of(&scored(rows, nearest)).points(Balance::of(rows).is_known());
    let order = Order::of_file(rows.len()).rows;
    let mut replays = Vec::new();
    for score in thresholds(&curve) {
        let bar = progress::bar("curve", rows.len())?;
        let found = replay.run(Mode::Representatives(score), &order, seed, &bar).await?;
        replays.push((score, scored(rows, &found)));
    }
    Ok(Replayed::new(replays))
}

/// An order of the rows.
struct Order {
    /// Of the shuffle; the file's order has none.
    seed: Option<u64>,
    rows: Vec<usize>,
}

impl Order {
    fn of_file(rows: usize) -> Self {
        Self { seed: None, rows: (0..rows).collect() }
    }

    fn shuffled(rows: usize, seed: u64, number: u32) -> Self {
        let seed = seed.wrapping_add(u64::from(number));
        let mut order = Self { seed: Some(seed), ..Self::of_file(rows) };
        fastrand::Rng::with_seed(seed).shuffle(&mut order.rows);
        order
    }
}

async fn embed(args: &EvalArgs, trials: &[Trial], workers: usize) -> anyhow::Result<MemoEmbedder> {
    let embedder = open(&EmbedSettings {
        model: args.model.clone(),
        models_folder: models_folder(args)?,
        hardware: Hardware::Cpu,
        wanted: Wanted::default(),
        workers,
        // Never reached: there are as many texts in flight as workers.
        queue_length: 2 * workers,
        memo_bytes: 0,
    })
    .map_err(|error| Failure::unavailable(error.to_string()))?;
    let texts = texts(trials, args.context.into());
    let bar = progress::bar("embedding", texts.len())?;
    let memo = MemoEmbedder::embed_all(embedder.as_ref(), texts, workers, &bar).await;
    if memo.failed() > 0 {
        tracing::warn!(
            texts = memo.failed(),
            "the model failed on some texts; they count as the service would count them"
        );
    }
    Ok(memo)
}

/// The service's policy at a budget. On a stream it may learn as the labels say; elsewhere rows are alone.
fn policy(args: &EvalArgs, max_error: f64) -> Policy {
    let budget = Budget { max_error, max_error_per_hit: args.max_error_per_hit };
    let (judge, audit) = match args.labels {
        Labels::None => (Judge::Nobody, 0.0),
        Labels::Misses => (Judge::Words, 0.0),
        Labels::Audit(share) => (Judge::Words, share),
    };
    Policy { threshold: Similarity::new(args.threshold), budget, shadow: false, judge, audit }
}

fn workers(args: &EvalArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    args.workers.map_or_else(cores, usize::from)
}

fn models_folder(args: &EvalArgs) -> Result<PathBuf, Failure> {
    match &args.models_dir {
        Some(folder) => Ok(folder.clone()),
        None => Ok(read_config(None, &[])?.data_dir.join("models")),
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    let file = File::create(path).map_err(|error| Failure::io(format!("{}: {error}", path.display())))?;
    Ok(BufWriter::new(file))
}

fn failure(error: DatasetError) -> Failure {
    match error {
        DatasetError::Unreadable { .. } => Failure::no_input(error.to_string()),
        DatasetError::Malformed { .. } | DatasetError::Empty { .. } => Failure::data(error.to_string()),
    }
}

fn write_rows(
    mut file: BufWriter<File>,
    args: &EvalArgs,
    rows: &[Row],
    nearest: &[Decision],
    service: &[Vec<Decision>],
) -> anyhow::Result<()> {
    for (number, (row, nearest)) in rows.iter().zip(nearest).enumerate() {
        let service = args.max_error.iter().zip(service).map(|(max_error, decisions)| (*max_error, &decisions[number]));
        serde_json::to_writer(&mut file, &RowReport::of(row, rows, nearest, service))?;
        writeln!(file)?;
    }
    Ok(file.flush()?)
}
