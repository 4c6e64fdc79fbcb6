//! Which kernels compute, and in which precision: a choice made once, with a name for logs and `/readyz`.
//!
//! f32 and bf16 vectors of a text are as good as equal; those of int8 score a little differently, and must not meet them.

use super::kernels::Kernels;

/// What weights and activations are rounded to. Sums, LayerNorm and attention are f32 in every precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Eight bits of mantissa: half the bytes to read, a cosine to f32 of 0.9999 and more.
    Bf16,
    /// A scale for each output and for each token: a quarter of the bytes, a cosine to f32 of 0.97 and more.
    Int8,
}

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFamily {
    Portable,
    Neon,
    Avx2,
    Avx512,
    Amx,
}

/// An instruction set with a precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    PortableF32,
    PortableBf16,
    PortableInt8,
    NeonF32,
    Avx2F32,
    AvxVnniInt8,
    Avx512F32,
    Avx512Bf16,
    Avx512Int8,
    AmxBf16,
    AmxInt8,
}

impl Engine {
    /// From the slowest to the fastest of each precision.
    pub const ALL: [Self; 11] = [
        Self::PortableF32,
        Self::PortableBf16,
        Self::PortableInt8,
        Self::NeonF32,
        Self::Avx2F32,
        Self::AvxVnniInt8,
        Self::Avx512F32,
        Self::Avx512Bf16,
        Self::Avx512Int8,
        Self::AmxBf16,
        Self::AmxInt8,
    ];

    /// `None`: there are no such kernels.
    pub fn of(family: EngineFamily, precision: Precision) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| (engine.family(), engine.precision()) == (family, precision))
    }

    /// Whether this machine has the instructions.
    pub fn is_available(self) -> bool {
        Kernels::of(self).is_some()
    }

    pub fn precision(self) -> Precision {
        match self {
            Self::PortableF32 | Self::NeonF32 | Self::Avx2F32 | Self::Avx512F32 => Precision::F32,
            Self::PortableBf16 | Self::Avx512Bf16 | Self::AmxBf16 => Precision::Bf16,
            Self::PortableInt8 | Self::AvxVnniInt8 | Self::Avx512Int8 | Self::AmxInt8 => Precision::Int8,
        }
    }

    pub fn family(self) -> EngineFamily {
        match self {
            Self::PortableF32 | Self::PortableBf16 | Self::PortableInt8 => EngineFamily::Portable,
            Self::NeonF32 => EngineFamily::Neon,
            Self::Avx2F32 | Self::AvxVnniInt8 => EngineFamily::Avx2,
            Self::Avx512F32 | Self::Avx512Bf16 | Self::Avx512Int8 => EngineFamily::Avx512,
            Self::AmxBf16 | Self::AmxInt8 => EngineFamily::Amx,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::PortableF32 => "f32 portable",
            Self::PortableBf16 => "bf16 portable",
            Self::PortableInt8 => "int8 portable",
            Self::NeonF32 => "f32 neon",
            Self::Avx2F32 => "f32 avx2",
            Self::AvxVnniInt8 => "int8 avx-vnni",
            Self::Avx512F32 => "f32 avx512",
            Self::Avx512Bf16 => "bf16 avx512",
            Self::Avx512Int8 => "int8 avx512-vnni",
            Self::AmxBf16 => "bf16 amx",
            Self::AmxInt8 => "int8 amx",
        }
    }
}

impl EngineFamily {
    pub const ALL: [Self; 5] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Amx];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

impl Precision {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The precision as far as vectors tell it. Those of bf16 stand beside those of f32: no golden text's differ by more
    /// than a cosine of 0.9999, so entries need no new vectors when the processor changes.
    pub fn space(self) -> &'static str {
        match self {
            Self::F32 | Self::Bf16 => "f32",
            Self::Int8 => "int8",
        }
    }

    /// Weights in a unit of four bytes.
    pub(super) fn per_unit(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}
