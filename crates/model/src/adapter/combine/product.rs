//! The weighted sum of low-rank updates as one product `B·A`, and its truncation. The sum itself is never formed.
//!
//! Axes: O output features, I input features, r rank, R sum of the ranks of all adapters.

use super::Factors;
use super::sources::Branch;
use crate::adapter::decomposition::of_factors;
use crate::adapter::spectrum::{Columns, norm, product, triangle};

/// A share of `‖B‖ ‖A‖` below which a value is rounding, as where updates cancel: factors in f32 are exact to 6e-8.
const ROUNDING: f64 = 1e-12;

/// `Σ wᵢ sᵢ Bᵢ Aᵢ` as one product.
pub(super) struct Product {
    /// Columns of B with weight and scale, R of length O.
    b: Columns,
    /// Rows of A, R of length I.
    a: Columns,
}

impl Product {
    pub(super) fn of(branches: &[(&Branch, f64)]) -> Self {
        let (mut b, mut a) = (Columns::new(), Columns::new());
        for (branch, weight) in branches {
            let [rows, columns] = branch.factors();
            let scale = weight * branch.scale();
            a.extend(rows);
            b.extend(
                columns
                    .into_iter()
                    .map(|column| column.into_iter().map(|value| value * scale).collect()),
            );
        }
        Self { b, a }
    }

    /// The factors as they are.
    pub(super) fn factors(&self) -> Factors {
        Factors {
            b: self.b.clone(),
            a: self.a.clone(),
        }
    }

    /// The best factors of a rank, or of the lowest rank that loses nothing: `√σ u` and `√σ v`.
    pub(super) fn truncated(&self, rank: usize) -> Factors {
        let found = of_factors(&self.b, &self.a);
        let least = self.rounding();
        let kept = found.values.iter();
        let kept = kept.take_while(|value| **value > least);
        let rank = kept.count().min(rank);
        found.halves(rank)
    }

    /// ‖Σ wᵢ sᵢ Bᵢ Aᵢ‖
    pub(super) fn norm(&self) -> f64 {
        let norm = norm_of(self.b.clone(), self.a.clone());
        if norm > self.rounding() { norm } else { 0.0 }
    }

    fn rounding(&self) -> f64 {
        ROUNDING * norm(&self.b.concat()) * norm(&self.a.concat())
    }

    /// ‖Σ wᵢ sᵢ Bᵢ Aᵢ - B·A‖
    pub(super) fn error(&self, factors: &Factors) -> f64 {
        let minus = factors.b.iter();
        let minus = minus.map(|column| column.iter().map(|value| -value).collect());
        let b = self.b.iter().cloned().chain(minus).collect();
        let a = self.a.iter().chain(&factors.a).cloned().collect();
        norm_of(b, a)
    }
}

/// ‖B·A‖ by the triangles of their QR decompositions, which cancel nothing but what the factors do.
fn norm_of(b: Columns, a: Columns) -> f64 {
    let [b, a] = [b, a].map(triangle);
    norm(&product(&b, &a).concat())
}
