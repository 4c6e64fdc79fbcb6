//! The bundled model, against vectors that another implementation made of the published weights.
//!
//! `golden/make_golden.py` says how they were made. Every test opens the model itself: nothing is shared.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nearhit::decision::{Embedding, Tenant};
use nearhit::embed::candle::fused::{Engine, EngineFamily, Precision};
use nearhit::embed::candle::{Hardware, Wanted, WantedEngine};
use nearhit::embed::model::{BUNDLED_MODEL, Manifest, ModelError, ModelFiles, verify};
use nearhit::embed::{Asker, EmbedError, EmbedSettings, Embedder, open};
use serde::Deserialize;

/// A text with its reference.
#[derive(Deserialize)]
struct Golden {
    text: String,
    /// The two special ones included.
    tokens: usize,
    vector: Vec<f64>,
}

#[tokio::test]
async fn vectors_agree_with_the_reference() {
    let golden = golden();
    assert!(golden.len() >= 200, "{} golden texts", golden.len());
    let lengths = || golden.iter().map(|golden| golden.tokens);
    assert_eq!((lengths().min(), lengths().max()), (Some(2), Some(256)), "from no word to a full window");

    let embedder = embedder(2, golden.len());
    assert!(embedder.model().contains(BUNDLED_MODEL), "{}", embedder.model());
    let texts: Vec<&str> = golden.iter().map(|golden| golden.text.as_str()).collect();
    let embeddings = embedder.embed(&texts, Asker::lookup(&me())).await;
    let mut worst = (1.0, "");
    for (golden, embedding) in golden.iter().zip(embeddings) {
        let embedding = embedding.unwrap_or_else(|error| panic!("{:?}: {error}", golden.text));
        assert_eq!(embedding.dimensions(), embedder.dimensions());
        let cosine = cosine(&embedding, &golden.vector);
        assert!(cosine >= COSINE_LEAST, "cosine {cosine} for {:?}", golden.text);
        if cosine < worst.0 {
            worst = (cosine, &golden.text);
        }
    }
    let start: String = worst.1.chars().take(40).collect();
    println!("{} golden texts, least cosine {:.7} for {start:?}…", golden.len(), worst.0);
}

/// Every engine of this machine, forced. The portable ones would take minutes for all texts: they get the shortest.
#[tokio::test]
async fn every_engine_agrees_with_the_reference() {
    let golden = golden();
    for engine in Engine::ALL.into_iter().filter(|engine| engine.is_available()) {
        let wanted = Wanted { precision: Some(engine.precision()), engine: Some(WantedEngine::Fused(engine.family())) };
        let embedder = open(&EmbedSettings { wanted, ..settings(BUNDLED_MODEL, 2, golden.len()) }).expect("opens");
        assert_eq!(embedder.engine(), format!("candle-fused {}", engine.as_str()));
        let (least, space) = if engine.precision() == Precision::Int8 { (0.97, "int8") } else { (COSINE_LEAST, "f32") };
        assert!(embedder.model().ends_with(&format!("/{space}")), "{} for {engine:?}", embedder.model());
        // Unoptimised, an engine takes minutes for all of them; the one that is chosen by itself takes all elsewhere.
        let is_portable = engine.family() == EngineFamily::Portable;
        let some = golden.iter().filter(|golden| !is_portable || golden.tokens <= 3);
        let golden: Vec<&Golden> = some.step_by(if is_portable { 1 } else { 8 }).collect();
        assert!(golden.len() >= 3, "{} texts", golden.len());
        let embeddings =
            embedder.embed(&golden.iter().map(|g| g.text.as_str()).collect::<Vec<_>>(), Asker::lookup(&me())).await;
        let of_one = |(golden, embedding): (&&Golden, Result<Embedding, EmbedError>)| {
            cosine(&embedding.expect("a vector"), &golden.vector)
        };
        let cosines: Vec<f64> = golden.iter().zip(embeddings).map(of_one).collect();
        let (worst, mean) =
            (cosines.iter().copied().fold(1.0, f64::min), cosines.iter().sum::<f64>() / cosines.len() as f64);
        println!("{}: {} texts, cosine least {worst:.7}, mean {mean:.7}", embedder.engine(), cosines.len());
        // Of texts of one word alone the steps of int8 show more: the mean is held over all texts.
        let mean_least = if engine.family() == EngineFamily::Portable { least } else { 0.996 };
        assert!(worst >= least && mean >= mean_least, "{}: least {worst}, mean {mean}", embedder.engine());
    }
}

/// What no word of the vocabulary covers has a finite unit vector all the same.
#[tokio::test]
async fn odd_texts_have_vectors() {
    let embedder = embedder(1, 8);
    for text in ["", " ", "\u{200b}", "\u{10ffff}\u{e000}", "☃", "a", "\0\u{7}", &"𓀀 ".repeat(200)] {
        let embedding =
            embedder.embed(&[text], Asker::lookup(&me())).await.pop().expect("one result").expect("a vector");
        let norm: f32 = embedding.as_slice().iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{text:?}: {norm}");
    }
}

#[tokio::test]
async fn many_at_once_are_embedded_as_one_by_one() {
    let golden = golden();
    let texts: Vec<&str> = golden.iter().step_by(golden.len() / 64).take(64).map(|g| g.text.as_str()).collect();
    assert_eq!(texts.len(), 64);
    let embedder = embedder(2, 64);
    let at_once = embedder.embed(&texts, Asker::lookup(&me())).await;
    for (text, at_once) in texts.iter().zip(at_once) {
        assert_eq!(embedder.embed(&[text], Asker::lookup(&me())).await, [at_once], "{text:?}");
    }
}

#[tokio::test]
async fn a_text_over_the_window_has_no_vector() {
    let embedder = embedder(1, 8);
    // One token a word, and the two special ones.
    let words = |count: usize| "hello ".repeat(count);
    let embed = async |text: &str| embedder.embed(&[text], Asker::lookup(&me())).await.pop().expect("one result");
    assert!(embed(&words(254)).await.is_ok(), "256 tokens fit");
    let too_long = Err(EmbedError::TooLong { window: 256 });
    assert_eq!(embed(&words(255)).await, too_long);
    // Tokenising these would take far longer than that.
    for bytes in [1 << 20, 32 << 20] {
        let text = "x ".repeat(bytes / 2);
        let started = Instant::now();
        assert_eq!(embed(&text).await, too_long);
        assert!(started.elapsed() < Duration::from_secs(1), "{bytes} bytes took {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let embedder = embedder(1, 1);
    let texts: Vec<String> = (0..64).map(|n| format!("How do I reset password {n}?")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let results = embedder.embed(&texts, Asker::lookup(&me())).await;
    let refused = results.iter().filter(|result| **result == Err(EmbedError::Overloaded)).count();
    let embedded = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(embedded + refused, 64, "{results:?}");
    assert!(embedded >= 1 && refused >= 1, "{embedded} embedded, {refused} refused");
    assert!(embedder.embed(&["hello"], Asker::lookup(&me())).await[0].is_ok(), "and the next one is embedded again");
}

#[tokio::test]
async fn texts_whose_caller_has_gone_cost_nothing() {
    let embedder = embedder(1, 1001);
    let long = "hello ".repeat(250);
    let started = Instant::now();
    assert!(embedder.embed(&[&long], Asker::lookup(&me())).await[0].is_ok());
    let one = started.elapsed();
    let texts: Vec<String> = (0..1000).map(|n| format!("{n} {}", "hello ".repeat(248))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let started = Instant::now();
    assert!(
        tokio::time::timeout(Duration::from_millis(1), embedder.embed(&texts, Asker::lookup(&me()))).await.is_err()
    );
    assert!(embedder.embed(&["hello"], Asker::lookup(&me())).await[0].is_ok());
    // All of them would take a thousand times as long as one. How long one takes depends on what else runs.
    assert!(started.elapsed() < 250 * one, "the abandoned texts were embedded all the same");
}

/// A text that is known, or on its way, is not embedded again.
#[tokio::test]
async fn a_text_is_embedded_once() {
    let settings = EmbedSettings { memo_bytes: 1 << 20, ..settings(BUNDLED_MODEL, 1, 1) };
    let embedder = open(&settings).expect("the bundled model opens");
    let long = "hello ".repeat(250);
    // One place in the queue is enough for all of them.
    let at_once = embedder.embed(&vec![long.as_str(); 1000], Asker::background(&me())).await;
    let started = Instant::now();
    let again = embedder.embed(&vec![long.as_str(); 1000], Asker::lookup(&me())).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(at_once[0].is_ok() && at_once.iter().chain(&again).all(|outcome| *outcome == at_once[0]));
}

#[test]
fn the_shipped_files_are_those_of_the_manifest() {
    let manifest = Manifest::built_in();
    let known = manifest.find(BUNDLED_MODEL).expect("the bundled model is known");
    assert_eq!(verify(&shipped(), BUNDLED_MODEL).expect("every file matches"), known.shipped.len());
    let (read, bundled) = (ModelFiles::read(&shipped()).expect("read"), ModelFiles::bundled().expect("bundled"));
    assert_eq!(read.weights, bundled.weights);
    assert_eq!(read.tokenizer, bundled.tokenizer);
    assert_eq!(read.config, bundled.config);
    assert_eq!((read.window, read.pooling), (bundled.window, bundled.pooling));
    assert_eq!(bundled.window, Some(known.window));
}

#[test]
fn an_altered_file_is_named() {
    let (_folder, copy) = copy();
    for file in shipped_files() {
        let path = copy.join(&file);
        let bytes = std::fs::read(&path).expect("read");
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        std::fs::write(&path, flipped).expect("write");
        match ModelFiles::read(&copy) {
            Err(ModelError::Altered { path: named, expected, found }) => {
                assert_eq!(named, path);
                assert_ne!(expected, found);
            }
            other => panic!("{file}: {:?}", other.err()),
        }
        std::fs::write(&path, bytes).expect("write");
    }
    assert!(ModelFiles::read(&copy).is_ok(), "put right again");
}

#[test]
fn a_missing_file_is_named() {
    let (_folder, copy) = copy();
    for file in shipped_files() {
        let (path, aside) = (copy.join(&file), copy.join("aside"));
        std::fs::rename(&path, &aside).expect("rename");
        match open(&settings(copy.to_str().expect("UTF-8"), 1, 1)).err() {
            Some(error @ ModelError::Unreadable { .. }) => {
                assert!(error.to_string().contains(path.to_str().expect("UTF-8")), "{error}");
            }
            other => panic!("{file}: {other:?}"),
        }
        std::fs::rename(&aside, &path).expect("rename");
    }
}

#[test]
fn an_unknown_model_is_named_beside_the_known_ones() {
    let error = open(&settings("no-such-model", 1, 1)).err().expect("no such model");
    assert!(matches!(error, ModelError::Unknown { .. }));
    let text = error.to_string();
    assert!(text.contains("no-such-model") && text.contains(BUNDLED_MODEL), "{text}");
}

fn golden() -> Vec<Golden> {
    let path = root().join("tests/it/golden/minilm_l6.jsonl.gz");
    let file = std::fs::File::open(path).expect("the golden file");
    let lines = std::io::BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines.map(|line| serde_json::from_str(&line.expect("a line")).expect("a golden text")).collect()
}

fn embedder(workers: usize, queue_length: usize) -> Arc<dyn Embedder> {
    open(&settings(BUNDLED_MODEL, workers, queue_length)).expect("the bundled model opens")
}

fn settings(model: &str, workers: usize, queue_length: usize) -> EmbedSettings {
    let models_folder = PathBuf::from("no-fetched-models");
    EmbedSettings {
        model: model.to_owned(),
        models_folder,
        hardware: Hardware::Cpu,
        wanted: Wanted::default(),
        workers,
        queue_length,
        memo_bytes: 0,
    }
}

/// In f64, so that what is measured is the embedder's rounding alone.
fn cosine(embedding: &Embedding, reference: &[f64]) -> f64 {
    assert_eq!(embedding.dimensions(), reference.len());
    let own = || embedding.as_slice().iter().map(|v| f64::from(*v));
    let dot: f64 = own().zip(reference).map(|(a, b)| a * b).sum();
    let (a, b) = (own().map(|v| v * v).sum::<f64>(), reference.iter().map(|v| v * v).sum::<f64>());
    dot / (a * b).sqrt()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> PathBuf {
    root().join("models").join(BUNDLED_MODEL)
}

fn shipped_files() -> Vec<String> {
    let manifest = Manifest::built_in();
    manifest.find(BUNDLED_MODEL).expect("the bundled model is known").shipped.keys().cloned().collect()
}

/// A copy of the shipped files under the model's name, and the temporary folder that it is in.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join(BUNDLED_MODEL);
    for file in shipped_files() {
        let to = copy.join(&file);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
        std::fs::copy(shipped().join(&file), to).expect("copy");
    }
    (folder, copy)
}

/// What rounding the weights to f16 may cost; 0.999998 was measured.
const COSINE_LEAST: f64 = 0.9999;

fn me() -> Tenant {
    Tenant::new("me")
}
