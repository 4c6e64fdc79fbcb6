//! How the layer behaves.

use std::sync::Arc;
use std::time::Duration;

use crate::replay::Pace;
use crate::room::{Reading, Room};
use crate::route::{OneUpstream, Resolve};
use crate::wire::answer::Figures;
use crate::wire::compat::Compats;

/// How the layer behaves.
#[derive(Debug, Clone)]
pub struct LayerSettings {
    /// Which upstream is behind the layer, and its model: answers of one are never served for another.
    pub upstream: Arc<dyn Resolve>,
    /// Above this temperature a request bypasses the cache.
    pub temperature_max: Option<f64>,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Longest wait for its next bytes.
    pub body_patience: Duration,
    /// For all of them that are held at a time.
    pub bodies: Arc<Room>,
    /// Largest answer that is kept.
    pub answer_bytes_max: usize,
    /// Longest that a request waits for its embedding before it goes upstream.
    pub patience: Duration,
    /// Whether identical misses share one call upstream.
    pub coalesce: bool,
    /// Whether misses that are near in meaning wait for the answer to the first of them.
    pub coalesce_semantic: bool,
    /// How fast streamed hits are sent.
    pub replay: Pace,
    /// Products whose headers for their caches are understood.
    pub compats: Compats,
    /// What streamed and plain hits say that they cost.
    pub figures: Figures,
    /// Whether answers to requests with tools in them are kept, calls of tools too; only an equal request is served.
    pub tool_calls: bool,
}

impl LayerSettings {
    /// How large a request body may be, and how slow.
    pub fn reading(&self) -> Reading {
        Reading { bytes_max: self.body_bytes_max, pause_max: self.body_patience }
    }
}

impl Default for LayerSettings {
    /// 32 MiB is Anthropic's own limit, so nothing is refused that a provider would take.
    fn default() -> Self {
        Self {
            upstream: Arc::new(OneUpstream::default()),
            temperature_max: None,
            body_bytes_max: 32 << 20,
            body_patience: Duration::from_secs(30),
            bodies: Arc::new(Room::new(256 << 20)),
            answer_bytes_max: 1 << 20,
            patience: Duration::from_millis(250),
            coalesce: true,
            coalesce_semantic: false,
            replay: Pace::default(),
            compats: Compats::new(),
            figures: Figures::default(),
            tool_calls: false,
        }
    }
}
