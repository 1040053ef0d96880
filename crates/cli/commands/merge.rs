//! `simmer merge`: merges an adapter into its base model.

mod bases;
mod check;
mod quantisation;
mod tokenizer;
pub(super) mod weighted;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use simmer_checkpoint::Dtype;
use simmer_checkpoint::hub::What;
use simmer_files::size::{counted, readable};
use simmer_model::merge::{MergeOptions, MergeReport, MergedTensor, merge};

use crate::failure::{Context, Failure, bail};
use crate::output::note;
use crate::{hub, output, progress};

/// If rounding loses a larger share of a change, the command warns.
const LOST: f64 = 0.1;

/// Merge an adapter, or several with weights, into the base model
///
/// Of several adapters, each is merged into the base weights on its own, and the weighted changes are added: W + the sum of
/// weight times (merged weight - W). Ranks, targets and kinds may differ.
///
/// Writes a Hugging Face folder with the merged weights, the configuration and the tokenizer. Works
/// tensor by tensor, so the model may be larger than memory. Then the files are re-read and
/// verified, and the merged model's answers are compared with those of base + adapter, on the CPU;
/// --no-check skips both.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer merge --base data/tiny-base --adapter runs/quickstart/adapter --out runs/merged
  simmer merge --base model.gguf --adapter a --weight 0.7 --adapter b --weight -0.3 --out runs/merged
  simmer merge --base nf4 --adapter runs/a/adapter --out merged --into original --original folder")]
pub(crate) struct Merge {
    /// Base model: a folder, a .gguf file, or a name on the Hugging Face Hub
    #[arg(long, value_name = "MODEL")]
    base: PathBuf,
    #[command(flatten)]
    adapters: weighted::AdapterArgs,
    /// Folder to write; must be new or empty
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    bases: bases::BaseArgs,
    /// Dtype of the written weights. Default: that of each tensor of the base model
    #[arg(long, value_parser = dtype, value_name = "f32|bf16|f16")]
    dtype: Option<Dtype>,
    /// Maximum size of a weights file, such as 5GB or 500MB. Default: the same files as the base model
    #[arg(long, value_parser = byte_size, value_name = "SIZE")]
    max_shard_size: Option<u64>,
    /// Text for the comparison of base + adapter with the merged model; repeatable. Default: built-in
    /// texts
    #[arg(long, value_name = "TEXT", conflicts_with = "no_check")]
    prompt: Vec<String>,
    /// File of more such texts, one row {"text": ...} per line
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "no_check")]
    prompts: Option<PathBuf>,
    /// Do not verify the files or compare the models
    #[arg(long)]
    no_check: bool,
    /// Print the merged tensors, the rounding of each, the error of quantised tensors and the check as one line of JSON
    #[arg(long)]
    json: bool,
}

fn dtype(text: &str) -> Result<Dtype, String> {
    if is_quantised(text) {
        return Err(format!(
            "a merged model is written in f32, bf16 or f16, not in {text}; merge, then quantise the merged model: \
             simmer convert MERGED OUT --quantize {}",
            text.to_ascii_lowercase()
        ));
    }
    float_dtype(text)
}

/// A dtype of weights that are not quantised.
pub(super) fn float_dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "f32" => Ok(Dtype::F32),
        "bf16" => Ok(Dtype::BF16),
        "f16" => Ok(Dtype::F16),
        _ => Err(format!("expected f32, bf16 or f16, found {text}")),
    }
}

/// Whether a text names a quantised type of `simmer convert`.
fn is_quantised(text: &str) -> bool {
    let mut names = super::convert::TYPES.iter();
    names.any(|name| name.eq_ignore_ascii_case(text))
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
    pub(crate) fn run(self) -> Result<(), Failure> {
        check_out(&self.out)?;
        let base = hub::locate(&self.base, What::Model)?;
        let adapters = self.adapters.locate()?;
        let folders = weighted::opened(&adapters)?;
        let trained_on = weighted::trained_on(&folders)?;
        let bases = self.bases.choose(&base, trained_on)?;
        let base = &bases.target.path;
        let saved = tempfile::tempdir()?;
        let own = simmer_train::tokenizer::open(base);
        let base_tokens = own.as_ref().ok();
        let base_tokens = base_tokens.map(|own| own.max_token_id() as usize + 1);
        let merged = tokenizer::of_merge(
            base,
            own,
            weighted::with_tokenizer(base, base_tokens, &folders)?,
            saved.path(),
        )?;
        let options = MergeOptions {
            dtype: self.dtype,
            max_shard_bytes: self.max_shard_size,
            tokenizer: merged.files.as_deref(),
            base_tokens,
            eos: merged.eos.as_deref(),
            quantised: bases.target.on_load,
            other: bases.other(),
        };
        let prompts = check::Prompts::new(&self.texts()?, merged.tokenizer)?;
        let bar = progress::bytes(0, "merging");
        let mut advance = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let report = merge(base, &adapters, &self.out, options, &mut advance)
            .with_context(|| format!("nothing was written to {}", self.out.display()))?;
        bar.finish_and_clear();
        describe(&report);
        quantisation::describe(&bases, &report);
        let merge = check::Merged {
            bases: &bases,
            adapters: &adapters,
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
            output::json(&as_json(&self.out, &bases, &report, checked.as_ref()))?;
        } else {
            output::line(&self.out.display().to_string())?;
        }
        match checked.and_then(|checked| checked.failure(&self.out)) {
            None => Ok(()),
            Some(failure) => bail!("{failure}"),
        }
    }

    /// The texts for the comparison.
    fn texts(&self) -> Result<Vec<String>, Failure> {
        let mut texts = self.prompt.clone();
        if let Some(file) = &self.prompts {
            texts.extend(super::score::texts(file)?);
        }
        Ok(texts)
    }
}

/// A merged model is written as a folder.
fn check_out(path: &Path) -> Result<(), Failure> {
    if path.extension().is_none_or(|end| end != "gguf") {
        return Ok(());
    }
    let out = path.display();
    let error = format!("--out {out}: a merged model is a Hugging Face folder, not a .gguf file");
    Err(Failure::new(error).with_hint(format!(
        "merge to a folder, then convert it: simmer convert FOLDER {out}; --quantize q4_k_m makes it smaller"
    )))
}

fn as_json(
    out: &Path,
    bases: &bases::Bases,
    report: &MergeReport,
    checked: Option<&check::Checked>,
) -> Value {
    json!({
        "out": out,
        "into": bases.into.name(),
        "base": bases.target.path,
        "quantised": report.quantised,
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

/// Whether a model has a tokenizer, but not as Hugging Face's `tokenizer.json`.
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
        "{} merged, {} replaced, {} kept: {}",
        counted(report.merged.len(), "tensor"),
        report.replaced.len(),
        report.kept,
        readable(report.bytes)
    ));
    rounding(report);
    if report.untied {
        note("the output head, which was tied to the embedding, is now a separate tensor");
    }
}

/// Reports how much of the changes rounding to the stored dtypes lost.
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
        "rounding: the largest error of a tensor is {:.1e} of its norm ({}, {}); of a single weight, {:.1e}",
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
        "rounding lost {} of the change s·B·A; at most {}, in {} (norm {:.3e}, rounding error {:.3e})",
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
            "warning: rounding to {} lost more than {:.0}% of the change in {hit} of {}\n\
             hint: use --dtype f32 (files twice as large), or base model and adapter unmerged",
            lost.dtype,
            100.0 * LOST,
            counted(report.merged.len(), "tensor")
        ));
    }
}

/// A share in percent. It can be slightly negative if rounding errors cancel; then it is 0.
fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_outputs_name_the_way_to_them() {
        let error = dtype("Q4_K_M").unwrap_err();
        assert!(
            error.contains("convert MERGED OUT --quantize q4_k_m"),
            "{error}"
        );
        assert_eq!(
            dtype("f8"),
            Err("expected f32, bf16 or f16, found f8".to_owned())
        );
        assert!(check_out(Path::new("runs/merged")).is_ok());
        let error = check_out(Path::new("m.gguf")).unwrap_err();
        assert!(error.text().contains("simmer convert FOLDER m.gguf"));
    }

    #[test]
    fn sizes_are_read_as_hugging_face_writes_them() {
        assert_eq!(byte_size("5GB"), Ok(5_000_000_000));
        assert_eq!(byte_size("300 mb"), Ok(300_000_000));
        assert_eq!(byte_size("12"), Ok(12));
        assert!(byte_size("0").is_err() && byte_size("5GiB").is_err() && byte_size("big").is_err());
    }
}
