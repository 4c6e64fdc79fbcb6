//! `nearhit model`: which embedding models are there, are they intact, and fetching one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use super::settings::read_config;
use crate::embed::Embedder;
use crate::embed::candle::{CandleEmbedder, CandleSettings, Hardware, Wanted};
use crate::embed::model::{KnownModel, Manifest, ModelError, ModelFiles, sha256, verify};

#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// Where fetched models are kept [default: models in the data folder].
    #[arg(long, env = "NEARHIT_MODELS_DIR", global = true, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// The models that nearhit knows, and which are here.
    List,
    /// Check a model's files against their checksums, and load it.
    Verify {
        /// A known model's name, or a folder.
        #[arg(default_value = "all-MiniLM-L6-v2")]
        model: String,
        /// What vectors are computed in: auto, f32, bf16 or int8.
        #[arg(long, env = "NEARHIT_EMBED_PRECISION", default_value = "auto", value_name = "PRECISION")]
        embed_precision: String,
        /// What computes them: auto, amx, avx512, avx2, neon, portable or candle.
        #[arg(long, env = "NEARHIT_EMBED_ENGINE", default_value = "auto", value_name = "ENGINE")]
        embed_engine: String,
    },
    /// Fetch a known model from the hub.
    Fetch { name: String },
}

pub(super) fn run(args: &ModelArgs) -> Result<(), Failure> {
    let folder = match &args.models_dir {
        Some(folder) => folder.clone(),
        None => read_config(None, &[])?.data_dir.join("models"),
    };
    match &args.command {
        ModelCommand::List => list(&folder),
        ModelCommand::Verify { model, embed_precision, embed_engine } => {
            let wanted = Wanted::named(embed_precision, embed_engine);
            let unknown = || Failure::usage(format!("no engine {embed_precision} {embed_engine}; see --help"));
            verify_model(&folder, model, wanted.ok_or_else(unknown)?)
        }
        ModelCommand::Fetch { name } => fetch(&folder, name),
    }
}

fn list(folder: &Path) -> Result<(), Failure> {
    for KnownModel { name, dimensions, window, licence, .. } in Manifest::built_in().models {
        let place = match (is_bundled(&name), folder.join(&name)) {
            (true, _) => "bundled".to_owned(),
            (false, path) if path.is_dir() => path.display().to_string(),
            (false, _) => "not here; nearhit model fetch".to_owned(),
        };
        println!("{name}\t{dimensions} dimensions\twindow {window}\t{licence}\t{place}");
    }
    Ok(())
}

fn verify_model(folder: &Path, model: &str, wanted: Wanted) -> Result<(), Failure> {
    let path = if Path::new(model).is_dir() { PathBuf::from(model) } else { folder.join(model) };
    let (files, checked) = if path.is_dir() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let checked = verify(&path, &name).map_err(failure)?;
        (ModelFiles::read(&path).map_err(failure)?, checked)
    } else {
        bundled(model)?
    };
    let settings = CandleSettings { hardware: Hardware::Cpu, wanted, workers: 1, queue_length: 1, memo_bytes: 0 };
    let embedder = CandleEmbedder::start(&files, &settings).map_err(failure)?;
    let (dimensions, window) = (embedder.dimensions(), embedder.window());
    println!(
        "{}: {checked} files match; {dimensions} dimensions, window {window}; engine {}",
        embedder.model(),
        embedder.engine()
    );
    Ok(())
}

#[cfg(feature = "bundled-model")]
fn bundled(model: &str) -> Result<(ModelFiles, usize), Failure> {
    let manifest = Manifest::built_in();
    let Some(known) = manifest.find(model).filter(|known| is_bundled(&known.name)) else { return Err(unknown(model)) };
    let files = ModelFiles::bundled().map_err(failure)?;
    let parts =
        [("model.safetensors", &files.weights), ("tokenizer.json", &files.tokenizer), ("config.json", &files.config)];
    for (file, bytes) in &parts {
        let found = sha256(bytes);
        let expected = known.shipped.get(*file).cloned().unwrap_or_default();
        if found != expected {
            return Err(failure(ModelError::Altered { path: PathBuf::from(file), expected, found }));
        }
    }
    let checked = parts.len();
    Ok((files, checked))
}

#[cfg(not(feature = "bundled-model"))]
fn bundled(model: &str) -> Result<(ModelFiles, usize), Failure> {
    Err(unknown(model))
}

fn fetch(folder: &Path, name: &str) -> Result<(), Failure> {
    let manifest = Manifest::built_in();
    let known = manifest.find(name).ok_or_else(|| unknown(name))?;
    let unreachable = |error: hf_hub::api::sync::ApiError| {
        Failure::unavailable(format!(
            "could not fetch {} from the hub: {error} (is this machine offline?)",
            known.repository
        ))
    };
    let api = hf_hub::api::sync::ApiBuilder::from_env().with_progress(true).build().map_err(unreachable)?;
    let repository = api.model(known.repository.clone());
    let target = folder.join(name);
    let failed = |error: std::io::Error| Failure::io(format!("{}: {error}", target.display()));
    // Complete or not there: a half-fetched model must not be found later.
    let partial = folder.join(format!(".{name}.partial"));
    for (file, expected) in &known.published {
        let bytes = std::fs::read(repository.get(file).map_err(unreachable)?).map_err(failed)?;
        let found = sha256(&bytes);
        if found != *expected {
            return Err(failure(ModelError::Altered { path: PathBuf::from(file), expected: expected.clone(), found }));
        }
        let path = partial.join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(&partial)).map_err(failed)?;
        std::fs::write(path, bytes).map_err(failed)?;
    }
    if target.is_dir() {
        std::fs::remove_dir_all(&target).map_err(failed)?;
    }
    std::fs::rename(&partial, &target).map_err(failed)?;
    println!("{name}: {} files in {}", known.published.len(), target.display());
    Ok(())
}

fn is_bundled(name: &str) -> bool {
    cfg!(feature = "bundled-model") && name == crate::embed::model::BUNDLED_MODEL
}

fn unknown(name: &str) -> Failure {
    let known: Vec<String> = Manifest::built_in().models.into_iter().map(|model| model.name).collect();
    Failure::usage(format!("no model named {name:?}; known: {}", known.join(", ")))
}

fn failure(error: ModelError) -> Failure {
    match error {
        ModelError::Unreadable { .. } => Failure::no_input(error.to_string()),
        ModelError::Altered { .. } | ModelError::Invalid { .. } | ModelError::Unusable { .. } => {
            Failure::config(error.to_string())
        }
        ModelError::Unknown { .. } => Failure::usage(error.to_string()),
    }
}
