//! Estimates of a run before its weights are loaded: memory by part, the time of a step and of the whole run.
//!
//! Activations are counted tensor by tensor, as the layers keep them for the backward pass; everything else follows from
//! shapes and dtypes. The measurements behind the few constants are in docs/guide/memory.md.

mod gpu;
mod load;
mod memory;
mod ranks;
mod room;
mod run;
mod settings;
mod shares;
mod steps;
mod time;

use std::fmt;

use serde::Serialize;
use simmer_checkpoint::layout::{parameter_count, tensors};
use simmer_data::{Dataset, Tokenizer};
use simmer_files::size::{duration, grouped, plural, readable, with_prefix};
use simmer_kernels::Capabilities;
use simmer_model::adapter::selection;
use simmer_model::base::{Base, Compute, Offload, Precision};
use simmer_model::{Recompute, Sharing};

pub use load::Load;
pub use memory::Parts;
pub use ranks::{Network, OnRanks, Scaling};
pub use room::{InHost, Room, parse_bytes};
pub use run::RunTime;
pub use shares::OnDevice;

use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::prepared::of_adapter;
use crate::ranks::RanksError;
use crate::recipe::Recipe;
use memory::Layers;
use settings::Setting;
use shares::{Share, TrainedParameters, fit, together};
pub(crate) use steps::first_steps;

/// The most tokens that `micro_batch_tokens = "auto"` chooses: more do not make a step faster.
const AUTO_MOST: usize = 16384;
/// The fewest tokens that it tries.
const AUTO_LEAST: usize = 256;
/// The fraction of the free memory that it fills.
const AUTO_PART: f64 = 0.85;

/// A setting is suggested if it needs less than this fraction of the memory.
const WORTHWHILE: f64 = 0.97;

/// The estimate of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The device, or the devices that share the layers.
    pub device: String,
    /// Memory by part, in bytes, of all devices together.
    pub parts: Parts,
    /// The most memory at one time, in bytes.
    pub peak: u64,
    /// The memory of the device or devices, if it is known.
    pub room: Option<Room>,
    /// The memory of each device, if several share the layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<OnDevice>,
    /// The work of its micro-batches and steps.
    pub load: Load,
    /// `train.micro_batch_tokens`; the number chosen, if the recipe says "auto".
    pub micro_batch_tokens: usize,
    /// `train.recompute`: what the backward pass recomputes.
    pub recompute: Recompute,
    /// `base.offload`: where the frozen weights are while they are not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// `base.compute`: what the layers compute in.
    #[serde(skip)]
    compute: Compute,
    /// The time of a step, if it was asked for.
    pub step: Option<StepTime>,
    /// The time of the whole run, if that of a step was asked for.
    pub run: Option<RunTime>,
    /// Steps on several ranks, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Scaling>,
    /// Settings that need less memory, each with the peak that it would have, in bytes.
    pub instead: Vec<(String, u64)>,
    /// The first of them with which the run would fit.
    #[serde(skip)]
    fitting: Option<String>,
    /// The setting for weights that do not fit into the free memory beside the rest.
    #[serde(skip)]
    offloading: Option<String>,
    /// Frozen weights that `base.offload` keeps in main memory for a device with memory of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_host: Option<InHost>,
    /// Trained parameters.
    #[serde(skip)]
    trained: usize,
    /// Whether each device has room.
    #[serde(skip)]
    fits: bool,
}

/// Given properties of a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Its memory in bytes; if not given, the system is asked.
    pub memory: Option<u64>,
    /// Its speed.
    pub rate: Rate,
}

/// The speed of a device in matrix multiplications, in floating-point operations per second.
#[derive(Debug, Clone, Copy, Default)]
pub enum Rate {
    /// Not needed: no time is estimated.
    #[default]
    Unknown,
    /// To be measured now, on the recipe's device.
    Measured,
    /// The given speed of another device.
    Given(f64),
}

/// The time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepTime {
    /// Floating-point operations of a step.
    pub flops: f64,
    /// Floating-point operations per second, in matrix multiplications.
    pub rate: f64,
    /// Duration of a step, in seconds.
    pub seconds: f64,
}

/// The facts that an estimate is computed from.
struct Subject<'a> {
    recipe: &'a Recipe,
    base: &'a Base,
    layers: Layers,
    /// Trainable parameters.
    trained: usize,
    /// Their tensors, and the features of low-rank branches.
    updated: gpu::Trained,
    /// Entries of the tokenizer's vocabulary.
    vocabulary: usize,
    /// Tokens of all training examples.
    data: usize,
    /// What each device holds, and its memory.
    shares: Vec<Share>,
    rooms: Vec<Option<Room>>,
}

/// Estimates a run of `recipe` on `base` with this data.
///
/// # Errors
/// A device that is not available, an adapter that does not fit the base model, or data that cannot be read.
pub fn estimate(
    recipe: &Recipe,
    base: &Base,
    tokenizer: &Tokenizer,
    data: &mut Dataset,
    known: Known,
) -> Result<Estimate, TrainError> {
    let (layers, trained, updated, by_layer) = trained(recipe, base)?;
    let devices = recipe.device.each()?;
    let rooms = devices.iter().map(|device| match known.memory {
        Some(bytes) => Some(Room::of(bytes)),
        None => Room::here(device),
    });
    let rooms: Vec<Option<Room>> = rooms.collect();
    let shares = Share::all(base, &devices, &rooms, &by_layer)?;
    let tokens = data.examples().unwrap_or_default();
    let subject = Subject {
        recipe,
        base,
        layers,
        trained,
        updated,
        vocabulary: tokenizer.max_token_id() as usize + 1,
        data: tokens.iter().map(|example| example.tokens.len()).sum(),
        shares,
        rooms,
    };
    let device = recipe.device.capabilities()?;
    base.check_compute(&device)?;
    if base.checkpoint().is_some() {
        base.check_offload(&device)?;
    }
    let room = together(&subject.shares, &subject.rooms);
    let recompute = recipe.train.recompute;
    let sharing = Sharing {
        up_to: base.config.same_frequencies_up_to(),
        from: device.shares_from,
    };
    let mut load = |tokens| Load::of(recipe, sharing, data, tokens);
    let (micro_batch_tokens, load) = match recipe.train.micro_batch_tokens {
        MicroBatchTokens::Tokens(tokens) => (tokens, load(tokens)?),
        MicroBatchTokens::Auto => subject.auto(load)?,
    };
    let offload = base.offload();
    let by_device = subject.parts(&load, recompute, offload);
    let parts = Parts::sum(&by_device);
    // trained weights are in f32
    let precision = if subject.layers.whole {
        Precision::F32
    } else {
        base.precision()
    };
    let work = time::flops(&base.config, &subject.layers, &load, recompute);
    let step = subject.step(&work, &load, precision, &device, known.rate)?;
    let mut estimate = Estimate {
        peak: parts.peak(),
        parts,
        room,
        load,
        micro_batch_tokens,
        recompute,
        offload,
        compute: base.compute(),
        step,
        run: step.map(|step| subject.run(data, step, &device)),
        ranks: None,
        instead: Vec::new(),
        fitting: None,
        offloading: None,
        in_host: None,
        trained,
        fits: subject.fit(&by_device, 1.0),
        devices: subject.by_device(&by_device),
        device: recipe.device.resolved()?,
    };
    estimate.in_host = InHost::of(offload, base, &device, known.memory.is_none());
    estimate.fits &= estimate.in_host.is_none_or(InHost::fits);
    let offloading = subject.offloading(&estimate, &device);
    estimate.offloading = offloading.as_ref().map(|setting| setting.name.clone());
    let instead = offloading.into_iter();
    let instead: Vec<Setting> = instead.chain(subject.instead(&estimate, &device)).collect();
    estimate.fitting = instead
        .iter()
        .find(|setting| setting.fits)
        .map(|setting| setting.name.clone());
    let instead = instead.into_iter();
    estimate.instead = instead
        .map(|setting| (setting.name, setting.peak))
        .collect();
    Ok(estimate)
}

/// The inputs that each layer keeps, the number of trainable parameters, their tensors, and where they are.
fn trained(
    recipe: &Recipe,
    base: &Base,
) -> Result<(Layers, usize, gpu::Trained, TrainedParameters), TrainError> {
    let config = &base.config;
    Ok(match recipe.method.adapter() {
        None => {
            let updated = gpu::Trained {
                features: 0.0,
                tensors: tensors(config).len(),
            };
            // on one device
            let parameters = parameter_count(config);
            let by_layer = TrainedParameters::default();
            (Layers::all(config), parameters, updated, by_layer)
        }
        Some(table) => {
            let selection = selection(table, config).map_err(of_adapter)?;
            let shapes = simmer_model::adapter::peft::tensor_shapes(&selection);
            let parameters = shapes
                .values()
                .map(|shape| shape.iter().product::<usize>())
                .sum();
            let updated = gpu::Trained {
                features: table
                    .rank()
                    .map_or(0.0, |rank| parameters as f64 / rank.max(1) as f64),
                tensors: shapes.len(),
            };
            let layers = Layers::of(&selection, config, table.dropout() > 0.0);
            let sizes = shapes.iter();
            let sizes = sizes.map(|(key, shape)| (key.as_str(), shape.iter().product()));
            let by_layer = TrainedParameters::of(config.num_hidden_layers, sizes);
            (layers, parameters, updated, by_layer)
        }
    })
}

impl Subject<'_> {
    /// The time of a step, if it was asked for.
    fn step(
        &self,
        work: &time::Work,
        load: &Load,
        precision: Precision,
        device: &Capabilities,
        rate: Rate,
    ) -> Result<Option<StepTime>, TrainError> {
        let (config, flops) = (&self.base.config, work.total());
        let name = device.name();
        let compute = self.base.compute();
        if !device.is_asynchronous {
            let rate = match rate {
                Rate::Unknown => return Ok(None),
                Rate::Measured => time::rate(config, &name, precision, compute)?,
                Rate::Given(rate) => rate,
            };
            let seconds = flops / rate * time::REST;
            return Ok(Some(StepTime {
                flops,
                rate,
                seconds,
            }));
        }
        let rates = match rate {
            Rate::Unknown => return Ok(None),
            Rate::Measured => time::gpu_rates(config, &name, compute, load.tokens)?,
            Rate::Given(rate) => gpu::Rates::of_products(rate, compute),
        };
        let (recompute, element) = (self.recipe.train.recompute, self.element());
        let seconds = gpu::seconds(config, work, load, self.updated, recompute, element, rates);
        let seconds = seconds * self.waiting(load);
        Ok(Some(StepTime {
            flops,
            rate: rates.linear,
            seconds,
        }))
    }

    /// The memory of each device.
    fn parts(&self, load: &Load, recompute: Recompute, offload: Option<Offload>) -> Vec<Parts> {
        let shares = self.shares.iter();
        shares
            .map(|share| Parts::of(self, load, recompute, offload, share))
            .collect()
    }

    /// Whether each device has room, up to this fraction of its free memory.
    fn fit(&self, parts: &[Parts], up_to: f64) -> bool {
        fit(&self.shares, parts, &self.rooms, up_to)
    }

    /// The memory of each device, if several share the layers.
    fn by_device(&self, parts: &[Parts]) -> Vec<OnDevice> {
        if self.shares.len() == 1 {
            return Vec::new();
        }
        let all = self.shares.iter().zip(parts).zip(&self.rooms);
        all.map(|((share, parts), room)| OnDevice::of(share, *parts, *room))
            .collect()
    }

    /// The time of a step on several devices that share the layers in equal parts, as a fraction of that on one which could hold
    /// the model: with M micro-batches and P devices, `(M + P - 1) / (M P)`. Not measured.
    fn waiting(&self, load: &Load) -> f64 {
        let micro_batches = (load.step_tokens / load.tokens.max(1) as f64)
            .ceil()
            .max(1.0);
        let devices = self.shares.len() as f64;
        (micro_batches + devices - 1.0) / (micro_batches * devices)
    }

    fn element(&self) -> u64 {
        self.base.compute().dtype().size() as u64
    }

    /// The most tokens per pass whose peak stays within `AUTO_PART` of the free memory.
    fn auto(
        &self,
        mut load: impl FnMut(usize) -> Result<Load, TrainError>,
    ) -> Result<(usize, Load), TrainError> {
        let mut tokens = AUTO_MOST;
        loop {
            let found = load(tokens)?;
            let recompute = self.recipe.train.recompute;
            let parts = self.parts(&found, recompute, self.base.offload());
            if self.fit(&parts, AUTO_PART) || tokens <= AUTO_LEAST {
                return Ok((tokens, found));
            }
            tokens /= 2;
        }
    }
}

impl Estimate {
    /// Name, bytes and description of each part of the memory.
    fn lines(&self) -> [(&'static str, u64, String); 7] {
        let (parts, load) = (&self.parts, &self.load);
        parts.lines(
            load,
            self.recompute,
            self.offload,
            self.compute,
            self.trained,
        )
    }

    /// Adds steps on these numbers of ranks, over a network of so many bytes per second and so many seconds of latency.
    ///
    /// # Errors
    /// As [`Dataset::batch`]; full fine-tuning, which several ranks do not do.
    pub fn on_ranks(
        &mut self,
        recipe: &Recipe,
        data: &mut Dataset,
        ranks: &[usize],
        [bandwidth, latency]: [f64; 2],
    ) -> Result<(), TrainError> {
        let most = ranks.iter().copied().max().unwrap_or(1);
        if most > 1 && recipe.method.adapter().is_none() {
            return Err(RanksError::Full { ranks: most }.into());
        }
        let Some(step) = self.step else { return Ok(()) };
        let network = Network {
            bandwidth,
            latency,
            memory: recipe.device.capabilities()?.read_rate,
        };
        let steps = ranks::micro_batches(recipe, data, self)?;
        self.ranks = Some(Scaling::of(ranks, network, &steps, step, self));
        Ok(())
    }

    /// Whether the run fits into memory. Weights that stay mapped from their files are not counted, because the system can
    /// drop them.
    pub fn fits(&self) -> bool {
        self.fits
    }

    /// The first setting of `instead` with which the run would fit.
    pub fn fitting(&self) -> Option<&str> {
        self.fitting.as_deref()
    }

    /// The setting with which layers are read ahead of their use, if the frozen weights do not fit into the free memory
    /// beside the rest.
    pub fn offloading(&self) -> Option<&str> {
        self.offloading.as_deref()
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes, what) in self.lines() {
            writeln!(f, "{name:<12} {:>12}  {what}", readable(bytes))?;
        }
        write!(
            f,
            "{:<12} {:>12}  on {}",
            "peak",
            readable(self.peak),
            self.device
        )?;
        if let Some(room) = self.room {
            write!(
                f,
                ", {} free of {}",
                readable(room.available),
                readable(room.total)
            )?;
        }
        if let Some(in_host) = self.in_host {
            write!(f, "\n{in_host}")?;
        }
        for device in &self.devices {
            write!(f, "\n{device}")?;
        }
        if let Some(step) = self.step {
            write!(
                f,
                "\n{:<12} {:>12}  {} {}, {}FLOP at {}FLOP/s (matrix multiplications)",
                "step",
                duration(step.seconds),
                grouped(self.load.step_tokens.round() as u64),
                plural(self.load.step_tokens.round() as usize, "token"),
                with_prefix(step.flops),
                with_prefix(step.rate),
            )?;
        }
        if let Some(run) = self.run {
            write!(
                f,
                "\n{:<12} {:>12}  {} {}",
                "run",
                duration(run.seconds),
                grouped(run.steps),
                plural(run.steps as usize, "step")
            )?;
            match run.validations {
                0 => {}
                1 => write!(f, ", a validation of {}", duration(run.validation))?,
                count => write!(f, ", {count} validations of {}", duration(run.validation))?,
            }
            if run.comparison > 0.0 {
                write!(
                    f,
                    ", comparison with the base model {}",
                    duration(run.comparison)
                )?;
            }
        }
        if let Some(ranks) = &self.ranks {
            write!(f, "\n\n{ranks}\n")?;
        }
        for (name, peak) in self.instead.iter().take(4) {
            write!(f, "\n{:>12}  with {name}", readable(*peak))?;
        }
        Ok(())
    }
}
