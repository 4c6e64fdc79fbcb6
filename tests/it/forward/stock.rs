//! The shapes that people use, with random weights, against candle's own forward of the same file.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use candle_transformers::models::bert::{Config, HiddenAct};
use nearhit::embed::candle::Hardware;
use nearhit::embed::candle::fused::{Engine, Precision, Scratch, Shape};
use nearhit::embed::candle::stock::Stock;
use nearhit::embed::candle::tensors::{PackError, pack};
use nearhit::embed::model::Pooling;

use super::plain::{Random, cosine, random};

#[test]
fn the_shapes_that_people_use_agree_with_candle() {
    // all-MiniLM-L6 and -L12, bge-small, e5-small and gte-small are these two, pooled either way.
    for (layers, pooling) in [(6, Pooling::Mean), (12, Pooling::Mean), (12, Pooling::Cls)] {
        let config = config(384, 12, 1536, layers);
        let weights = file(&config, layers as u64);
        let stock = Stock::load(&weights, &config, pooling, Hardware::Cpu).expect("candle loads it");
        let texts: Vec<Vec<u32>> = [1, 2, 8, 31, 64, 130, 512].iter().map(|length| ids(*length, &config)).collect();
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
