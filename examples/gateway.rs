//! The cache as a tower layer in a gateway of one's own, here axum's router around nearhit's own HTTP client.
//!
//! `cargo run --release --example gateway`, then give a client the base URL `http://127.0.0.1:8090/v1`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use axum::{Extension, Router, routing::get};
use nearhit::cache::{Cache, CacheSettings, Parts};
use nearhit::decision::Tenant;
use nearhit::layer::{CacheLayer, LayerSettings};
use nearhit::upstream::{Upstream, UpstreamSettings};
use nearhit::{clock::SystemClock, embed::Embedder, metrics::Registry, store::memory::MemoryStore};
use tokio_util::task::TaskTracker;
use tower_layer::Layer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let parts =
        Parts { store: Arc::new(MemoryStore::default()), embedder: embedder()?, clock: Arc::new(SystemClock::start()) };
    let cache = Arc::new(Cache::new(parts, CacheSettings::default(), &mut Registry::default()));
    let upstream = Upstream::new(UpstreamSettings::default(), &HashMap::new(), &mut Registry::default())?;
    let storing = TaskTracker::new();
    let settings = LayerSettings { upstream: upstream.resolver(), ..LayerSettings::default() };
    let cached = CacheLayer::new(cache, settings, storing.clone()).layer(upstream);
    // Whose entries a request may use is the gateway's to say: here everybody shares them.
    let tenant = Extension(Tenant::new("everybody"));
    let routes = Router::new().route("/healthz", get("ok\n")).fallback_service(cached).layer(tenant);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8090").await?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, routes).with_graceful_shutdown(stop).await?;
    storing.close();
    storing.wait().await; // answers that were sent are stored before the process goes
    Ok(())
}

/// Without an embedder only exact repeats are found.
#[cfg(not(feature = "candle"))]
fn embedder() -> Result<Option<Arc<dyn Embedder>>, Box<dyn Error>> {
    Ok(None)
}

#[cfg(feature = "candle")]
fn embedder() -> Result<Option<Arc<dyn Embedder>>, Box<dyn Error>> {
    use nearhit::embed::{
        EmbedSettings,
        candle::{Hardware, Wanted},
        model::BUNDLED_MODEL,
        open,
    };
    let (model, models_folder) = (BUNDLED_MODEL.to_owned(), "models".into());
    let settings = EmbedSettings {
        model,
        models_folder,
        hardware: Hardware::Cpu,
        wanted: Wanted::default(),
        workers: 2,
        queue_length: 1024,
        memo_bytes: 32 << 20,
    };
    Ok(Some(open(&settings)?))
}
