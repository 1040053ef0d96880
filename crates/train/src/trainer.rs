//! One optimizer step, and the loss over a set of examples.
//!
//! A step's loss is the sum over all its target tokens divided by their number, whatever the
//! micro-batches: the gradient of a micro-batch's summed loss, divided by the tokens of the whole
//! step, is added up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::Tensor;
use simmer_data::{Batch, Example, MicroBatch, pack};
use simmer_kernels::{mix, profile};
use simmer_model::{LlamaForCausalLM, Parameters, Recompute, Run, Target, add};

use crate::clip::{Clip, norm};
use crate::config::TrainConfig;
use crate::optimizer::{AdamW, OptimizerConfig};

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    model: LlamaForCausalLM,
    optimizer: AdamW,
    clip: Clip,
    micro_batch_tokens: usize,
    recompute: Recompute,
    share_beginnings: bool,
    seed: u64,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean over the target tokens, before the update (nats a token).
    pub loss: f64,
    /// Norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens that the model saw.
    pub tokens: u64,
    /// Tokens that it was to predict.
    pub targets: u64,
}

/// The loss over a set of examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean over the target tokens (nats a token).
    pub loss: f64,
    /// Tokens to predict.
    pub targets: u64,
}

/// Why a step did not happen. The weights are those of before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NoStep {
    /// Somebody asked to stop.
    Interrupted,
    /// The loss is not a finite number.
    Loss(f64),
    /// The gradient's norm is not a finite number, or it is 0 although there is a loss: weights so
    /// large that activations overflow and are normalised to nothing.
    GradNorm(f64),
}

impl Trainer {
    /// A model whose trained tensors have been chosen, and an optimizer without memories.
    pub fn new(model: LlamaForCausalLM, config: &TrainConfig) -> Self {
        let OptimizerConfig::AdamW(adamw) = &config.optimizer;
        let optimizer = AdamW::new(adamw, &model.trainable_shapes());
        Self {
            model,
            optimizer,
            clip: config.clip,
            micro_batch_tokens: config.micro_batch_tokens.tokens(),
            recompute: config.recompute,
            share_beginnings: config.share_beginnings,
            seed: config.seed,
        }
    }

    /// The model as it is now.
    pub fn model(&self) -> &LlamaForCausalLM {
        &self.model
    }

    /// The optimizer as it is now.
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// The model at the end.
    pub fn into_model(self) -> LlamaForCausalLM {
        self.model
    }

    /// Goes on from weights and memories of an earlier run.
    pub fn restore(&mut self, parameters: &Parameters, moments: crate::optimizer::Moments) {
        self.model = self.model.clone().with_trainable(parameters);
        self.optimizer.restore(moments);
    }

    /// One update from a batch; `examples` are those of its rows, in their order.
    ///
    /// `stop` is looked at between micro-batches.
    ///
    /// # Errors
    /// Why there was no update; nothing has changed then.
    pub fn step(
        &mut self,
        batch: &Batch,
        examples: &[Example],
        learning_rate: f64,
        stop: &AtomicBool,
    ) -> Result<Step, NoStep> {
        let _step = profile::phase("step");
        let (step, gradients) = self.gradients(batch, examples, stop)?;
        let _phase = profile::phase("optimizer");
        let gradients = self.clip.apply(gradients, step.grad_norm);
        let parameters = self.model.trainable();
        let updated = self.optimizer.update(parameters, gradients, learning_rate);
        self.model = self.model.clone().with_trainable(&updated);
        Ok(step)
    }

    /// Loss and gradient of a batch, of the mean over its target tokens, before clipping.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn gradients(
        &self,
        batch: &Batch,
        examples: &[Example],
        stop: &AtomicBool,
    ) -> Result<(Step, Parameters), NoStep> {
        let chosen: Vec<&Example> = examples.iter().collect();
        let tokens: usize = chosen.iter().map(|example| example.tokens.len()).sum();
        let targets: usize = chosen.iter().map(|example| example.targets()).sum();
        let mut sum: Option<Tensor<1>> = None;
        let mut gradients = Parameters::new();
        for micro_batch in pack(&chosen, self.micro_batch_tokens) {
            if stop.load(Ordering::Relaxed) {
                return Err(NoStep::Interrupted);
            }
            if micro_batch.target_count() == 0 {
                continue;
            }
            let keys = self
                .model
                .has_dropout()
                .then(|| self.dropout_keys(batch, &micro_batch));
            let (run, wanted) = self.run(&micro_batch, keys);
            let factor = 1.0 / targets as f64;
            let (value, found) =
                self.model
                    .loss_and_gradients(&run, &wanted, factor, self.recompute);
            sum = Some(match sum {
                Some(sum) => sum + value,
                None => value,
            });
            add(&mut gradients, found);
        }
        let loss = sum.map_or(0.0, |sum| sum.into_scalar::<f64>()) / targets.max(1) as f64;
        if !loss.is_finite() {
            return Err(NoStep::Loss(loss));
        }
        let grad_norm = norm(&gradients);
        // A loss within rounding of 0 may well have no gradient left.
        let vanished = grad_norm == 0.0 && loss > f64::from(f32::EPSILON);
        if !grad_norm.is_finite() || vanished {
            return Err(NoStep::GradNorm(grad_norm));
        }
        let step = Step {
            loss,
            grad_norm,
            tokens: tokens as u64,
            targets: targets as u64,
        };
        Ok((step, gradients))
    }

    /// The mean loss over examples, without dropout; `None` where somebody asked to stop.
    ///
    /// `progress` is told how many of how many tokens are done.
    pub fn evaluate(
        &self,
        examples: &[Example],
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Option<Evaluation> {
        let model = self.model.valid();
        let chosen: Vec<&Example> = examples.iter().collect();
        let all = chosen.iter().map(|example| example.tokens.len()).sum();
        let (mut sum, mut targets, mut done) = (0.0, 0, 0);
        for micro_batch in pack(&chosen, self.micro_batch_tokens) {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            if micro_batch.target_count() > 0 {
                let (run, wanted) = self.run(&micro_batch, None);
                sum += model.loss(&run, &wanted).into_scalar::<f64>();
                targets += micro_batch.target_count() as u64;
            }
            done += micro_batch.tokens.len();
            progress(done, all);
        }
        let loss = sum / targets.max(1) as f64;
        Some(Evaluation { loss, targets })
    }

    /// What dropout draws from, one key a token: the seed, the epoch, the example and the token's
    /// place in it, and nothing of how the batch was packed.
    fn dropout_keys(&self, batch: &Batch, micro_batch: &MicroBatch) -> Arc<[u64]> {
        let epoch = mix(mix(self.seed) ^ batch.epoch);
        let rows = micro_batch.rows.windows(2).zip(&micro_batch.examples);
        let keys = rows.flat_map(|(bounds, example)| {
            let visit = mix(epoch ^ batch.rows[*example] as u64);
            let positions = &micro_batch.positions[bounds[0]..bounds[1]];
            positions
                .iter()
                .map(move |position| mix(visit ^ u64::from(*position)))
        });
        keys.collect()
    }

    /// A micro-batch as the model takes it: the run, and what it is to predict.
    ///
    /// Without dropout, what rows have in common at their beginning is in the run once.
    fn run(&self, micro_batch: &MicroBatch, keys: Option<Arc<[u64]>>) -> (Run, Vec<Target>) {
        let bounds = micro_batch.rows.windows(2);
        let rows = bounds.map(|row| &micro_batch.tokens[row[0]..row[1]]);
        let rows: Vec<&[u32]> = rows.collect();
        let shares = self.share_beginnings && keys.is_none();
        let (run, places) = if shares {
            let shared = Run::sharing_beginnings(&rows);
            (shared.run, shared.places.concat())
        } else {
            let run = Run {
                dropout_keys: keys,
                ..Run::from_rows(&rows)
            };
            let places = (0..run.len() as u32).collect();
            (run, places)
        };
        // What is not trained on has a negative target.
        let targets = micro_batch.targets.iter().zip(places);
        let targets = targets.filter_map(|(token, place)| {
            let token = u32::try_from(*token).ok()?;
            Some(Target { place, token })
        });
        (run, targets.collect())
    }
}
