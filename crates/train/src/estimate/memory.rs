//! Memory of a run, by part.
//!
//! Axes: T tokens, P labels, H hidden size, I intermediate size, N query heads, K key heads, D head_dim,
//! V vocabulary, L layers.

use std::collections::BTreeSet;

use serde::Serialize;
use simmer_checkpoint::ModelConfig;
use simmer_checkpoint::family::{Activation, Half, Module, ModuleKind, Size};
use simmer_files::size::{grouped, plural};
use simmer_kernels::{Capabilities, Operation};
use simmer_model::Recompute;
use simmer_model::adapter::SelectedAttention;
use simmer_model::adapter::targets::{Selected, Selection};
use simmer_model::base::{Compute, Offload};

use super::Subject;
use super::load::Load;
use super::shares::Share;
use crate::ranks::most_held;
use crate::recipe::Method;

/// Memory of a tokenizer per entry of its vocabulary, in bytes.
const VOCABULARY_ENTRY: u64 = 700;
/// Memory of an example per token, in bytes: the id, and whether it is a label.
const EXAMPLE_TOKEN: u64 = 8;

/// Tensors of the size of a row's attention scores that exist at a time without a fused form: the scores, the weights,
/// and both once more in the backward pass.
const SCORES: u64 = 4;

/// Bytes of an element while it is quantised for products in fp8: in f32, and its code.
const QUANTISED: u64 = 5;

/// Memory by part, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// The frozen weights.
    pub weights: u64,
    /// The part of the frozen weights that stays mapped from files; the system can drop it and read it again.
    pub mapped: u64,
    /// The trained weights.
    pub trained: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The optimizer's moments.
    pub optimizer: u64,
    /// Activations: what the layers keep for the backward pass.
    pub activations: u64,
    /// Temporary buffers of operations, and fragmentation.
    pub workspace: u64,
    /// Everything else: the program, the tokenizer and the data; on a GPU, its context.
    pub program: u64,
}

/// What is trained in a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TrainedLayer {
    /// What its trained linear modules read. The backward pass needs it again, for the gradient of what is trained in them.
    pub(super) reads: BTreeSet<Activation>,
    /// Whether anything in the layer is trained, be it only a norm or a bias.
    pub(super) any: bool,
    /// Further elements per token that adapters of the attention half keep, and those of the MLP half.
    pub(super) beside: [usize; 2],
    /// The ranks of the low-rank branches of both halves: elements per token of `x Aᵀ`.
    pub(super) ranks: [usize; 2],
    /// Elements of A of all low-rank branches.
    pub(super) factors: usize,
    /// Whether queries, keys or values have a gradient although their module keeps nothing that it reads.
    pub(super) projections: bool,
    /// Further multiplications per token, by weights that dropout takes a second time.
    pub(super) again: usize,
}

impl TrainedLayer {
    /// Adds what an adapter costs beyond a low-rank product.
    fn add(&mut self, module: &Selected, dropout: bool) {
        let [rows, columns] = module.shape;
        let costs = module.adapter.costs;
        let half = match module.module.reads.half() {
            Half::Attention => 0,
            Half::Mlp | Half::Outside => 1,
        };
        if module.adapter.has_rank() {
            self.ranks[half] += module.rank;
            self.factors += module.rank * columns;
        }
        if costs.keeps_result {
            self.beside[half] += rows;
        }
        let read = module.module.reads;
        self.projections |= [Activation::AttentionInput, Activation::LayerInput].contains(&read);
        if costs.dropout_takes_a_product && dropout {
            self.beside[half] += 2 * columns; // the mask, and the input that it leaves
            self.again += rows * columns;
        }
    }

    /// Adds what the prompts of attention cost: the queries once more, by head, and weights of the prompts before and after
    /// their softmax and their gate.
    fn add_prompts(&mut self, attention: &SelectedAttention, config: &ModelConfig) {
        const COPIES: usize = 3;
        self.any = true;
        let weights = config.num_attention_heads * attention.prompts;
        self.beside[0] += Size::Queries.of(config) + COPIES * weights;
    }

    fn reads(&self, activation: Activation) -> bool {
        self.reads.contains(&activation)
    }
}

/// What is trained in which layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layers {
    /// One entry per layer, the lowest first.
    pub(super) each: Vec<TrainedLayer>,
    /// Whether the embedding is trained, so that gradients pass through all layers.
    pub(super) embedding: bool,
    /// Whether the head's weight is trained or has a low-rank branch.
    pub(super) head: bool,
    /// Whether every weight is trained.
    pub(super) whole: bool,
    /// Elements of what adapters started with, which is kept.
    pub(super) starts: usize,
}

impl Layers {
    /// For full fine-tuning: every weight is trained.
    pub(super) fn all(config: &ModelConfig) -> Layers {
        let linear = config.family.layer.iter();
        let linear = linear.filter(|module| module.kind == ModuleKind::Linear);
        let all = TrainedLayer {
            reads: linear.map(|module| module.reads).collect(),
            any: true,
            ..TrainedLayer::default()
        };
        Layers {
            each: vec![all; config.num_hidden_layers],
            embedding: true,
            head: true,
            whole: true,
            starts: 0,
        }
    }

    /// For an adapter: the modules of its selection are trained. `dropout`: whether it has dropout.
    pub(super) fn of(selection: &Selection, config: &ModelConfig, dropout: bool) -> Layers {
        let mut found = Layers {
            each: vec![TrainedLayer::default(); config.num_hidden_layers],
            embedding: false,
            head: false,
            whole: false,
            starts: 0,
        };
        let adapted = selection.adapted.iter();
        let adapted = adapted.map(|module| {
            let keeps_input = module.adapter.costs.keeps_input;
            (module.layer, Some(module.module), keeps_input)
        });
        let saved = selection.saved.iter();
        let saved = saved.map(|module| (module.layer, module.module, true));
        // the gradient of a bias needs no input
        let biases = selection.biases.iter();
        let biases = biases.map(|module| (module.layer, module.module, false));
        for (layer, module, needs_input) in adapted.chain(saved).chain(biases) {
            let Some(module) = module else { continue };
            let Some(layer) = layer.and_then(|layer| found.each.get_mut(layer)) else {
                found.embedding |= module.kind == ModuleKind::Embedding;
                found.head |= module.kind == ModuleKind::OutputHead;
                continue;
            };
            layer.any = true;
            if needs_input && module.kind == ModuleKind::Linear {
                layer.reads.insert(module.reads);
            }
        }
        for module in &selection.adapted {
            if module.adapter.costs.keeps_start {
                found.starts += module.rank * module.shape.iter().sum::<usize>();
            }
            if let Some(layer) = module.layer.and_then(|layer| found.each.get_mut(layer)) {
                layer.add(module, dropout);
            }
        }
        for attention in &selection.attention {
            if let Some(layer) = found.each.get_mut(attention.layer) {
                layer.add_prompts(attention, config);
            }
        }
        if config.tie_word_embeddings {
            (found.embedding, found.head) =
                (found.embedding | found.head, found.embedding | found.head);
        }
        // rows of a head take no gradient of the whole of it
        let rows = |kind| selection.tokens.iter().any(|of| of.kind == kind);
        found.embedding |= rows(ModuleKind::Embedding);
        found
    }

    /// What is kept on a device: what its low-rank branches keep is beside all else.
    fn on(&self, device: &Capabilities) -> Layers {
        let mut layers = self.clone();
        for layer in &mut layers.each {
            if device.keeps_low {
                for (beside, rank) in layer.beside.iter_mut().zip(layer.ranks) {
                    *beside += rank;
                }
            } else {
                layer.factors = 0;
            }
        }
        layers
    }

    /// The lowest layer whose output has a gradient, if any has.
    pub(super) fn lowest(&self) -> Option<usize> {
        if self.embedding {
            return Some(0);
        }
        self.each.iter().position(|layer| layer.any)
    }
}

/// Elements that a layer keeps per token. `below`: whether its input has a gradient.
fn kept(config: &ModelConfig, layer: &TrainedLayer, below: bool) -> u64 {
    of_attention(config, layer, below) + of_mlp(config, layer, below)
}

/// Elements that the attention half of a layer keeps per token, the input of the MLP half included.
fn of_attention(config: &ModelConfig, layer: &TrainedLayer, below: bool) -> u64 {
    let operation = if passes_attention(layer, below) {
        let queries = Size::Queries.of(config);
        queries + 2 * Size::Keys.of(config) + config.num_attention_heads // q, k, v, log-sum-exp
    } else {
        0
    };
    read_in(Half::Attention, config, layer, below) + (operation + layer.beside[0]) as u64
}

/// Elements that the MLP half of a layer keeps per token.
fn of_mlp(config: &ModelConfig, layer: &TrainedLayer, below: bool) -> u64 {
    let operation = if passes_attention(layer, below) || layer.any {
        2 * Size::Intermediate.of(config) // gate and up
    } else {
        0
    };
    read_in(Half::Mlp, config, layer, below) + (operation + layer.beside[1]) as u64
}

/// Whether a gradient passes through attention itself.
fn passes_attention(layer: &TrainedLayer, below: bool) -> bool {
    let by_projections = [Activation::AttentionInput, Activation::LayerInput];
    let by_input = by_projections.into_iter().any(|read| layer.reads(read));
    below || layer.projections || by_input
}

/// Elements per token that modules of one half of a layer read, as far as they are kept; each activation counts once.
fn read_in(half: Half, config: &ModelConfig, layer: &TrainedLayer, below: bool) -> u64 {
    let modules = config.family.layer.iter();
    let kept: BTreeSet<Activation> = modules
        .filter(|module| module.reads.half() == half && keeps_input(module, layer, below))
        .map(|module| module.reads)
        .collect();
    let attention = half == Half::Attention && passes_attention(layer, below);
    // attention keeps its result
    let result = attention.then_some(Activation::AttentionValues);
    let all: BTreeSet<Activation> = kept.into_iter().chain(result).collect();
    all.iter()
        .map(|activation| activation.features(config) as u64)
        .sum()
}

/// Whether a module keeps what it reads: a norm if a gradient passes through it, a linear module if something in it is
/// trained.
fn keeps_input(module: &Module, layer: &TrainedLayer, below: bool) -> bool {
    if module.kind == ModuleKind::Linear {
        return layer.reads(module.reads);
    }
    let trained_in_attention =
        passes_attention(layer, below) || layer.reads(Activation::AttentionValues);
    match module.reads {
        Activation::LayerInput => below,
        Activation::Queries | Activation::Keys => passes_attention(layer, below),
        Activation::AttentionOutput => trained_in_attention,
        Activation::Middle | Activation::MlpOutput => passes_attention(layer, below) || layer.any,
        _ => false,
    }
}

/// Further elements per token during the backward pass of the top layer: the gradients of its output, of the gated
/// features, of gate and up. The gated features themselves are no longer needed then.
fn backward(config: &ModelConfig, layer: Option<&TrainedLayer>) -> u64 {
    let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
    let freed = layer.is_some_and(|layer| layer.reads(Activation::Gated));
    h + 3 * i - if freed { i } else { 0 }
}

impl Parts {
    /// Of the share of the model that a device holds.
    pub(super) fn of(
        subject: &Subject<'_>,
        load: &Load,
        recompute: Recompute,
        offload: Option<Offload>,
        share: &Share,
    ) -> Parts {
        let device = &share.device;
        let config = &subject.base.config;
        let overhead = device.overhead;
        let element = subject.element();
        let (tokens, targets) = (load.tokens as u64, load.targets as u64);
        let h = config.hidden_size as u64;
        let layers = &subject.layers.on(device);
        let lowest = layers.lowest().unwrap_or(config.num_hidden_layers);
        let own = share.layers.clone();
        let above = |of: fn(&ModelConfig, &TrainedLayer, bool) -> u64| {
            (lowest.max(own.start)..own.end).map(move |index| {
                let below = index > lowest || layers.embedding;
                of(config, &layers.each[index], below)
            })
        };
        let most = |of| above(of).max().unwrap_or(0);
        let micro_batches = (load.step_tokens / load.tokens.max(1) as f64).ceil() as usize;
        let in_flight = share.in_flight(micro_batches) as u64;
        let elements = match recompute {
            Recompute::None => in_flight * above(kept).sum::<u64>(),
            Recompute::Mlp => in_flight * above(of_attention).sum::<u64>() + most(of_mlp),
            // the input of every layer, and everything of one layer
            Recompute::Layer => {
                (in_flight * above(kept).count() as u64 + 1) * h + most(kept).saturating_sub(h)
            }
        };
        let top = own.end.checked_sub(1).and_then(|top| layers.each.get(top));
        let during = tokens * backward(config, top) * element;
        let during = during + subject.codes(tokens);
        // the hidden states; those of labels, also normalised, and their gradient
        let head_weight = if layers.head {
            4 * config.vocab_size as u64 * h
        } else {
            0
        };
        let logits = overhead.logits.min(12 * targets * config.vocab_size as u64);
        let at_head = if share.is_last() {
            (tokens + 3 * targets) * h * element + logits + head_weight
        } else {
            0
        };
        let of_starts = layers.starts * own.len() / config.num_hidden_layers.max(1);
        let starts = 4 * of_starts as u64;
        // a branch and its start side by side
        let factors = above(|_, layer, _| layer.factors as u64);
        let factors = match recompute {
            Recompute::Layer => factors.max().unwrap_or(0),
            Recompute::None | Recompute::Mlp => factors.sum(),
        };
        let activations = (tokens * elements + factors + 2 * of_starts as u64) * element;
        let scores = if device.fused.contains(Operation::Attention) {
            0
        } else {
            SCORES * 4 * config.num_attention_heads as u64 * (load.longest as u64).pow(2)
        };
        let workspace = (during + scores).max(at_head);
        let gaps = ((activations + workspace) as f64 * overhead.fragmentation) as u64;
        // full fine-tuning adds one micro-batch after another
        let sums = if layers.whole {
            1
        } else {
            most_held(micro_batches)
        };
        let (weights, mapped) = subject.weights(share, offload);
        let [trained, gradients, optimizer] = of_trained(subject.trained, share, sums);
        Parts {
            weights: weights + starts,
            mapped,
            trained,
            gradients,
            optimizer,
            activations,
            workspace: workspace + gaps,
            program: subject.program(share),
        }
    }

    /// The parts of several devices together.
    pub(super) fn sum(all: &[Self]) -> Self {
        let of = |part: fn(&Self) -> u64| all.iter().map(part).sum();
        Self {
            weights: of(|parts| parts.weights),
            mapped: of(|parts| parts.mapped),
            trained: of(|parts| parts.trained),
            gradients: of(|parts| parts.gradients),
            optimizer: of(|parts| parts.optimizer),
            activations: of(|parts| parts.activations),
            workspace: of(|parts| parts.workspace),
            program: of(|parts| parts.program),
        }
    }

    /// The peak: the most memory at one time, in bytes.
    pub fn peak(&self) -> u64 {
        self.weights + self.needed_beside()
    }

    /// The peak without the mapped weights, which the system can drop, in bytes.
    pub fn needed(&self) -> u64 {
        self.peak() - self.mapped
    }

    fn needed_beside(&self) -> u64 {
        self.trained
            + self.gradients
            + self.optimizer
            + self.activations
            + self.workspace
            + self.program
    }

    /// Name, bytes and description of each part.
    pub(super) fn lines(
        &self,
        load: &Load,
        recompute: Recompute,
        offload: Option<Offload>,
        compute: Compute,
        trained: usize,
    ) -> [(&'static str, u64, String); 7] {
        let mapped = if compute == Compute::Fp8 {
            "frozen; those of linear modules in e4m3, one copy for each direction"
        } else if offload.is_some() {
            "frozen; two layers, embedding and head at a time"
        } else if self.mapped > 0 {
            "frozen, mapped from their files"
        } else {
            "frozen"
        };
        let layers = match recompute {
            Recompute::None => "all layers",
            Recompute::Mlp => "attention of all layers, MLP of one",
            Recompute::Layer => "inputs of all layers, all of one",
        };
        [
            ("weights", self.weights, mapped.to_owned()),
            (
                "trainable",
                self.trained,
                format!("{} parameters in f32", grouped(trained as u64)),
            ),
            (
                "gradients",
                self.gradients,
                "summed over micro-batches".to_owned(),
            ),
            (
                "optimizer",
                self.optimizer,
                "AdamW's two moments".to_owned(),
            ),
            (
                "activations",
                self.activations,
                format!(
                    "{} {} per pass, {layers}",
                    grouped(load.tokens as u64),
                    plural(load.tokens, "token")
                ),
            ),
            (
                "workspace",
                self.workspace,
                "temporary buffers, fragmentation".to_owned(),
            ),
            (
                "program",
                self.program,
                "code, threads, tokenizer, data".to_owned(),
            ),
        ]
    }
}

/// Bytes of the trained parameters on a device, of their gradients with so many sums at a time, and of the optimizer. If several
/// devices share the layers, the first has the buffers of all parameters, and each has a copy of its own and their sums.
fn of_trained(all: usize, share: &Share, sums: usize) -> [u64; 3] {
    let all = 4 * all as u64;
    if share.places == 1 {
        return [all, all * sums as u64, 2 * all];
    }
    let own = 4 * share.trained as u64;
    let buffer = if share.is_first() { all } else { 0 };
    [own + buffer, own * sums as u64 + buffer, 2 * buffer]
}

impl Subject<'_> {
    /// Bytes of the widest activation while it is quantised for products in fp8.
    fn codes(&self, tokens: u64) -> u64 {
        match self.base.compute() {
            Compute::F32 | Compute::Bf16 => 0,
            Compute::Fp8 => tokens * self.base.config.intermediate_size as u64 * QUANTISED,
        }
    }

    /// The program with the data; on a GPU, its context. Several devices that are the processor have one program.
    fn program(&self, share: &Share) -> u64 {
        let program = share.device.overhead.program;
        if !share.device.memory.is_main() {
            return program;
        }
        if !share.is_first() {
            return 0;
        }
        let vocabulary = VOCABULARY_ENTRY * self.vocabulary as u64;
        program + EXAMPLE_TOKEN * self.data as u64 + vocabulary
    }

    /// Bytes of the frozen weights, and of the part that stays mapped.
    fn weights(&self, share: &Share, offload: Option<Offload>) -> (u64, u64) {
        if matches!(self.recipe.method, Method::Full(_)) {
            return (0, 0); // all of them are trained
        }
        if offload.is_some() {
            let kept = match offload {
                Some(Offload::Host) if share.device.memory.is_main() => self.base.bytes_in_host(),
                _ => 0,
            };
            return (kept + self.base.bytes_at_a_time(), 0); // the run needs them at the same time
        }
        let [bytes, mapped] = share.weights;
        let stays = share.device.memory.is_main();
        (bytes, if stays { mapped } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/goldens/untied-mha"
        );
        ModelConfig::from_folder(path.as_ref()).unwrap()
    }

    fn layer(reads: &[Activation], any: bool) -> TrainedLayer {
        TrainedLayer {
            reads: reads.iter().copied().collect(),
            any,
            ..TrainedLayer::default()
        }
    }

    #[test]
    fn a_frozen_layer_below_all_that_is_trained_keeps_nothing() {
        assert_eq!(kept(&config(), &layer(&[], false), false), 0);
    }

    #[test]
    fn every_low_rank_branch_keeps_its_input() {
        let config = config();
        let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
        let none = kept(&config, &layer(&[], true), true);
        let with = |activation| kept(&config, &layer(&[activation], true), true) - none;
        assert_eq!(with(Activation::AttentionInput), h);
        // the result of attention is kept anyway
        assert_eq!(with(Activation::AttentionValues), 0);
        assert_eq!(with(Activation::MlpInput), h);
        assert_eq!(with(Activation::Gated), i);
    }

    /// Counted by hand from the operations of a layer of LLaMA: norm, attention, norm, gated MLP.
    #[test]
    fn a_layer_keeps_what_its_operations_need() {
        let config = config();
        let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
        let heads = config.num_attention_heads as u64;
        let queries = heads * config.head_dim as u64;
        let keys = (config.num_key_value_heads * config.head_dim) as u64;
        // two norms, attention's q, y, k, v and log-sum-exp, gate and up
        let frozen = 2 * h + 2 * queries + 2 * keys + heads + 2 * i;
        assert_eq!(kept(&config, &layer(&[], false), true), frozen);
        // the lowest trained layer: its input needs no gradient
        let lowest = |activation| kept(&config, &layer(&[activation], true), false);
        assert_eq!(lowest(Activation::AttentionInput), frozen);
        assert_eq!(lowest(Activation::AttentionValues), queries + h + 2 * i);
        assert_eq!(lowest(Activation::Gated), h + 3 * i);
        let all = Layers::all(&config);
        assert_eq!(kept(&config, &all.each[0], true), frozen + 2 * h + i);
    }
}
