//! What computes the vectors: which engine and precision the operator's words and this machine amount to.
//!
//! What was asked for by name is had or refused. What was left open is chosen for speed among what gives the vectors
//! of f32, and only that may fall back to candle's own forward.

use super::Hardware;
use super::fused::{Engine, EngineFamily, Precision};

/// What computes, as far as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// `None`: the fastest whose vectors stand for f32.
    pub precision: Option<Precision>,
    /// `None`: the fastest that this machine has.
    pub engine: Option<WantedEngine>,
}

/// An engine by the word that operators use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedEngine {
    Fused(EngineFamily),
    /// candle's own forward.
    Candle,
}

impl Wanted {
    /// `None` for a word that is not known; `auto` leaves it open.
    pub fn named(precision: &str, engine: &str) -> Option<Self> {
        let precision = match precision {
            "auto" => None,
            word => Some([Precision::F32, Precision::Bf16, Precision::Int8].into_iter().find(|p| p.as_str() == word)?),
        };
        let engine = match engine {
            "auto" => None,
            "candle" => Some(WantedEngine::Candle),
            word => Some(WantedEngine::Fused(EngineFamily::ALL.into_iter().find(|family| family.as_str() == word)?)),
        };
        Some(Self { precision, engine })
    }
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The fused forward, or nothing.
    Fused(Engine),
    /// The fused forward; candle's own for a model that it does not know.
    FusedOrCandle(Engine),
    Candle,
}

impl Choice {
    /// # Errors
    /// What was asked for by name is not to be had here; the error says what.
    pub(super) fn of(wanted: Wanted, hardware: Hardware) -> Result<Self, NotHere> {
        Self::among(wanted, hardware, Engine::is_available)
    }

    fn among(wanted: Wanted, hardware: Hardware, is_available: impl Fn(Engine) -> bool) -> Result<Self, NotHere> {
        let Wanted { precision, engine } = wanted;
        let has_candle = matches!(precision, None | Some(Precision::F32));
        let fastest = |precision: Precision| {
            let fits = |engine: &Engine| engine.precision() == precision && is_available(*engine);
            Engine::ALL.into_iter().rev().find(fits)
        };
        match (engine, hardware) {
            (Some(WantedEngine::Fused(_)), Hardware::Cuda | Hardware::Metal) => Err(NotHere::Hardware),
            (Some(WantedEngine::Candle), _) | (None, Hardware::Cuda | Hardware::Metal) => {
                if has_candle {
                    Ok(Self::Candle)
                } else {
                    Err(NotHere::Precision)
                }
            }
            (Some(WantedEngine::Fused(family)), Hardware::Cpu) => {
                let precisions = match precision {
                    Some(precision) => vec![precision],
                    // Tiles exist for bf16; whatever else there is computes f32.
                    None => vec![Precision::F32, Precision::Bf16],
                };
                let engines = precisions.into_iter().filter_map(|precision| Engine::of(family, precision));
                let engine = engines.into_iter().next().ok_or(NotHere::Pair)?;
                if is_available(engine) { Ok(Self::Fused(engine)) } else { Err(NotHere::Processor(engine.as_str())) }
            }
            (None, Hardware::Cpu) => match precision {
                None if is_available(Engine::AmxBf16) => Ok(Self::FusedOrCandle(Engine::AmxBf16)),
                // The portable kernels are slower than candle, which has vector instructions of its own.
                None | Some(Precision::F32) => Ok(match fastest(Precision::F32) {
                    None | Some(Engine::PortableF32) => Self::Candle,
                    Some(engine) => Self::FusedOrCandle(engine),
                }),
                Some(precision) => fastest(precision).map(Self::Fused).ok_or(NotHere::Precision),
            },
        }
    }
}

/// Why nothing computes what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotHere {
    #[error("candle's own forward computes in f32 only")]
    Precision,
    #[error("that engine runs on the processor only")]
    Hardware,
    #[error("that engine has no kernels for that precision")]
    Pair,
    #[error("this processor has not the instructions for {0}")]
    Processor(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_had_or_refused() {
        use Choice::{Candle, Fused, FusedOrCandle};

        const OLD: &[Engine] = &[];
        const AVX2: &[Engine] = &[Engine::Avx2F32];
        const AVX512: &[Engine] = &[Engine::Avx2F32, Engine::Avx512F32, Engine::Avx512Bf16, Engine::Avx512Int8];
        const AMX: &[Engine] =
            &[Engine::Avx2F32, Engine::Avx512F32, Engine::Avx512Bf16, Engine::AmxBf16, Engine::AmxInt8];
        const PORTABLE: &[Engine] = &[Engine::PortableF32, Engine::PortableBf16, Engine::PortableInt8];

        #[track_caller]
        fn check(words: (&str, &str), hardware: Hardware, machine: &[Engine], expected: Result<Choice, NotHere>) {
            let wanted = Wanted::named(words.0, words.1).expect("known words");
            let is_available = |engine| machine.contains(&engine) || PORTABLE.contains(&engine);
            assert_eq!(Choice::among(wanted, hardware, is_available), expected, "{words:?} {machine:?}");
        }
        let cpu = Hardware::Cpu;
        check(("auto", "auto"), cpu, OLD, Ok(Candle));
        check(("f32", "auto"), cpu, OLD, Ok(Candle));
        check(("bf16", "auto"), cpu, OLD, Ok(Fused(Engine::PortableBf16)));
        check(("int8", "auto"), cpu, OLD, Ok(Fused(Engine::PortableInt8)));
        check(("auto", "portable"), cpu, OLD, Ok(Fused(Engine::PortableF32)));
        check(("auto", "avx2"), cpu, OLD, Err(NotHere::Processor("f32 avx2")));
        check(("auto", "auto"), cpu, AVX2, Ok(FusedOrCandle(Engine::Avx2F32)));
        check(("auto", "auto"), cpu, AVX512, Ok(FusedOrCandle(Engine::Avx512F32)));
        check(("bf16", "auto"), cpu, AVX512, Ok(Fused(Engine::Avx512Bf16)));
        check(("int8", "auto"), cpu, AVX512, Ok(Fused(Engine::Avx512Int8)));
        check(("auto", "avx2"), cpu, AVX512, Ok(Fused(Engine::Avx2F32)));
        check(("auto", "candle"), cpu, AVX512, Ok(Candle));
        check(("int8", "candle"), cpu, AVX512, Err(NotHere::Precision));
        check(("auto", "amx"), cpu, AVX512, Err(NotHere::Processor("bf16 amx")));
        check(("auto", "auto"), cpu, AMX, Ok(FusedOrCandle(Engine::AmxBf16)));
        check(("f32", "auto"), cpu, AMX, Ok(FusedOrCandle(Engine::Avx512F32)));
        check(("auto", "amx"), cpu, AMX, Ok(Fused(Engine::AmxBf16)));
        check(("int8", "amx"), cpu, AMX, Ok(Fused(Engine::AmxInt8)));
        check(("f32", "amx"), cpu, AMX, Err(NotHere::Pair));
        check(("bf16", "neon"), cpu, AMX, Err(NotHere::Pair));
        check(("auto", "auto"), Hardware::Cuda, AMX, Ok(Candle));
        check(("bf16", "auto"), Hardware::Metal, AMX, Err(NotHere::Precision));
        check(("auto", "avx2"), Hardware::Cuda, AMX, Err(NotHere::Hardware));
        assert_eq!(Wanted::named("f16", "auto"), None);
        assert_eq!(Wanted::named("auto", "sse"), None);
    }
}
