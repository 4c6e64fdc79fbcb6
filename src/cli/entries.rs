//! The cache API from a shell.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::Failure;
use super::client::{CacheArg, Server, ServerArgs};

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// The text to find an answer for.
    prompt: String,
    /// System prompt and earlier turns as one string.
    #[arg(long)]
    context: Option<String>,
    /// An attribute that must be equal; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// Least similarity, 0 to 1.
    #[arg(long)]
    threshold: Option<f64>,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct InsertArgs {
    /// What is asked.
    prompt: String,
    /// The answer.
    response: String,
    /// System prompt and earlier turns as one string.
    #[arg(long)]
    context: Option<String>,
    /// An attribute; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// A tag, for deletion; may be repeated.
    #[arg(long)]
    tag: Vec<String>,
    /// Time to live in milliseconds.
    #[arg(long)]
    ttl_millis: Option<i64>,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    id: String,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// One entry; or one of the options.
    #[arg(conflicts_with_all = ["attribute", "tag", "source", "writer", "older_than_ms"])]
    id: Option<String>,
    /// All entries with these attributes.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, group = "filter")]
    attribute: Vec<(String, String)>,
    /// All entries with any of these tags.
    #[arg(long, group = "filter")]
    tag: Vec<String>,
    /// All entries made from this document, in this version or in any; may be repeated.
    #[arg(long, value_name = "ID[@VERSION]", value_parser = source, group = "filter")]
    source: Vec<(String, Option<String>)>,
    /// All entries that this writer stored.
    #[arg(long, group = "filter")]
    writer: Option<String>,
    /// All entries at least this old.
    #[arg(long, group = "filter")]
    older_than_ms: Option<u64>,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct FlushArgs {
    /// Really remove every entry.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct FeedbackArgs {
    /// The entry.
    id: String,
    /// Was its answer right, or wrong?
    #[arg(value_enum)]
    verdict: Verdict,
    /// The question that it answered; the last one that the entry was served for if not given.
    #[arg(long)]
    prompt: Option<String>,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

/// Whether an answer was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Verdict {
    Right,
    Wrong,
}

pub(super) async fn search(args: &SearchArgs) -> Result<(), Failure> {
    let mut body = json!({"prompt": args.prompt, "attributes": object(&args.attribute)});
    set(&mut body, "context", &args.context);
    set(&mut body, "similarityThreshold", &args.threshold);
    let answer =
        Server::new(&args.server)?.call(Method::POST, &args.cache.path("/entries/search")?, Some(&body)).await?;
    print(&args.server, &answer, |answer| match answer.pointer("/data/0") {
        Some(found) => {
            let (tier, similarity) = (text(&answer["tier"]), found["similarity"].as_f64().unwrap_or_default());
            eprintln!("hit: {tier}, similarity {similarity:.4}, entry {}", text(&found["id"]));
            text(&found["response"])
        }
        None => {
            let nearest = &answer["nearest"];
            let similarity = nearest["similarity"].as_f64().map(|s| format!(" (nearest: {s:.4})")).unwrap_or_default();
            eprintln!("{}: {}{similarity}", text(&answer["outcome"]), text(&answer["reason"]));
            String::new()
        }
    });
    Ok(())
}

pub(super) async fn insert(args: &InsertArgs) -> Result<(), Failure> {
    let mut body = json!({"prompt": args.prompt, "response": args.response, "attributes": object(&args.attribute), "tags": args.tag});
    set(&mut body, "context", &args.context);
    set(&mut body, "ttlMillis", &args.ttl_millis);
    let answer = Server::new(&args.server)?.call(Method::POST, &args.cache.path("/entries")?, Some(&body)).await?;
    print(&args.server, &answer, |answer| text(&answer["entryId"]));
    Ok(())
}

pub(super) async fn get(args: &GetArgs) -> Result<(), Failure> {
    let answer = Server::new(&args.server)?.call(Method::GET, &entry_path(&args.cache, &args.id)?, None).await?;
    print(&args.server, &answer, |answer| {
        eprintln!("{}", text(&answer["prompt"]));
        text(&answer["response"])
    });
    Ok(())
}

pub(super) async fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    if let Some(id) = &args.id {
        if args.dry_run {
            return Err(Failure::usage("--dry-run: goes with a filter, not with an id"));
        }
        server.call(Method::DELETE, &entry_path(&args.cache, id)?, None).await?;
        print(&args.server, &json!({"matched": 1, "deleted": 1}), |_| "1 entry removed".into());
        return Ok(());
    }
    let mut body = json!({"dryRun": args.dry_run});
    if !args.attribute.is_empty() {
        body["attributes"] = object(&args.attribute);
    }
    if !args.tag.is_empty() {
        body["tags"] = json!(args.tag);
    }
    if !args.source.is_empty() {
        let sources = args.source.iter().map(|(id, version)| match version {
            Some(version) => json!({"id": id, "version": version}),
            None => json!({"id": id}),
        });
        body["sources"] = sources.collect();
    }
    set(&mut body, "writer", &args.writer);
    set(&mut body, "olderThanMs", &args.older_than_ms);
    let answer = server.call(Method::POST, &args.cache.path("/entries/delete")?, Some(&body)).await?;
    print(&args.server, &answer, |answer| format!("{} matched, {} removed", answer["matched"], answer["deleted"]));
    Ok(())
}

pub(super) async fn feedback(args: &FeedbackArgs) -> Result<(), Failure> {
    let mut body = json!({"correct": args.verdict == Verdict::Right});
    set(&mut body, "prompt", &args.prompt);
    let path = format!("{}/feedback", entry_path(&args.cache, &args.id)?);
    Server::new(&args.server)?.call(Method::POST, &path, Some(&body)).await?;
    print(&args.server, &json!({}), |_| "heard".into());
    Ok(())
}

pub(super) async fn flush(args: &FlushArgs) -> Result<(), Failure> {
    if !args.yes {
        return Err(Failure::usage(format!(
            "this removes every entry of the cache {:?}; say so with --yes",
            args.cache.cache
        )));
    }
    let body = json!({"confirm": args.cache.cache});
    let answer = Server::new(&args.server)?.call(Method::POST, &args.cache.path("/flush")?, Some(&body)).await?;
    print(&args.server, &answer, |_| format!("{} is empty", args.cache.cache));
    Ok(())
}

pub(super) async fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let answer = Server::new(&args.server)?.call(Method::GET, &args.cache.path("/stats")?, None).await?;
    print(&args.server, &answer, |answer| {
        let fields = answer.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        fields.map(|(name, value)| format!("{name}: {}", text(value))).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn entry_path(cache: &CacheArg, id: &str) -> Result<String, Failure> {
    if !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("an entry id is 32 hex digits, got {id:?}")));
    }
    cache.path(&format!("/entries/{id}"))
}

pub(super) fn print(args: &ServerArgs, answer: &Value, human: impl FnOnce(&Value) -> String) {
    let text = if args.json { answer.to_string() } else { human(answer) };
    if !text.is_empty() && text != "null" {
        println!("{text}");
    }
}

/// A string without its quotes, anything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn set<T: serde::Serialize>(body: &mut Value, name: &str, value: &Option<T>) {
    if let Some(value) = value {
        body[name] = json!(value);
    }
}

fn object(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>())
}

/// As in `x-nearhit-sources`: the version stands behind the last @.
fn source(text: &str) -> Result<(String, Option<String>), String> {
    let (id, version) = text.rsplit_once('@').map_or((text, None), |(id, version)| (id, Some(version)));
    let is_named = !id.is_empty() && version != Some("");
    if is_named { Ok((id.to_owned(), version.map(str::to_owned))) } else { Err("must be ID or ID@VERSION".into()) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
