//! Frozen weights that stay in their files.

use std::path::Path;

use simmer_data::Steps;
use simmer_model::base::Offload;
use simmer_train::estimate::{Estimate, Known, estimate};
use simmer_train::{Recipe, Silent, recipe_tokenizer};

use crate::training::Kitchen;

const PLAIN: [&str; 2] = ["device=cpu", "train.recompute=layer"];
const OFFLOADED: [&str; 3] = ["device=cpu", "train.recompute=layer", "base.offload=disk"];

#[test]
fn the_adapter_is_the_same() {
    let kitchen = Kitchen::new();
    let plain = kitchen.whole(&PLAIN, "plain");
    assert_eq!(kitchen.whole(&OFFLOADED, "offloaded"), plain);
    // a run may be resumed with it, and without
    kitchen.train(&OFFLOADED, "plain", true).unwrap();
    kitchen.train(&PLAIN, "offloaded", true).unwrap();
}

fn estimated(recipe: &Recipe, memory: u64) -> Estimate {
    let base = recipe.base.open().unwrap();
    let tokenizer = recipe_tokenizer(recipe, &mut Silent).unwrap();
    let steps = Steps {
        batch_size: recipe.train.batch_size,
        seed: recipe.train.seed,
    };
    let (mut data, _) = simmer_lint::load(&recipe.data, &tokenizer, steps).unwrap();
    let known = Known {
        memory: Some(memory),
        ..Known::default()
    };
    estimate(recipe, &base, &tokenizer, &mut data, known).unwrap()
}

#[test]
fn it_is_suggested_where_the_weights_do_not_fit() {
    let kitchen = Kitchen::new();
    let recipe = kitchen.recipe(&["device=cpu"]);
    let whole = estimated(&recipe, 1 << 40);
    assert_eq!(whole.offloading(), None);
    assert!(whole.parts.mapped > 0);
    // all but a part of the mapped weights fits
    let memory = whole.peak - whole.parts.mapped / 2;
    let little = estimated(&recipe, memory);
    assert!(little.fits());
    let setting = "base.offload = \"disk\", train.recompute = \"layer\"";
    assert_eq!(little.offloading(), Some(setting));
    assert_eq!(little.instead[0].0, setting);
    let offloaded = estimated(&kitchen.recipe(&OFFLOADED), memory);
    assert_eq!(offloaded.offload, Some(Offload::Disk));
    assert_eq!((offloaded.parts.mapped, offloaded.offloading()), (0, None));
    assert_eq!(little.instead[0].1, offloaded.peak);
}

#[cfg(feature = "libtorch")]
#[test]
fn the_adapter_is_the_same_with_weights_in_main_memory() {
    let plain = ["device=libtorch", "train.recompute=layer"];
    let host = [plain[0], plain[1], "base.offload=host"];
    let kitchen = Kitchen::new();
    let adapter = kitchen.whole(&plain, "plain");
    assert_eq!(kitchen.whole(&host, "host"), adapter);
    kitchen.train(&host, "plain", true).unwrap();
}

#[test]
fn main_memory_is_suggested_where_the_weights_do_not_fit_on_a_gpu() {
    let settings = "[method.lora]\nrank = 8\n[train]\nbatch_size = 8\nmax_steps = 2\nlearning_rate = 1e-3\nmicro_batch_tokens = 256\n";
    // only estimated: nothing of this size is made
    let text = crate::estimate::recipe([1024, 4096, 24, 16, 16, 1536], settings);
    let of = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let recipe = Recipe::parse(Path::new("recipe.toml"), &text, &sets).unwrap();
        estimated(&recipe, 1 << 40)
    };
    let suggested = |estimate: &Estimate| {
        let mut all = estimate.instead.iter().cloned();
        all.find(|(name, _)| name.contains("base.offload"))
    };
    let whole = of(&["device=libtorch-cuda:0"]);
    let (name, peak) = suggested(&whole).unwrap();
    assert_eq!(name, "base.offload = \"host\", train.recompute = \"layer\"");
    let host = of(&[
        "device=libtorch-cuda:0",
        "train.recompute=layer",
        "base.offload=host",
    ]);
    assert_eq!((host.peak, suggested(&host)), (peak, None));
    // in f32: the matrices of 24 layers in main memory, those of two beside the tied embedding and norms on the GPU
    let layer = 4 * (4 * 1024 * 1024 + 3 * 1024 * 4096);
    let rest = 4 * (1536 * 1024 + 5 * 1024);
    assert_eq!(host.in_host.unwrap().bytes, 24 * layer);
    assert_eq!(host.parts.weights, 2 * layer + rest);
    let line = "\nhost             1.50 GiB  frozen layers in main memory";
    assert!(host.to_string().contains(line), "{host}");
    assert_eq!(whole.in_host, None);
}
