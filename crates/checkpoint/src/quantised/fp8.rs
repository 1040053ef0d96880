//! Weights in fp8 (e4m3): `X.weight` has the codes, `X.weight_scale_inv` or `X.weight_scale` the scales.
//!
//! Despite its name, a weight is multiplied by `weight_scale_inv` too. The scales of activations (`X.input_scale` and others)
//! are left out, because activations are not quantised here.
//!
//! Source: transformers, `integrations/finegrained_fp8.py` and `integrations/fbgemm_fp8.py`; compressed-tensors,
//! `float-quantized`.

use super::Scales;
use super::parts::{Part, Parts, wrong};
use super::scales::Shared;
use crate::{CheckpointError, Dtype};

/// Ends of the names of scales of activations, of keys and of values.
const OF_ACTIVATIONS: [&str; 7] = [
    ".input_scale",
    ".input_scale_ub",
    ".activation_scale",
    ".output_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
];

/// Joins weights and scales; `block` has the rows and columns of the blocks that share a scale.
pub(super) fn join(parts: &mut Parts, block: Option<[usize; 2]>) -> Result<(), CheckpointError> {
    for name in parts.names(|name, _| OF_ACTIVATIONS.iter().any(|end| name.ends_with(end))) {
        parts.take(&name);
    }
    for name in parts.names(|_, info| info.dtype == Dtype::F8_E4M3) {
        let Some(codes) = parts.take(&name) else {
            continue;
        };
        let scale = parts.take(&format!("{name}_scale_inv"));
        let scale = match scale {
            Some(scale) => scale,
            None => parts.part_of(&codes, "_scale")?,
        };
        let &[rows, columns] = &codes.info.shape[..] else {
            let found = format!("{:?}", codes.info.shape);
            return Err(codes.wrong("the shape of a matrix", found));
        };
        let shared = shared(&scale, [rows, columns], block)?;
        let scales = Scales::Fp8(scale.numbers()?, shared);
        parts.put(codes, vec![rows, columns], scales);
    }
    let is_scale = |name: &str| name.ends_with("_scale") || name.ends_with("_scale_inv");
    let Some(left) = parts.names(|name, _| is_scale(name)).into_iter().next() else {
        return Ok(());
    };
    let weight = left
        .trim_end_matches("_inv")
        .trim_end_matches("_scale")
        .to_owned();
    let found = match parts.checkpoint.info(&weight) {
        Ok(info) => info.dtype.to_string(),
        Err(_) => "none".to_owned(),
    };
    let expected = format!("a weight `{weight}` in F8_E4M3 beside it");
    Err(wrong(&parts.file_of(&left), &left, &expected, found))
}

fn shared(
    scale: &Part,
    [rows, columns]: [usize; 2],
    block: Option<[usize; 2]>,
) -> Result<Shared, CheckpointError> {
    let blocks = block.map(|[high, wide]| [rows.div_ceil(high), columns.div_ceil(wide)]);
    let shape = scale.info.shape.as_slice();
    if let (Some(size), Some(blocks)) = (block, blocks)
        && shape == blocks
    {
        return Ok(Shared::Blocks(size));
    }
    match shape {
        [] | [1] | [1, 1] => Ok(Shared::Matrix),
        [all] | [all, 1] if *all == rows => Ok(Shared::Rows),
        shape => {
            let of_blocks = match (block, blocks) {
                (Some([high, wide]), Some(blocks)) => {
                    format!(", or {blocks:?} for blocks of {high} x {wide}")
                }
                _ => String::new(),
            };
            let expected =
                format!("a scale, [{rows}, 1] for the rows of {rows} x {columns}{of_blocks}");
            Err(scale.wrong(&expected, format!("{shape:?}")))
        }
    }
}
