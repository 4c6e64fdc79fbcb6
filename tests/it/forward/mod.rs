//! The fused forward: every engine of this machine against the plain formula, on small models with random weights, and
//! against candle's own on the shapes that people use.

mod plain;
mod stock;

use nearhit::embed::candle::fused::{Engine, InputError, Precision, Scratch, Shape, Weights, WeightsError};
use nearhit::embed::model::Pooling;
use proptest::prelude::*;

use self::plain::{Random, Tensors, cosine, plain, random, random_of};

const SMALL: Shape =
    Shape { vocabulary: 50, positions: 512, hidden: 64, heads: 2, inner: 128, layers: 2, norm_epsilon: 1e-12 };

#[test]
fn every_shape_agrees_with_the_plain_forward() {
    let shapes = [
        (64, 2, 128, 2),
        (64, 1, 64, 1),
        (128, 4, 192, 2),
        (128, 2, 512, 3),
        (192, 6, 320, 1),
        (320, 5, 64, 2),
        (384, 12, 1536, 2),
    ];
    for (hidden, heads, inner, layers) in shapes {
        let shape = Shape { hidden, heads, inner, layers, ..SMALL };
        for pooling in [Pooling::Mean, Pooling::Cls] {
            check(&shape, pooling, &[1, 2, 7, 12, 13, 31, 33]);
        }
    }
}

#[test]
fn every_length_agrees_with_the_plain_forward() {
    // All short ones, then those around the edges of tiles and registers, then the longest.
    let mut lengths: Vec<usize> = (1..=70).collect();
    lengths.extend([95, 96, 97, 127, 128, 129, 143, 145, 200, 255, 256, 257, 383, 385, 500, 511, 512]);
    check(&SMALL, Pooling::Mean, &lengths);
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_batch() {
    let tensors = random(&SMALL, 5);
    let texts: Vec<Vec<u32>> = [3, 512, 1, 17, 64, 128, 129, 2, 100, 33, 8, 8, 8, 300]
        .iter()
        .enumerate()
        .map(|(n, length)| ids(*length, n as u64, &SMALL))
        .chain([vec![], vec![0; 513], vec![50]])
        .collect();
    for engine in available() {
        let weights = pack(&SMALL, Pooling::Mean, engine, &tensors);
        let mut scratch = Scratch::new(&weights);
        let together = weights.embed_batch(&mut scratch, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(together.len(), texts.len());
        for (text, together) in texts.iter().zip(together) {
            assert_eq!(weights.embed(&mut scratch, text), together, "{} {}", engine.as_str(), text.len());
        }
    }
}

#[test]
fn workers_may_share_weights_and_own_scratch() {
    fn shared<T: Send + Sync>() {}
    fn owned<T: Send>() {}
    shared::<Weights>();
    owned::<Scratch>();
}

#[test]
fn what_is_no_text_for_the_model_is_an_error() {
    let tensors = random(&SMALL, 6);
    for engine in available() {
        let weights = pack(&SMALL, Pooling::Mean, engine, &tensors);
        let mut scratch = Scratch::new(&weights);
        assert_eq!(weights.embed(&mut scratch, &[]), Err(InputError::Empty));
        let too_long = Err(InputError::TooLong { tokens: 513, window: 512 });
        assert_eq!(weights.embed(&mut scratch, &[0; 513]), too_long);
        assert_eq!(weights.embed(&mut scratch, &[1, 50]), Err(InputError::UnknownToken(50)));
        assert!(weights.embed_batch(&mut scratch, &[]).is_empty());
    }
}

#[test]
fn what_is_no_model_for_this_forward_is_refused() {
    let refused = [
        Shape { hidden: 96, heads: 3, ..SMALL },
        Shape { hidden: 64, heads: 4, ..SMALL },
        Shape { hidden: 128, heads: 1, ..SMALL },
        Shape { heads: 0, ..SMALL },
        Shape { inner: 100, ..SMALL },
        Shape { inner: 0, ..SMALL },
        Shape { layers: 0, ..SMALL },
        Shape { norm_epsilon: f32::NAN, ..SMALL },
    ];
    for shape in refused {
        let packed = Weights::pack(shape, Pooling::Mean, Engine::PortableF32, &|_| None);
        assert!(matches!(packed.err(), Some(WeightsError::Unsupported(_))), "{shape:?}");
    }
    let good = random(&SMALL, 7);
    for name in good.keys() {
        let mut missing = good.clone();
        missing.remove(name);
        assert_eq!(refusal(&missing), Some(WeightsError::Missing(name.clone())));
        let mut misshapen = good.clone();
        let (shape, values) = misshapen.get_mut(name).expect("there");
        shape[0] += 1;
        values.extend(vec![0.0; values.len() / (shape[0] - 1)]);
        if !name.contains("token_type") {
            assert!(matches!(refusal(&misshapen), Some(WeightsError::Misshapen { .. })), "{name}");
        }
        let mut infinite = good.clone();
        infinite.get_mut(name).expect("there").1[0] = f32::INFINITY;
        assert_eq!(refusal(&infinite), Some(WeightsError::NotFinite(name.clone())));
    }
}

#[test]
fn sums_that_overflow_are_an_error() {
    let mut tensors = random(&SMALL, 8);
    tensors.get_mut("encoder.layer.1.output.LayerNorm.weight").expect("there").1.fill(f32::MAX);
    for engine in available() {
        let weights = pack(&SMALL, Pooling::Mean, engine, &tensors);
        let embedded = weights.embed(&mut Scratch::new(&weights), &[1, 2, 3]);
        assert_eq!(embedded, Err(InputError::NoDirection), "{}", engine.as_str());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_batch_gives_unit_vectors_near_the_plain_forward(
        seed in any::<u64>(),
        scale in 0.02f32..1.0,
        texts in prop::collection::vec(prop::collection::vec(0u32..50, 1..90), 1..5),
    ) {
        let tensors = random_of(&SMALL, seed, scale);
        let expected: Vec<_> = texts.iter().map(|ids| plain(&SMALL, Pooling::Mean, &tensors, ids)).collect();
        for engine in available() {
            let weights = pack(&SMALL, Pooling::Mean, engine, &tensors);
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let embedded = weights.embed_batch(&mut Scratch::new(&weights), &slices);
            for (embedded, expected) in embedded.iter().zip(&expected) {
                let embedded = embedded.as_ref().expect("a vector");
                let norm = cosine(embedded, &embedded.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
                prop_assert!((norm - 1.0).abs() < 1e-6);
                // Wide random weights make softmax a choice between near-equals, so only f32 is held to the formula.
                if engine.precision() == Precision::F32 {
                    prop_assert!(cosine(embedded, expected) >= 0.99999, "{}", engine.as_str());
                }
            }
        }
    }
}

fn check(shape: &Shape, pooling: Pooling, lengths: &[usize]) {
    let tensors = random(shape, 3);
    let texts: Vec<_> = lengths.iter().map(|length| ids(*length, *length as u64, shape)).collect();
    let expected: Vec<_> = texts.iter().map(|ids| plain(shape, pooling, &tensors, ids)).collect();
    for engine in available() {
        let weights = pack(shape, pooling, engine, &tensors);
        let mut scratch = Scratch::new(&weights);
        let least = match engine.precision() {
            Precision::F32 => 0.999_999,
            Precision::Bf16 => 0.9999,
            Precision::Int8 => 0.99,
        };
        let mut worst = 1f64;
        for (ids, expected) in texts.iter().zip(&expected) {
            let vector = weights.embed(&mut scratch, ids).expect("a vector");
            let cosine = cosine(&vector, expected);
            assert!(cosine >= least, "{} {shape:?} {} tokens: {cosine}", engine.as_str(), ids.len());
            worst = worst.min(cosine);
        }
        println!("{} {}x{}x{}: {worst:.8}", engine.as_str(), shape.hidden, shape.inner, shape.layers);
    }
}

fn available() -> impl Iterator<Item = Engine> {
    Engine::ALL.into_iter().filter(|engine| engine.is_available())
}

fn pack(shape: &Shape, pooling: Pooling, engine: Engine, tensors: &Tensors) -> Weights {
    Weights::pack(*shape, pooling, engine, &|name| tensors.get(name).cloned()).expect("packed")
}

fn refusal(tensors: &Tensors) -> Option<WeightsError> {
    Weights::pack(SMALL, Pooling::Mean, Engine::PortableF32, &|name| tensors.get(name).cloned()).err()
}

fn ids(length: usize, seed: u64, shape: &Shape) -> Vec<u32> {
    let mut random = Random(seed + 1);
    (0..length).map(|_| (random.next() % shape.vocabulary as u64) as u32).collect()
}
