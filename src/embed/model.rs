//! The files of an embedding model: where they come from, and that they are what they should be.
//!
//! A model is a folder as sentence-transformers writes it. The ones that nearhit knows are listed in
//! `models/manifest.toml` with the checksum of every file; a folder of a known name, or one with a `manifest.toml`
//! of its own, is used only if every file matches.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The models that nearhit knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(rename = "model")]
    pub models: Vec<KnownModel>,
}

/// A model with its checksums.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    pub name: String,
    /// Length of a vector.
    pub dimensions: usize,
    /// Longest text in tokens, the two special ones included.
    pub window: usize,
    pub licence: String,
    /// Hub repository that publishes it.
    pub repository: String,
    /// Checksums (sha256, hex) of the files as published, by path within the repository.
    pub published: BTreeMap<String, String>,
    /// Checksums (sha256, hex) of the files as nearhit ships them, by path within the folder; empty if it does not.
    #[serde(default)]
    pub shipped: BTreeMap<String, String>,
}

impl Manifest {
    /// The manifest that this binary was built with.
    #[expect(clippy::expect_used, reason = "the file is part of the binary, and a test reads it")]
    pub fn built_in() -> Self {
        toml::from_str(include_str!("../../models/manifest.toml")).expect("models/manifest.toml is checked by a test")
    }

    pub fn find(&self, name: &str) -> Option<&KnownModel> {
        self.models.iter().find(|model| model.name == name)
    }
}

/// How the token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's.
    Cls,
}

/// A model's files, in memory.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    pub name: String,
    pub weights: Cow<'static, [u8]>,
    pub tokenizer: Cow<'static, [u8]>,
    pub config: Cow<'static, [u8]>,
    /// Longest text in tokens, where the folder says so.
    pub window: Option<usize>,
    pub pooling: Pooling,
}

impl ModelFiles {
    /// The model inside this binary.
    #[cfg(feature = "bundled-model")]
    pub fn bundled() -> Result<Self, ModelError> {
        const WEIGHTS: &[u8] = include_bytes!("../../models/all-MiniLM-L6-v2/model.safetensors");
        const TOKENIZER: &[u8] = include_bytes!("../../models/all-MiniLM-L6-v2/tokenizer.json");
        const CONFIG: &[u8] = include_bytes!("../../models/all-MiniLM-L6-v2/config.json");
        const WINDOW: &[u8] = include_bytes!("../../models/all-MiniLM-L6-v2/sentence_bert_config.json");
        const POOLING: &[u8] = include_bytes!("../../models/all-MiniLM-L6-v2/1_Pooling/config.json");
        let folder = Path::new(BUNDLED_MODEL);
        Ok(Self {
            name: BUNDLED_MODEL.to_owned(),
            weights: WEIGHTS.into(),
            tokenizer: TOKENIZER.into(),
            config: CONFIG.into(),
            window: read_window(folder, Some(WINDOW))?,
            pooling: read_pooling(folder, Some(POOLING))?,
        })
    }

    /// Reads a folder, and checks it if its checksums are known.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or does not match its checksum; the error names it.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
        verify(folder, &name)?;
        let required = |file: &str| {
            let path = folder.join(file);
            std::fs::read(&path).map_err(|source| ModelError::Unreadable { path, source })
        };
        Ok(Self {
            weights: required("model.safetensors")?.into(),
            tokenizer: required("tokenizer.json")?.into(),
            config: required("config.json")?.into(),
            window: read_window(folder, std::fs::read(folder.join("sentence_bert_config.json")).ok().as_deref())?,
            pooling: read_pooling(folder, std::fs::read(folder.join("1_Pooling/config.json")).ok().as_deref())?,
            name,
        })
    }
}

/// Checks every file of the folder that has a known checksum. Returns how many were checked.
///
/// # Errors
/// A listed file is missing, or does not match.
pub fn verify(folder: &Path, name: &str) -> Result<usize, ModelError> {
    let own = folder.join("manifest.toml");
    let manifest = match std::fs::read_to_string(&own) {
        Ok(text) => {
            toml::from_str(&text).map_err(|error| ModelError::Invalid { path: own, cause: error.to_string() })?
        }
        Err(_) => Manifest::built_in(),
    };
    let Some(known) = manifest.find(name) else { return Ok(0) };
    // A folder fetched from the hub holds the published files, a copy of ours the shipped ones.
    let weights = folder.join("model.safetensors");
    let found = checksum(&weights)?;
    let is_published = known.published.get("model.safetensors") == Some(&found);
    let files = if is_published || known.shipped.is_empty() { &known.published } else { &known.shipped };
    for (file, expected) in files {
        let path = folder.join(file);
        let found = if *file == "model.safetensors" { found.clone() } else { checksum(&path)? };
        if found != *expected {
            return Err(ModelError::Altered { path, expected: expected.clone(), found });
        }
    }
    Ok(files.len())
}

fn checksum(path: &Path) -> Result<String, ModelError> {
    let bytes = std::fs::read(path).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })?;
    Ok(sha256(&bytes))
}

/// The sha256 of `bytes` in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_window(folder: &Path, file: Option<&[u8]>) -> Result<Option<usize>, ModelError> {
    #[derive(Deserialize)]
    struct SentenceBert {
        max_seq_length: Option<usize>,
    }
    let parsed: Option<SentenceBert> = parse(folder, "sentence_bert_config.json", file)?;
    Ok(parsed.and_then(|config| config.max_seq_length))
}

fn read_pooling(folder: &Path, file: Option<&[u8]>) -> Result<Pooling, ModelError> {
    let parsed: Option<BTreeMap<String, serde_json::Value>> = parse(folder, "1_Pooling/config.json", file)?;
    let modes = parsed.unwrap_or_default();
    let chosen: Vec<&str> = modes
        .iter()
        .filter(|(name, on)| name.starts_with("pooling_mode_") && **on == serde_json::Value::Bool(true))
        .map(|(name, _)| name.as_str())
        .collect();
    match chosen.as_slice() {
        [] | ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        other => {
            let cause = format!("only mean and cls pooling are known, got {}", other.join(" and "));
            Err(ModelError::Invalid { path: folder.join("1_Pooling/config.json"), cause })
        }
    }
}

fn parse<T: for<'a> Deserialize<'a>>(folder: &Path, name: &str, file: Option<&[u8]>) -> Result<Option<T>, ModelError> {
    let invalid = |error: serde_json::Error| ModelError::Invalid { path: folder.join(name), cause: error.to_string() };
    file.map(|bytes| serde_json::from_slice(bytes).map_err(invalid)).transpose()
}

/// The model that the default build carries.
pub const BUNDLED_MODEL: &str = "all-MiniLM-L6-v2";

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("model file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("model file {} was altered: its sha256 is {found}, expected {expected}", path.display())]
    Altered { path: PathBuf, expected: String, found: String },
    #[error("model file {} is not valid: {cause}", path.display())]
    Invalid { path: PathBuf, cause: String },
    #[error("no model named {name:?}: not a folder, not bundled, and not fetched (known: {known})")]
    Unknown { name: String, known: String },
    #[error("model {name:?} cannot be loaded: {cause}")]
    Unusable { name: String, cause: String },
}
