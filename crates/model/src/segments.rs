//! The tensors that are trained, as segments of one flat buffer.
//!
//! The optimizer, clipping and checkpoints see one vector of f32. The tensors of the model are cut from it. Names are
//! those of [`crate::Parameters`], and segments are in their order; names are needed on disk alone.
//!
//! If several devices share the layers of a model, the buffer is on the first. Each place then has a smaller buffer, of the
//! segments of its layers: a copy of their values, and their gradients, which are gathered once a step.
//!
//! Axes: N elements of the buffer, P places.

mod placed;

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};

use crate::adapter::kind;
use crate::llama::LlamaForCausalLM;
use crate::parameters::{Parameters, Shapes};
use crate::placement::on;

use placed::OfPlace;

/// A trained tensor in the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name, as in [`Parameters`].
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements in the buffer, row after row.
    pub range: Range<usize>,
    /// How an optimizer treats it.
    pub group: Group,
}

/// A group of tensors that an optimizer treats alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Matrices.
    Matrix,
    /// Biases and the weights of norms.
    Vector,
}

impl Group {
    /// The group of a tensor with this shape.
    pub fn of(shape: &[usize]) -> Self {
        match shape.len() {
            0 | 1 => Self::Vector,
            _ => Self::Matrix,
        }
    }
}

/// The segments of a model, in order of their names.
#[derive(Debug, Clone)]
pub struct Segments {
    all: Vec<Segment>,
    /// The segment of each trained tensor, in the order in which the module tree is visited.
    visited: Vec<usize>,
    /// The trained tensors that are visited before each decoder layer.
    before_layer: Vec<usize>,
    /// Whether the model has a tensor that is not trained.
    has_frozen: bool,
    /// The segments of each place, if there are several: `[P]`.
    places: Vec<OfPlace>,
}

/// Gradients of segments; `None` where the loss does not depend on one.
pub type SegmentGradients = Vec<Option<Tensor<1>>>;

/// Segments begin at multiples of this many elements, 32 bytes in 16 bits: a GPU's matrix multiplications are fastest with
/// aligned operands. Between segments there are zeros.
const ALIGNMENT: usize = 16;

impl Segments {
    /// The segments of a model's trained tensors.
    pub fn of(model: &LlamaForCausalLM) -> Self {
        let shapes = Shapes::of(model);
        let mut before = trained_tensors(&model.model.embed_tokens);
        let before_layer = model.model.layers.iter().map(|layer| {
            let here = before;
            before += trained_tensors(layer);
            here
        });
        Self {
            before_layer: before_layer.collect(),
            has_frozen: shapes.has_frozen,
            ..Self::of_shapes(&shapes.found)
        }
        .with_places(model)
    }

    /// The segments of tensors with these names and shapes, which no model has.
    pub fn of_shapes(shapes: &[(String, Vec<usize>)]) -> Self {
        let mut sorted: Vec<usize> = (0..shapes.len()).collect();
        sorted.sort_by(|a, b| shapes[*a].0.cmp(&shapes[*b].0));
        let mut visited = vec![0; sorted.len()];
        let mut all: Vec<Segment> = Vec::new();
        for place in sorted {
            visited[place] = all.len();
            let (name, shape) = shapes[place].clone();
            let start = all.last().map_or(0, |last| last.range.end);
            let start = start.next_multiple_of(ALIGNMENT);
            all.push(Segment {
                range: start..start + shape.iter().product::<usize>(),
                group: Group::of(&shape),
                name,
                shape,
            });
        }
        Self {
            all,
            visited,
            before_layer: Vec::new(),
            has_frozen: true,
            places: Vec::new(),
        }
    }

    /// The segments, in order.
    pub fn all(&self) -> &[Segment] {
        &self.all
    }

    /// N, the elements of all segments and between them.
    pub fn elements(&self) -> usize {
        self.all.last().map_or(0, |last| last.range.end)
    }

    /// Whether the whole model is trained, as in full fine-tuning.
    pub fn are_the_whole_model(&self) -> bool {
        !self.has_frozen
    }

    /// Shapes by name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let shapes = self.all.iter();
        shapes
            .map(|segment| (segment.name.clone(), segment.shape.clone()))
            .collect()
    }

    /// A buffer of tensors by name; zeros for those that are missing.
    ///
    /// # Shapes
    /// Result: `[N]`.
    pub fn flat(&self, tensors: &Parameters, device: &Device) -> Tensor<1> {
        let all = self.all.iter();
        let here = |tensor: &Tensor<1>| on(tensor.clone(), device);
        self.joined(
            all.map(|of| tensors.get(&of.name).map(here)).collect(),
            device,
        )
    }

    /// A buffer of tensors, one for each segment; zeros for those that are missing.
    ///
    /// # Shapes
    /// Result: `[N]`.
    pub fn joined(&self, tensors: SegmentGradients, device: &Device) -> Tensor<1> {
        let mut all: Vec<Tensor<1>> = Vec::new();
        let mut end = 0;
        for (segment, tensor) in self.all.iter().zip(tensors) {
            let gap = segment.range.start - end;
            if gap > 0 {
                all.push(Tensor::zeros([gap], device));
            }
            end = segment.range.end;
            all.push(tensor.unwrap_or_else(|| Tensor::zeros([segment.range.len()], device)));
        }
        if all.is_empty() {
            return Tensor::zeros([0], device);
        }
        Tensor::cat(all, 0)
    }

    /// The tensors in a buffer by name, without copies where the device allows.
    ///
    /// # Shapes
    /// `flat`: `[N]`.
    pub fn named(&self, flat: &Tensor<1>) -> Parameters {
        let named = self.all.iter().map(|segment| {
            let value = flat.clone().slice(segment.range.clone());
            (segment.name.clone(), value)
        });
        named.collect()
    }

    /// Names the gradients.
    pub fn named_gradients(&self, gradients: SegmentGradients) -> Parameters {
        let all = self.all.iter().zip(gradients);
        all.filter_map(|(segment, gradient)| Some((segment.name.clone(), gradient?)))
            .collect()
    }

    /// A buffer with the trained tensors of a model.
    ///
    /// # Shapes
    /// Result: `[N]`, without automatic differentiation.
    pub fn values(&self, model: &LlamaForCausalLM) -> Tensor<1> {
        let device = model.device().without_autodiff();
        self.flat(&model.trainable(), &device)
    }

    /// The model with its trained tensors cut from a buffer, without copies where the device allows. If there is a copy
    /// of the buffer in 16 bits, the low-rank branches of linear modules are cut from that.
    ///
    /// # Shapes
    /// `flat`, `half`: `[N]`.
    #[must_use]
    pub fn cut(
        &self,
        model: LlamaForCausalLM,
        flat: &Tensor<1>,
        half: Option<&Tensor<1>>,
    ) -> LlamaForCausalLM {
        let half = half.map(|half| self.spread(half));
        model.map(&mut Cut {
            segments: self,
            flat: self.spread(flat),
            half,
            next: 0,
        })
    }

    /// Takes the gradients of all trained tensors of the model.
    pub(crate) fn take_all(
        &self,
        model: &LlamaForCausalLM,
        from: &mut Gradients,
    ) -> SegmentGradients {
        let mut found = vec![None; self.all.len()];
        self.take(model, 0, from, &mut found);
        found
    }

    /// Adds the gradients of a decoder layer's trained tensors.
    pub(crate) fn take_layer(
        &self,
        layer: &impl Module,
        index: usize,
        from: &mut Gradients,
        found: &mut SegmentGradients,
    ) {
        self.take(layer, self.before_layer[index], from, found);
    }

    /// Adds the gradients of a module's trained tensors, before which `next` others are visited.
    pub(crate) fn take(
        &self,
        module: &impl Module,
        next: usize,
        from: &mut Gradients,
        found: &mut SegmentGradients,
    ) {
        module.visit(&mut Take {
            segments: self,
            next,
            from,
            found,
        });
    }
}

impl Segment {
    /// Whether its tensor is a factor beside a linear module of a decoder layer: computed with in the dtype of the
    /// activations.
    fn is_factor_in_layer(&self) -> bool {
        let is_factor = kind::split(&self.name).is_some_and(|(_, tensor)| tensor.is_factor);
        is_factor && !self.name.starts_with("lm_head.")
    }
}

/// The number of trained tensors of a module.
fn trained_tensors(module: &impl Module) -> usize {
    struct Count(usize);

    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 += usize::from(param.is_require_grad());
        }
    }

    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

struct Take<'a> {
    segments: &'a Segments,
    next: usize,
    from: &'a mut Gradients,
    found: &'a mut SegmentGradients,
}

impl ModuleVisitor for Take<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor: &Tensor<D> = param;
        if !tensor.is_require_grad() {
            return;
        }
        let segment = self.segments.visited[self.next];
        self.next += 1;
        if let Some(gradient) = tensor.grad_remove(self.from) {
            let size = self.segments.all[segment].range.len();
            let gradient = gradient.reshape([size]);
            let slot = &mut self.found[segment];
            *slot = Some(match slot.take() {
                Some(sum) => sum + gradient,
                None => gradient,
            });
        }
    }
}

struct Cut<'a> {
    segments: &'a Segments,
    /// The buffer; if there are several places, that of each.
    flat: Vec<Tensor<1>>,
    half: Option<Vec<Tensor<1>>>,
    next: usize,
}

impl ModuleMapper for Cut<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let old: &Tensor<D> = &param;
        if !old.is_require_grad() {
            return param;
        }
        let number = self.segments.visited[self.next];
        self.next += 1;
        let (place, segment) = self.segments.in_place(number);
        let half = self.half.as_ref();
        let from = half.filter(|_| segment.is_factor_in_layer());
        let from = from.unwrap_or(&self.flat)[place].clone();
        let value = from.slice(segment.range.clone()).reshape(old.dims());
        Param::initialized(param.id, Tensor::from_inner(value).require_grad())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use simmer_checkpoint::ModelConfig;

    use super::*;
    use crate::adapter::targets::Targets;
    use crate::adapter::{LoraConfig, Starts, attach};
    use crate::base::{BaseConfig, load};
    use crate::{Recompute, Sequence, Target};

    /// A random model with an adapter. With more than ten layers, names are in another order than layers.
    fn tuned() -> LlamaForCausalLM {
        let json = json!({
            "model_type": "llama", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 10,
            "num_hidden_layers": 12, "num_attention_heads": 2, "tie_word_embeddings": false
        });
        let mut base = BaseConfig::default();
        base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
        let model = load(&base, 7, &Device::flex()).unwrap();
        let mut lora = LoraConfig::default();
        lora.rank = 3;
        lora.targets = Targets::Regex(r".*(q_proj|down_proj|lm_head)".to_owned());
        attach(model, &lora, 3, "base", Starts::OfWeights)
            .unwrap()
            .model
    }

    fn all_bits(parameters: Parameters) -> Vec<(String, Vec<u32>)> {
        let bits = |of: Tensor<1>| of.into_data().iter::<f32>().map(f32::to_bits).collect();
        let parameters = parameters.into_iter();
        parameters.map(|(name, of)| (name, bits(of))).collect()
    }

    #[test]
    fn a_model_cut_from_a_buffer_is_the_same_model() {
        let model = tuned();
        let segments = Segments::of(&model);
        let shapes = model.trainable_shapes();
        assert_eq!(segments.shapes(), shapes);
        assert!(segments.all().iter().is_sorted_by(|a, b| {
            a.name < b.name
                && a.range.end <= b.range.start
                && b.range.start.is_multiple_of(ALIGNMENT)
        }));
        assert!(!segments.are_the_whole_model());
        let device = model.device();
        assert_eq!(
            segments.joined(vec![None; shapes.len()], &device).dims(),
            [segments.elements()]
        );

        // elements that tell where they are
        let places: Vec<f32> = (0..segments.elements())
            .map(|place| place as f32 * 1e-4)
            .collect();
        let flat = Tensor::from_data(places.as_slice(), &Device::flex());
        let values = segments.named(&flat);
        let cut = segments.cut(model.clone(), &flat, None);
        let put = model.with_trainable(&values);
        assert_eq!(all_bits(cut.trainable()), all_bits(put.trainable()));
        assert_eq!(
            all_bits(segments.named(&segments.values(&put))),
            all_bits(values)
        );

        let sequence = Sequence::from_rows(&[&[1, 5, 9, 13]]);
        let targets = Target::from_slots(&[Some(5), Some(9), Some(13), None]);
        let run = |model: &LlamaForCausalLM, recompute| {
            model
                .loss_and_gradients(&sequence, &targets, 0.5, recompute)
                .1
        };
        let expected = all_bits(run(&put, Recompute::None));
        assert_eq!(expected.len(), shapes.len());
        assert_eq!(all_bits(run(&cut, Recompute::None)), expected);
        for (name, again) in run(&cut, Recompute::Layer) {
            let expected = &run(&put, Recompute::None)[&name];
            // sums of a few terms in two orders
            let difference = (again - expected.clone()).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-5, "{name}: {difference}");
        }
    }
}
