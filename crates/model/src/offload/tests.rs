use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::json;
use simmer_checkpoint::convert::{to_gguf, to_meta};
use simmer_checkpoint::gguf::model::FileType;
use simmer_checkpoint::gguf::{GgmlType, Vocabulary};
use simmer_checkpoint::{Dtype, ModelConfig, Pages, Pretrained};
use simmer_hint::Hint;

use super::*;
use crate::adapter::targets::Targets;
use crate::adapter::{LoraConfig, Starts, attach};
use crate::base::{BaseConfig, BaseError, BasePrecision, Offload, load};
use crate::export::save_model;
use crate::parameters::Parameters;
use crate::sequence::{Sequence, Target};
use crate::{LlamaForCausalLM, Recompute};

pub(super) const LAYERS: usize = 6;
/// Bytes of the matrices of a layer of [`saved`].
const LAYER: u64 = 4 * (4 * 128 * 128 + 3 * 128 * 384);
/// The system maps up to 16 pages around one that is used.
#[cfg(target_os = "linux")]
const AROUND: u64 = 64 << 10;

/// A random model whose layers have many pages, in a folder.
pub(super) fn saved(folder: &Path, tied: bool) {
    let json = json!({
        "model_type": "llama", "vocab_size": 50, "hidden_size": 128, "intermediate_size": 384,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "tie_word_embeddings": tied
    });
    let mut base = BaseConfig::default();
    base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
    let model = load(&base, 7, &Device::flex()).unwrap();
    save_model(&model, folder, Dtype::F32, &[]).unwrap();
}

fn offloaded(folder: &Path, offload: Option<Offload>) -> BaseConfig {
    let mut base = BaseConfig::from_path(folder);
    base.offload = offload;
    base
}

fn tuned(folder: &Path, offload: Option<Offload>, layers: &str) -> LlamaForCausalLM {
    let model = load(&offloaded(folder, offload), 0, &Device::flex()).unwrap();
    let mut lora = LoraConfig::default();
    lora.rank = 2;
    lora.targets = Targets::Regex(format!(
        r"model\.layers\.{layers}\..*(q_proj|o_proj|up_proj|down_proj)"
    ));
    attach(model, &lora, 3, "base", Starts::OfWeights)
        .unwrap()
        .model
}

pub(super) fn rows() -> (Sequence, Vec<Target>) {
    let rows: [&[u32]; 2] = [&[1, 5, 9, 13, 44], &[2, 3, 49, 8]];
    let slots = rows.iter().flat_map(|row| {
        let next = row[1..].iter().map(|token| Some(*token));
        next.chain([None])
    });
    let targets = Target::from_slots(&slots.collect::<Vec<_>>());
    (Sequence::from_rows(&rows), targets)
}

pub(super) fn bits(values: Tensor<1>) -> Vec<u32> {
    let data = values.into_data();
    data.iter::<f32>().map(f32::to_bits).collect()
}

pub(super) fn all_bits(parameters: Parameters) -> Vec<(String, Vec<u32>)> {
    let parameters = parameters.into_iter();
    parameters.map(|(name, of)| (name, bits(of))).collect()
}

#[test]
fn losses_and_gradients_have_the_same_bits() {
    let (sequence, targets) = rows();
    // everything trained, and the upper layers alone, so that the backward pass ends above the lowest layer
    for (tied, layers) in [(false, r"\d"), (true, "[45]")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("base");
        saved(&folder, tied);
        let plain = tuned(&folder, None, layers);
        let offloaded = tuned(&folder, Some(Offload::Disk), layers);
        assert!(plain.offloaded.is_none() && offloaded.offloaded.is_some());
        for recompute in [Recompute::Layer, Recompute::Mlp] {
            let run = |model: &LlamaForCausalLM| {
                let (loss, gradients) =
                    model.loss_and_gradients(&sequence, &targets, 0.25, recompute);
                (bits(loss), all_bits(gradients))
            };
            let expected = run(&plain);
            assert!(!expected.1.is_empty());
            // the second pass begins with other pages in memory than the first
            for pass in 0..2 {
                assert_eq!(run(&offloaded), expected, "{recompute:?}, pass {pass}");
            }
        }
        let loss = |model: &LlamaForCausalLM| bits(model.loss(&sequence, &targets).inner());
        assert_eq!(loss(&offloaded), loss(&plain));
        let text = [3, 1, 4, 1, 5];
        let scores = |model: &LlamaForCausalLM| model.score(&text).unwrap();
        assert_eq!(scores(&offloaded), scores(&plain));
    }
}

#[test]
fn quantised_weights_stay_in_their_file() {
    let (sequence, targets) = rows();
    let folder = tempfile::tempdir().unwrap();
    saved(&folder.path().join("base"), false);
    let model = Pretrained::open(&folder.path().join("base")).unwrap();
    let file = folder.path().join("q8.gguf");
    let (kind, vocabulary) = (Some(FileType::Of(GgmlType::Q8_0)), Vocabulary::default());
    to_gguf(&model, &file, kind, "x", &vocabulary, &mut |_, _| ()).unwrap();
    let run = |offload| {
        let model = tuned(&file, offload, r"\d");
        let (loss, gradients) =
            model.loss_and_gradients(&sequence, &targets, 1.0, Recompute::Layer);
        (bits(loss), all_bits(gradients), model.offloaded)
    };
    let (loss, gradients, _) = run(None);
    let offloaded = run(Some(Offload::Disk));
    assert_eq!((offloaded.0, offloaded.1), (loss, gradients));
    // 34 bytes for 32 elements; the pages of every layer are known
    let shown = format!("{:?}", offloaded.2.unwrap());
    let layer = LAYER / 4 / 32 * 34;
    assert!(
        shown.starts_with(&format!("Disk(LayerPages([{layer}, {layer},")),
        "{shown}"
    );
}

/// The bytes of the files in a folder that this process has in memory.
#[cfg(target_os = "linux")]
fn resident(folder: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    let mut kib = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if inside => kib += words.next().unwrap().parse::<u64>().unwrap(),
            Some(first) if !first.ends_with(':') => {
                inside = line.contains(&*folder.to_string_lossy());
            }
            _ => {}
        }
    }
    kib << 10
}

/// Waits until the pages in memory are between two bounds: the other thread may still read.
#[cfg(target_os = "linux")]
fn assert_resident(folder: &Path, least: u64, most: u64, when: &str) {
    for _ in 0..1000 {
        if (least..=most).contains(&resident(folder)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let found = resident(folder);
    panic!("{when}: {found} bytes in memory, expected {least} to {most}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_next_layer_is_read_and_the_others_are_released() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("base");
    saved(&folder, false);
    let checkpoint = Pretrained::open(&folder).unwrap().checkpoint;
    let all = checkpoint.pages(checkpoint.names()).unwrap();
    let layers: Vec<Pages> = (0..LAYERS)
        .map(|layer| {
            let within = format!("model.layers.{layer}.");
            let names = checkpoint.names().filter(|name| name.starts_with(&within));
            checkpoint.pages(names).unwrap()
        })
        .collect();
    all.release();
    let pages = LayerPages::new(layers, Pages::default(), Pages::default()).unwrap();
    let few = 4 * AROUND;
    pages.enter(Part::Layer(0), Some(Part::Layer(1)));
    // nothing has used the first layer
    assert_resident(&folder, LAYER, LAYER + few, "one is read ahead");
    for layer in 1..LAYERS - 1 {
        pages.enter(Part::Layer(layer), Some(Part::Layer(layer + 1)));
        assert_resident(&folder, 2 * LAYER, 2 * LAYER + few, "upwards");
    }
    for layer in (2..LAYERS - 1).rev() {
        pages.enter(Part::Layer(layer), Some(Part::Layer(layer - 1)));
        assert_resident(&folder, 2 * LAYER, 2 * LAYER + few, "downwards");
    }
    pages.enter(Part::Layer(0), None);
    assert_resident(&folder, 0, few, "released");
}

#[cfg(target_os = "linux")]
#[test]
fn a_pass_leaves_few_pages_in_memory() {
    let (sequence, targets) = rows();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("base");
    saved(&folder, false);
    let pass = |offload| {
        let model = tuned(&folder, offload, r"\d");
        model.loss_and_gradients(&sequence, &targets, 1.0, Recompute::Layer);
        model
    };
    let all = LAYERS as u64 * LAYER;
    let plain = pass(None);
    assert_resident(&folder, all, u64::MAX, "without offload");
    drop(plain);
    assert_resident(&folder, 0, 0, "the map is gone");
    let offloaded = pass(Some(Offload::Disk));
    assert_resident(&folder, 1, 2 * LAYER, "after a pass");
    // the loss alone goes upwards only: the lowest layer is read for the next pass
    offloaded.loss(&sequence, &targets);
    assert_resident(&folder, LAYER, 2 * LAYER, "after a loss");
}

#[test]
fn weights_that_cannot_stay_in_their_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    saved(&at("base"), false);
    let said = |base: &BaseConfig| {
        let error = load(base, 0, &Device::flex()).unwrap_err();
        assert!(matches!(
            error,
            BaseError::OffloadCopy { .. } | BaseError::OffloadDevice { .. }
        ));
        let hint = error.hint().unwrap();
        let text = format!("{error}\nhint: {hint}");
        text.replace(&*folder.path().to_string_lossy(), "")
    };
    let disk = offloaded(&at("base"), Some(Offload::Disk));
    let mut converted = disk.clone();
    converted.precision = Some(BasePrecision::Bf16);
    insta::assert_snapshot!(said(&converted), @"
    `base.offload`: /base: tensor `model.layers.0.self_attn.q_proj.weight`: stored in F32, and converted to bf16 when it is loaded (`base.precision`): a copy in memory
    hint: remove `base.precision`, or convert the model once, with `simmer convert IN OUT --dtype`
    ");
    let mut as_stored = disk;
    as_stored.precision = Some(BasePrecision::F32);
    load(&as_stored, 0, &Device::flex()).unwrap();
    // two layers with two norms each; embedding, head and the last norm
    let norm = 4 * 128;
    let at_a_time = 2 * (LAYER + 2 * norm) + 2 * 50 * norm + norm;
    assert_eq!(as_stored.open().unwrap().bytes_at_a_time(), at_a_time);
    insta::assert_snapshot!(said(&offloaded(&at("base"), Some(Offload::Host))), @r#"
    `base.offload`: the device `cpu` computes in main memory, so that "host" would save nothing
    hint: set base.offload = "disk", or remove it
    "#);
    let model = Pretrained::open(&at("base")).unwrap();
    to_meta(&model, &at("meta"), None, 1, &[], &mut |_, _| ()).unwrap();
    insta::assert_snapshot!(said(&offloaded(&at("meta"), Some(Offload::Disk))), @"
    `base.offload`: /meta: tensor `model.layers.0.self_attn.q_proj.weight`: stored in F32, and joined, aligned or widened when it is loaded: a copy in memory
    hint: convert the model once to a Hugging Face folder, with `simmer convert IN OUT`
    ");
}

#[cfg(feature = "libtorch")]
#[test]
fn libtorch_copies_weights() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("base");
    saved(&folder, false);
    let base = offloaded(&folder, Some(Offload::Disk));
    let device = crate::device::named("libtorch").unwrap();
    let error = load(&base, 0, &device).unwrap_err();
    insta::assert_snapshot!(format!("{error}\nhint: {}", error.hint().unwrap()), @r#"
    `base.offload`: the device `libtorch` copies weights before it computes with them, so that they cannot stay in their files ("disk")
    hint: set base.offload = "host", or remove it
    "#);
}
