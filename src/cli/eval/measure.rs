//! From the command line to a report, in passes over the same rows.
//!
//! Read, embed once, replay for the curve, replay as the service in each order. It does not know how a decision is
//! made or a figure computed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::args::EvalArgs;
use super::memo::MemoEmbedder;
use super::progress;
use super::questions::{Trial, texts};
use super::replay::{Decision, Mode, Replay};
use super::report::{Chosen, Config, OrderReport, Report, RowReport};
use super::rows::{self, DatasetError, Row};
use crate::cli::Failure;
use crate::cli::settings::read_config;
use crate::decision::{Policy, Similarity};
use crate::embed::candle::{Hardware, Wanted};
use crate::embed::{EmbedSettings, open};
use crate::rules::CacheRules;

/// Measures as asked; writes the rows file if one is asked for.
pub(super) async fn measure(args: &EvalArgs) -> anyhow::Result<Report> {
    let rows = rows::read(&args.file, args.shape, args.limit).map_err(failure)?;
    // Opened before the long part, so that a bad path fails at once.
    let rows_file = args.rows.as_deref().map(create).transpose()?;
    let trials = Trial::of_all(&rows);
    let workers = workers(args);
    let embedder = Arc::new(embed(args, &trials, workers).await?);
    let context_threshold = Similarity::new(args.context_threshold);
    let rules = CacheRules { context: args.context.into(), context_threshold, ..CacheRules::default() };
    let replay = Replay { trials: &trials, embedder: Arc::clone(&embedder), rules };

    let bar = progress::bar("curve", rows.len())?;
    let nearest = replay.run(Mode::Nearest, &Order::of_file(rows.len()).rows, &bar).await?;
    let service = Mode::Service(Policy { threshold: Similarity::new(args.threshold) });
    let mut orders = Vec::new();
    let mut first: Option<Vec<Decision>> = None;
    for number in 0..args.orders {
        let order =
            if number == 0 { Order::of_file(rows.len()) } else { Order::shuffled(rows.len(), args.seed, number) };
        let decisions = replay.run(service, &order.rows, &progress::bar("service", rows.len())?).await?;
        orders.push(OrderReport { order: number, seed: order.seed, chosen: chosen(args, &rows, &decisions) });
        first.get_or_insert(decisions);
    }
    let service = first.context("no order was run")?;

    if let Some(file) = rows_file {
        write_rows(file, args, &rows, &nearest, &service).context("could not write the rows file")?;
    }
    let config = Config::of(args, workers, &embedder);
    Ok(Report::of(config, &rows, &nearest, &service, orders))
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

/// The same for every budget: this version's policy is a threshold and learns nothing, so neither the budget nor the
/// labels change what it does, and one run answers for all of them.
fn chosen(args: &EvalArgs, rows: &[Row], decisions: &[Decision]) -> Vec<Chosen> {
    args.max_error.iter().map(|max_error| Chosen::of(*max_error, rows, decisions)).collect()
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
    service: &[Decision],
) -> anyhow::Result<()> {
    for (row, (nearest, service)) in rows.iter().zip(nearest.iter().zip(service)) {
        serde_json::to_writer(&mut file, &RowReport::of(row, rows, nearest, service, &args.max_error))?;
        writeln!(file)?;
    }
    Ok(file.flush()?)
}
