//! A running server takes up another configuration: on SIGHUP, and when it is asked to over HTTP.
//!
//! Everything that can fail is tried before anything is put in force. What only a start takes up is refused, with every
//! key that asks for it, and then nothing else is taken up either.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::judge::{judge_key, open_judge};
use super::keys::read_provider_keys;
use super::serve::{cache_settings, layer_settings};
use super::settings::ServeArgs;
use crate::config::{Config, Written};
use crate::metrics::ConfigMetrics;
use crate::server::{App, Change, LiveSettings, Reload, ReloadRefused, Reloaded};
use crate::upstream::ProviderKey;

/// What is in force, and from where to read what may take its place.
pub(super) struct Reloader {
    pub(super) args: ServeArgs,
    pub(super) app: Arc<App>,
    pub(super) in_force: InForce,
    pub(super) metrics: ConfigMetrics,
}

/// A configuration with everything that it names.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) written: Written,
    pub(super) secrets: Secrets,
}

/// Keys with which nearhit calls others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secrets {
    /// By the upstream's name.
    pub(super) providers: HashMap<String, ProviderKey>,
    pub(super) judge: Option<ProviderKey>,
}

impl Reloader {
    /// Reloads whenever it is asked to, one after another, as long as somebody may ask.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Reload>, mut hangups: mpsc::Receiver<()>) {
        loop {
            tokio::select! {
                reload = asked.recv() => {
                    let Some(Reload { answer }) = reload else { return };
                    if answer.send(self.reload().await).is_err() {
                        tracing::debug!("whoever asked for another configuration is gone");
                    }
                }
                Some(()) = hangups.recv() => drop(self.reload().await),
            }
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, ReloadRefused> {
        let result = self.take_up().await;
        match &result {
            Ok(Reloaded { changed }) if changed.is_empty() => {
                self.metrics.reloaded("unchanged");
                tracing::info!("the configuration is as before");
            }
            Ok(Reloaded { changed }) => {
                self.metrics.reloaded("applied");
                self.metrics.is_in_force();
                tracing::info!(?changed, "took up another configuration");
            }
            Err(ReloadRefused(problems)) => {
                self.metrics.reloaded("refused");
                tracing::error!(problems, "refused another configuration: the one in force goes on");
            }
        }
        result
    }

    async fn take_up(&mut self) -> Result<Reloaded, ReloadRefused> {
        let args = self.args.clone();
        // Files may be on slow disks.
        let read = tokio::task::spawn_blocking(move || InForce::read(&args)).await;
        let next = read.map_err(|error| ReloadRefused(error.to_string()))??;
        let changed = self.in_force.differences(&next);
        if changed.is_empty() {
            self.in_force = next;
            return Ok(Reloaded { changed });
        }
        let fixed = self.in_force.config.needs_restart(&next.config);
        if !fixed.is_empty() {
            let line = |key: &String| format!("{key}: needs a restart");
            return Err(ReloadRefused(fixed.iter().map(line).collect::<Vec<_>>().join("\n")));
        }
        let change = self.change(&next).map_err(ReloadRefused)?;
        let app = Arc::clone(&self.app);
        let put = tokio::task::spawn_blocking(move || app.put_in_force(change)).await;
        put.map_err(|error| error.to_string())
            .and_then(|result| result.map_err(|error| error.to_string()))
            .map_err(ReloadRefused)?;
        self.in_force = next;
        Ok(Reloaded { changed })
    }

    fn change(&self, next: &InForce) -> Result<Change, String> {
        let InForce { config, written: _, secrets } = next;
        let before = self.app.live();
        let before = before.settings();
        let upstream = before.upstream.renewed(config.upstream.clone(), &secrets.providers);
        let upstream = upstream.map_err(|error| format!("TLS: {error}"))?;
        let is_same_judge = config.judge == self.in_force.config.judge && secrets.judge == self.in_force.secrets.judge;
        let judge = match (&config.judge, &before.judge) {
            (Some(_), Some(judge)) if is_same_judge => Some(Arc::clone(judge)),
            (Some(settings), _) => Some(Arc::new(open_judge(settings, secrets.judge.as_ref())?)),
            (None, _) => None,
        };
        let savings = before.savings.renewed(config.savings.clone());
        let layer = layer_settings(config, &upstream, Arc::clone(&before.layer.bodies));
        Ok(Change {
            keys: config.access.keys.clone(),
            require_keys: config.access.require_keys,
            limits: config.access.limits.clone(),
            cache: cache_settings(config),
            live: LiveSettings { layer, upstream, savings, judge, api_patience: config.embed.api_patience },
        })
    }
}

impl InForce {
    /// The configuration as it is now in the file, with the flags over it.
    fn read(args: &ServeArgs) -> Result<Self, ReloadRefused> {
        let (config, written) = args.read().map_err(|failure| ReloadRefused(failure.to_string()))?;
        let (providers, mut problems) = read_provider_keys(&config.upstream);
        let judge = config.judge.as_ref().and_then(judge_key).transpose();
        let judge = judge.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if !problems.is_empty() {
            return Err(ReloadRefused(problems.join("\n")));
        }
        Ok(Self { config, written, secrets: Secrets { providers, judge } })
    }

    /// The keys of the configuration that say something else in `next`, and whose keys for providers are others; none
    /// where all of it amounts to the same.
    fn differences(&self, next: &Self) -> Vec<String> {
        let Self { config, written, secrets: Secrets { providers, judge } } = self;
        let mut changed = if *config == next.config { Vec::new() } else { written.differences(&next.written) };
        let mut names: Vec<&String> = providers.keys().chain(next.secrets.providers.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let differs = |name: &&String| providers.get(*name) != next.secrets.providers.get(*name);
        changed.extend(names.into_iter().filter(differs).map(|name| format!("the key of upstream {name:?}")));
        changed.extend((*judge != next.secrets.judge).then(|| "the judge's key".to_owned()));
        changed
    }
}

/// Something for each SIGHUP from now on, which would end the process otherwise.
pub(super) fn hangups() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    #[cfg(unix)]
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(mut signals) => {
            drop(tokio::spawn(async move { while signals.recv().await.is_some() && sender.send(()).await.is_ok() {} }))
        }
        Err(error) => tracing::warn!(%error, "SIGHUP will not be heard"),
    }
    #[cfg(not(unix))]
    drop(sender);
    receiver
}
