use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::adapter::combine::dense::combined as combined_elements;
use crate::numbers::to_f64;
use crate::tensor_file::ReadData;

/// Values that depend on the name alone.
fn numbers(name: &str, len: usize) -> Vec<f32> {
    crate::random::normal(1, name, len)
}

/// An adapter on disk: for each module its rank; O = 7, I = 5.
fn adapter(
    dir: &Path,
    name: &str,
    modules: &[(&str, usize)],
    config: &serde_json::Value,
) -> PathBuf {
    let folder = dir.join(name);
    fs::create_dir(&folder).unwrap();
    let mut tensors = BTreeMap::new();
    for (module, rank) in modules {
        let mut insert = |end: &str, shape: [usize; 2]| {
            let key = format!("{KEY_PREFIX}{module}{end}");
            let values = numbers(&format!("{name}{key}"), shape[0] * shape[1]);
            tensors.insert(key, TensorData::new(values, shape));
        };
        insert(".lora_A.weight", [*rank, 5]);
        insert(".lora_B.weight", [7, *rank]);
    }
    let file = folder.join("adapter_model.safetensors");
    crate::tensor_file::write_safetensors(file, &tensors, &[]).unwrap();
    let mut all = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q_proj"], "base_model_name_or_path": "x"});
    for (key, value) in config.as_object().unwrap() {
        all[key] = value.clone();
    }
    fs::write(folder.join("adapter_config.json"), all.to_string()).unwrap();
    folder
}

const Q0: &str = "model.layers.0.self_attn.q_proj";
const Q1: &str = "model.layers.1.self_attn.q_proj";
const K0: &str = "model.layers.0.self_attn.k_proj";

/// Two adapters of other ranks, targets and scales.
fn two(dir: &Path) -> [PathBuf; 2] {
    let one = adapter(dir, "one", &[(Q0, 2), (Q1, 2)], &json!({}));
    let config = json!({"r": 3, "lora_alpha": 8, "use_rslora": true, "target_modules": ["q_proj", "k_proj"],
        "alpha_pattern": {"k_proj": 2}});
    let two = adapter(dir, "two", &[(Q0, 3), (Q1, 3), (K0, 3)], &config);
    [one, two]
}

/// s·B·A of a module, row after row; zeros without a branch.
fn update(folder: &Path, module: &str, scale: f64) -> Vec<f64> {
    let file = folder.join("adapter_model.safetensors");
    let file = simmer_checkpoint::SafetensorsFile::open(&file).unwrap();
    let read = |end: &str| file.data(&format!("{KEY_PREFIX}{module}{end}"));
    let (Ok(a), Ok(b)) = (read(".lora_A.weight"), read(".lora_B.weight")) else {
        return vec![0.0; 35];
    };
    let rank = a.shape()[0];
    let dtype = |data: &TensorData| crate::tensor_file::stored_dtype(data.dtype()).unwrap();
    let [a, b] = [a, b].map(|data| to_f64(data.as_bytes(), dtype(&data)));
    let element = |at: usize| {
        let terms = (0..rank).map(|k| b[at / 5 * rank + k] * a[k * 5 + at % 5]);
        scale * terms.sum::<f64>()
    };
    (0..35).map(element).collect()
}

/// The scales of the adapters of [`two`].
fn scales(module: &str) -> [f64; 2] {
    let alpha = if module == K0 { 2.0 } else { 8.0 };
    [1.5, alpha / 3.0_f64.sqrt()]
}

fn sum(folders: &[PathBuf; 2], module: &str, weights: [f64; 2]) -> Vec<f64> {
    let [one, two] = [0, 1].map(|at| {
        let update = update(&folders[at], module, scales(module)[at]);
        update.into_iter().map(move |value| value * weights[at])
    });
    one.zip(two).map(|(one, two)| one + two).collect()
}

fn weighted(folders: &[PathBuf; 2], weights: [f64; 2]) -> Vec<WeightedAdapter> {
    let pairs = folders.iter().zip(weights);
    pairs
        .map(|(folder, weight)| WeightedAdapter {
            folder: folder.clone(),
            weight,
        })
        .collect()
}

fn run(
    adapters: &[WeightedAdapter],
    options: &CombineOptions,
    out: &Path,
) -> Result<Combined, CombineError> {
    let combined = combine(adapters, options, &|_, _| ())?;
    combined.save(out, &[])?;
    Ok(combined)
}

fn distance(one: &[f64], two: &[f64]) -> f64 {
    let squares = one.iter().zip(two).map(|(one, two)| (one - two).powi(2));
    squares.sum::<f64>().sqrt()
}

fn options(method: Method) -> CombineOptions {
    CombineOptions {
        method,
        density: method.drops().then_some(0.5),
        ..CombineOptions::exact()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Also of negative weights, and of adapters without a branch.
    #[test]
    fn sums_are_exact(one in -2.0..2.0_f64, two in -2.0..2.0_f64) {
        let dir = tempfile::tempdir().unwrap();
        let folders = self::two(dir.path());
        for method in [Method::Linear, Method::Cat] {
            let out = dir.path().join(method.name());
            let combined = run(&weighted(&folders, [one, two]), &options(method), &out).unwrap();
            prop_assert_eq!(combined.rank(), 5);
            for (module, of) in [Q0, Q1, K0].iter().zip([0, 2, 1]) {
                let wanted = sum(&folders, module, [one, two]);
                let found = update(&out, module, 1.0);
                let size = distance(&wanted, &[0.0; 35]);
                let away = distance(&wanted, &found);
                // factors in f32, each rounded once
                prop_assert!(away <= 2e-7 * (1.0 + size), "{method:?} {module}: {away}");
                prop_assert_eq!(&combined.modules[of].module, module);
                prop_assert!((combined.modules[of].error - away).abs() <= 1e-9 * (1.0 + size));
                prop_assert!((combined.modules[of].norm - size).abs() <= 1e-9 * (1.0 + size));
            }
        }
    }
}

#[test]
fn a_difference_with_itself_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [one, _] = two(dir.path());
    let both = [one.clone(), one];
    let out = dir.path().join("out");
    let combined = run(
        &weighted(&both, [1.0, -1.0]),
        &options(Method::Linear),
        &out,
    )
    .unwrap();
    assert_eq!((combined.rank(), combined.relative_error()), (1, 0.0));
    // zeros of the shapes of the module
    assert_eq!(update(&out, Q0, 1.0), [0.0; 35]);
    // adapters that share their factors need no higher rank
    let out = dir.path().join("double");
    let combined = run(&weighted(&both, [1.0, 0.5]), &options(Method::Linear), &out).unwrap();
    assert_eq!(combined.rank(), 2);
}

/// The best approximation of a rank has the error of the singular values that it leaves out.
#[test]
fn what_truncation_loses_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let folders = two(dir.path());
    let adapters = weighted(&folders, [0.7, 0.3]);
    let mut last = f64::INFINITY;
    for rank in 1..=5 {
        let out = dir.path().join(format!("rank-{rank}"));
        let options = CombineOptions {
            rank: Some(rank),
            ..options(Method::Svd)
        };
        let combined = run(&adapters, &options, &out).unwrap();
        assert_eq!(combined.rank(), rank);
        let error = combined.relative_error();
        assert!(error < last, "{error} {last}");
        last = error;
        let wanted = sum(&folders, Q0, [0.7, 0.3]);
        let away = distance(&wanted, &update(&out, Q0, 1.0));
        let [module, ..] = &combined.modules[..] else {
            panic!("no module");
        };
        assert!((module.error - away).abs() < 1e-7, "{module:?} {away}");
    }
    assert!(last < 1e-6, "{last}");
}

/// By the definitions of PEFT's `merge_utils`, one element after another.
#[test]
fn elements_are_combined_as_peft_does() {
    let updates = vec![vec![1.0, -2.0, 0.5, 0.0], vec![-3.0, -1.0, 0.25, 0.75]];
    let found = |method, sign, density| {
        combined_elements(method, sign, density, updates.clone(), &[2.0, 1.0])
    };
    let total = MajoritySign::Total;
    assert_eq!(
        found(Method::MagnitudePrune, total, 0.5),
        [-1.0, -5.0, 0.0, 0.0]
    );
    // 1 and -3: negative; both negative: the mean of -4 and -1; 0 has no sign
    assert_eq!(found(Method::Ties, total, 1.0), [-3.0, -2.5, 0.625, 0.75]);
    // one vote each: a tie is positive
    let frequency = found(Method::Ties, MajoritySign::Frequency, 1.0);
    assert_eq!(frequency, [2.0, -2.5, 0.625, 0.75]);
    assert_eq!(found(Method::Ties, total, 0.5), [-3.0, -2.5, 0.0, 0.0]);
}

#[test]
fn random_elements_are_scaled_and_depend_on_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let folders = two(dir.path());
    let of = |seed: u64, method| {
        let out = dir.path().join(format!("{seed}{method:?}"));
        let options = CombineOptions {
            rank: Some(5),
            seed: Some(seed),
            ..options(method)
        };
        run(&weighted(&folders, [1.0, 1.0]), &options, &out).unwrap();
        update(&out, K0, 1.0)
    };
    let whole = sum(&folders, K0, [1.0, 1.0]);
    let dropped = of(7, Method::DareLinear);
    let kept = dropped.iter().zip(&whole).filter(|(found, whole)| {
        let kept = (*found - 2.0 * *whole).abs() < 1e-5 * whole.abs().max(1.0);
        assert!(kept || found.abs() < 1e-5, "{found} {whole}");
        kept
    });
    let kept = kept.count();
    assert!((8..=27).contains(&kept), "{kept} of 35 at density 0.5");
    // one adapter alone elects its own signs
    assert_eq!(of(7, Method::DareTies), dropped);
    assert_ne!(of(8, Method::DareLinear), dropped);
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folders = two(dir.path());
    let modules = [(Q0, 2), (Q1, 2)];
    let dora = adapter(dir.path(), "dora", &modules, &json!({"use_dora": true}));
    let pissa = adapter(
        dir.path(),
        "pissa",
        &modules,
        &json!({"init_lora_weights": "pissa"}),
    );
    let said = |second: &Path, options: &CombineOptions| {
        let adapters = weighted(&[folders[0].clone(), second.to_owned()], [1.0, 1.0]);
        let error = combine(&adapters, options, &|_, _| ()).unwrap_err();
        let hint = simmer_hint::Hint::hint(&error).unwrap_or_default();
        let text = format!("{error}\nhint: {hint}");
        text.replace(&dir.path().display().to_string(), "DIR")
    };
    let linear = options(Method::Linear);
    let mut all = vec![said(&dora, &linear), said(&pissa, &linear)];
    let two = &folders[1];
    for (method, change) in [
        (Method::Ties, (None, None, None)),
        (Method::Linear, (Some(0.5), None, None)),
        (Method::Ties, (Some(1.5), None, None)),
        (Method::Cat, (None, Some(8), None)),
        (Method::Svd, (None, Some(0), None)),
        (Method::Svd, (None, None, Some(2))),
    ] {
        let (density, rank, iterations) = change;
        let options = CombineOptions {
            method,
            rank,
            density,
            iterations,
            ..CombineOptions::exact()
        };
        all.push(said(two, &options));
    }
    for options in [
        CombineOptions {
            seed: Some(3),
            ..options(Method::MagnitudePrune)
        },
        CombineOptions {
            majority_sign: Some(MajoritySign::Total),
            ..options(Method::DareLinear)
        },
    ] {
        all.push(said(two, &options));
    }
    // another width
    let file = two.join("adapter_model.safetensors");
    let key = format!("{KEY_PREFIX}{Q0}.lora_B.weight");
    let mut tensors: BTreeMap<String, TensorData> = BTreeMap::new();
    {
        let read = simmer_checkpoint::SafetensorsFile::open(&file).unwrap();
        for name in read.names() {
            tensors.insert(name.to_owned(), read.data(name).unwrap());
        }
    }
    tensors.insert(key, TensorData::new(vec![0.5_f32; 27], [9, 3]));
    crate::tensor_file::write_safetensors(&file, &tensors, &[]).unwrap();
    all.push(said(two, &linear));
    // a whole module
    tensors.remove(&format!("{KEY_PREFIX}{Q0}.lora_B.weight"));
    tensors.remove(&format!("{KEY_PREFIX}{Q0}.lora_A.weight"));
    let head = format!("{KEY_PREFIX}lm_head.weight");
    tensors.insert(head, TensorData::new(vec![0.5_f32; 4], [2, 2]));
    crate::tensor_file::write_safetensors(&file, &tensors, &[]).unwrap();
    let config = two.join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("\"r\":3", "\"modules_to_save\":[\"lm_head\"],\"r\":3");
    fs::write(&config, text).unwrap();
    all.push(said(two, &linear));
    insta::assert_snapshot!(all.join("\n"));
}
