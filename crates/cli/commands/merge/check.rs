//! Compares a merged model with its base model and adapter.

use std::path::{Path, PathBuf};

use burn::module::Module;
use serde::Serialize;
use simmer_data::Tokenizer;
use simmer_model::LlamaForCausalLM;
use simmer_model::adapter::combine::{CombineError, CombineOptions, WeightedAdapter, combine};
use simmer_model::base::QuantisedOnLoad;
use simmer_model::merge::agreement::{Agreement, Heard, TokenDifference};
use simmer_model::merge::{Altered, MergeOptions, verify};
use simmer_model::{adapter, device};

use super::bases::{Bases, Form, Into};
use crate::failure::{Context, Failure};
use crate::output::note;
use crate::progress;

/// The prompts if the user gives none.
const PROMPTS: [&str; 3] = [
    "The capital of France is Paris, and the river that runs through it is called the Seine.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5",
];
/// The folder of a combined adapter.
const COMBINED: &str = "combined";
/// The length in tokens of each of three prompts, if there is no tokenizer.
const TOKENS: u32 = 16;

/// The prompts for the comparison.
pub(super) enum Prompts {
    /// From the user.
    Given(Vec<Vec<u32>>),
    /// [`PROMPTS`].
    BuiltIn(Vec<Vec<u32>>),
    /// Arbitrary tokens: neither base model nor adapter has a tokenizer.
    Any,
}

/// A finished merge.
pub(super) struct Merged<'a> {
    pub(super) bases: &'a Bases,
    pub(super) adapters: &'a [WeightedAdapter],
    pub(super) out: &'a Path,
    pub(super) options: MergeOptions<'a>,
    pub(super) rounding: f64,
}

/// What the check found.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    altered: Vec<Altered>,
    /// `None` if there is no adapter to compare with.
    #[serde(flatten)]
    answers: Option<Answers>,
    #[serde(skip)]
    into: Into,
}

/// The answers of base + adapter and of the merged model.
#[derive(Debug, Serialize)]
struct Answers {
    agreement: Agreement,
    /// The difference between the quantised base model with the adapter, which is the trained model, and the merge into the
    /// original weights, if both are at hand.
    original: Option<TokenDifference>,
}

/// What computes unmerged what was merged.
enum Unmerged {
    /// The adapter itself.
    Given(PathBuf),
    /// A folder with the weighted sum of the adapters.
    Combined(tempfile::TempDir),
    /// Nothing.
    None { why: String },
}

impl Prompts {
    /// Tokenizes the texts with the tokenizer of the merged model, if it has one.
    pub(super) fn new(
        texts: &[String],
        tokenizer: Result<Tokenizer, Failure>,
    ) -> Result<Self, Failure> {
        let tokenizer = match tokenizer {
            Ok(tokenizer) => tokenizer,
            Err(_) if texts.is_empty() => return Ok(Self::Any),
            Err(error) => return Err(error).context("--prompt needs a tokenizer"),
        };
        if texts.is_empty() {
            let prompts = PROMPTS
                .iter()
                .map(|text| tokenizer.encode_with_prefix(text));
            return Ok(Self::BuiltIn(prompts.collect::<Result<_, _>>()?));
        }
        let prompts = texts.iter().map(|text| tokenizer.encode_with_prefix(text));
        Ok(Self::Given(prompts.collect::<Result<_, _>>()?))
    }

    /// The tokens. Prompts of the user stay as they are; others are cut to the context length.
    fn tokens(self, vocab_size: usize, context: usize) -> Vec<Vec<u32>> {
        let mut prompts = match self {
            Self::Given(prompts) => return prompts,
            Self::BuiltIn(prompts) => prompts,
            Self::Any => {
                let vocab_size = vocab_size as u32;
                let row =
                    |row: u32| (0..TOKENS).map(move |at| (row * 7919 + at * 104_729) % vocab_size);
                (1..=3).map(|number| row(number).collect()).collect()
            }
        };
        for prompt in &mut prompts {
            prompt.truncate(context);
        }
        prompts
    }
}

impl Merged<'_> {
    /// Re-reads the files, then runs both models on the prompts, one after the other.
    pub(super) fn check(&self, prompts: Prompts) -> Result<Checked, Failure> {
        let failed = || format!("{} was written, but cannot be verified", self.out.display());
        let bar = progress::bytes(0, "checking");
        let mut advance = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let altered = verify(
            &self.bases.target.path,
            self.adapters,
            self.out,
            self.options,
            &mut advance,
        );
        bar.finish_and_clear();
        let altered = altered.with_context(failed)?;
        let unmerged = self.unmerged().with_context(failed)?;
        let answers = match &unmerged {
            Unmerged::None { why } => {
                note(&format!("check: the answers are not compared: {why}"));
                None
            }
            Unmerged::Given(adapter) => Some(self.answers(adapter, prompts)),
            Unmerged::Combined(folder) => {
                Some(self.answers(&folder.path().join(COMBINED), prompts))
            }
        };
        let checked = Checked {
            altered,
            answers: answers.transpose().with_context(failed)?,
            into: self.bases.into,
        };
        checked.describe();
        Ok(checked)
    }

    /// An adapter that computes unmerged what was merged.
    fn unmerged(&self) -> Result<Unmerged, Failure> {
        if let [WeightedAdapter { folder, weight }] = self.adapters
            && weight.to_bits() == 1.0_f64.to_bits()
        {
            return Ok(Unmerged::Given(folder.clone()));
        }
        match combine(self.adapters, &CombineOptions::exact(), &|_, _| ()) {
            Ok(combined) => {
                let folder = tempfile::tempdir()?;
                combined.save(&folder.path().join(COMBINED), &[])?;
                Ok(Unmerged::Combined(folder))
            }
            // what only a merge with the base model can compute
            Err(error @ (CombineError::Kind { .. } | CombineError::Whole { .. })) => {
                Ok(Unmerged::None {
                    why: error.to_string(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs base and adapter, in one or both forms of the base model, and the merged model.
    fn answers(&self, adapter: &Path, prompts: Prompts) -> Result<Answers, Failure> {
        let bar = progress::spinner("running base + adapter");
        let trained = apart(&self.bases.target, adapter)?;
        let config = trained.config();
        let prompts = prompts.tokens(config.vocab_size, config.max_position_embeddings);
        let target = Heard::from(&trained, prompts)?;
        drop(trained);
        let other = match &self.bases.other {
            None => None,
            Some(form) => {
                bar.set_message(match self.bases.into {
                    Into::Dequantised => "running the original base + adapter",
                    Into::Original => "running the quantised base + adapter",
                });
                Some(Heard::from(
                    &apart(form, adapter)?,
                    target.prompts().to_vec(),
                )?)
            }
        };
        bar.set_message("running the merged model");
        let merged = load(self.out, None)?.valid();
        let (agreement, merged) = target.compare(&merged, self.rounding)?;
        bar.finish_and_clear();
        let original = other.map(|other| match self.bases.into {
            Into::Dequantised => target.tokens_of(&other),
            Into::Original => other.tokens_of(&merged),
        });
        Ok(Answers {
            agreement,
            original,
        })
    }
}

/// The base model in one form with the adapter.
fn apart(form: &Form, adapter: &Path) -> Result<LlamaForCausalLM, Failure> {
    let base = load(&form.path, form.on_load)?;
    Ok(adapter::load(base, adapter)?.model.valid())
}

fn load(path: &Path, on_load: Option<QuantisedOnLoad>) -> Result<LlamaForCausalLM, Failure> {
    let device = device::named("cpu")?;
    let config = QuantisedOnLoad::config(on_load, path);
    Ok(config.open()?.load(0, &device)?)
}

impl Checked {
    fn describe(&self) {
        if let Some(answers) = &self.answers {
            answers.describe(self.into);
        }
        if self.altered.is_empty() {
            note("check: the written files equal the merged weights, bit for bit");
        }
    }

    /// The error message, if the check failed.
    pub(super) fn failure(&self, out: &Path) -> Option<String> {
        let out = out.display();
        if let Some(first) = self.altered.first() {
            return Some(format!(
                "{out}: {} tensors differ from what was written, first `{}` from row {} on ({} elements); the disk or \
                 another program changed them",
                self.altered.len(),
                first.name,
                first.row,
                first.numbers
            ));
        }
        let agreement = &self.answers.as_ref()?.agreement;
        (!agreement.agrees).then(|| {
            format!(
                "{out}: the merged model differs from base + adapter: a log-probability differs by {:.3}, and rounding \
                 explains up to {:.3}",
                agreement.largest, agreement.explained
            )
        })
    }
}

impl Answers {
    fn describe(&self, into: Into) {
        let Agreement {
            prompts,
            positions,
            same_likeliest,
            largest,
            mean,
            explained,
            tokens,
            ..
        } = &self.agreement;
        note(&format!(
            "check: base + adapter and the merged model predict the same next token at {same_likeliest} of {positions} \
             positions of {prompts} prompts; log-probabilities differ by {mean:.1e} on average, {largest:.1e} at most \
             (rounding explains up to {explained:.1e} there)"
        ));
        let apart = match into {
            _ if self.original.is_none() => "base + adapter",
            Into::Dequantised => "the dequantised base + adapter",
            Into::Original => "the original base + adapter",
        };
        note(&format!(
            "check: from {apart} to the merged model, {}",
            difference(tokens)
        ));
        if let Some(original) = &self.original {
            note(&match into {
                Into::Dequantised => format!(
                    "check: --into original would change the trained model: {}",
                    difference(original)
                ),
                Into::Original => format!(
                    "check: from the quantised base + adapter, which is the trained model, to the merged model, {}",
                    difference(original)
                ),
            });
        }
    }
}

fn difference(difference: &TokenDifference) -> String {
    let TokenDifference {
        tokens,
        mean,
        largest,
        loss_change,
    } = difference;
    format!(
        "the log-probabilities of the {tokens} tokens differ by {mean:.1e} on average, {largest:.1e} at most; the mean loss \
         changes by {loss_change:+.1e}"
    )
}
