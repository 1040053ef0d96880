//! How fast the cores multiply and add.

use std::time::Instant;

use rayon::prelude::*;

use crate::simd::vectorised;

/// Independent sums: enough to fill two units of four cycles' latency.
const SUMS: usize = 12;

/// Turns of a measurement: about a millisecond.
const TURNS: usize = 200_000;

/// GFLOP/s of f32 fused multiply-add on all cores of the pool, from registers: what no product in
/// vector instructions exceeds. Takes some milliseconds.
pub fn peak_rate() -> f64 {
    let threads = rayon::current_num_threads();
    let mut best = f64::MAX;
    let mut flops = 0;
    for _ in 0..5 {
        let begin = Instant::now();
        flops = (0..threads)
            .into_par_iter()
            .with_max_len(1)
            .map(|_| {
                let mut flops = 0;
                burn(&mut flops);
                flops
            })
            .sum();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    flops as f64 / best / 1e9
}

vectorised! {
    fn burn(simd, flops: &'a mut usize) {
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
    #[test]
    fn the_rate_is_that_of_some_processor() {
        let rate = super::peak_rate();
        assert!((0.01..1e7).contains(&rate), "{rate} GFLOP/s");
    }
}
