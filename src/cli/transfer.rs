//! `nearhit export` and `nearhit import`: a cache as a file.
//!
//! The first line is `{"nearhit_export":1}`; every other is a body that would insert the entry again, with its cache
//! and times beside it.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Failure;
use super::client::{CacheArg, Server, ServerArgs};
use super::files::{self, Output};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// An exported file (.gz and .zst too).
    file: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Where to write (.gz and .zst compress).
    file: PathBuf,
    /// Only this cache; all of the caller's by default.
    #[arg(long)]
    cache: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn export(args: &ExportArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let listed = server.call(Method::GET, "/v1/caches", None).await?;
    let caches = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let caches = caches.iter().filter(|cache| args.cache.as_deref().is_none_or(|wanted| cache["name"] == wanted));
    let (names, sizes): (Vec<_>, Vec<_>) =
        caches.filter_map(|cache| Some((cache["name"].as_str()?.to_owned(), cache["entries"].as_u64()?))).unzip();
    if let Some(wanted) = args.cache.as_deref().filter(|_| names.is_empty()) {
        return Err(Failure::data(format!("--cache: there is no cache {wanted:?} with entries of this key")));
    }
    let failed = |error: std::io::Error| Failure::io(format!("{}: {error}", args.file.display()));
    let bar = progress(sizes.iter().sum());
    // Written beside it first: a failed export leaves an earlier file as it was.
    let partial = partial_path(&args.file);
    let mut out = Output::create(&partial).map_err(failed)?;
    out.line(&json!({ "nearhit_export": EXPORT_VERSION }).to_string()).map_err(failed)?;
    for name in names {
        let path = CacheArg { cache: name }.path("/entries")?;
        let mut cursor = String::new();
        loop {
            let page = server.call(Method::GET, &format!("{path}?limit={PAGE}{cursor}"), None).await?;
            for entry in page["data"].as_array().into_iter().flatten() {
                out.line(&entry.to_string()).map_err(failed)?;
                bar.inc(1);
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    out.finish().map_err(failed)?;
    std::fs::rename(&partial, &args.file).map_err(failed)?;
    bar.finish();
    report(&args.server, &json!({"exported": bar.position()}), &format!("{} entries exported", bar.position()));
    Ok(())
}

pub(super) async fn import(args: &ImportArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let mut lines = Lines::open(&args.file)?;
    let bar = progress(count_lines(&args.file)?.saturating_sub(1));
    let mut done = Imported::default();
    let mut batch = Batch::default();
    while let Some((number, entry)) = lines.next()? {
        bar.inc(1);
        let Some((cache, body)) = insert_body(entry).map_err(|problem| lines.failure(number, &problem))? else {
            done.expired += 1;
            continue;
        };
        if batch.cache != cache || batch.bodies.len() == BATCH || batch.bytes > BATCH_BYTES {
            batch.send(&server, &lines, &mut done).await?;
            batch.cache = cache;
        }
        batch.bytes += body.to_string().len();
        batch.bodies.push(body);
        batch.numbers.push(number);
    }
    batch.send(&server, &lines, &mut done).await?;
    bar.finish();
    let Imported { stored, exact_only, expired, refused } = done;
    let text = format!(
        "{stored} entries imported ({exact_only} found by an exact match only), {expired} expired, {refused} refused"
    );
    report(
        &args.server,
        &json!({"imported": stored, "exactOnly": exact_only, "expired": expired, "refused": refused}),
        &text,
    );
    if refused > 0 { Err(Failure::data(format!("{refused} entries were refused"))) } else { Ok(()) }
}

#[derive(Default)]
struct Imported {
    stored: u64,
    exact_only: u64,
    expired: u64,
    refused: u64,
}

/// Entries for one cache, on their way.
#[derive(Default)]
struct Batch {
    cache: String,
    bodies: Vec<Value>,
    bytes: usize,
    numbers: Vec<usize>,
}

impl Batch {
    async fn send(&mut self, server: &Server, lines: &Lines, done: &mut Imported) -> Result<(), Failure> {
        if self.bodies.is_empty() {
            return Ok(());
        }
        let path = CacheArg { cache: self.cache.clone() }.path("/entries/batch")?;
        let body = json!({ "entries": std::mem::take(&mut self.bodies) });
        self.bytes = 0;
        let answer = server.call(Method::POST, &path, Some(&body)).await?;
        for (result, number) in answer["results"].as_array().into_iter().flatten().zip(self.numbers.drain(..)) {
            match result.pointer("/error/message") {
                Some(message) => {
                    done.refused += 1;
                    eprintln!("nearhit: {}", lines.failure(number, message.as_str().unwrap_or_default()));
                }
                None => {
                    done.stored += 1;
                    done.exact_only += u64::from(result["exactOnly"].is_string());
                }
            }
        }
        Ok(())
    }
}

/// The lines of an exported file, after its head.
struct Lines {
    name: String,
    reader: Box<dyn BufRead + Send>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let reader = files::open(path).map_err(|error| Failure::no_input(format!("{name}: {error}")))?;
        let mut lines = Self { name, reader, number: 0 };
        match lines.next()? {
            Some((_, head)) if head["nearhit_export"] == EXPORT_VERSION => Ok(lines),
            _ => Err(lines.failure(1, &format!("must be {{\"nearhit_export\":{EXPORT_VERSION}}}"))),
        }
    }

    fn next(&mut self) -> Result<Option<(usize, Value)>, Failure> {
        let mut line = String::new();
        loop {
            line.clear();
            self.number += 1;
            let read =
                self.reader.read_line(&mut line).map_err(|error| self.failure(self.number, &error.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            if !line.trim().is_empty() {
                let value = serde_json::from_str(&line)
                    .map_err(|error| self.failure(self.number, &format!("no JSON: {error}")))?;
                return Ok(Some((self.number, value)));
            }
        }
    }

    fn failure(&self, number: usize, problem: &str) -> Failure {
        Failure::data(format!("{}: line {number}: {problem}", self.name))
    }
}

/// The cache and insert body of an exported entry; `None` if it has expired.
fn insert_body(mut entry: Value) -> Result<Option<(String, Value)>, String> {
    let fields = entry.as_object_mut().ok_or("must be an object")?;
    let cache = match fields.remove("cache") {
        None => "default".to_owned(),
        Some(Value::String(cache)) => cache,
        Some(other) => return Err(format!("cache: must be a string, got {other}")),
    };
    if let Some(expires) = fields.remove("expiresMs") {
        let expires_ms =
            expires.as_u64().ok_or_else(|| format!("expiresMs: must be milliseconds since 1970, got {expires}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let Some(left) = u128::from(expires_ms).checked_sub(now).filter(|left| *left > 0) else { return Ok(None) };
        fields.insert("ttlMillis".into(), json!(u64::try_from(left).unwrap_or(u64::MAX)));
    }
    fields.retain(|_, value| !value.is_null());
    Ok(Some((cache, entry)))
}

/// The file's name with `.partial` before its ending, which says how it is compressed.
fn partial_path(file: &Path) -> PathBuf {
    let ending =
        file.extension().map(|e| format!("partial.{}", e.to_string_lossy())).unwrap_or_else(|| "partial".into());
    file.with_extension(ending)
}

fn count_lines(path: &Path) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::no_input(format!("{}: {error}", path.display()));
    let mut count = 0;
    for line in files::open(path).map_err(failed)?.split(b'\n') {
        count += u64::from(!line.map_err(failed)?.is_empty());
    }
    Ok(count)
}

fn progress(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn report(args: &ServerArgs, answer: &Value, text: &str) {
    if args.json {
        println!("{answer}");
    } else {
        println!("{text}");
    }
}

const EXPORT_VERSION: u64 = 1;

/// Entries asked for at a time.
const PAGE: usize = 500;

/// Bytes sent at a time, about; well below what a server takes.
const BATCH_BYTES: usize = 8 << 20;

/// Entries stored at a time; small enough that the bar moves.
const BATCH: usize = 200;
