//! `nearhit key`: keys of nearhit's own, kept in the data folder of a server that may be running or not.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::settings::read_config;
use crate::config::{Config, Override};
use crate::server::keys::{
    KeptKeys, KeyFile, KeyFileError, KeyId, KeyRecord, KeyScope, KeyText, TENANT_NAME_PROBLEM, TenantName, date_text,
};

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and print it, this once. A running server accepts it within a second.
    Create(CreateArgs),
    /// List keys, without what makes them keys.
    List(ListArgs),
    /// Make a key invalid for ever. A running server refuses it within a second.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Whose entries it reads and writes: a name of a-z, 0-9, _ and -.
    #[arg(long, value_parser = tenant)]
    tenant: TenantName,
    /// What it is for: read, write (contains read), admin; several with commas.
    #[arg(long, value_delimiter = ',', default_value = "write", value_parser = scope)]
    scopes: Vec<KeyScope>,
    /// How long it is valid: 90d, 12h, 30m or 45s [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires: Option<Duration>,
    /// Keep it nowhere, and print a [[keys]] table for the configuration file after it.
    #[arg(long)]
    for_config: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The 8 digits after nh_.
    id: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Whose keys.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// The server's configuration file (TOML).
    #[arg(long, env = "NEARHIT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's data folder [default: the platform's data folder].
    #[arg(long, env = "NEARHIT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<String>,
}

impl PlaceArgs {
    fn read(&self) -> Result<(Config, KeyFile), Failure> {
        let folder = self.data_dir.clone();
        let folder = folder.map(|value| Override { key: "data_dir", origin: "--data-dir".into(), value });
        let config = read_config(self.config.as_deref(), folder.as_slice())?;
        let file = KeyFile::new(&config.data_dir);
        Ok((config, file))
    }
}

pub(super) fn run(args: &KeyArgs) -> Result<(), Failure> {
    match &args.command {
        KeyCommand::Create(args) => create(args),
        KeyCommand::List(args) => list(args),
        KeyCommand::Revoke(args) => revoke(args),
    }
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    let (config, file) = args.place.read()?;
    let now_ms = now_ms();
    let new = || {
        let key = KeyText::random().map_err(|error| Failure::os(format!("no random bytes: {error}")))?;
        let record = KeyRecord {
            id: key.id(),
            hash: key.hash(),
            tenant: args.tenant.clone(),
            scopes: args.scopes.iter().copied().collect(),
            created_ms: Some(now_ms),
            expires_ms: args.expires.map(|lifetime| now_ms.saturating_add(lifetime.as_millis() as u64)),
            revoked_ms: None,
        };
        Ok::<_, Failure>((key, record))
    };
    let (key, record) = if args.for_config {
        new()?
    } else {
        file.change(|records| {
            // One of four thousand million ids may be taken.
            let (mut key, mut record) = new()?;
            while records.iter().chain(&config.access.keys).any(|other| other.id == record.id) {
                (key, record) = new()?;
            }
            records.push(record.clone());
            Ok::<_, Failure>((key, record))
        })?
    };
    if !args.for_config {
        warn_if_unreadable(&file)?;
    }
    let scopes = record.scopes.iter().map(|scope| format!("{:?}", scope.as_str())).collect::<Vec<_>>().join(", ");
    if args.json {
        let mut value = described(&record, now_ms);
        value["key"] = json!(key.reveal());
        value["hash"] = json!(record.hash.to_string());
        println!("{value}");
    } else {
        println!("{}", key.reveal());
        if args.for_config {
            let (id, hash, tenant) = (&record.id, &record.hash, record.tenant.as_str());
            println!("\n[[keys]]\nid = \"{id}\"\nhash = \"{hash}\"\ntenant = \"{tenant}\"\nscopes = [{scopes}]");
            record.expires_ms.into_iter().for_each(|expires_ms| println!("expires = {}", date_text(expires_ms)));
        }
    }
    eprintln!("key {} of tenant {} ({scopes}); it is not shown again", record.id, record.tenant.as_str());
    Ok(())
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let (config, file) = args.place.read()?;
    let now_ms = now_ms();
    let kept = file.read()?;
    if let Some(KeptKeys { spoilt: Some(error), .. }) = &kept {
        eprintln!("nearhit: {error}; the copy beside it counts");
    }
    let kept = kept.into_iter().flat_map(|kept| kept.records).map(|record| ("data folder", record));
    let configured = config.access.keys.into_iter().map(|record| ("configuration", record));
    let all: Vec<_> = kept.chain(configured).collect();
    if args.json {
        let described = all.iter().map(|(place, record)| {
            let mut value = described(record, now_ms);
            value["place"] = json!(place);
            value
        });
        println!("{}", json!({"data": described.collect::<Vec<_>>()}));
        return Ok(());
    }
    for (place, record) in &all {
        let scopes = record.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",");
        let until = record.expires_ms.map(|expires_ms| format!(" until {}", date_text(expires_ms))).unwrap_or_default();
        println!("{}  {}  {scopes}  {}{until}  ({place})", record.id, record.tenant.as_str(), state(record, now_ms));
    }
    Ok(())
}

fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    let (config, file) = args.place.read()?;
    // Whoever has only the key at hand may give that.
    let digits = args.id.strip_prefix("nh_").unwrap_or(&args.id).split('_').next().unwrap_or_default();
    let id = KeyId::parse(digits)
        .ok_or_else(|| Failure::usage("ID: must be the 8 hex digits that nearhit key list shows"))?;
    if config.access.keys.iter().any(|record| record.id == id) {
        return Err(Failure::data(format!("key {id} stands in the configuration: remove it there, and restart")));
    }
    file.change(|records| match records.iter_mut().find(|record| record.id == id) {
        Some(record) => {
            record.revoked_ms.get_or_insert(now_ms());
            Ok(())
        }
        None => Err(Failure::data(format!("there is no key {id} in {}", config.data_dir.display()))),
    })?;
    println!("key {id} revoked");
    warn_if_unreadable(&file)
}

fn warn_if_unreadable(file: &KeyFile) -> Result<(), Failure> {
    if let Some(problem) = file.unreadable()? {
        eprintln!("nearhit: {problem}");
    }
    Ok(())
}

fn described(record: &KeyRecord, now_ms: u64) -> serde_json::Value {
    let KeyRecord { id, hash: _, tenant, scopes, created_ms, expires_ms, revoked_ms } = record;
    json!({
        "id": id.as_str(), "tenant": tenant.as_str(), "scopes": scopes, "state": state(record, now_ms),
        "createdMs": created_ms, "expiresMs": expires_ms, "revokedMs": revoked_ms,
    })
}

fn state(record: &KeyRecord, now_ms: u64) -> &'static str {
    match (record.revoked_ms, record.is_valid_at(now_ms)) {
        (Some(_), _) => "revoked",
        (None, true) => "valid",
        (None, false) => "expired",
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::Io { .. } => Self::io(error.to_string()),
            KeyFileError::Damaged { .. } => {
                Self::data(format!("{error}; move keys and keys.copy out of the data folder and create new keys"))
            }
        }
    }
}

fn tenant(text: &str) -> Result<TenantName, String> {
    TenantName::parse(text).ok_or_else(|| TENANT_NAME_PROBLEM.to_owned())
}

fn scope(text: &str) -> Result<KeyScope, String> {
    KeyScope::parse(text).ok_or_else(|| "must be read, write or admin".to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let problem = || "must be a whole number above 0 and d, h, m or s, such as 90d, and at most 100 years".to_owned();
    let unit_s = match text.chars().last() {
        Some('d') => 86_400,
        Some('h') => 3_600,
        Some('m') => 60,
        Some('s') => 1,
        _ => return Err(problem()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| problem())?;
    let seconds = count.checked_mul(unit_s).filter(|seconds| (1..=36_525 * 86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(problem)
}
