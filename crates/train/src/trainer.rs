//! One optimizer step, and the loss over a set of examples.
//!
//! A step's loss is the mean over all its labels, however they are split into micro-batches: the gradients of each
//! micro-batch's summed loss, divided by the number of labels in the whole step, are added up.

mod together;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::module::Module;
use simmer_data::{Batch, Example};
use simmer_kernels::{Capabilities, profile};
use simmer_model::{LlamaForCausalLM, Parameters, Recompute, Sequence, Sharing, Target};

use crate::clip::Clip;
use crate::config::TrainConfig;
use crate::gradient::{Gradient, Partial};
use crate::optimizer::{AdamW, Moments, OptimizerConfig, Rate};
use crate::packing::{Packed, PackedSequence, Packing};
use crate::ranks::{Alone, Order, Ranks, RanksError, TreeSum, deal};
use crate::rates::Rates;
use crate::trained::Trained;
use simmer_recipe::Problem;

/// A model with its optimizer.
#[derive(Debug)]
pub struct Trainer {
    trained: Trained,
    optimizer: AdamW,
    clip: Clip,
    packing: Packing,
    rates: Rates,
    recompute: Recompute,
    order: Order,
    ranks: Rc<dyn Ranks>,
    /// Whether the other ranks have the trained tensors as they are now.
    others_are_up_to_date: bool,
    /// Whether they compute a share that this rank has not added up.
    others_compute: bool,
    progress: Arc<StepProgress>,
}

/// How far the current step is, for a display on another thread.
#[derive(Debug, Default)]
pub struct StepProgress {
    done: AtomicUsize,
    all: AtomicUsize,
}

impl StepProgress {
    /// The finished micro-batches of the step, and all of them; both 0 before the first step.
    pub fn micro_batches(&self) -> (usize, usize) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.all.load(Ordering::Relaxed))
    }
}

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean loss over the labels, before the update (nats per token).
    pub loss: f64,
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens that the model read.
    pub tokens: u64,
    /// Labels: tokens that the loss was computed on.
    pub targets: u64,
}

/// The mean loss over a set of examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss over the labels (nats per token).
    pub loss: f64,
    /// Labels: tokens that the loss was computed on.
    pub targets: u64,
}

/// Why a step has no update. The weights are unchanged.
#[derive(Debug, Clone, PartialEq)]
pub enum NoStep {
    /// Another rank has ended.
    Ranks(RanksError),
    /// The run was interrupted.
    Interrupted,
    /// The loss is not finite.
    Loss(f64),
    /// The gradient's norm is not finite, or it is 0 although the loss is not: weights so large that activations
    /// overflow and are normalised to 0.
    GradNorm(f64),
    /// The loss is above its limit.
    Spike {
        /// The loss (nats per token).
        loss: f64,
        /// The limit (nats per token).
        most: f64,
    },
}

impl NoStep {
    /// A signal is no fault of a rank.
    fn of_ranks(error: RanksError) -> Self {
        match error {
            RanksError::Stopped => Self::Interrupted,
            error => Self::Ranks(error),
        }
    }
}

impl fmt::Display for NoStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ranks(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Loss(loss) => write!(f, "the loss is {loss}"),
            Self::GradNorm(norm) => write!(f, "the gradient norm is {norm}"),
            Self::Spike { loss, most } => {
                write!(f, "the loss is {loss:.4}, a spike above {most:.4}")
            }
        }
    }
}

impl Trainer {
    /// A trainer for a model whose trainable tensors are chosen; the optimizer has no moments yet.
    ///
    /// # Errors
    /// A pattern of `train.learning_rates` that is in no name, and LoRA+ without a factor B.
    pub fn new(model: LlamaForCausalLM, config: &TrainConfig) -> Result<Self, Problem> {
        let OptimizerConfig::AdamW(adamw) = &config.optimizer;
        let packing = Packing {
            micro_batch_tokens: config.micro_batch_tokens.tokens(),
            share_prefixes: config.share_prefixes,
            sharing: Sharing {
                up_to: model.config().same_frequencies_up_to(),
                from: Capabilities::of(&model.device().without_autodiff()).shares_from,
            },
            dropout: model.has_dropout().then_some(config.seed),
        };
        let trained = Trained::new(model);
        let rates = Rates::of(config, trained.segments())?;
        let optimizer = AdamW::new(adamw, trained.segments().clone(), trained.is_flat());
        Ok(Self {
            optimizer: match rates.multiples() {
                None => optimizer,
                Some(multiples) => optimizer.with_multiples(multiples),
            },
            trained,
            clip: config.clip,
            packing,
            rates,
            recompute: config.recompute,
            order: Order::Sequential,
            ranks: Rc::new(Alone),
            others_are_up_to_date: false,
            others_compute: false,
            progress: Arc::default(),
        })
    }

    /// The number of trained parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.trained.segments().elements()
    }

    /// The order in which a new run adds micro-batches.
    pub(crate) fn order_of_new_runs(&self) -> Order {
        if self.trained.is_flat() {
            Order::Tree
        } else {
            Order::Sequential
        }
    }

    /// The learning rates of the trained tensors.
    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    /// How far the current step is.
    pub fn progress(&self) -> &Arc<StepProgress> {
        &self.progress
    }

    /// The model as it is now.
    pub fn model(&self) -> &LlamaForCausalLM {
        self.trained.model()
    }

    /// The optimizer as it is now.
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// The model at the end.
    pub fn into_model(self) -> LlamaForCausalLM {
        self.trained.into_model()
    }

    /// Continues from the weights and moments of a training checkpoint.
    pub fn restore(&mut self, parameters: &Parameters, moments: &Moments) {
        self.others_are_up_to_date = false;
        self.trained.put(parameters);
        self.optimizer.restore(moments, &self.trained.device());
    }

    /// How steps are packed; a copy, so that a step can be packed while another one is computed.
    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    /// Packs a batch for [`Trainer::step`]; `examples` are those of its rows, in the same order.
    pub fn pack(&self, batch: &Batch, examples: &[Example]) -> Packed {
        self.packing.batch(batch, examples)
    }

    /// One step: loss, gradient, update.
    ///
    /// `learning_rate` is that of tensors without a rate of their own; the others have the multiple of it that they have of
    /// `train.learning_rate`. `stop` is checked before each micro-batch. A loss above `most` is a spike, without an update.
    ///
    /// # Errors
    /// Why the step has no update; nothing has changed then.
    pub fn step(
        &mut self,
        packed: &Packed,
        learning_rate: f64,
        most: f64,
        stop: &AtomicBool,
    ) -> Result<Step, NoStep> {
        let _step = profile::phase("step");
        let (step, gradient) = self.gradient(packed, stop)?;
        if step.loss > most {
            let loss = step.loss;
            return Err(NoStep::Spike { loss, most });
        }
        let _phase = profile::phase("optimizer");
        let rate = Rate {
            learning_rate,
            clip: self.clip.factor(step.grad_norm),
            in_place: false,
        };
        self.others_are_up_to_date = false;
        self.trained.update(&mut self.optimizer, gradient, rate);
        Ok(step)
    }

    /// The mean loss of a step over its labels, and its gradient before clipping.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    fn gradient(&mut self, packed: &Packed, stop: &AtomicBool) -> Result<(Step, Gradient), NoStep> {
        let factor = 1.0 / packed.targets as f64;
        let sequences = &packed.sequences;
        let tokens: Vec<usize> = sequences.iter().map(|one| one.tokens).collect();
        let shares = deal(&tokens, self.ranks.size());
        let total = if self.ranks.size() == 1 {
            self.partial_sums(sequences, 0, sequences.len(), factor, stop)?
                .total()
        } else {
            if stop.load(Ordering::Relaxed) {
                return Err(NoStep::Interrupted);
            }
            self.start_others(packed, factor, &shares)
                .map_err(NoStep::of_ranks)?;
            let own = &sequences[shares[0].clone()];
            let own = self.partial_sums(own, 0, sequences.len(), factor, stop)?;
            let total = self.exchange(&shares, own).map_err(NoStep::of_ranks)?;
            self.others_compute = false;
            total
        };
        let segments = Arc::clone(self.trained.segments());
        let (sum, gradient) = match total {
            Some(Partial { loss, gradient }) => (Some(loss), gradient),
            None => (None, self.trained.no_gradient()),
        };
        let targets = packed.targets.max(1) as f64;
        let loss = sum.map_or(0.0, |sum| sum.into_scalar::<f64>()) / targets;
        if !loss.is_finite() {
            return Err(NoStep::Loss(loss));
        }
        let grad_norm = gradient.norm(&segments);
        // If the loss is 0 up to rounding, a gradient of 0 is right.
        let vanished = grad_norm == 0.0 && loss > f64::from(f32::EPSILON);
        if !grad_norm.is_finite() || vanished {
            return Err(NoStep::GradNorm(grad_norm));
        }
        let step = Step {
            loss,
            grad_norm,
            tokens: packed.tokens,
            targets: packed.targets,
        };
        Ok((step, gradient))
    }

    /// Loss and gradient of some micro-batches of a step, from the micro-batch `first` of `leaves` on, added as far as the order
    /// allows.
    fn partial_sums(
        &self,
        sequences: &[PackedSequence],
        first: usize,
        leaves: usize,
        factor: f64,
        stop: &AtomicBool,
    ) -> Result<TreeSum<Partial>, NoStep> {
        let segments = self.trained.segments();
        let device = self.trained.device();
        let progress = &self.progress;
        progress.done.store(0, Ordering::Relaxed);
        progress.all.store(sequences.len(), Ordering::Relaxed);
        let mut sums = TreeSum::new(self.order, leaves);
        let mut at = first;
        let micro_batches = sequences.iter();
        let micro_batches: Vec<(&Sequence, &[Target])> = micro_batches
            .map(|one| (&one.sequence, &one.targets[..]))
            .collect();
        let finished = self.trained.computing().each_loss_and_gradients(
            segments,
            &micro_batches,
            factor,
            self.recompute,
            &|| !stop.load(Ordering::Relaxed),
            &mut |loss, found| {
                let gradient = Gradient::of(segments, found, self.trained.is_flat(), &device);
                sums.push(at, Partial { loss, gradient }, Partial::plus);
                at += 1;
                progress.done.fetch_add(1, Ordering::Relaxed);
            },
        );
        if !finished {
            return Err(NoStep::Interrupted);
        }
        Ok(sums.map(|sum| sum.gathered(segments, &device)))
    }

    /// The loss of each example, without dropout; `None` if interrupted.
    pub(crate) fn losses(&self, examples: &[Example], stop: &AtomicBool) -> Option<Vec<f64>> {
        let losses = examples.iter().map(|example| {
            let found = self.evaluate(std::slice::from_ref(example), stop, &mut |_, _| {});
            found.map(|found| found.loss)
        });
        losses.collect()
    }

    /// The mean loss over examples, without dropout; `None` if interrupted.
    ///
    /// `progress` is called with the tokens done and the tokens in all.
    pub fn evaluate(
        &self,
        examples: &[Example],
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Option<Evaluation> {
        let model = self.trained.computing().valid();
        let packed = self.packing.measured(examples);
        let all = packed
            .sequences
            .iter()
            .map(|sequence| sequence.tokens)
            .sum();
        let (mut sum, mut done) = (0.0, 0);
        for micro_batch in &packed.sequences {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let value = model.loss(&micro_batch.sequence, &micro_batch.targets);
            sum += value.into_scalar::<f64>();
            done += micro_batch.tokens;
            progress(done, all);
        }
        let targets = packed.targets;
        let loss = sum / targets.max(1) as f64;
        Some(Evaluation { loss, targets })
    }
}
