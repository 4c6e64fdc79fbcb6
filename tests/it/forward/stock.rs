//! The shapes that people use, with random weights, against candle's own forward of the same file.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use candle_transformers::models::bert::{Config, HiddenAct};
use nearhit::decision::Tenant;
use nearhit::embed::candle::fused::{Engine, Precision, Scratch, Shape};
use nearhit::embed::candle::stock::Stock;
use nearhit::embed::candle::tensors::{PackError, pack};
use nearhit::embed::candle::{Hardware, Wanted};
use nearhit::embed::model::{BUNDLED_MODEL, Pooling};
use nearhit::embed::{Asker, EmbedSettings, open};
use serde_json::json;

use super::plain::{Random, cosine, random};

#[test]
fn the_shapes_that_people_use_agree_with_candle() {
    // all-MiniLM-L6 and -L12, bge-small, e5-small and gte-small are these two, pooled either way.
    for (layers, pooling, longest) in [(6, Pooling::Mean, 512), (12, Pooling::Mean, 70), (12, Pooling::Cls, 33)] {
        let config = config(384, 12, 1536, layers);
        let weights = file(&config, layers as u64);
        let stock = Stock::load(&weights, &config, pooling, Hardware::Cpu).expect("candle loads it");
        let texts: Vec<Vec<u32>> = [1, 2, 8, 31, longest].iter().map(|length| ids(*length, &config)).collect();
        let expected: Vec<Vec<f64>> = texts.iter().map(|ids| wide(&stock.forward(ids).expect("a vector"))).collect();
        for engine in fast() {
            let packed = pack(&weights, &config, pooling, engine).expect("packed");
            let mut scratch = Scratch::new(&packed);
            let least = if engine.precision() == Precision::F32 { 0.999_999 } else { 0.99 };
            for (ids, expected) in texts.iter().zip(&expected) {
                let vector = packed.embed(&mut scratch, ids).expect("a vector");
                let cosine = cosine(&vector, expected);
                assert!(cosine >= least, "{} {layers} layers, {} tokens: {cosine}", engine.as_str(), ids.len());
            }
        }
    }
}

/// Tensors may be named with the model's kind before them, and LayerNorm's as in older files.
#[test]
fn older_names_are_known() {
    let config = config(64, 2, 128, 2);
    let file = file(&config, 1);
    let own = candle_core::safetensors::load_buffer(&file, &Device::Cpu).expect("tensors");
    let rename = |from: &str| match from {
        name if name.ends_with("LayerNorm.weight") => name.replace("LayerNorm.weight", "LayerNorm.gamma"),
        name => name.replace("LayerNorm.bias", "LayerNorm.beta"),
    };
    let older = save(&own.iter().map(|(name, tensor)| (format!("bert.{}", rename(name)), tensor.clone())).collect());
    let [own, older] = [&file, &older].map(|file| {
        let packed = pack(file, &config, Pooling::Mean, Engine::PortableF32).expect("packed");
        packed.embed(&mut Scratch::new(&packed), &[1, 2, 3]).expect("a vector")
    });
    assert_eq!(own, older);
}

#[test]
fn what_the_forward_does_not_know_is_named() {
    #[track_caller]
    fn check(config: &Config, word: &str) {
        let error = pack(&file(config, 2), config, Pooling::Mean, Engine::PortableF32).err().expect("refused");
        assert!(matches!(&error, PackError::Weights(_)) && error.to_string().contains(word), "{error}");
    }
    check(&config(96, 3, 128, 1), "hidden size");
    check(&config(64, 4, 128, 1), "heads");
    check(&Config { hidden_act: HiddenAct::Relu, ..config(64, 2, 128, 1) }, "GELU");
    let broken = pack(b"no file", &config(64, 2, 128, 1), Pooling::Mean, Engine::PortableF32);
    assert!(matches!(broken.err(), Some(PackError::File(_))));
}

/// Asked for nothing, it runs on candle and says why; asked for an engine by name, it is refused.
#[tokio::test]
async fn a_model_that_the_forward_does_not_know_runs_on_candle() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(BUNDLED_MODEL);
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { vocab_size: 30522, ..config(48, 3, 64, 1) };
    let written = json!({
        "vocab_size": 30522, "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 64,
        "num_hidden_layers": 1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "max_position_embeddings": 512,
        "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    });
    std::fs::write(folder.path().join("model.safetensors"), file(&config, 3)).expect("written");
    std::fs::write(folder.path().join("config.json"), written.to_string()).expect("written");
    std::fs::copy(shipped.join("tokenizer.json"), folder.path().join("tokenizer.json")).expect("copied");
    let settings = |wanted| EmbedSettings {
        model: folder.path().to_str().expect("UTF-8").to_owned(),
        models_folder: "none".into(),
        hardware: Hardware::Cpu,
        wanted,
        workers: 1,
        queue_length: 1,
        memo_bytes: 0,
    };
    let embedder = open(&settings(Wanted::default())).expect("candle knows it");
    let engine = embedder.engine();
    assert!(engine == "candle f32 cpu" || engine.starts_with("candle f32 cpu (not fused: the hidden size"), "{engine}");
    let vector = embedder.embed(&["hello"], Asker::lookup(&me())).await.pop().expect("one").expect("a vector");
    assert_eq!(vector.dimensions(), 48);
    let portable = Wanted::named("f32", "portable").expect("known words");
    let refused = open(&settings(portable)).err().expect("refused").to_string();
    assert!(refused.contains("hidden size"), "{refused}");
}

fn config(hidden: usize, heads: usize, inner: usize, layers: usize) -> Config {
    Config {
        vocab_size: 200,
        hidden_size: hidden,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: inner,
        ..Config::default()
    }
}

fn file(config: &Config, seed: u64) -> Vec<u8> {
    let shape = Shape {
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        inner: config.intermediate_size,
        layers: config.num_hidden_layers,
        norm_epsilon: config.layer_norm_eps as f32,
    };
    let tensors = random(&shape, seed).into_iter();
    save(
        &tensors
            .map(|(name, (shape, values))| (name, Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")))
            .collect(),
    )
}

fn save(tensors: &HashMap<String, Tensor>) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    candle_core::safetensors::save(tensors, &path).expect("saved");
    std::fs::read(path).expect("read")
}

/// All but the portable ones, which the plain formula is held against on small models: here they would take minutes.
fn fast() -> impl Iterator<Item = Engine> {
    Engine::ALL.into_iter().filter(|engine| engine.is_available() && !engine.as_str().ends_with("portable"))
}

fn ids(length: usize, config: &Config) -> Vec<u32> {
    let mut random = Random(length as u64);
    (0..length).map(|_| (random.next() % config.vocab_size as u64) as u32).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn me() -> Tenant {
    Tenant::new("me")
}
