//! The plain formula of BERT, one loop after the other in f64, and random models to try it on.

use std::collections::HashMap;

use nearhit::embed::candle::fused::Shape;
use nearhit::embed::model::Pooling;

/// By name: shape and values.
pub(super) type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// Weights of the size that trained ones have: sums of a layer come out near one.
pub(super) fn random(shape: &Shape, seed: u64) -> Tensors {
    random_of(shape, seed, 1.0 / (shape.hidden as f32).sqrt())
}

pub(super) fn random_of(shape: &Shape, seed: u64, scale: f32) -> Tensors {
    let Shape { vocabulary, positions, hidden, inner, layers, .. } = *shape;
    let mut random = Random(seed | 1);
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize], middle: f32, scale: f32| {
        let values = (0..shape.iter().product()).map(|_| middle + scale * random.normal()).collect();
        tensors.insert(name, (shape.to_vec(), values));
    };
    for (name, rows) in [("word", vocabulary), ("position", positions), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden], 0.0, 0.5);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for n in 0..layers {
        let linears = [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ];
        for (part, outputs, inputs) in linears {
            add(format!("encoder.layer.{n}.{part}.weight"), &[outputs, inputs], 0.0, scale);
            add(format!("encoder.layer.{n}.{part}.bias"), &[outputs], 0.0, 0.1);
        }
        norms.push(format!("encoder.layer.{n}.attention.output.LayerNorm"));
        norms.push(format!("encoder.layer.{n}.output.LayerNorm"));
    }
    for name in norms {
        add(format!("{name}.weight"), &[hidden], 1.0, 0.1);
        add(format!("{name}.bias"), &[hidden], 0.0, 0.1);
    }
    tensors
}

/// The plain formula, one loop after the other, in f64.
pub(super) fn plain(shape: &Shape, pooling: Pooling, tensors: &Tensors, ids: &[u32]) -> Vec<f64> {
    let get = |name: &str| -> Vec<f64> { tensors[name].1.iter().map(|v| f64::from(*v)).collect() };
    let hidden = shape.hidden;
    let linear = |name: &str, rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let (weights, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let outputs = weights.chunks_exact(row.len()).zip(&bias);
            outputs.map(|(weights, bias)| dot(weights, row) + bias).collect()
        };
        rows.iter().map(one).collect()
    };
    let norm = |name: &str, rows: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
        let (weights, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let one = |row: Vec<f64>| -> Vec<f64> {
            let mean = row.iter().sum::<f64>() / hidden as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hidden as f64;
            let factor = 1.0 / (variance + f64::from(shape.norm_epsilon)).sqrt();
            row.iter().zip(weights.iter().zip(&bias)).map(|(v, (w, b))| (v - mean) * factor * w + b).collect()
        };
        rows.into_iter().map(one).collect()
    };
    let add = |a: Vec<Vec<f64>>, b: &[Vec<f64>]| -> Vec<Vec<f64>> {
        a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
    };
    let (words, positions) = (get("embeddings.word_embeddings.weight"), get("embeddings.position_embeddings.weight"));
    let types = get("embeddings.token_type_embeddings.weight");
    let embedded = ids.iter().enumerate().map(|(at, id)| {
        (0..hidden).map(|i| words[*id as usize * hidden + i] + positions[at * hidden + i] + types[i]).collect()
    });
    let mut rows = norm("embeddings.LayerNorm", embedded.collect());
    let width = hidden / shape.heads;
    for n in 0..shape.layers {
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        let [queries, keys, values] =
            ["query", "key", "value"].map(|part| linear(&name(&format!("attention.self.{part}")), &rows));
        let mut attended = vec![vec![0.0; hidden]; ids.len()];
        for head in 0..shape.heads {
            let own = head * width..(head + 1) * width;
            for (query, attended) in queries.iter().zip(&mut attended) {
                let score = |key: &Vec<f64>| dot(&query[own.clone()], &key[own.clone()]) / (width as f64).sqrt();
                let scores: Vec<f64> = keys.iter().map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&values) {
                    for i in own.clone() {
                        attended[i] += weight / sum * value[i];
                    }
                }
            }
        }
        let attended = add(linear(&name("attention.output.dense"), &attended), &rows);
        let attended = norm(&name("attention.output.LayerNorm"), attended);
        let mut inner = linear(&name("intermediate.dense"), &attended);
        inner.iter_mut().flatten().for_each(|v| *v = 0.5 * *v * (1.0 + erf(*v / 2f64.sqrt())));
        rows = norm(&name("output.LayerNorm"), add(linear(&name("output.dense"), &inner), &attended));
    }
    let pooled = match pooling {
        Pooling::Mean => (0..hidden).map(|i| rows.iter().map(|row| row[i]).sum::<f64>()).collect(),
        Pooling::Cls => rows.swap_remove(0),
    };
    let norm = dot(&pooled, &pooled).sqrt();
    pooled.into_iter().map(|v| v / norm).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// By its power series near zero and its continued fraction elsewhere: slow, and right to twelve digits.
fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let tail = (1..=60).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (x.abs() + tail));
    x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + tail))
}

pub(super) fn cosine(vector: &[f32], reference: &[f64]) -> f64 {
    let vector: Vec<f64> = vector.iter().map(|v| f64::from(*v)).collect();
    // Against the reference's own norm, but not the vector's: a vector that is no unit vector shows.
    dot(&vector, reference) / dot(reference, reference).sqrt()
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Nearly normal: twelve uniform numbers.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
}
