//! What is measured, as the command line says it.
//!
//! Every value is checked here: what comes out is ready to use. It does not know what a dataset holds.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::FalseyValueParser;
use serde::{Serialize, Serializer};

use crate::decision::ContextRule;
use crate::embed::model::BUNDLED_MODEL;

/// Measure what the cache would serve of a dataset, and how much of that wrongly.
#[derive(Debug, Clone, clap::Args)]
pub struct EvalArgs {
    /// What a line of the dataset is.
    #[arg(value_enum)]
    pub(super) shape: Shape,

    /// The dataset: one JSON object a line; `.gz` and `.zst` too.
    pub(super) file: PathBuf,

    /// Print one JSON object instead of tables.
    #[arg(long, env = "NEARHIT_JSON", value_parser = FalseyValueParser::new())]
    pub(super) json: bool,

    /// Budget to measure the service at: most wrong hits / requests, 0..1; repeatable.
    #[arg(long, env = "NEARHIT_MAX_ERROR", value_name = "X", value_parser = share, value_delimiter = ',', default_value = "0.01")]
    pub(super) max_error: Vec<f64>,

    /// The other half of the budget: most wrong hits / hits, 0..1; 1 leaves it unbounded, as the curve does.
    #[arg(long, env = "NEARHIT_MAX_ERROR_PER_HIT", value_name = "X", value_parser = share, default_value_t = 1.0)]
    pub(super) max_error_per_hit: f64,

    /// What the service may learn from on a stream: none, misses, or audit:P (P = share of hits audited).
    #[arg(long, env = "NEARHIT_LABELS", default_value = "none")]
    pub(super) labels: Labels,

    /// Which rows of a stream the curve stores: all, or those for which nothing was served, as the service always does.
    #[arg(long, env = "NEARHIT_INSERT", value_enum, default_value = "all")]
    pub(super) insert: Insert,

    /// Choose each budget's threshold on this first share of a stream, and score it on the rest; above 0 and below 1.
    #[arg(long, env = "NEARHIT_TUNE_SHARE", value_name = "X", value_parser = part)]
    pub(super) tune_share: Option<f64>,

    /// Repeat the service in this many orders; the first is the file's, the others are shuffled.
    #[arg(long, env = "NEARHIT_ORDERS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) orders: u32,

    /// Use the first N rows only.
    #[arg(long, env = "NEARHIT_LIMIT", value_name = "N")]
    pub(super) limit: Option<usize>,

    /// Write what became of each row to this file, one JSON object a line.
    #[arg(long, env = "NEARHIT_ROWS", value_name = "FILE")]
    pub(super) rows: Option<PathBuf>,

    /// Least similarity of a semantic hit, -1..1.
    #[arg(long, env = "NEARHIT_THRESHOLD", value_name = "X", default_value_t = 0.0, value_parser = cosine, allow_negative_numbers = true)]
    pub(super) threshold: f32,

    /// How earlier turns are compared: exactly, or by meaning.
    #[arg(long, env = "NEARHIT_CONTEXT", value_enum, default_value = "exact")]
    pub(super) context: Context,

    /// Least similarity of two contexts with --context semantic, 0.5..1.
    #[arg(long, env = "NEARHIT_CONTEXT_THRESHOLD", value_name = "X", default_value_t = 0.80, value_parser = context_threshold)]
    pub(super) context_threshold: f32,

    /// Embedding model: the name of a bundled or fetched one, or a folder.
    #[arg(long, env = "NEARHIT_MODEL", value_name = "NAME_OR_DIR", default_value = BUNDLED_MODEL)]
    pub(super) model: String,

    /// Where fetched models are kept [default: models in the data folder].
    #[arg(long, env = "NEARHIT_MODELS_DIR", value_name = "DIR")]
    pub(super) models_dir: Option<PathBuf>,

    /// Texts embedded at a time; as many as there are cores if not given.
    #[arg(long, env = "NEARHIT_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) workers: Option<u16>,

    /// Seed of the shuffled orders.
    #[arg(long, env = "NEARHIT_SEED", value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
}

/// What a line of the dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Shape {
    /// Two texts: may the second be answered with the first one's answer?
    Pairs,
    /// One text of many, in arrival order.
    Stream,
    /// Two conversations: may the second be answered with the first one's answer?
    Conversations,
}

/// Which rows of a stream are stored while the curve is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Insert {
    /// Every row: one replay scores them all.
    All,
    /// Rows for which nothing was served: a replay for each of some thresholds.
    Representatives,
}

/// How earlier turns are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Context {
    /// They are equal.
    Exact,
    /// Those of user and assistant may differ in words.
    Semantic,
}

impl From<Context> for ContextRule {
    fn from(context: Context) -> Self {
        match context {
            Context::Exact => ContextRule::Exact,
            Context::Semantic => ContextRule::Semantic,
        }
    }
}

/// Which labels the service may see after a decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Labels {
    None,
    /// Those of rows that upstream answered.
    Misses,
    /// Those, and those of this share of the hits.
    Audit(f64),
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("audit:")) {
            ("none", _) => Ok(Self::None),
            ("misses", _) => Ok(Self::Misses),
            (_, Some(part)) => share(part).map(Self::Audit),
            _ => Err("expected none, misses or audit:P with P in 0..1".into()),
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Misses => f.write_str("misses"),
            Self::Audit(part) => write!(f, "audit:{part}"),
        }
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("expected a number in 0..1".into()) }
}

fn part(text: &str) -> Result<f64, String> {
    let value = share(text)?;
    if value > 0.0 && value < 1.0 { Ok(value) } else { Err("expected a number above 0 and below 1".into()) }
}

fn context_threshold(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().map_err(|error| error.to_string())?;
    if (0.5..=1.0).contains(&value) { Ok(value) } else { Err("expected a number in 0.5..1".into()) }
}

fn cosine(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().map_err(|error| error.to_string())?;
    if (-1.0..=1.0).contains(&value) { Ok(value) } else { Err("expected a number in -1..1".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: EvalArgs,
    }

    #[test]
    fn command_lines() {
        fn check(line: &str, expected: Option<(Shape, &[f64], Labels, f32)>) {
            let parsed = Line::try_parse_from(std::iter::once("eval").chain(line.split(' ')));
            let seen = parsed
                .as_ref()
                .ok()
                .map(|Line { args }| (args.shape, &args.max_error[..], args.labels, args.threshold));
            assert_eq!(seen, expected, "{line}");
        }
        check("pairs f", Some((Shape::Pairs, &[0.01], Labels::None, 0.0)));
        check("stream f --max-error 0.02 --max-error 0.05", Some((Shape::Stream, &[0.02, 0.05], Labels::None, 0.0)));
        check("--labels misses conversations f", Some((Shape::Conversations, &[0.01], Labels::Misses, 0.0)));
        check("stream f --labels audit:0.1 --threshold -1", Some((Shape::Stream, &[0.01], Labels::Audit(0.1), -1.0)));
        check("pairs", None);
        check("triples f", None);
        check("pairs f --max-error 1.5", None);
        check("pairs f --max-error NaN", None);
        check("pairs f --labels audit:2", None);
        check("pairs f --labels all", None);
        check("pairs f --threshold 1.1", None);
        check("conversations f --context any", None);
        check("conversations f --context semantic --context-threshold 0.4", None);
        check("stream f --insert representatives --tune-share 0.5", Some((Shape::Stream, &[0.01], Labels::None, 0.0)));
        check("stream f --insert some", None);
        check("stream f --tune-share 0", None);
        check("stream f --tune-share 1", None);
        check("pairs f --orders 0", None);
        check("pairs f --workers 0", None);
    }

    #[test]
    fn labels_are_written_as_they_are_read() {
        for text in ["none", "misses", "audit:0.25"] {
            assert_eq!(text.parse::<Labels>().expect("valid").to_string(), text);
        }
    }
}
