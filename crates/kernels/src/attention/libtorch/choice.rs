//! Which form of attention a packed sequence gets.
//!
//! Axes as in [`super::super`].

use tch::Kind;

use super::Scores;
use super::dense::batches;
use crate::rows::Rows;

/// The largest head size that flash attention supports.
const FLASH: i64 = 256;

/// The largest head size that cuDNN's attention supports on every GPU.
const CUDNN: i64 = 128;

/// Floating-point operations per second of flash attention and of cuDNN's, forward and backward pass together, for rows
/// of so many tokens. Measured on an H200 with torch 2.11, bf16, 32 heads of 128 elements, rows of equal length.
const RATES: [(f64, [f64; 2]); 3] = [
    (150.0, [47e12, 70e12]),
    (512.0, [148e12, 242e12]),
    (4096.0, [280e12, 515e12]),
];

/// Seconds in which the host launches one call of cuDNN and its backward pass: assumed, not measured.
const CUDNN_CALL: f64 = 60e-6;

/// What the choice depends on.
pub(super) struct Choice<'a> {
    pub(super) is_cuda: bool,
    pub(super) kind: Kind,
    /// Number of query heads and of key heads.
    pub(super) heads: [i64; 2],
    pub(super) head_dim: i64,
    pub(super) rows: &'a Rows,
    pub(super) scores: Scores,
    /// Whether cuDNN's attention is switched on.
    pub(super) cudnn: bool,
}

/// How the scores are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All rows in one call, on a GPU.
    Together(Call),
    /// cuDNN's attention, one call for rows of one length.
    Cudnn(DenseCall),
    /// One call for each row, on a processor.
    ByRow,
    /// Plain tensor operations on some queries at a time.
    ByPiece,
}

/// A call for all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Flash attention, else memory-efficient attention.
    pub(super) is_flash: bool,
    /// The size that heads are padded to.
    pub(super) head_dim: i64,
}

/// A call for rows of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DenseCall {
    /// The size that heads are padded to.
    pub(super) head_dim: i64,
    /// Whether cuDNN computes it, else ATen's flash attention for processors, for tests.
    pub(super) is_cudnn: bool,
}

impl Choice<'_> {
    /// The form with the highest rate that supports the heads and the scores. Every head size has one.
    pub(super) fn form(&self) -> Form {
        let is_half = matches!(self.kind, Kind::BFloat16 | Kind::Half);
        // heads that a kernel loads 16 bytes at a time
        let width = if is_half { 8 } else { 4 };
        let head_dim = (self.head_dim as u64).next_multiple_of(width) as i64;
        let is_flash = is_half && head_dim <= FLASH;
        match self.scores {
            Scores {
                soft_cap: Some(_), ..
            } => Form::ByPiece,
            _ if !self.is_cuda => Form::ByRow,
            _ if !is_half && self.kind != Kind::Float => Form::ByPiece,
            Scores {
                window: Some(_), ..
            } if !is_flash => Form::ByPiece,
            Scores { window: None, .. } if is_half && head_dim <= CUDNN && self.is_for_cudnn() => {
                Form::Cudnn(DenseCall {
                    head_dim,
                    is_cudnn: true,
                })
            }
            _ => Form::Together(Call { is_flash, head_dim }),
        }
    }

    /// Whether cuDNN's attention is on, can compute these rows, and needs less time than flash attention.
    fn is_for_cudnn(&self) -> bool {
        if !self.cudnn {
            return false;
        }
        let Some(batches) = batches(self.rows) else {
            return false;
        };
        let flash = self
            .rows
            .iter()
            .map(|row| self.seconds(row.queries.len(), 0));
        let of_batch =
            |length: usize, rows: usize| rows as f64 * self.seconds(length, 1) + CUDNN_CALL;
        let cudnn = batches
            .iter()
            .map(|batch| of_batch(batch.length, batch.rows.len()));
        cudnn.sum::<f64>() < flash.sum::<f64>()
    }

    /// Seconds of a row, forward and backward, by one of the two of [`RATES`].
    fn seconds(&self, length: usize, which: usize) -> f64 {
        let length = length as f64;
        let flops = 3.5 * 2.0 * length * length * (self.heads[0] * self.head_dim) as f64;
        flops / rate(length, which)
    }
}

/// A rate of [`RATES`] between its lengths; shorter rows are slower in proportion.
fn rate(length: f64, which: usize) -> f64 {
    let [(shortest, first), ..] = RATES;
    if length < shortest {
        return first[which] * length / shortest;
    }
    let above = RATES.windows(2).find(|pair| length < pair[1].0);
    let Some(&[(low, from), (high, to)]) = above.and_then(|pair| pair.first_chunk::<2>()) else {
        return RATES[RATES.len() - 1].1[which];
    };
    let part = (length / low).ln() / (high / low).ln();
    from[which] + (to[which] - from[which]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(is_flash: bool, head_dim: i64) -> Form {
        Form::Together(Call { is_flash, head_dim })
    }

    fn choice(rows: &Rows) -> Choice<'_> {
        Choice {
            is_cuda: true,
            kind: Kind::BFloat16,
            heads: [32, 8],
            head_dim: 128,
            rows,
            scores: Scores::scaled(0.1),
            cudnn: false,
        }
    }

    #[test]
    fn every_head_size_has_a_form() {
        let rows = Rows::from_lengths([3, 5]);
        let of = |kind, head_dim| Choice {
            kind,
            head_dim,
            ..choice(&rows)
        };
        for (kind, head_dim, expected) in [
            (Kind::BFloat16, 128, together(true, 128)),
            (Kind::BFloat16, 1, together(true, 8)),
            (Kind::Half, 250, together(true, 256)),
            (Kind::BFloat16, 257, together(false, 264)),
            (Kind::Float, 128, together(false, 128)),
            (Kind::Float, 1, together(false, 4)),
            (Kind::Float, 6, together(false, 8)),
            (Kind::Float, 300, together(false, 300)),
            (Kind::Double, 64, Form::ByPiece),
        ] {
            assert_eq!(of(kind, head_dim).form(), expected, "{kind:?} {head_dim}");
        }
        for head_dim in 1..600 {
            for (kind, width) in [(Kind::Float, 4), (Kind::Half, 8), (Kind::BFloat16, 8)] {
                let Form::Together(call) = of(kind, head_dim).form() else {
                    panic!("{kind:?} {head_dim}: not one call");
                };
                assert!(call.head_dim >= head_dim && call.head_dim % width == 0);
                assert!(!call.is_flash || (kind != Kind::Float && call.head_dim <= FLASH));
            }
        }
    }

    #[test]
    fn windows_and_caps() {
        let rows = Rows::from_lengths([9]);
        let window = Scores {
            window: Some(4),
            ..Scores::scaled(0.1)
        };
        let soft_cap = Scores {
            soft_cap: Some(2.0),
            ..Scores::scaled(0.1)
        };
        let of = |kind, head_dim, scores| Choice {
            kind,
            head_dim,
            scores,
            ..choice(&rows)
        };
        let half = Kind::BFloat16;
        assert_eq!(of(half, 5, window).form(), together(true, 8));
        // memory-efficient attention has no window
        assert_eq!(of(half, 264, window).form(), Form::ByPiece);
        assert_eq!(of(Kind::Float, 64, window).form(), Form::ByPiece);
        assert_eq!(of(half, 64, soft_cap).form(), Form::ByPiece);
        let here = |scores| Choice {
            is_cuda: false,
            ..of(half, 5, scores)
        };
        assert_eq!(here(window).form(), Form::ByRow);
        assert_eq!(here(soft_cap).form(), Form::ByPiece);
    }

    #[test]
    fn cudnn_is_for_long_rows() {
        let dense = |head_dim| {
            Form::Cudnn(DenseCall {
                head_dim,
                is_cudnn: true,
            })
        };
        let alpaca = Rows::from_lengths((0..54).map(|row| 60 + 7 * (row % 30)));
        for (rows, expected) in [
            (Rows::from_lengths([4096, 4096]), dense(128)),
            (Rows::from_lengths([8192]), dense(128)),
            (Rows::from_lengths([4096, 2900, 1100, 96]), dense(128)),
            (alpaca, together(true, 128)),
            (Rows::single(100), together(true, 128)),
            // keys of other rows, and of a cache
            (
                Rows::from_tree([(4096, None), (4096, Some(0))]),
                together(true, 128),
            ),
            (Rows::continuing(4096, 4096), together(true, 128)),
        ] {
            let on = Choice {
                cudnn: true,
                ..choice(&rows)
            };
            assert_eq!(on.form(), expected, "{rows:?}");
            assert_eq!(choice(&rows).form(), together(true, 128), "off");
        }
        let rows = Rows::from_lengths([4096, 4096]);
        let of = |kind, head_dim| Choice {
            kind,
            head_dim,
            cudnn: true,
            ..choice(&rows)
        };
        assert_eq!(of(Kind::Half, 61).form(), dense(64));
        assert_eq!(of(Kind::BFloat16, 256).form(), together(true, 256));
        assert_eq!(of(Kind::Float, 128).form(), together(false, 128));
    }

    #[test]
    fn rates_are_those_measured() {
        for (length, rates) in RATES {
            for which in [0, 1] {
                let found = rate(length, which);
                assert!((found / rates[which] - 1.0).abs() < 1e-12);
            }
        }
        assert!((rate(75.0, 1) / 35e12 - 1.0).abs() < 1e-12);
        assert!(rate(1024.0, 0) > 148e12 && rate(1024.0, 0) < 280e12);
        assert!((rate(1e6, 0) / 280e12 - 1.0).abs() < 1e-12);
    }
}
