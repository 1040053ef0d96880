//! Converts any layout to one `.gguf` file.

use std::path::Path;

use rayon::prelude::*;
use simmer_files::{WriteError, try_write_file};

use super::{ConvertError, Progress, QuantisationReport, WeightError, blocks, rows};
use crate::gguf::blocks::{block_type, decoder, quantize};
use crate::gguf::model::{self, FileType, PlannedTensor, Source, hugging_face_row};
use crate::gguf::{GgmlType, GgufError, GgufTensorSpec, GgufWriter, Vocabulary};
use crate::{CheckpointError, Dtype, Pretrained};

/// Blocks that a thread compares at once.
const BLOCKS: usize = 256;

/// The type that holds a model's matrices exactly: their own dtype, or f32.
fn own_kind(model: &Pretrained) -> GgmlType {
    let mut matrices = model
        .checkpoint
        .tensors()
        .filter(|(_, info)| info.shape.len() > 1);
    let Some((_, first)) = matrices.next() else {
        return GgmlType::F32;
    };
    let same = matrices.all(|(_, info)| info.dtype == first.dtype);
    match first.dtype {
        Dtype::BF16 if same => GgmlType::BF16,
        Dtype::F16 if same => GgmlType::F16,
        _ => GgmlType::F32,
    }
}

/// Writes a model as one `.gguf` file for llama.cpp: matrices as `kinds` (types that [`quantize`] can write; by default as
/// they are stored), norms in f32, and the tokenizer.
///
/// Returns the error of quantised matrices.
///
/// # Errors
/// If the model cannot be read, llama.cpp would compute something else than the model, or the output exists. No partial output remains.
pub fn to_gguf(
    model: &Pretrained,
    out: &Path,
    kinds: Option<FileType>,
    name: &str,
    vocabulary: &Vocabulary,
    progress: Progress<'_>,
) -> Result<QuantisationReport, ConvertError> {
    let wrong = wrong(out);
    if out.exists() {
        let path = out.to_owned();
        return Err(WriteError::OutputExists { path }.into());
    }
    let kinds = kinds.unwrap_or_else(|| own_kind(model).into());
    let mut metadata = model::metadata(&model.config, name, kinds).map_err(wrong)?;
    vocabulary.write_to(&mut metadata);
    let plan = model::plan(&model.config, kinds);
    let specs: Vec<GgufTensorSpec> = plan.iter().map(|tensor| tensor.spec.clone()).collect();
    let bytes = |spec: &GgufTensorSpec| spec.kind.tensor_bytes(&spec.shape).unwrap_or(0);
    let total = specs.iter().map(bytes).sum();
    let mut report = QuantisationReport {
        after: total,
        ..QuantisationReport::default()
    };
    for name in model.checkpoint.names() {
        report.before += model.checkpoint.stored_bytes(name)?;
    }
    try_write_file(out, |file| {
        let mut writer = GgufWriter::new(file, &metadata, specs).map_err(wrong)?;
        let mut written = 0;
        for tensor in &plan {
            let error = encode(model, tensor, out, &mut |bytes| {
                writer.append(bytes).map_err(wrong)?;
                written += bytes.len() as u64;
                progress(written, total);
                Ok(())
            })?;
            count(&mut report, model, tensor, error)?;
        }
        writer.finish().map_err(wrong)?;
        Ok::<_, ConvertError>(())
    })?;
    Ok(report)
}

fn count(
    report: &mut QuantisationReport,
    model: &Pretrained,
    tensor: &PlannedTensor,
    error: WeightError,
) -> Result<(), CheckpointError> {
    let Source::Tensor { name, .. } = &tensor.source else {
        return Ok(());
    };
    let kind = tensor.spec.kind;
    if let (Some(wanted), Some(columns)) = (tensor.instead_of, tensor.spec.shape.last()) {
        report.other_kind(wanted.name(), kind.name(), *columns);
    }
    if block_type(kind).is_none() {
        return Ok(());
    }
    let bytes = kind.tensor_bytes(&tensor.spec.shape).unwrap_or(0);
    report.quantised(&model.checkpoint, name, kind.name(), bytes, error)
}

fn wrong(out: &Path) -> impl Fn(GgufError) -> ConvertError + Copy + use<'_> {
    move |source| ConvertError::Gguf {
        path: out.to_owned(),
        source,
    }
}

/// Converts a tensor to its GGUF type, block by block.
fn encode(
    model: &Pretrained,
    tensor: &PlannedTensor,
    out: &Path,
    write: &mut dyn FnMut(&[u8]) -> Result<(), ConvertError>,
) -> Result<WeightError, ConvertError> {
    let mut error = WeightError::default();
    let wrong = wrong(out);
    let kind = tensor.spec.kind;
    let (name, paired, plus_one) = match &tensor.source {
        Source::Tensor {
            name,
            paired,
            plus_one,
        } => (name, paired, *plus_one),
        Source::Numbers(numbers) => {
            let mut out = Vec::new();
            quantize(kind, numbers, &mut out).map_err(wrong)?;
            write(&out)?;
            return Ok(error);
        }
    };
    // a quantised vector is one row, because a quantised block cannot be split
    let height = tensor.spec.shape.first().copied().unwrap_or(1);
    let columns: usize = tensor.spec.shape.iter().skip(1).product();
    let together = paired.unwrap_or(1);
    for block in blocks(height, columns * size_of::<f32>(), together) {
        let first = block.start;
        let mut bytes = rows(&model.checkpoint, name, block.clone(), dtype(kind))?;
        if let Some(head_dim) = paired {
            let width = bytes.len() / block.len();
            bytes = block
                .flat_map(|row| {
                    let from = (hugging_face_row(row, *head_dim) - first) * width;
                    bytes[from..from + width].iter().copied()
                })
                .collect();
        }
        if dtype(kind) == Dtype::F32 && (kind != GgmlType::F32 || plus_one) {
            let added = if plus_one { 1.0 } else { 0.0 };
            let (numbers, _) = bytes.as_chunks();
            let numbers: Vec<f32> = numbers
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes) + added)
                .collect();
            bytes.clear();
            quantize(kind, &numbers, &mut bytes).map_err(wrong)?;
            if block_type(kind).is_some() {
                error.join(error_of(kind, &numbers, &bytes).map_err(wrong)?);
            }
        }
        write(&bytes)?;
    }
    Ok(error)
}

/// How far quantised blocks are from the numbers.
fn error_of(kind: GgmlType, numbers: &[f32], bytes: &[u8]) -> Result<WeightError, GgufError> {
    let decode = decoder(kind)?;
    let (len, width) = (BLOCKS * kind.block_len(), BLOCKS * kind.block_bytes());
    let errors = numbers.par_chunks(len).zip(bytes.par_chunks(width));
    let errors = errors.map(|(numbers, bytes)| {
        let mut wide = vec![0.0; numbers.len()];
        decode(bytes, &mut wide);
        let mut error = WeightError::default();
        error.add(numbers, &wide);
        error
    });
    // in order, so that the sum does not depend on the threads
    let errors: Vec<WeightError> = errors.collect();
    Ok(errors
        .into_iter()
        .fold(WeightError::default(), |mut sum, error| {
            sum.join(error);
            sum
        }))
}

/// The dtype in which rows are read for a GGUF type.
fn dtype(kind: GgmlType) -> Dtype {
    match kind {
        GgmlType::F16 => Dtype::F16,
        GgmlType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}
