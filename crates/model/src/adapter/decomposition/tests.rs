use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::adapter::spectrum::singular;

#[derive(Deserialize)]
struct Case {
    shape: [usize; 2],
    rank: usize,
    weight: Vec<f32>,
    values: Vec<f64>,
    principal: Vec<f64>,
    qr: Vec<f64>,
}

/// Σ σ u vᵀ, row after row.
fn product(left: &Columns, values: &[f64], right: &Columns) -> Vec<f64> {
    let rows = left.first().map_or(0, Vec::len);
    let columns = right.first().map_or(0, Vec::len);
    let mut sum = vec![0.0; rows * columns];
    for ((left, value), right) in left.iter().zip(values).zip(right) {
        for (row, factor) in left.iter().enumerate() {
            for (column, other) in right.iter().enumerate() {
                sum[row * columns + column] += value * factor * other;
            }
        }
    }
    sum
}

fn assert_close(found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= bound, "{found} {expected}");
    }
}

fn is_orthonormal(columns: &Columns, bound: f64) -> bool {
    columns.iter().enumerate().all(|(i, a)| {
        columns.iter().enumerate().all(|(j, b)| {
            let expected = f64::from(u8::from(i == j));
            (dot(a, b) - expected).abs() <= bound
        })
    })
}

#[test]
fn decompositions_equal_torch() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/goldens/decompositions.json"
    );
    let text = std::fs::read_to_string(Path::new(path)).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    for case in cases {
        let matrix = Matrix {
            values: &case.weight,
            shape: case.shape,
        };
        // both in f64; the eigenvalues are squares, and their gaps of the order of a hundredth
        let bound = 1e-11;
        for found in [
            truncated(matrix, case.rank),
            // gaps of a few percent: converged after some hundred iterations
            randomised(matrix, case.rank, 600, 3, "w"),
        ] {
            assert_close(&found.values, &case.values, bound);
            let part = product(&found.left, &found.values, &found.right);
            assert_close(&part, &case.principal, 1e-9);
            assert!(is_orthonormal(&found.left, bound) && is_orthonormal(&found.right, bound));
        }
        let [q, r] = first_of_qr(matrix, case.rank);
        assert_close(&product(&q, &vec![1.0; case.rank], &r), &case.qr, bound);
    }
}

/// The vectors and values as bits.
fn bits(of: &Truncated) -> Vec<u64> {
    let all = of.left.iter().chain(&of.right).flatten().chain(&of.values);
    all.map(|value| value.to_bits()).collect()
}

#[test]
fn threads_do_not_change_a_bit() {
    let weight: Vec<f32> = normal(1, "w", 300 * 210);
    let matrix = Matrix {
        values: &weight,
        shape: [300, 210],
    };
    let all = || {
        let [q, r] = first_of_qr(matrix, 5);
        let qr = Truncated {
            left: q,
            values: Vec::new(),
            right: r,
        };
        [
            bits(&truncated(matrix, 5)),
            bits(&randomised(matrix, 5, 2, 3, "w")),
            bits(&qr),
        ]
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(all)
    };
    let one = with(1);
    assert!(one == with(2) && one == with(5));
}

#[test]
fn equal_and_vanishing_values_have_vectors_of_their_own() {
    let identity: Vec<f32> = (0..36).map(|at| f32::from(u8::from(at % 7 == 0))).collect();
    let found = truncated(
        Matrix {
            values: &identity,
            shape: [6, 6],
        },
        4,
    );
    assert_close(&found.values, &[1.0; 4], 1e-14);
    assert!(is_orthonormal(&found.left, 1e-13) && is_orthonormal(&found.right, 1e-13));
    // rank 1, and nothing
    for (factor, first) in [(1.0_f32, 12.0), (0.0, 0.0)] {
        let values = vec![factor; 12 * 12];
        let shape = [12, 12];
        let matrix = Matrix {
            values: &values,
            shape,
        };
        for found in [truncated(matrix, 3), randomised(matrix, 3, 2, 1, "w")] {
            assert_close(&found.values, &[first, 0.0, 0.0], 1e-6);
            assert!(found.left.iter().flatten().all(|value| value.is_finite()));
        }
        let [q, r] = first_of_qr(matrix, 3);
        assert!(is_orthonormal(&q, 1e-14));
        let whole: Vec<f64> = values.iter().copied().map(f64::from).collect();
        assert_close(&product(&q, &[1.0; 3], &r), &whole, 1e-13);
    }
}

proptest! {
    #[test]
    fn the_largest_values_are_those_of_the_whole_decomposition(
        (shape, values) in (1..24_usize, 1..24_usize).prop_flat_map(|(rows, columns)| {
            let values = prop::collection::vec(-2.0_f32..2.0, rows * columns);
            (Just([rows, columns]), values)
        }),
        rank in 1..8_usize,
    ) {
        let wide: Vec<f64> = values.iter().copied().map(f64::from).collect();
        let columns = super::super::spectrum::columns_of(&wide, shape[1]);
        let (expected, _) = singular(columns);
        let found = truncated(Matrix { values: &values, shape }, rank);
        let rank = rank.min(shape[0]).min(shape[1]);
        prop_assert_eq!(found.values.len(), rank);
        // the eigenvalues are squares: a small value has half of the digits
        let bound = 1e-6 * (1.0 + expected[0]);
        for (found, expected) in found.values.iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= bound, "{found} {expected}");
        }
    }
}
