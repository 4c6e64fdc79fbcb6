//! The kernels of one engine as a value: chosen once, held by the weights that were packed for it.
//!
//! Invariant: a table comes into being only after its instructions were found, so calling through it is safe.

use super::attention::Attention;
use super::engine::{Engine, Precision};
use super::portable;
use super::product::Product;
use super::rows::{Narrow, Norm};

#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Outputs in a panel of packed weights.
    pub(super) panel: usize,
    /// Rows of narrowed activations are readable up to a multiple of this.
    pub(super) rows_multiple: usize,
    pub(super) product: unsafe fn(Product<'_>),
    pub(super) attention: unsafe fn(Attention<'_>),
    pub(super) norm: unsafe fn(Norm<'_>),
    /// For precisions whose unit is not a float.
    pub(super) narrow: Option<unsafe fn(Narrow<'_>)>,
}

impl Kernels {
    /// `None`: this processor has not the instructions.
    pub(super) fn of(engine: Engine) -> Option<Self> {
        match engine {
            Engine::PortableF32 => Some(portable::kernels(Precision::F32)),
            Engine::PortableBf16 => Some(portable::kernels(Precision::Bf16)),
            Engine::PortableInt8 => Some(portable::kernels(Precision::Int8)),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx2F32 => super::avx2::kernels(Precision::F32),
            #[cfg(target_arch = "x86_64")]
            Engine::AvxVnniInt8 => super::avx2::kernels(Precision::Int8),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512F32 => super::avx512::kernels(Precision::F32),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512Bf16 => super::avx512::kernels(Precision::Bf16),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512Int8 => super::avx512::kernels(Precision::Int8),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Engine::AmxBf16 => super::amx::kernels(Precision::Bf16),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Engine::AmxInt8 => super::amx::kernels(Precision::Int8),
            #[cfg(target_arch = "aarch64")]
            Engine::NeonF32 => super::neon::kernels(),
            // What is left belongs to another architecture.
            _ => None,
        }
    }

    pub(super) fn product(&self, product: Product<'_>) {
        // SAFETY: the module's invariant.
        unsafe { (self.product)(product) }
    }

    pub(super) fn attention(&self, attention: Attention<'_>) {
        // SAFETY: as above.
        unsafe { (self.attention)(attention) }
    }

    pub(super) fn norm(&self, norm: Norm<'_>) {
        // SAFETY: as above.
        unsafe { (self.norm)(norm) }
    }

    pub(super) fn narrow(&self, narrow: Narrow<'_>) {
        if let Some(kernel) = self.narrow {
            // SAFETY: as above.
            unsafe { kernel(narrow) }
        }
    }
}
