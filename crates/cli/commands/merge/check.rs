//! What was merged, held against what it was made of.

use std::path::Path;

use burn::module::Module;
use serde::Serialize;
use simmer_data::Tokenizer;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::base::BaseConfig;
use simmer_model::merge::agreement::{Agreement, Heard};
use simmer_model::merge::{Altered, MergeOptions, verify};
use simmer_model::{adapter, device};
use simmer_train::tokenizer;

use crate::failure::{Context, Failure};
use crate::output::note;
use crate::progress;

/// What models are asked where nobody says what.
const PROMPTS: [&str; 3] = [
    "The capital of France is Paris, and the river that runs through it is called the Seine.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5",
];
/// Tokens of each of three rows, where there is no tokenizer.
const TOKENS: u32 = 16;

/// What the models are asked.
pub(super) enum Prompts {
    /// By the person who merges.
    Given(Vec<Vec<u32>>),
    /// [`PROMPTS`].
    BuiltIn(Vec<Vec<u32>>),
    /// Any tokens at all: base and adapter have no tokenizer.
    Any,
}

/// A merge that was done.
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
    /// Tokens of the texts, with the adapter's tokenizer where it brings one.
    pub(super) fn new(texts: &[String], base: &Path, adapter: &Path) -> Result<Self, Failure> {
        let adapter = AdapterFolder::open(adapter)?;
        let found = tokenizer::open(adapter.tokenizer_path().unwrap_or(base));
        let tokenizer = match found {
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

    /// What somebody asked is asked as it is; what is built in ends where the context does.
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
    /// Reads the files again, and runs both models over the prompts, one after the other.
    pub(super) fn check(&self, prompts: Prompts) -> Result<Checked, Failure> {
        let failed = || format!("{} was written, but cannot be checked", self.out.display());
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
        let bar = progress::spinner("asking base and adapter");
        let device = device::named("cpu")?;
        let load = |path: &Path| BaseConfig::from_path(path).open()?.load(0, &device);
        let apart = adapter::load(load(self.base)?, self.adapter)?.model.valid();
        let config = apart.config();
        let prompts = prompts.tokens(config.vocab_size, config.max_position_embeddings);
        let heard = Heard::from(&apart, prompts)?;
        drop(apart);
        bar.set_message("asking the merged model");
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
            "check: base with adapter and merged model find the same next token likeliest at {same_likeliest} of {positions} \
             positions of {prompts} prompts; log-probabilities differ by {mean:.1e} on average, by {largest:.1e} at most \
             (rounding explains {explained:.1e} there)"
        ));
        if self.altered.is_empty() {
            note("check: the files hold what was merged, bit by bit");
        }
    }

    /// What is wrong, if anything is.
    pub(super) fn failure(&self, out: &Path) -> Option<String> {
        let out = out.display();
        if let Some(first) = self.altered.first() {
            return Some(format!(
                "{out}: {} tensors are not what was merged, the first `{}` from row {} on ({} numbers); the disk or another \
                 program changed them",
                self.altered.len(),
                first.name,
                first.row,
                first.numbers
            ));
        }
        (!self.agreement.agrees).then(|| {
            format!(
                "{out}: the merged model does not say what base and adapter say: a log-probability differs by {:.3}, and \
                 rounding explains {:.3}",
                self.agreement.largest, self.agreement.explained
            )
        })
    }
}
