//! Matrices in e4m3 with a scale for each row, and frozen weights that are multiplied in it on libtorch
//! (`base.compute = "fp8"`).
//!
//! `x Wᵀ` multiplies the codes of `x` and `W`, each quantised by row, and sums in f32: `y = s_x (x₈ W₈ᵀ) s_W`. A GPU's
//! products in e4m3 take both factors with their inner dimension contiguous. So the weight has a second copy, its transpose
//! quantised by row, for `dy W`: there the row scales of `W` would lie along the sum. Both copies together are as large as the
//! weight in bf16.
//!
//! A code is rounded to 4 bits of precision: by at most 2⁻⁴ of its value, or half of the smallest code, 2⁻¹⁰ · s.
//!
//! Axes: M rows, K columns (summed over in products), N rows of the other factor; R rows, C columns of a weight.

use std::cell::OnceCell;

use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use crate::OptionalKernel;
use crate::libtorch::cuda::{self, Argument};
use crate::libtorch::{bytes, fresh, in_kind};
use crate::product::Side;

/// The largest number of e4m3.
const LARGEST: f32 = 448.0;
/// Stands for the largest value of a row of zeros, so that no scale is zero.
const LEAST: f32 = 1e-30;
/// Packs of elements that a thread of the kernel keeps, as in `quantise_rows.cu`.
const HELD: usize = 4;

/// A matrix in e4m3 with a scale for each row.
#[derive(Debug)]
pub(crate) struct ScaledRows {
    /// `[M, K]`, e4m3.
    codes: TchTensor,
    /// `[M, 1]`, f32.
    scales: TchTensor,
}

impl ScaledRows {
    /// A matrix, quantised by row: on a GPU in one pass by the kernel of `quantise_rows.cu`, or else by ATen's operations,
    /// with the same result.
    ///
    /// # Shapes
    /// `x`: `[M, K]`, f32, bf16 or f16.
    pub(crate) fn of(x: &Tensor) -> Self {
        let x = x.contiguous();
        let [codes, scales] = by_kernel(&x).unwrap_or_else(|| by_aten(&x));
        Self {
            codes: fresh(codes),
            scales: fresh(scales),
        }
    }

    /// All elements in a dtype.
    ///
    /// # Shapes
    /// Result: `[M, K]`.
    pub(crate) fn widened(&self, kind: Kind) -> Tensor {
        let wide = self.codes.tensor.to_kind(Kind::Float) * &self.scales.tensor;
        in_kind(&wide, kind)
    }

    /// `self otherᵀ`, summed in f32 (unless `fp8_fast_sums` is switched on) and rounded once. A processor widens the codes, which changes no result.
    ///
    /// # Shapes
    /// `other`: `[N, K]`. Result: `[M, N]`, f32 or bf16.
    pub(crate) fn product(&self, other: &Self, kind: Kind) -> Tensor {
        let [a, b] = [&self.codes.tensor, &other.codes.tensor];
        let [of_a, of_b] = [&self.scales.tensor, &other.scales.tensor.tr()];
        if a.device().is_cuda() {
            let none = None::<Tensor>;
            let y = a.internal_scaled_mm(
                &b.tr(),
                of_a,
                of_b,
                none.as_ref(),
                none.as_ref(),
                Kind::BFloat16,
                OptionalKernel::Fp8FastSums.is_on(),
            );
            return in_kind(&y, kind);
        }
        let [a, b] = [a, b].map(|of| of.to_kind(Kind::Float));
        in_kind(&(a.mm(&b.tr()) * of_a * of_b), kind)
    }

    fn with_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Self {
            codes: fresh(f(&self.codes.tensor)),
            scales: fresh(f(&self.scales.tensor)),
        }
    }

    fn bytes(&self) -> usize {
        bytes(&[&self.codes.tensor, &self.scales.tensor])
    }
}

/// The left factor of products: its codes are computed once, when the first product needs them.
pub(crate) struct Operand<'a> {
    /// `[M, K]`
    pub(crate) x: &'a Tensor,
    rows: OnceCell<ScaledRows>,
}

impl<'a> Operand<'a> {
    /// The factor `x`, `[M, K]`.
    pub(crate) fn of(x: &'a Tensor) -> Self {
        Self {
            x,
            rows: OnceCell::new(),
        }
    }

    fn rows(&self) -> &ScaledRows {
        self.rows.get_or_init(|| ScaledRows::of(self.x))
    }
}

/// A frozen weight that is multiplied in e4m3.
pub(crate) struct Fp8Weight {
    /// `[R, C]`
    plain: ScaledRows,
    /// `[C, R]`
    transposed: ScaledRows,
}

impl Fp8Weight {
    /// A weight, quantised by row and by column.
    ///
    /// # Shapes
    /// `weight`: `[R, C]`.
    pub(crate) fn of(weight: &Tensor) -> Self {
        Self {
            plain: ScaledRows::of(weight),
            transposed: ScaledRows::of(&weight.tr()),
        }
    }

    /// The same weight with each of its tensors replaced, by a copy on another device for instance.
    pub(super) fn with_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Self {
            plain: self.plain.with_tensors(f),
            transposed: self.transposed.with_tensors(f),
        }
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        let size = self.plain.codes.tensor.size();
        [size[0] as usize, size[1] as usize]
    }

    /// Bytes of one of both copies, which a product reads.
    pub(crate) fn bytes(&self) -> usize {
        self.plain.bytes()
    }

    /// `x Wᵀ` or `x W` in the dtype of `x`.
    ///
    /// # Shapes
    /// `x`: `[T, C]`, result: `[T, R]`, or the other way round; see [`Side`].
    pub(crate) fn product(&self, x: &Operand<'_>, side: Side) -> Tensor {
        let weight = match side {
            Side::Transposed => &self.plain,
            Side::Plain => &self.transposed,
        };
        x.rows().product(weight, x.x.kind())
    }

    /// All elements in a dtype.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    pub(crate) fn widened(&self, kind: Kind) -> Tensor {
        self.plain.widened(kind)
    }

    /// Some rows in f32.
    ///
    /// # Shapes
    /// `ids`: `[T]`, i64. Result: `[T, C]`.
    pub(crate) fn rows(&self, ids: &Tensor) -> Tensor {
        let codes = self.plain.codes.tensor.view_dtype(Kind::Uint8);
        let codes = codes.index_select(0, ids).view_dtype(Kind::Float8e4m3fn);
        codes.to_kind(Kind::Float) * self.plain.scales.tensor.index_select(0, ids)
    }
}

/// Codes and scales by the kernel, on a GPU.
fn by_kernel(x: &Tensor) -> Option<[Tensor; 2]> {
    let [rows, width] = x.size()[..] else {
        unreachable!("a matrix has two axes")
    };
    let names = [
        ["quantise_rows_f32", "quantise_rows_f32_single"],
        ["quantise_rows_bf16", "quantise_rows_bf16_single"],
    ];
    let (name, together) = cuda::variant(&[x], &[width], names)?;
    let kernel = cuda::QUANTISE_ROWS.kernel(OptionalKernel::QuantiseRows, name, x)?;
    let codes = Tensor::empty([rows, width], (Kind::Float8e4m3fn, x.device()));
    let scales = Tensor::empty([rows, 1], (Kind::Float, x.device()));
    let threads = (width as usize).div_ceil(together as usize * HELD);
    let threads = threads.next_multiple_of(32).clamp(32, 1024);
    let arguments = [
        Argument::Tensor(x),
        Argument::Tensor(&codes),
        Argument::Tensor(&scales),
        Argument::Int(width),
    ];
    kernel.on_blocks([rows as usize, 1, 1], threads, 0, &arguments);
    Some([codes, scales])
}

/// Codes and scales by ATen's operations.
fn by_aten(x: &Tensor) -> [Tensor; 2] {
    let most = x.abs().amax([1].as_slice(), true).to_kind(Kind::Float);
    let most = most.clamp_min(f64::from(LEAST)); // [M, 1]
    let largest = f64::from(LARGEST);
    // a quotient of tensors is rounded once on every device, one by a number may be a product
    let factor = most.full_like(largest).divide(&most);
    let mut codes = x.to_dtype(Kind::Float, false, true); // a copy, changed in place
    let _ = codes.g_mul_(&factor).clamp_(-largest, largest);
    [
        codes.to_kind(Kind::Float8e4m3fn),
        most * f64::from(1.0 / LARGEST),
    ]
}

#[cfg(test)]
mod tests;
