//! The tables of a recipe that describe an adapter: `[method.lora]`, `[method.ia3]`.

use std::fmt;
use std::path::{Path, PathBuf};

use simmer_checkpoint::layout::ModuleLayout;

use super::AdapterError;
use super::attach::LoraConfig;
use super::config::AdapterConfig;
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

    /// The adapter to continue training, as the recipe names it.
    fn from(&self) -> Option<&Path>;

    /// The local folder of the adapter to continue training, if there is one.
    fn found_from(&self) -> Option<&Path>;

    /// Sets the local path of the adapter to continue when it is a name on the hub.
    fn locate(&mut self, from: Option<PathBuf>);

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

    fn from(&self) -> Option<&Path> {
        self.from.as_deref()
    }

    fn found_from(&self) -> Option<&Path> {
        self.found_from()
    }

    fn locate(&mut self, from: Option<PathBuf>) {
        self.locate(from);
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn rank(&self) -> Option<usize> {
        Some(self.rank)
    }
}
