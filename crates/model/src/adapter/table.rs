//! The tables of a recipe that describe an adapter: `[method.lora]`, `[method.ia3]`.

use std::fmt;

use simmer_checkpoint::layout::ModuleLayout;

use super::AdapterError;
use super::attach::LoraConfig;
use super::config::AdapterConfig;
use super::continued::Continued;
use super::kind::Kind;
use super::targets::{Selection, SelectionError};

/// A table of a recipe that describes an adapter.
pub trait AdapterTable: fmt::Debug {
    /// The kind of adapter.
    fn kind(&self) -> &'static Kind;

    /// The same as PEFT's configuration.
    fn to_peft(&self, base_name: &str) -> AdapterConfig;

    /// The same for a model with these modules, whose vocabulary and tied weights decide which rows of tokens are trained.
    fn for_model(&self, base_name: &str, modules: &[ModuleLayout]) -> AdapterConfig {
        let _ = modules;
        self.to_peft(base_name)
    }

    /// Checks every setting, as far as that is possible without the base model.
    ///
    /// # Errors
    /// [`AdapterError::Setting`] for the first key with an invalid value.
    fn check(&self) -> Result<(), AdapterError>;

    /// The adapter to continue training, if there is one.
    fn continued(&self) -> Option<&Continued>;

    /// The same, to be located.
    fn continued_mut(&mut self) -> Option<&mut Continued>;

    /// The dropout probability of what the adapter reads.
    fn dropout(&self) -> f64 {
        0.0
    }

    /// The rank, if the kind has one.
    fn rank(&self) -> Option<usize> {
        None
    }

    /// Corrects the configuration of a new adapter once its modules are known, so that PEFT takes it.
    ///
    /// # Errors
    /// A pattern that cannot be matched.
    fn complete(
        &self,
        config: AdapterConfig,
        selection: &Selection,
    ) -> Result<AdapterConfig, SelectionError> {
        let _ = selection;
        Ok(config)
    }
}

impl AdapterTable for LoraConfig {
    fn kind(&self) -> &'static Kind {
        self.kind()
    }

    fn to_peft(&self, base_name: &str) -> AdapterConfig {
        self.to_peft(base_name)
    }

    fn for_model(&self, base_name: &str, modules: &[ModuleLayout]) -> AdapterConfig {
        self.for_model(base_name, modules)
    }

    fn check(&self) -> Result<(), AdapterError> {
        self.check()
    }

    fn continued(&self) -> Option<&Continued> {
        self.from.as_ref()
    }

    fn continued_mut(&mut self) -> Option<&mut Continued> {
        self.from.as_mut()
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn rank(&self) -> Option<usize> {
        Some(self.rank)
    }
}
