//! Starts or resumes the run of a recipe.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use simmer_files::size::readable;
use simmer_model::adapter::Starts;
use simmer_model::base::Compute;

use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::folder::{self, RunFolder};
use crate::manifest::Manifest;
use crate::observer::Observer;
use crate::outcome::Outcome;
use crate::prepared::Prepared;
use crate::ranks::{Alone, Ranks, check_recipe};
use crate::recipe::Recipe;
use crate::resume::{self, Changes};
use crate::tracking::{Ending, Trackers};
use crate::training::{Training, out_of_memory};
use crate::training_checkpoint::Checkpoints;

/// What to do if the folder already holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Refuse it.
    Never,
    /// Resume it, but only if recipe, data and base model are those that it started with.
    AsBegun,
    /// Resume it with the recipe, data and base model given now; changes are reported and recorded in its manifest.
    Changed,
}

/// Trains as a recipe defines, and writes the run into the folder `out`.
///
/// A resumed run continues from its last intact checkpoint, bit for bit if nothing has changed; without a checkpoint it
/// starts at its first step. When `stop` becomes true, the run ends before the next micro-batch and writes a checkpoint.
///
/// # Errors
/// Before the first step: everything that is wrong with recipe, data, base model or folder. Later: a loss, gradient or
/// weight that is not finite, where the last good checkpoint stays; and [`TrainError::Ended`], such as a bad row late in
/// a stream or a full disk, where a checkpoint of the last finished step is written first.
pub fn train(
    recipe: &Recipe,
    out: &Path,
    resume: Resume,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let ranks: Rc<dyn Ranks> = Rc::new(Alone);
    train_on_ranks(recipe, out, resume, observer, stop, &ranks)
}

/// As [`train`], as rank 0 of several; the others call [`crate::ranks::work`] with the same recipe. The files are the same
/// with any number of ranks.
///
/// # Errors
/// As [`train`], and ranks that were started with something else, or that end during the run.
pub fn train_on_ranks(
    recipe: &Recipe,
    out: &Path,
    resume: Resume,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
    ranks: &Rc<dyn Ranks>,
) -> Result<Outcome, TrainError> {
    let as_read = recipe;
    check_recipe(recipe, ranks.size())?;
    Trackers::check(&recipe.train.track)?;
    let folder = RunFolder::open(out, resume != Resume::Never)?;
    let is_new = folder.is_new();
    let resumed_at = last_step(&folder, resume, observer)?;
    let mut recipe = recipe.clone();
    let mut changes = Changes::default();
    if resumed_at.is_some() {
        changes = recipe_changes(&mut recipe, &folder, observer)?;
        refuse(&changes.refused, resume, &folder)?;
    }
    let starts = match resumed_at {
        None => Starts::OfWeights,
        Some(_) => Starts::OfCheckpoint,
    };
    let prepared = Prepared::load(&mut recipe, starts, ranks.size(), observer)?;
    let manifest = match resumed_at {
        None => begin(&recipe, &prepared, &folder)?,
        Some(step) => {
            let before = Manifest::read(folder.path())?;
            let mut now = prepared.manifest(&recipe, Some(&before))?;
            let by_recipe = !changes.refused.is_empty();
            let of_files = manifest_changes(&before, &now, by_recipe, observer);
            changes.refused.extend(of_files);
            changes.alters_losses |= before.alters_losses(&now);
            refuse(&changes.refused, resume, &folder)?;
            if changes.refused.is_empty() {
                // the adapter's card describes what the run started with
                before
            } else {
                now.accepted = before.accepted;
                now.accept(changes, step, &folder, observer)?;
                write_accepted(&recipe, &now, &prepared, &folder, step)?;
                now
            }
        }
    };
    let expected = prepared.expected;
    let mut trackers = Trackers::default();
    let run = || {
        let trackers = &mut trackers;
        let training = Training::start(
            &recipe, manifest, folder, prepared, trackers, observer, stop,
        )?;
        training.join(as_read, ranks)?.announce()?.finish()
    };
    let outcome = catch_unwind(AssertUnwindSafe(run));
    trackers.end(Ending::of(outcome.as_ref().ok()), observer);
    if let Ok(Err(TrainError::Ranks(error))) = &outcome
        && is_new
        && error.is_refusal()
    {
        folder::remove_begun(out);
    }
    outcome.unwrap_or_else(|panic| Err(out_of_memory_error(panic, out, expected)))
}

/// The step of the newest checkpoint, from which the run resumes; `None` for a run that starts at its first step.
fn last_step(
    folder: &RunFolder,
    resume: Resume,
    observer: &mut dyn Observer,
) -> Result<Option<u64>, TrainError> {
    let newest = Checkpoints::of(folder).steps()?.first().copied();
    if resume != Resume::Never && newest.is_none() {
        observer.on_notice(&format!(
            "{}: no checkpoint to resume from; starting at the first step",
            folder.path().display()
        ));
    }
    Ok(newest)
}

/// Writes the recipe and manifest of a run that starts at its first step.
///
/// The order matters: a kill between the two writes leaves a run that can be resumed.
fn begin(recipe: &Recipe, prepared: &Prepared, folder: &RunFolder) -> Result<Manifest, TrainError> {
    let manifest = prepared.manifest(recipe, None)?;
    folder.write_recipe(&recipe.resolved())?;
    manifest.write(folder.path())?;
    Ok(manifest)
}

/// Writes the manifest and recipe of a run that resumes after `step` with accepted changes.
///
/// The order matters: a kill between the two writes leaves a run that can be resumed.
fn write_accepted(
    recipe: &Recipe,
    manifest: &Manifest,
    prepared: &Prepared,
    folder: &RunFolder,
    step: u64,
) -> Result<(), TrainError> {
    let checkpoints = Checkpoints::of(folder);
    if let Ok(last) = checkpoints.load(step, &prepared.device) {
        last.check_sizes(&prepared.model.trainable_shapes(), &checkpoints)?;
        last.check_starts(&prepared.model.starts(), &checkpoints)?;
    }
    manifest.write(folder.path())?;
    folder.write_recipe(&recipe.resolved())
}

/// The error of a device without memory, whose message arrived as a panic; any other panic continues.
fn out_of_memory_error(panic: Box<dyn Any + Send>, folder: &Path, expected: u64) -> TrainError {
    match out_of_memory(&*panic) {
        Some(message) => TrainError::OutOfMemory {
            folder: folder.to_owned(),
            expected: readable(expected),
            message,
        },
        None => resume_unwind(panic),
    }
}

/// The error of a run with changes that are not accepted.
fn refuse(changes: &[String], resume: Resume, folder: &RunFolder) -> Result<(), TrainError> {
    if changes.is_empty() || resume == Resume::Changed {
        return Ok(());
    }
    Err(TrainError::Changed {
        folder: folder.path().to_owned(),
        changes: changes.to_vec(),
    })
}

/// Compares the recipe with that of the run, and returns the changes that alter more than rounding. Values that the run
/// has resolved (date, `base.compute`, `micro_batch_tokens = "auto"`) are taken over into the recipe.
fn recipe_changes(
    recipe: &mut Recipe,
    folder: &RunFolder,
    observer: &mut dyn Observer,
) -> Result<Changes, TrainError> {
    let parse = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let mut before = folder.recipe()?;
    if let Ok(mut begun) = Recipe::parse(folder.path(), &before, &[]) {
        // Without the key, the run was started by a version that computed in f32 then.
        let compute = *begun.base.compute.get_or_insert(Compute::F32);
        recipe.base.compute.get_or_insert(compute);
        // Chat templates get the date of the run's start, not today's.
        if recipe.data.date.is_none() {
            recipe.data.date.clone_from(&begun.data.date);
        }
        // The number that was found when the run started is kept.
        if recipe.train.micro_batch_tokens == MicroBatchTokens::Auto {
            recipe.train.micro_batch_tokens = begun.train.micro_batch_tokens;
        }
        // Resolved again, with the defaults of keys that an earlier version did not have.
        before = begun.resolved();
    }
    let changes = resume::changes(&parse(&before), &parse(&recipe.resolved()));
    for line in &changes.rounding {
        observer.on_notice(&format!(
            "{line}: the run resumes, but its results will differ by rounding"
        ));
    }
    Ok(changes)
}

/// The changes in the files that the recipe reads.
fn manifest_changes(
    before: &Manifest,
    manifest: &Manifest,
    by_recipe: bool,
    observer: &mut dyn Observer,
) -> Vec<String> {
    let program = |manifest: &Manifest| {
        let Manifest { simmer, commit, .. } = manifest;
        (simmer.clone(), commit.clone(), manifest.system.clone())
    };
    if program(before) != program(manifest) {
        observer.on_notice(&format!(
            "the run was started by simmer {} (commit {}) on {}; its results may differ by rounding",
            before.simmer, before.commit, before.system
        ));
    }
    before.changes(manifest, by_recipe)
}
