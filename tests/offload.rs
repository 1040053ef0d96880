//! Frozen weights that stay in their files.

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
