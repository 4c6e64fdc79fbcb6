//! Opens the embedder that the settings name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Embedder;
use super::candle::{CandleEmbedder, CandleSettings, Hardware, Wanted};
use super::model::{Manifest, ModelError, ModelFiles};

/// Which embedder, and how it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedSettings {
    /// The name of a bundled or fetched model, or a folder.
    pub model: String,
    /// Where fetched models are kept.
    pub models_folder: PathBuf,
    pub hardware: Hardware,
    /// What computes there.
    pub wanted: Wanted,
    /// Texts embedded at a time; each has a thread of its own.
    pub workers: usize,
    /// Texts that may wait in each of the two queues before more are refused.
    pub queue_length: usize,
    /// Bytes of vectors kept for texts that come again; 0 keeps none.
    pub memo_bytes: usize,
}

/// # Errors
/// The model is unknown, altered, or of a kind that cannot be loaded.
pub fn open(settings: &EmbedSettings) -> Result<Arc<dyn Embedder>, OpenEmbedderError> {
    let files = find(settings)?;
    let EmbedSettings { model: _, models_folder: _, hardware, wanted, workers, queue_length, memo_bytes } = settings;
    let candle = CandleSettings {
        hardware: *hardware,
        wanted: *wanted,
        workers: *workers,
        queue_length: *queue_length,
        memo_bytes: *memo_bytes,
    };
    Ok(Arc::new(CandleEmbedder::start(&files, &candle)?))
}

/// A folder of that path; else the bundled model of that name; else a fetched one.
fn find(settings: &EmbedSettings) -> Result<ModelFiles, ModelError> {
    let folder = Path::new(&settings.model);
    if folder.is_dir() {
        return ModelFiles::read(folder);
    }
    #[cfg(feature = "bundled-model")]
    if settings.model == super::model::BUNDLED_MODEL {
        return ModelFiles::bundled();
    }
    let fetched = settings.models_folder.join(&settings.model);
    if fetched.is_dir() {
        return ModelFiles::read(&fetched);
    }
    let known: Vec<String> = Manifest::built_in().models.into_iter().map(|model| model.name).collect();
    Err(ModelError::Unknown { name: settings.model.clone(), known: known.join(", ") })
}

/// Why no embedder runs.
pub type OpenEmbedderError = ModelError;
