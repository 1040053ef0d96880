//! The training loop: steps, validations, checkpoints, and the end of a run.

mod ending;
mod length;
mod skipped_rows;
mod step;
mod validation;
mod weights;

pub(crate) use ending::out_of_memory;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use simmer_checkpoint::Checkpoint;
use simmer_checkpoint::layout::parameter_count;
use simmer_data::{Dataset, Tokenizer};
use simmer_files::digest::sha256;
use simmer_lint::LintReport;
use simmer_model::adapter::{AdapterConfig, PromptTemplate};

use crate::card::templates;
use crate::config::TrainConfig;
use crate::counts::Counts;
use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::manifest::Manifest;
use crate::metrics::{Metrics, MetricsFile};
use crate::observer::{Observer, Start};
use crate::outcome::Outcome;
use crate::packing::Ready;
use crate::prepared::Prepared;
use crate::ranks::{Hello, Ranks, described, hear};
use crate::recipe::Recipe;
use crate::tracking::Trackers;
use crate::trainer::Trainer;
use crate::training_checkpoint::{Checkpoints, TrainingCheckpoint};
use crate::training_state::TrainingState;
use length::Length;

/// A run between its first and its last step.
pub(crate) struct Training<'a> {
    lint: LintReport,
    recipe: &'a Recipe,
    config: &'a TrainConfig,
    /// The manifest with which the run started, or resumed with accepted changes.
    manifest: Manifest,
    /// SHA-256 of the recipe in the run's folder.
    recipe_sha256: String,
    folder: RunFolder,
    checkpoints: Checkpoints,
    data: Dataset,
    trainer: Trainer,
    /// The next step's data, or why it cannot be read, if it was prepared during the last step.
    ready: Option<Result<Ready, TrainError>>,
    adapter: Option<AdapterConfig>,
    tokenizer: Arc<Tokenizer>,
    /// The base model's files; `None` for random weights.
    files: Option<Checkpoint>,
    /// The prompt templates of the training rows, which are written along with the weights.
    templates: Vec<PromptTemplate>,
    length: Length,
    /// Tokenizer files that are written along with the weights.
    beside: Vec<PathBuf>,
    device: Device,
    /// The estimated peak of memory, in bytes.
    expected: u64,
    state: TrainingState,
    /// The step of the last checkpoint on disk.
    saved_at: Option<u64>,
    metrics: MetricsFile,
    trackers: &'a mut Trackers,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
}

/// How the loop ended.
enum End {
    LastStep,
    StoppedEarly,
    Interrupted,
}

impl<'a> Training<'a> {
    /// Restores the last checkpoint if there is one, opens the run's files and tells the observer.
    ///
    /// # Errors
    /// Files that cannot be read or written, checkpoints that are damaged or do not fit the recipe.
    pub(crate) fn start(
        recipe: &'a Recipe,
        manifest: Manifest,
        folder: RunFolder,
        prepared: Prepared,
        trackers: &'a mut Trackers,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Result<Self, TrainError> {
        let Prepared {
            data,
            lint,
            vocabulary,
            model,
            adapter,
            device,
            files,
            expected,
        } = prepared;
        let beside = vocabulary.files(recipe, &model, &folder)?;
        let templates = templates(recipe, &vocabulary.tokenizer)?;
        let recipe_sha256 = sha256(folder.recipe()?.as_bytes());
        let checkpoints = Checkpoints::of(&folder);
        let last = last_checkpoint(&checkpoints, &device, observer)?;
        let model = match &last {
            None => model,
            Some(last) => {
                last.check_starts(&model.starts(), &checkpoints)?;
                model.with_starts(&last.starts)
            }
        };
        let mut trainer = Trainer::new(model, &recipe.train)?;
        if let Some(rates) = trainer.rates().text() {
            observer.on_notice(&rates);
        }
        let mut state = match last {
            None => TrainingState {
                order: trainer.order_of_new_runs(),
                ..TrainingState::default()
            },
            Some(last) => {
                check_recipe(&last, &recipe_sha256, &manifest, &folder)?;
                last.check_sizes(&trainer.model().trainable_shapes(), &checkpoints)?;
                trainer.restore(&last.parameters, &last.moments);
                last.state
            }
        };
        if state.accept(&manifest.accepted) {
            observer.on_notice(
                "the validation losses before the accepted changes are not compared with those after them",
            );
        }
        let length = Length::of(&recipe.train, &data, state.step, state.cursor);
        if let Some(notice) = length.notice(state.step) {
            observer.on_notice(&notice);
        }
        let validated = state.validated_at == Some(state.step);
        let metrics = MetricsFile::open(folder.path(), state.step, validated)?;
        if let Some(notice) = metrics.notice(state.step) {
            observer.on_notice(&notice);
        }
        trackers.open(&recipe.train.track, folder.path(), observer);
        Ok(Self {
            lint,
            recipe,
            config: &recipe.train,
            manifest,
            recipe_sha256,
            checkpoints,
            data,
            trainer,
            ready: None,
            adapter,
            tokenizer: vocabulary.tokenizer,
            files,
            templates,
            length,
            beside,
            device,
            expected,
            saved_at: Some(state.step).filter(|step| *step > 0),
            metrics,
            trackers,
            state,
            folder,
            observer,
            stop,
        })
    }

    /// Waits for the other ranks, and computes together with them.
    ///
    /// # Errors
    /// A rank that has failed or was started with something else. `recipe` is the recipe as it was read.
    pub(crate) fn join(
        mut self,
        recipe: &Recipe,
        ranks: &Rc<dyn Ranks>,
    ) -> Result<Self, TrainError> {
        self.trainer = self
            .trainer
            .with_ranks(Rc::clone(ranks), self.state.order)?;
        if ranks.size() > 1 {
            let (parameters, compute) = (
                self.trainer.parameters(),
                self.trainer.model().computes_in(),
            );
            let hello = Hello::new(recipe, &self.manifest.base, parameters, compute);
            let places = hear(&**ranks, &hello)?;
            self.observer.on_notice(&format!(
                "{} ranks compute the micro-batches of each step: {}",
                ranks.size(),
                described(&places)
            ));
            if let Some(text) = self.trainer.connect_all_gpus(&places)? {
                self.observer.on_notice(&text);
            }
        }
        Ok(self)
    }

    /// Tells the observer that the run starts.
    pub(crate) fn announce(self) -> Result<Self, TrainError> {
        let (lint, weights) = (&self.lint, parameter_count(self.trainer.model().config()));
        let shapes = self.trainer.model().trainable_shapes();
        let trained = shapes.values().map(|shape| shape.iter().product::<usize>());
        let parameters = match self.recipe.method.adapter() {
            None => weights,
            Some(_) => weights + added_parameters(&shapes),
        };
        let start = Start {
            data: &self.data.report,
            lint,
            examples: self.data.examples().map(<[_]>::len),
            validation_examples: self.data.validation.len(),
            trained: trained.sum(),
            weights,
            parameters,
            steps: self.length.steps,
            steps_per_epoch: self.length.per_epoch,
            resumed_at: self.saved_at,
            folder: self.folder.path(),
            progress: self.trainer.progress(),
        };
        Counts::of(&start).write(start.folder)?;
        self.observer.on_start(&start);
        Ok(self)
    }

    /// Writes one line of metrics.
    fn record(&mut self, line: &Metrics) -> Result<(), TrainError> {
        self.metrics.write(line)?;
        self.trackers.record(line, self.observer);
        Ok(())
    }

    fn epoch(&self) -> f64 {
        self.length.epochs(self.state.step)
    }

    /// Runs the remaining steps and writes the trained weights.
    pub(crate) fn finish(mut self) -> Result<Outcome, TrainError> {
        let end = self.steps_or_checkpoint();
        if !matches!(end, Err(ref error) if error.is_of_ranks()) {
            self.trainer.end_others();
        }
        let end = end?;
        let step = self.state.step;
        if let Some(streamed) = self.data.streamed() {
            self.observer
                .on_notice(&format!("read so far:\n{streamed}"));
            let counted = Counts::read(self.folder.path())
                .and_then(|counts| counts.with_data(&streamed).write(self.folder.path()));
            if let Err(error) = counted {
                self.observer.on_notice(&error.to_string());
            }
        }
        if matches!(end, End::Interrupted) {
            let saved = self.saved_at.map(|step| self.checkpoints.path(step));
            return Ok(Outcome::Interrupted {
                checkpoint: saved,
                step,
            });
        }
        let last = self.last_saved();
        let after = |error: TrainError| error.after(step, last.clone(), None);
        self.prune().map_err(after)?;
        let best = self.state.best;
        let mut held_out = std::mem::take(&mut self.data.validation);
        held_out.truncate(self.config.compare_rows);
        Ok(Outcome::Finished {
            held_out,
            weights: self.write_weights().map_err(after)?,
            step,
            stopped_early: matches!(end, End::StoppedEarly),
            best,
        })
    }

    /// Each iteration first does what is due after the steps so far, then one step. So a run that resumes at any point
    /// first does what was due there.
    fn steps_to_the_end(&mut self) -> Result<End, TrainError> {
        loop {
            let step = self.state.step;
            let last = step >= self.length.steps;
            let due = last || self.length.is_due(self.config.validate_every, step);
            if due && self.state.validated_at != Some(step) && !self.validate()? {
                return self.interrupted();
            }
            let stopped = self.has_stopped_improving();
            let is_best = self.state.best.is_some_and(|best| best.step == step);
            let due = self.length.is_due(self.config.checkpoint_every, step);
            if (due || last || stopped || is_best) && self.saved_at != Some(step) {
                self.save()?;
            }
            if last {
                return Ok(End::LastStep);
            }
            if stopped {
                return Ok(End::StoppedEarly);
            }
            if !self.step()? {
                return self.interrupted();
            }
        }
    }

    fn interrupted(&mut self) -> Result<End, TrainError> {
        if self.state.step > 0 && self.saved_at != Some(self.state.step) {
            self.save()?;
        }
        Ok(End::Interrupted)
    }

    fn has_stopped_improving(&self) -> bool {
        let without = self.state.without_improvement;
        self.config
            .early_stop
            .is_some_and(|stop| without >= stop.patience)
    }
}

/// Trained parameters that are not the base model's own: all but its biases that are trained in place. Modules that are
/// trained whole are copies, as in PEFT.
fn added_parameters(trained: &BTreeMap<String, Vec<usize>>) -> usize {
    let is_added = |name: &str| {
        name.strip_suffix(".bias")
            .is_none_or(|module| trained.contains_key(&format!("{module}.weight")))
    };
    let added = trained.iter().filter(|(name, _)| is_added(name));
    added
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum()
}

/// The last intact checkpoint; damaged ones after it are reported.
fn last_checkpoint(
    checkpoints: &Checkpoints,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Option<TrainingCheckpoint>, TrainError> {
    let (last, problems) = checkpoints.last(device)?;
    for problem in problems {
        observer.on_notice(&format!(
            "{problem}; it is renamed to damaged-step-..., and the checkpoint before it is used"
        ));
    }
    Ok(last)
}

/// Checks that a checkpoint was written with the recipe in the run's folder, or with one before accepted changes.
fn check_recipe(
    checkpoint: &TrainingCheckpoint,
    recipe_sha256: &str,
    manifest: &Manifest,
    folder: &RunFolder,
) -> Result<(), TrainError> {
    let earlier = manifest.accepted_recipes();
    if checkpoint.recipe == recipe_sha256 || earlier.contains(&checkpoint.recipe) {
        return Ok(());
    }
    Err(TrainError::Changed {
        folder: folder.path().to_owned(),
        changes: vec!["recipe.toml in this folder".to_owned()],
    })
}
