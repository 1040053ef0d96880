//! The peak rate of floating-point operations of a device.

use std::time::Instant;

use burn::tensor::DType;
use rayon::prelude::*;

use crate::product::{self, ProductUnit, half_unit};
use crate::simd::vectorised;
use crate::{Capabilities, Memory};

/// Independent sums: enough to keep two units with a latency of four cycles busy.
const SUMS: usize = 12;

/// Iterations of a measurement, about a millisecond.
const TURNS: usize = 200_000;

/// A measured rate that a matrix multiplication hardly exceeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Rate in GFLOP/s.
    pub rate: f64,
    /// Description of what was measured.
    pub of: &'static str,
}

/// The peak rate of a device that computes in a dtype. Takes some milliseconds.
///
/// On the processor these are multiplications in registers, which no matrix multiplication exceeds: in f32 those on vectors
/// (a matrix multiplication on AMX tiles can be faster), in bf16 those of the instructions that multiply bf16 values. On a
/// GPU it is a large matrix multiplication by cuBLAS, in bf16.
pub fn peak(device: &Capabilities, compute: DType) -> Peak {
    of_gpu(device.memory).unwrap_or_else(|| of_cores(device, compute))
}

fn of_cores(device: &Capabilities, compute: DType) -> Peak {
    if device.kind == "cpu" && compute == DType::BF16 {
        let of = match half_unit() {
            ProductUnit::Amx => Some("bf16 multiply-add on AMX tiles, all cores"),
            ProductUnit::Bf16 => Some("bf16 multiply-add on all cores"),
            ProductUnit::Vector => None,
        };
        if let Some(of) = of {
            let rate = rate_of_cores(|| product::burn().unwrap_or_default());
            return Peak { rate, of };
        }
    }
    Peak {
        rate: rate_of_cores(|| {
            let mut flops = 0;
            multiply_add(&mut flops);
            flops
        }),
        of: "f32 multiply-add on all cores",
    }
}

#[cfg(not(feature = "libtorch"))]
fn of_gpu(_: Memory) -> Option<Peak> {
    None
}

#[cfg(feature = "libtorch")]
fn of_gpu(memory: Memory) -> Option<Peak> {
    match memory {
        Memory::Main => None,
        Memory::Nvidia(index) => Some(Peak {
            rate: rate_of_gpu(index),
            of: "bf16 matrix multiplications of 8192 x 8192",
        }),
    }
}

#[cfg(feature = "libtorch")]
fn rate_of_gpu(index: usize) -> f64 {
    use tch::{Cuda, Device, Kind, Tensor};

    const SIDE: i64 = 8192;
    const PRODUCTS: u32 = 10;
    // random values: multiplying zeros takes less power, and so runs faster
    let side = || Tensor::randn([SIDE, SIDE], (Kind::BFloat16, Device::Cuda(index)));
    let [a, b] = [side(), side()];
    let mut best = f64::MAX;
    for _ in 0..3 {
        Cuda::synchronize(index as i64);
        let begin = Instant::now();
        for _ in 0..PRODUCTS {
            let _ = a.mm(&b);
        }
        Cuda::synchronize(index as i64);
        best = best.min(begin.elapsed().as_secs_f64());
    }
    f64::from(PRODUCTS) * 2.0 * (SIDE as f64).powi(3) / best / 1e9
}

/// The best of some measurements of `burn`, which returns the floating-point operations that it did.
fn rate_of_cores(burn: impl Fn() -> usize + Sync) -> f64 {
    let threads = rayon::current_num_threads();
    let mut best = f64::MAX;
    let mut flops = 0;
    for _ in 0..5 {
        let begin = Instant::now();
        flops = (0..threads)
            .into_par_iter()
            .with_max_len(1)
            .map(|_| burn())
            .sum();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    flops as f64 / best / 1e9
}

vectorised! {
    fn multiply_add(simd, flops: &'a mut usize) {
        let factor = simd.splat_f32s(std::hint::black_box(0.5));
        let mut sums = [factor; SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, factor);
            }
        }
        let total: f32 = sums.iter().map(|sum| simd.reduce_sum_f32s(*sum)).sum();
        std::hint::black_box(total);
        *flops = TURNS * SUMS * S::F32_LANES * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_plausible() {
        let device = crate::Capabilities::of(&burn::tensor::Device::flex());
        let [f32s, halves] = [DType::F32, DType::BF16].map(|dtype| peak(&device, dtype));
        for Peak { rate, of } in [f32s, halves] {
            assert!((0.01..1e7).contains(&rate), "{rate} GFLOP/s, {of}");
        }
        assert_eq!(f32s.of, "f32 multiply-add on all cores");
        assert_eq!(halves.of == f32s.of, half_unit() == ProductUnit::Vector);
    }
}
