//! The base model: loaded from a checkpoint, or randomly initialised.

mod build;
mod config;
mod error;
mod fp8;
mod offload;
mod quantise;

use std::ops::Range;

use burn::tensor::{DType, Device, TensorData};
use simmer_blocks::Quantised;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::family::{Module, ModuleKind, NormWeight};
use simmer_checkpoint::layout::{Part, TensorLayout, tensors};
use simmer_checkpoint::numbers::{convert as convert_bytes, count_not_finite};
use simmer_checkpoint::{Checkpoint, Dtype, Layout};
use simmer_kernels::{Capabilities, HostMemory, mix};

use crate::llama::LlamaForCausalLM;
use crate::offload::{LayerCopies, Offloaded};
use crate::placement::{Placement, Places};
use crate::random::normal;
use crate::tensor_file::{ReadData, stored_dtype};

use build::{Source, build};
pub use config::{BaseConfig, BasePrecision, Compute, Precision, QuantisedOnLoad};
pub use error::BaseError;
use fp8::in_fp8;
pub use offload::Offload;

/// An opened base model: its configuration, and where its weights come from.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its weights; `None` for random initialisation.
    checkpoint: Option<Checkpoint>,
    precision: Option<BasePrecision>,
    /// Whether scales of nf4 and fp4 are quantised once more.
    double_quant: bool,
    /// The dtype that the layers compute in, if it was chosen.
    compute: Option<Compute>,
    offload: Option<Offload>,
    /// Rows of tokens that were added to the tokenizer.
    new_rows: Range<usize>,
}

impl Base {
    /// The weights on disk; `None` for random initialisation.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Dtype of frozen weights in memory that are not quantised; if they have several, that of the first tensor.
    pub fn precision(&self) -> Precision {
        let stored = self.checkpoint.as_ref().and_then(|checkpoint| {
            let (_, info) = checkpoint.tensors().next()?;
            match info.dtype {
                Dtype::BF16 => Some(Precision::Bf16),
                Dtype::F16 => Some(Precision::F16),
                _ => None,
            }
        });
        let wanted = self.precision.and_then(BasePrecision::float);
        wanted.or(stored).unwrap_or(Precision::F32)
    }

    /// Sets the dtype that the layers compute in; `None`: it is open.
    pub fn set_compute(&mut self, compute: Option<Compute>) {
        self.compute = compute;
    }

    /// Chooses the dtype that the layers compute in, unless [`BaseConfig::compute`] has: bf16 for weights in bf16 on a device
    /// that is faster in it, else f32.
    pub fn choose_compute(&mut self, device: &Capabilities) -> Compute {
        let faster = self.precision() == Precision::Bf16 && device.fastest == DType::BF16;
        let default = if faster { Compute::Bf16 } else { Compute::F32 };
        *self.compute.get_or_insert(default)
    }

    /// The dtype that the layers compute in: the chosen one, or f32.
    pub fn compute(&self) -> Compute {
        self.compute.unwrap_or(Compute::F32)
    }

    /// Bytes that the weights take, and how many of them stay memory-mapped, so that the operating system can drop them and
    /// read them again when memory is short.
    pub fn bytes(&self) -> [u64; 2] {
        let [mut bytes, mut mapped] = [0, 0];
        for tensor in tensors(&self.config) {
            let size = self.size(&tensor);
            bytes += size.bytes;
            mapped += size.mapped;
        }
        [bytes, mapped]
    }

    /// The dtype of weights that are not quantised; `None`: as stored.
    fn dtype(&self) -> Option<DType> {
        let beside = self.checkpoint.is_none().then_some(DType::BF16);
        self.precision.and_then(|wanted| wanted.dtype().or(beside))
    }

    /// Checks that a device can compute in what `base.compute` says.
    ///
    /// # Errors
    /// A dtype that it does not compute in; products in fp8 on a device without them, or of weights that `base.precision`
    /// quantises.
    pub fn check_compute(&self, can: &Capabilities) -> Result<(), BaseError> {
        let dtype = self.compute().dtype();
        if !can.computes.contains(&dtype) {
            return Err(BaseError::Compute {
                device: can.name(),
                computes: can.computes,
                dtype,
            });
        }
        if self.compute() == Compute::Fp8 {
            self.check_fp8(can)?;
        }
        Ok(())
    }

    /// Adds rows to the embedding and the output head for tokens that were added to the tokenizer. Each new row is
    /// the mean of the rows below `rows.start`, which are those of the existing tokens. Spare rows of a padded
    /// vocabulary are reused; otherwise the matrix grows. With random initialisation the rows are drawn like all
    /// others.
    ///
    /// Source: Alpaca's `smart_tokenizer_and_embedding_resize`.
    ///
    /// # Panics
    /// If there is a gap between the last row of the embedding and `rows`.
    pub fn add_rows(&mut self, rows: Range<usize>) {
        assert!(
            rows.start <= self.config.vocab_size,
            "a gap before the new rows"
        );
        self.config.vocab_size = self.config.vocab_size.max(rows.end);
        self.new_rows = rows;
    }

    /// Bytes of each part of the model, as [`Base::bytes`], for places with so many layers: the embedding is in the first, the head
    /// in the last.
    pub fn bytes_of_places(&self, counts: &[usize]) -> Vec<[u64; 2]> {
        let places = Places::of(counts);
        let mut found = vec![[0; 2]; counts.len()];
        let last = counts.len() - 1;
        for tensor in tensors(&self.config) {
            let size = self.size(&tensor);
            let mut add = |place: usize| {
                found[place][0] += size.bytes;
                found[place][1] += size.mapped;
            };
            match tensor.layer {
                Some(layer) => add(places.of_layer(layer)),
                None if tensor.module.kind == ModuleKind::Embedding => {
                    add(0);
                    if self.config.tie_word_embeddings && last > 0 {
                        add(last); // a copy for the head
                    }
                }
                None => add(last),
            }
        }
        found
    }

    /// Bytes of a tensor in memory.
    pub(crate) fn bytes_of(&self, tensor: &TensorLayout) -> u64 {
        self.size(tensor).bytes
    }

    /// Loads the base model with every weight frozen.
    ///
    /// The model records gradients; [`Module::valid`](burn::module::Module::valid) returns a model for inference.
    /// Weights that are stored in the requested dtype stay memory-mapped; a widened copy exists only within an
    /// operation. Random weights are drawn from `seed`, in f32 unless `precision` is set; beside quantised ones in bf16.
    /// The layers compute in f32 unless another dtype was chosen.
    ///
    /// # Errors
    /// A dtype that Burn does not support, or that the device does not compute in.
    pub fn load(&self, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
        self.load_at(seed, &Placement::one(device.clone()))
    }

    /// As [`Base::load`], on one device or several: each weight is copied to its own.
    ///
    /// # Errors
    /// As [`Base::load`].
    pub fn load_at(&self, seed: u64, placement: &Placement) -> Result<LlamaForCausalLM, BaseError> {
        let can = Capabilities::of(placement.first());
        self.check_compute(&can)?;
        self.check_offload(&can)?;
        let placement = placement.autodiff();
        let mut source = |tensor: &TensorLayout| -> Result<Source, BaseError> {
            let found = self.stored(tensor, seed, &can)?;
            Ok(match tensor.layer {
                Some(layer) if self.multiplies_in_fp8(tensor) => {
                    in_fp8(&found, placement.of_layer(layer))
                }
                _ => found,
            })
        };
        let host = match self.offload {
            Some(Offload::Host) => HostMemory::new(placement.first()),
            Some(Offload::Disk) | None => None,
        };
        let mut model = build(&self.config, &mut source, &placement, host)?;
        model.model.embed_tokens.compute = self.compute().dtype();
        model.own_vocabulary = !self.new_rows.is_empty();
        model.offloaded = match self.offload {
            Some(Offload::Disk) => self.layer_pages()?.map(Offloaded::Disk),
            Some(Offload::Host) => {
                let copies = LayerCopies::of(&model.model.layers);
                Some(Offloaded::Host(copies))
            }
            None => None,
        };
        Ok(model)
    }

    /// A tensor in the dtype in which it is held, or as it is quantised.
    fn stored(
        &self,
        tensor: &TensorLayout,
        seed: u64,
        can: &Capabilities,
    ) -> Result<Source, BaseError> {
        if let Some(matrix) = self.quantised(tensor, seed)? {
            if let Some(checkpoint) = &self.checkpoint {
                check_codes(checkpoint, &tensor.name, &matrix)?;
            }
            return Ok(Source::Quantised(matrix));
        }
        let precision = self.dtype();
        let data = match &self.checkpoint {
            Some(checkpoint) => {
                let data = checkpoint.data(&tensor.name)?;
                check_finite(checkpoint, &tensor.name, &data, precision)?;
                self.with_new_rows(tensor.module, data)
            }
            None => random(&self.config, tensor, seed),
        };
        Ok(Source::Dense(held(convert(data, precision), can)))
    }

    fn with_new_rows(&self, module: &Module, data: TensorData) -> TensorData {
        if module.is_outermost() && !self.new_rows.is_empty() {
            mean_rows(data, &self.new_rows)
        } else {
            data
        }
    }
}

/// [`BaseConfig::open`], then [`Base::load`].
///
/// # Errors
/// The errors of both.
pub fn load(base: &BaseConfig, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
    base.open()?.load(seed, device)
}

/// A tensor of this many bytes is checked whatever happens to it.
const FEW: usize = 1 << 20;

/// Checks that the values of a tensor are finite, if they are read now anyway or are few: loading must not read a large
/// mapped tensor.
fn check_finite(
    checkpoint: &Checkpoint,
    tensor: &str,
    data: &TensorData,
    precision: Option<DType>,
) -> Result<(), BaseError> {
    let copied = checkpoint.layout() != Layout::HuggingFace
        || precision.is_some_and(|dtype| dtype != data.dtype());
    let float = match data.dtype() {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => return Ok(()),
    };
    if !copied && data.as_bytes().len() > FEW {
        return Ok(());
    }
    let count = count_not_finite(data.as_bytes(), float);
    not_finite(checkpoint, tensor, count, data.num_elements())
}

/// Checks the scales and codes of a quantised matrix as it is stored, if they are few: a large one is not read when it is
/// loaded.
fn check_codes(checkpoint: &Checkpoint, tensor: &str, matrix: &Quantised) -> Result<(), BaseError> {
    if matrix.codes().len() > FEW {
        return Ok(());
    }
    Ok(checkpoint.check_codes(tensor, matrix)?)
}

fn not_finite(
    checkpoint: &Checkpoint,
    tensor: &str,
    count: usize,
    of: usize,
) -> Result<(), BaseError> {
    if count == 0 {
        return Ok(());
    }
    Err(BaseError::NotFinite {
        path: checkpoint.path().to_owned(),
        tensor: tensor.to_owned(),
        count,
        of,
    })
}

/// In f32, if the device does not hold weights in the dtype.
fn held(data: TensorData, can: &Capabilities) -> TensorData {
    if can.stores.contains(&data.dtype()) {
        data
    } else {
        data.convert_dtype(DType::F32)
    }
}

fn convert(data: TensorData, precision: Option<DType>) -> TensorData {
    match precision {
        Some(dtype) if dtype != data.dtype() => data.convert_dtype(dtype),
        _ => data,
    }
}

/// Sets the rows `rows` of a matrix to the mean of the rows below them, summed in f64 and rounded once to
/// the stored dtype.
fn mean_rows(data: TensorData, rows: &Range<usize>) -> TensorData {
    /// Rows widened to f32 at a time.
    const BLOCK: usize = 256;
    let dtype = data.dtype();
    let stored = stored_dtype(dtype).unwrap_or(Dtype::F32);
    let columns = data.shape()[1];
    let row_bytes = columns * dtype.size();
    let bytes = data.as_bytes();
    let (before, rest) = bytes.split_at(rows.start * row_bytes);
    let mut sums = vec![0.0_f64; columns];
    for block in before.chunks(BLOCK * row_bytes) {
        let wide = convert_bytes(block, stored, Dtype::F32);
        for (number, sum) in wide.chunks_exact(4).zip((0..columns).cycle()) {
            sums[sum] += f64::from(f32::from_le_bytes([
                number[0], number[1], number[2], number[3],
            ]));
        }
    }
    let count = rows.start.max(1) as f64;
    let mean = sums
        .iter()
        .flat_map(|sum| ((sum / count) as f32).to_le_bytes());
    let mean = convert_bytes(&mean.collect::<Vec<u8>>(), Dtype::F32, stored);
    let mut out = Vec::with_capacity(bytes.len().max(rows.end * row_bytes));
    out.extend_from_slice(before);
    for _ in rows.clone() {
        out.extend_from_slice(&mean);
    }
    out.extend_from_slice(rest.get(rows.len() * row_bytes..).unwrap_or_default());
    let shape = [out.len() / row_bytes, columns];
    TensorData::from_bytes_vec(out, shape, dtype)
}

/// Random initialisation of a tensor: the factor one for norms, zeros for biases, otherwise normal.
///
/// Source: transformers `LlamaPreTrainedModel._init_weights`.
fn random(config: &ModelConfig, tensor: &TensorLayout, seed: u64) -> TensorData {
    let size = tensor.shape.iter().product();
    let values = match (tensor.part, tensor.module.kind) {
        (Part::Bias, _) => vec![0.0; size],
        (Part::Weight, ModuleKind::Norm) => match config.family.norm_weight {
            NormWeight::Factor => vec![1.0; size],
            NormWeight::PlusOne => vec![0.0; size],
        },
        (Part::Weight, _) => {
            let std = config.initializer_range as f32;
            let mut values = normal(mix(seed), &tensor.name, size);
            for value in &mut values {
                *value *= std;
            }
            values
        }
    };
    TensorData::new(values, tensor.shape.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(data: &TensorData) -> Vec<f32> {
        data.iter::<f32>().collect()
    }

    #[test]
    fn new_rows_are_the_mean_of_those_below() {
        let data = TensorData::new(vec![1.0_f32, 4.0, 3.0, 8.0, 9.0, 9.0], [3, 2]);
        let rows = |rows: Range<usize>| numbers(&mean_rows(data.clone(), &rows));
        // after the last row, from the last row on, one row in the middle
        assert_eq!(rows(3..5)[6..], [13.0 / 3.0, 7.0, 13.0 / 3.0, 7.0]);
        assert_eq!(rows(2..4), [1.0, 4.0, 3.0, 8.0, 2.0, 6.0, 2.0, 6.0]);
        assert_eq!(rows(1..2), [1.0, 4.0, 1.0, 4.0, 9.0, 9.0]);
    }

    #[test]
    fn means_are_summed_in_f64_and_rounded_once() {
        // A sum in bf16 would stop growing at 256, in f32 at 2^24.
        let values = vec![1.0_f32; 300]
            .into_iter()
            .chain([1.1; 300])
            .collect::<Vec<_>>();
        let data = TensorData::new(values, [600, 1]).convert_dtype(DType::BF16);
        let grown = mean_rows(data, &(600..601));
        // 1.1 is 1.1015625 in bf16. The mean is halfway between two bf16 values; the even one is the lower.
        assert_eq!(numbers(&grown)[600..], [1.046_875]);
    }
}
