//! The trainable tensors of a model, and what adapters started with, by name.
//!
//! To the optimizer, checkpoints and adapters a model is a map from names to flat vectors. Names are
//! those of Hugging Face and PEFT: `model.layers.0.self_attn.q_proj.lora_A.weight`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use crate::adapter::kind::{self, dora::LOW_RANK, pissa::START};
use crate::placement::on;
use crate::weight::DENSE;

/// Flat f32 tensors by name, without automatic differentiation.
pub type Parameters = BTreeMap<String, Tensor<1>>;

/// The values of all trainable tensors of a module.
pub(crate) fn values_of(module: &impl Module) -> Parameters {
    chosen(module, |_, is_trained| is_trained)
}

/// What adapters of a module started with: tensors that are not trained, but belong to a training checkpoint.
pub(crate) fn starts_of(module: &impl Module) -> Parameters {
    chosen(module, |path, _| path.is_start())
}

/// The tensors that are chosen by their path, and by whether they are trainable.
fn chosen(module: &impl Module, choose: fn(&ModulePath, bool) -> bool) -> Parameters {
    let mut values = Values {
        path: ModulePath::default(),
        choose,
        found: Parameters::new(),
    };
    module.visit(&mut values);
    values.found
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
        new: |path: &ModulePath, is_trained: bool| {
            is_trained.then(|| {
                let key = path.key();
                let Some(new) = values.get(&key) else {
                    panic!("no value for the trainable tensor {key}");
                };
                new
            })
        },
    })
}

/// A module with other starts; those without a value stay.
pub(crate) fn with_starts<M: Module>(module: M, values: &Parameters) -> M {
    module.map(&mut Replace {
        path: ModulePath::default(),
        new: |path: &ModulePath, _| path.is_start().then(|| values.get(&path.key())).flatten(),
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

    /// Whether the tensor is what an adapter started with.
    fn is_start(&self) -> bool {
        self.0.last().is_some_and(|field| START.contains(&&**field))
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

struct Values {
    path: ModulePath,
    choose: fn(&ModulePath, bool) -> bool,
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
        if (self.choose)(&self.path, value.is_require_grad()) {
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

/// Replaces the tensors that `new` has a value for, given their path and whether they are trainable.
struct Replace<F> {
    path: ModulePath,
    new: F,
}

impl<'a, F: Fn(&ModulePath, bool) -> Option<&'a Tensor<1>>> ModuleMapper for Replace<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let old = param.val();
        let is_trained = old.is_require_grad();
        let Some(new) = (self.new)(&self.path, is_trained) else {
            return param;
        };
        let new = on(new.clone(), &old.device().without_autodiff());
        let new = Tensor::from_inner(new.reshape(old.dims()));
        if is_trained {
            trained(new)
        } else {
            Param::initialized(param.id, new)
        }
    }
}

struct TrainAll;

impl ModuleMapper for TrainAll {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        trained(Tensor::from_inner(param.val().inner()))
    }
}
