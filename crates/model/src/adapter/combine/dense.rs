//! Methods that need each update as a whole matrix: TIES, DARE and pruning by magnitude.
//!
//! Axes: O output features, I input features, r rank.

use rayon::prelude::*;

use super::sources::Branch;
use super::{CombineOptions, Factors, MajoritySign};
use crate::adapter::decomposition::{Matrix, randomised, truncated};
use crate::random;

/// The combined update of a module, row after row.
pub(super) struct Update {
    /// `[O, I]`
    values: Vec<f32>,
    shape: [usize; 2],
}

/// A seed, and the path of the module.
type Seeds<'a> = (u64, &'a str);

impl Update {
    /// Combines updates. Each is computed in f64 and rounded once; sums over adapters are in f64.
    pub(super) fn of(
        branches: &[(&Branch, f64)],
        options: &CombineOptions,
        seeds: Seeds<'_>,
    ) -> Self {
        let shape = branches
            .first()
            .map_or([0, 0], |(branch, _)| branch.sides());
        let density = options.density.unwrap_or(1.0);
        let kept: Vec<Vec<f32>> = branches
            .iter()
            .map(|(branch, _)| {
                let mut update = whole(branch);
                if options.method.is_random() {
                    drop_by_chance(&mut update, density, seeds, branch.adapter());
                } else {
                    keep_largest(&mut update, density);
                }
                update
            })
            .collect();
        let weights: Vec<f64> = branches.iter().map(|(_, weight)| *weight).collect();
        let mut values = vec![0.0_f32; shape[0] * shape[1]];
        values
            .par_iter_mut()
            .with_min_len(1 << 14)
            .enumerate()
            .for_each(|(at, value)| {
                let elements = kept.iter().map(|update| f64::from(update[at]));
                *value = element(options, elements, &weights) as f32;
            });
        Self { values, shape }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix {
            values: &self.values,
            shape: self.shape,
        }
    }

    /// The best factors of a rank, exact or by a randomised decomposition; and ‖Δ‖.
    pub(super) fn truncated(
        &self,
        rank: usize,
        iterations: Option<usize>,
        (seed, module): Seeds<'_>,
    ) -> (Factors, f64) {
        let rank = rank.min(self.shape[0]).min(self.shape[1]);
        let found = match iterations {
            None => truncated(self.matrix(), rank),
            Some(iterations) => {
                let stream = format!("combine/{module}");
                randomised(self.matrix(), rank, iterations, seed, &stream)
            }
        };
        (found.halves(rank), self.distance(|_, _| ()))
    }

    /// ‖Δ - B·A‖
    pub(super) fn error(&self, factors: &Factors) -> f64 {
        self.distance(|row, rest| {
            for (b, a) in factors.b.iter().zip(&factors.a) {
                let factor = b[row];
                for (value, direction) in rest.iter_mut().zip(a) {
                    *value -= factor * direction;
                }
            }
        })
    }

    /// The norm of the matrix after a change to its rows.
    fn distance(&self, change: impl Fn(usize, &mut [f64]) + Sync) -> f64 {
        let rows = self.values.par_chunks(self.shape[1].max(1)).enumerate();
        let squares: Vec<f64> = rows
            .map(|(at, row)| {
                let mut rest: Vec<f64> = row.iter().copied().map(f64::from).collect();
                change(at, &mut rest);
                rest.iter().map(|value| value * value).sum()
            })
            .collect();
        // summed row by row, so that the sum does not depend on the number of threads
        squares.iter().sum::<f64>().sqrt()
    }
}

/// One element of the combined update from those of each update.
fn element(
    options: &CombineOptions,
    elements: impl Iterator<Item = f64> + Clone,
    weights: &[f64],
) -> f64 {
    let weighted = elements.clone().zip(weights);
    if !options.method.elects() {
        return weighted.map(|(value, weight)| value * weight).sum();
    }
    let votes = elements.map(|value| match options.majority_sign.unwrap_or_default() {
        MajoritySign::Total => value,
        MajoritySign::Frequency => f64::from(sign(value)),
    });
    let elected = if votes.sum::<f64>() >= 0.0 { 1 } else { -1 };
    let (mut sum, mut count) = (0.0, 0.0_f64);
    for (value, weight) in weighted {
        if sign(value) == elected {
            sum += value * weight;
            count += 1.0;
        }
    }
    sum / count.max(1.0)
}

/// 1, -1, or 0 of zero.
fn sign(value: f64) -> i8 {
    i8::from(value > 0.0) - i8::from(value < 0.0)
}

/// s·B·A
fn whole(branch: &Branch) -> Vec<f32> {
    let [a, b] = branch.factors();
    let [_, columns] = branch.sides();
    let mut update = vec![0.0_f32; branch.sides().iter().product()];
    update
        .par_chunks_mut(columns.max(1))
        .enumerate()
        .for_each_init(
            || vec![0.0_f64; columns],
            |sums, (row, values)| {
                sums.fill(0.0);
                for (a, b) in a.iter().zip(&b) {
                    for (sum, value) in sums.iter_mut().zip(a) {
                        *sum += b[row] * value;
                    }
                }
                for (value, sum) in values.iter_mut().zip(&*sums) {
                    *value = (sum * branch.scale()) as f32;
                }
            },
        );
    update
}

/// Sets all but the largest elements to zero: `⌊density · O · I⌋` of them stay, and of equal ones the first.
fn keep_largest(update: &mut [f32], density: f64) {
    let kept = (density * update.len() as f64) as usize;
    if kept >= update.len() {
        return;
    }
    if kept == 0 {
        update.fill(0.0);
        return;
    }
    let mut sizes: Vec<f32> = update.iter().map(|value| value.abs()).collect();
    let (_, least, _) = sizes.select_nth_unstable_by(kept - 1, |a, b| b.total_cmp(a));
    let least = *least;
    let larger = update.iter().filter(|value| value.abs() > least).count();
    let mut equal = kept - larger;
    for value in update {
        if value.abs() > least {
            continue;
        }
        if value.abs() < least || equal == 0 {
            *value = 0.0;
        } else {
            equal -= 1;
        }
    }
}

/// Keeps each element with probability `density`, divided by it, and sets the others to zero.
fn drop_by_chance(update: &mut [f32], density: f64, (seed, module): Seeds<'_>, adapter: usize) {
    let stream = random::stream(seed, &format!("dare/{adapter}/{module}"));
    update
        .par_iter_mut()
        .with_min_len(1 << 14)
        .enumerate()
        .for_each(|(at, value)| {
            *value = if random::unit(stream, at as u64) < density {
                (f64::from(*value) / density) as f32
            } else {
                0.0
            };
        });
}

/// A combination of updates by their elements, for comparisons.
#[cfg(test)]
pub(super) fn combined(
    method: super::Method,
    majority_sign: MajoritySign,
    density: f64,
    mut updates: Vec<Vec<f32>>,
    weights: &[f64],
) -> Vec<f64> {
    let options = CombineOptions {
        method,
        majority_sign: Some(majority_sign),
        ..CombineOptions::exact()
    };
    for update in &mut updates {
        keep_largest(update, density);
    }
    let length = updates[0].len();
    (0..length)
        .map(|at| {
            let elements = updates.iter().map(|update| f64::from(update[at]));
            element(&options, elements, weights)
        })
        .collect()
}
