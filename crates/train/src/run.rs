//! One recipe, one run: everything that comes before the first step.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use simmer_data::{Dataset, Example, Steps, Tokenizer};
use simmer_lint::LintReport;
use simmer_model::adapter::{self, AdapterConfig};
use simmer_model::base::Base;
use simmer_model::checkpoint::Checkpoint;
use simmer_model::{LlamaForCausalLM, device};

use crate::checkpoint::Best;
use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::estimate::{Known, estimate, readable};
use crate::folder::RunFolder;
use crate::manifest::Manifest;
use crate::observer::Observer;
use crate::recipe::{Method, Recipe};
use crate::resume;
use crate::training::Training;
use crate::vocabulary::Vocabulary;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done, or the validation loss no longer fell.
    Finished {
        /// The adapter's folder in PEFT's layout; the model's for `method.full`.
        weights: PathBuf,
        /// Steps done.
        step: u64,
        /// Whether the validation loss ended it.
        stopped_early: bool,
        /// The lowest validation loss, where there was one.
        best: Option<Best>,
        /// The examples that it was measured on, as many as the recipe compares the base on.
        held_out: Vec<Example>,
    },
    /// Somebody asked to stop.
    Interrupted {
        /// Where to go on from; none before the first step.
        checkpoint: Option<PathBuf>,
        /// Steps done.
        step: u64,
    },
}

/// What becomes of a run that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It is refused.
    Never,
    /// It goes on with what it began with, and with nothing else.
    AsBegun,
    /// It goes on with what is given now; what has changed is said, and written into its manifest.
    Changed,
}

/// Trains what a recipe says into the folder `out`.
///
/// A run that is resumed goes on from its last whole checkpoint, bit for bit where nothing has changed; one
/// without a checkpoint begins again. Where `stop` becomes true, a checkpoint is written and the
/// run ends between two micro-batches.
///
/// # Errors
/// Everything that is wrong with recipe, data, base or folder, before the first step; numbers
/// that are no longer finite, or a disk that is full, later: the checkpoints before stay.
pub fn train(
    recipe: &Recipe,
    out: &Path,
    resume: Resume,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let folder = RunFolder::open(out, resume != Resume::Never)?;
    let mut recipe = recipe.clone();
    let begun = folder.checkpoints().steps()?;
    if resume != Resume::Never && begun.is_empty() {
        observer.on_notice(&format!(
            "{}: no checkpoint to go on from; beginning at the first step",
            out.display()
        ));
    }
    let resuming = !begun.is_empty();
    let mut changes = Vec::new();
    if resuming {
        changes.extend(recipe_changes(&mut recipe, &folder, observer)?);
        refuse(&changes, resume, &folder)?;
    }
    let mut prepared = Prepared::load(&mut recipe, observer)?;
    let before = resuming.then(|| Manifest::read(folder.path()));
    let before = before.transpose()?;
    let mut manifest = Manifest::of(&recipe, &prepared, before.as_ref())?;
    if let Some(before) = &before {
        changes.extend(manifest_changes(before, &manifest, observer));
        refuse(&changes, resume, &folder)?;
        manifest.accepted.clone_from(&before.accepted);
    }
    if !changes.is_empty() {
        manifest.accept(changes, begun[0], &folder, observer)?;
    }
    prepared.accepted = manifest.accepted_recipes();
    // The orders matter: a kill between the two leaves a run that can be resumed.
    let manifest = match before {
        None => {
            folder.write_recipe(&recipe.resolved())?;
            manifest.write(folder.path())?;
            manifest
        }
        Some(before) if before.accepted != manifest.accepted => {
            let checkpoints = folder.checkpoints();
            if let Ok(last) = checkpoints.load(begun[0], &prepared.device) {
                last.check_sizes(&prepared.model.trainable_shapes(), &checkpoints)?;
            }
            manifest.write(folder.path())?;
            folder.write_recipe(&recipe.resolved())?;
            manifest
        }
        // what the run began with is what its adapter's card tells
        Some(before) => before,
    };
    let expected = prepared.expected;
    let run = || Training::start(&recipe, manifest, folder, prepared, observer, stop)?.finish();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| match out_of_memory(&*panic) {
        Some(said) => Err(TrainError::OutOfMemory {
            folder: out.to_owned(),
            expected: readable(expected),
            said,
        }),
        None => resume_unwind(panic),
    })
}

/// What a device said that has no more memory: libtorch's errors arrive as panics.
fn out_of_memory(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied())?;
    let known = ["out of memory", "allocate memory", "not enough memory"];
    let line = text
        .lines()
        .find(|line| known.iter().any(|words| line.contains(words)))?;
    Some(line.trim().to_owned())
}

/// Ends a run with changes that nobody has accepted.
fn refuse(changes: &[String], resume: Resume, folder: &RunFolder) -> Result<(), TrainError> {
    if changes.is_empty() || resume == Resume::Changed {
        return Ok(());
    }
    Err(TrainError::Changed {
        folder: folder.path().to_owned(),
        changes: changes.to_vec(),
    })
}

/// What of the recipe alters the mathematics of the run that it began.
fn recipe_changes(
    recipe: &mut Recipe,
    folder: &RunFolder,
    observer: &mut dyn Observer,
) -> Result<Vec<String>, TrainError> {
    let parse = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let mut before = folder.recipe()?;
    if let Ok(begun) = Recipe::parse(folder.path(), &before, &[]) {
        // The day that a chat template was told is the run's, not today.
        if recipe.data.date.is_none() {
            recipe.data.date.clone_from(&begun.data.date);
        }
        // What fitted when the run began is the run's, too.
        if recipe.train.micro_batch_tokens == MicroBatchTokens::Auto {
            recipe.train.micro_batch_tokens = begun.train.micro_batch_tokens;
        }
        // With the defaults of keys that an earlier version did not have.
        before = begun.resolved();
    }
    let changes = resume::changes(&parse(&before), &parse(&recipe.resolved()));
    for line in changes.rounding {
        observer.on_notice(&format!(
            "{line}: the run goes on, but its numbers will differ by rounding"
        ));
    }
    Ok(changes.refused)
}

/// What the recipe reads, and is not what the run began with.
fn manifest_changes(
    before: &Manifest,
    manifest: &Manifest,
    observer: &mut dyn Observer,
) -> Vec<String> {
    let program = |manifest: &Manifest| {
        let Manifest { simmer, commit, .. } = manifest;
        (simmer.clone(), commit.clone(), manifest.system.clone())
    };
    if program(before) != program(manifest) {
        observer.on_notice(&format!(
            "the run was begun by simmer {} (commit {}) on {}; its numbers may differ by rounding",
            before.simmer, before.commit, before.system
        ));
    }
    before.changes(manifest)
}

/// Sees to it that the run fits into the memory, before its weights are loaded; the most that it will take.
fn check_room(
    recipe: &mut Recipe,
    base: &Base,
    tokenizer: &Tokenizer,
    data: &mut Dataset,
    observer: &mut dyn Observer,
) -> Result<u64, TrainError> {
    let expected = estimate(recipe, base, tokenizer, data, Known::default())?;
    if recipe.train.micro_batch_tokens == MicroBatchTokens::Auto {
        let tokens = expected.micro_batch_tokens;
        recipe.train.micro_batch_tokens = MicroBatchTokens::Tokens(tokens);
        observer.on_notice(&format!("train.micro_batch_tokens = {tokens}"));
    }
    if !expected.fits() {
        return Err(TrainError::NoRoom(Box::new(expected)));
    }
    observer.on_estimate(&expected);
    Ok(expected.peak)
}

/// What a run needs before its first step.
pub(crate) struct Prepared {
    pub(crate) data: Dataset,
    pub(crate) lint: LintReport,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) model: LlamaForCausalLM,
    /// The adapter in PEFT's terms; none for `method.full`.
    pub(crate) adapter: Option<AdapterConfig>,
    /// Where trained tensors are, without automatic differentiation.
    pub(crate) device: Device,
    /// The base's files, which its frozen weights are pages of; none for random weights.
    pub(crate) files: Option<Checkpoint>,
    /// Bytes that the run is expected to take at most.
    expected: u64,
    /// SHA-256 of the recipes that the run went by before changes were accepted.
    pub(crate) accepted: Vec<String>,
}

impl Prepared {
    fn load(recipe: &mut Recipe, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let device = device::named(&recipe.device)?;
        let mut base = recipe.base.open()?;
        let vocabulary = Vocabulary::open(recipe, &mut base, observer)?;
        let seed = recipe.train.seed;
        let steps = Steps {
            batch_size: recipe.train.batch_size,
            seed,
        };
        let (mut data, lint) = simmer_lint::load(&recipe.data, &vocabulary.tokenizer, steps)?;
        if lint.errors().next().is_some() {
            return Err(TrainError::Lint(lint));
        }
        let told = data.report.train.iter().find_map(|report| report.date);
        if recipe.data.date.is_none() {
            recipe.data.date = told.map(|date| date.format("%Y-%m-%d").to_string());
        }
        let examples = data.examples().unwrap_or_default();
        let longest = examples.iter().map(|example| example.tokens.len()).max();
        let context = base.config.max_position_embeddings;
        if let Some(longest) = longest.filter(|longest| *longest > context) {
            observer.on_notice(&format!(
                "the longest row has {longest} tokens, and the base model was made for {context} \
                 (max_position_embeddings)"
            ));
        }
        let expected = check_room(recipe, &base, &vocabulary.tokenizer, &mut data, observer)?;
        observer.on_load(&base);
        let model = base.load(seed, &device.clone().autodiff())?;
        let (model, adapter) = match &recipe.method {
            Method::Full(_) => (model.train_all(), None),
            Method::Lora(lora) => {
                let name = recipe.base.path.as_deref().map(Path::to_string_lossy);
                let attached = adapter::attach(model, lora, seed, &name.unwrap_or_default())?;
                let untrained = vocabulary.untrained(&attached.model);
                for notice in attached
                    .warnings
                    .iter()
                    .chain(&attached.resized)
                    .chain(&untrained)
                {
                    observer.on_notice(notice);
                }
                (attached.model, Some(attached.config))
            }
        };
        Ok(Self {
            data,
            lint,
            vocabulary,
            model,
            adapter,
            device,
            files: base.checkpoint().cloned(),
            expected,
            accepted: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_memory_is_recognised() {
        let said = |text: &str| out_of_memory(&text.to_owned());
        let gpu = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB\")";
        assert_eq!(said(gpu).as_deref(), Some(gpu));
        let processor = "Internal torch error: [enforce fail]\nDefaultCPUAllocator: can't allocate memory: you tried";
        let line = "DefaultCPUAllocator: can't allocate memory: you tried";
        assert_eq!(said(processor).as_deref(), Some(line));
        assert_eq!(said("index out of bounds"), None);
        assert_eq!(out_of_memory(&7), None);
    }
}
