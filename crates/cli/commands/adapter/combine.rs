//! `simmer adapter combine`: one adapter from several.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use simmer_checkpoint::Dtype;
use simmer_files::size::counted;
use simmer_model::adapter::combine::{
    CombineOptions, Combined, CombinedModule, MajoritySign, Method, combine,
};
use simmer_model::export::tokenizer_files;

use super::{short, table};
use crate::commands::merge::float_dtype;
use crate::commands::merge::weighted::{AdapterArgs, warn_of_tokenizers};
use crate::failure::Failure;
use crate::output::note;
use crate::{output, progress};

/// So many modules are listed.
const LISTED: usize = 10;

/// Combine adapters of one base model into one adapter
///
/// Works on the updates s·B·A of each module, so that the result is the weighted sum of the adapters, or what a method makes
/// of it, and not a mixture of the factors of different adapters. Ranks and targets may differ. The result is a plain LoRA
/// adapter of scale 1. The error of its rank and of rounding is printed.
///
/// Methods:
/// linear: the weighted sum, at the lowest rank without loss.
/// cat: the weighted sum, with the factors of all adapters one after another.
/// svd: the weighted sum at a rank: by default the largest of the adapters.
/// ties: the largest elements of each update; of these, the weighted mean of those with the elected sign.
/// dare_linear: random elements of each update, divided by their share; the weighted sum.
/// dare_ties: random elements of each update, divided by their share; then as in ties.
/// magnitude_prune: the largest elements of each update; the weighted sum.
/// The last four may be written as in PEFT, with `_svd` at the end.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  simmer adapter combine --adapter a --weight 0.7 --adapter b --weight 0.3 --out both
  simmer adapter combine --adapter a --adapter b --weight 1,-0.5 --method svd --rank 16 --out less-b
  simmer adapter combine --adapter a --adapter b --weight 1,1 --method ties --density 0.2 --out both"
)]
pub(super) struct Combine {
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Folder to write; must be new or empty
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// How the updates are combined: linear, cat, svd, ties, dare_linear, dare_ties or magnitude_prune
    #[arg(long, value_parser = method, default_value = "linear", value_name = "METHOD")]
    method: Method,
    /// Rank of the result. Default: of linear the lowest without loss, of cat the sum of the ranks, of other methods the
    /// largest rank of the adapters
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Share of the elements of each update that ties, dare_linear, dare_ties and magnitude_prune keep
    #[arg(long, value_name = "SHARE")]
    density: Option<f64>,
    /// How ties and dare_ties elect the sign of an element: that of the sum, or that of more adapters
    /// [default: total]
    #[arg(long, value_parser = majority_sign, value_name = "total|frequency")]
    majority_sign: Option<MajoritySign>,
    /// Seed of the elements that dare_linear and dare_ties keep, and of --svd-iterations [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Randomised decomposition with N iterations for ties, dare_linear, dare_ties and magnitude_prune: faster on large modules.
    /// Default: exact
    #[arg(long, value_name = "N")]
    svd_iterations: Option<usize>,
    /// Dtype of the written factors
    #[arg(long, value_parser = float_dtype, default_value = "f32", value_name = "f32|bf16|f16")]
    dtype: Dtype,
    /// Print the error of each module as one line of JSON
    #[arg(long)]
    json: bool,
}

fn method(text: &str) -> Result<Method, String> {
    Method::named(text).ok_or_else(|| {
        let names = Method::ALL.map(Method::name).join(", ");
        format!("expected one of {names}, found {text}")
    })
}

fn majority_sign(text: &str) -> Result<MajoritySign, String> {
    let all = [MajoritySign::Total, MajoritySign::Frequency];
    let found = all.into_iter().find(|sign| sign.name() == text);
    found.ok_or_else(|| format!("expected total or frequency, found {text}"))
}

impl Combine {
    pub(super) fn run(self) -> Result<(), Failure> {
        let adapters = self.adapters.locate()?;
        let options = CombineOptions {
            method: self.method,
            rank: self.rank,
            density: self.density,
            majority_sign: self.majority_sign,
            seed: self.seed,
            iterations: self.svd_iterations,
            dtype: self.dtype,
        };
        let bar = progress::spinner("combining");
        let combined = combine(&adapters, &options, &|done, all| {
            bar.set_message(format!("combining: {done} of {all} modules"));
        })?;
        bar.finish_and_clear();
        for warning in &combined.warnings {
            note(&format!("warning: {warning}"));
        }
        let folders = adapters.iter().map(|adapter| adapter.folder.as_path());
        let mut with_tokenizer = folders.filter(|folder| !tokenizer_files(folder).is_empty());
        let first = with_tokenizer.next();
        if let Some(first) = first {
            warn_of_tokenizers(first, with_tokenizer, "the result");
        }
        let beside = first.map(tokenizer_files);
        let limits = combined.save(&self.out, &beside.unwrap_or_default())?;
        note(summary(&combined).trim_end_matches('\n'));
        for limit in limits {
            note(&format!("note: {limit}"));
        }
        if self.json {
            return output::json(&json!({
                "out": self.out,
                "method": self.method.name(),
                "rank": combined.rank(),
                "relative_error": combined.relative_error(),
                "modules": combined.modules,
                "warnings": combined.warnings,
            }));
        }
        output::line(&self.out.display().to_string())
    }
}

/// The modules with the largest errors, and the error of all.
fn summary(combined: &Combined) -> String {
    let mut modules: Vec<&CombinedModule> = combined.modules.iter().collect();
    modules.sort_by(|a, b| b.relative_error().total_cmp(&a.relative_error()));
    let head = ["module", "ranks", "rank", "norm", "error"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for module in modules.iter().take(LISTED) {
        let ranks: Vec<String> = module.ranks.iter().map(ToString::to_string).collect();
        rows.push(vec![
            module.module.clone(),
            ranks.join(", "),
            module.rank.to_string(),
            short(module.norm),
            percent(module.relative_error()),
        ]);
    }
    let mut text = table(&rows);
    if let Some(more) = modules.len().checked_sub(LISTED + 1) {
        let _ = writeln!(text, "and {} more", counted(more + 1, "module"));
    }
    let _ = writeln!(
        text,
        "{} at rank {}; error of the rank and of rounding: {} of the norm of the update",
        counted(modules.len(), "module"),
        combined.rank(),
        percent(combined.relative_error())
    );
    text
}

fn percent(share: f64) -> String {
    if share < 1e-4 {
        return format!("{:.0e}%", 100.0 * share);
    }
    format!("{:.2}%", 100.0 * share)
}
