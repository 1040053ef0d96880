//! `simmer merge`: an adapter into its base.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use simmer_model::checkpoint::Dtype;
use simmer_model::checkpoint::hub::What;
use simmer_model::merge::{MergeOptions, MergeReport, merge};
use simmer_train::tokenizer;

use crate::output::note;
use crate::{hub, output, progress};

/// Fold an adapter into its base model
///
/// Writes a Hugging Face folder that needs no adapter any more: weights, configuration, tokenizer.
/// Tensor by tensor, so that a model larger than the memory can be merged.
#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The base model: a folder, a .gguf file, or a name on the hub
    #[arg(long, value_name = "MODEL")]
    base: PathBuf,
    /// The adapter (PEFT layout): a folder, or a name on the hub
    #[arg(long, value_name = "ADAPTER")]
    adapter: PathBuf,
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Store the weights in this precision instead of the base's
    #[arg(long, value_parser = dtype, value_name = "f32|bf16|f16")]
    dtype: Option<Dtype>,
    /// Most bytes of a weights file (5GB, 500MB); the base's own files without it
    #[arg(long, value_parser = byte_size, value_name = "SIZE")]
    max_shard_size: Option<u64>,
}

fn dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "f32" => Ok(Dtype::F32),
        "bf16" => Ok(Dtype::BF16),
        "f16" => Ok(Dtype::F16),
        _ => Err(format!("expected f32, bf16 or f16, found {text}")),
    }
}

/// A size as Hugging Face writes it: 5GB is 5·10⁹ bytes.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let units = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1000),
        ("", 1),
    ];
    let parsed = units.iter().find_map(|(unit, scale)| {
        let number: u64 = upper.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*scale)
    });
    parsed
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("expected a size such as 5GB or 500MB, found {text}"))
}

impl Merge {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let base = hub::locate(&self.base, What::Model)?;
        let adapter = hub::locate(&self.adapter, What::Adapter)?;
        let saved = tempfile::tempdir()?;
        let other = lacks_hugging_face_tokenizer(&base);
        if other {
            tokenizer::open(&base)?.save(saved.path())?;
        }
        let options = MergeOptions {
            dtype: self.dtype,
            max_shard_bytes: self.max_shard_size,
            tokenizer: other.then_some(saved.path()),
        };
        let bar = progress::bytes(0, "merging");
        let mut advance = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let report = merge(&base, &adapter, &self.out, options, &mut advance)
            .with_context(|| format!("nothing was written to {}", self.out.display()))?;
        bar.finish_and_clear();
        describe(&report);
        output::line(&self.out.display().to_string())
    }
}

/// Whether a model has its tokenizer in another form than Hugging Face's alone.
pub(super) fn lacks_hugging_face_tokenizer(model: &Path) -> bool {
    let has = |file: &str| model.join(file).exists();
    let other = model.is_file() || has("tokenizer.model") || has("params.json");
    other && !has("tokenizer.json")
}

fn describe(report: &MergeReport) {
    if let Some(resized) = &report.resized {
        note(resized);
    }
    for warning in &report.warnings {
        note(&format!("warning: {warning}"));
    }
    note(&format!(
        "{} tensors merged, {} replaced, {} kept: {:.1} MB",
        report.merged.len(),
        report.replaced.len(),
        report.kept,
        report.bytes as f64 / 1e6
    ));
    let worst = report
        .merged
        .iter()
        .max_by(|a, b| a.max_error.total_cmp(&b.max_error));
    if let Some(worst) = worst {
        note(&format!(
            "largest rounding: {:.3e} of a change of up to {:.3e}, in {} ({})",
            worst.max_error, worst.max_change, worst.name, worst.dtype
        ));
    }
    if report.untied {
        note("the output head, which was the embedding, is a tensor of its own now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_hugging_face_writes_them() {
        assert_eq!(byte_size("5GB"), Ok(5_000_000_000));
        assert_eq!(byte_size("300 mb"), Ok(300_000_000));
        assert_eq!(byte_size("12"), Ok(12));
        assert!(byte_size("0").is_err() && byte_size("5GiB").is_err() && byte_size("big").is_err());
    }
}
