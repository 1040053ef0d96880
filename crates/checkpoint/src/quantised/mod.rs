//! Quantised weights of Hugging Face folders: the tensors that hold codes and scales become one weight.
//!
//! bitsandbytes stores a weight as a tensor of codes and several tensors beside it ([`bitsandbytes`]); fp8 checkpoints store
//! codes and one tensor of scales ([`fp8`]). [`Method`] says by `config.json` which of them a folder has.

mod bitsandbytes;
mod fp8;
mod method;
mod parts;
mod scales;

pub(crate) use method::{KEYS, Method, NotRead};
pub(crate) use scales::Scales;

use crate::checkpoint::Checkpoint;
use crate::hugging_face::Shard;
use crate::{CheckpointError, TensorSpec};
use parts::Parts;

/// Joins the parts of quantised weights.
///
/// # Errors
/// If a part is missing, superfluous, or does not fit the others; if `config.json` names a method, but no weight is quantised.
pub(crate) fn join(checkpoint: Checkpoint, method: &Method) -> Result<Checkpoint, CheckpointError> {
    let mut parts = Parts::of(checkpoint);
    match method {
        Method::BitsAndBytes => {
            bitsandbytes::four_bit(&mut parts)?;
            bitsandbytes::int8(&mut parts)?;
            bitsandbytes::check_rest(&parts)?;
        }
        Method::Fp8 { block } => fp8::join(&mut parts, *block)?,
    }
    let mut checkpoint = parts.checkpoint;
    let quantised = checkpoint
        .tensors
        .values()
        .any(|stored| stored.scales.is_some());
    if !quantised {
        return Err(CheckpointError::NotQuantised {
            folder: checkpoint.path,
        });
    }
    // the files of the same model in plain weights
    for Shard { tensors, .. } in &mut checkpoint.shards {
        tensors.retain_mut(|TensorSpec { name, dtype, shape }| {
            let Some(stored) = checkpoint.tensors.get(name) else {
                return false;
            };
            *dtype = stored.info.dtype;
            shape.clone_from(&stored.info.shape);
            true
        });
    }
    checkpoint.shards.retain(|shard| !shard.tensors.is_empty());
    Ok(checkpoint)
}

#[cfg(test)]
mod tests;
