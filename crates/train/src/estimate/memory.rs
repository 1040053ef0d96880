//! Memory by part.
//!
//! Axes: T tokens, P tokens to predict, H hidden size, I intermediate size, N query heads, K key heads, D head_dim,
//! V vocabulary, L layers.

use serde::Serialize;
use simmer_checkpoint::ModelConfig;
use simmer_model::Recompute;
use simmer_model::adapter::targets::Selection;

use super::Subject;
use super::load::Load;
use crate::recipe::Method;

/// What free memory between blocks adds to activations, as a part of them; libtorch's forms make copies besides.
const GAPS: f64 = 0.05;
const GAPS_OF_LIBTORCH: f64 = 0.4;
/// Not measured: what torch's allocator usually keeps beyond what is in use.
const GAPS_OF_GPU: f64 = 0.15;

/// The program, its libraries' tables and threads; libtorch is loaded where it is built in, and has threads of its own.
const PROGRAM: u64 = if cfg!(feature = "libtorch") {
    140 << 20
} else {
    36 << 20
};
const LIBTORCH: u64 = 60 << 20;
/// Memory of a tokenizer for each entry of its vocabulary.
const VOCABULARY_ENTRY: u64 = 700;
/// Memory of an example for each of its tokens: the id, and whether it is trained on.
const EXAMPLE_TOKEN: u64 = 8;

/// Logits that are there at a time, in bytes, on a processor and on a GPU (with what they become).
const LOGITS: u64 = 32 << 20;
const LOGITS_ON_GPU: u64 = 3 << 30;
/// What a CUDA context and its libraries take of a GPU.
const CONTEXT: u64 = 600 << 20;

/// Memory by part, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// Frozen weights.
    pub weights: u64,
    /// Those of them that stay in their files, from where the system reads them again where memory is short.
    pub mapped: u64,
    /// What is trained.
    pub trained: u64,
    /// Its gradients.
    pub gradients: u64,
    /// The optimizer's memories.
    pub optimizer: u64,
    /// What the layers keep for the backward pass.
    pub activations: u64,
    /// What operations use for themselves.
    pub workspace: u64,
    /// Everything else: the program, the tokenizer, the data; a GPU's context.
    pub program: u64,
}

/// Which linear modules of a layer keep their input for the gradient of what is trained in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each input")]
pub(super) struct Kept {
    pub(super) qkv: bool,
    pub(super) o: bool,
    pub(super) gate_up: bool,
    pub(super) down: bool,
    /// Whether only norms or biases of the layer are trained, or some of the above.
    pub(super) any: bool,
}

/// What is trained where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layers {
    /// Layer by layer, the lowest first.
    pub(super) each: Vec<Kept>,
    /// Whether the embedding is trained, so that gradients go down to it.
    pub(super) embedding: bool,
    /// Whether the head's weight is trained, or has a path.
    pub(super) head: bool,
    /// Whether every weight is trained.
    pub(super) whole: bool,
}

impl Layers {
    /// Every weight.
    pub(super) fn all(config: &ModelConfig) -> Layers {
        let all = Kept {
            qkv: true,
            o: true,
            gate_up: true,
            down: true,
            any: true,
        };
        Layers {
            each: vec![all; config.num_hidden_layers],
            embedding: true,
            head: true,
            whole: true,
        }
    }

    /// What an adapter changes.
    pub(super) fn of(selection: &Selection, config: &ModelConfig) -> Layers {
        let mut found = Layers {
            each: vec![Kept::default(); config.num_hidden_layers],
            embedding: false,
            head: false,
            whole: false,
        };
        let adapted = selection.adapted.iter().map(|module| (&module.name, true));
        let saved = selection.saved.iter().map(|module| (&module.name, true));
        let biases = selection.biases.iter().map(|(name, _)| (name, false));
        for (name, keeps) in adapted.chain(saved).chain(biases) {
            let mut parts = name.split('.');
            let layer = parts.find_map(|part| part.parse::<usize>().ok());
            let last = name.rsplit('.').next().unwrap_or_default();
            let Some(layer) = layer.and_then(|layer| found.each.get_mut(layer)) else {
                found.embedding |= last == "embed_tokens";
                found.head |= last == "lm_head";
                continue;
            };
            layer.any = true;
            match last {
                "q_proj" | "k_proj" | "v_proj" => layer.qkv |= keeps,
                "o_proj" => layer.o |= keeps,
                "gate_proj" | "up_proj" => layer.gate_up |= keeps,
                "down_proj" => layer.down |= keeps,
                _ => {}
            }
        }
        if config.tie_word_embeddings {
            (found.embedding, found.head) =
                (found.embedding | found.head, found.embedding | found.head);
        }
        found
    }

    /// The lowest layer whose result has a gradient, where there is one.
    pub(super) fn lowest(&self) -> Option<usize> {
        if self.embedding {
            return Some(0);
        }
        self.each.iter().position(|layer| layer.any)
    }
}

/// Numbers that a layer keeps, for each token. `below`: whether its input has a gradient.
fn kept(config: &ModelConfig, layer: Kept, below: bool) -> u64 {
    of_attention(config, layer, below) + of_mlp(config, layer, below)
}

/// Those of its first half, the result of which is the second's input.
fn of_attention(config: &ModelConfig, layer: Kept, below: bool) -> u64 {
    let h = config.hidden_size as u64;
    let heads = config.num_attention_heads as u64;
    let queries = heads * config.head_dim as u64;
    let keys = (config.num_key_value_heads * config.head_dim) as u64;
    let when = |condition: bool, numbers: u64| if condition { numbers } else { 0 };
    let attention = below || layer.qkv;
    when(below, h) // the input, for its norm
        + when(layer.qkv, h) // normalised
        + when(attention, 2 * queries + 2 * keys + heads) // q, y, k, v, log-sum-exp
        + when(layer.o && !attention, queries)
        + when(attention || layer.any, h) // the second norm's input
}

/// Those of its second half.
fn of_mlp(config: &ModelConfig, layer: Kept, below: bool) -> u64 {
    let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
    let when = |condition: bool, numbers: u64| if condition { numbers } else { 0 };
    when(below || layer.qkv || layer.any, 2 * i) // gate and up
        + when(layer.gate_up, h)
        + when(layer.down, i)
}

/// Numbers for each token that the backward pass of the uppermost layer needs besides: the gradients of its result, of
/// the gated features, of gate and up; the gated features themselves are no longer needed then.
fn backward(config: &ModelConfig, layer: Kept) -> u64 {
    let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
    h + 3 * i - if layer.down { i } else { 0 }
}

impl Parts {
    pub(super) fn of(
        subject: &Subject<'_>,
        load: &Load,
        recompute: Recompute,
        device: &str,
    ) -> Parts {
        let config = &subject.base.config;
        let gpu = device.contains("cuda");
        let element = subject.element();
        let (tokens, targets) = (load.tokens as u64, load.targets as u64);
        let h = config.hidden_size as u64;
        let layers = &subject.layers;
        let lowest = layers.lowest().unwrap_or(config.num_hidden_layers);
        let count = config.num_hidden_layers;
        let above = |of: fn(&ModelConfig, Kept, bool) -> u64| {
            (lowest..count).map(move |index| {
                let below = index > lowest || layers.embedding;
                of(config, layers.each[index], below)
            })
        };
        let most = |of| above(of).max().unwrap_or(0);
        let numbers = match recompute {
            Recompute::None => above(kept).sum::<u64>(),
            Recompute::Mlp => above(of_attention).sum::<u64>() + most(of_mlp),
            // the input of every layer; one layer's own
            Recompute::Layer => (above(kept).count() as u64 + 1) * h + most(kept).saturating_sub(h),
        };
        let top = layers.each.last().copied().unwrap_or_default();
        let during = tokens * backward(config, top) * element;
        // the hidden states, those to predict from, normalised, and their gradient
        let head_weight = if layers.head {
            4 * config.vocab_size as u64 * h
        } else {
            0
        };
        let logits = if gpu { LOGITS_ON_GPU } else { LOGITS };
        let logits = logits.min(12 * targets * config.vocab_size as u64);
        let at_head = (tokens + 3 * targets) * h * element + logits + head_weight;
        let activations = tokens * numbers * element;
        let workspace = during.max(at_head);
        let libtorch = device.starts_with("libtorch");
        let gaps = match (libtorch, gpu) {
            (false, _) => GAPS,
            (true, false) => GAPS_OF_LIBTORCH,
            (true, true) => GAPS_OF_GPU,
        };
        let gaps = ((activations + workspace) as f64 * gaps) as u64;
        let program = PROGRAM + if libtorch { LIBTORCH } else { 0 };
        let trained = 4 * subject.trained as u64;
        let (weights, mapped) = subject.weights(gpu);
        let data =
            EXAMPLE_TOKEN * subject.data as u64 + VOCABULARY_ENTRY * subject.vocabulary as u64;
        Parts {
            weights,
            mapped,
            trained,
            gradients: trained,
            optimizer: 2 * trained,
            activations,
            workspace: workspace + gaps,
            program: if gpu { CONTEXT } else { program + data },
        }
    }

    /// The most at one time.
    pub fn peak(&self) -> u64 {
        self.weights + self.needed_beside()
    }

    /// The peak without what the system can drop.
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

    /// The parts with their names, and what is in them.
    pub(super) fn lines(
        &self,
        load: &Load,
        recompute: Recompute,
    ) -> [(&'static str, u64, String); 7] {
        let mapped = if self.mapped > 0 {
            "frozen, in their files"
        } else {
            "frozen"
        };
        let layers = match recompute {
            Recompute::None => "of all layers",
            Recompute::Mlp => "of all attention, and of one MLP",
            Recompute::Layer => "of one layer, and the others' inputs",
        };
        [
            ("weights", self.weights, mapped.to_owned()),
            (
                "trained",
                self.trained,
                format!("{} numbers in f32", self.trained / 4),
            ),
            (
                "gradients",
                self.gradients,
                "summed over micro-batches".to_owned(),
            ),
            (
                "optimizer",
                self.optimizer,
                "AdamW's two memories".to_owned(),
            ),
            (
                "activations",
                self.activations,
                format!("{} tokens at a time, {layers}", load.tokens),
            ),
            (
                "workspace",
                self.workspace,
                "within operations, and gaps".to_owned(),
            ),
            (
                "program",
                self.program,
                "itself, tokenizer, data".to_owned(),
            ),
        ]
    }
}

impl Subject<'_> {
    /// Bytes of the frozen weights, and of those that stay mapped.
    fn weights(&self, gpu: bool) -> (u64, u64) {
        if matches!(self.recipe.method, Method::Full(_)) {
            return (0, 0); // all of them are trained
        }
        let [bytes, mapped] = self.base.bytes();
        if gpu { (bytes, 0) } else { (bytes, mapped) }
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

    #[test]
    fn a_frozen_layer_below_all_that_is_trained_keeps_nothing() {
        assert_eq!(kept(&config(), Kept::default(), false), 0);
    }

    #[test]
    fn every_path_keeps_its_input() {
        let config = config();
        let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
        let none = kept(
            &config,
            Kept {
                any: true,
                ..Kept::default()
            },
            true,
        );
        let with = |layer: Kept| kept(&config, Kept { any: true, ..layer }, true) - none;
        assert_eq!(
            with(Kept {
                qkv: true,
                ..Kept::default()
            }),
            h
        );
        assert_eq!(
            with(Kept {
                o: true,
                ..Kept::default()
            }),
            0
        );
        assert_eq!(
            with(Kept {
                gate_up: true,
                ..Kept::default()
            }),
            h
        );
        assert_eq!(
            with(Kept {
                down: true,
                ..Kept::default()
            }),
            i
        );
    }
}
