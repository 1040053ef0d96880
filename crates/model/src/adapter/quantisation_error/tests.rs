use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use serde_json::json;
use simmer_checkpoint::ModelConfig;
use simmer_checkpoint::layout::ModuleKind;

use super::super::decomposition::truncated;
use super::super::{LoraConfig, Starts, attach, selection};
use super::*;
use crate::Sequence;
use crate::base::{BaseConfig, BasePrecision};
use crate::parameters::Parameters;

const HIDDEN: usize = 64;
const INNER: usize = 96;

/// A random model in nf4, and its adapter of a rank.
fn model(rank: usize) -> (Base, LoraConfig, LlamaForCausalLM) {
    let json = json!({
        "model_type": "llama", "vocab_size": 40, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3, "tie_word_embeddings": false
    });
    let mut config = BaseConfig::default();
    config.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
    config.precision = Some(BasePrecision::Nf4);
    let base = config.open().unwrap();
    let lora = LoraConfig {
        rank,
        alpha: 3.0 * rank as f64,
        targets: serde_json::from_value(json!(["q_proj", "down_proj", "embed_tokens"])).unwrap(),
        ..LoraConfig::default()
    };
    let model = base.load(7, &Device::flex()).unwrap();
    let model = attach(model, &lora, 3, "base", Starts::OfWeights)
        .unwrap()
        .model;
    (base, lora, model)
}

const ROWS: [&[u32]; 3] = [&[1, 5, 9, 13, 30, 22], &[2, 3, 39], &[8, 21, 4, 4]];

fn started(rank: usize, init: Init) -> (Base, LlamaForCausalLM, Selection) {
    let (base, lora, model) = model(rank);
    let chosen = selection(&lora, model.config()).unwrap();
    let model = make_up_for_quantisation(model, &chosen, init, &base, &ROWS, 7, 7).unwrap();
    (base, model, chosen)
}

fn values(parameters: &Parameters, end: &str) -> Vec<f32> {
    let (_, found) = parameters
        .iter()
        .find(|(name, _)| name.ends_with(end))
        .unwrap();
    found.to_data().iter::<f32>().collect()
}

/// `s B A` of a module, row after row.
fn product(model: &LlamaForCausalLM, module: &Selected) -> Vec<f32> {
    let parameters = model.trainable();
    let keys = peft_keys(model);
    let of = |end: &str| {
        let key = format!("{KEY_PREFIX}{}{end}", module.name);
        let (name, _) = keys.iter().find(|(_, other)| **other == key).unwrap();
        values(&parameters, name)
    };
    let [a, b] = kind::factors(false).map(|tensor| of(tensor.end));
    let ([outputs, inputs], rank) = (module.shape, module.rank);
    let element = |row: usize, column: usize| -> f32 {
        let terms = (0..rank).map(|k| b[row * rank + k] * a[k * inputs + column]);
        terms.sum::<f32>() * module.scaling as f32
    };
    (0..outputs)
        .flat_map(|row| (0..inputs).map(move |column| (row, column)))
        .map(|(row, column)| element(row, column))
        .collect()
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// No gradient reaches a rank whose row of A and column of B are zero.
fn assert_all_can_learn(model: &LlamaForCausalLM) {
    let parameters = model.trainable();
    let keys = peft_keys(model);
    let of_a = keys
        .iter()
        .filter(|(_, key)| key.ends_with(".lora_A.weight"));
    let names: Vec<&String> = of_a.map(|(name, _)| name).collect();
    assert_eq!(names.len(), 4);
    for name in names {
        let features = if name.contains("down") { INNER } else { HIDDEN };
        let rows = values(&parameters, name);
        for row in rows.chunks(features) {
            assert!(row.iter().any(|value| *value != 0.0), "{name}");
        }
    }
}

#[test]
fn loftq_is_the_best_approximation_of_the_error() {
    // less than the sides, and more
    for rank in [4, 100] {
        let (base, mut model, chosen) = started(rank, Init::Loftq);
        let linear = chosen
            .adapted
            .iter()
            .filter(|module| module.kind == ModuleKind::Linear);
        let mut count = 0;
        for module in linear {
            let error = error(&mut model, module, &base, 7).unwrap();
            let product = product(&model, module);
            let left = norm(
                error
                    .iter()
                    .zip(&product)
                    .map(|(error, product)| error - product),
            );
            let matrix = Matrix {
                values: &error,
                shape: module.shape,
            };
            let best = truncated(matrix, rank.min(HIDDEN)).values;
            let all = norm(error.iter().copied());
            let expected =
                (all.powi(2) - best.iter().map(|value| value.powi(2)).sum::<f64>()).max(0.0);
            // the decomposition is a random one; whole, f32 factors leave their rounding
            assert!(
                left <= 1.01 * expected.sqrt() + 1e-5 * all,
                "{left} {expected} {all}"
            );
            assert!(all > 0.0 && left < 0.95 * all, "{left} of {all}");
            count += 1;
        }
        assert_eq!(count, 4);
        assert_all_can_learn(&model);
        // the embedding is not quantised, and starts as ever
        let keys = peft_keys(&model);
        let key = |(name, key): (&String, &String)| {
            key.ends_with("lora_embedding_A").then(|| name.clone())
        };
        let name = keys.iter().find_map(key).unwrap();
        let a = values(&model.trainable(), &name);
        assert!(a.iter().all(|value| *value == 0.0));
    }
}

/// What modules read of the rows.
fn inputs(model: &mut LlamaForCausalLM, modules: &[&Selected]) -> Vec<Vec<f32>> {
    let mut walk = Walk::new(model, &ROWS, 7);
    let layers = modules.chunk_by(|one, next| one.layer == next.layer);
    let of = layers.flat_map(|modules| walk.inputs(model, modules[0].layer.unwrap(), modules));
    of.map(Option::unwrap).collect()
}

/// `E Xᵀ`, of `[O, I]` and `[T, I]`.
fn outputs(error: &[f32], inputs: &[f32], features: usize) -> Vec<f32> {
    let each = error.chunks(features).flat_map(|row| {
        let tokens = inputs.chunks(features);
        tokens.map(move |x| row.iter().zip(x).map(|(error, x)| error * x).sum::<f32>())
    });
    each.collect()
}

#[test]
fn qera_leaves_the_least_error_of_what_a_layer_computes() {
    const TOKENS: usize = 13;
    for rank in [4, 100] {
        let [loftq, qera] = [Init::Loftq, Init::Qera].map(|init| started(rank, init));
        let (base, mut model, chosen) = qera;
        assert_all_can_learn(&model);
        let linear = chosen
            .adapted
            .iter()
            .filter(|module| module.kind == ModuleKind::Linear);
        let modules: Vec<&Selected> = linear.collect();
        assert_eq!(modules.len(), 4);
        // those that were seen: of the model without the branches
        let inputs = inputs(&mut self::model(rank).2, &modules);
        for (module, inputs) in modules.into_iter().zip(inputs) {
            let [rows, features] = module.shape;
            assert_eq!(inputs.len(), TOKENS * features);
            let error = error(&mut model, module, &base, 7).unwrap();
            let [loftq, qera] = [&loftq.1, &model].map(|model| {
                let product = product(model, module);
                let pairs = error.iter().zip(&product);
                let rest: Vec<f32> = pairs.map(|(error, product)| error - product).collect();
                norm(outputs(&rest, &inputs, features).into_iter())
            });
            let whole = outputs(&error, &inputs, features);
            let matrix = Matrix {
                values: &whole,
                shape: [rows, TOKENS],
            };
            let values = truncated(matrix, TOKENS).values;
            let least = values.iter().skip(rank).map(|value| value.powi(2));
            let least = least.sum::<f64>().sqrt();
            let all = norm(whole.into_iter());
            // the decomposition is a random one; whole, f32 factors leave their rounding
            let bound = 1.01 * least + 1e-5 * all;
            assert!(qera <= bound, "rank {rank}: {qera} {least} {all}");
            assert!(rank > 4 || loftq > 1.05 * qera, "{loftq} {qera}");
        }
    }
    // and the whole model is nearer to the one that was not quantised
    let hidden = |model: &LlamaForCausalLM| {
        let sequence = Sequence::from_rows(&ROWS);
        let hidden = model.valid().hidden(&sequence, None).into_data();
        hidden.iter::<f32>().collect::<Vec<f32>>()
    };
    let (base, _, none) = model(4);
    let mut whole = BaseConfig::default();
    whole.init = Some(base.config.clone());
    let truth = hidden(&whole.open().unwrap().load(7, &Device::flex()).unwrap());
    let apart = |model: &LlamaForCausalLM| {
        norm(
            hidden(model)
                .iter()
                .zip(&truth)
                .map(|(found, truth)| found - truth),
        )
    };
    let [none, qera] = [apart(&none), apart(&started(16, Init::Qera).1)];
    assert!(qera < none, "{qera} {none}");
}
