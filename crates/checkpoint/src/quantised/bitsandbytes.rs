//! Weights as bitsandbytes stores them.
//!
//! nf4 and fp4: `X.weight` has two codes a byte; beside it are `X.weight.absmax`, `.quant_map`, with double quantisation
//! `.nested_absmax` and `.nested_quant_map`, and `.quant_state.bitsandbytes__nf4`, which is JSON. int8: `X.weight` has the
//! codes, `X.SCB` the largest absolute value of each row, and `X.weight_format` their order.
//!
//! Source: bitsandbytes, `functional.py` (`QuantState`) and `nn/modules.py` (`Linear8bitLt`).

use serde::Deserialize;
use simmer_blocks::Rounding;

use super::Scales;
use super::parts::{Part, Parts, wrong};
use super::scales::StoredAbsmax;
use crate::{CheckpointError, Dtype};

/// What stands before the name of the type in the name of a quantisation state.
const STATE: &str = ".quant_state.bitsandbytes__";
/// The end of the name of int8's scales.
const SCALES: &str = ".SCB";
/// Ends of the names of parts, which no weight has.
const PARTS: [&str; 6] = [
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    SCALES,
    ".weight_format",
];
const MISSING_STATE: &str = "a tensor `.quant_state.bitsandbytes__nf4` or `__fp4` beside it";

/// The quantisation state: JSON in the bytes of a tensor.
#[derive(Deserialize)]
struct State {
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// Joins the weights in four bits.
pub(super) fn four_bit(parts: &mut Parts) -> Result<(), CheckpointError> {
    for name in parts.names(|name, _| name.contains(STATE)) {
        let (Some((weight, kind)), Some(state_part)) = (name.split_once(STATE), parts.take(&name))
        else {
            continue;
        };
        let kind = match kind {
            "nf4" => "nf4",
            "fp4" => "fp4",
            kind => return Err(state_part.wrong("nf4 or fp4", format!("`{kind}`"))),
        };
        let state = State::read(parts.bytes(&state_part), &state_part)?;
        let [rows, columns] = state.matrix(&state_part)?;
        let Some(codes) = parts.take(weight) else {
            let expected = format!("the weight `{weight}` beside it");
            return Err(state_part.wrong(&expected, "none".to_owned()));
        };
        let bytes = codes.piece.range.len();
        let needed = (rows * columns).div_ceil(2);
        if bytes != needed {
            return Err(codes.wrong(
                &format!("{needed} bytes for a matrix of {rows} x {columns} in {kind}"),
                bytes.to_string(),
            ));
        }
        let values = parts.part_of(&codes, ".quant_map")?;
        values.has_length("quant_map", [rows, columns], 16)?;
        let scales = Scales::FourBit {
            name: kind,
            block: state.blocksize,
            rounding: state.rounding(&state_part)?,
            values: values.numbers()?,
            absmax: absmax(parts, &codes, [rows, columns], &state, &state_part)?,
        };
        parts.put(codes, vec![rows, columns], scales);
    }
    Ok(())
}

fn absmax(
    parts: &mut Parts,
    codes: &Part,
    shape: [usize; 2],
    state: &State,
    state_part: &Part,
) -> Result<StoredAbsmax, CheckpointError> {
    let blocks = (shape[0] * shape[1]).div_ceil(state.blocksize);
    let absmax = parts.part_of(codes, ".absmax")?;
    absmax.has_length("absmax", shape, blocks)?;
    let Some(block) = state.nested_blocksize else {
        return Ok(StoredAbsmax::Plain(absmax.numbers()?));
    };
    if absmax.info.dtype != Dtype::U8 {
        let found = absmax.info.dtype.to_string();
        return Err(absmax.wrong("U8, as `nested_blocksize` is in the state", found));
    }
    if block == 0 {
        return Err(state_part.wrong("a positive `nested_blocksize`", "0".to_owned()));
    }
    let Some(offset) = state.nested_offset.filter(|offset| offset.is_finite()) else {
        return Err(state_part.wrong("a number `nested_offset`", "none".to_owned()));
    };
    let values = parts.part_of(codes, ".nested_quant_map")?;
    values.has_length("nested_quant_map", shape, 256)?;
    let nested = parts.part_of(codes, ".nested_absmax")?;
    nested.has_length("nested_absmax", shape, blocks.div_ceil(block))?;
    Ok(StoredAbsmax::Nested {
        codes: absmax.piece,
        values: values.numbers()?,
        absmax: nested.numbers()?,
        block,
        offset,
    })
}

impl State {
    fn read(bytes: &[u8], part: &Part) -> Result<Self, CheckpointError> {
        let state: Self = serde_json::from_slice(bytes).map_err(|source| {
            part.wrong(
                "JSON with `blocksize`, `dtype` and `shape`",
                source.to_string(),
            )
        })?;
        // the sizes of its kernels
        if !state.blocksize.is_power_of_two() || !(32..=4096).contains(&state.blocksize) {
            let expected = "a `blocksize` of 32, 64, 128, ... or 4096";
            return Err(part.wrong(expected, state.blocksize.to_string()));
        }
        Ok(state)
    }

    /// The shape of the matrix.
    fn matrix(&self, part: &Part) -> Result<[usize; 2], CheckpointError> {
        let shape = <[usize; 2]>::try_from(&self.shape[..]).ok();
        let shape = shape.filter(|[rows, columns]| rows.checked_mul(*columns).is_some());
        shape.ok_or_else(|| part.wrong("the `shape` of a matrix", format!("{:?}", self.shape)))
    }

    fn rounding(&self, part: &Part) -> Result<Rounding, CheckpointError> {
        match self.dtype.as_str() {
            "float32" => Ok(Rounding::F32),
            "bfloat16" => Ok(Rounding::Bf16),
            "float16" => Ok(Rounding::F16),
            other => Err(part.wrong(
                "a `dtype` of float32, bfloat16 or float16",
                format!("{other:?}"),
            )),
        }
    }
}

/// Joins the weights in int8.
pub(super) fn int8(parts: &mut Parts) -> Result<(), CheckpointError> {
    for name in parts.names(|name, _| name.ends_with(SCALES)) {
        let module = name.trim_end_matches(SCALES);
        let weight = format!("{module}.weight");
        let Some(row_max) = parts.take(&name) else {
            continue;
        };
        let Some(codes) = parts.take(&weight) else {
            let expected = format!("the weight `{weight}` beside it");
            return Err(row_max.wrong(&expected, "none".to_owned()));
        };
        let (Dtype::I8, &[rows, columns]) = (codes.info.dtype, &codes.info.shape[..]) else {
            let found = format!("{} {:?}", codes.info.dtype, codes.info.shape);
            return Err(codes.wrong("a matrix in I8, as `SCB` is beside it", found));
        };
        row_max.has_length("SCB", [rows, columns], rows)?;
        if let Some(format) = parts.take(&format!("{module}.weight_format"))
            && parts.bytes(&format).iter().any(|&byte| byte != 0)
        {
            let found = format!("{:?}, an order for one kind of GPU", parts.bytes(&format));
            return Err(format.wrong("0: the codes row after row", found));
        }
        let scales = Scales::Int8(row_max.numbers()?);
        parts.put(codes, vec![rows, columns], scales);
    }
    Ok(())
}

/// Checks that no part of a quantised weight is left.
pub(super) fn check_rest(parts: &Parts) -> Result<(), CheckpointError> {
    let is_part = |name: &str| PARTS.iter().any(|end| name.ends_with(end));
    let left = parts.names(|name, info| is_part(name) || is_codes(info.dtype));
    let Some(name) = left.iter().find(|name| !is_part(name)).or(left.first()) else {
        return Ok(());
    };
    let dtype = parts.checkpoint.info(name)?.dtype;
    let (expected, found) = match dtype {
        Dtype::U8 if !is_part(name) => (MISSING_STATE, "none".to_owned()),
        Dtype::I8 => ("a tensor `SCB` beside it", "none".to_owned()),
        _ => ("a quantised weight that it belongs to", "none".to_owned()),
    };
    Err(wrong(&parts.file_of(name), name, expected, found))
}

fn is_codes(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::U8 | Dtype::I8)
}
