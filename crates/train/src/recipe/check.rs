//! What a recipe's values must satisfy together.

use std::path::Path;

use simmer_checkpoint::config::{ConfigError, ModelConfig};
use simmer_checkpoint::hub::HubName;
use simmer_data::{DataConfig, DataError, Template};
use simmer_hint::Hint;
use simmer_model::Recompute;
use simmer_model::adapter::{AdapterError, Init};
use simmer_model::base::{BaseConfig, Compute, Offload};

use super::{Method, Recipe};
use crate::config::Weights;
use simmer_recipe::Problem;

impl Recipe {
    /// Checks each value and their combinations.
    ///
    /// # Errors
    /// The first key whose value is not allowed.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_device()?;
        check_base(&self.base)?;
        if let Some(adapter) = self.method.adapter() {
            adapter.check().map_err(of_adapter_table)?;
        }
        self.check_offload()?;
        check_data(&self.data)?;
        self.train.check()?;
        if let Some(samples) = &self.samples {
            samples.check()?;
        }
        let needs_validation = |key: &str| {
            let why = "needs a validation set, but [data] has no `validation`";
            let hint = "set validation = { fraction = 0.05 } in [data]".to_owned();
            Err(Problem::new(key, why).with_hint(Some(hint)))
        };
        if self.data.validation.is_none() {
            if self.train.early_stop.is_some() {
                return needs_validation("train.early_stop");
            }
            if self.train.weights == Weights::Best {
                return needs_validation("train.weights");
            }
        }
        self.check_quantised()?;
        self.check_loraplus()?;
        self.check_stream()
    }

    fn check_device(&self) -> Result<(), Problem> {
        if let Err(error) = self.device.check() {
            let problem = Problem::new("device", error.to_string());
            return Err(problem.with_hint(error.hint()));
        }
        if let Method::Full(_) = self.method
            && self.device.are_several()
        {
            let count = self.device.names().len();
            let why = format!(
                "expected one device for `method.full`, which trains every weight there, found {count}"
            );
            let hint = "name one device, or train an adapter, [method.lora]";
            return Err(Problem::new("device", why).with_hint(Some(hint.to_owned())));
        }
        Ok(())
    }

    /// LoRA+ is about the factors of adapters.
    fn check_loraplus(&self) -> Result<(), Problem> {
        if self.train.loraplus_lr_ratio.is_none() || matches!(self.method, Method::Lora(_)) {
            return Ok(());
        }
        let why = "needs [method.lora]: no other method has factors A and B";
        let hint = "set train.learning_rates for rates by the names of weights";
        Err(Problem::new("train.loraplus_lr_ratio", why).with_hint(Some(hint.to_owned())))
    }

    /// Quantised weights are frozen.
    fn check_quantised(&self) -> Result<(), Problem> {
        let quantised = self
            .base
            .precision
            .filter(|precision| precision.is_quantised());
        match (quantised, &self.method) {
            (quantised, Method::Lora(lora)) if lora.init_lora_weights.is_of_error() => {
                self.check_start_at_error(lora.init_lora_weights, quantised.is_some())
            }
            (Some(precision), Method::Full(_)) => Err(full_on_quantised(precision.name())),
            (None, Method::Full(_)) if self.base.compute == Some(Compute::Fp8) => {
                let why = "\"fp8\" multiplies frozen weights, and [method.full] trains all of them";
                let hint = "set base.compute = \"bf16\", or train an adapter, [method.lora]";
                Err(Problem::new("base.compute", why).with_hint(Some(hint.to_owned())))
            }
            _ => Ok(()),
        }
    }

    /// The error of a quantisation is known while it is made; the size of features, from rows that are read before.
    fn check_start_at_error(&self, init: Init, is_quantised: bool) -> Result<(), Problem> {
        let problem = |why: String, hint: &str| {
            let problem = Problem::new("method.lora.init_lora_weights", why);
            Err(problem.with_hint(Some(hint.to_owned())))
        };
        if !is_quantised {
            let why = format!(
                "\"{init}\" starts at the error of a quantisation, and base.precision quantises nothing"
            );
            let hint = "set base.precision = \"nf4\", \"fp4\" or \"int8\", or remove init_lora_weights; of a base model that is stored quantised, \
                        the error is not known";
            return problem(why, hint);
        }
        if init == Init::Qera && self.data.stream {
            let why = "\"qera\" needs training rows before the first step, and data.stream reads them later".to_owned();
            return problem(why, "use \"loftq\", or remove data.stream");
        }
        Ok(())
    }

    /// A base model that is not in the memory of its device is frozen, and its layers compute one after the other in both
    /// directions.
    fn check_offload(&self) -> Result<(), Problem> {
        let Some(offload) = self.base.offload else {
            return Ok(());
        };
        let problem = |why: &str, hint: &str| {
            let problem = Problem::new("base.offload", why);
            Err(problem.with_hint(Some(hint.to_owned())))
        };
        if matches!(self.method, Method::Full(_)) {
            let why = "cannot be combined with [method.full], which trains a copy of every weight in memory";
            return problem(
                why,
                "train an adapter, [method.lora], or remove base.offload",
            );
        }
        if self.device.are_several() {
            let count = self.device.names().len();
            let why =
                format!("expected one device in `device`, found {count} that share the layers");
            return problem(&why, "remove base.offload, or name one device");
        }
        if self.base.init.is_some() && offload == Offload::Disk {
            let why = "cannot be combined with `base.init`: random weights are in no file";
            return problem(why, "remove base.offload");
        }
        if self.train.recompute == Recompute::None {
            let why = "needs gradient checkpointing, which computes the layers one by one";
            let hint = "set train.recompute = \"layer\", or \"mlp\", which needs more memory and less time";
            return problem(why, hint);
        }
        Ok(())
    }

    /// A stream has no last row, so its epochs cannot be counted.
    fn check_stream(&self) -> Result<(), Problem> {
        if !self.data.stream {
            return Ok(());
        }
        let train = &self.train;
        if train.epochs.is_some() {
            let why = "cannot be combined with data.stream, whose rows are not counted";
            let hint = match train.max_steps {
                Some(_) => "remove it: `max_steps` is set",
                None => "set `max_steps` instead",
            };
            return Err(Problem::new("train.epochs", why).with_hint(Some(hint.to_owned())));
        }
        if train.max_steps.is_none() {
            let why = "needs `max_steps`, because data.stream has no end";
            return Err(Problem::new("train", why));
        }
        Ok(())
    }
}

/// The problem of a key of the adapter's table.
pub(crate) fn of_adapter_table(error: AdapterError) -> Problem {
    match error {
        AdapterError::Setting {
            table,
            key,
            why,
            hint,
        } => Problem::new(format!("method.{table}.{key}"), why).with_hint(hint),
        other => Problem::new("method", other.to_string()).with_hint(other.hint()),
    }
}

fn check_base(base: &BaseConfig) -> Result<(), Problem> {
    if let Some(name) = &base.hub_name {
        let parsed = name.parse::<HubName>();
        if !parsed.is_ok_and(|parsed| parsed.file().is_none()) {
            let why = format!("expected a name on the hub, ORG/NAME, found `{name}`");
            return Err(Problem::new("base.hub_name", why));
        }
        if base.init.is_some() {
            let why = "cannot be combined with `base.init`: random weights are not on the hub";
            return Err(Problem::new("base.hub_name", why));
        }
    }
    if base.path.is_some() && base.init.is_some() {
        let why = "cannot be combined with `base.path`: weights are loaded or random";
        return Err(Problem::new("base.init", why));
    }
    if base.path.is_none() && base.init.is_none() {
        let why = "needs `path` (a checkpoint) or `init` (random weights)";
        return Err(Problem::new("base", why));
    }
    for (key, path) in [("path", &base.path), ("tokenizer", &base.tokenizer)] {
        if path
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            let why = "expected a folder, a file or a name on the hub, found an empty text";
            return Err(Problem::new(format!("base.{key}"), why));
        }
    }
    if let Some(init) = &base.init {
        init.check(Path::new(""))
            .map_err(|error| of_init(init, error))?;
        if base.tokenizer.is_none() {
            let why = "needs `base.tokenizer`: a new model has no tokenizer of its own";
            let hint = "set `tokenizer` in [base] to a folder, a file or a name on the hub";
            return Err(Problem::new("base.init", why).with_hint(Some(hint.to_owned())));
        }
    }
    check_added_tokens(base)
}

/// The problem of a key of `[base.init]`.
fn of_init(init: &ModelConfig, error: ConfigError) -> Problem {
    match error {
        ConfigError::Key {
            key,
            expected,
            found,
            ..
        } => {
            let kind = init.rope_scaling.kind();
            let key = key.replace("rope_scaling.", &format!("rope_scaling.{kind}."));
            let why = format!("expected {expected}, found {found}");
            Problem::new(format!("base.init.{key}"), why)
        }
        other => Problem::new("base.init", other.to_string()).with_hint(other.hint()),
    }
}

/// Checks the sources and their templates, then everything else of `[data]`.
fn check_data(data: &DataConfig) -> Result<(), Problem> {
    let lists = [
        ("data.train", data.train.as_slice()),
        ("data.validation.files", data.validation_files()),
    ];
    for (list, sources) in lists {
        for (index, source) in sources.iter().enumerate() {
            let problem =
                |key: &str, why: String| Problem::new(format!("{list}.{index}.{key}"), why);
            if source.path.as_os_str().is_empty() {
                let why = "expected a file, a folder or a pattern, found an empty text";
                return Err(problem("path", why.to_owned()));
            }
            if let Err(error) = Template::check_name(&source.template) {
                return Err(problem("template", error.to_string()).with_hint(error.hint()));
            }
            let weight = source
                .weight
                .filter(|weight| !(*weight > 0.0 && weight.is_finite()));
            if let Some(weight) = weight {
                let why = format!("expected a number above 0, found {weight}, such as 1");
                return Err(problem("weight", why));
            }
        }
    }
    let lint = || data.lint.check();
    data.check()
        .and_then(|()| lint())
        .map_err(|error| match error {
            DataError::Config { key, problem } => Problem::new(format!("data.{key}"), problem),
            other => Problem::new("data", other.to_string()).with_hint(other.hint()),
        })
}

/// Checks the tokens that a recipe adds: none is empty, and none occurs twice.
fn check_added_tokens(base: &BaseConfig) -> Result<(), Problem> {
    let lists = [
        ("base.add_tokens", base.add_tokens.as_slice()),
        ("base.add_special_tokens", &base.add_special_tokens),
        ("base.pad_token", base.pad_token.as_slice()),
    ];
    let mut seen = Vec::new();
    for (key, token) in lists
        .iter()
        .flat_map(|(key, list)| list.iter().map(move |t| (*key, t)))
    {
        if token.is_empty() {
            return Err(Problem::new(key, "a token cannot be empty"));
        }
        if seen.contains(&token) {
            return Err(Problem::new(key, format!("duplicate token `{token}`")));
        }
        seen.push(token);
    }
    Ok(())
}
/// `method.full` on quantised weights.
pub(crate) fn full_on_quantised(kind: &str) -> Problem {
    let why = format!("trains every weight, but those of the base model are quantised ({kind})");
    let hint = "train an adapter, [method.lora], or set base.precision = \"f32\", which widens the weights when they are \
                loaded";
    Problem::new("method.full", why).with_hint(Some(hint.to_owned()))
}
