//! What of a running server can be put in force anew, while calls are on their way.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::App;
use super::keys::{KeyRecord, KeysUnread};
use super::limits::TenantLimits;
use super::proxy::{self, Proxy};
use crate::cache::{Cache, CacheSettings};
use crate::judge::PacedJudge;
use crate::layer::{CacheLayer, LayerSettings};
#[cfg(feature = "grpc")]
use crate::replay::Pace;
use crate::savings::Savings;
use crate::upstream::Upstream;

/// How calls are answered. A call goes on with what was in force when it came.
pub struct Live {
    /// The provider paths: the cache around the upstreams.
    pub(super) proxy: Proxy,
    settings: LiveSettings,
    cache: CacheLayer,
}

/// What it is made from.
#[derive(Clone)]
pub struct LiveSettings {
    pub layer: LayerSettings,
    pub upstream: Upstream,
    /// What is done to requests and streams, so that they cost less.
    pub savings: Savings,
    /// The model that judges answers, where one is named.
    pub judge: Option<Arc<PacedJudge>>,
    /// Longest that a search through the cache API waits for its embedding.
    pub api_patience: Duration,
}

/// Everything that is put in force at once.
pub struct Change {
    /// Keys that do not lie in the data folder.
    pub keys: Vec<KeyRecord>,
    /// Calls need a key, also if there is none.
    pub require_keys: bool,
    pub limits: TenantLimits,
    pub cache: CacheSettings,
    pub live: LiveSettings,
}

impl Live {
    /// `tasks` runs what goes on after its request was answered.
    pub fn new(cache: Arc<Cache>, tasks: TaskTracker, settings: LiveSettings) -> Self {
        let LiveSettings { layer, judge, .. } = &settings;
        Self::over(CacheLayer::with_judge(cache, layer.clone(), tasks, judge.clone()), settings)
    }

    pub fn settings(&self) -> &LiveSettings {
        &self.settings
    }

    /// The cache around somebody else's way to the provider, one call at a time.
    #[cfg(feature = "grpc")]
    pub(super) fn around_one(&self) -> CacheLayer {
        let LiveSettings { layer, judge, .. } = &self.settings;
        let settings = LayerSettings {
            coalesce: false,
            coalesce_semantic: false,
            replay: Pace::AsFastAsPossible,
            ..layer.clone()
        };
        self.cache.renewed(settings, judge.clone())
    }

    fn renewed(&self, settings: LiveSettings) -> Self {
        let LiveSettings { layer, judge, .. } = &settings;
        Self::over(self.cache.renewed(layer.clone(), judge.clone()), settings)
    }

    fn over(cache: CacheLayer, settings: LiveSettings) -> Self {
        Self { proxy: proxy::service(&cache, &settings.upstream, &settings.savings), settings, cache }
    }
}

impl App {
    /// What is in force now.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read())
    }

    /// Puts another configuration in force, all of it or nothing. It reads the disk.
    ///
    /// # Errors
    /// The keys in the data folder cannot be read just now; nothing changed.
    pub fn put_in_force(&self, change: Change) -> Result<(), KeysUnread> {
        let Change { keys, require_keys, limits, cache, live } = change;
        // Whoever lost a right has lost it before anything else is allowed.
        self.keys.configure(keys, require_keys)?;
        self.traffic.limit(limits);
        self.cache.set(cache);
        let before = self.live();
        let after = Arc::new(before.renewed(live));
        *self.live.write() = Arc::clone(&after);
        before.settings.upstream.retire(&after.settings.upstream);
        Ok(())
    }
}
