//! What a run needs before its first step: data, tokenizer and model.

use std::sync::Arc;

use burn::tensor::Device;
use simmer_checkpoint::Checkpoint;
use simmer_data::{Dataset, Steps, Tokenizer};
use simmer_files::size::{counted, readable};
use simmer_kernels::{Capabilities, Memory};
use simmer_lint::LintReport;
use simmer_model::LlamaForCausalLM;
use simmer_model::adapter::{self, AdapterConfig, AdapterError, Starts};
use simmer_model::base::{Base, Compute};

use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::estimate::{Known, estimate};
use crate::manifest::Manifest;
use crate::observer::Observer;
use crate::ranks::check_first_step;
use crate::rates;
use crate::recipe::{Method, Recipe, full_on_quantised, of_adapter_table};
use crate::start;
use crate::tokenizer;
use crate::vocabulary::Vocabulary;
use simmer_recipe::Problem;

/// What a run needs before its first step.
pub(crate) struct Prepared {
    pub(crate) data: Dataset,
    pub(crate) lint: LintReport,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) model: LlamaForCausalLM,
    /// The adapter's configuration in PEFT's terms; `None` for `method.full`.
    pub(crate) adapter: Option<AdapterConfig>,
    /// The device of the trained tensors, without automatic differentiation; the first, if several share the layers.
    pub(crate) device: Device,
    /// The base model's files, from which its frozen weights are mapped; `None` for random weights.
    pub(crate) files: Option<Checkpoint>,
    /// The estimated peak of memory, in bytes.
    pub(crate) expected: u64,
}

impl Prepared {
    /// Loads everything, and writes into the recipe what it leaves open: the date of chat templates, `base.compute` and
    /// `train.micro_batch_tokens = "auto"`. `starts`: where the starts of the adapter come from. A run that starts on so many
    /// ranks must have a micro-batch for each.
    ///
    /// # Errors
    /// A wrong device, base model, tokenizer, data or adapter, and a run that does not fit into memory.
    pub(crate) fn load(
        recipe: &mut Recipe,
        starts: Starts,
        ranks: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let devices = recipe.device.open()?;
        let is_open = recipe.base.compute.is_none();
        let can = recipe.device.capabilities()?;
        let mut base = open_base(recipe, &can)?;
        if is_open && base.compute() == Compute::Bf16 {
            observer.on_notice(
                "computing in bf16, as the base model is stored; base.compute = \"f32\" is more exact, and slower",
            );
        }
        let placement = base.placed(devices)?;
        let device = placement.first().clone();
        warn_of_reference(&device, observer);
        base.check_offload(&Capabilities::of(&device))?;
        if let (Method::Full(_), Some((_, kind))) = (&recipe.method, base.quantised_weight()) {
            return Err(full_on_quantised(kind).into());
        }
        let vocabulary = Vocabulary::open(recipe, &mut base, observer)?;
        let (mut data, lint) = load_data(recipe, &vocabulary.tokenizer)?;
        warn_of_long_rows(&data, &base, observer);
        check_rates(recipe, &data, observer)?;
        rates::check(recipe, &base.config)?;
        check_samples(recipe, &vocabulary, &base)?;
        warn_of_rank(recipe, &base, observer);
        let expected = check_room(recipe, &base, &vocabulary.tokenizer, &mut data, observer)?;
        if starts == Starts::OfWeights {
            check_first_step(recipe, &mut data, ranks)?;
        }
        observer.on_load(&base);
        if let Some(shares) = placement.text() {
            observer.on_notice(&shares);
        }
        let model = base.load_at(recipe.train.seed, &placement)?;
        let (mut model, adapter) = choose_trained(recipe, model, &vocabulary, starts, observer)?;
        if starts == Starts::OfWeights {
            model = start::at_error(recipe, model, &base, &data, observer)?;
        }
        Ok(Self {
            data,
            lint,
            vocabulary,
            model,
            adapter,
            device,
            files: base.checkpoint().cloned(),
            expected,
        })
    }

    /// The manifest of a run with this data and tokenizer; files that are as they were in `before` are not read again.
    ///
    /// # Errors
    /// As [`Manifest::of`].
    pub(crate) fn manifest(
        &self,
        recipe: &Recipe,
        before: Option<&Manifest>,
    ) -> Result<Manifest, TrainError> {
        Manifest::of(recipe, &self.data, &self.vocabulary.tokenizer, before)
    }
}

/// The model of a recipe with its trainable tensors, for a rank that reads no data.
///
/// # Errors
/// As [`Prepared::load`], but for the data.
pub(crate) fn model(
    recipe: &mut Recipe,
    observer: &mut dyn Observer,
) -> Result<LlamaForCausalLM, TrainError> {
    let devices = recipe.device.open()?;
    let can = recipe.device.capabilities()?;
    let mut base = open_base(recipe, &can)?;
    let placement = base.placed(devices)?;
    base.check_offload(&can)?;
    let vocabulary = Vocabulary::open(recipe, &mut base, observer)?;
    let model = base.load_at(recipe.train.seed, &placement)?;
    // rank 0 has those of a checkpoint, which are the same
    let starts = Starts::OfWeights;
    Ok(choose_trained(recipe, model, &vocabulary, starts, observer)?.0)
}

/// Opens the base model, and writes into the recipe what it computes in.
///
/// # Errors
/// As [`BaseConfig::open`](simmer_model::base::BaseConfig::open).
pub fn open_base(recipe: &mut Recipe, device: &Capabilities) -> Result<Base, TrainError> {
    if matches!(recipe.method, Method::Full(_)) {
        // a trained weight in f32 would be rounded at each use
        recipe.base.compute.get_or_insert(Compute::F32);
    }
    let mut base = recipe.base.open()?;
    recipe.base.compute = Some(base.choose_compute(device));
    Ok(base)
}

/// Reads the data, and writes the date that chat templates were given into the recipe.
pub(crate) fn load_data(
    recipe: &mut Recipe,
    tokenizer: &Arc<Tokenizer>,
) -> Result<(Dataset, LintReport), TrainError> {
    let steps = Steps {
        batch_size: recipe.train.batch_size,
        seed: recipe.train.seed,
    };
    let (data, lint) = simmer_lint::load(&recipe.data, tokenizer, steps)?;
    if lint.errors().next().is_some() {
        return Err(TrainError::Lint(lint));
    }
    let date = data.report.train.iter().find_map(|report| report.date);
    if recipe.data.date.is_none() {
        recipe.data.date = date.map(|date| date.format("%Y-%m-%d").to_string());
    }
    Ok((data, lint))
}

fn warn_of_reference(device: &Device, observer: &mut dyn Observer) {
    let device = Capabilities::of(device);
    let slow = device.without_fused_form();
    if !slow.is_empty() {
        observer.on_notice(&format!(
            "device {}: slow reference implementations in place of fast kernels: {}",
            device.name(),
            slow.names()
        ));
    }
    if let Memory::Nvidia(_) = device.memory
        && let Some(reason) = simmer_kernels::not_compiled()
    {
        observer.on_notice(&format!(
            "device {}: kernels for GPUs cannot be compiled, and libtorch's functions, which take longer, compute instead: {reason}",
            device.name()
        ));
    }
}

fn warn_of_long_rows(data: &Dataset, base: &Base, observer: &mut dyn Observer) {
    let examples = data.examples().unwrap_or_default();
    let longest = examples.iter().map(|example| example.tokens.len()).max();
    let context = base.config.max_position_embeddings;
    if let Some(longest) = longest.filter(|longest| *longest > context) {
        observer.on_notice(&format!(
            "the longest row has {}, but the base model supports {context} \
             (max_position_embeddings)",
            counted(longest, "token")
        ));
    }
}

/// Above this, a learning rate for LoRA is more likely a mistake than meant.
const HIGH_FOR_LORA: f64 = 0.05;

/// Refuses a run that cannot learn because all its learning rates are 0, and warns of rates that seem wrong.
fn check_rates(
    recipe: &Recipe,
    data: &Dataset,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let train = &recipe.train;
    let per_epoch = data.steps_per_epoch().map(|steps| steps as u64);
    let steps = train.total_steps(per_epoch.or(train.max_steps).unwrap_or(1));
    let warmup = train.schedule.warmup_steps(steps);
    let highest = train.learning_rate * train.schedule.largest(steps);
    // The optimizer computes in f32.
    if highest as f32 == 0.0 {
        let (key, why) = if warmup > 0 && train.schedule.largest(steps) == 0.0 {
            let why = format!(
                "a warmup of {} begins with the learning rate 0, and the run has {}: nothing would be learnt",
                counted(warmup as usize, "step"),
                counted(steps as usize, "step")
            );
            ("train.schedule", why)
        } else {
            let why = format!("{highest:e} is 0 in f32: nothing would be learnt");
            ("train.learning_rate", why)
        };
        let hint = "shorten the warmup, or train more steps (train.epochs, train.max_steps)";
        let hint = (key == "train.schedule").then(|| hint.to_owned());
        return Err(Problem::new(key, why).with_hint(hint).into());
    }
    if warmup >= steps && warmup > 0 {
        observer.on_notice(&format!(
            "warning: the warmup of {} is as long as the run of {steps}: the highest learning rate is \
             {highest:.3e}, not {:e}",
            counted(warmup as usize, "step"),
            train.learning_rate
        ));
    }
    if matches!(recipe.method, Method::Lora(_)) && train.learning_rate > HIGH_FOR_LORA {
        observer.on_notice(&format!(
            "warning: train.learning_rate = {} is high for LoRA, and the loss may rise; usual rates are 5e-5 to 1e-3",
            train.learning_rate
        ));
    }
    Ok(())
}

/// Checks that the base model and the trained model can answer the prompts of `[samples]` at the end of the run.
fn check_samples(recipe: &Recipe, vocabulary: &Vocabulary, base: &Base) -> Result<(), TrainError> {
    let (Some(samples), Some(first)) = (&recipe.samples, recipe.data.train.first()) else {
        return Ok(());
    };
    let context = base.config.max_position_embeddings;
    samples.check_prompts(&first.template, &vocabulary.tokenizer, context)?;
    if vocabulary.is_from_adapter() {
        let of_base = tokenizer::open(recipe.base.tokenizer_path()?)?;
        samples.check_prompts(&first.template, &of_base, context)?;
    }
    Ok(())
}

/// Warns of a rank above that of the weights.
fn warn_of_rank(recipe: &Recipe, base: &Base, observer: &mut dyn Observer) {
    let hidden = base.config.hidden_size;
    if let Method::Lora(lora) = &recipe.method
        && lora.rank > hidden
    {
        observer.on_notice(&format!(
            "warning: method.lora.rank = {} is above the hidden size of the base model, {hidden}: a larger rank than that \
             only takes memory",
            lora.rank
        ));
    }
}

/// The error of an adapter; that of a key names the key as the recipe has it.
pub(crate) fn of_adapter(error: AdapterError) -> TrainError {
    match error {
        AdapterError::Setting { .. } => TrainError::Setting(of_adapter_table(error)),
        other => other.into(),
    }
}

/// The model with its trainable tensors, and the adapter's configuration; `None` if every weight is trained.
fn choose_trained(
    recipe: &Recipe,
    model: LlamaForCausalLM,
    vocabulary: &Vocabulary,
    starts: Starts,
    observer: &mut dyn Observer,
) -> Result<(LlamaForCausalLM, Option<AdapterConfig>), TrainError> {
    let Some(table) = recipe.method.adapter() else {
        return Ok((model.train_all(), None));
    };
    let (name, revision) = recipe.base.for_adapters();
    let seed = recipe.train.seed;
    let attached = adapter::attach(model, table, seed, &name, starts).map_err(of_adapter)?;
    let untrained = vocabulary.untrained(&attached.model, table.kind().peft);
    for notice in attached
        .warnings
        .iter()
        .chain(&attached.resized)
        .chain(&untrained)
    {
        observer.on_notice(notice);
    }
    let config = AdapterConfig {
        revision,
        ..attached.config
    };
    Ok((attached.model, Some(config)))
}

/// Checks that the run fits into memory before its weights are loaded; returns its expected peak in bytes.
fn check_room(
    recipe: &mut Recipe,
    base: &Base,
    tokenizer: &Tokenizer,
    data: &mut Dataset,
    observer: &mut dyn Observer,
) -> Result<u64, TrainError> {
    let expected = estimate(recipe, base, tokenizer, data, Known::default())?;
    if recipe.train.micro_batch_tokens == MicroBatchTokens::Auto {
        let tokens = expected.micro_batch_tokens;
        recipe.train.micro_batch_tokens = MicroBatchTokens::Tokens(tokens);
        observer.on_notice(&format!("train.micro_batch_tokens = {tokens}"));
    }
    if !expected.fits() {
        return Err(TrainError::NoRoom {
            estimate: expected.to_string(),
            fitting: expected.fitting().map(str::to_owned),
            otherwise: expected.otherwise(recipe),
        });
    }
    if let Some(setting) = expected.offloading() {
        observer.on_notice(&format!(
            "warning: the frozen weights, {}, do not fit into the free memory beside the rest, and will be read from \
             their files again and again; with {setting} each layer is read ahead of its use",
            readable(expected.parts.mapped)
        ));
    }
    observer.on_estimate(&expected);
    Ok(expected.peak)
}
