//! Settings for a run that does not fit into the memory of its device.

use simmer_kernels::Capabilities;
use simmer_model::Recompute;

use super::memory::Parts;
use super::room::InHost;
use super::{AUTO_LEAST, Estimate, Subject, WORTHWHILE};
use crate::recipe::{Method, Recipe};

/// A setting that needs less memory.
pub(super) struct Setting {
    pub(super) name: String,
    /// The peak that it would have, in bytes.
    pub(super) peak: u64,
    /// Whether it would fit into memory that is known.
    pub(super) fits: bool,
}

impl Subject<'_> {
    fn setting(&self, name: String, parts: &[Parts]) -> Setting {
        Setting {
            name,
            peak: Parts::sum(parts).peak(),
            fits: self.rooms.iter().all(Option::is_some) && self.fit(parts, 1.0),
        }
    }

    /// `base.offload = "disk"`, if the weights do not fit into the free memory beside the rest: the system would then drop
    /// pages that are needed soon.
    pub(super) fn offloading(&self, estimate: &Estimate, device: &Capabilities) -> Option<Setting> {
        let room = estimate.room?;
        let mapped = estimate.parts.mapped;
        let shared = self.shares.len() > 1;
        let fits = estimate.peak <= room.available;
        if mapped == 0 || fits || shared {
            return None;
        }
        self.offloaded(estimate, device)
    }

    /// `base.offload`, if the device has it.
    fn offloaded(&self, estimate: &Estimate, device: &Capabilities) -> Option<Setting> {
        let offload = self.base.possible_offload(device)?;
        let name = format!("base.offload = \"{}\"", offload.name());
        let (name, recompute) = match estimate.recompute {
            Recompute::None => (
                format!("{name}, train.recompute = \"layer\""),
                Recompute::Layer,
            ),
            kept => (name, kept),
        };
        let parts = self.parts(&estimate.load, recompute, Some(offload));
        let mut setting = self.setting(name, &parts);
        let in_host = InHost::of(Some(offload), self.base, device, true);
        setting.fits &= in_host.is_none_or(InHost::fits);
        Some(setting)
    }

    /// Settings that need less memory, the fastest first.
    pub(super) fn instead(&self, estimate: &Estimate, device: &Capabilities) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut tokens = estimate.micro_batch_tokens;
        let mut add = |name: String, tokens: usize, recompute| {
            let load = estimate.load.within(tokens);
            let parts = self.parts(&load, recompute, estimate.offload);
            settings.push(self.setting(name, &parts));
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
        // each pass copies all weights over the bus
        let trains_all = matches!(self.recipe.method, Method::Full(_));
        let own_memory = !device.memory.is_main() && self.shares.len() == 1;
        if own_memory && estimate.offload.is_none() && !trains_all {
            settings.extend(self.offloaded(estimate, device));
        }
        settings.retain(|setting| (setting.peak as f64) < WORTHWHILE * estimate.peak as f64);
        settings
    }
}

impl Estimate {
    /// What to do about a run that fits with no setting of `instead`: an instruction that depends on what takes most
    /// of its memory.
    pub fn otherwise(&self, recipe: &Recipe) -> String {
        let parts = &self.parts;
        let trained = parts.trained + parts.gradients + parts.optimizer;
        let needed = parts.needed();
        let frozen = parts.weights.saturating_sub(parts.mapped);
        let rest = needed.saturating_sub(trained);
        let available = self.room.map_or(0, |room| room.available);
        if self.in_host.is_some_and(|in_host| !in_host.fits()) {
            return "close other programs, quantise the base model (base.precision = \"nf4\"), or choose a smaller one".to_owned();
        }
        match &recipe.method {
            Method::Full(_) if trained > needed / 2 => {
                "train an adapter, [method.lora], in place of all weights, or use a device with more memory".to_owned()
            }
            Method::Lora(lora) if trained > needed / 2 || (trained > needed / 8 && rest < available) => {
                let fitting = available.saturating_sub(rest) as f64 / trained.max(1) as f64;
                let rank = (lora.rank as f64 * fitting * 0.95) as usize;
                let smaller = if rank > 0 {
                    format!("set a smaller rank: about method.lora.rank = {rank} fits")
                } else {
                    "set a smaller rank (method.lora.rank)".to_owned()
                };
                format!("{smaller}; or adapt fewer modules (method.lora.targets)")
            }
            _ if frozen > needed / 2 && self.offload.is_none() && recipe.base.quantised_on_load().is_some() => {
                "remove base.precision, so that the weights stay in their files (with base.offload = \"disk\", two layers \
                 are in memory at a time), or choose a smaller base model"
                    .to_owned()
            }
            Method::Full(_) if frozen > needed / 2 => {
                "choose a smaller base model, set base.precision = \"bf16\" if it is in f32, or use a device with \
                 more memory"
                    .to_owned()
            }
            _ if frozen > needed / 2 => {
                "quantise the base model if it is in f32 or 16 bits (base.precision = \"nf4\"), choose a smaller one, or use a \
                 device with more memory"
                    .to_owned()
            }
            _ if parts.activations + parts.workspace > needed / 2 => {
                "shorten the rows (data.max_tokens), close other programs, or use a device with more memory".to_owned()
            }
            _ => "close other programs, choose a smaller base model, or use a device with more memory".to_owned(),
        }
    }
}
