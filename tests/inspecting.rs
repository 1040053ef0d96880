//! Adapters by themselves: norms, spectra and differences against NumPy, and the errors of damaged ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;
use serde_json::Value;
use simmer_model::adapter::difference::difference;
use simmer_model::adapter::inspect::inspect;

use crate::commands::simmer;
use crate::golden;

/// f64 against f64 in another order, relative to the largest singular value; sums have at most 64 terms.
const EXACT: f64 = 1e-11;

#[derive(Deserialize)]
struct Golden {
    adapters: BTreeMap<String, BTreeMap<String, Module>>,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Module {
    scale: f64,
    norm_a: f64,
    norm_b: f64,
    singular_values: Vec<f64>,
    effective_rank: f64,
    stable_rank: f64,
}

#[derive(Deserialize)]
struct Pair {
    first: String,
    second: String,
    modules: BTreeMap<String, Compared>,
}

#[derive(Deserialize)]
struct Compared {
    distance: f64,
    cosine: Option<f64>,
    outputs: Option<Vec<f64>>,
    inputs: Option<Vec<f64>>,
}

fn golden() -> Golden {
    golden::json(golden::folder("inspect.json"))
}

fn close(found: f64, expected: f64, scale: f64) -> bool {
    (found - expected).abs() <= EXACT * scale
}

#[test]
fn norms_and_singular_values_equal_numpys() {
    let golden = golden();
    let low_rank = golden::llama_adapters();
    let low_rank = low_rank.filter(|(_, name)| !golden::WITHOUT_RANK.contains(name));
    assert_eq!(golden.adapters.len(), low_rank.count());
    for (folder, expected) in golden.adapters {
        let found = inspect(&golden::folder(&folder)).unwrap();
        assert_eq!(found.modules.len(), expected.len(), "{folder}");
        for module in &found.modules {
            let name = format!("{folder} {}", module.module);
            let expected = &expected[&module.module];
            assert!(
                close(module.scale, expected.scale, expected.scale),
                "{name}"
            );
            assert!(
                close(module.norm_a, expected.norm_a, expected.norm_a),
                "{name}"
            );
            assert!(
                close(module.norm_b, expected.norm_b, expected.norm_b),
                "{name}"
            );
            let update = module.update.as_ref().unwrap();
            assert_eq!(update.singular_values.len(), expected.singular_values.len());
            for (value, expected) in update.singular_values.iter().zip(&expected.singular_values) {
                assert!(
                    close(*value, *expected, update.largest()),
                    "{name}: {value} {expected}"
                );
            }
            assert!(
                close(update.effective_rank, expected.effective_rank, 4.0),
                "{name}"
            );
            assert!(
                close(update.stable_rank, expected.stable_rank, 4.0),
                "{name}"
            );
        }
    }
}

#[test]
fn differences_equal_numpys() {
    for pair in golden().pairs {
        let [first, second] = [&pair.first, &pair.second].map(|path| golden::folder(path));
        let found = difference(&first, &second).unwrap();
        assert!(!found.same_tensors);
        assert_eq!(found.modules.len(), pair.modules.len());
        for module in &found.modules {
            let name = format!("{} {} {}", pair.first, pair.second, module.module);
            let expected = &pair.modules[&module.module];
            assert!(
                close(module.distance.unwrap(), expected.distance, 1.0),
                "{name}"
            );
            assert_eq!(module.cosine.is_some(), expected.cosine.is_some(), "{name}");
            let cosines = module.cosine.zip(expected.cosine);
            assert!(
                cosines.is_none_or(|(found, expected)| close(found, expected, 1.0)),
                "{name}"
            );
            for (found, expected) in [
                (&module.outputs, &expected.outputs),
                (&module.inputs, &expected.inputs),
            ] {
                assert_eq!(found.is_some(), expected.is_some(), "{name}");
                let (Some(found), Some(expected)) = (found, expected) else {
                    continue;
                };
                assert_eq!(found.angles.len(), expected.len(), "{name}");
                for (angle, cosine) in found.angles.iter().zip(expected) {
                    let found = angle.to_radians().cos();
                    assert!(close(found, *cosine, 1.0), "{name}: {angle} {cosine}");
                }
                let overlap = expected.iter().map(|c| c * c).sum::<f64>() / expected.len() as f64;
                assert!(close(found.overlap, overlap, 1.0), "{name}");
            }
        }
    }
}

/// A page is written anew, and no other file is replaced.
#[test]
fn a_page_replaces_pages_alone() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = golden::adapter_folder("tied-gqa", "qkvo");
    let inspected = |file: &str| {
        let args = [
            "adapter",
            "inspect",
            adapter.to_str().unwrap(),
            "--html",
            file,
        ];
        simmer(folder.path(), &args).status.success()
    };
    assert!(inspected("page.html") && inspected("page.html"));
    std::fs::write(folder.path().join("mine.toml"), "rank = 4").unwrap();
    assert!(!inspected("mine.toml"));
    let kept = std::fs::read_to_string(folder.path().join("mine.toml")).unwrap();
    assert_eq!(kept, "rank = 4");
}

/// DoRA's magnitudes are a part of an adapter, though not of its low-rank updates.
#[test]
fn magnitudes_are_compared() {
    let folder = golden::adapter_folder("tied-gqa", "dora");
    let copy = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    let file = copy.path().join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let (key, tensor) = tensors
        .as_object()
        .unwrap()
        .iter()
        .find(|(key, _)| key.contains("lora_magnitude_vector"))
        .unwrap();
    assert_eq!(tensor["dtype"], "F32");
    let place = |at: usize| 8 + header + tensor["data_offsets"][at].as_u64().unwrap() as usize;
    for value in bytes[place(0)..place(1)].chunks_exact_mut(4) {
        let old = f32::from_le_bytes(value.try_into().unwrap());
        value.copy_from_slice(&(3.0 * old).to_le_bytes());
    }
    std::fs::write(&file, bytes).unwrap();
    let found = difference(&folder, copy.path()).unwrap();
    assert!(!found.same_tensors);
    assert_eq!(found.whole.len(), 1);
    assert_eq!(found.whole[0].key, *key);
    // ‖3m - m‖ / ‖3m‖
    assert!((found.whole[0].distance.unwrap() - 2.0 / 3.0).abs() < 1e-6);
}

#[test]
fn an_adapter_is_its_own_twin_and_others_of_its_base_are_not() {
    let folder = golden::adapter_folder("tied-gqa", "rslora");
    let twin = difference(&folder, &folder).unwrap();
    assert!(twin.same_tensors && twin.config.is_empty());
    assert!(
        twin.modules
            .iter()
            .all(|module| module.distance.unwrap() < 1e-14)
    );
    let other = difference(&folder, &golden::adapter_folder("llama3-rope", "qkvo")).unwrap_err();
    let said = other
        .to_string()
        .replace(env!("CARGO_MANIFEST_DIR"), "ROOT");
    insta::assert_snapshot!(said);
}

/// The tensors of an adapter in f32.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A copy of `tied-gqa/qkvo` whose tensors and configuration are changed.
fn changed(
    folder: &Path,
    change: impl FnOnce(&mut Tensors),
    config: impl FnOnce(&mut serde_json::Value),
) -> PathBuf {
    let original = golden::adapter_folder("tied-gqa", "qkvo");
    let file = std::fs::read(original.join("adapter_model.safetensors")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&file).unwrap();
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let mut tensors: Tensors = read
        .tensors()
        .into_iter()
        .map(|(key, view)| {
            (
                key,
                (
                    view.shape().to_vec(),
                    view.data().chunks(4).map(number).collect(),
                ),
            )
        })
        .collect();
    change(&mut tensors);
    let bytes: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(key, (shape, values))| {
            (
                key,
                (shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            )
        })
        .collect();
    let views = bytes.iter().map(|(key, (shape, bytes))| {
        (
            key,
            TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap(),
        )
    });
    let out = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), out).unwrap();
    let mut settings: serde_json::Value = golden::json(original.join("adapter_config.json"));
    config(&mut settings);
    std::fs::write(folder.join("adapter_config.json"), settings.to_string()).unwrap();
    folder.to_owned()
}

fn warnings(
    change: impl FnOnce(&mut Tensors),
    config: impl FnOnce(&mut serde_json::Value),
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let found = inspect(&changed(folder.path(), change, config)).unwrap();
    let folder = folder.path().display().to_string();
    found.warnings.join("\n").replace(&folder, "DIR")
}

const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";

#[test]
fn what_is_odd_is_said() {
    let none = |_: &mut Tensors| ();
    let as_is = |_: &mut serde_json::Value| ();
    assert_eq!(warnings(none, as_is), "");
    let zero_b = |tensors: &mut Tensors| {
        let b = tensors.iter_mut().filter(|(key, _)| key.contains("lora_B"));
        b.for_each(|(_, (_, values))| values.fill(0.0));
    };
    insta::assert_snapshot!(warnings(zero_b, as_is), @"the adapter changes nothing; B is zero everywhere: it was not trained");
    let nan = |tensors: &mut Tensors| {
        tensors.get_mut(&format!("{Q}.lora_A.weight")).unwrap().1[3] = f32::NAN;
        tensors.get_mut(&format!("{Q}.lora_B.weight")).unwrap().1[0] = f32::INFINITY;
    };
    insta::assert_snapshot!(warnings(nan, as_is), @"NaN or infinite values in model.layers.0.self_attn.q_proj");
    let absent = |tensors: &mut Tensors| {
        tensors.retain(|key, _| !key.starts_with(Q));
        tensors.remove("base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight");
        tensors.insert("lora_te.weight".to_owned(), (vec![1], vec![0.0]));
    };
    insta::assert_snapshot!(warnings(absent, as_is));
    let config = |config: &mut serde_json::Value| {
        config["target_modules"] = serde_json::json!(["q_proj", "k_proj", "gate_proj"]);
        config["r"] = 3.into();
        config["use_dora"] = true.into();
    };
    insta::assert_snapshot!(warnings(none, config));
}

#[test]
fn adapters_without_low_rank_branches_are_shown_by_their_values() {
    for name in golden::WITHOUT_RANK {
        let folder = golden::adapter_folder("untied-mha", name);
        let args = ["adapter", "inspect", folder.to_str().unwrap(), "--modules"];
        let output = simmer(Path::new("."), &args);
        let said = String::from_utf8(output.stdout).unwrap();
        let (_, said) = said.split_once('\n').unwrap();
        insta::assert_snapshot!(said);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        let both = difference(&folder, &folder).unwrap();
        assert!(both.same_tensors && both.modules.is_empty());
    }
}

#[test]
fn few_directions_of_a_high_rank_are_said() {
    let wide = |tensors: &mut Tensors| {
        let a: Vec<f32> = (0..16 * 32)
            .map(|i| ((i * 7919) % 101) as f32 - 50.0)
            .collect();
        let mut b = vec![0.0; 48 * 16];
        b.iter_mut().step_by(16).for_each(|value| *value = 1.0);
        tensors.insert(format!("{Q}.lora_A.weight"), (vec![16, 32], a));
        tensors.insert(format!("{Q}.lora_B.weight"), (vec![48, 16], b));
    };
    let rank = |config: &mut serde_json::Value| {
        config["rank_pattern"] = serde_json::json!({"layers.0.self_attn.q_proj": 16});
    };
    insta::assert_snapshot!(warnings(wide, rank));
}

#[test]
fn a_weights_file_alone_is_shown_without_its_scale() {
    let folder = tempfile::tempdir().unwrap();
    let original = golden::adapter_folder("tied-gqa", "qkvo");
    let file = folder.path().join("adapter_model.safetensors");
    std::fs::copy(original.join("adapter_model.safetensors"), &file).unwrap();
    let [alone, whole] = [&file, &original].map(|path| inspect(path).unwrap());
    assert!(alone.config.is_none() && alone.warnings.len() == 1);
    for (alone, whole) in alone.modules.iter().zip(&whole.modules) {
        let [alone, norm] = [alone, whole].map(|module| module.update.as_ref().unwrap().norm);
        assert!(close(alone * whole.scale, norm, norm));
    }
}

#[test]
fn files_that_are_no_adapter_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| {
        let error = inspect(path).unwrap_err().to_string();
        let error = error.replace(&folder.path().display().to_string(), "DIR");
        error.replace(env!("CARGO_MANIFEST_DIR"), "ROOT")
    };
    insta::assert_snapshot!(said(folder.path()), @"DIR: no adapter_model.safetensors in this folder; it is empty");
    insta::assert_snapshot!(said(&golden::folder("tied-gqa").join("model.safetensors")), @"ROOT/tests/goldens/tied-gqa/model.safetensors: no LoRA tensors in this file; its first key is `model.embed_tokens.weight`");
    let text = folder.path().join("adapter_model.bin");
    std::fs::write(&text, "not a pickle").unwrap();
    insta::assert_snapshot!(said(&text), @"DIR/adapter_model.bin: not a file of torch.save: expected a zip archive, found bytes 6e6f742061207069");
}

/// What a command prints, without paths of this machine.
fn printed(args: &[&str]) -> String {
    let output = simmer(Path::new(env!("CARGO_MANIFEST_DIR")), args);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_print_what_they_found() {
    let [rslora, qkvo] =
        ["rslora", "qkvo"].map(|name| format!("tests/goldens/tied-gqa/adapters/{name}"));
    insta::assert_snapshot!("inspect", printed(&["adapter", "inspect", &rslora]));
    insta::assert_snapshot!(
        "inspect_modules",
        printed(&["adapter", "inspect", "--modules", &qkvo])
    );
    insta::assert_snapshot!("diff", printed(&["adapter", "diff", &qkvo, &rslora]));
    insta::assert_snapshot!("diff_twins", printed(&["adapter", "diff", &qkvo, &qkvo]));
    let json: serde_json::Value =
        serde_json::from_str(&printed(&["adapter", "inspect", "--json", &rslora])).unwrap();
    assert_eq!(json["modules"][0]["rank"], 2);
    assert_eq!(json["config"]["use_rslora"], true);
    let json: serde_json::Value =
        serde_json::from_str(&printed(&["adapter", "diff", "--json", &qkvo, &qkvo])).unwrap();
    assert_eq!(json["identical"], true);
}

#[test]
fn the_page_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html").display().to_string();
    let rslora = "tests/goldens/tied-gqa/adapters/rslora";
    printed(&["adapter", "inspect", rslora, "--html", &page]);
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("down_proj") && html.ends_with("</html>\n"));
    assert!(!html.contains("http"), "nothing is fetched");
}
