//! The instructions that operations on the processor use.

use std::fmt;

use crate::product::{ProductUnit, product_unit};

/// The instructions that the operations of this crate use on this processor, for people: `AVX-512, AMX` for example.
///
/// They are selected when the program runs, from those that the processor has. The last one is that of large matrix
/// multiplications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instructions {
    vectors: &'static str,
    product: ProductUnit,
}

/// The instructions that this processor computes with.
pub fn instructions() -> Instructions {
    Instructions {
        vectors: vectors(pulp::Arch::new()),
        product: product_unit(),
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.vectors)?;
        match self.product {
            ProductUnit::Amx => f.write_str(", AMX"),
            ProductUnit::Bf16 | ProductUnit::Vector => Ok(()),
        }
    }
}

/// The name of the vector instructions that [`vectorised`](crate::simd::vectorised) functions use.
fn vectors(arch: pulp::Arch) -> &'static str {
    match arch {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "NEON",
        // other processors and instruction sets: what the compiler may use everywhere
        _ => baseline(),
    }
}

/// The vector instructions that every processor of this architecture has.
fn baseline() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "SSE2"
    } else {
        "no vector instructions"
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::*;

    /// The name is that of the instruction set that `/proc/cpuinfo` lists.
    #[test]
    fn the_instructions_are_those_of_the_processor() {
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let has = |flag: &str| processor.split_whitespace().any(|word| word == flag);
        let named = instructions().to_string();
        assert_eq!(named.contains("AVX-512"), has("avx512f") && has("avx512vl"));
        assert_eq!(named == "SSE2", !has("avx2"));
        if !has("amx_tile") {
            assert!(!named.contains("AMX"), "{named}");
        }
        let amx = Instructions {
            vectors: "AVX-512",
            product: ProductUnit::Amx,
        };
        assert_eq!(amx.to_string(), "AVX-512, AMX");
    }
}
