//! Converts any layout to a Hugging Face folder that is quantised as bitsandbytes does it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use simmer_blocks::{Absmax, Encoder, Encoding, Form, FourBit, FourBitKind, Quantised, Rounding};

use super::{
    ConvertError, Progress, QuantisationReport, WeightError, blocks, height, row_bytes, rows,
};
use crate::config::RawObject;
use crate::family::ModuleKind;
use crate::hugging_face::{CheckpointWriter, plan_shards_of};
use crate::layout::{self, Part};
use crate::numbers::{self, torch_name};
use crate::{
    Checkpoint, CheckpointError, ConfigError, Dtype, MAX_SHARD_BYTES, Pretrained, PretrainedError,
    TensorSpec, is_rotary_buffer,
};

/// Elements of a block of four-bit codes, as transformers quantises.
const BLOCK: usize = 64;
/// Scales of a block that share a scale (double quantisation).
const NESTED_BLOCK: usize = 256;
/// Room for `nested_offset`, which is known after the weight was read; the rest stays spaces.
const OFFSET_BYTES: usize = 32;

/// How the linear modules of a model are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitsAndBytes {
    /// The type.
    pub codes: Codes,
    /// Whether the output head is quantised too. The embedding never is.
    pub head: bool,
}

/// A type of bitsandbytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Four bits.
    FourBit {
        /// nf4 or fp4.
        kind: FourBitKind,
        /// Whether the scales are quantised too (double quantisation).
        nested: bool,
    },
    /// Eight bits.
    Int8,
}

/// Writes a model as a Hugging Face folder that bitsandbytes and transformers load: the weights of linear modules quantised,
/// all others in `dtype` (by default as they are stored), `config.json` with `quantization_config`, and copies of the files
/// `beside`. One weight is in memory at a time.
///
/// Returns the error of the quantised weights.
///
/// # Errors
/// If the model cannot be read, the output exists, the head is to be quantised and tied, or a file cannot be copied. No
/// partial output remains.
pub fn to_bitsandbytes(
    model: &Pretrained,
    out: &Path,
    how: BitsAndBytes,
    dtype: Option<Dtype>,
    max_shard_bytes: Option<u64>,
    beside: &[PathBuf],
    progress: Progress<'_>,
) -> Result<QuantisationReport, ConvertError> {
    if how.head && model.config.tie_word_embeddings {
        return Err(ConvertError::TiedHead);
    }
    let checkpoint = &model.checkpoint;
    let weights = weights(model, how, dtype);
    let plan = weights.iter().map(|weight| weight.written.clone());
    let limit = max_shard_bytes.unwrap_or(MAX_SHARD_BYTES);
    let mut writer = CheckpointWriter::create(out, plan_shards_of(plan, limit))?;
    let total = |weight: &Weight| (height(&weight.read) * row_bytes(&weight.read)) as u64;
    let mut work = Work {
        checkpoint,
        total: weights.iter().map(total).sum(),
        done: 0,
        progress,
        report: QuantisationReport::default(),
    };
    for weight in &weights {
        work.report.before += checkpoint.stored_bytes(&weight.read.name)?;
        work.write(weight, how, &mut writer)?;
    }
    let mut report = work.report;
    report.after = weights.iter().map(Weight::bytes).sum();
    let config = config(model, how, &weights)?;
    writer.folder().write("config.json", config.as_bytes())?;
    for file in beside {
        writer.folder().copy(file)?;
    }
    writer.finish()?;
    Ok(report)
}

/// A weight of the model.
struct Weight {
    /// What is read of it.
    read: TensorSpec,
    /// The tensors that are written.
    written: Vec<TensorSpec>,
    quantised: bool,
}

impl Weight {
    fn bytes(&self) -> u64 {
        let bytes = |spec: &TensorSpec| (height(spec) * row_bytes(spec)) as u64;
        self.written.iter().map(bytes).sum()
    }
}

fn weights(model: &Pretrained, how: BitsAndBytes, dtype: Option<Dtype>) -> Vec<Weight> {
    let quantised: Vec<String> = layout::tensors(&model.config)
        .into_iter()
        .filter(|tensor| match tensor.module.kind {
            ModuleKind::Linear => tensor.part == Part::Weight,
            ModuleKind::OutputHead => how.head && tensor.part == Part::Weight,
            ModuleKind::Embedding | ModuleKind::Norm | ModuleKind::Container => false,
        })
        .map(|tensor| tensor.name)
        .collect();
    let stored = model.checkpoint.shards().iter();
    let stored = stored.flat_map(|shard| &shard.tensors);
    let kept = stored.filter(|tensor| !is_rotary_buffer(&tensor.name));
    kept.map(|tensor| {
        let read = TensorSpec {
            dtype: dtype.unwrap_or(tensor.dtype),
            ..tensor.clone()
        };
        let quantised = quantised.contains(&tensor.name);
        Weight {
            written: match (quantised, how.codes) {
                (false, _) => vec![read.clone()],
                (true, Codes::FourBit { kind, nested }) => four_bit(&read, kind, nested),
                (true, Codes::Int8) => int8(&read),
            },
            read,
            quantised,
        }
    })
    .collect()
}

fn spec(name: String, dtype: Dtype, shape: Vec<usize>) -> TensorSpec {
    TensorSpec { name, dtype, shape }
}

/// The name of the quantisation state of a weight.
fn state_name(weight: &str, kind: FourBitKind) -> String {
    format!("{weight}.quant_state.bitsandbytes__{}", kind.name())
}

fn four_bit(weight: &TensorSpec, kind: FourBitKind, nested: bool) -> Vec<TensorSpec> {
    let name = &weight.name;
    let elements: usize = weight.shape.iter().product();
    let scales = elements.div_ceil(BLOCK);
    let state = state(kind, weight, nested.then_some(0.0)).len() + OFFSET_BYTES;
    let mut written = vec![
        spec(name.clone(), Dtype::U8, vec![elements.div_ceil(2), 1]),
        spec(format!("{name}.quant_map"), Dtype::F32, vec![16]),
        spec(state_name(name, kind), Dtype::U8, vec![state]),
    ];
    let absmax = format!("{name}.absmax");
    if nested {
        written.extend([
            spec(absmax, Dtype::U8, vec![scales]),
            spec(
                format!("{name}.nested_absmax"),
                Dtype::F32,
                vec![scales.div_ceil(NESTED_BLOCK)],
            ),
            spec(format!("{name}.nested_quant_map"), Dtype::F32, vec![256]),
        ]);
    } else {
        written.push(spec(absmax, Dtype::F32, vec![scales]));
    }
    written
}

fn int8(weight: &TensorSpec) -> Vec<TensorSpec> {
    let [scales, format] = int8_parts(&weight.name);
    vec![
        spec(weight.name.clone(), Dtype::I8, weight.shape.clone()),
        spec(scales, Dtype::F32, weight.shape[..1].to_vec()),
        spec(format, Dtype::U8, Vec::new()),
    ]
}

/// The names of the scales of a weight in int8, and of the order of its codes.
fn int8_parts(weight: &str) -> [String; 2] {
    let module = weight.trim_end_matches("weight");
    ["SCB", "weight_format"].map(|part| format!("{module}{part}"))
}

/// The quantisation state, as Python writes it.
fn state(kind: FourBitKind, weight: &TensorSpec, offset: Option<f32>) -> String {
    let shape: Vec<String> = weight.shape.iter().map(usize::to_string).collect();
    let nested = offset.map_or_else(String::new, |offset| {
        format!(
            ", \"nested_blocksize\": {NESTED_BLOCK}, \"nested_dtype\": \"float32\", \"nested_offset\": {}",
            json!(f64::from(offset))
        )
    });
    format!(
        "{{\"quant_type\": \"{}\", \"blocksize\": {BLOCK}, \"dtype\": \"{}\", \"shape\": [{}]{nested}}}",
        kind.name(),
        torch_name(weight.dtype),
        shape.join(", "),
    )
}

struct Work<'a> {
    checkpoint: &'a Checkpoint,
    total: u64,
    done: u64,
    progress: Progress<'a>,
    report: QuantisationReport,
}

impl Work<'_> {
    fn write(
        &mut self,
        weight: &Weight,
        how: BitsAndBytes,
        writer: &mut CheckpointWriter,
    ) -> Result<(), ConvertError> {
        let read = &weight.read;
        if !weight.quantised {
            for block in blocks(height(read), row_bytes(read), 1) {
                let bytes = rows(self.checkpoint, &read.name, block, read.dtype)?;
                writer.append(&read.name, &bytes)?;
                self.advance(bytes.len());
            }
            return Ok(());
        }
        let matrix = self.encode(read, how.codes)?;
        append(writer, read, &matrix, how.codes)?;
        let mut error = WeightError::default();
        for block in blocks(height(read), row_bytes(read), 1) {
            let before = self.wide(read, block.clone())?;
            error.add(&before, &matrix.rows(block));
        }
        let after = weight.bytes();
        self.report
            .quantised(self.checkpoint, &read.name, matrix.kind(), after, error)?;
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.progress)(self.done, self.total);
    }

    fn encode(&mut self, read: &TensorSpec, codes: Codes) -> Result<Quantised, ConvertError> {
        let wrong = |source| CheckpointError::Quantised {
            file: self.checkpoint.path().to_owned(),
            tensor: read.name.clone(),
            source: Box::new(source),
        };
        let encoding = match codes {
            Codes::FourBit { kind, nested } => Encoding::FourBit {
                kind,
                block: BLOCK,
                nested,
                rounding: match read.dtype {
                    Dtype::BF16 => Rounding::Bf16,
                    Dtype::F16 => Rounding::F16,
                    _ => Rounding::F32,
                },
            },
            Codes::Int8 => Encoding::Int8,
        };
        let shape = [height(read), read.shape.iter().skip(1).product()];
        let mut encoder = Encoder::new(encoding, shape).map_err(wrong)?;
        for block in blocks(height(read), row_bytes(read), 1) {
            let bytes = block.len() * row_bytes(read);
            let numbers = self.wide(read, block)?;
            encoder.rows(&numbers).map_err(wrong)?;
            self.done += bytes as u64;
            (self.progress)(self.done, self.total);
        }
        Ok(encoder.finish().map_err(wrong)?)
    }

    /// Rows of a weight in its dtype, as f32.
    fn wide(&self, read: &TensorSpec, block: Range<usize>) -> Result<Vec<f32>, ConvertError> {
        let bytes = rows(self.checkpoint, &read.name, block, read.dtype)?;
        Ok(numbers::floats(&bytes, read.dtype))
    }
}

/// Writes the parts of a quantised weight.
fn append(
    writer: &mut CheckpointWriter,
    weight: &TensorSpec,
    matrix: &Quantised,
    codes: Codes,
) -> Result<(), CheckpointError> {
    let name = &weight.name;
    writer.append(name, matrix.codes())?;
    match (matrix.form(), codes) {
        (Form::FourBit(four_bit), Codes::FourBit { kind, .. }) => {
            append_four_bit(writer, weight, four_bit, kind)
        }
        (Form::Int8(int8), _) => {
            let [scales, format] = int8_parts(name);
            writer.append(&scales, &bytes(&int8.row_max))?;
            // row after row
            writer.append(&format, &[0])
        }
        // the encoder returns the form that was asked for
        _ => Ok(()),
    }
}

fn append_four_bit(
    writer: &mut CheckpointWriter,
    weight: &TensorSpec,
    four_bit: &FourBit,
    kind: FourBitKind,
) -> Result<(), CheckpointError> {
    let name = &weight.name;
    writer.append(&format!("{name}.quant_map"), &bytes(&four_bit.values))?;
    let scales = format!("{name}.absmax");
    let offset = match &four_bit.absmax {
        Absmax::Plain(absmax) => {
            writer.append(&scales, &bytes(absmax))?;
            None
        }
        Absmax::Nested {
            codes,
            values,
            absmax,
            offset,
            ..
        } => {
            writer.append(&scales, codes)?;
            writer.append(&format!("{name}.nested_absmax"), &bytes(absmax))?;
            writer.append(&format!("{name}.nested_quant_map"), &bytes(values))?;
            Some(*offset)
        }
    };
    let planned = state(kind, weight, offset.map(|_| 0.0)).len() + OFFSET_BYTES;
    let state = format!("{:planned$}", state(kind, weight, offset));
    writer.append(&state_name(name, kind), state.as_bytes())
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// `config.json` with `quantization_config`.
fn config(
    model: &Pretrained,
    how: BitsAndBytes,
    weights: &[Weight],
) -> Result<String, ConvertError> {
    let mut widest = [Dtype::F32, Dtype::BF16].into_iter();
    let widest = widest.find(|dtype| weights.iter().any(|weight| weight.read.dtype == *dtype));
    let dtype = widest.unwrap_or(Dtype::F16);
    let text = model.config.to_text(Some(dtype));
    let object = RawObject::parse(text).map_err(|source| {
        PretrainedError::from(ConfigError::Json {
            path: model.checkpoint.path().join("config.json"),
            source,
        })
    })?;
    let table = quantization_config(how, dtype);
    Ok(object.with_changes(&[(vec!["quantization_config"], table)]))
}

/// As transformers writes it.
fn quantization_config(how: BitsAndBytes, dtype: Dtype) -> Value {
    let (four_bit, kind, nested) = match how.codes {
        Codes::FourBit { kind, nested } => (true, kind.name(), nested),
        Codes::Int8 => (false, FourBitKind::Fp4.name(), false),
    };
    let skipped: &[&str] = if how.head { &[] } else { &["lm_head"] };
    json!({
        "_load_in_4bit": four_bit,
        "_load_in_8bit": !four_bit,
        "bnb_4bit_compute_dtype": torch_name(dtype),
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": nested,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": four_bit,
        "load_in_8bit": !four_bit,
        "quant_method": "bitsandbytes",
    })
}
