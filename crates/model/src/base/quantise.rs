//! Weights that stay quantised as they are stored, or are quantised while they are loaded.
//!
//! Axes: R rows, C columns of a matrix.

use burn::tensor::TensorData;
use simmer_blocks::{Encoder, Encoding, FourBitKind, Quantised, Rounding};
use simmer_checkpoint::family::{Module, ModuleKind};
use simmer_checkpoint::layout::{Part, TensorLayout, tensors};
use simmer_checkpoint::numbers::floats;
use simmer_checkpoint::{Checkpoint, Dtype, Pretrained};

use super::{Base, BaseError, BasePrecision, QuantisedOnLoad, random};

/// Bytes of rows in f32 that are quantised at a time.
const TOGETHER: usize = 16 << 20;

/// Elements of a block of nf4 and fp4, as in QLoRA.
const BLOCK: usize = 64;

impl Base {
    /// The first weight that is quantised in memory: its name, and the name of its type.
    pub fn quantised_weight(&self) -> Option<(String, &'static str)> {
        tensors(&self.config).into_iter().find_map(|tensor| {
            if self.multiplies_in_fp8(&tensor) {
                return Some((tensor.name, "fp8"));
            }
            if let Some(encoding) = self.encoding(&tensor) {
                return Some((tensor.name, encoding.name()));
            }
            self.bytes_as_stored(&tensor)?;
            let kind = self.checkpoint.as_ref()?.quantised_type(&tensor.name);
            Some((tensor.name, kind.ok()??))
        })
    }

    /// Sets how ordinary weights are quantised while they are loaded.
    pub fn set_quantised(&mut self, wanted: QuantisedOnLoad) {
        self.precision = Some(wanted.precision);
        self.double_quant = wanted.double_quant;
    }

    /// Whether weights are quantised while they are loaded: the pages of the files are read once, and not needed again.
    pub fn quantises(&self) -> bool {
        self.precision.is_some_and(BasePrecision::is_quantised)
    }

    /// A quantised matrix: one that stays as it is stored, or one that `base.precision` asks for.
    pub(super) fn quantised(
        &self,
        tensor: &TensorLayout,
        seed: u64,
    ) -> Result<Option<Quantised>, BaseError> {
        if let Some(matrix) = self.as_stored(tensor)? {
            return Ok(Some(matrix));
        }
        self.quantised_on_load(tensor, seed)
    }

    /// A base model on disk; its linear weights are quantised while they are loaded, if so asked.
    pub(crate) fn of(model: Pretrained, quantised: Option<QuantisedOnLoad>) -> Self {
        Self {
            config: model.config,
            checkpoint: Some(model.checkpoint),
            precision: quantised.map(|quantised| quantised.precision),
            double_quant: quantised.is_none_or(|quantised| quantised.double_quant),
            compute: None,
            offload: None,
            new_rows: 0..0,
        }
    }

    /// The type that a weight is quantised to while it is loaded, and the dtype that holds its widened values exactly.
    pub(crate) fn type_on_load(&self, tensor: &TensorLayout) -> Option<(&'static str, Dtype)> {
        let encoding = self.encoding(tensor)?;
        let dtype = match encoding {
            Encoding::FourBit { rounding, .. } => match rounding {
                Rounding::F32 => Dtype::F32,
                Rounding::Bf16 => Dtype::BF16,
                Rounding::F16 => Dtype::F16,
            },
            Encoding::Int8 | Encoding::Blocks(_) => Dtype::F32,
        };
        Some((encoding.name(), dtype))
    }

    /// A matrix that `base.precision` quantises while it is loaded.
    pub(crate) fn quantised_on_load(
        &self,
        tensor: &TensorLayout,
        seed: u64,
    ) -> Result<Option<Quantised>, BaseError> {
        let Some(encoding) = self.encoding(tensor) else {
            return Ok(None);
        };
        let found = match &self.checkpoint {
            Some(checkpoint) => encoded(checkpoint, tensor, encoding)?,
            None => encoded_values(&random(&self.config, tensor, seed), encoding),
        };
        let path = self.checkpoint.as_ref().map(Checkpoint::path);
        found.map(Some).map_err(|source| BaseError::Quantise {
            path: path.map(ToOwned::to_owned).unwrap_or_default(),
            tensor: tensor.name.clone(),
            source: Box::new(source),
        })
    }

    /// The elements of a weight before it is quantised while it is loaded.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn before_quantisation(
        &self,
        tensor: &TensorLayout,
        seed: u64,
    ) -> Result<Vec<f32>, BaseError> {
        let Some(checkpoint) = &self.checkpoint else {
            let values = random(&self.config, tensor, seed);
            return Ok(floats(values.as_bytes(), Dtype::F32));
        };
        let info = checkpoint.info(&tensor.name)?;
        let (dtype, [rows, _]) = (info.dtype, shape(&info.shape));
        let values = floats(&checkpoint.rows(&tensor.name, 0..rows)?, dtype);
        checkpoint.release(&tensor.name, 0..rows);
        Ok(values)
    }

    /// A matrix that stays quantised as it is stored.
    fn as_stored(&self, tensor: &TensorLayout) -> Result<Option<Quantised>, BaseError> {
        match self.stays_in(tensor) {
            Some(checkpoint) => Ok(checkpoint.quantised(&tensor.name)?),
            None => Ok(None),
        }
    }

    /// Bytes of a matrix that stays quantised as it is stored, and how many of them are pages of its file.
    pub(super) fn bytes_as_stored(&self, tensor: &TensorLayout) -> Option<[u64; 2]> {
        let checkpoint = self.stays_in(tensor)?;
        checkpoint.quantised_bytes(&tensor.name).ok()?
    }

    /// The checkpoint of a weight that stays as it is stored if that is quantised.
    fn stays_in(&self, tensor: &TensorLayout) -> Option<&Checkpoint> {
        let checkpoint = self.checkpoint.as_ref()?;
        let stays = tensor.part == Part::Weight
            && self.stays_quantised(tensor.module)
            && checkpoint.contains(&tensor.name);
        stays.then_some(checkpoint)
    }

    /// Whether a module's weight stays as it is stored if that is quantised: another dtype was not asked for, no
    /// rows are added, and an operation takes it.
    fn stays_quantised(&self, module: &Module) -> bool {
        let grows = module.is_outermost() && !self.new_rows.is_empty();
        let wanted = self.precision.and_then(BasePrecision::dtype);
        wanted.is_none() && module.kind != ModuleKind::Norm && !grows
    }

    /// How a weight is quantised while it is loaded: linear modules, where `base.precision` asks for it. The
    /// embedding and the output head stay as they are, as with bitsandbytes.
    fn encoding(&self, tensor: &TensorLayout) -> Option<Encoding> {
        if tensor.part != Part::Weight || tensor.module.kind != ModuleKind::Linear {
            return None;
        }
        let stored = self.checkpoint.as_ref();
        let stored = stored.and_then(|checkpoint| Some(checkpoint.info(&tensor.name).ok()?.dtype));
        let rounding = match stored {
            Some(Dtype::BF16) => Rounding::Bf16,
            Some(Dtype::F16) => Rounding::F16,
            _ => Rounding::F32,
        };
        let four_bit = |kind| Encoding::FourBit {
            kind,
            block: BLOCK,
            nested: self.double_quant,
            rounding,
        };
        match self.precision? {
            BasePrecision::Nf4 => Some(four_bit(FourBitKind::Nf4)),
            BasePrecision::Fp4 => Some(four_bit(FourBitKind::Fp4)),
            BasePrecision::Int8 => Some(Encoding::Int8),
            BasePrecision::F32 | BasePrecision::Bf16 | BasePrecision::F16 => None,
        }
    }

    /// Bytes of a weight that is quantised while it is loaded.
    pub(super) fn encoded_bytes(&self, tensor: &TensorLayout) -> Option<u64> {
        let bytes = self.encoding(tensor)?.bytes(shape(&tensor.shape));
        Some(bytes as u64)
    }
}

type Encoded = Result<Quantised, simmer_blocks::BlocksError>;

/// Quantises a matrix of a checkpoint, some rows at a time.
fn encoded(
    checkpoint: &Checkpoint,
    tensor: &TensorLayout,
    encoding: Encoding,
) -> Result<Encoded, BaseError> {
    let info = checkpoint.info(&tensor.name)?;
    let (dtype, [rows, columns]) = (info.dtype, shape(&info.shape));
    let together = (TOGETHER / (columns * size_of::<f32>()).max(1)).max(1);
    let mut encoder = match Encoder::new(encoding, [rows, columns]) {
        Ok(encoder) => encoder,
        Err(error) => return Ok(Err(error)),
    };
    for start in (0..rows).step_by(together) {
        let part = start..rows.min(start + together);
        let bytes = checkpoint.rows(&tensor.name, part.clone())?;
        if let Err(error) = encoder.rows(&floats(&bytes, dtype)) {
            return Ok(Err(error));
        }
        checkpoint.release(&tensor.name, part);
    }
    Ok(encoder.finish())
}

fn encoded_values(data: &TensorData, encoding: Encoding) -> Encoded {
    Quantised::encode(
        encoding,
        shape(data.shape()),
        &floats(data.as_bytes(), Dtype::F32),
    )
}

fn shape(shape: &[usize]) -> [usize; 2] {
    match shape {
        [rows, columns] => [*rows, *columns],
        other => [1, other.iter().product()],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use burn::tensor::Device;
    use simmer_checkpoint::convert::to_gguf;
    use simmer_checkpoint::gguf::Vocabulary;
    use simmer_checkpoint::gguf::model::FileType;

    use crate::base::{BaseConfig, load};

    #[test]
    fn a_scale_inside_the_blocks_of_a_file_that_is_nan_is_named() {
        let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/tied-gqa");
        let model = simmer_checkpoint::Pretrained::open(Path::new(goldens)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.gguf");
        let kinds = FileType::named("q8_0");
        to_gguf(
            &model,
            &file,
            kinds,
            "x",
            &Vocabulary::default(),
            &mut |_, _| (),
        )
        .unwrap();
        let base = BaseConfig::from_path(&file).open().unwrap();
        let up = "model.layers.1.mlp.up_proj.weight";
        let matrix = base.checkpoint().unwrap().quantised(up).unwrap().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let codes = matrix.codes().to_vec();
        let mut places = bytes.windows(codes.len());
        let place = places.position(|window| window == codes).unwrap();
        drop((base, matrix));
        // the scale of the third row, of one block: NaN in f16
        bytes[place + 2 * 34..][..2].copy_from_slice(&[0x01, 0x7e]);
        fs::write(&file, bytes).unwrap();
        let error = load(&BaseConfig::from_path(&file), 0, &Device::flex()).unwrap_err();
        let said = error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(said, @"DIR/model.gguf: tensor `model.layers.1.mlp.up_proj.weight`: stored row 2, column 0: Q8_0 with a scale or value that is NaN or infinite");
    }
}
