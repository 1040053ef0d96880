//! The trainable tensors of a model, by name.
//!
//! To the optimizer, checkpoints and adapters a model is a map from names to flat vectors. Names are
//! those of Hugging Face and PEFT: `model.layers.0.self_attn.q_proj.lora_A.weight`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use crate::adapter::kind::{self, dora::LOW_RANK};
use crate::weight::DENSE;

/// Flat f32 tensors by name, without automatic differentiation.
pub type Parameters = BTreeMap<String, Tensor<1>>;

/// The values of all trainable tensors of a module.
pub(crate) fn values_of(module: &impl Module) -> Parameters {
    let mut found = Values::default();
    module.visit(&mut found);
    found.found
}

/// The shapes of all trainable tensors of a module.
pub(crate) fn shapes_of(module: &impl Module) -> BTreeMap<String, Vec<usize>> {
    Shapes::of(module).found.into_iter().collect()
}

/// A module with new values for its trainable tensors.
///
/// # Panics
/// If a trainable tensor has no value, or a value of another size.
pub(crate) fn with_values<M: Module>(module: M, values: &Parameters) -> M {
    module.map(&mut Replace {
        path: ModulePath::default(),
        values,
    })
}

/// A module with every weight in f32 and trainable.
pub(crate) fn all_trained<M: Module>(module: M) -> M {
    module.map(&mut TrainAll)
}

/// Whether any tensor of a module is trainable.
pub(crate) fn is_trained(module: &impl Module) -> bool {
    !shapes_of(module).is_empty()
}

/// A trainable parameter: a leaf in f32 that records gradients.
pub(crate) fn trained<const D: usize>(value: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(value.cast(DType::F32))
}

/// The module path of the parameter being visited.
#[derive(Debug, Default)]
pub(crate) struct ModulePath(Vec<String>);

impl ModulePath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        if !is_variant(container) {
            self.0.push(name.to_owned());
        }
    }

    pub(crate) fn exit(&mut self, container: &str) {
        if !is_variant(container) {
            self.0.pop();
        }
    }

    /// The tensor's key. Here an adapter is a field of the linear layer, one of several kinds; in PEFT its tensors are
    /// parameters of the layer, or modules of their own. A weight is a struct here, and a tensor there.
    pub(crate) fn key(&self) -> String {
        let parts: Vec<&str> = self
            .0
            .iter()
            .map(String::as_str)
            .filter(|part| !["adapter", LOW_RANK, DENSE].contains(part))
            .collect();
        if let Some((field, module)) = parts.split_last()
            && let Some(end) = kind::end_of(field)
        {
            return module.join(".") + end;
        }
        parts.join(".")
    }
}

/// Whether a container is an enum, so that the name of what it contains is that of a variant.
fn is_variant(container: &str) -> bool {
    container.starts_with("Enum:")
}

#[derive(Default)]
struct Values {
    path: ModulePath,
    found: Parameters,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if value.is_require_grad() {
            let flat = value.inner();
            let size = flat.shape().num_elements();
            self.found.insert(self.path.key(), flat.reshape([size]));
        }
    }
}

/// The trainable tensors of a module.
#[derive(Default)]
pub(crate) struct Shapes {
    path: ModulePath,
    /// Their names and shapes, in the order in which the module tree is visited.
    pub(crate) found: Vec<(String, Vec<usize>)>,
    /// Whether the module has tensors that are not trainable.
    pub(crate) has_frozen: bool,
}

impl Shapes {
    pub(crate) fn of(module: &impl Module) -> Self {
        let mut shapes = Self::default();
        module.visit(&mut shapes);
        shapes
    }
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            let shape = param.val().dims().to_vec();
            self.found.push((self.path.key(), shape));
        } else {
            self.has_frozen = true;
        }
    }
}

struct Replace<'a> {
    path: ModulePath,
    values: &'a Parameters,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let old = param.val();
        if !old.is_require_grad() {
            return param;
        }
        let key = self.path.key();
        let Some(new) = self.values.get(&key) else {
            panic!("no value for the trainable tensor {key}");
        };
        trained(Tensor::from_inner(new.clone().reshape(old.dims())))
    }
}

struct TrainAll;

impl ModuleMapper for TrainAll {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        trained(Tensor::from_inner(param.val().inner()))
    }
}
