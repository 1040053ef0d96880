//! What adapters started with, by name: tensors that are not trained, but belong to a training checkpoint.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::adapter::kind::pissa::START;
use crate::parameters::{ModulePath, Parameters};

/// Whether a name is that of a start.
fn is_start(name: &str) -> bool {
    let field = name.rsplit('.').next();
    field.is_some_and(|field| START.contains(&field))
}

/// The starts of a module.
pub(crate) fn starts_of(module: &impl Module) -> Parameters {
    let mut found = Starts::default();
    module.visit(&mut found);
    found.found
}

/// A module with other starts; those without a value stay.
pub(crate) fn with_starts<M: Module>(module: M, values: &Parameters) -> M {
    module.map(&mut Replace {
        path: ModulePath::default(),
        values,
    })
}

#[derive(Default)]
struct Starts {
    path: ModulePath,
    found: Parameters,
}

impl ModuleVisitor for Starts {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let key = self.path.key();
        if is_start(&key) {
            let flat = param.val().inner();
            let size = flat.shape().num_elements();
            self.found.insert(key, flat.reshape([size]));
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
        let key = self.path.key();
        match self.values.get(&key) {
            Some(value) if is_start(&key) => {
                let value = value.clone().reshape(param.val().dims());
                Param::initialized(param.id, Tensor::from_inner(value))
            }
            _ => param,
        }
    }
}
