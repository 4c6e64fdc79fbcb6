//! A BERT encoder for one processor core: packed weights, fused kernels, no padding.
//!
//! Invariant: every engine gives the vectors of the plain formula within the rounding of its precision, a text has the
//! same vector alone and in a batch, and every input gives a finite unit vector or an error. It knows token ids and
//! tensors; tokenisers, files, threads and queues are the caller's.

mod engine;
mod forward;
mod linear;
mod memory;
mod shape;
mod weights;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "tile instructions, with a portable twin that they agree with")]
mod amx;
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod attention;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod avx512;
#[expect(unsafe_code, reason = "calls through a table that exists only after the processor was asked")]
mod kernels;
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod lanes;
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod neon;
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod portable;
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod product;
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod rows;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "two system calls, each with a refusal that changes nothing")]
mod system;

pub use engine::{Engine, EngineFamily, Precision};
pub use forward::Scratch;
pub use shape::{InputError, Shape, WeightsError};
pub use weights::{Tensors, Weights};
