//! Compares a merged model with its base model and adapter.

use std::path::Path;

use burn::module::Module;
use serde::Serialize;
use simmer_data::Tokenizer;
use simmer_model::base::BaseConfig;
use simmer_model::merge::agreement::{Agreement, Heard};
use simmer_model::merge::{Altered, MergeOptions, verify};
use simmer_model::{adapter, device};

use crate::failure::{Context, Failure};
use crate::output::note;
use crate::progress;

/// The prompts if the user gives none.
const PROMPTS: [&str; 3] = [
    "The capital of France is Paris, and the river that runs through it is called the Seine.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5",
];
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
    pub(super) base: &'a Path,
    pub(super) adapter: &'a Path,
    pub(super) out: &'a Path,
    pub(super) options: MergeOptions<'a>,
    pub(super) rounding: f64,
}

/// What the check found.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    altered: Vec<Altered>,
    agreement: Agreement,
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
            let prompts = PROMPTS.iter().map(|text| tokens(&tokenizer, text));
            return Ok(Self::BuiltIn(prompts.collect::<Result<_, Failure>>()?));
        }
        let prompts = texts.iter().map(|text| tokens(&tokenizer, text));
        Ok(Self::Given(prompts.collect::<Result<_, Failure>>()?))
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

fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Failure> {
    Ok([tokenizer.prefix(), &tokenizer.encode(text)?.ids].concat())
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
            self.base,
            self.adapter,
            self.out,
            self.options,
            &mut advance,
        );
        bar.finish_and_clear();
        let checked = Checked {
            altered: altered.with_context(failed)?,
            agreement: self.agreement(prompts).with_context(failed)?,
        };
        checked.describe();
        Ok(checked)
    }

    fn agreement(&self, prompts: Prompts) -> Result<Agreement, Failure> {
        let bar = progress::spinner("running base + adapter");
        let device = device::named("cpu")?;
        let load = |path: &Path| BaseConfig::from_path(path).open()?.load(0, &device);
        let apart = adapter::load(load(self.base)?, self.adapter)?.model.valid();
        let config = apart.config();
        let prompts = prompts.tokens(config.vocab_size, config.max_position_embeddings);
        let heard = Heard::from(&apart, prompts)?;
        drop(apart);
        bar.set_message("running the merged model");
        let merged = load(self.out)?.valid();
        let agreement = heard.compare(&merged, self.rounding)?;
        bar.finish_and_clear();
        Ok(agreement)
    }
}

impl Checked {
    fn describe(&self) {
        let Agreement {
            prompts,
            positions,
            same_likeliest,
            largest,
            mean,
            explained,
            ..
        } = &self.agreement;
        note(&format!(
            "check: base + adapter and the merged model predict the same next token at {same_likeliest} of {positions} \
             positions of {prompts} prompts; log-probabilities differ by {mean:.1e} on average, {largest:.1e} at most \
             (rounding explains up to {explained:.1e} there)"
        ));
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
        (!self.agreement.agrees).then(|| {
            format!(
                "{out}: the merged model differs from base + adapter: a log-probability differs by {:.3}, and rounding \
                 explains up to {:.3}",
                self.agreement.largest, self.agreement.explained
            )
        })
    }
}
