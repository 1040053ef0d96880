//! What a run will take, before its weights are loaded: memory by part, and the time of a step.
//!
//! The activations are counted, tensor by tensor, as the layers keep them for their backward pass; everything else is
//! shapes and number types. What was measured to find the few constants is in docs/guide/memory.md.

mod load;
mod memory;
mod room;
mod time;

use std::fmt;

use serde::Serialize;
use simmer_checkpoint::layout::tensors;
use simmer_data::{Dataset, Tokenizer};
use simmer_model::adapter::selection;
use simmer_model::base::{Base, Compute, Precision};
use simmer_model::{Recompute, device};

pub use load::Load;
pub use memory::Parts;
pub use room::{Room, parse_bytes};

use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::recipe::{Method, Recipe};
use memory::Layers;

/// The most tokens that `micro_batch_tokens = "auto"` takes: more make no step faster.
const AUTO_MOST: usize = 16384;
/// The fewest that it tries.
const AUTO_LEAST: usize = 256;
/// The part of the room that it fills.
const AUTO_PART: f64 = 0.85;

/// A setting is named where it leaves less than this part of the memory.
const WORTHWHILE: f64 = 0.97;

/// What a run will take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Where it computes.
    pub device: String,
    /// Memory by part, in bytes.
    pub parts: Parts,
    /// The most memory at one time, in bytes.
    pub peak: u64,
    /// The device's memory, where it is known.
    pub room: Option<Room>,
    /// The work of its micro-batches and steps.
    pub load: Load,
    /// `train.micro_batch_tokens`, found where the recipe says "auto".
    pub micro_batch_tokens: usize,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// The time of a step, where it was asked for.
    pub step: Option<StepTime>,
    /// What else could be set, and the memory that it would take.
    pub instead: Vec<(String, u64)>,
}

/// What is known of a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Its memory in bytes; what the system says where it is not given.
    pub memory: Option<u64>,
    /// How fast it is.
    pub rate: Rate,
}

/// Floating-point operations a second of a device's products.
#[derive(Debug, Clone, Copy, Default)]
pub enum Rate {
    /// Nobody asks for times.
    #[default]
    Unknown,
    /// To be measured now, on the device at hand.
    Measured,
    /// Of some device.
    Given(f64),
}

/// How long a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepTime {
    /// Floating-point operations of a step.
    pub flops: f64,
    /// Floating-point operations a second, in products.
    pub rate: f64,
    /// Seconds of a step.
    pub seconds: f64,
}

/// Everything that an estimate follows from.
struct Subject<'a> {
    recipe: &'a Recipe,
    base: &'a Base,
    layers: Layers,
    /// Numbers that are trained.
    trained: usize,
    /// Entries of the tokenizer's vocabulary.
    vocabulary: usize,
    /// Tokens of the training examples.
    data: usize,
}

/// Estimates a run of `recipe` on `base` with this data.
///
/// # Errors
/// Where adapter or device are not what there is.
pub fn estimate(
    recipe: &Recipe,
    base: &Base,
    tokenizer: &Tokenizer,
    data: &mut Dataset,
    known: Known,
) -> Result<Estimate, TrainError> {
    device::check(&recipe.device)?;
    let (layers, trained) = trained(recipe, base)?;
    let tokens = data.examples().unwrap_or_default();
    let subject = Subject {
        recipe,
        base,
        layers,
        trained,
        vocabulary: tokenizer.max_token_id() as usize + 1,
        data: tokens.iter().map(|example| example.tokens.len()).sum(),
    };
    let device = device::resolved(&recipe.device).to_owned();
    let room = match known.memory {
        Some(bytes) => Some(Room::of(bytes)),
        None => Room::here(&device),
    };
    let recompute = recipe.train.recompute;
    let mut load = |tokens| Load::of(recipe, data, tokens);
    let (micro_batch_tokens, load) = match recipe.train.micro_batch_tokens {
        MicroBatchTokens::Tokens(tokens) => (tokens, load(tokens)?),
        MicroBatchTokens::Auto => subject.auto(load, room, &device)?,
    };
    let parts = subject.parts(&load, recompute, &device);
    // what is trained is in f32
    let precision = if subject.layers.whole {
        Precision::F32
    } else {
        base.precision()
    };
    let rate = match known.rate {
        Rate::Unknown => None,
        Rate::Measured => Some(time::rate(&base.config, &device, precision)?),
        Rate::Given(rate) => Some(rate),
    };
    let flops = time::flops(&base.config, &subject.layers, &load, recompute);
    let mut estimate = Estimate {
        peak: parts.peak(),
        parts,
        room,
        load,
        micro_batch_tokens,
        recompute,
        step: rate.map(|rate| StepTime {
            flops,
            rate,
            seconds: flops / rate * time::REST,
        }),
        instead: Vec::new(),
        device,
    };
    estimate.instead = subject.instead(&estimate);
    Ok(estimate)
}

/// Which linear modules of each layer keep their input, and how many numbers are trained.
fn trained(recipe: &Recipe, base: &Base) -> Result<(Layers, usize), TrainError> {
    let config = &base.config;
    Ok(match &recipe.method {
        Method::Full(_) => {
            let numbers = tensors(config)
                .iter()
                .map(|tensor| tensor.shape.iter().product::<usize>())
                .sum();
            (Layers::all(config), numbers)
        }
        Method::Lora(lora) => {
            let selection = selection(lora, config)?;
            let shapes = simmer_model::adapter::peft::tensor_shapes(&selection);
            let numbers = shapes
                .values()
                .map(|shape| shape.iter().product::<usize>())
                .sum();
            (Layers::of(&selection, config), numbers)
        }
    })
}

impl Subject<'_> {
    fn parts(&self, load: &Load, recompute: Recompute, device: &str) -> Parts {
        Parts::of(self, load, recompute, device)
    }

    fn element(&self) -> u64 {
        match self.recipe.base.compute {
            Compute::F32 => 4,
            Compute::Bf16 => 2,
        }
    }

    /// The most tokens whose peak stays within a part of the room.
    fn auto(
        &self,
        mut load: impl FnMut(usize) -> Result<Load, TrainError>,
        room: Option<Room>,
        device: &str,
    ) -> Result<(usize, Load), TrainError> {
        let mut tokens = AUTO_MOST;
        loop {
            let found = load(tokens)?;
            let peak = self
                .parts(&found, self.recipe.train.recompute, device)
                .needed();
            let fits = room.is_none_or(|room| peak as f64 <= AUTO_PART * room.available as f64);
            if fits || tokens <= AUTO_LEAST {
                return Ok((tokens, found));
            }
            tokens /= 2;
        }
    }

    /// Settings that take less memory, the least slow first.
    fn instead(&self, estimate: &Estimate) -> Vec<(String, u64)> {
        let device = &estimate.device;
        let mut settings = Vec::new();
        let mut tokens = estimate.micro_batch_tokens;
        let mut add = |name: String, tokens: usize, recompute| {
            let load = estimate.load.within(tokens);
            settings.push((name, self.parts(&load, recompute, device).peak()));
        };
        let more = match estimate.recompute {
            Recompute::None => &[("mlp", Recompute::Mlp), ("layer", Recompute::Layer)][..],
            Recompute::Mlp => &[("layer", Recompute::Layer)],
            Recompute::Layer => &[],
        };
        for (name, recompute) in more {
            add(format!("train.recompute = \"{name}\""), tokens, *recompute);
        }
        while tokens > AUTO_LEAST && tokens / 2 >= estimate.load.longest {
            tokens /= 2;
            add(
                format!("train.micro_batch_tokens = {tokens}"),
                tokens,
                estimate.recompute,
            );
            if estimate.recompute != Recompute::Layer {
                let name =
                    format!("train.micro_batch_tokens = {tokens}, train.recompute = \"layer\"");
                add(name, tokens, Recompute::Layer);
            }
        }
        settings.retain(|(_, peak)| (*peak as f64) < WORTHWHILE * estimate.peak as f64);
        settings
    }
}

impl Estimate {
    /// Whether the run fits; weights that stay in their files count only as far as there is room.
    pub fn fits(&self) -> bool {
        self.room
            .is_none_or(|room| self.parts.needed() <= room.available)
    }

    /// The first of `instead` that would fit.
    pub fn fitting(&self) -> Option<&str> {
        let room = self.room?;
        let mapped = self.parts.mapped;
        let fits = |peak: u64| peak - mapped.min(peak) <= room.available;
        let found = self.instead.iter().find(|(_, peak)| fits(*peak));
        found.map(|(name, _)| name.as_str())
    }
}

/// Bytes as people read them.
pub fn readable(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 10_000.0 {
        format!("{:.1} GiB", mib / 1024.0)
    } else {
        format!("{mib:.1} MiB")
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes, what) in self.parts.lines(&self.load, self.recompute) {
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
                ", which has {} free of {}",
                readable(room.available),
                readable(room.total)
            )?;
        }
        if let Some(step) = self.step {
            write!(
                f,
                "\n{:<12} {:>10.2} s  {:.0} tokens, {:.3} TFLOP at {:.1} GFLOP/s in products",
                "a step",
                step.seconds,
                self.load.step_tokens,
                step.flops / 1e12,
                step.rate / 1e9,
            )?;
        }
        for (name, peak) in self.instead.iter().take(4) {
            write!(f, "\n{:>12}  with {name}", readable(*peak))?;
        }
        Ok(())
    }
}
