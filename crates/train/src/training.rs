//! The steps of a run, and what is due between them: validations, checkpoints, the end.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use burn::tensor::Device;
use simmer_data::{Dataset, Tokenizer};
use simmer_model::adapter::{self, AdapterConfig, Card};
use simmer_model::base::Precision;
use simmer_model::checkpoint::{Checkpoint as BaseFiles, Dtype, Existing};
use simmer_model::export;

use crate::card::card;
use crate::checkpoint::{Best, Checkpoint, Checkpoints, State};
use crate::config::{TrainConfig, Weights};
use crate::counts::Counts;
use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::guard::{self, Reaction};
use crate::manifest::{Manifest, sha256};
use crate::metrics::{self, Metrics, MetricsFile, SkipMetrics, StepMetrics, ValidationMetrics};
use crate::observer::{Observer, Start};
use crate::packing::Ready;
use crate::recipe::{Method, Recipe};
use crate::run::{Outcome, Prepared};
use crate::tensorboard::EventFile;
use crate::trainer::{NoStep, Step, Trainer};

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
        training.announce(weights)
    }

    fn announce(self, weights: usize) -> Result<Self, TrainError> {
        let shapes = self.trainer.model().trainable_shapes();
        let trained = shapes.values().map(|shape| shape.iter().product::<usize>());
        let start = Start {
            data: &self.data.report,
            lint: &self.data.lint,
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

    /// One optimizer step; false where somebody asked to stop.
    fn step(&mut self) -> Result<bool, TrainError> {
        let begin = Instant::now();
        let factor = self.config.schedule.factor(self.state.step, self.steps());
        let learning_rate = self.config.learning_rate * factor;
        let now = match self.ready.take() {
            Some(Err(error)) => return Err(error),
            Some(Ok(ready)) if ready.at == self.state.cursor => ready,
            _ => Ready::make(&mut self.data, self.trainer.packing(), self.state.cursor)?,
        };
        let most = self.config.guard.most(&self.state.recent);
        let step = match self.compute(&now, learning_rate, most) {
            Ok(step) => step,
            Err(NoStep::Interrupted) => return Ok(false),
            Err(why) => return self.skip(now, &why),
        };
        if self.saved_at == Some(self.state.step) {
            self.prune()?;
        }
        self.state.step += 1;
        self.state.cursor = now.next;
        self.state.tokens += step.tokens;
        self.state.targets += step.targets;
        self.state.skipped_in_a_row = 0;
        self.config
            .guard
            .remember(&mut self.state.recent, step.loss);
        let seconds = begin.elapsed().as_secs_f64();
        let metrics = StepMetrics {
            step: self.state.step,
            epoch: self.epoch(),
            loss: step.loss,
            learning_rate,
            grad_norm: step.grad_norm,
            tokens: step.tokens,
            targets: step.targets,
            seconds,
            tokens_per_second: step.tokens as f64 / seconds,
            peak_memory: metrics::peak_memory(),
            time: metrics::now(),
        };
        self.record(&Metrics::Step(metrics.clone()))?;
        self.observer.on_step(&metrics);
        Ok(true)
    }

    /// Makes the step, and meanwhile the one after it ready, which may be none of this run's any more.
    fn compute(&mut self, now: &Ready, learning_rate: f64, most: f64) -> Result<Step, NoStep> {
        let packing = self.trainer.packing();
        let is_last = self.state.step + 1 >= self.steps();
        let Self {
            data,
            trainer,
            stop,
            ..
        } = self;
        let (step, ready) = thread::scope(|scope| {
            let next = (!is_last).then(|| scope.spawn(|| Ready::make(data, packing, now.next)));
            let step = trainer.step(&now.packed, learning_rate, most, stop);
            (step, next.map(ScopedJoinHandle::join))
        });
        self.ready = ready.map(|ready| ready.unwrap_or_else(|panic| resume_unwind(panic)));
        step
    }

    /// Leaves out a step that would spoil the run, or ends the run, as the recipe says; its rows are set aside. False
    /// where somebody asked to stop meanwhile.
    fn skip(&mut self, now: Ready, why: &NoStep) -> Result<bool, TrainError> {
        let Some(losses) = self.trainer.losses(&now.examples, self.stop) else {
            return Ok(false);
        };
        let step = self.state.step + 1;
        let folder = self.folder.path();
        let rows = guard::set_aside(folder, step, &now.examples, &losses, &self.tokenizer)?;
        let made = self.state.step - self.state.skipped_in_a_row;
        let guard = &self.config.guard;
        let skips = self.state.skipped_in_a_row + 1;
        let what = format!("{why}, and the update was not made (its rows: {rows})");
        if guard.reaction(why) == Reaction::Stop {
            return Err(self.checkpoints.diverged(step, made, what)?);
        }
        if skips >= guard.most_skips {
            let what =
                format!("{what}; {skips} such steps in a row end the run (train.guard.most_skips)");
            return Err(self.checkpoints.diverged(step, made, what)?);
        }
        self.state.step = step;
        self.state.cursor = now.next;
        self.state.skipped += 1;
        self.state.skipped_in_a_row = skips;
        self.record(&Metrics::Skip(SkipMetrics {
            step,
            epoch: self.epoch(),
            skipped: why.to_string(),
            rows,
            time: metrics::now(),
        }))?;
        self.observer.on_notice(&format!("step {step}: {what}"));
        Ok(true)
    }

    /// Measures the validation loss, where there are validation examples; false where somebody
    /// asked to stop.
    fn validate(&mut self) -> Result<bool, TrainError> {
        let step = self.state.step;
        if self.data.validation.is_empty() || step == 0 {
            return Ok(true);
        }
        let begin = Instant::now();
        let observer = &mut *self.observer;
        let mut progress = |done, all| observer.on_validation_progress(done, all);
        let examples = &self.data.validation;
        let Some(found) = self.trainer.evaluate(examples, self.stop, &mut progress) else {
            return Ok(false);
        };
        if !found.loss.is_finite() {
            let what = format!("the validation loss is {}", found.loss);
            return Err(self.checkpoints.diverged(step, step, what)?);
        }
        let least = self
            .config
            .early_stop
            .map_or(0.0, |stop| stop.min_improvement);
        let is_best = self
            .state
            .best
            .is_none_or(|best| found.loss < best.loss - least);
        if is_best {
            let loss = found.loss;
            self.state.best = Some(Best { step, loss });
            self.state.without_improvement = 0;
        } else {
            self.state.without_improvement += 1;
        }
        self.state.validated_at = Some(step);
        let metrics = ValidationMetrics {
            step,
            epoch: self.epoch(),
            validation_loss: found.loss,
            best: is_best,
            targets: found.targets,
            seconds: begin.elapsed().as_secs_f64(),
            time: metrics::now(),
        };
        self.record(&Metrics::Validation(metrics.clone()))?;
        self.observer.on_validation(&metrics);
        Ok(true)
    }

    /// Writes a checkpoint.
    fn save(&mut self) -> Result<(), TrainError> {
        self.metrics.sync()?;
        let model = self.trainer.model();
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            recipe: self.recipe_sha256.clone(),
            parameters: model.trainable(),
            moments: self.trainer.optimizer().state().clone(),
        };
        let card = self.card()?;
        let more = |folder: &Path| match &self.adapter {
            None => Ok(()),
            Some(config) => {
                let out = folder.join("adapter");
                Ok(adapter::save(
                    model,
                    config,
                    &out,
                    &self.beside,
                    &card,
                    Existing::Refuse,
                )?)
            }
        };
        if let Some(files) = &self.files {
            // what was learned from other weights is not kept
            files.check_unchanged()?;
        }
        let shapes = model.trainable_shapes();
        let path = self.checkpoints.save(&checkpoint, &shapes, &more)?;
        self.saved_at = Some(self.state.step);
        self.observer.on_checkpoint(self.state.step, &path);
        Ok(())
    }

    /// Removes the checkpoints that are no longer wanted. Not before the weights of the last one
    /// have been seen to work: until then the one before it is the last good one.
    fn prune(&self) -> Result<(), TrainError> {
        let best = self.state.best.map(|best| best.step);
        self.checkpoints.retain(self.config.keep, best)
    }

    /// What the README of the adapter says of the run so far.
    fn card(&self) -> Result<Card, TrainError> {
        let losses = self.metrics.losses(self.state.step)?;
        Ok(card(self.recipe, &self.manifest, &self.state, losses))
    }

    /// Writes the adapter, or the whole model.
    fn write_weights(self) -> Result<PathBuf, TrainError> {
        let card = self.card()?;
        let mut model = self.trainer.into_model();
        let best = self
            .state
            .best
            .filter(|_| self.config.weights == Weights::Best);
        if let Some(best) = best.filter(|best| best.step != self.state.step) {
            let loaded = self.checkpoints.load(best.step, &self.device);
            let loaded = loaded.map_err(|problem| TrainError::NoCheckpoint {
                folder: self.checkpoints.folder().to_owned(),
                problems: vec![format!(
                    "{}: {problem}",
                    self.checkpoints.path(best.step).display()
                )],
            })?;
            model = model.with_trainable(&loaded.parameters);
        }
        match (&self.recipe.method, &self.adapter) {
            (Method::Full(full), _) => self.folder.replace("model", |folder| {
                Ok(export::save_model(
                    &model,
                    folder,
                    dtype(full.precision),
                    &self.beside,
                )?)
            }),
            (Method::Lora(_), Some(config)) => {
                let out = self.folder.path().join("adapter");
                adapter::save(&model, config, &out, &self.beside, &card, Existing::Replace)?;
                Ok(out)
            }
            (Method::Lora(_), None) => unreachable!("method.lora attaches an adapter"),
        }
    }
}

/// That a run goes on although TensorBoard will not see it.
fn without_events(error: &TrainError) -> String {
    format!("{error}; the run goes on without events for TensorBoard")
}

fn dtype(precision: Precision) -> Dtype {
    match precision {
        Precision::F32 => Dtype::F32,
        Precision::Bf16 => Dtype::BF16,
        Precision::F16 => Dtype::F16,
    }
}
