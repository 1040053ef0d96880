//! The steps of a run, and what is due between them: validations, checkpoints, the end.

mod step;
mod validation;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use simmer_data::{Dataset, Tokenizer};
use simmer_lint::LintReport;
use simmer_model::adapter::AdapterConfig;
use simmer_model::checkpoint::Checkpoint as BaseFiles;

use crate::checkpoint::{Checkpoints, State};
use crate::config::TrainConfig;
use crate::counts::Counts;
use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::manifest::{Manifest, sha256};
use crate::metrics::{Metrics, MetricsFile};
use crate::observer::{Observer, Start};
use crate::packing::Ready;
use crate::recipe::Recipe;
use crate::run::{Outcome, Prepared};
use crate::tensorboard::EventFile;
use crate::trainer::Trainer;

/// A run between its first and its last step.
pub(crate) struct Training<'a> {
    recipe: &'a Recipe,
    config: &'a TrainConfig,
    /// As the run began.
    manifest: Manifest,
    /// Of the recipe that the run began with.
    recipe_sha256: String,
    folder: RunFolder,
    checkpoints: Checkpoints,
    data: Dataset,
    trainer: Trainer,
    /// The next step, or why there is none, where that was found out already.
    ready: Option<Result<Ready, TrainError>>,
    adapter: Option<AdapterConfig>,
    tokenizer: Arc<Tokenizer>,
    /// The base's files, where its weights come from files.
    files: Option<BaseFiles>,
    /// Files that are written beside the weights.
    beside: Vec<PathBuf>,
    device: Device,
    state: State,
    /// The step of the last checkpoint on the disk.
    saved_at: Option<u64>,
    metrics: MetricsFile,
    /// What TensorBoard reads; none after it could not be written.
    events: Option<EventFile>,
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
    pub(crate) fn start(
        recipe: &'a Recipe,
        manifest: Manifest,
        folder: RunFolder,
        prepared: Prepared,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Result<Self, TrainError> {
        let config = &recipe.train;
        let Prepared {
            data,
            lint,
            vocabulary,
            model,
            adapter,
            device,
            accepted,
            files,
            ..
        } = prepared;
        let beside = vocabulary.files(recipe, &model, &folder)?;
        let weights = simmer_model::layout::tensors(model.config());
        let weights = weights
            .iter()
            .map(|tensor| tensor.shape.iter().product::<usize>());
        let weights = weights.sum();
        let mut trainer = Trainer::new(model, config);
        let checkpoints = folder.checkpoints();
        let (last, problems) = checkpoints.last(&device)?;
        for problem in problems {
            observer.on_notice(&format!(
                "{problem}; it is moved aside, and the checkpoint before it is used"
            ));
        }
        let mut state = State::default();
        let recipe_sha256 = sha256(folder.recipe()?.as_bytes());
        if let Some(last) = last {
            if last.recipe != recipe_sha256 && !accepted.contains(&last.recipe) {
                return Err(TrainError::Changed {
                    folder: folder.path().to_owned(),
                    changes: vec!["recipe.toml in this folder".to_owned()],
                });
            }
            last.check_sizes(&trainer.model().trainable_shapes(), &checkpoints)?;
            trainer.restore(&last.parameters, last.moments);
            state = last.state;
        }
        let saved_at = Some(state.step).filter(|step| *step > 0);
        let validated = state.validated_at == Some(state.step);
        let metrics = MetricsFile::open(folder.path(), state.step, validated)?;
        let events = EventFile::begin(folder.path());
        let events = events.map_err(|error| observer.on_notice(&without_events(&error)));
        let training = Self {
            recipe,
            config,
            manifest,
            recipe_sha256,
            folder,
            checkpoints,
            data,
            trainer,
            ready: None,
            adapter,
            tokenizer: vocabulary.tokenizer,
            files,
            beside,
            device,
            state,
            saved_at,
            metrics,
            events: events.ok(),
            observer,
            stop,
        };
        training.announce(&lint, weights)
    }

    fn announce(self, lint: &LintReport, weights: usize) -> Result<Self, TrainError> {
        let shapes = self.trainer.model().trainable_shapes();
        let trained = shapes.values().map(|shape| shape.iter().product::<usize>());
        let start = Start {
            data: &self.data.report,
            lint,
            examples: self.data.examples().map(<[_]>::len),
            validation_examples: self.data.validation.len(),
            trained: trained.sum(),
            weights,
            steps: self.steps(),
            steps_per_epoch: self.steps_per_epoch(),
            resumed_at: self.saved_at,
            folder: self.folder.path(),
        };
        Counts::of(&start).write(start.folder)?;
        self.observer.on_start(&start);
        Ok(self)
    }

    /// Writes a line of the metrics.
    fn record(&mut self, line: &Metrics) -> Result<(), TrainError> {
        self.metrics.write(line)?;
        let written = self.events.as_mut().map(|events| events.write(line));
        if let Some(Err(error)) = written {
            self.events = None;
            self.observer.on_notice(&without_events(&error));
        }
        Ok(())
    }

    /// A stream is one epoch: nobody has counted its rows.
    fn steps_per_epoch(&self) -> u64 {
        let counted = self.data.steps_per_epoch().map(|steps| steps as u64);
        counted.or(self.config.max_steps).unwrap_or(1)
    }

    fn steps(&self) -> u64 {
        self.config.total_steps(self.steps_per_epoch())
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.steps_per_epoch() as f64
    }

    /// Runs the remaining steps and writes what the run was for.
    pub(crate) fn finish(mut self) -> Result<Outcome, TrainError> {
        let end = self.steps_to_the_end()?;
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
        self.prune()?;
        let best = self.state.best;
        let mut held_out = std::mem::take(&mut self.data.validation);
        held_out.truncate(self.config.compare_rows);
        Ok(Outcome::Finished {
            held_out,
            weights: self.write_weights()?,
            step,
            stopped_early: matches!(end, End::StoppedEarly),
            best,
        })
    }

    /// Each turn first does what is due after the steps so far, then one step; so a run that is
    /// taken up again at any point goes on with what was due there.
    fn steps_to_the_end(&mut self) -> Result<End, TrainError> {
        loop {
            let step = self.state.step;
            let last = step >= self.steps();
            let due = last || self.config.validate_every.due(step, self.steps_per_epoch());
            if due && self.state.validated_at != Some(step) && !self.validate()? {
                return self.interrupted();
            }
            let stopped = self.has_stopped_improving();
            let is_best = self.state.best.is_some_and(|best| best.step == step);
            let due = self
                .config
                .checkpoint_every
                .due(step, self.steps_per_epoch());
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

/// That a run goes on although TensorBoard will not see it.
fn without_events(error: &TrainError) -> String {
    format!("{error}; the run goes on without events for TensorBoard")
}
