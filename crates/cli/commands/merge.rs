//! `simmer merge`: an adapter into its base.

mod check;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use simmer_checkpoint::Dtype;
use simmer_checkpoint::hub::What;
use simmer_model::merge::{MergeOptions, MergeReport, MergedTensor, merge};
use simmer_train::tokenizer;

use crate::output::note;
use crate::{hub, output, progress};

/// A larger share of a change that is lost to rounding is worth a warning.
const LOST: f64 = 0.1;

/// Fold an adapter into its base model
///
/// Writes a Hugging Face folder that needs no adapter any more: weights, configuration, tokenizer.
/// Tensor by tensor, so that a model larger than the memory can be merged. Afterwards the files are
/// read again and held against the sums, and base and adapter are asked some prompts beside the
/// merged model, on the CPU; --no-check leaves both out.
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
    /// Text that base with adapter and merged model are compared on, in place of some built in; may
    /// be given several times
    #[arg(long, value_name = "TEXT", conflicts_with = "no_check")]
    prompt: Vec<String>,
    /// Do not check what was written
    #[arg(long)]
    no_check: bool,
    /// Print what was merged, every tensor's rounding and the check as one line of JSON
    #[arg(long)]
    json: bool,
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
        let prompts = check::Prompts::new(&self.prompt, &base, &adapter)?;
        let bar = progress::bytes(0, "merging");
        let mut advance = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let report = merge(&base, &adapter, &self.out, options, &mut advance)
            .with_context(|| format!("nothing was written to {}", self.out.display()))?;
        bar.finish_and_clear();
        describe(&report);
        let merge = check::Merged {
            base: &base,
            adapter: &adapter,
            out: &self.out,
            options,
            rounding: report.rounding(),
        };
        let checked = if self.no_check {
            None
        } else {
            Some(merge.check(prompts)?)
        };
        if self.json {
            output::json(&as_json(&self.out, &report, checked.as_ref()))?;
        } else {
            output::line(&self.out.display().to_string())?;
        }
        match checked.and_then(|checked| checked.failure(&self.out)) {
            None => Ok(()),
            Some(failure) => bail!(failure),
        }
    }
}

fn as_json(out: &Path, report: &MergeReport, checked: Option<&check::Checked>) -> Value {
    json!({
        "out": out,
        "bytes": report.bytes,
        "kept": report.kept,
        "replaced": report.replaced,
        "untied": report.untied,
        "resized": report.resized,
        "copied": report.copied,
        "warnings": report.warnings,
        "lost": report.lost(),
        "rounding": report.rounding(),
        "merged": report.merged,
        "check": checked,
    })
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
    rounding(report);
    if report.untied {
        note("the output head, which was the embedding, is a tensor of its own now");
    }
}

/// What rounding to the stored types did to the changes.
fn rounding(report: &MergeReport) {
    let most = |value: fn(&MergedTensor) -> f64| {
        let tensors = report.merged.iter();
        tensors.max_by(|a, b| value(a).total_cmp(&value(b)))
    };
    let (Some(error), Some(lost)) = (
        most(MergedTensor::relative_error),
        most(|tensor| tensor.lost),
    ) else {
        return;
    };
    note(&format!(
        "rounding: the weights are off by up to {:.1e} of their norm (in {}, {}), by {:.1e} at most in one weight",
        error.relative_error(),
        error.name,
        error.dtype,
        report
            .merged
            .iter()
            .map(|tensor| tensor.max_error)
            .fold(0.0, f64::max),
    ));
    note(&format!(
        "it took {} of the change s·B·A; most of one tensor's, {}, in {} (norm {:.3e}, rounding error {:.3e})",
        percent(report.lost()),
        percent(lost.lost),
        lost.name,
        lost.change,
        lost.error
    ));
    let hit = report.merged.iter().filter(|tensor| tensor.lost > LOST);
    let hit = hit.count();
    if hit > 0 {
        note(&format!(
            "warning: rounding to {} took more than {:.0}% of the change in {hit} of {} tensors\n\
             hint: --dtype f32 keeps it, in files twice as large; or use base and adapter unmerged",
            lost.dtype,
            100.0 * LOST,
            report.merged.len()
        ));
    }
}

/// Errors that cancel out can leave a trace more than there was.
fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share.max(0.0))
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
