//! A decoder layer of any family: which modules it has, and where, is in the table of the family.
//!
//! With normalisations N₁ to N₄, of which a family has some, and the factor m of what a layer adds:
//! `x += m · N₂(attention(N₁(x)))`, `x += m · N₄(mlp(N₃(x)))`. LLaMA and most others have N₁ and N₃, OLMo 2 has N₂ and N₄,
//! Gemma 2 and 3 have all four.
//!
//! Source: Touvron et al. 2023, section 2.2; transformers, the `modeling_*.py` of each family.
//!
//! Axes: T tokens of all rows (queries: those whose results are needed), S keys, N query heads, K key heads, D head_dim,
//! H hidden size, I intermediate size.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use simmer_checkpoint::config::{ModelConfig, Positions};
use simmer_checkpoint::family::{GatedBy, Role};
use simmer_kernels::{Activation, Rows, Scores, StepInputs, attention, gated, residual, rope};

use crate::adapter::kind::{BesideAttention, BesideLinear};
use crate::cache::KvCache;
use crate::layer::{Linear, RmsNorm};
use crate::rotary::Rotary;
use crate::sequence::ids;

/// One decoder layer. A family has the normalisations that are in its table.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Normalisation before attention.
    pub input_layernorm: Option<RmsNorm>,
    /// Attention.
    pub self_attn: SelfAttention,
    /// Normalisation before the MLP; in families with `post_feedforward_layernorm`, of the output of attention.
    pub post_attention_layernorm: RmsNorm,
    /// Normalisation before the MLP in families that also normalise the output of attention.
    pub pre_feedforward_layernorm: Option<RmsNorm>,
    /// Normalisation of the output of the MLP.
    pub post_feedforward_layernorm: Option<RmsNorm>,
    /// The MLP.
    pub mlp: Mlp,
    #[module(skip)]
    pub(crate) place: Place,
}

/// What a layer's place in the model decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) positions: Positions,
    /// The number of keys that a query sees.
    pub(crate) window: Option<usize>,
}

/// Causal attention with rotary positions and grouped heads. Queries, keys and values are three matrices or one.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Queries, `[N·D, H]`.
    pub q_proj: Option<Linear>,
    /// Keys, `[K·D, H]`.
    pub k_proj: Option<Linear>,
    /// Values, `[K·D, H]`.
    pub v_proj: Option<Linear>,
    /// Queries, keys and values, `[(N + 2K)·D, H]`.
    pub qkv_proj: Option<Linear>,
    /// Output, `[H, N·D]`.
    pub o_proj: Linear,
    /// Normalisation of queries, over `[D]` or `[N·D]`.
    pub q_norm: Option<RmsNorm>,
    /// Normalisation of keys, over `[D]` or `[K·D]`.
    pub k_norm: Option<RmsNorm>,
    /// What is trained beside the projections.
    pub adapter: Option<BesideAttention>,
}

/// The gated MLP. Gate and gated features are two matrices or one.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Gate, `[I, H]`.
    pub gate_proj: Option<Linear>,
    /// Gated features, `[I, H]`.
    pub up_proj: Option<Linear>,
    /// Gate and gated features, `[2I, H]`.
    pub gate_up_proj: Option<Linear>,
    /// Output, `[H, I]`.
    pub down_proj: Linear,
}

/// What all layers of a forward pass share.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    /// The frequencies of the model, and those of layers with a window.
    pub(crate) rotary: [Option<Rotary>; 2],
    pub(crate) rows: &'a Rows,
    pub(crate) dropout_keys: Option<&'a Arc<[u64]>>,
    /// If each token is the newest of a text that is decoded in steps.
    pub(crate) step: Option<&'a StepInputs>,
    /// The tokens whose results are needed of a layer, if not all are.
    pub(crate) needed: Option<Needed>,
}

/// Some tokens of a sequence, as queries; the others are only keys.
pub(crate) struct Needed {
    /// Their places, `[N]`.
    places: Tensor<1, Int>,
    rows: Rows,
    rotary: [Option<Rotary>; 2],
}

impl Needed {
    /// The tokens at these ascending places.
    pub(crate) fn new(places: &[u32], pass: &Pass<'_>, device: &Device) -> Self {
        let rows = pass.rows.at(places);
        let places = ids(places.iter().copied(), device);
        let rotary = pass.rotary.each_ref().map(|rotary| {
            let rotary = rotary.as_ref();
            rotary.map(|rotary| rotary.at(places.clone()))
        });
        Self {
            places,
            rows,
            rotary,
        }
    }
}

fn of_kind(rotary: &[Option<Rotary>; 2], positions: Positions) -> Option<&Rotary> {
    let [global, local] = rotary;
    match positions {
        Positions::None => None,
        Positions::Global => global.as_ref(),
        Positions::Local => local.as_ref(),
    }
}

impl Pass<'_> {
    /// The same without automatic differentiation.
    pub(crate) fn valid(&self) -> Self {
        Self {
            rotary: self
                .rotary
                .each_ref()
                .map(|rotary| rotary.as_ref().map(Rotary::valid)),
            needed: None,
            ..*self
        }
    }

    /// The part of `x` that is needed, `[N, H]` of `[T, H]`.
    fn needed_of(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.needed {
            Some(needed) => x.select(0, needed.places.clone()),
            None => x,
        }
    }
}

impl DecoderLayer {
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let x = self.attention_half(x, pass, cache);
        self.mlp_half(x, pass)
    }

    pub(crate) fn attention_half(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let normed = self.normed(Role::AttentionNorm, x.clone(), pass);
        let y = self.self_attn.forward(normed, self.place, pass, cache);
        let x = pass.needed_of(x);
        added(x, self.normed(Role::AttentionOutputNorm, y, pass), pass)
    }

    pub(crate) fn mlp_half(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let normed = self.normed(Role::MlpNorm, x.clone(), pass);
        let y = self.mlp.forward(normed, pass);
        added(x, self.normed(Role::MlpOutputNorm, y, pass), pass)
    }

    /// The normalised `x`; `x` itself if the family has no such normalisation.
    fn normed(&self, role: Role, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let module = pass.config.family.in_layer(role);
        match module.and_then(|module| self.norm(module.last_part())) {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    fn norm(&self, name: &str) -> Option<&RmsNorm> {
        match name {
            "input_layernorm" => self.input_layernorm.as_ref(),
            "post_attention_layernorm" => Some(&self.post_attention_layernorm),
            "pre_feedforward_layernorm" => self.pre_feedforward_layernorm.as_ref(),
            "post_feedforward_layernorm" => self.post_feedforward_layernorm.as_ref(),
            _ => None,
        }
    }

    /// The normalisation with a name.
    pub(crate) fn norm_mut(&mut self, name: &str) -> Option<&mut RmsNorm> {
        match name {
            "input_layernorm" => self.input_layernorm.as_mut(),
            "post_attention_layernorm" => Some(&mut self.post_attention_layernorm),
            "pre_feedforward_layernorm" => self.pre_feedforward_layernorm.as_mut(),
            "post_feedforward_layernorm" => self.post_feedforward_layernorm.as_mut(),
            _ => None,
        }
    }

    /// The adapters of the layer.
    /// Its linear layers.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let SelfAttention {
            q_proj,
            k_proj,
            v_proj,
            qkv_proj,
            o_proj,
            ..
        } = &self.self_attn;
        let Mlp {
            gate_proj,
            up_proj,
            gate_up_proj,
            down_proj,
        } = &self.mlp;
        let perhaps = [
            q_proj,
            k_proj,
            v_proj,
            qkv_proj,
            gate_proj,
            up_proj,
            gate_up_proj,
        ];
        perhaps.into_iter().flatten().chain([o_proj, down_proj])
    }

    pub(crate) fn adapters(&self) -> impl Iterator<Item = &BesideLinear> {
        self.linears().filter_map(|linear| linear.adapter.as_ref())
    }
}

/// What a layer received, and what it adds.
fn added(x: Tensor<2>, y: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
    match pass.config.residual_multiplier {
        1.0 => residual(x, y),
        factor => residual(x, y * factor),
    }
}

impl SelfAttention {
    fn forward(
        &self,
        x: Tensor<2>,
        place: Place,
        pass: &Pass<'_>,
        mut cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let config = pass.config;
        let dim = config.head_dim;
        let [q, k, v] = self.projected_as_needed(x, pass);
        let [t, _] = q.dims();
        let heads = |x: Tensor<2>, heads: usize| {
            let [t, _] = x.dims();
            x.reshape([t, heads, dim]) // [T, heads, D]
        };
        let normed = |norm: &Option<RmsNorm>, x: Tensor<2>| match norm {
            Some(norm) => norm.forward_by_head(x),
            None => x,
        };
        let rotary = of_kind(&pass.rotary, place.positions);
        let of_queries = pass
            .needed
            .as_ref()
            .map_or(rotary, |needed| of_kind(&needed.rotary, place.positions));
        // a step rotates queries and keys itself, unless an adapter reads the rotated queries
        let of_step = pass.step.filter(|_| self.adapter.is_none()).and(rotary);
        let rotate = |x, rotary: Option<&Rotary>| match rotary.xor(of_step) {
            Some(rotary) => rope(x, rotary.cos.clone(), rotary.sin.clone()),
            None => x,
        };
        let q = heads(normed(&self.q_norm, q), config.num_attention_heads);
        let q = rotate(q, of_queries); // [T, N, D]
        let k = heads(normed(&self.k_norm, k), config.num_key_value_heads);
        let k = rotate(k, rotary); // [T, K, D]
        let v = heads(v, config.num_key_value_heads); // [T, K, D]
        let added = self.adapter.as_ref().map(|adapter| {
            let project = || self.of_prompts(adapter, pass);
            let prompts = match &mut cache {
                None => project(),
                Some((cache, layer)) => cache.prompts(*layer, project),
            };
            adapter.added(q.clone(), prompts, config.attention_scale()) // [T, N·D]
        });
        let scores = Scores {
            scale: config.attention_scale(),
            window: place.window,
            soft_cap: config.attn_logit_softcapping,
        };
        let rows = pass
            .needed
            .as_ref()
            .map_or(pass.rows, |needed| &needed.rows);
        let mixed = match (cache, pass.step) {
            (None, _) => attention(q, k, v, rows, scores),
            (Some((cache, layer)), None) => {
                let [k, v] = cache.extend(layer, k, v); // [S, K, D]
                attention(q, k, v, rows, scores)
            }
            (Some((cache, layer)), Some(step)) => {
                let rotary = of_step.map(|rotary| [rotary.cos.clone(), rotary.sin.clone()]);
                step.attend([q, k, v], rotary, cache.layer(layer), scores)
            }
        }; // [T, N, D]
        let mixed = mixed.reshape([t, config.num_attention_heads * dim]);
        let Some((adapter, added)) = self.adapter.as_ref().zip(added) else {
            return self.o_proj.forward(mixed, pass.dropout_keys);
        };
        let y = self
            .o_proj
            .forward(residual(mixed, added), pass.dropout_keys);
        match &self.o_proj.bias {
            Some(bias) if adapter.adds_output_bias() => {
                let bias = bias.val().cast(y.dtype());
                y + bias.unsqueeze::<2>()
            }
            _ => y,
        }
    }

    /// Keys and values of an adapter's prompts, without positions, `[P, K, D]` each.
    fn of_prompts(&self, adapter: &BesideAttention, pass: &Pass<'_>) -> [Tensor<3>; 2] {
        let prompts = adapter.prompts(); // [P, H]
        let [count, _] = prompts.dims();
        let shape = [count, pass.config.num_key_value_heads, pass.config.head_dim];
        let [_, k, v] = self.projected(prompts, pass);
        [k, v].map(|of| of.reshape(shape))
    }

    /// Queries of the tokens that are needed, keys and values of all.
    fn projected_as_needed(&self, x: Tensor<2>, pass: &Pass<'_>) -> [Tensor<2>; 3] {
        if pass.needed.is_none() {
            return self.projected(x, pass);
        }
        if let [Some(q), Some(k), Some(v)] = [&self.q_proj, &self.k_proj, &self.v_proj] {
            let q = q.forward(pass.needed_of(x.clone()), pass.dropout_keys);
            let [k, v] = Linear::forward_together([k, v], x, pass.dropout_keys);
            return [q, k, v];
        }
        let [q, k, v] = self.projected(x, pass);
        [pass.needed_of(q), k, v]
    }

    /// Queries `[T, N·D]`, keys and values `[T, K·D]`.
    fn projected(&self, x: Tensor<2>, pass: &Pass<'_>) -> [Tensor<2>; 3] {
        let config = pass.config;
        if let [Some(q), Some(k), Some(v)] = [&self.q_proj, &self.k_proj, &self.v_proj] {
            return Linear::forward_together([q, k, v], x, pass.dropout_keys);
        }
        let Some(all) = &self.qkv_proj else {
            unreachable!("built with three matrices or one");
        };
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let all = all.forward(x, pass.dropout_keys); // [T, (N + 2K)·D]
        [
            all.clone().narrow(1, 0, queries),
            all.clone().narrow(1, queries, keys),
            all.narrow(1, queries + keys, keys),
        ]
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let [gate, up] = self.projected(x, pass);
        let activation = match pass.config.family.gated_by {
            GatedBy::Silu => Activation::Silu,
            GatedBy::GeluTanh => Activation::GeluTanh,
        };
        self.down_proj
            .forward(gated(activation, gate, up), pass.dropout_keys)
    }

    /// Gate and gated features, `[T, I]`.
    fn projected(&self, x: Tensor<2>, pass: &Pass<'_>) -> [Tensor<2>; 2] {
        if let [Some(gate), Some(up)] = [&self.gate_proj, &self.up_proj] {
            return Linear::forward_together([gate, up], x, pass.dropout_keys);
        }
        let Some(both) = &self.gate_up_proj else {
            unreachable!("built with two matrices or one");
        };
        let size = pass.config.intermediate_size;
        let both = both.forward(x, pass.dropout_keys); // [T, 2I]
        [both.clone().narrow(1, 0, size), both.narrow(1, size, size)]
    }
}
