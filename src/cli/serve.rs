//! `nearhit serve`: opens the parts that the configuration names, and serves until told to stop.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio_util::task::TaskTracker;

use super::Failure;
use super::judge::{judge_key, open_judge};
use super::keys::provider_keys;
use super::learned::LearnedFile;
use super::reload::{InForce, Reloader, Secrets, hangups};
use super::settings::ServeArgs;
use crate::cache::{Cache, CacheSettings, Parts};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, EmbedModel};
use crate::decision::EMBEDDER;
use crate::embed::Embedder;
use crate::layer::LayerSettings;
use crate::metrics::ConfigMetrics;
use crate::room::Room;
use crate::savings::Savings;
use crate::server::keys::KeyFile;
use crate::server::{App, IdempotencyKeys, Keys, Live, LiveSettings, Reloads, Secret, ServeError, Traffic, serve};
use crate::store::{OpenStoreError, Store, StoreSettings};
use crate::upstream::Upstream;

pub(super) async fn run(args: &ServeArgs) -> Result<(), Failure> {
    let (config, written) = args.read()?;
    // From here on SIGHUP no longer ends the process.
    let hangups = hangups();
    let (reloads, asked) = Reloads::new();
    let Opened { app, metrics, secrets } = open(&config, reloads).await?;
    let app = Arc::new(app);
    let degraded: Vec<_> = app.degraded.iter().copied().collect();
    let (embedder, engine) = (app.embedder.clone(), app.engine.clone());
    let started = |data: std::net::SocketAddr, admin: std::net::SocketAddr| {
        tracing::info!(%data, %admin, embedder, engine, ?degraded, "listening");
        eprintln!("nearhit serves on http://{data} (admin: http://{admin}, data: {})", config.data_dir.display());
    };
    let learned = match config.store {
        StoreSettings::Memory => None,
        StoreSettings::Local { .. } => Some(LearnedFile::open(Arc::clone(&app.cache), &config.data_dir)),
    };
    let saving = learned.clone().map(|learned| tokio::spawn(learned.keep_saving()));
    let serving = config.serve.clone();
    let in_force = InForce { config: config.clone(), written, secrets };
    let reloader = Reloader { args: args.clone(), app: Arc::clone(&app), in_force, metrics };
    let reloading = tokio::spawn(reloader.run(asked, hangups));
    let served = serve(app, &serving, started, stop_signal()).await;
    reloading.abort();
    if let Some(saving) = saving {
        saving.abort();
    }
    if let Some(learned) = learned {
        learned.save();
    }
    served.map_err(|error| match error {
        ServeError::Listen { .. } => Failure::unavailable(error.to_string()),
        ServeError::Exposed { .. } => Failure::config(error.to_string()),
        ServeError::Broken(_) => Failure::os(error.to_string()),
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// A server that can be started.
struct Opened {
    app: App,
    metrics: ConfigMetrics,
    secrets: Secrets,
}

async fn open(config: &Config, reloads: Reloads) -> Result<Opened, Failure> {
    // First: it locks the data folder.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let mut degraded = BTreeSet::new();
    let store = open_store(config, &clock, &mut degraded).await?;
    let secret = match &config.store {
        StoreSettings::Memory => Secret::random().map_err(|error| Failure::os(error.to_string()))?,
        StoreSettings::Local { .. } => open_secret(config, &mut degraded)?,
    };
    let keys = open_keys(config)?;
    let embedder = match (&config.embed.model, open_embedder(config)) {
        (EmbedModel::External { .. }, _) => None,
        (_, Ok(embedder)) => Some(embedder),
        (_, Err(error)) if config.serve.strict => return Err(Failure::config(format!("embed.model: {error}"))),
        (_, Err(error)) => {
            tracing::error!(error, "no embedder: serving exact matches only");
            degraded.insert("embedder");
            None
        }
    };
    let (model, engine) = match (&config.embed.model, &embedder) {
        (_, Some(embedder)) => (embedder.model().to_owned(), embedder.engine().to_owned()),
        (EmbedModel::External { dimensions }, None) => {
            (format!("external vectors of length {dimensions}"), "none".to_owned())
        }
        (EmbedModel::Local(_), None) => ("none".to_owned(), "none".to_owned()),
    };
    if embedder.is_some() && !model.starts_with(EMBEDDER) {
        tracing::warn!(
            model,
            "the shipped calibration is of {EMBEDDER}: with another model the error budget holds only with a judge"
        );
    }
    let mut judges_key = None;
    let judge = config.judge.as_ref().map(|settings| {
        judges_key = judge_key(settings).transpose()?;
        open_judge(settings, judges_key.as_ref())
    });
    let judge = match judge.transpose() {
        Ok(judge) => judge.map(Arc::new),
        Err(error) if config.serve.strict => return Err(Failure::config(error)),
        Err(error) => {
            tracing::error!(error, "no judge: caches with judge = \"model\" learn nothing");
            degraded.insert("judge");
            None
        }
    };
    let mut registry = Registry::default();
    let metrics = ConfigMetrics::register(&mut registry);
    let cache = Arc::new(Cache::new(Parts { store, embedder, clock }, cache_settings(config), &mut registry));
    let secrets = Secrets { providers: provider_keys(&config.upstream)?, judge: judges_key };
    let upstream = Upstream::new(config.upstream.clone(), &secrets.providers, &mut registry)
        .map_err(|error| Failure::os(format!("TLS: {error}")))?;
    let tasks = TaskTracker::new();
    let layer = layer_settings(config, &upstream, Arc::new(Room::new(config.serve.bodies_bytes_max)));
    let savings = Savings::new(config.savings.clone(), layer.reading(), Arc::clone(&layer.bodies), &mut registry);
    let live = LiveSettings { layer, upstream, savings, judge, api_patience: config.embed.api_patience };
    let app = App {
        live: RwLock::new(Arc::new(Live::new(Arc::clone(&cache), tasks.clone(), live))),
        cache,
        registry,
        reloads,
        tenancy: config.tenancy,
        keys,
        traffic: Traffic::new(config.access.limits.clone()),
        secret,
        embedder: model,
        engine,
        degraded,
        tasks,
        idempotency: IdempotencyKeys::default(),
    };
    Ok(Opened { app, metrics, secrets })
}

/// How the cache decides.
pub(super) fn cache_settings(config: &Config) -> CacheSettings {
    let external_dimensions = match config.embed.model {
        EmbedModel::External { dimensions } => Some(dimensions),
        EmbedModel::Local(_) => None,
    };
    CacheSettings { external_dimensions, ..config.cache.clone() }
}

/// How provider paths are served.
pub(super) fn layer_settings(config: &Config, upstream: &Upstream, bodies: Arc<Room>) -> LayerSettings {
    LayerSettings {
        upstream: upstream.resolver(),
        temperature_max: config.temperature_max,
        body_bytes_max: config.serve.body_bytes_max,
        body_patience: config.serve.body_patience,
        bodies,
        answer_bytes_max: config.answer_bytes_max,
        coalesce: config.coalesce,
        coalesce_semantic: config.coalesce_semantic,
        patience: config.embed.proxy_patience,
        replay: config.replay,
        compats: config.compats.clone(),
        figures: config.figures,
        tool_calls: config.tool_calls,
    }
}

/// The store that the configuration names. A folder that cannot be written is no reason not to serve: its entries are
/// served from memory then, and new ones are kept there, unless the operator is strict.
async fn open_store(
    config: &Config,
    clock: &Arc<dyn Clock>,
    degraded: &mut BTreeSet<&'static str>,
) -> Result<Arc<dyn Store>, Failure> {
    match crate::store::open(&config.store, Arc::clone(clock)) {
        Ok(store) => Ok(store),
        Err(error @ OpenStoreError::Locked { .. }) => Err(Failure::temporary(error.to_string())),
        Err(error @ OpenStoreError::Format { .. }) => Err(Failure::data(error.to_string())),
        Err(error) if config.serve.strict => Err(Failure::io(error.to_string())),
        Err(error) => {
            tracing::error!(%error, "the data folder cannot be written: nothing new outlives this process");
            degraded.insert("store");
            Ok(crate::store::open_in_memory(&config.store).await)
        }
    }
}

/// The data folder's secret. Without it no tenant finds what it stored; that is no reason not to serve, unless the
/// operator is strict.
fn open_secret(config: &Config, degraded: &mut BTreeSet<&'static str>) -> Result<Secret, Failure> {
    let folder = &config.data_dir;
    let made = std::fs::create_dir_all(folder);
    let made = made.map_err(|error| format!("data_dir {}: {error}", folder.display()));
    let error = match made.and_then(|()| Secret::open(folder).map_err(|error| error.to_string())) {
        Ok(secret) => return Ok(secret),
        Err(error) if config.serve.strict => return Err(Failure::io(error)),
        Err(error) => error,
    };
    tracing::error!(error, "the tenants' secret is lost: callers with a key begin anew");
    degraded.insert("tenants");
    let renewed = Secret::renew(folder).or_else(|_| Secret::random());
    renewed.map_err(|error| Failure::os(error.to_string()))
}

/// The keys of callers. Where they are lost the server refuses calls with them; it does not start if the operator is
/// strict.
fn open_keys(config: &Config) -> Result<Keys, Failure> {
    let file = KeyFile::new(&config.data_dir);
    if config.serve.strict {
        file.read()?;
    }
    Ok(Keys::open(config.access.keys.clone(), file, config.access.require_keys))
}

/// The embedder that the configuration names; the error says why there is none.
#[cfg(feature = "candle")]
pub(super) fn open_embedder(config: &Config) -> Result<Arc<dyn Embedder>, String> {
    use crate::embed::EmbedSettings;
    use crate::embed::candle::{Hardware, Wanted};

    let EmbedModel::Local(model) = &config.embed.model else { return Err("callers bring their vectors".into()) };
    let (precision, engine) = (config.embed.precision.as_str(), config.embed.engine.as_str());
    let settings = EmbedSettings {
        model: model.clone(),
        models_folder: config.data_dir.join("models"),
        hardware: match config.embed.hardware.as_str() {
            "cuda" => Hardware::Cuda,
            "metal" => Hardware::Metal,
            _ => Hardware::Cpu,
        },
        wanted: Wanted::named(precision, engine).ok_or_else(|| format!("no engine {precision} {engine}"))?,
        workers: config.embed.workers,
        queue_length: config.embed.queue_length,
        memo_bytes: config.embed.memo_bytes,
    };
    crate::embed::open(&settings).map_err(|error| error.to_string())
}

#[cfg(not(feature = "candle"))]
pub(super) fn open_embedder(_: &Config) -> Result<Arc<dyn Embedder>, String> {
    Err("this build has no embedder (feature candle)".into())
}

/// Done when the process is asked to stop.
async fn stop_signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminated) => {
                tokio::select! {
                    _ = interrupted => {}
                    _ = terminated.recv() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM will not be heard");
                drop(interrupted.await);
            }
        }
    }
    #[cfg(not(unix))]
    drop(interrupted.await);
}
